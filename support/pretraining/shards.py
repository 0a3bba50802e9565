"""Token shards: a text as token ids on disk.

A folder holds the files train-00000.bin, val-00000.bin and so on. Each file consists of
token ids only, little-endian, two bytes each (four if the vocabulary is larger than
that). shards.json says how many ids each file has and what they mean. writer.py, beside
this file, writes them.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from support.download.files import sha256_of
from support.download.json_files import content_sha256, read_sealed

INDEX = "shards.json"
INDEX_KEYS = {"dtype", "eot_id", "is_complete", "shards", "vocab_size"}  # among others
SPLITS = "train", "val"
ID_TYPES = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
COMMAND = "python -m support.pretraining tokenize"
REPAIR = f"to repair it, run `{COMMAND}` again, with the same texts"


def shard_path(folder, split, number):
    """The path of a shard: (folder, "train", 0) -> folder/train-00000.bin."""
    return Path(folder) / f"{split}-{number:05}.bin"


def read_index(folder):
    """Read shards.json: a dict. ValueError if it is missing or damaged."""
    path = Path(folder) / INDEX
    if not os.path.lexists(path):
        raise ValueError(
            f"{folder} holds no {INDEX}; `{COMMAND} {folder} FILE...` writes it"
        )
    try:
        return read_sealed(path, INDEX_KEYS)
    except ValueError as error:
        raise ValueError(
            f"{error}. Delete it and the shards beside it, *.bin, and write them "
            f"again with `{COMMAND}`"
        ) from None


def find_damage(folder, index, verify=False):
    """Compare the shards of a folder with its index: {path: what is wrong with it}.

    Sizes are compared; with verify, sha256 too, which takes as long as reading the
    files.
    """
    id_size = ID_TYPES[index["dtype"]].itemsize
    shards = [
        (shard_path(folder, split, number), shard)
        for split in SPLITS
        for number, shard in enumerate(index["shards"][split])
    ]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        faults = threads.map(lambda pair: find_fault(*pair, id_size, verify), shards)
        if verify and shards:
            faults = tqdm(faults, "checking shards", len(shards), leave=False)
        return {path: fault for (path, _), fault in zip(shards, faults) if fault}


def find_fault(path, shard, id_size, verify):
    """What is wrong with one shard, in a few words; "" if nothing is."""
    if not path.is_file():
        return "is missing, or it is not a regular file"
    size, expected = path.stat().st_size, shard["tokens"] * id_size
    if size != expected:
        return f"is damaged: it has {size:,} bytes, not {expected:,}"
    if verify and sha256_of(path) != shard["sha256"]:
        return f"is damaged: its sha256 is not the one in {INDEX}"
    return ""


def raise_damage(damage):
    """Raise ValueError if `find_damage` has found any; it names the first shard."""
    for path, fault in sorted(damage.items()):
        raise ValueError(f"{path} {fault}; {REPAIR}")


class TokenShards(Dataset):
    """Windows of max_length tokens, each with the same window one token later.

    The windows follow one another without overlap, as if all shards were one. The rest
    at the end, too short for a window, is not used. Shards stay on disk: they are
    mapped into memory.
    """

    def __init__(self, folder, split, max_length):
        index = read_index(folder)
        if not index["is_complete"]:
            raise ValueError(
                f"{folder} is not complete: run `{COMMAND}` again; it continues where "
                "it stopped"
            )
        raise_damage(find_damage(folder, index))
        self.max_length = max_length
        self.vocab_size, self.eot_id = index["vocab_size"], index["eot_id"]
        self.fingerprint = content_sha256(index)[:16]  # different for different data
        dtype = ID_TYPES[index["dtype"]]
        self.shards = [
            np.memmap(shard_path(folder, split, number), dtype, "r")
            for number, shard in enumerate(index["shards"][split])
            if shard["tokens"]  # a group of texts may be of one split only
        ]
        # the number of tokens up to the end of each shard
        self.ends = np.cumsum([len(shard) for shard in self.shards], dtype=int)
        self.num_tokens = int(self.ends[-1]) if self.shards else 0
        if len(self) == 0:
            raise ValueError(
                f"the {split} part of {folder} has {self.num_tokens} tokens; one "
                f"window of max_length {max_length} and its next token need "
                f"{max_length + 1}: give more text or a smaller max_length "
                "(--context-length)"
            )

    def __len__(self):
        return max(0, self.num_tokens - 1) // self.max_length

    def __getitem__(self, idx):
        """(input_ids, target_ids), each (max_length,), int64.

        Raises IndexError for a window that does not exist.
        """
        if not 0 <= idx < len(self):
            raise IndexError(
                f"there is no window {idx}: the last one is {len(self) - 1}"
            )
        start = idx * self.max_length
        stop = start + self.max_length + 1
        first, last = np.searchsorted(self.ends, [start, stop - 1], side="right")
        parts = [
            shard[max(0, len(shard) + start - end) : len(shard) + stop - end]
            for shard, end in zip(self.shards[first:], self.ends[first : last + 1])
        ]
        ids = torch.from_numpy(np.concatenate(parts).astype(np.int64))
        return ids[:-1], ids[1:]
