"""Checkers of chapter 2's exercises.

Looking in here spoils the exercises.
"""

import heapq
import math
import re
from collections import Counter, defaultdict
from functools import lru_cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

from ch02.bpe import (
    SPLIT_PATTERN,
    BPETokenizerSimple,
    encode_word,
    learn_merges,
)
from ch02.dataset import GPTDatasetV1
from ch02.tokenizer import (
    BPETokenizer,
    SimpleTokenizerV1,
    SimpleTokenizerV2,
    get_tokenizer,
    split_words,
)
from support.download.texts import load_text
from support.exercises.checking import (
    NotYet,
    Refusing,
    as_number,
    as_tensor,
    as_whole_number,
    as_whole_numbers,
    exercise,
    is_count,
    is_near,
    require,
    require_function,
    require_kind,
    require_learning,
)

# the measurements of 2.0
HOURS = torch.arange(6.0)
DEPTHS = torch.tensor([1.1, 1.7, 2.6, 3.3, 3.8, 4.8])


@exercise(
    "2.0.a",
    "write, 4 minutes, •",
    "The means of the rows must be a column, so that they fit the matrix.",
)
def rows_centered(answer):
    """A function that subtracts from each row of a matrix its mean."""
    require_function(answer)
    for shape in ((2, 3), (4, 4), (1, 5), (3, 1)):
        x = torch.randint(10, shape).float()
        try:
            found = as_tensor(answer(x.clone()), shape)
        except (RuntimeError, ValueError) as error:
            if "must match" not in str(error) and "broadcast" not in str(error):
                raise
            lost = f"the means do not fit the matrix, whose shape is {shape}"
            raise NotYet(f"{lost}: keep their dimension, with keepdim=True") from None
        right = x - x.mean(dim=-1, keepdim=True)
        if is_near(found, right):
            continue
        for wrong, reason in (
            (x - x.mean(dim=0), "the means of the columns, which are dim 0"),
            (x - x.mean(), "the mean of the whole matrix from each number"),
        ):
            require(not is_near(found, wrong), f"it subtracts {reason}")
        row = (found != right).any(dim=1).nonzero()[0].item()
        raise NotYet(f"the row {shown(x[row])} became {shown(found[row])}")


def shown(numbers):
    """A tensor's numbers as lists that can be read in a message."""
    return numbers.double().round(decimals=3).tolist()


@exercise(
    "2.0.b", "write, 6 minutes, ••", "product[i, j] needs row a[i] and column b[:, j]."
)
def matrix_product(answer):
    """A function that multiplies two matrices without PyTorch's products."""
    require_function(answer)
    for n, m, k in ((2, 3, 2), (1, 4, 3), (3, 2, 5), (2, 1, 1)):
        a, b = (torch.randint(1, 7, size).float() for size in ((n, m), (m, k)))
        with Refusing("matmul", "__matmul__", "mm", "einsum", "dot", "linear", "mv"):
            found = answer(a.clone(), b.clone())
        require(
            is_near(as_tensor(found, (n, k)), a @ b),
            f"{shown(a)} @ {shown(b)} gives {shown(as_tensor(found))}, not "
            f"{shown(a @ b)}",
        )


@exercise("2.0.c", "write, 5 minutes, ••", "The two points are 2 * step apart.")
def measured_slope(answer):
    """A function that measures the slope of a function at a point."""
    require_function(answer)
    for f, x, right in (
        (lambda x: 3 * x + 1, 2.0, 3.0),
        (lambda x: x * x, 3.0, 6.0),
        (lambda x: x * x, -1.0, -2.0),
        (lambda x: x**3, 1.0, 3.0),
        (lambda x: 1e6 * x * x, 0.0, 0.0),  # the same on both sides
    ):
        found = as_number(answer(f, x))
        if abs(found - right) < 0.01:
            continue
        for wrong, reason in (
            (2 * right, "it is twice as large as it should be: divide by 2 * step"),
            (right / 2, "it is half as large as it should be: divide by 2 * step"),
            (-right, "it has the wrong sign: is it right minus left?"),
            (right / math.hypot(1, right), "divide by 2 * step, the distance in x"),
        ):
            require(not right or abs(found - wrong) > 0.01, reason)
        require(right, "it looks at one side of x: compare x + step with x - step")
        raise NotYet(f"at x = {x} it is {found:.3f}, not {right:.3f}")


@exercise(
    "2.0.d",
    "write, 4 minutes, ••",
    "The slope of u ** 2 is 2 * u, and here u is w * x - y.",
)
def gradient_of_square(answer):
    """A function for the gradient of (w * x - y) ** 2 with respect to w."""
    require_function(answer)
    for w, x, y in (
        (2.0, 3.0, 4.0),
        (0.5, -1.0, 2.0),
        (1.0, 0.0, 5.0),
        (-2.0, 4.0, 1.0),
    ):
        found, right = as_number(answer(w, x, y)), 2 * (w * x - y) * x
        without_x = x not in (0, 1) and is_near(found, 2 * (w * x - y))
        require(not without_x, "the slope of the multiplication, x, is missing")
        require(
            is_near(found, right),
            f"for w = {w}, x = {x}, y = {y} it is {found:g}, not {right:g}",
        )


@exercise(
    "2.0.e",
    "write, 8 minutes, ••",
    "loss.backward() first; then the with block; then .grad = None.",
)
def gradient_step(answer):
    """A function that takes one step of gradient descent on the section's line."""
    require_function(answer)
    w, b = (torch.tensor(0.0, requires_grad=True) for _ in range(2))
    u, v = 0.0, 0.0  # what w and b should be
    for step in range(3):
        errors = u * HOURS + v - DEPTHS
        loss = as_number(loss_of_step(answer, w, b))
        require(
            is_near(loss, errors.square().mean(), 1e-4),
            f"step {step} returns {loss:.4f}, not the loss before it, "
            f"{errors.square().mean():.4f}",
        )
        u -= 0.05 * (2 * errors * HOURS).mean().item()
        v -= 0.05 * (2 * errors).mean().item()
        both = torch.stack([w.detach(), b.detach()])
        for wrong, reason in (
            (
                [0, 0],
                "w and b have not changed: `w = w - ...` makes a new tensor, and "
                "`w -= ...` changes w itself",
            ),
            ([-u, -v], "w and b move up the slope: subtract"),
            ([-0.05, -0.05], "multiply the learning rate by the gradient"),
        ):
            require(step or not is_near(both, torch.tensor(wrong)), reason)
        if step and not is_near(both, [u, v], 1e-4):
            raise NotYet(
                "the second step is wrong: were the gradients set back to None?"
            )
        require(
            is_near(both, [u, v], 1e-4),
            f"w and b should be {u:.3f} and {v:.3f}, and are {w.item():.3f} and "
            f"{b.item():.3f}",
        )


def loss_of_step(answer, w, b):
    """What a training step returns; PyTorch's obscure errors become NotYet."""
    try:
        return answer(w, b, 0.05)
    except TypeError:
        if w.grad is None:
            raise NotYet(
                "w.grad is None: call loss.backward(), with its parentheses, before "
                "the parameters change, and clear the gradients after that"
            ) from None
        raise
    except RuntimeError as error:
        if "leaf" in str(error):
            reason = "change w and b inside a block `with torch.no_grad():`"
            raise NotYet(reason) from None
        raise


@exercise(
    "2.0.f",
    "write, 4 minutes, •",
    "self.linear = nn.Linear(1, 1) in __init__, self.linear(x) in forward.",
)
def line_module(answer):
    """A module that is a line: one linear layer from one number to one."""
    require(isinstance(answer, type), "it should be the class itself")
    model = answer()
    require_kind(model, "Module")
    numel = sum(p.numel() for p in model.parameters())
    require(numel == 2, f"it has {numel} parameters; a line has a weight and a bias")
    x = torch.randn(5, 1)
    output = model(x)
    found = as_tensor(output, (5, 1))
    weight, bias = (p.detach().flatten() for p in model.parameters())
    right = [is_near(found, a * x + b) for a, b in ((weight, bias), (bias, weight))]
    require(any(right), "forward should return weight * x + bias")
    require_learning(model, output)


@exercise(
    "2.0.1",
    "predict, 6 minutes, ••",
    "Each step repeats all earlier ones. What if the line is at the bottom already?",
)
def gradients_that_add_up(answer):
    """A function that trains a line and never sets gradients to zero."""
    require_function(answer)
    found = as_tensor(answer(30), (30,))
    torch.manual_seed(123)
    linear = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        loss = (linear(HOURS[:, None]) - DEPTHS[:, None]).square().mean()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    require(
        is_near(found[0], losses[0], 1e-3),
        "the first loss is that of a line with seed 123, before any step",
    )
    require(
        is_near(found[1], losses[1], 1e-3), "the loss after the first step is not right"
    )
    require(
        is_near(found, losses, 1e-2),
        "from the second step on the gradients should add up",
    )


@exercise(
    "2.0.2",
    "break, 10 minutes, •••",
    "Make the inputs about as large as 1 before you train, and before you predict.",
)
def learning_in_minutes(answer):
    """A function that learns a line from minutes to depths."""
    require_function(answer)
    minutes, depths = 60 * HOURS[:, None], DEPTHS[:, None]
    predict = answer(minutes.clone(), depths.clone())
    require(callable(predict), "it should return a function from minutes to depths")
    found = as_tensor(predict(minutes.clone()), (6, 1))
    loss = (found - depths).square().mean().item()
    require(loss < 0.02, f"its predictions have a loss of {loss:.3g}")
    between = as_tensor(predict(torch.tensor([[150.0]])), (1, 1)).item()
    require(2.5 < between < 3.2, f"after 150 minutes it predicts {between:.2f} m")


@exercise(
    "2.1.a",
    "write, 5 minutes, ••",
    "The dot product is (a * b).sum(), and the length of a is (a * a).sum().sqrt().",
)
def cosine_of_two(answer):
    """A function for the cosine similarity of two vectors."""
    require_function(answer)
    pairs = [([8.0, 6.0], [5.0, 0.0]), ([4.0, 3.0], [0.0, 5.0])]
    pairs = [(torch.tensor(a), torch.tensor(b)) for a, b in pairs]
    pairs += [(torch.randn(d), 4 * torch.randn(d)) for d in (2, 3, 7)]
    pairs.append((torch.tensor([3.0, 4.0]), torch.tensor([-8.0, -6.0])))
    for a, b in pairs:
        found = as_number(answer(a.clone(), b.clone()))
        dot, lengths = (a * b).sum().item(), (a.norm().item(), b.norm().item())
        right = dot / (lengths[0] * lengths[1])
        for wrong, reason in (
            (dot, "that is the dot product: divide it by both lengths"),
            (dot / lengths[0], "it is divided by only one of the two lengths"),
            (dot / lengths[1], "it is divided by only one of the two lengths"),
            (
                dot / lengths[0] * lengths[1],
                "dot / a * b divides by a and then multiplies by b: write parentheses",
            ),
            (dot / sum(lengths), "multiply the two lengths, do not add them"),
            (right**2, "it is squared"),
            (right / lengths[0] / lengths[1], "a length is a square root: .sqrt()"),
            (abs(right), "vectors that point in opposite directions give -1"),
            (
                dot / len(a) / len(b),
                "len() counts the numbers; the length of an arrow is "
                "(a * a).sum().sqrt()",
            ),
        ):
            require(is_near(found, right) or not is_near(found, wrong), reason)
        require(
            is_near(found, right),
            f"for {a.tolist()} and {b.tolist()} it is {found:.3f}, not {right:.3f}",
        )


@exercise(
    "2.1.b",
    "write, 6 minutes, ••",
    "zip(words, words[1:]) has all pairs; keep those whose right word is `word`.",
)
def neighbours_of_a_word(answer):
    """A function that lists the left and the right neighbours of a word."""
    require_function(answer)
    for word, text in (
        ("sea", "the sea is high and the tide is low"),
        ("the", "the sea is high and the tide is low"),
        ("low", "the sea is high and the tide is low"),
        ("no", "no sea and no no tide"),
        ("high", "low tide"),
        ("a", " ".join("abc"[i] for i in torch.randint(3, (20,)))),
    ):
        words = text.split()
        try:
            found = answer(word, list(words))
        except IndexError:
            raise NotYet("the last word has no right neighbour") from None
        require_kind(found, "tuple", "list")
        require(len(found) == 2, f"it should return two lists, not {len(found)}")
        wanted = (
            [left for left, right in zip(words, words[1:]) if right == word],
            [right for left, right in zip(words, words[1:]) if left == word],
        )
        compare_neighbours(found, wanted, word, words)


def compare_neighbours(found, wanted, word, words):
    """Raise NotYet unless both lists have the wanted words, in any order."""
    left, right = (Counter(part) for part in found)
    wanted_left, wanted_right = (Counter(part) for part in wanted)
    text = " ".join(words)
    swapped = (left, right) == (wanted_right, wanted_left)
    require(
        not swapped or wanted_left == wanted_right,
        "the two lists are swapped: the left neighbours come first",
    )
    if words[0] == word and left - wanted_left == Counter(words[-1:]):
        raise NotYet("the first word has no left neighbour, but words[-1] is the last")
    for side, counts, right_ones in (
        ("left", left, wanted_left),
        ("right", right, wanted_right),
    ):
        is_set = counts.keys() == right_ones.keys() and counts != right_ones
        require(not is_set, "a neighbour that comes twice should be listed twice")
        shown = list(right_ones.elements())
        require(
            counts == right_ones,
            f"in {text!r} the {side} neighbours of {word!r} are {shown}, not "
            f"{list(counts.elements())}",
        )


