"""Answers to chapter 3's exercises, each wrong as a reader's might be."""

import torch

from ch03.attention import (
    CausalAttention,
    MultiHeadAttention,
    MultiHeadAttentionWrapper,
    SelfAttention_v1,
    SelfAttention_v2,
    softmax_naive,
)

ONES = torch.ones(6, 6, dtype=torch.bool)


def only_last(layer, x):
    changed = x.clone()
    changed[:, -1] += 1.0
    return not torch.equal(layer(changed)[:, :-1], layer(x)[:, :-1])


def changes_its_argument(layer, x):
    before = layer(x)
    x[:, -1] += 1.0
    return not torch.equal(layer(x)[:, :-1], before[:, :-1])


def compares_all(layer, x):
    changed = x.clone()
    changed[:, -1] += 1.0
    return not torch.equal(layer(changed), layer(x))


def in_place(x):
    x -= x.max(dim=-1, keepdim=True).values
    return softmax_naive(x)


def seeded(layer, *sizes):
    torch.manual_seed(123)
    return layer(*sizes)


def untransposed():
    v1, v2 = seeded(SelfAttention_v1, 3, 2), SelfAttention_v2(3, 2)
    for name in ("W_query", "W_key", "W_value"):
        getattr(v2, name).weight = getattr(v1, name)
    return v2


def unit(layer_class, scale):
    layer = layer_class(3, 3)
    for name, factor in (("W_query", scale), ("W_key", 1.0), ("W_value", 1.0)):
        matrix = getattr(layer, name)
        getattr(matrix, "weight", matrix).data = factor * torch.eye(3)
    return layer


def swapped(rows=True, columns=True):
    layer = seeded(MultiHeadAttention, 8, 8, 6, 0.0, 2)
    with torch.no_grad():
        for name in ("W_query", "W_key", "W_value") if rows else ():
            weight = getattr(layer, name).weight
            weight.copy_(weight.roll(4, 0))
        if columns:
            layer.out_proj.weight.copy_(layer.out_proj.weight.roll(4, 1))
    return layer


WRONG = {
    "3.2.1": [
        softmax_naive,
        lambda x: softmax_naive(x - x.max()),
        lambda x: torch.softmax(x, dim=0),
        lambda x: x / x.sum(dim=-1, keepdim=True),
        in_place,
        lambda x: None,
        torch.ones(3),
    ],
    "3.2.2": [10, -200, 0, float("nan"), "many", torch.rand(6)],
    "3.2.3": [
        [0.4671, 0.5910, 0.5266],  # of "one", which stands at place 1 now
        [0.55, 0.87, 0.66],  # the word's own vector
        torch.zeros(6, 3),
        "the same",
    ],
    "3.4.1": [147_456, 49_216, 147_648 / 2, "147k", 49_152],
    "3.4.2": [
        seeded(SelfAttention_v1, 3, 2),
        seeded(SelfAttention_v2, 3, 2),
        untransposed(),
        SelfAttention_v2,
    ],
    "3.4.3": [
        unit(SelfAttention_v1, 1.0),
        unit(SelfAttention_v2, 3.0),
        SelfAttention_v2(3, 3),
        SelfAttention_v2(3, 2),
        SelfAttention_v2(4, 3),
        torch.eye(3),
    ],
    "3.4.4": [8, 16, 0, -32, 64, 1024, "32?"],
    "3.5.1": [
        ONES.triu(1),
        ~(ONES.triu(1) | ONES.tril(-3)),
        ONES.triu(1) | ONES.tril(-2),
        torch.zeros(5, 5),
        torch.rand(6, 6),
        3,
    ],
    "3.5.2": [
        only_last,
        changes_its_argument,
        compares_all,
        lambda layer, x: False,
        lambda layer, x: True,
        lambda layer, x: None,
        False,
    ],
    "3.5.3": [0.5, 1025 / 2048, 523_776, 1023 / 1024, "half"],
    "3.5.4": [ONES.triu(1), ONES, ONES.tril(-1), ONES.tril().float(), "tril"],
    "3.6.1": [
        MultiHeadAttentionWrapper(3, 2, 6, 0.0, 2),
        MultiHeadAttentionWrapper(3, 2, 6, 0.0, 1),
        MultiHeadAttentionWrapper(2, 1, 6, 0.0, 2),
        MultiHeadAttentionWrapper,
        CausalAttention(3, 2, 6, 0.0),
    ],
    "3.6.2": [
        MultiHeadAttention(768, 64, 1024, 0.0, 4),
        MultiHeadAttention(768, 768, 256, 0.0, 12),
        MultiHeadAttention(768, 768, 1024, 0.0, 8),
        12,
    ],
    "3.6.3": [
        MultiHeadAttention(8, 8, 6, 0.0, 2),
        MultiHeadAttentionWrapper(8, 4, 6, 0.0, 2),
        torch.full((6, 6), 1 / 6),
    ],
    "3.6.4": [
        swapped(rows=False, columns=False),
        swapped(columns=False),
        swapped(rows=False),
        MultiHeadAttention(8, 8, 6, 0.0, 2),
        MultiHeadAttention(4, 4, 6, 0.0, 2),
    ],
}
