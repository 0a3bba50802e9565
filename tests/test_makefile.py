"""Setting up stops with a sentence where it cannot go on."""

import shutil
import subprocess
import sys

import pytest

from tests.notebooks import ROOT

READY = ".venv/ready"


@pytest.fixture
def make(tmp_path):
    """Call make in a folder that holds nothing but the Makefile and requirements."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)

    def call(*arguments):
        command = ["make", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    return call


def old_python(folder, body):
    """A script that stands in for a Python and answers with body."""
    script = folder / "strange-python"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return script


def test_a_missing_python_is_a_sentence(make):
    done = make(READY, "PYTHON=no-such-python")
    assert done.returncode != 0
    assert "error: this course needs Python 3.11, 3.12 or 3.13" in done.stderr


def test_a_python_that_does_not_suit_is_a_sentence(make, tmp_path):
    done = make(READY, f"PYTHON={old_python(tmp_path, 'exit 1')}")
    assert done.returncode != 0
    assert "this course needs Python 3.11, 3.12 or 3.13" in done.stderr


def test_a_full_disk_is_a_sentence(make):
    done = make(READY, f"PYTHON={sys.executable}", "NEED_GB=99999999")
    assert done.returncode != 0
    assert "setting up takes 99999999 GB of disk and" in done.stderr


def test_a_failed_set_up_is_a_sentence_and_starts_again(make, tmp_path):
    stand_in = old_python(tmp_path, 'case "$1" in -m) exit 1;; esac')
    for _ in range(2):
        done = make(READY, f"PYTHON={stand_in}", "NEED_GB=0")
        assert done.returncode != 0
        assert "setting up .venv stopped, for the reason above" in done.stderr
    assert not (tmp_path / ".venv" / "ready").exists()


def test_a_second_call_sets_up_nothing(make, tmp_path):
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "ready").touch()
    done = make(READY, "PYTHON=no-such-python")
    assert done.returncode == 0, done.stderr


TEXTS = [
    *["my text.txt", 'a"; touch x; ".txt', "a$(touch x).txt", "a`touch x`.txt"],
    *["$HOME.txt", "$(TEXT)", "$$", "a$", "${shell touch x}", "$(shell touch x)"],
    *[
        "it's.txt",
        "a\\b.txt",
        "a\\",
        "--help",
        "-x.txt",
        "a;touch x",
        "a&b|c>x",
        "*.txt",
    ],
    *["naïve 日本.txt", "a#b.txt", "a=b.txt", "a:=b", "%.txt", "~/x.txt", "a  b"],
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_name_of_a_text_is_only_a_name(make, tmp_path, text):
    """What stands in for Python writes down its arguments."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    script = tmp_path / ".venv" / "bin" / "python"
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > arguments\n')
    script.chmod(0o755)
    (tmp_path / ".venv" / "ready").touch()
    done = make("train", f"TEXT={text}")
    assert done.returncode == 0, done.stderr
    arguments = (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()
    assert arguments == ["-m", "ch05.pretrain", f"--text={text}"]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"Makefile", "requirements.txt", ".venv", "arguments"}


def test_without_a_name_the_text_is_the_courses_own(make, tmp_path):
    done = make("--dry-run", "train")
    assert '--text="$LLMS_TEXT"' in done.stdout
