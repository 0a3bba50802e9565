"""A saved model comes back to the bit, and a damaged one is refused."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import ch05.checkpoint
from ch04.gpt import GPTModel
from ch05.checkpoint import (
    SafetensorsReader,
    build_model,
    check_saved,
    is_tied,
    load_model,
    load_parameters,
    read_metadata,
    save_model,
    sha256_file,
    uninitialized,
)
from ch05.llama import LlamaModel
from ch05.tensorflow_reader import DamagedCheckpoint
from tests.conftest import TINY

LLAMA = {
    "vocab_size": 101,
    "context_length": 12,
    "emb_dim": 16,
    "n_heads": 4,
    "n_layers": 2,
    "hidden_dim": 24,
    "n_kv_groups": 2,
    "rope_base": 500.0,
}


@pytest.fixture
def path(tmp_path):
    """Where a model is to lie, in a folder yet to be made."""
    return tmp_path / "checkpoints" / "tiny.safetensors"


@pytest.fixture
def saved(path, tiny_model, tiny_config):
    """The path of the saved tiny model."""
    save_model(path, tiny_model, tiny_config)
    return path


@pytest.fixture
def tied_model(tiny_model):
    """The tiny model with one table at both ends, as GPT-2 has it."""
    tiny_model.out_head.weight = tiny_model.tok_emb.weight
    return tiny_model


@pytest.fixture
def llama_model():
    """A seeded tiny Llama in evaluation mode."""
    torch.manual_seed(123)
    return LlamaModel(LLAMA).eval()


@pytest.fixture
def no_drawing(monkeypatch):
    """Whoever draws the numbers of a layer fails."""

    def refuse(*_, **__):
        raise AssertionError("a layer was initialized")

    for name in ("kaiming_uniform_", "uniform_", "normal_"):
        monkeypatch.setattr(nn.init, name, refuse)


def seal(path):
    """Write the sha256 that belongs to the file as it is now."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sha256_file(path).write_text(f"{digest}  {path.name}\n")


def test_a_model_comes_back_to_the_bit(saved, tiny_model, tiny_config, token_ids):
    model, cfg = load_model(saved)
    assert cfg == tiny_config
    assert type(model) is GPTModel and not model.training
    assert torch.equal(model(token_ids), tiny_model(token_ids))


def test_it_loads_onto_each_device(saved, device):
    model, _ = load_model(saved, device)
    assert {p.device.type for p in model.parameters()} == {device.type}


def test_paths_may_be_texts(path, tiny_model, tiny_config, token_ids):
    save_model(str(path), tiny_model, tiny_config)
    model, _ = load_model(str(path))
    assert torch.equal(model(token_ids), tiny_model(token_ids))


def test_a_llama_comes_back_to_the_bit(path, llama_model, token_ids):
    save_model(path, llama_model, LLAMA)
    model, cfg = load_model(path)
    assert cfg == LLAMA and type(model) is LlamaModel and is_tied(model)
    assert torch.equal(model(token_ids), llama_model(token_ids))


def test_a_tied_weight_is_stored_once(path, tied_model, tiny_config, token_ids):
    save_model(path, tied_model, tiny_config)
    stored = load_file(path)
    assert "tok_emb.weight" in stored and "out_head.weight" not in stored
    assert sum(t.numel() for t in stored.values()) == sum(
        p.numel() for p in tied_model.parameters()
    )
    model, _ = load_model(path)
    assert torch.equal(model(token_ids), tied_model(token_ids))


def test_a_tied_weight_is_one_parameter_after_loading(path, tied_model, tiny_config):
    save_model(path, tied_model, tiny_config)
    model, _ = load_model(path)
    assert is_tied(model)
    assert len([*model.parameters()]) == len([*tied_model.parameters()])
    with torch.no_grad():
        model.tok_emb.weight[3] = 7.0
    assert model.out_head.weight[3].eq(7.0).all()


def test_equal_numbers_alone_do_not_tie(path, tiny_model, tiny_config):
    with torch.no_grad():
        tiny_model.out_head.weight.copy_(tiny_model.tok_emb.weight)
    save_model(path, tiny_model, tiny_config)
    model, _ = load_model(path)
    assert not is_tied(model)
    assert torch.equal(model.out_head.weight, model.tok_emb.weight)


def test_saving_leaves_the_model_as_it_was(path, tied_model, tiny_config, token_ids):
    expected = tied_model(token_ids)
    save_model(path, tied_model, tiny_config)
    assert is_tied(tied_model) and "out_head.weight" in tied_model.state_dict()
    assert torch.equal(tied_model(token_ids), expected)


