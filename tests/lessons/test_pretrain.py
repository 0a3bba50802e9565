"""One command trains, draws and saves; what a reader can mend is one sentence."""

import subprocess
import sys

import matplotlib
import pytest
import torch

from ch02.dataset import load_text
from ch02.tokenizer import get_tokenizer
from ch05 import pretrain as script
from ch05.pretrain import START_CONTEXT, pretrain
from ch05.training import create_train_val_loaders, train_model_simple
from support.paths import ROOT
from support.weights.checkpoint import load_model
from support.weights.local import train_small

matplotlib.use("Agg")


def test_it_trains_draws_and_saves(tiny_config, tmp_path, capsys, one_thread):
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


def test_it_is_the_run_of_the_book(
    tiny_config, tmp_path, capsys, monkeypatch, one_thread
):
    """Seeded once, before the weights: looking at the losses first moves no draw."""
    cfg = tiny_config | {"vocab_size": 50257, "context_length": 32}
    loaders = create_train_val_loaders(load_text()[:6000], context_length=32)
    settings = {"num_epochs": 2, "eval_freq": 5, "eval_iter": 2}
    drawn = []
    monkeypatch.setattr(script, "plot_losses", lambda *args, **_: drawn.append(args))
    pretrain(loaders, cfg, torch.device("cpu"), tmp_path, **settings)
    said = capsys.readouterr().out.splitlines()
    torch.manual_seed(123)
    model = script.GPTModel(cfg)
    with torch.random.fork_rng():
        before = script.evaluate_model(model, *loaders, "cpu", eval_iter=None)
    settings |= {"start_context": START_CONTEXT, "tokenizer": get_tokenizer()}
    parameters, adamw = model.parameters(), {"lr": 4e-4, "weight_decay": 0.1}
    optimizer = torch.optim.AdamW(parameters, **adamw, fused=True)
    train_losses, val_losses, tokens_seen = train_model_simple(
        model, *loaders, optimizer, "cpu", **settings
    )
    after = script.evaluate_model(model, *loaders, "cpu", eval_iter=None)
    for state, losses in (("untrained", before), ("trained", after)):
        assert "{}: train loss {:.3f}, val loss {:.3f}".format(state, *losses) in said
    saved, _ = load_model(tmp_path / "checkpoints" / "local.safetensors")
    assert all(map(torch.equal, saved.parameters(), model.parameters()))
    epochs_seen = [(1 + 5 * i) / len(loaders[0]) for i in range(len(tokens_seen))]
    assert drawn == [(epochs_seen, tokens_seen, train_losses, val_losses)]


@pytest.fixture
def tiny_story(monkeypatch, tiny_config, one_thread):
    """A tiny config in the place of SMALL_CONFIG, a short story, and one epoch."""
    cfg = tiny_config | {"vocab_size": 50257, "context_length": 32}
    story = load_text()[:4000]

    def train_briefly(*args, **settings):
        return train_model_simple(*args, **settings | {"num_epochs": 1})

    monkeypatch.setattr(script, "SMALL_CONFIG", cfg)
    monkeypatch.setattr(script, "load_text", lambda: story)
    monkeypatch.setattr(script, "train_model_simple", train_briefly)
    return cfg


def test_the_small_model_can_be_loaded_and_has_learned(tiny_story, tmp_path):
    path = tmp_path / "checkpoints" / "local.safetensors"
    train_small(path)
    model, cfg = load_model(path)
    assert cfg == tiny_story
    torch.manual_seed(123)
    untrained = script.GPTModel(cfg).eval()
    loaders = create_train_val_loaders(load_text()[:4000], cfg["context_length"])
    before, after = (
        script.evaluate_model(m, *loaders, "cpu", eval_iter=None)[0]
        for m in (untrained, model)
    )
    assert after < before - 0.1


def test_the_small_model_is_announced_and_its_samples_are_not(
    tiny_story, tmp_path, capsys
):
    train_small(tmp_path / "small.safetensors")
    said = capsys.readouterr().out
    assert said.startswith("training a small GPT on the story")
    assert said.count("\n") == 1
    assert START_CONTEXT not in said and "Train loss" not in said


def test_the_small_model_neither_uses_nor_moves_the_random_state(tiny_story, tmp_path):
    weights = []
    for seed in (1, 2):
        path = tmp_path / f"{seed}.safetensors"
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        train_small(path)
        assert torch.equal(torch.get_rng_state(), before)
        weights.append(load_model(path)[0].state_dict())
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name])


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
        (["--text", "no-such-text"], "no-such-text is neither a file nor a text"),
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
