"""Answers to chapter 5's exercises, right ones and such as a reader gets wrong."""

import copy
import difflib
import json
import math
import struct
from fractions import Fraction
from statistics import geometric_mean

import numpy as np
import torch
import torch.nn.functional as F

from ch05.llama import GroupedQueryAttention, rope_angles
from ch05.openai_weights import openai_layout


def keep_first_heads(att, n_kv_groups):
    """The first head of each group, where its mean was asked for."""
    weights = att.state_dict()
    for name in ("W_key.weight", "W_value.weight"):
        heads = weights[name].unflatten(0, (n_kv_groups, -1, att.head_dim))
        weights[name] = heads[:, 0].flatten(0, 1)
    shared = GroupedQueryAttention(48, 6, n_kv_groups, att.rope_base)
    shared.load_state_dict(weights)
    return shared


def mean_heads(att, n_kv_groups):
    """The mean of each group's heads, by a loop over the groups."""
    few = GroupedQueryAttention(48, 6, n_kv_groups, att.rope_base)
    few.W_query, few.out_proj = copy.deepcopy((att.W_query, att.out_proj))
    for name in ("W_key", "W_value"):
        heads = getattr(att, name).weight.detach().split(att.head_dim)
        size = len(heads) // n_kv_groups
        groups = [heads[i : i + size] for i in range(0, len(heads), size)]
        means = torch.cat([sum(group) / size for group in groups])
        getattr(few, name).weight = torch.nn.Parameter(means)
    return few


def mean_heads_by_reshape(att, n_kv_groups):
    """The same, from and to a state dict."""
    weights = att.state_dict()
    for name in ("W_key.weight", "W_value.weight"):
        heads = weights[name].reshape(n_kv_groups, -1, att.head_dim, 48)
        weights[name] = heads.mean(1).reshape(-1, 48)
    few = GroupedQueryAttention(48, 6, n_kv_groups, att.rope_base)
    few.load_state_dict(weights)
    return few


def every_other_head(att, n_kv_groups):
    """Means of heads that are not neighbours."""
    weights = att.state_dict()
    for name in ("W_key.weight", "W_value.weight"):
        heads = weights[name].unflatten(0, (-1, n_kv_groups, att.head_dim))
        weights[name] = heads.mean(0).flatten(0, 1)
    few = GroupedQueryAttention(48, 6, n_kv_groups, att.rope_base)
    few.load_state_dict(weights)
    return few


def loss_by_logsumexp(logits, targets):
    """Cross-entropy from PyTorch's logsumexp, in double precision."""
    logits = logits.double()
    right = logits.gather(1, targets[:, None]).squeeze(1)
    return (logits.logsumexp(dim=-1) - right).mean()


def loss_of_numpy(logits, targets):
    """Cross-entropy in NumPy, a row at a time."""
    losses = []
    for row, target in zip(logits.numpy(), targets.numpy()):
        row = row - row.max()
        losses.append(np.log(np.exp(row).sum()) - row[target])
    return np.mean(losses)


def loss_from_global_maximum(logits, targets):
    """One maximum for all rows."""
    logits = logits - logits.max()
    right = logits[torch.arange(len(targets)), targets]
    return (logits.exp().sum(-1).log() - right).mean()


def loss_with_epsilon(logits, targets):
    """The logarithm of a probability that may be 0, kept from minus infinity."""
    probas = logits.softmax(-1)[torch.arange(len(targets)), targets]
    return -(probas + 1e-9).log().mean()


def stop_by_slices(losses, patience):
    """The first evaluation whose last losses are no lower than those before."""
    for i in range(patience, len(losses)):
        start = i + 1 - patience
        if min(losses[start : i + 1]) >= min(losses[:start]):
            return torch.tensor(i)
    return None


def stop_by_counting(losses, patience):
    """Counts the evaluations since the last new minimum."""
    best, waited = math.inf, 0
    for i, loss in enumerate(losses):
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == patience:
            return i
    return None


def stop_by_rises(losses, patience):
    """Counts how often in a row a loss was no lower than the one before."""
    waited = 0
    for i in range(1, len(losses)):
        waited = 0 if losses[i] < losses[i - 1] else waited + 1
        if waited == patience:
            return i
    return None


def stop_by_best_of_all(losses, patience):
    """Knows the lowest loss of the whole run from its beginning."""
    stop = int(np.argmin(losses)) + patience
    return stop if stop < len(losses) else None


