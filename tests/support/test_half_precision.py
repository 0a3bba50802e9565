"""A copy in half precision writes nearly what its model writes."""

import pytest
import torch
import torch.nn.functional as F

from ch05.decoding import generate
from ch07.lora import replace_linear_with_lora
from support.device import choice, half_precision
from support.device.half_precision import (
    HalfOutputLayer,
    faster_half_dtype,
    half_precision_copy,
    logit_error,
)
from support.weights.saving import size_in_bytes
from tests.conftest import TINY
from tests.support.test_memory import ARCHITECTURES

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = [5, 17, 2, 99, 0, 41, 41, 8]
MOST_ERROR = {torch.float16: 0.02, torch.bfloat16: 0.1}
HALF = pytest.mark.parametrize("dtype", MOST_ERROR)


@pytest.fixture(params=ARCHITECTURES)
def model(request):
    """A seeded tiny model, in float32 on the CPU."""
    build, cfg = ARCHITECTURES[request.param]
    torch.manual_seed(123)
    return build(cfg).eval()


@HALF
def test_logits_are_near(model, dtype):
    halved = half_precision_copy(model, dtype)
    assert 0 < logit_error(model, halved, IDS) < MOST_ERROR[dtype]


@HALF
def test_whole_texts_and_single_tokens_give_nearly_the_same(model, dtype):
    halved, ids = half_precision_copy(model, dtype), torch.tensor([IDS])
    expected = model(ids)[0, -1]
    logits = halved(ids)[0, -1]
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().max() < MOST_ERROR[dtype] * expected.std()
    settings = (4, TINY["context_length"])
    cached = generate(halved, ids, *settings)
    assert torch.equal(cached, generate(halved, ids, *settings, use_cache=False))


@HALF
def test_it_writes_the_same_text(model, dtype):
    ids, settings = torch.tensor([IDS[:4]]), (8, TINY["context_length"])
    expected = generate(model, ids, *settings)
    assert torch.equal(
        generate(half_precision_copy(model, dtype), ids, *settings), expected
    )


@HALF
def test_it_writes_several_texts_and_samples(model, dtype):
    halved, prompts = half_precision_copy(model, dtype), [IDS, IDS[:3]]
    settings = {"temperature": 0.8, "top_k": 9, "repetition_penalty": 1.2}
    rows = generate(halved, prompts, 4, TINY["context_length"], **settings)
    assert [len(row) for row in rows] == [12, 7]


@HALF
def test_weights_are_half_as_large(model, dtype):
    halved = half_precision_copy(model, dtype)
    sizes = [size_in_bytes(m.trf_blocks.parameters()) for m in (halved, model)]
    assert sizes[0] < 0.6 * sizes[1]
    for name, parameter in halved.trf_blocks.named_parameters():
        is_norm = "norm" in name
        assert parameter.dtype == (torch.float32 if is_norm else dtype)


def test_the_model_stays_as_it_was(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits = model(torch.tensor([IDS]))
    halved = half_precision_copy(model.train())
    assert model.training and not halved.training
    with torch.no_grad():
        for parameter in halved.parameters():
            parameter.zero_()
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert torch.equal(model.eval()(torch.tensor([IDS])), logits)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in halved.parameters())


@HALF
def test_a_tied_model_is_copied_too(model, dtype):
    model.out_head.weight = model.tok_emb.weight
    halved = half_precision_copy(model, dtype)
    assert logit_error(model, halved, IDS) < MOST_ERROR[dtype]
    torch.testing.assert_close(
        halved.tok_emb(torch.arange(101)), model.tok_emb.weight, atol=0.02, rtol=0
    )


@HALF
def test_a_model_with_lora(model, dtype):
    torch.manual_seed(123)
    replace_linear_with_lora(model, rank=2, alpha=4)
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            torch.nn.init.normal_(parameter, std=0.1)
    halved = half_precision_copy(model, dtype)
    assert logit_error(model, halved, IDS) < MOST_ERROR[dtype]


@HALF
@torch.no_grad()
def test_an_output_layer_is_exact_where_all_logits_are_large(dtype):
    """GPT-2's logits share a large part, which says nothing about the next token."""
    generator = torch.Generator().manual_seed(123)
    linear = torch.nn.Linear(24, 40, bias=False)
    linear.weight.copy_(torch.randn(40, 24, generator=generator) + 30)
    x = torch.randn(1, 3, 24, generator=generator).abs()  # logits are in the hundreds
    expected = linear(x)
    off = (HalfOutputLayer(linear, dtype)(x) - expected).abs().max()
    plain = F.linear(x.to(dtype), linear.weight.to(dtype)).float()
    assert off < 0.2 * (plain - expected).abs().max()
    assert off < MOST_ERROR[dtype] * expected.std(dim=-1).min()


@pytest.mark.parametrize(
    ("seconds", "dtype"),
    [
        ({torch.float16: 12, torch.bfloat16: 10}, torch.bfloat16),
        ({torch.float16: 11, torch.bfloat16: 10}, torch.float16),
        ({torch.float16: 10, torch.bfloat16: 25}, torch.float16),
    ],
)
def test_the_faster_dtype_is_used_and_measured_once(
    monkeypatch, tmp_path, seconds, dtype
):
    measured = []

    def time_in_turn(ways):
        measured.append(list(ways))
        return {str(dtype): taken for dtype, taken in seconds.items()}

    monkeypatch.delenv("LLMS_PLAIN")
    monkeypatch.setattr(choice, "CHOICES", tmp_path / "choices.json")
    monkeypatch.setattr(choice, "time_in_turn", time_in_turn)
    faster_half_dtype.cache_clear()
    try:
        for _ in range(2):
            assert faster_half_dtype() == dtype
        assert measured == [["torch.float16", "torch.bfloat16"]]
        build, cfg = ARCHITECTURES["GPT"]
        copy = half_precision_copy(build(cfg))
        assert copy.tok_emb.weight.dtype == dtype
    finally:
        faster_half_dtype.cache_clear()


def test_error_by_hand(monkeypatch):
    """Logits 0, 2, 4 have a deviation of 2; one of them is off by 0.5."""

    class Next:
        def __init__(self, logits, batch_size, capacity):
            assert (batch_size, capacity) == (1, 3)
            self.logits = logits

        def __call__(self, rows):
            return self.logits[len(rows[0])]

    monkeypatch.setattr(half_precision, "CachedLogits", Next)
    right = {n: torch.tensor([[0.0, 2.0, 4.0]]) for n in (1, 2, 3)}
    found = right | {2: torch.tensor([[0.1, 2.0, 3.5]])}
    assert logit_error(right, found, [7, 7, 7]) == pytest.approx(0.25)


def test_a_copy_is_not_copied_again(model):
    with pytest.raises(
        ValueError, match="a half-precision copy, the model that it was"
    ):
        half_precision_copy(half_precision_copy(model))


def test_other_dtypes_are_refused(model):
    with pytest.raises(ValueError, match=r"torch.bfloat16 on cpu; .*model.float\(\)"):
        half_precision_copy(model.bfloat16())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 70_000.0])
def test_weights_that_float16_cannot_represent_are_refused(model, value):
    with torch.no_grad():
        model.out_head.weight[3, 3] = value
    with pytest.raises(ValueError, match="not finite numbers in torch.float16: try"):
        half_precision_copy(model, torch.float16)
