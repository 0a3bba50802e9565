"""Downloads from a real server on this machine: whole, or an error that says why."""

import errno
import hashlib
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from threading import Thread
from time import monotonic, sleep

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.download.fetch import (
    FetchError,
    downloads_folder,
    fetch,
    is_offline,
)
from support.download.files import PartialFile, write_atomically
from support.messages import printable
from support.paths import ROOT
from tests.server import (
    BODY,
    HALF,
    KNOWN,
    OTHER,
    PAGE,
    SHA256,
    Answer,
    closed_url,
    serving,
)

LENGTH = len(BODY)
CUT, GONE, BUSY = Answer(sent=HALF), Answer(status=404), Answer(status=503)
HTML = Answer(body=PAGE, headers={"Content-Type": "text/html"})
FAULTS = {
    "404": GONE,
    "503": BUSY,
    "cut": Answer(sent=9),
    "cut, of unknown length": Answer(sent=9, headers={"Content-Length": None}),
    "damaged": Answer(body=OTHER),
    "page": HTML,
}
FETCHING = f"""
import sys
from support.download.fetch import fetch
fetch(sys.argv[2:], sys.argv[1], size={LENGTH}, sha256={SHA256!r}, progress=False)
"""


@pytest.fixture
def server(monkeypatch):
    """A server that misbehaves as told."""
    with serving(monkeypatch) as server:
        yield server


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The seconds of each pause, which takes none."""
    seconds = []
    monkeypatch.setattr("support.download.fetch.pause", seconds.append)
    return seconds


@pytest.fixture
def target(tmp_path):
    """Where the file is to lie."""
    return tmp_path / "downloads" / "model.bin"


@pytest.fixture
def foreign_folder():
    """A folder in which `no_rights` leaves no right to write."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@contextmanager
def no_rights():
    """Act as nobody where this process is root, whom no folder refuses."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def part_of(target):
    """Leave bytes in the `.part` beside the target, as from a URL with its ETag."""

    def write(content, url="http://elsewhere/", etag='"first"'):
        target.parent.mkdir(exist_ok=True)
        part = PartialFile(target, None, None)
        with part.open_at(0, url, etag) as file:
            file.write(content)
        return part.path

    return write


def get(urls, target, **known):
    """Fetch without a progress bar; the file's sha256 is known unless others are."""
    return fetch(urls, target, progress=False, **(known or {"sha256": SHA256}))


def refusal(urls, target, **known):
    """What the FetchError says that a fetch ends with."""
    with pytest.raises(FetchError) as caught:
        get(urls, target, **known)
    return str(caught.value)


def names(target):
    """The names of what lies in the target's folder, but for the lock."""
    found = {path.name for path in target.parent.iterdir()}
    return found - {f"{target.name}.lock"}


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_a_file_arrives_whole_and_alone(server, target, known, chunked):
    url = server.mirror(chunked=chunked)
    assert get([url], str(target), **known) == target
    assert target.read_bytes() == BODY and names(target) == {"model.bin"}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_second_mirror_is_asked_when_the_first_fails(server, target, fault):
    get([server.mirror("/1", fault), server.mirror("/2")], target)
    assert target.read_bytes() == BODY
    assert list(dict.fromkeys(server.paths)) == ["/1", "/2"]


def test_the_second_mirror_is_left_alone_when_the_first_delivers(server, target):
    get([server.mirror("/1"), server.mirror("/2")], target)
    assert server.paths == ["/1"]


# What is here already


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_a_whole_file_is_used_with_no_request(server, target, known):
    write_atomically(target, BODY)
    assert get([server.mirror()], target, **known) == target
    assert server.requests == []


@pytest.mark.parametrize("content", [b"", BODY[:-1], BODY + b"?", OTHER])
def test_a_damaged_file_is_replaced(server, target, content):
    write_atomically(target, content)
    assert get([server.mirror()], target).read_bytes() == BODY


def test_a_file_of_the_wrong_size_is_replaced(server, target):
    write_atomically(target, BODY[:-1])
    assert get([server.mirror()], target, size=LENGTH).read_bytes() == BODY


