"""Longer drawings of the notebooks, with matplotlib: each takes data and axes."""

from collections import Counter

import torch
from matplotlib.colors import LinearSegmentedColormap

from support.figures.kit import BLUE, ORANGE, RED, SKY


def coordinates(vectors, count=2):
    """The numbers in which the vectors differ most, `count` for each of them.

    vectors: (n, d). Returns (n, count) numbers, by a principal component analysis.
    """
    centred = vectors - vectors.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    points = centred @ directions[:count].T
    farthest = points.gather(0, points.abs().argmax(dim=0, keepdim=True))
    return points * farthest.sign()  # the signs are free: the same everywhere


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
                text = f"{round(number, 2) + 0:.2f}"  # 0.00, never -0.00
                ax.text(column, row, text, **style)
    axes[0].set_yticks(range(len(labels)), labels)


def draw_head_maps(axes, maps, words, size=8):
    """Draw attention maps side by side: a row for each query, one scale from 0 to 1.

    maps: {title: (num_tokens, num_tokens)}. Weights of at least 0.1 are written into
    their cells. size: of these numbers. Returns the last image, for a colour bar.
    """
    colours = LinearSegmentedColormap.from_list("attention", ["white", ORANGE])
    for ax, (title, weights) in zip(axes, maps.items()):
        image = ax.imshow(weights, cmap=colours, vmin=0, vmax=1)
        ax.set_title(title)
        ax.set_xticks(range(len(words)), words, rotation=90)
        ax.set_yticks(range(len(words)), words)
        for row, numbers in enumerate(weights.tolist()):
            for column, weight in enumerate(numbers):
                if weight >= 0.1:
                    text = f"{weight:.2f}".removeprefix("0")
                    style = {"ha": "center", "va": "center", "size": size}
                    ax.text(column, row, text, **style)
    return image


def draw_maps(axes, maps, words, largest=1.0, colour=ORANGE):
    """Draw tables of words by words side by side, with each number in its cell.

    maps: {title: (n, n)}, with one scale for all: white is 0, `colour` is `largest`.
    """
    colours = LinearSegmentedColormap.from_list("", ["white", colour])
    for ax, (title, table) in zip(axes, maps.items()):
        table = table.detach()
        ax.imshow(table, cmap=colours, vmin=0, vmax=largest)
        ax.set(title=title, xlabel="looks at")
        ax.set_xticks(range(len(words)), words, rotation=60)
        size = 8 if len(axes) > 2 else 9
        for row, numbers in enumerate(table.tolist()):
            for column, number in enumerate(numbers):
                text = f"{number:.2f}" if number else "0"
                style = {"ha": "center", "va": "center"}
                ax.text(column, row, text, fontsize=size, **style)
    axes[0].set_yticks(range(len(words)), words)


def draw_root_of_d(axes, scores_of):
    """Draw the largest of the attention weights, and its slope, over the length d.

    scores_of: {d: (queries, keys) scores}, drawn as they are and divided by sqrt(d).
    """
    for label, style, power in (
        ("divided by the root of d", {"fmt": "o-", "color": BLUE}, 0.5),
        ("not divided", {"fmt": "s--", "color": RED}, 0.0),
    ):
        largest = {
            d: torch.softmax(scores / d**power, dim=-1).amax(dim=-1)
            for d, scores in scores_of.items()
        }
        fmt, colour = style["fmt"], style["color"]
        means = [w.mean() for w in largest.values()]
        axes[0].plot(largest.keys(), means, fmt, color=colour, label=label)
        slopes = [(w * (1 - w)).mean() for w in largest.values()]
        axes[1].plot(largest.keys(), slopes, fmt, color=colour)
    axes[0].set(title="largest of six weights: w", ylim=(0, 1.03))
    axes[1].set(title="its slope: w (1 - w)", ylim=(0, 0.25))
    for ax in axes:
        ax.set(xlabel="length d of queries and keys", xscale="log")
        ax.set_xticks(list(scores_of), [f"{d:,}" for d in scores_of], minor=False)
        ax.minorticks_off()
    axes[0].legend(loc="lower right")


