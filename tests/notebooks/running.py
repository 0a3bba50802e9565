"""The one place that finds, reads, executes and saves the notebooks of the course.

`python -m tests.notebooks [PATH ...]` re-runs notebooks in full and saves them.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbclient.output_widget import OutputWidget

from support.paths import ROOT

MACHINE_PATH = re.compile(
    rf"/(?:home|Users|root|tmp)/|(?<![\w.]){re.escape(str(ROOT))}(?!\w)"
)
# a path from the root of any machine's disk, where the course is or was
DISK_PATH = re.compile(r"(?<![\w.:/>~<-])/(?:[\w.~-]+/)+[\w.~-]+")
METADATA = {
    "kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"},
    "language_info": {"name": "python"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"
# " 40%|####", the clock "[00:01<00:02", or the step up from an inner bar to its outer
TEXT_BAR = re.compile(r"\d%\||\[\d+:\d\d[\d:]*[,<]|\x1b\[A")
# a full stop ends the sentence; a point in a figure such as 0.4 does not
RUNS_IN = re.compile(r"^\*Runs in\*.*?(?:\.(?!\d)(?P<rest>.*))?$", re.MULTILINE)
# numbers of exercises end in a digit, those of stubs within a section in a letter
CHECK = re.compile(r"""\bcheck\(\s*["'](\d\.[\dA-Z]\.[\da-z])["']""")
VERDICT = re.compile(r"^(\d\.[\dA-Z]\.[\da-z]): (.*)$", re.MULTILINE)
EMPTY = "...  # your lines"
LEFT_BEHIND = ("checkpoints", "models", "__pycache__", ".ipynb_checkpoints")
KERNEL_ARGUMENTS = ["--log-level=CRITICAL"]  # of the kernel, not its cells
# 0 is RUSAGE_SELF; on Linux a kernel starts from the peak of the process that starts it
PEAK = "__import__('resource').getrusage(0).ru_maxrss"


class Run(NamedTuple):
    """An executed notebook and what it took."""

    notebook: nbformat.NotebookNode
    minutes: float
    megabytes: float


def sections(chapter):
    """Paths of a chapter's section notebooks, in order; not of Jupyter's duplicates."""
    return sorted(p for p in chapter.glob("[0-9]*.ipynb") if "-Copy" not in p.name)


def chapter_notebooks():
    """Paths of the section notebooks, in course order."""
    chapters = sorted(ROOT.glob("ch[0-9][0-9]"))
    return [path for chapter in chapters for path in sections(chapter)]


def solutions():
    """Paths of the chapters' solutions."""
    return sorted(ROOT.glob("ch[0-9][0-9]/solutions.ipynb"))


def all_notebooks():
    """Paths of the section notebooks and the solutions, in course order."""
    return sorted([*chapter_notebooks(), *solutions()])


def label(path):
    """Name a file by its chapter: ch05/5.2_training.ipynb."""
    return f"{path.parent.name}/{path.name}"


def read(path):
    """Read a notebook as nbformat 4."""
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    """The code cells of a notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    """The outputs of all code cells."""
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def words(output):
    """The texts in an output; pictures say nothing here."""
    data = output.get("data", {}).items()
    shown = [str(content) for mime, content in data if not mime.startswith("image/")]
    return [output.get("text", ""), *output.get("traceback", []), *shown]


def texts(notebook):
    """All that a notebook says: its sources and the words of its outputs."""
    said = [text for output in outputs(notebook) for text in words(output)]
    return [cell.source for cell in notebook.cells] + said


def checked(cells):
    """The numbers of the stubs and exercises that cells check, in order."""
    return [number for cell in cells for number in CHECK.findall(cell.source)]


def verdicts(notebook):
    """What the checks of a notebook printed, in order: [(number, words), ...]."""
    said = "\n".join(output.get("text", "") for output in outputs(notebook))
    return VERDICT.findall(said)


def expected_verdicts(path, notebook):
    """What they should print: solutions are right, sections wait for an answer.

    So are the definitions that `add_checks` has added a check to.
    """
    numbers, seen = checked(code_cells(notebook)), set()
    if path.name == "solutions.ipynb":
        seen.update(numbers)
    found = []
    for number in numbers:
        found.append((number, "right" if number in seen else "not attempted"))
        seen.add(number)
    return found


def stub(number):
    """The source of an exercise's cell before a reader fills it."""
    return f'answer = None\ncheck("{number}", answer)'


def emptied(source):
    """The sources of cells that check what `source` does, before a reader fills them.

    Of functions and classes that are checked, their first lines, docstrings and calls
    of super() are left; what else a reader has defined beside them is not.
    """
    numbers = dict.fromkeys(CHECK.findall(source))  # each of them once
    try:
        defined = dict(top_level(source))
    except SyntaxError:  # half-written
        defined = {}
    cells = []
    for number in numbers:
        name = re.search(rf"""check\(\s*["']{number}["'],\s*(\w*)""", source)
        node = defined.get(name[1] if name else "")
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and name[1] != "answer":
            definition = emptied_definition(node, source.splitlines())
            cells.append(f'{definition}\n\n\ncheck("{number}", {name[1]})')
        elif number[-1].isdigit():
            cells.append(stub(number))
        else:
            cells.append(f'check("{number}")')
    return cells


def emptied_definition(node, lines):
    """The text of a function or class without what a reader wrote in it."""
    first = node.body[0]
    has_docstring = ast.get_docstring(node) is not None
    end = first.end_lineno if has_docstring else first.lineno - 1
    kept = lines[node.lineno - 1 : end]
    if isinstance(node, ast.ClassDef):
        methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
        texts = [emptied_definition(method, lines) for method in methods]
        return "\n\n".join(["\n".join(kept), *texts])
    indent = " " * (node.col_offset + 4)
    kept += [
        line for line in lines[end : node.end_lineno] if "super().__init__()" in line
    ]
    return "\n".join([*kept, indent + EMPTY])


def split(notebook):
    """Split the cells: (of the lesson, those that a reader fills).

    A reader fills the code between the headings Exercises and Next, and before them the
    cells that check something.
    """
    cells = notebook.cells
    titled = {
        title: [i for i, cell in enumerate(cells) if title in cell.source.splitlines()]
        for title in ("## Exercises", "## Next")
    }
    exercises = range(0)
    if all(titled.values()):
        exercises = range(titled["## Exercises"][0], titled["## Next"][0])
    lesson, answers = [], []
    for number, cell in enumerate(cells):
        is_code = cell.cell_type == "code"
        is_filled = number in exercises or (exercises and CHECK.search(cell.source))
        (answers if is_code and is_filled else lesson).append(cell)
    return lesson, answers


def reset(notebook, committed=None):
    """Take a reader's answers out: of their code a stub for each check is left.

    committed: the notebook whose stubs are taken, where it has them.
    """
    originals = {}
    for cell in split(committed)[1] if committed else []:
        originals |= {n: [cell.source] for n in CHECK.findall(cell.source)}
    cells, used = [], set()
    _, answers = split(notebook)
    for cell in notebook.cells:
        sources = [cell.source]
        if cell in answers:
            known = [originals.get(n) for n in CHECK.findall(cell.source)]
            sources = next(filter(None, known), emptied(cell.source))
        for source in sources:
            if cell not in answers or source == cell.source:  # nobody has filled it
                cells.append(cell)
            elif source not in used:
                cells.append(nbformat.v4.new_code_cell(source))
            used.add(source)
    notebook.cells = cells
    return notebook


def sources(notebook):
    """The sources of the lesson and those of the answers, empty cells left out."""
    return [
        [(cell.cell_type, cell.source) for cell in cells if cell.source.strip()]
        for cells in split(notebook)
    ]


def edited_stubs(answers, old_answers):
    """Cells of answers, with a check, that nobody has filled and no commit has."""
    return [
        source
        for kind, source in answers
        if CHECK.search(source)
        and emptied(source) == [source]
        and (kind, source) not in old_answers
    ]


def committed_text(path):
    """What git's last commit has of a file; None without git, or if it has none."""
    command = ["git", "show", f"HEAD:./{path.name}"]
    try:
        done = subprocess.run(command, cwd=path.parent, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode()


def read_course(path):
    """Read a notebook as the course has it, whatever a reader did with the copy here.

    A reader's copy has the last commit's lesson, and other answers, or Jupyter saved
    it: then the last commit's notebook is returned. One with an edited lesson is
    returned as it stands; so is one that no commit has, but for its answers.
    """
    here, text = read(path), committed_text(path)
    if text is None:
        return reset(here)
    committed = nbformat.reads(text, as_version=4)
    (lesson, answers), (old_lesson, old_answers) = map(sources, (here, committed))
    is_used = answers != old_answers or here.metadata != METADATA
    is_edited = lesson != old_lesson or edited_stubs(answers, old_answers)
    return committed if is_used and not is_edited else here


def copy_course(folder):
    """Copy chapters and support into a folder, in which notebooks then run.

    What a reader trained stays behind, and so do the answers in section notebooks.
    """
    ignored = shutil.ignore_patterns(*LEFT_BEHIND)
    for room in (*ROOT.glob("ch[0-9][0-9]"), *ROOT.glob("support")):
        shutil.copytree(room, folder / room.name, ignore=ignored)
    for path in all_notebooks():
        nbformat.write(reset(read_course(path)), folder / label(path))


def python_source(cell):
    """The source of a code cell with its %magic and !shell lines blanked."""
    if cell.source.startswith("%%"):
        return ""
    lines = cell.source.splitlines()
    return "\n".join("" if line.startswith(("%", "!")) else line for line in lines)


def top_level(source):
    """Yield (name, node) for each class, function and assigned name of a source."""
    for node in ast.parse(source).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            yield node.name, node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts = [part for target in targets for part in ast.walk(target)]
            yield from ((part.id, node) for part in parts if isinstance(part, ast.Name))


def inject(notebook, parameters):
    """Set parameters in a new cell right after the one tagged `parameters`."""
    cells = notebook.cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{len(tagged)} cells are tagged `parameters`, one must be")
    if unknown := parameters.keys() - dict(top_level(tagged[0].source)):
        raise ValueError(f"the parameters cell does not assign {sorted(unknown)}")
    source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    cells.insert(cells.index(tagged[0]) + 1, nbformat.v4.new_code_cell(source))


def add_checks(notebook):
    """Check the answer to each stub too: the definition that is shown after it."""
    for cell in split(notebook)[1]:
        (number,) = CHECK.findall(cell.source) or [""]
        if not number[-1:].isalpha():
            continue
        (name,) = [name for name, _ in top_level(cell.source)]
        later = notebook.cells[notebook.cells.index(cell) + 1 :]
        later = [c for c in later if c.cell_type == "code"]
        shown = [c for c in later if name in dict(top_level(python_source(c)))]
        if not shown:
            raise ValueError(f"no cell after the stub {number} shows {name}")
        place = notebook.cells.index(shown[0]) + 1
        check = nbformat.v4.new_code_cell(f'check("{number}", {name})')
        notebook.cells.insert(place, check)


def peak_megabytes(client):
    """Ask a running kernel for the most memory it has held so far."""
    request = client.kc.execute("", silent=True, user_expressions={"peak": PEAK})
    answer = client.wait_for_reply(request)["content"]["user_expressions"]["peak"]
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kB
    return int(answer["data"]["text/plain"]) * unit / 1e6


class KeptOutput(OutputWidget):
    """What an explorer shows, which is kept here and not sent back to the kernel.

    nbclient would send it over the socket from which it awaits the cell's reply. With
    ZeroMQ that can swallow the news that the reply has come, and the run never ends.
    """

    def sync_state(self):
        """Do nothing: the kernel has no use for it."""


def explorer_errors(client):
    """What went wrong in explorers so far: `interact` shows errors, and raises none."""
    states = client.widget_state.values()
    shown = [output for state in states for output in state.get("outputs", ())]
    return [o.evalue for o in shown if o["output_type"] == "error"]


def execute(path, parameters=None, with_answers=False):
    """Run a notebook from its own folder in a fresh kernel.

    with_answers: check the answers to its stubs too, which it shows itself. Raises
    RuntimeError that names the cell that failed; so does an error in an explorer.
    """
    notebook = read(path)
    if with_answers:
        add_checks(notebook)
    if parameters:
        inject(notebook, parameters)
    folder = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, kernel_name="python3", resources=folder)
    client.extra_arguments = KERNEL_ARGUMENTS
    client.widget_registry["@jupyter-widgets/output"]["OutputModel"] = KeptOutput
    start = time.perf_counter()
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            where = f"{label(path)}, cell {index + 1} of {len(notebook.cells)}"
            try:
                client.execute_cell(cell, index)
            except (CellExecutionError, DeadKernelError) as error:
                raise RuntimeError(f"{where}: {error}") from None
            if errors := explorer_errors(client):
                raise RuntimeError(f"{where}, in an explorer: {errors[0]}")
        minutes = (time.perf_counter() - start) / 60
        return Run(notebook, minutes, peak_megabytes(client))


def without_bars(text):
    """Drop the progress bars that were drawn as text; keep all else that was said."""
    if TEXT_BAR.search(text):
        pieces = re.split(r"(?<=[\r\n])", text)
        text = "".join(p for p in pieces if p.strip() and not TEXT_BAR.search(p))
    return text if text.strip() else ""


def joined(pieces):
    """Join neighbouring outputs of one stream."""
    whole = []
    for output in pieces:
        if whole and "name" in output and output.name == whole[-1].get("name"):
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def tidy(pieces):
    """Drop progress bars from outputs and join the streams that they cut up."""
    kept = joined(piece for piece in pieces if WIDGET not in piece.get("data", {}))
    for output in kept:
        if output.get("name") == "stderr":
            output.text = without_bars(output.text)
    return joined(output for output in kept if output.get("text") != "")


def alt_text(source):
    """What a cell's picture shows: the comment `# alt: ...` at its end; "" without one.

    It may go on over several lines, each of them a comment.
    """
    comment = source.rpartition("\n# alt: ")[2] if "\n# alt: " in source else ""
    return " ".join(line.removeprefix("# ") for line in comment.splitlines())


def clean_metadata(cell):
    """The metadata that a cell keeps: its tags, and the alt text of its picture.

    nbconvert reads the text at "alt", and MyST-NB at "mystnb".
    """
    tags, alt = cell.metadata.get("tags"), alt_text(cell.source)
    metadata = {"tags": tags} if tags else {}
    if cell.cell_type == "code" and alt:
        metadata |= {"alt": alt, "mystnb": {"image": {"alt": alt}}}
    return metadata


def clean(notebook):
    """Leave what a reader wants: no version noise, no spent progress bars."""
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata = clean_metadata(cell)
    for cell in code_cells(notebook):
        cell.outputs = tidy(cell.outputs)
    return notebook


def save(notebook, path):
    """Write a cleaned notebook in one move: a killed run leaves the old file whole."""
    part = path.with_name(f"{path.name}.part")
    nbformat.write(clean(notebook), part)
    part.replace(path)


def update_readme(path, minutes):
    """Put a notebook's minutes into its row of the README's table."""
    readme = ROOT / "README.md"
    rows = readme.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, row in enumerate(rows):
        if f"({label(path)})" in row:
            rows[number] = re.sub(r"\d+\.\d min", f"{minutes:.1f} min", row)
    readme.write_text("".join(rows), encoding="utf-8")


def main(names):
    """Re-run notebooks (default: all) in full and save them with their figures.

    They compute in plain PyTorch, so that their numbers depend on as little as possible
    of the machine.
    """
    os.environ.setdefault("LLMS_PLAIN", "1")
    for path in [Path(name).resolve() for name in names] or all_notebooks():
        notebook, minutes, megabytes = execute(path)
        minutes = max(minutes, 0.1)
        cost = f"{minutes:.1f} minutes and {megabytes / 1000:.1f} GB"
        line = rf"*Runs in* {cost} on a {os.cpu_count()}-core CPU.\g<rest>"
        notebook.cells[0].source = RUNS_IN.sub(line, notebook.cells[0].source)
        save(notebook, path)
        update_readme(path, minutes)
        print(f"{label(path)}: {cost}", flush=True)
