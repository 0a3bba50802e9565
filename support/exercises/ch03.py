"""Checkers of chapter 3's exercises.

Looking in here spoils the exercises.
"""

import copy

import numpy as np
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
    as_whole_number,
    as_whole_numbers,
    exercise,
    is_near,
    require,
    require_function,
    require_kind,
    require_learning,
)
from support.paths import ROOT

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
    "3.2.a",
    "write, 4 minutes, •",
    "Two matrix multiplications, one sum, and torch.tanh of the whole sum.",
)
def one_recurrent_step(answer):
    """A function (x, hidden, W_x, W_h) -> the new hidden state."""
    x, hidden = torch.randn(3), torch.randn(4)
    W_x, W_h = torch.randn(3, 4), torch.randn(4, 4)
    total = x @ W_x + hidden @ W_h
    found = as_tensor(answer(x, hidden, W_x, W_h), (4,))
    mistakes = {
        "the sum is right, but tanh is missing": total,
        "the old hidden state is forgotten": torch.tanh(x @ W_x),
        "the input is forgotten": torch.tanh(hidden @ W_h),
        "take tanh once, of the whole sum": torch.tanh(x @ W_x)
        + torch.tanh(hidden @ W_h),
        "multiply hidden by W_h before you add it": torch.tanh(x @ W_x + hidden),
        "it multiplies W_h @ hidden; by the formula it is hidden @ W_h": torch.tanh(
            x @ W_x + W_h @ hidden
        ),
    }
    for reason, wrong in mistakes.items():
        require(not is_near(found, wrong, 1e-4), reason)
    require(is_near(found, torch.tanh(total), 1e-4), "the new hidden state is wrong")


def states_of(inputs, W_x, W_h):
    """The hidden states of a recurrent network, (n, h), from zeros."""
    cell = nn.RNN(*W_x.shape, bias=False, batch_first=True)
    with torch.no_grad():
        cell.weight_ih_l0.copy_(W_x.T)
        cell.weight_hh_l0.copy_(W_h.T)
        return cell(inputs[None])[0][0]


@exercise(
    "3.2.b",
    "write, 6 minutes, ••",
    "In the loop: hidden = rnn_step(x, hidden, W_x, W_h), then states.append(hidden).",
)
def all_hidden_states(answer):
    """A function (inputs, W_x, W_h) -> the hidden state after each input."""
    for num_tokens in (5, 1, 4):
        inputs, W_x, W_h = torch.randn(num_tokens, 3), torch.randn(3, 4), torch.eye(4)
        W_h = W_h + 0.3 * torch.randn(4, 4)
        right = states_of(inputs, W_x, W_h)
        found = as_tensor(answer(inputs, W_x, W_h))
        size = tuple(found.shape)
        last = size == (4,) and num_tokens > 1
        require(not last, "it returns one hidden state; all of them are wanted")
        one_more = size == (num_tokens + 1, 4)
        require(not one_more, "one state too many: the zeros of the start are in it")
        expected = (num_tokens, 4)
        require(size == expected, f"it should have shape {expected}, not {size}")
        if num_tokens == 1:
            require(
                is_near(found, right, 1e-4), "a text of one token gives a wrong state"
            )
            continue
        alone = torch.tanh(inputs @ W_x)
        forgets = is_near(found, alone, 1e-4)
        require(
            not forgets, "each step begins with zeros; it should use the last state"
        )
        backwards = states_of(inputs.flip(0), W_x, W_h)
        for wrong in (backwards, backwards.flip(0)):
            require(
                not is_near(found, wrong, 1e-4), "it reads from the end to the start"
            )
        same_rows = is_near(found, found[-1:].expand_as(found), 1e-6)
        require(not same_rows, "all rows are the same: collect the state in each step")
        first = is_near(found[0], right[0], 1e-4)
        require(first, "the first state is wrong: the state before it should be zeros")
        require(
            is_near(found, right, 1e-4), "the states are wrong from the second one on"
        )


@exercise(
    "3.2.c",
    "write, 5 minutes, ••",
    "Compare scores.argmax(dim=-1) with ids, and take the mean over the texts, dim=0.",
)
def share_right_at_each_position(answer):
    """A function (scores, ids) -> share of right answers at each position."""
    for b, n in ((20, 5), (6, 6)):
        scores, ids = torch.randn(b, n, 8), torch.randint(8, (b, n))
        easy = torch.rand(b, n) < torch.linspace(0, 1, n)  # the later, the better
        scores += 9 * (F.one_hot(ids, 8) * easy[..., None])
        right = (scores.argmax(dim=-1) == ids).double()
        found = as_tensor(answer(scores, ids))
        size = tuple(found.shape)
        whole = size in ((), (1,))
        require(
            not whole, "it is one number for all positions; each should have its own"
        )
        by_text = size == (b,) and is_near(found, right.mean(dim=1), 1e-4)
        require(not by_text, "it has a share for each text, not for each position")
        require(size != (b, n), "take the mean over the texts, which are dim 0")
        require(size == (n,), f"it should have shape {(n,)}, not {size}")
        counts = is_near(found, right.sum(dim=0), 1e-4)
        require(not counts, "these are counts; divide by the number of texts")
        wrong = is_near(found, 1 - right.mean(dim=0), 1e-4)
        require(not wrong, "it is the share of wrong answers")
        require(is_near(found, right.mean(dim=0), 1e-4), "the shares are wrong")


@exercise(
    "3.2.1",
    "predict, 4 minutes, •",
    "Which letter has been read last when the text has been read to its beginning?",
)
def best_position_backwards(answer):
    """Where a Copier that reads backwards is right most often."""
    found = as_number(answer)
    require(found != 7, "letter 7 is the one that it reads first now")
    require(found in range(8), "it should be one of the positions 0 to 7")
    require(found == 0, "which letter does it read last?")


@exercise(
    "3.2.2",
    "write, 8 minutes, ••",
    "tanh of a large number is nearly 1. How large must W_h be to keep a 1 near 1?",
)
def remembers_an_a(answer):
    """Weights (W_x, W_h) with which one number remembers whether an a occurred."""
    pair = isinstance(answer, (tuple, list)) and len(answer) == 2
    require(pair, "it should be two matrices: (W_x, W_h)")
    W_x, W_h = (as_tensor(part).float() for part in answer)
    for name, matrix, shape in (("W_x", W_x, (3, 1)), ("W_h", W_h, (1, 1))):
        size = tuple(matrix.shape)
        require(size == shape, f"{name} should have shape {shape}, not {size}")
    texts = ["a", "b", "c", "aa", "ba", "ab", "bcb", "a" + 19 * "b", "a" + 19 * "c"]
    texts += [20 * "b", 20 * "c", 19 * "b" + "a", 20 * "a", 10 * "bc"]
    for _ in range(100):
        length = torch.randint(1, 21, ()).item()
        texts.append("".join("abc"[i] for i in torch.randint(3, (length,))))
    for text in texts:
        ids = torch.tensor(["abc".index(letter) for letter in text])
        last = states_of(F.one_hot(ids, 3).float(), W_x, W_h)[-1].item()
        said = f"after {text} the hidden state is {last:.2f}"
        if "a" in text:
            require(last > 0.5, f"{said}, but there was an a")
        else:
            require(last < 0.5, f"{said}, but there was no a")


