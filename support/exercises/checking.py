"""`check`, which judges an answer, and what the checkers of all chapters stand on."""

from importlib import import_module
from numbers import Number

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

CHAPTERS = "234567"
EXERCISES = {}  # number -> (checker, hint), of every chapter that has been imported


class NotYet(Exception):
    """Says why an answer is not right yet."""


def require(condition, reason):
    """Raise NotYet(reason) unless the condition holds."""
    if not condition:
        raise NotYet(reason)


def require_kind(answer, *names):
    """Raise NotYet unless the answer is an object of a class with one of these names.

    Names are compared, since a class that a notebook defines is not the module's.
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
    """The answer as a tensor: of a tensor, an array, a number, or lists of them.

    Raise NotYet unless it holds numbers, and as many of them as the shape says.
    """
    require(answer is not None, "it is None: is a `return` missing?")
    is_text = isinstance(answer, str)
    require(not is_text, f"{answer!r} is a text; numbers need no quotation marks")
    try:
        found = to_tensor(answer)
    except (TypeError, ValueError, RuntimeError):
        kind = type(answer).__name__
        raise NotYet(f"it should hold numbers alone, and is of type {kind}") from None
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
    """The answer as a float: one number, whatever kind of number it is."""
    if isinstance(answer, Number) and not isinstance(answer, complex):
        return float(answer)  # as large as it may be, and fractions too
    found = as_tensor(answer)
    require(found.numel() == 1, f"it should be one number, not {found.numel()}")
    return float(found)


def as_whole_number(answer):
    """The answer as an int."""
    found = as_number(answer)
    require(found.is_integer(), f"it should be a whole number, not {found:g}")
    return int(found)


def as_whole_numbers(answer):
    """The answer as a list of ints: a list, a set, a range, an array or a tensor."""
    if isinstance(answer, (set, frozenset, map, filter)):
        answer = list(answer)
    found = as_tensor(answer)
    require(found.dim() == 1, f"it should have one axis, not {found.dim()}")
    return [as_whole_number(number) for number in found]


def is_count(found, right):
    """Whether a number is the right count, be it rounded to float32."""
    return found in (right, float(np.float32(right)))


def is_near(found, right, tolerance=1e-5):
    """Whether two tensors or numbers agree, as exactly as float32 can."""
    found, right = (torch.as_tensor(part).double() for part in (found, right))
    return torch.allclose(found, right, rtol=tolerance, atol=tolerance)


class Refusing(TorchFunctionMode):
    """Where it is entered, calling PyTorch's functions of these names raises NotYet."""

    def __init__(self, *names):
        super().__init__()
        self.names = names

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        require(name not in self.names, f"it calls PyTorch's {name}: write it yourself")
        return func(*args, **(kwargs or {}))


def exercise(number, hint):
    """Register the decorated checker(answer), which raises NotYet, under its number."""

    def register(checker):
        EXERCISES[number] = (checker, hint)
        return checker

    return register


def load_checkers(number):
    """Import the checkers of an exercise's chapter, which register themselves."""
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
        with torch.random.fork_rng(devices=[]):  # the reader's draws stay theirs
            torch.manual_seed(123)
            checker(answer)
    except NotYet as reason:
        return f"{number}: not yet, because {reason}"
    except Exception as error:  # the answer is the reader's code: it may raise anything
        kind = type(error).__name__
        return f"{number}: not yet, because checking it raised {kind}: {error}"
    return f"{number}: right"


def check(number, answer=None, hint=False):
    """Judge an answer: right, not yet (and why), or not attempted; hint=True helps."""
    print(verdict(number, answer))
    if hint:
        print("Hint:", EXERCISES[number][1])
