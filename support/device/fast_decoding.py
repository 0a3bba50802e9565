"""Decoding steps at the speed of a CPU's memory: `with FastDecoding(): generate(...)`.

A step multiplies every weight matrix with one vector for each text: it takes as long as
the weights take to come from memory. MKL, by which PyTorch multiplies float32 on x86,
leaves this reading to one core on some processors. Written as a batched product, each
core reads its own share of a matrix's rows. `benchmarks.decoding` measures both.
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

FEW_ROWS = 4  # up to here a product in shares is the faster one


class FastDecoding(TorchFunctionMode):
    """Within it, linear layers on few vectors share their matrix among the cores.

    That is for float32 on a CPU with MKL, and what it computes is float32. Several rows
    at "medium" precision are left to oneDNN, which is fast with them; attention is not,
    since oneDNN takes long to begin each of many small matrices.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.linear and is_split_faster(*args[:2]):
            with full_precision():
                return split_linear(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            with full_precision():
                return func(*args, **kwargs)
        return func(*args, **kwargs)


def is_split_faster(x, weight):
    """True for few rows x, (..., in_features), of float32 on a CPU with MKL."""
    is_float32 = weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    has_mkl = weight.device.type == "cpu" and torch.backends.mkl.is_available()
    is_exact = torch.get_float32_matmul_precision() == "highest"
    num_rows = x.numel() // weight.shape[1]
    return is_float32 and has_mkl and num_rows <= (FEW_ROWS if is_exact else 1)


def split_linear(x, weight, bias=None):
    """`F.linear` of few rows x, (..., in_features), as one batched product."""
    num_parts = torch.get_num_threads()
    out_features, in_features = weight.shape
    num_split = out_features - out_features % num_parts
    parts = weight[:num_split].view(num_parts, -1, in_features)
    columns = x.reshape(-1, in_features).t()  # strides that MKL's fast way asks for
    out = torch.bmm(parts, columns.expand(num_parts, -1, -1))  # (parts, ..., num_rows)
    out = out.flatten(0, 1)
    if num_split < out_features:
        out = torch.cat([out, weight[num_split:] @ columns])
    out = out.t().reshape(*x.shape[:-1], out_features)
    return out if bias is None else out + bias


@contextmanager
def full_precision():
    """Let PyTorch multiply float32 in its usual way in a `with` block.

    "medium" precision is float32 wherever `fast_math` has set it, and bfloat16 on some
    CPUs if a reader has; in the block it is float32 on all.
    """
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
