"""Files appear whole or not at all, and a damaged one is named."""

import hashlib
import os
import re

import pytest

from ch02.files import Part, check_sha256, move_into_place, replacing, write_atomically

URL = "https://mirror/model.bin"


@pytest.fixture
def target(tmp_path):
    """Where a file is to lie, in a folder yet to be made."""
    return tmp_path / "folder" / "model.bin"


def test_a_file_is_written_whole(target):
    write_atomically(target, b"old")
    write_atomically(str(target), b"new")
    assert target.read_bytes() == b"new" and list(target.parent.iterdir()) == [target]


def test_what_fails_half_way_leaves_the_old_file(target):
    write_atomically(target, b"old")
    with pytest.raises(KeyError), replacing(target) as temporary:
        temporary.write_bytes(b"ne")
        raise KeyError
    assert target.read_bytes() == b"old" and list(target.parent.iterdir()) == [target]


def test_the_bytes_are_on_the_disk_before_the_name(target, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        usual = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, n=name, f=usual: (calls.append(n), f(*a))
        )
    target.parent.mkdir()
    temporary = target.with_name("temporary")
    temporary.write_bytes(b"new")
    move_into_place(temporary, target)
    assert calls == ["fsync", "replace", "fsync"] and target.read_bytes() == b"new"


def test_a_damaged_file_is_named_with_both_hashes(target):
    write_atomically(target, b"damaged")
    found = hashlib.sha256(b"damaged").hexdigest()
    reason = f"{target} is damaged: its sha256 is {found}, not {'0' * 64}"
    with pytest.raises(ValueError, match=re.escape(reason)):
        check_sha256(target, "0" * 64)
    check_sha256(target, found)


@pytest.fixture
def part(tmp_path):
    """Three bytes from a URL that gave them a strong ETag."""
    part = Part(tmp_path / "model.bin", None, None)
    with part.open_at(0, URL, '"tag"') as file:
        file.write(b"abc")
    return part


def test_a_part_knows_its_length_and_origin(part):
    assert part.length == 3 and part.origin == (URL, '"tag"')
    part.discard()
    assert part.length == 0 and part.origin == ("", "")
    part.discard()


def test_a_part_that_goes_on_keeps_its_origin(part):
    with part.open_at(3, URL, '"tag"') as file:
        file.write(b"def")
    assert part.path.read_bytes() == b"abcdef" and part.origin == (URL, '"tag"')


def test_a_part_from_two_urls_has_no_origin(part):
    with part.open_at(3, "https://other/", '"tag"') as file:
        file.write(b"def")
    assert part.path.read_bytes() == b"abcdef" and part.origin == ("", "")


def test_old_bytes_never_get_a_new_origin(part):
    part.source.unlink()
    part.source.mkdir()  # so that the note cannot be written
    with pytest.raises(IsADirectoryError):
        part.open_at(0, "https://other/", '"tag"')
    assert part.length == 0


NOTES = ["", "\n", URL, f"{URL}\n", f'{URL}\nW/"weak"\n', f'{URL}\n"cut', "\xff\n\n\n"]


@pytest.mark.parametrize("note", NOTES)
def test_a_note_that_tells_no_strong_etag(part, note):
    part.source.write_bytes(note.encode("latin-1"))
    assert part.origin[1] == ""
