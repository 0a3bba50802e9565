"""Texts in pieces, so that texts of any length need little memory.

A document is cut only before white space that follows another character. No token of
GPT-2's pattern crosses such a position, so the pieces have the same tokens as the whole
document. A stretch of PIECE characters without such a position is cut at its end.
"""

import codecs
import io
import re
from itertools import chain
from typing import NamedTuple

from support.download.files import check_encoding, check_regular
from support.messages import one_line

PIECE = 2**16  # characters; tiktoken fails at white space that is 15 times as long
# Python counts \x1c to \x1f as white space, and GPT-2's pattern does not.
LAST_CUT = re.compile(r".*[\S\x1c-\x1f](?=[ \t\r\n])", re.DOTALL)


class Piece(NamedTuple):
    """A part of a document's text, and the split that the document belongs to."""

    split: str
    text: str
    ends_document: bool


def cut_document(split, chunks):
    """Yield the pieces of a document that comes in chunks of up to PIECE characters."""
    rest = ""
    for chunk in chunks:
        rest += chunk
        if len(rest) > PIECE:
            found = LAST_CUT.match(rest)
            end = found.end() if found else len(rest)
            yield Piece(split, rest[:end], False)
            rest = rest[end:]
    yield Piece(split, rest, True)


def split_texts(texts, val_share):
    """Yield the pieces of texts; one in 1 / val_share of them is for validation.

    With a share of 0.1 that is the tenth text, the twentieth and so on.
    """
    for number, text in enumerate(texts, 1):
        is_val = int(number * val_share) > int((number - 1) * val_share)
        chunks = (text[i : i + PIECE] for i in range(0, len(text), PIECE))
        yield from cut_document("val" if is_val else "train", chunks)


def split_files(paths, val_share):
    """Yield the pieces of text files; the last val_share of each is for validation.

    The share is one of its characters, as in `create_train_val_loaders`. Each file is
    read twice. Raises ValueError, at the call, if one is not a file of UTF-8 text.
    """
    lengths = [count_characters(path) for path in paths]
    return chain.from_iterable(
        split_file(path, length, val_share) for path, length in zip(paths, lengths)
    )


def split_file(path, length, val_share):
    """Yield the pieces of one text file of `length` characters."""
    num_train = int((1 - val_share) * length)
    with open(path, encoding="utf-8-sig") as file:
        for split, num in (("train", num_train), ("val", length - num_train)):
            if num:
                yield from cut_document(split, read_chunks(file, num))


def read_chunks(file, num_characters):
    """Yield the next num_characters of an open file in chunks of at most PIECE."""
    while num_characters and (chunk := file.read(min(PIECE, num_characters))):
        num_characters -= len(chunk)
        yield chunk


def count_characters(path):
    """The number of characters of a text file; ValueError if it is none, or empty."""
    check_regular(path)
    name, length, line, is_blank = one_line(path), 0, 1, True
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
    try:
        with open(path, "rb") as file:
            check_encoding(name, file.peek(1000)[:1000])
            while content := file.read(PIECE):
                text = decoder.decode(content)
                length, line = length + len(text), line + text.count("\n")
                is_blank = is_blank and not text.strip()
            length += len(decoder.decode(b"", final=True))
    except UnicodeDecodeError as error:
        line += error.object[: error.start].count(b"\n")
        raise ValueError(
            f"{name}, line {line} is not UTF-8 text; save the file as UTF-8"
        ) from None
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}") from None
    if is_blank:
        raise ValueError(f"{name} contains no text")
    return length


def group_pieces(pieces, num_characters):
    """Gather pieces into lists of num_characters or somewhat more."""
    group, size = [], 0
    for piece in pieces:
        group.append(piece)
        size += len(piece.text) + 1  # empty pieces take memory too
        if size >= num_characters:
            yield group
            group, size = [], 0
    if group:
        yield group
