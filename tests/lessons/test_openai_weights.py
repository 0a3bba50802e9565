"""OpenAI's weights become a GPTModel that computes what transformers' GPT-2 does."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.openai_weights import (
    MODEL_CONFIGS,
    assign,
    branch_of,
    copy_openai_weights,
    download_and_load_gpt2,
    download_file,
    load_weights_into_gpt,
    openai_layout,
)
from support.download import gpt2_files
from support.download.fetch import FetchError
from support.download.tensorflow_checkpoint import DamagedCheckpoint
from support.weights.reference import (
    TINY,
    openai_arrays,
    sizes_and_hashes,
    transformers_gpt2,
    write_openai,
)
from tests.server import Answer, serving

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = GPT_CONFIG_124M | {"drop_rate": 0.0, "qkv_bias": True} | TINY


@pytest.fixture(scope="module")
def reference():
    """transformers' GPT-2 with the weights that the files here hold."""
    return transformers_gpt2(CONFIG)


@pytest.fixture(scope="module")
def published(reference, tmp_path_factory):
    """A folder with OpenAI's seven files."""
    folder = tmp_path_factory.mktemp("published") / "124M"
    write_openai(folder, reference)
    return folder


@pytest.fixture
def known(published, monkeypatch):
    """The course knows these files by size and sha256; no network is allowed."""
    monkeypatch.setitem(gpt2_files.BY_SIZE, "124M", sizes_and_hashes(published))
    monkeypatch.setenv("LLMS_OFFLINE", "1")


@pytest.fixture
def params(published, known):
    """The arrays of the checkpoint, nested."""
    return download_and_load_gpt2("124M", published.parent)[1]


def build(**changes):
    """A seeded GPT in evaluation mode."""
    torch.manual_seed(123)
    return GPTModel(CONFIG | changes).eval()


def draw_ids(cfg, num_tokens=20):
    """Two rows of seeded token ids."""
    generator = torch.Generator().manual_seed(123)
    return torch.randint(cfg["vocab_size"], (2, num_tokens), generator=generator)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)]
)
@torch.no_grad()
def test_the_logits_are_those_of_transformers(params, dtype, tolerance):
    reference = transformers_gpt2(CONFIG).to(dtype)
    gpt = build().to(dtype)
    load_weights_into_gpt(gpt, params)
    ids = draw_ids(CONFIG)
    logits, expected = gpt(ids), reference(ids).logits
    assert logits.dtype == dtype
    assert expected.abs().max() > 1  # or the tolerance would say little
    torch.testing.assert_close(logits, expected, atol=tolerance, rtol=0)


@torch.no_grad()
def test_weights_load_into_a_model_on_each_device(params, reference, device):
    gpt = build().to(device)
    load_weights_into_gpt(gpt, params)
    assert all(p.device.type == device.type for p in gpt.parameters())
    ids = draw_ids(CONFIG)
    logits, expected = gpt(ids.to(device)).cpu(), reference(ids).logits
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)


def test_a_file_is_downloaded_as_in_the_book(monkeypatch, tmp_path):
    """Called by position and by name, with a backup or without; never fetched twice."""
    first, second, third = (tmp_path / name for name in ("a.json", "b.json", "c.json"))
    with serving(monkeypatch) as server:
        whole = server.mirror("/whole.json", body=b"{}")
        gone = server.mirror("/gone.json", status=404)
        download_file(whole, str(first))
        download_file(gone, second, whole)
        download_file(url=gone, destination=third, backup_url=whole)
        download_file(gone, first)
        assert server.paths == ["/whole.json"] + 2 * ["/gone.json", "/whole.json"]
    assert {path.read_bytes() for path in (first, second, third)} == {b"{}"}


@pytest.mark.parametrize("has_backup", [False, True])
def test_a_download_that_fails_raises(monkeypatch, tmp_path, has_backup):
    """The book's function prints what happened and returns."""
    with serving(monkeypatch) as server:
        gone = server.mirror("/gone.json", status=404)
        backup_url = server.mirror("/gone-too.json", status=404) if has_backup else None
        with pytest.raises(FetchError, match="could not download a.json"):
            download_file(gone, tmp_path / "a.json", backup_url)
    assert not (tmp_path / "a.json").exists()


