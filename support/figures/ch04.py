"""The schematics of chapter 4."""

import drawsvg

from support.figures.kit import BLACK, BLUE, COLOURS, GREY, PALE, RED, SKY, Schematic


def gpt_plan():
    """The whole GPT: both tables and their sum, the blocks, and the scores."""
    drawing = Schematic(680)
    drawing.append(drawsvg.Rectangle(237, 200, 16, 340, fill=COLOURS["stream"]))
    _two_tables(drawing)
    for name, top, section in (("drop_emb", 238, "3.5"), ("final_norm", 472, "4.2")):
        drawing.box(name, 175, top, 140, 32)
        drawing.text(section, 160, top + 16, "end", colour=GREY)
    drawing.box("", 165, 304, 160, 134)
    for number, name in enumerate(("block 1", "block 2", "...", "block 12")):
        middle = 322 + 33 * number
        if name == "...":
            drawing.text(name, 245, middle - 3, bold=True)
        else:
            drawing.box(name, 185, middle - 13, 120, 26, fill="white")
    drawing.text("trf_blocks", 154, 360, "end")
    drawing.text("4.5", 154, 382, "end", colour=GREY)
    drawing.box("out_head", 175, 538, 140, 32, fill=COLOURS["weights"])
    drawing.text("4.1", 160, 554, "end", colour=GREY)
    for top, size in ((204, 768), (270, 768), (438, 768), (504, 768), (570, 50257)):
        drawing.arrow(245, top, 245, top + 33)
        drawing.text(f"(2, 4, {size})", 262, top + 17, "start", colour=GREY)
    drawing.box("logits: a score for each token\nof the vocabulary", 125, 606, 240, 54)
    _inside_a_block(drawing)
    _legend(drawing)
    return drawing


def _two_tables(drawing):
    """Draw both tables of gpt_plan, and the sum of what they give."""
    columns = (
        (140, -1, "token ids", "(2, 4)", "tok_emb\n(50257, 768)", "(2, 4, 768)", "2.7"),
        (350, 1, "positions 0 to 3", "(4,)", "pos_emb\n(1024, 768)", "(4, 768)", "2.8"),
    )
    for middle, side, name, shape, table, vectors, section in columns:
        drawing.box(name, middle - 70, 10, 140, 34)
        drawing.arrow(middle, 45, middle, 78)
        drawing.text(shape, middle + 10, 60, "start", colour=GREY)
        drawing.box(table, middle - 70, 80, 140, 50, fill=COLOURS["weights"])
        drawing.text(section, middle + side * 90, 105, colour=GREY)
        drawing.arrow(middle, 131, 245 + side * 18, 180)
        drawing.text(vectors, middle + side * 52, 162, colour=GREY)
    drawing.plus(245, 188, 16)
    drawing.text("the sum of both vectors", 290, 196, "start", bold=True)


def _inside_a_block(drawing):
    """Draw the parts of a block beside gpt_plan, with lines from the first block."""
    drawing.text("inside a block", 560, 262, bold=True)
    steps = (
        ("normalization", "4.2"),
        ("attention", "3.6"),
        ("normalization", "4.2"),
        ("feed-forward\nnetwork", "4.3"),
    )
    for number, (name, section) in enumerate(steps):
        top = 284 + 58 * number
        height = 34 if number < 3 else 50
        drawing.box(name, 490, top, 140, height)
        drawing.text(section, 644, top + height / 2, "start", colour=GREY)
        drawing.arrow(560, top + height, 560, top + height + 23)
    drawing.text("around them: shortcuts (4.4)", 560, 546, colour=GREY, size=14)
    dashes = {"stroke": GREY, "stroke_width": 1.2, "stroke_dasharray": "4,4"}
    for y, end in ((310, 276), (336, 532)):
        drawing.append(drawsvg.Line(306, y, 470, end, **dashes))


def _legend(drawing):
    """Say what the colours of gpt_plan mean."""
    note = "grey numbers: shapes, and\nsections that build a part"
    drawing.text(note, 500, 30, "start", colour=GREY)
    meanings = {
        "weights": "weights that you make here",
        "stream": "path of the vectors",
    }
    for number, (kind, meaning) in enumerate(meanings.items()):
        top = 76 + 28 * number
        drawing.append(drawsvg.Rectangle(474, top, 16, 16, fill=COLOURS[kind]))
        drawing.text(meaning, 500, top + 8, "start", colour=GREY)


