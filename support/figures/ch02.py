"""The schematics of chapter 2."""

import math

import drawsvg

from support.figures.kit import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    RED,
    SKY,
    YELLOW,
    Schematic,
    ink_on,
)


def tensors():
    """A number, a vector, a matrix and a tensor of three dimensions."""
    drawing = Schematic(220)
    drawing.matrix([[7]], 50, 80, title="number", shape="shape ()", fill=SKY)
    drawing.matrix([[1, 2, 3]], 130, 80, title="vector", shape="shape (3,)", fill=SKY)
    rows = [[1, 2, 3], [4, 5, 6]]
    drawing.matrix(rows, 335, 62, title="matrix", shape="shape (2, 3)", fill=SKY)
    drawing.arrow(325, 62, 325, 134, GREY)
    drawing.text("dim 0", 296, 98, colour=GREY)
    drawing.arrow(335, 170, 443, 170, GREY)
    drawing.text("dim 1", 389, 188, colour=GREY)
    back = [[7, 8, 9], [10, 11, 12]]
    drawing.matrix(back, 590, 44, fill=PALE, title="three dimensions")
    drawing.matrix(rows, 540, 118, fill=SKY, shape="shape (2, 2, 3)")
    drawing.arrow(546, 113, 584, 72, GREY)
    drawing.text("dim 0", 536, 84, colour=GREY)
    return drawing


def matrix_multiplication():
    """How one number of a product comes from a row and a column."""
    drawing = Schematic(230)
    left = [[1, 2, 3], [4, 5, 6]]
    right = [[1, 0], [0, 2], [1, 1]]
    fills = {(1, column): ORANGE for column in range(3)}
    drawing.matrix(left, 60, 78, title="A", shape="(2, 3)", fills=fills)
    drawing.text("@", 195, 114, size=22)
    fills = {(row, 1): SKY for row in range(3)}
    drawing.matrix(right, 225, 60, title="B", shape="(3, 2)", fills=fills)
    drawing.text("=", 325, 114, size=22)
    product = [[4, 7], [10, 16]]
    drawing.matrix(
        product, 355, 78, title="A @ B", shape="(2, 2)", fills={(1, 1): YELLOW}
    )
    drawing.arrow(470, 132, 432, 132)
    drawing.text("row 1 of A times column 1 of B:", 478, 120, anchor="start")
    drawing.text("4·0 + 5·2 + 6·1 = 16", 478, 144, anchor="start", bold=True)
    return drawing


def backpropagation():
    """The forward pass of one weight and its error, and the gradients going back."""
    drawing = Schematic(270)
    names = "w", "· x", "- y", "squared"
    lefts = 30, 188, 346, 504
    for name, left in zip(names, lefts):
        drawing.box(name, left, 105, 90, 44, fill=BLUE if name == "w" else PALE)
    for left, value in zip(lefts, ("2", "6", "5", "25")):
        drawing.arrow(left + 90, 120, left + 156, 120, label=value)
    drawing.text("loss", 692, 129, bold=True)
    for left, slope in zip(lefts[1:], ("3", "1", "2 · 5 = 10")):
        drawing.text(f"slope {slope}", left + 45, 172, colour=GREY)
    for left, gradient in zip(reversed(lefts), ("1", "10", "10", "30")):
        drawing.arrow(left + 156, 138, left + 92, 138, RED, label=gradient, above=False)
    drawing.text("forward pass: x = 3 and y = 1", 30, 50, "start")
    backward = "backward pass: the slopes are multiplied, 10 · 1 · 3 = 30"
    drawing.text(backward, 30, 225, "start", colour=RED)
    return drawing


def training_loop():
    """The four things that one training step does, over and over."""
    drawing = Schematic(280)
    drawing.box("take a batch", 70, 40, 160, 50, fill=SKY)
    drawing.box("forward pass:\nprediction and loss", 450, 30, 200, 70)
    drawing.box(
        "backward pass:\na gradient for\neach parameter", 450, 170, 200, 90, fill=RED
    )
    step = "step: subtract learning\nrate · gradient from\neach parameter, then\n"
    drawing.box(
        f"{step}clear the gradients",
        40,
        165,
        220,
        100,
        fill=BLUE,
    )
    drawing.arrow(232, 65, 446, 65, label="inputs and targets")
    drawing.arrow(550, 102, 550, 166)
    drawing.arrow(446, 215, 264, 215, label="gradients")
    drawing.arrow(150, 163, 150, 94)
    drawing.text("again, with\nthe next batch", 165, 122, "start")
    return drawing


