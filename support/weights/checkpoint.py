"""Save models to files, and load and check them.

A model is one safetensors file. Its metadata hold the config and a seal, which is a
sha256 of all that the file holds. The course's first versions wrote the sha256 to a
second file beside the model; such files can still be read.
"""

import hashlib
import json
import os
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.overrides import TorchFunctionMode

from ch04.gpt import GPTModel
from ch05.llama import LlamaModel
from ch05.openai_weights import assign
from support.download.checked_files import CheckedFiles
from support.download.files import check_regular, parse_json, replacing, sha256_of
from support.download.tensorflow_checkpoint import DamagedCheckpoint
from support.messages import one_line

SEAL_KEY = "seal"  # its name in the metadata
INITIALIZERS = {nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_}


class NoSealError(ValueError):
    """A file has no sha256, so nothing says whether it is complete."""


class WithoutInitialization(TorchFunctionMode):
    """A `with` block in which new layers do not draw their initial weights."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in INITIALIZERS:
            return kwargs["tensor"]  # as it is
        return func(*args, **(kwargs or {}))


def build_model(cfg):
    """Build the model of a config without spending time on initial weights."""
    architecture = LlamaModel if "n_kv_groups" in cfg else GPTModel
    with WithoutInitialization():
        return architecture(cfg)


class SafetensorsReader:
    """Read tensors of a safetensors file by name, each one when it is asked for.

    All are read from the file that was opened first, even if another file takes its
    name. Memory holds a tensor's bytes only as long as the tensor exists. Raises
    DamagedCheckpoint if the file is damaged or has no such tensor.
    """

    def __init__(self, path):
        self.path = path
        self.number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.number)
        same_file = f"/dev/fd/{self.number}"  # the open file, on most systems
        self.name = same_file if os.path.exists(same_file) else path

    @contextmanager
    def opened(self):
        """Open the file; an error of safetensors becomes DamagedCheckpoint."""
        try:
            with safe_open(self.name, framework="pt") as file:
                yield file
        except SafetensorError as error:
            raise DamagedCheckpoint(f"{self.path} is damaged: {error}") from None

    def __call__(self, name):
        with self.opened() as file:
            return file.get_tensor(name)

    def shapes(self):
        """Return {name: shape} of all tensors."""
        with self.opened() as file:
            names = list(file.keys())
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}

    def metadata(self):
        """Return the texts that were saved with the tensors, a dict."""
        with self.opened() as file:
            return file.metadata() or {}


class SavedFile(SafetensorsReader):
    """A reader of a file that `save_model` wrote, checked when it is opened.

    is_trusted: a file that was checked before and has not changed since is not checked
    again. Raises FileNotFoundError if there is no file, NoSealError if it has no
    sha256, and ValueError if it is damaged or not a regular file.
    """

    def __init__(self, path, is_trusted=False):
        check_regular(path)
        beside = sha256_file(path)
        try:
            super().__init__(path)
        except FileNotFoundError:
            if not beside.is_file():
                raise
            raise ValueError(
                f"{path} is missing, but its {beside.name} is there: put the model "
                "back beside it, or train it again"
            ) from None
        metadata, file = self.metadata(), CheckedFiles(self.number)
        if is_trusted and file.have_passed(SEAL_KEY):
            return
        if SEAL_KEY in metadata:
            expected = metadata.pop(SEAL_KEY)
            found = sha256_of_model(metadata, self.shapes(), self)
        elif beside.is_file():
            expected = beside.read_text("utf-8", "replace").partition(" ")[0]
            found = sha256_of(self.name)
        else:
            raise NoSealError(
                f"{one_line(path)} may be incomplete: it has no seal (a sha256 in the "
                f"file), and {beside.name} beside it is missing. Put that file back "
                "or, if you trust the model, write the model's sha256 to that file"
            )
        if found != expected:
            raise DamagedCheckpoint(
                f"{path} is damaged: its sha256 is not the saved one"
            )
        file.note(SEAL_KEY)

    def config(self, **kinds):
        """Return the config, a dict; raise ValueError if there is none.

        kinds: keys that it must have, and the types of their values.
        """
        name = f"the config in {one_line(self.path)}"
        config = parse_json(self.metadata().get("config", ""), name)
        if not isinstance(config, dict) or kinds.keys() - config.keys():
            raise ValueError(
                f"{name} is not the expected one: it must be a dict with the keys "
                f"{', '.join(kinds)}"
            )
        for key, value in config.items():
            is_number = isinstance(value, int | float)
            is_absurd = is_number and not abs(value) < 2**63  # too large, or nan
            if is_absurd or not isinstance(value, kinds.get(key, object)):
                raise ValueError(
                    f"{name} has an impossible value of {one_line(key)}: "
                    f"{one_line(value)}"
                )
        return config

    def check_shapes(self, shapes):
        """Raise ValueError unless the tensors have exactly these names and shapes."""
        found = self.shapes()
        for name in sorted(shapes.keys() | found.keys()):
            both = [each.get(name, "missing") for each in (shapes, found)]
            if both[0] != both[1]:
                raise self.misfit(
                    f"the shape of {name} is {both[0]} in the model and {both[1]} in "
                    "the file"
                )

    def misfit(self, reason):
        """Return a ValueError that says why the weights do not fit the config."""
        return ValueError(
            f"{self.path} does not fit its own config: {one_line(reason)}"
        )


def open_saved(file):
    """Open a path as a SavedFile; return a SavedFile as it is, already checked."""
    return file if isinstance(file, SavedFile) else SavedFile(file, is_trusted=True)


def is_tied(model):
    """Return True if the output layer's weight is the token embedding itself."""
    has_embedding = hasattr(model, "tok_emb")  # the head of a classifier has none
    return has_embedding and model.out_head.weight is model.tok_emb.weight


