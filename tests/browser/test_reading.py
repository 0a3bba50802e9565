"""A reader's hour in JupyterLab: run all, solve a stub, move an explorer, save."""

import nbformat
import pytest

from tests.browser.lab import find_browser

pytest.importorskip("playwright", reason="needs Playwright: `make test-browser`")
if find_browser() is None:
    pytest.skip("needs a browser, such as Chromium", allow_module_level=True)

CENTER_ROWS = '''def center_rows(x):
    """Subtract the mean of each row: x is (num_rows, num_columns)."""
    return x - x.mean(dim=1)[:, None]


check("2.0.a", center_rows)
'''


@pytest.fixture(scope="module")
def reader(course, tmp_path_factory):
    """A person who reads a copy of the course."""
    from tests.browser.lab import reader

    with reader(course, tmp_path_factory.mktemp("home")) as person:
        yield person


def test_a_stub_is_solved_by_typing_and_saved(reader, course):
    path = "ch02/2.0_tensors_and_gradients.ipynb"
    notebook = reader.open(path)
    notebook.run_all()
    cell = notebook.cell('check("2.0.a", center_rows)')
    notebook.expect_output(cell, "2.0.a: not attempted")
    notebook.write(cell, CENTER_ROWS)
    notebook.expect_output(cell, "2.0.a: right")
    notebook.save()
    again = reader.open(path)
    cell = again.cell('check("2.0.a", center_rows)')
    again.expect_output(cell, "2.0.a: right")
    saved = nbformat.read(course / path, as_version=4)
    assert any("x.mean(dim=1)" in cell.source for cell in saved.cells)
    assert reader.errors == []


# notebook, words of the explorer's cell, a control, what is typed into it, and whether
# the explorer draws a picture
EXPLORERS = [
    ("ch02/2.5_byte_pair_encoding.ipynb", "def explore(text", "merges", 3, False),
    ("ch02/2.6_sliding_window.ipynb", "def explore(max_length", "stride", 7, False),
    ("ch02/2.8_word_positions.ipynb", "def explore(position", "position", 5, True),
    ("ch03/3.3_simple_self_attention.ipynb", "def explore(query", "factor", 9, False),
    ("ch03/3.6_multi_head_attention.ipynb", "def explore(sentence", "layer", 18, True),
]


@pytest.mark.parametrize("path, words, label, value, has_picture", EXPLORERS)
def test_an_explorer_moves(path, words, label, value, has_picture, reader):
    notebook = reader.open(path)
    notebook.run_all()
    cell = notebook.cell(words)
    before = notebook.shown(cell)
    notebook.set_control(cell, label, value)
    text, picture = notebook.wait_for_change(cell, before)
    assert "Error" not in text
    assert (before[1] is not None) == (picture is not None) == has_picture
    assert reader.errors == []
