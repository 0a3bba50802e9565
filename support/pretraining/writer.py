"""Write token shards: text streams through, and a stopped process can continue.

Texts come as pieces, gathered into groups, always in the same order. The tokens of a
group are written to one shard for each split. Then the group gets its entries in
shards.json; each file is flushed to the disk. So a process that was killed loses only
the group that it was tokenizing. A damaged shard is written again in the same way, to
the same bytes.
"""

import hashlib
import os
import re
from itertools import chain
from pathlib import Path

import numpy as np
import tiktoken
from filelock import FileLock
from tqdm.auto import tqdm

from ch02.bpe import SPLIT_PATTERN
from support.download.files import (
    check_writable,
    make_folder,
    remove_temporaries,
    write_atomically,
)
from support.download.json_files import write_sealed
from support.messages import one_line, say
from support.pretraining.chunks import group_pieces
from support.pretraining.shards import (
    ID_TYPES,
    INDEX,
    SPLITS,
    find_damage,
    read_index,
    shard_path,
)

GROUP_CHARACTERS = 2**23  # about two million tokens; other groups give other shards
SHARD_NAMES = re.compile(rf"({'|'.join(SPLITS)})-\d{{5,}}\.bin")
WRITTEN_NAMES = re.compile(f"{SHARD_NAMES.pattern}|{re.escape(INDEX)}")


def as_encoding(tokenizer):
    """A tiktoken encoding that gives the ids that a BPETokenizer gives, but faster.

    GPT-2's tokenizer is one already. Raises ValueError for one without <|endoftext|>.
    """
    if not isinstance(tokenizer, tiktoken.Encoding):
        tokenizer = tiktoken.Encoding(
            "BPETokenizer",
            pat_str=SPLIT_PATTERN.pattern,
            mergeable_ranks=tokenizer.vocab,
            special_tokens=tokenizer.special_tokens,
        )
    if "<|endoftext|>" not in tokenizer.special_tokens_set:
        raise ValueError("the tokenizer has no <|endoftext|>: train one that has it")
    return tokenizer


def open_index(folder, encoding):
    """The index of a folder's shards, or a new one.

    Raises ValueError if the folder was started with another vocabulary, if the index is
    damaged, or if there is none and the folder holds somebody else's shards.
    """
    tokens = [encoding.decode_single_token_bytes(i) for i in range(encoding.n_vocab)]
    vocabulary = {
        "tokenizer": encoding.name,
        "vocab_size": encoding.n_vocab,
        "vocabulary_sha256": hashlib.sha256(repr(tokens).encode()).hexdigest(),
        "eot_id": encoding.eot_token,
        "dtype": "uint16" if encoding.n_vocab <= 2**16 else "uint32",
    }
    if not os.path.lexists(folder / INDEX):
        for entry in folder.iterdir():
            if SHARD_NAMES.fullmatch(entry.name):
                raise ValueError(
                    f"{folder} holds {entry.name}, but no {INDEX} that lists it: name "
                    "another folder, or move that file away"
                )
        shards = {split: [] for split in SPLITS}
        return vocabulary | {"is_complete": False, "texts": [], "shards": shards}
    index = read_index(folder)
    for key, value in vocabulary.items():
        if index.get(key) != value:
            raise ValueError(
                f"the shards in {folder} were started with {key} {index.get(key)}, not "
                f"{value}: name another folder"
            )
    return index


def read_groups(pieces, index, folder, bar):
    """Yield groups of pieces and the sha256 of their texts; a progress bar counts them.

    Raises ValueError if there are none, or if these are not the texts that the shards
    of the index were made of.
    """
    other_texts = ValueError(
        f"the texts are not those that {folder} was started with: give the same ones, "
        "or name another folder"
    )
    number, known, is_complete = -1, list(index["texts"]), index["is_complete"]
    for number, group in enumerate(group_pieces(pieces, GROUP_CHARACTERS)):
        digest = hashlib.sha256()
        for piece in group:
            text = piece.text.encode("utf-8", "surrogatepass")
            head = f"{piece.split} {piece.ends_document} {len(text)}\n"
            digest.update(head.encode() + text)
            bar.update(len(text))
        sha256 = digest.hexdigest()
        is_same = known[number] == sha256 if number < len(known) else not is_complete
        if not is_same:
            raise other_texts
        yield group, sha256
    if number < 0:
        raise ValueError("there is no text to tokenize")
    if number + 1 < len(known):
        raise other_texts


def tokenize(pieces, encoding, dtype):
    """The token ids of pieces in one array; <|endoftext|> follows each document."""
    rows = encoding.encode_ordinary_batch(
        [piece.text for piece in pieces], num_threads=os.cpu_count()
    )
    for piece, ids in zip(pieces, rows):
        if piece.ends_document:
            ids.append(encoding.eot_token)
    return np.fromiter(chain.from_iterable(rows), dtype)


def write_shard(path, ids, shards, number):
    """Write token ids to a new or damaged shard; add the entry of a new one to shards.

    Raises ValueError if a damaged shard would not be what it was.
    """
    content = ids.tobytes()
    shard = {"tokens": len(ids), "sha256": hashlib.sha256(content).hexdigest()}
    if number == len(shards):
        shards.append(shard)
    elif shard != shards[number]:
        raise ValueError(
            f"{path} is damaged, and the tokenizer no longer gives the ids that were "
            "in it: name another folder"
        )
    write_atomically(path, content)


def write_shards(pieces, folder, tokenizer, size=None):
    """Write those shards of all pieces that are missing or damaged; return the index.

    pieces: an iterable of Piece, the same each time, of which one group is in memory at
    once. tokenizer: GPT-2's, or a BPETokenizer; where a text contains <|endoftext|>,
    this is encoded as text. size: bytes of all texts, for the progress bar. Raises
    ValueError when there is no text or the folder holds shards of other texts, OSError
    when a shard cannot be written, and filelock.Timeout when another process is writing
    to the folder. The other shards are complete then.
    """
    folder, encoding = Path(folder), as_encoding(tokenizer)
    make_folder(folder)
    with FileLock(folder / "shards.lock", timeout=0):
        remove_temporaries(folder, WRITTEN_NAMES)  # of processes that were killed
        index = open_index(folder, encoding)
        damaged = find_damage(folder, index, verify=True)
        for path, fault in damaged.items():
            say(f"{one_line(path)} {fault}; it will be written again")
        if damaged or not index["is_complete"]:
            check_writable(
                folder / INDEX, min(GROUP_CHARACTERS, size or GROUP_CHARACTERS)
            )
        with tqdm(total=size, unit="B", unit_scale=True) as bar:
            groups = read_groups(pieces, index, folder, bar)
            for number, (group, sha256) in enumerate(groups):
                is_new = number == len(index["texts"])
                if is_new and number == 0:  # shards without an index are not ours
                    write_sealed(folder / INDEX, index)
                for split in SPLITS:
                    path = shard_path(folder, split, number)
                    if is_new or path in damaged:
                        chosen = [piece for piece in group if piece.split == split]
                        ids = tokenize(chosen, encoding, ID_TYPES[index["dtype"]])
                        write_shard(path, ids, index["shards"][split], number)
                if is_new:
                    index["texts"].append(sha256)
                    write_sealed(folder / INDEX, index)
        index["is_complete"] = True
        write_sealed(folder / INDEX, index)
    return index
