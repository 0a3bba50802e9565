"""`python -m support.pretraining tokenize`: its options and what it does."""

import os
from pathlib import Path

from ch02.tokenizer import BPETokenizer, get_tokenizer
from support.commands import fraction
from support.download.fetch import FetchError, is_offline
from support.download.files import check_regular
from support.messages import one_line, say
from support.pretraining.chunks import split_files, split_texts
from support.pretraining.shards import SPLITS
from support.pretraining.writer import write_shards

FILE_FORMATS = "csv", "json", "parquet", "text"  # of data sets in local files
SHARE = """share of the text for validation (default 0.1): the end of each file, or
every tenth row of a data set"""
DATASET = f"""a data set on Hugging Face, whose training split is used; or the format of
the files: {", ".join(FILE_FORMATS)}"""


def add_tokenize_arguments(parser):
    """Add the arguments of `tokenize` to an argparse parser."""
    add = parser.add_argument
    add("folder", help="where the shards are written; a stopped command continues here")
    add("files", nargs="*", help="text files, or files in the format of --dataset")
    name = "gpt2 (default), or a file that BPETokenizer.save wrote"
    add("--tokenizer", default="gpt2", help=name)
    add("--val-share", type=fraction, default=0.1, help=SHARE)
    add("--dataset", help=DATASET)
    add("--subset", help="which part of the data set, if it has several")
    add("--column", default="text", help="column of the texts (default text)")


def load_tokenizer(name):
    """GPT-2's tokenizer for "gpt2", else the BPETokenizer in a file of this name."""
    if name == "gpt2":
        return get_tokenizer(name)
    if not Path(name).is_file():
        raise ValueError(
            f"{name} is not a file: give gpt2, or a file that BPETokenizer.save wrote"
        )
    return BPETokenizer.load(name)


def dataset_texts(name, subset, files, column):
    """Yield the texts of a data set on Hugging Face, which is read row by row.

    Raises FetchError if it cannot be read, ValueError for a row without a text.
    """
    if is_offline() and name not in FILE_FORMATS and not Path(name).is_dir():
        raise FetchError(
            f"LLMS_OFFLINE forbids downloading the data set {name}: unset it, or name "
            "files to tokenize"
        )
    import datasets  # it takes a second, and few runs need it

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # or each reading is reported
    try:
        rows = datasets.load_dataset(
            name, subset, data_files=files or None, split="train", streaming=True
        )
        for number, row in enumerate(rows):
            if not isinstance(row.get(column), str):
                raise ValueError(
                    f"row {number} of {name} has no text in the column {column!r}; its "
                    f"columns are {', '.join(row)}: choose one with --column"
                )
            yield row[column]
    except OSError as error:
        raise FetchError(f"the data set {name} cannot be read: {error}") from error


def tokenize_command(args):
    """Write the token ids of texts to shards, on which `run` trains.

    The texts are text files or a data set, read as a stream.
    """
    if not args.files and args.dataset in (None, *FILE_FORMATS):
        raise ValueError(
            "there is nothing to tokenize: name files, or a data set on Hugging Face "
            "(--dataset)"
        )
    for path in args.files:
        check_regular(path)
    tokenizer = load_tokenizer(args.tokenizer)
    if args.dataset:
        texts = dataset_texts(args.dataset, args.subset, args.files, args.column)
        pieces, size = split_texts(texts, args.val_share), None
    else:
        pieces = split_files(args.files, args.val_share)
        size = sum(os.path.getsize(path) for path in args.files)
    shards = write_shards(pieces, args.folder, tokenizer, size)["shards"]
    num_tokens = [sum(shard["tokens"] for shard in shards[split]) for split in SPLITS]
    say(
        f"{one_line(args.folder)} holds {num_tokens[0]:,} training tokens and "
        f"{num_tokens[1]:,} validation tokens"
    )
