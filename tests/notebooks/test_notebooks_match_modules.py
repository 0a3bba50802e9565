"""The last showing of a definition in the notebooks is, to the letter, what ships."""

import ast
import difflib
from functools import cache

import nbformat
import pytest

from tests.notebooks.running import (
    ROOT,
    code_cells,
    label,
    python_source,
    read_course,
    sections,
    top_level,
)

MODULES = [  # of lessons: all but the doors, what is run, and old names of commands
    path
    for path in sorted(ROOT.glob("ch[0-9][0-9]/*.py"))
    if path.name not in ("previous_chapters.py", "pretrain.py")
    and not path.read_text(encoding="utf-8").startswith('"""An old name')
]
CONSTANT = "SIZE = 3"
FUNCTION = "@cache\ndef twice(x):\n    return 2 * x  # (b, n)"


def definitions(source):
    """Map each class, function and constant to its text, decorators included."""
    found, lines = {}, source.splitlines()
    for name, node in top_level(source):
        if name.isupper() or isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            decorators = getattr(node, "decorator_list", [])
            first = min(n.lineno for n in [node, *decorators])
            found[name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found


@cache
def showings(chapter):
    """Map each definition in a chapter's notebooks to its last text and notebook."""
    shown = {}
    for path in sections(chapter):
        for cell in code_cells(read_course(path)):
            for name, text in definitions(python_source(cell)).items():
                shown[name] = text, label(path)
    return shown


def complaints(module):
    """Say of each definition of a module how the notebooks differ from it."""
    shown = showings(module.parent)
    for name, text in definitions(module.read_text(encoding="utf-8")).items():
        old, notebook = shown.get(name, (None, None))
        if old is None and not text.startswith(name):  # a constant need not be shown
            yield f"{label(module)}: no notebook of {module.parent.name} shows {name}"
        elif old not in (None, text):
            versions = old.splitlines(), text.splitlines()
            diff = difflib.unified_diff(*versions, notebook, label(module), lineterm="")
            claim = f"{label(module)}: {notebook} shows another {name}"
            yield "\n".join([claim, *diff])


@pytest.mark.parametrize("module", MODULES, ids=label)
def test_module_is_what_the_notebooks_show(module):
    found = list(complaints(module))
    assert not found, "\n\n".join(found)


@pytest.fixture
def toy(tmp_path):
    """A module in a chapter whose notebook shows a draft first, then what ships."""
    sources = FUNCTION.replace("2", "3"), CONSTANT, FUNCTION
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "9.1_toy.ipynb")
    module = tmp_path / "toy.py"
    module.write_text(f"{CONSTANT}\n\n\n{FUNCTION}\n", encoding="utf-8")
    return module


def test_equal_texts_pass(toy):
    assert not list(complaints(toy))


DRIFTS = [("= 3", "= 4", "SIZE"), ("(b,", "(B,", "twice"), ("@c", "@C", "twice")]


@pytest.mark.parametrize(("old", "new", "name"), DRIFTS)
def test_drift_of_one_character_is_found(toy, old, new, name):
    source = toy.read_text(encoding="utf-8")
    toy.write_text(source.replace(old, new), encoding="utf-8")
    (message,) = complaints(toy)
    assert f"9.1_toy.ipynb shows another {name}\n---" in message
