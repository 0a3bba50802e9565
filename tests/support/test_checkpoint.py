"""A saved model comes back to the bit, and a damaged one is refused."""

import copy
import errno
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ch04.gpt import GPTModel
from ch05.llama import LlamaModel
from support.download.tensorflow_checkpoint import DamagedCheckpoint
from support.paths import ROOT
from support.weights.checkpoint import (
    SafetensorsReader,
    build_model,
    is_tied,
    load_model,
    load_parameters,
    open_saved,
    save_model,
    save_weights,
    sha256_file,
    sha256_of_model,
)
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


def vouch(path):
    """Write the sha256 that belongs to the file as it is now beside it."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sha256_file(path).write_text(f"{digest}  {path.name}\n")


def save_as_of_old(path, weights, config):
    """What the course's first versions wrote; config is a text."""
    path.parent.mkdir(exist_ok=True)
    save_file(weights, path, metadata={"config": config, "tied": "False"})
    vouch(path)


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
def test_a_built_model_lacks_nothing_but_weights(cfg, kind, token_ids):
    """No buffer is left uninitialized: with an initialized model's weights, what is
    computed is the same, masks and rotary positions included."""
    torch.manual_seed(123)
    initialized, model = kind(cfg).eval(), build_model(cfg).eval()
    assert type(model) is kind and not list(model.buffers())
    assert is_tied(model) == is_tied(initialized)
    parameters = dict(initialized.named_parameters())
    assert parameters.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert parameter.device.type == "cpu" and parameter.requires_grad
        parameter.data.copy_(parameters[name])
    assert torch.equal(model(token_ids), initialized(token_ids))


@pytest.mark.parametrize("cfg", [TINY, LLAMA])
def test_building_draws_no_numbers(cfg):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    build_model(cfg)
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


@pytest.mark.parametrize("place", [0.005, 0.5, 1.0])
def test_a_damaged_file_is_not_opened(saved, place):
    content = bytearray(saved.read_bytes())
    content[round(place * (len(content) - 1))] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="tiny.safetensors is damaged"):
        open_saved(saved)


def test_a_missing_file_is_not_opened(path):
    with pytest.raises(FileNotFoundError):
        open_saved(path)


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
    with pytest.raises(ValueError, match="does not fit its own config: .* missing"):
        load_parameters(path, dict(tiny_model.named_parameters()))
    assert all(map(torch.equal, before, tiny_model.parameters()))


def test_a_file_from_before_models_could_be_tied(path, tiny_model, tiny_config):
    path.parent.mkdir()
    metadata = {"config": json.dumps(tiny_config)}
    save_file(tiny_model.state_dict(), path, metadata=metadata)
    vouch(path)
    model, _ = load_model(path)
    assert not is_tied(model)
    assert torch.equal(model.out_head.weight, tiny_model.out_head.weight)


def test_the_seal_is_in_the_file_and_nothing_beside_it(saved):
    assert os.listdir(saved.parent) == [saved.name]
    assert len(SafetensorsReader(saved).metadata()["seal"]) == 64


def test_the_seal_is_of_all_that_is_in_a_file_and_of_no_more(tmp_path):
    """Neither the name of a file nor the order of what is in it matters."""
    base = {"b": torch.arange(4.0), "a": torch.ones(2, dtype=torch.bfloat16)}
    seals = []
    for weights, metadata in (
        (base, {"of": "a", "by": "b"}),
        (dict(reversed(base.items())), {"by": "b", "of": "a"}),
        (base, {"of": "b", "by": "b"}),
        (base | {"b": torch.arange(4.0).view(2, 2)}, {"of": "a", "by": "b"}),
        (base | {"b": torch.arange(4.0).view(torch.int32)}, {"of": "a", "by": "b"}),
        ({"c": base["b"], "a": base["a"]}, {"of": "a", "by": "b"}),
        (base | {"b": -torch.arange(4.0)}, {"of": "a", "by": "b"}),  # -0.0 too
        (base | {"c": torch.ones(())}, {"of": "a", "by": "b"}),
        (base | {"c": torch.ones(0)}, {"of": "a", "by": "b"}),
    ):
        path = tmp_path / f"{len(seals)}.safetensors"
        save_weights(path, weights, {}, **metadata)
        open_saved(path)
        seals.append(SafetensorsReader(path).metadata()["seal"])
    assert seals[0] == seals[1] and len({*seals}) == len(seals) - 1


def test_a_flip_of_any_bit_and_a_cut_anywhere_are_seen(tmp_path):
    path = tmp_path / "a.safetensors"
    save_weights(path, {"a": torch.arange(3.0), "b": torch.ones(2)}, {"of": "a test"})
    content = path.read_bytes()
    for place in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="a.safetensors"):
            open_saved(path)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="a.safetensors is damaged"):
            open_saved(path)
    path.write_bytes(content)
    assert open_saved(path).config() == {"of": "a test"}


