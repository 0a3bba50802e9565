"""The device is the reader's choice, or one that computes what the CPU computes."""

import pytest
import torch

from ch05 import device as device_module
from ch05.device import (
    agrees_with_cpu,
    available_devices,
    fast_autocast,
    fast_math,
    pick_device,
)


@pytest.fixture
def wrong_mps(monkeypatch):
    """An mps that is there; what it computes the test decides."""
    monkeypatch.delenv("LLMS_DEVICE", raising=False)
    monkeypatch.setattr(device_module, "available_devices", lambda: ["mps", "cpu"])


def test_the_cpu_is_always_there_and_last():
    assert available_devices()[-1] == "cpu"


def test_each_device_here_agrees_with_the_cpu(device):
    assert agrees_with_cpu(device)


def test_the_self_test_sees_a_head_that_is_one_percent_off(monkeypatch):
    def to_a_faulty_device(model, _):
        with torch.no_grad():
            model.out_head.weight *= 1.01
        return model

    monkeypatch.setattr(device_module.GPTModel, "to", to_a_faulty_device)
    assert not agrees_with_cpu("cpu")


def test_the_self_test_leaves_the_random_state_alone():
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    agrees_with_cpu("cpu")
    assert torch.equal(torch.rand(1), expected)


def test_the_reader_chooses(monkeypatch):
    monkeypatch.setenv("LLMS_DEVICE", "cpu")
    assert pick_device() == torch.device("cpu")


def test_a_device_that_is_not_here_is_named(monkeypatch):
    monkeypatch.setenv("LLMS_DEVICE", "abacus")
    with pytest.raises(ValueError, match="'abacus', but this machine has .*'cpu'"):
        pick_device()


def test_a_device_that_agrees_is_taken(wrong_mps, monkeypatch):
    monkeypatch.setattr(device_module, "agrees_with_cpu", lambda name: True)
    assert pick_device() == torch.device("mps")


def test_a_device_that_disagrees_is_passed_over(wrong_mps, monkeypatch, capsys):
    monkeypatch.setattr(device_module, "agrees_with_cpu", lambda name: False)
    assert pick_device() == torch.device("cpu")
    assert "mps is here but computes other logits" in capsys.readouterr().out


def test_fast_math_stays_near_float32(device):
    generator = torch.Generator().manual_seed(123)
    a, b = torch.randn(2, 64, 256, generator=generator).to(device)
    before = torch.get_float32_matmul_precision()
    expected = a.double().cpu() @ b.double().cpu().T
    try:
        fast_math(device)
        error = (a @ b.T).cpu().double() - expected
    finally:
        torch.set_float32_matmul_precision(before)
    assert error.abs().max() < 0.01 * expected.abs().max()


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({}, torch.float32),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
    ],
    ids=["unknown", "none", "avx512", "amx"],
)
def test_a_cpu_multiplies_in_bfloat16_where_it_can(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    a = torch.ones(2, 2)
    with fast_autocast("cpu"):
        assert (a @ a).dtype == dtype
    assert (a @ a).dtype == torch.float32


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_gpu_is_asked_what_it_can_do_itself(monkeypatch, has_bf16):
    asked = []

    def is_supported(including_emulation):
        asked.append(including_emulation)
        return has_bf16

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    block = fast_autocast("cuda")
    assert asked == [False] and block.device == "cuda"
    if torch.cuda.is_available():
        with block:
            assert torch.is_autocast_enabled("cuda") is has_bf16


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
