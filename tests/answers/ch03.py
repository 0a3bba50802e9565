"""Answers to chapter 3's exercises, right ones and such as a reader gets wrong."""

import copy
from fractions import Fraction

import numpy as np
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


def looks_one_back(layer, x):
    """Compares only the word right before the one that is changed."""
    before = layer(x)
    for later in range(1, x.shape[1]):
        changed = x.clone()
        changed[:, later] += 1.0
        if not torch.equal(layer(changed)[:, later - 1], before[:, later - 1]):
            return True
    return False


def looks_at_the_mask(layer, x):
    """Believes in the mask, and never runs the layer."""
    mask = getattr(layer, "mask", torch.zeros(6, 6))
    return not torch.equal(mask, torch.ones(6, 6).triu(1).bool())


def leaks_by_cutting(layer, x):
    """Compares the outputs of a beginning with those of the whole."""
    whole = layer(x)
    return not all(
        torch.allclose(layer(x[:, :end]), whole[:, :end], atol=1e-5)
        for end in range(1, x.shape[1])
    )


def leaks_by_gradients(layer, x):
    """Looks for a gradient from an output to a later word."""
    x = x.clone().requires_grad_()
    for word in range(x.shape[1]):
        (gradient,) = torch.autograd.grad(layer(x)[:, word].square().sum(), x)
        if gradient[:, word + 1 :].any():
            return torch.tensor(True)
    return torch.tensor(False)


def softmax_by_logarithm(x):
    """exp of the scores minus the logarithm of the sum of their powers."""
    return torch.exp(x - torch.logsumexp(x, dim=-1, keepdim=True))