@exercise(
    "3.2.3",
    "break, 8 minutes, ••",
    "states.mean(dim=1, keepdim=True) is (b, 1, size); expand_as(states) repeats it.",
)
def equal_shares(answer):
    """A class like Copier whose decoder sees the mean of all hidden states."""
    require(isinstance(answer, type), "it should be the class itself, not an object")
    model = answer(5, 16)
    states, questions = torch.randn(3, 5, 16), torch.randn(5, 16)
    found = as_tensor(model.remembered(states, questions), (3, 5, 16))
    last = is_near(found, states[:, -1:].expand_as(states), 1e-4)
    require(not last, "it is still the last hidden state")
    over_texts = is_near(found, states.mean(dim=0).expand_as(states), 1e-4)
    require(not over_texts, "it is the mean over the texts; the positions are dim 1")
    total = is_near(found, states.sum(dim=1, keepdim=True).expand_as(states), 1e-4)
    require(not total, "it is the sum; divide by the number of states")
    right = states.mean(dim=1, keepdim=True).expand_as(states)
    require(is_near(found, right, 1e-4), "it is not the mean of the text's states")


@exercise(
    "3.3.a",
    "write, 4 minutes, •",
    "Start with torch.zeros(vectors.shape[1]), and add weight * vector in a loop.",
)
def one_context_vector(answer):
    """A function (weights, vectors) -> the weighted sum of the vectors."""
    for n, d in ((4, 3), (6, 2), (3, 3)):
        vectors = torch.randn(n, d)
        weights = torch.softmax(torch.randn(n), dim=0)
        parts = weights[:, None] * vectors
        found = as_tensor(answer(weights.clone(), vectors.clone()))
        size = tuple(found.shape)
        require(size != (n, d), "the weighted vectors are not added up yet")
        plain = size == (d,) and is_near(found, vectors.sum(dim=0), 1e-4)
        require(not plain, "the vectors are added up without their weights")
        mean = size == (d,) and is_near(found, parts.mean(dim=0), 1e-4)
        require(
            not mean, "the weights add up to 1 already: do not divide by their number"
        )
        within = size == (n,) and is_near(found, parts.sum(dim=1), 1e-4)
        require(not within, "it adds up the numbers of each vector; add up the vectors")
        square = n == d and size == (d,)
        swapped = square and is_near(found, vectors @ weights, 1e-4)
        require(not swapped, "each weight belongs to a vector, which is a row")
        require(size == (d,), f"it should have shape {(d,)}, not {size}")
        require(is_near(found, parts.sum(dim=0), 1e-4), "the weighted sum is wrong")


@exercise(
    "3.3.b",
    "write, 5 minutes, ••",
    "powers = torch.exp(x); divide by powers.sum(dim=-1, keepdim=True).",
)
def softmax_of_rows(answer):
    """A function x -> softmax over the last dimension."""
    shapes = {
        "the scores of one word": (4,),
        "a table of scores, (3, 5)": (3, 5),
        "a square table of scores": (4, 4),
        "a batch of tables": (2, 3, 4),
    }
    for case, shape in shapes.items():
        x = 2 * torch.randn(shape)
        powers = torch.exp(x)
        with Refusing("softmax", "log_softmax"):
            try:
                found = as_tensor(answer(x.clone()))
            except RuntimeError as error:
                known = "must match the size" in str(error)
                reason = (
                    f"for {case} the shapes do not fit: keep the dimension of the sum"
                )
                require(not known, f"{reason} with keepdim=True")
                raise
        size = tuple(found.shape)
        require(size == shape, f"for {case} it should have shape {shape}, not {size}")
        mistakes = {
            "the scores are divided by their sum, without exp": x
            / x.sum(dim=-1, keepdim=True),
            "the powers are not divided by their sum": powers,
        }
        if len(shape) > 1:
            mistakes |= {
                "the columns add up to 1, not the rows": powers
                / powers.sum(dim=-2, keepdim=True),
                "the whole table adds up to 1; each row should": powers / powers.sum(),
                "the first dimension adds up to 1; the last one should": powers
                / powers.sum(dim=0, keepdim=True),
            }
        if case.startswith("a square"):
            reason = "each row is divided by the sums of other rows: keepdim=True"
            mistakes[reason] = powers / powers.sum(dim=-1)
        for reason, wrong in mistakes.items():
            require(not is_near(found, wrong, 1e-4), f"for {case}, {reason}")
        right = is_near(found, torch.softmax(x, dim=-1), 1e-4)
        require(right, f"the weights are wrong for {case}")


@exercise(
    "3.3.c",
    "write, 6 minutes, ••",
    "scores = inputs @ inputs.T; weights = softmax_naive(scores); weights @ inputs.",
)
def all_context_vectors(answer):
    """A function inputs -> the context vectors of all tokens."""
    for n, d in ((5, 3), (3, 5), (4, 4)):
        inputs = torch.randn(n, d)
        scores = inputs @ inputs.T
        weights = torch.softmax(scores, dim=-1)
        found = as_tensor(answer(inputs.clone()))
        size = tuple(found.shape)
        if size == (n, n):
            reason = "these are the weights; multiply them by the vectors"
            require(not is_near(found, weights, 1e-4), reason)
            reason = "these are the scores; next come the softmax and the sums"
            require(not is_near(found, scores, 1e-4), reason)
        require(size == (n, d), f"for {(n, d)} inputs the result has shape {size}")
        mistakes = {
            "the softmax is missing": scores @ inputs,
            "the columns add up to 1; each row should": torch.softmax(scores, dim=0)
            @ inputs,
            "the weights are turned around: row i has the weights of token i": weights.T
            @ inputs,
            "the scores are divided by a square root; that comes in 3.4": torch.softmax(
                scores / d**0.5, dim=-1
            )
            @ inputs,
            "each token should also look at itself": torch.softmax(
                scores.masked_fill(torch.eye(n).bool(), -torch.inf), dim=-1
            )
            @ inputs,
        }
        for reason, wrong in mistakes.items():
            require(not is_near(found, wrong, 1e-4), reason)
        require(is_near(found, weights @ inputs, 1e-4), "the context vectors are wrong")