@exercise(
    "2.1.c",
    "write, 10 minutes, •••",
    "For each pair: counts[row of right, row of left] += 1, and the other half.",
)
def matrix_of_neighbours(answer):
    """A function that counts the neighbours of many words in one matrix."""
    require_function(answer)
    toy = ["the", "sea", "is", "high", "and", "the", "tide", "is", "low"]
    letters = [list("abcd")[i] for i in torch.randint(4, (60,))]
    cases = [(toy, sorted(set(toy))), (letters, list("bca")), (toy, ["tide", "the"])]
    for words, distinct in cases:
        n = len(distinct)
        try:
            found = answer(list(words), list(distinct))
        except (KeyError, ValueError):
            reason = "a word that is not in distinct has no row: skip its pairs"
            raise NotYet(reason) from None
        found = as_tensor(found, (n, 2 * n))
        right = counts_of_pairs(words, distinct)
        kept = counts_of_pairs([word for word in words if word in distinct], distinct)
        zeros = torch.zeros(n, n)
        for wrong, reason in (
            (torch.cat((right[:, n:], right[:, :n]), 1), "left and right are swapped"),
            (right.clamp(max=1), "no count is more than 1: use +="),
            (kept, "skip pairs, not words: without a word others become neighbours"),
            (torch.cat((right[:, :n], zeros), 1), "right neighbours are not counted"),
            (torch.cat((zeros, right[:, n:]), 1), "left neighbours are not counted"),
        ):
            require(is_near(found, right) or not is_near(found, wrong), reason)
        if not is_near(found, right):
            row, column = (found != right).nonzero()[0].tolist()
            side = "right" if column >= n else "left"
            text = repr(" ".join(words)) if len(words) < 20 else "a longer text"
            raise NotYet(
                f"in {text}, {distinct[column % n]!r} is {right[row, column]:g} times "
                f"directly {side} of {distinct[row]!r}, and row {row}, column {column} "
                f"is {found[row, column]:g}"
            )


def counts_of_pairs(words, distinct):
    """How often each of the distinct words stands left, then right, of each."""
    pairs = Counter(zip(words, words[1:]))
    left = [[pairs[other, word] for other in distinct] for word in distinct]
    right = [[pairs[word, other] for other in distinct] for word in distinct]
    return torch.cat((torch.tensor(left), torch.tensor(right)), dim=1).float()


@exercise(
    "2.1.d",
    "write, 6 minutes, ••",
    "distinct.index(word) is the row of the word; argsort gives numbers of rows.",
)
def words_nearest(answer):
    """A function that lists the words with the most similar vectors of length 1."""
    require_function(answer)
    for num_words, num_numbers in ((8, 3), (12, 6)):
        vectors = F.normalize(torch.randn(num_words, num_numbers), dim=1)
        compare_nearest(answer, vectors)


def compare_nearest(answer, vectors):
    """Raise NotYet unless a function finds the words with the largest cosines."""
    vectors = vectors.clone()
    vectors[1] = vectors[0]  # as the sea and the tide
    words = ["sea", "tide", "moon", "four", "seven", "over", "under", "quay", "bank"]
    words = [*words, "lamp", "table", "gut"][: len(vectors)]
    for word, count in (("sea", 3), ("tide", 1), ("moon", 5), ("seven", None)):
        extra = () if count is None else (count,)
        found = answer(word, list(words), vectors.clone(), *extra)
        require(found is not None, "it is None: is a `return` missing?")
        require(not isinstance(found, str), "it should return a list of words")
        found, count = list(found), count or 4
        is_words = all(isinstance(part, str) for part in found)
        require(is_words, "it should return words, not numbers: distinct[i] is a word")
        itself = f"{word!r} itself is in the list (another word may have its vector)"
        require(word not in found, itself)
        size = f"for count={count} it returns {len(found)} words"
        require(len(found) == count == len(set(found)), size)
        row, numbers = words.index(word), [words.index(part) for part in found]
        others = [i for i in range(len(words)) if i != row]
        dots = (vectors @ vectors[row]).double()
        cosines = dots / vectors.norm(dim=1) / vectors[row].norm()
        best = cosines[others].sort(descending=True).values
        if not is_near(cosines[numbers], best[:count]):
            farthest = is_near(cosines[numbers], best.flip(0)[:count])
            require(not farthest, "the least similar words come first: descending=True")
            by_dots = is_near(
                dots[numbers], dots[others].sort(descending=True).values[:count]
            )
            require(not by_dots, "long vectors win: divide by the lengths")
            in_order = sorted(others, key=lambda i: -cosines[i])
            best_words = [words[i] for i in in_order[:count]]
            raise NotYet(f"nearest to {word!r} are {best_words}, not {found}")


@exercise(
    "2.1.e",
    "write, 4 minutes, •",
    "Row number r has its 1 in column indexes[r].",
)
def one_hot_matrix(answer):
    """A function that makes a matrix with a one-hot vector for each index."""
    require_function(answer)
    for indexes, num_words in (([2], 4), ([3, 0, 3], 5), ([0, 1, 5, 4], 6)):
        found = as_tensor(answer(torch.tensor(indexes), num_words))
        right = F.one_hot(torch.tensor(indexes), num_words)
        shape, wanted = tuple(found.shape), tuple(right.shape)
        turned = shape == wanted[::-1] != wanted
        require(not turned, f"rows and columns are swapped: it should be {wanted}")
        require(shape == wanted, f"it should have shape {wanted}, not {shape}")
        for row, index in enumerate(indexes):
            ones = found[row].nonzero().flatten().tolist()
            require(
                len(ones) == 1,
                f"for {indexes}, row {row} has {len(ones)} numbers that are not 0",
            )
            require(
                is_near(found[row], right[row]),
                f"for {indexes}, row {row} is {found[row].tolist()}: the 1 belongs "
                f"into column {index}",
            )


@exercise(
    "2.1.1",
    "predict, 3 minutes, •",
    "The product is 0.5 times row 0, plus 0.5 times row 1, plus 0 times row 2.",
)
def half_of_two_rows(answer):
    """What a row with two halves reads from a table."""
    require_kind(answer, "list", "tuple", "Tensor", "ndarray")
    found = as_tensor(answer).flatten().double()
    require(len(found) == 2, f"the table has two columns, so not {len(found)} numbers")
    require(not is_near(found, [6.0, 8.0]), "that is the sum; each row counts half")
    for row, numbers in enumerate(([2.0, 6.0], [4.0, 2.0], [9.0, 9.0])):
        reason = f"that is row {row} alone: row 0 and row 1 count half each"
        require(not is_near(found, numbers), reason)
    require(not is_near(found, [5.0, 17 / 3]), "row 2 is multiplied by 0")
    right = torch.tensor([3.0, 4.0])
    require(is_near(found, right), f"it is not {found.tolist()}")


@exercise(
    "2.1.2",
    "write, 5 minutes, ••",
    "Give both words the same word before and the same word after.",
)
def equal_company(answer):
    """A text in which ebb and flood have the same neighbours, and boat others."""
    require_kind(answer, "str")
    words = answer.split()
    for word in ("ebb", "flood", "boat"):
        require(word in words, f"the word {word} is missing")
    pairs = list(zip(words, words[1:]))
    together = ("ebb", "flood") in pairs or ("flood", "ebb") in pairs
    require(not together, "ebb and flood stand side by side")
    ebb, flood, boat = (company(word, pairs) for word in ("ebb", "flood", "boat"))
    require(ebb, "ebb has no neighbours")
    unequal = ", ".join(sorted((ebb - flood) + (flood - ebb)))
    require(not unequal, f"ebb and flood do not equally often have {unequal}")
    require(ebb != boat, "boat has the same neighbours as ebb and flood")


def company(word, pairs):
    """Count a word's neighbours: {"the on the left": 2, ...}."""
    before = [f"{left} on the left" for left, right in pairs if right == word]
    after = [f"{right} on the right" for left, right in pairs if left == word]
    return Counter(before + after)


@exercise(
    "2.1.3",
    "break, 8 minutes, ••",
    "Divide each row by its length before you multiply.",
)
def nearest_by_direction(answer):
    """A function that finds the nearest words whatever the lengths of the vectors."""
    require_function(answer)
    for num_words, num_numbers in ((8, 3), (12, 6)):
        vectors = torch.randn(num_words, num_numbers)
        compare_nearest(answer, vectors * (20 * torch.rand(num_words, 1) + 0.5))


MARKS = ",.:;?_!\"()'"


@exercise(
    "2.2.a",
    "write, 4 minutes, •",
    "piece.strip() is an empty string, which counts as false, if nothing is left.",
)
def pieces_without_blanks(answer):
    """A function that drops empty strings and white space from a list."""
    require_function(answer)
    texts = (
        "High water, at nine.",
        "a  b\n\n c\td ",
        "the sea, the tide",
        " ",
        "",
        "one",
    )
    for text in texts:
        pieces = re.split(r"([,.]|\s)", text)
        found = answer(list(pieces))
        require(found is not None, "it is None: is a `return` missing?")
        require(not isinstance(found, str), "it should be a list of pieces")
        found, wanted = list(found), [piece for piece in pieces if piece.split()]
        require("" not in found, f"{pieces} gives {found}: empty strings are left")
        blank = [piece for piece in found if not piece.split()]
        require(not blank, f"{pieces} gives {found}: white space is left")
        once = found == [*dict.fromkeys(wanted)] != wanted
        require(not once, f"{pieces} gives {found}: pieces that come twice are lost")
        require(found == wanted, f"{pieces} gives {found}, not {wanted}")


@exercise(
    "2.2.b",
    "write, 6 minutes, ••",
    "re.split with the whole pattern in parentheses, and then drop the blanks.",
)
def words_and_marks(answer):
    """A function that cuts a text into words and punctuation."""
    require_function(answer)
    texts = ["High water, at nine.", "Late--too late?", "harbour-master", "don't"]
    texts += [
        "a,b.c:d;e?f_g!h\"i(j)k'l",
        " two\n\nlines\t",
        "",
        "--- - --",
        load_text(),
    ]
    for text in texts:
        found = answer(text)
        require(found is not None, "it is None: is a `return` missing?")
        require(not isinstance(found, str), "it should be a list of tokens")
        found, wanted = list(found), cut_by_hand(text)
        where = f"of {text!r}" if len(text) < 50 else "of the story"
        is_text = all(isinstance(token, str) for token in found)
        require(is_text, "parentheses within the pattern give pieces that are None")
        blank = [token for token in found if not token.split()]
        require(not blank, f"the tokens {where} include {blank[:1]}")
        once = found == [*dict.fromkeys(wanted)] != wanted
        require(not once, f"tokens {where} that come twice are lost")
        joined, whole = "".join(found), "".join(text.split())
        small = joined == whole.lower() != whole
        require(not small, f"capital letters {where} have become small ones")
        if joined != whole:
            raise NotYet(
                f"characters {where} are lost or changed: are there parentheses around "
                "the whole pattern?"
            )
        if "--" in wanted and "--" not in found:
            raise NotYet(f"{text!r} gives {found}: -- should be a token")
        compare_tokens(found, wanted, text)


def cut_by_hand(text):
    """The tokens of a text, found character by character."""
    tokens, word, start = [], "", 0
    while start < len(text):
        piece = "--" if text.startswith("--", start) else text[start]
        start += len(piece)
        if piece == "--" or piece in MARKS or piece.isspace():
            tokens += [word, piece.strip()]
            word = ""
        else:
            word += piece
    return [token for token in [*tokens, word] if token]


@exercise(
    "2.2.1",
    "predict, 3 minutes, •",
    "Count each quotation mark, comma and apostrophe; -- is one token.",
)
def number_of_tokens(answer):
    """How many tokens split_words finds in the exercise's sentence."""
    tokens = split_words('"There\'s the sea--look!" said Amos, and listened.')
    found = as_whole_number(answer)
    size = "few" if found < len(tokens) else "many"
    require(found == len(tokens), f"{found} is too {size}")


@exercise(
    "2.2.2",
    "break, 6 minutes, ••",
    "The first alternative that fits wins: should - or -- come first?",
)
def hyphens_apart(answer):
    """A split_words that cuts at hyphens too and leaves -- whole."""
    require_function(answer)
    texts = ["harbour-master", "Gone -- all gone.", "sea--look", "a half-hour", "- -"]
    for text in [*texts, "a daughter-in-law, wet", load_text()]:
        pieces = re.split(r'([,.:;?_!"()\']|--|-|\s)', text)
        compare_tokens(answer(text), [p for p in pieces if p.strip()], text)


@exercise(
    "2.2.3",
    "write, 8 minutes, ••",
    "split_words strips pieces and drops empty ones: which may you do?",
)
def nothing_lost(answer):
    """A function whose tokens are those of split_words, and the white space."""
    require_function(answer)
    for text in ("What did it do?", "  two  spaces ", "a\n\nb\tc", "", load_text()):
        tokens = list(answer(text))
        where = f"of {text!r}" if len(text) < 50 else "of the story"
        require("" not in tokens, f"the tokens {where} include empty strings")
        require("".join(tokens) == text, f"the tokens {where} do not give it back")
        visible = [token for token in tokens if token.strip()]
        compare_tokens(visible, split_words(text), text)


HARD_TEXTS = (
    "1,024 boats",
    "at six o'clock it's dark",
    "see www.example.org",
    "wait ... what?",
    "a naïve café 🌊",
    "half-past",
)


@exercise(
    "2.2.4",
    "open, 20 minutes, •••",
    r"An alternative such as \d+(?:,\d+)* at the front keeps 1,024 together.",
)
def own_decisions(answer):
    """A function that cuts hard texts in its own way and loses no character."""
    require_function(answer)
    plain = "The sea is high, the tide is low."
    compare_tokens(answer(plain), split_words(plain), plain)
    is_own = False
    for text in (*HARD_TEXTS, load_text()):
        tokens = list(answer(text))
        name = repr(text) if text in HARD_TEXTS else "the story"
        kept, wanted = ("".join(t.split()) for t in ("".join(tokens), text))
        require(kept == wanted, f"the tokens of {name} have not all of its characters")
        is_own |= text in HARD_TEXTS and tokens != split_words(text)
    require(is_own, f"it cuts all of these as split_words does: {HARD_TEXTS}")


