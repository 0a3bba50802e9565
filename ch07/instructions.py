"""Instructions and their answers: from a JSON file to batches (7.2 and 7.3).

An entry is a dict of texts: instruction, input (may be empty) and output. Shapes: b =
batch; inputs and targets are token ids, (b, num_tokens), padded on the right.
"""

from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from ch06.bucketing import LengthBuckets
from ch06.splits import group_split, near_duplicate_groups
from support.checks import check_whole
from support.download.fetch import fetch
from support.download.files import read_json, size_of

DATA = Path(__file__).with_name("instruction-data.json")
KEYS = ("instruction", "input", "output")
RESPONSE = "\n\n### Response:\n"  # between the instruction and its answer


def download_and_load_file(file_path, url=None):
    """The entries of a JSON file; if it does not exist, it is downloaded from url.

    The file may have one entry on each line instead (JSON Lines). Raises ValueError
    naming the first entry that lacks a key, or whose instruction or output is empty;
    FetchError if the download fails.
    """
    if url and size_of(file_path) is None:
        fetch(url, file_path)
    data = read_json(file_path)
    if not isinstance(data, list) or not data:
        raise ValueError(f"{file_path} must contain a list of at least one entry")
    for i, entry in enumerate(data):
        check_entry(entry, f"{file_path}, entry {i}")
    return data


def check_entry(entry, where="the entry"):
    """Raise ValueError if a text is missing, or the instruction or output is empty."""
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is not a dict: {str(entry)[:40]!r}")
    for key in KEYS:
        if not isinstance(entry.get(key), str):
            raise ValueError(f"{where} has no text {key!r}: its keys are {list(entry)}")
    for key in ("instruction", "output"):
        if not entry[key].strip():
            raise ValueError(f"{where} has an empty {key!r}")


def format_input(entry):
    """The instruction, and its input if there is one, in the Alpaca format."""
    instruction_text = (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request."
        f"\n\n### Instruction:\n{entry['instruction']}"
    )
    input_text = f"\n\n### Input:\n{entry['input']}" if entry["input"] else ""
    return instruction_text + input_text


def format_prompt(entry):
    """Everything before the answer, in training and in inference."""
    return format_input(entry) + RESPONSE


def split_entries(data, seed=123):
    """Split entries, and any category, 85 : 5 : 10: (train, validation, test).

    Similar prompts, with 6 of 10 words in common, stay in one part. With few entries
    the proportions are only approximate, but no part is empty. Raises ValueError for
    entries that cannot be split in three.
    """
    df = pd.DataFrame({"Label": [str(entry.get("category", "")) for entry in data]})
    df["Group"] = near_duplicate_groups([*map(format_question, data)], threshold=0.6)
    parts = group_split(df, seed, shares=(17, 1, 2))
    return [[data[i] for i in part.index] for part in parts]


def format_question(entry):
    """The instruction and the input without the format around them."""
    return f"{entry['instruction']} {entry['input']}".strip()


class InstructionDataset(Dataset):
    """The token ids of each entry, a list: its prompt, then its output.

    With mask_prompt each item is a pair: the list, and the number of ids in the prompt,
    which `custom_collate_fn` then excludes from the targets. Raises ValueError naming
    an entry with more than max_length tokens, where the end-of-text token that batches
    append counts, too.
    """

    def __init__(self, data, tokenizer, max_length=None, mask_prompt=False):
        if max_length is not None:
            check_whole(max_length=max_length)
        self.data = data
        self.mask_prompt = mask_prompt
        self.encoded_texts, self.prompt_lengths = [], []
        for i, entry in enumerate(data):
            prompt = tokenizer.encode_ordinary(format_prompt(entry))
            token_ids = prompt + tokenizer.encode_ordinary(entry["output"])
            if max_length and len(token_ids) + 1 > max_length:
                raise ValueError(
                    f"entry {i} has {len(token_ids) + 1} tokens and the model takes "
                    f"{max_length}: leave it out or shorten it. It begins "
                    f"{entry['instruction'][:40]!r}"
                )
            self.encoded_texts.append(token_ids)
            self.prompt_lengths.append(len(prompt))

    def __getitem__(self, index):
        if self.mask_prompt:
            return self.encoded_texts[index], self.prompt_lengths[index]
        return self.encoded_texts[index]

    def __len__(self):
        return len(self.data)


def custom_collate_draft_1(batch, pad_token_id=50256, device="cpu"):
    """Pad rows of token ids to the longest row: a tensor (b, num_tokens)."""
    longest = max(map(len, batch))
    rows = [row + [pad_token_id] * (longest - len(row)) for row in batch]
    return torch.tensor(rows, device=device)


def custom_collate_draft_2(batch, pad_token_id=50256, device="cpu"):
    """Inputs, and targets shifted by one position; the last target ends the text."""
    ended = custom_collate_draft_1(
        [row + [pad_token_id] for row in batch], pad_token_id
    )
    inputs = ended[:, :-1]  # (b, num_tokens)
    targets = ended[:, 1:].clone()  # a change of the targets must not change inputs
    return inputs.to(device), targets.to(device)


def custom_collate_fn(
    batch,
    pad_token_id=50256,
    ignore_index=-100,
    allowed_max_length=None,
    device="cpu",
):
    """Inputs and targets, (b, num_tokens); only the first padding token is a target.

    batch: lists of token ids, which are all targets; or pairs of such a list and the
    number of ids in its prompt, which are not targets. Raises ValueError if no target
    is left, and for impossible settings.
    """
    check_whole(0, pad_token_id=pad_token_id)
    check_whole(num_entries=len(batch))
    if allowed_max_length is not None:
        check_whole(allowed_max_length=allowed_max_length)
    if ignore_index >= 0:  # other values may be token ids
        raise ValueError(f"ignore_index is {ignore_index}; it must be below 0")
    pairs = [item if isinstance(item, tuple) else (item, 0) for item in batch]
    rows, prompt_lengths = zip(*pairs)
    inputs, targets = custom_collate_draft_2(rows, pad_token_id)
    for row, prompt_length, target in zip(rows, prompt_lengths, targets):
        target[len(row) :] = ignore_index  # padding, except the end-of-text token
        target[: max(prompt_length - 1, 0)] = ignore_index
    inputs = inputs[:, :allowed_max_length].to(device)
    targets = targets[:, :allowed_max_length].to(device)
    if (targets == ignore_index).all():
        raise ValueError(
            f"no target is left when {len(batch)} entries are truncated to "
            f"{allowed_max_length} tokens, so they have no loss: use a larger "
            "allowed_max_length"
        )
    return inputs, targets


def create_instruction_loader(dataset, batch_size, pad_token_id, seed=123):
    """A loader of (inputs, targets) in length buckets, each entry once an epoch."""
    lengths = [len(token_ids) for token_ids in dataset.encoded_texts]
    buckets = LengthBuckets(lengths, batch_size, seed)
    collate_fn = partial(custom_collate_fn, pad_token_id=pad_token_id)
    return DataLoader(dataset, batch_sampler=buckets, collate_fn=collate_fn)
