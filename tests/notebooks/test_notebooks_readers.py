"""What a reader does in a notebook is not held against the course; edits of it are."""

import os
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.notebooks import running as notebooks
from tests.notebooks.running import (
    METADATA,
    add_checks,
    all_notebooks,
    copy_course,
    execute,
    expected_verdicts,
    label,
    read,
    read_course,
    reset,
    stub,
    verdicts,
)
from tests.notebooks.test_notebooks_style import has_exercises_without_answers

CHECK = """
def check(number, answer=None, hint=False):
    print(f"{number}: {'right' if answer else 'not attempted'}")
"""
SECTION = [
    new_markdown_cell("# 9.1 Toys"),
    new_code_cell(CHECK),
    new_markdown_cell("## Exercises\n\nTwo."),
    new_code_cell(stub("9.1.1")),
    new_code_cell(stub("9.1.2")),
    new_markdown_cell("## Next\n\nMore toys."),
]
JUPYTERS = METADATA | {"language_info": {"name": "python", "version": "3.12"}}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A course of one section, run and committed."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # within a hook they would name another repository
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    path = tmp_path / "ch09" / "9.1_toys.ipynb"
    path.parent.mkdir()
    write(path, SECTION)
    git(tmp_path, "init", "--quiet")
    commit(path)
    return path


def git(folder, *arguments):
    """Run git in a folder."""
    author = ["-c", "user.name=Reader", "-c", "user.email=reader@example.com"]
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True)


def commit(path):
    """Commit a notebook as it is."""
    git(path.parent, "add", path.name)
    git(path.parent, "commit", "--quiet", "--message", "Toys")


def write(path, cells, metadata=METADATA):
    """Write a notebook of cells."""
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)


def with_source(index, source):
    """The section's cells, of which one has another source."""
    cells = [dict(cell) for cell in SECTION]
    cells[index]["source"] = source
    return [nbformat.from_dict(cell) for cell in cells]


def sources(notebook):
    """The sources of the cells."""
    return [cell.source for cell in notebook.cells]


COURSE = sources(new_notebook(cells=SECTION))
FILLED = with_source(3, 'answer = [\ncheck("9.1.1", answer)')  # half-written
USED = {
    "an answer": (FILLED, METADATA),
    "an answer, saved in Jupyter": (FILLED, JUPYTERS),
    "a try in a cell of its own": (
        [*SECTION[:4], new_code_cell("1 / 0"), *SECTION[4:]],
        JUPYTERS,
    ),
    "a cell deleted": (SECTION[:3] + SECTION[4:], JUPYTERS),
    "run in Jupyter, which appends a cell": ([*SECTION, new_code_cell("")], JUPYTERS),
}
EDITED = {
    "the lesson's code": with_source(1, CHECK + "\n1 / 0"),
    "the lesson's text": with_source(0, "# 9.1 Games"),
    "an exercise's text": with_source(2, "## Exercises\n\nThree."),
    "the end": with_source(5, "## Next\n\nGames."),
    "a new cell": [*SECTION[:2], new_code_cell("1 / 0"), *SECTION[2:]],
    "a cell gone": SECTION[1:],
}


@pytest.mark.parametrize("used", USED)
def test_of_a_readers_copy_the_last_commit_is_read(path, used):
    write(path, *USED[used])
    assert sources(read_course(path)) == COURSE
    assert read_course(path).metadata == METADATA


@pytest.mark.parametrize("metadata", [METADATA, JUPYTERS], ids=["ours", "Jupyter's"])
@pytest.mark.parametrize("edited", EDITED)
def test_an_edited_lesson_is_read_as_it_stands(path, edited, metadata):
    write(path, EDITED[edited], metadata)
    assert read_course(path) == read(path)


def test_outputs_that_nobody_saved_in_jupyter_are_read_as_they_stand(path):
    cells = with_source(1, CHECK)
    cells[1].outputs = [nbformat.v4.new_output("stream", text="9.1.1: right\n")]
    write(path, cells)
    assert read_course(path) == read(path)


def test_a_committed_answer_is_read_and_found(path):
    write(path, FILLED)
    commit(path)
    found = [*has_exercises_without_answers(path, read_course(path))]
    assert len(found) == 2 and "answer = [" in "".join(found)
    write(path, SECTION)
    commit(path)
    assert not [*has_exercises_without_answers(path, read_course(path))]


@pytest.mark.parametrize("has_git", [True, False])
def test_what_no_commit_has_is_read_without_its_answers(path, monkeypatch, has_git):
    """A new notebook, and each one of a copy that came without git."""
    if not has_git:
        monkeypatch.setenv("PATH", "")
    new = path.with_name("9.2_more.ipynb")
    write(new, FILLED, JUPYTERS)
    assert sources(read_course(new)) == COURSE


def test_a_copy_of_the_course_runs_without_the_answers(path, tmp_path):
    """Nor does it have what else a reader may leave beside them."""
    write(path, FILLED, JUPYTERS)
    (path.parent / "toys.py").write_text("")
    (path.parent / "checkpoints").mkdir()
    path.with_name("9.1_toys-Copy1.ipynb").write_text("not a notebook any more")
    copy = tmp_path / "copy"
    copy_course(copy)
    assert all_notebooks() == [path]
    assert (copy / "ch09" / "toys.py").is_file()
    assert not (copy / "ch09" / "checkpoints").exists()
    found = execute(copy / label(path)).notebook
    assert verdicts(found) == [(n, "not attempted") for n in ("9.1.1", "9.1.2")]
    assert verdicts(found) == expected_verdicts(path, found)


