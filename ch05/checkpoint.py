"""Models on disk (a support module: used, not taught).

A model is one safetensors file, with its config inside and its sha256 beside it.
"""

import json
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ch02.files import check_sha256, replacing, sha256_of, write_atomically
from ch04.gpt import GPTModel
from ch05.llama import LlamaModel
from ch05.openai_weights import assign
from ch05.tensorflow_reader import DamagedCheckpoint


def build_model(cfg):
    """The model of a config, with weights that are still to be set."""
    architecture = LlamaModel if "n_kv_groups" in cfg else GPTModel
    with uninitialized():
        return architecture(cfg)


@contextmanager
def uninitialized():
    """Leave the weights of new layers as they come: no time spent, no page touched."""
    keep = {"reset_parameters": lambda layer: None}
    with patch.multiple(nn.Linear, **keep), patch.multiple(nn.Embedding, **keep):
        yield


class SafetensorsReader:
    """The tensors of a safetensors file by name, each read when it is asked for.

    The file is opened for each anew: what a tensor has mapped into memory is gone
    with it. Raises DamagedCheckpoint when the file is cut, or has no such tensor.
    """

    def __init__(self, path):
        self.path = path

    @contextmanager
    def opened(self):
        """The open file; what safetensors says against it becomes DamagedCheckpoint."""
        try:
            with safe_open(self.path, framework="pt") as file:
                yield file
        except SafetensorError as error:
            raise DamagedCheckpoint(f"{self.path} is damaged: {error}") from None

    def __call__(self, name):
        with self.opened() as file:
            return file.get_tensor(name)

    def names(self):
        """The names of all tensors."""
        with safe_open(self.path, framework="pt") as file:
            return set(file.keys())

    def metadata(self):
        """The texts that were saved along with the tensors."""
        with self.opened() as file:
            return file.metadata() or {}


def sha256_file(path):
    """The file that holds the sha256 of `path`."""
    return Path(f"{path}.sha256")


def is_tied(model):
    """True if the output layer's weight is the token embedding itself."""
    has_embedding = hasattr(model, "tok_emb")  # the head of a classifier has none
    return has_embedding and model.out_head.weight is model.tok_emb.weight


def save_model(path, model, cfg, **metadata):
    """Write a model's weights and config; the file appears whole or not at all.

    metadata: further texts to keep with it. A tied output layer is written once.
    """
    weights = model.state_dict()
    if is_tied(model):
        del weights["out_head.weight"]
    save_weights(path, weights, cfg, tied=str(is_tied(model)), **metadata)


def save_weights(path, weights, cfg, **metadata):
    """Write a dict of tensors as `save_model` does."""
    metadata |= {"config": json.dumps(cfg)}
    with replacing(path) as temporary:
        save_file(weights, temporary, metadata=metadata)
        digest = sha256_of(temporary)
    write_atomically(sha256_file(path), f"{digest}  {Path(path).name}\n".encode())


def check_saved(path):
    """Raise ValueError if the file is damaged, FileNotFoundError if it is not there."""
    said = sha256_file(path).read_text(encoding="utf-8")
    check_sha256(path, said.partition(" ")[0])


def read_metadata(path):
    """What `save_model` wrote beside the weights, the config as a dict.

    Raises ValueError when the file is damaged, FileNotFoundError when it is not there.
    """
    check_saved(path)
    metadata = SafetensorsReader(path).metadata()
    return metadata | {"config": json.loads(metadata["config"])}


def load_model(path, device="cpu"):
    """Read what `save_model` wrote: (model in evaluation mode, config).

    Raises what `read_metadata` raises.
    """
    metadata = read_metadata(path)
    cfg = metadata["config"]
    model = build_model(cfg)
    if metadata.get("tied") == "True":
        model.out_head.weight = model.tok_emb.weight
    load_parameters(path, dict(model.named_parameters()))  # a tied one is in it once
    return model.to(device).eval(), cfg


def load_parameters(path, parameters):
    """Read a file's weights into a dict of parameters: those, no less and no more."""
    read = SafetensorsReader(path)
    if wrong := sorted(parameters.keys() ^ read.names()):
        raise ValueError(f"{path} does not fit its own config: {wrong[:3]} differ")
    for name, parameter in parameters.items():
        assign(parameter, read(name))
