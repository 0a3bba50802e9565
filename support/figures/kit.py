"""Parts of schematics: boxes, arrows, matrices with their shapes.

Everything is measured in pixels, from the left and from the top. The same colour means
the same thing in the whole course: see COLOURS.
"""

import drawsvg

WIDTH = 720
FONT = "Helvetica, Arial, sans-serif"
SIZE = 15  # of text
# the colours of Okabe and Ito, which people who are colour-blind can tell apart
BLUE, SKY, GREEN, YELLOW = "#0072B2", "#56B4E9", "#009E73", "#F0E442"
ORANGE, RED, PURPLE, BLACK = "#E69F00", "#D55E00", "#CC79A7", "#000000"
GREY, PALE = "#6E6E6E", "#EDEDED"
COLOURS = {
    "input": SKY,
    "target": ORANGE,
    "weights": BLUE,
    "gradient": RED,
    "query": GREEN,
    "key": PURPLE,
    "value": YELLOW,
    "attention": ORANGE,
    "stream": SKY,
}
DARK = {BLUE, RED, GREEN, BLACK, GREY}  # grounds on which text is white


class Schematic(drawsvg.Drawing):
    """A white picture of WIDTH and a height, with an arrowhead for `arrow`."""

    def __init__(self, height):
        super().__init__(WIDTH, height, font_family=FONT)
        self.append(drawsvg.Rectangle(0, 0, WIDTH, height, fill="white"))

    def text(self, text, x, y, anchor="middle", size=SIZE, colour=BLACK, bold=False):
        """Write text whose middle line is at y; anchor: "start", "middle" or "end"."""
        weight = "bold" if bold else "normal"
        for number, line in enumerate(text.split("\n")):
            place = x, y + number * 1.25 * size
            self.append(
                drawsvg.Text(
                    line,
                    size,
                    *place,
                    text_anchor=anchor,
                    dominant_baseline="central",
                    fill=colour,
                    font_weight=weight,
                )
            )

    def box(self, text, x, y, width, height=36, fill=PALE, bold=False):
        """Draw a box with text in its middle; x, y: its upper left corner."""
        self.append(
            drawsvg.Rectangle(
                x, y, width, height, rx=4, fill=fill, stroke=BLACK, stroke_width=1
            )
        )
        num_lines = text.count("\n") + 1
        top = y + height / 2 - (num_lines - 1) * 1.25 * SIZE / 2
        self.text(text, x + width / 2, top, colour=ink_on(fill), bold=bold)

    def plus(self, x, y, radius=14):
        """Draw a plus in a circle whose middle is at (x, y)."""
        self.append(drawsvg.Circle(x, y, radius, fill="white", stroke=BLACK))
        self.text("+", x, y, size=round(1.4 * radius), bold=True)

    def arrow(self, x1, y1, x2, y2, colour=BLACK, label="", dashed=False, above=True):
        """Draw an arrow from (x1, y1) to (x2, y2), with a label beside its middle."""
        length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
        dx, dy = (x2 - x1) / length, (y2 - y1) / length
        style = {"stroke_dasharray": "5,4"} if dashed else {}
        end = x2 - 8 * dx, y2 - 8 * dy
        self.append(
            drawsvg.Line(x1, y1, *end, stroke=colour, stroke_width=1.6, **style)
        )
        corners = (
            (x2, y2),
            (x2 - 10 * dx - 4 * dy, y2 - 10 * dy + 4 * dx),
            (x2 - 10 * dx + 4 * dy, y2 - 10 * dy - 4 * dx),
        )
        self.append(drawsvg.Lines(*sum(corners, ()), close=True, fill=colour))
        if label:
            side = -1 if above else 1
            middle = (x1 + x2) / 2, (y1 + y2) / 2
            self.text(label, middle[0], middle[1] + side * 13, colour=colour)

    def matrix(self, values, x, y, cell=36, fill=PALE, title="", shape="", fills=None):
        """Draw rows of cells with texts in them; x, y: the upper left corner.

        title stands above, and shape, such as "(2, 3)", below. fills: colours of single
        cells, {(row, column): colour}. Returns (width, height) of the cells.
        """
        width, height = cell * len(values[0]), cell * len(values)
        for row, texts in enumerate(values):
            for column, text in enumerate(texts):
                colour = (fills or {}).get((row, column), fill)
                place = x + column * cell, y + row * cell
                self.append(
                    drawsvg.Rectangle(
                        *place, cell, cell, fill=colour, stroke=BLACK, stroke_width=0.8
                    )
                )
                middle = place[0] + cell / 2, place[1] + cell / 2
                self.text(str(text), *middle, colour=ink_on(colour))
        if title:
            self.text(title, x + width / 2, y - 14, bold=True)
        if shape:
            self.text(shape, x + width / 2, y + height + 14, colour=GREY)
        return width, height


def ink_on(fill):
    """Return the colour of text that can be read on a ground."""
    return "white" if fill in DARK else BLACK
