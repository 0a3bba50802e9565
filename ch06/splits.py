"""Splits that keep near-copies together (6.2; used again in chapter 7)."""

import re

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import MultiLabelBinarizer

from support.words import cut_words

NUM_CELLS = 2_000_000  # pairs of texts that are compared at a time, for memory's sake


def words_of(text):
    """The different words of a message, all digits alike: "Call 12!" -> call 00 !"""
    return {re.sub(r"\d", "0", word) for word in cut_words(text)}


def near_duplicate_groups(texts, threshold=0.8):
    """A number for each text, the same for those that are nearly the same.

    Nearly the same: of the words of both together, at least `threshold` are in both
    (Jaccard's index); and so on from neighbour to neighbour. A text without words is
    like no other.
    """
    sets = [frozenset(words_of(text)) for text in texts]
    different = sorted({*sets} - {frozenset()}, key=len)  # the shortest first
    if not different:
        return np.arange(len(sets))
    words = MultiLabelBinarizer(sparse_output=True).fit_transform(different)
    size = words.getnnz(axis=1)  # words: (num_sets, num_words), 1 if it is there
    groups = np.arange(len(size))  # each set begins as a group of its own
    step = NUM_CELLS // len(size) + 1  # rows of a block
    for start in range(0, len(size), step):
        block = slice(start, start + step)
        first = np.searchsorted(size / size[start], threshold)  # before: too short
        both = (words[first : block.stop] @ words[block].T).tocoo()  # words in common
        row, column = both.row + first, both.col + start
        near = both.data / (size[row] + size[column] - both.data) >= threshold
        ends = groups[row[near]], groups[column[near]]
        links = coo_array((near[near], ends), (len(size), len(size)))
        groups = connected_components(links, directed=False)[1][groups]
    number = dict(zip(different, groups))
    return pd.factorize(np.array([number.get(s, -i) for i, s in enumerate(sets, 1)]))[0]


def group_split(df, seed=123, shares=(7, 1, 2)):
    """Split in these proportions by the column Group: (train, validation, test).

    A group stays together, and each part has about the same share of each Label. With
    few groups the proportions are coarser, but no part is empty; a group that is too
    large for the other parts is trained on. Raises ValueError for fewer than three.
    """
    num_groups = df["Group"].nunique()
    if num_groups < len(shares):
        raise ValueError(
            f"{len(df)} texts cannot be split in three: near-copies stay together, and "
            f"they make {num_groups} groups. Take more texts, and different ones"
        )
    num_folds = min(sum(shares), num_groups)
    held_out = [max(min(n, 1), num_folds * n // sum(shares)) for n in shares[1:]]
    counts = df["Label"].value_counts()  # labels too rare for every fold join the first
    is_rare = df["Label"].map(counts) < num_folds
    labels = df["Label"].mask(is_rare, counts.index[0])
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    fold = np.empty(len(df), dtype=int)
    for i, (_, members) in enumerate(folds.split(df, labels, df["Group"])):
        fold[members] = i
    size = np.bincount(fold)
    if size.max() > 2 * len(df) / num_folds:
        fold = np.argsort(np.argsort(-size))[fold]  # the largest first
    test_start = num_folds - held_out[1]
    train_end = test_start - held_out[0]
    is_train, is_test = fold < train_end, fold >= test_start
    return df[is_train], df[~is_train & ~is_test], df[is_test]
