"""A run that is stopped, killed or spoiled goes on to the bits of an unbroken one."""

import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest
import torch

import ch05.recipe
import support.pretraining.trainer
from ch05.recipe import StepBatches
from ch05.training import calc_loss_batch, calc_loss_loader
from support.paths import ROOT
from support.pretraining.run_folder import RunFolder
from support.pretraining.trainer import RunOptions, RunSettings, create_val_loader
from support.weights.checkpoint import load_model
from tests.kill_run import results
from tests.support.test_run_folder import largest_file
from tests.tiny_run import (
    CONFIG,
    OPTIONS,
    SETTINGS,
    TRAIN,
    VALIDATION,
    ToldFolder,
    tiny_run,
)

pytestmark = pytest.mark.usefixtures("one_thread")
STEADY = replace(SETTINGS, config=CONFIG | {"drop_rate": 0.0})


def outcome(path, settings=SETTINGS, options=OPTIONS):
    """What a run comes to that nothing interrupts."""
    assert tiny_run(RunFolder(path), settings, options)
    return results(path)


def losses(path):
    """The losses of a run's steps, as its log has them."""
    return [entry["loss"] for entry in RunFolder(path).read_log()]


@pytest.fixture
def unbroken(tmp_path):
    """What the tiny run comes to that nothing interrupts."""
    return outcome(tmp_path / "unbroken")


@pytest.fixture
def path(tmp_path):
    """The folder of a run that something interrupts."""
    return tmp_path / "broken"


# It trains


def test_the_log_tells_of_each_step_and_of_evaluations(unbroken, tmp_path):
    entries = RunFolder(tmp_path / "unbroken").read_log()
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert all({"loss", "norm"} <= entry.keys() for entry in entries)
    assert [entry["step"] for entry in entries if "val_loss" in entry] == [4, 8]


def test_the_losses_are_those_of_the_steps_batches(tmp_path):
    """The first is a new model's, and the last evaluation is the result's."""
    outcome(tmp_path, STEADY)
    entries = RunFolder(tmp_path).read_log()
    batches = StepBatches(TRAIN, SETTINGS.batch_size, SETTINGS.num_steps)
    model, _ = support.pretraining.trainer.build(STEADY, "cpu", is_sharded=False)
    first = calc_loss_batch(*next(iter(batches)), model.eval(), "cpu")
    assert entries[0]["loss"] == pytest.approx(first.item(), abs=1e-6)
    result, _ = load_model(tmp_path / "model.safetensors")
    looked_at = [(ids[None], targets[None]) for ids, targets in VALIDATION[:6]]
    with torch.no_grad():
        last = calc_loss_loader(looked_at, result, "cpu")
    assert entries[-1]["val_loss"] == pytest.approx(last, abs=1e-6)


def adamw_by_hand(settings):
    """Parameters after a run, by the formulas of Loshchilov & Hutter 2019, algorithm 2.

    Gradients are cut to max_norm; only matrices decay.
    """
    model, _ = support.pretraining.trainer.build(settings, "cpu", is_sharded=False)
    parameters = [*model.parameters()]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    batches = StepBatches(TRAIN, settings.batch_size, settings.num_steps, settings.seed)
    for step, batch in enumerate(batches):
        loss = calc_loss_batch(*batch, model, "cpu")
        gradients = torch.autograd.grad(loss, parameters)
        length = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        lr, power = settings.learning_rate(step), step + 1
        with torch.no_grad():
            for p, g, (m, v) in zip(parameters, gradients, moments):
                g = g * min(1, settings.max_norm / length)
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.95).add_(0.05 * g.square())
                change = m / (1 - 0.9**power) / ((v / (1 - 0.95**power)).sqrt() + 1e-8)
                decay = settings.weight_decay if p.dim() == 2 else 0.0
                p -= lr * (change + decay * p)
    return dict(model.named_parameters())


