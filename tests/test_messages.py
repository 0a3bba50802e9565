"""What others say is shown and not obeyed, and a command that is stopped says so."""

import io
import os
import signal
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ch02.messages import one_line, printable, say
from tests.notebooks import ROOT

COMMAND = """
import sys, time
from ch02.messages import ending_in_a_line
with ending_in_a_line(KeyError, stopped="stopped; run it again"):
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
    assert said == b"stopped; run it again\n" and process.returncode == 1


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_closed_pipe_ends_in_one_line(lines):
    reading, writing = os.pipe()
    os.close(reading)
    with start(f"[print(i) for i in range({lines})]", stdout=writing) as process:
        os.close(writing)
        _, said = process.communicate(timeout=20)
    assert said == b"stopped: nobody reads the output any more\n"
    assert process.returncode == 1


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
