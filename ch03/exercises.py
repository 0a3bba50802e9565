"""Checkers of chapter 3's exercises (a support module: used, not taught).

Looking in here spoils the exercises.
"""

import torch
import torch.nn.functional as F

from ch02.exercises import NotYet, check, exercise, require, require_kind
from ch03.attention import (
    CausalAttention,
    MultiHeadAttention,
    SelfAttention_v1,
)

__all__ = ["check"]

INPUTS = torch.tensor(
    [
        [0.43, 0.15, 0.89],
        [0.55, 0.87, 0.66],
        [0.57, 0.85, 0.64],
        [0.22, 0.58, 0.33],
        [0.77, 0.25, 0.10],
        [0.05, 0.80, 0.55],
    ]
)


def sample(*shape):
    """Random numbers that leave the reader's own random numbers alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def seeded(layer, *sizes):
    """A layer with the weights that torch.manual_seed(123) gives it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        return layer(*sizes)


def as_tensor(answer, shape):
    """The answer as a tensor of the given shape."""
    try:
        tensor = torch.as_tensor(answer).detach()
    except (TypeError, ValueError, RuntimeError):
        raise NotYet(f"{type(answer).__name__} does not make a tensor") from None
    found = tuple(tensor.shape)
    require(found == shape, f"it has shape {found}, not {shape}")
    return tensor


def as_number(answer):
    """The answer as a float."""
    try:
        return float(answer)
    except (TypeError, ValueError, RuntimeError):
        kind = type(answer).__name__
        raise NotYet(f"it should be one number, not {kind}") from None


def distance(found, expected):
    """The largest difference between two tensors."""
    return (found - expected).abs().max().item()


@exercise("3.2.1", "Subtract the largest score of each row, with keepdim=True, first.")
def stable_softmax(answer):
    """A softmax over the last axis that large scores do not break."""
    require(callable(answer), f"it should be a function, not {type(answer).__name__}")
    cases = {
        "the scores 1, 2, 3": [1.0, 2.0, 3.0],
        "a table of two rows": [[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]],
        "the scores 1000, 999, 0": [1000.0, 999.0, 0.0],
        "the scores -1000, -999": [-1000.0, -999.0],
        "a row of 0, 1 above a row of 1000, 999": [[0.0, 1.0], [1000.0, 999.0]],
    }
    for case, scores in cases.items():
        given = torch.tensor(scores)
        found = answer(given)
        require(isinstance(found, torch.Tensor), "it should return a tensor")
        expected = torch.softmax(torch.tensor(scores), dim=-1)
        require(found.shape == expected.shape, f"the shape is wrong for {case}")
        require(not found.isnan().any(), f"it gives nan for {case}")
        wrong = f"its weights are wrong for {case}"
        require(torch.allclose(found, expected, atol=1e-6), wrong)
        unchanged = torch.equal(given, torch.tensor(scores))
        require(unchanged, "it changes its argument; make a new tensor instead")


@exercise("3.2.2", "The scores of journey and starts differ by 0.02. Stretch that.")
def sharpening_factor(answer):
    """A factor on the scores of journey that gives it 0.9 of its own weight."""
    scores = as_number(answer) * (INPUTS @ INPUTS[1])
    weight = torch.softmax(scores, dim=-1)[1].item()
    require(weight >= 0.9, f"with this factor journey keeps {weight:.3f}, not 0.9")


@exercise("3.2.3", "Does the weighted sum notice in which order its parts are added?")
def context_of_journey(answer):
    """The context vector of journey in the reversed sentence."""
    found = as_tensor(answer, (3,))
    expected = torch.softmax(INPUTS @ INPUTS.T, dim=-1) @ INPUTS
    if distance(found, expected[4]) < 1e-3:
        raise NotYet("that is the vector of one: after the turn, journey is at place 4")
    off = distance(found, expected[1])
    require(off < 1e-3, f"one of the three numbers is off by {off:.2g}")