def copy_by_difflib(sample, text):
    """The longest block that difflib finds."""
    matcher = difflib.SequenceMatcher(None, sample, text, autojunk=False)
    match = matcher.find_longest_match()
    return sample[match.a : match.a + match.size]


def copy_by_lengths(sample, text):
    """All parts of the sample, the longest first."""
    for size in range(len(sample), 0, -1):
        for start in range(len(sample) - size + 1):
            if sample[start : start + size] in text:
                return sample[start : start + size]
    return ""


def computed(num_prompt, num_new, context_size):
    """Walks through the steps of generate, one at a time."""
    counts, stored = [], 0
    for num_tokens in range(num_prompt, num_prompt + num_new):
        if stored and num_tokens <= context_size:
            counts.append(1)
        else:
            counts.append(min(num_tokens, context_size))
        stored = num_tokens
    return np.sum(counts)


def to_openai(gpt, name):
    """The array of OpenAI's file, with a leading axis as convolutions have it."""
    parameters = [parameter.detach() for parameter in dict(openai_layout(gpt))[name]]
    if name.endswith("/w"):
        return torch.cat([matrix.T for matrix in parameters], dim=1)[None]
    return torch.cat(parameters)


def keep(probas, is_kept):
    """What is kept of probabilities, summing to 1."""
    kept = probas * is_kept
    return kept / kept.sum(dim=-1, keepdim=True)


def save_two(model, optimizer):
    """Model and optimizer, where the random numbers were asked for too."""
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def resume_two(state, model, optimizer):
    """What belongs to save_two."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])


def save_state(model, optimizer):
    """All that matters."""
    return save_two(model, optimizer) | {"random": torch.get_rng_state()}


def resume_model_and_generator(state, model, optimizer):
    """Forgets the optimizer."""
    model.load_state_dict(state["model"])
    torch.set_rng_state(state["random"])


def save_to_numpy(model, optimizer):
    """All that matters, the random numbers as a list of bytes."""
    return save_two(model, optimizer) | {"random": torch.get_rng_state().tolist()}


def resume_from_numpy(state, model, optimizer):
    """What belongs to save_to_numpy."""
    resume_two(state, model, optimizer)
    torch.random.set_rng_state(torch.tensor(state["random"], dtype=torch.uint8))


def resume_state(state, model, optimizer):
    """What belongs to save_state."""
    resume_two(state, model, optimizer)
    torch.set_rng_state(state["random"])


def table(content):
    """The table of a safetensors file's bytes."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length].decode())


def parameters_of(cfg):
    """GPT-2's parameters, part by part."""
    d = cfg["emb_dim"]
    attention, feed_forward, norms = 4 * d * d + 4 * d, 8 * d * d + 5 * d, 4 * d
    tables = (cfg["vocab_size"] + cfg["context_length"]) * d
    return tables + cfg["n_layers"] * (attention + feed_forward + norms) + 2 * d


LOGITS = torch.tensor([4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79])
NINE_TENTHS = min(
    np.linspace(0.1, 1, 9001),
    key=lambda t: abs(torch.softmax(LOGITS / t, dim=0).max().item() - 0.9),
)
NEW_ROWS = torch.ones(8, 8, dtype=torch.bool).tril()[5:]

