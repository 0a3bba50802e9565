"""Decoding measured: `python -m benchmarks.decoding` (some minutes).

GPT-2 124M with random weights goes on from 4 tokens by 200, always the likeliest: ours
without and with the key-value cache, and transformers' `generate` with the same
weights, in one run, at both speeds of float32 products. Trust the ratios: machines
differ, and are noisy.
"""

import statistics
import time
from functools import partial

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.table import Row
from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.decoding import generate
from tests.test_gpt import copy_from_transformers

PROMPT = torch.tensor([[15496, 11, 314, 716]])  # Hello, I am
NUM_TOKENS = 200
RUNS = 3
OURS, THEIRS, UNCACHED = "ours, cached", "transformers", "ours, uncached"


@torch.no_grad()
def twins():
    """transformers' GPT-2 and ours, with the same weights."""
    torch.manual_seed(123)
    theirs = GPT2LMHeadModel(GPT2Config(tie_word_embeddings=False)).eval()
    ours = GPTModel(GPT_CONFIG_124M | {"qkv_bias": True}).eval()
    copy_from_transformers(ours, theirs)
    return ours, theirs


def generate_ours(model, num_tokens, use_cache):
    """Our prompt and its continuation, (1, 4 + num_tokens)."""
    context_size = model.context_length
    return generate(model, PROMPT, num_tokens, context_size, use_cache=use_cache)


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
    """Tokens a second of each writer; AssertionError if they do not write the same."""
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
    text = texts[OURS]
    assert all(torch.equal(other, text) for other in texts.values()), "texts differ"
    return {n: NUM_TOKENS / statistics.median(each) for n, each in seconds.items()}


def measure_rows():
    """Rows of the benchmarks' table, with PyTorch's default float32 products; notes."""
    speeds = measure(create_writers())
    rows = [
        Row("decoding", OURS, peer, speeds[OURS], speeds[peer], "tokens/s", goal)
        for peer, goal in ((THEIRS, 1.0), (UNCACHED, None))
    ]
    return rows, []


def create_writers():
    """What writes a continuation of num_tokens, by name."""
    ours, theirs = twins()
    return {
        OURS: partial(generate_ours, ours, use_cache=True),
        THEIRS: partial(generate_theirs, theirs),
        UNCACHED: partial(generate_ours, ours, use_cache=False),
    }


def main():
    """Measure with PyTorch's default float32 products and with the faster ones."""
    writers = create_writers()
    threads = torch.get_num_threads()
    for precision in ("highest", "medium"):
        torch.set_float32_matmul_precision(precision)
        print(f'float32 matmul precision "{precision}", {threads} threads')
        speeds = measure(writers)
        for name, speed in speeds.items():
            print(f"  {name:14} {speed:6.1f} tokens/s")
        print(f"  cached / uncached:   {speeds[OURS] / speeds[UNCACHED]:5.2f}")
        print(f"  ours / transformers: {speeds[OURS] / speeds[THEIRS]:5.2f}")


if __name__ == "__main__":
    main()
