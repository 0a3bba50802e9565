"""A console that fails stops no work, and what stops a command is one line."""

import errno
import io
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ch02.console import CLOSED, STOPPED, Console, command, printable, say
from tests.notebooks import ROOT

DANGEROUS = "\x1b[2J\r\n\t\x07\x9b\u202e\u200b\ud800\udcff\x00"


@given(st.text(st.characters(exclude_categories=[])))
def test_a_terminal_obeys_nothing_that_is_printable(text):
    found = printable(text + DANGEROUS)
    assert found.isprintable() and found.encode()
    assert printable(found) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, été, 日本, 🙂", "plain, été, 日本, 🙂"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("right\u202eleft", r"right\u202eleft"),
        ("\udcff", r"\udcff"),
        (ROOT / "a\nb", rf"{ROOT}/a\nb"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(text, expected):
    assert printable(text) == expected


def test_what_is_said_is_one_line(capsys):
    say("shards\n\x1b[2J")
    assert capsys.readouterr().out == "shards\\n\\x1b[2J\n"


class Failing(io.StringIO):
    """A stream on which writing, or bringing it to its place, fails."""

    encoding = "ascii"

    def __init__(self, error, when):
        super().__init__()
        self.error, self.when = error, when

    def write(self, text):
        text.encode(self.encoding)
        if self.when == "write":
            raise self.error
        return super().write(text)

    def flush(self):
        if self.when == "flush":
            raise self.error


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8"])
@given(text=st.text(st.characters(exclude_categories=[])))
def test_characters_that_a_console_lacks_are_replaced(encoding, text):
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding, newline="")
    with_marks = text.encode(encoding, "replace")
    assert Console(stream).write(text) == len(text)
    stream.flush()
    assert content.getvalue() == with_marks


ERRORS = {
    "full": OSError(errno.ENOSPC, "No space left on device"),
    "gone": OSError(errno.EIO, "Input/output error"),
    "closed": ValueError("I/O operation on closed file"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("when", ["write", "flush"])
def test_what_cannot_be_written_is_lost_and_work_goes_on(error, when):
    console = Console(Failing(error, when))
    for _ in range(3):
        print("words", file=console)
        print("words", file=console, end="", flush=True)


@pytest.mark.parametrize("when", ["write", "flush"])
def test_a_closed_pipe_is_told_once(when):
    console = Console(Failing(BrokenPipeError(errno.EPIPE, "Broken pipe"), when))
    with pytest.raises(BrokenPipeError):
        print("words", file=console)
    print("more words", file=console, flush=True)


def test_a_console_that_was_closed_from_the_start_takes_all():
    print("words", file=Console(None), flush=True)


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, STOPPED), (BrokenPipeError, CLOSED)]
)
def test_what_stops_a_command_is_one_line(capsys, error, status):
    with pytest.raises(SystemExit) as end, command("stopped\n\x1b; go on"):
        raise error
    assert end.value.code == status != 0
    assert capsys.readouterr().err == "stopped\\n\\x1b; go on\n"


@pytest.mark.parametrize("kind", [ValueError, OSError, FloatingPointError])
def test_errors_stay_what_they_are_and_can_be_printed(kind):
    with pytest.raises(kind) as caught, command():
        raise kind("a\nb\x1b[2J")
    assert str(caught.value) == r"a\nb\x1b[2J"


def test_streams_are_put_back():
    before = sys.stdout, sys.stderr
    with command():
        assert (sys.stdout, sys.stderr) != before
    assert (sys.stdout, sys.stderr) == before


WORK = """
import os, sys, time
from contextlib import suppress
from tqdm.auto import tqdm
from ch02.console import command, say
with command("stopped; go on"):
    say("é日")
    print("begun", flush=True)
    with open(sys.argv[1], "wb") as data:  # may get the number of a closed stream
        with suppress(OSError):
            os.write(2, b"a library speaks")
        for _ in tqdm(range(int(sys.argv[2]))):
            tqdm.write("é日")
            time.sleep(0.01)
        data.write(b"data")
"""


def work(path, num_steps=3, **streams):
    """Start a process that says a few things and writes `data` to a file."""
    return subprocess.Popen(
        [sys.executable, "-c", WORK, str(path), str(num_steps)], cwd=ROOT, **streams
    )


REDIRECTIONS = ["", ">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full", "2>/dev/full"]


@pytest.mark.parametrize("redirection", REDIRECTIONS)
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_whatever_the_console_is_the_work_is_done(tmp_path, redirection, encoding):
    command = f'"{sys.executable}" -c "$WORK" data 3 {redirection}'
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path,
        env=os.environ
        | {"WORK": WORK, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert done.returncode == 0 and b"Error" not in done.stderr
    assert (tmp_path / "data").read_bytes() == b"data"
    if redirection == "" and encoding == "ascii":
        assert done.stdout.splitlines() == [b"??", b"begun", b"??", b"??", b"??"]


@pytest.mark.parametrize("is_joined", [False, True])
def test_a_pipe_that_nobody_reads_ends_it_in_one_line(tmp_path, is_joined):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if is_joined:
        streams["stderr"] = subprocess.STDOUT
    with work(tmp_path / "data", 10**5, **streams) as process:
        process.stdout.close()
        said = b"" if is_joined else process.stderr.read()
    assert process.returncode == CLOSED
    assert b"Traceback" not in said and b"Exception" not in said
    if not is_joined:
        assert said.endswith(b"stopped; go on\n")


def test_ctrl_c_ends_it_in_one_line(tmp_path):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with work(tmp_path / "data", 10**5, **streams) as process:
        while process.stdout.readline() != b"begun\n":
            pass
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == STOPPED
    assert said.endswith(b"stopped; go on\n") and b"Traceback" not in said