def word_points():
    """Four words with two invented numbers each, in a table and as points."""
    drawing = Schematic(290)
    words = {
        "sea": (1.0, 3.6),
        "tide": (1.5, 3.1),
        "four": (4.0, 0.9),
        "seven": (4.5, 1.4),
    }
    table = [[f"{x:.1f}", f"{y:.1f}"] for x, y in words.values()]
    picked = {number: SKY if number < 2 else YELLOW for number in range(4)}
    fills = {(row, column): picked[row] for row in picked for column in range(2)}
    drawing.matrix(table, 130, 80, 44, fills=fills)
    drawing.text("two numbers for each word", 180, 40, bold=True)
    for row, word in enumerate(words):
        drawing.text(word, 118, 102 + 44 * row, "end")
    left, bottom, unit = 370, 245, 50
    drawing.arrow(left, bottom, left + 290, bottom, GREY)
    drawing.arrow(left, bottom, left, 45, GREY)
    drawing.text("first number", left + 145, bottom + 24, colour=GREY)
    drawing.text("second\nnumber", left - 14, 66, "end", colour=GREY)
    for row, (word, (x, y)) in enumerate(words.items()):
        across, down = left + unit * x, bottom - unit * y
        drawing.append(drawsvg.Circle(across, down, 7, fill=picked[row], stroke=BLACK))
        drawing.text(word, across + 14, down, "start")
    return drawing


def word_arrows():
    """Counts of four words as arrows, and the cosine similarity of two of them."""
    drawing = Schematic(390)
    left, bottom, unit = 80, 325, 42
    for number in range(9):
        across = left + unit * number
        drawing.append(
            drawsvg.Line(across, bottom, across, bottom - 6.4 * unit, stroke=PALE)
        )
        drawing.text(str(number), across, bottom + 16, size=14, colour=GREY)
        if 0 < number < 7:
            down = bottom - unit * number
            drawing.append(
                drawsvg.Line(left, down, left + 8.4 * unit, down, stroke=PALE)
            )
            drawing.text(str(number), left - 14, down, size=14, colour=GREY)
    drawing.text("times after “the”", left + 4 * unit, bottom + 44)
    drawing.text("times after “high”", left - 50, 30, "start")
    arrows = {
        "water (8, 6)": (8, 6, SKY, 0, -14, "middle"),
        "tide (4, 3)": (4, 3, BLUE, 12, 12, "start"),
        "chair (5, 0)": (5, 0, RED, 0, -16, "middle"),
        "noon (0, 5)": (0, 5, GREEN, 10, -10, "start"),
    }
    for name, (x, y, colour, right, down, anchor) in arrows.items():
        tip = left + unit * x, bottom - unit * y
        drawing.arrow(left, bottom, *tip, colour)
        drawing.text(name, tip[0] + right, tip[1] + down, anchor, bold=True)
    lines = {
        80: ("tide and chair", True),
        112: ("dot product:", False),
        134: ("4·5 + 3·0 = 20", False),
        166: ("length of tide: √(4² + 3²) = 5", False),
        188: ("length of chair: √(5² + 0²) = 5", False),
        220: ("cosine similarity:", False),
        242: ("20 / (5 · 5) = 0.8", True),
    }
    for down, (line, bold) in lines.items():
        drawing.text(line, 480, down, "start", bold=bold)
    return drawing


