"""Is an answer one that its text offers? For classification and extraction."""

import re


def stands_in(words, text):
    """Does `words` stand in `text` to the letter, not inside a longer word?"""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def check_classification(entry):
    """The answer is one of the labels offered in the instruction."""
    label, instruction = entry["output"], entry["instruction"]
    assert stands_in(label, instruction), (
        f"label {label!r} is not offered in {instruction!r}"
    )


def check_extraction(entry):
    """The answer, or each of its comma-separated items, is in the text."""
    text = entry["instruction"] + "\n" + entry["input"]
    answer = entry["output"]
    if stands_in(answer, text):
        return
    for item in answer.split(", "):
        assert stands_in(item, text), f"{item!r} does not stand in {text!r}"
