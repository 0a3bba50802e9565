"""`check`, which judges an answer, and the functions that checkers are made of.

The number of an exercise ends in a digit: "3.5.1". That of a stub, a function or class
in a section whose body a reader writes, ends in a letter: "3.5.a".
"""

import re
from importlib import import_module
from inspect import isfunction
from numbers import Number

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

CHAPTERS = "234567"
EXERCISES = {}  # number -> (checker, label, hint), for each chapter that was imported
KINDS = "write", "predict", "break", "number", "open"
LABEL = re.compile(rf"({'|'.join(KINDS)}), (\d+) minutes, (•{{1,3}})")


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
    require(found.dim() == 1, f"it should have one dimension, not {found.dim()}")
    return [as_whole_number(number) for number in found]


def require_learning(module, output):
    """Raise NotYet unless the backward pass of an output reaches each parameter."""
    parameters = dict(module.named_parameters())
    gradients = [None] * len(parameters)
    if output.requires_grad:
        gradients = torch.autograd.grad(
            output.sum(), [*parameters.values()], retain_graph=True, allow_unused=True
        )
    for name, gradient in zip(parameters, gradients):
        require(
            gradient is not None,
            f"its output is right, but it cannot learn: {name} gets no gradient. Is "
            "there a detach(), an item(), a no_grad(), or a new tensor of its numbers?",
        )


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


def exercise(number, label, hint):
    """Register the decorated checker(answer), which may raise NotYet, for a number.

    label: kind, minutes and difficulty, one to three dots: "write, 5 minutes, ••".
    """
    if not LABEL.fullmatch(label):
        raise ValueError(f"{number}: {label!r} is not like 'write, 5 minutes, ••'")

    def register(checker):
        EXERCISES[number] = (checker, label, hint)
        return checker

    return register


class Empty:
    """What a stub is compiled to: a docstring changes the numbers of constants."""

    def with_docstring(self):
        """Nothing is written here yet."""

    def without(self):
        pass


class OnlySuper:
    """Methods that only call super()."""

    def __init__(self):
        super().__init__()

    def with_docstring(self):
        """Calls it too, by the same instructions."""
        super().__init__()


def is_one_of(function, examples):
    """Whether a function has the instructions of a method of the class `examples`.

    One that returns a constant has them too: it must know no constant but None.
    """
    methods = [f for f in vars(examples).values() if isfunction(f)]
    code = function.__code__
    constants = [c for c in code.co_consts if c not in (None, function.__doc__)]
    return not constants and code.co_code in {f.__code__.co_code for f in methods}


def empty_functions(answer):
    """The names of the functions in an answer that are still empty, and their number.

    answer: a function, or a class, whose functions are its methods; a method that only
    calls super() does not count.
    """
    found = vars(answer).values() if isinstance(answer, type) else [answer]
    functions = [f for f in found if isfunction(f) and f.__name__ != "<lambda>"]
    functions = [f for f in functions if not is_one_of(f, OnlySuper)]
    return [f.__name__ for f in functions if is_one_of(f, Empty)], len(functions)


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
    names, num_functions = empty_functions(answer)
    if answer is None or 0 < num_functions == len(names):
        return f"{number}: not attempted"
    checker, *_ = EXERCISES[number]
    try:
        require(not names, f"nothing is written yet in {', '.join(names)}")
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
        print("Hint:", EXERCISES[number][2])
