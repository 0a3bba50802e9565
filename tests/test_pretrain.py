"""One command trains, draws and saves; what a reader can mend is one sentence."""

import subprocess
import sys

import matplotlib
import pytest
import torch

from ch02.dataset import load_text
from ch05.checkpoint import load_model
from ch05.pretrain import pretrain
from tests.notebooks import ROOT

matplotlib.use("Agg")


def test_it_trains_draws_and_saves(tiny_config, tmp_path, capsys):
    cfg = tiny_config | {"vocab_size": 50257, "context_length": 32}
    pretrain(
        load_text(), cfg, num_epochs=1, device=torch.device("cpu"), folder=tmp_path
    )
    assert (tmp_path / "train_plot.png").read_bytes().startswith(b"\x89PNG")
    _, saved_cfg = load_model(tmp_path / "checkpoints" / "local.safetensors")
    assert saved_cfg == cfg
    said = capsys.readouterr().out
    for part in (
        "untrained: train loss 10.",
        "Every effort moves you",
        "trained: train",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "no-such-text"], "no-such-text is neither a file nor a text"),
        (["--text", "LICENSE", "--epochs", "0"], "--epochs must be at least 1"),
    ],
)
def test_what_a_reader_can_mend_is_one_sentence(arguments, message):
    command = [sys.executable, "-m", "ch05.pretrain", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