def neighbours():
    """A sentence, and the counts of the neighbours of two of its words."""
    drawing = Schematic(310)
    sentence = ["the", "sea", "is", "high", "and", "the", "tide", "is", "low"]
    for number, word in enumerate(sentence):
        fill = PALE
        if word in ("sea", "tide"):
            fill = YELLOW
        elif "sea" in sentence[number + 1 : number + 2] or number == 5:
            fill = SKY
        elif word == "is":
            fill = ORANGE
        drawing.box(word, 47 + 70 * number, 20, 66, fill=fill)
    for number in (0, 5):
        drawing.text("left", 80 + 70 * number, 72, colour=GREY)
        drawing.text("right", 220 + 70 * number, 72, colour=GREY)
    distinct, cell, left = sorted(set(sentence)), 43, 70
    drawing.text("how often left of it", left + 3.5 * cell, 124, bold=True)
    drawing.text("how often right of it", left + 10.5 * cell, 124, bold=True)
    for column in range(14):
        middle = left + cell * (column + 0.5)
        drawing.text(distinct[column % 7], middle, 152, size=14, colour=GREY)
    for row, word in enumerate(("sea", "tide")):
        top = 168 + 58 * row
        counts = [[int(column in (5, 9)) for column in range(14)]]
        drawing.text(word, left - 10, top + cell / 2, "end", bold=True)
        drawing.matrix(counts, left, top, cell, fills={(0, 5): SKY, (0, 9): ORANGE})
        middle = left + 7 * cell
        drawing.append(
            drawsvg.Line(middle, top, middle, top + cell, stroke=BLACK, stroke_width=3)
        )
    drawing.text("Both words get the same vector of 14 numbers.", 371, 290)
    return drawing


def one_hot():
    """A one-hot vector times a table is one row of the table."""
    drawing = Schematic(300)
    one_hot_row = [[0, 0, 1, 0]]
    table = [["0.2", "0.7"], ["-1.1", "0.4"], ["0.5", "-0.3"], ["0.9", "0.1"]]
    fills = {(0, 2): SKY}
    drawing.matrix(
        one_hot_row, 40, 124, title="one-hot vector", shape="(1, 4)", fills=fills
    )
    drawing.text("@", 212, 142, size=22)
    fills = {(2, column): SKY for column in range(2)}
    drawing.matrix(table, 294, 54, 44, title="table", shape="(4, 2)", fills=fills)
    for row in range(4):
        drawing.text(f"row {row}", 284, 76 + 44 * row, "end", colour=GREY)
    drawing.text("=", 404, 142, size=22)
    drawing.matrix(
        [["0.5", "-0.3"]], 430, 120, 44, title="row 2", shape="(1, 2)", fill=SKY
    )
    drawing.text(
        "The zeros remove\nall other rows.\nReading row 2\ngives the same.",
        550,
        112,
        "start",
    )
    sums = "first number:  0 · 0.2 + 0 · (-1.1) + 1 · 0.5 + 0 · 0.9 = 0.5"
    drawing.text(sums, 360, 276)
    return drawing


def tokens_to_vectors():
    """A text is cut into tokens; each gets an id, and each id a vector."""
    drawing = Schematic(320)
    tokens, ids = ["the", "tide", "is", "low"], [5, 6, 2, 3]
    vectors = ["0.3 -0.8", "1.1 0.2", "-0.5 0.9", "0.7 0.4"]
    drawing.box("the tide is low", 320, 15, 240, 36)
    rows = (("tokens", 85), ("token ids", 165), ("vectors", 245))
    labels = (
        ("cut the text", 66),
        ("look up in the vocabulary", 146),
        ("read the row of the table", 226),
    )
    for (name, top), (label, middle) in zip(rows, labels):
        drawing.text(name, 30, top + 18, "start", bold=True)
        drawing.text(label, 30, middle, "start", colour=GREY)
    for number, numbers in enumerate(map(str.split, vectors)):
        middle = 260 + 120 * number
        drawing.arrow(440, 52, middle, 83)
        drawing.box(tokens[number], middle - 40, 85, 80, fill=SKY)
        drawing.arrow(middle, 121, middle, 163)
        drawing.box(str(ids[number]), middle - 40, 165, 80, fill=ORANGE)
        drawing.arrow(middle, 201, middle, 243)
        drawing.box(numbers[0], middle - 50, 245, 50, fill=GREEN)
        drawing.box(numbers[1], middle, 245, 50, fill=GREEN)
        drawing.text(f"row {ids[number]}", middle, 297, colour=GREY)
    return drawing


