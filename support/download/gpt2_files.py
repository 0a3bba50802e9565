"""The files of GPT-2's weights: servers, sizes, hashes (support: used, not taught)."""

import os
from dataclasses import dataclass

from support.download.fetch import FetchError, fetch, is_complete, is_offline
from support.download.files import move_into_place, set_aside, sha256_of, size_of
from support.download.tensorflow_checkpoint import DamagedCheckpoint
from support.messages import say

OPENAI = (
    "https://openaipublic.blob.core.windows.net/gpt-2/models",
    "https://f001.backblazeb2.com/file/LLMs-from-scratch/gpt2",
)
HUGGING_FACE_MIRROR = "https://hf-mirror.com"

# bytes and, where it is publicly known, the sha256 of OpenAI's files
ALL_SIZES = {
    "checkpoint": (
        77,
        "dd1b025d2e155283f5e300ce95bf6d5b6bc0f7fe010db73daa6975eb896ab9cb",
    ),
    "encoder.json": (
        1_042_301,
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    ),
    "vocab.bpe": (
        456_318,
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    ),
}
BY_SIZE = {
    "124M": {
        "hparams.json": (
            90,
            "d9d56e4121c427164e0c55c6f03c08e1daf9002b9b672825112d19097b680318",
        ),
        "model.ckpt.index": (
            5_215,
            "71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687",
        ),
        "model.ckpt.meta": (
            471_155,
            "4668c448fa11531fd6700460487f73e82d3272960cea942252f8744bf225c77b",
        ),
        "model.ckpt.data-00000-of-00001": (
            497_759_232,
            "2060c885360cc0cf41d7a6dbc4d24b5127aae20260c8b5ae521b5a6578407118",
        ),
    },
    "355M": {
        "hparams.json": (91, None),
        "model.ckpt.index": (10_399, None),
        "model.ckpt.meta": (926_519, None),
        "model.ckpt.data-00000-of-00001": (1_419_292_672, None),
    },
    "774M": {
        "hparams.json": (91, None),
        "model.ckpt.index": (None, None),
        "model.ckpt.meta": (None, None),
        "model.ckpt.data-00000-of-00001": (3_096_120_320, None),
    },
    "1558M": {
        "hparams.json": (91, None),
        "model.ckpt.index": (None, None),
        "model.ckpt.meta": (None, None),
        "model.ckpt.data-00000-of-00001": (6_230_444_800, None),
    },
}
# Repository and revision, bytes, sha256 of Hugging Face's model.safetensors. A revision
# or a sha256 stands here if two public sources agree on it: of gpt2-large's file that
# holds for the revision alone.
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

# the published weights of 124M, in the form of either publisher
KNOWN_124M = {
    HUGGING_FACE["124M"][2],
    BY_SIZE["124M"]["model.ckpt.data-00000-of-00001"][1],
}


@dataclass(frozen=True)
class RemoteFile:
    """A file that several servers offer; size in bytes, None where it is not known."""

    name: str
    size: int | None
    sha256: str | None
    urls: tuple[str, ...]

    def fetch_to(self, folder):
        """Fetch it into a folder, unless it lies there whole; return its path."""
        path = folder / self.name
        return fetch(self.urls, path, sha256=self.sha256, size=self.size)

    def is_in(self, folder):
        """True if a file of this name and size is there; its content may be damaged."""
        found = size_of(folder / self.name)
        return found is not None and self.size in (None, found)

    def state_in(self, folder):
        """`whole`, `missing`, how it is damaged, or what is not known of it."""
        path = folder / self.name
        size = size_of(path)
        if size is None:
            is_there = os.path.lexists(path)
            return "damaged: it is not a file" if is_there else "missing"
        if self.size not in (None, size):
            return f"damaged: {size:,} of {self.size:,} bytes"
        if self.sha256 is None:
            known = "size and" if self.size is None else "right size,"
            return "damaged: it is empty" if size == 0 else f"{known} content unknown"
        try:
            found = sha256_of(path)
        except OSError as error:
            return f"damaged: {error.strerror}"
        return "whole" if found == self.sha256 else "damaged: its sha256 is another"

    def fetch_beside(self, folder):
        """Fetch it once more, under the name `<name>.new`; return its path."""
        path = folder / f"{self.name}.new"
        return fetch(self.urls, path, sha256=self.sha256, size=self.size)


def openai_files(model_size):
    """The seven files of OpenAI's checkpoint of a size such as "124M"."""
    if model_size not in BY_SIZE:
        raise ValueError(f"model_size {model_size!r} is not one of {list(BY_SIZE)}")
    return [
        RemoteFile(
            name, size, sha256, tuple(f"{url}/{model_size}/{name}" for url in OPENAI)
        )
        for name, (size, sha256) in (ALL_SIZES | BY_SIZE[model_size]).items()
    ]


def hugging_face_file(model_size):
    """Hugging Face's file of a size such as "124M"; HF_ENDPOINT names the server."""
    place, size, sha256 = HUGGING_FACE[model_size]
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    servers = dict.fromkeys((endpoint, HUGGING_FACE_MIRROR))  # each once
    urls = [
        f"{server}/openai-community/{place}/model.safetensors" for server in servers
    ]
    return RemoteFile("model.safetensors", size, sha256, tuple(urls))


def is_fault(state):
    """True for the state of a file that is missing or damaged."""
    return state == "missing" or state.startswith("damaged")


def fetch_and_read(files, folder, read):
    """Fetch files, then call read(); what it finds damaged is fetched again, once.

    A file whose sha256 is known and right is not fetched again. Raises FetchError and
    what read() raises.
    """
    for file in files:
        file.fetch_to(folder)
    doubtful = [file for file in files if file.sha256 is None]
    try:
        return read()
    except DamagedCheckpoint as damage:
        if is_offline() or not doubtful:
            raise
        say(f"{damage}. It is fetched once more.")
        replace_all(doubtful, folder, damage)
    return read()


def replace_all(files, folder, damage):
    """Fetch files once more; only when all have come, the old ones are set aside."""
    try:
        paths = [file.fetch_beside(folder) for file in files]
    except FetchError as error:
        raise FetchError(
            f"{damage}. It stays as it is, for another one could not be had: {error}"
        ) from None
    for file, path in zip(files, paths):
        if is_complete(folder / file.name, sha256_of(path), None):
            path.unlink()  # this was not the damaged one
        else:
            set_aside(folder / file.name)
            move_into_place(path, folder / file.name)
