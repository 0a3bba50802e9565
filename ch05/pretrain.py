"""Train GPT-2's architecture on a story: `python -m ch05.pretrain`.

The run of notebook 5.2, seeded as the book seeds it. It draws ch05/train_plot.png again
and writes the trained model to models/local.safetensors.
"""

if __name__ == "__main__":
    from support.commands import exit_on_interrupt

    exit_on_interrupt()  # before imports that take seconds

import argparse
import sys
from pathlib import Path

import matplotlib
import torch

from ch02.tokenizer import get_tokenizer
from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.training import (
    create_train_val_loaders,
    evaluate_model,
    generate_and_print_sample,
    plot_losses,
    train_model_simple,
)
from support.commands import clean_exit, exit_renamed, positive
from support.device.device import fast_math, pick_device
from support.download.fetch import FetchError
from support.download.texts import load_text
from support.messages import one_line, say
from support.weights.checkpoint import save_model
from support.weights.local import LOCAL
from support.weights.saving import check_can_save, save_or_fall_back, size_in_bytes

CONFIG = GPT_CONFIG_124M | {"context_length": 256}
PLOT = Path(__file__).with_name("train_plot.png")
START_CONTEXT = "Every effort moves you"


def pretrain(loaders, cfg, device, args):
    """Train a new model; returns it and what `plot_losses` draws."""
    torch.manual_seed(123)
    model = GPTModel(cfg).to(device)
    check_can_save(LOCAL, size_in_bytes(model.parameters()))
    with torch.random.fork_rng():  # so that training draws what it draws in the book
        print_losses("untrained", model, loaders, device)
    adamw = {"lr": 4e-4, "weight_decay": 0.1, "fused": True}
    optimizer = torch.optim.AdamW(model.parameters(), **adamw)
    train_losses, val_losses, tokens_seen = train_model_simple(
        *(model, *loaders, optimizer, device),
        *(args.epochs, args.eval_freq, args.eval_iter, START_CONTEXT, get_tokenizer()),
    )
    steps = range(1, 1 + args.eval_freq * len(train_losses), args.eval_freq)
    epochs_seen = [step / len(loaders[0]) for step in steps]
    return model, (epochs_seen, tokens_seen, train_losses, val_losses)


def print_losses(state, model, loaders, device):
    """Print both losses over all batches."""
    train_loss, val_loss = evaluate_model(model, *loaders, device, eval_iter=None)
    print(f"{state}: train loss {train_loss:.3f}, val loss {val_loss:.3f}")


def main():
    """Read the command line, train, and write the plot and the model."""
    parser = argparse.ArgumentParser("python -m ch05.pretrain", description=__doc__)
    texts = "the-tide-table (default), the-verdict, or a text file"
    parser.add_argument("--text", default="the-tide-table", help=texts)
    for option, default, meaning in (
        ("--epochs", 7, "passes over the training text"),
        ("--eval-freq", 6, "steps between two evaluations"),
        ("--eval-iter", 2, "batches that an evaluation looks at"),
    ):
        parser.add_argument(option, type=positive, default=default, help=meaning)
    with clean_exit(FetchError, ValueError, FloatingPointError, OSError):
        args = parser.parse_args()
        check_can_save(PLOT)
        text, device = load_text(args.text), pick_device()
        loaders = create_train_val_loaders(text, CONFIG["context_length"])
        fast_math(device)
        say(f"training on {device}: {one_line(args.text)}, {len(text):,} characters")
        model, history = pretrain(loaders, CONFIG, device, args)
        is_kept = save_or_fall_back(LOCAL, lambda p: save_model(p, model, CONFIG))
        is_kept &= save_or_fall_back(PLOT, lambda p: plot_losses(*history, path=p))
        if is_kept:
            say(f"wrote {one_line(PLOT)} and {one_line(LOCAL)}")
        print_losses("trained", model, loaders, device)
        generate_and_print_sample(model, get_tokenizer(), device, START_CONTEXT)
        if not is_kept:
            sys.exit("error: not all results were saved to the usual files; see above")


if __name__ == "__main__":
    matplotlib.use("Agg")  # the plot goes to a file; no window opens
    for word in {"run", "tokenize"} & set(sys.argv[1:2]):
        exit_renamed(f"ch05.pretrain {word}", f"support.pretraining {word}")
    main()