@exercise("3.4.1", "Each nn.Linear holds a matrix and, with bias, one number a column.")
def number_of_weights(answer):
    """How many numbers SelfAttention_v2(768, 64, qkv_bias=True) learns."""
    found = as_number(answer)
    matrices, biases = 3 * 768 * 64, 3 * 64
    require(found != matrices, "the biases are missing")
    require(found * 3 != matrices + biases, "there are three linear layers, not one")
    size = "small" if found < matrices + biases else "large"
    require(found == matrices + biases, f"{found:,.0f} is too {size}")


@exercise("3.4.2", "nn.Linear stores its matrix as (d_out, d_in): copy the transpose.")
def linear_twin(answer):
    """A SelfAttention_v2 that computes what SelfAttention_v1 of seed 123 does."""
    require_kind(answer, "SelfAttention_v2")
    for name in ("W_query", "W_key", "W_value"):
        shape = tuple(getattr(answer, name).weight.shape)
        require(shape == (2, 3), f"{name}.weight has shape {shape}, not (2, 3)")
    x = sample(6, 3)
    off = distance(answer(x), seeded(SelfAttention_v1, 3, 2)(x))
    require(off < 1e-4, f"the outputs of the two layers differ by up to {off:.2g}")


@exercise("3.4.3", "Matrices that change nothing; and undo the division by sqrt(3).")
def attention_of_3_2(answer):
    """A layer of 3.4 that computes the attention of 3.2."""
    require_kind(answer, "SelfAttention_v1", "SelfAttention_v2")
    x = sample(6, 3)
    found = answer(x)
    require(found.shape == x.shape, f"its output has {found.shape[-1]} columns, not 3")
    scores = x @ x.T
    if distance(found, torch.softmax(scores / 3**0.5, dim=-1) @ x) < 1e-4:
        raise NotYet("the layer still divides the scores by the square root of 3")
    off = distance(found, torch.softmax(scores, dim=-1) @ x)
    require(off < 1e-4, f"its output differs from that of 3.2 by up to {off:.2g}")


@exercise("3.4.4", "Draw such numbers with 2 * torch.randn(...) and measure.")
def divisor_for_spread_two(answer):
    """What brings scores of 64 products of spread 2 * 2 back to spread 1."""
    found = as_number(answer)
    require(abs(found - 8) > 0.3, "8 is right for numbers of spread 1, not 2")
    spread = f"the scores would keep a spread of about {32 / found if found else 0:.2g}"
    require(abs(found - 32) < 1, spread if found > 0 else "it should be positive")


@exercise("3.5.1", "Add two triangles: torch.ones(6, 6).triu(1) is one of them.")
def sliding_window(answer):
    """True where a token may not look: ahead, and more than two words back."""
    found = as_tensor(answer, (6, 6))
    hidden = torch.ones(6, 6).triu(1) + torch.ones(6, 6).tril(-3) > 0
    require(((found == 0) | (found == 1)).all(), "a mask holds only True and False")
    found = found.bool()
    if torch.equal(found, ~hidden):
        raise NotYet("it is the wrong way round: True should mark what is hidden")
    wrong = (found != hidden).nonzero().tolist()
    for row, column in wrong[:1]:
        what = "hidden" if hidden[row, column] else "visible"
        raise NotYet(f"row {row}, column {column} should be {what}")


@exercise("3.5.2", "Change each word in turn and compare all the outputs before it.")
def leak_test(answer):
    """A function leaks(layer, x) that finds out whether a layer sees the future."""
    require(callable(answer), f"it should be a function, not {type(answer).__name__}")
    x = sample(1, 6, 3)
    layers = {name: seeded(CausalAttention, 3, 2, 6, 0.0) for name in "abc"}
    layers["a"].mask = torch.zeros(6, 6, dtype=torch.bool)
    layers["b"].mask[2, 3] = False
    layers["d"] = seeded(MultiHeadAttention, 3, 4, 6, 0.0, 2)
    said = {
        "a": "it says that a layer without a mask is causal",
        "b": "it misses a layer in which only word 2 sees word 3",
        "c": "it says that CausalAttention sees the future",
        "d": "it says that MultiHeadAttention sees the future",
    }
    for name in "acdb":
        given = x.clone()
        found = answer(layers[name], given)
        require(found is not None, "it returns None; did you forget `return`?")
        require(torch.equal(given, x), "it changes x; work on x.clone()")
        require(bool(found) == (name in "ab"), said[name])


