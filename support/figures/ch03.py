"""The schematics of chapter 3."""

import drawsvg

from support.figures.kit import (
    BLACK,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    YELLOW,
    Schematic,
)


def several_heads():
    """One text, its two heads, the joined vectors and the output projection."""
    drawing = Schematic(345)
    drawing.box("x\n(6, 3)", 15, 157, 74, 56, fill=COLOURS["input"])
    for head, top in enumerate((60, 240)):
        drawing.text(f"head {head}", 200, top - 34, bold=True)
        names = ("queries", "query"), ("keys", "key"), ("values", "value")
        for row, (name, kind) in enumerate(names):
            y = top - 20 + 38 * row
            drawing.box(name, 155, y, 90, 32, fill=COLOURS[kind])
            drawing.arrow(89, 185, 153, y + 16)
        drawing.box("weights\n(6, 6)", 300, top - 20, 90, 56, COLOURS["attention"])
        drawing.arrow(245, top - 4, 298, top + 2)
        drawing.arrow(245, top + 34, 298, top + 18)
        drawing.arrow(245, top + 72, 428, top + 42)
        drawing.box("context\n(6, 2)", 430, top, 84, 56)
        drawing.arrow(390, top + 14, 428, top + 24)
        drawing.arrow(514, top + 28, 548, 166 if head == 0 else 204)
    drawing.box("joined\n(6, 4)", 550, 157, 66, 56)
    drawing.arrow(616, 185, 640, 185)
    drawing.box("output\n(6, 4)", 642, 157, 66, 56)
    drawing.text("out_proj", 640, 138, colour=GREY)
    return drawing


def split_and_join():
    """Vectors of three tokens, cut into two heads and joined again; and the trap."""
    drawing = Schematic(470)
    other = {(row, column): SKY for row in range(3) for column in (2, 3)}
    rows = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    drawing.matrix(rows, 55, 90, title="all heads", shape="(3, 4)", fills=other)
    for token in range(3):
        drawing.text(f"token {token}", 5, 108 + 36 * token, "start", 14, GREY)
        pairs = [rows[token][:2], rows[token][2:]]
        top = 36 + 84 * token
        lower = {(1, 0): SKY, (1, 1): SKY}
        drawing.matrix(pairs, 335, top, fills=lower)
        drawing.text(f"token {token}", 328, top + 36, "end", 14, GREY)
    drawing.text("(3, 2, 2)", 371, 294, colour=GREY)
    for head, top in enumerate((36, 176)):
        cells = [row[2 * head : 2 * head + 2] for row in rows]
        fill = SKY if head else PALE
        drawing.matrix(cells, 560, top, fill=fill)
        drawing.text(f"head {head}", 642, top + 54, "start", bold=True)
    drawing.text("(2, 3, 2)", 596, 302, colour=GREY)
    drawing.arrow(205, 128, 268, 128, label="view")
    drawing.arrow(268, 152, 205, 152, GREY, "reshape", above=False)
    drawing.arrow(420, 146, 548, 146, label="transpose(0, 1)")
    drawing.arrow(548, 168, 420, 168, GREY, "transpose(0, 1)", above=False)
    drawing.text("black: split. Grey: join.", 5, 30, "start")
    drawing.text("Wrong:", 5, 350, "start", bold=True)
    drawing.text("view(2, 3, 2) without", 5, 374, "start")
    drawing.text("transpose mixes the tokens", 5, 398, "start")
    fills = {(1, 0): SKY, (1, 1): SKY}
    drawing.matrix([[0, 1], [2, 3], [4, 5]], 250, 340, fills=fills)
    fills = {(row, column): SKY for row in (0, 2) for column in (0, 1)}
    drawing.matrix([[6, 7], [8, 9], [10, 11]], 470, 340, fills=fills)
    drawing.text("“head 0”: token 0,\nand half of token 1", 332, 384, "start")
    drawing.text("“head 1”: half of\ntoken 1, and token 2", 552, 384, "start")
    return drawing


def search():
    """A search in a library, with the names that attention gives to its parts."""
    drawing = Schematic(290)
    columns = {
        "query": 86,
        "keys": 268,
        "attention weights": 404,
        "values": 532,
        "context vector": 654,
    }
    for name, middle in columns.items():
        drawing.text(name, middle, 28, bold=True, size=14)
    drawing.box("When is\nhigh water?", 16, 125, 140, 50, fill=GREEN)
    rows = (
        ("tides of today", "0.7", "high water\nat ten past three"),
        ("phases of the moon", "0.2", "full moon\non Friday"),
        ("price of herring", "0.1", "four pence\nfor a dozen"),
    )
    for number, (key, weight, value) in enumerate(rows):
        middle = 80 + 70 * number
        drawing.arrow(158, 150, 190, middle)
        drawing.box(key, 192, middle - 20, 152, 40, fill=PURPLE)
        drawing.arrow(346, middle, 376, middle)
        drawing.box(weight, 378, middle - 18, 52, fill=ORANGE)
        drawing.box(value, 466, middle - 25, 132, 50, fill=YELLOW)
        drawing.text("·", 448, middle, size=22)
        drawing.arrow(600, middle, 628, 150 + 12 * (number - 1))
    drawing.box("the sum", 630, 125, 80, 50, fill=SKY)
    drawing.text("How well does each key match?", 268, 262, colour=GREY)
    drawing.text("weight times value, added up", 570, 262, colour=GREY)
    return drawing


