"""A linear layer on a single token, at the speed of a CPU's memory (5.3).

A step of decoding multiplies every weight matrix with one vector: it takes as long as
the weights take to come from memory. MKL, which computes PyTorch's float32 products on
x86, leaves this reading to one core. Written as a batched product, each core reads its
own share of a matrix's rows. `benchmarks.decoding` measures the difference.
"""

from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


class SplitLinear(TorchFunctionMode):
    """Within it, a linear layer on one vector shares its matrix among the cores."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and args[0].numel() == args[0].shape[-1]:
            return split_linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def split_linear(x, weight, bias=None):
    """`F.linear` of one vector x, (..., in_features), as one batched product."""
    num_parts = torch.get_num_threads()
    out_features, in_features = weight.shape
    num_split = out_features - out_features % num_parts
    parts = weight[:num_split].view(num_parts, -1, in_features)
    column = x.reshape(1, in_features).t()  # strides that MKL's fast way asks for
    out = torch.bmm(parts, column.expand(num_parts, -1, -1)).flatten()
    if num_split < out_features:
        out = torch.cat([out, weight[num_split:] @ column.flatten()])
    out = out.view(*x.shape[:-1], out_features)
    return out if bias is None else out + bias


@contextmanager
def fast_matvec(model, num_rows):
    """Let a model be fast on a single token, on a CPU; elsewhere do nothing.

    The products of "medium" precision take long to begin, and save nothing where
    reading takes the time: full precision is faster. Where MKL multiplies float32, the
    linear layers share their matrices.
    """
    weight = model.tok_emb.weight
    is_cast = torch.is_autocast_enabled("cpu")
    if num_rows > 1 or weight.device.type != "cpu" or is_cast:
        yield
        return
    has_mkl = weight.dtype == torch.float32 and torch.backends.mkl.is_available()
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with SplitLinear() if has_mkl else nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
