"""`check`, which judges an answer, and the functions that checkers are made of."""

from importlib import import_module
from numbers import Number

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

CHAPTERS = "234567"
EXERCISES = {}  # number -> (checker, hint), for each chapter that was imported


class NotYet(Exception):
    """An answer is not right yet; the message says why."""


def require(condition, reason):
    """Raise NotYet(reason) unless the condition holds."""
    if not condition:
        raise NotYet(reason)


def require_kind(answer, *names):
    """Raise NotYet unless the answer is an object of a class with one of these names.

    Names are compared, because a notebook defines classes of its own.
    """
    wanted, found = " or ".join(names), type(answer)
    if isinstance(answer, type):
        raise NotYet(f"it should be an object of class {wanted}, not a class: call it")
    known = {kind.__name__ for kind in found.__mro__}
    message = f"it should be an object of class {wanted}, not {found.__name__}"
    require(known & set(names), message)


def require_function(answer):
    """Raise NotYet unless the answer can be called."""
    found = type(answer).__name__
    require(callable(answer), f"it should be a function, not of type {found}")


def as_tensor(answer, shape=None):
    """The answer as a tensor, from a tensor, an array, a number, or lists of them.

    Raises NotYet unless it contains only numbers, and has the shape, if one is given.
    """
    require(answer is not None, "it is None: is a `return` missing?")
    is_text = isinstance(answer, str)
    require(not is_text, f"{answer!r} is a text; write numbers without quotation marks")
    try:
        found = to_tensor(answer)
    except (TypeError, ValueError, RuntimeError):
        kind = type(answer).__name__
        raise NotYet(f"it should contain only numbers, and is of type {kind}") from None
    size = tuple(found.shape)
    require(shape in (None, size), f"it should have shape {shape}, not {size}")
    return found


def to_tensor(answer):
    """The answer as a tensor on the CPU, without gradients; floats are float64."""
    if isinstance(answer, torch.Tensor):
        return answer.detach().cpu()
    if isinstance(answer, (list, tuple)) and len(answer):
        return torch.stack([to_tensor(part) for part in answer])
    return torch.as_tensor(np.array(answer))


def as_number(answer):
    """The answer as a float; it may be any kind of number."""
    if isinstance(answer, Number) and not isinstance(answer, complex):
        return float(answer)  # also large integers and fractions
    found = as_tensor(answer)
    require(found.numel() == 1, f"it should be one number, not {found.numel()}")
    return float(found)


def as_whole_number(answer):
    """The answer as an int."""
    found = as_number(answer)
    require(found.is_integer(), f"it should be a whole number, not {found:g}")
    return int(found)


def as_whole_numbers(answer):
    """The answer as a list of ints, from a list, set, range, array or tensor."""
    if isinstance(answer, (set, frozenset, map, filter)):
        answer = list(answer)
    found = as_tensor(answer)
    require(found.dim() == 1, f"it should have one axis, not {found.dim()}")
    return [as_whole_number(number) for number in found]


def is_count(found, right):
    """Whether a number is the right count, maybe rounded to float32."""
    return found in (right, float(np.float32(right)))


def is_near(found, right, tolerance=1e-5):
    """Whether two tensors or numbers are equal up to the rounding of float32."""
    found, right = (torch.as_tensor(part).double() for part in (found, right))
    return torch.allclose(found, right, rtol=tolerance, atol=tolerance)


class Refusing(TorchFunctionMode):
    """In a `with` block, calls of these PyTorch functions raise NotYet."""

    def __init__(self, *names):
        super().__init__()
        self.names = names

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        require(name not in self.names, f"it calls PyTorch's {name}: write it yourself")
        return func(*args, **(kwargs or {}))


def exercise(number, hint):
    """Register the decorated checker(answer), which may raise NotYet, for a number."""

    def register(checker):
        EXERCISES[number] = (checker, hint)
        return checker

    return register


def load_checkers(number):
    """Import the checkers of a chapter, which registers them."""
    chapter = str(number)[:1]
    if chapter in CHAPTERS:
        import_module(f"support.exercises.ch0{chapter}")


def verdict(number, answer):
    """The sentence that `check` prints about an answer."""
    load_checkers(number)
    if number not in EXERCISES:
        raise ValueError(f"there is no exercise {number!r} in {sorted(EXERCISES)}")
    if answer is None:
        return f"{number}: not attempted"
    checker, _ = EXERCISES[number]
    try:
        with torch.random.fork_rng(devices=[]):  # the reader's stay as they are
            torch.manual_seed(123)
            checker(answer)
    except NotYet as reason:
        return f"{number}: not yet, because {reason}"
    except Exception as error:  # the reader's code may raise anything
        kind = type(error).__name__
        return f"{number}: not yet, because checking it raised {kind}: {error}"
    return f"{number}: right"


def check(number, answer=None, hint=False):
    """Print a verdict: right, not yet (and why), or not attempted; and maybe a hint."""
    print(verdict(number, answer))
    if hint:
        print("Hint:", EXERCISES[number][1])
