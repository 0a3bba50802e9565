"""Decoding steps at the speed of a CPU's memory: `with FastDecoding(): generate(...)`.

A step multiplies every weight matrix by one vector for each text, so it takes as long
as the weights take to come from memory. MKL, with which PyTorch multiplies float32 on
x86, lets a single core read them on some processors. In a batched matrix multiplication
each core reads its own share of the rows. `benchmarks.decoding` measures both.
"""

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from support.device.precision import matmul_precision

FEW_ROWS = 4  # up to here, splitting the matrix is faster


class FastDecoding(TorchFunctionMode):
    """A `with` block in which linear layers on few vectors split their matrix.

    This is for float32 on a CPU with MKL, and the results are float32. At "medium"
    precision oneDNN is fast with several rows, so only single rows are split. Attention
    does not use oneDNN, which takes long to start on many small matrices.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.linear and is_split_faster(*args[:2]):
            func = split_linear
        if func in (split_linear, F.scaled_dot_product_attention):
            with matmul_precision("highest"):
                return func(*args, **kwargs)
        return func(*args, **kwargs)


def is_split_faster(x, weight):
    """Return True for few rows x, (..., in_features), of float32 on a CPU with MKL."""
    is_float32 = weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    has_mkl = weight.device.type == "cpu" and torch.backends.mkl.is_available()
    is_exact = torch.get_float32_matmul_precision() == "highest"
    num_rows = x.numel() // weight.shape[1]
    return is_float32 and has_mkl and num_rows <= (FEW_ROWS if is_exact else 1)


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
