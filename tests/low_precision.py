"""Matrix multiplications that keep fewer digits, planted into PyTorch's CPU kernels.

A CPU with AMX computes in bfloat16 when PyTorch is set to "medium" float32 precision,
while most others compute float32. Here every CPU does as if it were such a one:
`python -m pytest --low-precision` runs all tests so, notebooks included.
"""

import warnings
from contextlib import ExitStack, contextmanager

import torch

# which arguments of an operator are the factors
FACTORS = dict.fromkeys(("mm", "mm.out", "bmm", "bmm.out", "mv"), (0, 1))
FACTORS |= {
    f"{name}{variant}": (1, 2)
    for name in ("addmm", "addmv", "addbmm", "baddbmm")
    for variant in ("", "_", ".out")
}
FACTORS["_scaled_dot_product_flash_attention_for_cpu"] = 0, 1, 2
FACTORS["_scaled_dot_product_flash_attention_for_cpu_backward"] = 0, 1, 2, 3
# what a notebook's kernel is told, so that it does the same before the first cell
FIRST_LINE = f"__import__('runpy').run_path({__file__!r})['plant_for_good']()"
KERNEL_ARGUMENTS = [f"--IPKernelApp.exec_lines={FIRST_LINE}"]
for_good = ExitStack()


def to_bfloat16(factor):
    """The nearest numbers with 8 significant bits."""
    return factor.bfloat16().float()


def replaced(name, rounding):
    """The CPU's kernel of an operator; unless "highest", its factors are rounded."""
    kernel, places = torch.library.get_kernel(f"aten::{name}", "CPU"), FACTORS[name]

    def multiply(keys, *args, **kwargs):
        precision = torch.get_float32_matmul_precision()
        if precision == "highest":
            return kernel.call_boxed(keys, *args, **kwargs)
        args = [
            rounding(arg) if i in places and arg.dtype == torch.float32 else arg
            for i, arg in enumerate(args)
        ]
        torch.set_float32_matmul_precision("highest")  # all else is as it should be
        try:
            return kernel.call_boxed(keys, *args, **kwargs)
        finally:
            torch.set_float32_matmul_precision(precision)

    return multiply


@contextmanager
def low_precision(rounding=to_bfloat16):
    """A `with` block in which "medium" and "high" precision round factors on a CPU.

    rounding: what is done to each float32 factor.
    """
    with torch.library._scoped_library("aten", "IMPL") as library:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a kernel takes the place of another
            for name in FACTORS:
                multiply = replaced(name, rounding)
                library.impl(name, multiply, "CPU", with_keyset=True)
        yield


def plant_for_good():
    """Round factors so until this process ends."""
    for_good.enter_context(low_precision())
