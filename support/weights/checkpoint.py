"""Models on disk (a support module: used, not taught).

A model is one safetensors file with its config inside, and its seal: a sha256 of all
that it holds. Files of the course's first versions have theirs in a file beside them.
"""

import hashlib
import json
import os
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ch04.gpt import GPTModel
from ch05.llama import LlamaModel
from ch05.openai_weights import assign
from support.download.files import check_regular, parse_json, replacing, sha256_of
from support.download.tensorflow_checkpoint import DamagedCheckpoint
from support.messages import one_line

SEAL_KEY = "seal"  # its name in the metadata


class NoSealError(ValueError):
    """A file has no seal in it or beside it; whether it is whole cannot be said."""


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

    All come from the file that was opened first, even if another takes its name. Each
    is mapped into memory by itself, and gone from there with its tensor. Raises
    DamagedCheckpoint when the file is cut, or has no such tensor.
    """

    def __init__(self, path):
        self.path = path
        number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, number)
        again = f"/dev/fd/{number}"  # by this name the same file is opened once more
        self.name = again if os.path.exists(again) else path

    @contextmanager
    def opened(self):
        """The open file; what safetensors says against it becomes DamagedCheckpoint."""
        try:
            with safe_open(self.name, framework="pt") as file:
                yield file
        except SafetensorError as error:
            raise DamagedCheckpoint(f"{self.path} is damaged: {error}") from None

    def __call__(self, name):
        with self.opened() as file:
            return file.get_tensor(name)

    def shapes(self):
        """The shape of each tensor, by name."""
        with self.opened() as file:
            names = list(file.keys())
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}

    def metadata(self):
        """The texts that were saved along with the tensors."""
        with self.opened() as file:
            return file.metadata() or {}


class SavedFile(SafetensorsReader):
    """A reader of what `save_model` wrote; it was found whole when it was opened.

    Raises FileNotFoundError if nothing is there, and ValueError if that is damaged,
    not sealed, or no file.
    """

    def __init__(self, path):
        check_regular(path)
        beside = sha256_file(path)
        try:
            super().__init__(path)
        except FileNotFoundError:
            if not beside.is_file():
                raise
            raise ValueError(
                f"{path} is missing, though its {beside.name} is there: put the model "
                "back beside it, or make it anew"
            ) from None
        self.check()

    def check(self):
        """Raise ValueError if the file is damaged, or nothing says that it is not."""
        metadata, beside = self.metadata(), sha256_file(self.path)
        if SEAL_KEY in metadata:
            sealed = metadata.pop(SEAL_KEY)
            if sha256_of_model(metadata, self.shapes(), self) != sealed:
                raise DamagedCheckpoint(
                    f"{self.path} is damaged: its content is not what its seal says"
                )
        elif beside.is_file():
            sealed = beside.read_text("utf-8", "replace").partition(" ")[0]
            if sha256_of(self.name) != sealed:
                raise DamagedCheckpoint(
                    f"{self.path} is damaged: its sha256 is not that in {beside.name}"
                )
        else:
            raise NoSealError(
                f"{one_line(self.path)} is there, but nothing says whether it is "
                f"whole: it has no seal in it, and {beside.name} beside it is missing. "
                "Put that back, or, if you trust the model, write the sha256 of its "
                "file there"
            )

    def config(self, **kinds):
        """The config, a dict; ValueError if there is none.

        kinds: keys that it has to have and types of their values.
        """
        name = f"the config in {one_line(self.path)}"
        config = parse_json(self.metadata().get("config", ""), name)
        if not isinstance(config, dict) or kinds.keys() - config.keys():
            raise ValueError(f"{name} is one of something else")
        for key, value in config.items():
            is_number = isinstance(value, int | float)
            is_absurd = is_number and not abs(value) < 2**63  # or not a number
            if is_absurd or not isinstance(value, kinds.get(key, object)):
                raise ValueError(f"{name} has an absurd {one_line(key)}")
        return config

    def check_shapes(self, shapes):
        """Raise ValueError unless the tensors have these names and shapes alone."""
        found, fault = self.shapes(), ""
        if wrong := sorted(shapes.keys() ^ found.keys()):
            fault = f"{wrong[:3]} differ"
        elif wrong := [name for name in shapes if shapes[name] != found[name]]:
            both = shapes[wrong[0]], found[wrong[0]]
            fault = f"of {wrong[0]} the shapes differ: {both[0]}, {both[1]}"
        if fault:
            raise ValueError(
                f"{self.path} does not fit its own config: {one_line(fault)}"
            )


def open_saved(file):
    """A SavedFile of a path; one that is open is handed back, and not checked again."""
    return file if isinstance(file, SavedFile) else SavedFile(file)


def is_tied(model):
    """True if the output layer's weight is the token embedding itself."""
    has_embedding = hasattr(model, "tok_emb")  # the head of a classifier has none
    return has_embedding and model.out_head.weight is model.tok_emb.weight