def test_half_precision_takes_half_the_file_and_keeps_its_values(
    saved, tiny_model, tiny_config
):
    full = saved.stat().st_size
    save_model(saved, tiny_model.bfloat16(), tiny_config)
    assert saved.stat().st_size < 0.6 * full
    loaded = dict(load_model(saved)[0].named_parameters())
    for name, parameter in tiny_model.named_parameters():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], parameter.float())


def test_loaded_parameters_are_contiguous_and_trainable(saved):
    model, _ = load_model(saved)
    assert all(p.is_contiguous() and p.requires_grad for p in model.parameters())


def test_a_model_whose_weights_cannot_be_saved_leaves_nothing(
    path, tiny_model, tiny_config
):
    turned = tiny_model.out_head.weight.detach().T.contiguous().T
    tiny_model.out_head.weight = nn.Parameter(turned)
    with pytest.raises(ValueError, match="non contiguous"):
        save_model(path, tiny_model, tiny_config)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize(("cfg", "kind"), [(TINY, GPTModel), (LLAMA, LlamaModel)])
def test_a_built_model_is_of_the_config_and_draws_no_numbers(cfg, kind, no_drawing):
    with pytest.raises(AssertionError, match="was initialized"):
        kind(cfg)
    model = build_model(cfg)
    assert type(model) is kind
    assert model.context_length == cfg["context_length"]
    assert model.out_head.weight.shape == (cfg["vocab_size"], cfg["emb_dim"])
    assert len(model.trf_blocks) == cfg["n_layers"]


def test_building_leaves_the_random_state_alone(tiny_config):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    build_model(tiny_config)
    assert torch.equal(torch.get_rng_state(), before)


def test_loading_leaves_the_random_state_alone(saved):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    load_model(saved)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "layer", [lambda: nn.Linear(3, 4), lambda: nn.Embedding(5, 2)], ids=["lin", "emb"]
)
def test_later_layers_are_initialized_as_ever(layer, tiny_config):
    torch.manual_seed(123)
    expected = layer().weight
    build_model(tiny_config)
    torch.manual_seed(123)
    assert torch.equal(layer().weight, expected)


def test_an_error_while_building_restores_initialization(tiny_config):
    usual = nn.Linear.reset_parameters, nn.Embedding.reset_parameters
    with pytest.raises(KeyError), uninitialized():
        assert nn.Linear.reset_parameters is not usual[0]
        assert nn.Embedding.reset_parameters is not usual[1]
        raise KeyError
    assert (nn.Linear.reset_parameters, nn.Embedding.reset_parameters) == usual
    with pytest.raises(ValueError, match="n_heads 5 does not divide"):
        build_model(tiny_config | {"n_heads": 5})
    assert (nn.Linear.reset_parameters, nn.Embedding.reset_parameters) == usual


def test_a_reader_gives_each_tensor_by_its_name(saved, tiny_model):
    read = SafetensorsReader(saved)
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(read(name), tensor)


def test_a_reader_keeps_nothing_of_the_file_in_memory(saved):
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("needs /proc, to see what is mapped")
    read = SafetensorsReader(saved)
    tensor = read("tok_emb.weight")
    assert str(saved) in maps.read_text()
    del tensor
    assert str(saved) not in maps.read_text()


def test_a_reader_names_the_tensor_that_is_not_there(saved):
    with pytest.raises(DamagedCheckpoint, match="tiny.safetensors is .* tensor wte"):
        SafetensorsReader(saved)("wte")


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_reader_finds_a_cut_file_damaged(saved, kept):
    saved.write_bytes(saved.read_bytes()[:kept])
    read = SafetensorsReader(saved)
    with pytest.raises(DamagedCheckpoint, match="tiny.safetensors is damaged"):
        read("tok_emb.weight")
    with pytest.raises(DamagedCheckpoint, match="tiny.safetensors is damaged"):
        read.metadata()


def test_a_file_may_have_no_metadata(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "plain.safetensors")
    assert SafetensorsReader(tmp_path / "plain.safetensors").metadata() == {}


def test_metadata_is_kept(path, tiny_model, tiny_config):
    save_model(path, tiny_model, tiny_config, logits="[1.5, 2.5]", origin="a test")
    metadata = SafetensorsReader(path).metadata()
    assert metadata["logits"] == "[1.5, 2.5]" and metadata["origin"] == "a test"
    assert json.loads(metadata["config"]) == tiny_config
    assert load_model(path)[1] == tiny_config


def test_metadata_is_read_without_the_model(path, tiny_model, tiny_config):
    save_model(path, tiny_model, tiny_config, origin="a test")
    expected = {"config": tiny_config, "tied": "False", "origin": "a test"}
    assert read_metadata(path) == expected
    assert read_metadata(str(path)) == expected