def layer_norm_axis():
    """Three vectors, normalized one by one, each along its row."""
    drawing = Schematic(316)
    rows = (
        ((2, 4, 4, 10), 5, 3, ("-1", "-0.33", "-0.33", "1.67")),
        ((20, 40, 40, 100), 50, 30, ("-1", "-0.33", "-0.33", "1.67")),
        ((1, 1, 5, 5), 3, 2, ("-1", "-1", "1", "1")),
    )
    drawing.text("the vectors of three tokens", 186, 24, bold=True)
    drawing.text("after layer normalization", 600, 24, bold=True)
    for number, (values, mean, deviation, results) in enumerate(rows):
        top = 46 + 66 * number
        drawing.text(f"token {number}", 66, top + 25, "end", colour=GREY)
        drawing.matrix([values], 76, top, 50, fill=PALE)
        drawing.matrix([results], 502, top, 50, fill=SKY)
        for left in (76, 502):
            frame = {"fill": "none", "stroke": BLUE, "stroke_width": 3}
            drawing.append(drawsvg.Rectangle(left, top, 200, 50, **frame))
        drawing.arrow(286, top + 25, 492, top + 25)
        drawing.text(f"mean {mean}", 388, top + 10, size=14)
        drawing.text(f"standard deviation {deviation}", 388, top + 41, size=14)
    frame = {"fill": "none", "stroke": RED, "stroke_width": 2.5}
    drawing.append(
        drawsvg.Rectangle(80, 38, 42, 208, rx=8, stroke_dasharray="6,4", **frame)
    )
    note = "never down a column: a later token\nwould change an earlier one"
    drawing.text(note, 76, 270, "start", colour=RED)
    note = "each token by itself: mean 0,\nstandard deviation 1"
    drawing.text(note, 602, 270, colour=BLUE)
    return drawing


def greedy_loop():
    """The tokens so far, the model, its logits, the largest of the last row, again."""
    drawing = Schematic(290)
    words = "the", "cat", "sat", "on", "mat", "."
    stream, chosen = COLOURS["stream"], COLOURS["target"]
    drawing.text("tokens so far", 62, 28, bold=True)
    drawing.text("logits: a row for each token", 382, 28, bold=True)
    drawing.text("next token", 652, 28, bold=True)
    drawing.box("the", 22, 84, 80, fill=stream)
    drawing.box("cat", 22, 128, 80, fill=stream)
    drawing.box("sat", 22, 172, 80, fill=chosen)
    drawing.box("model", 150, 80, 74, 88, bold=True)
    for column, word in enumerate(words):
        drawing.text(word, 282 + 40 * column, 62)
    for row, numbers in enumerate(([0, 3, 1, 0, 2, 0], [0, 0, 3, 1, 0, 2])):
        y = 102 + 44 * row
        drawing.arrow(104, y, 148, y)
        drawing.arrow(226, y, 260, y)
        fills = {(0, 2): chosen} if row else {}
        drawing.matrix([numbers], 262, y - 20, 40, fills=fills)
    drawing.text("not needed: the text\nhas its next token", 514, 92, "start", 14, GREY)
    drawing.arrow(502, 146, 610, 146, label="largest", above=False)
    drawing.box("sat", 612, 128, 80, fill=chosen)
    for line in ((652, 164, 652, 238), (652, 238, 62, 238)):
        drawing.append(drawsvg.Line(*line, stroke=BLACK, stroke_width=1.6))
    drawing.arrow(62, 238, 62, 210)
    drawing.text("append it to the tokens, and ask the model again", 357, 260)
    return drawing


def feed_forward():
    """Three tokens, each alone through 768, 3,072 and 768 numbers."""
    drawing = Schematic(300)
    for title, middle in (
        ("768", 102),
        ("3,072", 268),
        ("3,072", 490),
        ("768", 656),
    ):
        drawing.text(f"{title}", middle, 30, bold=True)
    drawing.text("numbers", 14, 30, "start", 14, GREY)
    for row, word in enumerate(("Every", "effort", "moves")):
        top = 62 + 68 * row
        middle = top + 20
        drawing.text(word, 14, middle, "start")
        drawing.box("", 82, top, 40, 40, fill=COLOURS["stream"])
        drawing.arrow(124, middle, 186, middle, label="linear")
        drawing.box("", 188, top, 160, 40)
        drawing.arrow(350, middle, 408, middle, label="GELU")
        drawing.box("", 410, top, 160, 40)
        drawing.arrow(572, middle, 634, middle, label="linear")
        drawing.box("", 636, top, 40, 40, fill=COLOURS["stream"])
    drawing.text(
        "the same weights for each token, and no arrow from one token to another",
        360,
        276,
        colour=GREY,
    )
    return drawing


