"""The course computes float32 where "medium" precision is bfloat16, as with AMX."""

import re

import nbformat
import pytest
import torch
import torch.nn.functional as F

from tests.low_precision import KERNEL_ARGUMENTS, low_precision
from tests.notebooks import running as notebooks
from tests.notebooks.running import (
    chapter_notebooks,
    code_cells,
    execute,
    label,
    outputs,
    read_course,
)
from tests.notebooks.test_notebooks_run import SMALL

COMPARES = re.compile(r"allclose\(|assert_close\(|torch\.equal\(")
WAYS = {
    "linear": lambda a, b: F.linear(a[0], b[0], b[1, 0]),
    "linear of three axes": lambda a, b: F.linear(a, b[0]),
    "linear of a row": lambda a, b: F.linear(a[0, 0], b[0]),
    "@": lambda a, b: a @ b,
    "matrix and vector": lambda a, b: a[0] @ b[0, 0],
    "bmm": torch.bmm,
    "addmm": lambda a, b: torch.addmm(a[1], a[0], b[0]),
    "addmv": lambda a, b: torch.addmv(a[1, 0], a[0], b[0, 0]),
    "baddbmm": lambda a, b: torch.baddbmm(a, a, b),
    "addbmm": lambda a, b: torch.addbmm(a[0], a, b),
    "einsum": lambda a, b: torch.einsum("bij,bkj->ik", a, b),
    "tensordot": lambda a, b: torch.tensordot(a[0], b[0], 1),
    "multi_dot": lambda a, b: torch.linalg.multi_dot([a[0], b[0], a[0]]),
    "attention": lambda a, b: F.scaled_dot_product_attention(a[None], b[None], b[None]),
}


def compute(way, dtype):
    """A result and the gradients of its factors, three tensors in one."""
    generator = torch.Generator().manual_seed(123)
    factors = torch.randn(2, 5, 40, 40, generator=generator).to(dtype)
    a, b = (factor.requires_grad_() for factor in factors.unbind())
    WAYS[way](a, b).square().sum().backward()
    return [WAYS[way](a, b).detach(), a.grad, b.grad]


def relative_error(way):
    """The error of each result in float32, as a share of its largest number."""
    pairs = zip(compute(way, torch.float32), compute(way, torch.float64))
    return [((a - b).abs().max() / b.abs().max()).item() for a, b in pairs]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_multiply_loses_digits(way, usual_precision):
    with low_precision():
        torch.set_float32_matmul_precision("medium")
        assert all(5e-4 < error < 5e-2 for error in relative_error(way))
        torch.set_float32_matmul_precision("highest")
        assert all(error < 1e-5 for error in relative_error(way))


def test_afterwards_all_is_as_before(usual_precision):
    torch.set_float32_matmul_precision("medium")
    a = torch.randn(64, 64, generator=torch.Generator().manual_seed(123))
    before = a @ a
    with low_precision(torch.zeros_like):
        assert not (a @ a).any()
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.equal(a @ a, before)


@pytest.fixture
def low_kernels(monkeypatch):
    """Notebooks run with low precision."""
    arguments = notebooks.KERNEL_ARGUMENTS + KERNEL_ARGUMENTS
    monkeypatch.setattr(notebooks, "KERNEL_ARGUMENTS", arguments)


PROBE = """import torch
torch.set_float32_matmul_precision("medium")
x = torch.full((1, 20), 1 + 2**-12)
print((x @ x.T).item() == 20, [n for n in dir() if n.startswith("plant")])"""


def test_a_notebook_loses_digits_too(low_kernels, tmp_path):
    path = tmp_path / "probe.ipynb"
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(PROBE)]), path
    )
    (said,) = outputs(execute(path).notebook)
    assert said.text == "True []\n"


def compares_numbers(path):
    """True if a notebook compares numbers after it has called `fast_math`."""
    sources = [cell.source for cell in code_cells(read_course(path))]
    calls = [i for i, source in enumerate(sources) if "fast_math(" in source]
    return any(COMPARES.search(source) for i in calls for source in sources[i:])


COMPARING = [path for path in chapter_notebooks() if compares_numbers(path)]


@pytest.mark.timeout(1800)  # so that a busy machine can train the local model
@pytest.mark.parametrize("path", COMPARING, ids=label)
def test_notebook_runs_with_low_precision(path, low_kernels, run_notebook):
    """`fast_math` leaves float32 alone, or one of the comparisons would fail."""
    run_notebook(path, SMALL.get(label(path)))
