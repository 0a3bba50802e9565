"""Layers with small weights compute nearly what those compute that they replace."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from ch05 import small_layers
from ch05.small_layers import (
    FBGEMM_ENGINES,
    HALF_ROWS,
    HalfHead,
    HalfLinear,
    Int8Linear,
    JoinedLinear,
    LinearPart,
    PackedHalfLinear,
    SmallEmbedding,
    half_classes,
    quantize,
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
        (Int8Linear, 0.05),
    ],
)
@pytest.mark.parametrize("shape", [(1, 24), (1, 1, 24), (3, 24), (2, HALF_ROWS, 24)])
@pytest.mark.parametrize("bias", [None, BIAS])
def test_outputs_are_near(layer_class, limit, shape, bias):
    assert error(layer_class(WEIGHT, bias), draw(*shape, seed=7), bias=bias) < limit


@pytest.mark.parametrize("layer_class", [PACKED, HalfLinear, HalfHead, Int8Linear])
def test_weights_can_be_looked_at(layer_class):
    layer = layer_class(WEIGHT, BIAS)
    assert layer.weight.dtype == torch.float32
    torch.testing.assert_close(layer.weight, WEIGHT, atol=0.02, rtol=0)
    assert (layer.in_features, layer.out_features) == (24, 40)


def test_many_rows_are_multiplied_in_parts(monkeypatch):
    monkeypatch.setattr(small_layers, "UNPACKED", 24 * 7)  # 40 = 5 * 7 + 5
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


def test_quantized_rows_have_scales_of_their_own():
    table, scales = quantize(torch.tensor([[127.0, -63.5, 1.0], [0.5, 1.27, -0.01]]))
    assert table.tolist() == [[127, -64, 1], [50, 127, -1]]
    torch.testing.assert_close(scales, torch.tensor([[1.0], [0.01]]))


def test_a_row_of_zeros_stays_zero():
    table, scales = quantize(torch.zeros(2, 3))
    assert not table.any() and scales.isfinite().all()
    assert Int8Linear(WEIGHT, None)(torch.zeros(2, 24)).abs().max() == 0


def test_a_small_row_does_not_suffer_from_a_large_one_beside_it():
    layer, small = Int8Linear(WEIGHT, BIAS), draw(1, 24, seed=7)
    both = layer(torch.cat([small, 1000 * small]))
    torch.testing.assert_close(both[:1], layer(small), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("reached", [127 * 64, 127 * 64 * 0.6])
def test_processors_whose_sums_overflow_are_found(monkeypatch, reached):
    monkeypatch.setattr(
        small_layers, "multiply_int8", lambda *_: torch.tensor([[float(reached)]])
    )
    assert small_layers.int8_overflows.__wrapped__() == (reached < 127 * 64)


def test_an_embedding_in_float16():
    table = draw(10, 4)
    embedding, ids = SmallEmbedding(table.half()), torch.tensor([[3, 9], [0, 3]])
    torch.testing.assert_close(embedding(ids), table[ids], atol=0.002, rtol=0)


def test_an_embedding_in_int8():
    table, ids = draw(10, 4), torch.tensor([[3, 9], [0, 3]])
    torch.testing.assert_close(
        SmallEmbedding(*quantize(table))(ids), table[ids], atol=0.02, rtol=0
    )


@pytest.fixture
def joined():
    """Three layers that share one product, and a list of what that multiplied."""
    inputs, layer = [], HalfLinear(WEIGHT, BIAS)
    usual = layer.forward

    def forward(x):
        inputs.append(x)
        return usual(x)

    layer.forward = forward
    whole = JoinedLinear(layer, [8, 12, 20])
    return [LinearPart(whole, i) for i in range(3)], inputs


def test_joined_layers_multiply_once_for_one_input(joined):
    parts, inputs = joined
    for seed in (7, 8):
        x = draw(2, 24, seed=seed)
        found = torch.cat([part(x) for part in parts], dim=-1)
        torch.testing.assert_close(found, F.linear(x, WEIGHT, BIAS), atol=0.1, rtol=0)
    assert len(inputs) == 2


def test_joined_layers_do_not_take_one_input_for_another(joined):
    parts, inputs = joined
    first, second = draw(1, 24, seed=7), draw(1, 24, seed=8)
    parts[0](first)
    expected = F.linear(second, WEIGHT, BIAS)[:, 8:20]
    torch.testing.assert_close(parts[1](second), expected, atol=0.1, rtol=0)
    assert len(inputs) == 2


def test_joined_layers_let_go_of_what_nobody_will_ask_for(joined):
    parts, _ = joined
    x = draw(1, 24)
    for part in parts:
        part(x)
    assert parts[0].joined.kept == [(None, None)]


def test_joined_layers_have_weights_of_their_own(joined):
    parts, _ = joined
    assert [part.out_features for part in parts] == [8, 12, 20]
    torch.testing.assert_close(parts[1].weight, WEIGHT[8:20].half().float())


def test_small_layers_are_not_trained_or_moved():
    layer = HalfLinear(WEIGHT, BIAS)
    assert layer.eval() is layer
    layer.float().to("cpu")
    with pytest.raises(ValueError, match="cannot be trained"):
        layer.train()
    for move in (layer.half, lambda: layer.to("meta"), layer.double):
        with pytest.raises(ValueError, match="stays on the CPU and keeps its dtypes"):
            move()
