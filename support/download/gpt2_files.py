"""The files of GPT-2's weights: servers, sizes, sha256, and fetching them."""

import os
from dataclasses import dataclass

from support.download.fetch import FetchError, fetch, is_complete, is_offline
from support.download.files import move_into_place, set_aside, sha256_of, size_of
from support.download.tensorflow_checkpoint import DamagedCheckpoint
from support.download.vocabulary import GPT2_FILES
from support.messages import say

OPENAI = (
    "https://openaipublic.blob.core.windows.net/gpt-2/models",
    "https://f001.backblazeb2.com/file/LLMs-from-scratch/gpt2",
)
HUGGING_FACE_MIRROR = "https://hf-mirror.com"

# OpenAI's files: their names, sizes in bytes, and sha256 as far as publicly known
NAMES = (
    "checkpoint",
    "encoder.json",
    "vocab.bpe",
    "hparams.json",
    "model.ckpt.index",
    "model.ckpt.meta",
    "model.ckpt.data-00000-of-00001",
)
NUM_BYTES = {
    "124M": (77, 1_042_301, 456_318, 90, 5_215, 471_155, 497_759_232),
    "355M": (77, 1_042_301, 456_318, 91, 10_399, 926_519, 1_419_292_672),
    "774M": (77, 1_042_301, 456_318, 91, None, None, 3_096_120_320),
    "1558M": (77, 1_042_301, 456_318, 91, None, None, 6_230_444_800),
}
SHARED_SHA256 = (  # the first three files are the same for all sizes
    "dd1b025d2e155283f5e300ce95bf6d5b6bc0f7fe010db73daa6975eb896ab9cb",
    *GPT2_FILES.values(),
)
SHA256_124M = (
    "d9d56e4121c427164e0c55c6f03c08e1daf9002b9b672825112d19097b680318",
    "71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687",
    "4668c448fa11531fd6700460487f73e82d3272960cea942252f8744bf225c77b",
    "2060c885360cc0cf41d7a6dbc4d24b5127aae20260c8b5ae521b5a6578407118",
)
SHA256 = dict.fromkeys(NUM_BYTES, SHARED_SHA256 + (None,) * 4)
SHA256["124M"] = SHARED_SHA256 + SHA256_124M
BY_SIZE = {  # {"124M": {name: (size, sha256)}}
    model_size: dict(zip(NAMES, zip(sizes, SHA256[model_size])))
    for model_size, sizes in NUM_BYTES.items()
}
# Hugging Face's model.safetensors: repository and revision, size in bytes, sha256. Two
# public sources agree on each of them, except on the sha256 of gpt2-large.
HUGGING_FACE = {
    "124M": (
        "gpt2/resolve/607a30d783dfa663caf39e06633721c8d4cfcd7e",
        548_105_171,
        "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
    ),
    "355M": (
        "gpt2-medium/resolve/6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
        1_519_984_962,
        "fc5a354a19255ad494f3d71549390baca1ccf61d1d822b9408971705c687c9cd",
    ),
    "774M": (
        "gpt2-large/resolve/32b71b12589c2f8d625668d2335a01cac3249519",
        3_247_159_078,
        None,
    ),
    "1558M": (
        "gpt2-xl/resolve/15ea56dee5df4983c59b2538573817e1667135e2",
        6_431_829_964,
        "0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a",
    ),
}

# the published weights of 124M, from either publisher
KNOWN_124M = {HUGGING_FACE["124M"][2], SHA256_124M[-1]}


@dataclass(frozen=True)
class RemoteFile:
    """A file on one or more servers; size (in bytes) and sha256 are None if unknown."""

    name: str
    size: int | None
    sha256: str | None
    urls: tuple[str, ...]

    def fetch_to(self, folder, suffix=""):
        """Fetch it into a folder unless the complete file is there; return its path."""
        path = folder / f"{self.name}{suffix}"
        return fetch(self.urls, path, sha256=self.sha256, size=self.size)

    def is_in(self, folder):
        """Return True if a file of this name and size is there, damaged or not."""
        found = size_of(folder / self.name)
        return found is not None and self.size in (None, found)

    def state_in(self, folder):
        """Return "whole", "missing", how it is damaged, or what is not known of it."""
        path = folder / self.name
        size = size_of(path)
        if size is None:
            is_there = os.path.lexists(path)
            return "damaged: it is not a file" if is_there else "missing"
        if self.size not in (None, size):
            return f"damaged: it has {size:,} bytes, not {self.size:,}"
        if self.sha256 is None:
            known = "size and" if self.size is None else "right size,"
            return "damaged: it is empty" if size == 0 else f"{known} content unchecked"
        try:
            is_whole = sha256_of(path) == self.sha256
        except OSError as error:
            return f"damaged: {error.strerror}"
        return "whole" if is_whole else "damaged: its sha256 is not the expected one"


def openai_files(model_size):
    """Return the seven files of OpenAI's checkpoint of a size such as "124M"."""
    if model_size not in BY_SIZE:
        raise ValueError(f"model_size {model_size!r} is not one of {list(BY_SIZE)}")
    return [
        RemoteFile(name, *known, tuple(f"{url}/{model_size}/{name}" for url in OPENAI))
        for name, known in BY_SIZE[model_size].items()
    ]


def hugging_face_file(model_size):
    """Return Hugging Face's file of a size such as "124M", on HF_ENDPOINT if set."""
    repository, *known = HUGGING_FACE[model_size]
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    servers = dict.fromkeys((endpoint, HUGGING_FACE_MIRROR))  # without duplicates
    path = f"openai-community/{repository}/model.safetensors"
    urls = tuple(f"{server}/{path}" for server in servers)
    return RemoteFile("model.safetensors", *known, urls)


def is_fault(state):
    """Return True for the state of a file that is missing or damaged."""
    return state == "missing" or state.startswith("damaged")


def fetch_and_read(files, folder, read):
    """Fetch files and call read(); fetch damaged ones again, once.

    Files whose sha256 is known are not fetched again, because they were checked. Raises
    FetchError and what read() raises.
    """
    for file in files:
        file.fetch_to(folder)
    unchecked = [file for file in files if file.sha256 is None]
    try:
        return read()
    except DamagedCheckpoint as damage:
        if is_offline() or not unchecked:
            raise
        say(f"{damage}. It will be downloaded once more.")
        fetch_again(unchecked, folder, damage)
    return read()


def fetch_again(files, folder, damage):
    """Fetch new copies of files, and then replace those that differ."""
    try:
        paths = [file.fetch_to(folder, ".new") for file in files]
    except FetchError as error:
        raise FetchError(
            f"{damage}. It stays as it is, because no other copy could be downloaded: "
            f"{error}"
        ) from None
    for file, path in zip(files, paths):
        if is_complete(folder / file.name, sha256_of(path), None):
            path.unlink()  # this file is not damaged
        else:
            set_aside(folder / file.name)
            move_into_place(path, folder / file.name)