def test_settings_and_params_are_nested_as_in_the_book(published, known):
    settings, params = download_and_load_gpt2("124M", published.parent)
    assert settings.keys() == {"n_vocab", "n_ctx", "n_embd", "n_head", "n_layer"}
    assert params.keys() == {"blocks", "b", "g", "wpe", "wte"}
    assert len(params["blocks"]) == settings["n_layer"] == 2
    block = params["blocks"][1]
    assert block.keys() == {"attn", "ln_1", "ln_2", "mlp"}
    assert block["attn"]["c_attn"]["w"].shape == (16, 48)  # without its axis of 1
    assert block["mlp"]["c_proj"]["b"].shape == (16,)


def test_every_array_arrives_to_the_bit(params, reference):
    arrays = openai_arrays(reference)
    assert len(arrays) == 2 + 12 * 2 + 2
    for name, array in arrays.items():
        branch, key = branch_of(params, name)
        assert np.array_equal(branch[key], array), name


def test_the_seven_files_are_fetched_once(published, known, tmp_path, monkeypatch):
    with serving(monkeypatch) as server:
        for path in published.iterdir():
            url = server.mirror(f"/models/124M/{path.name}", body=path.read_bytes())
        monkeypatch.setattr(gpt2_files, "OPENAI", (url.partition("/124M")[0],))
        _, params = download_and_load_gpt2("124M", tmp_path)
        assert len(server.requests) == 7
        download_and_load_gpt2("124M", tmp_path)
        assert len(server.requests) == 7
    assert (
        sizes_and_hashes(tmp_path / "124M").items()
        >= sizes_and_hashes(published).items()
    )
    load_weights_into_gpt(build(), params)


def test_the_second_server_helps_out(published, known, tmp_path, monkeypatch):
    with serving(monkeypatch) as server:
        for path in published.iterdir():
            server.mirror(f"/down/124M/{path.name}", Answer(status=404))
            url = server.mirror(f"/up/124M/{path.name}", body=path.read_bytes())
        base = url.partition("/up")[0]
        monkeypatch.setattr(gpt2_files, "OPENAI", (f"{base}/down", f"{base}/up"))
        settings, _ = download_and_load_gpt2("124M", tmp_path)
    assert settings["n_embd"] == 16


@pytest.mark.parametrize("text", ["[]", "{}", "[" * 9999, '{"n_layer": 1}', ""])
def test_strange_settings_are_damage(published, known, tmp_path, monkeypatch, text):
    shutil.copytree(published, tmp_path / "124M")
    (tmp_path / "124M" / "hparams.json").write_text(text)
    size = (len(text), None)
    monkeypatch.setitem(gpt2_files.BY_SIZE["124M"], "hparams.json", size)
    with pytest.raises((DamagedCheckpoint, FetchError), match="hparams.json"):
        download_and_load_gpt2("124M", tmp_path)


@pytest.mark.parametrize("model_size", ["125M", "../124M", "gpt2-small (124M)", ""])
def test_an_unknown_size_is_refused(model_size, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    with pytest.raises(ValueError) as raised:
        download_and_load_gpt2(model_size, tmp_path / "models")
    assert "124M" in str(raised.value) and "1558M" in str(raised.value)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", MODEL_CONFIGS)
@torch.no_grad()
def test_all_four_sizes_load(name):
    depth = MODEL_CONFIGS[name] | {"emb_dim": 2 * MODEL_CONFIGS[name]["n_heads"]}
    cfg = CONFIG | depth
    reference = transformers_gpt2(cfg)
    gpt = GPTModel(cfg).eval()
    copy_openai_weights(gpt, openai_arrays(reference).__getitem__)
    ids = draw_ids(cfg)
    expected = reference(ids).logits
    tolerance = 1e-4 * expected.abs().max().item()
    torch.testing.assert_close(gpt(ids), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("gpt2-small (124M)", 124_439_808),
        ("gpt2-medium (355M)", 354_823_168),
        ("gpt2-large (774M)", 774_030_080),
        ("gpt2-xl (1558M)", 1_557_611_200),
    ],
)
def test_the_configs_have_openais_number_of_parameters(name, num_parameters):
    with torch.device("meta"):
        gpt = GPTModel(GPT_CONFIG_124M | {"qkv_bias": True} | MODEL_CONFIGS[name])
    gpt.out_head.weight = gpt.tok_emb.weight
    assert sum(p.numel() for p in gpt.parameters()) == num_parameters
    assert gpt.trf_blocks[0].att.head_dim == 64  # in all four


def test_the_layout_names_each_parameter_once():
    gpt = build()
    named = [p for _, parameters in openai_layout(gpt) for p in parameters]
    others = [p for p in gpt.parameters() if all(p is not q for q in named)]
    assert len({id(parameter) for parameter in named}) == len(named)
    assert [id(p) for p in others] == [id(gpt.out_head.weight)]


# assign


