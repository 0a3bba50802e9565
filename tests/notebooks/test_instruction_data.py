"""The course's instructions: whole, varied, right where a program can tell."""

from collections import Counter

import pytest

from ch02.tokenizer import get_tokenizer
from ch06.splits import near_duplicate_groups
from ch07.instructions import (
    DATA,
    InstructionDataset,
    download_and_load_file,
    format_question,
)
from tests.instruction_checks.arithmetic import check_arithmetic
from tests.instruction_checks.code import check_code
from tests.instruction_checks.conversion import check_conversion
from tests.instruction_checks.ordering import check_ordering
from tests.instruction_checks.spelling import check_spelling
from tests.instruction_checks.texts import check_classification, check_extraction

KEYS = ["instruction", "input", "output", "category"]
CHECKS = {  # by category; a check returns False for an answer that it cannot verify
    "arithmetic": (check_arithmetic, 1.0),
    "classification": (check_classification, 1.0),
    "extraction": (check_extraction, 1.0),
    "ordering": (check_ordering, 0.6),
    "simple code": (check_code, 1.0),
    "spelling": (check_spelling, 0.5),
    "unit conversion": (check_conversion, 1.0),
}


@pytest.fixture(scope="module")
def entries():
    """The course's own data."""
    return download_and_load_file(DATA)


def of_category(entries, category):
    """The entries of one category."""
    return [entry for entry in entries if entry["category"] == category]


def test_every_entry_has_its_four_texts(entries):
    for entry in entries:
        assert list(entry) == KEYS
        for text in entry.values():
            assert text == text.strip() and "###" not in text and "<|" not in text


def test_there_are_enough_in_balance(entries):
    assert len(entries) >= 1100
    counts = Counter(entry["category"] for entry in entries)
    assert len(counts) >= 12
    assert max(counts.values()) < 1.5 * min(counts.values())
    with_input = sum(bool(entry["input"]) for entry in entries)
    assert 0.3 < with_input / len(entries) < 0.4


def test_lengths_are_a_laptops(entries):
    """Answers are short, and all fit into the context of the smallest model."""
    words = sorted(len(entry["output"].split()) for entry in entries)
    assert words[-1] <= 45 and 1 <= words[len(words) // 2] <= 10
    InstructionDataset(entries, get_tokenizer("gpt2"), max_length=200)


def test_no_two_prompts_are_alike(entries):
    """Digits are folded: those that differ in their numbers alone would be alike."""
    prompts = [format_question(entry) for entry in entries]
    groups = near_duplicate_groups(prompts, threshold=0.65)
    assert len(set(groups)) == len(entries)


def test_no_category_is_one_template(entries):
    """Openings of three words are nearly as many as entries."""
    for category in {entry["category"] for entry in entries}:
        found = of_category(entries, category)
        openings = {tuple(e["instruction"].lower().split()[:3]) for e in found}
        assert len(openings) > 0.9 * len(found)


@pytest.mark.parametrize("category", CHECKS)
def test_answers_are_right_where_a_program_can_tell(entries, category):
    check, least = CHECKS[category]
    found = of_category(entries, category)
    verified = [check(entry) is not False for entry in found]
    assert sum(verified) >= least * len(found)


@pytest.mark.parametrize("category", CHECKS)
def test_checks_reject_the_answers_of_others(entries, category):
    """The next entry's answer is wrong, but for a few that happen to fit."""
    check, least = CHECKS[category]
    found = of_category(entries, category)
    num_rejected = 0
    for entry, other in zip(found, found[1:] + found[:1]):
        try:
            check(entry | {"output": other["output"]})
        except AssertionError:
            num_rejected += 1
    assert num_rejected > 0.8 * least * len(found)