@exercise(
    "3.3.1",
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
    "3.3.2",
    "number, 5 minutes, ••",
    "The scores of journey and starts differ by 0.02. Stretch that.",
)
def sharpening_factor(answer):
    """A factor on the scores of journey that gives it 0.9 of its own weight."""
    scores = as_number(answer) * (INPUTS @ INPUTS[1])
    weight = torch.softmax(scores, dim=-1)[1].item()
    require(weight >= 0.9, f"with this factor journey keeps {weight:.3f}, not 0.9")


@exercise(
    "3.3.3",
    "predict, 5 minutes, ••",
    "Does the weighted sum notice in which order its parts are added?",
)
def context_of_journey(answer):
    """The context vector of journey in the reversed sentence."""
    found = as_tensor(answer).flatten()
    require(len(found) == 3, f"it should be three numbers, not {len(found)}")
    expected = torch.softmax(INPUTS @ INPUTS.T, dim=-1) @ INPUTS
    if distance(found, expected[4]) < 1e-3:
        raise NotYet("that is the vector of one: journey is at position 4 now")
    off = distance(found, expected[1])
    require(off < 1e-3, f"one of the three numbers is off by {off:.2g}")


def same(found, right):
    """Whether a result has the right shape and is near."""
    found = as_tensor(found)
    return found.shape == right.shape and is_near(found, right, 1e-4)


@exercise(
    "3.4.a",
    "write, 4 minutes, •",
    "x @ W_query is the query. Return three results with commas between them.",
)
def three_vectors(answer):
    """A function (x, W_query, W_key, W_value) -> query, key and value of one token."""
    require_function(answer)
    for d_in, d_out in ((3, 2), (4, 4), (2, 5)):
        x, *matrices = torch.randn(d_in), *torch.randn(3, d_in, d_out)
        try:
            found = answer(x.clone(), *(matrix.clone() for matrix in matrices))
        except RuntimeError as error:
            turned = f"a vector of {d_in} numbers and matrices ({d_in}, {d_out}) raise"
            raise NotYet(f"{turned}: {error}. Is x on the left of @?") from None
        require(
            isinstance(found, (tuple, list, torch.Tensor)) and len(found) == 3,
            "it should return three vectors, with commas between them",
        )
        right = [x @ matrix for matrix in matrices]
        names = "query", "key", "value"
        for name, vector, expected, matrix in zip(names, found, right, matrices):
            if same(vector, expected):
                continue
            for other, wrong in zip(names, right):
                require(
                    not same(vector, wrong),
                    f"the {other} is where the {name} should be: the order is query, "
                    "key, value",
                )
            is_turned = d_in == d_out and same(vector, matrix @ x)
            reason = f"the {name} is W @ x, but should be x @ W"
            require(not is_turned, reason)
            as_tensor(vector, (d_out,))
            raise NotYet(f"the {name} is not x @ W_{name}")


def weights_with(scores, d_k):
    """The right attention weights first, and then wrong ones, each with a reason."""
    soft = torch.softmax(scores / d_k**0.5, dim=-1)
    return soft, [
        (
            torch.softmax(scores, dim=-1),
            "the scores are not divided by the root of d_k",
        ),
        (
            torch.softmax(scores / d_k, dim=-1),
            "the scores are divided by d_k; it should be the square root of d_k",
        ),
        (
            torch.softmax(scores / scores.shape[-1] ** 0.5, dim=-1),
            "the root is that of the number of tokens; it should be that of the length "
            "of a key",
        ),
        (
            torch.softmax(scores, dim=-1) / d_k**0.5,
            "it divides after the softmax: divide the scores before it",
        ),
        (scores / d_k**0.5, "the softmax is missing"),
        (scores, "the softmax is missing"),
    ]


@exercise(
    "3.4.b",
    "write, 6 minutes, ••",
    "scores = keys @ query; divide them, take the softmax, and multiply by values.",
)
def scaled_context(answer):
    """A function (query, keys, values) -> the context vector of one query."""
    require_function(answer)
    for num_tokens, d_k, d_v in ((6, 3, 5), (3, 7, 2), (5, 5, 5), (1, 4, 3)):
        query, keys = torch.randn(d_k), torch.randn(num_tokens, d_k)
        values = torch.randn(num_tokens, d_v)
        found = answer(query.clone(), keys.clone(), values.clone())
        soft, mistakes = weights_with(keys @ query, d_k)
        if same(found, soft @ values):
            continue
        for wrong, reason in mistakes:
            require(not same(found, wrong @ values), reason)
        for width in {2, 3, 4, d_v} - {d_k}:
            root = torch.softmax(keys @ query / width**0.5, dim=-1)
            reason = f"it divides by the root of {width}; take that of the length of a "
            reason += f"key, which is {d_k} here"
            if width == d_v:
                reason = "the root is that of the length of a value; take that of a key"
            require(not same(found, root @ values), reason)
        require(not same(found, soft), "these are the weights: multiply by the values")
        if d_k == d_v:
            reason = "it adds up the keys; the values should be added up"
            require(not same(found, soft @ keys), reason)
        as_tensor(found, (d_v,))
        sizes = f"{num_tokens} tokens, keys of length {d_k}, values of length {d_v}"
        raise NotYet(f"the context vector is wrong for {sizes}")


@exercise(
    "3.4.c",
    "write, 5 minutes, ••",
    "queries @ keys.T, divided by the root of keys.shape[-1]; softmax over dim=-1.",
)
def weights_of_all(answer):
    """A function (queries, keys) -> the attention weights of all tokens."""
    require_function(answer)
    for num_tokens, d_k in ((6, 2), (4, 4), (3, 8)):
        queries, keys = 2 * torch.randn(num_tokens, d_k), torch.randn(num_tokens, d_k)
        try:
            found = answer(queries.clone(), keys.clone())
        except RuntimeError as error:
            raise NotYet(f"it raises: {error}. Is the transpose missing?") from None
        scores = queries @ keys.T
        soft, mistakes = weights_with(scores, d_k)
        if same(found, soft):
            continue
        for wrong, reason in (
            (
                torch.softmax(scores / d_k**0.5, dim=0),
                "the columns sum to 1: the softmax should work along the rows, dim=-1",
            ),
            (
                torch.softmax(scores.T / d_k**0.5, dim=-1),
                "row i has the scores of key i: it should have those of query i",
            ),
            *mistakes,
        ):
            require(not same(found, wrong), reason)
        as_tensor(found, (num_tokens, num_tokens))
        sizes = f"{num_tokens} tokens with queries and keys of length {d_k}"
        raise NotYet(f"the weights are wrong for {sizes}")


PROJECTIONS = "W_query", "W_key", "W_value"


def require_separate(parts):
    """Raise NotYet if two of the named objects, {name: object}, are the same one."""
    names = list(parts)
    for number, name in enumerate(names):
        for other in names[:number]:
            reason = (
                f"self.{name} and self.{other} are the same one: queries, keys and "
                "values need three, with numbers of their own"
            )
            require(parts[name] is not parts[other], reason)


