"""The command-line options of `python -m support.pretraining run`, and what it does."""

import argparse
import math
import shlex
import sys
from contextlib import contextmanager

import psutil
import torch

from ch04.gpt import GPT_CONFIG_124M
from ch05.openai_weights import MODEL_CONFIGS
from ch05.recipe import StepBatches
from support.commands import INTERRUPTED, clean_exit, positive
from support.device.device import fast_dtype, fast_math
from support.messages import one_line, printable, say
from support.pretraining.distributed import (
    from_all,
    from_rank_0,
    joined,
    rank,
    world_size,
)
from support.pretraining.memory import (
    Workload,
    count_bytes,
    forecast_training,
    free_bytes,
    needed_bytes,
    propose,
)
from support.pretraining.run_folder import RunFolder
from support.pretraining.shards import MEND, TokenShards, find_damage, read_index
from support.pretraining.trainer import (
    Rhythm,
    RunSettings,
    create_val_loader,
    run_to_end,
)

SIZES = {name.split()[0]: sizes for name, sizes in MODEL_CONFIGS.items()}
DTYPES = ("auto", "float32", "bfloat16")
STATE = "weights", "gradients", "AdamW"  # what --shard spreads over the processes
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


def rate(text):
    """A number from 0 to below 1, or argparse's sentence about it."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(
            f"{one_line(text)} is not a number from 0 to below 1"
        )
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
    """Do what `run` was told to. Raises ValueError, OSError or FloatingPointError.

    All that can be seen to be wrong is said before anything large is allocated. A run
    that is stopped ends with the exit status INTERRUPTED.
    """
    rhythm = Rhythm(
        args.eval_freq, args.eval_iter, args.save_freq, args.num_parts, args.shard
    )
    stopped = "stopped; the same command goes on"
    with clean_exit(stopped=stopped), joined() as device:
        fast_math(device)
        length = args.context_length or GPT_CONFIG_124M["context_length"]
        train, validation = (
            TokenShards(args.data, split, length) for split in ("train", "val")
        )
        folder = RunFolder(args.folder)
        is_auto = args.dtype == "auto"
        dtype = choose_dtype(folder, device) if is_auto else args.dtype
        settings = settings_of(args, train, dtype)
        check_batches(settings, rhythm, train, validation)
        work = work_of_process(settings, rhythm, device)
        check_size(work, args.shard)
        with folder.locked():
            pass  # it can be written to, and nobody else does
        check_data(args.data)
        if rank() == 0:
            announce(settings, train, device)
            if world_size() == 1:
                say(outlook(work, settings.num_steps))
        with saying_what_is_kept():
            is_done = run_to_end(settings, rhythm, folder, train, validation, device)
        if rank() == 0:
            say(farewell(folder, is_done))
        if not is_done:
            raise SystemExit(INTERRUPTED)


def check_batches(settings, rhythm, train, validation):
    """Raise ValueError unless the text has enough windows, and batches can be cut."""
    create_val_loader(validation, settings.batch_size, rhythm.eval_iter)
    StepBatches(train, settings.batch_size, settings.num_steps, world_size=world_size())
    share = settings.batch_size // world_size()
    if share % rhythm.num_parts:
        raise ValueError(f"a batch of {share} has no {rhythm.num_parts} equal parts")


def work_of_process(settings, rhythm, device):
    """A step as one of the processes computes it."""
    return Workload(
        settings.config,
        settings.batch_size // world_size(),
        settings.config["context_length"],
        getattr(torch, settings.dtype),
        device,
        rhythm.num_parts,
        is_tied=True,
    )


def check_size(work, is_sharded):
    """Raise ValueError if a step needs more memory than there is, free or not.

    Sharded weights, gradients and moments are spread over the processes.
    """
    parts, num_shares = count_bytes(work), world_size() if is_sharded else 1
    for name in STATE:
        parts[name] //= num_shares
    needed, there = needed_bytes(work, parts), all_bytes(work.device)
    if needed > there:
        state = sum(parts[name] for name in STATE)
        raise ValueError(
            f"a step takes {needed / 1e9:,.1f} GB, {state / 1e9:,.1f} of them for "
            f"weights, gradients and moments, and this machine has {there / 1e9:,.1f} "
            "GB: take a smaller model, smaller batches, or more parts (--num-parts)"
        )


def all_bytes(device):
    """Memory of a device, free or not; of a CPU with what it can swap, in bytes."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return psutil.virtual_memory().total + psutil.swap_memory().total


def check_data(folder):
    """Raise ValueError, in each process, unless all shards have their sha256.

    Each process reads a share of them.
    """
    found = find_damage(folder, read_index(folder), True, rank(), world_size())
    for path, fault in sorted(pair for one in from_all(found) for pair in one.items()):
        raise ValueError(f"{path} {fault}; {MEND}")


@contextmanager
def saying_what_is_kept():
    """Let what fails for want of room in the `with` block say what is not lost."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(
            f"{error}. The checkpoints are as they were; mend that, and the same "
            "command goes on"
        ) from error
    except (MemoryError, RuntimeError) as error:
        is_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not is_memory and "can't allocate memory" not in str(error):
            raise
        raise ValueError(
            "there is not enough memory. The checkpoints are as they were; make room, "
            "or go on with more parts (--num-parts)"
        ) from error


def announce(settings, train, device):
    """Print what a run is about to do."""
    batch_tokens = settings.batch_size * settings.config["context_length"]
    say(
        f"{settings.num_steps:,} steps of {batch_tokens:,} tokens each, from a text of "
        f"{train.num_tokens:,}, on {world_size()} x {device} in {settings.dtype}"
    )


def outlook(work, num_steps):
    """What a run will need, in a sentence or two; what would fit, if that is too much.

    One block is measured, if there is room for it. Evaluations come on top.
    """
    forecast, free = forecast_training(work), free_bytes(work.device)
    minutes = forecast.minutes(num_steps)
    time = "" if math.isnan(minutes) else f"about {duration(minutes)} and "
    said = (
        f"all steps will take {time}{forecast.needed / 1e9:.1f} GB; {free / 1e9:.1f} "
        "GB are free"
    )
    return said if forecast.needed < free else f"{said}. {propose(work)}"


def duration(minutes):
    """Minutes in words: 4.25 -> "4.2 minutes", 1e6 -> "1.9 years"."""
    for unit, size in (("years", 525_960), ("days", 1440), ("hours", 60)):
        if minutes >= 1.5 * size:
            return f"{minutes / size:,.1f} {unit}"
    return f"{minutes:.1f} minutes"


def farewell(folder, is_done):
    """What to say when the process ends."""
    if is_done:
        return (
            f"done: {one_line(folder.path / 'model.safetensors')} is the model, which "
            "`support.weights.checkpoint.load_model` reads, and "
            f"{one_line(folder.log)} its losses"
        )
    again = shlex.join(["python", *sys.orig_argv[1:]])
    if "\n" in again or again != printable(again):  # nobody could copy it
        return "stopped, and a checkpoint is saved. The same command goes on"
    return f"stopped, and a checkpoint is saved. To go on: {again}"
