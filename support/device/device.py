"""Where to compute, and how to make it fast (a support module: used, not taught)."""

import ctypes
import json
import os
import platform
import statistics
import time
from contextlib import suppress
from functools import cache

import torch
import torch.nn.functional as F

from ch04.gpt import GPT_CONFIG_124M
from support.device.precision import float32_precision, gains_by_bfloat16, has_bfloat16
from support.device.self_test import draw, find_faults, find_unchecked_ids, seeding
from support.download.files import write_atomically
from support.paths import MODELS

CHOICE = MODELS / "device.json"
# what a step is measured with: GPT-2's width, few blocks and a small vocabulary
STEP_CONFIG = GPT_CONFIG_124M | {"vocab_size": 4096, "n_layers": 2}
NUM_TIMED = 5  # steps, or as many of them as begin within two seconds
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
ONEDNN_CACHE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"  # read when oneDNN is first used


def available_devices():
    """The devices that PyTorch finds here, the one that should be fastest first."""
    found = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    return [name for name, is_there in found.items() if is_there] + ["cpu"]


def pick_device():
    """LLMS_DEVICE if it is set, else the fastest device here that computes rightly.

    Where there is more than the CPU, each device is tested and a step of training is
    measured, once: the choice is kept on disk until PyTorch or the machine changes.
    """
    available = available_devices()
    wanted = os.environ.get("LLMS_DEVICE")
    if wanted and wanted not in available:
        raise ValueError(f"LLMS_DEVICE is {wanted!r}, but this machine has {available}")
    return torch.device(wanted or fastest_device(tuple(available)))


@cache
def fastest_device(names):
    """The name of the device that trains fastest, of those that pass the self-test.

    The last of the names is the CPU's, which the others are compared with. Prints what
    was found; says nothing if the choice is on disk.
    """
    if kept := read_choice(names):
        return kept
    sound = [name for name in names[:-1] if passes(name)] + [names[-1]]
    if len(sound) == 1:
        return sound[0]
    seconds = {name: seconds_per_step(name) for name in sound}
    choice = min(sound, key=seconds.get)
    each = ", ".join(f"{name} {seconds[name]:.3f}" for name in sound)
    print(f"seconds for a step of training: {each}. {choice} is used")
    if choice != names[-1] and (caution := find_unchecked_ids(choice)):
        print(caution)
    keep_choice(names, choice)
    return choice


def passes(name):
    """True if a device passes the self-test; prints what is wrong with it."""
    dtype = torch.bfloat16 if has_bfloat16(torch.device(name).type) else torch.float32
    faults = find_faults(name, dtype)
    for fault in faults:
        print(f"{fault}. {name} is not used")
    return not faults


def seconds_per_step(device):
    """Seconds of a small GPT's step of training, 2 texts of 256 tokens, made fast."""
    device, seconds = torch.device(device), []
    with seeding(device):
        fast_math(device)
        model, ids = draw(STEP_CONFIG, 2, 257)
        model, ids = model.to(device).train(), ids.to(device)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        take_step(model, optimizer, ids)  # the first one is slower
        while len(seconds) < NUM_TIMED and sum(seconds) < 2:
            start = time.perf_counter()
            take_step(model, optimizer, ids)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def take_step(model, optimizer, ids):
    """Train on ids, (b, num_tokens + 1), and wait until the device is done."""
    optimizer.zero_grad()
    with fast_autocast(ids.device):
        logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    optimizer.step()
    torch.get_device_module(ids.device).synchronize()


def machine_key(names):
    """What the choice of a device depends on, as texts."""
    cards = [torch.cuda.get_device_name()] if "cuda" in names else []
    threads = f"{torch.get_num_threads()} threads"
    system = platform.node(), platform.platform(), str(torch.__version__)
    return [*system, threads, *names, *cards]


def read_choice(names):
    """The device chosen before, here and by this PyTorch; None if there is none."""
    with suppress(OSError, ValueError, TypeError, LookupError):  # gone, or damaged
        kept = json.loads(CHOICE.read_text(encoding="utf-8"))
        if kept[:-1] == machine_key(names) and kept[-1] in names:
            return kept[-1]
    return None


def keep_choice(names, choice):
    """Write a choice down, for the next notebook; do without if it cannot be done."""
    with suppress(OSError):
        content = json.dumps([*machine_key(names), choice], indent=1)
        write_atomically(CHOICE, content.encode())


def fast_math(device):
    """Set what usually makes training faster on this device; float32 stays float32.

    The faster ones of PyTorch's matrix multiplications where they are as exact as the
    usual ones: on many CPUs those of oneDNN. On a CPU with glibc, memory is also kept
    between steps instead of given back to the system and faulted in again. oneDNN keeps
    about a megabyte for each shape of matrices: 128 of them, not 1,024.
    """
    device_type = torch.device(device).type
    os.environ.setdefault(ONEDNN_CACHE, "128")
    torch.set_float32_matmul_precision(float32_precision(device_type))
    if device_type == "cpu" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)  # older glibc refuse a high M_MMAP_THRESHOLD
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never, however much is free


def fast_dtype(device):
    """bfloat16 where this device multiplies it clearly faster, else float32.

    That is measured, once in a process, beside float32 as `fast_math` sets it.
    """
    gains = gains_by_bfloat16(torch.device(device).type)
    return torch.bfloat16 if gains else torch.float32


def autocast(device, dtype):
    """A `with` block whose matrix multiplications are in dtype, bfloat16 or float32.

    bfloat16 has two to three digits, and is often faster: `fast_dtype` says where.
    Weights that are trained are cast once for the whole block: do not take a step
    within it.
    """
    is_bf16 = dtype == torch.bfloat16
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=is_bf16)


def fast_autocast(device):
    """`autocast` to `fast_dtype`: enough for a model that only reads."""
    return autocast(device, fast_dtype(device))
