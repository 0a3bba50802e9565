"""Scores of answers: right ones score 1, shuffled ones near 0, and ties are ties."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel
from torch import nn

from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.decoding import generate
from ch07.evaluation import (
    Answer,
    answer_losses,
    contains_reference,
    copy_input,
    draw_distractors,
    generate_answers,
    loss_parts,
    normalize,
    paired_bootstrap,
    prefers_references,
    repetition,
    rouge_l,
    score_answers,
)
from ch07.instructions import format_prompt, split_entries

pytestmark = pytest.mark.usefixtures("one_thread")
EOT = 50256


@pytest.fixture(scope="module")
def model():
    """A tiny GPT with GPT-2's vocabulary."""
    torch.manual_seed(123)
    cfg = {"context_length": 128, "emb_dim": 16, "n_heads": 2, "n_layers": 1}
    return GPTModel(GPT_CONFIG_124M | cfg).eval()


def test_answers_equal_those_asked_for_one_by_one(model, tokenizer, entries):
    some = entries[:7]
    answers = generate_answers(model, tokenizer, some, max_new_tokens=5, batch_size=3)
    for entry, answer in zip(some, answers):
        prompt = tokenizer.encode_ordinary(format_prompt(entry))
        row = generate(model, [prompt], 5, 128, eos_id=EOT)[0]
        assert answer.text == tokenizer.decode(row[len(prompt) :]).strip()
        assert answer.has_ended == (len(row) < len(prompt) + 5)


def test_prompts_of_similar_length_are_answered_together(
    tokenizer, entries, monkeypatch
):
    """And all as they are told: 64 tokens at most, within the model's context."""
    asked, entries = [], [*entries[:20], entries[0]]

    def generate(model, rows, max_new_tokens, context_size, eos_id):
        assert (max_new_tokens, context_size, eos_id) == (64, 77, EOT)
        asked.append([len(row) for row in rows])
        return [[*row, 11] for row in rows]

    monkeypatch.setattr("ch07.evaluation.generate", generate)
    model = SimpleNamespace(context_length=77)
    assert generate_answers(model, tokenizer, entries) == 21 * [Answer(",", True)]
    assert [len(lengths) for lengths in asked] == [16, 5]
    assert sum(asked, []) == sorted(sum(asked, []))


def test_answers_go_on_from_the_prompts_that_are_given(model, tokenizer, entries):
    prompts = [[5, 6], [7, 8, 9], [10]]
    end = generate(model, [prompts[0]], 3, 128)[0][-1]  # so that one answer ends
    how = {"max_new_tokens": 4, "batch_size": 2, "prompts": prompts, "eos_id": end}
    answers = generate_answers(model, tokenizer, entries[:3], **how)
    for prompt, answer in zip(prompts, answers):
        row = generate(model, [prompt], 4, 128, eos_id=end)[0]
        assert answer.text == tokenizer.decode(row[len(prompt) :]).strip()
        assert answer.has_ended == (len(row) < len(prompt) + 4)
    assert answers[0].has_ended


