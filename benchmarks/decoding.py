"""Decoding measured: `python -m benchmarks.decoding` (some minutes).

GPT-2 124M with random weights goes on from 4 tokens by 200, always the likeliest: ours
without and with the key-value cache, within `fast_decoding`, with 16-bit weights, for
eight prompts at once, and in each of the ways that `fast_decoding` chooses from; a bare
loop over the same weights, for one prompt and for eight; and transformers' `generate`,
with the same weights and with bfloat16 weights. All of them in one run, in float32
unless said otherwise. Trust the ratios: machines differ, and are noisy.
"""

import copy
import statistics
import time
from functools import partial

import torch
from transformers import GPT2LMHeadModel

from benchmarks.bare_loop import generate_bare
from benchmarks.measure import IS_QUICK
from benchmarks.table import Row
from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.decoding import generate
from support.device.fast_decoding import WAYS, decoding_way, fast_decoding
from support.device.half_precision import (
    faster_half_dtype,
    half_precision_copy,
    logit_error,
)
from support.device.precision import has_bfloat16
from support.download.fetch import downloads_folder
from support.weights.pretrained import load_pretrained
from support.weights.reference import copy_from_transformers, transformers_config
from support.weights.smollm2 import GGUF

CONFIG = GPT_CONFIG_124M | {"qkv_bias": True}  # as transformers' GPT-2 has it
PROMPT = torch.tensor([[15496, 11, 314, 716]])  # Hello, I am
NUM_TOKENS = 60 if IS_QUICK else 200
NUM_PROMPTS = 8  # at once
ROUNDS = 1 if IS_QUICK else 5
OURS, FAST, BARE = "ours, cached", "ours, fast_decoding", "bare loop"
UNCACHED, MANY = "ours, uncached", f"ours, {NUM_PROMPTS} prompts"
BARE_MANY = f"bare loop, {NUM_PROMPTS} prompts"
HALF, THEIRS = "ours, 16-bit weights", "transformers"
HALF_MANY = f"{HALF}, {NUM_PROMPTS} prompts"
THEIRS_HALF = "transformers, bfloat16"
EACH_WAY = {f"ours, {way}": way for way in WAYS}
# they write the text that OURS writes
EXACT = FAST, BARE, MANY, BARE_MANY, THEIRS, UNCACHED, *EACH_WAY
COMPARED = (  # ours, a peer, the goal
    (OURS, THEIRS, None),
    (FAST, THEIRS, 1.3),
    (FAST, BARE, 0.9),
    (HALF, THEIRS_HALF, 1.2),
    (MANY, FAST, 4.0),
    (MANY, BARE_MANY, 0.9),
    (HALF_MANY, MANY, None),
    (FAST, UNCACHED, None),
)
# most error of logits with 16-bit weights, in their standard deviations
MOST_OFF = {torch.float16: 0.02, torch.bfloat16: 0.1}


@torch.no_grad()
def twins(cfg=CONFIG):
    """transformers' GPT-2 and ours, with the same weights."""
    torch.manual_seed(123)
    theirs = GPT2LMHeadModel(transformers_config(cfg)).eval()
    ours = GPTModel(cfg).eval()
    copy_from_transformers(ours, theirs)
    return ours, theirs


def generate_ours(model, prompt, num_tokens, use_cache=True):
    """A prompt, (1, n), and its continuation, (1, n + num_tokens), by our model."""
    context_size = model.context_length
    return generate(model, prompt, num_tokens, context_size, use_cache=use_cache)


def many(prompt):
    """The same prompt NUM_PROMPTS times."""
    return prompt.expand(NUM_PROMPTS, -1)


def within(write, choose=decoding_way):
    """write(num_tokens) within `fast_decoding`."""

    def write_fast(num_tokens):
        with fast_decoding(choose=choose):
            return write(num_tokens=num_tokens)

    return write_fast


def generate_theirs(model, prompt, num_tokens):
    """The same by transformers, which caches too and attends by the same function."""
    assert model.config._attn_implementation == "sdpa"
    return model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=num_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=None,
        pad_token_id=0,
    )


def measure(writers):
    """Tokens a second of each writer, in each round: {name: [speed, ...]}.

    RuntimeError if EXACT ones write another text. They take turns, so that a
    disturbance meets them all.
    """
    speeds, texts = {name: [] for name in writers}, {}
    for write in writers.values():
        write(num_tokens=8)  # the first run is slower
    for run in range(ROUNDS):
        for name, write in writers.items():
            if name == UNCACHED and run > 0:
                continue  # slow, and far from the others: once is enough
            start = time.perf_counter()
            texts[name] = write(num_tokens=NUM_TOKENS)
            seconds = time.perf_counter() - start
            speeds[name].append(len(texts[name]) * NUM_TOKENS / seconds)
    for name in EXACT:
        if not torch.equal(texts[name], texts[OURS].expand_as(texts[name])):
            raise RuntimeError(f"{name} and {OURS} write different texts")
    return speeds


def measure_rows():
    """Rows of the benchmarks' table, and notes."""
    writers, notes = create_writers()
    speeds = measure(writers)
    rows = [
        Row("decoding", name, peer, speeds[name], speeds[peer], "tokens/s", goal)
        for name, peer, goal in COMPARED
        if peer in speeds  # without bfloat16, one is missing
    ]
    return rows, [*notes, describe_ways()]


def describe_ways():
    """A sentence about what `fast_decoding` chooses."""
    one, several = (decoding_way(num_rows) for num_rows in (1, NUM_PROMPTS))
    return (
        f"`fast_decoding` chooses {one!r} here for one prompt, and {several!r} for "
        f"{NUM_PROMPTS}."
    )


def create_writers():
    """What writes a continuation of num_tokens, by name; notes on half precision."""
    ours, theirs = twins()
    halved = half_precision_copy(ours)
    cached = partial(generate_ours, ours, PROMPT)
    writers = {
        OURS: cached,
        FAST: within(cached),
        BARE: within(partial(generate_bare, ours, PROMPT)),
        MANY: within(partial(generate_ours, ours, many(PROMPT))),
        BARE_MANY: within(partial(generate_bare, ours, many(PROMPT))),
        HALF: partial(generate_ours, halved, PROMPT),
        HALF_MANY: partial(generate_ours, halved, many(PROMPT)),
        THEIRS: partial(generate_theirs, theirs, PROMPT),
        UNCACHED: partial(generate_ours, ours, PROMPT, use_cache=False),
    }
    if has_bfloat16("cpu"):
        halved_theirs = copy.deepcopy(theirs).bfloat16()
        writers[THEIRS_HALF] = partial(generate_theirs, halved_theirs, PROMPT)
    for name, way in EACH_WAY.items():
        writers[name] = within(cached, choose=lambda num_rows, way=way: way)
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
    """Measure, and print the speed of each and the ratios."""
    writers, notes = create_writers()
    print(*notes, describe_ways(), f"{torch.get_num_threads()} threads", sep="\n")
    speeds = measure(writers)
    for name, found in speeds.items():
        print(f"  {name:22} {statistics.median(found):6.1f} tokens/s", end=" ")
        print(f"({min(found):.1f} to {max(found):.1f})")
    for name, peer, _ in COMPARED:
        if peer in speeds:
            row = Row("decoding", name, peer, speeds[name], speeds[peer], "tokens/s")
            print(f"  {name} / {peer}: {row.ratio:.2f}")


if __name__ == "__main__":
    main()
