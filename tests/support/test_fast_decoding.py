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
    MOST_ROWS,
    SEVERAL_ROWS,
    WAYS,
    decoding_way,
    fast_decoding,
    few_rows_way,
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
    right = read_weights(doubled, "plain")
    return largest_error(read_weights(layers, way), right) < 1e-5


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Each way in turn is the one that is chosen on this machine."""
    if not is_exact(request.param):
        pytest.skip("here it has fewer digits than float32, so it is never chosen")
    monkeypatch.setattr(fast_decoding_module, "fastest", lambda *_: request.param)
    few_rows_way.cache_clear()
    yield request.param
    few_rows_way.cache_clear()


@pytest.fixture
def precisions(monkeypatch):
    """A list that collects the precision at which each linear layer multiplies."""
    found, linear = [], F.linear

    def note(*args):
        found.append(torch.get_float32_matmul_precision())
        return linear(*args)

    monkeypatch.setitem(WAYS, "plain", note)
    medium = WAYS["medium"]

    def note_medium(*args):
        monkeypatch.setattr(F, "linear", note)
        try:
            return medium(*args)
        finally:
            monkeypatch.setattr(F, "linear", linear)

    monkeypatch.setitem(WAYS, "medium", note_medium)
    return found


@pytest.mark.parametrize("num_rows", [1, 2, SEVERAL_ROWS])
def test_a_model_gives_the_same_logits(
    model, way, bmm_shapes, precisions, usual_precision, num_rows
):
    token_ids = torch.arange(num_rows)[:, None]
    expected = model(token_ids)
    torch.set_float32_matmul_precision("high")
    with fast_decoding():
        torch.testing.assert_close(model(token_ids), expected)
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == "high"
    num_layers = sum(isinstance(m, torch.nn.Linear) for m in model.modules())
    assert len(bmm_shapes) == (num_layers if way == "split" else 0)
    precision = "medium" if way == "medium" else "highest"
    assert precisions == ([] if way == "split" else [precision] * num_layers)


@pytest.mark.parametrize("num_rows", [1, 2, 9])
def test_a_split_layer_is_contiguous(num_rows):
    """Otherwise attention would be computed in a slower way."""
    x, weight = torch.ones(num_rows, 1, 6), torch.ones(5, 6)
    assert split_linear(x, weight).is_contiguous()


@pytest.mark.parametrize("precision, expected", [("highest", "plain"), ("medium",) * 2])
def test_the_way_depends_on_the_number_of_rows(monkeypatch, precision, expected):
    """One text, several texts, and a prompt, which is multiplied as in training."""
    monkeypatch.setattr(fast_decoding_module, "few_rows_way", lambda rows: rows)
    monkeypatch.setattr(
        fast_decoding_module, "float32_precision", lambda device: precision
    )
    assert decoding_way(1) == 1
    assert decoding_way(2) == decoding_way(MOST_ROWS) == SEVERAL_ROWS
    assert decoding_way(MOST_ROWS + 1) == expected


def test_a_text_is_the_same(model, way):
    prompts, settings = [[7, 30, 2], [5]], (12, 12)
    with fast_decoding():
        found = generate(model, prompts, *settings)
    assert found == generate(model, prompts, *settings)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_data_types_are_not_split(model, bmm_shapes, dtype):
    model.to(dtype)
    with fast_decoding(choose=lambda num_rows: "split"):
        model(torch.tensor([[7]]))
    assert bmm_shapes == []


def test_autocast_keeps_its_own_products(model, bmm_shapes):
    is_split = fast_decoding(choose=lambda num_rows: "split")
    with torch.autocast("cpu", torch.bfloat16), is_split:
        model(torch.tensor([[7]]))
    assert bmm_shapes == []


def test_named_arguments_are_pytorchs_own(bmm_shapes):
    x, weight = torch.ones(1, 6), torch.ones(4, 6)
    with fast_decoding(choose=lambda num_rows: "split"):
        assert torch.equal(F.linear(input=x, weight=weight), x @ weight.T)
    assert bmm_shapes == []


def test_other_devices_compute_as_ever():
    before = torch.get_float32_matmul_precision()
    with fast_decoding("cuda"):
        assert torch.get_float32_matmul_precision() == before
        assert torch.overrides._len_torch_function_stack() == 0


@pytest.mark.parametrize("num_rows", [1, SEVERAL_ROWS])
def test_a_way_is_chosen_by_what_it_computes_and_takes(monkeypatch, tmp_path, num_rows):
    """On the processor at hand all ways are tried, on weights that are small here."""
    monkeypatch.delenv("LLMS_PLAIN", raising=False)
    monkeypatch.setattr(choice, "CHOICES", tmp_path / "choices.json")
    monkeypatch.setattr(fast_decoding_module, "SHAPES", ((7, 16), (16, 7)))
    seconds = {"plain": 3, "split": 1, "medium": 2}

    def time_in_turn(ways):
        for compute in ways.values():
            compute()
        return {name: seconds[name] for name in ways}

    monkeypatch.setattr(choice, "time_in_turn", time_in_turn)
    few_rows_way.cache_clear()
    assert decoding_way(num_rows) == "split"
    with low_precision():
        seconds["medium"] = 0.1
        choice.CHOICES.unlink()
        few_rows_way.cache_clear()
        assert decoding_way(num_rows) == "split"
    few_rows_way.cache_clear()


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