def encode_and_decode():
    """A vocabulary of seven tokens, and what it makes of a sentence."""
    drawing = Schematic(300)
    tokens = ["the", "sea", "is", "high", ",", "the", "tide", "is", "low"]
    vocab = sorted(set(tokens))
    rows = (("tokens", 38), ("vocabulary", 148), ("token ids", 262))
    for name, middle in rows:
        drawing.text(name, 16, middle, "start", bold=True)
    for number, token in enumerate(tokens):
        left = 126 + 65 * number
        drawing.box(token, left, 20, 59, fill=SKY)
        drawing.box(str(vocab.index(token)), left, 244, 59, fill=ORANGE)
    for token_id, token in enumerate(vocab):
        left = 166 + 72 * token_id
        drawing.box(token, left, 112, 66, fill=SKY)
        drawing.box(str(token_id), left, 148, 66, fill=ORANGE)
    # "high" on its way down, and the id of "tide" on its way up
    drawing.arrow(350, 57, 271, 110)
    drawing.arrow(271, 185, 350, 242)
    drawing.text("encode: look up the\nid of each token", 272, 74, "end")
    drawing.arrow(545, 243, 631, 186, dashed=True)
    drawing.arrow(631, 111, 545, 58, dashed=True)
    drawing.text("decode: look up the\ntoken of each id", 540, 205, "end")
    return drawing


def splitting():
    """Where a sentence is cut, and which pieces are kept as tokens."""
    drawing = Schematic(220)
    pieces = ["High", " ", "water", ",", " ", "at", " ", "nine", "."]
    widths = [70, 30, 80, 30, 30, 50, 30, 70, 30]
    drawing.box("High water, at nine.", 120, 15, 516, fill=PALE)
    left = 120
    for piece, width in zip(pieces, widths):
        is_space = piece == " "
        middle = left + width / 2
        fill = "white" if is_space else SKY
        drawing.box("" if is_space else piece, left, 90, width, fill=fill)
        drawing.arrow(middle, 54, middle, 87, GREY)
        if is_space:
            drawing.text("×", middle, 108, size=22, colour=RED, bold=True)
        else:
            drawing.arrow(middle, 128, middle, 161)
            drawing.box(piece, left, 164, width, fill=SKY)
        left += width + 12
    for name, top in (("text", 33), ("pieces", 108), ("tokens", 182)):
        drawing.text(name, 30, top, "start", bold=True)
    drawing.text("× a space", 650, 108, "start", size=14, colour=RED)
    return drawing


def pattern():
    """The parts of the pattern that cuts a text into words and marks."""
    drawing = Schematic(240)
    parts = [
        ("(", 36, PALE),
        ("[,.:;?_!\"()']", 180, SKY),
        ("|", 36, PALE),
        ("--", 60, ORANGE),
        ("|", 36, PALE),
        ("\\s", 60, GREEN),
        (")", 36, PALE),
    ]
    left, middles = 75, []
    for text, width, fill in parts:
        middle = left + width / 2
        drawing.box("", left, 70, width, 44, fill=fill)
        colour = ink_on(fill)
        drawing.text(text, middle, 92, size=19, colour=colour, bold=True)
        middles.append(middle)
        left += width + 20
    drawing.text("or", middles[2], 50, colour=GREY)
    drawing.text("or", middles[4], 50, colour=GREY)
    notes = {
        1: "one of\nthese marks",
        3: "a dash of\ntwo hyphens",
        5: "a space or another\nwhite-space character",
    }
    for number, note in notes.items():
        middle = middles[number]
        drawing.arrow(middle, 146, middle, 118, GREY)
        drawing.text(note, middle, 160)
    drawing.arrow(middles[0], 205, middles[0], 118, GREY)
    keep = "( ) the outer parentheses: keep what was cut out, as a piece of its own"
    drawing.text(keep, middles[0] - 10, 220, "start")
    return drawing


