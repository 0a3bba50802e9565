"""`python -m support.pretraining run` trains on shards and says what to do next."""

import os
import re
import signal
import sys
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ch05.recipe
import support.pretraining.command_run
from ch04.gpt import GPT_CONFIG_124M
from ch05.training import calc_loss_batch
from support.commands import INTERRUPTED
from support.download.files import sha256_of
from support.download.json_files import write_sealed
from support.pretraining.__main__ import main
from support.pretraining.command_run import check_data
from support.pretraining.memory import OVERHEAD, Workload, forecast_training
from support.pretraining.run_folder import ADDED_SETTINGS, REMOVED_SETTING, RunFolder
from support.pretraining.shards import SPLITS, TokenShards, shard_path
from support.weights.checkpoint import load_model
from tests.kill_run import results

pytestmark = pytest.mark.usefixtures("one_thread", "usual_precision")
VOCAB_SIZE = 61
SMALL = "--context-length 8 --emb-dim 16 --n-heads 2 --n-layers 1 --drop-rate 0.1"


def write_shards(folder, seed):
    """Write token shards: 25 windows of 8 random tokens to train on, 4 others."""
    generator, index = np.random.default_rng(seed), {}
    for split, num_tokens in zip(SPLITS, (201, 33)):
        path = shard_path(folder, split, 0)
        generator.integers(VOCAB_SIZE, size=num_tokens).astype("<u2").tofile(path)
        index[split] = [{"tokens": num_tokens, "sha256": sha256_of(path)}]
    sizes = {"dtype": "uint16", "vocab_size": VOCAB_SIZE, "eot_id": 60}
    write_sealed(folder / "shards.json", sizes | {"is_complete": True, "shards": index})


@pytest.fixture
def shards(tmp_path):
    """A folder of token shards."""
    folder = tmp_path / "shards"
    folder.mkdir()
    write_shards(folder, seed=123)
    return folder


@pytest.fixture
def command(monkeypatch, shards, tmp_path):
    """A function that does what the command line says, and returns its complaint.

    It says `run RUN --data SHARDS --steps 5` and sizes that take no time, and more.
    """
    monkeypatch.setenv("LLMS_DEVICE", "cpu")
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    def call(*more, folder="run"):
        words = ["run", str(tmp_path / folder), "--data", str(shards), "--steps", "5"]
        words += [*SMALL.split(), "--batch-size", "4", "--dtype", "float32", *more]
        monkeypatch.setattr(sys, "argv", ["pretraining", *words])
        try:
            main()
        except SystemExit as end:
            return str(end.code)
        return None

    return call


def interrupt_after(step, monkeypatch, times=1):
    """Let Ctrl-C come during the step that follows this one."""
    usual = RunFolder.log_entry

    def log_entry(self, **entry):
        usual(self, **entry)
        for _ in range(times if entry["step"] == step else 0):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(RunFolder, "log_entry", log_entry)


def test_it_trains_a_model_that_can_be_loaded(command, tmp_path, shards, capsys):
    assert command() is None
    said = capsys.readouterr().out
    place = "on 1 x cpu in float32"
    assert f"5 steps of 32 tokens each, from a text of 201 tokens, {place}" in said
    assert f"done: {tmp_path / 'run' / 'model.safetensors'} is the model" in said
    model, cfg = load_model(tmp_path / "run" / "model.safetensors")
    assert (cfg["vocab_size"], cfg["context_length"], cfg["emb_dim"]) == (61, 8, 16)
    ids, _ = TokenShards(shards, "val", 8)[0]
    assert model(ids[None]).shape == (1, 8, VOCAB_SIZE)


def test_ctrl_c_says_how_to_continue(command, tmp_path, monkeypatch, capsys):
    assert command(folder="unbroken") is None
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        assert command(folder="my run") == str(INTERRUPTED)
    said = capsys.readouterr().out
    assert said.endswith("a checkpoint is saved. Run the same command to continue\n")
    assert RunFolder(tmp_path / "my run").steps() == [3, 0]
    assert command(folder="my run") is None
    said = capsys.readouterr().out
    assert "continuing after step 3 of 5" in said and "done: " in said
    assert results(tmp_path / "my run") == results(tmp_path / "unbroken")