def draw_shares_right(ax, lengths, curves):
    """Draw the mean share of right answers for each length, and a dot for each run.

    curves: {name: {length: shares of several runs}}.
    """
    for (marker, style), (name, results) in zip(
        (("o", "-"), ("s", "--")), curves.items()
    ):
        means = [sum(results[n]) / len(results[n]) for n in lengths]
        (line,) = ax.plot(lengths, means, style, label=f"{name} (mean)")
        for n in lengths:
            ax.plot([n] * len(results[n]), results[n], marker, color=line.get_color())
    ax.axhline(1 / 8, color="grey", ls=":", label="guessing")
    ax.set(
        xlabel="letters in the text", ylabel="share of right letters", ylim=(0, 1.05)
    )
    ax.set_xticks(lengths)
    ax.legend(loc="center right", bbox_to_anchor=(1, 0.62))


def draw_weighted_sum(axes, vectors, weights, names):
    """Draw the first two numbers of vectors as arrows, and the weighted sum of them.

    On axes[0] is each vector, on axes[1] each one times its weight, tip to tail.
    """
    styles = ["-", "--", ":", "-.", "-", "--"]
    colours = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000"]
    start, labels = torch.zeros(2), []
    for number, (vector, weight, name) in enumerate(zip(vectors, weights, names)):
        look = {"arrowstyle": "-|>", "color": colours[number], "ls": styles[number]}
        end = start + weight * vector[:2]
        for ax, tail, head in (
            (axes[0], torch.zeros(2), vector[:2]),
            (axes[1], start, end),
        ):
            ax.annotate(
                "",
                xy=head.tolist(),
                xytext=tail.tolist(),
                arrowprops=look | {"shrinkA": 0, "shrinkB": 0, "lw": 1.8},
            )
        start = end
        x, y = (vector[:2] + 0.02).tolist()
        near = any(abs(x - x2) < 0.15 and abs(y - y2) < 0.06 for x2, y2 in labels)
        labels.append((x, y - 0.07 * near))
        axes[0].text(*labels[-1], name, color=colours[number])
    axes[1].plot(*start.tolist(), "*", color="black", markersize=13)
    for ax in axes:
        ax.set(xlim=(0, 0.95), ylim=(0, 0.95), xlabel="first number")


def draw_bars(axes, panels, words):
    """Draw a panel of bars with their numbers for each {title: a number per word}."""
    for ax, (title, numbers) in zip(axes, panels.items()):
        places = range(len(words))[::-1]  # the first word is at the top
        bars = ax.barh(places, numbers.tolist(), color=SKY, edgecolor="black")
        digits = 3 if (numbers.abs() < 0.005).any() else 2
        ax.bar_label(bars, fmt=f"%.{digits}f", padding=3)
        ax.axvline(0, color="black", lw=0.8)
        ax.set(title=title, yticks=places, yticklabels=words)
        ax.margins(x=0.3)


def draw_candidates(axes, panels):
    """Draw the most likely next tokens as bars, the most likely one at the top.

    panels: {title: [(token, probability), ...]}, with one scale of per cent for all.
    """
    for ax, (title, found) in zip(axes, panels.items()):
        tokens, shares = zip(*found)
        places = range(len(found))[::-1]
        bars = ax.barh(places, [100 * p for p in shares], color=SKY, edgecolor="black")
        ax.bar_label(bars, fmt="%.2g%%", padding=3)
        # every font has ASCII; and two dollar signs would begin and end a formula
        names = [ascii(token).replace("$", r"\$") for token in tokens]
        ax.set_yticks(places, names)
        ax.set(title=title, xlabel="probability in %")
        ax.margins(x=0.2)


