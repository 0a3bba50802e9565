"""Read TensorFlow's checkpoints, one array at a time."""

import os
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from support.download.files import check_regular, read_json
from support.messages import one_line

HPARAMS = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")  # in hparams.json


class DamagedCheckpoint(ValueError):
    """A checkpoint that cannot be read completely."""

    def __init__(self, message):
        super().__init__(one_line(message, longest=1000))  # it quotes files


@contextmanager
def quiet_stderr():
    """Discard what libraries, also those in C++, write to standard error."""
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def import_tensorflow():
    """Import TensorFlow without its messages; takes seconds and half a gigabyte."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # with oneDNN, it never frees the memory of its largest array
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with quiet_stderr():
        import tensorflow
    return tensorflow


class TensorFlowReader:
    """The arrays of a checkpoint, by OpenAI's names without `model/`.

    Raises DamagedCheckpoint when a file is missing, cut or changed: TensorFlow keeps a
    checksum of each array, so even one flipped bit is noticed.
    """

    def __init__(self, ckpt_path):
        self.ckpt_path = ckpt_path
        try:
            for suffix in (".index", ".data-00000-of-00001"):
                check_regular(f"{ckpt_path}{suffix}")
        except ValueError as error:
            raise DamagedCheckpoint(error) from None
        self.tensorflow = import_tensorflow()
        load = self.tensorflow.train.load_checkpoint
        self.reader = self.call(load, str(ckpt_path))

    def call(self, function, *arguments):
        """Call TensorFlow, and raise its various errors as DamagedCheckpoint."""
        try:
            return function(*arguments)
        except (self.tensorflow.errors.OpError, IndexError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise DamagedCheckpoint(
                f"{self.ckpt_path} is damaged or incomplete: TensorFlow says {reason}"
            ) from None

    def names(self):
        """Return the names of all arrays."""
        shapes = self.call(self.reader.get_variable_to_shape_map)
        return [name.removeprefix("model/") for name in sorted(shapes)]

    def __call__(self, name):
        """Return one array, without axes of length 1."""
        return np.squeeze(self.call(self.reader.get_tensor, f"model/{name}"))


def read_settings(folder):
    """Return the sizes in OpenAI's hparams.json: {"n_vocab": 50257, ...}.

    Raises DamagedCheckpoint unless all five sizes are there and the checkpoint in the
    same folder has n_layer blocks.
    """
    path = Path(folder) / "hparams.json"
    try:
        settings = read_json(path)
    except ValueError as error:
        raise DamagedCheckpoint(error) from None
    sizes = [settings.get(key) if isinstance(settings, dict) else 0 for key in HPARAMS]
    if not all(type(size) is int and size > 0 for size in sizes):
        raise DamagedCheckpoint(
            f"{path} is damaged: it must contain the numbers {', '.join(HPARAMS)}"
        )
    names = TensorFlowReader(Path(folder) / "model.ckpt").names()
    blocks = {name.split("/")[0] for name in names if re.match(r"h\d+/", name)}
    if len(blocks) != settings["n_layer"]:
        raise DamagedCheckpoint(
            f"{path} says that there are {settings['n_layer']} blocks, but the "
            f"checkpoint in that folder has {len(blocks)}"
        )
    return settings