def test_what_a_reader_put_there_is_kept_under_another_name(server, target, capsys):
    for number, content in enumerate([b"a file of mine", OTHER, b"one more"]):
        write_atomically(target, content)
        get([server.mirror()], target)
        old = target.with_name(f"model.bin.old{number or ''}")
        assert target.read_bytes() == BODY and old.read_bytes() == content
        said = f"{target} was not the expected file. It was renamed to {old.name}.\n"
        assert capsys.readouterr().out == said


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("known", ["both", "sha256", "size"])
def test_what_a_reader_put_there_stays_where_nothing_whole_comes(
    server, target, known, fault
):
    mine = b"a file of mine"
    write_atomically(target, mine)
    if known == "size" and fault == FAULTS["damaged"]:
        fault = GONE  # for of the right size that file would be taken
    refusal([server.mirror("/model.bin", fault)], target, **KNOWN[known])
    assert (
        target.read_bytes() == mine and not target.with_name("model.bin.old").exists()
    )


@pytest.mark.parametrize("offline", ["", "1"])
@pytest.mark.parametrize("known", ["both", "sha256", "size"])
def test_a_whole_part_is_used_with_no_request(
    server, target, part_of, monkeypatch, known, offline
):
    monkeypatch.setenv("LLMS_OFFLINE", offline)
    part_of(BODY)
    assert get([server.mirror()], target, **KNOWN[known]).read_bytes() == BODY
    assert server.requests == [] and names(target) == {"model.bin"}


def test_a_part_of_which_nothing_is_known_is_not_taken_for_whole(
    server, target, part_of
):
    part_of(BODY[:HALF])
    assert get([server.mirror()], target, size=None).read_bytes() == BODY


@pytest.mark.parametrize("content", [OTHER, BODY + b"?"], ids=["damaged", "too long"])
@pytest.mark.parametrize("known", ["both", "sha256"])
def test_a_part_that_is_not_the_files_is_dropped(
    server, target, part_of, known, content
):
    part_of(content)
    assert get([server.mirror()], target, **KNOWN[known]).read_bytes() == BODY
    needless = [] if "size" in KNOWN[known] else [f"bytes={len(content)}-"]
    assert server.ranges == [*needless, None]


def test_a_part_that_came_whole_before_the_end_needs_no_byte_more(
    server, target, part_of
):
    url = server.mirror()
    part_of(BODY, url)
    assert get([url], target, size=None).read_bytes() == BODY
    assert server.ranges == [f"bytes={LENGTH}-"]


@pytest.mark.parametrize(
    ("state", "content"),
    [("missing", None), ("damaged", BODY[:-1]), ("damaged", OTHER)],
)
def test_offline_no_request_is_made(server, target, monkeypatch, state, content):
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    if content:
        write_atomically(target, content)
    words = refusal([server.mirror()], target, **KNOWN["both"])
    assert words.startswith(f"{target} is {state}, and LLMS_OFFLINE forbids ")
    assert server.mirror() in words and server.requests == []
    assert target.parent.exists() == bool(content)


def test_offline_a_begun_part_is_kept(server, target, part_of, monkeypatch):
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    part = part_of(BODY[:HALF])
    assert "is missing" in refusal([server.mirror()], target)
    assert server.requests == [] and part.read_bytes() == BODY[:HALF]


def test_offline_a_whole_file_is_used(target, monkeypatch):
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    write_atomically(target, BODY)
    assert get(["http://127.0.0.1/model.bin"], target) == target


# Going on