@pytest.mark.parametrize(
    "change", [{}, {"weight_decay": 3.0}, {"max_norm": 0.05, "seed": 5}], ids=str
)
def test_the_steps_are_those_of_adamw_by_hand(tmp_path, change):
    settings = replace(STEADY, **change)
    outcome(tmp_path, settings)
    found = dict(load_model(tmp_path / "model.safetensors")[0].named_parameters())
    expected = adamw_by_hand(settings)
    assert found.keys() == expected.keys()
    for name, parameter in expected.items():
        torch.testing.assert_close(found[name], parameter, rtol=1e-3, atol=1e-5)


def test_a_run_has_gpt3s_settings_if_nothing_else_is_said():
    """Those of Brown et al. 2020, appendix B; and what the course chose."""
    settings = RunSettings({}, "", num_steps=9, batch_size=1, peak_lr=1.0, min_lr=0.1)
    assert (settings.weight_decay, settings.max_norm) == (0.1, 1.0)
    assert (settings.warmup_share, settings.seed) == (0.1, 123)
    assert settings.dtype == "float32"
    assert RunOptions() == RunOptions(100, 8, 100, num_parts=1, is_sharded=False)


def test_it_learns_its_windows_by_heart(tmp_path):
    settings = replace(STEADY, num_steps=200, weight_decay=0.0)
    outcome(tmp_path, settings, replace(OPTIONS, save_freq=200))
    found = losses(tmp_path)
    assert found[0] == pytest.approx(math.log(CONFIG["vocab_size"]), abs=0.1)
    assert max(found[-10:]) < 1.5


def test_another_seed_is_another_run(unbroken, tmp_path):
    """Or `results` would see no difference at all."""
    other = outcome(tmp_path / "other", replace(SETTINGS, seed=124))
    assert other.keys() == unbroken.keys()
    same = {name for name in other if other[name] == unbroken[name]}
    assert all(name.endswith(".step") for name in same)


def test_how_often_it_looks_up_changes_nothing(unbroken, tmp_path):
    options = replace(OPTIONS, eval_freq=1, eval_iter=2, save_freq=5)
    found = outcome(tmp_path / "other", options=options)
    found.pop("log.jsonl"), unbroken.pop("log.jsonl")
    assert found == unbroken
    assert losses(tmp_path / "other") == losses(tmp_path / "unbroken")


def test_parts_give_the_same_losses(tmp_path):
    outcome(tmp_path / "whole", STEADY)
    outcome(tmp_path / "parts", STEADY, replace(OPTIONS, num_parts=3))
    found, expected = losses(tmp_path / "parts"), losses(tmp_path / "whole")
    assert found == pytest.approx(expected, abs=1e-6)


def test_each_step_has_its_learning_rate(tmp_path, monkeypatch):
    rates, usual = [], support.pretraining.trainer.set_learning_rate

    def record(optimizer, lr):
        rates.append(lr)
        usual(optimizer, lr)

    monkeypatch.setattr(support.pretraining.trainer, "set_learning_rate", record)
    expected = [SETTINGS.learning_rate(step) for step in range(8)]
    assert max(expected) == pytest.approx(SETTINGS.peak_lr)
    assert expected[-1] == SETTINGS.min_lr
    tiny_run(ToldFolder(tmp_path, stop_at=3))
    assert rates == expected[:3]
    tiny_run(RunFolder(tmp_path))
    assert rates == expected


def test_bfloat16_stays_near_and_goes_on_to_the_bit(tmp_path):
    settings = replace(STEADY, dtype="bfloat16")
    expected = outcome(tmp_path / "unbroken", settings)
    tiny_run(ToldFolder(tmp_path / "broken", stop_at=4), settings)
    assert outcome(tmp_path / "broken", settings) == expected
    outcome(tmp_path / "float32", STEADY)
    found, exact = losses(tmp_path / "broken"), losses(tmp_path / "float32")
    assert found != exact and found == pytest.approx(exact, rel=0.01)


