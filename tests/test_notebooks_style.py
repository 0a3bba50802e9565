"""Every notebook keeps the course's template: one opening, short cells, one ending."""

import ast
import copy
import re

import pytest

from tests.notebooks import (
    MACHINE_PATH,
    all_notebooks,
    chapter_notebooks,
    clean,
    code_cells,
    label,
    outputs,
    python_source,
    read,
    texts,
)

# section notebooks that have nothing to look at, only to read
IMAGELESS = ()
ENDING = ["## What you built", "## Exercises", "## Next"]
REMOTE_IMAGE = re.compile(r"!\[[^\]]*\]\(\s*(https?:)?//|<img[^>]*src=.?(https?:)?//")

sections = pytest.mark.parametrize("path", chapter_notebooks(), ids=label)
every = pytest.mark.parametrize("path", all_notebooks(), ids=label)


def prose(notebook):
    """The sources of the markdown cells."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def limit(source):
    """A cell may be 15 lines long; one that holds a single definition, 50."""
    body = ast.parse(source).body
    alone = len(body) == 1 and isinstance(body[0], (ast.ClassDef, ast.FunctionDef))
    return 50 if alone else 15


@sections
def test_opening_says_what_is_built_needed_and_spent(path):
    notebook = read(path)
    opening = notebook.cells[0].source
    assert [text for text in prose(notebook) if text.startswith("# ")] == [opening]
    for start in ("*You build*", "*You need*", "*Runs in*"):
        assert f"\n{start}" in opening, f"no line of the opening begins {start}"


@every
def test_first_code_cell_is_the_imports(path):
    source = python_source(code_cells(read(path))[0])
    imports = (ast.Import, ast.ImportFrom)
    assert all(isinstance(node, imports) for node in ast.parse(source).body), source
    assert re.search(r"^(from|import) previous_chapters\b", source, re.MULTILINE)
    assert len(source.splitlines()) <= 12


@every
def test_code_cells_are_short(path):
    for cell in code_cells(read(path)):
        lines = cell.source.splitlines()
        assert len(lines) <= limit(python_source(cell)), cell.source
        assert all(len(line) <= 88 for line in lines), cell.source
        assert "!pip" not in cell.source and "%cd" not in cell.source


@sections
def test_prose_and_code_are_balanced(path):
    notebook = read(path)
    assert len(notebook.cells) <= 40
    assert 0.45 <= len(prose(notebook)) / len(notebook.cells) <= 0.65


@sections
def test_ending(path):
    lines = "\n".join(prose(read(path))).splitlines()
    assert [line.rstrip() for line in lines if line.startswith("## ")][-3:] == ENDING


@sections
def test_exercises_are_checked(path):
    code = "\n".join(cell.source for cell in code_cells(read(path)))
    assert 2 <= len(re.findall(r'\bcheck\("[^"]+", ', code)) <= 4


@sections
def test_something_to_look_at(path):
    kinds = [kind for output in outputs(read(path)) for kind in output.get("data", ())]
    assert "image/" in " ".join(kinds) or label(path) in IMAGELESS


@every
def test_saved_by_one_clean_run(path):
    notebook = read(path)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert not [out for out in outputs(notebook) if out.output_type == "error"]
    assert clean(copy.deepcopy(notebook)) == notebook, "`make notebooks` tidies it"
    assert path.stat().st_size <= 300_000


@every
def test_no_machine_path_and_no_remote_image(path):
    for text in texts(read(path)):
        assert not MACHINE_PATH.search(text), text
        assert not REMOTE_IMAGE.search(text), text