def special_tokens():
    """Two texts in one row of tokens: one token between them, one for a new word."""
    drawing = Schematic(230)
    texts = ["The", "tide", "turned", "."], ["Tea", "is", "hot", "."]
    widths = [46, 50, 64, 26], [46, 36, 68, 26]
    drawing.text("texts", 16, 63, "start", bold=True)
    drawing.text("tokens", 16, 153, "start", bold=True)
    for number, left in enumerate((92, 456)):
        drawing.text(f"text {number + 1}", left + 110, 24, colour=GREY)
        for word, width in zip(texts[number], widths[number]):
            token = "<|unk|>" if word == "hot" else word
            fill = YELLOW if word == "hot" else SKY
            drawing.box(word, left, 45, width, fill=PALE)
            drawing.arrow(left + width / 2, 83, left + width / 2, 133)
            drawing.box(token, left, 135, width, fill=fill)
            left += width + 8
    drawing.box("<|endoftext|>", 320, 135, 120, fill=ORANGE)
    drawing.text("here one text ends\nand another begins", 380, 190)
    drawing.text("hot is not in\nthe vocabulary", 590, 190)
    return drawing


def text_as_bytes():
    """A text, and the bytes that UTF-8 writes for each of its characters."""
    drawing = Schematic(190)
    drawing.text("text", 20, 48, "start", bold=True)
    drawing.text("bytes", 20, 138, "start", bold=True)
    left = 100
    for character in "tide é€":
        values = list(character.encode())
        width = 46 * len(values)
        shown = "space" if character == " " else character
        drawing.box(shown, left, 30, max(width, 54), fill=SKY)
        middle = left + max(width, 54) / 2
        drawing.arrow(middle, 68, middle, 116)
        for number, value in enumerate(values):
            place = middle - width / 2 + 46 * number
            drawing.box(str(value), place, 118, 46, 40, fill=ORANGE)
        left += max(width, 54) + 8
    return drawing


def one_merge():
    """The most frequent pair of four words becomes a new token."""
    drawing = Schematic(300)
    words = ["tide", "tide", "tides", "time"]
    pairs = [("t i", 4), ("i d", 3), ("d e", 3), ("e s", 1), ("i m", 1), ("m e", 1)]
    for title, top in (("before", 30), ("after", 226)):
        drawing.text(title, 20, top + 18, "start", bold=True)
        left = 96
        for word in words:
            tokens = ["ti", *word[2:]] if title == "after" else list(word)
            for token in tokens:
                is_new = token == "ti" or (title == "before" and token in "ti")
                width = 32 * len(token)
                fill = ORANGE if is_new else SKY
                drawing.box(token, left, top, width, fill=fill)
                left += width
            left += 16
    drawing.text("count the\npairs", 20, 118, "start", bold=True)
    for number, (pair, count) in enumerate(pairs):
        left = 96 + 100 * number
        fill = YELLOW if number == 0 else PALE
        drawing.box(f"{pair}\n{count} times", left, 104, 88, 54, fill, number == 0)
    drawing.arrow(140, 162, 140, 222)
    note = "The most frequent pair becomes one token, ti, in every word."
    drawing.text(note, 160, 192, "start")
    return drawing


def lowest_id_first():
    """Two orders of merging the word tin, of which one repeats the training."""
    drawing = Schematic(250)
    drawing.text("merges, in the order of learning", 20, 24, "start", bold=True)
    for number, (pair, token) in enumerate((("i n", "in"), ("t i", "ti"))):
        left = 20 + 190 * number
        drawing.box(pair, left, 44, 52, fill=SKY)
        drawing.arrow(left + 54, 62, left + 84, 62)
        fill = ORANGE if number == 0 else YELLOW
        drawing.box(f"{token}: {256 + number}", left + 86, 44, 84, fill=fill)
    ways = (
        ("lowest id first", ["t", "in"], ORANGE, "as in training: 256 came first"),
        ("from the left", ["ti", "n"], YELLOW, "not as in training"),
    )
    for number, (name, tokens, fill, note) in enumerate(ways):
        top = 118 + 70 * number
        drawing.text(name, 20, top + 18, "start", bold=True)
        for place, letter in enumerate("tin"):
            drawing.box(letter, 150 + 36 * place, top, 36, fill=SKY)
        drawing.arrow(264, top + 18, 318, top + 18)
        left = 324
        for token in tokens:
            width = 36 * len(token)
            drawing.box(token, left, top, width, fill=fill if width > 36 else SKY)
            left += width
        drawing.text(note, 450, top + 18, "start", colour=GREY)
    return drawing


