"""One command trains, draws and saves; what a reader can mend is one sentence."""

import re
import subprocess
import sys

import matplotlib
import pytest
import torch

from ch02.dataset import load_text
from ch05.checkpoint import load_model
from ch05.pretrain import pretrain
from ch05.training import create_train_val_loaders
from tests.notebooks import ROOT

matplotlib.use("Agg")


def test_it_trains_draws_and_saves(tiny_config, tmp_path, capsys):
    cfg = tiny_config | {"vocab_size": 50257, "context_length": 32}
    loaders = create_train_val_loaders(load_text(), context_length=32)
    settings = {"num_epochs": 1, "eval_freq": 6, "eval_iter": 2}
    pretrain(loaders, cfg, torch.device("cpu"), tmp_path, **settings)
    assert (tmp_path / "train_plot.png").read_bytes().startswith(b"\x89PNG")
    _, saved_cfg = load_model(tmp_path / "checkpoints" / "local.safetensors")
    assert saved_cfg == cfg
    said = capsys.readouterr().out
    assert "untrained: train loss 10." in said
    trained, sample = said.splitlines()[-2:]
    assert trained.startswith("trained: train loss ")
    assert sample.startswith("Every effort moves you")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "no-such-text"], "no-such-text is neither a file nor a text"),
        (
            ["--text", "requirements.txt"],
            "the text gives 1 windows, fewer than batch_size 2",
        ),
        (["--epochs", "0"], "0 is not a whole number above 0"),
    ],
)
def test_what_a_reader_can_mend_is_one_sentence(arguments, message):
    command = [sys.executable, "-m", "ch05.pretrain", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert re.search(message, done.stderr)
    assert "Traceback" not in done.stderr
