"""The SMS Spam Collection: fetched, looked through, split without leaks (6.2).

Tables of messages have the columns Label ("ham" or "spam", later 0 or 1) and Text.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import MultiLabelBinarizer
from torch.utils.data import Dataset

from ch02.checks import check_whole
from ch02.fetch import FetchError, downloads_folder, fetch, unzip_member
from ch02.files import check_sha256, read_text
from ch02.words import cut_words
from ch06.message_tables import message_table

URLS = (
    "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
    "https://f001.backblazeb2.com/file/LLMs-from-scratch/sms%2Bspam%2Bcollection.zip",
)
ZIP_SHA256 = "1587ea43e58e82b14ff1f5425c88e17f8496bfcdb67a583dbff9eefaf9963ce3"
ZIP_SIZE = 203_415  # bytes
MEMBER = "SMSSpamCollection"  # the one file of the zip that is wanted
MEMBER_SHA256 = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"
MEMBER_SIZE = 477_907  # bytes
NUM_CELLS = 2_000_000  # pairs of texts that are compared at a time, for memory's sake
LABELS = {"ham": 0, "spam": 1}
SAMPLE = Path(__file__).with_name("sample.tsv")


def download_and_unzip_spam_data(url, zip_path, extracted_path, data_file_path):
    """Fetch the collection's zip and write its one member to data_file_path.

    url: one, or several mirrors. extracted_path is the folder of data_file_path. What
    is there and whole stays. Raises FetchError, or ValueError for another collection.
    """
    if Path(data_file_path).exists():
        check_sha256(data_file_path, MEMBER_SHA256, MEMBER_SIZE)
        return
    fetch(url, zip_path, sha256=ZIP_SHA256, size=ZIP_SIZE)
    Path(extracted_path).mkdir(parents=True, exist_ok=True)
    known = {"sha256": MEMBER_SHA256, "size": MEMBER_SIZE}
    unzip_member(zip_path, MEMBER, data_file_path, **known)


def read_messages(path):
    """Read lines of label, tab, message. ValueError names the first that is not one."""
    lines = read_text(path).split("\n")
    rows = [line.partition("\t") for line in lines]
    for number, (label, _, text) in enumerate(rows, 1):
        is_message = label in LABELS and text.strip()
        if not is_message and (label or text):
            raise ValueError(
                f"{path}, line {number}: {lines[number - 1][:60]!r} is not `ham` or "
                "`spam`, a tab and a message"
            )
    df = pd.DataFrame([(label, text) for label, _, text in rows if label])
    if df.empty:
        raise ValueError(f"{path} holds no messages")
    return df.set_axis(["Label", "Text"], axis=1)


def load_messages():
    """The collection, fetched once; if it cannot be had, the course's own sample.

    Prints which of the two it is.
    """
    folder = downloads_folder()
    path = folder / MEMBER
    if path.is_dir():  # unzipped by hand into a folder of its own
        path /= MEMBER
    try:
        download_and_unzip_spam_data(URLS, folder / "sms_spam.zip", folder, path)
    except FetchError:
        path = SAMPLE
        print("The collection cannot be had. The course's own small sample stands in.")
    df = read_messages(path)
    print(f"{len(df):,} messages from {path.name}")
    return df


def create_balanced_dataset(df, seed=123):
    """All of the spam, and as many ham messages, drawn at random."""
    spam, ham = df[df["Label"] == "spam"], df[df["Label"] == "ham"]
    if spam.empty or len(ham) < len(spam):
        raise ValueError(f"{len(spam)} spam and {len(ham)} ham cannot be balanced")
    return pd.concat([ham.sample(len(spam), random_state=seed), spam])


def check_classes(parts):
    """Raise ValueError if a part of a split lacks messages of one class."""
    for name, part in zip(("training", "validation", "test"), parts):
        if part["Label"].nunique() < 2:
            raise ValueError(
                f"the {name} part has {len(part)} messages and not both classes: "
                "split more messages, or in other proportions"
            )


def random_split(df, train_frac, validation_frac):
    """Shuffle and cut: (train, validation, test). Of few messages one may be empty."""
    if min(train_frac, validation_frac) < 0 or train_frac + validation_frac > 1 + 1e-9:
        raise ValueError(f"{train_frac} and {validation_frac} are no parts of a whole")
    df = df.sample(frac=1, random_state=123).reset_index(drop=True)
    train_end = int(len(df) * train_frac)
    validation_end = train_end + int(len(df) * validation_frac)
    return df[:train_end], df[train_end:validation_end], df[validation_end:]


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


def split_messages(df, seed=123):
    """Messages to (train, validation, test, left_over), with labels 0 and 1.

    Copies are dropped, near-copies stay together, the first three parts are half spam.
    left_over is the ham that was not drawn, but for near-copies of what is trained on;
    it may be empty. Raises ValueError for messages that are too few, or too alike.
    """
    if not df["Label"].isin(LABELS).all():
        raise ValueError("a message has another label than `ham` or `spam`")
    df = df.drop_duplicates("Text").reset_index(drop=True)
    df["Group"] = near_duplicate_groups(df["Text"])
    balanced = create_balanced_dataset(df, seed)
    train, validation, test = group_split(balanced, seed)
    check_classes((train, validation, test))
    left_over = df.drop(balanced.index)
    seen = pd.concat([train, validation])["Group"]
    left_over = left_over[~left_over["Group"].isin(seen)]
    parts = train, validation, test, left_over
    return [part.assign(Label=part["Label"].map(LABELS)) for part in parts]


class SpamDataset(Dataset):
    """(token ids, label) of the messages in a CSV file, or in a table.

    The columns are Label, 0 or 1, and Text. Every message is cut or padded to
    max_length tokens, by default the longest one's; a pad_token_id of None leaves them
    unpadded, for batches that pad themselves. Raises ValueError naming the first row
    with another label, or without a text.
    """

    def __init__(self, csv_file, tokenizer, max_length=None, pad_token_id=50256):
        if max_length is not None:
            check_whole(max_length=max_length)
        self.data = message_table(csv_file)
        self.encoded_texts = [tokenizer.encode_ordinary(t) for t in self.data["Text"]]
        self.max_length = max_length or self._longest_encoded_length()
        self.encoded_texts = [ids[: self.max_length] for ids in self.encoded_texts]
        if pad_token_id is not None:
            self.encoded_texts = [
                ids + [pad_token_id] * (self.max_length - len(ids))
                for ids in self.encoded_texts
            ]
        self.labels = self.data["Label"].tolist()

    def __getitem__(self, index):
        return torch.tensor(self.encoded_texts[index]), torch.tensor(self.labels[index])

    def __len__(self):
        return len(self.data)

    def _longest_encoded_length(self):
        return max(map(len, self.encoded_texts))
