"""How the benchmarks measure: fresh processes, medians, memory, this machine's name."""

import importlib
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import torch

from support.checks import is_switched_on

# few rounds, for a first impression: `python -m benchmarks --quick` switches it on
IS_QUICK = is_switched_on("LLMS_QUICK")
# what pip has to be told for a package that requirements.txt does not have
INSTALL = {
    "llms_from_scratch": "--no-deps llms-from-scratch==1.0.19",
    "litgpt": (
        "--no-deps litgpt==0.5.13 lightning==2.6.6 lightning-utilities==0.15.3 "
        "torchmetrics==1.9.0 jsonargparse==4.53.0"
    ),
}


def in_fresh_process(function, *arguments):
    """What function(*arguments) returns, computed in a process of its own.

    What it raises is raised here. Settings and memory belong to a process, so that two
    that are compared must not share one.
    """
    name = function.__name__
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    except BrokenProcessPool:
        raise RuntimeError(
            f"the process that measured {name}{arguments} was killed: if memory ran "
            "out, close other programs, or leave this part out"
        ) from None


def measure_part(part):
    """The rows and the notes of a part: a module's measure_rows()."""
    return importlib.import_module(f"benchmarks.{part}").measure_rows()


def peak_megabytes(device="cpu"):
    """The most memory that this process has held so far, there or on a GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    # on Linux ru_maxrss starts from the peak of the parent process; VmHWM does not
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


@contextmanager
def stopwatch(seconds):
    """Append the seconds that a `with` block takes to a list."""
    start = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - start)


def seconds_of_runs(prepare, work, runs=5):
    """The seconds of work(prepare()) in each of some runs, prepare not counted."""
    seconds = []
    for _ in range(runs):
        prepared = prepare()
        with stopwatch(seconds):
            work(prepared)
    return seconds


def median_seconds(prepare, work, runs=5):
    """The median of `seconds_of_runs`."""
    return statistics.median(seconds_of_runs(prepare, work, runs))


def missing(package, error):
    """The note about a package that cannot be imported."""
    how = INSTALL.get(package, f"{package}, as requirements.txt has it")
    return f"{package} is left out ({error}). To compare it: pip install {how}"


def machine():
    """This machine in a line: processor, cores, PyTorch."""
    threads = f"{torch.get_num_threads()} threads"
    return (
        f"{processor()}, {os.cpu_count()} cores, {threads}, torch {torch.__version__}"
    )


def processor():
    """What the processor is called, as far as the system knows."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()
