"""Each previous_chapters.py opens from anywhere and only hands on what was built."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.notebooks import ROOT, label

MODULES = sorted(ROOT.glob("ch[0-9][0-9]/*.py"))
DOORS = [path for path in MODULES if path.name == "previous_chapters.py"]
# enough to start an interpreter, nothing of this process's import paths
ENVIRONMENT = {"PATH": os.defpath, "HOME": str(Path.home())}
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def parse(path):
    """The syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path):
    """Yield (module, name) for each import in a file; name is None for a plain one."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)


def handed_on(door):
    """The (module, name) pairs that a door imports from the chapters."""
    return [pair for pair in imports(door) if pair[0].startswith("ch")]


@pytest.mark.parametrize("way", ["own folder", "root", "elsewhere"])
@pytest.mark.parametrize("door", DOORS, ids=label)
def test_opens_in_a_clean_process(door, way, tmp_path):
    by_chapter = f"import {door.parent.name}.previous_chapters as door"
    folder, opening = {
        "own folder": (door.parent, "import previous_chapters as door"),
        "root": (ROOT, by_chapter),
        "elsewhere": (tmp_path, f"sys.path.append({str(ROOT)!r})\n{by_chapter}"),
    }[way]
    lines = ["import sys", opening]
    for module, name in handed_on(door):
        lines.append(f"import {module}\nassert door.{name} is {module}.{name}")
        home = f"getattr(door.{name}, '__module__', '{module}')"
        lines.append(f"assert {home} == '{module}', '{name} was built in ' + {home}")
    command = [sys.executable, "-c", "\n".join(lines)]
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True)


@pytest.mark.parametrize("door", DOORS, ids=label)
def test_defines_nothing_and_lists_what_it_imports(door):
    tree = parse(door)
    assert not any(isinstance(node, DEFINITIONS) for node in ast.walk(tree))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    assert [ast.unparse(node.targets) for node in assigned] == ["__all__"]
    names = [name for _, name in handed_on(door)]
    assert sorted(ast.literal_eval(assigned[0].value)) == sorted(names)


@pytest.mark.parametrize("door", DOORS, ids=label)
def test_hands_on_earlier_chapters_only(door):
    for module, name in handed_on(door):
        assert int(module[2:4]) < int(door.parent.name[2:]), f"{name} from {module}"


def test_modules_import_by_chapter_name():
    """None imports from a door, nor from its neighbour without naming the chapter."""
    unnamed = {path.stem for path in MODULES} | {""}
    found = {
        label(module): imported
        for module in MODULES
        for imported, _ in imports(module)
        if imported.split(".")[0] in unnamed or "previous_chapters" in imported
    }
    assert not found
