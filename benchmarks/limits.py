"""What this machine can do at most: products of matrices, reading memory."""

import torch
import torch.nn.functional as F

from benchmarks.measure import median_seconds
from support.device.device import fast_math
from support.device.precision import has_bfloat16

DTYPES = {"float32": torch.float32}
if has_bfloat16("cpu"):  # a CPU without it imitates it, so slowly that nobody waits
    DTYPES["bfloat16"] = torch.bfloat16


def product_speed(dtype, num_rows=512, num_columns=3072, runs=50):
    """Operations a second of a linear layer 768 wide, of a step's usual size."""
    factors = torch.randn(num_rows, 768), torch.randn(num_columns, 768)
    factors = [factor.to(dtype) for factor in factors]
    seconds = median_seconds(lambda: factors, lambda pair: F.linear(*pair), runs)
    return 2 * num_rows * num_columns * 768 / seconds


def read_speed(megabytes=512, runs=10):
    """Bytes a second that a sum over a block of memory reads."""
    block = torch.ones(megabytes * 250_000)  # float32
    return 4 * block.numel() / median_seconds(lambda: block, torch.sum, runs)


def measure_limits():
    """What this machine does in a second: {what: operations, or bytes of memory}.

    "default" is float32 as PyTorch multiplies it unasked; the others are measured after
    `fast_math`, which leaves float32 as exact.
    """
    limits = {"default": product_speed(torch.float32)}
    fast_math("cpu")
    limits |= {name: product_speed(dtype) for name, dtype in DTYPES.items()}
    return limits | {"memory": read_speed()}
