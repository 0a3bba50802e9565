"""The command-line options of `python -m support.pretraining tokenize`."""

import argparse
import os
from pathlib import Path

from ch02.tokenizer import BPETokenizer, get_tokenizer
from support.commands import clean_exit
from support.download.fetch import FetchError, is_offline
from support.messages import one_line, say
from support.pretraining.chunks import check_is_file, split_files, split_texts
from support.pretraining.shards import SPLITS
from support.pretraining.writer import write_shards

FILE_FORMATS = "csv", "json", "parquet", "text"  # data sets that are files given


def share_of_validation(text):
    """A number from 0 to 0.5, or argparse's sentence about it."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 0.5:
        raise argparse.ArgumentTypeError(
            f"{one_line(text)} is not a number from 0 to 0.5"
        )
    return share


def take_in_any_order(parser):
    """Let an argparse parser of a command take options between file names, too.

    Behind `--` all are names, which may begin with a dash.
    """
    usual = parser.parse_known_args

    def parse(args, namespace=None):
        end = args.index("--") if "--" in args else len(args)
        names = [f"./{n}" if n.startswith("-") else n for n in args[end + 1 :]]
        parser.parse_known_args = usual  # which the method below may call itself
        try:
            return parser.parse_known_intermixed_args(args[:end] + names, namespace)
        finally:
            parser.parse_known_args = parse

    parser.parse_known_args = parse


def add_tokenize_arguments(parser):
    """Add to an argparse parser what `tokenize` understands."""
    take_in_any_order(parser)
    parser.add_argument("folder", help="where the shards go; the same goes on with it")
    parser.add_argument("files", nargs="*", help="text files, or those of --dataset")
    parser.add_argument(
        "--tokenizer",
        default="gpt2",
        help="gpt2 (default), or a file that BPETokenizer.save wrote",
    )
    parser.add_argument(
        "--val-share",
        type=share_of_validation,
        default=0.1,
        help="for validation: the end of each file, or one row in ten (default 0.1)",
    )
    parser.add_argument(
        "--dataset",
        help="a data set of Hugging Face, its training split; or the format of the "
        f"files: {', '.join(FILE_FORMATS)}",
    )
    parser.add_argument(
        "--subset", help="which part of the data set, if it has several"
    )
    parser.add_argument("--column", default="text", help="of the texts (default text)")


def tokenizer_called(name):
    """GPT-2's tokenizer for "gpt2", else the BPETokenizer in a file of this name."""
    if name == "gpt2":
        return get_tokenizer(name)
    if not Path(name).is_file():
        raise ValueError(f"{name} is neither gpt2 nor a file of a tokenizer")
    return BPETokenizer.load(name)


def dataset_texts(name, subset, files, column):
    """Yield the texts of a data set of Hugging Face, read row by row as it comes.

    Raises FetchError when it cannot be had, ValueError for a row without a text.
    """
    is_here = name in FILE_FORMATS or Path(name).is_dir()
    if is_offline() and not is_here:
        raise FetchError(
            f"LLMS_OFFLINE forbids fetching the data set {name}: unset it or give files"
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
                    f"row {number} of {name} has no text in a column {column}; its "
                    f"columns are {', '.join(row)}"
                )
            yield row[column]
    except OSError as error:
        raise FetchError(f"the data set {name} cannot be had: {error}") from error


def check_files(files, dataset):
    """Raise ValueError unless the files are there, and some if there is no data set."""
    for path in files:
        check_is_file(path)
    if not files and dataset in (None, *FILE_FORMATS):
        raise ValueError("name files to tokenize, or a --dataset of Hugging Face")


def tokenize_command(args):
    """Write the token ids of texts to shards, on which `run` trains.

    Text files or a data set, read as a stream. Stopped and begun again, it goes on.
    """
    stopped = "stopped; the shards so far are whole, and the same command goes on"
    with clean_exit(stopped=stopped):
        check_files(args.files, args.dataset)
        tokenizer = tokenizer_called(args.tokenizer)
        if args.dataset:
            texts = dataset_texts(args.dataset, args.subset, args.files, args.column)
            pieces, size = split_texts(texts, args.val_share), None
        else:
            pieces = split_files(args.files, args.val_share)
            size = sum(os.path.getsize(path) for path in args.files)
        index = write_shards(pieces, args.folder, tokenizer, size=size)
        say(summary(args.folder, index))


def summary(folder, index):
    """What to say of finished shards."""
    parts = [
        f"{sum(shard['tokens'] for shard in index['shards'][split]):,} {split}"
        for split in SPLITS
    ]
    total = sum(len(index["shards"][split]) for split in SPLITS)
    return f"{one_line(folder)} holds {' and '.join(parts)} tokens in {total} shards"
