"""The words of `python -m ch05.pretrain run` (a support module: used, not taught)."""

import argparse
import math
import shlex
import sys

import torch

from ch04.gpt import GPT_CONFIG_124M
from ch05.device import fast_dtype, fast_math
from ch05.openai_weights import MODEL_CONFIGS
from ch05.preflight import Workload, forecast_training, free_bytes, propose
from ch05.ranks import from_rank_0, joined, rank, world_size
from ch05.run import Rhythm, RunSettings, run_to_end
from ch05.run_folder import RunFolder
from ch05.shards import TokenShards

SIZES = {name.split()[0]: sizes for name, sizes in MODEL_CONFIGS.items()}
DTYPES = ("auto", "float32", "bfloat16")
CONFIG_OPTIONS = {  # keys of a config that have an option of their own
    "context_length": "tokens of a window",
    "emb_dim": "width of the residual stream",
    "n_heads": "attention heads in a block",
    "n_layers": "transformer blocks",
}
COUNTS = {
    "batch-size": (8, "windows in a step, of all processes together"),
    "num-parts": (1, "parts that each process cuts its share into: less memory"),
    "eval-freq": (100, "steps between two evaluations"),
    "eval-iter": (8, "batches that an evaluation looks at"),
    "save-freq": (100, "steps between two checkpoints"),
    "seed": (123, "of the weights, the order and dropout"),
}
RATES = {
    "lr": (6e-4, "highest learning rate"),
    "min-lr": (6e-5, "learning rate of the last step"),
    "drop-rate": (0.0, "share of values that dropout sets to zero"),
}


def positive(text):
    """A whole number of at least 1, or argparse's sentence about it."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def rate(text):
    """A number from 0 to below 1, or argparse's sentence about it."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to below 1")
    return value


def add_run_arguments(parser):
    """Add to an argparse parser what `run` understands."""
    parser.add_argument("folder", help="where the run lives; the same goes on with it")
    parser.add_argument("--data", required=True, help="folder that `tokenize` wrote")
    parser.add_argument("--steps", type=positive, required=True, help="of the run")
    parser.add_argument(
        "--size", choices=SIZES, default="gpt2-small", help="whose sizes to take"
    )
    for key, meaning in CONFIG_OPTIONS.items():
        option = f"--{key.replace('_', '-')}"
        parser.add_argument(option, type=positive, help=f"{meaning}; else the size's")
    for kind, options in ((positive, COUNTS), (rate, RATES)):
        for name, (default, meaning) in options.items():
            parser.add_argument(
                f"--{name}", type=kind, default=default, help=f"{meaning} ({default})"
            )
    parser.add_argument(
        "--dtype", choices=DTYPES, default="auto", help="of matrix multiplications"
    )
    parser.add_argument(
        "--shard",
        action="store_true",
        help="spread weights and moments over the processes (FSDP2), not only batches",
    )


def config_of(args, vocab_size):
    """The model's config: that of a size, with what the command line puts in place."""
    chosen = {key: getattr(args, key) for key in CONFIG_OPTIONS}
    given = {key: value for key, value in chosen.items() if value is not None}
    sizes = GPT_CONFIG_124M | SIZES[args.size] | given
    return sizes | {"drop_rate": args.drop_rate, "vocab_size": vocab_size}


def choose_dtype(folder, device):
    """What `--dtype auto` means: as the run was begun; a new one takes what is fast.

    All processes take what rank 0 has found.
    """
    name = folder.dtype()
    if name not in DTYPES:
        name = str(fast_dtype(device)).removeprefix("torch.")
    return DTYPES[from_rank_0(DTYPES.index(name))]


def settings_of(args, data, dtype):
    """The settings that the command line asks for, for shards of this kind."""
    return RunSettings(
        config=config_of(args, data.vocab_size),
        data=data.fingerprint,
        num_steps=args.steps,
        batch_size=args.batch_size,
        peak_lr=args.lr,
        min_lr=args.min_lr,
        seed=args.seed,
        dtype=dtype,
    )


def run_command(args):
    """Do what `run` was told to. Raises ValueError, OSError or FloatingPointError."""
    rhythm = Rhythm(
        args.eval_freq, args.eval_iter, args.save_freq, args.num_parts, args.shard
    )
    with joined() as device:
        fast_math(device)
        length = args.context_length or GPT_CONFIG_124M["context_length"]
        train, validation = (
            TokenShards(args.data, split, length) for split in ("train", "val")
        )
        folder = RunFolder(args.folder)
        is_auto = args.dtype == "auto"
        dtype = choose_dtype(folder, device) if is_auto else args.dtype
        settings = settings_of(args, train, dtype)
        if rank() == 0:
            announce(settings, train, device)
            if world_size() == 1:
                print(outlook(settings, rhythm.num_parts, device))
        is_done = run_to_end(settings, rhythm, folder, train, validation, device)
        if rank() == 0:
            print(farewell(folder, is_done))


def announce(settings, train, device):
    """Print what a run is about to do."""
    batch_tokens = settings.batch_size * settings.config["context_length"]
    print(
        f"{settings.num_steps:,} steps of {batch_tokens:,} tokens each, from a text of "
        f"{train.num_tokens:,}, on {world_size()} x {device} in {settings.dtype}"
    )


def outlook(settings, num_parts, device):
    """What a run will need, in a sentence or two; what would fit, if that is too much.

    One block is measured. Evaluations come on top.
    """
    work = Workload(
        settings.config,
        settings.batch_size,
        settings.config["context_length"],
        getattr(torch, settings.dtype),
        device,
        num_parts,
        is_tied=True,
    )
    forecast, free = forecast_training(work), free_bytes(device)
    needed, minutes = forecast.needed, forecast.minutes(settings.num_steps)
    said = (
        f"all steps will take about {minutes:.1f} minutes and {needed / 1e9:.1f} GB; "
        f"{free / 1e9:.1f} GB are free"
    )
    return said if needed < free else f"{said}. {propose(work)}"


def farewell(folder, is_done):
    """What to say when the process ends."""
    if is_done:
        return (
            f"done: {folder.path / 'model.safetensors'} is the model, and "
            f"{folder.log} its losses. `ch05.checkpoint.load_model` reads it"
        )
    command = shlex.join(["python", *sys.orig_argv[1:]])
    return f"stopped, and a checkpoint is saved. To go on: {command}"
