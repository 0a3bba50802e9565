"""The schematics of chapter 2."""

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
    drawing.matrix(back, 570, 44, fill=PALE)
    drawing.matrix(rows, 540, 74, fill=SKY, shape="shape (2, 2, 3)")
    drawing.text("three dimensions", 610, 28, bold=True)
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


def one_hot():
    """A one-hot vector times a table is one row of the table."""
    drawing = Schematic(270)
    one_hot_row = [[0, 0, 1, 0]]
    table = [["0.2", "0.7"], ["-1.1", "0.4"], ["0.5", "-0.3"], ["0.9", "0.1"]]
    drawing.matrix(
        one_hot_row,
        50,
        108,
        title="one-hot vector",
        shape="(1, 4)",
        fills={(0, 2): SKY},
    )
    drawing.text("@", 222, 126, size=22)
    fills = {(2, column): SKY for column in range(2)}
    drawing.matrix(table, 250, 54, 44, title="table", shape="(4, 2)", fills=fills)
    drawing.text("=", 366, 126, size=22)
    drawing.matrix(
        [["0.5", "-0.3"]], 395, 104, 44, title="row 2", shape="(1, 2)", fill=SKY
    )
    drawing.text(
        "The zeros remove\nall rows but one.\nReading row 2 gives\nthe same.",
        510,
        97,
        "start",
    )
    return drawing


def tokens_to_vectors():
    """A text is cut into tokens; each gets an id, and each id a vector."""
    drawing = Schematic(330)
    tokens, ids = ["The", "tide", "is", "low", "."], [3, 4, 1, 2, 0]
    vectors = ["0.3 -0.8", "1.1 0.2", "-0.5 0.9", "0.7 0.4", "0.0 -0.1"]
    drawing.box("The tide is low.", 250, 15, 330, 36)
    rows = (("tokens", 85), ("token ids", 165), ("vectors", 245))
    labels = (
        ("cut the text", 66),
        ("look up in the vocabulary", 146),
        ("read the row of the table", 226),
    )
    for (name, top), (label, middle) in zip(rows, labels):
        drawing.text(name, 30, top + 18, "start", bold=True)
        drawing.text(label, 30, middle, "start", colour=GREY)
    for number in range(5):
        left = 225 + 96 * number
        drawing.box(tokens[number], left, 85, 80, fill=SKY)
        drawing.arrow(left + 40, 121, left + 40, 163)
        drawing.box(str(ids[number]), left, 165, 80, fill=ORANGE)
        drawing.arrow(left + 40, 201, left + 40, 243)
        drawing.box(vectors[number].replace(" ", "\n"), left, 245, 80, 52, fill=GREEN)
    drawing.arrow(415, 52, 415, 83)
    return drawing


def splitting():
    """Where a regular expression cuts a sentence."""
    drawing = Schematic(160)
    pieces = ["High", " ", "water", ",", " ", "at", " ", "nine", "."]
    widths = [70, 30, 80, 30, 30, 50, 30, 70, 30]
    left = 60
    for piece, width in zip(pieces, widths):
        is_space = piece == " "
        drawing.box(
            "␣" if is_space else piece,
            left,
            30,
            width,
            fill="white" if is_space else SKY,
        )
        if is_space:
            drawing.text("×", left + width / 2, 84, colour=RED, bold=True)
        else:
            drawing.arrow(left + width / 2, 68, left + width / 2, 98)
            drawing.box(piece, left, 100, width, fill=SKY)
        left += width + 12
    drawing.text("cut", 30, 48)
    drawing.text("kept", 30, 118)
    return drawing


def special_tokens():
    """Two documents in one stream, with a token between them, and an unknown word."""
    drawing = Schematic(190)
    first, second = ["The", "tide", "turned", "."], ["Tea", "is", "<|unk|>", "."]
    drawing.text("document 1", 150, 30, bold=True)
    drawing.text("document 2", 560, 30, bold=True)
    left = 30
    for word in first:
        drawing.box(word, left, 60, 62, fill=SKY)
        left += 66
    drawing.box("<|endoftext|>", left + 6, 60, 120, fill=ORANGE)
    left += 138
    for word in second:
        width = 76 if word == "<|unk|>" else 56
        drawing.box(word, left, 60, width, fill=YELLOW if word == "<|unk|>" else SKY)
        left += width + 4
    drawing.arrow(360, 140, 360, 100)
    drawing.text("a token that stands for no text:\nhere one document ends", 360, 154)
    drawing.arrow(590, 140, 590, 100)
    drawing.text("the word “hot” is not\nin the vocabulary", 600, 154)
    return drawing


