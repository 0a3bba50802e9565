"""A faster way to multiply is taken where it is exact; bfloat16 where it is faster."""

import pytest
import torch

from support.device import choice, precision
from support.device.precision import float32_precision, gains_by_bfloat16, has_bfloat16
from tests.low_precision import low_precision, to_bfloat16

F32, BF16 = torch.float32, torch.bfloat16


@pytest.fixture(autouse=True)
def tried_anew(usual_precision, monkeypatch, tmp_path):
    """What other tests have found out is forgotten, and so is what these do."""
    monkeypatch.delenv("LLMS_PLAIN")
    monkeypatch.setattr(choice, "CHOICES", tmp_path / "choices.json")
    for trial in (float32_precision, gains_by_bfloat16):
        trial.cache_clear()
    yield
    for trial in (float32_precision, gains_by_bfloat16):
        trial.cache_clear()


def to_tf32(factor):
    """The nearest numbers with 11 significant bits."""
    bits = factor.contiguous().view(torch.int32)
    return (bits + 0x1000).bitwise_and(~0x1FFF).view(torch.float32)


@pytest.mark.parametrize("rounding", [to_bfloat16, to_tf32, lambda x: x * torch.nan])
def test_a_way_that_is_not_exact_is_left_alone(monkeypatch, rounding):
    plant_seconds(monkeypatch, medium=0.1)
    with low_precision(rounding):
        assert float32_precision("cpu") == "highest"


def plant_seconds(monkeypatch, **seconds):
    """Let each way take so many seconds, by name; the others take one."""

    def time_in_turn(ways):
        return {name: seconds.get(name.removeprefix("torch."), 1) for name in ways}

    monkeypatch.setattr(choice, "time_in_turn", time_in_turn)


@pytest.mark.parametrize(("seconds", "taken"), [(0.5, "medium"), (2, "highest")])
def test_an_exact_way_is_taken_if_it_is_faster(monkeypatch, seconds, taken):
    plant_seconds(monkeypatch, medium=seconds)
    with low_precision(torch.clone):
        assert float32_precision("cpu") == taken


def test_autocast_around_it_does_not_hide_the_error(monkeypatch):
    plant_seconds(monkeypatch, medium=0.1)
    with low_precision(), torch.autocast("cpu", BF16):
        assert float32_precision("cpu") == "highest"


@pytest.mark.parametrize("trial", [float32_precision, gains_by_bfloat16])
def test_a_trial_leaves_no_trace(trial, device, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(123)
    expected = torch.rand(1), torch.rand(1, device=device)
    torch.manual_seed(123)
    trial(device.type)
    assert torch.equal(torch.rand(1), expected[0])
    assert torch.equal(torch.rand(1, device=device), expected[1])
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.is_grad_enabled()


def test_a_device_is_tried_once(monkeypatch):
    tried, multiply = [], precision.multiply
    monkeypatch.setattr(
        precision, "multiply", lambda *x: tried.append(1) or multiply(*x)
    )
    float32_precision("cpu")
    num_tried = len(tried)
    float32_precision("cpu")
    assert len(tried) == num_tried > 0


@pytest.mark.parametrize(("seconds", "gains"), [(0.8, True), (0.9, False), (9, False)])
def test_bfloat16_has_to_be_clearly_faster(monkeypatch, seconds, gains):
    plant_seconds(monkeypatch, bfloat16=seconds)
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    assert gains_by_bfloat16("cpu") is gains


def test_a_device_that_imitates_bfloat16_is_not_timed(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    monkeypatch.delattr(choice, "time_in_turn")
    assert not gains_by_bfloat16("cpu")


def test_bfloat16_is_timed_beside_exact_float32(monkeypatch):
    found, linear = [], torch.nn.functional.linear

    def note(x, weight):
        found.append((x.dtype, torch.get_float32_matmul_precision()))
        assert not torch.is_autocast_enabled("cpu")
        return linear(x, weight)

    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(precision, "LARGE_SHAPE", ((8, 8), (8, 8)))
    monkeypatch.setattr(torch.nn.functional, "linear", note)
    torch.set_float32_matmul_precision("medium")
    with low_precision(), torch.autocast("cpu", BF16):
        gains_by_bfloat16("cpu")
    assert set(found) == {(F32, "highest"), (BF16, "highest")}


@pytest.mark.parametrize(
    ("capabilities", "has"),
    [
        ({}, False),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, False),
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
    ],
    ids=["unknown", "none", "avx512", "amx"],
)
def test_a_cpu_says_what_it_has(monkeypatch, capabilities, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_bfloat16("cpu") is has


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize("has", [True, False])
def test_a_gpu_is_asked_what_it_can_do_itself(monkeypatch, has):
    asked = []

    def is_supported(including_emulation):
        asked.append(including_emulation)
        return has

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert has_bfloat16("cuda") is has and asked == [False]


def test_other_devices_have_none():
    assert not has_bfloat16("mps")
