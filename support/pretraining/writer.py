"""Writing token shards: streamed, whole, resumable (support: used, not taught).

Texts come as pieces, in an order that is always the same. A shard is written when its
tokens are together, its file first and its entry in shards.json then, each flushed to
the disk. The entry says in which piece the shard ends; so a process that was killed
loses the shard in hand, one of each split, and the next one goes on behind that piece.
A shard that got damaged is written again in the same way, to the bytes it had.
"""

import hashlib
import math
import os
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from support.download.files import (
    check_writable,
    make_folder,
    remove_temporaries,
    write_atomically,
)
from support.messages import one_line, say
from support.pretraining.chunks import NOWHERE, batches, numbered
from support.pretraining.shards import (
    ID_TYPES,
    INDEX,
    SPLITS,
    find_damage,
    read_index,
    shard_path,
    write_index,
)
from support.pretraining.tokenizer import VOCABULARY, as_encoding, record_tokenizer

SHARD_TOKENS = 10_000_000  # 20 MB in memory and on disk
SHARD_NAMES = re.compile(rf"({'|'.join(SPLITS)})-\d{{5,}}\.bin")
WRITTEN_NAMES = re.compile(
    f"{SHARD_NAMES.pattern}|{re.escape(INDEX)}|{re.escape(VOCABULARY)}"
)  # of all that is written to a folder


@contextmanager
def only_writer(folder):
    """Make a folder, and let no second process write its shards at the same time."""
    make_folder(folder)
    lock = FileLock(folder / "shards.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(
            f"another process is writing shards to {folder}: wait for it, or name "
            "another folder"
        ) from None
    try:
        remove_temporaries(folder, WRITTEN_NAMES)  # of processes that died
        yield
    finally:
        lock.release()


def open_index(folder, settings):
    """The index of a folder's shards, or a new one.

    Raises ValueError if the folder was begun with other settings, if the index is
    damaged, or if there is none and the folder holds shards that are not ours then.
    """
    if not os.path.lexists(folder / INDEX):
        for entry in folder.iterdir():
            if SHARD_NAMES.fullmatch(entry.name):
                raise ValueError(
                    f"{folder} holds {entry.name}, but no {INDEX} that knows it: name "
                    "another folder, or move that file away"
                )
        shards = {split: [] for split in SPLITS}
        return settings | {"end": None, "shards": shards}
    index = read_index(folder)
    for key, value in settings.items():
        if index.get(key) != value:
            raise ValueError(
                f"the shards in {folder} were begun with {key} {index.get(key)}, not "
                f"{value}: name another folder"
            )
    return index


