"""A file that passed a check passes it again only while it is the same file."""

import os
import shutil

import pytest

from ch04.gpt import GPTModel
from support.download import checked_files, fetch
from support.download.checked_files import CheckedFiles
from support.weights import checkpoint
from support.weights.checkpoint import SavedFile, load_model, save_model
from tests.conftest import TINY


@pytest.fixture(autouse=True)
def young_files(monkeypatch):
    """Files need not be two seconds old."""
    monkeypatch.setattr(checked_files, "LEAST_AGE", 0)


@pytest.fixture
def path(tmp_path):
    """A file that has passed the check "a"."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    CheckedFiles(path).note("a")
    return path


def test_what_was_checked_is_known(path):
    assert CheckedFiles(path).have_passed("a")
    assert not CheckedFiles(path).have_passed("b")
    CheckedFiles(path).note("b")
    assert CheckedFiles(path).have_passed("a") and CheckedFiles(path).have_passed("b")


def test_an_open_file_is_the_same_file(path):
    with open(path, "rb") as file:
        assert CheckedFiles(file.fileno()).have_passed("a")


def change_content(path):
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"CONTENT")  # of the same size
    os.utime(path, ns=times)  # and as old as it was


def put_back(path):
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def set_time(path):
    os.utime(path, ns=(1, 1))


CHANGES = [
    change_content,
    put_back,
    set_time,
    lambda path: path.write_bytes(b""),
    lambda path: path.chmod(0o600),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_not_known(path, change):
    change(path)
    assert not CheckedFiles(path).have_passed("a")


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_during_a_check_has_not_passed_it(path, change):
    file = CheckedFiles(path)
    change(path)
    file.note("b")
    assert not CheckedFiles(path).have_passed("b")


def test_a_young_file_is_checked_again(path, monkeypatch):
    """A change within one tick of the clock would not be seen."""
    monkeypatch.setattr(checked_files, "LEAST_AGE", 10**12)
    CheckedFiles(path).note("b")
    assert not CheckedFiles(path).have_passed("b")


def test_all_of_several_files_have_to_pass(path, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"")
    assert not CheckedFiles(path, other).have_passed("a")
    CheckedFiles(path, other).note("a")
    assert CheckedFiles(path, other).have_passed("a")


def test_only_so_many_are_remembered(path, tmp_path, monkeypatch):
    monkeypatch.setattr(checked_files, "MAX_FILES", 2)
    others = [tmp_path / "one", tmp_path / "two"]
    for other in others:
        other.write_bytes(b"")
        CheckedFiles(other).note("a")
    assert not CheckedFiles(path).have_passed("a")
    assert CheckedFiles(*others).have_passed("a")


DEEP = b"[" * 900 + b"]" * 900
DAMAGED = [b"", b"[]", b"{", b"\xff", b'{"a": 3}', b'{"a": [{}]}', b"[[[], 1]]", b"3"]
DAMAGED += [b"[" * 9999, b'{"a": %s}' % DEEP]


@pytest.mark.parametrize("content", DAMAGED)
def test_what_is_remembered_may_be_damaged(path, checked_path, content):
    checked_path.write_bytes(content)
    assert not CheckedFiles(path).have_passed("a")
    CheckedFiles(path).note("a")
    assert CheckedFiles(path).have_passed("a")


@pytest.mark.timeout(30)  # a pipe would be waited for
def test_what_is_remembered_is_not_read_from_a_pipe(path, checked_path):
    checked_path.unlink()  # what the fixture noted
    os.mkfifo(checked_path)
    assert not CheckedFiles(path).have_passed("a")
    CheckedFiles(path).note("a")
    assert checked_path.is_file() and CheckedFiles(path).have_passed("a")


def test_what_cannot_be_remembered_is_checked_each_time(path, checked_path):
    shutil.rmtree(checked_path.parent)
    checked_path.parent.write_text("a file stands where the folder should be")
    CheckedFiles(path).note("b")
    assert not CheckedFiles(path).have_passed("b")


def test_a_download_is_hashed_once(path, monkeypatch):
    hashed, usual = [], fetch.sha256_of
    monkeypatch.setattr(
        fetch, "sha256_of", lambda path: hashed.append(1) or usual(path)
    )
    sha256 = usual(path)
    for _ in range(2):
        assert fetch.fetch("https://localhost/none", path, sha256=sha256) == path
    assert len(hashed) == 1
    change_content(path)
    assert not fetch.is_complete(path, sha256, 7) and len(hashed) == 2


def test_a_saved_model_is_hashed_once_unless_it_is_to_be_checked(tmp_path, monkeypatch):
    hashed, usual = [], checkpoint.sha256_of_model
    path = tmp_path / "model.safetensors"
    save_model(path, GPTModel(TINY), TINY)
    monkeypatch.setattr(
        checkpoint, "sha256_of_model", lambda *a: hashed.append(1) or usual(*a)
    )
    for _ in range(2):
        load_model(path)
    assert len(hashed) == 1
    SavedFile(path)
    assert len(hashed) == 2
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        load_model(path)
