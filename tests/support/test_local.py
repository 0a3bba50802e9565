"""Without a trained model, a small one is trained, saved, and the same each time."""

import pytest
import torch

from ch04.gpt import GPTModel
from ch05.training import (
    create_train_val_loaders,
    evaluate_model,
    train_model_simple,
)
from support.download.texts import load_text
from support.weights import local
from support.weights.checkpoint import load_model
from support.weights.local import train_small


@pytest.fixture
def tiny_story(monkeypatch, tiny_config, one_thread):
    """A tiny config in the place of SMALL_CONFIG, a short story, and one epoch."""
    cfg = tiny_config | {"vocab_size": 50257, "context_length": 32}
    story = load_text()[:4000]

    def train_briefly(*args, **settings):
        return train_model_simple(*args, **settings | {"num_epochs": 1})

    monkeypatch.setattr(local, "SMALL_CONFIG", cfg)
    monkeypatch.setattr(local, "load_text", lambda: story)
    monkeypatch.setattr(local, "train_model_simple", train_briefly)
    return cfg


def test_the_small_model_can_be_loaded_and_has_learned(tiny_story, tmp_path):
    path = tmp_path / "models" / "local.safetensors"
    train_small(path)
    model, cfg = load_model(path)
    assert cfg == tiny_story
    torch.manual_seed(123)
    untrained = GPTModel(cfg).eval()
    loaders = create_train_val_loaders(load_text()[:4000], cfg["context_length"])
    before, after = (
        evaluate_model(m, *loaders, "cpu", eval_iter=None)[0]
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
    assert "Every effort moves you" not in said and "Train loss" not in said


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
