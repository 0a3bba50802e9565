"""One command trains, draws and saves; what a reader can mend is one sentence."""

import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
import torch

from ch02.tokenizer import get_tokenizer
from ch05 import pretrain as script
from ch05.pretrain import START_CONTEXT
from ch05.training import create_train_val_loaders, train_model_simple
from support.download.texts import load_text
from support.paths import ROOT
from support.weights.checkpoint import load_model

matplotlib.use("Agg")


@pytest.fixture
def config(tiny_config, tmp_path, monkeypatch, one_thread):
    """A tiny config in the place of CONFIG; files go to a temporary folder."""
    cfg = tiny_config | {"vocab_size": 50257, "context_length": 32}
    monkeypatch.setattr(script, "CONFIG", cfg)
    monkeypatch.setattr(script, "LOCAL", tmp_path / "models" / "local.safetensors")
    monkeypatch.setattr(script, "PLOT", tmp_path / "train_plot.png")
    monkeypatch.setattr(script, "fast_math", lambda device: None)
    monkeypatch.setenv("LLMS_DEVICE", "cpu")
    return cfg


def run(monkeypatch, *options):
    """Run `python -m ch05.pretrain` with these options in this process."""
    monkeypatch.setattr(sys, "argv", ["ch05.pretrain", *options])
    script.main()


def test_it_trains_draws_and_saves(config, capsys, monkeypatch):
    run(monkeypatch, "--epochs", "1")
    assert script.PLOT.read_bytes().startswith(b"\x89PNG")
    _, saved_cfg = load_model(script.LOCAL)
    assert saved_cfg == config
    said = capsys.readouterr().out
    assert "untrained: train loss 10." in said
    trained, sample = said.splitlines()[-2:]
    assert trained.startswith("trained: train loss ")
    assert sample.startswith("Every effort moves you")


def test_it_is_the_run_of_the_book(config, capsys, monkeypatch):
    """Seeded once, before the weights: looking at the losses first moves no draw."""
    text = load_text()[:6000]
    drawn = []
    monkeypatch.setattr(script, "load_text", lambda name: text)
    monkeypatch.setattr(script, "plot_losses", lambda *args, **_: drawn.append(args))
    run(monkeypatch, "--epochs", "2", "--eval-freq", "5", "--eval-iter", "2")
    said = capsys.readouterr().out.splitlines()
    loaders = create_train_val_loaders(text, context_length=32)
    torch.manual_seed(123)
    model = script.GPTModel(config)
    with torch.random.fork_rng():
        before = script.evaluate_model(model, *loaders, "cpu", eval_iter=None)
    settings = {"num_epochs": 2, "eval_freq": 5, "eval_iter": 2}
    settings |= {"start_context": START_CONTEXT, "tokenizer": get_tokenizer()}
    parameters, adamw = model.parameters(), {"lr": 4e-4, "weight_decay": 0.1}
    optimizer = torch.optim.AdamW(parameters, **adamw, fused=True)
    train_losses, val_losses, tokens_seen = train_model_simple(
        model, *loaders, optimizer, "cpu", **settings
    )
    after = script.evaluate_model(model, *loaders, "cpu", eval_iter=None)
    for state, losses in (("untrained", before), ("trained", after)):
        assert "{}: train loss {:.3f}, val loss {:.3f}".format(state, *losses) in said
    saved, _ = load_model(script.LOCAL)
    assert all(map(torch.equal, saved.parameters(), model.parameters()))
    epochs_seen = [(1 + 5 * i) / len(loaders[0]) for i in range(len(tokens_seen))]
    assert drawn == [(epochs_seen, tokens_seen, train_losses, val_losses)]


def test_the_script_is_short():
    assert len(Path(script.__file__).read_text(encoding="utf-8").splitlines()) < 100


def complaint(*arguments):
    """What `python -m ch05.pretrain` says on its standard error as it fails."""
    command = [sys.executable, "-m", "ch05.pretrain", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "no-such-text"], "no-such-text is not a file: give the path"),
        (["--epochs", "0"], "0 is not a whole number above 0"),
    ],
)
def test_what_a_reader_can_mend_is_one_sentence(arguments, message):
    assert message in complaint(*arguments)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (400, "the text gives 1 windows, fewer than batch_size 2"),
        (100, "one window of max_length 256 and its next token need 257"),
    ],
)
def test_a_text_that_is_too_short_is_one_sentence(words, message, tmp_path):
    text = tmp_path / "short.txt"
    text.write_text("tide " * words, encoding="utf-8")
    assert message in complaint("--text", str(text))