def test_an_answer_that_ends_is_told_from_one_cut_off(model, tokenizer, entries):
    """The head is turned so that the second token is always the end of text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "ch07.evaluation.generate",
            lambda m, rows, n, *a, **k: [
                row + [11, 13][: 2 - i % 2] for i, row in enumerate(rows)
            ],
        )
        answers = generate_answers(model, tokenizer, entries[:2], max_new_tokens=2)
    assert sorted(answer.has_ended for answer in answers) == [False, True]
    assert {answer.text for answer in answers} == {",", ",."}


def test_references_score_one(entries):
    scores = score_answers(entries, [Answer(e["output"], True) for e in entries])
    for column in ("ended", "exact", "normalized", "rouge_l"):
        assert (scores[column] == 1).all()
    assert scores["category"].tolist() == [entry["category"] for entry in entries]


def test_shuffled_references_score_near_zero(entries):
    outputs = [entry["output"] for entry in entries]
    random.Random(123).shuffle(outputs)
    scores = score_answers(entries, [Answer(text, True) for text in outputs])
    assert scores["exact"].mean() < 0.02
    assert scores["normalized"].mean() < 0.02
    assert scores["rouge_l"].mean() < 0.12


def test_answers_of_another_number_are_refused(entries):
    with pytest.raises(ValueError, match="shorter"):
        score_answers(entries[:2], [Answer("a", True)])


def test_the_control_says_the_input_back():
    entry = {"instruction": "Make it plural.", "input": "goose"}
    assert copy_input(entry) == Answer("goose", True)
    assert copy_input(entry | {"input": ""}) == Answer("Make it plural.", True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (' "Yes." ', "yes"),
        ("A  cat\n sat!", "a cat sat"),
        ('"Yes".', "yes"),
        ("3.5", "3.5"),
        ("3.", "3"),
        (".5", ".5"),
        ('".5."', ".5"),
        ("-.5", "-.5"),
        ("-5", "-5"),
        ("$5", "$5"),
        ("!found", "!found"),
        (".append(3)", ".append(3)"),
        ("?!", "?!"),
        ("...", "..."),
        ("'!'", "!"),
        ("x[::-1]", "x[::-1]"),
        ("", ""),
    ],
)
def test_normalize(text, expected):
    assert normalize(text) == expected


def test_numbers_and_marks_that_differ_are_told_apart():
    answers = [".5", "5", "-.5", "-5", "0.5", "?", "!", ".", "", "found", "!found"]
    assert len({normalize(text) for text in answers}) == len(answers)
    assert rouge_l("?", "!") == 0


def test_repetition_by_hand():
    assert repetition("one two") == 0
    assert repetition("a b c d") == 0
    assert repetition("a b c a b c a b c") == pytest.approx(1 - 3 / 7)


def test_rouge_by_hand():
    """The longest common subsequence of these is "the cat sat": 3 of 4 and of 5."""
    found = rouge_l("the cat sat down", "the black cat sat up")
    assert found == pytest.approx(2 * 3 / (4 + 5))
    assert rouge_l("+", "+.") == 1
    assert rouge_l("Paris", "London") == 0


def test_distractors_are_others_of_the_category(entries):
    drawn = draw_distractors(entries)
    assert drawn == draw_distractors(entries)
    assert drawn != draw_distractors(entries, seed=5)
    by_category = {}
    for entry in entries:
        by_category.setdefault(entry["category"], set()).add(entry["output"])
    for entry, others in zip(entries, drawn):
        assert len({entry["output"], *others}) == 4
        assert set(others) <= by_category[entry["category"]]


def test_distractors_of_a_small_category_come_from_all():
    data = [{"output": str(i), "category": "ab"[i > 3]} for i in range(6)]
    for entry, others in zip(data, draw_distractors(data)):
        assert len({entry["output"], *others}) == 4


@pytest.mark.parametrize("more", [{}, {"category": None}, {"source": 3}])
def test_entries_without_categories_go_through_everything(
    model, tokenizer, entries, more
):
    """The book's own have none; others have further keys."""
    keys = ("instruction", "input", "output")
    data = [{key: entry[key] for key in keys} | more for entry in entries[:24]]
    answers = generate_answers(model, tokenizer, data, max_new_tokens=2)
    scores = score_answers(data, answers)
    assert len(scores.groupby("category", dropna=False).mean()) == 1
    for entry, others in zip(data, draw_distractors(data)):
        assert len({entry["output"], *others}) == 4
    assert len(prefers_references(model, tokenizer, data[:5])) == 5
    assert sum(map(len, split_entries(data))) == 24


@pytest.mark.parametrize("outputs", [["a"], ["a", "b", "c"], ["a"] * 9])
def test_too_few_other_outputs_are_named(outputs):
    data = [{"output": output} for output in outputs]
    reason = "3 distractors are needed, but there are only [0-2] other outputs: "
    with pytest.raises(ValueError, match=reason):
        draw_distractors(data)


def test_no_entries_cannot_be_scored():
    with pytest.raises(ValueError, match="there are no entries"):
        score_answers([], [])


@pytest.mark.parametrize(
    ("before", "after"),
    [([], []), ([1], [2]), ([1], [1, 2]), ([1, 2], [1]), (1, 2), ([[1]], [[2]])],
)
def test_bootstrap_takes_pairs_alone(before, after):
    with pytest.raises(ValueError, match="expected one value for each of two or"):
        paired_bootstrap(before, after)


@pytest.mark.parametrize("text", ["\0", "a \ud800 b", "\udfff", "\0\0 c"])
def test_odd_characters_are_scored(text):
    assert rouge_l(text, "x") == 0 and rouge_l(text, text) == 1
    assert repetition(text) == 0 and normalize(text)


