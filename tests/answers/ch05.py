"""Answers to chapter 5's exercises, each wrong as a reader's might be."""

import json

import torch

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


WRONG = {
    "5.1.1": [14 / 3, 1.386, 64],
    "5.1.2": [
        lambda logits, targets: -logits.softmax(-1)[0, targets[0]].log(),
        lambda logits, targets: (
            logits.exp().sum(-1).log() - logits[torch.arange(5), targets]
        ).mean(),
    ],
    "5.1.3": [
        lambda loss, num_tokens, num_characters: loss * num_tokens / num_characters,
        lambda loss, num_tokens, num_characters: loss / 0.693147,
    ],
    "5.2.1": [
        lambda num_tokens, length, batch, epochs: (
            epochs * (num_tokens // length // batch)
        ),
        lambda num_tokens, length, batch, epochs: (num_tokens - 1) // length * epochs,
    ],
    "5.2.2": [
        lambda losses, patience: losses.index(min(losses)),
        lambda losses, patience: len(losses) - 1,
    ],
    "5.2.3": [
        lambda sample, text: sample if sample in text else "",
        lambda sample, text: sample,
    ],
    "5.2.4": [
        lambda step, num_warmup, peak_lr: peak_lr * (step + 1) / num_warmup,
        lambda step, num_warmup, peak_lr: (
            peak_lr * min(step / num_warmup, (num_warmup / max(step, 1)) ** 0.5)
        ),
    ],
    "5.2.5": [
        lambda batch_size, most: -(-batch_size // most),
        lambda batch_size, most: batch_size,
    ],
    "5.2.6": [
        lambda num_windows, batch_size, num_steps: num_windows - batch_size * num_steps,
        lambda num_windows, batch_size, num_steps: max(
            0, num_windows - batch_size * num_steps
        ),
    ],
    "5.3.1": [0, 0.1, 1, 4.68],
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
    ],
    "5.3.4": [2 * 12 * 768 * 1024, 12 * 768 * 1024 * 4, 2 * 768 * 1024 * 4],
    "5.3.5": [
        torch.ones(3, 8).tril(5),
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
    "5.4.1": [4 * 124_439_808, 8 * 124_439_808, 16 * 124_439_808],
    "5.4.2": [
        lambda content: {
            name: entry["shape"]
            for name, entry in json.loads(
                content[8 : 8 + int.from_bytes(content[:8], "little")]
            ).items()
            if "shape" in entry and len(entry["shape"]) == 2
        },
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
        range(1984, 2048),
    ],
    "5.5.2": [
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
        lambda att, n_kv_groups: keep_first_heads(att, n_kv_groups),
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
        lambda share, factor: 1 / (share + (1 - share) / factor),
    ],
    "5.7.2": [
        lambda eval_freq, eval_iter: 2 * eval_iter / 3 / eval_freq,
        lambda eval_freq, eval_iter: eval_iter / (eval_freq + eval_iter),
    ],
    "5.7.3": [
        lambda num_parameters, tokens, flops: (
            6 * num_parameters * tokens / flops / 86400
        ),
        lambda num_parameters, tokens, flops: 6 * num_parameters**2 * tokens / flops,
    ],
}