def draw_sliding_window(ax, token_ids, num_prompt, context_size, num_steps):
    """Draw a row for each step of generation: what the model sees, and what it adds.

    token_ids: of the whole text, whose first num_prompt tokens are the prompt.
    """
    looks = {
        "no longer seen": {"color": "white", "ec": "0.7", "ls": ":"},
        "seen by the model": {"color": SKY, "ec": "black"},
        "new token": {"color": ORANGE, "ec": "black", "hatch": "///"},
    }
    for step in range(1, num_steps + 1):
        end = num_prompt + step - 1  # the position of the new token
        for position, token_id in enumerate(token_ids[: end + 1]):
            is_seen = end - context_size <= position < end
            name = "seen by the model" if is_seen else "no longer seen"
            look = looks["new token" if position == end else name]
            ax.barh(step, 0.9, left=position - 0.45, **look)
            ground = {"boxstyle": "square,pad=0.1", "fc": look["color"], "ec": "none"}
            style = {"ha": "center", "va": "center", "bbox": ground}
            ax.text(position, step, token_id, **style)
    for name, look in looks.items():
        ax.bar(0, 0, label=name, **look)
    ax.set(xlabel="position in the text", ylabel="step")
    ax.set(yticks=range(1, num_steps + 1))
    ax.set(xticks=range(num_prompt + num_steps), ylim=(num_steps + 0.6, 0.4))
    ax.set_xlim(-0.6, num_prompt + num_steps - 0.4)
    ax.legend(loc="upper right")


def draw_fits(axes, x, y, curves):
    """Draw points, and a line for the predictions of each network, side by side.

    curves: {title: predictions}, one for each of the axes.
    """
    for ax, (title, predictions) in zip(axes, curves.items()):
        ax.plot(x, y, "o", color="0.6", markersize=4, label="right depth")
        ax.plot(x, predictions, color=BLUE, lw=2, label="network")
        ax.set(title=title, xlabel="hours after high water")
    axes[0].set(ylabel="depth in metres")
    axes[0].legend()


def draw_activations(axes, x, functions):
    """Draw activation functions on axes[0], and their slopes on axes[1].

    functions: {name: function}.
    """
    x = x.clone().requires_grad_()
    looks = (ORANGE, "--"), (BLUE, "-")
    for (colour, line), (name, function) in zip(looks, functions.items()):
        y = function(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        for ax, numbers in zip(axes, (y, slope)):
            ax.plot(x.detach(), numbers.detach(), line, color=colour, lw=2, label=name)
    for ax, title in zip(axes, ("result", "slope")):
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        ax.set(title=title, xlabel="x")
    axes[0].legend()


def draw_signals(axes, panels):
    """Draw a number for each layer on a logarithmic axis: a line for each network.

    panels: {title: {name: curves of several networks}}.
    """
    looks = (RED, "--"), (BLUE, "-")
    for ax, (title, kinds) in zip(axes, panels.items()):
        for (colour, line), (name, curves) in zip(looks, kinds.items()):
            for number, curve in enumerate(curves):
                label = None if number else name
                layers = range(1, len(curve) + 1)
                ax.semilogy(layers, curve, line, color=colour, alpha=0.6, label=label)
        ax.set(title=title, xlabel="layer", xticks=range(1, len(curve) + 1, 3))
    axes[0].legend()


def draw_losses(ax, runs, levels):
    """Draw losses over the training steps, one line for each run.

    runs: {name: losses of several runs}. levels: {name: a loss}, drawn as dotted lines.
    """
    looks = (RED, "--"), (BLUE, "-")
    for (colour, line), (name, curves) in zip(looks, runs.items()):
        for number, losses in enumerate(curves):
            label = None if number else name
            ax.semilogy(losses, line, color=colour, alpha=0.8, label=label)
    for name, level in levels.items():
        ax.axhline(level, color="black", ls=":", label=name)
    ax.set(xlabel="training step", ylabel="loss")
    ax.legend()


def draw_parts(ax, counts):
    """Draw a bar for each model, made of the parameters of its parts, in millions.

    counts: {model: {part: number}}. A part has a colour and a pattern of its own.
    """
    colours, patterns = (BLUE, SKY, RED, ORANGE, "lightgrey"), ("", "//", "", "..", "")
    for row, (name, parts) in enumerate(counts.items()):
        left = 0
        for colour, pattern, (part, number) in zip(colours, patterns, parts.items()):
            look = {"color": colour, "hatch": pattern, "ec": "black", "lw": 0.8}
            label = None if row else part
            ax.barh(name, number / 1e6, left=left, label=label, **look)
            left += number / 1e6
        ax.text(left, row, f"  {left:,.0f}", va="center")
    ax.set(xlabel="millions of parameters")
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.legend()
