"""The texts that the course reads: its own story, the book's, or a file's."""

from support.download.fetch import downloads_folder, fetch
from support.download.files import read_text, size_of
from support.messages import one_line
from support.paths import ROOT

STORY = ROOT / "ch02" / "the-tide-table.txt"
VERDICT_SHA256 = "b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f"
VERDICT_SIZE = 20_479  # bytes
VERDICT_URLS = [
    "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch02/01_main-chapter-code/the-verdict.txt",
    "https://cdn.jsdelivr.net/gh/rasbt/LLMs-from-scratch@main/ch02/01_main-chapter-code/the-verdict.txt",
]


def load_text(source="the-tide-table"):
    """Read a text: "the-tide-table", "the-verdict" (fetched once), or a file's path.

    Raises ValueError for what is not a file of UTF-8 text, and FetchError when
    The Verdict is not available.
    """
    if source == "the-tide-table":
        source = STORY
    if source == "the-verdict":
        target = downloads_folder() / "the-verdict.txt"
        source = fetch(VERDICT_URLS, target, sha256=VERDICT_SHA256, size=VERDICT_SIZE)
    name = one_line(source)
    if size_of(source) is None:
        raise ValueError(
            f"{name} is not a file: give the path of a text file, the-tide-table or "
            "the-verdict"
        )
    text = read_text(source)
    if not text.strip():
        raise ValueError(f"{name} contains no text")
    return text
