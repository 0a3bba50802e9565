"""Checkers of chapter 3's exercises.

Looking in here spoils the exercises.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from ch03.attention import (
    CausalAttention,
    MultiHeadAttention,
    SelfAttention_v1,
)
from support.exercises.checking import (
    NotYet,
    Refusing,
    as_number,
    as_tensor,
    exercise,
    is_count,
    is_near,
    require,
    require_function,
    require_kind,
)

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


def seeded(layer, *sizes):
    """A layer with the weights that torch.manual_seed(123) gives it."""
    torch.manual_seed(123)
    return layer(*sizes)


def distance(found, expected):
    """The largest difference between two tensors."""
    return (found - expected).abs().max().item()


@exercise(
    "3.2.1",
    "write, 5 minutes, ••",
    "Subtract the largest score of each row, with keepdim=True, first.",
)
def stable_softmax(answer):
    """A softmax over the last axis that large scores do not break."""
    require_function(answer)
    cases = {
        "the scores 1, 2, 3": [1.0, 2.0, 3.0],
        "a table of two rows": [[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]],
        "the scores 1000, 999, 0": [1000.0, 999.0, 0.0],
        "the scores 0, 0, 10000": [0.0, 0.0, 10000.0],
        "the scores -1000, -999": [-1000.0, -999.0],
        "a row of 0, 1 above a row of 1000, 999": [[0.0, 1.0], [1000.0, 999.0]],
        "a row of -1000, -999 above one of 1000, 998": [
            [-1000.0, -999.0],
            [1000.0, 998.0],
        ],
    }
    for case, scores in cases.items():
        given = torch.tensor(scores)
        with Refusing("softmax", "log_softmax"):
            found = as_tensor(answer(given))
        expected = torch.softmax(torch.tensor(scores), dim=-1)
        require(found.shape == expected.shape, f"the shape is wrong for {case}")
        require(not found.isnan().any(), f"it gives nan for {case}")
        wrong = f"its weights are wrong for {case}"
        require(is_near(found, expected, 2e-4), wrong)  # log(sum(exp)) is less exact
        unchanged = torch.equal(given, torch.tensor(scores))
        require(unchanged, "it changes its argument; make a new tensor instead")


@exercise(
    "3.2.2",
    "number, 5 minutes, ••",
    "The scores of journey and starts differ by 0.02. Stretch that.",
)
def sharpening_factor(answer):
    """A factor on the scores of journey that gives it 0.9 of its own weight."""
    scores = as_number(answer) * (INPUTS @ INPUTS[1])
    weight = torch.softmax(scores, dim=-1)[1].item()
    require(weight >= 0.9, f"with this factor journey keeps {weight:.3f}, not 0.9")


@exercise(
    "3.2.3",
    "predict, 5 minutes, ••",
    "Does the weighted sum notice in which order its parts are added?",
)
def context_of_journey(answer):
    """The context vector of journey in the reversed sentence."""
    found = as_tensor(answer).flatten()
    require(len(found) == 3, f"it should be three numbers, not {len(found)}")
    expected = torch.softmax(INPUTS @ INPUTS.T, dim=-1) @ INPUTS
    if distance(found, expected[4]) < 1e-3:
        raise NotYet("that is the vector of one: after the turn, journey is at place 4")
    off = distance(found, expected[1])
    require(off < 1e-3, f"one of the three numbers is off by {off:.2g}")


@exercise(
    "3.4.1",
    "number, 3 minutes, •",
    "Each nn.Linear holds a matrix and, with bias, one number a column.",
)
def number_of_weights(answer):
    """How many numbers SelfAttention_v2(768, 64, qkv_bias=True) learns."""
    found = as_number(answer)
    matrices, biases = 3 * 768 * 64, 3 * 64
    require(found != matrices, "the biases are missing")
    require(found * 3 != matrices + biases, "there are three linear layers, not one")
    size = "small" if found < matrices + biases else "large"
    require(is_count(found, matrices + biases), f"{found:,.0f} is too {size}")


@exercise(
    "3.4.2",
    "write, 8 minutes, ••",
    "nn.Linear stores its matrix as (d_out, d_in): copy the transpose.",
)
def linear_twin(answer):
    """A SelfAttention_v2 that computes what SelfAttention_v1 of seed 123 does."""
    require_kind(answer, "SelfAttention_v2")
    for name in ("W_query", "W_key", "W_value"):
        shape = tuple(getattr(answer, name).weight.shape)
        require(shape == (2, 3), f"{name}.weight has shape {shape}, not (2, 3)")
    x = torch.randn(6, 3)
    off = distance(answer(x), seeded(SelfAttention_v1, 3, 2)(x))
    require(off < 1e-4, f"the outputs of the two layers differ by up to {off:.2g}")


@exercise(
    "3.4.3",
    "write, 8 minutes, ••",
    "Matrices that change nothing; and undo the division by sqrt(3).",
)
def attention_of_3_2(answer):
    """A layer of 3.4 that computes the attention of 3.2."""
    require_kind(answer, "SelfAttention_v1", "SelfAttention_v2")
    x = torch.randn(6, 3)
    found = answer(x)
    require(found.shape == x.shape, f"its output has {found.shape[-1]} columns, not 3")
    scores = x @ x.T
    if distance(found, torch.softmax(scores / 3**0.5, dim=-1) @ x) < 1e-4:
        raise NotYet("the layer still divides the scores by the square root of 3")
    off = distance(found, torch.softmax(scores, dim=-1) @ x)
    require(off < 1e-4, f"its output differs from that of 3.2 by up to {off:.2g}")


@exercise(
    "3.4.4",
    "number, 5 minutes, ••",
    "Draw such numbers with 2 * torch.randn(...) and measure.",
)
def divisor_for_spread_two(answer):
    """What brings scores of 64 products of spread 2 * 2 back to spread 1."""
    found = as_number(answer)
    require(abs(found - 8) > 0.3, "8 is right for numbers of spread 1, not 2")
    spread = f"the scores would keep a spread of about {32 / found if found else 0:.2g}"
    require(abs(found - 32) < 1, spread if found > 0 else "it should be positive")


@exercise(
    "3.5.1",
    "write, 5 minutes, ••",
    "Add two triangles: torch.ones(6, 6).triu(1) is one of them.",
)
def sliding_window(answer):
    """True where a token may not look: ahead, and more than two words back."""
    found = as_tensor(answer, (6, 6))
    hidden = torch.ones(6, 6).triu(1) + torch.ones(6, 6).tril(-3) > 0
    require(((found == 0) | (found == 1)).all(), "a mask holds only True and False")
    found = found.bool()
    around = torch.equal(found, ~hidden)
    require(not around, "it is the wrong way round: True should mark what is hidden")
    wrong = (found != hidden).nonzero().tolist()
    for row, column in wrong[:1]:
        what = "hidden" if hidden[row, column] else "visible"
        raise NotYet(f"row {row}, column {column} should be {what}")


class NextWord(nn.Module):
    """Gives each word the word behind it, without any weight or mask."""

    def forward(self, x):
        return x.roll(-1, dims=1)


def layers_and_leaks():
    """Yield (layer, whether it sees the future, what it is called)."""
    yield seeded(CausalAttention, 3, 2, 6, 0.0), False, "CausalAttention"
    yield seeded(MultiHeadAttention, 3, 4, 6, 0.0, 2), False, "MultiHeadAttention"
    yield nn.Identity(), False, "a layer that leaves each word as it is"
    layer = seeded(CausalAttention, 3, 2, 6, 0.0)
    layer.mask = torch.zeros(6, 6, dtype=torch.bool)
    yield layer, True, "a layer without a mask"
    yield NextWord(), True, "a layer that shows each word the next one"
    for word in range(6):
        for later in range(word + 1, 6):
            layer = seeded(CausalAttention, 3, 2, 6, 0.0)
            layer.mask[word, later] = False
            yield layer, True, f"a layer in which only word {word} sees word {later}"


@exercise(
    "3.5.2",
    "write, 10 minutes, •••",
    "Change each word in turn and compare all the outputs before it.",
)
def leak_test(answer):
    """A function leaks(layer, x) that finds out whether a layer sees the future."""
    require_function(answer)
    x = torch.randn(2, 6, 3)
    for layer, leaks, title in layers_and_leaks():
        given = x.clone()
        found = answer(layer, given)
        require(found is not None, "it returns None; did you forget `return`?")
        require(torch.equal(given, x), "it changes x; work on x.clone()")
        says = "it finds no leak in" if leaks else "it finds a leak in"
        require(bool(found) == leaks, f"{says} {title}")


@exercise(
    "3.5.3",
    "number, 3 minutes, •",
    "Row 0 hides 1,023 cells, row 1 hides 1,022, the last row none.",
)
def hidden_share(answer):
    """The share of the table of 1,024 tokens that the mask hides."""
    found = as_number(answer)
    exact = 1023 / 2048
    require(abs(found - 0.5) > 1e-6, "not quite half: the diagonal stays visible")
    require(abs(found - 1 + exact) > 1e-6, "that is the share that stays visible")
    require(abs(found - 100 * exact) > 1e-2, "that is in per cent; give the share")
    require(abs(found - exact) < 2e-5, f"it is not {found:.5g} of the table")


@exercise(
    "3.5.4", "write, 3 minutes, •", "In this function True means: may be looked at."
)
def mask_for_sdpa(answer):
    """A mask with which scaled_dot_product_attention is causal."""
    mask = as_tensor(answer)
    shape = tuple(mask.shape)
    is_table = shape[-2:] == (6, 6) and mask.numel() == 36
    require(is_table, f"it should have shape (6, 6), not {shape}")
    mask = mask.view(6, 6)
    around = torch.equal(mask != 0, torch.ones(6, 6, dtype=torch.bool).triu(1))
    is_added = mask.is_floating_point() and mask.isneginf().any()
    reason = "it is upside down: in this function True means visible"
    require(is_added or not around, reason)
    reason = (
        "a mask of 0 and 1 is added to the scores; this one should hold True, False"
    )
    require(is_added or mask.dtype == torch.bool, reason)
    mask = mask.float() if is_added else mask
    x = torch.randn(1, 6, 4)
    found = F.scaled_dot_product_attention(x, x, x, attn_mask=mask)
    require(not found.isnan().any(), "with it, some word sees nothing and becomes nan")
    off = distance(found, F.scaled_dot_product_attention(x, x, x, is_causal=True))
    require(off < 1e-4, f"the outputs differ from the causal ones by up to {off:.2g}")


@exercise(
    "3.6.1",
    "write, 3 minutes, •",
    "Each head gives d_out columns, and the heads stand side by side.",
)
def wrapper_of_width_two(answer):
    """A wrapper of two heads that gives two columns for d_in 3."""
    require_kind(answer, "MultiHeadAttentionWrapper")
    require(len(answer.heads) == 2, f"it has {len(answer.heads)} heads, not 2")
    width = answer.heads[0].W_query.in_features
    require(width == 3, f"it takes words of {width} numbers, not 3")
    shape = tuple(answer(torch.randn(1, 6, 3)).shape)
    require(shape == (1, 6, 2), f"its output has shape {shape}, not (1, 6, 2)")


@exercise(
    "3.6.2",
    "write, 3 minutes, •",
    "Which width must stay the same in every attention layer of GPT-2?",
)
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


def bare_attention(layer):
    """A copy of a MultiHeadAttention(8, 8, ...) that gives means of its inputs.

    With values and projection that change nothing, the attention weights can be seen.
    """
    layer = copy.deepcopy(layer).eval()
    for linear in (layer.W_value, layer.out_proj):
        nn.init.eye_(linear.weight)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
    return layer


@exercise(
    "3.6.3",
    "write, 8 minutes, ••",
    "Which scores give equal weights, and which W_query gives those?",
)
def uniform_attention(answer):
    """A MultiHeadAttention whose heads attend evenly to all earlier tokens."""
    require_kind(answer, "MultiHeadAttention")
    sizes = (answer.W_query.in_features, answer.W_query.out_features)
    require(sizes == (8, 8), f"it maps {sizes[0]} to {sizes[1]}, not 8 to 8")
    num_tokens = min(6, answer.context_length)
    require(num_tokens > 1, "with a context of one token there is nothing to see")
    layer = bare_attention(answer)
    for size in (1, 100):
        x = torch.randn(2, num_tokens, 8)
        found = layer(size * x) / size
        so_far = x.cumsum(dim=1) / torch.arange(1, num_tokens + 1)[:, None]
        of_all = x.mean(dim=1, keepdim=True).expand_as(x)
        require(not is_near(found, of_all, 1e-3), "its tokens see those after them too")
        off = distance(found, so_far)
        reason = f"a token's output is off the mean of those so far by {off:.2g}"
        require(off < 1e-3, f"with values and projection taken away, {reason}")


@exercise(
    "3.6.4",
    "write, 12 minutes, •••",
    "A head owns rows of three matrices, and columns of a fourth.",
)
def swapped_heads(answer):
    """The layer of seed 123 with its two heads in the other order, output unchanged."""
    require_kind(answer, "MultiHeadAttention")
    original = seeded(MultiHeadAttention, 8, 8, 6, 0.0, 2)
    for name in ("W_query", "W_key", "W_value"):
        weight = getattr(original, name).weight
        found = as_tensor(getattr(answer, name).weight, (8, 8))
        require(not is_near(found, weight), f"the heads of {name} are not swapped")
        swapped = is_near(found, weight.roll(4, dims=0))
        require(swapped, f"{name} is not the original with its halves of rows swapped")
    x = torch.randn(2, 6, 8)
    off = distance(copy.deepcopy(answer).eval()(x), original(x))
    require(off < 1e-5, f"the output differs from the original by up to {off:.2g}")
