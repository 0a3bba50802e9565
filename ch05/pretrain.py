"""Train GPT-2's 124M architecture from the shell: `python -m ch05.pretrain`.

The run of notebook 5.2: the same text, seeds and functions. It redraws train_plot.png
and writes the trained model to checkpoints/local.safetensors, both in ch05.
"""

import argparse
import sys
import time
from pathlib import Path

import matplotlib
import torch

from ch02.dataset import load_text
from ch02.fetch import FetchError
from ch02.tokenizer import get_tokenizer
from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.checkpoint import save_model
from ch05.device import fast_math, pick_device
from ch05.training import (
    create_train_val_loaders,
    evaluate_model,
    plot_losses,
    train_model_simple,
)

CONFIG = GPT_CONFIG_124M | {"context_length": 256}
EVAL_FREQ = 6  # steps between two evaluations


def pretrain(text, cfg, num_epochs, device, folder):
    """Train a new model on a text; write its plot and its weights into a folder."""
    train_loader, val_loader = create_train_val_loaders(text, cfg["context_length"])
    torch.manual_seed(123)
    model = GPTModel(cfg).to(device)
    untrained = evaluate_model(model, train_loader, val_loader, device, eval_iter=None)
    print("untrained: train loss {:.3f}, val loss {:.3f}".format(*untrained))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=4e-4, weight_decay=0.1, fused=True
    )
    torch.manual_seed(123)
    start = time.perf_counter()
    train_losses, val_losses, tokens_seen = train_model_simple(
        model,
        train_loader,
        val_loader,
        optimizer,
        device,
        num_epochs=num_epochs,
        eval_freq=EVAL_FREQ,
        eval_iter=2,
        start_context="Every effort moves you",
        tokenizer=get_tokenizer("gpt2"),
    )
    seconds = time.perf_counter() - start
    steps = range(1, 1 + EVAL_FREQ * len(train_losses), EVAL_FREQ)
    epochs_seen = [step / len(train_loader) for step in steps]
    plot = folder / "train_plot.png"
    plot_losses(epochs_seen, tokens_seen, train_losses, val_losses, path=plot)
    weights = folder / "checkpoints" / "local.safetensors"
    save_model(weights, model, cfg)
    trained = evaluate_model(model, train_loader, val_loader, device, eval_iter=None)
    print("trained: train loss {:.3f}, val loss {:.3f}".format(*trained))
    print(
        f"{tokens_seen[-1]:,} tokens in {seconds:.0f} s, with evaluations and samples"
    )
    print(f"wrote {plot} and {weights}")


def main():
    """Read the command line, train, and turn what a reader can mend into a sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m ch05.pretrain", description=__doc__
    )
    parser.add_argument(
        "--text",
        default="the-tide-table",
        help="the-tide-table (default), the-verdict, or a text file",
    )
    parser.add_argument("--epochs", type=int, default=8, help="default: 8")
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error("--epochs must be at least 1")
    try:
        text, device = load_text(args.text), pick_device()
        fast_math(device)
        print(f"training on {device}: {args.text}, {len(text):,} characters")
        pretrain(text, CONFIG, args.epochs, device, Path(__file__).parent)
    except (FetchError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    matplotlib.use("Agg")  # the plot goes to a file; no window opens
    main()