def softmax_of_numpy(x):
    """The same in NumPy, in double precision."""
    powers = np.exp(x.double().numpy() - x.numpy().max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def softmax_of_sorted(x):
    """The largest score of each row, found by sorting."""
    powers = (x - x.sort(dim=-1).values[..., -1:]).exp()
    return powers / powers.sum(-1, keepdim=True)


def attention(num_heads=2, zero=("W_query",), dropout=0.0, qkv_bias=False, layer=None):
    """A MultiHeadAttention(8, 8, 6, ...) in which the named layers are zero."""
    layer = (layer or MultiHeadAttention)(8, 8, 6, dropout, num_heads, qkv_bias)
    for name in zero:
        for parameter in getattr(layer, name).parameters():
            torch.nn.init.zeros_(parameter)
    return layer


class SeesAll(MultiHeadAttention):
    """Attention whose mask was forgotten."""

    def forward(self, x):
        heads = [
            self.split_heads(f(x)) for f in (self.W_query, self.W_key, self.W_value)
        ]
        context_vec = torch.nn.functional.scaled_dot_product_attention(*heads)
        return self.out_proj(context_vec.transpose(1, 2).flatten(2))


def scaled_down(factor):
    """Queries so small that toy inputs hardly show them."""
    layer = attention(zero=())
    layer.W_query.weight.data *= factor
    return layer


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


def transposed(qkv_bias=False, scale=1.0):
    """A SelfAttention_v2 like SelfAttention_v1; the scale moves from query to key."""
    v1, v2 = seeded(SelfAttention_v1, 3, 2), SelfAttention_v2(3, 2, qkv_bias)
    for name, factor in (("W_query", scale), ("W_key", 1 / scale), ("W_value", 1.0)):
        linear = getattr(v2, name)
        linear.weight.data = factor * getattr(v1, name).data.T
        if qkv_bias:
            torch.nn.init.zeros_(linear.bias)
    return v2


def unit(layer_class, scale, key=1.0):
    layer = layer_class(3, 3)
    for name, factor in (("W_query", scale), ("W_key", key), ("W_value", 1.0)):
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


def swapped_by_index():
    """The two heads in the other order, by an index of rows and columns."""
    layer = seeded(MultiHeadAttention, 8, 8, 6, 0.0, 2)
    order = [4, 5, 6, 7, 0, 1, 2, 3]
    for name in ("W_query", "W_key", "W_value"):
        getattr(layer, name).weight = torch.nn.Parameter(
            getattr(layer, name).weight[order].detach()
        )
    layer.out_proj.weight.data = layer.out_proj.weight.data[:, order]
    return layer


def flat_keys():
    """Every key is the same vector, of biases alone."""
    layer = attention(zero=["W_key"], qkv_bias=True)
    torch.nn.init.ones_(layer.W_key.bias)
    return layer


CONTEXT = (0.4419, 0.6515, 0.5683)  # of journey
EXTRA_MASK = torch.zeros(6, 6).masked_fill(ONES.triu(1), -torch.inf)

RIGHT = {
    "3.2.1": [softmax_by_logarithm, softmax_of_numpy, softmax_of_sorted],
    "3.2.2": [120, np.float32(113), torch.tensor([1000.0]), Fraction(450, 4)],
    "3.2.3": [CONTEXT, np.array(CONTEXT), [torch.tensor(x) for x in CONTEXT]],
    "3.4.1": [147_648, torch.tensor(147_648), np.float32(147_648)],
    "3.4.2": [transposed(), transposed(qkv_bias=True), transposed(scale=4.0)],
    "3.4.3": [
        unit(SelfAttention_v1, 3**0.5),
        unit(SelfAttention_v2, 3**0.5),
        unit(SelfAttention_v2, 2 * 3**0.5, key=0.5),
    ],
    "3.4.4": [32, 31.7, torch.tensor(32.2), 4 * np.sqrt(64)],
    "3.5.1": [
        ONES.triu(1) | ONES.tril(-3),
        ~(ONES.tril() & ONES.triu(-2)).numpy(),
        [[int(k > i or k < i - 2) for k in range(6)] for i in range(6)],
        (ONES.triu(1) | ONES.tril(-3)).float(),
    ],
    "3.5.2": [leaks_by_cutting, leaks_by_gradients],
    "3.5.3": [0.49951, 1023 / 2048, np.float32(1023 / 2048), Fraction(1023, 2048)],
    "3.5.4": [
        ONES.tril(),
        ONES.tril().numpy(),
        ONES.tril().tolist(),
        ONES.tril()[None, None],
        EXTRA_MASK,
        EXTRA_MASK.numpy().astype(float),
    ],
    "3.6.1": [
        MultiHeadAttentionWrapper(3, 1, 6, 0.0, 2),
        MultiHeadAttentionWrapper(3, 1, 1024, 0.5, num_heads=2, qkv_bias=True),
    ],
    "3.6.2": [
        MultiHeadAttention(768, 768, 1024, 0.1, 12),
        MultiHeadAttention(768, 768, 1024, 0.0, 12, qkv_bias=True),
    ],
    "3.6.3": [
        attention(),
        attention(zero=["W_key"], dropout=0.5),
        attention(zero=["W_query"], num_heads=4, qkv_bias=True),
        attention(zero=["W_query", "W_key"], num_heads=8),
        flat_keys(),
    ],
    "3.6.4": [swapped(), copy.deepcopy(swapped()).eval(), swapped_by_index()],
}

WRONG = {
    "3.2.1": [
        softmax_naive,
        lambda x: softmax_naive(x - x.max()),
        lambda x: torch.softmax(x, dim=0),
        lambda x: x / x.sum(dim=-1, keepdim=True),
        in_place,
        lambda x: torch.softmax(x, dim=-1),
        lambda x: softmax_naive(x.clamp(max=80)),
        lambda x: softmax_naive(x.double() - x.mean(dim=-1, keepdim=True)),
        lambda x: softmax_naive(x - x.max()).nan_to_num(),
        lambda x: None,
        torch.ones(3),
    ],
    "3.2.2": [10, -200, 0, float("nan"), "many", torch.rand(6)],
    "3.2.3": [
        [0.4671, 0.5910, 0.5266],  # of "one", which stands at place 1 now
        [0.4431, 0.6496, 0.5671],  # of "starts"
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
        looks_one_back,
        looks_at_the_mask,
        changes_its_argument,
        compares_all,
        lambda layer, x: False,
        lambda layer, x: True,
        lambda layer, x: None,
        False,
    ],
    "3.5.3": [0.5, 1025 / 2048, 49.951, 523_776, 1023 / 1024, 0.4996, "half"],
    "3.5.4": [
        ONES.triu(1),
        ONES,
        ONES.tril(-1),
        ONES.tril().float(),
        "tril",
        EXTRA_MASK.T,
    ],
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
        attention(zero=["W_value"]),
        attention(zero=["W_value", "out_proj"]),
        attention(layer=SeesAll),
        scaled_down(1e-4),
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
