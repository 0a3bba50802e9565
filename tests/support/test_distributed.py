"""Several processes train as one does, and end together, whatever happens to one."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from time import monotonic, sleep

import psutil
import pytest
import torch
from safetensors.torch import load_file

from support.paths import ROOT
from support.pretraining.distributed import (
    all_reduce_mean,
    broadcast,
    parallelize,
    process_group,
    rank,
    world_size,
)
from support.pretraining.run_folder import RunFolder
from tests.tiny_run import CONFIG, SETTINGS, ToldFolder, tiny_run

pytestmark = pytest.mark.usefixtures("one_thread")
# Dropout draws other numbers for a share than for the whole: without it they compare.
STEADY = replace(SETTINGS, config=CONFIG | {"drop_rate": 0.0})
KINDS = {"DDP": False, "FSDP2": True}  # name: is_sharded
ENDLESS = 10**5  # steps, which take many minutes


@contextmanager
def torchrun(num_processes, folder, jobs):
    """Start processes that do the jobs of tests/tiny_run.py in a folder."""
    jobs = [job | {"folder": str(folder / job["folder"])} for job in jobs]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(num_processes), "-m", "tests.tiny_run"]
    environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with (
        open(folder / "said.txt", "w") as said,
        subprocess.Popen(
            [*command, json.dumps(jobs)],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=said,
            stderr=said,
        ) as process,
    ):
        try:
            yield process
        finally:
            kill_all(process)


def kill_all(process):
    """Kill a process, if it still runs, and all that it has started."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()


def job(folder, stop_at=None, drop_rate=0.0, is_sharded=False, num_parts=1, **settings):
    """A job of tests/tiny_run.py, without dropout unless told otherwise."""
    options = {"is_sharded": is_sharded, "num_parts": num_parts}
    settings["config"] = CONFIG | {"drop_rate": drop_rate}
    return {
        "folder": folder,
        "stop_at": stop_at,
        "options": options | {"save_freq": 3 if stop_at else ENDLESS},
        "settings": settings,
    }


def wait_until_it_trains(process, path):
    """Wait until the run in a folder has taken some steps; its processes."""
    end, log = monotonic() + 300, RunFolder(path).log
    while not (log.is_file() and log.read_bytes().count(b"\n") > 3):
        said = path.with_name("said.txt").read_text()
        assert process.poll() is None and monotonic() < end, said
        sleep(0.05)
    children = psutil.Process(process.pid).children()
    return [child for child in children if "tests.tiny_run" in child.cmdline()]


def end_of(process, workers):
    """Wait for the end of all processes, which must not take long: the exit status."""
    process.wait(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
    return process.returncode


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    """The folder of what two processes did until one of them was killed.

    killed.json says with which status the others ended.
    """
    folder, jobs = tmp_path_factory.mktemp("two"), []
    for kind, is_sharded in KINDS.items():
        sharded = {"is_sharded": is_sharded}
        dropout = sharded | {"drop_rate": 0.1}
        jobs += [
            job(kind, **sharded),
            job(f"{kind} in parts", num_parts=3, **sharded),
            job(f"{kind} in bfloat16", dtype="bfloat16", **sharded),
            job(f"{kind} stopped", stop_at=5, **sharded),
            job(f"{kind} with dropout", **dropout),
            job(f"{kind} continued", stop_at=5, **dropout),
            job(f"{kind} continued", **dropout),
        ]
    with torchrun(2, folder, [*jobs, job("killed", num_steps=ENDLESS)]) as process:
        workers = wait_until_it_trains(process, folder / "killed")
        workers[1].kill()
        status = end_of(process, workers)
    (folder / "killed.json").write_text(json.dumps(status))
    return folder


@pytest.fixture(scope="module")
def by_three(tmp_path_factory, by_two):
    """The folder of what three processes made of stopped runs until Ctrl-C."""
    folder, jobs = tmp_path_factory.mktemp("three"), []
    for before in KINDS:
        for after, is_sharded in KINDS.items():
            name = f"{before} to {after}"
            shutil.copytree(by_two / f"{before} stopped", folder / name)
            jobs.append(job(name, is_sharded=is_sharded))
    with torchrun(3, folder, [*jobs, job("endless", num_steps=ENDLESS)]) as process:
        workers = wait_until_it_trains(process, folder / "endless")
        process.send_signal(signal.SIGINT)
        end_of(process, workers)
    return folder


@pytest.fixture
def by_one(tmp_path):
    """The folder of the same run in one process."""
    tiny_run(ToldFolder(tmp_path / "one"), STEADY)
    return tmp_path / "one"


def curve(path):
    """All numbers of a run's log in their order."""
    entries = RunFolder(path).read_log()
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4, 5, 6, 7, 8]
    return [entry[key] for entry in entries for key in sorted(entry)]


