"""The course on a GPU: `python -m benchmarks.accelerator`, under eight minutes.

One after the other: the self-test of `pick_device`; the tests of the suite that run on
each device; training steps of GPT-2 124M beside transformers' and litgpt's, in
bfloat16, and decoding beside transformers'; and a short run of
`python -m support.pretraining` under `torchrun` with one process. What fails is said,
and the rest goes on. `--device cpu --tiny` tries the command itself, on any machine.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from benchmarks import training
from benchmarks.decoding import CONFIG, generate_ours, generate_theirs, twins
from benchmarks.measure import machine
from benchmarks.table import Row, markdown_table
from benchmarks.trainees import (
    FASTER,
    FASTER_TIED,
    FASTER_TRANSFORMERS,
    LITGPT,
    TIED,
    TRANSFORMERS,
    trainees_for,
)
from ch02.tokenizer import BPETokenizer
from support.device.device import available_devices
from support.device.precision import has_bfloat16
from support.device.self_test import find_faults
from support.paths import ROOT

STORY = ROOT / "ch02" / "the-tide-table.txt"
TINY_CONFIG = CONFIG | {
    "vocab_size": 101,
    "context_length": 32,
    "emb_dim": 16,
    "n_heads": 2,
    "n_layers": 2,
}
COMPARED = (  # what, ours, a peer, the goal
    ("steps", FASTER_TIED, FASTER_TRANSFORMERS, None),
    ("steps", FASTER, LITGPT, None),
    ("steps", TIED, TRANSFORMERS, None),
    ("megabytes", FASTER_TIED, FASTER_TRANSFORMERS, None),
)
PROMPT = 1, 2, 3, 4
NUM_TOKENS = 200
ROUNDS = 3
TESTS = "tests/lessons", "tests/support/test_device.py"


def card(device):
    """The name of a device, as its maker calls it."""
    is_cuda = device == "cuda"
    return torch.cuda.get_device_name() if is_cuda else f"{device} of {machine()}"


def run_self_test(device, _):
    """A sentence for each fault that the self-test finds."""
    dtype = torch.bfloat16 if has_bfloat16(device) else torch.float32
    return find_faults(device, dtype) or ["the self-test found no fault"]


def run_tests(device, _):
    """The last line that pytest prints for the tests of a device."""
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", f"{device} and ["]
    return [last_line([*words, *TESTS])]


def last_line(words):
    """The last line that a Python command prints; RuntimeError if it fails."""
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True
    )
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines() or [""]
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed: {lines[-1]}")
    return lines[-1]


def measure_training(device, cfg):
    """Rows of the table for training, and notes."""
    wanted = {title for _, *pair, _ in COMPARED for title in pair}
    titles = [title for title in trainees_for(device) if title in wanted]
    found, notes = training.measure_all(cfg, titles, device)
    return [*training.compare(found, COMPARED), *notes]


def measure_decoding(device, cfg):
    """A row for a continuation of NUM_TOKENS tokens, and a note on its text."""
    prompt = torch.tensor([PROMPT], device=device)
    num_tokens = min(NUM_TOKENS, cfg["context_length"] - len(PROMPT))
    ours, theirs = (model.to(device) for model in twins(cfg))
    writers = {
        "ours": partial(generate_ours, ours, prompt, num_tokens),
        TRANSFORMERS: partial(generate_theirs, theirs, prompt, num_tokens),
    }
    speeds, texts = {name: [] for name in writers}, {}
    for _ in range(1 + ROUNDS):  # the first run is slower
        for name, write in writers.items():
            start = time.perf_counter()
            texts[name] = write().cpu()
            speeds[name].append(num_tokens / (time.perf_counter() - start))
    figures = [found[1:] for found in speeds.values()]
    same = (texts["ours"] == texts[TRANSFORMERS]).cumprod(1).sum().item() - len(PROMPT)
    return [
        Row("decoding", *writers, *figures, "tokens/s"),
        f"decoding: the first {same} of {num_tokens} tokens are the same",
    ]


def run_torchrun(device, cfg):
    """A sentence on a run of 20 steps under `torchrun` with one process."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Path(folder) / "tokenizer.json"
        BPETokenizer.train(STORY.read_text(encoding="utf-8"), 400).save(tokenizer)
        pretraining = "-m", "support.pretraining"
        shards = f"{folder}/shards"
        words = [*pretraining, "tokenize", shards, str(STORY)]
        last_line([*words, "--tokenizer", str(tokenizer)])
        launcher = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"
        sizes = {"context-length": 32, "emb-dim": 64, "n-heads": 4, "n-layers": 2}
        words = [*launcher, *pretraining, "run", f"{folder}/run", "--data", shards]
        words += ["--steps", "20", *(f"--{k}={v}" for k, v in sizes.items())]
        return [f"torchrun, one process: {last_line(words)}"]


PARTS = run_self_test, run_tests, measure_training, measure_decoding, run_torchrun


def main():
    """Do all parts, and print a table for benchmarks/README.md, and notes."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description=__doc__.partition("\n")[0],
    )
    devices = available_devices()
    parser.add_argument("--device", choices=devices, default=devices[0])
    parser.add_argument("--tiny", action="store_true", help="a tiny model")
    args = parser.parse_args()
    print(card(args.device), flush=True)
    found, num_failed = [], 0
    for part in PARTS:
        start = time.perf_counter()
        try:
            found += part(args.device, TINY_CONFIG if args.tiny else CONFIG)
        except (RuntimeError, ImportError) as error:
            num_failed += 1
            found.append(f"{part.__name__} FAILED: {error}")
        print(f"{part.__name__}: {time.perf_counter() - start:.0f} s", flush=True)
    rows = [each for each in found if isinstance(each, Row)]
    notes = [each for each in found if isinstance(each, str)]
    print("", markdown_table(rows), "", *notes, sep="\n")
    sys.exit(num_failed > 0)


if __name__ == "__main__":
    main()
