"""`python -m ch05.pretrain run` trains on shards, and says what to do next."""

import os
import re
import shlex
import signal
import sys

import numpy as np
import pytest
import torch

import ch05.long_run
import ch05.run_command
from ch02.files import sha256_of
from ch05 import pretrain
from ch05.checkpoint import load_model
from ch05.run_folder import RunFolder
from ch05.shards import SPLITS, TokenShards, shard_path, write_index
from ch05.training import calc_loss_batch
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
    write_index(folder, sizes | {"end": True, "shards": index})


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
        monkeypatch.setattr(sys, "argv", ["pretrain", *words])
        original = [sys.executable, "-m", "ch05.pretrain", *words]
        monkeypatch.setattr(sys, "orig_argv", original)
        try:
            pretrain.main()
        except SystemExit as end:
            return str(end.code)
        return None

    return call


def interrupt_after(step, monkeypatch, times=1):
    """Let Ctrl-C come during the step that follows this one."""
    usual = RunFolder.note

    def note(self, **entry):
        usual(self, **entry)
        for _ in range(times if entry["step"] == step else 0):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(RunFolder, "note", note)


def test_it_trains_a_model_that_can_be_loaded(command, tmp_path, shards, capsys):
    assert command() is None
    said = capsys.readouterr().out
    assert (
        "5 steps of 32 tokens each, from a text of 201, on 1 x cpu in float32" in said
    )
    assert f"done: {tmp_path / 'run' / 'model.safetensors'} is the model" in said
    model, cfg = load_model(tmp_path / "run" / "model.safetensors")
    assert (cfg["vocab_size"], cfg["context_length"], cfg["emb_dim"]) == (61, 8, 16)
    ids, _ = TokenShards(shards, "val", 8)[0]
    assert model(ids[None]).shape == (1, 8, VOCAB_SIZE)


def test_ctrl_c_says_how_to_go_on(command, tmp_path, monkeypatch, capsys):
    assert command(folder="unbroken") is None
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        assert command(folder="my run") is None
    said = capsys.readouterr().out
    assert "stopped, and a checkpoint is saved. To go on: python -m" in said
    assert shlex.split(said.split("To go on: ")[1]) == ["python", *sys.orig_argv[1:]]
    assert RunFolder(tmp_path / "my run").steps() == [3]
    assert command(folder="my run") is None
    said = capsys.readouterr().out
    assert "going on after step 3 of 5" in said and "done: " in said
    assert results(tmp_path / "my run") == results(tmp_path / "unbroken")


def test_a_second_ctrl_c_stops_without_a_traceback(command, monkeypatch):
    interrupt_after(2, monkeypatch, times=2)
    assert command() == "stopped"


def test_what_was_begun_otherwise_is_one_sentence(command, tmp_path):
    command()
    complaint = command("--emb-dim", "32", "--seed", "7")
    assert complaint == (
        f"error: the run in {tmp_path / 'run'} has other settings: emb_dim was 16 and "
        "is now 32; seed was 123 and is now 7. Go on with its own, or give this run "
        "another folder"
    )


@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_a_run_goes_on_in_the_dtype_that_it_was_begun_in(
    command, tmp_path, monkeypatch, capsys, name
):
    """Whatever is measured to be fast then, or on another machine."""
    others = {"bfloat16": "float32", "float32": "bfloat16"}
    for begun, fast in ((False, name), (True, others[name])):
        dtype = getattr(torch, fast)
        monkeypatch.setattr(ch05.run_command, "fast_dtype", lambda device, d=dtype: d)
        if not begun:
            interrupt_after(2, monkeypatch)
        assert command("--dtype", "auto") is None
        assert f" on 1 x cpu in {name}" in capsys.readouterr().out
    complaint = command("--dtype", others[name])
    assert f"dtype was '{name}' and is now '{others[name]}'" in complaint


def test_all_processes_take_the_dtype_of_rank_0(command, monkeypatch, capsys):
    chosen = ch05.run_command.DTYPES.index("bfloat16")
    monkeypatch.setattr(ch05.run_command, "fast_dtype", lambda device: torch.float32)
    monkeypatch.setattr(ch05.run_command, "from_rank_0", lambda number: chosen)
    assert command("--dtype", "auto") is None
    assert " on 1 x cpu in bfloat16" in capsys.readouterr().out


def test_other_shards_are_another_run(command, shards):
    command()
    write_shards(shards, seed=124)
    assert "has other settings: data was " in command()


def test_a_full_disk_is_one_sentence(command, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    complaint = command()
    assert complaint.startswith("error: the results could not be written: ")
    assert complaint.endswith("No space left on device")


def test_a_loss_that_is_not_finite_is_one_sentence(command, monkeypatch):
    def calc(*args):
        return calc_loss_batch(*args) * torch.nan

    monkeypatch.setattr(ch05.long_run, "calc_loss_batch", calc)
    complaint = command()
    assert complaint.startswith("error: step 1, on windows [")
    assert complaint.endswith("another folder and a lower learning rate")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--data", "no-such"], "no-such holds no shards.json; `python -m ch05.pretra"),
        (
            ["--context-length", "300"],
            "the train part of .* has 201 tokens; one window",
        ),
        (["--batch-size", "26"], "the text has 25 windows, fewer than batch_size 26"),
        (["--num-parts", "3"], "a batch of 4 has no 3 equal parts"),
        (["--n-heads", "3"], "n_heads 3 does not divide emb_dim 16"),
    ],
)
def test_what_a_reader_can_mend_is_one_sentence(command, more, sentence):
    complaint = command(*more)
    assert complaint.startswith("error: ") and "\n" not in complaint
    assert re.search(sentence, complaint)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--steps", "0"], "argument --steps: 0 is not a whole number above 0"),
        (["--seed", "1.5"], "argument --seed: 1.5 is not a whole number above 0"),
        (["--lr", "fast"], "argument --lr: fast is not a number from 0 to below 1"),
        (["--drop-rate", "1"], "argument --drop-rate: 1 is not a number from 0 to"),
        (["--size", "7B"], "argument --size: invalid choice: '7B' (choose from"),
    ],
)
def test_what_the_command_line_does_not_take_is_named(command, capsys, more, sentence):
    assert command(*more) == "2"
    assert sentence in capsys.readouterr().err
