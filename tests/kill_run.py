"""A run that is killed again and again ends as if nothing had happened.

`python -m tests.kill_run --kills 200` trains one run without a break and another that
gets SIGKILL that often, and compares them to the last bit: every line of the log, the
trained weights, and the last checkpoint's weights and moments.

Each attempt is a process of its own, forked from this one, so that PyTorch is imported
once only. Half of them are killed after a random time, the others before a random one
of their file operations: a save is some thirty of those.
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

from ch05.checkpoint import check_saved
from ch05.run_folder import RunFolder
from tests.tiny_run import SETTINGS, tiny_run

STEPS_PER_KILL = 6  # more than an attempt gets to take, so that the run outlasts them
MOST_OPERATIONS = 50  # that an attempt is let do, about two saves
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
    """Begin a run or go on with it; True if it ended, False if it was killed.

    operation: the number of the file operation before which it is killed, 0 for none.
    seconds: after which it is killed. Raises RuntimeError if it failed.
    """
    said = path.with_suffix(".txt")
    process = os.fork()
    if process == 0:
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
    """Kill a process after so many seconds unless it has ended; return its status."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def results(path):
    """A finished run's log, result and last checkpoint: {name: bytes}.

    The tensors' bytes: the header of a safetensors file has no fixed order.
    """
    folder = RunFolder(path)
    checkpoint = folder.folder(folder.last_whole_step())
    check_saved(path / "model.safetensors")
    found = {folder.log.name: folder.log.read_bytes()}
    for file in (path / "model.safetensors", *checkpoint.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            found[f"{file.name}: {name}"] = tensor.numpy().tobytes()
    return found


def kill_often(path, settings, num_kills, seconds_per_step, seed=123):
    """Kill a run num_kills times and let it end; returns how often it was saving."""
    draw, num_saving, operations = random.Random(seed), 0, []
    for number in range(num_kills):
        if not operations:  # each of them once, before one of them comes again
            operations = list(range(1, MOST_OPERATIONS + 1))
            draw.shuffle(operations)
        if number % 2:
            is_done = attempt(path, settings, operations.pop())
        else:
            seconds = draw.uniform(0, 2 * STEPS_PER_KILL * seconds_per_step)
            is_done = attempt(path, settings, MOST_OPERATIONS, seconds)
        if is_done:
            raise RuntimeError(f"the run ended by itself after {number} kills")
        num_saving += any(path.glob("*.part"))
    attempt(path, settings)
    return num_saving


def compare(folder, num_kills):
    """Train a run unbroken and one that is killed; the names of what differs."""
    settings = replace(SETTINGS, num_steps=STEPS_PER_KILL * (num_kills + 1))
    unbroken, killed = folder / "unbroken", folder / "killed"
    start = time.monotonic()
    attempt(unbroken, settings)
    seconds = time.monotonic() - start
    print(f"{settings.num_steps} steps unbroken: {seconds:.1f} s")
    num_saving = kill_often(killed, settings, num_kills, seconds / settings.num_steps)
    seconds = time.monotonic() - start - seconds
    print(f"killed {num_kills} times, {num_saving} in a save: {seconds:.1f} s")
    expected, found = results(unbroken), results(killed)
    return sorted(dict(expected.items() ^ found.items()))


def main():
    """Read the command line; leave with an error if the two runs differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="of the second run")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if different := compare(Path(folder), args.kills):
            sys.exit(f"error: they differ in {', '.join(different)}")
    print("every loss and every weight is equal to the last bit")


if __name__ == "__main__":
    main()
