"""Longer drawings of the notebooks, with matplotlib: each takes data and axes."""

from collections import Counter

import torch

from support.figures.kit import ORANGE, SKY


def two_coordinates(vectors):
    """Two numbers for each vector, by which the vectors differ most.

    vectors: (n, d). Returns (n, 2) numbers, found by a principal component analysis.
    """
    centred = vectors - vectors.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    points = centred @ directions[:2].T
    farthest = points.gather(0, points.abs().argmax(dim=0, keepdim=True))
    return points * farthest.sign()  # both signs are free: the same everywhere


def draw_word_map(ax, points, words, groups, label_at):
    """Draw each word as a grey dot, and write the words of some groups beside theirs.

    groups: {name: "words of the group"}. The labels of a group are written one below
    the other, each with a line to its dot; label_at: the x of the labels of each group.
    """
    ax.scatter(*points.T, s=6, color="lightgrey")
    gap = 0.05 * (points[:, 1].max() - points[:, 1].min()).item()
    for marker, left, (name, members) in zip("os^D", label_at, groups.items()):
        rows = sorted(
            (words.index(word) for word in members.split()),
            key=lambda row: points[row, 1],
        )
        x, y = points[rows].T
        heights = spread(y.tolist(), gap)
        dots = ax.scatter(x, y, s=26, marker=marker, label=name, zorder=3)
        for row, height in zip(rows, heights):
            px, py = points[row].tolist()
            side = "right" if left < px else "left"
            ax.plot([left, px], [height, py], color="grey", lw=0.5, zorder=1)
            ax.text(left, height, f" {words[row]} ", ha=side, va="center")
        dots.set_edgecolor("black")
    ax.margins(x=0.12)  # for the labels
    ax.set(xlabel="first coordinate", ylabel="second coordinate")
    ax.legend()


def spread(heights, gap):
    """Move sorted heights apart to at least a gap, as a block around their middle."""
    moved = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else height)
    shift = (sum(heights) - sum(moved)) / len(heights)
    return [height + shift for height in moved]


def draw_pieces(ax, text, pieces, height):
    """Draw a text in cells of one character each, a new colour for each piece."""
    start = 0
    for number, piece in enumerate(pieces):
        start = text.index(piece, start)
        colour = ("lightskyblue", "gold", "lightgrey")[number % 3]
        ax.broken_barh(
            [(start, len(piece))], (height, 0.7), color=colour, edgecolor="black"
        )
        for left, character in enumerate(piece, start=start):
            ax.text(left + 0.5, height + 0.33, character, ha="center", va="center")
        start += len(piece)


def draw_windows(ax, windows, tokens, bottom):
    """Draw a row for each window, and below how often each token is an input.

    windows: lists of positions of the inputs. The last token of a window's target, one
    position further, is hatched. bottom: the row of the counts.
    """
    counts = Counter(position for window in windows for position in window)
    names = "input", "last token of the target"
    for row, window in enumerate(windows):
        first, last = names if row == 0 else (None, None)
        bar = {"left": window, "color": SKY, "ec": "white", "label": first}
        ax.barh([row] * len(window), 1, **bar)
        bar = {"left": window[-1] + 1, "color": ORANGE, "hatch": "////", "label": last}
        ax.barh(row, 1, ec="white", **bar)
    for position in range(len(tokens)):
        ax.text(position + 0.5, bottom, counts[position], ha="center", va="center")
    rows = range(0, bottom - 1, 2)
    ax.set_yticks([*rows, bottom], [*rows, "times an input"])
    ax.set_xticks([position + 0.5 for position in range(len(tokens))], tokens)
    ax.tick_params(axis="x", rotation=90)
    ax.set(xlim=(0, len(tokens)), ylim=(bottom + 0.7, -0.7))


def draw_letter_map(ax, points, letters, marked):
    """Draw a dot for each point, (n, 2), and join it to its letter by a line.

    Letters that would overlap are moved apart. The dots of those in `marked` are large.
    """
    low, high = points.amin(dim=0), points.amax(dim=0)
    labels = low + move_apart((points - low) / (high - low), gap=0.085) * (high - low)
    for letter, point, label in zip(letters, points.tolist(), labels.tolist()):
        dot = {"s": 70, "color": ORANGE, "ec": "black"}
        ax.scatter(*point, **(dot if letter in marked else {"s": 9, "color": "black"}))
        ax.plot(*zip(point, label), color="grey", lw=0.8, zorder=0)
        style = {"ha": "center", "va": "center", "zorder": 3}
        ground = {"boxstyle": "square,pad=0.05", "fc": "white", "ec": "none"}
        ax.text(*label, letter.replace(" ", "_"), bbox=ground | {"alpha": 0.7}, **style)
    ax.margins(0.08)


def move_apart(points, gap):
    """Places for labels: beside their points, (n, 2), and apart from each other.

    They keep about `gap` from each other, and 0.6 of it from all points.
    """
    places = points + gap / 2 * torch.tensor([0.6, 0.8])
    for _ in range(500):
        for others, distance in ((places, gap), (points, 0.6 * gap)):
            ways = places[:, None] - others  # (n, n, 2)
            lengths = ways.norm(dim=-1).clamp(min=1e-3)
            pushes = (distance - lengths).clamp(min=0) / (2 * lengths)
            places = places + (pushes[..., None] * ways).sum(dim=1)
    return places


def draw_sums(axes, tables, labels):
    """Draw tables of numbers side by side, each number in a coloured cell.

    tables: {name: (n, d)}, with one scale of colours for all. labels: a name for each
    row.
    """
    largest = max(table.abs().max().item() for table in tables.values())
    for ax, (name, table) in zip(axes, tables.items()):
        ax.imshow(table, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto")
        ax.set(title=name, xlabel="index in the vector", xticks=range(table.shape[1]))
        for row, numbers in enumerate(table.tolist()):
            for column, number in enumerate(numbers):
                colour = "white" if abs(number) > 0.6 * largest else "black"
                style = {"ha": "center", "va": "center", "color": colour}
                ax.text(column, row, f"{number:.2f}", **style)
    axes[0].set_yticks(range(len(labels)), labels)
