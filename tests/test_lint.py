"""Ruff finds nothing to say about modules and notebooks, whatever a reader answered."""

import subprocess
import sys

import nbformat
import pytest

from tests.notebooks import ROOT, all_notebooks, label, read_course

COMMANDS = [["check"], ["format", "--check"]]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A folder with the notebooks as the course has them."""
    folder = tmp_path_factory.mktemp("notebooks")
    for path in all_notebooks():
        (folder / path.parent.name).mkdir(exist_ok=True)
        nbformat.write(read_course(path), folder / label(path))
    return folder


def complaints(*arguments):
    """What ruff prints, with the settings of the course; nothing if all is well."""
    settings = ["--config", ROOT / "pyproject.toml", "--quiet", "--no-cache"]
    command = [sys.executable, "-m", "ruff", *arguments, *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_ruff_passes_the_modules(command):
    if said := complaints(*command, "--extend-exclude", "*.ipynb", ROOT):
        pytest.fail(said, pytrace=False)


def test_ruff_passes_the_notebooks(course):
    if said := complaints("check", course):
        pytest.fail(said, pytrace=False)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_fault_is_seen(tmp_path, command):
    """The cells of notebooks are laid out by hand."""
    source = "l = ( 1 )\n"
    (tmp_path / "toys.py").write_text(source)
    cells = [nbformat.v4.new_code_cell(source)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "toys.ipynb")
    said = complaints(*command, tmp_path)
    assert "toys.py" in said
    assert ("toys.ipynb" in said) == (command == ["check"])
