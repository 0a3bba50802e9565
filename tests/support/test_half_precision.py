"""A copy in half precision writes nearly what its model writes."""

import pytest
import torch

from ch05.decoding import generate
from ch07.lora import replace_linear_with_lora
from support.device import half_precision
from support.device.half_precision import (
    HalfHead,
    HalfLinear,
    half_precision_copy,
    logit_error,
)
from tests.conftest import TINY
from tests.support.test_memory import ARCHITECTURES

IDS = [5, 17, 2, 99, 0, 41, 41, 8]


@pytest.fixture(params=ARCHITECTURES)
def model(request):
    """A seeded tiny model, in float32 on the CPU."""
    build, cfg = ARCHITECTURES[request.param]
    torch.manual_seed(123)
    return build(cfg).eval()


@pytest.fixture
def without_fbgemm(monkeypatch):
    """A PyTorch that lacks this library, as on ARM."""
    monkeypatch.setattr(half_precision, "half_classes", lambda: (HalfLinear, HalfHead))


@pytest.fixture(params=[True, False], ids=["as it is", "no FBGEMM"])
def either_library(request):
    """A PyTorch as it is here, and one without FBGEMM."""
    if not request.param:
        request.getfixturevalue("without_fbgemm")


@pytest.mark.usefixtures("either_library")
def test_logits_are_near(model):
    assert 0 < logit_error(model, half_precision_copy(model), IDS) < 0.02


@pytest.mark.usefixtures("either_library")
def test_whole_texts_and_single_tokens_give_the_same(model):
    halved = half_precision_copy(model)
    ids, settings = torch.tensor([IDS, IDS[::-1]]), (4, TINY["context_length"])
    cached = generate(halved, ids, *settings)
    assert torch.equal(cached, generate(halved, ids, *settings, use_cache=False))


@pytest.mark.usefixtures("either_library")
def test_float16_writes_the_same_text(model):
    ids, settings = torch.tensor([IDS[:4]]), (8, TINY["context_length"])
    halved = half_precision_copy(model)
    expected = generate(model, ids, *settings)
    assert torch.equal(generate(halved, ids, *settings), expected)


def size_in_bytes(model):
    """What a model's tensors take, those that are shared counted once."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({t.data_ptr(): t.nbytes for t in tensors}.values())


@pytest.mark.usefixtures("without_fbgemm")
def test_weights_are_half_as_large(model):
    halved = half_precision_copy(model)
    assert size_in_bytes(halved) < 0.65 * size_in_bytes(model)


def test_the_model_stays_as_it_was(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits = model(torch.tensor([IDS]))
    halved = half_precision_copy(model.train())
    assert model.training and not halved.training
    with torch.no_grad():
        for tensor in [*halved.parameters(), *halved.buffers()]:
            tensor.zero_()
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert torch.equal(model.eval()(torch.tensor([IDS])), logits)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.usefixtures("without_fbgemm")
def test_a_tied_embedding_is_held_once(model):
    model.out_head.weight = model.tok_emb.weight
    halved = half_precision_copy(model)
    assert halved.tok_emb.weight.data_ptr() == halved.out_head.table.data_ptr()
    assert logit_error(model, halved, IDS) < 0.02


def test_a_tied_model_is_copied_too(model):
    model.out_head.weight = model.tok_emb.weight
    halved = half_precision_copy(model)
    torch.testing.assert_close(
        halved.tok_emb(torch.arange(101)), model.tok_emb.weight, atol=0.02, rtol=0
    )


def test_a_model_with_lora(model):
    torch.manual_seed(123)
    replace_linear_with_lora(model, rank=2, alpha=4)
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            torch.nn.init.normal_(parameter, std=0.1)
    assert logit_error(model, half_precision_copy(model), IDS) < 0.02


def test_error_by_hand(monkeypatch):
    """Logits 0, 2, 4 have a deviation of 2; one of them is off by 0.5."""

    class Next:
        def __init__(self, logits, batch_size, capacity):
            assert (batch_size, capacity) == (1, 3)
            self.logits = logits

        def __call__(self, rows):
            return self.logits[len(rows[0])]

    monkeypatch.setattr("support.device.half_precision.CachedLogits", Next)
    right = {n: torch.tensor([[0.0, 2.0, 4.0]]) for n in (1, 2, 3)}
    found = right | {2: torch.tensor([[0.1, 2.0, 3.5]])}
    assert logit_error(right, found, [7, 7, 7]) == pytest.approx(0.25)


def test_a_copy_is_not_copied_again(model):
    with pytest.raises(ValueError, match="half precision already"):
        half_precision_copy(half_precision_copy(model))


def test_other_dtypes_are_refused(model):
    with pytest.raises(ValueError, match=r"torch.bfloat16 on cpu; .*model.float\(\)"):
        half_precision_copy(model.bfloat16())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 70_000.0])
def test_weights_that_float16_cannot_hold_are_refused(model, value):
    with torch.no_grad():
        model.out_head.weight[3, 3] = value
    with pytest.raises(ValueError, match="float16 ends at 65504"):
        half_precision_copy(model)


def test_a_copy_is_not_trained_or_moved(model):
    halved = half_precision_copy(model)
    with pytest.raises(ValueError, match="cannot be trained"):
        halved.train()
    with pytest.raises(ValueError, match="stays on the CPU"):
        halved.to("meta")