# It is stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stop_at", [2, 3, 7])
def test_a_signal_saves_and_the_run_goes_on(path, unbroken, capsys, number, stop_at):
    before = signal.getsignal(number)
    assert not tiny_run(ToldFolder(path, stop_at, number))
    assert signal.getsignal(number) is before
    assert RunFolder(path).last_valid_step() == stop_at == len(losses(path))
    assert not (path / "model.safetensors").exists()
    assert outcome(path) == unbroken
    assert f"continuing after step {stop_at} of 8" in capsys.readouterr().out


class Impatient(RunFolder):
    """Its run gets two signals within one step."""

    def __init__(self, path, number):
        super().__init__(path)
        self.number = number

    def log_entry(self, **entry):
        super().log_entry(**entry)
        if entry["step"] == 5:
            os.kill(os.getpid(), self.number)
            os.kill(os.getpid(), self.number)


def test_a_second_ctrl_c_stops_at_once(path, unbroken):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        tiny_run(Impatient(path, signal.SIGINT))
    assert signal.getsignal(signal.SIGINT) is before
    assert RunFolder(path).last_valid_step() == 3
    assert outcome(path) == unbroken


def test_a_second_sigterm_is_no_hurry(path, unbroken):
    """A scheduler sends one to each process, and torchrun hands its own on."""
    assert not tiny_run(Impatient(path, signal.SIGTERM))
    assert RunFolder(path).last_valid_step() == 6
    assert outcome(path) == unbroken


