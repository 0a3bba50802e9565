"""How exactly and how fast a device multiplies matrices (support: used, not taught).

PyTorch has faster ways to multiply float32 matrices. What they compute depends on the
device: "medium" is float32 by another library on many CPUs, and bfloat16 on those with
AMX; "high" is TF32 on most GPUs. So both are tried before they are used.

A device is named by its type here, "cpu" or "cuda": all of a type are taken as equal.
"""

import time
from contextlib import contextmanager
from functools import cache

import torch
import torch.nn.functional as F

from support.device.self_test import seeding

FASTER = {"cpu": "medium"}  # PyTorch's name of the faster way; "high" elsewhere
# x and weight of the layers that are tried: GPT-2's feed-forward layer on 64 tokens,
# the scores of 24 heads, the logits of one token for a part of the vocabulary
SHAPES = (
    ((64, 768), (3072, 768)),
    ((24, 64, 64), (24, 64, 64)),
    ((1, 768), (1024, 768)),
)
MOST_ERROR = 4  # times that of the exact way; TF32's is 700 times, bfloat16's 3,000
TIMED_SHAPES = (512, 768), (3072, 768)
NUM_TIMINGS = 5
LEAST_GAIN = 1.2


@contextmanager
def undisturbed(device="cpu"):
    """A `with` block of full float32 precision, whatever was set, and without autocast.

    The CPU uses one thread: for little work more only wait for each other, on a busy
    machine for seconds.
    """
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(1)
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(threads)


@cache
def float32_precision(device):
    """The faster one of PyTorch's precisions where it is float32, else "highest".

    It is where both are equally far from float64. Tried once in a process.
    """
    faster = FASTER.get(device, "high")
    with undisturbed(device), seeding(torch.device(device)), torch.no_grad():
        layers = [[torch.randn(shape) for shape in pair] for pair in SHAPES]
        expected = [multiply(*(factor.double() for factor in pair)) for pair in layers]
        layers = [[factor.to(device) for factor in pair] for pair in layers]
        errors = []
        for precision in ("highest", faster):
            torch.set_float32_matmul_precision(precision)
            errors.append(largest_error([multiply(*pair) for pair in layers], expected))
    return faster if errors[1] <= MOST_ERROR * errors[0] else "highest"


def multiply(x, weight):
    """The output of a linear layer, and the matrix products of its backward pass.

    x is (..., num_tokens, in_features), weight (..., out_features, in_features).
    """
    out = x @ weight.mT  # (..., num_tokens, out_features)
    return out, out @ weight, out.mT @ x


def largest_error(found, expected):
    """The largest error in results of `multiply`, as a share of a matrix's maximum."""
    pairs = [pair for layer in zip(found, expected) for pair in zip(*layer)]
    errors = [(a.cpu() - b).abs().max() / b.abs().max() for a, b in pairs]
    return torch.stack(errors).max().item()


def has_bfloat16(device):
    """True if a device has instructions for bfloat16: imitating them is slow."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = torch.cpu.get_capabilities() if device == "cpu" else {}
    return known.get("avx512_bf16", False) or known.get("amx_bf16", False)


@cache
def gains_by_bfloat16(device):
    """True if a device multiplies bfloat16 LEAST_GAIN times as fast as float32.

    Timed once in a process, on a device that has instructions for it.
    """
    if not has_bfloat16(device):
        return False
    seconds = {torch.float32: [], torch.bfloat16: []}
    precision = float32_precision(device)
    with undisturbed(device), seeding(torch.device(device)), torch.no_grad():
        torch.set_float32_matmul_precision(precision)
        factors = [torch.randn(shape, device=device) for shape in TIMED_SHAPES]
        for _ in range(NUM_TIMINGS):  # in turn, so that a disturbance meets both
            for dtype, each in seconds.items():
                each.append(multiply_seconds(*(f.to(dtype) for f in factors)))
    exact, rounded = map(min, seconds.values())  # what else goes on only adds to them
    return exact >= LEAST_GAIN * rounded


def multiply_seconds(x, weight):
    """Seconds of a linear layer, until the device is done."""
    device = torch.get_device_module(x.device)
    device.synchronize()
    start = time.perf_counter()
    F.linear(x, weight)
    device.synchronize()
    return time.perf_counter() - start
