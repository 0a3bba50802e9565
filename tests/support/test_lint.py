"""Ruff and the import contracts find nothing to say, whatever a reader answered."""

import shutil
import subprocess
import sys

import grimp
import nbformat
import pytest

from support.paths import ROOT
from tests.notebooks.running import LEFT_BEHIND, all_notebooks, label, read_course

CHAPTERS = [path.name for path in sorted(ROOT.glob("ch[0-9][0-9]"))]
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


def imports_checked(folder):
    """What lint-imports says of the course in a folder, and its exit status."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", code, "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.stdout + done.stderr, done.returncode


def test_the_import_contracts_are_kept():
    said, status = imports_checked(ROOT)
    assert status == 0, said


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ch03/attention.py", "import ch04.gpt"),
        ("ch05/training.py", "import support.pretraining.trainer"),
        ("ch02/dataset.py", "import support.exercises.ch02"),
        ("support/download/files.py", "import support.weights.checkpoint"),
        ("support/messages.py", "import tests.server"),
        ("ch07/lora.py", "import benchmarks.table"),
        ("ch06/splits.py", "import ch06.spam"),  # which imports it
    ],
)
def test_a_forbidden_import_is_seen(tmp_path, module, source):
    ignored = shutil.ignore_patterns(*LEFT_BEHIND, "*.ipynb")
    for name in (*CHAPTERS, "support", "benchmarks", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with open(tmp_path / module, "a", encoding="utf-8") as file:
        file.write(f"\n{source}\n")
    said, status = imports_checked(tmp_path)
    assert status != 0 and "BROKEN" in said


def test_no_module_imports_itself_through_others():
    graph = grimp.build_graph(*CHAPTERS, "support", "benchmarks", cache_dir=None)
    circles = {
        f"{importer} -> {imported}"
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
        if importer in graph.find_upstream_modules(imported)
    }
    assert not circles
