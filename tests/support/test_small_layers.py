"""Layers with float16 weights compute nearly what those compute that they replace."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from support.device import half_precision
from support.device.half_precision import (
    FBGEMM_ENGINES,
    HALF_ROWS,
    HalfEmbedding,
    HalfHead,
    HalfLinear,
    PackedHalfLinear,
    half_classes,
)

needs_fbgemm = pytest.mark.skipif(
    torch.backends.quantized.engine not in FBGEMM_ENGINES,
    reason="needs FBGEMM, which PyTorch has on x86",
)


def draw(*shape, seed=123):
    """Seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


WEIGHT, BIAS = draw(40, 24), draw(40, seed=5)
PACKED = pytest.param(PackedHalfLinear, marks=needs_fbgemm)


def error(layer, x, weight=WEIGHT, bias=BIAS):
    """The greatest difference from float32's outputs, in their standard deviations."""
    right = F.linear(x, weight, bias)
    found = layer(x)
    assert found.dtype == torch.float32 and found.shape == right.shape
    return ((found - right).abs().max() / right.std()).item()


@pytest.mark.parametrize(
    ("layer_class", "limit"),
    [
        pytest.param(PackedHalfLinear, 0.001, marks=needs_fbgemm),
        (HalfLinear, 0.005),
        (HalfHead, 0.005),
    ],
)
@pytest.mark.parametrize("shape", [(1, 24), (1, 1, 24), (3, 24), (2, HALF_ROWS, 24)])
@pytest.mark.parametrize("bias", [None, BIAS])
def test_outputs_are_near(layer_class, limit, shape, bias):
    assert error(layer_class(WEIGHT, bias), draw(*shape, seed=7), bias=bias) < limit


@pytest.mark.parametrize("layer_class", [PACKED, HalfLinear, HalfHead])
def test_weights_can_be_looked_at(layer_class):
    layer = layer_class(WEIGHT, BIAS)
    assert layer.weight.dtype == torch.float32
    torch.testing.assert_close(layer.weight, WEIGHT, atol=0.02, rtol=0)
    assert (layer.in_features, layer.out_features) == (24, 40)


def test_many_rows_are_multiplied_in_parts(monkeypatch):
    monkeypatch.setattr(half_precision, "UNPACKED", 24 * 7)  # 40 = 5 * 7 + 5
    layer, x = HalfLinear(WEIGHT, BIAS), draw(HALF_ROWS + 1, 24)
    torch.testing.assert_close(layer(x), F.linear(x, WEIGHT.half().float(), BIAS))


@needs_fbgemm
def test_float16_weights_lose_nothing_but_their_last_bits():
    layer, x = PackedHalfLinear(WEIGHT, BIAS), draw(3, 24, seed=7)
    torch.testing.assert_close(layer(x), F.linear(x, WEIGHT.half().float(), BIAS))


@pytest.mark.parametrize(
    ("engine", "classes"),
    [
        ("x86", (PackedHalfLinear, PackedHalfLinear)),
        ("qnnpack", (HalfLinear, HalfHead)),
    ],
)
def test_the_library_decides_how_float16_is_multiplied(monkeypatch, engine, classes):
    monkeypatch.setattr(torch.backends, "quantized", SimpleNamespace(engine=engine))
    assert half_classes() == classes


def test_an_output_layer_is_exact_where_all_logits_are_large():
    """GPT-2's logits share a large part, which says nothing about the next token."""
    weight = WEIGHT + 30  # so that logits are in the hundreds
    x = draw(1, 24, seed=7).abs()
    off = error(HalfHead(weight, None), x, weight, None)
    assert off < 0.5 * error(HalfLinear(weight, None), x, weight, None)


def test_an_embedding_in_float16():
    table = draw(10, 4)
    embedding, ids = HalfEmbedding(table.half()), torch.tensor([[3, 9], [0, 3]])
    torch.testing.assert_close(embedding(ids), table[ids], atol=0.002, rtol=0)


def test_layers_in_half_precision_are_not_trained_or_moved():
    layer = HalfLinear(WEIGHT, BIAS)
    assert layer.eval() is layer
    layer.float().to("cpu")
    with pytest.raises(ValueError, match="cannot be trained"):
        layer.train()
    for move in (layer.half, lambda: layer.to("meta"), layer.double):
        with pytest.raises(ValueError, match="stays on the CPU and keeps its dtypes"):
            move()
