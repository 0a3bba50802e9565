"""The device is the reader's choice, or one that computes what the CPU computes."""

import re

import pytest
import torch
import torch.nn.functional as F

from ch04.gpt import GPTModel
from support.device import choice
from support.device import device as device_module
from support.device.device import (
    available_devices,
    fast_autocast,
    fast_dtype,
    fast_math,
    pick_device,
    seconds_per_step,
)
from support.device.self_test import find_faults


@pytest.fixture
def two_devices(monkeypatch, tmp_path):
    """A sound device beside the CPU, twice as fast; gives a list of what was measured.

    "cpu:0" is a name that PyTorch has for the CPU too.
    """
    measured, seconds = [], {"cpu:0": 0.25, "cpu": 0.5}
    monkeypatch.delenv("LLMS_DEVICE", raising=False)
    for name, value in {
        "available_devices": lambda: ["cpu:0", "cpu"],
        "find_faults": lambda name, dtype: [],
        "seconds_per_step": lambda name: measured.append(name) or seconds[name],
    }.items():
        monkeypatch.setattr(device_module, name, value)
    monkeypatch.setattr(choice, "CHOICES", tmp_path / "choices.json")
    device_module.fastest_device.cache_clear()
    yield measured
    device_module.fastest_device.cache_clear()


def pick_anew():
    """What the next notebook picks: its process has no memory of this one."""
    device_module.fastest_device.cache_clear()
    return pick_device()


def test_the_cpu_is_always_there_and_last():
    assert available_devices()[-1] == "cpu"


def test_the_reader_chooses(two_devices, monkeypatch):
    monkeypatch.setenv("LLMS_DEVICE", "cpu")
    assert pick_device() == torch.device("cpu") and two_devices == []


def test_a_device_that_is_not_here_is_named(monkeypatch):
    monkeypatch.setenv("LLMS_DEVICE", "abacus")
    with pytest.raises(
        ValueError, match="'abacus', but this machine has .*'cpu'.: set"
    ):
        pick_device()


def test_the_cpu_alone_is_neither_tested_nor_measured(two_devices, monkeypatch, capsys):
    monkeypatch.setattr(device_module, "available_devices", lambda: ["cpu"])
    monkeypatch.delattr(device_module, "find_faults")
    assert pick_device() == torch.device("cpu")
    assert two_devices == [] and capsys.readouterr().out == ""
    assert not choice.CHOICES.exists()


def test_the_faster_device_is_taken_and_the_reader_told_why(two_devices, capsys):
    assert pick_device() == torch.device("cpu:0")
    said = "seconds per training step: cpu:0 0.250, cpu 0.500. cpu:0 is used\n"
    assert capsys.readouterr().out == said


def test_the_cpu_is_taken_where_it_is_faster(two_devices, monkeypatch, capsys):
    seconds = {"cpu:0": 0.75, "cpu": 0.5}
    monkeypatch.setattr(device_module, "seconds_per_step", seconds.get)
    assert pick_device() == torch.device("cpu")
    assert capsys.readouterr().out.endswith("cpu is used\n")


def test_a_faulty_device_is_passed_over_and_all_its_faults_told(
    two_devices, monkeypatch, capsys
):
    """It is asked each time, so that the sentence does not get lost."""
    faults = ["cpu:0: logits are off", "cpu:0: tokens leak"]
    monkeypatch.setattr(device_module, "find_faults", lambda name, dtype: faults)
    for _ in range(2):
        assert pick_anew() == torch.device("cpu") and two_devices == []
        said = "".join(f"{fault}. cpu:0 is not used\n" for fault in faults)
        assert capsys.readouterr().out == said


def test_a_real_fault_is_found_on_the_way(two_devices, monkeypatch, capsys):
    """A device that rounds too much, with the real self-test."""
    usual = GPTModel.to

    def to_a_faulty_device(model, device):
        if str(device) == "cpu:0":
            with torch.no_grad():
                model.out_head.weight *= 1.01
        return usual(model, device)

    monkeypatch.setattr(GPTModel, "to", to_a_faulty_device)
    monkeypatch.setattr(device_module, "find_faults", find_faults)
    assert pick_device() == torch.device("cpu") and two_devices == []
    expected = r"cpu:0: tiny GPT, batch of 9 x 16 .* expected\. cpu:0 is not used"
    assert re.search(expected, capsys.readouterr().out)


def test_the_choice_is_kept_for_the_process(two_devices, capsys):
    pick_device()
    choice.CHOICES.unlink()
    assert pick_device() == torch.device("cpu:0") and two_devices == ["cpu:0", "cpu"]


def test_the_choice_is_kept_for_the_next_notebook(two_devices, capsys):
    pick_device()
    capsys.readouterr()
    assert pick_anew() == torch.device("cpu:0") and two_devices == ["cpu:0", "cpu"]
    assert capsys.readouterr().out == ""