def one_merge():
    """The most frequent pair of a text becomes a new token."""
    drawing = Schematic(250)
    words = ["the", "tide", "time"]
    counts = [
        ("t h", 1),
        ("h e", 1),
        ("t i", 2),
        ("i d", 1),
        ("d e", 1),
        ("i m", 1),
        ("m e", 1),
    ]
    for row, (title, join) in enumerate((("before", False), ("after", True))):
        top = 50 + 110 * row
        drawing.text(title, 30, top + 18, "start", bold=True)
        left = 110
        for word in words:
            letters = list(word)
            if join and word.startswith("ti"):
                letters = ["ti", *word[2:]]
            for letter in letters:
                width = 36 + 16 * (len(letter) - 1)
                is_pair = not join and word.startswith("ti") and letter in "ti"
                fill = ORANGE if letter == "ti" or is_pair else SKY
                drawing.box(letter, left, top, width, fill=fill)
                left += width
            left += 22
    drawing.arrow(255, 92, 255, 154)
    drawing.text(
        "t, i is the most frequent pair:\nit becomes the token ti", 275, 114, "start"
    )
    drawing.text("pairs: how often", 590, 24, "start", bold=True)
    for number, (pair, count) in enumerate(counts):
        colour = RED if count > 1 else BLACK
        row = f"{pair}:  {count}"
        drawing.text(row, 600, 50 + 24 * number, "start", colour=colour, bold=count > 1)
    drawing.text("new token in the vocabulary: ti", 110, 222, "start", colour=GREY)
    return drawing


def window():
    """A window of four tokens and its target, which is one token further."""
    drawing = Schematic(230)
    tokens = ["The", "tide", "is", "low", "at", "noon", "."]
    for number, token in enumerate(tokens):
        left = 130 + 80 * number
        drawing.box(token, left, 20, 74, fill=PALE)
        if number < 4:
            drawing.box(token, left, 95, 74, fill=SKY)
        if 1 <= number < 5:
            drawing.box(token, left, 170, 74, fill=ORANGE)
        if number < 4:
            drawing.arrow(left + 37, 133, left + 117 - 37 + 25, 168)
    for name, top in (("text", 38), ("input", 113), ("target", 188)):
        drawing.text(name, 30, top, "start", bold=True)
    drawing.text(
        "the target of\nan input token\nis the token\nafter it",
        590,
        108,
        "start",
        colour=GREY,
    )
    return drawing


def embedding_table():
    """Three ids read three rows of the embedding table."""
    drawing = Schematic(300)
    table = [
        [f"{((7 * r + 3 * c) % 10 - 4) / 10:.1f}" for c in range(3)] for r in range(5)
    ]
    picked = {3: SKY, 0: ORANGE}
    fills = {(r, c): colour for r, colour in picked.items() for c in range(3)}
    drawing.matrix(
        table,
        270,
        50,
        42,
        title="embedding table",
        shape="(vocab_size, emb_dim) = (5, 3)",
        fills=fills,
    )
    ids = [3, 0, 3]
    for number, token_id in enumerate(ids):
        top = 50 + 60 * number
        drawing.box(str(token_id), 90, top, 44, fill=picked[token_id])
        drawing.arrow(136, top + 18, 266, 50 + 42 * token_id + 21, GREY)
        drawing.matrix([table[token_id]], 520, top, 42, fill=picked[token_id])
        drawing.arrow(398, 50 + 42 * token_id + 21, 516, top + 21, GREY)
    drawing.text("token ids (3,)", 112, 28, bold=True)
    drawing.text("vectors (3, 3)", 583, 28, bold=True)
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
