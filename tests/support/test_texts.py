"""Texts are read whole, or a sentence says what is wrong with them."""

import os
import shutil

import pytest

from support.download.fetch import FetchError
from support.download.files import sha256_of
from support.download.texts import VERDICT_SHA256, VERDICT_URLS, load_text


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """An empty folder of downloads, and no network."""
    monkeypatch.setenv("LLMS_DOWNLOADS", str(tmp_path))
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def as_file(tmp_path):
    """Write content to a file and return its path."""

    def write(content):
        path = tmp_path / "text.txt"
        path.write_bytes(content)
        return path

    return write


def test_the_story_is_of_the_length_that_the_course_counts_on():
    assert 20_000 <= len(load_text()) <= 30_000


@pytest.mark.parametrize("kind", [str, os.fsencode, lambda path: path])
def test_a_file_is_read_by_its_path(as_file, kind):
    assert load_text(kind(as_file("naïve\r\ntide".encode()))) == "naïve\ntide"


def test_a_byte_order_mark_is_no_part_of_the_text(as_file):
    assert load_text(as_file("\ufefftide".encode())) == "tide"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "text.txt contains no text"),
        (b" \r\n\t", "text.txt contains no text"),
        ("\ufeff".encode(), "text.txt contains no text"),
        (b"tide\nna\xefve", "text.txt, line 2: the byte 0xef is not UTF-8"),
        ("tide".encode("utf-16"), "text.txt is UTF-16 text; save it as UTF-8"),
    ],
)
def test_a_file_without_a_text_is_refused(as_file, content, reason):
    with pytest.raises(ValueError, match=reason):
        load_text(as_file(content))


@pytest.mark.parametrize("name", [".", "missing.txt", "missing/text.txt"])
def test_what_is_no_file_is_named(tmp_path, name):
    with pytest.raises(ValueError, match="is not a file: give the path of") as caught:
        load_text(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["tide " * 5000, "a\0b", "", b"tide", "/dev/zero"], ids=range(5)
)
def test_a_text_in_a_paths_place_is_a_short_sentence(text):
    with pytest.raises(ValueError, match="is not a file: give the path of") as caught:
        load_text(text)
    assert len(str(caught.value)) < 400


def test_the_verdict_is_read_from_the_downloads(verdict_file, downloads):
    shutil.copy(verdict_file, downloads)
    assert load_text("the-verdict") == verdict_file.read_text(encoding="utf-8")
    assert sha256_of(verdict_file) == VERDICT_SHA256


@pytest.mark.parametrize("damaged", [False, True], ids=["absent", "damaged"])
def test_offline_the_verdict_says_where_to_get_and_put_it(downloads, damaged):
    target = downloads / "the-verdict.txt"
    if damaged:
        target.write_text("I HAD always thought")
    with pytest.raises(FetchError, match="LLMS_OFFLINE") as caught:
        load_text("the-verdict")
    for needed in (str(target), *VERDICT_URLS):
        assert needed in str(caught.value)
    assert ("damaged" in str(caught.value)) == damaged