def compare_tokens(found, wanted, text):
    """Raise NotYet at the first token that is not the wanted one."""
    found = list(found)
    if len(text) < 50:
        require(found == wanted, f"{text!r} gives {found}, not {wanted}")
    for number, (token, right) in enumerate(zip(found, wanted)):
        reason = f"token {number} of the story is {token!r}, not {right!r}"
        require(token == right, reason)
    sizes = f"{len(found):,} tokens, not {len(wanted):,}"
    require(len(found) == len(wanted), f"the story gives {sizes}")


def story_vocab():
    """The vocabulary of the story, with the special tokens at its end."""
    tokens = sorted(set(split_words(load_text()))) + ["<|endoftext|>", "<|unk|>"]
    return {token: token_id for token_id, token in enumerate(tokens)}


def shuffled_vocab(tokens):
    """A vocabulary whose ids are 0, 1, ... in random order."""
    different = list(dict.fromkeys(tokens))
    return dict(zip(different, torch.randperm(len(different)).tolist()))


def closed_up(tokens):
    """The tokens as a text, with no space before a punctuation mark."""
    marks = list(",.?!\"()'")
    return "".join(t if t in marks else f" {t}" for t in tokens).strip()


SHORT_TEXTS = (
    "the sea is high, the tide is low",
    'low, "low!" (she said) low.',
    "What did it do? It did what it did.",
)


@exercise(
    "2.3.a",
    "write, 4 minutes, •",
    "A dictionary comprehension over enumerate(sorted(set(tokens))).",
)
def numbered_tokens(answer):
    """A function that numbers the different tokens of a list in sorted order."""
    require_function(answer)
    drawn = [f"{chr(97 + i)}{j}" for i, j in torch.randint(9, (30, 2)).tolist()]
    for tokens in (["b", "a", "b"], *map(split_words, SHORT_TEXTS), drawn):
        found = answer(list(tokens))
        require(found is not None, "it returns None: is a `return` missing?")
        require_kind(found, "dict")
        turned = found and all(isinstance(key, int) for key in found)
        require(not turned, "it leads from ids to tokens: it should be the other way")
        compare_vocab(found, sorted(set(tokens)), tokens)


def compare_vocab(found, order, tokens):
    """Raise NotYet unless a dictionary numbers the tokens of `order` from 0."""
    missing, extra = set(order) - set(found), set(found) - set(order)
    require(not missing, f"for {tokens} it has no entry for {sorted(missing)}")
    require(not extra, f"for {tokens} it has entries that are no tokens: {extra}")
    ids = {token: as_whole_number(token_id) for token, token_id in found.items()}
    counted = sorted(ids.values())
    from_one = counted == list(range(1, len(order) + 1))
    require(not from_one, f"for {tokens} the ids begin with 1, not with 0")
    require(
        counted == list(range(len(order))),
        f"{tokens} has {len(order)} different tokens, and their ids are {counted}, "
        f"not 0 to {len(order) - 1}",
    )
    seen = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    unsorted = ids == seen and list(seen) != order
    require(not unsorted, f"{tokens} is numbered in the order of the text: sort first")
    ignoring_case = sorted(order, key=str.lower)
    mixed = ignoring_case != order and sorted(ids, key=ids.get) in (
        ignoring_case,
        sorted(order, key=lambda token: (token.lower(), token.swapcase())),
    )
    require(not mixed, f"in {tokens} capital letters come before all small letters")
    for token_id, token in enumerate(order):
        require(
            ids[token] == token_id,
            f"for {tokens} the id of {token!r} is {ids[token]}, not {token_id}",
        )


@exercise(
    "2.3.b", "write, 3 minutes, •", "A list comprehension over split_words(text)."
)
def ids_of_text(answer):
    """A function that turns a text into token ids."""
    require_function(answer)
    for text in SHORT_TEXTS:
        tokens = split_words(text)
        vocab = shuffled_vocab(tokens)
        try:
            found = answer(text, dict(vocab))
        except KeyError as error:
            raise NotYet(
                f"for {text!r} it looks up {error.args[0]!r}, which is not a token of "
                "this text: cut it with split_words"
            ) from None
        require(found is not None, "it returns None: is a `return` missing?")
        is_text = isinstance(found, str) or any(isinstance(i, str) for i in found)
        require(not is_text, "it returns texts, and not the ids of the tokens")
        found, wanted = as_whole_numbers(found), [vocab[token] for token in tokens]
        require(
            len(found) == len(wanted),
            f"{text!r} has {len(wanted)} tokens, and it returns {len(found)} ids",
        )
        by_position = found == [list(vocab).index(token) for token in tokens]
        require(
            not by_position or found == wanted,
            "it returns the positions of the tokens in the dictionary: vocab[token] "
            "is the id",
        )
        in_order = found != sorted(wanted) or found == wanted
        require(in_order, "the ids should be in the order of the text, not sorted")
        require(found == wanted, f"{text!r} with {vocab} gives {found}, not {wanted}")
    try:
        found = answer("the moon is high", {"high": 0, "is": 1, "the": 2})
    except Exception:  # an error of any kind is right: *moon* has no id
        return
    raise NotYet(
        f"*moon* is not in the vocabulary, and 'the moon is high' gives {found}: it "
        "should stop with an error"
    )


@exercise(
    "2.3.c",
    "write, 6 minutes, ••",
    "First {token_id: token ...}, then join, then re.sub on the joined text.",
)
def text_of_ids(answer):
    """A function that turns token ids into a text."""
    require_function(answer)
    for text in SHORT_TEXTS:
        tokens = split_words(text)
        vocab = shuffled_vocab(tokens)
        try:
            found = answer([vocab[token] for token in tokens], dict(vocab))
        except KeyError as error:
            raise NotYet(
                f"it looks up {error.args[0]!r} in a dictionary without this entry: "
                "does yours lead from ids to tokens?"
            ) from None
        require(found is not None, "it returns None: is a `return` missing?")
        require(not isinstance(found, list), "it returns a list: join the tokens")
        require_kind(found, "str")
        wanted = closed_up(tokens)
        known = {
            " ".join(tokens): "there is still a space before the punctuation marks",
            " ".join(t for t in tokens if t not in ",.?!\"()'"): (
                "the punctuation marks are gone: the replacement must put them back"
            ),
            "".join(tokens): "there are no spaces between the words",
        }
        for wrong, reason in known.items():
            require(found != wrong or found == wanted, f"{reason}: {found!r}")
        require("\x01" not in found, r'it has replaced the marks by "\1": write r"\1"')
        names = list(vocab)
        by_position = closed_up(names[vocab[token]] for token in tokens)
        require(
            found != by_position or found == wanted,
            "it takes an id for a position in the dictionary; the entries can be in "
            "any order",
        )
        require(found == wanted, f"{tokens} becomes {found!r}, not {wanted!r}")


@exercise(
    "2.3.1",
    "predict, 3 minutes, •",
    "Each token once, numbered from 0. sorted puts capital letters first.",
)
def small_vocabulary(answer):
    """The vocabulary of "To err or not to err"."""
    require_kind(answer, "dict")
    wanted = {"To": 0, "err": 1, "not": 2, "or": 3, "to": 4}
    missing, extra = wanted.keys() - answer.keys(), answer.keys() - wanted.keys()
    require(not missing, f"it has no entry for {sorted(missing)}")
    require(not extra, f"it has entries that are not tokens: {list(extra)}")
    for word, token_id in wanted.items():
        found = answer[word]
        require(found == token_id, f"{word!r} has the id {found!r}, not {token_id}")


@exercise(
    "2.3.2",
    "write, 5 minutes, ••",
    "decode puts one space before a token, and none before punctuation.",
)
def survivor(answer):
    """A text with a comma and a quotation mark that encode and decode give back."""
    require_kind(answer, "str")
    for mark in (",", '"'):
        require(mark in answer, f"it has no {mark}")
    vocab = story_vocab()
    unknown = [token for token in split_words(answer) if token not in vocab]
    require(not unknown, f"the story does not have the tokens {unknown}")
    tokenizer = SimpleTokenizerV1(vocab)
    ids = tokenizer.encode(answer)
    require(len(ids) >= 6, f"it has {len(ids)} tokens, fewer than 6")
    back = tokenizer.decode(ids)
    require(back == answer, f"{answer!r} comes back as {back!r}")


@exercise(
    "2.3.3",
    "write, 8 minutes, ••",
    "sorted takes a key; a key may be a pair: (-count, token).",
)
def by_frequency(answer):
    """A function that numbers tokens by frequency, then by alphabet."""
    require_function(answer)
    for tokens in (["b", "a", "b"], ["b", "c", "a"], [], split_words(load_text())):
        counts = Counter(tokens)
        order = sorted(counts, key=lambda token: (-counts[token], token))
        wanted = {token: token_id for token_id, token in enumerate(order)}
        found = answer(list(tokens))
        require_kind(found, "dict")
        if len(tokens) < 10:
            require(found == wanted, f"{tokens} gives {found}, not {wanted}")
        for token, token_id in wanted.items():
            reason = f"in the story {token!r} has the id {found.get(token)}"
            require(found.get(token) == token_id, f"{reason}, not {token_id}")
        require(len(found) == len(wanted), "it has tokens that are not in the story")


@exercise(
    "2.3.4",
    "break, 15 minutes, •••",
    "Go through the tokens, and keep a variable that says whether a quotation is open.",
)
def quotations_closed_up(answer):
    """A function that joins tokens, with quotation marks in pairs."""
    require_function(answer)
    texts = (
        "The tide, the sea.",
        'He said, "the tide is early"',
        '"No," he said. "Yes."',
        '"Why?" "Ask the sea!" she said, and "early" it was.',
    )
    for text in texts:
        tokens = split_words(text)
        found = answer(list(tokens))
        require_kind(found, "str")
        behind = re.search(r'(?:^|\s)" ', found)
        require(not behind, f"a quotation mark that opens has a space behind: {found}")
        require(found == text, f"{tokens} becomes {found!r}, not {text!r}")
    tokens = [
        t for t in split_words(load_text()) if t not in ("'", "(", ":", ";", "--")
    ]
    wanted, is_open = "", False
    for number, token in enumerate(tokens):
        closes = token == '"' and is_open
        opened = number and tokens[number - 1] == '"' and is_open
        glued = number == 0 or token in ",.?!)" or closes or opened
        wanted += token if glued else f" {token}"
        is_open ^= token == '"'
    found = answer(list(tokens))
    if found != wanted:
        pairs = zip([*found, ""], [*wanted, ""])
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
        place = slice(max(at - 20, 0), at + 20)
        raise NotYet(f"the story has {found[place]!r}, not {wanted[place]!r}")


@exercise(
    "2.4.a",
    "write, 5 minutes, ••",
    "if token in self.str_to_int: ... and after it the line for all other tokens.",
)
def tokenizer_with_unk(answer):
    """A subclass of SimpleTokenizerV1 with an id for unknown words."""
    require(isinstance(answer, type), "it should be the class itself")
    tokens = ["tide", "<|unk|>", "the", ",", "<|endoftext|>", "low"]
    for _ in range(4):
        vocab = shuffled_vocab(tokens)
        kept, unk = dict(vocab), vocab["<|unk|>"]
        tokenizer = answer(vocab)
        for token in ("moon", "Tide", *sorted(kept, key=kept.get, reverse=True)):
            right = kept.get(token, unk)
            try:
                found = tokenizer.token_id(token)
            except (KeyError, ValueError) as error:
                raise NotYet(f"the token {token!r} raises: {error}") from None
            what = f"token_id({token!r}) with {kept}"
            require(found is not None, f"{what} is None: is a `return` missing?")
            is_text = isinstance(found, str)
            require(not is_text, f"{what} is {found!r}: look up the id of this token")
            found = as_whole_number(found)
            as_false = token in kept and kept[token] == 0 and found == unk != 0
            require(
                not as_false,
                f"{what} is the id of <|unk|>, because Python takes the id 0 for "
                "False: ask `token in self.str_to_int`",
            )
            require(found == right, f"{what} is {found}, not {right}")
        found = as_whole_numbers(tokenizer.encode("the moon, the tide"))
        right = [kept["the"], unk, kept[","], kept["the"], kept["tide"]]
        require(found == right, f"'the moon, the tide' is {found}, not {right}")
        require(vocab == kept, "it changes the vocabulary: an unknown word stays so")


@exercise(
    "2.4.b",
    "write, 4 minutes, •",
    "Count in a loop, or with sum(...). Divide by len(tokens).",
)
def share_of_unknown(answer):
    """A function for the share of tokens that a vocabulary does not have."""
    require_function(answer)
    vocab = shuffled_vocab(["the", "sea", "is", "high", ",", "tide", "low"])
    for text in ("the moon is the moon", "the tide is low", "Hello Hello Hello , hi"):
        tokens = text.split()
        unknown = [token for token in tokens if token not in vocab]
        right, found = len(unknown) / len(tokens), as_number(answer(tokens, vocab))
        wrong = {
            len(set(unknown)) / len(set(tokens)): (
                "it counts each different token once; a token that comes twice counts "
                "twice"
            ),
            1 - right: "it is the share of the known tokens",
            float(len(unknown)): "it is a number of tokens: divide by all of them",
            100 * right: "it is in per cent: it should be between 0 and 1",
            len(unknown) / len(vocab): "it divides by the size of the vocabulary",
        }
        what = f"for {tokens} it is {found:g}, not {right:g}"
        for value, reason in wrong.items():
            mistaken = is_near(found, value) and not is_near(found, right)
            require(not mistaken, f"{what}: {reason}")
        require(is_near(found, right), what)


