"""Draw all schematics anew: `python -m support.figures`."""

import inspect
from importlib import import_module

from support.figures.kit import Schematic
from support.paths import ROOT

CHAPTERS = ("ch02", "ch03", "ch04")


def schematics(chapter):
    """Return {name: function that draws it} of a chapter's schematics.

    Functions whose names begin with an underscore draw parts.
    """
    module = import_module(f"support.figures.{chapter}")
    functions = inspect.getmembers(module, inspect.isfunction)
    return {
        name: function
        for name, function in functions
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


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
