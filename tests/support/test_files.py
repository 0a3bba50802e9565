"""Files appear whole or not at all, and what a reader brings is read or named."""

import errno
import hashlib
import json
import os
import re
import socket

import pytest

from support.download.files import (
    PartialFile,
    check_regular,
    check_sha256,
    check_writable,
    make_folder,
    move_into_place,
    read_json,
    read_text,
    remove_temporaries,
    replacing,
    set_aside,
    sha256_of,
    size_of,
    temporary_path,
    write_atomically,
)

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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("function", ["os.fsync", "os.replace", "io.open"])
def test_what_cannot_be_written_is_named(target, monkeypatch, number, function):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    write_atomically(target, b"old")
    with monkeypatch.context() as patch, pytest.raises(OSError) as caught:
        patch.setattr(function, fail)
        write_atomically(target, b"new")
    assert (caught.value.errno, caught.value.filename) == (number, str(target))
    assert target.read_bytes() == b"old" and list(target.parent.iterdir()) == [target]


def test_what_a_killed_process_left_goes_and_a_readers_files_stay(tmp_path):
    with replacing(tmp_path / "model.bin") as temporary:
        name = temporary.name
        temporary.write_bytes(b"whole")
    for left in (name, name.replace("model", "other")):
        (tmp_path / left).write_bytes(b"half")
    mine = ["model.bin.tmp", "model.bin.4711.tmp", f"a.{name}", f"{name}.old"]
    mine += [name.replace(".tmp", ""), name.upper(), name.replace(".bin", "")]
    for other in mine:
        (tmp_path / other).write_bytes(b"a reader's")
    mine += [temporary_path(tmp_path / "model.bin").name]
    (tmp_path / mine[-1]).mkdir()
    remove_temporaries(tmp_path, re.compile(r"model\.bin"))
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {*mine, "model.bin", name.replace("model", "other")}


@pytest.mark.parametrize("num_bytes", [0, 1, 3 * 2**20 + 1])
@pytest.mark.parametrize("has_fallocate", [True, False])
def test_whether_a_place_can_be_written_is_tried(
    tmp_path, monkeypatch, num_bytes, has_fallocate
):
    if not has_fallocate:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    sizes, usual = [], os.fsync

    def fsync(number):
        sizes.append(os.fstat(number).st_size)
        usual(number)

    monkeypatch.setattr(os, "fsync", fsync)
    check_writable(tmp_path / "model.bin", num_bytes)
    assert sizes == [num_bytes] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("function", ["fsync", "posix_fallocate"])
def test_a_place_that_cannot_be_written_is_named(
    tmp_path, monkeypatch, number, function
):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, function, fail, raising=False)
    with pytest.raises(OSError, match=f"{os.strerror(number)}: .*model.bin") as caught:
        check_writable(tmp_path / "model.bin", 100)
    assert caught.value.errno == number and list(tmp_path.iterdir()) == []


