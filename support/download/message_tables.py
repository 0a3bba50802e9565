"""Tables of messages with labels 0 and 1, checked row by row (support)."""

import csv
import io
import os

import pandas as pd

from support.download.files import read_text
from support.messages import one_line

COLUMNS = ["Label", "Text"]


def message_table(csv_file):
    """A table of messages, or the one in a CSV file, once it is checked.

    Raises ValueError naming the first row, or line of the file, that is not one.
    """
    if not isinstance(csv_file, pd.DataFrame):
        return read_message_table(csv_file)
    check_message_table(csv_file)
    return csv_file


def read_message_table(csv_file):
    """The table in a CSV file, by path or open, whose columns are Label and Text.

    Raises ValueError, with the file's name and the line, for one that has others.
    """
    is_open = hasattr(csv_file, "read")
    name = "the CSV file" if is_open else one_line(os.fsdecode(csv_file))
    text = csv_file.read() if is_open else read_text(csv_file)
    if not text.strip():
        raise ValueError(f"{name} is empty: expected messages in columns {COLUMNS}")
    reader = csv.reader(io.StringIO(text), strict=True)
    rows, lines = [], []
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(f"{name}, line {reader.line_num}")
    except csv.Error as error:
        line = f"{name}, line {reader.line_num}"
        raise ValueError(f"{line} is not CSV text: {error}") from None
    check_columns(rows[0], lines[0])
    for row, line in zip(rows, lines):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{line} has {len(row)} fields and the first line {len(rows[0])}: put "
                "a message with commas or line breaks in quotation marks"
            )
    df = pd.DataFrame(rows[1:], columns=rows[0])
    df["Label"] = df["Label"].replace({"0": 0, "1": 1})
    check_message_table(df, name, lines[1:])
    return df.astype({"Label": int})


def check_columns(columns, where):
    """Raise ValueError unless Label and Text are among the names of columns."""
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise ValueError(
            f"{where}: expected the columns {COLUMNS}, separated by commas, found "
            f"{[one_line(name, 40) for name in columns][:5]}"
        )


def check_message_table(df, name="the table", rows=None):
    """Raise ValueError for a table with other labels than 0 and 1, or empty messages.

    rows: what to call each row, by default its number in the table's index.
    """
    check_columns(df.columns, name)
    if df.empty:
        raise ValueError(f"{name} is empty: expected messages in columns {COLUMNS}")
    rows = rows or [f"{name}, row {i}" for i in df.index]
    for row, label, text in zip(rows, df["Label"], df["Text"]):
        if label not in (0, 1):
            raise ValueError(
                f"{row}: expected messages with labels 0 and 1, found {label!r}"
            )
        if not isinstance(text, str) or not text:
            raise ValueError(f"{row}: a message is empty: take it out")
