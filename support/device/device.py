"""Choose the device that computes, and make it fast."""

import os
import statistics
from functools import cache, partial

import torch
import torch.nn.functional as F

from ch04.gpt import GPT_CONFIG_124M
from support.device.choice import recall, remember, time_call
from support.device.kept_memory import keep_memory
from support.device.precision import (
    float32_precision,
    gains_by_bfloat16,
    has_bfloat16,
    matmul_precision,
)
from support.device.self_test import draw, find_faults, seeding

# what is timed: steps of a model of GPT-2's width, few blocks and a small vocabulary
STEP_CONFIG = GPT_CONFIG_124M | {"vocab_size": 4096, "n_layers": 2}
NUM_TIMED = 3  # steps, after one that does not count
ONEDNN_CACHE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"  # read when oneDNN is first used


def available_devices():
    """List the devices that PyTorch finds, the one that should be fastest first."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return ([accelerator.type] if accelerator else []) + ["cpu"]


def pick_device():
    """Return LLMS_DEVICE if it is set, else the fastest device that computes correctly.

    Where there is more than the CPU, each device is tested and steps of training are
    timed, once: the choice is kept on disk until PyTorch or the machine changes.
    """
    available = available_devices()
    wanted = os.environ.get("LLMS_DEVICE")
    if wanted and wanted not in available:
        raise ValueError(
            f"LLMS_DEVICE is {wanted!r}, but this machine has {available}: set it to "
            "one of them, or unset it"
        )
    return torch.device(wanted or fastest_device(tuple(available)))


@cache
def fastest_device(names):
    """Return the name of the device that trains fastest and passes the self-test.

    The last name is the CPU's, with which the others are compared. Prints what was
    found, but nothing if the choice is on disk.
    """
    title = f"device of {', '.join(names)}"
    if (known := recall(title)) in names:
        return known
    sound = [name for name in names[:-1] if passes_self_test(name)] + [names[-1]]
    if len(sound) == 1:
        return sound[0]
    seconds = {name: seconds_per_step(name) for name in sound}
    choice = min(sound, key=seconds.get)
    each = ", ".join(f"{name} {seconds[name]:.3f}" for name in sound)
    print(f"seconds per training step: {each}. {choice} is used")
    remember(title, choice)
    return choice


def passes_self_test(name):
    """Return True if a device passes the self-test; print its faults otherwise."""
    dtype = torch.bfloat16 if has_bfloat16(torch.device(name).type) else torch.float32
    faults = find_faults(name, dtype)
    for fault in faults:
        print(f"{fault}. {name} is not used")
    return not faults


def seconds_per_step(device):
    """Return the seconds of a small GPT's training step, 2 texts of 256 tokens."""
    device = torch.device(device)
    with seeding(device), matmul_precision("highest"):  # restores what is set here
        fast_math(device)
        model, ids = draw(STEP_CONFIG, 2, 257)
        model, ids = model.to(device).train(), ids.to(device)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        step = partial(take_step, model, optimizer, ids)
        seconds = [time_call(step) for _ in range(1 + NUM_TIMED)]
    return statistics.median(seconds[1:])  # the first step is slower


def take_step(model, optimizer, ids):
    """Train on ids, (b, num_tokens + 1), and wait until the device has finished."""
    optimizer.zero_grad()
    with fast_autocast(ids.device):
        logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    optimizer.step()
    torch.get_device_module(ids.device).synchronize()


def fast_math(device):
    """Set what makes training faster on this machine; float32 stays float32.

    PyTorch's faster matrix multiplication is used where it is as exact as the usual one
    and faster, and memory is kept between steps where that is faster. oneDNN keeps
    about a megabyte for each shape of matrices, so it may keep 128 shapes instead of
    1,024.
    """
    device_type = torch.device(device).type
    os.environ.setdefault(ONEDNN_CACHE, "128")
    torch.set_float32_matmul_precision(float32_precision(device_type))
    if device_type == "cpu":
        keep_memory()


def fast_dtype(device):
    """Return bfloat16 if this device multiplies it clearly faster, else float32."""
    gains = gains_by_bfloat16(torch.device(device).type)
    return torch.bfloat16 if gains else torch.float32


def autocast(device, dtype):
    """Multiply matrices in dtype, bfloat16 or float32, in a `with` block.

    bfloat16 has two to three digits. Weights that are trained are cast once for the
    whole block, so do not take an optimizer step within it.
    """
    is_bf16 = dtype == torch.bfloat16
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=is_bf16)


def fast_autocast(device):
    """`autocast` to `fast_dtype`: enough for a model that is only evaluated."""
    return autocast(device, fast_dtype(device))
