"""Token shards: a text as token ids on disk (a support module: used, not taught).

A folder of files train-00000.bin, val-00000.bin, ..., each nothing but token ids,
little-endian, two bytes each (four if the vocabulary is larger than that), and
shards.json, which says how many and what they mean. ch05/shard_writer.py writes them.

Shapes: b = batch, max_length is the length of a window in tokens.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ch02.files import sha256_of, write_atomically

INDEX = "shards.json"
SPLITS = "train", "val"
ID_TYPES = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
WRITE_AGAIN = "delete the folder and write it again: python -m ch05.pretrain tokenize"


def shard_path(folder, split, number):
    """Where a shard lies: (folder, "train", 0) -> folder/train-00000.bin."""
    return Path(folder) / f"{split}-{number:05}.bin"


def index_sha256(index):
    """The sha256 of an index, as hexadecimal digits."""
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def write_index(folder, index):
    """Write shards.json, whole or not at all, with its own sha256 in it."""
    content = json.dumps(index | {"sha256": index_sha256(index)}, indent=1)
    write_atomically(Path(folder) / INDEX, content.encode())


def read_index(folder):
    """Read shards.json: a dict. ValueError if it is missing or damaged."""
    path = Path(folder) / INDEX
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no {INDEX}; `python -m ch05.pretrain tokenize {folder} "
            "FILE...` writes it"
        )
    try:
        index = json.loads(path.read_bytes())
        is_whole = index.pop("sha256") == index_sha256(index)
    except (ValueError, KeyError, TypeError, AttributeError):
        is_whole = False
    if not is_whole:
        raise ValueError(f"{path} is damaged; {WRITE_AGAIN}")
    return index


def check_shards(folder, index, verify=False):
    """Raise ValueError unless all shards have the size they had when written.

    verify: compare their sha256 as well, which takes as long as reading them.
    """
    size_of_id = ID_TYPES[index["dtype"]].itemsize
    for split in SPLITS:
        for number, shard in enumerate(index["shards"][split]):
            path = shard_path(folder, split, number)
            if not path.is_file():
                raise ValueError(f"{path} is missing; {WRITE_AGAIN}")
            size, known = path.stat().st_size, shard["tokens"] * size_of_id
            if size != known:
                fault = f"it has {size:,} bytes, not {known:,}"
                raise ValueError(f"{path} is damaged: {fault}; {WRITE_AGAIN}")
            if verify and sha256_of(path) != shard["sha256"]:
                fault = f"its sha256 is not the one in {INDEX}"
                raise ValueError(f"{path} is damaged: {fault}; {WRITE_AGAIN}")


class TokenShards(Dataset):
    """Windows of max_length tokens, each with the same window one token later.

    The windows of a shard follow one another without overlap; what is left at its end,
    too short for a window, is not used. Shards stay on disk: the system maps them into
    memory, and takes from the file what is asked for.
    """

    def __init__(self, folder, split, max_length, verify=False):
        if split not in SPLITS or max_length < 1:
            raise ValueError(
                f"split {split!r} must be one of {SPLITS}, and max_length {max_length} "
                "at least 1"
            )
        index = read_index(folder)
        if not index["end"]:
            raise ValueError(
                f"{folder} is not complete: run the command that writes it again; it "
                "goes on where it stopped"
            )
        check_shards(folder, index, verify)
        self.folder, self.split, self.max_length = folder, split, max_length
        self.vocab_size, self.eot_id = index["vocab_size"], index["eot_id"]
        self.fingerprint = index_sha256(index)[:16]  # other data have another one
        num_tokens = np.array([s["tokens"] for s in index["shards"][split]], dtype=int)
        self.num_tokens = int(num_tokens.sum())
        self.ends = ((num_tokens - 1) // max_length).cumsum()  # of each shard's windows
        if len(self) == 0:
            raise ValueError(
                f"the {split} part of {folder} has {self.num_tokens} tokens; one "
                f"window of max_length {max_length} and its next token need "
                f"{max_length + 1} in a shard: give more text or a smaller max_length"
            )
        self.shards = [
            np.memmap(shard_path(folder, split, number), ID_TYPES[index["dtype"]], "r")
            for number in range(len(num_tokens))
        ]

    def __reduce__(self):
        """A process that loads batches for this one maps the files anew."""
        return TokenShards, (self.folder, self.split, self.max_length)

    def __len__(self):
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, idx):
        input_ids, target_ids = self.batch([idx])
        return input_ids[0], target_ids[0]

    def batch(self, indices):
        """(input_ids, target_ids) of several windows, each (b, max_length), int64.

        IndexError for a window that is not there, ValueError for a token id that the
        vocabulary does not have.
        """
        rows = torch.stack([self.window(int(idx)) for idx in indices])
        return rows[:, :-1], rows[:, 1:]

    def window(self, idx):
        """The tokens of one window and the one that follows: (max_length + 1,)."""
        if not 0 <= idx < len(self):
            raise IndexError(f"there is no window {idx}: there are {len(self)}")
        number = int(np.searchsorted(self.ends, idx, side="right"))
        start = (idx - (self.ends[number - 1] if number else 0)) * self.max_length
        tokens = self.shards[number][start : start + self.max_length + 1]
        if tokens.max() >= self.vocab_size:
            raise ValueError(
                f"{shard_path(self.folder, self.split, number)} is damaged: it holds "
                f"the token id {tokens.max()}, and the vocabulary has "
                f"{self.vocab_size}; {WRITE_AGAIN}"
            )
        return torch.from_numpy(tokens.astype(np.int64))