def test_killed_again_and_again_it_ends_as_if_nothing_had_happened():
    """24 times at random, and before each file operation: see tests/kill_run.py."""
    command = [sys.executable, "-m", "tests.kill_run", "--kills", "24"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    num_half = re.search(r"; (\d+) times a file was half written", done.stdout)
    assert int(num_half[1]) >= 4 and "killed 24 times" in done.stdout
    assert done.stdout.endswith("equal to the last bit\n")


def test_killing_that_is_stopped_leaves_no_process_and_no_file(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "tests.kill_run", "--kills", "24"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    ) as process:
        children = []
        while not (children and any(tmp_path.iterdir())):  # a run has begun
            assert process.poll() is None
            children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
    assert process.returncode != 0
    _, alive = psutil.wait_procs(children, timeout=60)  # the system may reap them late
    assert all(child.status() == psutil.STATUS_ZOMBIE for child in alive)
    assert not list(tmp_path.iterdir())


# It is over


@pytest.mark.parametrize("num_steps", [1, 8])
def test_a_run_that_is_done_takes_no_more_steps(path, num_steps):
    settings = replace(SETTINGS, num_steps=num_steps)
    expected = outcome(path, settings)
    checkpoints = RunFolder(path).steps()
    assert outcome(path, settings) == expected
    assert RunFolder(path).steps() == checkpoints


def test_killed_before_the_result_was_written_it_writes_it(path, unbroken):
    outcome(path)
    for file in path.glob("model.*"):
        file.unlink()
    assert outcome(path) == unbroken


# It fails


@pytest.fixture
def spoil(monkeypatch):
    """A function that lets the loss of the nth batch from now be nan."""

    def in_batches(num_batches):
        batches = iter(range(1, 1000))

        def calc(*args):
            loss = calc_loss_batch(*args)
            return loss * math.nan if next(batches) == num_batches else loss

        monkeypatch.setattr(ch05.recipe, "calc_loss_batch", calc)

    return in_batches


def test_a_loss_that_is_not_finite_is_named_with_step_and_windows(
    path, unbroken, spoil
):
    windows = StepBatches(TRAIN, SETTINGS.batch_size, 8).indices(4).tolist()
    named = re.escape(f"step 5, on windows {windows}: the loss is nan")
    for num_batches in (5, 2):  # the second time it begins after step 3
        spoil(num_batches)
        with pytest.raises(FloatingPointError, match=named):
            tiny_run(RunFolder(path))
        assert len(losses(path)) == 4
        assert RunFolder(path).last_valid_step() == 3
    spoil(1000)
    assert outcome(path) == unbroken


def test_weights_that_are_not_finite_are_named_with_the_step_that_made_them(
    path, unbroken
):
    class Spoiling(RunFolder):
        """Its model is spoiled right before a save."""

        def save(self, step, model, optimizer):
            if step == 6:
                with torch.no_grad():
                    model.pos_emb.weight[0, 0] = math.inf
            super().save(step, model, optimizer)

    windows = StepBatches(TRAIN, SETTINGS.batch_size, 8).indices(5).tolist()
    named = re.escape(f"step 6, on windows {windows}: pos_emb.weight holds numbers")
    with pytest.raises(FloatingPointError, match=named):
        tiny_run(Spoiling(path))
    assert RunFolder(path).last_valid_step() == 3
    assert outcome(path) == unbroken


def test_a_full_disk_stops_it_and_it_goes_on_when_there_is_room(path, unbroken):
    tiny_run(ToldFolder(path, stop_at=2))
    with largest_file(20_000), pytest.raises(OSError, match="File too large"):
        tiny_run(RunFolder(path))
    assert RunFolder(path).last_valid_step() == 2
    assert outcome(path) == unbroken


def test_a_target_that_is_too_small_is_found_before_the_first_step(path):
    with largest_file(20_000), pytest.raises(OSError, match="File too large"):
        tiny_run(RunFolder(path))
    assert not (path / "log.jsonl").exists()


@pytest.mark.parametrize("stop_at", [None, 2, 3, 4, 7])
def test_room_is_asked_for_as_many_checkpoints_as_are_written(
    path, monkeypatch, stop_at
):
    if stop_at:
        tiny_run(ToldFolder(path, stop_at=stop_at))
    asked, saved, save = [], [], RunFolder.save
    monkeypatch.setattr(RunFolder, "check_disk_space", lambda *args: asked.append(args))
    monkeypatch.setattr(
        RunFolder, "save", lambda *args: saved.append(args) or save(*args)
    )
    assert tiny_run(RunFolder(path))
    assert [num_saves for *_, num_saves in asked] == [len(saved)]


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    path, unbroken, capsys
):
    tiny_run(ToldFolder(path, stop_at=7))
    os.truncate(path / "step-0000007.safetensors", 5000)
    assert outcome(path) == unbroken
    said = capsys.readouterr().out
    assert "cannot be used" in said and "continuing after step 6 of 8" in said


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 5}, "seed was 123 and is now 5"),
        ({"data": "other windows"}, "data was 'random windows' and is now 'other"),
        ({"config": CONFIG | {"emb_dim": 32}}, ": emb_dim was 16 and is now 32. Con"),
    ],
)
def test_a_run_of_other_settings_is_refused_and_nothing_is_lost(
    path, unbroken, change, named
):
    tiny_run(ToldFolder(path, stop_at=4))
    with pytest.raises(ValueError, match=re.escape(named)):
        tiny_run(RunFolder(path), replace(SETTINGS, **change))
    assert outcome(path) == unbroken


# Evaluation


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_processes_share_the_first_windows_equally(monkeypatch, world_size):
    monkeypatch.setattr(support.pretraining.trainer, "world_size", lambda: world_size)
    data, shares = [(torch.tensor(i), torch.tensor(i)) for i in range(14)], []
    for rank in range(world_size):
        monkeypatch.setattr(support.pretraining.trainer, "rank", lambda rank=rank: rank)
        loader = create_val_loader(data, batch_size=6, eval_iter=2)
        shares.append([i for ids, _ in loader for i in ids.tolist()])
    assert {len(share) for share in shares} == {12 // world_size}
    assert sorted(sum(shares, [])) == [*range(12)]


def test_more_processes_than_windows_to_evaluate_on_are_refused(monkeypatch):
    monkeypatch.setattr(support.pretraining.trainer, "world_size", lambda: 8)
    with pytest.raises(ValueError, match="has only 7 windows for 8 processes: give"):
        create_val_loader(VALIDATION, batch_size=8, eval_iter=1)
