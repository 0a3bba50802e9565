"""Read and check tables of messages with the labels 0 and 1."""

import csv
import io
import os

import pandas as pd

from support.download.files import read_text
from support.messages import one_line

COLUMNS = ["Label", "Text"]


def message_table(csv_file):
    """Return a checked table of messages; csv_file: a table, a path or an open file.

    Raises ValueError naming the first bad row of the table, or line of the file.
    """
    if not isinstance(csv_file, pd.DataFrame):
        return read_message_table(csv_file)
    rows = [f"the table, row {i}" for i in csv_file.index]
    check_message_table(csv_file, "the table", rows)
    return csv_file


def read_message_table(csv_file):
    """Read a CSV file, given by path or open, with the columns Label and Text."""
    is_open = hasattr(csv_file, "read")
    name = "the CSV file" if is_open else one_line(os.fsdecode(csv_file))
    text = csv_file.read() if is_open else read_text(csv_file)
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        rows = [(f"{name}, line {reader.line_num}", row) for row in reader if row]
    except csv.Error as error:
        line = f"{name}, line {reader.line_num}"
        raise ValueError(f"{line} is not CSV text: {error}") from None
    if not text.strip():
        raise ValueError(f"{name} is empty: expected messages in columns {COLUMNS}")
    (first_line, columns), *rows = rows
    check_columns(columns, first_line)
    for line, row in rows:
        if len(row) != len(columns):
            raise ValueError(
                f"{line} has {len(row)} fields and the first line {len(columns)}: put "
                "a message with commas or line breaks in quotation marks"
            )
    df = pd.DataFrame([row for _, row in rows], columns=columns)
    df["Label"] = df["Label"].replace({"0": 0, "1": 1})
    check_message_table(df, name, [line for line, _ in rows])
    return df.astype({"Label": int})


def check_columns(columns, name):
    """Raise ValueError unless Label and Text are among the columns."""
    if not set(COLUMNS) <= set(columns):
        raise ValueError(
            f"{name}: expected the columns {COLUMNS}, separated by commas, found "
            f"{[one_line(column, 40) for column in columns][:5]}"
        )


def check_message_table(df, name, rows):
    """Raise ValueError for labels other than 0 and 1, and for empty messages.

    rows: what to call each row of the table in the message.
    """
    check_columns(df.columns, name)
    if df.empty:
        raise ValueError(f"{name} is empty: expected messages in columns {COLUMNS}")
    for row, label, text in zip(rows, df["Label"], df["Text"]):
        if label not in (0, 1):
            raise ValueError(
                f"{row}: expected messages with labels 0 and 1, found {label!r}"
            )
        if not isinstance(text, str) or not text:
            raise ValueError(f"{row}: the message is empty; remove it")
