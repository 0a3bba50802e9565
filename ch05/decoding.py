"""Decoding: from logits to the next token, from tokens to text (section 5.3).

Shapes: b = batch; logits are (b, vocab_size), or (vocab_size,) for one token.
"""

import math
from functools import partial

import torch

from ch05.kv_cache import CachedLogits, is_cacheable, pad_right
from ch05.training import context_size_of, evaluating
from support.checks import (
    check_number,
    check_rows,
    check_share,
    check_whole,
    is_number,
    is_whole,
)

TOY_VOCAB = ["closer", "every", "effort", "forward", "inches"]
TOY_VOCAB += ["moves", "pizza", "toward", "you"]


def softmax_with_temperature(logits, temperature):
    """Probabilities; a temperature below 1 sharpens them, one above 1 flattens them."""
    if not is_number(temperature) or temperature <= 0:
        raise ValueError(f"temperature must be above 0 here, not {temperature}")
    temperature = max(temperature, 2**-126)  # a smaller one would be 0 in float32
    highest = logits.max(dim=-1, keepdim=True).values  # against overflow
    return torch.softmax((logits - highest) / temperature, dim=-1)


def print_sampled_tokens(probas, vocab=TOY_VOCAB):
    """Draw 1,000 tokens and print how often each word of the vocabulary was drawn."""
    torch.manual_seed(123)
    sample = [torch.multinomial(probas, num_samples=1).item() for _ in range(1_000)]
    for word, count in zip(vocab, torch.tensor(sample).bincount(minlength=len(vocab))):
        print(f"{count} x {word}")


def keep_top_k(probas, top_k):
    """Keep the top_k most probable tokens (Fan et al. 2018, 5.3); the others get 0.

    Among equally probable tokens the first are kept, so that top_k is never exceeded.
    """
    check_whole(top_k=top_k)
    lowest = probas.topk(min(top_k, probas.shape[-1])).values[..., -1:]
    is_kept, is_equal = probas > lowest, probas == lowest
    num_left = top_k - is_kept.sum(dim=-1, keepdim=True)
    is_kept |= is_equal & (is_equal.cumsum(dim=-1) <= num_left)
    kept = probas.masked_fill(~is_kept, 0)
    return kept / kept.sum(dim=-1, keepdim=True)


def keep_top_p(probas, top_p):
    """Keep the fewest tokens with a total of top_p (Holtzman et al. 2020, 3.1).

    The others get 0. The most probable token is always kept.
    """
    check_share(top_p=top_p)
    highest_first, order = probas.sort(dim=-1, descending=True, stable=True)
    total_before = highest_first.cumsum(dim=-1) - highest_first  # before each token
    is_out = torch.zeros_like(probas, dtype=torch.bool)
    is_out.scatter_(-1, order, total_before >= top_p)  # in the vocabulary's order
    kept = probas.masked_fill(is_out, 0)
    return kept / kept.sum(dim=-1, keepdim=True)


def penalize_repetition(logits, rows, penalty):
    """Make the ids that are in each row less probable (Keskar et al. 2019, 4.1)."""
    if penalty == 1:
        return logits
    check_number(0.01, 100, repetition_penalty=penalty)
    logits = logits.clone()
    for row_logits, row in zip(logits, rows):
        seen = torch.tensor(sorted(set(row)), device=logits.device)
        score = row_logits[seen]
        row_logits[seen] = torch.where(score > 0, score / penalty, score * penalty)
    return logits


def choose_next(logits, temperature=0.0, top_k=None, top_p=1.0, generator=None):
    """The next id of each row, (b,): the most probable, or drawn if temperature > 0."""
    if not logits.sum(dtype=torch.float32).isfinite():  # not if one logit is not
        raise FloatingPointError("the model gave logits that are not finite numbers")
    if temperature == 0:
        return logits.argmax(dim=-1)
    probas = softmax_with_temperature(logits, temperature)
    if top_k is not None:
        probas = keep_top_k(probas, top_k)
    if top_p != 1:
        probas = keep_top_p(probas, top_p)
    return torch.multinomial(probas, num_samples=1, generator=generator).squeeze(-1)


def uncached_logits(model, rows, context_size):
    """Logits (b, vocab_size) of each row's next token, computed without a cache."""
    device = next((p.device for p in model.parameters()), "cpu")
    idx, lengths = (t.to(device) for t in pad_right(rows, context_size))
    with evaluating(model):  # dropout would change the logits
        logits = model(idx)  # (b, num_tokens, vocab_size)
    return logits[torch.arange(len(rows), device=device), lengths - 1]