@exercise(
    "2.4.c",
    "write, 6 minutes, ••",
    "ids += [...] makes a list longer by all entries of another one.",
)
def ids_of_several_texts(answer):
    """A function that joins the ids of texts, with an id between two texts."""
    require_function(answer)
    words = [*split_words(" ".join(SHORT_TEXTS)), "<|endoftext|>", "<|unk|>"]
    for texts in (["low", "high, low"], list(SHORT_TEXTS), ["low", "the sea", "low"]):
        vocab = shuffled_vocab(words)
        tokenizer, end = SimpleTokenizerV2(vocab), vocab["<|endoftext|>"]
        parts = [tokenizer.encode(text) for text in texts]
        wanted = parts[0] + [i for part in parts[1:] for i in (end, *part)]
        found = answer(list(texts), tokenizer)
        require(found is not None, "it returns None: is a `return` missing?")
        nested = any(isinstance(part, (list, tuple)) for part in found)
        require(not nested, "it has lists in it: add the ids with += or extend")
        is_text = isinstance(found, str) or any(isinstance(i, str) for i in found)
        require(not is_text, "it returns texts, and not their ids")
        found = as_whole_numbers(found)
        what = f"for {texts} the id of <|endoftext|>"
        require(found != [*wanted, end], f"{what} comes after the last text, too")
        require(found != [end, *wanted], f"{what} comes before the first text, too")
        require(
            vocab["<|unk|>"] not in found,
            f"for {texts} it has the id of <|unk|>: are there spaces around "
            "<|endoftext|>?",
        )
        without = [i for i in found if i != end] == [i for i in wanted if i != end]
        fewer = without and 0 < found.count(end) < wanted.count(end)
        require(
            not fewer,
            f"{what} is missing between two texts. Do you compare texts? Two of them "
            "can be equal, so count them",
        )
        require(
            end in found,
            f"{what}, which this tokenizer gives as {end}, is not in {found}",
        )
        require(found == wanted, f"for {texts} it returns {found}, not {wanted}")


@exercise(
    "2.4.1",
    "write, 3 minutes, •",
    "A name that the story does not have is unknown; so is email.",
)
def two_unknown(answer):
    """A sentence of five tokens or more, two of them unknown to the story."""
    require_kind(answer, "str")
    require("<|" not in answer, "it contains a special token")
    vocab = story_vocab()
    ids = SimpleTokenizerV2(vocab).encode(answer)
    require(len(ids) >= 5, f"it has {len(ids)} tokens, fewer than 5")
    unknown = [token for token in split_words(answer) if token not in vocab]
    require(len(unknown) == 2, f"the unknown tokens are {unknown}, not two")


@exercise(
    "2.4.2", "write, 6 minutes, ••", "Walk through the ids; at end_id begin a new list."
)
def apart_again(answer):
    """A function that cuts token ids into documents at end_id."""
    require_function(answer)
    cases = [([5, 9, 0, 7], 0), ([5, 9, 0, 7], 9), ([3], 1), ([8, 1, 1, 8, 1, 4], 1)]
    for ids, end_id in cases:
        wanted = [[]]
        for token_id in ids:
            if token_id == end_id:
                wanted.append([])
            else:
                wanted[-1].append(token_id)
        found = [[int(i) for i in document] for document in answer(list(ids), end_id)]
        reason = f"{ids} with end_id {end_id} gives {found}, not {wanted}"
        require(found == wanted, reason)


@exercise(
    "2.4.3",
    "predict, 8 minutes, ••",
    "Make two new lists with token.lower(), then count as in unknown_share.",
)
def unknown_in_lower_case(answer):
    """A function for the share of unknown tokens when all are in lower case."""
    require_function(answer)
    story = split_words(load_text())
    middle = len(story) // 2
    for known, new in (
        (["The", "tide"], ["the", *["Tide"] * 2, *["The"] * 3, "low"]),
        (["the", "Low"], ["low", "LOW", "Moon", "moon", "sea"]),
        (story[:middle], story[middle:]),
    ):
        lower = {token.lower() for token in known}
        right = sum(token.lower() not in lower for token in new) / len(new)
        found = as_number(answer(list(known), list(new)))
        what = "for the story's halves" if len(new) > 9 else f"for {known} and {new}"
        if is_near(found, sum(token not in known for token in new) / len(new)):
            raise NotYet(f"{what} it is {found:.4f}, the share without lower case")
        halfway = (
            sum(token not in lower for token in new) / len(new),
            sum(token.lower() not in known for token in new) / len(new),
        )
        if any(is_near(found, share) and share != right for share in halfway):
            raise NotYet(f"{what} only one of the lists is in lower case")
        reason = f"{what} it is {found:.4f}, not {right:.4f}"
        require(abs(found - right) < 0.0005, reason)


@exercise(
    "2.4.4",
    "break, 6 minutes, ••",
    "Put spaces around <|endoftext|> before you cut: text.replace(old, new).",
)
def end_found_anywhere(answer):
    """A split_words that finds <|endoftext|> without spaces around it, too."""
    require_function(answer)
    end = "<|endoftext|>"
    for text in (
        f"tea?{end}In",
        f"The end {end} A new text.",
        f"low{end}{end}high, low{end}",
        "a text without one",
    ):
        wanted = split_words(text.replace(end, f" {end} "))
        compare_tokens(answer(text), wanted, text)


def draw_words():
    """Words as lists of ids, with few different ids, so that pairs come again."""
    lengths = torch.randint(0, 7, (6,)).tolist()
    return [torch.randint(97, 100, (length,)).tolist() for length in lengths]


def counted(words):
    """How often each pair of neighbours occurs in the words."""
    counts = {}
    for ids in words:
        for place in range(len(ids) - 1):
            pair = ids[place], ids[place + 1]
            counts[pair] = counts.get(pair, 0) + 1
    return counts


def replaced(ids, pair, new_id):
    """The ids with each pair replaced, from the left; looks at two ids at a time."""
    merged, place = [], 0
    while place < len(ids):
        found = tuple(ids[place : place + 2]) == pair
        merged.append(new_id if found else ids[place])
        place += 2 if found else 1
    return merged


def as_pair_counts(answer):
    """The answer as {(left id, right id): count}, without counts of zero."""
    require(answer is not None, "it returns None: is a `return` missing?")
    require_kind(answer, "dict")
    for pair in answer:
        is_pair = isinstance(pair, tuple) and len(pair) == 2
        require(is_pair, f"its keys should be pairs such as (116, 105), not {pair!r}")
    counts = {tuple(map(int, pair)): as_whole_number(answer[pair]) for pair in answer}
    return {pair: count for pair, count in counts.items() if count}


@exercise(
    "2.5.a",
    "write, 5 minutes, ••",
    "One loop over the words, and in it one over zip(ids, ids[1:]).",
)
def pairs_counted(answer):
    """A function that counts the pairs of neighbours in words."""
    require_function(answer)
    cases = [[[1, 2, 3]], [[1, 2, 1, 2]], [[1, 1, 1]], [[5, 6], [6, 5], [5, 6]]]
    for words in [*cases, [[7], []]]:
        compare_pairs(answer, words)
    for _ in range(20):
        compare_pairs(answer, draw_words())


def compare_pairs(answer, words):
    """Raise NotYet unless a function counts the pairs in the words."""
    try:
        found = as_pair_counts(answer([list(ids) for ids in words]))
    except KeyError:
        lost = "a pair that comes for the first time has no number yet"
        raise NotYet(f"{lost}: use a Counter") from None
    except IndexError:
        raise NotYet("the last id of a word has no right neighbour") from None
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        lost = "a list cannot be a key of a dictionary"
        raise NotYet(f"{lost}: write the pair as a tuple") from None
    right = counted(words)
    across = counted([[token_id for ids in words for token_id in ids]])
    if found == across != right:
        raise NotYet(f"in {words} it counts pairs that reach into the next word")
    apart = Counter()
    for ids in words:
        for pair in set(zip(ids, ids[1:])):
            apart[pair] += replaced(ids, pair, -1).count(-1)
    if found == dict(apart) != right:
        raise NotYet(f"in {words} it leaves out a pair that overlaps with another one")
    once = Counter(pair for ids in words for pair in set(zip(ids, ids[1:])))
    if found == dict(once) != right:
        raise NotYet(f"in {words} it counts a pair only once in each word")
    require(found == right, f"for {words} it gives {found}, not {right}")


class LimitedList(list):
    """A list that raises NotYet after many reads, so that no loop runs for ever."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        lost = "its loop does not end: does it move on in every round?"
        require(self.reads < 1000, lost)
        return super().__getitem__(index)


@exercise(
    "2.5.b",
    "write, 8 minutes, ••",
    "while i < len(ids): append new_id and move on by 2, or append ids[i] and by 1.",
)
def pair_merged(answer):
    """A function that replaces a pair by a new id."""
    require_function(answer)
    cases = [([1, 2, 3, 1, 2], (1, 2)), ([1, 1, 1], (1, 1)), ([1, 1, 1, 1], (1, 1))]
    cases += [([2, 1], (1, 2)), ([1, 2], (1, 2)), ([1, 3, 2], (1, 2)), ([], (1, 2))]
    for ids, pair in cases:
        compare_merge(answer, ids, pair, 4)
    compare_merge(answer, [11, 2, 3], (1, 2), 4)  # no matter how the ids are written
    compare_merge(answer, [116, 256, 300], (256, 300), 301)  # no byte
    for _ in range(20):
        new_id = int(torch.randint(4, 400, ()))
        compare_merge(answer, torch.randint(1, 4, (9,)).tolist(), (1, 2), new_id)
        compare_merge(answer, torch.randint(1, 3, (9,)).tolist(), (1, 1), new_id)


def compare_merge(answer, ids, pair, new_id):
    """Raise NotYet unless a function replaces a pair in the ids."""
    given, right = LimitedList(ids), replaced(ids, pair, new_id)
    where = f"{ids} with the pair {pair} and the new id {new_id}"
    try:
        found = as_whole_numbers(answer(given, pair, new_id))
    except IndexError:
        raise NotYet(f"{where}: the last id has no right neighbour") from None
    require(list(given) == ids, "it changes the list that it is given: make a new one")
    backwards = replaced(ids[::-1], pair[::-1], new_id)[::-1]
    if found == backwards != right:
        raise NotYet(f"{where} gives {found}: go from left to right, not backwards")
    reason, either = "", replaced(right, pair[::-1], new_id)
    if found == ids:
        reason = "; a list such as ids[i : i + 2] never equals a tuple such as pair"
    elif found == [new_id if token_id in pair else token_id for token_id in ids]:
        reason = "; only the two ids side by side are the pair"
    elif found == either:
        reason = f"; {pair[::-1]} is another pair"
    elif found == right[:-1]:
        reason = "; the last id is lost"
    elif found.count(new_id) > right.count(new_id):
        reason = "; two pairs cannot share an id"
    elif len(found) > len(right) and found.count(new_id) == right.count(new_id):
        reason = "; both ids of the pair have to go"
    elif found.count(new_id) < right.count(new_id):
        reason = "; every pair has to be merged"
    require(found == right, f"{where} gives {found}, not {right}{reason}")


def in_order_of_learning(ids, merges):
    """The ids after all merges, each of them made everywhere before the next one."""
    for pair, new_id in sorted(merges.items(), key=lambda item: item[1]):
        ids = replaced(ids, pair, new_id)
    return ids


def from_the_left(ids, merges):
    """The ids when the leftmost known pair is merged first, which is wrong."""
    ids, place = list(ids), 0
    while place < len(ids) - 1:
        pair = ids[place], ids[place + 1]
        if pair in merges:
            ids[place : place + 2] = [merges[pair]]
            place = 0
        else:
            place += 1
    return ids


def draw_merges():
    """Merges of three letters, and of tokens that earlier merges have made."""
    merges = {}
    for new_id in range(256, 262):
        known = [97, 98, 99, *merges.values()]
        left, right = (known[int(torch.randint(len(known), ()))] for _ in range(2))
        merges.setdefault((left, right), new_id)
    return merges


class LimitedMerges(dict):
    """Merges that raise NotYet after many look-ups, so that no loop runs for ever."""

    reads = 0

    def count(self):
        self.reads += 1
        lost = (
            "its loop does not end: keep what merge_pair returns, ids = merge_pair(...)"
        )
        require(self.reads < 10_000, lost)

    def __contains__(self, pair):
        self.count()
        return super().__contains__(pair)

    def __getitem__(self, pair):
        self.count()
        return super().__getitem__(pair)

    def get(self, pair, default=None):
        self.count()
        return super().get(pair, default)


def merged_by(choose):
    """A function that encodes a word and merges the pair that `choose` takes."""

    def encode(ids, merges):
        while known := [pair for pair in zip(ids, ids[1:]) if pair in merges]:
            pair = choose(known, merges)
            ids = replaced(ids, pair, merges[pair])
        return ids

    return encode


def longest(known, merges):
    """The pair that makes the token with the most bytes."""
    parts = {new_id: pair for pair, new_id in merges.items()}

    def size(token_id):
        return sum(map(size, parts[token_id])) if token_id in parts else 1

    return max(known, key=lambda pair: sum(map(size, pair)))


WRONG_ORDERS = [
    (from_the_left, "it merges the pair on the left first"),
    (merged_by(lambda known, merges: known[0]), "it merges the pair on the left first"),
    (
        merged_by(lambda known, merges: max(known, key=merges.get)),
        "it merges the pair with the highest new id first",
    ),
    (
        merged_by(lambda known, merges: min(known)),
        "it merges the pair with the smallest ids first: write min(pairs, "
        "key=merges.get)",
    ),
    (merged_by(longest), "it merges the longest token first"),
]


@exercise(
    "2.5.c",
    "write, 10 minutes, ••",
    "while True: collect the known pairs; none: return; else merge the lowest.",
)
def word_encoded(answer):
    """A function that merges the bytes of a word in the order of learning."""
    require_function(answer)
    two = {(105, 110): 256, (116, 105): 257}
    three = {(100, 101): 256, (116, 105): 257, (105, 256): 258}
    tide = {(116, 105): 256, (100, 101): 257, (256, 257): 258}
    cases = [(b"tin", two), (b"tide", tide), (b"tide", three), (b"sea", tide)]
    cases += [(b"tidetide", tide), (b"", tide), (b"s", tide), (b"sea", {})]
    for _ in range(40):
        letters = torch.randint(97, 100, (10,)).tolist()
        cases.append((bytes(letters), draw_merges()))
    found = [encoded(answer, word, merges) for word, merges in cases]
    for wrong, reason in WRONG_ORDERS:
        if found == [wrong(list(word), merges) for word, merges in cases]:
            raise NotYet(f"{reason}; the lowest new id comes first")
    for (word, merges), ids in zip(cases, found):
        right = in_order_of_learning(list(word), merges)
        where = f"{word} with the merges {merges} gives {ids}, not {right}"
        require(ids == right, f"{where}; the lowest new id comes first")


def encoded(answer, word, merges):
    """What a function makes of a word; raises NotYet if a pair is left to merge."""
    try:
        found = as_whole_numbers(answer(list(word), LimitedMerges(merges)))
    except KeyError as error:
        raise NotYet(
            f"the pair {error} is not in merges: take only known ones"
        ) from None
    except ValueError as error:
        if "empty" not in str(error):
            raise
        raise NotYet("min() of nothing: if no pair is in merges, return") from None
    where = f"{word} with the merges {merges} gives {found}"
    for pair in zip(found, found[1:]):
        lost = f"{where}, and the pair {pair} is still in merges"
        require(pair not in merges, f"{lost}: look again after each merge")
    return found


MERGED_TEXT = "the tide, the tide table and the tides of the other time"


@exercise(
    "2.5.d",
    "write, 5 minutes, ••",
    "dict(list(tokenizer.bpe_merges.items())[:num_merges])",
)
def tokenizer_of_first_merges(answer):
    """A function (tokenizer, num_merges) -> a tokenizer with the first merges."""
    require_function(answer)
    for num_merges in (3, 12, 0, 1, 7):
        given = BPETokenizerSimple()
        given.train(MERGED_TEXT, 268)
        merges, vocab = list(given.bpe_merges.items()), dict(given.vocab)
        found = answer(given, num_merges)
        require(found is not None, "it returns None: is a `return` missing?")
        for name in ("encode", "decode", "bpe_merges", "vocab"):
            kind = type(found).__name__
            lost = f"it should return a BPETokenizerSimple, not a {kind}"
            require(hasattr(found, name), lost)
        lost = "it returns the tokenizer that it is given: make a new one"
        require(found is not given, lost)
        same = list(given.bpe_merges.items()) == merges and given.vocab == vocab
        require(same, "it changes the tokenizer that it is given")
        compare_merges(found, merges, num_merges)
        lacking = [i for i in range(256 + num_merges) if i not in found.vocab]
        lost = f"its vocab lacks {lacking[:5]}, so it cannot decode them"
        require(not lacking, f"{lost}: take the vocab of the tokenizer that is given")
        require(
            found.decode(found.encode(MERGED_TEXT)) == MERGED_TEXT,
            f"with {num_merges} merges a text does not come back",
        )


def compare_merges(found, merges, num_merges):
    """Raise NotYet unless a tokenizer has the first of the merges."""
    require_kind(found.bpe_merges, "dict")
    kept, right = list(found.bpe_merges.items()), merges[:num_merges]
    where = f"of {len(merges)} merges it should keep the first {num_merges}, and it"
    if kept != right and kept == merges[len(merges) - num_merges :]:
        raise NotYet(f"{where} keeps the last ones")
    if kept != right and kept == sorted(merges)[:num_merges]:
        raise NotYet(f"{where} sorts them by their pairs: leave them in their order")
    require(len(kept) == num_merges, f"{where} keeps {len(kept)}")
    require(dict(kept) == dict(right), f"{where} keeps others: {dict(kept)}")


@exercise(
    "2.5.1",
    "write, 4 minutes, •",
    "encode gives the ids; decode takes a list, even of one id.",
)
def pieces_of_unknown_words(answer):
    """The strings of GPT-2's tokens for the book's made-up words."""
    is_list = not isinstance(answer, str)
    answer = list(answer)
    is_list = is_list and all(isinstance(piece, str) for piece in answer)
    require(is_list, "it should be a list of strings, one for each token")
    joined = "".join(answer)
    require(
        joined == "Akwirw ier", f"the pieces join to {joined!r}, not to 'Akwirw ier'"
    )
    gpt2 = get_tokenizer("gpt2")
    pieces = [gpt2.decode([token_id]) for token_id in gpt2.encode("Akwirw ier")]
    require(
        answer == pieces,
        f"GPT-2 cuts it into {len(pieces)} tokens, and yours are {len(answer)} others",
    )


@exercise(
    "2.5.2",
    "write, 8 minutes, ••",
    "ti must be more frequent than de; and a space is a neighbour too.",
)
def text_that_teaches_tide(answer):
    """A text whose first three merges make ti, de and tide."""
    require_kind(answer, "str")
    tokenizer = BPETokenizerSimple()
    tokenizer.train(answer, 259)
    learned = [token for token_id, token in tokenizer.vocab.items() if token_id > 255]
    require(
        learned == [b"ti", b"de", b"tide"],
        f"it teaches {', '.join(str(token)[1:] for token in learned) or 'nothing'}, "
        "not 'ti', 'de', 'tide'",
    )


@exercise(
    "2.5.3",
    "break, 5 minutes, ••",
    "Which characters take several bytes, and are rare on English web pages?",
)
def more_tokens_than_characters(answer):
    """A text that has fewer characters than GPT-2's tokens."""
    require_kind(answer, "str")
    size = len(answer)
    require(size > 1, f"it should have at least two characters, and it has {size}")
    num_tokens = len(get_tokenizer("gpt2").encode_ordinary(answer))
    reason = f"it has {size} characters, and its number of tokens is {num_tokens}"
    require(num_tokens > size, reason)


