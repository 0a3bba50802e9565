"""`python -m support.pretraining run`: its options and what it does."""

import math

import psutil
import torch

from ch04.gpt import GPT_CONFIG_124M
from ch05.openai_weights import MODEL_CONFIGS
from support.commands import INTERRUPTED, fraction, positive
from support.device.device import fast_dtype, fast_math
from support.device.fast_dropout import gains_by_fast_dropout
from support.device.fast_vocabulary import gains_by_fast_vocabulary
from support.device.precision import float32_precision
from support.messages import one_line, say
from support.pretraining.distributed import broadcast, process_group, rank, world_size
from support.pretraining.memory import (
    Workload,
    count_bytes,
    forecast_training,
    free_bytes,
    needed_bytes,
)
from support.pretraining.run_folder import MODEL, RunFolder
from support.pretraining.shards import (
    SPLITS,
    TokenShards,
    find_damage,
    raise_damage,
    read_index,
)
from support.pretraining.trainer import RunOptions, RunSettings, Trainer

SIZES = {name.split()[0]: sizes for name, sizes in MODEL_CONFIGS.items()}
DTYPES = ("auto", "float32", "bfloat16")
CONFIG_OPTIONS = {  # keys of a config that have an option of their own
    "context_length": "tokens in a window",
    "emb_dim": "embedding dimension",
    "n_heads": "attention heads in a block",
    "n_layers": "transformer blocks",
}
COUNTS = {
    "batch-size": (8, "windows in a step, in all processes together"),
    "num-parts": (1, "parts of a batch in each process; more parts take less memory"),
    "eval-freq": (100, "steps between two evaluations"),
    "eval-iter": (8, "batches in an evaluation"),
    "save-freq": (100, "steps between two checkpoints"),
    "seed": (123, "random seed of the weights, the order of the data and dropout"),
}
RATES = {
    "lr": (6e-4, "highest learning rate"),
    "min-lr": (6e-5, "learning rate of the last step"),
    "drop-rate": (0.0, "share of values that dropout sets to zero"),
}
ADVICE = "use a smaller model, smaller batches, or more parts (--num-parts)"


def add_run_arguments(parser):
    """Add the arguments of `run` to an argparse parser."""
    add = parser.add_argument
    add("folder", help="folder of the run; a stopped run continues here")
    add("--data", required=True, help="folder that `tokenize` wrote")
    add("--steps", type=positive, required=True, help="steps of the whole run")
    size = "one of GPT-2's model sizes (default gpt2-small)"
    add("--size", choices=SIZES, default="gpt2-small", help=size)
    for key, meaning in CONFIG_OPTIONS.items():
        option = f"--{key.replace('_', '-')}"
        add(option, type=positive, help=f"{meaning}; default: that of --size")
    for kind, options in ((positive, COUNTS), (fraction, RATES)):
        for name, (default, meaning) in options.items():
            text = f"{meaning} (default {default})"
            add(f"--{name}", type=kind, default=default, help=text)
    dtype = "data type of matrix multiplications (default auto: the faster one)"
    add("--dtype", choices=DTYPES, default="auto", help=dtype)
    add(
        "--shard",
        action="store_true",
        help="shard the weights and the optimizer's moments across the processes "
        "(FSDP2), not only the batches",
    )


def make_settings(args, data, ways):
    """The RunSettings for the options of the command line, shards and chosen ways."""
    chosen = {key: getattr(args, key) for key in CONFIG_OPTIONS}
    config = GPT_CONFIG_124M | SIZES[args.size]
    config |= {key: value for key, value in chosen.items() if value is not None}
    config |= {"drop_rate": args.drop_rate, "vocab_size": data.vocab_size}
    return RunSettings(
        config=config,
        data=data.fingerprint,
        num_steps=args.steps,
        batch_size=args.batch_size,
        peak_lr=args.lr,
        min_lr=args.min_lr,
        seed=args.seed,
        **ways,
    )


def choose_ways(folder, device, dtype):
    """How the run in a folder computes; for a new run, what is fast on this machine.

    dtype: of matrix multiplications, or "auto". All processes compute in the same ways.
    """
    known = next(iter(folder.known_settings().values()), {})
    if dtype == "auto":
        dtype = known.get("dtype") or str(fast_dtype(device)).removeprefix("torch.")
    is_cpu = device.type == "cpu"
    product_dtype = getattr(torch, dtype)
    ways = {
        "precision": float32_precision(device.type),
        "is_dropout_fast": is_cpu and gains_by_fast_dropout(),
        "is_vocabulary_fast": is_cpu and gains_by_fast_vocabulary(product_dtype),
    }
    ways |= {name: known[name] for name in ways if name in known}
    return broadcast(ways | {"dtype": dtype})


