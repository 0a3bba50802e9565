"""The tokenizer of token shards, kept beside them (support: used, not taught)."""

import os
from contextlib import suppress
from pathlib import Path

import tiktoken

from ch02.bpe import SPLIT_PATTERN
from ch02.tokenizer import BPETokenizer, get_tokenizer
from support.download.files import replacing, sha256_of
from support.messages import one_line, say
from support.pretraining.shards import MEND, read_index

VOCABULARY = "tokenizer.json"


def as_encoding(tokenizer):
    """A tiktoken encoding that gives the ids which a BPETokenizer gives, but faster."""
    if isinstance(tokenizer, tiktoken.Encoding):
        return tokenizer
    return tiktoken.Encoding(
        VOCABULARY,
        pat_str=SPLIT_PATTERN.pattern,
        mergeable_ranks=tokenizer.vocab,
        special_tokens=tokenizer.special_tokens,
    )


def record_tokenizer(folder, tokenizer):
    """What the index says of a tokenizer; a BPETokenizer is saved into the folder.

    Raises ValueError for one that could not be loaded again, or without <|endoftext|>,
    and if the folder has another one.
    """
    encoding, digest = as_encoding(tokenizer), None
    if encoding.name not in ("gpt2", VOCABULARY):
        raise ValueError(f"expected GPT-2's tokenizer or a BPETokenizer: {encoding}")
    if "<|endoftext|>" not in encoding.special_tokens_set:
        raise ValueError("the tokenizer has no <|endoftext|>: train one that has it")
    if encoding is not tokenizer:
        digest = keep_vocabulary(folder, tokenizer)
    return {
        "tokenizer": encoding.name,
        "tokenizer_sha256": digest,
        "vocab_size": encoding.n_vocab,
        "eot_id": encoding.eot_token,
        "dtype": "uint16" if encoding.n_vocab <= 2**16 else "uint32",
    }


def keep_vocabulary(folder, tokenizer):
    """Let a folder hold the vocabulary of a BPETokenizer; returns its file's sha256.

    One that got damaged is written again. ValueError if there is another one.
    """
    path = folder / VOCABULARY
    if not os.path.lexists(path):
        tokenizer.save(path)
    elif not is_saved_in(path, tokenizer):
        with replacing(path) as temporary:
            tokenizer.save(temporary)
            if sha256_of(temporary) != known_sha256(folder):
                raise ValueError(f"{path} is another tokenizer: name another folder")
        say(f"{one_line(path)} was damaged; it is written again")
    return sha256_of(path)


def is_saved_in(path, tokenizer):
    """True if a file holds this BPETokenizer; False for another, and for no file."""
    with suppress(ValueError):
        saved = BPETokenizer.load(path)
        return (saved.vocab, saved.special_tokens) == (
            tokenizer.vocab,
            tokenizer.special_tokens,
        )
    return False


def known_sha256(folder):
    """The sha256 that a folder's index has of its vocabulary; None without an index."""
    with suppress(ValueError):
        return read_index(folder)["tokenizer_sha256"]
    return None


def load_shard_tokenizer(folder):
    """The tokenizer that wrote a folder's shards; ValueError if its file is damaged."""
    index = read_index(folder)
    if index["tokenizer"] != VOCABULARY:
        return get_tokenizer(index["tokenizer"])
    path = Path(folder) / VOCABULARY
    if not path.is_file():
        raise ValueError(f"{path} is missing; {MEND}")
    if sha256_of(path) != index["tokenizer_sha256"]:
        raise ValueError(f"{path} is damaged; {MEND}")
    return BPETokenizer.load(path)