def test_no_more_than_one_tensor_is_held_to_seal_or_to_check(saved, monkeypatch):
    read, last = SafetensorsReader(saved), []

    def read_alone(name):
        assert not last or last.pop()() is None
        tensor = read(name)
        last.append(weakref.ref(tensor))
        return tensor

    metadata = read.metadata()
    seal = metadata.pop("seal")
    assert sha256_of_model(metadata, read.shapes(), read_alone) == seal


STRANGE = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "empty": lambda path: path.touch(),
}


@pytest.mark.timeout(60)  # a pipe would be waited for, and a device has no end
@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_file_is_a_sentence(tmp_path, kind):
    STRANGE[kind](tmp_path / "tiny.safetensors")
    with pytest.raises(ValueError, match="tiny.safetensors is "):
        load_model(tmp_path / "tiny.safetensors")


CONFIGS = {
    "not JSON": "{",
    "nothing": "",
    "a list": "[]",
    "nested": "[" * 10**5,
    "no keys": "{}",
    "a word": json.dumps(TINY | {"emb_dim": "wide"}),
    "no heads": json.dumps(LLAMA | {"n_heads": 0}),
    "half a layer": json.dumps(TINY | {"n_layers": 1.5}),
    "not a number": json.dumps(TINY | {"drop_rate": float("nan")}),
    **{
        f"{key} {size:.0e}": json.dumps(TINY | {key: size})
        for key in ("vocab_size", "context_length", "emb_dim", "n_layers")
        for size in (10**6, 10**12, 10**18, 10**25)
    },
    **{
        f"Llama's {key} {size:.0e}": json.dumps(LLAMA | {key: size})
        for key in ("vocab_size", "emb_dim", "n_layers", "hidden_dim")
        for size in (10**6, 10**12, 10**18, 10**25)
    },
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_absurd_configs_are_a_sentence_and_take_no_memory(
    path, tiny_model, llama_model, config, monkeypatch
):
    model = llama_model if "n_kv_groups" in config else tiny_model
    weights = dict(model.named_parameters())
    save_as_of_old(path, weights, config)

    def allocate(model, device):
        pytest.fail("memory was asked for")

    monkeypatch.setattr(nn.Module, "to_empty", allocate)
    with pytest.raises(ValueError, match="config"):
        load_model(path)


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


@pytest.fixture
def old(path, tiny_model, tiny_config):
    """The path of the tiny model as the course's first versions saved it."""
    save_as_of_old(path, tiny_model.state_dict(), json.dumps(tiny_config))
    return path


def test_an_old_file_loads_and_is_checked(old, tiny_model, tiny_config, token_ids):
    model, cfg = load_model(old)
    assert cfg == tiny_config
    assert torch.equal(model(token_ids), tiny_model(token_ids))
    content = bytearray(old.read_bytes())
    content[-1] ^= 1
    old.write_bytes(content)
    with pytest.raises(ValueError, match="damaged: its sha256 is not the saved one"):
        load_model(old)


def test_an_old_file_that_lost_its_sha256_may_be_good(old):
    """It is said what is missing; nobody is told to delete a model."""
    sha256_file(old).unlink()
    with pytest.raises(ValueError) as caught:
        load_model(old)
    said = str(caught.value)
    assert f"{old} may be incomplete" in said and f"{old.name}.sha256" in said
    assert "missing" in said and "Put that file back" in said
    assert not re.search("delete|damaged|move", said)


def test_a_sha256_that_lost_its_model_is_told(old):
    old.unlink()
    with pytest.raises(ValueError, match="tiny.safetensors is missing, but its "):
        load_model(old)


def test_an_empty_sha256_vouches_for_nothing(old):
    sha256_file(old).write_text("")
    with pytest.raises(ValueError, match="is damaged"):
        load_model(old)


def test_a_new_file_takes_the_place_of_an_old_one(old, tiny_model, tiny_config):
    save_model(old, tiny_model, tiny_config)
    assert os.listdir(old.parent) == [old.name]
    load_model(old)


class Wrapped(nn.Module):
    """What DataParallel and its like are: a model, called module."""

    def __init__(self, model):
        super().__init__()
        self.module = model

    def forward(self, idx):
        return self.module(idx)


WRAPPERS = {
    "compiled": torch.compile,
    "parallel": nn.DataParallel,
    "wrapped": Wrapped,
    "both": lambda model: torch.compile(Wrapped(torch.compile(model))),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("tied", [False, True])
def test_a_wrapped_model_is_saved_as_the_model(
    path, tiny_model, tiny_config, token_ids, wrap, tied
):
    if tied:
        tiny_model.out_head.weight = tiny_model.tok_emb.weight
    save_model(path, wrap(tiny_model), tiny_config)
    model, _ = load_model(path)
    assert is_tied(model) == tied
    assert torch.equal(model(token_ids), tiny_model(token_ids))


def test_a_model_of_compiled_parts_is_saved_as_the_model(
    path, tiny_model, tiny_config, token_ids
):
    expected = tiny_model(token_ids)
    tiny_model.trf_blocks[1] = torch.compile(tiny_model.trf_blocks[1])
    save_model(path, tiny_model, tiny_config)
    assert torch.equal(load_model(path)[0](token_ids), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layers": 3}, "its own config: .*trf_blocks.2"),
        ({"n_layers": 1}, "its own config: .*trf_blocks.1"),
        ({"qkv_bias": True}, "its own config: .*trf_blocks.0.att.W_key.bias"),
        ({"emb_dim": 32}, r"is \(32,\) in the model and \(16,\) in the file"),
        (
            {"vocab_size": 100},
            r"is \(100, 16\) in the model and \(101, 16\) in the file",
        ),
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


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def no_space_for_rust(*_, **__):
    raise SafetensorError("Error while serializing: No space left on device")


FAULTS = {
    "pathlib.Path.mkdir": no_space,
    "support.weights.checkpoint.save_file": no_space_for_rust,
    "os.fsync": no_space,
    "os.replace": no_space,
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_failed_save_leaves_the_old_model(
    saved, tiny_model, tiny_config, token_ids, monkeypatch, name
):
    expected = tiny_model(token_ids)
    with torch.no_grad():
        tiny_model.tok_emb.weight += 1
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(name, FAULTS[name])
        save_model(saved, tiny_model, tiny_config)
    assert os.listdir(saved.parent) == [saved.name]
    assert torch.equal(load_model(saved)[0](token_ids), expected)


def killed_at(event_number, save):
    """Run save() in a child that is killed at this file operation; True if it was."""
    child = os.fork()
    if child == 0:
        events = itertools.count(1)

        def kill(event, arguments):
            kinds = "open", "os.rename", "os.remove", "os.mkdir"
            if event in kinds and next(events) == event_number:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        save()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("is_old", [False, True])
def test_a_kill_at_any_file_operation_leaves_one_of_both_models(
    path, tiny_model, tiny_config, token_ids, is_old
):
    models = [tiny_model, copy.deepcopy(tiny_model)]
    with torch.no_grad():
        models[1].tok_emb.weight += 1
    expected = [model(token_ids) for model in models]
    seen = set()
    for number in itertools.count(1):
        if is_old:
            save_as_of_old(path, tiny_model.state_dict(), json.dumps(tiny_config))
        else:
            save_model(path, tiny_model, tiny_config)
        if not killed_at(number, lambda: save_model(path, models[1], tiny_config)):
            break
        found = load_model(path)[0](token_ids)
        seen |= {i for i, logits in enumerate(expected) if torch.equal(logits, found)}
    assert seen == {0, 1} and number > 4


SAVER = """
import sys, time, torch
from support.weights.checkpoint import load_model, save_model
model, cfg = load_model(sys.argv[1])
print("ready", flush=True)
while True:
    for _, parameter in model.named_parameters():
        parameter.data += 1
    save_model(sys.argv[1], model, cfg)
"""


def test_loading_beside_a_saver_never_fails(saved):
    """Every model that is read is one that was saved, from its first weight to its
    last, though files of other sizes and contents take the name all the time."""
    command = [sys.executable, "-c", SAVER, str(saved)]
    first = {name: p.clone() for name, p in load_model(saved)[0].named_parameters()}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as saver:
        try:
            saver.stdout.readline()
            steps = set()
            for _ in range(150):
                model, _ = load_model(saved)
                moved = {
                    round((parameter - first[name]).mean().item())
                    for name, parameter in model.named_parameters()
                }
                assert len(moved) == 1
                steps |= moved
        finally:
            saver.kill()
    assert len(steps) > 10


def test_what_a_reader_has_opened_it_goes_on_reading(saved, tiny_model):
    """A file of other sizes that takes the name later changes nothing."""
    read = open_saved(saved)
    save_weights(saved, {"tok_emb.weight": torch.ones(1)}, {})
    assert torch.equal(load_model(read)[0].tok_emb.weight, tiny_model.tok_emb.weight)
    assert torch.equal(read("tok_emb.weight"), tiny_model.tok_emb.weight)
