"""Decoding steps in float32, as fast as this CPU can: `with fast_decoding(): ...`.

A step multiplies every weight matrix by one vector for each text, so it takes as long
as the weights take to come from memory. Which way reads them fastest depends on the
processor and on the number of texts: PyTorch's usual way (on x86 that of MKL), the one
that "medium" precision means, or a batched multiplication in which each core reads its
own share of the rows. `benchmarks.decoding` measures them.
"""

from contextlib import contextmanager
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from support.device.choice import fastest
from support.device.precision import float32_precision, matmul_precision

SEVERAL_ROWS = 8  # the number of texts, above one, for which the ways are tried
MOST_ROWS = 32  # of them; more rows are a prompt, multiplied as in training
SHAPES = (2304, 768), (768, 768), (3072, 768), (768, 3072), (16384, 768)  # of weights


class FastLinear(TorchFunctionMode):
    """A `with` block in which linear layers are computed in chosen ways.

    This is for float32 on a CPU, and the results are float32. choose(num_rows) returns
    the name of one of WAYS.
    """

    def __init__(self, choose):
        super().__init__()
        self.choose = choose

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.linear and not kwargs and is_float32_on_cpu(args[1]):
            x, weight = args[:2]
            func = WAYS[self.choose(x.numel() // weight.shape[1])]
        return func(*args, **kwargs)


def is_float32_on_cpu(weight):
    """Return True if a layer with this weight computes in float32 on a CPU."""
    is_float32 = weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return is_float32 and weight.device.type == "cpu"


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
    out = out.t().contiguous().view(*x.shape[:-1], out_features)
    return out if bias is None else out + bias


def medium_linear(x, weight, bias=None):
    """Compute `F.linear` at "medium" precision, and nothing else."""
    with matmul_precision("medium"):
        return F.linear(x, weight, bias)


WAYS = {"plain": F.linear, "split": split_linear, "medium": medium_linear}


def decoding_way(num_rows):
    """Return how this CPU multiplies num_rows vectors fastest: a name of WAYS."""
    if num_rows > MOST_ROWS:
        return "medium" if float32_precision("cpu") == "medium" else "plain"
    return few_rows_way(1 if num_rows == 1 else SEVERAL_ROWS)


@cache
def few_rows_way(num_rows):
    """Try the ways on few rows, and return the name of the fastest."""
    generator = torch.Generator().manual_seed(123)
    draw = partial(torch.randn, generator=generator)
    layers = [(draw(num_rows, shape[1]), draw(shape)) for shape in SHAPES]
    doubled = [(x.double(), weight.double()) for x, weight in layers]
    exact = partial(read_weights, doubled, "plain")
    ways = {name: partial(read_weights, layers, name) for name in WAYS}
    return fastest(f"decoding, {num_rows} rows", ways, exact)


@torch.no_grad()
def read_weights(layers, way):
    """Return linear layers, pairs (x, weight), computed in one of WAYS."""
    with matmul_precision("highest"), torch.autocast("cpu", enabled=False):
        return [WAYS[way](x, weight) for x, weight in layers]


@contextmanager
def fast_decoding(device="cpu", choose=decoding_way):
    """Decode in float32 in the fastest ways of this CPU, in a `with` block.

    choose(num_rows) returns the name of a way for a layer on num_rows vectors.
    """
    if torch.device(device).type != "cpu":
        yield
        return
    with matmul_precision("highest"), FastLinear(choose):
        yield