@exercise(
    "2.5.4",
    "predict, 6 minutes, ••",
    "After the first merge the word is aa, aa, aa, a. Count its pairs.",
)
def tokens_of_seven_letters(answer):
    """What three merges learn from the text aaaaaaa."""
    require_kind(answer, "list", "tuple", "ndarray")
    found = [token.decode() if isinstance(token, bytes) else token for token in answer]
    require(all(isinstance(token, str) for token in found), "it should contain strings")
    require(len(found) == 3, f"it should contain three tokens, not {len(found)}")
    for number, (right, reason) in enumerate(
        (
            ("aa", "there is only one pair at the beginning"),
            ("aaaa", "the word is now aa, aa, aa, a: which pair occurs twice?"),
            ("aaa", "the word is now aaaa, aa, a: which pair has the smaller ids?"),
        )
    ):
        wrong = f"token {256 + number} is not {found[number]!r}; {reason}"
        require(found[number] == right, wrong)


@exercise(
    "2.6.a",
    "write, 3 minutes, •",
    "Both lists are slices. Which token can be no input, and which can be no target?",
)
def shifted_by_one(answer):
    """A function that splits token ids into an input and its target."""
    require_function(answer)
    for size in (5, 2, 9, 3):
        ids = torch.randperm(100)[:size].tolist()
        found = as_pair(answer(list(ids)))
        for name, part in zip(("input", "target"), found):
            require(
                as_tensor(part).dim() == 1, f"the {name} should be a list of token ids"
            )
        found = [as_whole_numbers(part) for part in found]
        compare_windows(*found, ids[:-1], ids[1:], f"{ids} gives")


def as_pair(found, parts="two lists, first the input and then the target"):
    """An answer's input and target, or several of them: (inputs, targets)."""
    require(found is not None, "it returns None: is a `return` missing?")
    is_row = isinstance(found, (list, tuple)) or getattr(found, "ndim", 0) > 0
    require(is_row and len(found) == 2, f"it should return {parts}")
    return found


def compare_windows(inputs, targets, right_inputs, right_targets, where):
    """Raise NotYet unless an input and its target are the right ones."""
    if inputs and inputs == targets:
        raise NotYet(
            f"{where} a target that is equal to the input: the model would only have "
            "to repeat what it reads. The target begins one token later"
        )
    if (inputs, targets) == (right_targets, right_inputs):
        raise NotYet("input and target are exchanged: the input comes first")
    require(inputs == right_inputs, f"{where} the input {inputs}, not {right_inputs}")
    require(
        targets == right_targets, f"{where} the target {targets}, not {right_targets}"
    )


def windows_of(token_ids, max_length, stride):
    """The windows that 2.6 cuts, as lists: (inputs, targets)."""
    rows = [
        token_ids[start : start + max_length + 1]
        for start in range(0, len(token_ids), stride)
    ]
    rows = [row for row in rows if len(row) == max_length + 1]
    return [row[:-1] for row in rows], [row[1:] for row in rows]


@exercise(
    "2.6.b",
    "write, 8 minutes, ••",
    "range(0, stop, stride) gives the starts. A window at `start` needs the tokens up "
    "to position start + max_length, that one included: which start is the last?",
)
def sliding_windows(answer):
    """A function that cuts token ids into windows and their targets."""
    require_function(answer)
    for size, max_length, stride in WINDOW_SIZES:
        ids = torch.randperm(100)[:size].tolist()
        where = f"{size} tokens, max_length {max_length} and stride {stride} give"
        found = answer(list(ids), max_length, stride)
        require(
            found is not None or size > max_length,
            f"{where} None: return two empty lists if no window fits",
        )
        inputs, targets = as_windows(found, where)
        require_shift_of_one(ids, inputs, targets, stride)
        require_whole_windows(inputs, targets, max_length, where)
        right = windows_of(ids, max_length, stride)
        require_stride(ids, inputs, right[0], max_length, stride)
        last = f": the last one starts at position {stride * (len(right[0]) - 1)}"
        require(
            len(inputs) == len(right[0]),
            f"{where} {len(inputs)}, not {len(right[0])} windows"
            f"{last if right[0] else ''}",
        )
        where = f"with max_length {max_length} and stride {stride}, window"
        for number, row in enumerate(zip(inputs, targets, *right)):
            compare_windows(*row, f"{where} {number} of {ids} has")


WINDOW_SIZES = (  # tokens, max_length, stride
    (13, 4, 4),
    (7, 4, 2),
    (7, 4, 1),
    (8, 4, 4),
    (5, 4, 1),
    (10, 3, 2),
    (12, 2, 5),
    (6, 1, 3),
    (5, 5, 1),
    (3, 5, 1),
)


def as_windows(answer, where):
    """The answer as two lists of lists of ids, inputs and targets."""
    found = as_pair(answer, "two lists, first all inputs and then all targets")
    found = [list(part) for part in found]
    for name, part in zip(("input", "target"), found):
        for row in part:
            require(
                as_tensor(row).dim() == 1,
                f"{where} the {name} {row}, which should be a list of token ids: "
                "return two lists of lists",
            )
    return [[as_whole_numbers(row) for row in part] for part in found]


def require_shift_of_one(ids, inputs, targets, stride):
    """Raise NotYet if the targets are shifted by the stride instead of by one token."""
    at = {token_id: position for position, token_id in enumerate(ids)}
    shifts = {
        at.get(target[0], 0) - at.get(row[0], 0)
        for row, target in zip(inputs, targets)
        if len(row) == len(target) > 0
    }
    require(
        stride == 1 or shifts != {stride},
        f"with stride {stride} the targets are shifted by {stride}; a target begins "
        "one token after its input, whatever the stride",
    )


def require_whole_windows(inputs, targets, max_length, where):
    """Raise NotYet unless each input has a target, and all have max_length ids."""
    for row, target in list(zip(inputs, targets))[:1]:
        require(
            len(target) == len(row),
            f"{where} the input {row} with the target {target}: a target has as many "
            "ids as its input",
        )
    require(
        len(inputs) == len(targets),
        f"{where} {len(inputs)} inputs, but {len(targets)} targets",
    )
    for name, part in (("an input", inputs), ("a target", targets)):
        for row in part:
            require(
                len(row) == max_length,
                f"{where} {name} of length {len(row)}, {row}: leave out a window if "
                "its input or its target is not complete",
            )


def require_stride(ids, inputs, right, max_length, stride):
    """Raise NotYet if the windows start one token or max_length tokens apart."""
    for other in (1, max_length):
        if inputs == windows_of(ids, max_length, other)[0] != right:
            raise NotYet(
                f"the stride is ignored: with stride {stride} the windows start "
                f"{other} token{'s' * (other > 1)} apart"
            )


@exercise(
    "2.6.c",
    "write, 6 minutes, ••",
    "for context, target in zip(*cut_windows(token_ids, size, 1)): count target[-1].",
)
def followers_counted(answer):
    """A function (token_ids, size) -> how often each token follows each context."""
    require_function(answer)
    for num_tokens, size in ((6, 1), (9, 2), (9, 1), (3, 2), (2, 2), (12, 3), (60, 2)):
        ids = torch.randint(3, 6, (num_tokens,)).tolist()
        try:
            found = as_followers(answer(list(ids), size), size)
        except TypeError as error:
            if "unhashable" not in str(error):
                raise
            lost = "a list cannot be a key of a dictionary"
            raise NotYet(f"{lost}: write tuple(context)") from None
        right = counts_after(ids, size)
        where = f"the ids {ids} and the size {size} give"
        for wrong, reason in (
            (counts_after(ids, size, step=size), "use stride 1, whatever the size is"),
            (counts_after(ids, size, ahead=0), "count the token after the context"),
            (counts_after(ids, size, ahead=1 - size), "target[0] is in the context"),
            (counts_after(ids, size, whole=True), "count only the target's last token"),
            (counts_after(ids, size, once=True), "add 1 each time that it comes"),
            (counts_after(ids[:-1], size), "the last token follows a context, too"),
        ):
            require(found == right or found != wrong, f"{where} {found}: {reason}")
        lost = sorted(set(right) - set(found))
        require(not lost, f"{where} nothing for the context {[*lost, ()][0]}")
        require(found == right, f"{where} {found}, not {right}")


