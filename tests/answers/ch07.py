"""Answers to chapter 7's exercises, right ones and such as a reader gets wrong."""

import math
from collections import Counter
from copy import deepcopy
from fractions import Fraction

import numpy as np
import torch
from torch import nn

from ch05.recipe import learning_rate_at
from ch07.evaluation import rouge_l
from ch07.instructions import InstructionDataset, custom_collate_fn, format_prompt

TOY = [([1, 2, 3], 1), ([4, 5], 1)]


def parted(data, fits):
    """The entries that a test passes, and the others."""
    return [e for e in data if fits(e)], [e for e in data if not fits(e)]


def size(entry, tokenizer):
    """An entry's tokens, without the end."""
    return len(InstructionDataset([entry], tokenizer)[0])


def ends(collate_fn, batch=TOY):
    """For each row of a batch, how many targets are the end."""
    return (collate_fn(batch, 9)[1] == 9).sum(dim=1).tolist()


def ends_in_place(collate_fn, batch):
    """Whether each row's end is where it should be, whatever stands elsewhere."""
    targets = collate_fn(batch, 9)[1].tolist()
    return all(
        target[len(row) - 1 : len(row)] == [9]
        for (row, _), target in zip(batch, targets)
    )


def conversation(turns, eos_id, ends_questions=False, counts_ends=True, shift=1):
    """Inputs and targets of a conversation, in several wrong ways."""
    row, marked = [], []
    for token_ids, is_answer in turns:
        has_end = is_answer or ends_questions
        row += token_ids + [eos_id] * has_end
        marked += token_ids if is_answer else [-100] * len(token_ids)
        counts = is_answer and counts_ends
        marked += [eos_id if counts else -100] * has_end
    return row[: len(row) - shift], marked[shift:]


def conversation_by_marks(turns, eos_id):
    """Inputs and targets, right, as two tensors."""
    row, counts = [], []
    for token_ids, is_answer in turns:
        turn = [*token_ids, eos_id] if is_answer else token_ids
        row.extend(turn)
        counts.extend([is_answer] * len(turn))
    row, counts = torch.tensor(row), torch.tensor(counts)
    return row[:-1], row[1:].where(counts[1:], torch.tensor(-100))


def phi3(entry):
    """An entry's prompt in the form of Phi-3, joined of its lines."""
    parts = ["<|user|>", entry["instruction"], entry["input"], "<|assistant|>", ""]
    return "\n".join(parts[:2] + parts[2:3] * bool(entry["input"]) + parts[3:])


def phi3_with_if(entry):
    """The same, with an if."""
    prompt = "<|user|>\n" + entry["instruction"]
    if entry["input"]:
        prompt += "\n" + entry["input"]
    return prompt + "\n<|assistant|>\n"


def accepted(data, tokenizer, max_length):
    """Parted by what InstructionDataset itself says."""
    parts = [], []
    for entry in data:
        try:
            InstructionDataset([entry], tokenizer, max_length)
        except ValueError:
            parts[1].append(entry)
        else:
            parts[0].append(entry)
    return parts


def teaches_the_end(collate_fn):
    """Counts the ends of each row, and looks where they stand."""
    batch = [([7, 8], 1), ([1, 2, 3, 4], 2), ([5, 6, 7], 1)]
    targets = collate_fn(batch, 50)[1]
    places = torch.tensor([len(row) - 1 for row, _ in batch])
    if targets.shape[1] <= places.max():
        return False
    at_place = targets.gather(1, places[:, None]) == 50
    return at_place.all() & ((targets == 50).sum(dim=1) == 1).all()


def teaches_the_end_of_each(collate_fn):
    """Tries several batches."""
    batches = [
        [([1, 2, 3], 1), ([4, 5], 1)],
        [([4, 5], 1), ([1, 2, 3], 1), ([6, 7], 1)],
    ]
    for batch in batches:
        targets = collate_fn(batch, 9)[1]
        for (row, _), target in zip(batch, targets.numpy()):
            if np.flatnonzero(target == 9).tolist() != [len(row) - 1]:
                return np.False_
    return np.True_