class SplitWriter:
    """The tokens of one split on their way into its shards.

    damaged: the paths of shards to write again. They come first, in their order; then
    come those that the index does not have yet.
    """

    def __init__(self, folder, split, index, damaged=()):
        self.folder, self.split, self.index = folder, split, index
        self.shards = index["shards"][split]
        self.buffer = np.empty(index["shard_tokens"], ID_TYPES[index["dtype"]])
        self.num_filled = 0
        numbers = range(len(self.shards))
        self.to_do = [n for n in numbers if self.path(n) in damaged]
        self.to_do.append(len(self.shards))

    def path(self, number):
        """Where a shard lies."""
        return shard_path(self.folder, self.split, number)

    def begin(self, number):
        """Where a shard begins: the number of a piece, and tokens of it before that."""
        if number == 0:
            return -1, 0
        last = self.shards[number - 1]
        return last["piece"], last["piece_tokens"]

    def needs(self, piece):
        """True if some of the tokens of a piece of this number are to be written."""
        for number in self.to_do:
            if piece < self.begin(number)[0]:
                return False
            if number == len(self.shards) or piece <= self.shards[number]["piece"]:
                return True
        return False

    def add(self, ids, place):
        """Take the token ids of a piece; write each shard that they fill."""
        ids = np.array(ids, self.buffer.dtype)
        while True:
            number = self.to_do[0]
            piece, num_before = self.begin(number)
            start = num_before if place.piece == piece else 0
            taken = ids[start : start + self.size(number) - self.num_filled]
            if place.piece < piece or len(taken) == 0:
                return
            self.buffer[self.num_filled : self.num_filled + len(taken)] = taken
            self.num_filled += len(taken)
            self.end = place, start + len(taken)
            if self.num_filled < self.size(number):
                return
            self.write()

    def size(self, number):
        """How many tokens a shard has; a new one has at most as many."""
        if number < len(self.shards):
            return self.shards[number]["tokens"]
        return len(self.buffer)

    def write(self):
        """Write the tokens that are here, if any, to a shard, and tell the index."""
        if self.num_filled == 0:
            return
        number = self.to_do.pop(0)
        content = self.buffer[: self.num_filled].tobytes()
        place, num_tokens = self.end
        shard = place._asdict() | {
            "tokens": self.num_filled,
            "sha256": hashlib.sha256(content).hexdigest(),
            "piece_tokens": num_tokens,  # of the piece it ends in, in it or before it
        }
        self.num_filled = 0
        with saying_how_to_go_on(self.path(number)):
            if number < len(self.shards):
                self.mend(number, shard, content)
            else:
                self.append(shard, content)

    def mend(self, number, shard, content):
        """Write a damaged shard again; ValueError if it would not be what it was."""
        if shard != self.shards[number]:
            raise ValueError(
                f"{self.path(number)} is damaged, and the tokenizer does not give the "
                "ids any more that it held: name another folder"
            )
        write_atomically(self.path(number), content)

    def append(self, shard, content):
        """Write a new shard, in a folder that has an index, and add it to that."""
        if not (self.folder / INDEX).is_file():
            write_index(self.folder, self.index)
        write_atomically(self.path(len(self.shards)), content)
        self.shards.append(shard)
        self.to_do.append(len(self.shards))
        write_index(self.folder, self.index)


@contextmanager
def saying_how_to_go_on(path):
    """Let an OSError in the `with` block say what can be done about it."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: {error.strerror}. The shards before it are whole; mend that, and "
            "the same command goes on"
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
    with only_writer(folder):
        settings = record_tokenizer(folder, tokenizer) | {"shard_tokens": shard_tokens}
        index = open_index(folder, settings)
        damaged = find_damage(folder, index, verify=True)
        for path, fault in damaged.items():
            say(f"{one_line(path)} {fault}; it is written again")
        if damaged or not index["end"]:
            num_ids = shard_tokens if size is None else min(shard_tokens, size)
            with saying_how_to_go_on(folder):
                num_bytes = num_ids * ID_TYPES[index["dtype"]].itemsize
                check_writable(folder / INDEX, num_bytes)
        encoding = as_encoding(tokenizer)
        writers = {
            split: SplitWriter(folder, split, index, damaged) for split in SPLITS
        }
        with tqdm(total=size, unit="B", unit_scale=True) as bar:
            for batch in batches(checked(numbered(pieces, bar), index, folder)):
                add_batch(batch, writers, encoding)
        for writer in writers.values():
            writer.write()
        index["end"] = batch[-1][0]._asdict()
        with saying_how_to_go_on(folder / INDEX):
            write_index(folder, index)
    return index


def add_batch(batch, writers, encoding):
    """Tokenize those pieces of a batch that are needed, on all cores, and add them."""
    needed = [
        (place, piece)
        for place, piece in batch
        if writers[piece.split].needs(place.piece)
    ]
    rows = encoding.encode_ordinary_batch(
        [piece.text for _, piece in needed], num_threads=os.cpu_count()
    )
    for (place, piece), ids in zip(needed, rows):
        if piece.ends_document:
            ids.append(encoding.eot_token)
        writers[piece.split].add(ids, place)
