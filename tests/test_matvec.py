"""A linear layer on one token gives the same by another way, and only where it may."""

import pytest
import torch
import torch.nn.functional as F

from ch04.gpt import GPTModel
from ch05.matvec import SplitLinear, fast_matvec, split_linear
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
@pytest.mark.parametrize("out_features", [1, 2, 7, 12])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("shape", [(5,), (1, 5), (1, 1, 5)])
def test_split_linear_is_linear(threads, num_threads, out_features, has_bias, shape):
    threads(num_threads)
    generator = torch.Generator().manual_seed(123)
    draw = {"generator": generator, "dtype": torch.float64}
    x, weight = torch.randn(shape, **draw), torch.randn(out_features, 5, **draw)
    bias = torch.randn(out_features, **draw) if has_bias else None
    expected = F.linear(x, weight, bias)
    torch.testing.assert_close(split_linear(x, weight, bias), expected)


def test_within_the_mode_only_single_vectors_are_split(bmm_shapes):
    layer = torch.nn.Linear(6, 4)
    with SplitLinear(), torch.no_grad():
        layer(torch.ones(2, 6))
        assert bmm_shapes == []
        layer(torch.ones(1, 1, 6))
    assert bmm_shapes == [(torch.get_num_threads(), 4 // torch.get_num_threads(), 6)]


@needs_mkl
def test_a_model_gives_the_same_logits(model):
    token_id = torch.tensor([[7]])
    expected = model(token_id)
    with fast_matvec(model, num_rows=1):
        torch.testing.assert_close(model(token_id), expected)


@needs_mkl
def test_every_linear_layer_of_a_model_is_split(model, bmm_shapes):
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    with fast_matvec(model, num_rows=1):
        model(torch.tensor([[7]]))
    assert len(bmm_shapes) == len(layers)


@pytest.mark.parametrize(
    ("num_rows", "dtype"),
    [(2, torch.float32), (1, torch.bfloat16), (1, torch.float64)],
)
def test_elsewhere_nothing_changes(model, bmm_shapes, num_rows, dtype):
    with fast_matvec(model.to(dtype), num_rows):
        model(torch.tensor([[7]]))
    assert bmm_shapes == []


def test_autocast_keeps_its_own_products(model, bmm_shapes):
    with torch.autocast("cpu", torch.bfloat16), fast_matvec(model, num_rows=1):
        model(torch.tensor([[7]]))
    assert bmm_shapes == []


@pytest.mark.parametrize("ends_badly", [False, True])
def test_products_are_as_precise_as_before_afterwards(model, ends_badly):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with fast_matvec(model, num_rows=1):
            assert torch.get_float32_matmul_precision() == "highest"
            if ends_badly:
                raise KeyError
    except KeyError:
        assert ends_badly
    finally:
        after = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(before)
    assert after == "medium"


@pytest.mark.parametrize(("num_rows", "expected"), [(1, "highest"), (2, "medium")])
def test_models_in_other_dtypes_are_as_fast(model, usual_precision, num_rows, expected):
    torch.set_float32_matmul_precision("medium")
    with fast_matvec(model.bfloat16(), num_rows):
        assert torch.get_float32_matmul_precision() == expected
