"""Loading GPT-2, beside the book and transformers: `python -m benchmarks.loading`.

Random weights of GPT-2's shape are written in the three forms that the course reads;
each is loaded in fresh processes as `load_pretrained` does it: the first time with its
sha256 and parity check, which the peers do without; again, once the file is known. A
model counts as loaded when each weight has been read once: transformers leaves them in
the file until they are used. All imports are made before, TensorFlow's too. Memory is
the most that is held above them.
"""

import argparse
import json
import os
import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks.measure import (
    IS_QUICK,
    in_fresh_process,
    missing,
    peak_megabytes,
    stopwatch,
)
from benchmarks.table import Row, plain_table
from ch05.openai_weights import MODEL_CONFIGS
from support.download import checked_files, gpt2_files
from support.download.tensorflow_checkpoint import import_tensorflow
from support.weights.__main__ import convert
from support.weights.pretrained import find_sources
from support.weights.reference import (
    sizes_and_hashes,
    transformers_gpt2,
    write_hugging_face,
    write_openai,
)
from support.weights.sources import gpt2_config, model_size

RUNS = 2 if IS_QUICK else 4  # the first of which checks the file
OURS = ("converted", "huggingface", "openai")
# whose file each peer reads as well
PEERS = {"transformers": "huggingface", "the book's": "openai"}
PACKAGES = {"transformers": "transformers", "the book's": "llms_from_scratch"}
NAMES = {model_size(name): name for name in MODEL_CONFIGS}


def write_files(size, downloads):
    """Write the files of all sources, and transformers', into a downloads folder."""
    checked_files.CHECKED = downloads / "checked_when_written.json"
    folder = downloads / "gpt2" / size
    reference = transformers_gpt2(gpt2_config(NAMES[size]), std=0.02)
    reference.save_pretrained(downloads / "transformers")
    write_hugging_face(folder, reference)
    write_openai(folder, reference)
    known = json.dumps(sizes_and_hashes(folder))
    (downloads / "facts.json").write_text(known, encoding="utf-8")
    take_for_published(size, downloads)
    convert(NAMES[size])


def take_for_published(size, downloads):
    """Know the files by size and sha256, as the course does the published ones."""
    known = json.loads((downloads / "facts.json").read_text(encoding="utf-8"))
    gpt2_files.HUGGING_FACE[size] = ("gpt2", *known["model.safetensors"])
    gpt2_files.BY_SIZE[size] = known


def our_loader(size, title, downloads):
    """A function that loads a source of ours."""
    take_for_published(size, downloads)
    (place,) = find_sources(NAMES[size], title)
    if title == "openai":
        import_tensorflow()
    return lambda: place.load()[0]


def transformers_loader(size, downloads):
    """A function that loads the model by transformers."""
    from transformers import GPT2LMHeadModel

    return lambda: GPT2LMHeadModel.from_pretrained(downloads / "transformers")


def book_loader(size, downloads):
    """A function that loads OpenAI's checkpoint as the book does."""
    from llms_from_scratch import ch04, ch05

    import_tensorflow()
    folder = downloads / "gpt2" / size
    hparams = json.loads((folder / "hparams.json").read_text(encoding="utf-8"))

    def load():
        params = ch05.load_gpt2_params_from_tf_ckpt(str(folder / "model.ckpt"), hparams)
        model = ch04.GPTModel(gpt2_config(NAMES[size]))
        ch05.load_weights_into_gpt(model, params)
        return model

    return load


def measure_load(size, title):
    """Load a model once: seconds, megabytes, and the megabytes of its parameters."""
    downloads, seconds = Path(os.environ["LLMS_DOWNLOADS"]), []
    # another file, because `convert` has checked one of the sources already
    checked_files.CHECKED = downloads / "checked_when_loaded.json"
    if title == "transformers":
        load = transformers_loader(size, downloads)
    elif title == "the book's":
        load = book_loader(size, downloads)
    else:
        load = our_loader(size, title, downloads)
    before = peak_megabytes()
    with stopwatch(seconds), torch.no_grad():
        model = load()
        for parameter in model.parameters():
            parameter.sum()
    megabytes = peak_megabytes() - before
    in_model = sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6
    return seconds[0], megabytes, in_model


def measure_all(size):
    """({title: what `measure_load` gives, each as a list of rounds}, notes)."""
    found, notes = {}, []
    run = partial(in_fresh_process, measure_load, size)
    with tempfile.TemporaryDirectory() as downloads:
        os.environ |= {"LLMS_DOWNLOADS": downloads, "LLMS_OFFLINE": "1"}
        in_fresh_process(write_files, size, Path(downloads))
        for title in (*OURS, *PEERS):
            try:
                runs = [run(title) for _ in range(RUNS)]
            except ImportError as error:
                notes.append(missing(PACKAGES[title], error))
                continue
            found[title] = [*zip(*runs)]
    return found, notes


def compare(found):
    """Rows of the table from what `measure_all` found."""
    rows, work = [], "memory of loading"
    for title in OURS:
        _, *sizes = found[title]
        rows.append(Row(work, title, "the model itself", *sizes, "MB", goal=1.3))
    for peer, title in PEERS.items():
        if peer in found:
            (ours, theirs), megabytes, _ = zip(found[title], found[peer])
            for when, runs, goal in (
                ("loading, first", ours[:1], 1.5),
                ("loading, again", ours[1:], 0.5),
            ):
                rows.append(Row(when, title, peer, runs, theirs, "s", figure_goal=goal))
            rows.append(Row(work, title, peer, *megabytes, "MB"))
    return rows


def measure_rows(size="124M"):
    """Measure all: rows of the table, and notes."""
    found, notes = measure_all(size)
    return compare(found), notes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading")
    parser.add_argument("size", nargs="?", choices=NAMES, default="124M")
    rows, notes = measure_rows(parser.parse_args().size)
    print(plain_table(rows), *notes, sep="\n")