def words_with_a_pair():
    """Which words a merge has to change, looked up by the pair."""
    drawing = Schematic(290)
    words = ["tide", "tides", "time", "the", "sea"]
    drawing.text("holders", 20, 24, "start", bold=True)
    drawing.text("different words", 330, 24, "start", bold=True)
    pairs = (("t i", (0, 1, 2)), ("i d", (0, 1)), ("s e", (4,)))
    for number, (pair, _) in enumerate(pairs):
        fill = YELLOW if number == 0 else PALE
        drawing.box(pair, 30, 60 + 70 * number, 64, fill=fill)
    drawing.text("...", 62, 258)
    for number, word in enumerate(words):
        top = 42 + 48 * number
        has_pair = number in pairs[0][1]
        for place, letter in enumerate(word):
            is_pair = has_pair and place < 2
            fill = YELLOW if is_pair else SKY
            drawing.box(letter, 330 + 34 * place, top, 34, fill=fill)
        if has_pair:
            drawing.arrow(98, 78, 324, top + 18)
        note = "changes" if has_pair else "is not looked at"
        colour = BLACK if has_pair else GREY
        drawing.text(note, 520, top + 18, "start", colour=colour)
    return drawing


def linked_spans():
    """One merge in a word, and the only two pairs that it makes possible."""
    drawing = Schematic(310)
    titles = (("before", 64), ("merge", 144), ("after", 224))
    for title, middle in titles:
        drawing.text(title, 20, middle, "start", bold=True)
    left = 130
    for place, letter in enumerate("watery"):
        drawing.text(str(place), left + 40, 24, colour=GREY)
        fill = YELLOW if letter in "te" else SKY
        drawing.box(letter, left, 44, 80, 40, fill=fill)
        left += 86
    drawing.arrow(342, 86, 362, 122)
    drawing.arrow(428, 86, 408, 122)
    drawing.text("t and e become te", 385, 144)
    drawing.arrow(385, 162, 385, 200)
    left = 130
    for token in ("w", "a", "te", "r", "y"):
        width = 80 + 86 * (len(token) - 1)
        fill = ORANGE if token == "te" else SKY
        drawing.box(token, left, 204, width, 40, fill=fill)
        left += width + 6
    for start, end, pair in ((256, 379, "a te"), (391, 514, "te r")):
        drawing.append(drawsvg.Line(start, 254, end, 254, stroke=RED, stroke_width=3))
        drawing.text(f"new pair: {pair}", (start + end) / 2, 274, colour=RED)
    return drawing


def window():
    """A window of four tokens, its target one token further, and what to predict."""
    drawing = Schematic(340)
    tokens = ["The", "tide", "is", "low", "at", "noon", "."]
    for number, token in enumerate(tokens):
        left = 110 + 80 * number
        drawing.text(str(number), left + 37, 14, colour=GREY)
        drawing.box(token, left, 28, 74, fill=PALE)
        if number < 4:
            drawing.box(token, left, 90, 74, fill=SKY)
            drawing.arrow(left + 50, 127, left + 102, 151)
        if 1 <= number < 5:
            drawing.box(token, left, 152, 74, fill=ORANGE)
    for name, middle in (("text", 46), ("input", 108), ("target", 170)):
        drawing.text(name, 20, middle, "start", bold=True)
    note = "Arrows lead from a token to\nthe token that follows it."
    drawing.text(note, 520, 106, "start", colour=GREY)
    drawing.text("four\npredictions", 20, 258, "start", bold=True)
    for number in range(4):
        top = 214 + 30 * number
        for place in range(number + 1):
            drawing.box(tokens[place], 120 + 66 * place, top, 62, 26, fill=SKY)
        drawing.arrow(388, top + 13, 424, top + 13)
        drawing.box(tokens[number + 1], 430, top, 62, 26, fill=ORANGE)
    drawing.text(
        "The context grows,\nand the target is\nthe next token.",
        520,
        252,
        "start",
        colour=GREY,
    )
    return drawing