def prompt_rows(idx):
    """Prompts as lists of ids, from a tensor (b, num_tokens) or a list of lists."""
    if torch.is_tensor(idx):
        idx = idx.tolist()
    check_rows(idx)
    return [[int(token_id) for token_id in row] for row in idx]


def check_prompts(model, rows, context_size):
    """Raise ValueError if the model cannot continue these rows of ids.

    A module without an embedding `tok_emb`, or without a context length, may take any
    ids, or any number of tokens.
    """
    vocab_size = getattr(getattr(model, "tok_emb", None), "num_embeddings", math.inf)
    most = context_size_of(model, default=math.inf)
    if not rows or not all(rows):
        raise ValueError("a prompt is empty: give each at least one token")
    lowest, highest = min(map(min, rows)), max(map(max, rows))
    if lowest < 0 or highest >= vocab_size:
        raise ValueError(
            f"the prompts' ids go from {lowest} to {highest}, but the model knows only "
            f"0 to {vocab_size - 1}: use the model's own tokenizer"
        )
    if not is_whole(context_size) or context_size > most:
        raise ValueError(
            f"context_size is {context_size}; this model takes 1 to {most} tokens"
        )


def check_settings(
    max_new_tokens, temperature, top_k, top_p, repetition_penalty=1.0, eos_id=None
):
    """Raise ValueError naming a setting with an impossible value."""
    check_whole(0, max_new_tokens=max_new_tokens)
    check_number(0, temperature=temperature)
    check_share(top_p=top_p)
    check_number(0.01, 100, repetition_penalty=repetition_penalty)
    if top_k is not None:
        check_whole(top_k=top_k)
    if eos_id is not None:
        check_whole(0, eos_id=eos_id)


def generate_stream(
    model,
    idx,
    max_new_tokens,
    context_size,
    temperature=0.0,
    top_k=None,
    eos_id=None,
    *,
    top_p=1.0,
    repetition_penalty=1.0,
    generator=None,
    use_cache=True,
):
    """Yield the new ids of each step: one for each prompt, None if it has ended.

    The arguments are those of `generate` and are checked immediately. Generation stops
    when all prompts have ended with eos_id.
    """
    rows = prompt_rows(idx)
    check_prompts(model, rows, context_size)
    sampling = temperature, top_k, top_p
    check_settings(max_new_tokens, *sampling, repetition_penalty, eos_id)
    next_logits = partial(uncached_logits, model, context_size=context_size)
    if use_cache and is_cacheable(model):
        longest = max(map(len, rows)) + max_new_tokens
        next_logits = CachedLogits(model, len(rows), min(longest, context_size))

    @torch.no_grad()
    def steps():
        has_ended = [False] * len(rows)
        for _ in range(max_new_tokens):
            logits = penalize_repetition(next_logits(rows), rows, repetition_penalty)
            new_ids = choose_next(logits, *sampling, generator).tolist()
            has_ended = [ended or i == eos_id for ended, i in zip(has_ended, new_ids)]
            if all(has_ended):
                return
            new_ids = [None if ended else i for ended, i in zip(has_ended, new_ids)]
            extend(rows, new_ids)
            yield new_ids

    return steps()


def extend(rows, new_ids):
    """Append its new id to each row; None appends nothing."""
    for row, new_id in zip(rows, new_ids):
        if new_id is not None:
            row.append(new_id)


def generate(
    model,
    idx,
    max_new_tokens,
    context_size,
    temperature=0.0,
    top_k=None,
    eos_id=None,
    **settings,
):
    """Append up to max_new_tokens ids to each prompt, but nothing from its eos_id on.

    idx is a tensor (b, num_tokens), or a list of prompts that may have different
    lengths. The result has the same type; rows of a tensor that end early are padded
    with eos_id, a single id. The model sees the last context_size ids. At temperature 0
    the most probable id is taken, otherwise one of the top_k is drawn. `settings`:
    top_p, the total probability of the candidates; repetition_penalty, which makes ids
    in the row less probable; generator, the torch.Generator to draw with; use_cache,
    False to compute everything anew at each step, as always for a module that the
    cache does not know: `model` may be any module from ids to logits. Raises ValueError
    for impossible prompts and settings, FloatingPointError if logits are not finite.
    """
    rows = prompt_rows(idx)
    sampling = {"temperature": temperature, "top_k": top_k, "eos_id": eos_id}
    for new_ids in generate_stream(
        model, rows, max_new_tokens, context_size, **sampling, **settings
    ):
        extend(rows, new_ids)
    if not torch.is_tensor(idx):
        return rows
    longest = max(map(len, rows))
    rows = [row + [eos_id] * (longest - len(row)) for row in rows]
    return torch.tensor(rows, device=idx.device)