def test_answer_losses_are_those_of_each_alone(model, tokenizer, entries):
    entry, outputs = entries[0], ["Yes.", "A much longer answer than that."]
    found = answer_losses(model, tokenizer, entry, outputs)
    for output, loss in zip(outputs, found):
        prompt = tokenizer.encode_ordinary(format_prompt(entry))
        answer = [*tokenizer.encode_ordinary(output), EOT]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer]))[0, len(prompt) - 1 : -1]
        expected = nn.functional.cross_entropy(logits, torch.tensor(answer))
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_likeliest_is_preferred(model, tokenizer, entries):
    some = entries[:6]
    found = prefers_references(model, tokenizer, some)
    for entry, others, value in zip(some, draw_distractors(some), found):
        losses = answer_losses(model, tokenizer, entry, [entry["output"], *others])
        assert value == float(losses[0] < losses[1:].min())


def test_as_many_distractors_are_drawn_as_are_wanted(entries, monkeypatch):
    seen = []

    def losses(model, tokenizer, entry, outputs):
        seen.append(outputs)
        return torch.arange(len(outputs))

    monkeypatch.setattr("ch07.evaluation.answer_losses", losses)
    found = prefers_references(None, None, entries[:5], num_distractors=2)
    assert found.tolist() == [1.0] * 5
    for entry, outputs, others in zip(
        entries, seen, draw_distractors(entries[:5], num_distractors=2)
    ):
        assert outputs == [entry["output"], *others] and len(others) == 2


def test_bootstrap_draws_as_often_as_it_is_told():
    """A single draw is its own lowest and highest."""
    _, low, high = paired_bootstrap(np.zeros(50), np.arange(50.0), num_draws=1)
    assert low == high
    drawn = paired_bootstrap(np.zeros(50), np.arange(50.0))
    assert drawn == paired_bootstrap(np.zeros(50), np.arange(50.0), num_draws=10_000)


def test_bootstrap_agrees_with_the_t_test():
    rng = np.random.default_rng(1)
    before = rng.normal(size=200)
    after = before + rng.normal(0.3, 0.5, size=200)
    rise, low, high = paired_bootstrap(before, after)
    assert rise == pytest.approx((after - before).mean())
    expected = ttest_rel(after, before).confidence_interval()
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert paired_bootstrap(before, after) == (rise, low, high)


def test_two_entries_are_enough_for_a_bootstrap():
    assert paired_bootstrap([0.0, 0.0], [1.0, 1.0]) == (1, 1, 1)


def test_bootstrap_is_paired():
    """What all entries gain alike is certain, however much the entries differ."""
    before = np.arange(50.0)
    assert paired_bootstrap(before, before + 2) == (2, 2, 2)


@pytest.mark.parametrize(
    ("reference", "text", "expected"),
    [
        ("light", 'The opposite of "heavy" is "light".', True),
        ("Light.", "light", True),
        ("light", "It is lighter than before.", False),
        ("light", "It is dark.", False),
        ("5 cm", "That makes 15 cm.", False),
        ("5 cm", "That makes  5  CM!", True),
        ("+", "The sign is + here", True),
        ("a.b", "It is axb.", False),
    ],
)
def test_an_answer_holds_whole_words_of_the_reference(reference, text, expected):
    assert contains_reference(reference, text) is expected


def test_parts_of_a_loss_add_up_to_it(model, tokenizer, entries):
    some = entries[:11]  # more than a batch
    prompts = [tokenizer.encode_ordinary(format_prompt(entry)) for entry in some]
    outputs = [tokenizer.encode_ordinary(entry["output"]) for entry in some]
    parts = loss_parts(model, prompts, outputs, EOT)
    for entry, output, (tokens, end, number) in zip(some, outputs, parts):
        (loss,) = answer_losses(model, tokenizer, entry, [entry["output"]])
        assert number == len(output) + 1
        assert (tokens + end) / number == pytest.approx(loss.item(), rel=1e-4)
    other = loss_parts(model, prompts, outputs, end_id=11)
    assert np.allclose(other[:, 0], parts[:, 0], atol=1e-3)  # only the end differs
    assert not np.isclose(other[:, 1], parts[:, 1], atol=1e-3).any()