def test_a_stub_stands_once_for_all_cells_that_check_its_exercise():
    cells = [new_code_cell("check( '9.1.1', 3)\ncheck('9.1.1', 4, hint=True)")]
    cells += [new_code_cell(stub("9.1.2") + "\n" + stub("9.1.1"))]
    notebook = new_notebook(cells=[*SECTION[:3], *cells, SECTION[-1]])
    assert sources(reset(notebook)) == COURSE


def test_solutions_keep_their_answers():
    cells = [new_code_cell(CHECK), new_code_cell('answer = 3\ncheck("9.1.1", answer)')]
    notebook = new_notebook(cells=cells)
    assert reset(notebook).cells == cells


def test_answers_stay_in_a_notebook_that_is_run_and_saved(path, tmp_path):
    answer = 'answer = 3\ncheck("9.1.1", answer, hint=True)'
    cells = with_source(3, answer)
    cells[0].source += "\n\n*Runs in* 9.0 minutes."
    write(path, cells)
    (tmp_path / "README.md").write_text("| [9.1](ch09/9.1_toys.ipynb) | 9.0 min |\n")
    notebooks.main([path])
    assert sources(read(path))[3] == answer
    assert verdicts(read(path)) == [("9.1.1", "right"), ("9.1.2", "not attempted")]
    assert "| 0.1 min |" in (tmp_path / "README.md").read_text()


STUB = """def double(x):
    \"\"\"Twice x.\"\"\"
    ...  # your lines


check("9.1.a", double)"""
CLASS_STUB = """class Pair:
    \"\"\"Two numbers.\"\"\"

    def __init__(self):
        super().__init__()
        ...  # your lines

    def swap(self):
        \"\"\"Change places.\"\"\"
        ...  # your lines


check("9.1.b", Pair)"""
STUBBED = [SECTION[0], SECTION[1], new_code_cell(STUB), new_code_cell(CLASS_STUB)]
STUBBED += SECTION[2:]
READERS = {
    "filled": STUB.replace("...  # your lines", "return 2 * x"),
    "a helper before it": "def helper(y):\n    return y\n\n" + STUB,
    "an import before it": "import math\n" + STUB.replace("...", "return math.pi"),
    "another docstring": STUB.replace("Twice x.", "2x").replace("...", "return 2 * x"),
    "another argument": STUB.replace("(x)", "(x, y=2)").replace("...", "return y * x"),
    "half-written": STUB.replace("...", "return 2 *"),
    "another name": STUB.replace("double", "mine").replace("...", "return 2 * x"),
    "no function any more": 'check("9.1.a", lambda x: 2 * x)',
    "a hint": STUB.replace("...", "return 0").replace("double)", "double, hint=True)"),
}


@pytest.fixture
def stubbed(path):
    """The course of one section, which has stubs."""
    write(path, STUBBED)
    commit(path)
    return path


@pytest.mark.parametrize("metadata", [METADATA, JUPYTERS], ids=["ours", "Jupyter's"])
@pytest.mark.parametrize("filled", READERS)
def test_what_a_reader_writes_into_a_stub_is_not_the_course(
    stubbed, tmp_path, filled, metadata
):
    cells = [nbformat.from_dict(cell) for cell in STUBBED]
    cells[2]["source"] = READERS[filled]
    write(stubbed, cells, metadata)
    course = sources(new_notebook(cells=STUBBED))
    assert sources(read_course(stubbed)) == course
    copy_course(tmp_path / "copy")
    assert sources(read(tmp_path / "copy" / label(stubbed))) == course


@pytest.mark.parametrize("filled", ["filled", "a helper before it", "a hint"])
def test_without_git_a_stub_is_emptied(filled):
    cells = [nbformat.from_dict(cell) for cell in STUBBED]
    cells[2]["source"] = READERS[filled]
    cells[3]["source"] = CLASS_STUB.replace("...  # your", "self.x = 3  # my")
    found = sources(reset(new_notebook(cells=cells)))
    assert found == sources(new_notebook(cells=STUBBED))


def test_a_stub_that_a_maintainer_edits_is_read_as_it_stands(stubbed):
    cells = [nbformat.from_dict(cell) for cell in STUBBED]
    cells[2]["source"] = STUB.replace("Twice x.", "Two times x.")
    write(stubbed, cells)
    assert read_course(stubbed) == read(stubbed)


def test_the_definition_after_a_stub_is_checked_too():
    shown = new_code_cell("def double(x):\n    return 2 * x")
    notebook = new_notebook(cells=[*STUBBED[:3], shown, *SECTION[2:]])
    add_checks(notebook)
    assert sources(notebook)[4] == 'check("9.1.a", double)'
    expected = dict(expected_verdicts(Path("9.1_toys.ipynb"), notebook))
    assert expected["9.1.a"] == "right" and expected["9.1.1"] == "not attempted"
    with pytest.raises(ValueError, match="no cell after the stub 9.1.b shows Pair"):
        add_checks(new_notebook(cells=STUBBED[3:]))
