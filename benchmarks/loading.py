"""Loading GPT-2 measured: `python -m benchmarks.loading [--size 355M]`.

Random weights of GPT-2's shape are written in the three forms that the course reads;
each is loaded in a fresh process as `load_pretrained` does it, sha256 and certificate
included. Memory is the most that is held above the process with all imports made.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from ch05 import remote_files
from ch05.openai_weights import MODEL_CONFIGS
from ch05.pretrained import convert, places
from ch05.sources import gpt2_config, model_size
from ch05.tensorflow_reader import import_tensorflow
from tests.gpt2_files import facts, transformers_gpt2, write_hugging_face, write_openai

RUNS = 5
TITLES = ("converted", "huggingface", "openai")
NAMES = {model_size(name): name for name in MODEL_CONFIGS}


def write_files(size, downloads):
    """Write the files of all three sources into a downloads folder."""
    folder = downloads / "gpt2" / size
    reference = transformers_gpt2(gpt2_config(NAMES[size]), std=0.02)
    write_hugging_face(folder, reference)
    write_openai(folder, reference)
    known = json.dumps(facts(folder))
    (downloads / "facts.json").write_text(known, encoding="utf-8")
    take_for_published(size, downloads)
    convert(NAMES[size])


def take_for_published(size, downloads):
    """Know the files by size and sha256, as the course does the published ones."""
    known = json.loads((downloads / "facts.json").read_text(encoding="utf-8"))
    remote_files.HUGGING_FACE[size] = ("gpt2", *known["model.safetensors"])
    remote_files.BY_SIZE[size] = known


def peak_megabytes():
    """The most memory that this process has held so far."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    # on Linux ru_maxrss starts from the peak of the parent process; VmHWM does not
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def measure(size, title):
    """Load a model; print seconds, megabytes and the model's megabytes as JSON."""
    take_for_published(size, Path(os.environ["LLMS_DOWNLOADS"]))
    (place,) = places(NAMES[size], title)
    if title == "openai":
        import_tensorflow()
    before, start = peak_megabytes(), time.perf_counter()
    model, _, _ = place.load()
    seconds, megabytes = time.perf_counter() - start, peak_megabytes() - before
    in_model = sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6
    print(json.dumps([seconds, megabytes, in_model]))


def in_fresh_process(size, title):
    """What `measure` prints in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.loading", "--size", size]
    done = subprocess.run(
        [*command, "--load", title], stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure_all(size):
    """Print a line for each source."""
    print(f"{NAMES[size]}, random weights, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as downloads:
        os.environ |= {"LLMS_DOWNLOADS": downloads, "LLMS_OFFLINE": "1"}
        write_files(size, Path(downloads))
        for title in TITLES:
            runs = [in_fresh_process(size, title) for _ in range(RUNS)]
            seconds, megabytes, in_model = map(statistics.median, zip(*runs))
            print(
                f"{title:11} {seconds:5.2f} s (fastest {min(runs)[0]:.2f}), "
                f"{megabytes:.0f} MB, {megabytes / in_model:.2f} times the model's size"
            )


def main():
    """Measure one size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading")
    parser.add_argument("--size", choices=NAMES, default="124M")
    parser.add_argument("--load", choices=TITLES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        measure(args.size, args.load)
    else:
        measure_all(args.size)


if __name__ == "__main__":
    main()
