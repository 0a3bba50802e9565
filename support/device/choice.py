"""Choose the fastest of several ways to compute the same thing, by timing them.

The first way is always plain PyTorch. Another one is chosen only where it is as exact
and clearly faster on this machine. What was fastest is kept on disk until PyTorch, the
processor or the number of threads changes; exactness is tested in each process.
`LLMS_PLAIN=1` in the environment chooses the first way everywhere.
"""

import json
import platform
import time
from contextlib import suppress

import torch

from support.checks import is_switched_on
from support.download.files import write_atomically
from support.download.json_files import read_small_json
from support.paths import MODELS

CHOICES = MODELS / "choices.json"
LEAST_GAIN = 1.05  # times as fast as plain PyTorch: less is a tie
MOST_ERROR = 4  # times that of plain PyTorch; TF32's is 700 times, bfloat16's 3,000
NUM_ROUNDS = 5


def fastest(title, ways, exact=None, least_gain=LEAST_GAIN):
    """Return the name of the way that is fastest on this machine.

    title: under which the choice is kept. ways: {name: function without arguments},
    plain PyTorch first; each returns when its work is done. exact: a function without
    arguments that computes in float64 what the ways should return, a list of tensors;
    None if they need not be compared.
    """
    plain, *others = ways
    if is_switched_on("LLMS_PLAIN"):
        return plain
    if exact is not None and others:
        right = exact()
        most = MOST_ERROR * largest_error(ways[plain](), right)
        others = [name for name in others if largest_error(ways[name](), right) <= most]
    if not others:
        return plain
    known = recall(title)
    if known in (plain, *others):
        return known
    seconds = time_in_turn({name: ways[name] for name in (plain, *others)})
    best = min(seconds, key=seconds.get)
    choice = best if seconds[plain] >= least_gain * seconds[best] else plain
    remember(title, choice)
    return choice


def largest_error(found, exact):
    """Return the largest error of tensors, each relative to its largest number."""
    errors = [
        (a.cpu().double() - b).abs().max() / b.abs().max() for a, b in zip(found, exact)
    ]
    return torch.stack(errors).max().item()


def time_in_turn(ways):
    """Return the fewest seconds of each way, {name: seconds}.

    They take turns, so that other work on the machine slows all of them. The first run
    of each does not count.
    """
    seconds = {name: [] for name in ways}
    for _ in range(1 + NUM_ROUNDS):
        for name, way in ways.items():
            seconds[name].append(time_call(way))
    return {name: min(each[1:]) for name, each in seconds.items()}


def time_call(function):
    """Return the seconds that a function takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def machine_key():
    """List as texts what the speed of a computation depends on."""
    threads = f"{torch.get_num_threads()} threads"
    features = sorted(torch.cpu.get_capabilities().items())
    processor = ", ".join(f"{name} {value}" for name, value in features if value)
    system = platform.node(), platform.platform(), str(torch.__version__)
    cards = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return [*system, threads, processor, *cards]


def read_choices():
    """Return the choices that were made on this machine, {title: name}."""
    with suppress(OSError, ValueError, TypeError, LookupError):  # missing or damaged
        saved = read_small_json(CHOICES)
        if saved["machine"] == machine_key():
            names = dict(saved["choices"])
            return {t: name for t, name in names.items() if isinstance(name, str)}
    return {}


def recall(title):
    """Return the name that was chosen before, or None."""
    return read_choices().get(title)


def remember(title, name):
    """Keep a choice on disk; without the file, the next process measures again."""
    content = {"machine": machine_key(), "choices": read_choices() | {title: name}}
    with suppress(OSError):
        write_atomically(CHOICES, json.dumps(content, indent=1).encode())
