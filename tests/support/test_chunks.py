"""Texts come in pieces that have the tokens of the whole, in little memory."""

import codecs
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ch02.tokenizer import get_tokenizer
from support.download.texts import STORY, load_text
from support.pretraining import chunks as chunking
from support.pretraining.chunks import (
    LAST_CUT,
    cut_document,
    group_pieces,
    split_files,
    split_texts,
)

SHORT = 16  # characters of a piece in these tests
WORDS = st.text("ab1.é'<|\x1c", min_size=1, max_size=7)
SPACES = st.text(" \n\t\r\xa0\u2003", min_size=1, max_size=3)


@pytest.fixture(autouse=True, scope="module")
def short_pieces():
    """A few words are a long text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunking, "PIECE", SHORT)
        yield


@pytest.fixture
def file(tmp_path):
    """A function that writes bytes to a file of a name."""

    def write(content, name="text.txt"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def chunks_of(text):
    """A text in chunks as a file gives them."""
    return [text[i : i + SHORT] for i in range(0, len(text), SHORT)]


def joined(pieces, split):
    """The text of all pieces of a split, with a bar at the end of each document."""
    return "".join(p.text + "|" * p.ends_document for p in pieces if p.split == split)


def encode_pieces(texts):
    """GPT-2's ids of texts one after the other."""
    rows = get_tokenizer().encode_ordinary_batch(texts, num_threads=1)
    return [token_id for row in rows for token_id in row]


@given(st.lists(st.tuples(WORDS, SPACES | st.just(" "))))
def test_pieces_have_the_tokens_of_the_whole(words):
    text = "".join(word + space for word, space in words)
    texts = [piece.text for piece in cut_document("train", chunks_of(text))]
    assert "".join(texts) == text
    safe = [t for t, after in zip(texts, texts[1:]) if LAST_CUT.match(t + after[:1])]
    if len(safe) == len(texts) - 1:
        assert encode_pieces(texts) == encode_pieces([text])


@given(st.lists(st.tuples(WORDS, st.sampled_from(" \n\t\r"))))
@example([(word, " ") for word in 4 * ["1111\x1c"] + 5 * ["\x1c"]])
def test_between_short_words_each_cut_is_safe(words):
    text = "".join(word + space for word, space in words)
    texts = [piece.text for piece in cut_document("train", chunks_of(text))]
    assert all(t[-1:] and t[-1] not in " \n\t\r" for t in texts[:-1])
    assert encode_pieces(texts) == encode_pieces([text])


@given(st.text())
@example("0 " + 32 * "0")
def test_no_text_is_lost_and_no_piece_is_long(text):
    pieces = [*cut_document("val", chunks_of(text))]
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.ends_document for piece in pieces] == [
        *[False] * (len(pieces) - 1),
        True,
    ]
    assert {piece.split for piece in pieces} == {"val"}
    # the longest: what a late cut left of two chunks, and a third without any cut
    assert all(len(piece.text) < 3 * SHORT for piece in pieces)


def test_long_white_space_is_no_trouble(monkeypatch):
    monkeypatch.setattr(chunking, "PIECE", 2**16)  # the real one
    text = " " * 1_200_000 + "x"
    chunks = (text[i : i + 2**16] for i in range(0, len(text), 2**16))
    texts = [piece.text for piece in cut_document("train", chunks)]
    assert get_tokenizer().decode(encode_pieces(texts)) == text


@pytest.mark.parametrize(
    ("share", "numbers"),
    [(0.1, [10, 20, 30]), (0.0, []), (0.5, [*range(2, 31, 2)]), (0.3, None)],
)
def test_texts_for_validation_come_evenly(share, numbers):
    pieces = [*split_texts([str(number) for number in range(1, 31)], share)]
    found = [int(piece.text) for piece in pieces if piece.split == "val"]
    assert len(pieces) == 30 and len(found) == round(share * 30)
    assert numbers is None or found == numbers


def test_a_file_is_cut_where_the_course_cuts_its_story():
    text = load_text()
    pieces = [*split_files([STORY], 0.1)]
    split_idx = int(0.9 * len(text))
    assert joined(pieces, "train") == text[:split_idx] + "|"
    assert joined(pieces, "val") == text[split_idx:] + "|"


CONTENTS = [
    "é€𝄞 of several bytes ".encode() * 9,
    b"\xef\xbb\xbfmark of Windows",
    b"line ends\r\nof Windows\r\n" * 3,
    b"one",
]


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_a_file_is_read_as_load_text_reads_it(file, content, share):
    path = file(content)
    pieces = [*split_files([path], share)]
    found = "".join(piece.text for piece in pieces)
    assert found == load_text(path)
    num_val = len(joined(pieces, "val").rstrip("|"))
    assert num_val == len(found) - int((1 - share) * len(found))


def test_each_file_gives_both_splits(file):
    paths = [file(b"abcdefghij", "1"), file(b"klmnopqrst", "2")]
    pieces = [*split_files(paths, 0.2)]
    assert joined(pieces, "train") == "abcdefgh|klmnopqr|"
    assert joined(pieces, "val") == "ij|st|"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "contains no text"),
        (b" \n" * 40, "contains no text"),
        (b"good until here \xff", "line 1 is not UTF-8 text; save the file as UTF-8"),
        (b"1\n\xc3\xa9\r\n" * 9 + b"\xe9", "line 19 is not UTF-8 text; save"),
        (b"ends within a character \xc3", "line 1 is not UTF-8 text; save"),
        ("words".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (codecs.BOM_UTF16_BE + "é".encode("utf-16-be"), "is UTF-16 text; save it"),
        (
            "no mark at all".encode("utf-16-le"),
            "is not text, or it is UTF-16 text; save",
        ),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_what_is_no_text_is_said_at_the_call(file, tmp_path, content, reason):
    good = file(b"good", "good.txt")
    bad = tmp_path / "none" if content is None else file(content)
    with pytest.raises(ValueError, match=f"{bad.name},? ?{reason}"):
        split_files([good, bad], 0.1)


def test_a_folder_and_a_pipe_are_no_texts(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path, "a folder"), (tmp_path / "pipe", "a pipe")):
        with pytest.raises(ValueError, match=f"{path} is {kind}, and a file is expect"):
            split_files([path], 0.1)


def test_a_file_is_read_bit_by_bit(file):
    path = file(b"word " * 20_000)
    pieces = split_files([path], 0.1)
    next(pieces)
    path.write_bytes(b"")  # what has not been read yet is gone
    assert len(joined(pieces, "train")) < 90_000


def test_groups_are_of_bounded_length():
    texts = ["", "a" * 12, "b", "", "c" * 15, "d" * 5]
    pieces = [*split_texts(texts, 0.0)]
    found = [*group_pieces(pieces, 30)]
    assert [piece for group in found for piece in group] == pieces
    assert [len(group) for group in found] == [5, 1]
    assert [*group_pieces([], 30)] == []
