"""Decoding measured: `python -m benchmarks.decoding` (some minutes).

GPT-2 124M with random weights goes on from 4 tokens by 200, always the likeliest: ours
without and with the key-value cache, ours readied with smaller weights, and
transformers' `generate` with the same weights, in one run, in float32. Where there are
two ways to multiply it exactly (`ch05/precision.py`), both are measured. Trust the
ratios: machines differ, and are noisy.
"""

import statistics
import time
from functools import partial

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.table import Row
from ch02.fetch import downloads_folder
from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.decoding import generate
from ch05.precision import float32_precision
from ch05.pretrained import load_pretrained
from ch05.readied import CLASSES, logit_error, ready_for_decoding
from ch05.smollm2 import GGUF
from tests.test_gpt import copy_from_transformers

PROMPT = torch.tensor([[15496, 11, 314, 716]])  # Hello, I am
NUM_TOKENS = 200
RUNS = 5
OURS, THEIRS, UNCACHED = "ours, cached", "transformers", "ours, uncached"
HALF, INT8 = "ours, float16 weights", "ours, int8 weights"
EXACT = OURS, THEIRS, UNCACHED  # they write the same text
MOST_OFF = 0.02  # of the logits' spread, with float16 weights


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
            (HALF, THEIRS, 3.0),
            (INT8, THEIRS, 5.0),
            (OURS, UNCACHED, None),
        )
    ]
    return rows, notes


def create_writers():
    """What writes a continuation of num_tokens, by name; notes on readied models."""
    ours, theirs = twins()
    copies = {weights: ready_for_decoding(ours, weights) for weights in CLASSES}
    writers = {
        OURS: partial(generate_ours, ours, use_cache=True),
        HALF: partial(generate_ours, copies["float16"], use_cache=True),
        INT8: partial(generate_ours, copies["int8"], use_cache=True),
        THEIRS: partial(generate_theirs, theirs),
        UNCACHED: partial(generate_ours, ours, use_cache=False),
    }
    errors = measure_errors(ours, copies, PROMPT, NUM_TOKENS)
    if (off := errors["float16"][0]) > MOST_OFF:
        raise RuntimeError(f"float16 weights put logits off by {off:.1%}")
    return writers, [*describe_errors("random weights", errors), *trained_notes()]


def measure_errors(model, copies, prompt, num_tokens):
    """How readied copies, {weights: model}, differ from the one that they are made of.

    {weights: (`logit_error` on what the model writes, how many of its tokens a copy
    writes before another one)}.
    """
    text = generate(model, prompt, num_tokens, model.context_length)[0]
    errors = {}
    for weights, readied in copies.items():
        found = generate(readied, prompt, num_tokens, model.context_length)[0]
        num_same = int((found == text).cumprod(0).sum()) - prompt.shape[1]
        errors[weights] = logit_error(model, readied, text.tolist()), num_same
    return errors


def describe_errors(whose, errors):
    """A sentence for each kind of weights."""
    return [
        f"Readied with {weights} weights, logits of {whose} are off by at most "
        f"{off:.1%} of their spread; the first {num_same} tokens are the same."
        for weights, (off, num_same) in errors.items()
    ]


def trained_notes():
    """`describe_errors` of SmolLM2, if its file is here."""
    if not (downloads_folder() / "smollm2" / GGUF).is_file():
        return [
            "SmolLM2's logits: run `python -m ch05.pretrained get smollm2-135M` first."
        ]
    trained = load_pretrained("smollm2-135M")
    prompt = torch.tensor([trained.tokenizer.encode("The capital of France is")])
    copies = {
        weights: ready_for_decoding(trained.model, weights) for weights in CLASSES
    }
    errors = measure_errors(trained.model, copies, prompt, num_tokens=40)
    return describe_errors("SmolLM2-135M", errors)


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
        for name in (OURS, HALF, INT8):
            print(f"  {name} / transformers: {speeds[name] / speeds[THEIRS]:.2f}")


if __name__ == "__main__":
    main()