def as_followers(answer, size):
    """The answer as {context: {token id: count}}, without counts of zero."""
    require(answer is not None, "it returns None: is a `return` missing?")
    require_kind(answer, "dict", "defaultdict")
    followers = {}
    for context, counts in answer.items():
        is_context = isinstance(context, tuple) and len(context) == size
        lost = f"with the size {size} its keys should be tuples of {size}"
        require(is_context, f"{lost}, not {context!r}")
        require_kind(counts, "dict", "Counter", "defaultdict")
        counts = {as_whole_number(i): as_whole_number(n) for i, n in counts.items()}
        counts = {i: n for i, n in counts.items() if n}
        followers |= {tuple(map(int, context)): counts} if counts else {}
    return followers


def counts_after(ids, size, step=1, ahead=1, whole=False, once=False):
    """How often each token follows a context; the other arguments are mistakes."""
    followers = {}
    for end in range(size, len(ids), step):
        counts = followers.setdefault(tuple(ids[end - size : end]), {})
        last = end + ahead - 1
        for token_id in ids[last - size + 1 if whole else last : last + 1]:
            counts[token_id] = 1 if once else counts.get(token_id, 0) + 1
    return followers


@exercise(
    "2.6.d",
    "write, 8 minutes, ••",
    "self.input_ids = torch.tensor(inputs); __len__ returns len(self.input_ids); "
    "__getitem__ returns self.input_ids[idx] and the target of the same window.",
)
def dataset_of_windows(answer):
    """The class GPTDatasetV1, with or without checks of its arguments."""
    require(isinstance(answer, type), "it should be the class itself")
    gpt2, end = get_tokenizer("gpt2"), "<|endoftext|>"
    low = "The tide is low at noon."
    texts = [low, f"{low}{end}The moon pulls at the sea, and the sea follows."]
    for text, max_length, stride in product(texts, (4, 2), (1, 3)):
        dataset = make_dataset(answer, text, gpt2, max_length, stride)
        ids = gpt2.encode(text, allowed_special={end})
        inputs, targets = windows_of(ids, max_length, stride)
        where = f"with max_length {max_length} and stride {stride}"
        num_windows = count_windows(dataset)
        if text != low and num_windows > len(inputs):
            raise NotYet(f"{end} should be one token: was it allowed in encode?")
        require(
            num_windows == len(inputs),
            f"{where}, {text!r} has {num_windows} windows, not {len(inputs)}",
        )
        for number, rights in enumerate(zip(inputs, targets)):
            found = read_window(dataset, number, where)
            compare_windows(*found, *rights, f"{where}, window {number} has")
        require_batches(dataset, inputs, targets)


def make_dataset(answer, text, tokenizer, max_length, stride):
    """A dataset of the class in an answer; NotYet if special tokens stop it."""
    try:
        return answer(text, tokenizer, max_length, stride)
    except ValueError as error:
        if "disallowed special token" not in str(error):
            raise
        raise NotYet(
            "encode refuses a text with <|endoftext|>: pass "
            "allowed_special={'<|endoftext|>'}"
        ) from None


def count_windows(dataset):
    """The length of a dataset; NotYet if it has none."""
    try:
        return len(dataset)
    except TypeError as error:
        wrong = f"__len__ should return the number of windows, but: {error}"
        raise NotYet(wrong) from None


def read_window(dataset, number, where):
    """A window of a dataset and its target, as two lists of ids."""
    found = dataset[number]
    is_one = getattr(found, "ndim", 0) > 0  # a stack of both is one tensor
    parts = as_pair(
        (found,) if is_one else found,
        "two tensors in __getitem__: input and target of the window, with a comma "
        "between them",
    )
    for name, part in zip(("input", "target"), parts):
        dims = as_tensor(part).dim()
        require(
            dims == 1,
            f"{where}, the {name} of window {number} has {dims} dimensions; it should "
            "have one, the tokens of the window",
        )
    return [as_whole_numbers(part) for part in parts]


def require_batches(dataset, inputs, targets):
    """Raise NotYet unless a data loader makes batches of whole numbers of it."""
    batch = as_pair(next(iter(DataLoader(dataset, 2))))
    for part, right in zip(batch, (inputs[:2], targets[:2])):
        require(
            isinstance(part, torch.Tensor) and part.tolist() == right,
            "a data loader cannot stack its windows: make tensors of the lists, and "
            "let __getitem__ return two of them",
        )
        require(
            not part.is_floating_point(),
            f"its token ids have dtype {part.dtype}; they should be whole numbers",
        )


@exercise(
    "2.6.1",
    "predict, 4 minutes, •",
    "The last window needs a whole target, too. At which position may it start?",
)
def number_of_windows(answer):
    """How many windows of 256 at stride 128 a text of 1,024 tokens gives."""
    found = as_whole_number(answer)
    for value, reason in (
        (8, "the last window would start at token 896, where 128 tokens are left"),
        (7, "the last of these windows has no token after it, and so no whole target"),
        (5, "that is the number of steps; the first window counts, too"),
        (4, "that is side by side; with a stride of 128 windows overlap"),
        (3, "that is side by side; with a stride of 128 windows overlap"),
    ):
        require(found != value, reason)
    require(found == 6, f"it gives {'more' if found < 6 else 'fewer'} than {found}")


@exercise(
    "2.6.2",
    "write, 4 minutes, •",
    "Four of the arguments must differ from their defaults.",
)
def loader_for_testing(answer):
    """A loader of the story's windows of 64, side by side, four at a time, in order."""
    require_kind(answer, "DataLoader")
    batches, targets = zip(*answer) if len(answer) else ((), ())
    require(len(batches), "it has no batches")
    width = batches[0].shape[1]
    require(width == 64, f"its windows have {width} tokens, not 64")
    require(len(batches[0]) == 4, f"its batches have {len(batches[0])} windows, not 4")
    seen = torch.cat(batches)
    token_ids = torch.tensor(get_tokenizer("gpt2").encode(load_text()))
    windows = token_ids[:-1].unfold(0, 64, 64)
    require(
        len(seen) >= len(windows),
        f"{len(windows)} windows fit side by side, and it shows {len(seen)}",
    )
    require(len(seen) == len(windows), "its windows overlap")
    require(torch.equal(seen, windows), "its windows are not in the text's order")
    windows = token_ids[1:].unfold(0, 64, 64)
    is_next = torch.equal(torch.cat(targets), windows)
    require(is_next, "its targets are not the tokens that follow its inputs")


@exercise(
    "2.6.3",
    "write, 8 minutes, ••",
    "The inputs end one token too early; the last target has it.",
)
def tokens_of_windows(answer):
    """A function from a dataset of windows side by side to the tokens they cover."""
    require_function(answer)
    for text, max_length in [(load_text(), 64), ("What did it do?", 2), ("a b", 1)]:
        dataset = GPTDatasetV1(text, get_tokenizer("gpt2"), max_length, max_length)
        token_ids = torch.tensor(get_tokenizer("gpt2").encode(text))
        expected = token_ids[: dataset.input_ids.numel() + 1]
        found = as_whole_numbers(answer(dataset))
        different = len(set(expected.tolist()))
        require(
            len(found) != different or different == len(expected),
            "each different id comes once; each position of the text should, so an id "
            "that occurs ten times in the text comes ten times",
        )
        require(
            len(found) == len(expected),
            f"{len(dataset)} windows of {max_length} cover {len(expected)} tokens, "
            f"and it returns {len(found)}",
        )
        require(found == expected.tolist(), "some tokens are not the text's")


@exercise(
    "2.6.4",
    "break, 10 minutes, ••",
    "Without a shift the most frequent follower of a token is the token itself. When "
    "does the guesser know a token of `last`?",
)
def share_of_unshifted(answer):
    """A function for the score of a guesser whose targets are not shifted."""
    require_function(answer)
    token_ids = get_tokenizer("gpt2").encode(load_text())
    for start, stop in ((0, 6000), (600, 3000), (0, 400)):
        first, last = token_ids[start:stop], token_ids[stop : stop + 700]
        found, rights = as_number(answer(list(first), list(last))), []
        for known in (set(first), set(first[:-1])):
            hits = [token_id in known for token_id in last]
            rights += [sum(hits) / len(hits), sum(hits[:-1]) / (len(hits) - 1)]
        require(
            found != 1,
            "1 is too good: the guesser does not know the tokens that are new in last",
        )
        shifted = share_of_followers(first, last)
        require(
            not is_near(found, shifted, 0.003),
            "that is the score with the shift: here the target is the input itself",
        )
        size = "low" if found < min(rights) else "high"
        require(
            any(is_near(found, right, 1e-4) for right in rights),
            f"for {len(first):,} and {len(last)} tokens of the story it gives "
            f"{found:.3f}, which is too {size}",
        )


def share_of_followers(first, last):
    """How often the most frequent follower of a token in first is right in last."""
    followers = defaultdict(Counter)
    for token_id, follower in zip(first, first[1:]):
        followers[token_id][follower] += 1
    best = {token_id: max(c, key=c.get) for token_id, c in followers.items()}
    hits = [best.get(token_id) == right for token_id, right in zip(last, last[1:])]
    return sum(hits) / len(hits)


class NoReading(TorchFunctionMode):
    """In a `with` block, reading rows of one table raises NotYet."""

    def __init__(self, table):
        super().__init__()
        self.table = table

    def __torch_function__(self, func, types, args=(), kwargs=None):
        arguments = [*args, *(kwargs or {}).values()]
        name = getattr(func, "__name__", "")
        reads = name in ("__getitem__", "embedding", "index_select", "gather", "take")
        is_table = any(argument is self.table for argument in arguments)
        require(
            not (reads and is_table), "it reads rows of the table: multiply instead"
        )
        return func(*args, **(kwargs or {}))


def compare_vectors(found, ids, table):
    """Raise NotYet unless these are the rows of the ids, (b, num_tokens, d)."""
    sizes = f"ids of shape {tuple(ids.shape)} and a table of {tuple(table.shape)}"
    found = as_tensor(found)
    right = F.embedding(ids, table)
    require(
        found.shape != right.flatten(0, 1).shape,
        f"the windows are joined: {sizes} should give {tuple(right.shape)}",
    )
    require(
        found.shape == right.shape,
        f"{sizes} should give {tuple(right.shape)}, not {tuple(found.shape)}",
    )
    require(
        not is_near(found, F.embedding((ids - 1) % len(table), table)),
        "each id gets the row before its own: rows are counted from 0",
    )
    for window, token in torch.cartesian_prod(*map(torch.arange, ids.shape)).tolist():
        row, wanted = found[window, token], right[window, token]
        require(
            is_near(row, wanted),
            f"id {ids[window, token].item()} became {rounded(row)}, but its row is "
            f"{rounded(wanted)}",
        )


def rounded(vector):
    """Its numbers with three digits after the point."""
    return "[" + ", ".join(f"{number:.3f}" for number in vector.tolist()) + "]"


def draw_lookups():
    """Ids, (b, num_tokens), and a table, several times."""
    for b, num_tokens, vocab_size, output_dim in (
        (2, 4, 6, 3),
        (1, 5, 7, 2),
        (3, 1, 4, 4),
        (2, 2, 5, 1),
    ):
        # the last row is never read, so that its number has to come from the table
        ids = torch.randint(vocab_size - 1, (b, num_tokens))
        yield ids, torch.randn(vocab_size, output_dim)


@exercise(
    "2.7.a",
    "write, 4 minutes, •",
    "table[ids] reads a row for each id, whatever shape ids has.",
)
def rows_of_a_table(answer):
    """A function (ids, table) -> the row of each id."""
    require_function(answer)
    for ids, table in draw_lookups():
        try:
            found = answer(ids.clone(), table.clone())
        except (RuntimeError, IndexError) as error:
            sizes = f"ids of shape {tuple(ids.shape)}, table of {tuple(table.shape)}"
            reason = f"{sizes}: {error}. The embedding dimension is table.shape[1]"
            raise NotYet(reason) from None
        compare_vectors(found, ids, table)


@exercise(
    "2.7.b",
    "write, 5 minutes, ••",
    "F.one_hot(ids, table.shape[0]).float(), and then @.",
)
def rows_by_multiplication(answer):
    """A function (ids, table) -> one-hot vectors times the table."""
    require_function(answer)
    for ids, table in draw_lookups():
        try:
            with NoReading(table):
                found = answer(ids.clone(), table)
        except RuntimeError as error:
            reason = f"PyTorch cannot multiply: {error}"
            if "dtype" in str(error):
                reason = (
                    "one_hot gives whole numbers, and the table has others: .float()"
                )
            elif "num_classes" in str(error):
                reason = (
                    "the one-hot vectors are too short: the size of the vocabulary is "
                    "table.shape[0]"
                )
            elif "shape" in str(error) or "size" in str(error):
                reason += (
                    ". The one-hot vectors come first, then the table. Has each of "
                    "them as many numbers as the table has rows?"
                )
            raise NotYet(reason) from None
        compare_vectors(found, ids, table)


@exercise(
    "2.7.c",
    "write, 6 minutes, ••",
    "In a loop: gradient[token_id] += vector_gradient.",
)
def gradient_of_a_table(answer):
    """A function (ids, vector_gradients, vocab_size) -> the gradient of the table."""
    require_function(answer)
    for ids, vocab_size, output_dim in (
        ([2, 3, 5, 1, 3], 6, 3),
        ([0, 0, 0, 4], 7, 2),
        ([1], 3, 4),
        ([2, 0, 1], 3, 1),
    ):
        gradients = torch.randn(len(ids), output_dim)
        right, last = torch.zeros(2, vocab_size, output_dim)
        counts = torch.zeros(vocab_size, 1)
        for number, token_id in enumerate(ids):
            right[token_id] += gradients[number]
            last[token_id] = gradients[number]
            counts[token_id] += 1
        arguments = torch.tensor(ids), gradients.clone(), vocab_size
        found = as_tensor(answer(*arguments), (vocab_size, output_dim))
        first = torch.zeros_like(last)
        for number, token_id in reversed(list(enumerate(ids))):
            first[token_id] = gradients[number]
        if len(set(ids)) < len(ids):
            require(
                not (is_near(found, last) or is_near(found, first)),
                f"of the ids {ids} one occurs several times, and only one of its "
                "gradients has arrived: add them up, one after the other",
            )
            require(
                not is_near(found, right / counts.clamp(min=1)),
                "the gradients of a row are averaged: they should be added up",
            )
        require(
            is_near(found[counts[:, 0] == 0], 0),
            f"the ids are {ids}, and a row that does not occur has a gradient",
        )
        for row, wanted in enumerate(right):
            reason = (
                f"for the ids {ids} row {row} should get {rounded(wanted)}, and gets "
                f"{rounded(found[row])}"
            )
            if is_near(found[row], 0):
                reason += ": is `return` indented too far, so that the loop ends early?"
            require(is_near(found[row], wanted), reason)


