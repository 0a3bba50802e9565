"""The SMS Spam Collection: downloaded, read, and split without leakage (6.2).

Tables of messages have the columns Label ("ham" or "spam", later 0 or 1) and Text.
"""

from pathlib import Path

import pandas as pd
import torch
from torch.utils.data import Dataset

from ch06.splits import group_split, near_duplicate_groups
from support.checks import check_whole
from support.download.fetch import FetchError, downloads_folder, fetch, unzip_member
from support.download.files import check_sha256, read_text
from support.download.message_tables import message_table
from support.messages import one_line

URLS = (
    "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
    "https://f001.backblazeb2.com/file/LLMs-from-scratch/sms%2Bspam%2Bcollection.zip",
)
ZIP_SHA256 = "1587ea43e58e82b14ff1f5425c88e17f8496bfcdb67a583dbff9eefaf9963ce3"
ZIP_SIZE = 203_415  # bytes
MEMBER = "SMSSpamCollection"  # the file in the zip that we need
MEMBER_SHA256 = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"
MEMBER_SIZE = 477_907  # bytes
LABELS = {"ham": 0, "spam": 1}
SAMPLE = Path(__file__).with_name("sample.tsv")


def download_and_unzip_spam_data(url, zip_path, extracted_path, data_file_path):
    """Download the zip of the collection and unzip its file to data_file_path.

    url: one address, or several mirrors. extracted_path is the folder of
    data_file_path. A file that is there and complete is kept. Raises FetchError if the
    download fails, ValueError if the file is another collection.
    """
    if Path(data_file_path).exists():
        check_sha256(data_file_path, MEMBER_SHA256, MEMBER_SIZE)
        return
    fetch(url, zip_path, sha256=ZIP_SHA256, size=ZIP_SIZE)
    Path(extracted_path).mkdir(parents=True, exist_ok=True)
    known = {"sha256": MEMBER_SHA256, "size": MEMBER_SIZE}
    unzip_member(zip_path, MEMBER, data_file_path, **known)


def read_messages(path):
    """Read lines of label, tab and message; ValueError names the first bad line."""
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
        raise ValueError(f"{path} contains no messages")
    return df.set_axis(["Label", "Text"], axis=1)


def load_messages():
    """The collection, downloaded once, or else the sample of the course.

    Prints which of the two it is.
    """
    folder = downloads_folder()
    path = folder / MEMBER
    if path.is_dir():  # somebody unzipped it into a folder of this name
        path /= MEMBER
    try:
        download_and_unzip_spam_data(URLS, folder / "sms_spam.zip", folder, path)
    except FetchError as error:
        path = SAMPLE
        said = str(error).replace(str(folder), folder.name)
        reason = one_line(" ".join(said.split()))
        print(
            "The SMS Spam Collection cannot be downloaded, so a small sample is used "
            f"instead. The reason: {reason}"
        )
    df = read_messages(path)
    print(f"{len(df):,} messages from {path.name}")
    return df


def create_balanced_dataset(df, seed=123):
    """All spam messages, and as many ham messages, drawn at random."""
    spam, ham = df[df["Label"] == "spam"], df[df["Label"] == "ham"]
    if spam.empty or len(ham) < len(spam):
        raise ValueError(
            f"{len(spam)} spam and {len(ham)} ham messages cannot be balanced: there "
            "must be spam, and at least as many ham messages"
        )
    return pd.concat([ham.sample(len(spam), random_state=seed), spam])


def check_classes(parts):
    """Raise ValueError if a part of a split lacks messages of one class."""
    for name, part in zip(("training", "validation", "test"), parts):
        if part["Label"].nunique() < 2:
            raise ValueError(
                f"the {name} part has {len(part)} messages, but not of both classes: "
                "use more messages or other proportions"
            )


def random_split(df, train_frac, validation_frac):
    """Shuffle and split: (train, validation, test). Parts of few rows may be empty."""
    if min(train_frac, validation_frac) < 0 or train_frac + validation_frac > 1 + 1e-9:
        raise ValueError(
            f"train_frac {train_frac} and validation_frac {validation_frac} must be at "
            "least 0, and their sum at most 1"
        )
    df = df.sample(frac=1, random_state=123).reset_index(drop=True)
    train_end = int(len(df) * train_frac)
    validation_end = train_end + int(len(df) * validation_frac)
    return df[:train_end], df[train_end:validation_end], df[validation_end:]


def split_messages(df, seed=123):
    """Split messages: (train, validation, test, left_over), with labels 0 and 1.

    Copies are dropped, near-copies stay in one part, and half of each of the first
    three parts is spam. left_over is the ham that was not drawn, without near-copies of
    the training and validation parts; it may be empty. Raises ValueError for messages
    that are too few or too similar.
    """
    if not df["Label"].isin(LABELS).all():
        raise ValueError("a message has a label other than `ham` and `spam`")
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
    """(token ids, label) of the messages in a CSV file or a table.

    The columns are Label, 0 or 1, and Text. Each message is truncated or padded to
    max_length tokens, by default to the longest message. With pad_token_id None it is
    not padded, because the loader will do that. Raises ValueError naming the first row
    with another label or without a text.
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
