"""What is committed is safe, pinned, and names no one's machine."""

import ast
import re
import subprocess
from collections import defaultdict

import pytest

from tests.notebooks.running import (
    MACHINE_PATH,
    ROOT,
    chapter_notebooks,
    code_cells,
    label,
    python_source,
    read_course,
    texts,
    top_level,
)

# names that two chapter modules may both define
ALLOWED = {"main"}  # of the scripts
# chapter 6's have another loss, and the book's names
ALLOWED |= {"calc_loss_batch", "calc_loss_loader", "evaluate_model"}
LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+\.\w+)\)")
UNSAFE_OPTIONS = {"weights_only=False", "allow_pickle=True", "shell=True"}
PINNED = re.compile(r"[\w.\[\],-]+==[\w.+!]+(\s*;[^#]+)?\s+#\s*\S")


@pytest.fixture(scope="module")
def tracked():
    """The paths of the files that git tracks."""
    command = ["git", "ls-files", "-z"]
    try:
        listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and a git checkout")
    paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def text_of(path):
    """What a file says; of a notebook its sources and outputs, pictures left out."""
    if path.suffix == ".ipynb":
        return "\n".join(texts(read_course(path)))
    return path.read_text(encoding="utf-8", errors="replace")


def code_of(path):
    """The Python sources in a file: a script's one, a notebook's many, else none."""
    if path.suffix == ".ipynb":
        return [python_source(cell) for cell in code_cells(read_course(path))]
    return [text_of(path)] if path.suffix == ".py" else []


def dangers(source):
    """Yield each way that source opens for a file to smuggle something in."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.alias(name="pickle") | ast.ImportFrom(module="pickle"):
                yield "pickle"
            case ast.Attribute(attr="extractall"):
                yield "extractall"
            case ast.keyword():
                yield from UNSAFE_OPTIONS.intersection([ast.unparse(node)])


def test_no_machine_path(tracked):
    for path in tracked:
        assert not MACHINE_PATH.search(text_of(path)), path


def test_links_lead_somewhere(tracked):
    for path in tracked:
        if path.suffix in {".ipynb", ".md"}:
            for link in LINK.findall(text_of(path)):
                assert (path.parent / link).exists(), f"{path.name} links to {link}"


def test_nothing_unsafe(tracked):
    for path in tracked:
        for source in code_of(path):
            assert not list(dangers(source)), path


def test_dangers_are_seen():
    source = "from pickle import load\narchive.extractall()\nrun(x, shell=True)"
    assert sorted(dangers(source)) == ["extractall", "pickle", "shell=True"]


def test_one_name_has_one_meaning():
    owners = defaultdict(list)
    for path in ROOT.glob("ch[0-9][0-9]/*.py"):
        for name in dict(top_level(text_of(path))).keys() - ALLOWED - {"__all__"}:
            owners[name].append(label(path))
    assert not {name: paths for name, paths in owners.items() if len(paths) > 1}


def test_each_requirement_is_pinned_with_a_reason():
    lines = text_of(ROOT / "requirements.txt").splitlines()
    packages = [line for line in lines if line.strip() and line[0] not in "#-"]
    assert not [line for line in packages if not PINNED.match(line)]


def test_readme_gives_the_minutes_of_each_notebook():
    stated, listed = {}, {}
    for path in chapter_notebooks():
        opening = read_course(path).cells[0].source
        stated[label(path)] = re.findall(r"^\*Runs in\* (\d+\.\d) min", opening, re.M)
    for row in re.findall(r"^\|.*", text_of(ROOT / "README.md"), re.M):
        if link := re.search(r"\((ch\d\d/\d[^)]*\.ipynb)\)", row):
            listed[link[1]] = re.findall(r"\b(\d+\.\d) min\b", row)
    assert listed == stated


def test_readme_is_short():
    assert len(text_of(ROOT / "README.md").split()) < 1500


def test_links_from_readme_lead_to_every_page(tracked):
    pages = {path for path in tracked if path.suffix == ".md"}
    found, new = set(), {ROOT / "README.md"}
    while new:
        found |= new
        links = {
            (page.parent / link).resolve()
            for page in new
            for link in LINK.findall(text_of(page))
        }
        new = links & pages - found
    assert found == pages
