"""Choose how a device multiplies matrices: as exactly as asked, and as fast as it can.

PyTorch has faster ways to multiply float32 matrices. What they compute depends on the
device: "medium" is float32 by another library on many CPUs, but bfloat16 on those with
AMX; "high" is TF32 on most GPUs. So a faster way is tested before it is used. A device
is named by its type here, "cpu" or "cuda".
"""

from contextlib import contextmanager
from functools import cache, partial

import torch
import torch.nn.functional as F

from support.device.choice import fastest

FASTER = {"cpu": "medium"}  # PyTorch's name of the faster way; "high" elsewhere
# x and weight of the layers that are tried: GPT-2's feed-forward layer on 256 tokens,
# the scores of 24 heads, the logits of one token for a part of the vocabulary
SHAPES = (
    ((256, 768), (3072, 768)),
    ((24, 64, 64), (24, 64, 64)),
    ((1, 768), (1024, 768)),
)
LARGE_SHAPE = (512, 768), (3072, 768)
TOKEN_SHAPE = (1, 768), (16384, 768)  # one token, and more weights than most caches
CLEAR_GAIN = 1.2  # for which digits may be given up


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
def undisturbed():
    """Compute float32 exactly on the CPU in a `with` block, without autocast.

    One thread is used there: for little work, more threads only wait for each other,
    which takes seconds on a busy machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with matmul_precision("highest"), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_num_threads(threads)


@cache
def float32_precision(device):
    """Return the faster one of PyTorch's precisions if it is as exact as "highest".

    Otherwise, or if it is not faster here, return "highest".
    """
    generator = torch.Generator().manual_seed(123)
    layers = [[torch.randn(shape, generator=generator) for shape in s] for s in SHAPES]
    doubled = [[factor.double() for factor in factors] for factors in layers]
    exact = partial(multiply_all, doubled, "highest")
    layers = [[factor.to(device) for factor in factors] for factors in layers]
    ways = {
        precision: partial(multiply_all, layers, precision)
        for precision in ("highest", FASTER.get(device, "high"))
    }
    return fastest(f"float32 on {device}", ways, exact)


@torch.no_grad()
def multiply_all(layers, precision):
    """Return the matrix products of layers at this precision, without autocast."""
    device = layers[0][0].device.type
    with matmul_precision(precision), torch.autocast(device, enabled=False):
        found = [y for x, weight in layers for y in multiply(x, weight)]
    torch.get_device_module(device).synchronize()
    return found


def multiply(x, weight):
    """Return the matrix products of a linear layer, forward and backward.

    x is (..., num_tokens, in_features), weight (..., out_features, in_features).
    """
    out = x @ weight.mT  # (..., num_tokens, out_features)
    return out, out @ weight, out.mT @ x


def has_bfloat16(device):
    """Return True if a device has instructions for bfloat16: emulation is slow."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = torch.cpu.get_capabilities() if device == "cpu" else {}
    return known.get("avx512_bf16", False) or known.get("amx_bf16", False)


@cache
def gains_by_bfloat16(device):
    """Return True if a device multiplies bfloat16 clearly faster than float32.

    It is timed only if the device has instructions for bfloat16.
    """
    if not has_bfloat16(device):
        return False
    dtypes = torch.float32, torch.bfloat16
    return faster_dtype(*dtypes, LARGE_SHAPE, device) == torch.bfloat16


def faster_dtype(usual, other, shape, device="cpu"):
    """Return `other` if linear layers of this shape are clearly faster in it."""
    ways, precision = {}, float32_precision(device)
    for dtype in (usual, other):
        factors = [torch.ones(s, device=device, dtype=dtype) for s in shape]
        ways[str(dtype)] = partial(apply_linear, *factors, precision)
    title = f"{other} or {usual} for {shape} on {device}"
    choice = fastest(title, ways, least_gain=CLEAR_GAIN)
    return {str(dtype): dtype for dtype in (usual, other)}[choice]


@torch.no_grad()
def apply_linear(x, weight, precision):
    """Compute a linear layer without autocast, and wait for the device."""
    with matmul_precision(precision), torch.autocast(x.device.type, enabled=False):
        F.linear(x, weight)
    torch.get_device_module(x.device).synchronize()