def test_other_devices_are_another_choice(two_devices, monkeypatch):
    pick_device()
    monkeypatch.setattr(
        device_module, "available_devices", lambda: ["cpu:0", "cpu:0", "cpu"]
    )
    pick_anew()
    assert len(two_devices) > 2


def test_a_choice_of_no_device_that_is_here_is_made_anew(two_devices):
    pick_device()
    choice.remember("device of cpu:0, cpu", "abacus")
    assert pick_anew() == torch.device("cpu:0") and len(two_devices) == 4


@pytest.fixture
def small_steps(monkeypatch):
    """Steps of training that take milliseconds."""
    small = {"vocab_size": 11, "emb_dim": 12, "n_layers": 1}
    cfg = device_module.STEP_CONFIG | small
    monkeypatch.setattr(device_module, "STEP_CONFIG", cfg)


@pytest.mark.usefixtures("small_steps", "one_thread")
def test_measuring_leaves_no_trace(device, usual_precision):
    torch.set_float32_matmul_precision("highest")
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    assert seconds_per_step(device) > 0
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.usefixtures("small_steps", "one_thread", "usual_precision")
def test_the_first_step_does_not_count(monkeypatch):
    steps = []
    monkeypatch.setattr(device_module, "take_step", lambda *run: steps.append(1))
    monkeypatch.setattr(
        choice.time, "perf_counter", lambda: 9.0 + 0.5 * max(len(steps), 1)
    )
    assert seconds_per_step("cpu") == pytest.approx(0.5)
    assert len(steps) == 1 + device_module.NUM_TIMED


WAYS = {
    "linear": F.linear,
    "one token": lambda a, b: F.linear(a[:1], b),
    "batch": lambda a, b: a.unflatten(0, (4, -1)) @ b.unflatten(0, (4, -1)).mT,
    "gradient": lambda a, b: a.mT @ b,
    "attention": lambda a, b: F.scaled_dot_product_attention(*torch.stack([a, b, b])),
}


@pytest.mark.parametrize("way", WAYS)
def test_float32_stays_float32(device, usual_precision, way):
    """The real thing: on a CPU with AMX, "medium" precision would fail."""
    generator = torch.Generator().manual_seed(123)
    factors = torch.randn(2, 256, 512, generator=generator)
    fast_math(device)
    found = WAYS[way](*factors.to(device)).cpu()
    expected = WAYS[way](*factors.double())
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_fast_math_sets_what_was_found_to_be_exact(
    monkeypatch, usual_precision, precision
):
    asked = []
    monkeypatch.setattr(
        device_module, "float32_precision", lambda d: asked.append(d) or precision
    )
    torch.set_float32_matmul_precision("high")
    fast_math(torch.device("cpu", 0))
    assert torch.get_float32_matmul_precision() == precision
    assert asked == ["cpu"]


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_fast_math_keeps_memory_on_a_cpu(monkeypatch, usual_precision, name):
    """If that is faster: `keep_memory` measures it."""
    kept = []
    monkeypatch.setattr(device_module, "keep_memory", lambda: kept.append(1))
    monkeypatch.setattr(device_module, "float32_precision", lambda name: "highest")
    fast_math(name)
    assert len(kept) == (name == "cpu")


@pytest.mark.parametrize(
    ("gains", "dtype"), [(True, torch.bfloat16), (False, torch.float32)]
)
def test_bfloat16_is_used_where_it_gains(monkeypatch, gains, dtype):
    monkeypatch.setattr(device_module, "gains_by_bfloat16", lambda device: gains)
    assert fast_dtype("cpu") == dtype
    a = torch.ones(2, 2)
    with fast_autocast("cpu"):
        assert (a @ a).dtype == dtype
    assert (a @ a).dtype == torch.float32


@pytest.mark.parametrize(
    ("has", "dtype"), [(True, torch.bfloat16), (False, torch.float32)]
)
def test_a_device_is_tested_in_bfloat16_where_it_has_it(
    two_devices, monkeypatch, has, dtype
):
    """Though it may not be faster: a reader can ask for it."""
    tested = []
    for name, value in {
        "has_bfloat16": lambda device: has,
        "gains_by_bfloat16": lambda device: not has,
        "find_faults": lambda name, dtype: tested.append(dtype) or [],
    }.items():
        monkeypatch.setattr(device_module, name, value)
    pick_device()
    assert tested == [dtype]


def test_other_devices_compute_as_ever():
    with fast_autocast("mps"):
        assert not torch.is_autocast_enabled("mps")


def test_fast_autocast_stays_near_float32(device):
    generator = torch.Generator().manual_seed(123)
    a, b = torch.randn(2, 64, 256, generator=generator).to(device)
    expected = (a @ b.T).float()
    with fast_autocast(device):
        error = (a @ b.T).float() - expected
    assert error.abs().max() < 0.02 * expected.abs().max()
