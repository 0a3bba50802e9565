"""Decoding steps in float32, as fast as this CPU can: `with fast_decoding(): ...`.

A step multiplies every weight matrix by one vector for each text, so it takes as long
as the weights take to come from memory. Which way reads them fastest depends on the
processor: PyTorch's usual one (on x86 that of MKL), the one that "medium" precision
means, or a batched multiplication in which each core reads its own share of the rows.
`benchmarks.decoding` measures them.
"""

from contextlib import contextmanager
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from support.device.choice import fastest
from support.device.precision import matmul_precision

FEW_ROWS = 4  # up to here, splitting the matrix may be faster
SHAPES = (2304, 768), (768, 768), (3072, 768), (768, 3072), (16384, 768)  # of weights


class SplitLinear(TorchFunctionMode):
    """A `with` block in which linear layers on few vectors split their matrix.

    This is for float32 on a CPU, and the results are float32.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and is_few_rows(*args[:2]):
            func = split_linear
        return func(*args, **(kwargs or {}))


def is_few_rows(x, weight):
    """Return True for few rows x, (..., in_features), of float32 on a CPU."""
    is_float32 = weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    num_rows = x.numel() // weight.shape[1]
    return is_float32 and weight.device.type == "cpu" and num_rows <= FEW_ROWS


def split_linear(x, weight, bias=None):
    """Compute `F.linear` of few rows x, (..., in_features), as a batch of parts."""
    num_parts = torch.get_num_threads()
    out_features, in_features = weight.shape
    num_split = out_features - out_features % num_parts
    parts = weight[:num_split].view(num_parts, -1, in_features)
    columns = x.reshape(-1, in_features).t()  # MKL is fast with these strides
    out = torch.bmm(parts, columns.expand(num_parts, -1, -1))  # (parts, ..., num_rows)
    out = out.flatten(0, 1)
    if num_split < out_features:
        out = torch.cat([out, weight[num_split:] @ columns])
    out = out.t().reshape(*x.shape[:-1], out_features)
    return out if bias is None else out + bias


@cache
def decoding_way():
    """Return how this CPU multiplies a vector fastest: "plain", "split" or "medium"."""
    generator = torch.Generator().manual_seed(123)
    layers = [torch.randn(2, *shape, generator=generator) for shape in SHAPES]
    layers = [(w[0, :1], w[1]) for w in layers]
    doubled = [(x.double(), weight.double()) for x, weight in layers]
    exact = partial(read_weights, doubled, WAYS["plain"])
    ways = {name: partial(read_weights, layers, way) for name, way in WAYS.items()}
    return fastest("decoding", ways, exact)


@torch.no_grad()
def read_weights(layers, way):
    """Return linear layers of one vector each, computed in one of WAYS."""
    with way(), torch.autocast("cpu", enabled=False):
        return [F.linear(x, weight) for x, weight in layers]


@contextmanager
def split_at_highest():
    """A `with` block of SplitLinear, exact beside it too."""
    with matmul_precision("highest"), SplitLinear():
        yield


WAYS = {
    "plain": partial(matmul_precision, "highest"),
    "split": split_at_highest,
    "medium": partial(matmul_precision, "medium"),
}


@contextmanager
def fast_decoding(device="cpu"):
    """Decode in float32 in the fastest way of this CPU, in a `with` block."""
    if torch.device(device).type != "cpu":
        yield
        return
    with WAYS[decoding_way()]():
        yield
