"""The baselines learn, and the figures are what their formulas say."""

import math

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import nn

from ch06.baselines import (
    count_characters,
    count_digits,
    create_baselines,
    fold_digits,
    predict,
    score,
    wilson_interval,
)
from ch06.spam import SAMPLE, read_messages, split_messages

pytestmark = pytest.mark.usefixtures("one_thread")


class Told(nn.Module):
    """A model whose logits at each place stand in its input, (b, num_tokens, 2)."""

    def forward(self, inputs):
        return inputs


@pytest.fixture(scope="module")
def parts():
    """Training and test part of the course's own sample."""
    train, _, test, _ = split_messages(read_messages(SAMPLE))
    return train, test


@pytest.fixture(scope="module")
def trained(parts):
    """The baselines, trained on the sample."""
    train, _ = parts
    return {
        name: baseline.fit(train["Text"], train["Label"])
        for name, baseline in create_baselines().items()
    }


def test_digits_and_capitals_are_folded_by_hand():
    assert fold_digits("Call 80123") == "call 00000"
    assert fold_digits("ÉTÉ 1a2") == "été 0a0"
    assert fold_digits("") == ""


def test_naive_bayes_by_hand():
    """How many of ham's three messages, of spam's two have a word, each plus 0.1."""
    texts = ["see you", "see me", "me", "win you", "win 50"]
    labels = [0, 0, 0, 1, 1]
    baseline = create_baselines()["naive Bayes on words"].fit(texts, labels)
    has_word = {  # share of ham, share of spam
        "see": (2.1 / 3.2, 0.1 / 2.2),
        "you": (1.1 / 3.2, 1.1 / 2.2),
        "me": (2.1 / 3.2, 0.1 / 2.2),
        "win": (0.1 / 3.2, 2.1 / 2.2),
        "00": (0.1 / 3.2, 1.1 / 2.2),
    }
    ham, spam = 3 / 5, 2 / 5
    for word, (of_ham, of_spam) in has_word.items():
        is_there = word in ("you", "00")
        ham *= of_ham if is_there else 1 - of_ham
        spam *= of_spam if is_there else 1 - of_spam
    (found,) = baseline.predict_proba(["You 99 you"])
    assert found == pytest.approx([ham / (ham + spam), spam / (ham + spam)])


def test_logistic_regression_is_on_the_characters_of_folded_texts(parts, trained):
    """Runs of one to five, by the logarithms of their counts; little penalty."""
    (train, test), name = parts, "logistic regression on characters"
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 5), sublinear_tf=True)
    vectors = vectorizer.fit_transform(map(fold_digits, train["Text"]))
    reference = LogisticRegression(C=100, max_iter=1000).fit(vectors, train["Label"])
    folded = vectorizer.transform(map(fold_digits, test["Text"]))
    found = trained[name].predict_proba(test["Text"])
    np.testing.assert_allclose(found, reference.predict_proba(folded))


@pytest.mark.parametrize("name", ["message length", "digit count"])
def test_one_threshold_is_all_that_a_count_gets(trained, name):
    assert trained[name][-1].get_depth() == 1


def test_counts_by_hand():
    texts = ["Call 80123", "", "no digits", "7"]
    assert count_characters(texts).tolist() == [[10], [0], [9], [1]]
    assert count_digits(texts).tolist() == [[5], [0], [0], [1]]


@pytest.mark.parametrize("name", create_baselines())
def test_each_baseline_learns_more_than_the_majority(parts, trained, name):
    """By a tenth of the messages at least, on both parts."""
    for part in parts:
        majority = part["Label"].value_counts(normalize=True).max()
        assert trained[name].score(part["Text"], part["Label"]) > majority + 0.1


def test_those_that_read_learn_more_than_those_that_count(parts, trained):
    train, _ = parts
    scores = {n: b.score(train["Text"], train["Label"]) for n, b in trained.items()}
    counting = max(scores["message length"], scores["digit count"])
    assert scores["naive Bayes on words"] > counting + 0.1
    assert scores["logistic regression on characters"] > counting + 0.1


@pytest.mark.parametrize("name", create_baselines())
def test_a_baselines_answer_does_not_hang_on_which_digit_it_is(trained, name):
    texts = ["Call 80123 to win", "Call 99999 to win"]
    one, other = trained[name].predict_proba(texts)
    assert one.tolist() == other.tolist()


@pytest.mark.parametrize("name", create_baselines())
def test_same_messages_same_baseline(parts, trained, name):
    train, test = parts
    again = create_baselines()[name].fit(train["Text"], train["Label"])
    expected = trained[name].predict_proba(test["Text"])
    np.testing.assert_allclose(again.predict_proba(test["Text"]), expected)


def test_predictions_come_in_the_loaders_order(device):
    """The softmax at the last place, here of logits 0 and log(odds)."""
    batches, odds = [], [[1.0, 3.0, 9.0], [0.25]]
    labels = [[0, 1, 1], [0]]
    for some, same in zip(odds, labels):
        last = torch.tensor([[0.0, math.log(o)] for o in some])[:, None]
        batches.append((torch.cat([-9 * last, last], dim=1), torch.tensor(same)))
    found, probabilities = predict(batches, Told(), device)
    assert isinstance(found, np.ndarray) and found.tolist() == [0, 1, 1, 0]
    np.testing.assert_allclose(probabilities, [0.5, 0.75, 0.9, 0.2], rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_predictions_are_taken_without_dropout_and_gradients(training):
    seen = []
    model = Told().train(training)
    model.register_forward_hook(
        lambda model, *_: seen.append((model.training, torch.is_grad_enabled()))
    )
    predict([(torch.zeros(1, 1, 2), torch.tensor([0]))], model, "cpu")
    assert seen == [(False, False)] and model.training is training


@pytest.mark.parametrize(
    ("num_right", "num_examples"), [(0, 1), (1, 1), (50, 53), (299, 300), (7, 20)]
)
def test_the_interval_is_wilsons_formula(num_right, num_examples):
    z, n, share = 1.959963984540054, num_examples, num_right / num_examples
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    spread = math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) * z / (1 + z**2 / n)
    found = wilson_interval(num_right, num_examples)
    assert found == pytest.approx((middle - spread, middle + spread), abs=1e-9)
    assert 0 <= found[0] <= share <= found[1] <= 1


def test_scores_by_hand():
    """3 of 4 found, 3 of 5 alarms true; 7 of 10 answers right."""
    labels = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    answers = [1, 1, 1, 0, 1, 1, 0, 0, 0, 0]
    found = score(labels, answers)
    assert [*found] == ["accuracy", "from", "to", "precision", "recall", "F1"]
    low, high = wilson_interval(7, 10)
    expected = [0.7, low, high, 3 / 5, 3 / 4, 2 / 3]
    assert [*found.values()] == pytest.approx(expected)
    assert score(np.array(labels), torch.tensor(answers)) == found


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("labels", "answers", "accuracy"),
    [([0, 0], [0, 0], 1), ([1, 1], [0, 0], 0), ([0, 0], [1, 1], 0)],
    ids=["all ham", "none found", "no spam to find"],
)
def test_a_share_of_nothing_is_0(labels, answers, accuracy):
    found = score(labels, answers)
    assert found["accuracy"] == accuracy
    assert found["precision"] == found["recall"] == found["F1"] == 0