def qkv_flow():
    """The shapes of self-attention: from the inputs to the context vectors."""
    drawing = Schematic(490)

    def table(rows, columns, x, middle, fill, title, shape):
        """Draw an empty matrix whose middle line is at a height."""
        cells = [[""] * columns for _ in range(rows)]
        top = middle - 9 * rows
        drawing.matrix(cells, x, top, 18, fill=fill, title=title, shape=shape)

    table(6, 3, 24, 245, SKY, "inputs x", "(6, 3)")
    parts = (
        (85, GREEN, "W_query", "queries Q"),
        (245, PURPLE, "W_key", "keys K"),
        (405, YELLOW, "W_value", "values V"),
    )
    for middle, fill, matrix, name in parts:
        drawing.arrow(84, 245 + (middle - 245) * 0.2, 158, middle)
        table(3, 2, 162, middle, BLUE, matrix, "(3, 2)")
        drawing.arrow(204, middle, 268, middle)
        table(6, 2, 274, middle, fill, name, "(6, 2)")
    drawing.arrow(314, 85, 426, 132)
    drawing.arrow(314, 245, 426, 182)
    table(6, 6, 432, 160, ORANGE, "attention weights", "(6, 6)")
    drawing.text("scores Q Kᵀ,\ndivided by √2,\nthen softmax", 486, 256, colour=GREY)
    drawing.arrow(544, 178, 632, 250)
    drawing.arrow(314, 405, 632, 300)
    table(6, 2, 638, 272, SKY, "context vectors", "(6, 2)")
    drawing.text("weights times values", 530, 376, colour=GREY)
    return drawing


def mask():
    """Scores of three tokens, the later ones masked, and the softmax of the rest."""
    drawing = Schematic(290)
    words = "Your", "journey", "starts"
    hidden = {(row, column): GREY for row in range(3) for column in range(row + 1, 3)}
    scores = [[0, 3, 1], [2, 2, 9], [1, 1, 1]]
    masked = [
        ["-∞" if (row, column) in hidden else number for column, number in enumerate(x)]
        for row, x in enumerate(scores)
    ]
    weights = [["1", "0", "0"], ["0.5", "0.5", "0"], ["0.33", "0.33", "0.33"]]
    tables = (
        (92, "scores", scores, PALE, {}),
        (320, "masked scores", masked, PALE, hidden),
        (548, "attention weights", weights, ORANGE, dict.fromkeys(hidden, "white")),
    )
    for left, title, values, fill, fills in tables:
        drawing.text(title, left + 80, 28, bold=True)
        drawing.matrix(values, left, 80, 54, fill=fill, fills=fills)
        for column, word in enumerate(words):
            drawing.text(word, left + 54 * column + 27, 64, size=14, colour=GREY)
    for row, word in enumerate(words):
        drawing.text(word, 84, 107 + 54 * row, "end", colour=GREY)
    drawing.arrow(258, 161, 314, 161, label="mask")
    drawing.arrow(486, 161, 542, 161, label="softmax", above=True)
    drawing.text(
        "row: the token that looks for something; column: the token that it looks at",
        390,
        268,
        colour=GREY,
    )
    return drawing


def order_of_tokens():
    """Means of the numbers so far, taken twice, of two orders of three numbers."""
    drawing = Schematic(220)
    titles = "input", "after layer 1", "after layer 2"
    orders = (
        (("1", "3", "5"), ("1", "2", "3"), ("1", "1.5", "2")),
        (("3", "1", "5"), ("3", "2", "3"), ("3", "2.5", "2.67")),
    )
    for row, steps in enumerate(orders):
        top = 62 + 80 * row
        for number, values in enumerate(steps):
            left = 30 + 240 * number
            fills = {(0, 2): SKY}
            drawing.matrix([values], left, top, 54, fill=PALE, fills=fills)
            if number:
                drawing.arrow(left - 72, top + 27, left - 6, top + 27, label="means")
            if not row:
                drawing.text(titles[number], left + 81, 36, bold=True)
    return drawing


