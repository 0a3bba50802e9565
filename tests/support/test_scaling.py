"""The table of costs in support/pretraining/README.md is what the arithmetic gives."""

import pytest

from benchmarks.scaling import (
    count_parameters,
    duration,
    flops_a_token,
    table,
)
from ch04.gpt import GPT_CONFIG_124M
from support.paths import ROOT


def test_the_page_on_pretraining_has_the_table():
    page = ROOT / "support" / "pretraining" / "README.md"
    assert table() in page.read_text(encoding="utf-8")


def test_parameters_by_formula():
    """12 matrices of emb_dim squared in a block, two embeddings, biases and norms."""
    width, layers = 768, 12
    block = 12 * width**2 + 10 * width  # without the biases of query, key and value
    embeddings = (50257 + 1024) * width
    expected = layers * block + embeddings + 2 * width
    assert count_parameters(GPT_CONFIG_124M) == expected


def test_attention_costs_more_in_a_longer_context():
    short, long = (
        flops_a_token(GPT_CONFIG_124M | {"context_length": length})
        for length in (1024, 2048)
    )
    positions = 6 * 1024 * 768  # their embeddings are parameters too
    assert long - short == 12 * 12 * 1024 * 768 + positions


@pytest.mark.parametrize(
    ("hours", "words"), [(0.4, "24 min"), (30, "30 h"), (100, "4.2 days")]
)
def test_hours_in_words(hours, words):
    assert duration(hours) == words
