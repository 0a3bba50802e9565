"""A linear layer on few tokens gives the same by another way, only where it may."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from ch04.gpt import GPTModel
from ch05.decoding import generate
from support.device import choice
from support.device import fast_decoding as fast_decoding_module
from support.device.choice import largest_error
from support.device.fast_decoding import (
    FEW_ROWS,
    WAYS,
    SplitLinear,
    decoding_way,
    fast_decoding,
    read_weights,
    split_linear,
)
from support.device.precision import matmul_precision
from tests.conftest import TINY
from tests.low_precision import low_precision


@pytest.fixture
def threads():
    """A function that sets the number of threads, which is put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def model():
    """A tiny GPT in float32."""
    torch.manual_seed(123)
    return GPTModel(TINY).eval().requires_grad_(False)


@pytest.fixture
def bmm_shapes(monkeypatch):
    """A list that collects the shape of each batched product's first factor."""
    shapes, bmm = [], torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: shapes.append(a.shape) or bmm(a, b))
    return shapes


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_split_linear_is_linear(threads, num_threads):
    threads(num_threads)
    generator = torch.Generator().manual_seed(123)
    draw = {"generator": generator, "dtype": torch.float64}
    shapes = [(5,), (1, 5), (1, 1, 5), (3, 1, 5), (2, 2, 5)]
    for out_features, has_bias, shape in product((1, 2, 7, 12), (False, True), shapes):
        x, weight = torch.randn(shape, **draw), torch.randn(out_features, 5, **draw)
        bias = torch.randn(out_features, **draw) if has_bias else None
        found, expected = split_linear(x, weight, bias), F.linear(x, weight, bias)
        said = f"{out_features} outputs, bias {has_bias}, inputs of {shape}:\n"
        torch.testing.assert_close(found, expected, msg=lambda m, s=said: s + m)


def is_exact(way):
    """Whether this machine computes float32 in a way as exactly as PyTorch does."""
    generator = torch.Generator().manual_seed(123)
    layers = [[torch.randn(rows, 64, generator=generator) for rows in (1, 32)]]
    doubled = [[each.double() for each in layers[0]]]
    right = read_weights(doubled, WAYS["plain"])
    return largest_error(read_weights(layers, WAYS[way]), right) < 1e-5


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Each way in turn is the one that is chosen on this machine."""
    if not is_exact(request.param):
        pytest.skip("here it has fewer digits than float32, so it is never chosen")
    monkeypatch.setattr(fast_decoding_module, "fastest", lambda *_: request.param)
    decoding_way.cache_clear()
    yield request.param
    decoding_way.cache_clear()


def test_only_few_rows_are_split(bmm_shapes):
    layer = torch.nn.Linear(6, 4)
    with SplitLinear(), torch.no_grad():
        layer(torch.ones(FEW_ROWS + 1, 6))
        assert bmm_shapes == []
        layer(torch.ones(FEW_ROWS, 1, 6))
    assert bmm_shapes == [(torch.get_num_threads(), 4 // torch.get_num_threads(), 6)]


@pytest.mark.parametrize("num_rows", [1, FEW_ROWS])
def test_a_model_gives_the_same_logits(
    model, way, bmm_shapes, usual_precision, num_rows
):
    token_ids = torch.arange(num_rows)[:, None]
    expected = model(token_ids)
    torch.set_float32_matmul_precision("high")
    with fast_decoding():
        torch.testing.assert_close(model(token_ids), expected)
        precision = torch.get_float32_matmul_precision()
    assert precision == ("medium" if way == "medium" else "highest")
    assert torch.get_float32_matmul_precision() == "high"
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert len(bmm_shapes) == (len(layers) if way == "split" else 0)


def test_a_text_is_the_same(model, way):
    prompts, settings = [[7, 30, 2], [5]], (12, 12)
    with fast_decoding():
        found = generate(model, prompts, *settings)
    assert found == generate(model, prompts, *settings)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_data_types_are_not_split(model, bmm_shapes, dtype):
    model.to(dtype)
    with SplitLinear():
        model(torch.tensor([[7]]))
    assert bmm_shapes == []


def test_autocast_keeps_its_own_products(model, bmm_shapes):
    with torch.autocast("cpu", torch.bfloat16), SplitLinear():
        model(torch.tensor([[7]]))
    assert bmm_shapes == []


def test_other_devices_compute_as_ever(monkeypatch):
    monkeypatch.delattr(fast_decoding_module, "decoding_way")
    before = torch.get_float32_matmul_precision()
    with fast_decoding("cuda"):
        assert torch.get_float32_matmul_precision() == before


def test_a_way_is_chosen_by_what_it_computes_and_takes(monkeypatch, tmp_path):
    """On the processor at hand all ways are tried, on weights that are small here."""
    monkeypatch.delenv("LLMS_PLAIN")
    monkeypatch.setattr(choice, "CHOICES", tmp_path / "choices.json")
    monkeypatch.setattr(fast_decoding_module, "SHAPES", ((7, 16), (16, 7)))
    seconds = {"plain": 3, "split": 1, "medium": 2}

    def time_in_turn(ways):
        for compute in ways.values():
            compute()
        return {name: seconds[name] for name in ways}

    monkeypatch.setattr(choice, "time_in_turn", time_in_turn)
    decoding_way.cache_clear()
    assert decoding_way() == "split"
    with low_precision():
        seconds["medium"] = 0.1
        choice.CHOICES.unlink()
        decoding_way.cache_clear()
        assert decoding_way() == "split"
    decoding_way.cache_clear()


@pytest.mark.parametrize("ends_badly", [False, True])
def test_products_are_as_precise_as_before_afterwards(usual_precision, ends_badly):
    torch.set_float32_matmul_precision("medium")
    try:
        with matmul_precision("highest"):
            assert torch.get_float32_matmul_precision() == "highest"
            if ends_badly:
                raise KeyError
    except KeyError:
        assert ends_badly
    assert torch.get_float32_matmul_precision() == "medium"
