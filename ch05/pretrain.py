"""Train GPT-2's architecture from the shell: `python -m ch05.pretrain`.

As it is, the run of notebook 5.2 on a story, seeded as the book seeds it: it redraws
train_plot.png and writes the trained model to checkpoints/local.safetensors, both in
ch05. `tokenize` and `run` are for more text and more time, on one process or many.
"""

if __name__ == "__main__":
    from ch02.interrupts import stop_in_a_line

    stop_in_a_line()  # before imports that take seconds

import argparse
import io
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib
import torch

from ch02.dataset import load_text
from ch02.fetch import FetchError
from ch02.messages import ending_in_a_line, one_line, say
from ch02.tokenizer import get_tokenizer
from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.checkpoint import save_model
from ch05.device import fast_math, pick_device
from ch05.keeping import check_can_be_kept, keep
from ch05.preflight import size_in_bytes
from ch05.run_command import add_run_arguments, positive, run_command
from ch05.tokenize_texts import add_tokenize_arguments, tokenize_command
from ch05.training import (
    create_train_val_loaders,
    evaluate_model,
    generate_and_print_sample,
    plot_losses,
    train_model_simple,
)

CONFIG = GPT_CONFIG_124M | {"context_length": 256}
# small enough to learn a story in about a minute
SMALL_CONFIG = CONFIG | {"emb_dim": 256, "n_heads": 4, "n_layers": 4}
CHECKPOINT = "checkpoints/local.safetensors"  # in the folder of a run
LOCAL = Path(__file__).parent / CHECKPOINT
START_CONTEXT = "Every effort moves you"


def pretrain(loaders, cfg, device, folder, **settings):
    """Train a new model; write its plot and its weights into a folder.

    settings: num_epochs, eval_freq and eval_iter of `train_model_simple`. Returns the
    model, and whether both files could be written. Raises OSError before it trains if
    they cannot be.
    """
    plot, weights = folder / "train_plot.png", folder / CHECKPOINT
    tokenizer = get_tokenizer("gpt2")
    torch.manual_seed(123)
    model = GPTModel(cfg).to(device)
    check_can_be_kept(plot)
    check_can_be_kept(weights, size_in_bytes(model.parameters()))
    with torch.random.fork_rng():  # so that training draws what it draws in the book
        print_losses("untrained", model, loaders, device)
    history = train(model, loaders, device, tokenizer, **settings)
    is_kept = keep(weights, lambda path: save_model(path, model, cfg))
    try:
        plot_losses(*history, path=plot)
    except OSError as error:
        say(f"{one_line(plot)} could not be written: {one_line(error)}")
        is_kept = False
    if is_kept:
        say(f"wrote {one_line(plot)} and {one_line(weights)}")
    print_losses("trained", model, loaders, device)
    generate_and_print_sample(model, tokenizer, device, START_CONTEXT)
    return model, is_kept


def train(model, loaders, device, tokenizer, num_epochs, eval_freq, eval_iter):
    """Run the loop of 5.2 and print its speed; return what `plot_losses` draws."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=4e-4, weight_decay=0.1, fused=True
    )
    start = time.perf_counter()
    train_losses, val_losses, tokens_seen = train_model_simple(
        model,
        *loaders,
        optimizer,
        device,
        num_epochs=num_epochs,
        eval_freq=eval_freq,
        eval_iter=eval_iter,
        start_context=START_CONTEXT,
        tokenizer=tokenizer,
    )
    seconds = time.perf_counter() - start
    print(f"trained {seconds:.0f} s, with evaluations and samples")
    steps = range(1, 1 + eval_freq * len(train_losses), eval_freq)
    epochs_seen = [step / len(loaders[0]) for step in steps]
    return epochs_seen, tokens_seen, train_losses, val_losses


def train_small(path):
    """Train a small GPT on the story, in about a minute, and write it to `path`.

    Returns the model, whether or not it could be written.
    """
    print("training a small GPT on the story; this happens once and takes a minute")
    loaders = create_train_val_loaders(load_text(), SMALL_CONFIG["context_length"])
    with torch.random.fork_rng():
        torch.manual_seed(123)
        model = GPTModel(SMALL_CONFIG)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-3, weight_decay=0.1, fused=True
        )
        with redirect_stdout(io.StringIO()):  # the loop's samples are not wanted here
            train_model_simple(
                model,
                *loaders,
                optimizer,
                "cpu",
                num_epochs=12,
                eval_freq=48,
                eval_iter=1,
                start_context=START_CONTEXT,
                tokenizer=get_tokenizer(),
            )
    try:
        save_model(path, model, SMALL_CONFIG)
    except OSError as error:
        say(f"It could not be kept, and will be trained again: {one_line(error)}")
    return model.eval()


def print_losses(state, model, loaders, device):
    """Print both losses over all batches."""
    train_loss, val_loss = evaluate_model(model, *loaders, device, eval_iter=None)
    print(f"{state}: train loss {train_loss:.3f}, val loss {val_loss:.3f}")


def pretrain_on_story(args):
    """The run of 5.2, as the command line has it."""
    text, device = load_text(args.text), pick_device()
    loaders = create_train_val_loaders(text, CONFIG["context_length"])
    fast_math(device)
    say(f"training on {device}: {one_line(args.text)}, {len(text):,} characters")
    _, is_kept = pretrain(
        loaders,
        CONFIG,
        device,
        Path(__file__).parent,
        num_epochs=args.epochs,
        eval_freq=args.eval_freq,
        eval_iter=args.eval_iter,
    )
    if not is_kept:
        sys.exit("error: not all results are where they belong, as said above")


def add_arguments(parser):
    """Add to an argparse parser what the run of 5.2 understands."""
    parser.add_argument(
        "--text",
        default="the-tide-table",
        help="the-tide-table (default), the-verdict, or a text file",
    )
    for option, default, meaning in (
        ("--epochs", 7, "passes over the training text"),
        ("--eval-freq", 6, "steps between two evaluations"),
        ("--eval-iter", 2, "batches that an evaluation looks at"),
    ):
        parser.add_argument(option, type=positive, default=default, help=meaning)


def main():
    """Read the command line and turn what a reader can mend into a sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m ch05.pretrain", description=__doc__
    )
    parser.set_defaults(command=pretrain_on_story)
    add_arguments(parser)
    commands = parser.add_subparsers(title="for more than a story")
    for name, add, command, meaning in (
        ("tokenize", add_tokenize_arguments, tokenize_command, "texts to token shards"),
        ("run", add_run_arguments, run_command, "train on shards; goes on if stopped"),
    ):
        added = commands.add_parser(name, help=meaning, description=command.__doc__)
        add(added)
        added.set_defaults(command=command)
    with ending_in_a_line(FetchError, ValueError, FloatingPointError, OSError):
        args = parser.parse_args()
        try:
            args.command(args)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(f"the results could not be written: {error}") from None


if __name__ == "__main__":
    matplotlib.use("Agg")  # the plot goes to a file; no window opens
    main()
