"""Where to compute, and how to make it fast (a support module: used, not taught)."""

import ctypes
import os
import platform

import torch

from ch04.gpt import GPT_CONFIG_124M, GPTModel

TINY_CONFIG = GPT_CONFIG_124M | {
    "vocab_size": 97,
    "context_length": 16,
    "emb_dim": 32,
    "n_heads": 4,
    "n_layers": 2,
}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
ONEDNN_CACHE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"  # read at oneDNN's first product


def available_devices():
    """The devices that PyTorch finds here, the one that should be fastest first."""
    found = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    return [name for name, is_there in found.items() if is_there] + ["cpu"]


def agrees_with_cpu(device):
    """True if a tiny GPT gives the CPU's logits on the device, within 0.001."""
    with torch.random.fork_rng():
        torch.manual_seed(123)
        model = GPTModel(TINY_CONFIG).eval()
        token_ids = torch.randint(TINY_CONFIG["vocab_size"], (9, 16))
    with torch.no_grad():
        expected = model(token_ids)
        logits = model.to(device)(token_ids.to(device)).cpu()
    return torch.allclose(logits, expected, atol=1e-3)


def pick_device():
    """LLMS_DEVICE if it is set, else the first device that agrees with the CPU."""
    available = available_devices()
    wanted = os.environ.get("LLMS_DEVICE")
    if wanted and wanted not in available:
        raise ValueError(f"LLMS_DEVICE is {wanted!r}, but this machine has {available}")
    if wanted:
        return torch.device(wanted)
    for name in available[:-1]:
        if agrees_with_cpu(name):
            return torch.device(name)
        print(f"{name} is here but computes other logits than the CPU: not used")
    return torch.device("cpu")


def fast_math(device):
    """Set what makes training on this device fast and leaves float32 results near.

    On a CPU: oneDNN for matrix products (results differ by about 1e-4), and memory kept
    between steps instead of given back to the system and faulted in again (glibc only).
    oneDNN keeps about a megabyte for each shape of product: 128 of them, not 1,024.
    """
    on_cpu = torch.device(device).type == "cpu"
    torch.set_float32_matmul_precision("medium" if on_cpu else "high")
    os.environ.setdefault(ONEDNN_CACHE, "128")
    if on_cpu and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def fast_dtype(device):
    """bfloat16 where the device multiplies it by itself, else float32.

    A CPU that has to imitate it is slow.
    """
    device = torch.device(device)
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        has_bf16 = known.get("avx512_bf16", False) or known.get("amx_bf16", False)
    return torch.bfloat16 if has_bf16 else torch.float32


def autocast(device, dtype):
    """A `with` block whose matrix products are in dtype, bfloat16 or float32.

    In bfloat16 they are two to four times as fast, and have three digits. Weights that
    are trained are cast once for the whole block: do not take a step within it.
    """
    is_bf16 = dtype == torch.bfloat16
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=is_bf16)


def fast_autocast(device):
    """`autocast` to `fast_dtype`: enough for a model that only reads."""
    return autocast(device, fast_dtype(device))