def check_start(answer):
    """Raise NotYet unless a layer's three matrices begin as three torch.rand do."""
    state = torch.get_rng_state()
    layer = answer(5, 3)
    torch.set_rng_state(state)
    drawn = [torch.rand(5, 3) for _ in PROJECTIONS]
    found = [as_tensor(getattr(layer, name)) for name in PROJECTIONS]
    below = any((matrix < 0).any() for matrix in found)
    require(not below, "its matrices contain negative numbers: draw with torch.rand")
    if not all(is_near(one, other) for one, other in zip(found, drawn)):
        others = all(any(is_near(a, b) for b in drawn) for a in found)
        reason = (
            "the matrices are created in another order: W_query, W_key, W_value, so "
            "that a seed gives the same numbers as in the text"
            if others
            else "each matrix should begin as torch.rand(d_in, d_out), drawn once"
        )
        raise NotYet(reason)


@exercise(
    "3.4.d",
    "write, 10 minutes, ••",
    "queries = x @ self.W_query, and so on; then attention_weights(...) @ values.",
)
def attention_class(answer):
    """The class SelfAttention_v1, with three matrices (d_in, d_out) as parameters."""
    require(isinstance(answer, type), "it should be the class itself")
    for num_tokens, d_in, d_out in ((6, 3, 2), (4, 4, 4), (3, 2, 5)):
        layer = answer(d_in, d_out)
        require_kind(layer, "Module")
        known = dict(layer.named_parameters(remove_duplicate=False))
        for name in PROJECTIONS:
            matrix = getattr(layer, name, None)
            require(matrix is not None, f"it has no self.{name}")
            reason = f"self.{name} is no parameter: use nn.Parameter(torch.rand(...))"
            require(name in known, reason)
            shape = tuple(matrix.shape)
            wanted = f"({d_in}, {d_out}) for d_in {d_in} and d_out {d_out}"
            reason = f"self.{name} has the shape {shape}, not {wanted}"
            require(shape == (d_in, d_out), reason)
        require_separate({name: known[name] for name in PROJECTIONS})
        with torch.no_grad():
            for name in PROJECTIONS:
                known[name].copy_(torch.randn(d_in, d_out))
        x = torch.randn(num_tokens, d_in)
        found = layer(x.clone())
        queries, keys, values = (x @ known[name].detach() for name in PROJECTIONS)
        check_context(found, queries, keys, values)
        require_learning(layer, found)
    check_start(answer)


def check_context(found, queries, keys, values):
    """Raise NotYet unless the result is scaled attention without a mask."""
    scores = queries @ keys.T
    d_k = keys.shape[-1]
    soft, mistakes = weights_with(scores, d_k)
    right = soft @ values
    if same(found, right):
        return
    require(not same(found, soft), "these are the weights: multiply by the values")
    for wrong, reason in (
        (
            torch.softmax(scores / d_k**0.5, dim=0),
            "the columns of the weights sum to 1: use dim=-1",
        ),
        (
            torch.softmax(scores.T / d_k**0.5, dim=-1),
            "queries and keys are exchanged: it should be queries @ keys.T",
        ),
        *mistakes,
    ):
        require(not same(found, wrong @ values), reason)
    as_tensor(found, tuple(right.shape))
    raise NotYet("forward does not return softmax(Q K.T / sqrt(d_k)) V")


@exercise(
    "3.4.1",
    "write, 8 minutes, ••",
    "Write (x @ W_query) @ (x @ W_key).T without the last parentheses.",
)
def one_matrix_for_scores(answer):
    """A function (W_query, W_key) -> M with x @ M @ x.T equal to all scores."""
    require_function(answer)
    for d_in, d_out in ((3, 2), (4, 4), (2, 5)):
        W_query, W_key = torch.randn(2, d_in, d_out)
        found = answer(W_query.clone(), W_key.clone())
        right = W_query @ W_key.T
        if same(found, right):
            continue
        reason = "it is the transpose: the scores of query i would be in column i"
        require(not same(found, right.T), reason)
        if d_in == d_out:
            reason = "one of the two matrices has to be transposed"
            require(not same(found, W_query @ W_key), reason)
        as_tensor(found, (d_in, d_in))
        raise NotYet("x @ M @ x.T differs from the scores")


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
def attention_of_3_3(answer):
    """A layer of 3.4 that computes the attention of 3.3."""
    require_kind(answer, "SelfAttention_v1", "SelfAttention_v2")
    x = torch.randn(6, 3)
    found = answer(x)
    require(found.shape == x.shape, f"its output has {found.shape[-1]} columns, not 3")
    scores = x @ x.T
    if distance(found, torch.softmax(scores / 3**0.5, dim=-1) @ x) < 1e-4:
        raise NotYet("the layer still divides the scores by the square root of 3")
    off = distance(found, torch.softmax(scores, dim=-1) @ x)
    require(off < 1e-4, f"its output differs from that of 3.3 by up to {off:.2g}")


@exercise(
    "3.4.4",
    "predict, 6 minutes, ••",
    "Draw such numbers with 2 * torch.randn(...) and measure.",
)
def divisor_for_deviation_two(answer):
    """What brings scores of 64 products of numbers with deviation 2 back to 1."""
    found = as_number(answer)
    require(abs(found - 8) > 0.3, "8 is right for the standard deviation 1")
    require(found > 0, "it should be positive")
    kept = f"the scores would have a standard deviation of about {32 / found:.2g}"
    require(abs(found - 32) < 1, kept)


@exercise(
    "3.5.a",
    "write, 5 minutes, ••",
    "torch.ones(scores.shape, dtype=torch.bool).triu(1) is True above the diagonal.",
)
def scores_masked(answer):
    """A function scores -> scores with minus infinity above the diagonal."""
    require_function(answer)
    for size in (3, 6, 1, 4):
        scores = torch.randn(size, size)
        scores[0, -1] = 0
        found = as_tensor(answer(scores.clone()), (size, size))
        later = torch.ones(size, size, dtype=torch.bool).triu(1)
        if is_near(found, scores.masked_fill(later, -torch.inf)):
            continue
        require(not found.isnan().any(), "it makes nan: 0 times infinity is nan")
        hidden = found.isneginf()
        no_infinity = "no score is minus infinity: a score of 0 is not hidden, e^0 is 1"
        require(hidden.any(), no_infinity)
        eye = torch.eye(size, dtype=torch.bool)
        for wrong, reason in (
            (later | eye, "the diagonal is hidden, too: a token sees itself"),
            (later.T | eye, "it hides the earlier tokens and the diagonal"),
            (later.T, "it hides the earlier tokens: hide the upper triangle"),
            (later & (scores != 0), SEEN_BY_SCORE),
        ):
            require(not torch.equal(hidden, wrong), reason)
        reason = "not exactly the scores above the diagonal are minus infinity"
        require(torch.equal(hidden, later), reason)
        raise NotYet("the scores on and below the diagonal should stay as they are")