def batches():
    """A dataset of five windows, and the batches of two that a data loader makes."""
    drawing = Schematic(290)
    for left, side in (
        (50, "dataset: five windows"),
        (450, "data loader: batches of 2"),
    ):
        drawing.text(side, left, 14, "start", bold=True)
        drawing.text("input", left + 60, 40, colour=GREY)
        drawing.text("target", left + 190, 40, colour=GREY)
    rights = {3: 54, 0: 84, 4: 142, 1: 172, 2: 230}  # where each window arrives
    for number in range(5):
        top, right = 54 + 44 * number, rights[number]
        drawing.text(str(number), 30, top + 15, bold=True)
        drawing.arrow(304, top + 15, 444, right + 15, GREY)
        for shift, fill in ((0, SKY), (1, ORANGE)):
            row = [10 + 4 * number + shift + i for i in range(4)]
            drawing.matrix([row], 50 + 130 * shift, top, 30, fill=fill)
            drawing.matrix([row], 450 + 130 * shift, right, 30, fill=fill)
    for note, middle in (
        ("batch 0: two tensors of shape (2, 4)", 128),
        ("batch 1: two tensors of shape (2, 4)", 216),
        ("one window is left over", 274),
    ):
        drawing.text(note, 575, middle, colour=GREY)
    return drawing


def embedding_table():
    """Three ids read three rows of the embedding table."""
    drawing = Schematic(300)
    table = [
        [f"{((7 * r + 3 * c) % 10 - 4) / 10:.1f}" for c in range(4)] for r in range(5)
    ]
    picked = {3: SKY, 0: ORANGE}
    fills = {(r, c): colour for r, colour in picked.items() for c in range(4)}
    title, shape = "embedding table", "(vocab_size, output_dim) = (5, 4)"
    drawing.matrix(table, 250, 50, 42, title=title, shape=shape, fills=fills)
    for row in range(5):
        drawing.text(f"row {row}", 242, 71 + 42 * row, "end", colour=GREY)
    ids = [3, 0, 3]
    for number, token_id in enumerate(ids):
        top = 50 + 60 * number
        drawing.box(str(token_id), 50, top, 44, fill=picked[token_id])
        drawing.arrow(96, top + 18, 192, 50 + 42 * token_id + 21, GREY)
        drawing.matrix([table[token_id]], 520, top, 42, fill=picked[token_id])
        drawing.arrow(420, 50 + 42 * token_id + 21, 516, top + 21, GREY)
    drawing.text("token ids (3,)", 72, 28, bold=True)
    drawing.text("vectors (3, 4)", 604, 28, bold=True)
    return drawing


def embedding_gradient():
    """The gradients of three vectors are added to the rows that they came from."""
    drawing = Schematic(310)
    token_ids, picked = [3, 0, 3], {3: SKY, 0: ORANGE}
    arriving = [["0.1", "0.2", "-0.3"], ["0.4", "0.0", "0.1"], ["0.2", "-0.1", "0.5"]]
    table = [["0.0"] * 3 for _ in range(5)]
    table[0], table[3] = arriving[1], ["0.3", "0.1", "0.2"]
    fills = {(r, c): colour for r, colour in picked.items() for c in range(3)}
    title, shape = "gradient of the table", "(vocab_size, output_dim) = (5, 3)"
    drawing.matrix(table, 110, 60, 42, title=title, shape=shape, fills=fills)
    for row in range(5):
        drawing.text(f"row {row}", 100, 81 + 42 * row, "end", colour=GREY)
    for number, token_id in enumerate(token_ids):
        top = 60 + 72 * number
        drawing.matrix([arriving[number]], 440, top, 42, fill=picked[token_id])
        drawing.text(f"token {token_id}", 580, top + 21, "start")
        drawing.arrow(436, top + 21, 240, 81 + 42 * token_id, RED)
    drawing.text("gradients of the three vectors", 503, 34, bold=True)
    drawing.text(
        "Token 3 occurs twice: the two\ngradients are added in row 3.",
        430,
        270,
        "start",
    )
    return drawing


