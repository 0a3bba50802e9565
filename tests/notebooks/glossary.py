"""Reads GLOSSARY.md, and finds terms that a notebook uses before they are explained."""

import re
from typing import NamedTuple

from support.paths import ROOT

GLOSSARY = ROOT / "GLOSSARY.md"
TAUGHT = ("ch02", "ch03", "ch04")  # chapters that are written for the glossary's order
ROW = re.compile(r"\| ([^|]+) \| ([^|]+) \| (\S+) \|")
# what is no prose: headings, pictures and links, code, formulas
ELSEWHERE = re.compile(
    r"^#[^\n]*$|!?\[[^\]]*\]\([^)]*\)|```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$",
    re.MULTILINE | re.DOTALL,
)


class Term(NamedTuple):
    """A row of the glossary."""

    forms: list
    sentence: str
    section: str


def read_glossary():
    """All terms, in the order of the page."""
    lines = GLOSSARY.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ")][2:]  # without the heading
    found = [ROW.fullmatch(row).groups() for row in rows]
    return [Term(forms.split(", "), *rest) for forms, *rest in found]


def section_of(path):
    """The number of a section's notebook: "2.5", or "2.A" for an extra."""
    return path.name.partition("_")[0]


def prose(notebook):
    """What a section says in sentences, without its part Next."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    text = "\n\n".join(cells).partition("\n## Next")[0]
    return ELSEWHERE.sub(" ", text)


def uses(text, term):
    """The forms of a term, also with a plural s, that a text uses."""
    forms = "|".join(re.escape(form) for form in sorted(term.forms, key=len)[::-1])
    return re.findall(rf"(?<![\w-])(?:{forms})s?(?![\w-])", text, re.IGNORECASE)


def too_early(notebook, section, glossary, order):
    """Terms that a section uses though a later section explains them."""
    text = prose(notebook)
    for term in glossary:
        if order.index(term.section) > order.index(section):
            for form in uses(text, term)[:1]:
                yield f"{form!r} is explained in {term.section}"
