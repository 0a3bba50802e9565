"""What a function accepts it obeys; everything else it refuses in a sentence.

Each table has a call for every function that takes an argument of a kind, and values
that it cannot mean. The sentence names the argument, or else shows the value.
"""

import math
import re

import numpy as np
import pytest
import torch

from ch02.bpe import train_vocab
from ch02.checks import check_number, check_whole, is_number, is_whole
from ch02.dataset import GPTDatasetV1, create_dataloader_v1
from ch02.tokenizer import BPETokenizer
from ch03.attention import (
    CausalAttention,
    MultiHeadAttention,
    MultiHeadAttentionWrapper,
)
from ch04.gpt import generate_text_simple

TEXT = "The tide comes in, and the tide goes out again. " * 30
BYTES = BPETokenizer.train("", 257)
NOT_WHOLE = [-1, 0, 1.5, True, math.nan, math.inf, "3", None]


def refuses(call, name, value):
    """True if a call raises a ValueError that names an argument and its value."""
    with pytest.raises(ValueError, match=re.escape(name)) as caught:
        call(value)
    assert "\n" not in str(caught.value)
    return str(value) in str(caught.value)


def calls(**table):
    """A parameter for each call of a table: {name: {function's name: call}}."""
    return [
        pytest.param(name, call, id=f"{name} of {function}")
        for name, functions in table.items()
        for function, call in functions.items()
    ]


@pytest.mark.parametrize("value", NOT_WHOLE)
def test_what_is_no_size_is_refused(value):
    assert not is_whole(value)
    assert refuses(lambda value: check_whole(top_k=value), "top_k is", value)


@pytest.mark.parametrize("value", [1, 7, np.int64(3), 10**30])
def test_whole_numbers_are_sizes(value):
    assert is_whole(value)
    check_whole(top_k=value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1, True, "0.5", None])
def test_what_is_no_share_is_refused(value):
    assert not is_number(value, 0, 1)
    share = {"train_ratio": value}
    with pytest.raises(ValueError, match="train_ratio is .* from 0 to 1"):
        check_number(0, 1, **share)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.25), 1e-320])
def test_numbers_are_shares(value):
    check_number(0, 1, train_ratio=value)


def attention(kind, **settings):
    sizes = {"d_in": 4, "d_out": 4, "context_length": 8, "dropout": 0.0}
    return kind(**sizes | settings)


def multi_head(**settings):
    return attention(MultiHeadAttention, **{"num_heads": 2} | settings)


SIZES = calls(
    vocab_size={
        "train_vocab": lambda n: train_vocab(TEXT, n, []),
        "BPETokenizer.train": lambda n: BPETokenizer.train(TEXT, n),
    },
    max_length={
        "GPTDatasetV1": lambda n: GPTDatasetV1(TEXT, BYTES, n, 1),
        "create_dataloader_v1": lambda n: create_dataloader_v1(
            TEXT, max_length=n, tokenizer=BYTES
        ),
    },
    stride={
        "GPTDatasetV1": lambda n: GPTDatasetV1(TEXT, BYTES, 4, n),
        "create_dataloader_v1": lambda n: create_dataloader_v1(
            TEXT, max_length=4, stride=n, tokenizer=BYTES
        ),
    },
    context_length={
        "CausalAttention": lambda n: attention(CausalAttention, context_length=n),
        "MultiHeadAttention": lambda n: multi_head(context_length=n),
        "MultiHeadAttentionWrapper": lambda n: attention(
            MultiHeadAttentionWrapper, context_length=n, num_heads=1
        ),
    },
    d_out={"MultiHeadAttention": lambda n: multi_head(d_out=n)},
    num_heads={
        "MultiHeadAttention": lambda n: multi_head(num_heads=n),
        "MultiHeadAttentionWrapper": lambda n: attention(
            MultiHeadAttentionWrapper, num_heads=n
        ),
    },
)


@pytest.mark.parametrize("value", [-1, 0, 1.5, True, math.nan])
@pytest.mark.parametrize(("name", "call"), SIZES)
def test_sizes(name, call, value):
    assert refuses(call, name, value)


@pytest.mark.parametrize("value", [-1, 0, 1.5])
def test_the_batch_size_of_a_loader_is_pytorchs_to_refuse(value):
    def load(size):
        return create_dataloader_v1(TEXT, size, 4, drop_last=False, tokenizer=BYTES)

    assert refuses(load, "batch_size", value)


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_dropout_is_pytorchs_to_refuse(rate):
    for kind in (CausalAttention, MultiHeadAttention):
        heads = {"num_heads": 2} if kind is MultiHeadAttention else {}
        assert refuses(
            lambda rate, kind=kind, heads=heads: attention(kind, dropout=rate, **heads),
            "dropout probability",
            rate,
        )


NOT_NAMES = ["<|x|>", "", ["<|x|>", "<|x|>"], ["<|x|>", ""], [""], [5], ("a", None)]


@pytest.mark.parametrize("names", NOT_NAMES)
@pytest.mark.parametrize(
    "call",
    [
        lambda names: train_vocab(TEXT, 300, names),
        lambda names: BPETokenizer.train(TEXT, 300, names),
        lambda names: BPETokenizer(BYTES.vocab, names),
    ],
    ids=["train_vocab", "BPETokenizer.train", "BPETokenizer"],
)
def test_special_tokens_are_different_names(call, names):
    assert refuses(call, "special_tokens is", names)


@pytest.mark.parametrize(
    ("special_tokens", "reason"),
    [
        (["<|x|>"], "must be a dict"),
        ({"<|x|>": 256, "<|y|>": 256}, "two tokens have the same id"),
        ({"<|x|>": 255}, "two tokens have the same id"),
    ],
)
def test_a_tokenizer_gives_each_token_its_own_id(special_tokens, reason):
    with pytest.raises(ValueError, match=reason):
        BPETokenizer(BYTES.vocab, special_tokens)


def test_special_tokens_are_allowed_by_name_or_all():
    tokenizer = BPETokenizer.train("", 258, ["<|x|>", "<|y|>"])
    text = "a<|x|><|y|>"
    assert tokenizer.encode(text, allowed_special="all") == [97, 256, 257]
    for names in ({"<|x|>"}, ["<|x|>"], ("<|x|>", "<|other|>"), {"<|x|>": 5}.keys()):
        assert tokenizer.encode(text, allowed_special=names)[:2] == [97, 256]
        assert 257 not in tokenizer.encode(text, allowed_special=names)
    for one in ("<|x|>", "none", "ALL"):
        assert refuses(lambda one: tokenizer.encode(text, one), "allowed_special", one)


@pytest.mark.parametrize("size", [0, -1, -3, 1.5, True, None])
def test_a_context_of_no_tokens_is_none(tiny_model, size):
    """The last 0 tokens, idx[:, -0:], would be all of them."""
    idx = torch.tensor([[1, 2, 3]])
    assert refuses(
        lambda size: generate_text_simple(tiny_model, idx, 2, size),
        "context_size",
        size,
    )


@pytest.mark.parametrize("number", [-1, 1.5, True, None])
def test_tokens_to_come_are_counted(tiny_model, number):
    idx = torch.tensor([[1, 2, 3]])
    assert refuses(
        lambda number: generate_text_simple(tiny_model, idx, number, 12),
        "max_new_tokens",
        number,
    )
    assert torch.equal(generate_text_simple(tiny_model, idx, 0, 12), idx)
