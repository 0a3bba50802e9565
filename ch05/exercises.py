"""Checkers of chapter 5's exercises (a support module: used, not taught).

Looking in here spoils the exercises.
"""

import math

import torch
import torch.nn.functional as F

from ch02.exercises import check, exercise, require

__all__ = ["check"]


@exercise("5.1.1", "Take the mean of the three losses first, then its exponential.")
def perplexity_of_three_tokens(answer):
    """The geometric mean of 2, 4 and 8."""
    require(
        not math.isclose(answer, 14 / 3, rel_tol=0.01),
        "that is the mean of 2, 4 and 8; the mean is taken of their logarithms",
    )
    require(math.isclose(answer, 4, rel_tol=0.01), f"the perplexity is not {answer}")


@exercise("5.1.2", "Taking the same number from all logits changes no probability.")
def cross_entropy_by_hand(answer):
    """A function that equals F.cross_entropy, large logits included."""
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(123))
    targets = torch.tensor([0, 3, 6, 2, 2])
    for name, given in (("small", logits), ("large", 1000 * logits)):
        loss, expected = answer(given, targets), F.cross_entropy(given, targets)
        require(
            torch.allclose(torch.as_tensor(loss), expected, rtol=1e-4),
            f"for {name} logits it gives {float(loss):.4g}, not {expected:.4g}",
        )


@exercise(
    "5.1.3", "How many nats does the whole text cost, and how many bits is a nat?"
)
def bits_of_a_character(answer):
    """A function that converts nats per token to bits per character."""
    found = answer(math.log(2), 50, 200)
    require(
        math.isclose(found, 0.25, rel_tol=1e-3),
        f"50 tokens of 1 bit each over 200 characters give 0.25, not {found:.4g}",
    )
    found = answer(3.0, 10, 40)
    require(math.isclose(found, 1.0820, rel_tol=1e-3), f"3 nats gave {found:.4g}")


@exercise("5.2.1", "How many whole windows fit, if the last token is only a target?")
def steps_of_a_run(answer):
    """A function that counts the optimizer's steps."""
    for sizes, expected in (
        ((5145, 256, 2, 10), 100),
        ((513, 256, 2, 10), 10),
        ((512, 256, 2, 10), 0),
        ((1281, 256, 2, 3), 6),
    ):
        found = answer(*sizes)
        require(found == expected, f"{sizes} gives {expected} steps, not {found}")


@exercise("5.2.2", "Remember where the lowest loss stood, and how long ago that was.")
def early_stopping(answer):
    """A function that finds the evaluation at which patience runs out."""
    for losses, patience, expected in (
        ([5, 4, 3, 4, 5, 6], 2, 4),
        ([5, 4, 3, 4, 2, 3, 3, 3], 3, 7),
        ([5, 4, 3], 1, None),
        ([3, 4], 1, 1),
        ([3, 3, 3], 2, 2),
    ):
        found = answer(losses, patience)
        require(
            found == expected,
            f"for {losses} and patience {patience} it gave {found}, not {expected}",
        )


@exercise("5.2.3", "A copy of length 5 contains a copy of length 4. Let it grow.")
def longest_common_run(answer):
    """A function that finds the longest part of a sample that is copied."""
    for sample, text, length in (
        ("the tide was late", "and the tide was out", 13),
        ("abc", "xyz", 0),
        ("abc", "zabcz", 3),
        ("one tide, two tides", "two tides, one tide", 9),
    ):
        found = answer(sample, text)
        require(
            found in sample and found in text,
            f"{found!r} does not stand in both {sample!r} and {text!r}",
        )
        require(
            len(found) == length,
            f"{sample!r} has a copy of {length} characters, not {len(found)}",
        )