@pytest.mark.parametrize("right", [np.arange(6.0).reshape(2, 3), torch.rand(2, 3)])
def test_assign_writes_in_place(right):
    left = nn.Parameter(torch.zeros(2, 3))
    place = left.data_ptr()
    assert assign(left, right) is left
    assert left.data_ptr() == place and left.requires_grad
    assert torch.equal(left, torch.as_tensor(right).float())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_assign_keeps_the_data_type(dtype):
    left = nn.Parameter(torch.zeros(3, dtype=dtype))
    assign(left, np.array([1.0, 2.0, 3.0], dtype=np.float32))
    assert left.dtype == dtype and left.tolist() == [1, 2, 3]


def test_assign_keeps_the_memory_layout():
    left = nn.Parameter(torch.zeros(3, 2))
    transposed = np.arange(6.0).reshape(2, 3).T
    assert not transposed.flags.c_contiguous
    assign(left, transposed)
    assert left.is_contiguous() and left.stride() == (2, 1)
    assert np.array_equal(left.detach().numpy(), transposed)


def test_assign_reaches_all_who_share_the_parameter():
    embedding, head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    head.weight = embedding.weight
    assign(embedding.weight, np.ones((5, 3), dtype=np.float32))
    assert head.weight is embedding.weight
    assert torch.equal(head.weight, torch.ones(5, 3))


@pytest.mark.parametrize("shape", [(3, 2), (3,), (1, 3), (6,), ()])
def test_assign_refuses_other_shapes_and_names_both(shape):
    left = nn.Parameter(torch.zeros(2, 3))
    with pytest.raises(ValueError) as raised:
        assign(left, np.ones(shape))
    assert str(raised.value) == f"shapes differ: left (2, 3), right {shape}"
    assert not left.any()


# load_weights_into_gpt


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layers": 3}, "weights have 2 blocks, but the model has 3"),
        ({"n_layers": 1}, "weights have 2 blocks, but the model has 1"),
        ({"qkv_bias": False}, "GPT-2 has biases: build .*qkv_bias"),
        (
            {"emb_dim": 20},
            r"wte does not fit the model: .*\(101, 20\), right \(101, 16\)",
        ),
        ({"context_length": 23}, r"wpe does not fit the model: .*\(23, 16\)"),
        ({"vocab_size": 100}, r"wte does not fit the model: .*\(100, 16\)"),
    ],
)
def test_what_does_not_fit_is_named(params, changes, message):
    with pytest.raises(ValueError, match=message):
        load_weights_into_gpt(build(**changes), params)


def test_a_wrong_array_in_the_middle_is_named(params):
    params["blocks"][1]["attn"]["c_attn"]["w"] = np.zeros((16, 45), dtype=np.float32)
    with pytest.raises(ValueError, match="h1/attn/c_attn/w does not fit the model"):
        load_weights_into_gpt(build(), params)


def test_every_parameter_is_contiguous(params):
    gpt = build()
    load_weights_into_gpt(gpt, params)
    assert all(parameter.is_contiguous() for parameter in gpt.parameters())


def test_both_ends_are_one_parameter(params):
    untied = sum(parameter.numel() for parameter in build().parameters())
    gpt = build()
    load_weights_into_gpt(gpt, params)
    assert gpt.out_head.weight is gpt.tok_emb.weight
    tied = sum(parameter.numel() for parameter in gpt.parameters())
    assert untied - tied == CONFIG["vocab_size"] * CONFIG["emb_dim"]


def test_both_ends_are_trained_together(params):
    gpt = build()
    load_weights_into_gpt(gpt, params)
    before = gpt.out_head.weight.detach().clone()
    optimizer = torch.optim.SGD(gpt.parameters(), lr=0.1)
    gpt(torch.tensor([[1, 2, 3]])).square().mean().backward()
    gradient = gpt.tok_emb.weight.grad.clone()
    optimizer.step()
    torch.testing.assert_close(gpt.out_head.weight, before - 0.1 * gradient)
    assert gpt.out_head.weight is gpt.tok_emb.weight
    assert gradient[50].any()  # not in the input: this comes from the output alone


def test_another_file_can_be_loaded_over_the_first(params, reference):
    gpt = build()
    other = openai_arrays(transformers_gpt2(CONFIG, seed=7))
    copy_openai_weights(gpt, other.__getitem__)
    load_weights_into_gpt(gpt, params)
    ids = draw_ids(CONFIG)
    with torch.no_grad():
        torch.testing.assert_close(gpt(ids), reference(ids).logits, atol=1e-4, rtol=0)
