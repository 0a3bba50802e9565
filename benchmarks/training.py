"""A training step and an evaluation of GPT-2 124M, beside three peers'.

Two texts of 256 tokens, dropout 0.1, AdamW; one batch for all, of random ids. Each
trains as `benchmarks/trainees.py` says, in processes of its own, several times in turn.
"""

import statistics

import torch

from benchmarks.limits import measure_limits
from benchmarks.measure import (
    IS_QUICK,
    in_fresh_process,
    missing,
    peak_megabytes,
    stopwatch,
)
from benchmarks.scaling import flops_a_token
from benchmarks.table import Row
from benchmarks.trainees import (
    BOOK,
    COMPILED,
    FASTER,
    FASTER_TIED,
    FASTER_TRANSFORMERS,
    FASTER_WITHOUT,
    LITGPT,
    LITGPT_FUSED,
    OURS,
    TIED,
    TRAINEES,
    TRANSFORMERS,
    WITHOUT,
    random_batch,
    trainees_for,
)
from ch04.gpt import GPT_CONFIG_124M

CONFIG = GPT_CONFIG_124M | {"context_length": 256}
BATCH_SIZE = 2
ROUNDS = 1 if IS_QUICK else 3
NUM_STEPS, NUM_EVALUATIONS = 4, 3
# nats by which the losses of one model may differ, before and after it has learned:
# runs of one model whose dropout draws other numbers were up to 0.27 apart
SAME_LOSSES = 0.01, 0.35
WORKS = {
    "steps": ("training step", "tokens/s"),
    "evaluations": ("evaluation", "tokens/s"),
    "megabytes": ("memory of training", "MB"),
}
COMPARED = (  # what, ours, a peer, the goal
    ("steps", OURS, BOOK, 1.5),
    ("steps", TIED, TRANSFORMERS, 1.4),
    ("steps", FASTER, BOOK, 3.0),
    ("steps", FASTER_TIED, FASTER_TRANSFORMERS, 1.5),
    ("steps", FASTER_TIED, COMPILED, None),
    ("steps", FASTER, LITGPT, 1.5),
    ("steps", FASTER, LITGPT_FUSED, None),
    ("steps", WITHOUT, TIED, 1.3),
    ("steps", FASTER_WITHOUT, FASTER_TIED, 1.3),
    ("evaluations", OURS, BOOK, None),
    ("evaluations", TIED, TRANSFORMERS, None),
    ("evaluations", FASTER_TIED, FASTER_TRANSFORMERS, None),
    ("evaluations", FASTER, LITGPT, None),
    ("megabytes", OURS, BOOK, None),
    ("megabytes", TIED, BOOK, 0.7),
    ("megabytes", FASTER_TIED, BOOK, 0.7),
    ("megabytes", FASTER_TIED, FASTER_TRANSFORMERS, None),
)


def measure_trainee(title, cfg, device="cpu"):
    """Train a model of TRAINEES a few steps on one batch: a dict of what was found.

    "steps" and "evaluations": seconds of each, the first step left out; "losses"
    without dropout, before and after; "num_tokens" of the batch; "parameters";
    "megabytes", the process's most, or the most of a GPU's memory.
    """
    torch.manual_seed(123)
    trainee = TRAINEES[title][0](cfg, device)
    batch = [ids.to(device) for ids in random_batch(cfg, BATCH_SIZE)]
    steps, evaluations, losses = [], [], [trainee.evaluate(batch)]
    trainee.model.train()
    synchronize = torch.get_device_module(device).synchronize
    for _ in range(NUM_STEPS):
        with stopwatch(steps):
            trainee.step(batch)
            synchronize()
    for _ in range(NUM_EVALUATIONS):
        with stopwatch(evaluations):
            losses.append(trainee.evaluate(batch))
    return {
        "steps": steps[1:],
        "evaluations": evaluations,
        "losses": [losses[0], losses[-1]],
        "num_tokens": batch[0].numel(),
        "parameters": sum(p.numel() for p in trainee.model.parameters()),
        "megabytes": peak_megabytes(device),
    }


def measure_all(cfg, titles, device="cpu"):
    """({title: what `measure_trainee` found in each round}, notes on the missing).

    All take turns, so that a disturbance meets them all.
    """
    found, notes = {}, []
    for _ in range(ROUNDS):
        for title in titles:
            try:
                once = in_fresh_process(measure_trainee, title, cfg, device)
            except ImportError as error:
                notes.append(missing(TRAINEES[title][1], error))
                continue
            found.setdefault(title, []).append(once)
    return found, [*dict.fromkeys(notes)]


def check_same_work(found):
    """Raise RuntimeError unless ours and the book's have learned the same."""
    ours, book = found[OURS][0], found[BOOK][0]
    is_near = all(
        abs(a - b) < limit
        for a, b, limit in zip(ours["losses"], book["losses"], SAME_LOSSES)
    )
    if ours["parameters"] != book["parameters"] or not is_near:
        raise RuntimeError(f"ours and the book's did other work: {ours}, {book}")


def figure(once, key):
    """Tokens a second, from the median of the seconds of `key`, or megabytes."""
    if key == "megabytes":
        return once[key]
    return once["num_tokens"] / statistics.median(once[key])


def compare(found, compared=COMPARED):
    """Rows of the table from what was found, {title: what `measure_trainee` gives}."""
    rows = []
    for key, ours, peer, goal in compared:
        if peer in found and ours in found:  # without bfloat16, some are missing
            work, unit = WORKS[key]
            both = [[figure(o, key) for o in found[name]] for name in (ours, peer)]
            rows.append(Row(work, ours, peer, *both, unit, goal))
    return rows


def measure_rows():
    """Measure all: rows of the table, and notes."""
    found, notes = measure_all(CONFIG, trainees_for("cpu"))
    if BOOK in found:
        check_same_work(found)
    notes += [describe(*item) for item in found.items()]
    return compare(found), [*notes, describe_limits(in_fresh_process(measure_limits))]


def describe(title, rounds):
    """What a model is and what it has learned, in a sentence."""
    once = rounds[0]
    before, after = once["losses"]
    millions = once["parameters"] / 1e6
    return (
        f"{title}: {millions:.1f} million parameters, loss {before:.3f}, "
        f"after {NUM_STEPS} steps on one batch {after:.3f}."
    )


def describe_limits(limits):
    """What the products of a step allow at most on this machine, in a sentence."""
    most = {name: f"{limits[name] / flops_a_token(CONFIG):.0f}" for name in limits}
    return (
        f"Were a step its matrix products alone, this machine would train on "
        f"{most['default']} tokens/s in float32 as PyTorch computes it unasked, "
        f"{most['float32']} as `fast_math` sets it, "
        f"{most.get('bfloat16', 'and, because it only imitates it, far fewer')} in "
        "bfloat16."
    )
