"""A run that is killed again and again ends as if nothing had happened.

`python -m tests.kill_run --kills 200` trains one run without a break and another that
gets SIGKILL that often, and compares them to the last bit: every line of the log, the
trained weights, and the last checkpoint's weights and moments. Before that, a short run
is killed before each of its file operations in turn, and let end.

Each attempt is a process of its own, forked from this one, so that PyTorch is imported
once only. Half of those of the long run are killed after a random time, the others
before a random file operation: a save is nothing else.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
import torch._dynamo  # noqa: F401 - else each process does so at its first step
from safetensors.torch import load_file

from support.pretraining.run_folder import RunFolder
from support.weights.checkpoint import open_saved
from tests.tiny_run import SETTINGS, tiny_run

STEPS_PER_KILL = 6  # more than an attempt gets to take, so that the run outlasts them
MOST_OPERATIONS = 36  # that an attempt is let do, about two saves
STOPS = signal.SIGINT, signal.SIGTERM
OPERATIONS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"}


def kill_before(number, path):
    """Let this process kill itself before the file operation of that number in path."""
    numbers = count(1)

    def watch(event, args):
        if event not in OPERATIONS or not str(args[0]).startswith(str(path)):
            return
        if next(numbers) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def attempt(path, settings, operation=0, seconds=600.0):
    """Start or continue a run; True if it ended, False if it was killed.

    operation: the number of the file operation before which it is killed, 0 for none.
    seconds: after which it is killed. Raises RuntimeError if it failed.
    """
    said = path.with_suffix(".txt")
    # Python drops what is raised while it tidies up after a fork
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    process = os.fork()
    if process == 0:  # it goes with this process, which kills it
        os._exit(run_quietly(path, settings, operation, said))
    status = wait(process, seconds)
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the run failed:\n{said.read_text()}")
    return status == 0


def run_quietly(path, settings, operation, said):
    """What the forked process does; its words go to a file. Returns its exit status."""
    words = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(words, 1)
    os.dup2(words, 2)
    kill_before(operation, path)
    try:
        tiny_run(RunFolder(path), settings)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def wait(process, seconds):
    """Kill a process after so many seconds unless it has ended; return its status.

    It is killed as well when this process is told to stop.
    """
    end = time.monotonic() + seconds
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        while time.monotonic() < end:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.0005)
    except BaseException:  # Ctrl-C or SIGTERM
        kill(process)
        raise
    return kill(process)


def kill(process):
    """Kill a process that this one has started; return its status."""
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def results(path):
    """A finished run's log, result and last checkpoint: {name: bytes}.

    The tensors' bytes: the header of a safetensors file has no fixed order.
    """
    folder = RunFolder(path)
    checkpoint = folder.checkpoint(folder.last_valid_step())
    open_saved(path / "model.safetensors")
    found = {folder.log.name: folder.log.read_bytes()}
    for file in (path / "model.safetensors", checkpoint):
        for name, tensor in load_file(file).items():
            found[f"{file.name}: {name}"] = tensor.numpy().tobytes()
    return found


def kill_often(path, settings, num_kills, most_seconds, seed=123):
    """Kill a run num_kills times and let it end.

    most_seconds: the longest of the random times after which an attempt is killed.
    """
    draw, operations = random.Random(seed), []
    for number in range(num_kills):
        if not operations:  # each of them once, before one of them comes again
            operations = list(range(1, MOST_OPERATIONS + 1))
            draw.shuffle(operations)
        if number % 2:
            is_done = attempt(path, settings, operations.pop())
        else:
            seconds = draw.uniform(0, most_seconds)
            is_done = attempt(path, settings, MOST_OPERATIONS, seconds)
        if is_done:
            raise RuntimeError(f"the run ended by itself after {number} kills")
    attempt(path, settings)


def differences(found, expected):
    """The names of what differs between two runs' results."""
    names = sorted(found.keys() | expected.keys())
    return [name for name in names if found.get(name) != expected.get(name)]


def kill_everywhere(folder, num_steps=2):
    """Kill a short run before each of its file operations in turn, and let it end.

    Returns the number of operations, and how many of the kills left a file half
    written. Raises RuntimeError if a run ends otherwise.
    """
    settings = replace(SETTINGS, num_steps=num_steps)
    unbroken = folder / "short"
    attempt(unbroken, settings)
    expected = results(unbroken)
    operation, num_half, killed = 1, 0, folder / "before-1"
    while not attempt(killed, settings, operation):
        num_half += any(killed.glob("*.tmp"))
        attempt(killed, settings)
        if different := differences(results(killed), expected):
            raise RuntimeError(f"killed before operation {operation}: {different}")
        operation += 1
        killed = folder / f"before-{operation}"
    return operation - 1, num_half


def kill_at_random(folder, num_kills):
    """Kill a run num_kills times and compare it with one that nothing interrupts.

    Raises RuntimeError if they differ.
    """
    settings = replace(SETTINGS, num_steps=STEPS_PER_KILL * (num_kills + 1))
    unbroken, killed = folder / "unbroken", folder / "killed"
    seconds = time_of(attempt, unbroken, settings)
    print(f"{settings.num_steps} steps without a break: {seconds:.1f} s")
    to_begin = time_of(attempt, unbroken, settings)  # nothing is left to do
    most = to_begin + STEPS_PER_KILL * seconds / settings.num_steps
    kill_often(killed, settings, num_kills, most)
    print(f"killed {num_kills} times")
    if different := differences(results(killed), results(unbroken)):
        raise RuntimeError(f"the run that was killed has other values: {different}")


def time_of(function, *args):
    """The seconds that a call takes."""
    start = time.monotonic()
    function(*args)
    return time.monotonic() - start


def main():
    """Read the command line and kill as often as it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="of the second run")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # tidy up first
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        num_operations, num_half = kill_everywhere(Path(folder))
        print(
            f"killed before each of a short run's {num_operations} file operations; "
            f"{num_half} times a file was half written"
        )
        kill_at_random(Path(folder), args.kills)
    print("every loss and every weight is equal to the last bit")


if __name__ == "__main__":
    main()
