"""A device that computes wrongly is caught, and the fault is named in a sentence."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from support.device import self_test
from support.device.self_test import (
    compare_early_logits,
    find_faults,
)

pytestmark = pytest.mark.usefixtures("one_thread")
STAND_IN = "cpu:0"  # another name for the CPU: what is moved there may be made wrong
BF16, F32 = torch.bfloat16, torch.float32


class Faults(TorchFunctionMode):
    """Within it, some functions of PyTorch are replaced: a dict from old to new."""

    def __init__(self, faults):
        super().__init__()
        self.faults = faults

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self.faults.get(func, func)(*args, **(kwargs or {}))


@pytest.fixture
def plant(monkeypatch):
    """A function that makes every model that moves to the stand-in compute wrongly."""
    usual = self_test.GPTModel.to

    def plant_faults(faults):
        def to(model, device):
            forward = model.forward

            def faulty(ids):
                with Faults(faults):
                    return forward(ids)

            if str(device) == STAND_IN:
                model.forward = faulty
            return usual(model, device)

        monkeypatch.setattr(self_test.GPTModel, "to", to)

    return plant_faults


def leak(queries, keys, values, dropout_p=0.0, is_causal=False):
    """Attention that lets every token look at all."""
    return F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout_p)


def leak_without_gradients(queries, keys, values, dropout_p=0.0, is_causal=False):
    """The same, but only when no gradient is asked for."""
    is_causal = torch.is_grad_enabled()
    return F.scaled_dot_product_attention(
        queries, keys, values, dropout_p=dropout_p, is_causal=is_causal
    )


def leak_with_dropout(queries, keys, values, dropout_p=0.0, is_causal=False):
    """The same, but only where dropout is at work."""
    return F.scaled_dot_product_attention(
        queries, keys, values, dropout_p=dropout_p, is_causal=dropout_p == 0
    )


def leak_in_bfloat16(queries, keys, values, dropout_p=0.0, is_causal=False):
    """The same, but only in half precision."""
    return F.scaled_dot_product_attention(
        queries, keys, values, dropout_p=dropout_p, is_causal=queries.dtype == F32
    )


def wrong_from_row_nine_on(x, weight, bias=None):
    """A linear layer whose wide products are zero from the ninth text on."""
    out = F.linear(x, weight, bias)
    if out.shape[-1] > 50_000:
        out[8:] = 0
    return out


def one_percent_off(x, weight, bias=None):
    """A linear layer that is a little too loud."""
    return 1.01 * F.linear(x, weight, bias)


def not_a_number(x, weight, bias=None):
    """A linear layer that overflows."""
    return torch.nan * F.linear(x, weight, bias)


def not_implemented(x, approximate):
    """An operation that the device has not."""
    raise NotImplementedError("aten::gelu is not implemented here\n(a long story)")


class GradientsTooLong(torch.autograd.Function):
    """The identity, with gradients that are twice as long as they are."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def wrong_gradients(x, weight, bias=None):
    """A linear layer whose forward pass is right and whose backward pass is not."""
    return GradientsTooLong.apply(F.linear(x, weight, bias))


def test_each_device_here_is_sound(device):
    assert find_faults(device, F32) == []


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_an_honest_stand_in_is_sound(plant, dtype):
    plant({})
    assert find_faults(STAND_IN, dtype) == []


LEAK = (
    r"in {}.* later tokens change the logits of earlier ones by 0\.\d+; "
    "at most 0.0001 was expected"
)


def leaks(dtype):
    """What the check of causality finds on the stand-in."""
    found = compare_early_logits(torch.device(STAND_IN), dtype)
    return [what for what, off, most in found if not off <= most]


def test_a_leak_is_named_with_the_device(plant):
    plant({F.scaled_dot_product_attention: leak})
    faults = " ".join(find_faults(STAND_IN, F32))
    assert re.match("cpu:0: " + LEAK.format("evaluation"), faults)
    assert re.search("cpu:0: " + LEAK.format("training"), faults)


def test_a_leak_in_evaluation_alone_is_named(plant):
    """Training is right, and its validation loss looks too good."""
    plant({F.scaled_dot_product_attention: leak_without_gradients})
    (fault,) = leaks(F32)
    assert fault.startswith("in evaluation (torch.float32, dropout 0.0) later tokens")


def test_a_leak_with_dropout_alone_is_named(plant):
    plant({F.scaled_dot_product_attention: leak_with_dropout})
    (fault,) = leaks(F32)
    assert fault.startswith("in training (torch.float32, dropout 0.1)")


def test_a_leak_in_half_precision_is_named_where_that_is_used(plant):
    plant({F.scaled_dot_product_attention: leak_in_bfloat16})
    assert leaks(F32) == []
    faults = leaks(BF16)
    assert len(faults) == 3 and all("torch.bfloat16" in fault for fault in faults)


def test_a_head_that_is_wrong_from_batch_nine_on_is_named(plant):
    plant({F.linear: wrong_from_row_nine_on})
    nine, sixteen = find_faults(STAND_IN, F32)
    expected = (
        r"cpu:0: 50,257 logits, batch of {} x 16 tokens: logits differ .* by \d\.\d+"
    )
    assert re.match(expected.format(9), nine)
    assert "at most 0.001 was expected" in nine
    assert re.match(expected.format(16), sixteen)


def test_a_layer_that_is_one_percent_off_is_named(plant):
    plant({F.linear: one_percent_off})
    assert any("tiny GPT, batch of 9 x 16" in f for f in find_faults(STAND_IN, F32))


def test_numbers_that_are_none_are_a_fault(plant):
    plant({F.linear: not_a_number})
    faults = " ".join(find_faults(STAND_IN, F32))
    assert "earlier ones by nan" in faults
    assert "logits differ from the CPU's by nan" in faults
    assert "the losses of 8 training steps differ from the CPU's by nan" in faults


def test_gradients_that_are_too_long_are_named(plant):
    plant({F.linear: wrong_gradients})
    (fault,) = find_faults(STAND_IN, F32)
    said = r"cpu:0: the losses of 8 training steps differ from the CPU's by \d\.\d+; .*"
    assert re.fullmatch(said, fault)


def test_an_operation_that_the_device_has_not_is_a_fault(plant):
    plant({F.gelu: not_implemented})
    faults = set(find_faults(STAND_IN, F32))
    reason = "the self-test ended with an error: aten::gelu is not implemented here"
    assert faults == {f"cpu:0: {reason}"}


def test_the_self_test_leaves_no_trace(usual_precision):
    torch.set_float32_matmul_precision("medium")
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    find_faults("cpu", BF16)
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_float32_matmul_precision() == "medium"


def test_fast_products_are_no_fault(usual_precision):
    """The precision that a reader has set is not the device's fault."""
    torch.set_float32_matmul_precision("medium")
    assert find_faults(STAND_IN, F32) == []
