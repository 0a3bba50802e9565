"""Each command that trains or answers: stopped, unheard, or asked for nonsense."""

import errno
import io
import os
import re
import signal
import subprocess
import sys
from argparse import ArgumentTypeError
from functools import wraps

import pytest

import support.pretraining.__main__ as pretraining
import support.weights.__main__ as weights
from ch05 import pretrain
from support import commands
from support.apps import assistant, chat, spam_filter
from support.commands import BROKEN_PIPE, INTERRUPTED, clean_exit
from support.paths import ROOT
from tests.support import test_spam_filter

COMMANDS = (
    "ch05.pretrain",
    "support.pretraining run",
    "support.weights list",
    "support.apps.spam_filter",
    "support.apps.spam_filter ask hello",
    "support.apps.assistant",
    "support.apps.chat",
)
# a package that all of them import; here it stops the process as a reader would
STOPPER = "import os, signal; os.kill(os.getpid(), signal.SIGINT)\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_during_imports_ends_in_one_line(tmp_path, command):
    (tmp_path / "torch.py").write_text(STOPPER, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
    )
    assert done.returncode == INTERRUPTED
    assert done.stderr == b"stopped\n" and done.stdout == b""


@pytest.fixture
def begun():
    """As at the begin of a command; SIGINT means what it meant when the test ends."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    commands.exit_on_interrupt()
    yield
    signal.signal(signal.SIGINT, before)


def test_work_that_is_stopped_is_put_away_first(begun):
    """Before and after it, the process may end at once."""
    assert signal.getsignal(signal.SIGINT) is commands.exit_interrupted
    with pytest.raises(SystemExit) as end, clean_exit():
        signal.raise_signal(signal.SIGINT)
    assert end.value.code == INTERRUPTED
    assert signal.getsignal(signal.SIGINT) is commands.exit_interrupted


def test_who_ignores_ctrl_c_goes_on_ignoring_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        commands.exit_on_interrupt()
        with clean_exit():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


class Failing(io.StringIO):
    """A stream that cannot be written to."""

    def __init__(self, number):
        super().__init__()
        self.error = OSError(number, os.strerror(number))

    def write(self, text):
        raise self.error


# the function that does the work of a command, and a command line that calls it
WORK = {
    "pretrain --epochs 1": (pretrain, "load_text"),
    "pretraining tokenize a b": (pretraining.COMMANDS, "tokenize"),
    "pretraining run a --data b --steps 1": (pretraining.COMMANDS, "run"),
    "weights list": (weights, "list_models"),
    "weights get gpt2-small": (weights, "get"),
    "weights verify gpt2-small": (weights, "verify"),
    "weights convert gpt2-small": (weights, "convert"),
    "spam_filter": (spam_filter, "train_filter"),
    "spam_filter ask hello": (spam_filter, "classify_texts"),
    "assistant": (assistant, "train_assistant"),
    "chat": (chat, "load_assistant"),
}
MAINS = {"pretrain": pretrain, "pretraining": pretraining, "weights": weights}
MAINS |= {"spam_filter": spam_filter, "assistant": assistant, "chat": chat}


@pytest.fixture(params=WORK)
def run_command(request, monkeypatch):
    """run_command(work): how each command ends whose work is this function."""
    place, name = WORK[request.param]
    monkeypatch.setattr(sys, "argv", request.param.split())

    def run_command(work):
        if place is pretraining.COMMANDS:
            monkeypatch.setitem(place, name, (place[name][0], work))
        else:
            monkeypatch.setattr(place, name, wraps(getattr(place, name))(work))
        with pytest.raises(SystemExit) as end:
            MAINS[sys.argv[0]].main()
        return end.value.code

    return run_command


def begin(*_, **options):
    """Work that prints and is done, which ends a command here."""
    print("I have begun")
    raise ValueError("I am done")


def stop(*_, **options):
    """Work that a reader stops."""
    print("I have begun")
    signal.raise_signal(signal.SIGINT)
    raise AssertionError("the command was not stopped")


def test_ctrl_c_ends_work_in_one_line(run_command, capsys):
    assert run_command(stop) == INTERRUPTED
    said = capsys.readouterr()
    assert said.out.endswith("I have begun\n")
    assert said.err.startswith("stopped") and said.err.count("\n") == 1


def test_work_for_nobody_ends_in_one_line(run_command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Failing(errno.EPIPE))
    assert run_command(begin) == BROKEN_PIPE
    said = capsys.readouterr().err
    assert said.startswith("nobody reads the output any more: stopped")
    assert said.count("\n") == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_work_goes_on_when_the_terminal_is_lost_or_the_disk_full(
    run_command, monkeypatch, number
):
    monkeypatch.setattr(sys, "stdout", Failing(number))
    monkeypatch.setattr(sys, "stderr", Failing(number))
    assert run_command(begin) == "error: I am done"


def test_judging_for_nobody_ends_in_one_line(ask, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Failing(errno.EPIPE))
    assert ask("one", "two")[1] == BROKEN_PIPE


PROGRAMS = (spam_filter, assistant, chat)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("option", ["--mood=good", "more"])
def test_a_bad_option_is_argparses_sentence(monkeypatch, capsys, program, option):
    monkeypatch.setattr(sys, "argv", ["command", option])
    with pytest.raises(SystemExit) as end:
        program.main()
    assert end.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"error: unrecognized arguments: {option}")


HELP = {
    "pretrain": "Train GPT-2's architecture on a story",
    "spam_filter ask": "a text to classify",
    "assistant": "Use it with `python -m support.apps.chat`.",
}


@pytest.mark.parametrize("words", HELP)
def test_help_says_what_a_command_does(monkeypatch, capsys, words):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", [*words.split(), "--help"])
    with pytest.raises(SystemExit) as end:
        MAINS[sys.argv[0]].main()
    assert end.value.code == 0 and HELP[words] in capsys.readouterr().out


def test_a_number_is_large_until_it_is_too_large():
    assert commands.positive(str(10**12)) == 10**12
    for text in (str(10**12 + 1), "9" * 13, "9" * 5000):
        with pytest.raises(ArgumentTypeError, match="at most 1,000,000,000,000$"):
            commands.positive(text)


@pytest.mark.parametrize("program", [spam_filter, assistant])
@pytest.mark.parametrize("seed", ["1.5", "-1", "9" * 30, "x"])
def test_a_bad_seed_is_argparses_sentence(monkeypatch, capsys, program, seed):
    monkeypatch.setattr(sys, "argv", ["command", f"--seed={seed}"])
    with pytest.raises(SystemExit) as end:
        program.main()
    assert end.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search("error: argument --seed: .*(above|large)", said)


@pytest.mark.parametrize("program", [spam_filter, assistant])
def test_an_unknown_model_is_told_the_known_ones(tmp_path, monkeypatch, program):
    monkeypatch.setattr(spam_filter, "SPAM_FILTER", tmp_path / "a")
    monkeypatch.setattr(assistant, "ASSISTANT", tmp_path / "a")
    monkeypatch.setattr(sys, "argv", ["command", "--model", "gpt-5"])
    reason = "unknown model 'gpt-5': choose one of gpt2-small"
    with pytest.raises(SystemExit, match=reason):
        program.main()


# messages and answers


@pytest.fixture
def ask(monkeypatch, capsys):
    """ask(*arguments): what a filter of random weights prints, and how it ends."""
    monkeypatch.setenv("LLMS_DEVICE", "cpu")
    pretrained = test_spam_filter.Shelf().load()
    loaded = spam_filter.create_classifier(pretrained), pretrained.tokenizer
    monkeypatch.setattr(spam_filter, "load_classifier", lambda device: loaded)

    def ask(*arguments, **typed):
        end = test_spam_filter.ask(monkeypatch, *arguments, **typed)
        said = capsys.readouterr()
        assert said.err.count("\n") <= 1
        return said.out, end

    return ask


def test_an_empty_message_among_others_is_named(ask):
    said, end = ask("one", "", "three")
    assert [line[-5:] for line in said.splitlines()[::2]] == ["  one", "three"]
    fault = (
        "message 2 was not classified: the message is empty: give a text to classify"
    )
    assert said.splitlines()[1] == fault
    counted = "1 of 3 messages were not classified. The first of them"
    assert end == f"error: {counted}: {fault}"


def test_escape_sequences_are_spelled_out_and_a_message_is_one_line(ask):
    said, end = ask("\x1b[2Jwin\x07", "two\nlines")
    assert end == 0 and "\x1b" not in said and "\x07" not in said
    assert r"\x1b[2Jwin\x07" in said and said.count("\n") == 2


FILES = {
    "a mark": (b"\xef\xbb\xbfone\ntwo\n", None),
    "Windows": (b"one\r\ntwo\r\n", None),
    "UTF-16": ("one\ntwo".encode("utf-16"), "is UTF-16 text"),
    "latin-1": (b"one\ntw\xf6\n", "line 2: the byte 0xf6 is not UTF-8 text"),
    "empty": (b"", "contains no message"),
    "blank": (b"\n \n\n", "contains no message"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("place", ["file", "standard input"])
def test_files_of_messages_as_they_come(ask, tmp_path, kind, place):
    content, fault = FILES[kind]
    path = tmp_path / "messages.txt"
    path.write_bytes(content)
    if place == "file":
        said, end = ask("--file", str(path))
    else:
        said, end = ask(typed=content)
    if fault:
        assert fault in end and (str(path) if place == "file" else place) in end
    else:
        assert end == 0
        assert [line.split()[-1] for line in said.splitlines()] == ["one", "two"]


def test_a_folder_of_messages_is_a_sentence(ask, tmp_path):
    assert "is a folder, and a file is expected" in ask("--file", str(tmp_path))[1]


def test_a_console_without_a_character_shows_the_rest(ask, monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    assert ask("one \N{GRINNING FACE}", "two")[1] == 0
    console.flush()
    lines = console.buffer.getvalue().splitlines()
    assert [line[-5:] for line in lines] == [b"one ?", b"  two"]


def test_a_talk_shows_no_escape_sequence_and_goes_on_after_an_error(
    monkeypatch, capsys
):
    errors = ValueError("too long"), FloatingPointError("not finite")
    answers = iter([["\x1b[", "31mred"], *errors, ["fine"]])
    lines = iter(["a", "b", "c", "d", ""])

    def stream(*_):
        answer = next(answers)
        if answer in errors:
            raise answer
        return answer

    monkeypatch.setattr(chat, "stream_answer", stream)
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    chat.chat(None, None)
    said = capsys.readouterr().out.removeprefix(chat.WELCOME)
    refused = "there is no answer: too long\n\nthere is no answer: not finite\n\n"
    assert said == f"\n\\x1b[31mred\n{refused}fine\n"


def test_a_line_that_is_no_text_is_asked_for_again(monkeypatch, capsys):
    lines = iter([b"\xff", b"Hello"])

    def read(_):
        return next(lines).decode()

    monkeypatch.setattr("builtins.input", read)
    assert chat.read_instruction() == "Hello"
    assert "not UTF-8 text" in capsys.readouterr().out
