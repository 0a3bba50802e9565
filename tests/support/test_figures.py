"""Each schematic is what its function draws, and each is shown in a notebook."""

import re
from xml.etree import ElementTree

import pytest

from support.figures.__main__ import CHAPTERS, schematics, svg_path, svg_text
from support.figures.kit import WIDTH
from tests.notebooks.running import ROOT, chapter_notebooks, read_course

DRAWN = [
    (chapter, name, draw)
    for chapter in CHAPTERS
    for name, draw in schematics(chapter).items()
]
NAMES = [f"{chapter}/{name}" for chapter, name, _ in DRAWN]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(("chapter", "name", "draw"), DRAWN, ids=NAMES)
def test_the_file_is_what_is_drawn(chapter, name, draw):
    assert svg_path(chapter, name).read_text(encoding="utf-8") == svg_text(draw)


@pytest.mark.parametrize(("chapter", "name", "draw"), DRAWN, ids=NAMES)
def test_they_look_alike(chapter, name, draw):
    root = ElementTree.fromstring(svg_text(draw))
    ground = root.find(f"{SVG}rect")
    assert root.get("width") == ground.get("width") == str(WIDTH)
    assert ground.get("fill") == "white" and ground.get("height") == root.get("height")
    texts = root.findall(f".//{SVG}text")
    assert texts and min(float(text.get("font-size")) for text in texts) >= 14
    for text in texts:  # none begins outside
        assert 0 <= float(text.get("x")) <= WIDTH
        assert 0 <= float(text.get("y")) <= float(root.get("height"))


def test_no_other_file_lies_beside_them():
    found = set(ROOT.glob("ch0[2-7]/figures/*"))
    assert found == {svg_path(chapter, name) for chapter, name, _ in DRAWN}


def test_a_schematic_that_a_notebook_shows_exists():
    for path in chapter_notebooks():
        for cell in read_course(path).cells:
            for name in re.findall(r"\]\((figures/[^)]*)\)", cell.source):
                assert (path.parent / name).is_file(), f"{path.name}: {name}"