def adapter_by_eigenvectors(change, rank):
    """A and B from the eigenvectors of change @ change.T, as arrays."""
    change = change.double().numpy()  # (out_dim, in_dim)
    _, vectors = np.linalg.eigh(change @ change.T)
    B = vectors[:, ::-1][:, :rank].T
    return (B @ change).T, B


def straight(step, num_steps, peak_lr):
    """Up and down in straight lines."""
    num_warmup = -(-num_steps // 10)
    up, down = (step + 1) / num_warmup, (num_steps - step) / (num_steps - num_warmup)
    return torch.tensor(peak_lr * min(up, down))


def straight_to_last_step(step, num_steps, peak_lr):
    """Arrives at 0 a step too early."""
    num_warmup = math.ceil(0.1 * num_steps)
    if step < num_warmup:
        return peak_lr * (step + 1) / num_warmup
    return peak_lr * (num_steps - 1 - step) / (num_steps - 1 - num_warmup)


def f1_of_counts(reference, text):
    """F1 from precision and recall."""
    theirs, ours = reference.lower().split(), text.lower().split()
    num_common = sum(min(theirs.count(word), ours.count(word)) for word in set(ours))
    if not num_common:
        return 0
    precision, recall = num_common / len(ours), num_common / len(theirs)
    return np.float32(2 * precision * recall / (precision + recall))


def f1_of_counters(reference, text):
    """F1 from Counters."""
    a, b = Counter(reference.lower().split()), Counter(text.lower().split())
    return torch.tensor(2 * (a & b).total() / (a.total() + b.total()))


def judged_in_both_orders(judge, a, b):
    """By the answers themselves, not by their names."""
    winners = [a if judge(a, b) == "x" else b, b if judge(b, a) == "x" else a]
    if winners[0] != winners[1]:
        return "tie"
    return "a" if winners[0] == a else "b"


def judged_twice(judge, a, b):
    """By the names of the places."""
    names = judge(a, b) + judge(b, a)
    return {"xy": "a", "yx": "b"}.get(names, "tie")


def lay_out(model):
    """Make all parameters contiguous, and no more."""
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()


def tie(model):
    """Tie the output layer, whatever it holds."""
    model.out_head.weight = model.tok_emb.weight


def tie_if_equal(model):
    """Tie an equal output layer, and no more."""
    if torch.equal(model.out_head.weight, model.tok_emb.weight):
        tie(model)


def tie_if_near(model):
    """Tie an output layer that is about the same."""
    if torch.allclose(model.out_head.weight, model.tok_emb.weight, atol=0.1):
        tie(model)


def mend(model):
    """Contiguous, then tied if equal."""
    lay_out(model)
    tie_if_equal(model)


def mend_tied_first(model):
    """Tied if equal, then new contiguous parameters, each once."""
    if (model.out_head.weight == model.tok_emb.weight).all():
        tie(model)
    with torch.no_grad():
        for parameter in set(model.parameters()):
            parameter.set_(parameter.clone(memory_format=torch.contiguous_format))


def renew(model):
    """New contiguous parameters: one for each layer, so that none is tied."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight = nn.Parameter(module.weight.detach().contiguous())


def mended_copy(model):
    """Right, on a copy."""
    model = deepcopy(model)
    lay_out(model)
    tie_if_equal(model)
    return model


def freeze(model):
    """Right, and nothing learns any more."""
    lay_out(model)
    tie_if_equal(model)
    model.requires_grad_(False)


def cut_svd(change, rank, weigh=lambda S: S, first=0):
    """Two thin matrices of a change; right with the defaults."""
    U, S, Vh = torch.linalg.svd(change.T, full_matrices=False)
    kept = slice(first, first + rank)
    return U[:, kept] * weigh(S[kept]), Vh[kept]


def set_f1(reference, text):
    """F1 of words, each counted once however often it stands there."""
    a, b = set(reference.lower().split()), set(text.lower().split())
    return 2 * len(a & b) / (len(a) + len(b))


LN_2 = math.log(2)

RIGHT = {
    "7.2.1": [
        ("Double twenty-one and you have 4", "2"),
        ["My favourite is choc", "olate"],
    ],
    "7.2.2": [phi3, phi3_with_if],
    "7.2.3": [
        accepted,
        lambda data, tokenizer, most: parted(data, lambda e: size(e, tokenizer) < most),
    ],
    "7.3.1": [
        [[-100, 7, 8, 0], [2, 3, 0, -100]],
        torch.tensor([[-100, 7, 8, 0], [2, 3, 0, -100]]),
        (np.array([-100, 7, 8, 0]), torch.tensor([2.0, 3, 0, -100])),
    ],
    "7.3.2": [teaches_the_end, teaches_the_end_of_each],
    "7.3.3": [conversation, conversation_by_marks],
    "7.5.1": [3_949_192, np.int64(3_949_192), torch.tensor(3_949_192.0)],
    "7.5.2": [cut_svd, adapter_by_eigenvectors],
    "7.6.1": [550, 550.0, np.int64(550), torch.tensor(550)],
    "7.6.2": [
        straight,
        lambda step, num_steps, peak_lr: (
            learning_rate_at(step, num_steps, peak_lr)
            if step < math.ceil(num_steps / 10)
            else peak_lr
            * (1 - step / num_steps)
            / (1 - math.ceil(num_steps / 10) / num_steps)
        ),
    ],
    "7.6.3": [
        lambda losses, lengths: np.average(losses, weights=lengths),
        lambda losses, lengths: (
            torch.tensor(losses).float() @ torch.tensor(lengths).float() / sum(lengths)
        ),
    ],
    "7.8.1": [
        "Water boils at 50 degrees.",
        "Water boils at 100 degrees Fahrenheit.",
        "Water never boils at 100 degrees.",
        "Water freezes at 100 degrees.",
        "Mercury boils at 100 degrees",
        "Water boils at -100 degrees.",
        "Water always boils at 100 degrees",
        "water boils above 100 degrees",
    ],
    "7.8.2": [f1_of_counts, f1_of_counters],
    "7.8.3": [
        (LN_2, "second"),
        [torch.tensor(LN_2), "second"],
        (np.float32(0.69), "Second"),
        (Fraction(693, 1000), "second"),
    ],
    "7.8.4": [judged_in_both_orders, judged_twice],
    "7.9.1": [34 / 12, torch.tensor(2.83), Fraction(34, 12), np.float32(2.8333)],
    "7.9.2": [mend, mend_tied_first],
}

WRONG = {
    "7.2.1": [
        ("Its color: ", "green"),
        ("Its color:", " green"),
        ("un", "happy"),
        ("### Response:", "\ngreen"),
        ("", "green"),
        "green",
        (4, 2),
    ],
    "7.2.2": [
        format_prompt,
        lambda entry: None,
        lambda entry: (
            f"<|user|>\n{entry['instruction']}\n{entry['input']}\n<|assistant|>\n"
        ),
        lambda entry: (
            f"<|user|>\n{entry['instruction']}"
            + (f"\n{entry['input']}" if entry["input"] else "")
            + "\n<|assistant|>"
        ),
        lambda entry: f"<|user|>\n{entry['instruction']}\n<|assistant|>\n",
        "<|user|>",
    ],
    "7.2.3": [
        lambda data, tokenizer, most: parted(
            data, lambda e: size(e, tokenizer) <= most
        ),
        lambda data, tokenizer, most: parted(
            data, lambda e: size(e, tokenizer) + 1 < most
        ),
        lambda data, tokenizer, most: parted(
            data, lambda e: len(tokenizer.encode_ordinary(format_prompt(e))) < most
        ),
        lambda data, tokenizer, most: parted(data, lambda e: len(str(e)) <= most),
        lambda data, tokenizer, most: parted(
            data[::-1], lambda e: size(e, tokenizer) < most
        ),
        lambda data, tokenizer, most: parted(data, lambda e: size(e, tokenizer) < most)[
            0
        ],
        lambda data, tokenizer, most: None,
    ],
    "7.3.1": [
        [[-100, -100, 8, 0], [-100, 3, 0, -100]],
        [[6, 7, 8, 0], [2, 3, 0, 0]],
        [[6, 7, 8, 0], [2, 3, 0, -100]],
        [[-100, 7, 8, 0], [2, 3, -100, -100]],
        [[-100, 7, 8, 0], [2, 3, 0]],
        [[-100, -100, 7, 8, 0], [-100, 2, 3, 0, -100]],
        [[5, 6, 7, 8], [1, 2, 3, 0]],
        7,
    ],
    "7.3.2": [
        lambda collate_fn: True,
        lambda collate_fn: False,
        lambda collate_fn: collate_fn is custom_collate_fn,
        lambda collate_fn: sum(ends(collate_fn)) > 0,
        lambda collate_fn: ends(collate_fn) == [1, 1],
        lambda collate_fn: ends(collate_fn, TOY[:1]) == [1],
        lambda collate_fn: ends_in_place(collate_fn, TOY[1:]),
        lambda collate_fn: ends_in_place(collate_fn, TOY),
        lambda collate_fn: ends_in_place(collate_fn, TOY[::-1]),
        lambda collate_fn: None,
        True,
    ],
    "7.3.3": [
        lambda turns, eos_id: conversation(turns, eos_id, ends_questions=True),
        lambda turns, eos_id: conversation(turns, eos_id, counts_ends=False),
        lambda turns, eos_id: conversation(turns, eos_id, shift=0),
        lambda turns, eos_id: conversation(turns, eos_id)[0],
        lambda turns, eos_id: conversation(turns[-2:], eos_id),
        lambda turns, eos_id: None,
        [1, 2, 3],
    ],
    "7.5.1": [3538944, 7898384, 410248, 557704, 13384896, 1983112, 3.9, "millions"],
    "7.5.2": [
        lambda change, rank: cut_svd(change, rank)[::-1],
        lambda change, rank: cut_svd(change.T, rank),
        lambda change, rank: cut_svd(change, change.shape[1]),
        lambda change, rank: cut_svd(change, rank, weigh=lambda S: 1 + 0 * S),
        lambda change, rank: cut_svd(change, rank, weigh=torch.square),
        lambda change, rank: cut_svd(change, rank, first=1),
        lambda change, rank: (change.T[:, :rank], torch.eye(rank, change.shape[0])),
        lambda change, rank: change,
        lambda change, rank: None,
        8,
    ],
    "7.6.1": [549, 500, 501, 0, 551, 550.7, 2000, "half"],
    "7.6.2": [
        learning_rate_at,
        lambda step, num_steps, peak_lr: peak_lr * (1 - step / num_steps),
        straight_to_last_step,
        lambda step, num_steps, peak_lr: peak_lr,
        0.5,
    ],
    "7.6.3": [
        lambda losses, lengths: sum(losses) / len(losses),
        lambda losses, lengths: sum(losses) / sum(lengths),
        lambda losses, lengths: sum(map(math.prod, zip(losses, lengths))),
        1.3,
    ],
    "7.8.1": [
        "Water boils at 100 degrees.",
        "water boils 100 degrees",
        "Water boils at 100 degrees Celsius.",
        "It boils at about 100 degrees",
        "Water boils at 100.0 degrees.",
        "Water does not boil at 100 degrees.",  # false, and not alike
        "Ice melts at 0 degrees.",
        "Water boils",
        100,
    ],
    "7.8.2": [
        rouge_l,
        lambda reference, text: float(set(reference.split()) == set(text.split())),
        set_f1,
        lambda reference, text: 1.0,
        0.5,
    ],
    "7.8.3": [
        (1.0, "second"),
        (math.log(2), "first"),
        (5 * math.log(2), "second"),
        (-math.log(2), "second"),
        ("ln 2", "second"),
        (torch.tensor(1.0), "second"),
        (torch.tensor([0.7, 0.7]), "second"),
        (LN_2, "the first"),
        math.log(2),
    ],
    "7.8.4": [
        lambda judge, a, b: {"x": "a", "y": "b"}[judge(a, b)],
        lambda judge, a, b: "tie",
        lambda judge, a, b: "a" if judge(a, b) == judge(b, a) else "tie",
        lambda judge, a, b: judge(a, b),
        "tie",
    ],
    "7.9.1": [0.5, 46 / 12, 2.0, 1.3, 34, 2.3, "high"],
    "7.9.2": [
        lambda model: None,
        lay_out,
        tie,
        lambda model: (lay_out(model), tie(model)),
        tie_if_equal,
        lambda model: (lay_out(model), tie_if_near(model)),
        renew,
        mended_copy,
        freeze,
        "contiguous",
    ],
}
