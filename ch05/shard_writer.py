"""Writing token shards: streamed, whole, resumable (support: used, not taught).

Texts come as pieces, in an order that is always the same. A shard is written when its
tokens are together, its file first and its entry in shards.json then, each flushed to
the disk. The entry says in which piece the shard ends; so a process that was killed
loses the shard in hand, one of each split, and the next one goes on behind that piece.
"""

import hashlib
import math
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from ch02.files import write_atomically
from ch05.shard_tokenizer import as_encoding, record_tokenizer
from ch05.shards import (
    ID_TYPES,
    INDEX,
    SPLITS,
    check_shards,
    read_index,
    shard_path,
    write_index,
)
from ch05.text_pieces import NOWHERE, batches, numbered

SHARD_TOKENS = 10_000_000  # 20 MB in memory and on disk


@contextmanager
def only_writer(folder):
    """Make a folder, and let no second process write its shards at the same time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "shards.lock")
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(
            f"another process is writing shards to {folder}: wait for it, or name "
            "another folder"
        ) from None
    try:
        for pattern in ("*.bin.*.tmp", "*.json.*.tmp"):  # of processes that died
            for left_over in folder.glob(pattern):
                left_over.unlink()
        yield
    finally:
        lock.release()


def open_index(folder, settings):
    """The index of a folder's shards, or a new one.

    Raises ValueError if the folder was begun with other settings, or is damaged.
    """
    if not (folder / INDEX).is_file():
        shards = {split: [] for split in SPLITS}
        return settings | {"end": None, "shards": shards}
    index = read_index(folder)
    for key, value in settings.items():
        if index[key] != value:
            raise ValueError(
                f"the shards in {folder} were begun with {key} {index[key]}, not "
                f"{value}: name another folder"
            )
    check_shards(folder, index)
    return index


class SplitWriter:
    """The tokens of one split on their way into its shards."""

    def __init__(self, folder, split, index):
        self.folder, self.split, self.index = folder, split, index
        self.shards = index["shards"][split]
        self.buffer = np.empty(index["shard_tokens"], ID_TYPES[index["dtype"]])
        self.num_filled = 0
        last = self.shards[-1] if self.shards else {"piece": -1, "piece_tokens": 0}
        # where the shards end that were here before: what comes earlier is in them
        self.old_piece, self.old_tokens = last["piece"], last["piece_tokens"]

    def add(self, ids, place):
        """Take the token ids of a piece; write each shard that they fill."""
        ids = np.array(ids, self.buffer.dtype)
        start = self.old_tokens if place.piece == self.old_piece else 0
        while start < len(ids):
            room = self.buffer[self.num_filled :]
            taken = ids[start : start + len(room)]
            room[: len(taken)] = taken
            start += len(taken)
            self.num_filled += len(taken)
            self.end = place, start
            if self.num_filled == len(self.buffer):
                self.write()

    def write(self):
        """Write the tokens that are here, if any, to a shard, and tell the index."""
        if self.num_filled == 0:
            return
        path = shard_path(self.folder, self.split, len(self.shards))
        content = self.buffer[: self.num_filled].tobytes()
        place, num_tokens = self.end
        shard = place._asdict() | {
            "tokens": self.num_filled,
            "sha256": hashlib.sha256(content).hexdigest(),
            "piece_tokens": num_tokens,  # of the piece it ends in, in it or before it
        }
        self.num_filled = 0
        try:
            write_atomically(path, content)
            self.shards.append(shard)
            write_index(self.folder, self.index)
        except OSError as error:
            raise OSError(
                f"{path}: {error.strerror}. The shards before it are whole; mend that, "
                "and the same command goes on"
            ) from error


def checked(placed_pieces, index, folder):
    """Yield (place, piece) pairs; ValueError unless the shards were made of them."""
    ends = [shard for split in SPLITS for shard in index["shards"][split]]
    ends += [index["end"]] if index["end"] else []
    known = {end["piece"]: end["read_sha256"] for end in ends}
    last = index["end"]["piece"] if index["end"] else math.inf
    place = NOWHERE
    for place, piece in placed_pieces:
        is_other = known.get(place.piece, place.read_sha256) != place.read_sha256
        if is_other or place.piece > last:
            raise ValueError(other_texts(folder))
        yield place, piece
    if place == NOWHERE:
        raise ValueError("there is no text to tokenize")
    if place.piece < max(known, default=0):
        raise ValueError(other_texts(folder))


def other_texts(folder):
    """What to say when the texts differ from those that were read before."""
    return (
        f"the texts are not those that {folder} was begun with: give the same ones, or "
        "name another folder"
    )


def write_shards(pieces, folder, tokenizer, *, shard_tokens=SHARD_TOKENS, size=None):
    """Write the shards of all pieces, or those that are not there yet: the index.

    pieces: an iterable of Piece, the same each time, of which a few are in memory at
    once. tokenizer: GPT-2's, or a BPETokenizer. Each document is followed by
    <|endoftext|>; the same name within a text is text. size: bytes of all texts, for
    the progress bar. Raises ValueError when there is no text or the folder holds
    shards of others, and OSError when one cannot be written; the others are whole then.
    """
    if shard_tokens < 1:
        raise ValueError(f"shard_tokens {shard_tokens} must be at least 1")
    folder = Path(folder)
    bar = tqdm(total=size, unit="B", unit_scale=True)
    with only_writer(folder), bar:
        settings = record_tokenizer(folder, tokenizer) | {"shard_tokens": shard_tokens}
        index = open_index(folder, settings)
        encoding = as_encoding(tokenizer)
        writers = {split: SplitWriter(folder, split, index) for split in SPLITS}
        for batch in batches(checked(numbered(pieces, bar), index, folder)):
            add_batch(batch, writers, encoding)
        for writer in writers.values():
            writer.write()
        index["end"] = batch[-1][0]._asdict()
        write_index(folder, index)
    return index


def add_batch(batch, writers, encoding):
    """Tokenize those pieces of a batch that are needed, on all cores, and add them."""
    needed = [
        (place, piece)
        for place, piece in batch
        if place.piece >= writers[piece.split].old_piece
    ]
    rows = encoding.encode_ordinary_batch(
        [piece.text for _, piece in needed], num_threads=os.cpu_count()
    )
    for (place, piece), ids in zip(needed, rows):
        if piece.ends_document:
            ids.append(encoding.eot_token)
        writers[piece.split].add(ids, place)