@exercise(
    "3.5.b",
    "write, 5 minutes, ••",
    "kept = attn_weights.tril(); divide by kept.sum(dim=-1, keepdim=True).",
)
def weights_rescaled(answer):
    """A function: weights without a mask -> causal weights, each row with the sum 1."""
    require_function(answer)
    for size in (3, 6, 4, 1):
        weights = torch.softmax(2 * torch.randn(size, size), dim=-1)
        found = as_tensor(answer(weights.clone()), (size, size))
        kept = weights.tril()
        right = kept / kept.sum(dim=-1, keepdim=True)
        if is_near(found, right):
            continue
        reason = "the rows do not sum to 1 again: divide each by its sum"
        require(not is_near(found, kept), reason)
        reason = "a row is nan, because all its weights were removed: a token sees "
        reason += "itself, so keep the diagonal"
        require(not found.isnan().any(), reason)
        upper = weights.triu()
        for wrong, reason in (
            (kept / kept.sum(dim=-1), "the sums fit the columns: use keepdim=True"),
            (kept / kept.sum(dim=0), "it divides by the sums of the columns"),
            (
                upper / upper.sum(dim=-1, keepdim=True),
                "it keeps the later tokens: keep the lower triangle",
            ),
            (
                torch.softmax(kept, dim=-1),
                "a second softmax gives the zeros a weight, because e^0 is 1",
            ),
        ):
            require(not is_near(found, wrong), reason)
        reason = "some weights above the diagonal are not 0"
        require(not found.triu(1).any(), reason)
        raise NotYet("a row should keep the ratios of its weights, and sum to 1")


@exercise(
    "3.5.c",
    "write, 5 minutes, ••",
    "kept = torch.rand(attn_weights.shape) >= p; multiply by it, divide by 1 - p.",
)
def weights_dropped(answer):
    """A function (weights, p) -> weights after dropout."""
    require_function(answer)
    for p in (0.5, 0.2, 0.0):
        weights = torch.rand(200, 200) + 0.5
        found = as_tensor(answer(weights.clone(), p), (200, 200))
        kept = found != 0
        share = 1 - kept.double().mean().item()
        if p != 0.5:  # for one half the two are the same
            reason = f"about {share:.0%} vanish; with p = {p} it should be {p:.0%}"
            require(
                abs(share - (1 - p)) > 0.05, f"{reason}: is it the wrong way round?"
            )
        reason = f"with p = {p}, {share:.0%} of the weights vanish, not {p:.0%}"
        require(abs(share - p) < 0.02, reason)
        reason = "the weights that are left should be divided by 1 - p"
        is_unscaled = p > 0 and is_near(found[kept], weights[kept])
        require(not is_unscaled, reason)
        if p not in (0.0, 0.5):
            by_p = is_near(found[kept], weights[kept] / p)
            require(not by_p, "it divides by p: divide by 1 - p")
        require(is_near(found[kept], weights[kept] / (1 - p)), reason)
        by_rows = (kept.double().mean(dim=1) - 1 + p).abs().max() < 0.25
        by_columns = (kept.double().mean(dim=0) - 1 + p).abs().max() < 0.25
        reason = "whole rows or columns vanish: draw a number for each weight"
        require(by_rows and by_columns, reason)
        again = as_tensor(answer(weights.clone(), p)) != 0
        reason = "it drops the same weights each time: draw anew in each call"
        require(p == 0 or not torch.equal(again, kept), reason)


def linear_layers(layer, d_in, d_out):
    """Raise NotYet unless a layer has its three linear layers, of these sizes."""
    for name in PROJECTIONS:
        linear = getattr(layer, name, None)
        require(linear is not None, f"it has no self.{name}")
        reason = f"self.{name} should be nn.Linear(d_in, d_out, bias=qkv_bias)"
        require(isinstance(linear, nn.Linear), reason)
        sizes = linear.in_features, linear.out_features
        require(sizes == (d_in, d_out), f"self.{name} maps {sizes[0]} to {sizes[1]}")
    layers = {name: getattr(layer, name) for name in PROJECTIONS}
    require_separate(layers)
    return [*layers.values()]


def require_buffers(layer, linears):
    """Raise NotYet if a new layer keeps a tensor that would not move along with it.

    Nor may it have more parameters than those of its linear layers.
    """
    for module in layer.modules():
        for name, value in vars(module).items():
            reason = (
                f"self.{name} is a plain attribute, so it stays behind when the layer "
                f'moves to a graphics card: use self.register_buffer("{name}", ...)'
            )
            require(not isinstance(value, torch.Tensor), reason)
    known = {parameter for linear in linears for parameter in linear.parameters()}
    for name, parameter in layer.named_parameters():
        reason = f"self.{name} is one parameter too many: a mask should be a buffer"
        require(parameter in known, reason)


@exercise(
    "3.5.d",
    "write, 15 minutes, •••",
    "scores.masked_fill(self.mask[:num_tokens, :num_tokens], -torch.inf).",
)
def causal_class(answer):
    """The class CausalAttention, with or without checks of its arguments."""
    require(isinstance(answer, type), "it should be the class itself")
    for size, d_in, d_out, b in (
        (6, 3, 2, 2),
        (4, 4, 4, 3),
        (3, 2, 5, 1),
        (6, 3, 3, 6),
    ):
        layer = answer(d_in, d_out, 6, 0.0)
        require_kind(layer, "Module")
        linears = linear_layers(layer, d_in, d_out)
        require_buffers(layer, linears)
        with torch.no_grad():
            for linear in linears:
                linear.weight.normal_()
        has_bias = any(linear.bias is not None for linear in linears)
        require(not has_bias, "without qkv_bias=True the linear layers have no bias")
        x = torch.randn(b, size, d_in)
        x[:, -1] = 0  # so that scores of later tokens are exactly 0
        try:
            found = layer(x)
        except RuntimeError as error:
            if size < 6 and "must match" in str(error):
                corner = "use the corner mask[:num_tokens, :num_tokens]"
                raise NotYet(f"a text shorter than the mask fails: {corner}") from None
            raise NotYet(f"x of shape {tuple(x.shape)} raises: {error}") from None
        check_causal(found, *(linear(x) for linear in linears))
        require_learning(layer, found)
    with_bias = linear_layers(answer(3, 2, 6, 0.0, qkv_bias=True), 3, 2)
    biases = all(linear.bias is not None for linear in with_bias)
    require(biases, "with qkv_bias=True each linear layer should have a bias")
    check_dropout(answer(3, 8, 6, 0.5))


SEEN_BY_SCORE = (
    "a later score that is exactly 0 stays visible: make the mask of the positions, "
    "not of the scores"
)


