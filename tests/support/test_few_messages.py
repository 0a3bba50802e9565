"""Classifiers are trained on few messages and compared as 6.7 says."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ch06.classifier import Classifier
from ch06.spam import SAMPLE, read_messages, split_messages
from support.apps import few_messages
from support.apps.few_messages import (
    BASELINE,
    MIN_STEPS,
    compare_classifiers,
    find_right_answers,
    randomize_weights,
    sample_messages,
    says_spam,
    summarize_answers,
    train_head_from,
)
from support.weights.pretrained import Pretrained
from tests.lessons.test_classifier import seeded_model
from tests.lessons.test_kv_cache import MODELS

pytestmark = pytest.mark.usefixtures("one_thread")


class Codes:
    """A tokenizer whose tokens are the letters' code points, below 100."""

    eot_token = 100

    def encode_ordinary(self, text):
        return [ord(letter) % 100 for letter in text[:12]]


@pytest.mark.parametrize("kind", MODELS)
def test_a_randomized_model_has_learned_nothing(kind):
    model, other = seeded_model(kind), seeded_model(kind)
    randomize_weights(model, seed=1)
    for (name, new), old in zip(model.named_parameters(), other.parameters()):
        if old.dim() > 1:
            assert not (new == old).any()
            assert new.std().item() == pytest.approx(old.std().item(), rel=0.2)
        else:
            assert set(new.tolist()) == {1.0 if name.endswith("scale") else 0.0}
    again, third = seeded_model(kind), seeded_model(kind)
    randomize_weights(again, seed=1)
    randomize_weights(third, seed=2)
    weights = [m.trf_blocks[0].att.W_query.weight for m in (model, again, third)]
    assert torch.equal(*weights[:2]) and not torch.equal(weights[0], weights[2])


def test_half_of_the_drawn_messages_are_spam_and_draws_are_nested():
    labels = np.array([0] * 30 + [1] * 12)
    few, many = (sample_messages(labels, size, seed=3) for size in (10, 20))
    assert labels[few].tolist() == [0] * 5 + [1] * 5
    assert set(few) < set(many) and len(set(many)) == 20
    assert labels[sample_messages(labels, 40, seed=3)].sum() == 12  # there are no more
    assert set(sample_messages(labels, 10, seed=4)) != set(few)


@pytest.mark.parametrize(("size", "num_epochs"), [(10, 50), (400, 5)])
def test_as_many_steps_are_taken_as_are_said(monkeypatch, size, num_epochs):
    seen = []

    def steps(head, loader, optimizer, device, num_epochs):
        seen.append((len(loader), num_epochs))
        return []

    monkeypatch.setattr(few_messages, "training_steps", steps)
    classifier = Classifier(seeded_model("GPT"), pad_token_id=100)
    start = {key: value.clone() for key, value in classifier.head.state_dict().items()}
    train_head_from(classifier.head, start, size * [(torch.ones(3, 16), 1)], 1, "cpu")
    assert seen == [(-(-size // 8), num_epochs)]
    assert seen[0][0] * seen[0][1] >= MIN_STEPS


def test_answers_come_in_the_order_of_the_examples():
    class Sign(nn.Module):
        def forward(self, features):
            return torch.stack([-features[:, :1, 0], features[:, :1, 0]], dim=-1)

    examples = [
        (torch.full((n, 2), sign), label)
        for n, sign, label in ((3, 1.0, 1), (1, 1.0, 0), (2, -1.0, 0), (4, -1.0, 1))
    ]
    assert find_right_answers(Sign(), examples, "cpu").tolist() == [
        True,
        False,
        True,
        False,
    ]


class Says(nn.Module):
    """A model that goes on with one token, whatever it reads; 8 tokens at most."""

    context_length = 8

    def __init__(self, token):
        super().__init__()
        self.tok_emb, self.token = nn.Embedding(101, 2), token

    def forward(self, idx):
        assert idx.shape[1] <= 8
        return nn.functional.one_hot(0 * idx + self.token, 101).float()


@pytest.mark.parametrize(("token", "expected"), [(7, True), (9, False)])
def test_a_model_says_spam_if_yes_is_likelier(token, expected):
    words = {" Yes": [7], " No": [9]}
    tokenizer = SimpleNamespace(encode_ordinary=lambda text: words.get(text, 12 * [3]))
    assert says_spam(Says(token), tokenizer, "free!") is expected


def test_all_ways_meet_the_same_messages(monkeypatch):
    train, _, test, _ = split_messages(read_messages(SAMPLE))

    def load(name, device):
        return Pretrained(seeded_model("GPT"), Codes(), "tiny", "", {})

    monkeypatch.setattr(few_messages, "load_pretrained", load)
    monkeypatch.setattr(few_messages, "MIN_STEPS", 2)
    right = compare_classifiers(train[::4], test[::3], (4, 8), (1, 2), "cpu")
    ways = "tiny", "random weights", BASELINE
    assert set(right) == {(size, way) for size in (4, 8) for way in ways}
    assert {rows.shape for rows in right.values()} == {(2, len(test[::3]))}
    table = summarize_answers(right, test["Group"][::3])
    assert list(table.columns) == ["right", "points ahead"]
    assert (table["points ahead"][:, BASELINE] == "").all()


def test_the_summary_compares_message_by_message():
    right = {(10, BASELINE): np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)}
    right[10, "model"] = np.array([[1, 1, 1, 0], [1, 1, 1, 0]], dtype=bool)
    table = summarize_answers(right, pd.Series([1, 2, 3, 4]))
    assert table.loc[(10, BASELINE), "right"] == "37.5% (25.0% to 50.0%)"
    assert table.loc[(10, "model"), "right"] == "75.0% (75.0% to 75.0%)"
    shown = table.loc[(10, "model"), "points ahead"]
    mean, low, high = map(float, re.findall(r"[+-][\d.]+", shown))
    assert mean == 37.5 and 0 <= low < 37.5 < high
    right = {key: np.tile(found, 2) for key, found in right.items()}
    alike = summarize_answers(right, pd.Series([1, 1, 1, 1, 2, 2, 2, 2]))
    assert alike.loc[(10, "model"), "points ahead"] == "+37.5 (+37.5 to +37.5)"
