"""Setting up stops with a sentence where it cannot go on."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from support.paths import ROOT

READY = ".venv/ready"


@pytest.fixture
def make(tmp_path):
    """Call make in a folder that holds nothing but the Makefile and requirements."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    for name in ("Makefile", "requirements.txt", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)

    # what the `make` that runs these tests was told is not for the one under test
    told = {"MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "PACKAGES", "PYTHON", "NEED_GB"}
    environment = {name: os.environ[name] for name in os.environ.keys() - told}

    def call(*arguments):
        return subprocess.run(
            ["make", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )

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


# A Python that makes a .venv whose pip has some settings and notes what it installs.
WITH_PIP = """case "$2" in
venv) mkdir -p .venv/bin && cp "$0" .venv/bin/python;;
pip) case "$3" in config) echo "{config}";; install) echo "$@" > installed;; esac;;
esac"""
CONFIGS = {
    "": "requirements.lock",
    "global.index-url='https://example.org/simple'": "requirements.lock",
    "global.extra-index-url='https://example.org/simple'": "requirements.txt",
    ":env:.find-links='/srv/wheels'": "requirements.txt",
}


@pytest.mark.parametrize("named", [None, "requirements.txt", "requirements.lock"])
@pytest.mark.parametrize("config", CONFIGS)
def test_what_is_installed_has_hashes_unless_pip_has_further_sources(
    make, tmp_path, config, named
):
    python = old_python(tmp_path, WITH_PIP.format(config=config))
    packages = [f"PACKAGES={named}"] if named else []
    done = make(READY, f"PYTHON={python}", "NEED_GB=0", *packages)
    assert done.returncode == 0, done.stderr
    chosen = (tmp_path / "installed").read_text().split()[-1]
    assert chosen == (named or CONFIGS[config])
    is_told = "installing requirements.txt, without hashes" in done.stdout
    assert is_told == (not named and CONFIGS[config] == "requirements.txt")


def test_the_lock_has_each_requirement_and_a_hash_of_each_file():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = {line.split("#")[0].strip() for line in lines} - {""}
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock and "--index" not in lock and "--find-links" not in lock
    entries = re.sub(r"^#.*\n", "", lock, flags=re.MULTILINE).replace("\\\n", " ")
    hashed = re.compile(r"(\S+==\S+)( ; [^-]*)?(\s+--hash=sha256:[0-9a-f]{64})+\s*")
    found = [hashed.fullmatch(entry) for entry in entries.splitlines()]
    assert all(found) and wanted <= {entry[1] for entry in found}


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
    before = {path.name for path in tmp_path.iterdir()}
    done = make("train", f"TEXT={text}")
    assert done.returncode == 0, done.stderr
    arguments = (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()
    assert arguments == ["-m", "ch05.pretrain", f"--text={text}"]
    assert {path.name for path in tmp_path.iterdir()} == before | {"arguments"}


def test_without_a_name_the_text_is_the_courses_own(make, tmp_path):
    done = make("--dry-run", "train")
    assert '--text="$LLMS_TEXT"' in done.stdout
