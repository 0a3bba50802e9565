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
SHARE = "for validation: the end of each file, or one row in ten (default 0.1)"
DATASET = f"""a data set of Hugging Face, of which the training split is taken; or the
format of the files: {", ".join(FILE_FORMATS)}"""


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
    add("--column", default="text", help="of the texts (default text)")


def load_tokenizer(name):
    """GPT-2's tokenizer for "gpt2", else the BPETokenizer in a file of this name."""
    if name == "gpt2":
        return get_tokenizer(name)
    if not Path(name).is_file():
        raise ValueError(f"{name} is neither gpt2 nor a file of a tokenizer")
    return BPETokenizer.load(name)


def dataset_texts(name, subset, files, column):
    """Yield the texts of a data set of Hugging Face, which is read row by row.

    Raises FetchError if it cannot be read, ValueError for a row without a text.
    """
    if is_offline() and name not in FILE_FORMATS and not Path(name).is_dir():
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
        raise FetchError(f"the data set {name} cannot be read: {error}") from error


def tokenize_command(args):
    """Write the token ids of texts to shards, on which `run` trains.

    The texts are text files or a data set, read as a stream.
    """
    if not args.files and args.dataset in (None, *FILE_FORMATS):
        raise ValueError("name files to tokenize, or a --dataset of Hugging Face")
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
        f"{one_line(args.folder)} holds {num_tokens[0]:,} train and {num_tokens[1]:,} "
        "val tokens"
    )
