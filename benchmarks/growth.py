"""How cost grows with context, batch and depth: `python -m benchmarks.growth`.

GPT-2 124M is trained and decoded; context, batch or number of blocks change, the others
stay. Each step is set beside the shortest that this machine's measured limits allow:
for training the operations of its products (`benchmarks.scaling`) at the speed of one
large product, for decoding the bytes of weights and cache at the speed of memory.
Prints two tables, draws benchmarks/growth.png. About 6 minutes.
"""

import statistics
import time
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.limits import DTYPES, measure_limits
from benchmarks.measure import in_fresh_process, machine, stopwatch
from benchmarks.scaling import flops_a_token
from benchmarks.trainees import our_trainee, random_batch
from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.decoding import generate_stream
from support.device.fast_decoding import fast_decoding

PLOT = Path(__file__).with_name("growth.png")
AXES = {"context": "tokens of context", "batch": "texts in a batch", "blocks": "blocks"}
TRAINED = {"context": 256, "batch": 2, "blocks": 12}
TRAINED_AT = {"context": (64, 128, 256, 512), "batch": (1, 2, 4), "blocks": (3, 6, 12)}
DECODED = {"context": 256, "batch": 1, "blocks": 12}
DECODED_AT = {
    "context": (4, 64, 256, 960),
    "batch": (1, 2, 4, 8),
    "blocks": (3, 6, 12),
}
NUM_STEPS = 3  # of training, besides the first
NUM_NEW = 24  # tokens


def sizes(base, values):
    """The base, and the base with one of its entries changed to each of its values."""
    found = [base | {axis: value} for axis in values for value in values[axis]]
    return [size for i, size in enumerate(found) if size not in found[:i]]


def config(size):
    """The config of a model that trains at a size."""
    lengths = {"context_length": size["context"], "n_layers": size["blocks"]}
    return GPT_CONFIG_124M | lengths


def measure_step(size, dtype):
    """Seconds of a training step of a size, with products in a dtype of DTYPES."""
    torch.manual_seed(123)
    trainee = our_trainee(config(size), dtype=DTYPES[dtype])
    batch, seconds = random_batch(config(size), size["batch"]), []
    for _ in range(1 + NUM_STEPS):  # the first one is slower
        with stopwatch(seconds):
            trainee.step(batch)
    return statistics.median(seconds[1:])


def measure_token(size):
    """Seconds for one more token of each text in a batch, within `fast_decoding`."""
    torch.manual_seed(123)
    model = GPTModel(GPT_CONFIG_124M | {"n_layers": size["blocks"]}).eval()
    shape = size["batch"], size["context"]
    generator = torch.Generator().manual_seed(123)
    prompts = torch.randint(GPT_CONFIG_124M["vocab_size"], shape, generator=generator)
    with fast_decoding():
        times = [
            time.perf_counter()
            for _ in generate_stream(model, prompts, NUM_NEW, model.context_length)
        ]  # the first one also reads the prompt
    return statistics.median(b - a for a, b in zip(times, times[1:]))


def step_limit(size, operations_a_second):
    """The fewest seconds of a training step: its products at this speed."""
    num_tokens = size["batch"] * size["context"]
    return num_tokens * flops_a_token(config(size)) / operations_a_second


def token_limit(size, bytes_a_second):
    """The fewest seconds of a step of decoding: weights and cache read once."""
    cfg = GPT_CONFIG_124M
    weights = size["blocks"] * 12 * cfg["emb_dim"] ** 2
    weights += cfg["vocab_size"] * cfg["emb_dim"]  # the head; embeddings are looked up
    places = size["context"] + NUM_NEW // 2
    cache = 2 * size["blocks"] * cfg["emb_dim"] * size["batch"] * places
    return 4 * (weights + cache) / bytes_a_second


def measure_growth(limits):
    """{what is done: [(size, seconds, the fewest seconds), ...]}."""
    found = {}
    for dtype in DTYPES:
        found[f"training, {dtype}"] = [
            (
                size,
                in_fresh_process(measure_step, size, dtype),
                step_limit(size, limits[dtype]),
            )
            for size in sizes(TRAINED, TRAINED_AT)
        ]
    found["decoding, float32"] = [
        (
            size,
            in_fresh_process(measure_token, size),
            token_limit(size, limits["memory"]),
        )
        for size in sizes(DECODED, DECODED_AT)
    ]
    return found


def table(found):
    """What `measure_growth` found, as lines."""
    lines = ["work               context  batch  blocks   seconds  at the limit  share"]
    for work, points in found.items():
        for size, seconds, fewest in points:
            place = "".join(f"{size[axis]:8}" for axis in AXES)
            lines.append(
                f"{work:18}{place}{seconds:10.4f}{fewest:14.4f}{fewest / seconds:7.0%}"
            )
    return "\n".join(lines)


def draw_growth(found, path, title):
    """Draw seconds over each axis, measured and at the limit, into a file."""
    fig, axes = plt.subplots(2, len(AXES), figsize=(9, 5.4), layout="constrained")
    rows = [[w for w in found if w.startswith(k)] for k in ("training", "decoding")]
    bases = TRAINED, DECODED
    for row, (works, base) in enumerate(zip(rows, bases)):
        for ax, axis in zip(axes[row], AXES):
            for work, color in zip(works, ("tab:blue", "tab:orange")):
                draw_line(ax, found[work], base, axis, work, color)
            ax.set(xlabel=AXES[axis], xscale="log", yscale="log")
            values = (TRAINED_AT, DECODED_AT)[row][axis]
            ax.set_xticks(values, values)
            ax.set_xticks([], minor=True)
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_locator(NullLocator())
            ax.margins(x=0.12, y=0.12)
        axes[row][0].set_ylabel("seconds a step" if row == 0 else "seconds a token")
        axes[row][0].legend(fontsize=8)
    fig.suptitle(title, fontsize=9)
    fig.savefig(path, dpi=150)
    plt.close(fig)


def draw_line(ax, points, base, axis, label, color):
    """Draw the points that differ from the base in one axis alone."""
    same = [p for p in points if p[0] | {axis: base[axis]} == base]
    same.sort(key=lambda point: point[0][axis])
    x = [size[axis] for size, _, _ in same]
    ax.plot(x, [point[1] for point in same], "o-", color=color, label=label)
    ax.plot(x, [point[2] for point in same], "--", color=color, label="at the limit")
    for place, (_, seconds, fewest) in zip(x, same):
        share = f"{fewest / seconds:.0%}"
        ax.annotate(
            share,
            (place, seconds),
            (0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )


def main():
    """Measure the limits and the growth; print and draw them."""
    title = machine()
    print(title, flush=True)
    limits = in_fresh_process(measure_limits)
    for name, limit in limits.items():
        unit = "GB/s" if name == "memory" else "GFLOP/s"
        print(f"{name:9} {limit / 1e9:6.0f} {unit}", flush=True)
    found = measure_growth(limits)
    print(table(found))
    draw_growth(found, PLOT, title)


if __name__ == "__main__":
    matplotlib.use("Agg")  # the plot goes to a file; no window opens
    main()
