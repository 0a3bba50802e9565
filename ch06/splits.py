"""Splits that keep near-copies together (6.2; used again in chapter 7)."""

import re

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import MultiLabelBinarizer

from support.words import cut_words

NUM_CELLS = 2_000_000  # how many pairs of texts are compared at a time, to limit memory


def words_of(text):
    """The set of words of a message, with 0 for each digit: "Call 12!" -> call 00 !"""
    return {re.sub(r"\d", "0", word) for word in cut_words(text)}


def near_duplicate_groups(texts, threshold=0.8):
    """A group number for each text; near-duplicates have the same number.

    Two texts are near-duplicates if at least the share `threshold` of all their words
    is in both (the Jaccard index). A group also has the near-duplicates of its members.
    A text without words is a group of its own.
    """
    sets = [frozenset(words_of(text)) for text in texts]
    different = sorted({*sets} - {frozenset()}, key=len)  # shortest first
    if not different:
        return np.arange(len(sets))
    words = MultiLabelBinarizer(sparse_output=True).fit_transform(different)
    size = words.getnnz(axis=1)  # words: (num_sets, num_words), 1 if a set has it
    groups = np.arange(len(size))  # at first each set is a group
    step = NUM_CELLS // len(size) + 1  # rows per block
    for start in range(0, len(size), step):
        block = slice(start, start + step)
        first = np.searchsorted(size / size[start], threshold)  # others are too short
        both = (words[first : block.stop] @ words[block].T).tocoo()  # words in common
        row, column = both.row + first, both.col + start
        near = both.data / (size[row] + size[column] - both.data) >= threshold
        ends = groups[row[near]], groups[column[near]]
        links = coo_array((near[near], ends), (len(size), len(size)))
        groups = connected_components(links, directed=False)[1][groups]
    number = dict(zip(different, groups))
    return pd.factorize(np.array([number.get(s, -i) for i, s in enumerate(sets, 1)]))[0]


def group_split(df, seed=123, shares=(7, 1, 2)):
    """Split by the column Group in these proportions: (train, validation, test).

    Each group stays together, and each part has about the same share of each Label.
    With few groups the proportions are only approximate, but no part is empty. A group
    that is too large for the other parts goes to the training part. Raises ValueError
    for fewer than three groups.
    """
    num_groups = df["Group"].nunique()
    if num_groups < len(shares):
        raise ValueError(
            f"{len(df)} texts cannot be split into three parts: near-copies stay "
            f"together, so there are only {num_groups} groups. Use more texts that "
            "differ from each other"
        )
    num_folds = min(sum(shares), num_groups)
    held_out = [max(min(n, 1), num_folds * n // sum(shares)) for n in shares[1:]]
    counts = df["Label"].value_counts()  # rare labels count as the most frequent one
    is_rare = df["Label"].map(counts) < num_folds
    labels = df["Label"].mask(is_rare, counts.index[0])
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    fold = np.empty(len(df), dtype=int)
    for i, (_, members) in enumerate(folds.split(df, labels, df["Group"])):
        fold[members] = i
    size = np.bincount(fold)
    if size.max() > 2 * len(df) / num_folds:
        fold = np.argsort(np.argsort(-size))[fold]  # largest fold first
    test_start = num_folds - held_out[1]
    train_end = test_start - held_out[0]
    is_train, is_test = fold < train_end, fold >= test_start
    return df[is_train], df[~is_train & ~is_test], df[is_test]
