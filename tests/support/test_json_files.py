"""Small JSON files are read whole or refused in a sentence, whatever they are."""

import json
import math
import os

import pytest

from support.download.json_files import read_sealed, read_small_json, write_sealed

BROKEN = [b"", b"{", b"\xff", b"\0\0", b"[" * 10**5]
BROKEN += [b'{"a":' * 10**5, b"9" * 10**5, b"1 2", b"'a'"]


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: repr(content[:9]))
def test_what_is_no_json_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    for read in (read_small_json, lambda path: read_sealed(path, {"a"})):
        with pytest.raises(ValueError, match=r"a\.json"):
            read(path)


def make(path, kind):
    """Let something be at a path that is no small file."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link":
        path.symlink_to("nowhere")
    elif kind == "huge":
        path.touch()
        os.truncate(path, 10**12)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "link", "none", "huge"])
def test_what_is_no_small_file_is_not_read(tmp_path, kind):
    make(tmp_path / "a.json", kind)
    huge = "it has 1,000,000,000,000 bytes, and at most 268,435,456 are expected"
    reason = huge if kind == "huge" else "a regular file"
    for read in (read_small_json, lambda path: read_sealed(path, {"a"})):
        with pytest.raises(ValueError, match=rf"a\.json is .*{reason}"):
            read(tmp_path / "a.json")


def test_a_sealed_dict_comes_back(tmp_path):
    path = tmp_path / "a.json"
    write_sealed(path, {"a": 1, "b": ["é", None]})
    assert read_sealed(path, {"a"}) == {"a": 1, "b": ["é", None]}
    with pytest.raises(
        ValueError, match=r"a\.json is damaged: the sha256 in it does not match"
    ):
        read_sealed(path, {"a", "c"})


@pytest.mark.parametrize(
    "content", [[], None, 7, "a", {}, {"a": 1}, {"sha256": 1}, {"a": math.nan}]
)
def test_what_is_not_sealed_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"a\.json is damaged: the sha256 in it does not match"
    ):
        read_sealed(path, set())


@pytest.mark.parametrize("depth", [10, 300, 600, 900, 950, 990, 1000, 2000, 10**5])
def test_however_deep_the_brackets_are_it_is_a_sentence(tmp_path, depth):
    path = tmp_path / "a.json"
    path.write_text('{"a": ' + "[" * depth + "]" * depth + "}")
    with pytest.raises(ValueError, match=r"a\.json is "):
        read_sealed(path, {"a"})


def test_every_character_of_a_sealed_dict_counts(tmp_path):
    path = tmp_path / "a.json"
    write_sealed(path, {"a": 17, "b": {"c": "word"}})
    content = path.read_bytes()
    for place in range(len(content)):
        if content[place : place + 1].isspace():
            continue
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ValueError):
            read_sealed(path, {"a"})
