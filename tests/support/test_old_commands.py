"""Old names of commands say the new ones, and the new ones are there."""

import importlib.util
import subprocess
import sys

import pytest

from support.paths import ROOT

NEW_NAMES = {
    "ch05.pretrained get gpt2-small": "support.weights",
    "ch05.pretrain tokenize": "support.pretraining tokenize",
    "ch05.pretrain run": "support.pretraining run",
    "ch06.spam_filter": "support.apps.spam_filter",
    "ch06.classifier": "support.apps.spam_filter ask",
    "ch07.assistant": "support.apps.assistant",
    "ch07.chat": "support.apps.chat",
}


@pytest.mark.parametrize("old", NEW_NAMES)
def test_an_old_command_says_its_new_name(old):
    command = [sys.executable, "-m", *old.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    new = NEW_NAMES[old]
    (said,) = done.stderr.splitlines()
    assert f"is now `python -m {new}`" in said
    assert importlib.util.find_spec(new.split()[0])


def test_nothing_is_left_in_old_modules_but_the_new_name():
    for path in ROOT.glob("ch0[2-7]/*.py"):
        source = path.read_text(encoding="utf-8")
        if source.startswith('"""An old name'):
            assert source.count("\n") < 8 and "exit_renamed(" in source
