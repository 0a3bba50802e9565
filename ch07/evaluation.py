"""Scores for answers, without a second model (7.8).

An entry is a dict with instruction, input and output, and maybe a category and more.
Its output is the reference that an answer is compared with.
"""

import re
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import bootstrap
from torch import nn
from tqdm.auto import tqdm

from ch05.decoding import generate
from ch05.training import evaluating
from ch07.instructions import format_prompt
from support.words import cut_words, fold_text, separate

QUOTES, STOPS = "\"'“”‘’„«»「」", ".!?。।؟۔"  # of several scripts


class Answer(NamedTuple):
    """A text, and whether the model ended it itself."""

    text: str
    has_ended: bool


def generate_answers(
    model,
    tokenizer,
    entries,
    max_new_tokens=64,
    batch_size=16,
    prompts=None,
    eos_id=None,
):
    """The most probable Answer to each entry, computed in batches of similar length.

    prompts: token ids for each entry, by default in the Alpaca format; eos_id: the
    token that ends an answer, by default the end-of-text token.
    """
    if prompts is None:
        prompts = [tokenizer.encode_ordinary(format_prompt(entry)) for entry in entries]
    if eos_id is None:
        eos_id = tokenizer.eot_token
    answers = [None] * len(entries)
    order = sorted(range(len(entries)), key=lambda i: len(prompts[i]))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    for batch in tqdm(batches, desc="answers", unit="batch", leave=False):
        rows = generate(
            model,
            [prompts[i] for i in batch],
            max_new_tokens,
            model.context_length,
            eos_id=eos_id,
        )
        for i, row in zip(batch, rows):
            new_ids = row[len(prompts[i]) :]
            text = tokenizer.decode(new_ids).strip()
            answers[i] = Answer(text, len(new_ids) < max_new_tokens)
    return answers


def copy_input(entry):
    """A baseline: the Answer that repeats the input, or else the instruction."""
    return Answer(entry["input"] or entry["instruction"], True)


def normalize(text):
    """Lower case, single spaces, no outer quotes and no full stop: "Yes." -> yes"""
    text = " ".join(fold_text(text).split()).strip(QUOTES + " ")
    return text.rstrip(QUOTES + STOPS + " ") or text  # a text of marks alone stays


def repetition(text):
    """The share of a text's trigrams, of three words, that repeat earlier ones."""
    words = separate(text).split()
    trigrams = list(zip(words, words[1:], words[2:]))
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0


def list_words(text):
    """The words of a text in order, without punctuation: "It's 5!" -> it s 5"""
    return [word for word in cut_words(text.replace("_", " ")) if word[0].isalnum()]


def rouge_l(reference, text):
    """F1 of the longest common subsequence of words (Lin 2004), from 0 to 1."""
    if normalize(reference) == normalize(text):  # also if neither has a word
        return 1.0
    tokenizer = SimpleNamespace(tokenize=list_words)  # the default drops all but a to z
    scorer = RougeScorer(["rougeL"], tokenizer=tokenizer)
    return scorer.score(reference, text)["rougeL"].fmeasure


def score_answers(entries, answers):
    """A table with one row per entry: its category, if any, and its scores."""
    if not entries:
        raise ValueError("there are no entries whose answers could be scored")
    rows = []
    for entry, answer in zip(entries, answers, strict=True):
        reference, text = entry["output"], answer.text
        scores = {
            "category": entry.get("category", ""),
            "ended": float(answer.has_ended),
            "repetition": repetition(text),
            "exact": float(text == reference),
            "normalized": float(normalize(text) == normalize(reference)),
            "rouge_l": rouge_l(reference, text),
        }
        rows.append(scores)
    return pd.DataFrame(rows)


def draw_distractors(entries, num_distractors=3, seed=123):
    """For each entry, outputs of other entries, of the same category if possible.

    Raises ValueError if an entry has fewer than num_distractors others to draw from.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for entry in entries:
        others = sorted({e["output"] for e in entries} - {entry["output"]})
        if len(others) < num_distractors:
            raise ValueError(
                f"{num_distractors} distractors are needed, but there are only "
                f"{len(others)} other outputs: use more entries or fewer distractors"
            )
        kind = entry.get("category")
        same = {e["output"] for e in entries if e.get("category") == kind}
        alike = [output for output in others if output in same]
        pool = alike if len(alike) >= num_distractors else others
        drawn.append(rng.choice(pool, num_distractors, replace=False).tolist())
    return drawn


@torch.no_grad()
def loss_parts(model, prompts, answers, end_id, batch_size=2):
    """Split the losses of answers between their tokens and their end: (num_answers, 3).

    The columns are the nats of an answer's tokens, the nats of its end, and the number
    of tokens with the end. prompts and answers are token ids.
    """
    rows, device = [], model.tok_emb.weight.device
    pairs = zip(prompts, answers, strict=True)
    texts = [torch.tensor([*prompt, *answer, end_id]) for prompt, answer in pairs]
    for i in range(0, len(texts), batch_size):
        batch = texts[i : i + batch_size]
        idx = nn.utils.rnn.pad_sequence(batch, True, end_id).to(device)
        with evaluating(model):
            logits = model(idx[:, :-1]).float().transpose(1, 2)
        losses = F.cross_entropy(logits, idx[:, 1:], reduction="none").cpu()
        for prompt, text, row in zip(prompts[i:], batch, losses):
            found = row[len(prompt) - 1 : len(text) - 1]
            rows.append((found[:-1].sum().item(), found[-1].item(), len(found)))
    return np.array(rows)


def answer_losses(model, tokenizer, entry, outputs):
    """Mean loss per token of each output as the answer to an entry, in nats: (b,)."""
    prompts = len(outputs) * [tokenizer.encode_ordinary(format_prompt(entry))]
    answers = [tokenizer.encode_ordinary(output) for output in outputs]
    parts = loss_parts(model, prompts, answers, tokenizer.eot_token, len(outputs))
    tokens, end, num_tokens = parts.T
    return (tokens + end) / num_tokens


def prefers_references(model, tokenizer, entries, num_distractors=3, seed=123):
    """For each entry, 1.0 if its output has a lower loss than all its distractors."""
    found = []
    distractors = draw_distractors(entries, num_distractors, seed)
    for entry, others in zip(tqdm(entries, leave=False), distractors):
        losses = answer_losses(model, tokenizer, entry, [entry["output"], *others])
        found.append(float(losses.argmin() == 0))
    return np.array(found)


def paired_bootstrap(before, after, num_draws=10_000, seed=123):
    """The mean increase from before to after, and its 95% bootstrap interval.

    before, after: one value for each entry. The entries are resampled, and both values
    of an entry stay together (Efron & Tibshirani 1993, 13.3). Returns (increase, low,
    high). Raises ValueError unless both have one value for each of the same entries.
    """
    before, after = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if before.ndim != 1 or before.shape != after.shape or len(before) < 2:
        raise ValueError(
            "expected one value for each of two or more entries, before and after; "
            f"found arrays of shape {before.shape} and {after.shape}"
        )
    rises, rng = after - before, np.random.default_rng(seed)
    drawn = bootstrap(
        (rises,), np.mean, n_resamples=num_draws, method="percentile", rng=rng
    )
    return rises.mean(), *drawn.confidence_interval


def contains_reference(reference, text):
    """Whether a text contains the reference, word for word, both normalized."""
    pattern = rf"(?<!\w){re.escape(normalize(reference))}(?!\w)"
    return re.search(pattern, normalize(text)) is not None