def check_causal(found, queries, keys, values):
    """Raise NotYet unless the result is that of causal attention."""
    right = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    if same(found, right):
        return
    size, d_k = queries.shape[1], keys.shape[2]
    scores = queries @ keys.transpose(1, 2)
    scaled, later = scores / d_k**0.5, torch.ones(size, size).triu(1).bool()
    weights = torch.softmax(scaled, dim=-1)
    hidden = scaled.masked_fill(later, -torch.inf)
    by_score = scaled.masked_fill(scaled.triu(1) != 0, -torch.inf)
    for wrong, reason in (
        (torch.softmax(by_score, dim=-1), SEEN_BY_SCORE),
        (weights, "each token still sees the later ones: is the mask missing?"),
        (weights.tril(), "the rows of the weights do not sum to 1: mask the scores"),
        (
            torch.softmax(scores.masked_fill(later, -torch.inf), dim=-1),
            "the scores are not divided by the root of d_k",
        ),
        (
            torch.softmax(hidden, dim=-2).nan_to_num(),
            "the softmax should work along the rows, dim=-1",
        ),
        (
            torch.softmax(scaled.masked_fill(later.T, -torch.inf), dim=-1),
            "it hides the earlier tokens: the mask is the wrong triangle",
        ),
        (
            torch.softmax(scaled.masked_fill(later, 0.0), dim=-1),
            "hidden scores are 0, not minus infinity",
        ),
    ):
        require(not same(found, wrong @ values), reason)
    found = as_tensor(found, tuple(right.shape))
    reason = "a row is hidden completely: each token should see itself"
    require(not found.isnan().any(), reason)
    raise NotYet("forward does not return causal scaled dot-product attention")


def check_dropout(layer, num_heads=1):
    """Raise NotYet unless a layer drops half of its weights, in training only.

    Its W_value has no bias, and maps 3 numbers to 8 for each head. It gets new weights,
    with which each of three tokens has a value that is 1 at two indices of its own. So
    the results are the attention weights, each of them twice.
    """
    ones = torch.eye(3).repeat_interleave(2, dim=0)  # (6, 3)
    with torch.no_grad():
        layer.W_value.weight.copy_(F.pad(ones, (0, 0, 0, 2)).repeat(num_heads, 1))
    x = torch.eye(3).repeat(64, 1, 1)

    def seen(results):
        heads = heads_of(as_tensor(results, (64, 3, 8 * num_heads)), num_heads)
        return heads[..., :6].unflatten(-1, (3, 2))[:, :, torch.ones(3, 3).tril() > 0]

    layer.eval()
    right = by_heads(layer, x, num_heads).detach()
    same_twice = torch.equal(layer(x), layer(x)) and is_near(layer(x), right, 1e-4)
    require(same_twice, "after eval() nothing should be dropped: use nn.Dropout")
    layer.train()
    ratios = seen(layer(x)) / seen(right)  # (64, num_heads, 6, 2): each is 0 or 2
    missing = is_near(ratios, torch.ones_like(ratios), 1e-3)
    reason = "no attention weight is dropped: apply self.dropout after the softmax"
    require(not missing, reason)
    reason = (
        "numbers of the values or of the results are dropped: apply dropout to the "
        "attention weights, and to nothing else"
    )
    require(is_near(ratios[..., 0], ratios[..., 1], 1e-3), reason)
    is_scaled = is_near((ratios - 1).abs(), torch.ones_like(ratios), 1e-3)
    reason = "with dropout 0.5 each weight should vanish or be doubled: apply "
    require(is_scaled, f"{reason}dropout once, after the softmax")
    kept = ratios[..., 0] > 1  # of the tokens 0; 0, 1; 0, 1, 2
    for together in ([0, 1, 3], [1, 2], [3, 4, 5]):
        one, *others = kept[..., together].unbind(-1)
        whole = all(torch.equal(one, other) for other in others)
        require(not whole, "whole rows or columns vanish: draw for each weight")


@exercise(
    "3.5.1",
    "write, 5 minutes, ••",
    "Add two triangles: torch.ones(6, 6).triu(1) is one of them.",
)
def sliding_window(answer):
    """True where a token may not look: ahead, and more than two tokens back."""
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
    """Gives each token the one after it, without any weight or mask."""

    def forward(self, x):
        return x.roll(-1, dims=1)


class LeakyBatch(nn.Module):
    """Leaves text 0 as it is; in later texts each token gets the one after it."""

    def forward(self, x):
        return torch.cat((x[:1], x[1:].roll(-1, dims=1)))


def layers_and_leaks():
    """Yield (layer, whether it sees the future, what it is called)."""
    yield seeded(CausalAttention, 3, 2, 6, 0.0), False, "CausalAttention"
    yield seeded(MultiHeadAttention, 3, 4, 6, 0.0, 2), False, "MultiHeadAttention"
    yield nn.Identity(), False, "a layer that leaves each token as it is"
    layer = seeded(CausalAttention, 3, 2, 6, 0.0)
    layer.mask = torch.zeros(6, 6, dtype=torch.bool)
    yield layer, True, "a layer without a mask"
    yield NextWord(), True, "a layer that shows each token the next one"
    yield LeakyBatch(), True, "a layer that leaks in text 1 of the batch only"
    for word in range(6):
        for later in range(word + 1, 6):
            layer = seeded(CausalAttention, 3, 2, 6, 0.0)
            layer.mask[word, later] = False
            yield layer, True, f"a layer in which only token {word} sees token {later}"


@exercise(
    "3.5.2",
    "write, 10 minutes, •••",
    "Change each token in turn, and compare all results before it.",
)
def leak_test(answer):
    """A function leaks(layer, x) that finds out whether a layer sees the future."""
    require_function(answer)
    x = torch.randn(2, 6, 3)
    for layer, leaks, title in layers_and_leaks():
        given = x.clone()
        found = answer(layer, given)
        require(found is not None, "it returns None: is a `return` missing?")
        require(torch.equal(given, x), "it changes x; work on x.clone()")
        says = "it finds no leak in" if leaks else "it finds a leak in"
        require(bool(found) == leaks, f"{says} {title}")


@exercise(
    "3.5.3",
    "predict, 4 minutes, •",
    "After the first layer the numbers are 6, (6 + 2) / 2, and (6 + 2 + 4) / 3.",
)
def mean_of_means(answer):
    """The last number after two layers of means of 6, 2 and 4."""
    found = as_number(answer)
    require(abs(found - 4) > 1e-3, "that is the last number after one layer")
    reason = "that is for 2, 6 and 4: here the first number is 6"
    require(abs(found - 10 / 3) > 0.02, reason)
    require(abs(found - 14 / 3) < 0.01, f"{found:.4g} is not the mean of three means")


