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
CAUSAL_MASK = '''def causal_mask(scores):
    """Set the scores of later tokens to -inf: scores is (num_tokens, num_tokens)."""
    return scores + torch.full_like(scores, -torch.inf).triu(1)


check("3.5.a", causal_mask)
'''
NEXT_TOKEN = '''def next_token(logits):
    """The id with the largest logit in the last row of each text: (b, 1)."""
    return logits[:, -1].topk(1).indices


check("4.7.a", next_token)
'''
# notebook, number of a stub in it, the cell with an answer, and words of the answer
STUBS = [
    ("ch02/2.0_tensors_and_gradients.ipynb", "2.0.a", CENTER_ROWS, "x.mean(dim=1)"),
    ("ch03/3.5_causal_attention.ipynb", "3.5.a", CAUSAL_MASK, "torch.full_like("),
    ("ch04/4.7_generating_text.ipynb", "4.7.a", NEXT_TOKEN, "topk(1).indices"),
]


@pytest.fixture(scope="module")
def reader(course, tmp_path_factory):
    """A person who reads a copy of the course."""
    from tests.browser.lab import reader

    with reader(course, tmp_path_factory.mktemp("home")) as person:
        yield person


@pytest.mark.parametrize("path, number, answer, words", STUBS)
def test_a_stub_is_solved_by_typing_and_saved(
    path, number, answer, words, reader, course
):
    check = answer.splitlines()[-1]
    notebook = reader.open(path)
    notebook.run_all()
    cell = notebook.cell(check)
    notebook.expect_output(cell, f"{number}: not attempted")
    notebook.write(cell, answer)
    notebook.expect_output(cell, f"{number}: right")
    notebook.save()
    again = reader.open(path)
    cell = again.cell(check)
    again.expect_output(cell, f"{number}: right")
    saved = nbformat.read(course / path, as_version=4)
    assert any(words in cell.source for cell in saved.cells)
    assert reader.errors == []


# notebook, words of the explorer's cell, a control, what is typed into it, and whether
# the explorer draws a picture
EXPLORERS = [
    ("ch02/2.5_byte_pair_encoding.ipynb", "def explore(text", "merges", 3, False),
    ("ch02/2.6_sliding_window.ipynb", "def explore(max_length", "stride", 7, False),
    ("ch02/2.8_word_positions.ipynb", "def explore(position", "position", 5, True),
    ("ch03/3.3_simple_self_attention.ipynb", "def explore(query", "factor", 9, False),
    ("ch03/3.6_multi_head_attention.ipynb", "def explore(sentence", "layer", 18, True),
    ("ch04/4.2_layer_normalization.ipynb", "def explore(num_layers", "layers", 5, True),
    ("ch04/4.7_generating_text.ipynb", "def explore(prompt", "choices", 2, False),
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
