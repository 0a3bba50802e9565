"""The command for a GPU does its parts, goes on after a fault, and says what failed."""

import subprocess
import sys

import pytest

from benchmarks import accelerator
from benchmarks.table import Row
from support.paths import ROOT

ROW = Row("decoding", "ours", "transformers", [2.0], [1.0], "tokens/s")


def ran(monkeypatch, capsys, *parts):
    """What the command prints with these parts, and its exit status."""
    monkeypatch.setattr(accelerator, "PARTS", parts)
    monkeypatch.setattr("sys.argv", ["accelerator", "--device", "cpu", "--tiny"])
    with pytest.raises(SystemExit) as stopped:
        accelerator.main()
    return capsys.readouterr().out, stopped.value.code


def finds(device, cfg):
    assert (device, cfg) == ("cpu", accelerator.TINY_CONFIG)
    return [ROW, "a note"]


def fails(device, cfg):
    raise RuntimeError("no such operation")


def test_rows_and_notes_are_printed(monkeypatch, capsys):
    said, status = ran(monkeypatch, capsys, finds)
    assert "| decoding | ours | transformers |" in said and "\na note\n" in said
    assert status == 0 and said.startswith("cpu of ")


def test_after_a_fault_it_goes_on_and_says_so(monkeypatch, capsys):
    said, status = ran(monkeypatch, capsys, fails, finds)
    assert "fails FAILED: no such operation" in said and "\na note\n" in said
    assert status == 1


def test_each_part_runs_here(one_thread, monkeypatch):
    """The tests of devices and torchrun have tests of their own."""
    monkeypatch.setattr(accelerator.training, "ROUNDS", 1)
    monkeypatch.setattr(
        accelerator.training, "in_fresh_process", lambda f, *words: f(*words)
    )
    config = accelerator.TINY_CONFIG
    assert accelerator.run_self_test("cpu", config) == ["the self-test found no fault"]
    rows = [
        each
        for part in (accelerator.measure_training, accelerator.measure_decoding)
        for each in part("cpu", config)
        if isinstance(each, Row)
    ]
    assert {row.work for row in rows} == {
        "training step",
        "memory of training",
        "decoding",
    }
    assert all(min(row.our_figures + row.peer_figures) > 0 for row in rows)


def test_the_tests_of_a_device_are_some():
    words = ["-m", "pytest", "-q", "--collect-only", "-k", "cpu and ["]
    done = subprocess.run(
        [sys.executable, *words, "tests/lessons/test_gpt.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "[cpu" in done.stdout


def test_a_command_that_fails_is_named():
    with pytest.raises(RuntimeError, match="-c 1/0 failed: ZeroDivisionError"):
        accelerator.last_line(["-c", "1/0"])


def test_torchrun_with_one_process():
    (line,) = accelerator.run_torchrun("cpu", accelerator.TINY_CONFIG)
    assert line.startswith("torchrun, one process: done:")