RIGHT = {
    "5.1.1": [
        4,
        geometric_mean([2, 4, 8]),
        torch.tensor([2.0, 4, 8]).log().mean().exp(),
    ],
    "5.1.2": [
        loss_by_logsumexp,
        loss_of_numpy,
        lambda logits, targets: F.nll_loss(logits.log_softmax(-1), targets).item(),
    ],
    "5.1.3": [
        lambda loss, num_tokens, num_characters: (
            torch.tensor(loss * num_tokens / num_characters) / np.log(2)
        ),
        lambda loss, num_tokens, num_characters: (
            num_tokens * math.log2(math.exp(loss)) / num_characters
        ),
    ],
    "5.2.1": [
        lambda num_tokens, length, batch, epochs: (
            (num_tokens - 1) // length // batch * epochs
        ),
        lambda num_tokens, length, batch, epochs: torch.tensor(
            epochs * (len(range(0, num_tokens - length, length)) // batch)
        ),
    ],
    "5.2.2": [stop_by_slices, stop_by_counting],
    "5.2.3": [copy_by_difflib, copy_by_lengths],
    "5.2.4": [
        lambda step, num_warmup, peak_lr: (
            peak_lr * (step + 1) / num_warmup
            if step < num_warmup
            else peak_lr * math.sqrt(num_warmup / (step + 1))
        ),
        lambda step, num_warmup, peak_lr: (
            peak_lr
            * num_warmup**0.5
            * torch.tensor([(step + 1) ** -0.5, (step + 1) * num_warmup**-1.5]).min()
        ),
    ],
    "5.2.5": [
        lambda batch_size, most: next(
            n
            for n in range(1, batch_size + 1)
            if not batch_size % n and batch_size / n <= most
        ),
        lambda batch_size, most: (
            batch_size / max(n for n in range(1, most + 1) if batch_size % n == 0)
        ),
    ],
    "5.2.6": [
        lambda num_windows, batch_size, num_steps: (
            None
            if num_steps * batch_size > num_windows
            else num_windows - num_steps * batch_size
        ),
        lambda num_windows, batch_size, num_steps: (
            torch.tensor(num_windows - num_steps * batch_size)
            if num_steps <= num_windows // batch_size
            else None
        ),
    ],
    "5.3.1": [NINE_TENTHS, torch.tensor(NINE_TENTHS), Fraction(float(NINE_TENTHS))],
    "5.3.2": [
        lambda probas, min_p: keep(
            probas, probas / probas.amax(dim=-1, keepdim=True) >= min_p
        ),
        lambda probas, min_p: keep(
            probas.double(), probas >= min_p * probas.topk(1).values
        ).numpy(),
    ],
    "5.3.3": [
        lambda row: {row[i] for i in range(1, len(row)) if row[i - 1] == row[-1]},
        lambda row: set(torch.tensor(row)[1:][torch.tensor(row)[:-1] == row[-1]]),
        lambda row: [b for a, b in zip(row, row[1:]) if a == row[-1]],
    ],
    "5.3.4": [75_497_472, torch.tensor(75_497_472), np.float32(75.5e6)],
    "5.3.5": [
        NEW_ROWS,
        NEW_ROWS.numpy(),
        NEW_ROWS[None, None],
        (torch.arange(8) <= torch.arange(5, 8)[:, None]).tolist(),
    ],
    "5.3.6": [
        computed,
        lambda num_prompt, num_new, context_size: (
            min(num_prompt, context_size)
            + sum(
                1 if size <= context_size else context_size
                for size in range(num_prompt + 1, num_prompt + num_new)
            )
        ),
    ],
    "5.4.1": [12 * 124_439_808, 3 * 497_759_232.0, torch.tensor(1.493277696e9)],
    "5.4.2": [
        lambda content: {
            name: entry["shape"]
            for name, entry in table(content).items()
            if name != "__metadata__"
        },
        lambda content: {
            name: tuple(entry["shape"])
            for name, entry in table(content).items()
            if "dtype" in entry
        },
    ],
    "5.4.3": [(save_state, resume_state), [save_to_numpy, resume_from_numpy]],
    "5.5.1": [
        range(1216, 1280),
        list(range(1216, 1280)),
        torch.arange(2304).view(3, 12, 64)[1, 7],
    ],
    "5.5.2": [
        parameters_of,
        lambda cfg: torch.tensor(parameters_of(cfg)),
        lambda cfg: float(parameters_of(cfg)),
    ],
    "5.5.3": [to_openai, lambda gpt, name: to_openai(gpt, name).double().numpy()],
    "5.6.1": [
        lambda head_dim, rope_base: (
            2 * math.pi * rope_base ** (torch.arange(0, head_dim, 2) / head_dim)
        ),
        lambda head_dim, rope_base: [
            math.tau * rope_base ** (2 * pair / head_dim)
            for pair in range(head_dim // 2)
        ],
    ],
    "5.6.2": [mean_heads, mean_heads_by_reshape],
    "5.6.3": [
        lambda low, step, packed: torch.cat(
            (low + step * (packed % 16), low + step * (packed // 16)), dim=1
        ),
        lambda low, step, packed: (
            low.numpy()
            + step.numpy() * np.hstack((packed & 15, packed >> 4)).astype(float)
        ),
    ],
    "5.7.1": [
        lambda share, factor: factor / (factor * (1 - share) + share),
        lambda share, factor: torch.tensor(1 / (1 - share + share / factor)),
    ],
    "5.7.2": [
        lambda eval_freq, eval_iter: 2 * eval_iter / (3 * eval_freq + 2 * eval_iter),
        lambda eval_freq, eval_iter: np.float32(
            1 / (1 + 3 * eval_freq / (2 * eval_iter))
        ),
    ],
    "5.7.3": [
        lambda num_parameters, tokens, flops: (
            6 * num_parameters * num_parameters * tokens / flops / (24 * 60 * 60)
        ),
        lambda num_parameters, tokens, flops: (
            torch.tensor(num_parameters / flops) * num_parameters * tokens / 14_400
        ),
    ],
}

WRONG = {
    "5.1.1": [14 / 3, 1.386, 64, 24 / 7, 0.25, [2, 4, 8], "four"],
    "5.1.2": [
        lambda logits, targets: -logits.softmax(-1)[0, targets[0]].log(),
        lambda logits, targets: (
            logits.exp().sum(-1).log() - logits[torch.arange(len(targets)), targets]
        ).mean(),
        F.cross_entropy,
        lambda logits, targets: torch.nn.CrossEntropyLoss()(logits, targets),
        loss_from_global_maximum,
        loss_with_epsilon,
        lambda logits, targets: len(targets) * loss_by_logsumexp(logits, targets),
        lambda logits, targets: None,
    ],
    "5.1.3": [
        lambda loss, num_tokens, num_characters: loss * num_tokens / num_characters,
        lambda loss, num_tokens, num_characters: loss / 0.693147,
        lambda loss, num_tokens, num_characters: (
            loss * num_characters / num_tokens / 0.693147
        ),
        0.25,
    ],
    "5.2.1": [
        lambda num_tokens, length, batch, epochs: (
            epochs * (num_tokens // length // batch)
        ),
        lambda num_tokens, length, batch, epochs: (num_tokens - 1) // length * epochs,
        lambda num_tokens, length, batch, epochs: (
            (num_tokens - 1) // length * epochs // batch
        ),
        lambda num_tokens, length, batch, epochs: None,
    ],
    "5.2.2": [
        lambda losses, patience: losses.index(min(losses)),
        lambda losses, patience: len(losses) - 1,
        stop_by_rises,
        stop_by_best_of_all,
        lambda losses, patience: stop_by_slices(losses, patience) or -1,
        lambda losses, patience: stop_by_slices(losses, patience + 1),
    ],
    "5.2.3": [
        lambda sample, text: sample if sample in text else "",
        lambda sample, text: sample,
        lambda sample, text: max(
            {*sample.split()} & {*text.split()}, key=len, default=""
        ),
        lambda sample, text: len(copy_by_difflib(sample, text)),
        lambda sample, text: None,
    ],
    "5.2.4": [
        lambda step, num_warmup, peak_lr: peak_lr * (step + 1) / num_warmup,
        lambda step, num_warmup, peak_lr: (
            peak_lr * min(step / num_warmup, (num_warmup / max(step, 1)) ** 0.5)
        ),
        lambda step, num_warmup, peak_lr: (
            peak_lr * min((step + 1) / num_warmup, (step + 1) ** -0.5)
        ),
    ],
    "5.2.5": [
        lambda batch_size, most: -(-batch_size // most),
        lambda batch_size, most: batch_size,
        lambda batch_size, most: max(
            n for n in range(1, most + 1) if batch_size % n == 0
        ),
    ],
    "5.2.6": [
        lambda num_windows, batch_size, num_steps: num_windows - batch_size * num_steps,
        lambda num_windows, batch_size, num_steps: max(
            0, num_windows - batch_size * num_steps
        ),
        lambda num_windows, batch_size, num_steps: None,
    ],
    "5.3.1": [0, 0.1, 1, 4.68, -0.5, "cold"],
    "5.3.2": [
        lambda probas, min_p: probas * (probas >= min_p),
        lambda probas, min_p: probas * (probas >= min_p * probas.max()),
        lambda probas, min_p: keep(probas, probas > min_p * probas.amax(-1, True)),
        lambda probas, min_p: keep(probas, probas >= min_p * probas.max()),
    ],
    "5.3.3": [
        set,
        lambda row: {row[row.index(row[-1]) + 1]} if row[-1] in row[:-1] else set(),
        lambda row: {b for a, b in zip(row, row[1:-1]) if a == row[-1]},
        lambda row: {a for a, b in zip(row, row[1:]) if b == row[-1]},
        lambda row: None,
    ],
    "5.3.4": [
        2 * 12 * 768 * 1024,
        12 * 768 * 1024 * 4,
        2 * 768 * 1024 * 4,
        75.5,
        "75 MB",
    ],
    "5.3.5": [
        torch.ones(3, 8).tril(5),
        ~NEW_ROWS,
        torch.ones(3, 8, dtype=torch.bool),
        torch.ones(3, 8, dtype=torch.bool).tril(),
        torch.ones(8, 8, dtype=torch.bool).tril(),
        torch.ones(3, 3, dtype=torch.bool).tril(),
    ],
    "5.3.6": [
        lambda num_prompt, num_new, context_size: num_prompt + num_new,
        lambda num_prompt, num_new, context_size: num_prompt + num_new - 1,
        lambda num_prompt, num_new, context_size: sum(
            min(num_prompt + step, context_size) for step in range(num_new)
        ),
    ],
    "5.4.1": [*(n * 124_439_808 for n in (1, 3, 4, 8, 16)), 1.493, "1.5 GB"],
    "5.4.2": [
        lambda content: {
            name: entry["shape"]
            for name, entry in json.loads(
                content[8 : 8 + int.from_bytes(content[:8], "little")]
            ).items()
            if "shape" in entry and len(entry["shape"]) == 2
        },
        table,
        lambda content: {name: len(entry) for name, entry in table(content).items()},
        lambda content: list(
            json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        ),
    ],
    "5.4.3": [
        (save_two, resume_two),
        (save_state, lambda state, model, optimizer: None),
        (save_state, resume_model_and_generator),
        (lambda model, optimizer: {"model": model}, resume_two),
        save_state,
    ],
    "5.5.1": [
        range(448, 512),
        range(768, 832),
        range(1280, 1344),
        range(1216, 1279),
        range(1216, 1344, 2),
        (1216, 1280),
        range(1984, 2048),
    ],
    "5.5.2": [
        lambda cfg: None,
        lambda cfg: 12 * cfg["n_layers"] * cfg["emb_dim"] ** 2,
        lambda cfg: (
            (2 * cfg["vocab_size"] + cfg["context_length"] + 2) * cfg["emb_dim"]
            + cfg["n_layers"] * (12 * cfg["emb_dim"] + 13) * cfg["emb_dim"]
        ),
        lambda cfg: (
            (cfg["vocab_size"] + cfg["context_length"] + 2) * cfg["emb_dim"]
            + cfg["n_layers"] * (12 * cfg["emb_dim"] + 10) * cfg["emb_dim"]
        ),
    ],
    "5.5.3": [
        lambda gpt, name: torch.cat(dict(openai_layout(gpt))[name]),
        lambda gpt, name: torch.cat(dict(openai_layout(gpt))[name][::-1]).T,
        lambda gpt, name: torch.cat(
            [p.T for p in dict(openai_layout(gpt))[name]]
        ).reshape(torch.cat(dict(openai_layout(gpt))[name]).T.shape),
        lambda gpt, name: dict(openai_layout(gpt))[name][0],
    ],
    "5.6.1": [
        lambda head_dim, rope_base: rope_angles(torch.tensor([1]), head_dim, rope_base),
        lambda head_dim, rope_base: (
            1 / rope_angles(torch.tensor(1), head_dim, rope_base)
        ),
        lambda head_dim, rope_base: [2 * 3.14159] * (head_dim // 2),
    ],
    "5.6.2": [
        lambda att, n_kv_groups: GroupedQueryAttention(48, 6, n_kv_groups, 500.0),
        keep_first_heads,
        every_other_head,
        lambda att, n_kv_groups: att,
    ],
    "5.6.3": [
        lambda low, step, packed: low + step * packed,
        lambda low, step, packed: (
            low + step * torch.stack((packed & 15, packed >> 4), dim=-1).flatten(1)
        ),
        lambda low, step, packed: (
            low + step * torch.cat((packed >> 4, packed & 15), dim=-1)
        ),
    ],
    "5.7.1": [
        lambda share, factor: share * factor,
        lambda share, factor: 1 - share + share / factor,
        lambda share, factor: 1 / (share + (1 - share) / factor),
    ],
    "5.7.2": [
        lambda eval_freq, eval_iter: 2 * eval_iter / 3 / eval_freq,
        lambda eval_freq, eval_iter: eval_iter / (eval_freq + eval_iter),
        lambda eval_freq, eval_iter: eval_iter / 3 / (eval_freq + eval_iter / 3),
    ],
    "5.7.3": [
        lambda num_parameters, tokens, flops: (
            6 * num_parameters * tokens / flops / 86400
        ),
        lambda num_parameters, tokens, flops: 6 * num_parameters**2 * tokens / flops,
        lambda num_parameters, tokens, flops: (
            2 * num_parameters**2 * tokens / flops / 86400
        ),
    ],
}