@exercise(
    "3.5.4", "break, 5 minutes, ••", "In this function True means: may be looked at."
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
    reason = "it is the wrong way round: in this function True means visible"
    require(is_added or not around, reason)
    reason = (
        "a mask of 0 and 1 is added to the scores; this one should hold True, False"
    )
    require(is_added or mask.dtype == torch.bool, reason)
    mask = mask.float() if is_added else mask
    x = torch.randn(1, 6, 4)
    found = F.scaled_dot_product_attention(x, x, x, attn_mask=mask)
    require(not found.isnan().any(), "with it, some token sees nothing and becomes nan")
    off = distance(found, F.scaled_dot_product_attention(x, x, x, is_causal=True))
    require(off < 1e-4, f"the outputs differ from the causal ones by up to {off:.2g}")


@exercise(
    "3.6.a",
    "write, 8 minutes, ••",
    "self.heads = nn.ModuleList(...), and torch.cat([...], dim=-1) in forward.",
)
def multi_head_wrapper(answer):
    """A class of several causal heads whose context vectors are side by side."""
    require_class(answer, "MultiHeadAttentionWrapper")
    for num_heads, d_out, qkv_bias in ((2, 2, False), (3, 4, True)):
        layer = answer(3, d_out, 6, 0.5, num_heads, qkv_bias).eval()
        heads = [m for m in layer.modules() if hasattr(m, "W_query")]
        found = f"it finds {len(heads)} in a layer that should have {num_heads}"
        reason = (
            f"PyTorch looks for heads, and {found}: make a new CausalAttention for "
            "each head, and keep them in an nn.ModuleList; a plain list hides them"
        )
        require(len(heads) == num_heads, reason)
        head = heads[0]
        sizes = head.W_query.in_features, head.W_query.out_features
        expected = f"should map 3 numbers to {d_out}"
        require(
            sizes == (3, d_out), f"a head maps {sizes[0]} to {sizes[1]}, {expected}"
        )
        has_bias = head.W_query.bias is not None
        require(has_bias == qkv_bias, "its heads do not get qkv_bias")
        require(head.dropout.p == 0.5, "its heads do not get dropout")
        x = torch.randn(2, 6, 3)
        outputs = [each(x) for each in heads]
        right, output = torch.cat(outputs, dim=-1), layer(x)
        found = as_tensor(output)
        shape, wanted = tuple(found.shape), tuple(right.shape)
        is_summed = shape == tuple(outputs[0].shape)
        reason = f"for a batch of shape (2, 6, 3) its output has shape {shape}, not "
        reason += f"{wanted}: "
        reason += (
            "the heads are added up or only one is used"
            if is_summed
            else "join the heads along the last dimension, dim=-1"
        )
        require(shape == wanted, reason)
        reason = "its output is not what its heads give, side by side in their order"
        require(is_near(found, right), reason)
        require_learning(layer, output)


def require_class(answer, name):
    """Raise NotYet unless the answer is a class of PyTorch modules."""
    is_class = isinstance(answer, type) and issubclass(answer, nn.Module)
    reason = f"it should be the class {name}(nn.Module) itself, not an object of it"
    require(is_class, reason)


def heads_of(x, num_heads):
    """Cut (b, num_tokens, d_out) into heads, one after the other."""
    width = x.shape[-1] // num_heads
    return torch.stack([x[..., h * width :][..., :width] for h in range(num_heads)], 1)


@exercise(
    "3.6.b",
    "write, 6 minutes, ••",
    "x.view(b, num_tokens, num_heads, head_dim), and then swap dimensions 1 and 2.",
)
def split_into_heads(answer):
    """A function that cuts the vectors of all tokens into heads."""
    require_function(answer)
    for b, num_tokens, d_out, num_heads in ((1, 3, 4, 2), (2, 5, 12, 3), (3, 4, 8, 4)):
        x = torch.arange(b * num_tokens * d_out).view(b, num_tokens, d_out).float()
        right = heads_of(x, num_heads)
        found = as_tensor(answer(x.clone(), num_heads))
        shape, wanted = tuple(found.shape), tuple(right.shape)
        given = f"x of shape {tuple(x.shape)} and {num_heads} heads"
        forgot = shape == (b, num_tokens, num_heads, d_out // num_heads)
        without = forgot and is_near(found, right.transpose(1, 2))
        swap = "the view is right; now swap dimensions 1 and 2, so that the heads come "
        require(not without, f"{swap}before the tokens")
        reason = f"for {given} the result should have shape {wanted}, not {shape}"
        require(shape == wanted, reason)
        mixed = is_near(found, x.reshape(wanted))
        reason = (
            "the shape is right, but the tokens are mixed: a view straight to (b, "
            "num_heads, num_tokens, head_dim) only cuts the numbers anew in their old "
            "order. Cut each token first, then transpose"
        )
        require(not mixed, reason)
        every = x.view(b, num_tokens, -1, num_heads).permute(0, 3, 1, 2)
        reason = (
            "each head gets every so many-th number; it should get neighbouring "
            "numbers, for example head 0 the first head_dim of them"
        )
        require(not is_near(found, every), reason)
        head = tuple(map(int, found[0, 0, 0]))
        say = tuple(map(int, right[0, 0, 0]))
        reason = (
            f"for {given} the numbers are at the wrong positions: head 0 of token 0 "
        )
        reason += f"has {head}, and should have {say}" if head != say else "see a head"
        require(is_near(found, right), reason)


@exercise(
    "3.6.c",
    "write, 5 minutes, ••",
    "Swap dimensions 1 and 2 back, then reshape to (b, num_tokens, d_out).",
)
def join_heads(answer):
    """A function that joins the heads of each token into one vector again."""
    require_function(answer)
    for b, num_tokens, d_out, num_heads in ((1, 3, 4, 2), (2, 5, 12, 3), (3, 4, 8, 4)):
        right = torch.arange(b * num_tokens * d_out).view(b, num_tokens, d_out).float()
        x = heads_of(right, num_heads)  # (b, num_heads, num_tokens, head_dim)
        found = as_tensor(answer(x.clone()))
        shape, wanted = tuple(found.shape), tuple(right.shape)
        forgot = shape == (b, num_tokens, num_heads, d_out // num_heads)
        reason = (
            "the dimensions are in the right order; now join the last two of them"
            if forgot
            else f"for x of shape {tuple(x.shape)} the result should have shape "
            f"{wanted}, not {shape}"
        )
        require(shape == wanted, reason)
        mixed = is_near(found, x.reshape(wanted))
        reason = (
            "the shape is right, but the tokens are mixed: transpose before you reshape"
        )
        require(not mixed, reason)
        reason = (
            "the numbers of a token are in the wrong order: head 0's come first, "
            "then head 1's"
        )
        require(is_near(found, right), reason)


def by_heads(layer, x, num_heads, scale=None, causal=True):
    """What a MultiHeadAttention computes, one head after the other."""
    queries, keys, values = (
        heads_of(f(x), num_heads) for f in (layer.W_query, layer.W_key, layer.W_value)
    )
    outputs = F.scaled_dot_product_attention(
        queries, keys, values, is_causal=causal, scale=scale
    )
    return torch.cat(list(outputs.unbind(1)), dim=-1)


@exercise(
    "3.6.d",
    "write, 15 minutes, •••",
    "Divide the scores by head_dim**0.5, and mask them before the softmax.",
)
def whole_multi_head_attention(answer):
    """The class MultiHeadAttention."""
    require_class(answer, "MultiHeadAttention")
    for d_in, d_out, num_heads, num_tokens in ((3, 4, 2, 6), (8, 12, 3, 4)):
        layer = answer(d_in, d_out, 6, 0.0, num_heads)
        for name in ("W_query", "W_key", "W_value", "out_proj"):
            linear = getattr(layer, name, None)
            require(
                isinstance(linear, nn.Linear), f"it has no linear layer self.{name}"
            )
            width = d_out if name == "out_proj" else d_in
            shape, wanted = tuple(linear.weight.shape), (d_out, width)
            reason = (
                f"{name} maps {shape[1]} numbers to {shape[0]}, not {width} to {d_out}"
            )
            require(shape == wanted, reason)
            if name != "out_proj":
                reason = f"{name} has a bias although qkv_bias is False"
                require(linear.bias is None, reason)
        has_bias = layer.out_proj.bias is not None
        require(has_bias, "out_proj has no bias: it is nn.Linear(d_out, d_out)")
        names = (*PROJECTIONS, "out_proj")
        require_buffers(layer, [getattr(layer, name) for name in names])
        x = torch.randn(2, num_tokens, d_in)
        x[:, -1] = 0  # so that scores of later tokens are exactly 0
        output = layer(x)
        found = as_tensor(output, (2, num_tokens, d_out))
        compare_with_heads(layer, x, num_heads, found)
        require_learning(layer, output)
    biases = answer(3, 4, 6, 0.0, 2, qkv_bias=True)
    require(biases.W_key.bias is not None, "with qkv_bias=True, W_key has no bias")
    layer = answer(3, 16, 6, 0.5, 2)
    with torch.no_grad():  # so that the heads' results are seen
        layer.out_proj.weight.copy_(torch.eye(16))
        layer.out_proj.bias.zero_()
    check_dropout(layer, num_heads=2)


def compare_with_heads(layer, x, num_heads, found):
    """Raise NotYet, with the likely mistake, unless the output is right."""
    d_out = found.shape[-1]
    joined = by_heads(layer, x, num_heads)
    if is_near(found, layer.out_proj(joined)):
        return
    require(not is_near(found, joined), "the output projection out_proj is not used")
    mistakes = {
        "its tokens see those after them: the mask is missing": {"causal": False},
        "it divides the scores by the square root of d_out; a head's queries have only "
        "head_dim numbers": {"scale": d_out**-0.5},
        "it does not divide the scores by the square root of head_dim": {"scale": 1.0},
    }
    for mistake, settings in mistakes.items():
        wrong = layer.out_proj(by_heads(layer, x, num_heads, **settings))
        require(not is_near(found, wrong), mistake)
    one = layer.out_proj(by_heads(layer, x, 1))
    require(not is_near(found, one), "it works as if it had one head: split first")
    cut = [
        f(x).reshape(len(x), num_heads, x.shape[1], -1)
        for f in (layer.W_query, layer.W_key, layer.W_value)
    ]
    cut = F.scaled_dot_product_attention(*cut, is_causal=True)
    reason = "the tokens are mixed when the heads are split: use split_heads"
    for wrong in (cut.transpose(1, 2).flatten(2), cut.reshape(joined.shape)):
        require(not is_near(found, layer.out_proj(wrong)), reason)
    mixed = heads_of(joined, num_heads).reshape(joined.shape)
    reason = "the tokens are mixed when the heads are joined: use merge_heads"
    require(not is_near(found, layer.out_proj(mixed)), reason)
    off = distance(found, layer.out_proj(joined))
    reason = (
        "its output is not that of its heads, one after the other, joined and sent "
        f"through out_proj: the difference is up to {off:.2g}"
    )
    raise NotYet(reason)


@exercise(
    "3.6.1",
    "predict, 6 minutes, ••",
    "Write the 24 numbers in a row. Which six rows of two does head 0 get?",
)
def changed_by_token_1(answer):
    """The positions whose output changes if heads are cut without a transpose."""
    found = sorted(as_whole_numbers(answer))
    later = [1, 2, 3, 4, 5]
    require(
        found != later, "that is so with the right split; here the tokens are mixed"
    )
    reason = "it is none of the positions before 1: a row never sees later rows"
    require(0 not in found, reason)
    require(1 in found, "token 1 itself changes, too")
    reason = "head 0 also has a token after token 1, which sees it"
    require(2 in found, reason)
    require(found == [1, 2], f"{found} has a position that is in the other head")


SHOWN_HEADS = (11, 1), (18, 8), (8, 1), (13, 8)


def stored_maps():
    """The tokens of each stored sentence, and SmolLM2's attention maps."""
    with np.load(ROOT / "ch03" / "smollm2_attention.npz") as file:
        return file["tokens"].tolist(), torch.from_numpy(file["weights"]).float()


@exercise(
    "3.6.2",
    "open, 20 minutes, •••",
    "Print each head's strongest word for one query. Do some give the query itself?",
)
def rule_of_a_head(answer):
    """(layer, head, rule): a rule that tells to which word a head attends most."""
    is_triple = isinstance(answer, (list, tuple)) and len(answer) == 3
    require(is_triple, "it should be three things: (layer, head, rule)")
    layer, head = as_whole_number(answer[0]), as_whole_number(answer[1])
    require_function(answer[2])
    require(0 <= layer < 30 and 0 <= head < 9, "there are layers 0 to 29, heads 0 to 8")
    shown = f"layer {layer}, head {head} was shown above; find another one"
    require((layer, head) not in SHOWN_HEADS, shown)
    num_right = num_first = 0
    for tokens, weights in zip(*stored_maps()):
        for query in range(2, len(tokens)):
            guess = as_whole_number(answer[2](list(tokens), query))
            reason = (
                f"for query {query} the rule gives {guess}: not a word that it sees"
            )
            require(0 <= guess <= query, reason)
            strongest = int(weights[layer, head, query].argmax())
            num_right += guess == strongest
            num_first += strongest == 0
    said = f"the rule is right for {num_right} of 20 query words"
    require(num_right >= 14, f"{said}, and should be for at least 14")
    reason = (
        f"{said}. “Always the first word” is right for {num_first}: a rule should be "
        "right for at least two more"
    )
    require(num_right >= num_first + 2, reason)


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