def shortcut():
    """Three layers that multiply by 0.1, without and with shortcuts, both passes."""
    drawing = Schematic(440)
    red = COLOURS["gradient"]
    panels = (
        ("without shortcuts", 84, ["1", "0.1", "0.01", "0.001"]),
        ("with shortcuts", 290, ["1", "1.1", "1.21", "1.331"]),
    )
    lefts = 16, 224, 432, 640
    for title, y, numbers in panels:
        added = title == "with shortcuts"
        drawing.text(title, 16, y - 52 - 22 * added, "start", bold=True)
        for left, number, gradient in zip(lefts, numbers, numbers[::-1]):
            drawing.box(number, left, y - 18, 62, fill=COLOURS["stream"])
            drawing.text(gradient, left + 31, y + 62, colour=red)
        for left in lefts[:3]:
            drawing.arrow(left + 62, y, left + 88, y)
            drawing.box("· 0.1", left + 90, y - 18, 52)
            back = left + 206, y + 62, left + 66, y + 62
            factor = "· (1 + 0.1)" if added else "· 0.1"
            drawing.arrow(*back, red, factor, dashed=True)
            if not added:
                drawing.arrow(left + 142, y, left + 206, y)
                continue
            plus = left + 174
            drawing.arrow(left + 142, y, plus - 10, y)
            drawing.plus(plus, y, 10)
            drawing.arrow(plus + 10, y, left + 206, y)
            for line in (
                (left + 31, y - 18, left + 31, y - 46),
                (left + 31, y - 46, plus, y - 46),
            ):
                drawing.append(drawsvg.Line(*line, stroke=BLACK, stroke_width=1.6))
            drawing.arrow(plus, y - 46, plus, y - 11)
    drawing.text(
        "solid: forward pass.   Dashed: backward pass. Each gradient says how much\n"
        "the output at the right changes if the number above it changes a little",
        360,
        402,
        colour=GREY,
    )
    return drawing


def transformer_block():
    """The residual stream of a block, and the two parts that add to it."""
    drawing = Schematic(330)
    stream, top, middle = COLOURS["stream"], 62, 82
    drawing.append(drawsvg.Rectangle(14, top, 680, 40, fill=stream))
    drawing.append(
        drawsvg.Lines(694, 50, 694, 114, 718, middle, close=True, fill=stream)
    )
    for name, x in (("x", 30), ("h", 368), ("y", 680)):
        drawing.text(name, x, middle, size=20, bold=True)
    drawing.text("residual stream", 170, middle)
    shape = "at every arrow of this picture: (b, num_tokens, emb_dim)"
    drawing.text(shape, 360, 28, colour=GREY)
    looks = "each token looks at itself\nand at those before it"
    halves = (
        (50, "norm1", "att:\nattention", COLOURS["attention"], looks),
        (388, "norm2", "ff:\nfeed-forward", PALE, "each token\nalone"),
    )
    for left, norm, part, fill, who in halves:
        drawing.arrow(left + 18, top + 40, left + 18, 186)
        drawing.text("read", left + 28, 144, "start", colour=GREY)
        drawing.box(norm, left - 14, 188, 64, 44)
        drawing.arrow(left + 51, 210, left + 74, 210)
        drawing.box(part, left + 76, 184, 104, 52, fill)
        drawing.arrow(left + 181, 210, left + 204, 210)
        drawing.box("dropout", left + 206, 188, 72, 44)
        drawing.arrow(left + 242, 187, left + 242, 97)
        drawing.text("add", left + 232, 144, "end", colour=GREY)
        drawing.plus(left + 242, middle)
        drawing.text(who, left + 128, 258, size=14, colour=GREY)
    drawing.text("first half", 178, 304, bold=True)
    drawing.text("second half", 516, 304, bold=True)
    return drawing


