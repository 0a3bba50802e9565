"""The course beside its peers: `python -m benchmarks [PART ...]`, about 15 minutes.

Parts: training, decoding, loading, text; all of them unless some are named. Prints a
table; having measured all parts, draws it to benchmarks/speed.png. With `--quick` each
is measured once, on less work, in five minutes, and nothing is drawn. Trust the ratios:
machines differ, and are noisy.
"""

import argparse
import os
from pathlib import Path

import matplotlib

from benchmarks.measure import in_fresh_process, machine, measure_part
from benchmarks.table import draw, markdown_table, plain_table, verdict

PARTS = ("training", "decoding", "loading", "text")
PLOT = Path(__file__).with_name("speed.png")


def main():
    """Measure the parts one after another and show what was found."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all"
    )
    parser.add_argument(
        "--markdown", action="store_true", help="a table for benchmarks/README.md"
    )
    parser.add_argument(
        "--quick", action="store_true", help="measure once, on less work"
    )
    args = parser.parse_args()
    if args.quick:
        os.environ["LLMS_QUICK"] = "1"  # for the processes that measure
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}: there are {PARTS}")
    title, rows, notes = machine(), [], []
    print(title, flush=True)
    for part in args.parts or PARTS:
        print(f"measuring {part}", flush=True)
        found = in_fresh_process(measure_part, part)
        rows, notes = rows + found[0], notes + found[1]
    table = markdown_table(rows) if args.markdown else plain_table(rows)
    print("", table, "", *notes, verdict(rows), sep="\n")
    if not args.parts and not args.quick:
        draw(rows, PLOT, title)


if __name__ == "__main__":
    matplotlib.use("Agg")  # the plot goes to a file; no window opens
    main()