def random_cuts(seed, chunked, **options):
    """Answers that are cut at seeded places, over and over."""
    draw = Random(seed)
    lengths = [draw.randrange(LENGTH // 8) for _ in range(60)]
    return [Answer(sent=sent, chunked=chunked, **options) for sent in lengths]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
@pytest.mark.parametrize("seed", range(2))
def test_a_line_that_is_cut_over_and_over_delivers(
    server, target, monkeypatch, known, chunked, seed
):
    monkeypatch.setattr("support.download.fetch.MIN_GAIN", 1)  # of a small file
    url = server.mirror("/model.bin", *random_cuts(seed, chunked))
    assert get([url], target, **known).read_bytes() == BODY
    starts = [int(asked[6:-1]) for asked in server.ranges[1:]]
    assert starts == sorted(starts) and len(starts) > 5


def test_two_mirrors_share_the_work_when_the_sha256_is_known(server, target):
    urls = [server.mirror("/1", CUT, GONE), server.mirror("/2", etag='"other"')]
    assert get(urls, target).read_bytes() == BODY
    assert server.paths == ["/1", "/2"] and server.ranges == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize("known", ["size", "neither"])
def test_two_mirrors_share_nothing_when_it_is_not(server, target, known):
    urls = [server.mirror("/1", CUT, GONE), server.mirror("/2")]
    assert get(urls, target, **KNOWN[known]).read_bytes() == BODY
    assert server.paths == ["/1", "/2"] and server.ranges == [None, None]


def test_another_mirror_does_not_start_anew_in_haste(server, target, part_of):
    urls = [server.mirror("/1"), server.mirror("/2", BUSY, Answer())]
    part_of(BODY[:HALF], urls[1])
    assert get(urls, target, size=LENGTH).read_bytes() == BODY
    assert server.paths == ["/2", "/2"] and server.ranges == [f"bytes={HALF}-"] * 2


def test_another_mirror_starts_anew_in_the_end(server, target, part_of):
    urls = [server.mirror("/1"), server.mirror("/2", BUSY)]
    part_of(BODY[:HALF], urls[1])
    assert get(urls, target, size=LENGTH).read_bytes() == BODY
    assert server.paths == ["/2", "/2", "/1"] and server.ranges[2] is None


def test_joined_bytes_are_never_taken_for_one_mirrors(server, target):
    little = Answer(sent=1000)
    urls = [server.mirror("/1", CUT, GONE), server.mirror("/2", little, GONE)]
    assert f"{HALF + 1000:,} bytes are saved" in refusal(urls, target)
    server.requests.clear()
    assert get([server.mirror("/1")], target, size=LENGTH).read_bytes() == BODY
    assert server.ranges == [None]


WRONG_PARTS = {
    "start": {"Content-Range": f"bytes 7-{LENGTH - 1}/{LENGTH}"},
    "total": {"Content-Range": f"bytes {HALF}-{LENGTH - 1}/{LENGTH + 1}"},
    "garbage": {"Content-Range": "bytes"},
}


@pytest.mark.parametrize("known", ["both", "size"])
@pytest.mark.parametrize("headers", WRONG_PARTS.values(), ids=WRONG_PARTS)
def test_after_a_wrong_part_the_whole_file_is_asked_for(server, target, headers, known):
    answers = CUT, Answer(headers=headers), Answer()
    url = server.mirror("/model.bin", *answers)
    assert get([url], target, **KNOWN[known]).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-", None]


@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("known", ["size", "neither"])
def test_a_file_that_changes_between_two_requests_is_not_mixed(
    server, target, known, honest
):
    old = Answer(body=OTHER, sent=HALF)
    new = Answer(etag='"second"', if_range=honest)
    url = server.mirror("/model.bin", old, new)
    assert get([url], target, **KNOWN[known]).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-"] + [None] * (not honest)


def test_416_of_a_part_that_is_not_whole_means_a_new_start(server, target, part_of):
    url = server.mirror("/model.bin", Answer(status=416), Answer())
    part_of(BODY[:HALF], url)
    assert get([url], target).read_bytes() == BODY
    assert server.ranges == [f"bytes={HALF}-", None]


def test_a_page_in_place_of_a_part_costs_no_byte(server, target):
    url = server.mirror("/model.bin", CUT, HTML)
    words = refusal([url], target)
    assert "the response is a web page, not the file" in words
    assert f"{HALF:,} bytes are saved in {target}.part" in words
    server.requests.clear()
    server.mirror("/model.bin")
    get([url], target)
    assert server.ranges == [f"bytes={HALF}-"]


# Damage


@pytest.mark.parametrize("chunked", [False, True])
def test_a_byte_that_flips_once_costs_a_new_start(server, target, chunked):
    url = server.mirror("/1", Answer(body=OTHER, chunked=chunked), Answer())
    get([url, server.mirror("/2", BUSY)], target)
    assert target.read_bytes() == BODY
    assert server.paths == ["/1", "/2", "/1"] and server.ranges == [None] * 3


def test_a_mirror_that_damages_twice_is_out(server, target):
    urls = [server.mirror("/1", body=OTHER), server.mirror("/2", *[BUSY] * 3, Answer())]
    assert get(urls, target).read_bytes() == BODY
    assert server.paths == ["/1", "/2"] * 2 + ["/2"] * 2 and set(server.ranges) == {
        None
    }


@pytest.mark.parametrize("known", ["both", "sha256"])
def test_damage_everywhere_leaves_nothing(server, target, known):
    urls = [server.mirror(path, body=OTHER) for path in ("/1", "/2")]
    words = refusal(urls, target, **KNOWN[known])
    reason = f"the {LENGTH:,} bytes that arrived have the wrong size or sha256"
    assert words.count(reason) == 2
    assert "are saved" not in words and names(target) == set()
    assert server.paths == ["/1", "/2", "/1", "/2"]


def test_damage_in_another_mirrors_bytes_costs_this_one_only_a_new_start(
    server, target, part_of
):
    part_of(OTHER[:HALF])
    assert get([server.mirror()], target).read_bytes() == BODY
    assert server.ranges == [f"bytes={HALF}-", None]


@pytest.mark.parametrize("known", ["both", "size"])
def test_more_bytes_than_the_file_has_are_refused(server, target, known):
    urls = [server.mirror("/1", body=BODY + BODY, chunked=True), server.mirror("/2")]
    assert get(urls, target, **KNOWN[known]).read_bytes() == BODY
    assert server.paths == ["/1", "/2"]


@pytest.mark.parametrize("body", [BODY[:-1], BODY + b"?"], ids=["fewer", "more"])
def test_another_announced_length_is_refused_at_once(server, target, body):
    urls = [server.mirror("/1", body=body), server.mirror("/2")]
    assert get(urls, target, size=LENGTH).read_bytes() == BODY
    assert server.paths == ["/1", "/2"]


# Patience


def test_a_busy_server_is_asked_again_later(server, target, pauses):
    url = server.mirror("/model.bin", BUSY, BUSY, Answer())
    assert get([url], target).read_bytes() == BODY
    assert len(pauses) == 2


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_patience_ends_when_nothing_comes(server, target, pauses, known):
    urls = [server.mirror("/1", BUSY), server.mirror("/2", sent=0)]
    words = refusal(urls, target, **known)
    assert server.paths == ["/1", "/2"] * 5
    assert "503 Service Unavailable" in words and "connection lost after 0 of" in words
    for seconds, longest in zip(pauses, [0.5, 1, 2, 4], strict=True):
        assert 0 <= seconds <= longest


def test_new_bytes_renew_the_patience(server, target, monkeypatch):
    monkeypatch.setattr("support.download.fetch.MIN_GAIN", 1000)
    answers = [*[BUSY] * 4, Answer(sent=1000)] * 3 + [Answer()]
    url = server.mirror("/model.bin", *answers)
    assert get([url], target).read_bytes() == BODY


def test_patience_ends_when_little_comes_each_time(server, target):
    words = refusal([server.mirror(sent=1000)], target)
    assert len(server.requests) == 5 and "5,000 bytes are saved" in words


def test_bytes_that_come_again_are_not_new(server, target):
    words = refusal([server.mirror(sent=HALF, ranges=False)], target)
    assert len(server.requests) == 6 and f"connection lost after {HALF:,} of" in words


def test_the_seeded_draws_of_others_are_left_alone(server, target):
    random.seed(123)
    expected = Random(123).random()
    get([server.mirror("/model.bin", BUSY, Answer())], target)
    assert random.random() == expected


def test_what_is_out_is_not_asked_again(server, target):
    urls = [server.mirror("/1", GONE), server.mirror("/2", BUSY, Answer())]
    get(urls, target)
    assert server.paths == ["/1", "/2", "/2"]


@pytest.mark.parametrize(("asked", "least"), [("7", 7), ("60", 60), ("0", 0)])
def test_the_wait_that_a_server_asks_for_is_granted(
    server, target, pauses, asked, least
):
    busy = Answer(status=429, headers={"Retry-After": asked})
    get([server.mirror("/model.bin", busy, Answer())], target)
    [seconds] = pauses
    assert least <= seconds <= max(least, 0.5)


def test_a_wait_too_long_ends_the_call(server, target, pauses):
    url = server.mirror(status=429, headers={"Retry-After": "86400"})
    assert "the server asks to wait 1,440 min" in refusal([url], target)
    assert len(server.requests) == 1 and pauses == []


def test_a_dead_network_costs_no_round(target, server, pauses):
    urls = [closed_url() for _ in range(3)]
    assert refusal(urls, target).count("unreachable: Connection refused") == 3
    assert pauses == []


def test_a_network_that_has_brought_bytes_may_come_back(server, target, pauses):
    moved = Answer(status=302, headers={"Location": closed_url()})
    url = server.mirror("/model.bin", CUT, moved, moved, Answer())
    assert get([url], target).read_bytes() == BODY
    assert len(server.requests) == 4


# What the error says


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_error_names_each_url_and_what_to_do(server, target, fault):
    urls = [server.mirror("/1", fault), server.mirror("/2", fault)]
    words = refusal(urls, target)
    assert all(f"  {url}\n" in words for url in urls)
    assert f"save it as {target}" in words
    assert not target.exists()


def test_the_error_says_what_happened_at_each_url(server, target):
    cut = Answer(sent=HALF, ranges=False)
    answers = {"/404": GONE, "/503": BUSY, "/cut": cut, "/page": HTML}
    urls = [server.mirror(path, answer) for path, answer in answers.items()]
    words = refusal([*urls, closed_url()], target).split("\n")
    assert words[2:11:2] == [
        "    404 Not Found",
        "    503 Service Unavailable",
        f"    connection lost after {HALF:,} of {LENGTH:,} bytes",
        "    the response is a web page, not the file",
        "    unreachable: Connection refused",
    ]


def test_the_error_names_the_proxy(server, target, monkeypatch):
    name = f"127.0.0.1:{server.server_port}"
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("http_proxy", f"http://me:secret@{name}")
    monkeypatch.setattr(server, "answer_to", lambda request: GONE)
    words = refusal(["http://localhost/model.bin"], target)
    assert f"404 Not Found; the request went through the proxy {name} from" in words
    assert "NO_PROXY=localhost" in words and "secret" not in words


# This side's troubles


def test_no_byte_is_fetched_that_will_not_fit(server, target, part_of, monkeypatch):
    part_of(BODY[:1000])
    usage = shutil.disk_usage(target.parent)._replace(free=LENGTH - 1001)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    words = refusal([server.mirror()], target, **KNOWN["both"])
    needed = f"needs {LENGTH - 1000:,} more bytes, but only {LENGTH - 1001:,} are free"
    assert needed in words
    assert server.requests == []


def test_what_just_fits_is_fetched(server, target, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=LENGTH)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert get([server.mirror()], target, **KNOWN["both"]).read_bytes() == BODY


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_is_named(server, target, monkeypatch):
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(PartialFile, "open_at", lambda *_: os.fdopen(full, "wb"))
    words = refusal([server.mirror()], target)
    reason = f"model.bin cannot be saved in {target.parent}: No space left on device. "
    assert words.startswith(reason) and "LLMS_DOWNLOADS" in words
    assert not target.exists()


def test_a_write_that_fails_keeps_what_came(server, target):
    target.parent.mkdir()
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, usual[1]))
    try:
        words = refusal([server.mirror()], target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert f"cannot be saved in {target.parent}: File too large" in words
    assert f"{HALF:,} bytes are saved in {target}.part" in words
    assert get([server.mirror()], target).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize("begun", [False, True])
def test_a_folder_without_the_right_to_write_is_named(server, foreign_folder, begun):
    target = foreign_folder / "model.bin"
    if begun:
        foreign_folder.chmod(0o755)
        target.with_name("model.bin.part").write_bytes(BODY)
        foreign_folder.chmod(0o555)
    with no_rights():
        words = refusal([server.mirror()], target)
    assert f"model.bin cannot be saved in {foreign_folder}: Permission denied" in words
    assert "LLMS_DOWNLOADS" in words and server.requests == []


def test_a_folder_without_the_right_to_look_is_named(server, foreign_folder):
    foreign_folder.chmod(0)
    with no_rights():
        words = refusal([server.mirror()], foreign_folder / "model.bin")
    assert f"cannot be saved in {foreign_folder}: Permission denied" in words


def test_a_whole_file_needs_no_right_to_write(foreign_folder):
    target = foreign_folder / "model.bin"
    foreign_folder.chmod(0o755)
    target.write_bytes(BODY)
    foreign_folder.chmod(0o555)
    with no_rights():
        assert get([], target) == target


@pytest.mark.parametrize("deeper", ["", "downloads"])
def test_a_file_in_the_folders_place_is_named(server, tmp_path, deeper):
    place = tmp_path / "file"
    place.write_bytes(b"")
    words = refusal([server.mirror()], place / deeper / "model.bin")
    assert f"cannot be saved in {place / deeper}: " in words
    assert "LLMS_DOWNLOADS" in words and server.requests == []


def test_a_lock_that_the_system_does_not_have_is_named(server, target, monkeypatch):
    def fail(*_, **__):
        raise NotImplementedError("no flock here")

    monkeypatch.setattr("support.download.fetch.FileLock.acquire", fail)
    words = refusal([server.mirror()], target)
    assert f"cannot be saved in {target.parent}: no flock here" in words


STRANGE = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("offline", ["0", "1"])
@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("suffix", ["", ".part", ".part.source"])
@pytest.mark.timeout(30)  # a pipe would be waited for, and a device has no end
def test_what_is_no_file_is_named_and_left_alone(
    server, target, monkeypatch, kind, suffix, offline
):
    monkeypatch.setenv("LLMS_OFFLINE", offline)
    target.parent.mkdir()
    strange = target.with_name(f"model.bin{suffix}")
    STRANGE[kind](strange)
    words = refusal([server.mirror()], target)
    assert f"{strange} is {kind}, and a file is expected there" in words
    assert server.requests == [] and strange.lstat() and not strange.is_file()


ODD_PATHS = ["a\0b", "n" * 300, "/dev/null/x", "\udc80\x1b[2J"]


@pytest.mark.parametrize("name", ODD_PATHS)
def test_no_name_is_more_than_a_sentence(server, tmp_path, name):
    target = tmp_path / name
    if name == ODD_PATHS[-1]:  # odd, and yet a name
        assert get([server.mirror()], target).read_bytes() == BODY
        return
    words = refusal([server.mirror()], target)
    assert "cannot be saved in" in words and server.requests == []


@pytest.mark.parametrize("kind", [str, bytes, Path])
def test_one_url_and_any_kind_of_path_will_do(server, target, kind):
    path = os.fsencode(target) if kind is bytes else kind(target)
    assert get(server.mirror(), path) == target


def test_a_sha256_may_be_in_capitals(server, target):
    assert get([server.mirror()], target, sha256=SHA256.upper()) == target


# Several processes


def start(urls, target, **options):
    """Fetch in a process of its own."""
    command = [sys.executable, "-c", FETCHING, str(target), *urls]
    options |= {"cwd": ROOT, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **options)


def wait_until(is_so):
    """Wait for something that is about to be so."""
    end = monotonic() + 20
    while not is_so():
        assert monotonic() < end
        sleep(0.01)


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_a_killed_process_is_gone_on_from(server, target, sha256):
    url = server.mirror("/model.bin", Answer(sent=HALF, stall=60), Answer())
    part = target.with_name("model.bin.part")
    with start([url], target) as process:
        wait_until(lambda: part.is_file() and part.stat().st_size > HALF - 10_000)
        process.send_signal(signal.SIGKILL)
    came = part.stat().st_size
    assert process.returncode == -signal.SIGKILL and not target.exists()
    assert get([url], target, sha256=sha256, size=LENGTH).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={came}-"]
    condition = None if sha256 else '"first"'
    assert server.requests[1][1].get("If-Range") == condition


def test_a_stopped_process_leaves_what_came_and_no_lock(server, target):
    url = server.mirror("/model.bin", Answer(sent=HALF, stall=60), Answer())
    part = target.with_name("model.bin.part")
    with start([url], target, stderr=subprocess.PIPE) as process:
        wait_until(lambda: part.is_file() and part.stat().st_size == HALF)
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=20)[1]
    assert get([url], target).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_two_processes_at_once_take_one_body(server, target):
    url = server.mirror(before=60)
    with start([url], target) as first:
        wait_until(lambda: server.requests)
        with start([url], target) as second:
            said = second.stdout.readline()
            server.over.set()
            assert first.wait(20) == second.wait(20) == 0
    assert said == "Another process is downloading model.bin; waiting for it.\n"
    assert server.paths == ["/model.bin"] and target.read_bytes() == BODY