def path_of_a_token():
    """The path of one of three tokens through a block of GPT-2's size, with shapes."""
    drawing = Schematic(480)
    stream = COLOURS["stream"]
    drawing.append(drawsvg.Rectangle(40, 34, 48, 400, fill=stream))
    drawing.append(drawsvg.Lines(28, 434, 100, 434, 64, 462, close=True, fill=stream))
    for name, y in (("x", 56), ("h", 250), ("y", 444)):
        drawing.text(name, 64, y, size=20, bold=True)
    drawing.text("moves", 64, 16, bold=True)
    for y in (56, 250, 430):
        drawing.text("(768,)", 104 if y > 400 else 94, y, "start", 14, GREY)
    _read(drawing, "norm1", 112)
    _attend(drawing)
    _add(drawing, 192, right=679, top=120)
    _read(drawing, "norm2", 310)
    for x, name, shape in (
        (266, "linear", "(768,)"),
        (404, "GELU", "(3072,)"),
        (542, "linear", "(3072,)"),
    ):
        _step(drawing, x, 310, shape)
        drawing.box(name, x, 290, 76, 40)
    _add(drawing, 389, right=580, top=331)
    return drawing


def _attend(drawing):
    """Draw the attention of path_of_a_token, from the normalized vector to out_proj."""
    _step(drawing, 266, 112, "(768,)")
    for row, name in enumerate(("query", "key", "value")):
        drawing.box(name, 266, 72 + 28 * row, 68, 26, COLOURS[name])
    drawing.text("each 12 · (64,)", 300, 166, size=14, colour=GREY)
    for y in (85, 113):
        drawing.arrow(335, y, 372, y)
    drawing.box("weights\n12 · (3,)", 372, 74, 90, 50, COLOURS["attention"])
    line = {"fill": "none", "stroke": BLACK, "stroke_width": 1.6}
    drawing.append(drawsvg.Lines(335, 141, 537, 141, 537, 134, **line))
    drawing.arrow(537, 136, 537, 125)
    for x, name in ((417, "key"), (537, "value")):
        drawing.box(f"{name}s of Every\nand effort", x - 58, 4, 116, 42, COLOURS[name])
        drawing.arrow(x, 47, x, 73)
    drawing.text("each token:\n12 · (64,)", 604, 25, "start", 14, GREY)
    drawing.arrow(463, 99, 492, 99)
    drawing.box("sums\n12 · (64,)", 492, 74, 90, 50)
    _step(drawing, 644, 99, "(768,)")
    drawing.text("joined", 613, 113, size=14, colour=GREY)
    drawing.box("out_proj", 644, 79, 70, 40)


def _read(drawing, norm, y):
    """Draw an arrow from the residual stream to a normalization."""
    drawing.arrow(88, y, 140, y)
    drawing.text("(768,)", 114, y - 13, size=14, colour=GREY)
    drawing.box(norm, 140, y - 20, 64, 40)


def _step(drawing, x, y, shape):
    """Draw an arrow of 62 pixels to x, with a shape above it."""
    drawing.arrow(x - 62, y, x, y)
    drawing.text(shape, x - 33, y - 12, size=14, colour=GREY)


def _add(drawing, y, right, top):
    """Draw an arrow from the last box of a part to a plus on the residual stream."""
    drawing.append(drawsvg.Line(right, top, right, y, stroke=BLACK, stroke_width=1.6))
    drawing.arrow(right, y, 79, y)
    drawing.text("(768,)", 400, y - 12, size=14, colour=GREY)
    drawing.plus(64, y)


