"""Draw all schematics anew: `python -m support.figures`."""

import inspect
from importlib import import_module

from support.figures.kit import Schematic
from support.paths import ROOT

CHAPTERS = ("ch02", "ch03", "ch04")


def schematics(chapter):
    """Return {name: function that draws it} of a chapter's schematics."""
    module = import_module(f"support.figures.{chapter}")
    functions = inspect.getmembers(module, inspect.isfunction)
    return {name: f for name, f in functions if f.__module__ == module.__name__}


def svg_text(draw):
    """Return a schematic as the text of an SVG file."""
    drawing = draw()
    assert isinstance(drawing, Schematic)
    return drawing.as_svg() + "\n"


def svg_path(chapter, name):
    """Return the path of a schematic."""
    return ROOT / chapter / "figures" / f"{name}.svg"


def main():
    """Draw all."""
    for chapter in CHAPTERS:
        for name, draw in schematics(chapter).items():
            path = svg_path(chapter, name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(svg_text(draw), encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