@exercise(
    "2.7.d",
    "write, 6 minutes, ••",
    "optimizer.zero_grad(), predictions and loss, loss.backward(), optimizer.step().",
)
def step_on_letters(answer):
    """A function for one training step of an embedding and a linear layer."""
    require_function(answer)
    for b in (1, 40):
        layers = nn.Embedding(27, 2), nn.Linear(2, 27)
        parameters = [p for layer in layers for p in layer.parameters()]
        optimizer, earlier = torch.optim.SGD(parameters, lr=2.0), [0] * 3
        for _ in range(2):  # in the second step, old gradients would be seen
            inputs, targets = torch.randint(27, (2, b))
            before = [p.detach().clone() for p in parameters]
            losses = letter_losses(*layers, inputs, targets)
            slopes = torch.autograd.grad(losses["right"], parameters)
            try:
                found = answer(*layers, optimizer, inputs.clone(), targets.clone())
            except RuntimeError as error:
                if "must match" not in str(error) and "broadcast" not in str(error):
                    raise
                reason = f"{error}. Subtract F.one_hot(targets, 27)"
                raise NotYet(reason) from None
            require(found is not None, "it returns None: is a `return` missing?")
            with torch.no_grad():
                after = letter_losses(*layers, inputs, targets)["right"]
            losses["it is the loss after the step: return the one before"] = after
            compare_letter_loss(as_number(found), losses)
            require(
                not all_near(parameters, before),
                "the parameters have not changed: is optimizer.step() missing?",
            )
            moved = [p - 2 * g for p, g in zip(before, slopes)]
            summed = [p - 2 * old for p, old in zip(moved, earlier)]
            require(
                all_near(parameters, moved) or not all_near(parameters, summed),
                "the gradients of the step before were added: clear them",
            )
            lost = "the parameters are wrong after the step: clear, forward, backward, "
            require(all_near(parameters, moved), f"{lost}step, in this order")
            earlier = slopes


def letter_losses(embedding, linear, inputs, targets):
    """The loss of a batch, and what one gets by mistake."""
    predictions = linear(embedding(inputs))
    errors = (predictions - F.one_hot(targets, 27)) ** 2
    swapped = (linear(embedding(targets)) - F.one_hot(inputs, 27)) ** 2
    itself = (predictions - F.one_hot(inputs, 27)) ** 2
    return {
        "right": errors.mean(),
        "it is a sum: take the mean of all numbers": errors.sum(),
        "it is a sum over the letters: take the mean": errors.sum(dim=1).mean(),
        "inputs and targets are swapped": swapped.mean(),
        "the targets are the letters that follow, not the inputs": itself.mean(),
        "an id is not a target: use F.one_hot(targets, 27)": (
            (predictions - targets[:, None]) ** 2
        ).mean(),
    }


def compare_letter_loss(found, losses):
    """Raise NotYet if a loss is one of the mistaken ones, or any other number."""
    losses = {reason: loss.item() for reason, loss in losses.items()}
    right = losses.pop("right")
    for reason, loss in losses.items():
        is_mistake = is_near(found, loss) and not is_near(found, right)
        require(not is_mistake, f"the loss is wrong: {reason}")
    require(is_near(found, right), f"the loss is {found:.4f}, not {right:.4f}")


def all_near(found, right):
    """Whether several tensors are near several others."""
    return all(is_near(*pair) for pair in zip(found, right))


@exercise(
    "2.7.1",
    "break, 4 minutes, •",
    "The table has the rows 0 to 49,999. Look at the texts of larger ids.",
)
def text_without_a_row(answer):
    """A text with a GPT-2 token whose id is at least 50,000."""
    require_kind(answer, "str")
    ids = get_tokenizer("gpt2").encode(answer, allowed_special="all")
    require(ids, "the text is empty, so it has no ids")
    reason = f"the ids are {ids[:8]}, and the largest of them, {max(ids):,}, has a row"
    require(max(ids) >= 50_000, reason)


@exercise(
    "2.7.2",
    "write, 5 minutes, ••",
    "What must the table's row 0 be? `from_pretrained` takes a table.",
)
def one_hot_embedding(answer):
    """An nn.Embedding whose rows are the one-hot vectors of six ids."""
    require_kind(answer, "Embedding")
    shape = tuple(answer.weight.shape)
    require(shape == (6, 6), f"its table has shape {shape}, not (6, 6)")
    ids = torch.arange(6)
    found, wanted = answer(ids), F.one_hot(ids, 6)
    wrong = [i for i in range(6) if not is_near(found[i], wanted[i])]
    require(not wrong, f"the vectors of ids {wrong} are not one-hot")


@exercise(
    "2.7.3",
    "write, 8 minutes, ••",
    "nn.Linear keeps its matrix as (outputs, inputs), turned over.",
)
def linear_instead_of_embedding(answer):
    """An nn.Linear that gives the toy table's rows for one-hot vectors."""
    require_kind(answer, "Linear")
    sizes = (answer.in_features, answer.out_features)
    require(sizes == (6, 3), f"it maps {sizes[0]} numbers to {sizes[1]}, not 6 to 3")
    torch.manual_seed(123)
    table = nn.Embedding(6, 3).weight
    require(
        not is_near(answer.weight, table.reshape(3, 6)),
        "reshape and view do not swap rows and columns: use .T",
    )
    found = answer(torch.eye(6, dtype=answer.weight.dtype))
    wrong = [i for i in range(6) if not is_near(found[i], table[i])]
    require(
        not wrong or answer.bias is None or is_near(answer.bias, 0),
        "it has a bias, which is added to each row: bias=False",
    )
    require(not wrong, f"the rows of tokens {wrong} differ from the table's")


@exercise(
    "2.7.4",
    "predict, 8 minutes, ••",
    "Which letters come after z in the copy? After which letter do they come, too?",
)
def twin_of_z(answer):
    """The letter whose vector is nearest to that of z, which replaces half of the h."""
    require_kind(answer, "str")
    letter = answer.strip().lower()
    require(letter in list("abcdefghijklmnopqrstuvwxyz"), "it should be one letter")
    for found, reason in (
        ("z", "z has the distance 0 from itself: which of the others is nearest?"),
        ("y", "the model does not know the alphabet, only which letter comes next"),
        (
            "t",
            "what comes before z does not matter: the model predicts what follows it",
        ),
        ("e", "e often follows z, but is e followed by the same letters as z?"),
    ):
        require(letter != found, reason)
    require(letter == "h", f"the letters that follow {letter} are others than after z")


@exercise(
    "2.8.a",
    "write, 5 minutes, ••",
    "The positions are torch.arange(token_ids.shape[-1]).",
)
def tokens_plus_positions(answer):
    """A function (token_ids, token_layer, pos_layer) -> token plus position vectors."""
    require_function(answer)
    token_layer = nn.Embedding(6, 4)
    for shape in [(2, 5), (2, 6), (2, 3), (3, 1), (5, 4)]:
        token_ids, pos_layer = torch.randint(6, shape), nn.Embedding(6, 4)
        try:
            found = answer(token_ids.clone(), token_layer, pos_layer)
        except (RuntimeError, IndexError) as error:
            what = f"ids of shape {shape} raise: {error}"
            raise NotYet(f"{what}. How many positions do they need?") from None
        vectors, positions = token_layer(token_ids), pos_layer.weight[: shape[-1]]
        later = pos_layer.weight[1 : shape[-1] + 1]
        require(
            len(later) < shape[-1] or not agrees(found, vectors + later),
            "it begins with position 1: the first position is 0",
        )
        require(
            not agrees(found, vectors * positions),
            "the vectors are multiplied: they should be added",
        )
        require(
            not agrees(found, vectors + pos_layer(token_ids)),
            "it uses the token ids as positions: the positions are 0, 1, 2, ...",
        )
        found = as_tensor(found, tuple(vectors.shape))
        require(not is_near(found, vectors), "the vectors of the positions are missing")
        require(
            is_near(found, vectors + positions),
            f"the vectors are wrong for ids of shape {shape}",
        )


def agrees(found, right):
    """Whether a result has the right shape and is near."""
    found = as_tensor(found)
    return found.shape == right.shape and is_near(found, right)


@exercise(
    "2.8.b",
    "write, 4 minutes, •",
    "torch.tanh(vectors @ weights + the mean of the vectors along dim 0)",
)
def layer_that_looks_around(answer):
    """A function (vectors, weights) -> each vector, changed by the mean of all."""
    require_function(answer)
    for num_tokens, output_dim in ((6, 3), (4, 4), (2, 5), (1, 2)):
        vectors = torch.randn(num_tokens, output_dim)
        weights = torch.randn(output_dim, output_dim)
        sizes = f"{num_tokens} vectors of {output_dim} numbers"
        try:
            found = as_tensor(answer(vectors.clone(), weights.clone()))
        except RuntimeError as error:
            reason = f"with {sizes} PyTorch says: {error}. In @ the vectors come first"
            reason += ", and the mean of all vectors is along dim 0"
            raise NotYet(reason) from None
        shape = (num_tokens, output_dim)
        lost = f"{sizes} should give the shape {shape}, not {tuple(found.shape)}"
        require(found.shape == shape, lost)
        right = torch.tanh(vectors @ weights + vectors.mean(dim=0))
        for wrong, reason in mistaken_layers(vectors, weights):
            require(is_near(found, right) or not is_near(found, wrong), reason)
        row = (found - right).abs().amax(dim=1).argmax()
        require(
            is_near(found, right),
            f"with {sizes}, row {row} is {rounded(found[row])}, not "
            f"{rounded(right[row])}",
        )


def mistaken_layers(vectors, weights):
    """What a mistake makes of the vectors, and what to say about it."""
    product, mean = vectors @ weights, vectors.mean(dim=0)
    yield product + mean, "torch.tanh is missing"
    yield torch.tanh(product) + mean, "add the mean first, and squeeze the sum"
    yield torch.tanh(product), "the mean of all vectors is missing"
    yield (
        torch.tanh(product + vectors.mean()),
        "the mean of all vectors is a vector, not one number: mean(dim=0)",
    )
    within = "it takes the mean of each vector's numbers: use mean(dim=0)"
    yield torch.tanh(product + vectors.mean(dim=1, keepdim=True)), within
    if len(vectors) == len(weights):
        yield torch.tanh(product + vectors.mean(dim=1)), within
        yield torch.tanh(weights @ vectors + mean), "in @ the vectors come first"
    yield (
        torch.tanh((vectors + mean) @ weights),
        "the mean is multiplied by the weights, too: add the mean of the vectors as "
        "they came in",
    )
    yield torch.tanh(product + vectors.sum(dim=0)), "it adds the sum: take the mean"


@exercise(
    "2.8.c",
    "write, 10 minutes, •••",
    "angle = p / 10000 ** (2 * i / output_dim), for i from 0 to output_dim // 2 - 1.",
)
def table_of_sinusoids(answer):
    """A function (num_positions, output_dim) -> sines and cosines, in turn."""
    require_function(answer)
    for num_positions, output_dim in ((5, 10), (5, 4), (3, 8), (2, 2), (40, 16)):
        try:
            found = answer(num_positions, output_dim)
        except ZeroDivisionError:
            reason = "it divides by 0: put the exponent into parentheses of its own"
            raise NotYet(f"{reason}, 10000 ** (2 * i / output_dim)") from None
        found = as_tensor(found, (num_positions, output_dim))
        right = sines_and_cosines(num_positions, output_dim)
        if is_near(found, right, 1e-3):
            continue
        for mistaken, reason in mistaken_sinusoids(num_positions, output_dim):
            require(not is_near(found, mistaken, 1e-3), reason)
        p, number = (found - right).abs().gt(1e-3).nonzero()[0].tolist()
        raise NotYet(
            f"with output_dim {output_dim}, number {number} of position {p} is "
            f"{found[p, number]:.4f}, and should be {right[p, number]:.4f}"
        )


def sines_and_cosines(num_positions, output_dim):
    """The sinusoids of the section, in float64."""
    exponents = torch.arange(0, output_dim, 2, dtype=torch.float64) / output_dim
    return turned(torch.arange(num_positions)[:, None] * 10000**-exponents)