@exercise("3.5.3", "Row 0 hides 1,023 cells, row 1 hides 1,022, the last row none.")
def hidden_share(answer):
    """The share of the table of 1,024 tokens that the mask hides."""
    found = as_number(answer)
    exact = 1023 / 2048
    require(abs(found - 0.5) > 1e-6, "not quite half: the diagonal stays visible")
    require(abs(found - 1 + exact) > 1e-6, "that is the share that stays visible")
    require(abs(found - exact) < 1e-4, f"it is not {found:.5g} of the table")


@exercise("3.5.4", "In this function True means: may be looked at.")
def mask_for_sdpa(answer):
    """A mask with which scaled_dot_product_attention is causal."""
    mask = as_tensor(answer, (6, 6))
    if torch.equal(mask, torch.ones(6, 6, dtype=torch.bool).triu(1)):
        raise NotYet("it is upside down: in this function True means visible")
    kinds = (torch.bool, torch.float32)
    require(mask.dtype in kinds, f"it should be of dtype torch.bool, not {mask.dtype}")
    x = sample(1, 6, 4)
    found = F.scaled_dot_product_attention(x, x, x, attn_mask=mask)
    require(not found.isnan().any(), "with it, some word sees nothing and becomes nan")
    off = distance(found, F.scaled_dot_product_attention(x, x, x, is_causal=True))
    require(off < 1e-4, f"the outputs differ from the causal ones by up to {off:.2g}")


@exercise("3.6.1", "Each head gives d_out columns, and the heads stand side by side.")
def wrapper_of_width_two(answer):
    """A wrapper of two heads that gives two columns for d_in 3."""
    require_kind(answer, "MultiHeadAttentionWrapper")
    require(len(answer.heads) == 2, f"it has {len(answer.heads)} heads, not 2")
    width = answer.heads[0].W_query.in_features
    require(width == 3, f"it takes words of {width} numbers, not 3")
    shape = tuple(answer(sample(1, 6, 3)).shape)
    require(shape == (1, 6, 2), f"its output has shape {shape}, not (1, 6, 2)")


@exercise("3.6.2", "Which width must stay the same in every attention layer of GPT-2?")
def attention_of_gpt2_small(answer):
    """The attention of one GPT-2 124M block, as the book configures it."""
    require_kind(answer, "MultiHeadAttention")
    sizes = (answer.W_query.in_features, answer.W_query.out_features)
    require(sizes == (768, 768), f"it maps {sizes[0]} to {sizes[1]}, not 768 to 768")
    require(answer.num_heads == 12, f"it has {answer.num_heads} heads, not 12")
    require(
        answer.context_length == 1024,
        f"it takes {answer.context_length} tokens, not 1,024",
    )


@exercise("3.6.3", "Which scores give equal weights, and which W_query gives those?")
def uniform_attention(answer):
    """A MultiHeadAttention whose heads attend evenly to all earlier tokens."""
    require_kind(answer, "MultiHeadAttention")
    x = sample(1, 6, answer.W_query.in_features)
    queries, keys = answer.W_query(x), answer.W_key(x)
    scores = answer.split_heads(queries) @ answer.split_heads(keys).transpose(2, 3)
    spread = (scores - scores[..., :1]).abs().max().item()
    require(spread < 1e-6, f"the scores of a query still differ by {spread:.2g}")


@exercise("3.6.4", "A head owns rows of three matrices, and columns of a fourth.")
def swapped_heads(answer):
    """The layer of seed 123 with its two heads in the other order, output unchanged."""
    require_kind(answer, "MultiHeadAttention")
    original = seeded(MultiHeadAttention, 8, 8, 6, 0.0, 2)
    for name in ("W_query", "W_key", "W_value"):
        weight = getattr(original, name).weight
        found = as_tensor(getattr(answer, name).weight, (8, 8))
        require(not torch.equal(found, weight), f"the heads of {name} are not swapped")
        swapped = torch.equal(found, weight.roll(4, dims=0))
        require(swapped, f"{name} is not the original with its halves of rows swapped")
    x = sample(2, 6, 8)
    off = distance(answer.eval()(x), original(x))
    require(off < 1e-5, f"the output differs from the original by up to {off:.2g}")
