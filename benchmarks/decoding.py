"""Decoding measured: `python -m benchmarks.decoding` (some minutes).

GPT-2 124M with random weights goes on from 4 tokens by 200, always the likeliest: ours
without and with the key-value cache, within `FastDecoding`, with 16-bit weights, and
transformers' `generate` with the same weights, in one run, in float32. Where there are
two ways to multiply it exactly (`support/device/precision.py`), both are measured.
Trust the ratios: machines differ, and are noisy.
"""

import statistics
import time
from functools import partial

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.table import Row
from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.decoding import generate
from support.device.fast_decoding import FastDecoding
from support.device.half_precision import (
    faster_half_dtype,
    half_precision_copy,
    logit_error,
)
from support.device.precision import float32_precision
from support.download.fetch import downloads_folder
from support.weights.pretrained import load_pretrained
from support.weights.reference import copy_from_transformers
from support.weights.smollm2 import GGUF

PROMPT = torch.tensor([[15496, 11, 314, 716]])  # Hello, I am
NUM_TOKENS = 200
RUNS = 5
OURS, THEIRS, UNCACHED = "ours, cached", "transformers", "ours, uncached"
FAST, HALF = "ours, FastDecoding", "ours, 16-bit weights"
EXACT = OURS, FAST, THEIRS, UNCACHED  # they write the same text
# most error of logits with 16-bit weights, in their standard deviations
MOST_OFF = {torch.float16: 0.02, torch.bfloat16: 0.1}


@torch.no_grad()
def twins():
    """transformers' GPT-2 and ours, with the same weights."""
    torch.manual_seed(123)
    theirs = GPT2LMHeadModel(GPT2Config()).eval()
    ours = GPTModel(GPT_CONFIG_124M | {"qkv_bias": True}).eval()
    copy_from_transformers(ours, theirs)
    return ours, theirs


def generate_ours(model, num_tokens, use_cache):
    """Our prompt and its continuation, (1, 4 + num_tokens)."""
    context_size = model.context_length
    return generate(model, PROMPT, num_tokens, context_size, use_cache=use_cache)


def generate_fast(model, num_tokens):
    """The same within `FastDecoding`."""
    with FastDecoding():
        return generate_ours(model, num_tokens, use_cache=True)


def generate_theirs(model, num_tokens):
    """The same by transformers, which caches too and attends by the same function."""
    assert model.config._attn_implementation == "sdpa"
    return model.generate(
        PROMPT,
        attention_mask=torch.ones_like(PROMPT),
        max_new_tokens=num_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=None,
        pad_token_id=0,
    )


def measure(writers):
    """Tokens a second of each writer; AssertionError if EXACT ones write two texts."""
    seconds, texts = {name: [] for name in writers}, {}
    for write in writers.values():
        write(num_tokens=8)  # the first run is slower
    for run in range(RUNS):  # in turn, so that a disturbance meets them all
        for name, write in writers.items():
            if name == UNCACHED and run > 0:
                continue  # slow, and far from the others: once is enough
            start = time.perf_counter()
            texts[name] = write(num_tokens=NUM_TOKENS)
            seconds[name].append(time.perf_counter() - start)
    assert all(torch.equal(texts[n], texts[OURS]) for n in EXACT), "texts differ"
    return {n: NUM_TOKENS / statistics.median(each) for n, each in seconds.items()}


def measure_rows():
    """Rows of the benchmarks' table, float32 as PyTorch multiplies unasked; notes."""
    writers, notes = create_writers()
    speeds = measure(writers)
    rows = [
        Row("decoding", name, peer, speeds[name], speeds[peer], "tokens/s", goal)
        for name, peer, goal in (
            (OURS, THEIRS, 1.0),
            (FAST, THEIRS, None),
            (HALF, THEIRS, 3.0),
            (OURS, UNCACHED, None),
        )
    ]
    return rows, notes


def create_writers():
    """What writes a continuation of num_tokens, by name; notes on half precision."""
    ours, theirs = twins()
    halved = half_precision_copy(ours)
    writers = {
        OURS: partial(generate_ours, ours, use_cache=True),
        FAST: partial(generate_fast, ours),
        HALF: partial(generate_ours, halved, use_cache=True),
        THEIRS: partial(generate_theirs, theirs),
        UNCACHED: partial(generate_ours, ours, use_cache=False),
    }
    off, num_same = measure_error(ours, halved, PROMPT, NUM_TOKENS)
    if off > MOST_OFF[faster_half_dtype()]:
        raise RuntimeError(f"16-bit weights change logits by {off:.1%}")
    return writers, [describe_error("random weights", off, num_same), trained_note()]


def measure_error(model, halved, prompt, num_tokens):
    """How a copy differs from its model: `logit_error`, and the number of equal tokens.

    The latter are what it writes until its first token that is another one.
    """
    text = generate(model, prompt, num_tokens, model.context_length)[0]
    found = generate(halved, prompt, num_tokens, model.context_length)[0]
    num_same = int((found == text).cumprod(0).sum()) - prompt.shape[1]
    return logit_error(model, halved, text.tolist()), num_same


def describe_error(whose, off, num_same):
    """A sentence about what 16-bit weights change."""
    return (
        f"With {faster_half_dtype()} weights, logits of {whose} are off by at most "
        f"{off:.1%} of their standard deviation; the first {num_same} tokens are the "
        "same."
    )


def trained_note():
    """`describe_error` of SmolLM2-135M-Instruct, if its file is here."""
    if not (downloads_folder() / "smollm2" / GGUF).is_file():
        return (
            "SmolLM2's logits: run `python -m support.weights get smollm2-135M` first."
        )
    trained = load_pretrained("smollm2-135M")
    prompt = torch.tensor([trained.tokenizer.encode("The capital of France is")])
    halved = half_precision_copy(trained.model)
    found = measure_error(trained.model, halved, prompt, num_tokens=40)
    return describe_error("SmolLM2-135M-Instruct", *found)


def main():
    """Measure float32 as PyTorch multiplies it unasked, and as `fast_math` sets it."""
    writers, notes = create_writers()
    print(*notes, sep="\n")
    threads = torch.get_num_threads()
    for precision in dict.fromkeys(("highest", float32_precision("cpu"))):
        torch.set_float32_matmul_precision(precision)
        print(f'float32 matmul precision "{precision}", {threads} threads')
        speeds = measure(writers)
        for name, speed in speeds.items():
            print(f"  {name:22} {speed:6.1f} tokens/s")
        print(f"  cached / uncached: {speeds[OURS] / speeds[UNCACHED]:.2f}")
        for name in (OURS, FAST, HALF):
            print(f"  {name} / transformers: {speeds[name] / speeds[THEIRS]:.2f}")


if __name__ == "__main__":
    main()
