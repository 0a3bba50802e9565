"""What others say is shown and not obeyed, and a command that is stopped says so."""

import errno
import io
import os
import signal
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.commands import BROKEN_PIPE, INTERRUPTED, Console, clean_exit
from support.messages import one_line, printable, reason_of, say
from support.paths import ROOT

COMMAND = """
import sys, time
from support.commands import clean_exit
with clean_exit(KeyError, stopped="stopped; run it again"):
    {}
"""


@given(st.text(st.characters()) | st.text(st.characters(categories=["Cc", "Cs", "Cf"])))
def test_no_control_character_reaches_the_terminal(text):
    shown = printable(text)
    for character in shown:
        assert (
            unicodedata.category(character) not in ("Cc", "Cs") or character in "\n\t"
        )
        assert character not in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    assert printable(shown) == shown
    assert "\n" not in one_line(text)
    assert one_line(text).encode().decode() == one_line(text)  # no half characters


KEPT = ["naïve", "日本語", "می‌خواهم", "👩‍👩‍👧", "a\tb\nc", "\\x1b", "שלום\u200f"]


@pytest.mark.parametrize("text", KEPT)
def test_words_of_all_languages_stay_as_they_are(text):
    assert printable(text) == text


SPELLED = {
    "\x1b[2J": r"\x1b[2J",
    "a\rb": r"a\rb",
    "\x9b31m": r"\x9b31m",
    "\x07\x00\x7f": r"\x07\x00\x7f",
    "\u202egpj.exe": r"\u202egpj.exe",
    "\udc80": r"\udc80",
}


@pytest.mark.parametrize(("text", "shown"), SPELLED.items())
def test_what_a_terminal_would_obey_is_spelled_out(text, shown):
    assert printable(text) == shown


def test_a_line_is_not_longer_than_asked_for():
    assert one_line("a\n\tb") == r"a\n\tb"
    assert one_line("x" * 1000, longest=5) == "xxxxx..."


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "na?ve ?"), ("utf-8", None)])
def test_a_console_that_lacks_a_character_shows_the_rest(monkeypatch, encoding, shown):
    console = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", console)
    say("naïve 日\x1b")
    line = (shown or "naïve 日") + r"\x1b" + "\n"
    assert console.buffer.getvalue().decode(encoding) == line


# How commands end


def start(body, **pipes):
    """Run a command with this body."""
    command = [sys.executable, "-c", COMMAND.format(body)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, **pipes)


def test_ctrl_c_ends_in_one_line():
    body = "print('ready', flush=True); time.sleep(60)"
    with start(body, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert said == b"stopped; run it again\n" and process.returncode == INTERRUPTED


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_closed_pipe_ends_in_one_line(lines):
    reading, writing = os.pipe()
    os.close(reading)
    with start(f"[print(i) for i in range({lines})]", stdout=writing) as process:
        os.close(writing)
        _, said = process.communicate(timeout=20)
    reason = b"nobody reads the output any more: stopped; run it again\n"
    assert said == reason and process.returncode == BROKEN_PIPE


def test_a_known_error_ends_in_one_line_and_another_one_does_not():
    for error, last in ((b"KeyError", rb"error: '\x1b[2J'"), (b"TypeError", None)):
        body = f"raise {error.decode()}(chr(27) + '[2J')"
        with start(body) as process:
            said = process.communicate(timeout=20)[1]
        assert process.returncode == 1
        assert (said.strip() == last) if last else said.startswith(b"Traceback")


def test_a_command_that_ends_well_says_nothing():
    with start("time.sleep(0)") as process:
        assert process.communicate(timeout=20)[1] == b"" and process.returncode == 0


# A console that fails


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
    ("error", "status"),
    [(KeyboardInterrupt, INTERRUPTED), (BrokenPipeError, BROKEN_PIPE)],
)
def test_what_stops_a_command_is_one_line(capsys, error, status):
    with pytest.raises(SystemExit) as end, clean_exit(stopped="stop\n\x1b; go"):
        raise error
    assert end.value.code == status != 0
    assert capsys.readouterr().err.endswith("stop\\n\\x1b; go\n")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space", "a/b"), "a/b: No space"),
        (OSError(errno.ENOSPC, "No space"), "No space"),
        (OSError("a/b cannot be written"), "a/b cannot be written"),
        (ValueError("a/b is a folder"), "a/b is a folder"),
    ],
)
def test_a_command_says_what_is_wrong_without_a_number(error, reason):
    with pytest.raises(SystemExit) as end, clean_exit(OSError, ValueError):
        raise error
    assert end.value.code == f"error: {reason}" and reason_of(error) == reason


@pytest.mark.parametrize("kind", [ValueError, OSError, FloatingPointError])
def test_errors_stay_what_they_are_and_can_be_printed(kind):
    with pytest.raises(kind) as caught, clean_exit():
        raise kind("a\nb\x1b[2J")
    assert str(caught.value) == r"a\nb\x1b[2J"


def test_streams_are_put_back():
    before = sys.stdout, sys.stderr
    with clean_exit():
        assert (sys.stdout, sys.stderr) != before
    assert (sys.stdout, sys.stderr) == before


WORK = """
import os, sys, time
from contextlib import suppress
from tqdm.auto import tqdm
from support.commands import clean_exit
from support.messages import say
with clean_exit(stopped="stopped; go on"):
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
    assert process.returncode == BROKEN_PIPE
    assert b"Traceback" not in said and b"Exception" not in said
    if not is_joined:
        assert said.endswith(b"stopped; go on\n")