def run_command(args):
    """Train a model on token shards.

    Obvious mistakes are reported before the training begins. A run that is stopped ends
    with the exit status 130; run the same command again to continue.
    """
    options = RunOptions(
        args.eval_freq, args.eval_iter, args.save_freq, args.num_parts, args.shard
    )
    with process_group() as device:
        fast_math(device)
        length = args.context_length or GPT_CONFIG_124M["context_length"]
        train, val = (TokenShards(args.data, split, length) for split in SPLITS)
        folder = RunFolder(args.folder)
        ways = choose_ways(folder, device, args.dtype)
        settings = make_settings(args, train, ways)
        trainer = Trainer(settings, options, train, val, device)
        work = check_memory(trainer)
        with folder.locked():
            check_data(args.data)
            if rank() == 0:
                announce(trainer, train)
            if world_size() == 1:
                say(describe_forecast(work, settings.num_steps))
            is_done = trainer.train(folder)
        if rank() == 0:
            say(
                f"done: {one_line(folder.path / MODEL)} is the model, which "
                "`support.weights.checkpoint.load_model` reads, and "
                f"{one_line(folder.log)} holds its losses"
                if is_done
                else "stopped; a checkpoint is saved. Run the same command to continue"
            )
        if not is_done:
            raise SystemExit(INTERRUPTED)


def check_memory(trainer):
    """The Workload of one process in a step.

    Raises ValueError if a step needs more memory than the machine has, free or not. If
    the model is sharded, each process holds a share of weights and moments.
    """
    settings, options = trainer.settings, trainer.options
    work = Workload(
        settings.config,
        settings.batch_size // world_size(),
        settings.config["context_length"],
        trainer.dtype,
        trainer.device,
        options.num_parts,
        is_tied=True,
        is_vocabulary_fast=settings.is_vocabulary_fast,
    )
    parts, state = count_bytes(work), ("weights", "gradients", "AdamW")
    for name in state if options.is_sharded else ():
        parts[name] //= world_size()
    needed, total = needed_bytes(work, parts), total_bytes(work.device)
    if needed > total:
        raise ValueError(
            f"a step takes {needed / 1e9:,.1f} GB of memory, "
            f"{sum(parts[name] for name in state) / 1e9:,.1f} GB of it for weights, "
            f"gradients and moments, but this machine has {total / 1e9:,.1f} GB: "
            f"{ADVICE}"
        )
    return work


def total_bytes(device):
    """Memory of a device in bytes, free or not; that of a CPU with swap."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return psutil.virtual_memory().total + psutil.swap_memory().total


def check_data(folder):
    """Raise ValueError, in each process, unless all shards have their sha256."""
    damage = find_damage(folder, read_index(folder), True) if rank() == 0 else {}
    raise_damage(broadcast(damage))


def announce(trainer, train):
    """Print what a run is about to do."""
    settings = trainer.settings
    batch_tokens = settings.batch_size * settings.config["context_length"]
    say(
        f"{settings.num_steps:,} steps of {batch_tokens:,} tokens each, from a text of "
        f"{train.num_tokens:,} tokens, on {world_size()} x {trainer.device} in "
        f"{settings.dtype}"
    )


def describe_forecast(work, num_steps):
    """A sentence about the time and the memory that a run needs, without evaluations.

    The time is missing if there is no room to measure one block.
    """
    forecast, free = forecast_training(work), free_bytes(work.device)
    minutes = forecast.minutes(num_steps)
    time = "" if math.isnan(minutes) else f"about {format_minutes(minutes)} and "
    advice = "" if forecast.needed < free else f": {ADVICE}"
    return (
        f"all steps will take {time}{forecast.needed / 1e9:.1f} GB of memory; "
        f"{free / 1e9:.1f} GB are free{advice}"
    )


def format_minutes(minutes):
    """Minutes in a suitable unit: 4.25 -> "4.2 minutes", 1e6 -> "1.9 years"."""
    for unit, size in (("years", 525_960), ("days", 1440), ("hours", 60)):
        if minutes >= 1.5 * size:
            return f"{minutes / size:,.1f} {unit}"
    return f"{minutes:.1f} minutes"
