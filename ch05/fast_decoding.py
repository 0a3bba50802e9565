"""Steps of decoding at the speed of a CPU's memory (5.3; used, not taught).

A step multiplies every weight matrix with one vector for each text: it takes as long as
the weights take to come from memory. MKL, by which PyTorch multiplies float32 on x86,
leaves this reading to one core on some processors. Written as a batched product, each
core reads its own share of a matrix's rows. `benchmarks.decoding` measures both.
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from ch03.attention import MultiHeadAttention
from ch04.gpt import GPTModel, TransformerBlock
from ch05.llama import GroupedQueryAttention, LlamaBlock, LlamaModel

CACHEABLE = {GPTModel, TransformerBlock, MultiHeadAttention}
CACHEABLE |= {LlamaModel, LlamaBlock, GroupedQueryAttention}
FEW_ROWS = 4  # up to here a product in shares is the faster one


class SplitLinear(TorchFunctionMode):
    """Within it, a linear layer on few vectors shares its matrix among the cores."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and args[0].numel() <= FEW_ROWS * args[0].shape[-1]:
            return split_linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


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

    On a CPU, attention of single tokens to many is then the faster one: oneDNN, which
    multiplies at "medium" precision, takes long to begin each of many small matrices.
    "medium" is float32 wherever `fast_math` has set it, and bfloat16 on some CPUs if a
    reader has; in the block it is float32 on all.
    """
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


@contextmanager
def fast_linears(model, num_rows):
    """Let a model's linear layers be fast on a new token of each row, or do nothing.

    That is for few rows of float32 on a CPU with MKL, and what it computes is float32.
    Several rows at "medium" precision are left to oneDNN, which is fast with them.
    """
    weight = model.tok_emb.weight
    is_float32 = weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    has_mkl = weight.device.type == "cpu" and torch.backends.mkl.is_available()
    is_exact = torch.get_float32_matmul_precision() == "highest"
    if is_float32 and has_mkl and num_rows <= (FEW_ROWS if is_exact else 1):
        with full_precision(), SplitLinear():
            yield
    else:
        yield


def is_cacheable(model):
    """True for a model whose parts are the course's own: `forward_cached` knows them.

    A module of yours, or a subclass of ours, may compute something else.
    """
    blocks = list(getattr(model, "trf_blocks", ()))
    parts = [model, *blocks, *(getattr(block, "att", None) for block in blocks)]
    return {type(part) for part in parts} <= CACHEABLE
