"""Near-duplicates among many texts: `python -m benchmarks.grouping`, half a minute.

Groups 52,000 generated texts, as many as Alpaca has entries: their lengths are about
those of instructions, a few words are in most of them and most words in few (Zipf's
law), and every tenth is a copy of an earlier one with one word exchanged. Prints the
seconds and the memory that it took.
"""

import argparse

import numpy as np

from benchmarks.measure import in_fresh_process, machine, peak_megabytes, stopwatch
from ch06.splits import near_duplicate_groups

SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeiou"]
VOCABULARY = [a + b + c for a in SYLLABLES for b in SYLLABLES[:50] for c in SYLLABLES]


def many_texts(num_texts, num_words=30_000, seed=123):
    """Texts of about 15 words; the second word of VOCABULARY is half as frequent."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, num_words + 1)
    lengths = np.maximum(4, rng.lognormal(2.7, 0.6, num_texts).astype(int))
    texts = []
    for length, is_copy in zip(lengths, rng.random(num_texts) < 0.1):
        numbers = rng.choice(num_words, length, p=share / share.sum())
        words = [VOCABULARY[number] for number in numbers]
        if is_copy and texts:
            words = texts[rng.integers(len(texts))].split()
            words[rng.integers(len(words))] = "changed"
        texts.append(" ".join(words))
    return texts


def measure_grouping(num_texts, threshold=0.6):
    """Seconds, megabytes, and the number of groups that so many texts make."""
    texts, seconds, before = many_texts(num_texts), [], peak_megabytes()
    with stopwatch(seconds):
        groups = near_duplicate_groups(texts, threshold)
    return seconds[0], peak_megabytes() - before, len(set(groups))


def main():
    """Print what the texts take."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.grouping", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--num-texts", type=int, default=52_000)
    num_texts = parser.parse_args().num_texts
    seconds, megabytes, groups = in_fresh_process(measure_grouping, num_texts)
    found = f"{seconds:.0f} s and {megabytes:.0f} MB"
    print(f"{machine()}\n{num_texts:,} texts, {groups:,} groups: {found}")


if __name__ == "__main__":
    main()
