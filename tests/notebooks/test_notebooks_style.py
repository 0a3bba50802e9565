"""Every notebook keeps the course's template: one opening, short cells, one ending."""

import ast
import copy
import re

import nbformat
import pytest

from tests.notebooks.running import (
    DISK_PATH,
    MACHINE_PATH,
    ROOT,
    all_notebooks,
    alt_text,
    checked,
    clean,
    code_cells,
    committed_text,
    expected_verdicts,
    label,
    outputs,
    python_source,
    read_course,
    reset,
    split,
    texts,
    verdicts,
    words,
)

# section notebooks that have nothing to look at, only to read
IMAGELESS = ()
# chapters whose pictures are described in words
DESCRIBED = ("ch02", "ch03", "ch04")
ENDING = ["## What you built", "## Exercises", "## Next"]
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]*)\)")
REMOTE_IMAGE = re.compile(r"!\[[^\]]*\]\(\s*(https?:)?//|<img[^>]*src=.?(https?:)?//")


def prose(notebook):
    """The sources of the markdown cells."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def limit(source):
    """A cell may be 15 lines long; one that holds a single definition, 50."""
    body = ast.parse(source).body
    alone = len(body) == 1 and isinstance(body[0], (ast.ClassDef, ast.FunctionDef))
    return 50 if alone else 15


# Rules for sections: each yields what it has against a notebook


def opens_with_what_is_built_needed_and_spent(path, notebook):
    opening = notebook.cells[0].source
    if [text for text in prose(notebook) if text.startswith("# ")] != [opening]:
        yield "the one title of level 1 belongs into the first cell"
    for start in ("*You build*", "*You need*", "*Runs in*"):
        if f"\n{start}" not in opening:
            yield f"no line of the opening begins {start}"


def balances_prose_and_code(path, notebook):
    if len(notebook.cells) > 60:
        yield f"{len(notebook.cells)} cells, 60 are the most"
    share = len(prose(notebook)) / len(notebook.cells)
    if not 0.45 <= share <= 0.65:
        yield f"{share:.0%} of the cells are prose, 45% to 65% should be"


def has_the_ending(path, notebook):
    lines = "\n".join(prose(notebook)).splitlines()
    headings = [line.rstrip() for line in lines if line.startswith("## ")]
    if headings[-3:] != ENDING:
        yield f"it ends with {headings[-3:]}, not with {ENDING}"


def has_exercises_without_answers(path, notebook):
    numbers = [n for n in checked(code_cells(notebook)) if n[-1].isdigit()]
    if not 2 <= len(numbers) <= 4:
        yield f"{len(numbers)} exercises, 2 to 4 should be"
    if lost := {*checked(code_cells(notebook))} - {*checked(split(notebook)[1])}:
        yield f"{lost} would not be reset: the headings Exercises and Next are missing"
    left = [cell.source for cell in split(reset(copy.deepcopy(notebook)))[1]]
    answers = [cell.source for cell in split(notebook)[1]]
    for source in set(answers).symmetric_difference(left):
        yield f"an exercise's code is not its stub, or its stub is lost:\n{source}"


def shows_something(path, notebook):
    kinds = [kind for output in outputs(notebook) for kind in output.get("data", ())]
    if "image/" not in " ".join(kinds) and label(path) not in IMAGELESS:
        yield "no output is a picture"


def says_what_its_pictures_show(path, notebook):
    if path.parent.name not in DESCRIBED:
        return
    for cell in code_cells(notebook):
        pictures = [
            mime
            for output in cell.outputs
            for mime in output.get("data", ())
            if mime.startswith("image/")
        ]
        if len(pictures) > 1:
            yield f"{len(pictures)} pictures, one is the most, in\n{cell.source}"
        if pictures and len(alt_text(cell.source).split()) < 8:
            yield f"no `# alt: ...` says what the picture shows of\n{cell.source}"
    for text in prose(notebook):
        for alt, name in PICTURE.findall(text):
            if len(alt.split()) < 8:
                yield f"the brackets do not say what {name} shows"
            if not (path.parent / name).is_file():
                yield f"{name} does not exist"


def lets_the_reader_build(path, notebook):
    if path.parent.name not in DESCRIBED:
        return
    numbers = checked(code_cells(notebook))
    if not any(number[-1].isalpha() for number in numbers):
        yield "no stub: the reader builds nothing"
    if len(numbers) > 8:
        yield f"{len(numbers)} checks, 8 are the most"
    names = [name for text in prose(notebook) for _, name in PICTURE.findall(text)]
    if not any(name.endswith(".svg") for name in names):
        yield "no schematic explains the idea"


def shows_rather_than_asserts(path, notebook):
    if path.parent.name not in DESCRIBED:
        return
    cells = code_cells(notebook)
    num_asserts = sum("assert " in cell.source for cell in cells)
    if num_asserts > len(cells) / 4:
        yield f"{num_asserts} of {len(cells)} code cells assert, a quarter may"
    for cell in cells:
        lines = cell.source.partition("\n# alt: ")[0].splitlines()
        draws = "plt.show()" in cell.source and "@interact" not in cell.source
        if draws and len(lines) > 10:
            yield f"{len(lines)} lines to draw, 10 are the most, in\n{cell.source}"


# Rules for sections and solutions


def begins_with_the_imports(path, notebook):
    source = python_source(code_cells(notebook)[0])
    imports = (ast.Import, ast.ImportFrom)
    if not all(isinstance(node, imports) for node in ast.parse(source).body):
        yield "the first code cell does more than import"
    if not re.search(r"^(from|import) previous_chapters\b", source, re.MULTILINE):
        yield "the first code cell does not import from previous_chapters"
    if len(source.splitlines()) > 14:
        yield "the first code cell has more than 14 lines"


def keeps_code_cells_short(path, notebook):
    for cell in code_cells(notebook):
        lines = cell.source.partition("\n# alt: ")[0].splitlines()
        if len(lines) > limit(python_source(cell)):
            yield f"{len(lines)} lines are too many in\n{cell.source}"
        if any(len(line) > 88 for line in lines):
            yield f"a line has more than 88 characters in\n{cell.source}"
        if "!pip" in cell.source or "%cd" in cell.source:
            yield f"!pip or %cd in\n{cell.source}"


def is_saved_by_one_clean_run(path, notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"its cells were run in the order {counts}"
    if any(output.output_type == "error" for output in outputs(notebook)):
        yield "an output is an error"
    if clean(copy.deepcopy(notebook)) != notebook:
        yield "`make notebooks` tidies it"
    if len(nbformat.writes(notebook).encode()) > 300_000:
        yield "it takes more than 300,000 bytes"
    if verdicts(notebook) != expected_verdicts(path, notebook):
        yield f"its checks should not have printed {verdicts(notebook)}"


def prints_no_path_of_a_disk(path, notebook):
    for output in outputs(notebook):
        for text in words(output):
            if found := DISK_PATH.search(text):
                yield f"{found[0]!r} in an output:\n{text}"


def names_no_machine_and_no_remote_image(path, notebook):
    for text in texts(notebook):
        for found in (MACHINE_PATH.search(text), REMOTE_IMAGE.search(text)):
            if found:
                yield f"{found[0]!r} in\n{text}"


OF_SECTIONS = [
    opens_with_what_is_built_needed_and_spent,
    balances_prose_and_code,
    has_the_ending,
    has_exercises_without_answers,
    shows_something,
    says_what_its_pictures_show,
    lets_the_reader_build,
    shows_rather_than_asserts,
]
OF_ALL = [
    begins_with_the_imports,
    keeps_code_cells_short,
    is_saved_by_one_clean_run,
    prints_no_path_of_a_disk,
    names_no_machine_and_no_remote_image,
]
OF_OUTPUTS = [
    shows_something,
    is_saved_by_one_clean_run,
    prints_no_path_of_a_disk,
    names_no_machine_and_no_remote_image,
]


@pytest.fixture(scope="module")
def notebooks():
    """Every notebook of the course by its path."""
    return {path: read_course(path) for path in all_notebooks()}


def complaints(rule, notebooks):
    """What a rule has against those of the notebooks that it is for."""
    for path, notebook in notebooks.items():
        if rule in OF_ALL or path.name != "solutions.ipynb":
            yield from (f"{label(path)}: {said}" for said in rule(path, notebook))


@pytest.mark.parametrize("rule", OF_SECTIONS + OF_ALL, ids=lambda rule: rule.__name__)
def test_every_notebook(rule, notebooks):
    if rule in OF_OUTPUTS and committed_text(ROOT / "README.md") is None:
        pytest.skip("needs git: the outputs may be those of a reader's own run")
    if found := list(complaints(rule, notebooks)):
        pytest.fail("\n\n".join(found), pytrace=False)


def test_each_rule_has_something_against_a_bad_notebook():
    code, text = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    long = code(
        "assert 1\nplt.show()\n" + "x = 1\n" * 14 + f"y = {'1' * 90}\n%cd {ROOT}"
    )
    long.outputs = [
        nbformat.v4.new_output("stream", text="." * 300_000 + " /data/a/text.txt"),
        nbformat.v4.new_output("error", ename="KeyError", evalue="", traceback=[]),
    ]
    cells = [text("## Toys\n\n![far away](https://example.com/a.png)"), long]
    cells += [text("## Exercises"), code('answer = 3\ncheck("9.1.1", answer)')]
    cells += [text("## Next") for _ in range(57)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    path = ROOT / DESCRIBED[0] / "9.1_toys.ipynb"
    found = {rule: len([*rule(path, notebook)]) for rule in OF_SECTIONS + OF_ALL}
    assert found == {
        opens_with_what_is_built_needed_and_spent: 4,
        balances_prose_and_code: 2,
        has_the_ending: 1,
        has_exercises_without_answers: 3,
        shows_something: 1,
        says_what_its_pictures_show: 2,
        lets_the_reader_build: 2,
        shows_rather_than_asserts: 2,
        begins_with_the_imports: 3,
        keeps_code_cells_short: 3,
        is_saved_by_one_clean_run: 5,
        prints_no_path_of_a_disk: 1,
        names_no_machine_and_no_remote_image: 2,
    }
