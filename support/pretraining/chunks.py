"""Texts in pieces, of any length in little memory (support: used, not taught).

A document is cut only before white space that follows something else: no token of
GPT-2's pattern reaches across such a place, so that the tokens of the pieces are those
of the whole. What has no such place for PIECE characters is cut where that ends.
"""

import codecs
import hashlib
import re
from itertools import chain
from typing import NamedTuple

from support.download.files import check_encoding, check_regular, size_of
from support.messages import one_line

PIECE = 2**16  # characters; tiktoken gives up on white space 15 times as long
BATCH_CHARACTERS = 2**22  # that the threads of a tokenizer share
# What Python counts as white space and GPT-2's pattern does not may stand before a cut.
LAST_CUT = re.compile(r".*[\S\x1c-\x1f](?=[ \t\r\n])", re.DOTALL)


class Piece(NamedTuple):
    """A stretch of a document's text, and the split that the document belongs to."""

    split: str
    text: str
    ends_document: bool


class Place(NamedTuple):
    """The number of a piece, and the sha256 of all pieces up to it, itself included."""

    piece: int
    read_sha256: str


NOWHERE = Place(-1, "")


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
    read twice. Raises ValueError, at the call, for what is not a file of UTF-8 text.
    """
    lengths = [length_of_file(path) for path in paths]
    files = (
        split_file(path, length, val_share) for path, length in zip(paths, lengths)
    )
    return chain.from_iterable(files)


def split_file(path, length, val_share):
    """Yield the pieces of one text file of so many characters."""
    num_train = int((1 - val_share) * length)
    with open(path, encoding="utf-8-sig") as file:
        for split, num in (("train", num_train), ("val", length - num_train)):
            if num:
                yield from cut_document(split, read_chunks(file, num))


def length_of_file(path):
    """The number of characters of a text file; ValueError if it is none, or empty."""
    check_is_file(path)
    name, length, is_blank = one_line(path), 0, True
    try:
        with open(path, "rb") as file:
            check_encoding(name, file.read(1000))
        with open(path, encoding="utf-8-sig") as file:
            while chunk := file.read(PIECE):
                length += len(chunk)
                is_blank = is_blank and chunk.isspace()
    except UnicodeDecodeError:
        raise ValueError(
            f"{name}, line {bad_line(path)} is not UTF-8 text; save the file as UTF-8"
        ) from None
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}") from None
    if is_blank:
        raise ValueError(f"{name} is empty")
    return length


def check_is_file(path):
    """Raise ValueError for a folder, a pipe or a device, and for what is not there."""
    check_regular(path)
    if size_of(path) is None:
        raise ValueError(f"{one_line(path)} is not a file")


def bad_line(path):
    """The number of the first line that is not UTF-8."""
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    with open(path, "rb") as file:
        while content := file.read(PIECE):
            try:
                line += decoder.decode(content).count("\n")
            except UnicodeDecodeError as error:
                return line + error.object[: error.start].count(b"\n")
    return line  # the last one ends within a character


def read_chunks(file, num_characters):
    """Yield the next num_characters of an open file in chunks of at most PIECE."""
    while num_characters and (chunk := file.read(min(PIECE, num_characters))):
        num_characters -= len(chunk)
        yield chunk


def numbered(pieces, bar):
    """Yield (place, piece) for each piece; a progress bar counts their bytes."""
    read = hashlib.sha256()
    for number, piece in enumerate(pieces):
        text = piece.text.encode("utf-8", "surrogatepass")
        head = f"{piece.split} {piece.ends_document} {len(text)}\n"
        read.update(head.encode() + text)
        yield Place(number, read.hexdigest()), piece
        bar.update(len(text))


def batches(placed_pieces):
    """Gather (place, piece) pairs into lists of some BATCH_CHARACTERS."""
    batch, num_characters = [], 0
    for place, piece in placed_pieces:
        batch.append((place, piece))
        num_characters += len(piece.text) + 1  # empty ones cost something too
        if num_characters >= BATCH_CHARACTERS:
            yield batch
            batch, num_characters = [], 0
    if batch:
        yield batch