def weights(path):
    """The weights of a run's result as one vector."""
    tensors = load_file(path / "model.safetensors")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def assert_near(path, expected):
    """Two runs have the same losses, gradients' lengths and weights, nearly."""
    assert curve(path) == pytest.approx(curve(expected), rel=0, abs=1e-6)
    torch.testing.assert_close(weights(path), weights(expected), rtol=0, atol=1e-5)


# Two processes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["", " in parts"])
def test_two_processes_train_as_one_on_the_joined_batch(by_two, by_one, kind, way):
    assert_near(by_two / f"{kind}{way}", by_one)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["", " in parts", " in bfloat16", " with dropout"])
def test_all_processes_hold_the_same_weights(by_two, kind, way):
    path = by_two / f"{kind}{way}"
    said = [(path / f"rank-{number}.txt").read_text() for number in (0, 1)]
    assert said[0] == said[1] and not (path / "rank-2.txt").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_stays_near(by_two, kind):
    found, exact = curve(by_two / f"{kind} in bfloat16"), curve(by_two / kind)
    assert found != exact and found == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_they_go_on_to_the_bits_of_an_unbroken_run(by_two, kind):
    found, unbroken = by_two / f"{kind} continued", by_two / f"{kind} with dropout"
    assert curve(found) == curve(unbroken)
    assert torch.equal(weights(found), weights(unbroken))


@pytest.mark.parametrize("kind", KINDS)
def test_one_signal_to_one_process_stops_all_at_one_step(by_two, kind):
    folder = RunFolder(by_two / f"{kind} stopped")
    assert folder.last_valid_step() == len(folder.read_log()) == 5
    assert not (folder.path / "model.safetensors").exists()


# Another number of processes


@pytest.mark.parametrize("before", KINDS)
def test_what_two_saved_one_goes_on_with(by_two, by_one, tmp_path, before):
    path = tmp_path / "continued"
    shutil.copytree(by_two / f"{before} stopped", path)
    tiny_run(RunFolder(path), STEADY)
    assert_near(path, by_one)


@pytest.mark.parametrize("before", KINDS)
@pytest.mark.parametrize("after", KINDS)
def test_what_two_saved_three_go_on_with(by_three, by_one, before, after):
    path = by_three / f"{before} to {after}"
    assert_near(path, by_one)
    said = {file.read_text() for file in path.glob("rank-*.txt")}
    assert len(said) == 1 and (path / "rank-2.txt").is_file()


# The end


def test_a_killed_process_ends_the_others_with_an_error(by_two):
    assert json.loads((by_two / "killed.json").read_text()) > 0
    assert "ChildFailedError" in (by_two / "said.txt").read_text()


def test_ctrl_c_saves_what_all_have_and_ends_them(by_three):
    folder = RunFolder(by_three / "endless")
    assert folder.last_valid_step() == len(folder.read_log()) > 3


# One process


def test_alone_nothing_is_shared(monkeypatch, tiny_model):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("LLMS_DEVICE", "cpu")
    with process_group() as device:
        assert device == torch.device("cpu") and (rank(), world_size()) == (0, 1)
        assert parallelize(tiny_model, is_sharded=True) is tiny_model
        assert all_reduce_mean(1.5, True) == [1.5, 1] and broadcast(7) == 7
