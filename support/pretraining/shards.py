"""Token shards: a text as token ids on disk (a support module: used, not taught).

A folder of files train-00000.bin, val-00000.bin, ..., each nothing but token ids,
little-endian, two bytes each (four if the vocabulary is larger than that), and
shards.json, which says how many and what they mean. writer.py, beside this file, writes
them.

Shapes: b = batch, max_length is the length of a window in tokens.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from support.download.files import sha256_of
from support.download.json_files import content_sha256, read_sealed, write_sealed

INDEX = "shards.json"
# keys of an index, among others
INDEX_KEYS = {"dtype", "end", "eot_id", "shards", "vocab_size"}
SPLITS = "train", "val"
ID_TYPES = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
MEND = (
    "the command that wrote it mends it, with the same texts: python -m ch05.pretrain "
    "tokenize"
)


def shard_path(folder, split, number):
    """Where a shard lies: (folder, "train", 0) -> folder/train-00000.bin."""
    return Path(folder) / f"{split}-{number:05}.bin"


def write_index(folder, index):
    """Write shards.json, whole or not at all, with its own sha256 in it."""
    write_sealed(Path(folder) / INDEX, index)


def read_index(folder):
    """Read shards.json: a dict. ValueError if it is missing or damaged."""
    path = Path(folder) / INDEX
    if Path(folder).is_file():
        raise ValueError(f"{folder} is a file, and a folder of shards was expected")
    if not os.path.lexists(path):
        raise ValueError(
            f"{folder} holds no {INDEX}; `python -m support.pretraining tokenize "
            f"{folder} FILE...` writes it"
        )
    try:
        return read_sealed(path, INDEX_KEYS)
    except ValueError as error:
        raise ValueError(
            f"{error}. Delete it and the shards beside it, *.bin, and write them "
            "again: python -m support.pretraining tokenize"
        ) from None


def named_shards(folder, index):
    """The paths of all shards and what the index says of each: a list of pairs."""
    return [
        (shard_path(folder, split, number), shard)
        for split in SPLITS
        for number, shard in enumerate(index["shards"][split])
    ]


def fault_of(path, shard, size_of_id, verify):
    """What is wrong with a shard, in a few words; "" if nothing is."""
    if not path.is_file():
        return "is missing, or it is not a regular file"
    size, known = path.stat().st_size, shard["tokens"] * size_of_id
    if size != known:
        return f"is damaged: it has {size:,} bytes, not {known:,}"
    if verify and sha256_of(path) != shard["sha256"]:
        return f"is damaged: its sha256 is not the one in {INDEX}"
    return ""


def find_damage(folder, index, verify=False, rank=0, world_size=1):
    """What is wrong with the shards of an index: {path: a few words}.

    Their sizes are compared; verify: their sha256 as well, which takes as long as
    reading them. Of world_size processes each looks at a share.
    """
    size_of_id = ID_TYPES[index["dtype"]].itemsize
    shards = named_shards(folder, index)[rank::world_size]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(lambda pair: fault_of(*pair, size_of_id, verify), shards)
        if verify and shards:
            found = tqdm(found, "checking shards", len(shards), leave=False)
        return {path: fault for (path, _), fault in zip(shards, found) if fault}


def check_shards(folder, index, verify=False):
    """Raise ValueError, naming the first, unless all shards are as the index says.

    verify: compare their sha256 as well, which takes as long as reading them.
    """
    for path, fault in find_damage(folder, index, verify).items():
        raise ValueError(f"{path} {fault}; {MEND}")


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
        self.fingerprint = content_sha256(index)[:16]  # other data have another one
        num_tokens = np.array([s["tokens"] for s in index["shards"][split]], dtype=int)
        self.num_tokens = int(num_tokens.sum())
        self.ends = ((num_tokens - 1) // max_length).cumsum()  # of each shard's windows
        if len(self) == 0:
            raise ValueError(
                f"the {split} part of {folder} has {self.num_tokens} tokens; one "
                f"window of max_length {max_length} and its next token need "
                f"{max_length + 1} in a shard: give more text or a smaller max_length "
                "(--context-length)"
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
                f"{self.vocab_size}; {MEND}"
            )
        return torch.from_numpy(tokens.astype(np.int64))
