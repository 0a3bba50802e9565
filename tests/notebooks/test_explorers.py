"""Explorers: what `interact` swallows is found, and controls can be named."""

import ast

import nbformat
import pytest

from tests.notebooks.running import chapter_notebooks, code_cells, execute, label, read

# A slider's handle has no name that a screen reader could read.
CONTROLS = {
    "BoundedIntText",
    "BoundedFloatText",
    "Checkbox",
    "Dropdown",
    "RadioButtons",
    "Text",
    "ToggleButtons",
}
EXPLORER = """
from ipywidgets import BoundedIntText, interact

@interact(n=BoundedIntText(value=0, min=0, max=9, description="n"))
def show(n):
    print({})
"""


def explorers():
    """The code cells with an explorer: [(label of the notebook, source), ...]."""
    return [
        (label(path), cell.source)
        for path in chapter_notebooks()
        for cell in code_cells(read(path))
        if "@interact" in cell.source
    ]


@pytest.mark.parametrize("shown, fault", [("n + 1", None), ("1 / n", "division")])
def test_an_error_in_an_explorer_is_an_error_of_its_notebook(shown, fault, tmp_path):
    path = tmp_path / "explorer.ipynb"
    cells = [nbformat.v4.new_code_cell(EXPLORER.format(shown))]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    if fault is None:
        execute(path)
    else:
        with pytest.raises(RuntimeError, match=f"cell 1 of 1, in an explorer: {fault}"):
            execute(path)


def controls(source):
    """The calls that make an explorer's controls: [ast.Call, ...]."""
    decorators = [d for node in ast.parse(source).body for d in node.decorator_list]
    return [keyword.value for call in decorators for keyword in call.keywords]


def test_explorers_have_controls_that_everybody_can_use():
    for where, source in explorers():
        assert controls(source), f"{where}: no control in\n{source}"
        for control in controls(source):
            assert isinstance(control, ast.Call), f"{where}: {ast.unparse(control)}"
            assert control.func.id in CONTROLS, f"{where}: {ast.unparse(control)}"
            names = [keyword.arg for keyword in control.keywords]
            assert "description" in names, f"{where}: {ast.unparse(control)}"


def test_explorers_are_short():
    for where, source in explorers():
        assert 5 <= len(source.splitlines()) <= 15, f"{where}:\n{source}"


def test_an_explorer_that_prints_much_does_not_keep_the_run_waiting(tmp_path):
    path = tmp_path / "explorers.ipynb"
    source = EXPLORER.format("*range(n, 40), sep='\\n', flush=True")
    cells = [nbformat.v4.new_code_cell(source) for _ in range(20)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert len(execute(path).notebook.cells) == 20