def context_vector():
    """The vector of journey as a weighted sum of the vectors of six words."""
    drawing = Schematic(420)
    rows = {
        "Your": ((0.43, 0.15, 0.89), 0.9544, 0.1455),
        "journey": ((0.55, 0.87, 0.66), 1.4950, 0.2278),
        "starts": ((0.57, 0.85, 0.64), 1.4754, 0.2249),
        "with": ((0.22, 0.58, 0.33), 0.8434, 0.1285),
        "one": ((0.77, 0.25, 0.10), 0.7070, 0.1077),
        "step": ((0.05, 0.80, 0.55), 1.0865, 0.1656),
    }
    titles = "vector", "score", "weight", "weight · vector"
    for title, middle in zip(titles, (165, 312, 425, 585)):
        drawing.text(title, middle, 22, bold=True)
    drawing.text("(with journey)", 312, 42, size=14, colour=GREY)
    for number, (word, (vector, score, weight)) in enumerate(rows.items()):
        y = 62 + 44 * number
        asks = word == "journey"
        drawing.text(word, 80, y + 17, "end", bold=asks)
        numbers = ", ".join(f"{x:.2f}" for x in vector)
        fill = COLOURS["query"] if asks else COLOURS["input"]
        drawing.box(numbers, 90, y, 150, 34, fill=fill)
        drawing.arrow(242, y + 17, 282, y + 17)
        drawing.text(f"{score:.2f}", 312, y + 17)
        drawing.arrow(342, y + 17, 390, y + 17)
        drawing.box(f"{weight:.2f}", 395, y, 60, 34, fill=COLOURS["attention"])
        drawing.arrow(457, y + 17, 505, y + 17)
        drawing.box(", ".join(f"{weight * x:.2f}" for x in vector), 510, y, 150, 34)
    drawing.text("all numbers are rounded", 90, 378, "start", 14, GREY)
    drawing.arrow(585, 320, 585, 354)
    drawing.text("add up the six", 572, 340, "end", colour=GREY)
    total = [
        sum(weight * vector[i] for vector, _, weight in rows.values()) for i in range(3)
    ]
    numbers = ", ".join(f"{x:.2f}" for x in total)
    drawing.box(numbers, 510, 358, 150, 40, bold=True)
    drawing.text("context vector of journey", 498, 378, "end", bold=True)
    return drawing


def bottleneck():
    """An encoder, a decoder, and between them a single hidden state."""
    drawing = Schematic(330)
    drawing.text("encoder: reads one word after another", 20, 20, "start", bold=True)
    words = "ich", "habe", "das", "Boot", "gestern", "gesehen"
    for number, word in enumerate(words):
        middle = 60 + 114 * number
        drawing.text(word, middle, 52)
        drawing.arrow(middle, 62, middle, 84)
        drawing.box(f"h{number}", middle - 25, 86, 50, fill=COLOURS["input"])
        if number < 5:
            drawing.arrow(middle + 25, 104, middle + 88, 104)
    corners = 630, 123, 630, 165, 60, 165, 60, 228
    drawing.append(
        drawsvg.Lines(*corners, close=False, fill="none", stroke=BLACK, stroke_width=3)
    )
    drawing.arrow(60, 226, 60, 238)
    drawing.text("all that is passed on: one vector, h5", 345, 150, bold=True)
    drawing.text("decoder: writes one word after another", 80, 212, "start", bold=True)
    for number, word in enumerate(("I", "saw", "the", "boat", "yesterday")):
        middle = 60 + 114 * number
        drawing.box("", middle - 25, 240, 50)
        drawing.arrow(middle, 277, middle, 298)
        drawing.text(word, middle, 310)
        if number < 4:
            drawing.arrow(middle + 25, 258, middle + 88, 258)
    return drawing


def looking_back():
    """A decoder that takes a part of each of four hidden states."""
    drawing = Schematic(340)
    drawing.text("encoder", 590, 80, bold=True)
    for number, (letter, share) in enumerate(zip("cafe", (2, 93, 4, 1))):
        middle = 60 + 140 * number
        drawing.text(letter, middle, 22, bold=True)
        drawing.arrow(middle, 34, middle, 60)
        drawing.box(f"h{number}", middle - 25, 62, 50, fill=COLOURS["input"])
        if number < 3:
            drawing.arrow(middle + 25, 80, middle + 113, 80)
        drawing.arrow(middle, 99, middle, 120)
        drawing.box(f"{share}%", middle - 26, 122, 52, 28, COLOURS["attention"])
        drawing.arrow(middle, 151, 219 + 34 * number, 206)
    text = "the more similar a state is\nto the question, the more\nof it is taken"
    drawing.text(text, 518, 126, "start", 14)
    drawing.box("weighted sum of the states", 165, 208, 210)
    drawing.arrow(270, 245, 270, 274)
    drawing.box("decoder", 215, 276, 110)
    drawing.text("question: which letter\nis at position 1?", 20, 284, "start")
    drawing.arrow(176, 294, 213, 294)
    drawing.append(drawsvg.Line(14, 268, 14, 136, stroke=BLACK, stroke_width=1.6))
    drawing.arrow(14, 136, 33, 136)
    drawing.text("compared with\neach state", 24, 186, "start", 14)
    drawing.arrow(326, 294, 376, 294)
    drawing.text("a", 390, 294, bold=True)
    return drawing
