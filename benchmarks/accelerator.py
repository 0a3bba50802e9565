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
from benchmarks.measure import in_fresh_process, machine
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
from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.decoding import generate
from support.device.device import available_devices
from support.device.precision import has_bfloat16
from support.device.self_test import find_faults
from support.paths import ROOT
from support.weights.reference import copy_from_transformers

STORY = ROOT / "ch02" / "the-tide-table.txt"
CONFIG = GPT_CONFIG_124M | {"qkv_bias": True}  # as transformers' GPT-2 has it
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


def test_itself(device, _):
    """A sentence for each fault that the self-test finds."""
    dtype = torch.bfloat16 if has_bfloat16(device) else torch.float32
    return find_faults(device, dtype) or ["the self-test found no fault"]


def run_tests(device, _):
    """The last line that pytest prints for the tests of a device."""
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", f"{device} and ["]
    return [last_line([*words, *TESTS])]


def last_line(words, folder=ROOT):
    """The last line that a Python command prints; RuntimeError if it fails."""
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True
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


@torch.no_grad()
def measure_decoding(device, cfg):
    """A row for a continuation of NUM_TOKENS tokens, and a note on its text."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"n_embd": cfg["emb_dim"], "n_layer": cfg["n_layers"]}
    shape |= {"n_head": cfg["n_heads"], "n_positions": cfg["context_length"]}
    torch.manual_seed(123)
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=cfg["vocab_size"], **shape)).eval()
    ours = GPTModel(cfg).eval()
    copy_from_transformers(ours, theirs)
    ours, theirs = ours.to(device), theirs.to(device)
    prompt = torch.tensor([PROMPT], device=device)
    num_tokens = min(NUM_TOKENS, cfg["context_length"] - len(PROMPT))
    write_ours = partial(generate, ours, prompt, num_tokens, ours.context_length)
    write_theirs = partial(
        theirs.generate,
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=num_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    speeds, texts = ([], []), [None, None]
    for _ in range(1 + ROUNDS):
        for i, write in enumerate((write_ours, write_theirs)):
            start = time.perf_counter()
            texts[i] = write().cpu()
            speeds[i].append(num_tokens / (time.perf_counter() - start))
    row = Row(
        "decoding", "ours", TRANSFORMERS, speeds[0][1:], speeds[1][1:], "tokens/s"
    )
    num_same = int((texts[0] == texts[1]).cumprod(1).sum()) - len(PROMPT)
    return [row, f"decoding: the first {num_same} of {num_tokens} tokens are the same"]


def decode_in_fresh_process(device, cfg):
    """What `measure_decoding` returns."""
    return in_fresh_process(measure_decoding, device, cfg)


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


PARTS = test_itself, run_tests, measure_training, decode_in_fresh_process, run_torchrun


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
    print("", markdown_table(rows), "", *(f for f in found if f not in rows), sep="\n")
    sys.exit(num_failed > 0)


if __name__ == "__main__":
    main()
