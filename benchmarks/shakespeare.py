"""Tiny Shakespeare in three minutes: `python -m benchmarks.shakespeare`.

The course's own byte pairs are learned on the first nine tenths of the text, a small
GPT is trained on those by `python -m support.pretraining run`, killed in the middle
without warning, and begun again. Then its loss on the last tenth is measured, per
character, so that it can be compared with models of other tokens: nanoGPT's recipe for
a CPU gives 1.88 nats a character for about three minutes. Draws
benchmarks/shakespeare.png.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch
from torch.utils.data import DataLoader

from ch02.tokenizer import BPETokenizer
from ch05.training import calc_loss_loader
from support.download.fetch import downloads_folder, fetch
from support.paths import MODELS
from support.pretraining.run_folder import RunFolder
from support.pretraining.shards import TokenShards
from support.weights.checkpoint import load_model

URLS = [
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "https://cdn.jsdelivr.net/gh/karpathy/char-rnn@master/data/tinyshakespeare/input.txt",
]
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
GOAL = 1.88  # nats a character, nanoGPT's README on its recipe for a CPU
VOCAB_SIZE = 512
CONTEXT_LENGTH = 128
NUM_STEPS = 500
KILLED_AFTER = 230  # steps
OPTIONS = {
    "steps": NUM_STEPS,
    "context-length": CONTEXT_LENGTH,
    "emb-dim": 256,
    "n-heads": 4,
    "n-layers": 4,
    "batch-size": 16,
    "lr": 3e-3,
    "min-lr": 1e-4,
    "eval-freq": 50,
    "save-freq": 100,
}
HERE = Path(__file__).parent
FOLDER = MODELS / "shakespeare"


def pretrain(*arguments):
    """Start `python -m support.pretraining` with these arguments."""
    command = [sys.executable, "-m", "support.pretraining", *map(str, arguments)]
    return subprocess.Popen(command, cwd=HERE.parent)


def write_data():
    """Fetch the text, learn byte pairs on its first nine tenths, write its shards."""
    path = fetch(URLS, downloads_folder() / "tinyshakespeare.txt", sha256=SHA256)
    text = path.read_text(encoding="utf-8")
    vocabulary = FOLDER / "vocabulary.json"
    vocabulary.parent.mkdir(parents=True)
    BPETokenizer.train(text[: 9 * len(text) // 10], VOCAB_SIZE).save(vocabulary)
    options = "--tokenizer", vocabulary, "--val-share", 0.1
    if pretrain("tokenize", FOLDER / "shards", path, *options).wait():
        sys.exit("the shards could not be written")


def steps_taken(log):
    """How many steps a run has written into its log."""
    return log.read_text(encoding="utf-8").count("\n") if log.is_file() else 0


def train():
    """Train, killed once on the way; return the seconds that both processes took."""
    options = [f"--{name}={value}" for name, value in OPTIONS.items()]
    command = "run", FOLDER / "run", "--data", FOLDER / "shards", *options
    start = time.perf_counter()
    process = pretrain(*command)
    while steps_taken(FOLDER / "run/log.jsonl") < KILLED_AFTER:
        if process.poll() is not None:
            sys.exit("training ended before it was to be killed")
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    print(f"\nkilled after {steps_taken(FOLDER / 'run/log.jsonl')} steps", flush=True)
    if pretrain(*command).wait():
        sys.exit("training could not go on")
    return time.perf_counter() - start


def characters(shards, tokenizer):
    """How many characters all targets of a part have."""
    targets = torch.cat([target_ids for _, target_ids in shards])
    return len(tokenizer.decode(targets.tolist()))


@torch.no_grad()
def loss_per_character(shards, tokenizer):
    """Nats a character over all windows, and tokens a character."""
    model, _ = load_model(FOLDER / "run/model.safetensors")
    loss = calc_loss_loader(DataLoader(shards, 16), model, "cpu")
    share = len(shards) * CONTEXT_LENGTH / characters(shards, tokenizer)
    return loss * share, share


def draw(share, path):
    """Draw both losses per character; share: tokens a character."""
    entries = RunFolder(FOLDER / "run").read_log()
    fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    losses = [share * entry["loss"] for entry in entries]
    ax.plot(range(1, len(losses) + 1), losses, alpha=0.4, label="training, each step")
    evaluated = [entry for entry in entries if "val_loss" in entry]
    steps = [entry["step"] for entry in evaluated]
    ax.plot(steps, [share * e["val_loss"] for e in evaluated], "o-", label="validation")
    ax.axhline(GOAL, color="gray", linestyle="--", label=f"nanoGPT on a CPU: {GOAL}")
    ax.axvline(
        KILLED_AFTER, color="tab:red", linestyle=":", label="killed, begun again"
    )
    ax.set(xlabel="step", ylabel="loss (nats per character)", ylim=(1, 3))
    ax.legend()
    fig.savefig(path, dpi=150)


def main():
    """Do all of it, and print the loss beside nanoGPT's."""
    matplotlib.use("Agg")  # the plot goes to a file; no window opens
    shutil.rmtree(FOLDER, ignore_errors=True)
    write_data()
    seconds = train()
    tokenizer = BPETokenizer.load(FOLDER / "vocabulary.json")
    shards = TokenShards(FOLDER / "shards", "val", CONTEXT_LENGTH)
    loss, share = loss_per_character(shards, tokenizer)
    print(
        f"{seconds:.0f} s of training, with both starts: {loss:.3f} nats a character "
        f"on the last tenth of the text, {1 / share:.2f} characters a token; nanoGPT's "
        f"recipe for a CPU gives {GOAL}"
    )
    draw(share, HERE / "shakespeare.png")
    if loss >= GOAL:
        sys.exit("the goal is missed")


if __name__ == "__main__":
    main()