def save_model(path, model, cfg, **metadata):
    """Write a model's weights and config; the file is complete or stays as it was.

    metadata: further texts to save. A tied output layer is written once, and wrappers
    of the model, such as torch.compile's, are left out. Raises OSError if the file
    cannot be written.
    """
    weights = plain_names(model.state_dict())
    table, head = (weights.get(f"{name}.weight") for name in ("tok_emb", "out_head"))
    tied = None not in (table, head) and table.data_ptr() == head.data_ptr()
    if tied:
        del weights["out_head.weight"]
    save_weights(path, weights, cfg, tied=str(tied), **metadata)


def plain_names(weights):
    """Remove what torch.compile and DataParallel add to the names of weights."""
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
        except SafetensorError as error:  # a full disk, for example
            raise OSError(f"{path} cannot be written: {error}") from None
    with suppress(OSError):
        sha256_file(path).unlink()  # of an older file


def sha256_of_model(metadata, names, read):
    """Return a sha256 of texts and tensors: their names, dtypes, shapes and bytes.

    read(name) gives a tensor; only one is held at a time.
    """
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(names):
        tensor = read(name).detach().cpu().contiguous()
        what = [name, str(tensor.dtype), tensor.shape]
        digest.update(json.dumps(what).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
        del tensor
    return digest.hexdigest()


def sha256_file(path):
    """Return the path where an older file, without a seal, has its sha256."""
    return Path(f"{path}.sha256")


def load_model(file, device="cpu"):
    """Read what `save_model` wrote: (model in evaluation mode, config).

    file: a path or a SavedFile. Raises what SavedFile raises, and ValueError if the
    config does not fit the weights; no memory is allocated then.
    """
    file = open_saved(file)
    cfg, tied = file.config(n_layers=int), file.metadata().get("tied") == "True"
    if cfg["n_layers"] > len(file.shapes()):  # it would take long to build
        raise file.misfit(f"it has fewer tensors than {cfg['n_layers']} blocks need")
    try:
        with torch.device("meta"):  # it has shapes, but takes no memory
            shapes = shapes_of(build_model(cfg).named_parameters())
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise file.misfit(error) from None
    if tied:
        shapes.pop("out_head.weight", None)
    file.check_shapes(shapes)
    model = build_model(cfg)
    if tied:
        model.out_head.weight = model.tok_emb.weight
    load_parameters(file, dict(model.named_parameters()))  # a tied one is in it once
    return model.to(device).eval(), cfg


def shapes_of(named_tensors):
    """Return {name: shape} of pairs of a name and a tensor."""
    return {name: tuple(tensor.shape) for name, tensor in named_tensors}


def load_parameters(file, parameters):
    """Read a file's weights into a dict of parameters, which must be exactly those.

    file: a path or a SavedFile. Raises ValueError if the names or shapes differ, and
    leaves the parameters as they were then.
    """
    file = open_saved(file)
    file.check_shapes(shapes_of(parameters.items()))
    for name, parameter in parameters.items():
        assign(parameter, file(name))
