"""The English: no home-made phrases, and no term before it was explained."""

import re
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from support.paths import ROOT
from tests.notebooks.glossary import (
    TAUGHT,
    Term,
    prose,
    read_glossary,
    section_of,
    too_early,
    uses,
)
from tests.notebooks.running import all_notebooks, chapter_notebooks, label, read

PHRASES = Path(__file__).with_name("phrases.txt")
PAGES = "*.md", "ch0*/*.py", "support/**/*.py", "support/**/*.md", "benchmarks/**/*"


def read_phrases():
    """Home-made phrases and what to say instead: {phrase: words}."""
    lines = PHRASES.read_text(encoding="utf-8").splitlines()
    rows = [line.split(" = ") for line in lines if line and not line.startswith("#")]
    return dict(rows)


def written():
    """What the course says, by the name of the file: sources of cells, and pages."""
    for path in all_notebooks():
        yield label(path), "\n".join(cell.source for cell in read(path).cells)
    for pattern in PAGES:
        for path in ROOT.glob(pattern):
            if path.suffix in (".py", ".md"):
                yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_nothing_is_said_in_home_made_phrases():
    phrases = read_phrases()
    parts = [r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases]
    pattern = re.compile(rf"\b({'|'.join(parts)})\b", re.IGNORECASE)
    for name, text in written():
        for found in pattern.finditer(text):
            phrase = " ".join(found[0].lower().split())
            pytest.fail(f"{name}: say {phrases[phrase]!r}, not {found[0]!r}")


def test_every_term_has_one_sentence_and_a_section_that_exists():
    glossary, names = read_glossary(), {section_of(p) for p in chapter_notebooks()}
    assert len({form for term in glossary for form in term.forms}) == sum(
        len(term.forms) for term in glossary
    ), "two rows have the same term"
    for term in glossary:
        assert term.section in names, f"{term.forms[0]}: there is no {term.section}"
        assert re.fullmatch(r"[A-Z0-9`][^.]*(\.\d[^.]*)*\.", term.sentence), term
        assert len(term.sentence.split()) <= 40, term


def test_no_term_is_used_before_it_was_explained():
    glossary, order = read_glossary(), [section_of(p) for p in chapter_notebooks()]
    found = [
        f"{label(path)}: {said}"
        for path in chapter_notebooks()
        if path.parent.name in TAUGHT
        for said in too_early(read(path), section_of(path), glossary, order)
    ]
    assert not found, "\n".join(found)


def test_a_term_is_used_where_it_is_explained():
    sections = {section_of(p): prose(read(p)) for p in chapter_notebooks()[::-1]}
    for term in read_glossary():
        if term.section[0] in {chapter[-1] for chapter in TAUGHT}:
            assert uses(sections[term.section], term), f"{term.section}: {term.forms}"


def test_terms_in_titles_links_and_code_are_not_prose():
    cells = [
        new_markdown_cell(
            "# 9.1 Gradients\n\nThe [gradient](a.md), `gradient`, $gradient$"
        ),
        new_markdown_cell(
            "![a gradient](a.svg) is in no sub-gradient.\n\n## A gradient"
        ),
        new_code_cell("gradient = 1"),
        new_markdown_cell("## Next\n\nThe gradient."),
    ]
    glossary = [Term(["gradient", "slope"], "It is a slope.", "9.2")]
    order = ["9.1", "9.2"]
    assert not [*too_early(new_notebook(cells=cells), "9.1", glossary, order)]
    for early in ("# 9.1 Tide\n\nTwo Gradients.", "a slope", "*slope*, we say"):
        cells[0] = new_markdown_cell(early)
        notebook = new_notebook(cells=cells)
        assert len([*too_early(notebook, "9.1", glossary, order)]) == 1
        assert not [*too_early(notebook, "9.2", glossary, order)]
