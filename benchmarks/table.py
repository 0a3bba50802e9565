"""The table of the benchmarks: rows, their goals, and their picture."""

import statistics
from dataclasses import dataclass
from itertools import cycle, islice

import matplotlib.pyplot as plt

COLUMNS = (
    "work",
    "ours",
    "peer",
    "our result",
    "peer's",
    "ratio",
    "range",
    "goal",
    "met",
)
ALIGNED = (
    "---",
    "---",
    "---",
    "---:",
    "---:",
    "---:",
    "---",
    "---",
    "---",
)  # in Markdown
SMALL_IS_GOOD = "MB", "s"
COLORS = {None: "tab:gray", True: "tab:blue", False: "tab:red"}
LEGEND = "blue: goal met, red: goal missed, gray: no goal, black mark: the ratio's goal"


@dataclass(frozen=True)
class Row:
    """The same work by ours and by a peer: a line of the table.

    our_figures, peer_figures: one for each round. unit: "s" or "MB", or what is done in
    a second, such as "tokens/s". goal bounds the ratio, figure_goal our own figure:
    memory and seconds from above, speeds from below.
    """

    work: str
    ours: str
    peer: str
    our_figures: list
    peer_figures: list
    unit: str
    goal: float | None = None
    figure_goal: float | None = None

    @property
    def our_figure(self):
        """The median of our figures."""
        return statistics.median(self.our_figures)

    @property
    def ratios(self):
        """How many times as fast ours is, or the memory it takes, in each round."""
        pairs = zip(cycle(self.our_figures), cycle(self.peer_figures))
        num_rounds = max(len(self.our_figures), len(self.peer_figures))
        rounds = islice(pairs, num_rounds)
        return [b / a if self.unit == "s" else a / b for a, b in rounds]

    @property
    def ratio(self):
        """The median of the ratios."""
        return statistics.median(self.ratios)

    def bounds(self):
        """Each goal: (value, bound, whether it bounds from above, unit)."""
        both = [
            (self.ratio, self.goal, self.unit == "MB", "x"),
            (
                self.our_figure,
                self.figure_goal,
                self.unit in SMALL_IS_GOOD,
                f" {self.unit}",
            ),
        ]
        return [bound for bound in both if bound[1] is not None]

    @property
    def met(self):
        """Whether every goal is met; None if there is none."""
        found = [
            value <= bound if from_above else value >= bound
            for value, bound, from_above, _ in self.bounds()
        ]
        return all(found) if found else None

    def cells(self):
        """What stands under COLUMNS."""
        goals = [
            f"{'at most' if from_above else 'at least'} {bound:g}{unit}"
            for _, bound, from_above, unit in self.bounds()
        ]
        return [
            self.work,
            self.ours,
            self.peer,
            f"{short(self.our_figure)} {self.unit}",
            f"{short(statistics.median(self.peer_figures))} {self.unit}",
            f"{short(self.ratio)}x",
            range_of(self.ratios),
            ", ".join(goals),
            {None: "", True: "yes", False: "NO"}[self.met],
        ]


def short(number):
    """A number with three digits: 1234.5 -> "1,234", 0.01234 -> "0.0123"."""
    digits = 0
    while digits < 4 and abs(number) * 10**digits < 99.95:
        digits += 1
    return f"{number:,.{digits}f}"


def range_of(numbers):
    """The range of numbers of several rounds: [1.5, 2.25] -> "1.50 to 2.25"."""
    lowest, highest = short(min(numbers)), short(max(numbers))
    return f"{lowest} to {highest}" if len(numbers) > 1 else ""


def plain_table(rows):
    """Rows as lines with aligned columns."""
    lines = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
        for line in lines
    )


def markdown_table(rows):
    """Rows as a table in Markdown."""
    lines = [COLUMNS, ALIGNED, *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def verdict(rows):
    """How many rows with a goal meet it, in sentences that name the others."""
    judged = [row for row in rows if row.met is not None]
    missed = [row for row in judged if not row.met]
    count = f"{len(judged) - len(missed)} of {len(judged)} goals are met."
    named = [f"Missed: {r.work}, {r.ours} beside {r.peer}." for r in missed]
    return " ".join([count, *named])


def draw(rows, path, title):
    """Draw the ratios as bars, those of speed beside those of memory, into a file."""
    panels = {
        "times as fast as the peer": [row for row in rows if row.unit != "MB"],
        "times the peer's memory": [row for row in rows if row.unit == "MB"],
    }
    panels = {label: found for label, found in panels.items() if found}
    heights = [1 + len(found) for found in panels.values()]
    fig, axes = plt.subplots(
        len(panels),
        figsize=(9, 0.27 * sum(heights) + 0.8),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    for ax, (label, found) in zip(axes.flat, panels.items()):
        draw_bars(ax, found)
        ax.set_xlabel(label)
    fig.suptitle(f"{title}\n{LEGEND}", fontsize=9)
    fig.savefig(path, dpi=150)
    plt.close(fig)


def draw_bars(ax, rows):
    """Draw a bar for each row, from 1, and a black mark where its goal is."""
    places = range(len(rows))
    colors = [COLORS[row.met] for row in rows]
    ax.barh(places, [row.ratio - 1 for row in rows], left=1, color=colors)
    ax.axvline(1, color="black", linewidth=0.8)
    for place, row in zip(places, rows):
        if row.goal is not None:
            ax.plot([row.goal] * 2, [place - 0.45, place + 0.45], color="black")
        beside = ax.get_yaxis_transform()  # x in widths of the panel
        words = f"{short(row.ratio)}x"
        ax.text(1.01, place, words, transform=beside, va="center", fontsize=8)
    labels = [f"{row.work}: {row.ours} / {row.peer}" for row in rows]
    ax.set_yticks(places, labels, fontsize=8)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}x")
    ax.xaxis.set_minor_formatter("")
    ax.margins(x=0.1)
    ax.invert_yaxis()