def test_a_second_ctrl_c_stops_without_a_traceback(command, monkeypatch, capsys):
    interrupt_after(2, monkeypatch, times=2)
    assert command() == str(INTERRUPTED)
    said = "\rstopped; run the same command again to continue\n"
    assert said in capsys.readouterr().err


def test_what_was_begun_otherwise_is_one_sentence(command, tmp_path):
    command()
    complaint = command("--emb-dim", "32", "--seed", "7")
    assert complaint == (
        f"error: the run in {tmp_path / 'run'} has other settings: emb_dim was 16 and "
        "is now 32; seed was 123 and is now 7. Continue with its own settings, or give "
        "this run another folder"
    )


def test_a_run_continues_in_the_ways_that_it_was_started_with(
    command, tmp_path, monkeypatch
):
    """So that it ends with the same bits, whatever is measured to be fast then."""
    for precision, is_fast in (("medium", True), ("highest", False)):
        for name, value in {
            "float32_precision": lambda device, p=precision: p,
            "gains_by_fast_dropout": lambda is_fast=is_fast: is_fast,
            "gains_by_fast_vocabulary": lambda dtype, is_fast=is_fast: is_fast,
        }.items():
            monkeypatch.setattr(support.pretraining.command_run, name, value)
        with monkeypatch.context() as patch:
            if precision == "medium":
                interrupt_after(2, patch)
            command()
        (settings, *_) = RunFolder(tmp_path / "run").known_settings().values()
        assert settings["precision"] == "medium"
        assert settings["is_dropout_fast"] is settings["is_vocabulary_fast"] is True
    assert (tmp_path / "run" / "model.safetensors").is_file()


