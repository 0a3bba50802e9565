"""Keep memory that tensors have given back, where that makes new tensors faster.

A training step asks for hundreds of megabytes, gives them back, and asks again. glibc
returns large blocks to the system at once, and the system clears each page anew. It can
be told to keep them.
"""

import ctypes
import platform
from functools import cache, partial

import torch

from support.checks import is_switched_on
from support.device.choice import fastest

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # as glibc's malloc.h numbers its settings
# bytes at the end that are kept, and how many blocks may be the system's own: glibc's
# usual numbers, and all and none (older glibc refuses a high M_MMAP_THRESHOLD instead)
SETTINGS = {"plain": (128 * 1024, 65536), "kept": (-1, 0)}
NUM_NUMBERS = 2**24  # 64 MB; below 32 MB, glibc learns to keep blocks by itself


def keep_memory():
    """Let glibc keep this process's memory, if that is faster here.

    With LLMS_PLAIN it is kept and nothing is measured, because no number depends on it.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    if is_switched_on("LLMS_PLAIN") or memory_way() == "kept":
        set_malloc("kept")


@cache
def memory_way():
    """Return "kept" if new tensors are faster in kept memory, else "plain"."""
    ways = {name: partial(fill_twice, name) for name in SETTINGS}
    return fastest("memory", ways)


def fill_twice(way):
    """Write a large tensor, and then another one, in one of SETTINGS; undo it then."""
    set_malloc(way)
    for _ in range(2):
        torch.ones(NUM_NUMBERS)
    set_malloc("plain")


def set_malloc(way):
    """Tell glibc what it keeps."""
    kept_bytes, num_blocks = SETTINGS[way]
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, num_blocks)
    libc.mallopt(M_TRIM_THRESHOLD, kept_bytes)
