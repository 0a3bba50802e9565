"""Measure how exactly and how fast a device multiplies matrices.

PyTorch has faster ways to multiply float32 matrices. What they compute depends on the
device: "medium" is float32 by another library on many CPUs, but bfloat16 on those with
AMX; "high" is TF32 on most GPUs. So a faster way is tested before it is used. A device
is named by its type here, "cpu" or "cuda".
"""

import time
from contextlib import contextmanager
from functools import cache

import torch
import torch.nn.functional as F

FASTER = {"cpu": "medium"}  # PyTorch's name of the faster way; "high" elsewhere
# x and weight of the layers that are tested: GPT-2's feed-forward layer on 64 tokens,
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
def matmul_precision(precision):
    """Set PyTorch's precision of float32 matrix multiplication for a `with` block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def undisturbed(device="cpu", precision="highest"):
    """Compute float32 exactly in a `with` block, without autocast.

    The CPU uses one thread there: for little work, more threads only wait for each
    other, which takes seconds on a busy machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with matmul_precision(precision), torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_num_threads(threads)


@cache
def float32_precision(device):
    """Return the faster one of PyTorch's precisions if it is as exact as "highest".

    Otherwise return "highest". This is tested once in each process.
    """
    faster = FASTER.get(device, "high")
    generator = torch.Generator().manual_seed(123)
    layers = [[torch.randn(shape, generator=generator) for shape in s] for s in SHAPES]
    errors = []
    for precision in ("highest", faster):
        with undisturbed(device, precision), torch.no_grad():
            errors.append(largest_error(layers, device))
    return faster if errors[1] <= MOST_ERROR * errors[0] else "highest"


def multiply(x, weight):
    """Return the matrix products of a linear layer, forward and backward.

    x is (..., num_tokens, in_features), weight (..., out_features, in_features).
    """
    out = x @ weight.mT  # (..., num_tokens, out_features)
    return out, out @ weight, out.mT @ x


def largest_error(layers, device):
    """Return a device's largest error relative to the largest value of its matrix."""
    errors = []
    for x, weight in layers:
        found = multiply(x.to(device), weight.to(device))
        for a, exact in zip(found, multiply(x.double(), weight.double())):
            errors.append((a.cpu() - exact).abs().max() / exact.abs().max())
    return torch.stack(errors).max().item()


def has_bfloat16(device):
    """Return True if a device has instructions for bfloat16: emulation is slow."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = torch.cpu.get_capabilities() if device == "cpu" else {}
    return known.get("avx512_bf16", False) or known.get("amx_bf16", False)


@cache
def gains_by_bfloat16(device):
    """Return True if a device multiplies bfloat16 clearly faster than float32.

    It is timed once in each process, if the device has instructions for bfloat16.
    """
    if not has_bfloat16(device):
        return False
    with undisturbed(device, float32_precision(device)):
        factors = [torch.ones(shape, device=device) for shape in TIMED_SHAPES]
        return multiplies_faster(*factors, torch.float32, torch.bfloat16)


@torch.no_grad()
def multiplies_faster(x, weight, usual, other):
    """Return True if a linear layer is LEAST_GAIN times as fast in dtype `other`.

    The two data types take turns, so that other work on the machine slows both.
    """
    seconds = {usual: [], other: []}
    for _ in range(NUM_TIMINGS):
        for dtype, each in seconds.items():
            each.append(multiply_seconds(x.to(dtype), weight.to(dtype)))
    return min(seconds[usual]) >= LEAST_GAIN * min(seconds[other])


def multiply_seconds(x, weight):
    """Return the seconds that a linear layer takes, until the device has finished."""
    device = torch.get_device_module(x.device)
    device.synchronize()
    start = time.perf_counter()
    F.linear(x, weight)
    device.synchronize()
    return time.perf_counter() - start