@pytest.mark.parametrize("written", [{}, {REMOVED_SETTING: True}])
def test_a_run_of_an_earlier_version_continues(command, tmp_path, monkeypatch, written):
    """It did not write down all ways in which it computes: today's are taken."""
    usual = RunFolder.write_checkpoint

    def write_as_earlier(self, step, tensors):
        kept = {k: v for k, v in self.settings.items() if k not in ADDED_SETTINGS}
        self.settings = kept | written
        usual(self, step, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_checkpoint", write_as_earlier)
        interrupt_after(2, patch)
        assert command() == str(INTERRUPTED)
    (settings, *_) = RunFolder(tmp_path / "run").known_settings().values()
    assert not settings.keys() & set(ADDED_SETTINGS)
    complaint = command("--seed", "7")
    assert "other settings: seed was 123 and is now 7. Continue" in complaint
    assert command() is None


@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_a_run_continues_in_the_dtype_that_it_was_started_with(
    command, tmp_path, monkeypatch, capsys, name
):
    """Whatever is measured to be fast then, or on another machine."""
    others = {"bfloat16": "float32", "float32": "bfloat16"}
    for begun, fast in ((False, name), (True, others[name])):
        dtype = getattr(torch, fast)
        monkeypatch.setattr(
            support.pretraining.command_run, "fast_dtype", lambda device, d=dtype: d
        )
        if not begun:
            interrupt_after(2, monkeypatch)
        assert command("--dtype", "auto") == (None if begun else str(INTERRUPTED))
        assert f" on 1 x cpu in {name}" in capsys.readouterr().out
    complaint = command("--dtype", others[name])
    assert f"dtype was '{name}' and is now '{others[name]}'" in complaint


def test_all_processes_take_the_ways_of_rank_0(command, monkeypatch, capsys):
    monkeypatch.setattr(
        support.pretraining.command_run, "fast_dtype", lambda device: torch.float32
    )

    def broadcast(value):
        is_dtype = isinstance(value, dict) and "dtype" in value
        return value | {"dtype": "bfloat16"} if is_dtype else value

    monkeypatch.setattr(support.pretraining.command_run, "broadcast", broadcast)
    assert command("--dtype", "auto") is None
    assert " on 1 x cpu in bfloat16" in capsys.readouterr().out


def test_other_shards_are_another_run(command, shards):
    command()
    write_shards(shards, seed=124)
    assert "has other settings: data was " in command()


def test_a_full_disk_is_one_sentence(command, monkeypatch, tmp_path):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    complaint = command()
    assert complaint.startswith(f"error: the work in {tmp_path / 'run'} stopped: ")
    assert "Errno" not in complaint
    assert complaint.endswith(
        "No space left on device. Solve this problem and run the same command again to "
        "continue"
    )


def test_too_little_memory_is_one_sentence(command, monkeypatch):
    """As PyTorch says it of a CPU."""

    def calc(*args):
        return torch.empty(2**60)

    monkeypatch.setattr(ch05.recipe, "calc_loss_batch", calc)
    complaint = command()
    assert complaint.startswith("error: there is not enough memory: close other")


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def change_some(path):
    """Other ids of the vocabulary in two of a hundred places."""
    ids = np.fromfile(path, "<u2")
    ids[::50] = (ids[::50] + 1) % VOCAB_SIZE
    ids.tofile(path)


def cut(path):
    os.truncate(path, path.stat().st_size - 2)


def empty(path):
    os.truncate(path, 0)


@pytest.mark.parametrize("damage", [zero, change_some, cut, empty, os.unlink])
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("is_resumed", [False, True])
def test_damaged_shards_are_found_before_a_step(
    command, shards, tmp_path, monkeypatch, damage, split, is_resumed
):
    if is_resumed:
        with monkeypatch.context() as patch:
            interrupt_after(2, patch)
            command()
    damage(shard_path(shards, split, 0))
    complaint = command()
    assert complaint.startswith(f"error: {shard_path(shards, split, 0)} is ")
    assert complaint.endswith("tokenize` again, with the same texts")
    folder = RunFolder(tmp_path / "run")
    assert (folder.last_valid_step() if is_resumed else 0) == (3 if is_resumed else 0)
    assert folder.log.exists() == is_resumed


def test_all_processes_are_told_what_rank_0_has_found(shards, monkeypatch):
    module = support.pretraining.command_run
    monkeypatch.setattr(module, "rank", lambda: 1)
    monkeypatch.setattr(module, "broadcast", lambda _: {"a.bin": "is damaged"})
    with pytest.raises(ValueError, match="a.bin is damaged"):
        check_data(shards)


@pytest.mark.parametrize("name", ["run", "shards/run"])
def test_a_file_in_the_place_of_a_folder_is_one_sentence(command, tmp_path, name):
    (tmp_path / name).write_bytes(b"a reader's own")
    assert "cannot be created, because it or one of" in command(folder=name)
    assert "holds no shards.json; `python -m" in command(
        "--data", str(tmp_path / name), folder="other"
    )
    assert (tmp_path / name).read_bytes() == b"a reader's own"


def test_a_second_run_is_refused_before_anything_is_measured(
    command, tmp_path, monkeypatch
):
    monkeypatch.setattr(support.pretraining.command_run, "forecast_training", None)
    with RunFolder(tmp_path / "run").locked():
        assert "error: another process is writing to " in command()


# Sizes


class Memory(TorchDispatchMode):
    """Notes how many bytes of tensors there are at most; shapes alone do not count."""

    def __init__(self):
        super().__init__()
        self.alive, self.most = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and not is_shape_alone(tensor):
                storage = tensor.untyped_storage()
                self.alive[StorageWeakRef(storage)] = storage.nbytes()
        self.alive = {ref: n for ref, n in self.alive.items() if not ref.expired()}
        self.most = max(self.most, sum(self.alive.values()))
        return made


def is_shape_alone(tensor):
    """True for a tensor without numbers."""
    return tensor.device.type == "meta" or isinstance(tensor, FakeTensor)


ABSURD = {
    "--emb-dim 1000000000": "a step ",
    "--emb-dim 1000000000000": "a step ",
    "--emb-dim 40000": ".* GB of memory, .* GB of it for weights, gradients and mom",
    "--n-layers 1000000000": "a step takes .*, but this machine has .* GB: use a sm",
    "--n-heads 1000000000000": "n_heads 1000000000000 does not divide emb_dim",
    "--context-length 1000000000000": "has 201 tokens; one window of max_length",
    "--batch-size 1000000000000": "has 25 windows, fewer than batch_size 1000000000000",
    "--num-parts 1000000000000": "a batch of 4 windows cannot be split into 1000",
}


@pytest.mark.parametrize(("words", "sentence"), ABSURD.items(), ids=ABSURD)
def test_absurd_sizes_are_a_sentence_before_anything_is_allocated(
    command, words, sentence, monkeypatch, tmp_path
):
    monkeypatch.setattr(
        support.pretraining.command_run, "forecast_training", None
    )  # nor measured
    with Memory() as memory:
        complaint = command(*words.split())
    assert re.match(f"error: .*{sentence}", complaint)
    assert memory.most < 10_000 and not (tmp_path / "run").exists()


def test_what_does_not_fit_into_what_is_free_is_not_tried(monkeypatch):
    """Its size is said all the same, and what would need less memory."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10))
    cfg = GPT_CONFIG_124M | {"context_length": 64, "drop_rate": 0.1}
    work = Workload(cfg, 64, 64, torch.float32, is_tied=True)
    with Memory() as memory:
        said = support.pretraining.command_run.describe_forecast(work, num_steps=10)
    assert memory.most < 10_000
    assert re.match(
        r"all steps will take \d+\.\d GB of memory; 0\.0 GB are free: use a smaller",
        said,
    )


@pytest.mark.parametrize("batch_size", [1, 64])
def test_a_forecast_takes_less_memory_than_the_run(batch_size):
    cfg = GPT_CONFIG_124M | {"emb_dim": 48, "n_heads": 4, "n_layers": 3}
    cfg |= {"vocab_size": 1009, "context_length": 64}
    work = Workload(cfg, batch_size, 64, torch.float32, is_tied=True)
    with Memory() as memory:
        forecast = forecast_training(work)
    in_run = forecast.needed - OVERHEAD
    assert 0 < memory.most < in_run
    if batch_size == 64:  # of which half is enough to see how long it takes
        assert memory.most < 0.7 * in_run


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (0.04, "0.0 minutes"),
        (4.25, "4.2 minutes"),
        (89, "89.0 minutes"),
        (90, "1.5 hours"),
        (2160, "1.5 days"),
        (1e6, "1.9 years"),
        (1e12, "1,901,285.3 years"),
    ],
)
def test_durations_are_in_units_that_one_can_imagine(minutes, words):
    assert support.pretraining.command_run.format_minutes(minutes) == words


def test_a_loss_that_is_not_finite_is_one_sentence(command, monkeypatch):
    def calc(*args):
        return calc_loss_batch(*args) * torch.nan

    monkeypatch.setattr(ch05.recipe, "calc_loss_batch", calc)
    complaint = command()
    assert complaint.startswith("error: step 1, on windows [")
    assert complaint.endswith("another folder and a lower learning rate")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--data", "no-such"], "no-such holds no shards.json; `python -m support.pre"),
        (
            ["--context-length", "300"],
            "the train part of .* has 201 tokens; one window",
        ),
        (["--batch-size", "26"], "the text has 25 windows, fewer than batch_size 26"),
        (["--num-parts", "3"], "a batch of 4 windows cannot be split into 3 equal p"),
        (["--n-heads", "3"], "n_heads 3 does not divide emb_dim 16"),
    ],
)
def test_what_a_reader_can_mend_is_one_sentence(command, more, sentence):
    complaint = command(*more)
    assert complaint.startswith("error: ") and "\n" not in complaint
    assert re.search(sentence, complaint)


TOO_LARGE = "the number is too large; it must be at most 1,000,000,000,000"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--steps", "0"], "argument --steps: 0 is not a whole number above 0"),
        (["--steps", str(10**15)], f"argument --steps: {TOO_LARGE}"),
        (["--steps", "9" * 5000], f"argument --steps: {TOO_LARGE}"),
        (["--lr", "\x1b[2J"], r"argument --lr: \x1b[2J is not a number of at"),
        (["--seed", "1.5"], "argument --seed: 1.5 is not a whole number above 0"),
        (
            ["--lr", "fast"],
            "argument --lr: fast is not a number of at least 0 and below 1",
        ),
        (["--drop-rate", "1"], "argument --drop-rate: 1 is not a number of at"),
        (["--size", "7B"], "argument --size: invalid choice: '7B' (choose from"),
    ],
)
def test_what_the_command_line_does_not_take_is_named(command, capsys, more, sentence):
    assert command(*more) == "2"
    assert sentence in capsys.readouterr().err
