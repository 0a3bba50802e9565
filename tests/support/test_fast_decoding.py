"""A linear layer on few tokens gives the same by another way, only where it may."""

from contextlib import contextmanager
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from ch04.gpt import GPTModel
from ch05.decoding import generate
from support.device import fast_decoding
from support.device.fast_decoding import (
    FEW_ROWS,
    FastDecoding,
    split_linear,
)
from support.device.precision import matmul_precision
from tests.conftest import TINY

needs_mkl = pytest.mark.skipif(
    not torch.backends.mkl.is_available(), reason="needs a PyTorch built with MKL"
)


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


@needs_mkl
def test_only_few_rows_are_split(bmm_shapes):
    layer = torch.nn.Linear(6, 4)
    with FastDecoding(), torch.no_grad():
        layer(torch.ones(FEW_ROWS + 1, 6))
        assert bmm_shapes == []
        layer(torch.ones(FEW_ROWS, 1, 6))
    assert bmm_shapes == [(torch.get_num_threads(), 4 // torch.get_num_threads(), 6)]


@needs_mkl
@pytest.mark.parametrize("num_rows", [1, FEW_ROWS])
def test_a_model_gives_the_same_logits(model, bmm_shapes, num_rows):
    token_ids = torch.arange(num_rows)[:, None]
    expected = model(token_ids)
    with FastDecoding():
        torch.testing.assert_close(model(token_ids), expected)
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert len(bmm_shapes) == len(layers)


def test_a_text_is_the_same(model):
    prompts, settings = [[7, 30, 2], [5]], (12, 12)
    with FastDecoding():
        found = generate(model, prompts, *settings)
    assert found == generate(model, prompts, *settings)


@pytest.mark.parametrize(
    ("num_rows", "dtype", "precision"),
    [
        (FEW_ROWS + 1, torch.float32, "highest"),
        (2, torch.float32, "medium"),
        (1, torch.bfloat16, "highest"),
        (1, torch.float64, "highest"),
    ],
)
def test_elsewhere_no_product_is_split(
    model, bmm_shapes, usual_precision, num_rows, dtype, precision
):
    torch.set_float32_matmul_precision(precision)
    model.to(dtype)
    with FastDecoding():
        model(torch.arange(num_rows)[:, None])
        assert torch.get_float32_matmul_precision() == precision
    assert bmm_shapes == []


@needs_mkl
def test_a_single_row_is_exact_at_medium_precision(
    model, bmm_shapes, monkeypatch, usual_precision
):
    bmm, found = torch.bmm, []

    def note(a, b):
        found.append(torch.get_float32_matmul_precision())
        return bmm(a, b)

    monkeypatch.setattr(torch, "bmm", note)
    torch.set_float32_matmul_precision("medium")
    with FastDecoding():
        model(torch.tensor([[7]]))
    assert bmm_shapes and set(found) == {"highest"}
    assert torch.get_float32_matmul_precision() == "medium"


def test_autocast_keeps_its_own_products(model, bmm_shapes):
    with torch.autocast("cpu", torch.bfloat16), FastDecoding():
        model(torch.tensor([[7]]))
    assert bmm_shapes == []


def test_attention_is_at_full_precision(model, monkeypatch, usual_precision):
    """A mode meets only PyTorch's own function: what that is called with is noted."""
    found, matmul_precision_of = [], fast_decoding.matmul_precision

    @contextmanager
    def note(precision):
        with matmul_precision_of(precision):
            found.append(torch.get_float32_matmul_precision())
            yield

    monkeypatch.setattr(fast_decoding, "matmul_precision", note)
    torch.set_float32_matmul_precision("medium")
    queries = torch.ones(1, 1, 1, 4)
    with FastDecoding():
        F.scaled_dot_product_attention(queries, queries, queries)
    assert found == ["highest"]
    assert torch.get_float32_matmul_precision() == "medium"


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
