"""glibc keeps memory where that is faster, and nowhere else."""

import platform
import subprocess
import sys

import pytest

from support.device import choice, kept_memory
from support.device.kept_memory import SETTINGS, keep_memory, memory_way
from support.paths import ROOT

# prints how many pages the system had to give for a tensor of 4,000 pages or more,
# after one of the same size was given back
COUNT_PAGES = """
import resource, sys
import torch
from support.device.kept_memory import set_malloc

set_malloc(sys.argv[1])
torch.ones(2**22)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(2**22)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_kept_memory_is_not_given_anew():
    pages = {}
    for way in SETTINGS:
        command = [sys.executable, "-c", COUNT_PAGES, way]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        pages[way] = int(done.stdout)
    assert pages["kept"] < pages["plain"]


@pytest.fixture
def told(monkeypatch, tmp_path):
    """A list of what glibc is told; nothing is known, and nothing is really told."""
    calls = []
    monkeypatch.setattr(kept_memory, "fastest", choice.fastest)  # not a forced way
    monkeypatch.setattr(kept_memory, "set_malloc", calls.append)
    monkeypatch.setattr(kept_memory, "NUM_NUMBERS", 1)
    monkeypatch.setattr(kept_memory.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(choice, "CHOICES", tmp_path / "choices.json")
    memory_way.cache_clear()
    yield calls
    memory_way.cache_clear()


@pytest.mark.parametrize("way", SETTINGS)
def test_what_is_faster_is_set(monkeypatch, told, way):
    monkeypatch.delenv("LLMS_PLAIN", raising=False)

    def time_in_turn(ways):
        for fill in ways.values():
            fill()
        return {name: 1 if name == way else 2 for name in ways}

    monkeypatch.setattr(choice, "time_in_turn", time_in_turn)
    keep_memory()
    tried = ["plain", "plain", "kept", "plain"]
    assert told == tried + (["kept"] if way == "kept" else [])
    keep_memory()  # is known now
    assert told == tried + 2 * (["kept"] if way == "kept" else [])


def test_plain_pytorch_keeps_memory_unmeasured(monkeypatch, told):
    monkeypatch.setenv("LLMS_PLAIN", "1")
    keep_memory()
    assert told == ["kept"]


def test_other_systems_are_left_alone(monkeypatch, told):
    monkeypatch.delenv("LLMS_PLAIN", raising=False)
    monkeypatch.setattr(kept_memory.platform, "libc_ver", lambda: ("", ""))
    keep_memory()
    assert told == []