def turned(angles):
    """The sine and the cosine of each angle, in turn: (n, d / 2) -> (n, d)."""
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def mistaken_sinusoids(num_positions, output_dim):
    """Tables of sinusoids with a mistake each, and what to say about it."""
    right = sines_and_cosines(num_positions, output_dim)
    sines, cosines = right[:, 0::2], right[:, 1::2]
    p = torch.arange(num_positions, dtype=torch.float64)[:, None]
    i = torch.arange(output_dim // 2, dtype=torch.float64)
    exponent = 2 * i / output_dim
    parentheses = "only a part of the exponent is in the exponent: put all of it into "
    parentheses += "parentheses, 10000 ** (2 * i / output_dim)"
    yield turned(p / 10000**2 * i / output_dim), parentheses
    yield turned(p / (10000**2 * i / output_dim).clamp(min=1)), parentheses
    yield (
        turned((p / 10000) ** exponent),
        "only 10000 is raised to the power: p / 10000 ** (2 * i / output_dim)",
    )
    yield (
        turned(p * 10000**exponent),
        "the angle is p divided by 10000 ** (2 * i / output_dim)",
    )
    yield (
        turned(p.expand(-1, len(i))),
        "all hands turn equally fast: divide with /, because // gives the exponent 0",
    )
    yield (
        turned(p / 10000 ** (exponent / 2)),
        "the exponent is 2 * i / output_dim, and yours is half of it",
    )
    yield (
        turned(p / 10000 ** (2 * exponent)),
        "the exponent is twice too large: is i the number of the pair, 0, 1, 2?",
    )
    yield (
        turned(p / 10**i),
        "that is right for 8 numbers only: the exponent is 2 * i / output_dim",
    )
    yield (
        turned((p + 1) / 10000**exponent),
        "it begins with position 1: the first position is 0",
    )
    yield (
        torch.stack((cosines, sines), dim=-1).flatten(1),
        "sine and cosine are swapped: the sine comes first",
    )
    yield (
        torch.cat((sines, cosines), dim=1),
        "first come all sines, then all cosines: they should take turns",
    )


@exercise(
    "2.8.1",
    "number, 3 minutes, •",
    "A table for 50,257 tokens, and another for 1,024 positions.",
)
def weights_of_both_tables(answer):
    """The weights of GPT-2 small's token and position tables together."""
    found, tokens, positions = as_number(answer), 50257 * 768, 1024 * 768
    require(found != tokens, "that is the token table alone")
    require(found != positions, "that is the position table alone")
    product = "the tables stand side by side: add, not multiply"
    require(not is_count(found, tokens * positions), product)
    reason = f"{found:,.8g} is not the sum of the two tables"
    require(is_count(found, tokens + positions), reason)


@exercise(
    "2.8.2",
    "break, 6 minutes, ••",
    "token_ids[:, -n:] keeps the last n tokens of each text, or all of a shorter one.",
)
def last_tokens_of_long_texts(answer):
    """A function that embeds the last tokens of texts of any length."""
    require_function(answer)
    token_layer = nn.Embedding(9, 4)
    shapes = [(2, 6), (2, 3), (3, 7), (1, 20), (2, 4), (2, 5), (3, 1), (2, 10)]
    for rows, shape in product((6, 4), shapes):
        token_ids, pos_layer = torch.randint(9, shape), nn.Embedding(rows, 4)
        where = f"for texts of {shape[1]} tokens and a table of {rows} positions"
        try:
            found = answer(token_ids.clone(), token_layer, pos_layer)
        except (RuntimeError, IndexError) as error:
            raise NotYet(f"{where} it raises: {error}") from None
        size = min(rows, shape[1])
        positions = pos_layer.weight[:size]
        right = token_layer(token_ids[:, -size:]) + positions
        found = as_tensor(found)
        require(
            found.shape == right.shape,
            f"{where} the result should have shape {tuple(right.shape)}, not "
            f"{tuple(found.shape)}",
        )
        first = token_layer(token_ids[:, :size]) + positions
        require(
            shape[1] <= rows or not is_near(found, first),
            "it keeps the first tokens: keep the last ones",
        )
        require(is_near(found, right), f"{where} the vectors are wrong")


@exercise(
    "2.8.3",
    "predict, 5 minutes, ••",
    "Write the mean as a sum of token rows and a sum of position rows.",
)
def change_of_the_mean(answer):
    """How far the mean of the input embeddings moves when two words change places."""
    require(
        abs(as_number(answer)) < 1e-5,
        "both orders add up the same six token rows and the same six position rows",
    )


SLOWEST_STEP = 1e-3  # the angle of the slowest of four hands, 10000 ** (-6 / 8)


@exercise(
    "2.8.4",
    "write, 15 minutes, •••",
    "Each pair of columns turns by its angle; or torch.linalg.lstsq.",
)
def one_position_further(answer):
    """A matrix that takes every sinusoid vector of 8 numbers to the next position's."""
    matrix = as_tensor(answer, (8, 8)).double()
    frequencies = 10000 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    angles = torch.arange(200)[:, None] * frequencies
    table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    off = (table[:-1] @ matrix - table[1:]).abs().amax(dim=0)  # (8,)
    back = (table[1:] @ matrix - table[:-1]).abs().max()
    require(back > 1e-3, "it moves a position back: turn the other way (transpose it)")
    reason = f"it misses column {off.argmax()} of the next position by {off.max():.2g}"
    if off.max() < 20 * SLOWEST_STEP:
        reason += "; the slow columns turn, too, if only a little"
    require(off.max() < SLOWEST_STEP / 2, reason)


@exercise(
    "2.A.a",
    "write, 6 minutes, ••",
    "Two loops: -= count for zip(old, old[1:]), += count for zip(new, new[1:]).",
)
def pairs_recounted(answer):
    """A function that updates the counts of pairs when a word is spelled anew."""
    require_function(answer)
    cases = [([1, 2, 3], [4, 3], 1), ([1, 2, 3], [4, 3], 5), ([5, 6], [5, 6], 2)]
    cases += [([1, 2, 1, 2, 1, 2], [4, 4, 4], 3), ([1, 2], [4], 2)]
    for _ in range(20):
        old = torch.randint(1, 4, (7,)).tolist()
        cases.append((old, replaced(old, (1, 2), 4), int(torch.randint(1, 9, ()))))
    for old, new, count in cases:
        compare_recounts(answer, old, new, count)


def compare_recounts(answer, old, new, count):
    """Raise NotYet unless a function replaces the pairs of one spelling."""
    was, becomes = counted([old]), counted([new])
    counts = Counter({(7, 7): 1}) + Counter({p: 10 * n for p, n in was.items()})
    right = Counter(counts)
    right.update({pair: -count * number for pair, number in was.items()})
    right.update({pair: count * number for pair, number in becomes.items()})
    before = Counter(counts)
    touched = answer(counts, list(old), list(new), count)
    where = f"{old} becomes {new}, and the word's count is {count}"
    if counts == before != right:
        raise NotYet("pair_counts is as before: change the Counter itself, no copy")
    pairs = sorted({*counts, *right})
    wrong = [pair for pair in pairs if counts[pair] != right[pair]]
    for pair in wrong:
        reason = f"{where}: the count of {pair} is {counts[pair]}, not {right[pair]}"
        if counts[pair] - right[pair] == count * was.get(pair, 0):
            reason += "; the pairs of the old spelling have to be subtracted"
        elif max(was.get(pair, 0), becomes.get(pair, 0)) > 1:
            reason += "; a pair that occurs twice in the word counts twice"
        elif count > 1:
            reason += f"; each pair in the word counts {count} times"
        raise NotYet(reason)
    require(touched is not None, "it returns None: it should return the pairs")
    touched = {tuple(pair) for pair in touched}
    changed = {pair for pair in was | becomes if was.get(pair) != becomes.get(pair)}
    missing = changed - touched
    lost = f"{where}: it does not return {sorted(missing)}"
    if not touched:
        lost += "; a zip can be read only once: make a list of it"
    require(not missing, lost)
    extra = touched - was.keys() - becomes.keys()
    require(not extra, f"{where}: {sorted(extra)} are in neither spelling")


@exercise(
    "2.A.b",
    "write, 8 minutes, ••",
    "Pop until the count is above 0 and is still the one in pair_counts.",
)
def freshest_pair(answer):
    """A function that pops the most frequent pair and passes over old entries."""
    require_function(answer)
    found = popped(answer, [(-2, (1, 2))], Counter({(1, 2): 2}))
    require(found == (1, 2), f"a heap with (-2, (1, 2)) alone gives {found}")
    for _ in range(10):
        pairs = [(int(i), int(i) + 1) for i in torch.randperm(50)[:8]]
        counts = Counter({p: int(torch.randint(1, 6, ())) for p in pairs})
        stale = [(-counts[p] - int(torch.randint(1, 5, ())), p) for p in pairs[:4]]
        stale += [(0, (98, 99)), (-3, (97, 98))]  # neither of them occurs any more
        heap = [(-count, pair) for pair, count in counts.items()] + stale
        heapq.heapify(heap)
        for right in sorted(pairs, key=lambda pair: (-counts[pair], pair)):
            found = popped(answer, heap, counts)
            require(
                found == right,
                f"it returns {found}, which occurs {counts[found]} times; {right} "
                f"occurs {counts[right]} times. Pass over entries whose count is not "
                "the one in pair_counts",
            )
            entry = -counts[right], right
            require(entry not in heap, f"{entry} is still in the heap: pop it")
            counts[right] = 0
            heapq.heappush(heap, (0, right))
        try:
            found = answer(heap, counts)
        except ValueError:
            continue
        except IndexError:
            raise NotYet("it pops from an empty heap: raise ValueError") from None
        raise NotYet(
            f"no pair occurs any more, and it returns {found}; raise ValueError"
        )


def popped(answer, heap, counts):
    """The pair that a function pops from a heap in which one is left."""
    try:
        found = answer(heap, counts)
    except IndexError:
        lost = "one entry of the heap is up to date, and it pops this one as well"
        raise NotYet(lost) from None
    except ValueError:
        lost = "one entry of the heap is up to date, and it raises a ValueError"
        raise NotYet(lost) from None
    require(found is not None, "it returns None: is a `return` missing?")
    found = tuple(found)
    alone = not any(isinstance(part, (tuple, list)) for part in found)
    require(alone, f"it returns {found}: return the pair alone, without its count")
    return found


def parts_of(text, names):
    """The text cut at the names, the longest first; looks at one place at a time."""
    parts, place = [""], 0
    while place < len(text):
        fits = [name for name in names if text.startswith(name, place)]
        name = max(fits, key=len, default="")
        if name:
            parts += [name, ""]
        else:
            parts[-1] += text[place]
        place += len(name) or 1
    return [part for part in parts if part]


@exercise(
    "2.A.c",
    "write, 8 minutes, ••",
    'One pattern: "(" + the escaped names with "|" between them + ")".',
)
def special_tokens_cut_out(answer):
    """A function that cuts the names of special tokens out of a text."""
    require_function(answer)
    cases = [
        ("a<|x|>b", ["<|x|>"], ""),
        ("x|y <|x|>", ["<|x|>"], "; | has a meaning in a pattern: use re.escape"),
        ("a.b", ["."], "; . has a meaning in a pattern: use re.escape"),
        ("ab", [], "; without names the text stays whole"),
        ("a<|end|><|end|>b<|x|>", ["<|x|>", "<|end|>"], ""),
        ("a<|end|>!b", ["<|end|>", "<|end|>!"], "; the longest name comes first"),
        ("aab", ["a", "aa"], "; the longest name comes first"),
    ]
    for text, names, reason in cases:
        found = answer(text, list(names))
        kind = type(found).__name__
        require(not isinstance(found, str), f"it should return a list, not a {kind}")
        found = list(found)
        where = f"{text!r} with the names {names} gives {found}"
        right = parts_of(text, names)
        if "".join(found) != text:
            kept = any(name in found for name in names)
            lost = "no character of the text should be lost"
            lost = lost if kept else "the names are lost: put them into parentheses"
            raise NotYet(f"{where}; {lost}")
        found = [part for part in found if part]
        if len(found) > len(right):
            reason = reason or "; | has a meaning in a pattern: use re.escape"
        require(found == right, f"{where}, not {right}{reason}")


class CountingDict(dict):
    """A dictionary that counts how often somebody looks into it."""

    look_ups = 0

    def __contains__(self, key):
        self.look_ups += 1
        return super().__contains__(key)

    def get(self, key, default=None):
        self.look_ups += 1
        return super().get(key, default)


@lru_cache
def story_merges():
    """The 744 merges that a vocabulary of 1,000 learns from the story: {pair: id}."""
    words = Counter(word.encode() for word in SPLIT_PATTERN.findall(load_text()))
    return {pair: 256 + i for i, pair in enumerate(learn_merges(words, 744))}


@exercise(
    "2.A.1",
    "break, 8 minutes, ••",
    "What is cut into words costs little. And what if the rounds are many?",
)
def text_that_takes_long(answer):
    """A short text for which the slow encoder looks up many pairs."""
    require_kind(answer, "str")
    size = len(answer)
    require(size <= 2000, f"it has {size:,} characters, and 2,000 are allowed")
    merges = CountingDict(story_merges())
    words = SPLIT_PATTERN.findall(answer)
    for word in words:
        encode_word(list(word.encode()), merges)
    longest = max(map(len, words), default=0)
    require(
        merges.look_ups >= 50_000,
        f"it takes {merges.look_ups:,} look-ups; its longest word has {longest} "
        "characters",
    )


@exercise(
    "2.A.2",
    "write, 10 minutes, •••",
    "Ids below vocab_size minus the number of special tokens stay.",
)
def smaller_tokenizer(answer):
    """A function that makes a smaller BPETokenizer of a trained one."""
    require_function(answer)
    text = load_text()[:3000]
    for names in (["<|endoftext|>"], [], ["<|endoftext|>", "<|pad|>"]):
        large = BPETokenizer.train(text, 400, names)
        before = dict(large.vocab), dict(large.special_tokens)
        for size in (400, 310, 256 + len(names)):
            found, right = answer(large, size), BPETokenizer.train(text, size, names)
            require_kind(found, "BPETokenizer")
            where = f"of 400 tokens with the special tokens {names}, {size} are left"
            reason = f"{where}, and its n_vocab is {found.n_vocab}"
            if found.n_vocab == size + len(names):
                reason += "; the special tokens count, too"
            require(found.n_vocab == size, reason)
            require(
                found.special_tokens == right.special_tokens,
                f"{where}: special_tokens is {found.special_tokens}, not "
                f"{right.special_tokens}",
            )
            require(found.vocab == right.vocab, f"{where}: its vocab is not the first")
            require(
                (large.vocab, large.special_tokens) == before,
                "it changes the tokenizer that it is given",
            )