def test_two_threads_at_once_take_one_body(server, target):
    url = server.mirror(before=0.2)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(get, [[url]] * 2, [target] * 2))
    assert found == [target, target] and target.read_bytes() == BODY
    assert len(server.requests) == 1


# Anything at all

SMALL = BODY[:3000]
TURNED = SMALL[::-1]  # another version of the file, with another ETag
ANY_FAULTS = [
    {"status": 403, "body": b""},
    {"status": 404, "body": PAGE},
    {"status": 416, "body": b""},
    {"status": 429, "headers": {"Retry-After": "3"}},
    {"status": 500},
    {"status": 503, "headers": {"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}},
    {"status": 206},
    {"status": 302, "headers": {"Location": "/1"}},
    {"shift": 1},
    {"headers": {"Content-Range": None}},
    {"headers": {"Content-Encoding": "gzip"}},
    {"headers": {"Content-Length": None}},
    {"headers": {"Content-Length": "-1"}},
    {"headers": {"Content-Length": "many"}},
    {"headers": {"Content-Type": None}},
    {"etag": 'W/"weak"'},
    {"etag": None},
    {"etag": "a b"},
    {"ranges": False},
    {"chunked": True},
    {"reset": True},
]
OTHER_BODIES = [  # that only the size or the sha256 can tell from the file
    {"body": PAGE},
    {"body": SMALL[:-1]},
    {"body": SMALL + b"more"},
    {"body": SMALL + b"more", "chunked": True},
    {"body": b""},
]


def any_answer(draw, faults):
    """One version of the file or the other, often cut, often with some fault."""
    chosen = draw.choice([{"body": SMALL}] * 2 + [{"body": TURNED, "etag": '"turned"'}])
    fault = draw.choice(faults) if draw.random() < 0.3 else {}
    sent = draw.choice([None, draw.randrange(len(SMALL))])
    honest = draw.random() < 0.5
    return Answer(**{"sent": sent, "if_range": honest} | chosen | fault)


def any_mirror(server, path, draw, faults):
    """A mirror with seeded answers, of which the last stays for good."""
    answers = [any_answer(draw, faults) for _ in range(draw.randrange(1, 6))]
    return server.mirror(path, *answers)


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("known", KNOWN)
def test_whatever_happens_the_file_is_right_or_not_there(
    server, target, monkeypatch, known, seed
):
    facts = {"sha256": hashlib.sha256(SMALL).hexdigest(), "size": len(SMALL)}
    facts = {name: facts[name] for name, fact in KNOWN[known].items() if fact}
    faults = ANY_FAULTS + (OTHER_BODIES if facts else [])
    right = {SMALL} if "sha256" in facts else {SMALL, TURNED}
    draw = Random(seed)
    for _ in range(5):
        target.unlink(missing_ok=True)
        urls = [any_mirror(server, path, draw, faults) for path in ("/1", "/2")]
        with suppress(FetchError):
            get(urls, target, **facts or KNOWN["neither"])
        assert not target.exists() or target.read_bytes() in right
    well = server.mirror("/3", body=SMALL)
    assert get([well], target, **facts or KNOWN["neither"]).read_bytes() in right


RAW_VALUES = [
    *["", "0", "-1", "+5", "5, 5", "5,6", "1e3", "0x10", "9" * 18, "9" * 30, "\xb2"],
    *["bytes", "bytes -5-3/2", "bytes 0-/", "bytes */*", f"bytes {'9' * 40}-1/2"],
    *["chunked", "gzip, chunked", "\x1b[2J", "\xff\xfe", "Fri, 99 Zzz 99999 99:99 GMT"],
    *["/x", "http://[", "http://a:99999999/", "file:///etc/passwd", "//[", "a\tb"],
]
RAW_NAMES = [
    *["Content-Length", "Content-Range", "Content-Encoding", "Content-Type"],
    *["Location", "Transfer-Encoding", "ETag", "Retry-After", "no colon\r\n X"],
]
RAW_STATUSES = [
    *["HTTP/1.1 200 OK", "HTTP/1.1 206 Part", "HTTP/1.1 302 Found", "HTTP/1.1 416 x"],
    *["HTTP/1.1 503 \x1b[31m", "HTTP/1.0 200", "HTTP/1.1 99999 x", "HTTP/1.1 -2 x"],
    *["HTTP/1.1 abc", "HTTP/9.9 200 OK", "ICY 200 OK", "", "\x00\xff"],
]
RAW_BODIES = [
    *[SMALL, SMALL[:500], b"", b"5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello", b"zz\r\n"],
    *[b"F" * 16 + b"\r\nx", b"5;" + b"x" * 80_000, b"0\r\n" + b"T: x\r\n" * 200],
]


@pytest.fixture(scope="module")
def raw_server():
    """A server whose answers are the bytes that it is given: (its URL, those bytes)."""
    replies = [b""]
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with suppress(OSError):  # the listener is shut at the end
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.recv(10_000)
                    connection.sendall(replies[0])
                    connection.shutdown(socket.SHUT_WR)

    thread = Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/m", replies
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    status=st.one_of(st.just(RAW_STATUSES[0]), st.sampled_from(RAW_STATUSES)),
    headers=st.lists(
        st.tuples(st.sampled_from(RAW_NAMES), st.sampled_from(RAW_VALUES)), max_size=3
    ),
    body=st.sampled_from(RAW_BODIES),
    known=st.sampled_from(["both", "sha256", "size", "neither"]),
    begun=st.booleans(),
)
def test_whatever_bytes_a_server_sends_it_is_the_file_or_a_fetch_error(
    raw_server, monkeypatch, tmp_path, status, headers, body, known, begun
):
    url, replies = raw_server
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("LLMS_OFFLINE", raising=False)
    monkeypatch.setattr("support.download.fetch.MAX_IDLE_ROUNDS", 2)
    monkeypatch.setattr("support.download.request.TIMEOUTS", (0.3, 0.3))
    lines = [status, *(f"{name}: {value}" for name, value in headers)]
    replies[0] = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
    facts = {"sha256": hashlib.sha256(SMALL).hexdigest(), "size": len(SMALL)}
    facts = {name: facts[name] for name, fact in KNOWN[known].items() if fact}
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        target = Path(folder) / "m"
        if begun:
            with PartialFile(target, None, None).open_at(0, url, '"tag"') as file:
                file.write(SMALL[:1000])
        try:
            found = get([url], target, **facts or KNOWN["neither"]).read_bytes()
            assert "sha256" not in facts or found == SMALL
        except FetchError as error:
            assert str(error) == printable(error) and url in str(error)


@pytest.mark.parametrize("known", ["both", "sha256"])
def test_a_line_that_breaks_finishes_whatever_the_etags(
    server, target, monkeypatch, known
):
    """As with mirrors behind one address, of which each has an ETag of its own."""
    monkeypatch.setattr("support.download.fetch.MIN_GAIN", 1)  # of a small file
    draw = Random(123)
    answers = [
        Answer(
            sent=draw.randrange(LENGTH // 4),
            etag=f'"{i}"',
            ranges=draw.random() < 0.7,
            if_range=draw.random() < 0.5,
        )
        for i in range(60)
    ]
    url = server.mirror("/model.bin", *answers)
    assert get([url], target, **KNOWN[known]).read_bytes() == BODY
    starts = [int(asked[6:-1]) for asked in server.ranges[1:]]
    assert starts == sorted(starts)  # no byte was given up


def test_a_file_that_changed_on_the_way_is_fetched_once_more(server, target):
    old = Answer(body=OTHER, sent=HALF)
    url = server.mirror("/model.bin", old, Answer(etag='"second"'))
    assert get([url], target).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-", None]


def test_the_next_mirror_is_asked_when_one_is_slow(server, target, monkeypatch):
    monkeypatch.setattr("support.download.request.RATE_WINDOW", 0.2)
    urls = [server.mirror("/1", drip=0.02), server.mirror("/2")]
    assert get(urls, target).read_bytes() == BODY
    assert server.paths == ["/1", "/2"] and server.ranges[1]


def test_patience_ends_with_a_server_that_stays_slow(server, target, monkeypatch):
    monkeypatch.setattr("support.download.request.RATE_WINDOW", 0.05)
    words = refusal([server.mirror(drip=0.02)], target)
    assert len(server.requests) == 5 and "too slow: " in words
    assert f"bytes are saved in {target}.part" in words


def test_nobody_reading_what_is_printed_is_no_fault_of_the_file(
    server, target, monkeypatch
):
    def nobody_reads(*_):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("support.download.request.tqdm.update", nobody_reads)
    with pytest.raises(BrokenPipeError):
        get([server.mirror()], target)


# Settings

OFFLINE = {
    False: [None, "", " ", "0", "false", "False", "no", "NO", "off", " 0 "],
    True: ["1", "true", "TRUE", "yes", "on", " 1 ", "ja", "2", "-", "\x1b[2J"],
}


@pytest.mark.parametrize(
    ("offline", "value"), [(key, value) for key in OFFLINE for value in OFFLINE[key]]
)
def test_llms_offline_says_whether_the_network_is_forbidden(
    monkeypatch, capsys, value, offline
):
    monkeypatch.delenv("LLMS_OFFLINE", raising=False)
    if value is not None:
        monkeypatch.setenv("LLMS_OFFLINE", value)
    assert is_offline() == offline and capsys.readouterr().out == ""


FOLDERS = {
    "": ROOT / "downloads",
    "/srv/data": Path("/srv/data"),
    "data": ROOT / "data",
    "../data": ROOT / ".." / "data",
    "~": Path("/readers/me"),
    "~/data": Path("/readers/me/data"),
}


@pytest.mark.parametrize(("value", "folder"), FOLDERS.items())
def test_llms_downloads_names_the_same_folder_from_everywhere(
    monkeypatch, tmp_path, value, folder
):
    monkeypatch.setenv("HOME", "/readers/me")
    monkeypatch.setenv("LLMS_DOWNLOADS", value)
    assert downloads_folder() == folder
    monkeypatch.chdir(tmp_path)
    assert downloads_folder() == folder


def test_a_home_that_is_not_there_is_a_sentence(monkeypatch):
    monkeypatch.setenv("LLMS_DOWNLOADS", "~no-such-user/data")
    with pytest.raises(ValueError, match="LLMS_DOWNLOADS is ~no-such-user/data, but"):
        downloads_folder()