def token_plus_position():
    """Each token's vector and its position's vector are added."""
    drawing = Schematic(310)
    tokens = ["the", "tide", "the"]
    token_rows = [["0.2", "-0.1"], ["0.9", "0.4"], ["0.2", "-0.1"]]
    position_rows = [["0.5", "0.0"], ["0.1", "0.3"], ["-0.2", "0.6"]]
    sums = [["0.7", "-0.1"], ["1.0", "0.7"], ["0.0", "0.5"]]
    for number, token in enumerate(tokens):
        top = 60 + 82 * number
        drawing.box(token, 40, top, 74, 44, fill=PALE)
        drawing.matrix([token_rows[number]], 150, top, 44, fill=SKY)
        drawing.text("+", 262, top + 22, size=22)
        drawing.matrix([position_rows[number]], 290, top, 44, fill=ORANGE)
        drawing.text(f"position {number}", 334, top + 58, colour=GREY)
        drawing.text("=", 404, top + 22, size=22)
        drawing.matrix([sums[number]], 430, top, 44, fill=GREEN)
    for title, middle in (
        ("token", 194),
        ("position", 334),
        ("input of the model", 490),
    ):
        drawing.text(title, middle, 35, bold=True)
    drawing.text(
        "“the” comes twice,\nwith two different\nvectors",
        550,
        145,
        "start",
        colour=GREY,
    )
    return drawing


def clock_hands():
    """Four hands that turn at different speeds, at six positions."""
    drawing = Schematic(500)
    drawing.text("position", 16, 28, "start", bold=True)
    for column, position in enumerate((0, 1, 2, 3, 10, 100)):
        across = 185 + 98 * column
        drawing.text(str(position), across, 28, bold=True)
        for row, frequency in enumerate((1, 0.1, 0.01, 0.001)):
            down = 76 + 112 * row
            angle = position * frequency
            right, up = math.sin(angle), math.cos(angle)
            dial = drawsvg.Circle(across, down, 28, fill=PALE, stroke=GREY)
            drawing.append(dial)
            tip = across + 26 * right, down - 26 * up
            drawing.arrow(across, down, *tip)
            drawing.text(f"{right:.2f}, {up:.2f}", across, down + 44, size=14)
    for row, frequency in enumerate(("1", "0.1", "0.01", "0.001")):
        down = 66 + 112 * row
        drawing.text(f"pair {row}", 16, down, "start", bold=True)
        drawing.text(
            f"turns by {frequency}\nper position", 16, down + 20, "start", size=14
        )
    return drawing


def gpt_input():
    """The shapes of the input of a GPT: tokens, positions and their sum."""
    drawing = Schematic(300)

    def cards(left, top, count, fill, shape):
        """Draw a stack of windows, each a table of 4 rows, and its shape below."""
        for number in range(count)[::-1]:
            drawing.matrix(
                [[""] * 4 for _ in range(4)],
                left + 8 * number,
                top - 8 * number,
                18,
                fill=fill,
            )
        drawing.text(shape, left + 44, top + 88, colour=GREY)

    rows = (
        (
            80,
            "token ids",
            "input_batch\n(8, 4)",
            "token_\nembedding_layer\n(50257, 256)",
        ),
        (210, "positions", "0, 1, 2, 3\n(4,)", "pos_\nembedding_layer\n(4, 256)"),
    )
    for top, name, ids, layer in rows:
        drawing.text(name, 70, top - 22, bold=True)
        drawing.box(ids, 16, top - 6, 108, 50, fill=PALE)
        drawing.arrow(126, top + 19, 158, top + 19)
        drawing.box(layer, 160, top - 20, 140, 78, fill=BLUE)
        drawing.arrow(302, top + 19, 334, top + 19)
    cards(342, 54, 3, SKY, "(8, 4, 256)")
    cards(342, 184, 1, ORANGE, "(4, 256)")
    drawing.arrow(444, 90, 500, 132)
    drawing.arrow(420, 220, 500, 150)
    drawing.text("+", 518, 141, size=26)
    drawing.arrow(536, 141, 568, 141)
    cards(578, 112, 3, GREEN, "(8, 4, 256)")
    drawing.text("input_embeddings", 622, 70, bold=True)
    note = "drawn: 3 of the 8 windows, 4 of the 256 columns"
    drawing.text(note, 430, 22, size=14, colour=GREY)
    drawing.text(
        "the same four position\nvectors for each window", 560, 242, colour=GREY
    )
    return drawing