def gpt_model():
    """The way of a batch of token ids through a GPT: parts, shapes, what they do."""
    drawing = Schematic(600)
    stream, middle = COLOURS["stream"], 190
    columns = (
        (100, "token ids", "(2, 4)", "tok_emb"),
        (280, "positions", "(4,)", "pos_emb"),
    )
    for x, name, shape, part in columns:
        drawing.text(name, x, 22, bold=True)
        drawing.arrow(x, 34, x, 66)
        drawing.text(shape, x + 10, 48, "start", 14, GREY)
        drawing.box(part, x - 50, 68, 100)
        side = 1 if x < middle else -1
        drawing.append(drawsvg.Line(x, 104, x, 150, stroke=BLACK, stroke_width=1.6))
        drawing.arrow(x, 150, middle - side * 15, 150)
    drawing.text("(2, 4, 768)", 92, 126, "end", 14, GREY)
    drawing.text("(4, 768)", 290, 126, "start", 14, GREY)
    drawing.arrow(middle, 165, middle, 182)
    drawing.plus(middle, 150)
    drawing.box("drop_emb", middle - 50, 183, 100, 34)
    drawing.arrow(middle, 218, middle, 239)
    drawing.append(drawsvg.Rectangle(middle - 24, 240, 48, 208, fill=stream))
    drawing.text("residual\nstream", middle - 36, 336, "end")
    for y, name in ((250, "block 1"), (306, "block 2"), (392, "block 12")):
        drawing.box(name, 274, y, 80, 46)
        drawing.arrow(middle + 24, y + 11, 273, y + 11)
        drawing.arrow(273, y + 35, middle + 12, y + 35)
        drawing.plus(middle, y + 35, 11)
    drawing.text("read", 244, 252, size=14, colour=GREY)
    drawing.text("add", 244, 297, size=14, colour=GREY)
    drawing.text("...", 314, 370, bold=True)
    drawing.box("final_norm", middle - 50, 470, 100, 34)
    drawing.box("out_head", middle - 50, 528, 100, 34)
    for y, end, shape in (
        (448, 469, "(2, 4, 768)"),
        (504, 527, "(2, 4, 768)"),
        (562, 582, ""),
    ):
        drawing.arrow(middle, y, middle, end)
        drawing.text(shape, middle + 12, (y + end) / 2 - 1, "start", 14, GREY)
    drawing.text("logits (2, 4, 50257)", middle + 12, 576, "start", bold=True)
    drawing.text("(2, 4, 768)", middle + 12, 229, "start", 14, GREY)
    _notes(drawing)
    return drawing


def _notes(drawing):
    """Say beside gpt_model what its parts do."""
    notes = (
        (86, "each id and each position: a row of a table"),
        (150, "the same four position vectors for both texts"),
        (200, "dropout, in training only"),
        (326, "trf_blocks: 12 blocks, and each\nreads and adds twice (drawn once)"),
        (487, "normalizes each vector once more"),
        (545, "768 numbers become 50,257 scores"),
    )
    for y, note in notes:
        drawing.text(note, 384, y, "start", 14)


def weight_tying():
    """One table of four rows, read by an id and multiplied with a final vector."""
    drawing = Schematic(320)
    words, rows = ("the", "cat", "sat", "on"), [[2, 0], [0, 1], [1, 1], [-1, 2]]
    final = [1, 3]
    scores = [sum(a * b for a, b in zip(row, final)) for row in rows]
    chosen, stream = COLOURS["target"], COLOURS["stream"]
    drawing.text("at the beginning: look up", 130, 24, bold=True)
    drawing.text("one table", 340, 24, bold=True)
    drawing.text("at the end: compare", 570, 24, bold=True)
    fills = {(1, 0): stream, (1, 1): stream}
    drawing.matrix(rows, 300, 102, 40, fills=fills, shape="(4, 2)")
    for row, word in enumerate(words):
        drawing.text(word, 292, 122 + 40 * row, "end")
    drawing.box("id of cat: 1", 14, 136, 100)
    drawing.arrow(115, 154, 260, 154, label="read row 1")
    line = {"fill": "none", "stroke": BLACK, "stroke_width": 1.6}
    drawing.append(drawsvg.Lines(260, 170, 250, 170, 250, 244, 180, 244, **line))
    drawing.arrow(182, 244, 168, 244)
    drawing.matrix([rows[1]], 86, 224, 40, fill=stream)
    drawing.text("vector of cat", 126, 278)
    drawing.matrix([final], 446, 48, 40, fill=PALE)
    drawing.text("final vector", 536, 68, "start")
    drawing.arrow(486, 89, 486, 103)
    drawing.box("dot product\nwith each\nrow", 440, 104, 92, 156)
    fills = {(3, 0): chosen}
    drawing.matrix([[score] for score in scores], 590, 102, 40, fills=fills)
    for row, word in enumerate(words):
        y = 122 + 40 * row
        drawing.arrow(382, y, 439, y)
        drawing.arrow(533, y, 588, y)
        drawing.text(word, 638, y, "start")
    drawing.text("logits", 610, 276, colour=GREY)
    drawing.text("on: -1 · 1 + 2 · 3 = 5", 610, 302)
    return drawing