def test_a_file_cannot_be_a_folder(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_bytes(b"a reader's")
    for path in (tmp_path / "file", tmp_path / "file" / "b"):
        reason = f"the folder {path} cannot be created, because it or one of its parent"
        with pytest.raises(ValueError, match=reason):
            make_folder(path)


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
    part = PartialFile(tmp_path / "model.bin", None, None)
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


# What a reader brings


def listen(path):
    """A socket with a name, as programs have them to be talked to."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)  # a short name: long ones are refused


STRANGE = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a socket": listen,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.timeout(30)  # a pipe would be waited for, and a device has no end
@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_file_is_named_and_never_opened(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "strange"
    STRANGE[kind](path)
    assert size_of(path) is None
    reason = f"{re.escape(str(path))} is {kind}, and a file is expected there"
    for use in (check_regular, sha256_of, read_text, read_json):
        with pytest.raises(ValueError, match=reason):
            use(path)


@pytest.mark.parametrize("name", ["missing", "missing/deeper", "n" * 300, "a\0b"])
def test_what_is_not_there_has_no_size_and_is_named(tmp_path, name):
    assert size_of(tmp_path / name) is None
    for use in (read_text, read_json):
        with pytest.raises(ValueError, match="cannot be read|is not a file name"):
            use(tmp_path / name)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs Linux")
def test_a_file_that_may_not_be_read_is_named():
    with pytest.raises(ValueError, match="/proc/self/mem cannot be read: Input/output"):
        read_text("/proc/self/mem")


TEXTS = {
    b"tide\n": "tide\n",
    "naïve\r\ntide\r\n".encode(): "naïve\ntide\n",
    b"old\rMac\r": "old\nMac\n",
    "\ufeff日本".encode(): "日本",
    "\ufeff\r\n".encode(): "\n",
    b"": "",
    "one\0zero and a\x1c\u2028\x85 few".encode(): "one\0zero and a\x1c\u2028\x85 few",
}


@pytest.mark.parametrize("kind", [str, os.fsencode, lambda path: path])
@pytest.mark.parametrize(("content", "text"), TEXTS.items())
def test_a_text_is_read_whatever_its_mark_and_line_ends(tmp_path, kind, content, text):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    assert read_text(kind(path)) == text


UTF_16 = "not text, or it is UTF-16 text"
ADVICE = "is not UTF-8 text; save the file as UTF-8"
NO_TEXTS = {
    "tide".encode("utf-16"): " is UTF-16 text; save it as UTF-8",
    "\ufefftide".encode("utf-16-be"): " is UTF-16 text; save it as UTF-8",
    "tide".encode("utf-32"): " is UTF-16 text; save it as UTF-8",
    "tide".encode("utf-16-le"): f" is {UTF_16}; save it as UTF-8",
    "tide".encode("utf-16-be"): f" is {UTF_16}; save it as UTF-8",
    bytes(100): f" is {UTF_16}; save it as UTF-8",
    b"na\xefve": f", line 1: the byte 0xef {ADVICE}",
    b"a\r\nb\nc\xe9": f", line 3: the byte 0xe9 {ADVICE}",
    b"a\n\xe6\x97": f", line 2: the byte 0xe6 {ADVICE}",
    b"\xed\xa0\x80": f", line 1: the byte 0xed {ADVICE}",
}


@pytest.mark.parametrize(("content", "reason"), NO_TEXTS.items())
def test_what_is_no_text_is_named_with_its_line(tmp_path, content, reason):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    for use in (read_text, read_json):
        with pytest.raises(ValueError) as caught:
            use(path)
        assert str(caught.value) == f"{path}{reason}"


ENTRIES = [{"a": "naïve\u2028"}, {"b": [1, 2]}]
LINES = [json.dumps(entry, ensure_ascii=False) for entry in ENTRIES]
JSONS = {
    "a list": (json.dumps(ENTRIES), ENTRIES),
    "with indents": (json.dumps(ENTRIES, indent=2), ENTRIES),
    "after a mark": ("\ufeff" + json.dumps(ENTRIES), ENTRIES),
    "with Windows' line ends": (json.dumps(ENTRIES, indent=1), ENTRIES),
    "lines": ("\n".join(LINES), ENTRIES),
    "lines with an end": ("\n".join(LINES) + "\n", ENTRIES),
    "lines with gaps": ("\n\n" + "\n \n".join(LINES) + "\n\n", ENTRIES),
    "lines after a mark": ("\ufeff" + "\r\n".join(LINES), ENTRIES),
    "lines of numbers": ("1\n2", [1, 2]),
    "one line": (LINES[0], ENTRIES[0]),
}


@pytest.mark.parametrize("case", JSONS.values(), ids=JSONS)
def test_json_and_json_lines_are_read(tmp_path, case):
    text, content = case
    path = tmp_path / "data.json"
    path.write_bytes(text.encode())
    assert read_json(str(path)) == content


NO_JSONS = {
    "": " is empty, but it must contain JSON",
    " \r\n\t": " is empty, but it must contain JSON",
    "{": ", line 1 is not JSON: Expecting property name enclosed in double quotes",
    "[1,\n2,\n3,\n]": ", line 4 is not JSON: Expecting value",
    '{"a": 1}\n\n{"b": 2\n': ", line 3 is not JSON: Expecting ',' delimiter",
    '{"a": 1}\nb': ", line 2 is not JSON: Expecting value",
    "a,b\n1,2": ", line 1 is not JSON: Expecting value",
    "[" * 100_000: " is nested too deeply to be read",
    '{"a":' * 100_000: " is nested too deeply to be read",
    "1\n" + "[" * 100_000: " is nested too deeply to be read",
    "9" * 10_000: " cannot be read: Exceeds the limit",
    '"\ud83d': ", line 1 is not JSON: Unterminated string",
}


@pytest.mark.parametrize(("text", "reason"), NO_JSONS.items(), ids=range(len(NO_JSONS)))
def test_what_is_no_json_is_one_sentence_with_file_and_line(tmp_path, text, reason):
    path = tmp_path / "data.json"
    path.write_bytes(text.encode("utf-8", "replace"))
    with pytest.raises(ValueError, match=re.escape(f"data.json{reason}")) as caught:
        read_json(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_what_is_set_aside_keeps_its_bytes_and_takes_no_other_files_name(
    tmp_path, capsys
):
    for number in range(3):
        path = tmp_path / "mine"
        path.write_text(str(number))
        set_aside(path)
        assert not path.exists()
        old = tmp_path / f"mine.old{number or ''}"
        assert f"It was renamed to {old.name}.\n" in capsys.readouterr().out
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["0", "1", "2"]


def test_a_link_that_leads_nowhere_and_a_folder_are_set_aside_too(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder" / "deeper").mkdir(parents=True)
    for name in ("link", "folder"):
        set_aside(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"link.old", "folder.old"}


def test_nothing_and_an_empty_file_are_not_worth_keeping(tmp_path, capsys):
    set_aside(tmp_path / "missing")
    (tmp_path / "empty").touch()
    set_aside(tmp_path / "empty")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert capsys.readouterr().out == ""