@pytest.mark.parametrize("place", [0.005, 0.5, 1.0])
def test_metadata_of_a_damaged_file_is_not_read(saved, place):
    content = bytearray(saved.read_bytes())
    content[round(place * (len(content) - 1))] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="tiny.safetensors is damaged"):
        read_metadata(saved)


def test_metadata_of_a_missing_file_is_missing(path):
    with pytest.raises(FileNotFoundError):
        read_metadata(path)


def test_a_part_of_a_model_can_be_saved_and_read(path, tiny_model, tiny_config):
    """A block has no embedding to be tied to."""
    block, other = tiny_model.trf_blocks
    assert not is_tied(block)
    save_model(path, block, {"of": "a test"})
    assert not torch.equal(other.ff.layers[0].weight, block.ff.layers[0].weight)
    load_parameters(path, dict(other.named_parameters()))
    for found, expected in zip(other.parameters(), block.parameters()):
        assert torch.equal(found, expected)
        assert found.requires_grad and found.data_ptr() != expected.data_ptr()


def test_parameters_of_another_model_are_refused(path, tiny_model):
    save_model(path, tiny_model.trf_blocks[0], {"of": "a test"})
    before = [p.clone() for p in tiny_model.parameters()]
    with pytest.raises(ValueError, match="does not fit its own config: .* differ"):
        load_parameters(path, dict(tiny_model.named_parameters()))
    assert all(map(torch.equal, before, tiny_model.parameters()))


def test_a_file_from_before_models_could_be_tied(path, tiny_model, tiny_config):
    path.parent.mkdir()
    metadata = {"config": json.dumps(tiny_config)}
    save_file(tiny_model.state_dict(), path, metadata=metadata)
    seal(path)
    model, _ = load_model(path)
    assert not is_tied(model)
    assert torch.equal(model.out_head.weight, tiny_model.out_head.weight)


def test_the_sha256_is_written_as_sha256sum_writes_it(saved):
    said = sha256_file(saved).read_text()
    seal(saved)
    assert sha256_file(saved).read_text() == said
    check_saved(saved)


@pytest.mark.parametrize("place", [0.0, 0.005, 0.02, 0.5, 1.0])
def test_a_flipped_bit_is_seen(saved, place):
    """In the length of the header, in the header, and in the numbers."""
    content = bytearray(saved.read_bytes())
    content[round(place * (len(content) - 1))] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="tiny.safetensors is damaged"):
        load_model(saved)


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_a_truncated_file_is_seen(saved, kept):
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(ValueError, match="is damaged"):
        load_model(saved)


def test_a_missing_file_is_not_a_damaged_one(saved):
    saved.unlink()
    with pytest.raises(FileNotFoundError, match=r"tiny.safetensors'"):
        load_model(saved)


def test_a_file_without_its_sha256_is_not_trusted(saved):
    sha256_file(saved).unlink()
    with pytest.raises(FileNotFoundError, match=r"tiny.safetensors.sha256"):
        load_model(saved)


def test_an_empty_sha256_vouches_for_nothing(saved):
    sha256_file(saved).write_text("")
    with pytest.raises(ValueError, match="is damaged"):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layers": 3}, "its own config: .*trf_blocks.2"),
        ({"n_layers": 1}, "its own config: .*trf_blocks.1"),
        ({"qkv_bias": True}, "its own config: .*trf_blocks.0.att.W_key.bias"),
        ({"emb_dim": 32}, r"shapes differ: \(101, 32\), \(101, 16\)"),
        ({"vocab_size": 100}, r"shapes differ: \(100, 16\), \(101, 16\)"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    path, tiny_model, tiny_config, change, message
):
    save_model(path, tiny_model, tiny_config | change)
    with pytest.raises(ValueError, match=message):
        load_model(path)


def test_a_config_of_another_architecture_is_refused(path, tiny_model, llama_model):
    save_model(path, tiny_model, LLAMA)
    with pytest.raises(ValueError, match="does not fit its own config"):
        load_model(path)


def test_a_failed_save_leaves_the_old_model(
    saved, tiny_model, tiny_config, token_ids, monkeypatch
):
    expected = tiny_model(token_ids)

    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_model(saved, tiny_model, tiny_config)
    assert sorted(saved.parent.iterdir()) == [saved, sha256_file(saved)]
    assert torch.equal(load_model(saved)[0](token_ids), expected)


def test_a_save_killed_before_its_sha256_is_seen(
    saved, tiny_model, tiny_config, monkeypatch
):
    """New weights beside the sha256 of the old ones must not pass for whole."""

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ch05.checkpoint, "write_atomically", killed)
    with torch.no_grad():
        tiny_model.tok_emb.weight[0] += 1
    with pytest.raises(KeyboardInterrupt):
        save_model(saved, tiny_model, tiny_config)
    with pytest.raises(ValueError, match="is damaged"):
        load_model(saved)
