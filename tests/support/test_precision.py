"""A faster way to multiply is taken where it is exact; bfloat16 where it is faster."""

import pytest
import torch

from support.device import precision
from support.device.precision import float32_precision, gains_by_bfloat16, has_bfloat16
from tests.low_precision import low_precision, to_bfloat16

F32, BF16 = torch.float32, torch.bfloat16


@pytest.fixture(autouse=True)
def tried_anew(usual_precision):
    """What other tests have found out is forgotten, and so is what these do."""
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
def test_a_way_that_is_not_exact_is_left_alone(rounding):
    with low_precision(rounding):
        assert float32_precision("cpu") == "highest"


def test_an_exact_way_is_taken():
    with low_precision(torch.clone):
        assert float32_precision("cpu") == "medium"


def test_autocast_around_it_does_not_hide_the_error():
    with low_precision(), torch.autocast("cpu", BF16):
        assert float32_precision("cpu") == "highest"


@pytest.mark.parametrize("trial", [float32_precision, gains_by_bfloat16])
def test_a_trial_leaves_no_trace(trial, device, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    torch.set_float32_matmul_precision("high")
    before = torch.get_num_threads()
    torch.manual_seed(123)
    expected = torch.rand(1), torch.rand(1, device=device)
    torch.manual_seed(123)
    trial(device.type)
    assert torch.equal(torch.rand(1), expected[0])
    assert torch.equal(torch.rand(1, device=device), expected[1])
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_num_threads() == before and torch.is_grad_enabled()


def test_a_device_is_tried_once(monkeypatch):
    tried, multiply = [], precision.multiply
    monkeypatch.setattr(
        precision, "multiply", lambda *x: tried.append(1) or multiply(*x)
    )
    float32_precision("cpu")
    num_tried = len(tried)
    float32_precision("cpu")
    assert len(tried) == num_tried > 0


@pytest.fixture
def plant_seconds(monkeypatch):
    """A function that says how long a device takes to multiply in each dtype."""

    def plant(has, **seconds):
        def multiply_seconds(x, weight):
            assert x.dtype == weight.dtype and x.shape[-1] == weight.shape[-1]
            return next(seconds[str(x.dtype).removeprefix("torch.")])

        seconds = {name: iter(each) for name, each in seconds.items()}
        monkeypatch.setattr(precision, "has_bfloat16", lambda device: has)
        monkeypatch.setattr(precision, "multiply_seconds", multiply_seconds)

    return plant


@pytest.mark.parametrize(
    ("exact", "rounded", "gains"),
    [
        ([12] * 5, [10] * 5, True),
        ([11] * 5, [10] * 5, False),
        ([10] * 5, [25] * 5, False),
        ([12, 12, 12, 90, 90], [60, 10, 60, 60, 60], True),  # beside other work
    ],
)
def test_bfloat16_has_to_be_clearly_faster(plant_seconds, exact, rounded, gains):
    plant_seconds(True, float32=exact, bfloat16=rounded)
    assert gains_by_bfloat16("cpu") is gains
    assert gains_by_bfloat16("cpu") is gains  # and there are no more seconds to be had


def test_a_device_that_imitates_bfloat16_is_not_timed(plant_seconds):
    plant_seconds(False)
    assert not gains_by_bfloat16("cpu")


def test_bfloat16_is_timed_beside_exact_float32(plant_seconds, monkeypatch):
    def multiply_seconds(x, weight):
        found.append(torch.get_float32_matmul_precision())
        return 1

    found = []
    plant_seconds(True)
    monkeypatch.setattr(precision, "multiply_seconds", multiply_seconds)
    torch.set_float32_matmul_precision("medium")
    with low_precision():
        gains_by_bfloat16("cpu")
    assert set(found) == {"highest"}


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_real_seconds_are_positive(device, dtype):
    x, weight = (
        torch.ones(shape, dtype=dtype, device=device) for shape in ((8, 4),) * 2
    )
    assert precision.multiply_seconds(x, weight) > 0


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