def save_model(path, model, cfg, **metadata):
    """Write a model's weights and config; the file appears whole or not at all.

    metadata: further texts to keep with it. A tied output layer is written once, and
    wrappers of the model, such as torch.compile's, are not. Raises OSError if the file
    cannot be written; another one that is there stays then.
    """
    weights = plain_names(model.state_dict())
    table, head = (weights.get(f"{name}.weight") for name in ("tok_emb", "out_head"))
    tied = None not in (table, head) and table.data_ptr() == head.data_ptr()
    if tied:
        del weights["out_head.weight"]
    save_weights(path, weights, cfg, tied=str(tied), **metadata)


def plain_names(weights):
    """Weights by their names without those of torch.compile and DataParallel."""
    weights = {name.replace("_orig_mod.", ""): w for name, w in weights.items()}
    if not weights or not all(name.startswith("module.") for name in weights):
        return weights
    return plain_names({n.removeprefix("module."): w for n, w in weights.items()})


def save_weights(path, weights, cfg, **metadata):
    """Write a dict of tensors as `save_model` does."""
    weights = plain_names(weights)
    metadata |= {"config": json.dumps(cfg)}
    metadata[SEAL_KEY] = sha256_of_model(metadata, weights, weights.get)
    with replacing(path) as temporary:
        try:
            save_file(weights, temporary, metadata=metadata)
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(f"{path} cannot be written: {error}") from None
    with suppress(OSError):  # of an older file; the seal counts
        sha256_file(path).unlink()


def sha256_of_model(metadata, names, read):
    """A sha256 of texts and of tensors: their names, dtypes, shapes and bytes.

    read(name) gives a tensor; no more than one of them is held.
    """
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(names):
        update(digest, name, read(name))
    return digest.hexdigest()


def update(digest, name, tensor):
    """Let a digest take in a tensor."""
    tensor = tensor.detach().cpu().contiguous()
    what = [name, str(tensor.dtype), tensor.shape]
    digest.update(json.dumps(what).encode())
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy())


def sha256_file(path):
    """Where an older file, without a seal, has its sha256."""
    return Path(f"{path}.sha256")


def read_metadata(file):
    """What `save_model` wrote beside the weights, the config as a dict.

    file: a path or a SavedFile. Raises what SavedFile raises.
    """
    file = open_saved(file)
    metadata = file.metadata() | {"config": file.config()}
    metadata.pop(SEAL_KEY, None)
    return metadata


def load_model(file, device="cpu"):
    """Read what `save_model` wrote: (model in evaluation mode, config).

    file: a path or a SavedFile. Raises what SavedFile raises.
    """
    file = open_saved(file)
    cfg, tied = file.config(n_layers=int), file.metadata().get("tied") == "True"
    file.check_shapes(shapes_of(file, cfg, tied))
    model = build_model(cfg)
    if tied:
        model.out_head.weight = model.tok_emb.weight
    load_parameters(file, dict(model.named_parameters()))  # a tied one is in it once
    return model.to(device).eval(), cfg


def shapes_of(file, cfg, tied):
    """The shapes of a config's parameters by name, found without memory for them.

    Raises ValueError for a config that is none.
    """
    if cfg["n_layers"] > len(file.shapes()):
        raise ValueError(
            f"{file.path} does not fit its own config: it has fewer tensors than the "
            f"{cfg['n_layers']} blocks there"
        )
    try:
        with torch.device("meta"):
            model = build_model(cfg)
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise ValueError(
            f"{file.path} does not fit its own config: {one_line(error)}"
        ) from None
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    if tied:
        shapes.pop("out_head.weight", None)
    return shapes


def load_parameters(file, parameters):
    """Read a file's weights into a dict of parameters: those, no less and no more.

    file: a path or a SavedFile. Raises ValueError if the file has others, and then
    leaves the parameters as they were.
    """
    file = open_saved(file)
    file.check_shapes({name: tuple(p.shape) for name, p in parameters.items()})
    for name, parameter in parameters.items():
        assign(parameter, file(name))
