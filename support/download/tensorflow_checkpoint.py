"""TensorFlow's checkpoints, array by array (a support module: used, not taught)."""

import os
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from support.download.files import check_regular, read_json
from support.messages import one_line

HPARAMS = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")  # in hparams.json


class DamagedCheckpoint(ValueError):
    """A checkpoint that cannot be read whole."""

    def __init__(self, message):
        super().__init__(one_line(message, longest=1000))  # files speak in it


@contextmanager
def quiet_stderr():
    """Silence what libraries write past Python to the standard error."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def import_tensorflow():
    """TensorFlow without its greetings; it takes seconds and half a gigabyte."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # with oneDNN it would keep the memory of its largest array for good
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with quiet_stderr():
        import tensorflow
    return tensorflow


class TensorFlowReader:
    """The arrays of a checkpoint, by OpenAI's names without their `model/`.

    Raises DamagedCheckpoint when a file is missing, cut or altered: TensorFlow keeps a
    checksum of every array, and so a single changed bit is noticed.
    """

    def __init__(self, ckpt_path):
        self.ckpt_path = ckpt_path
        for ending in (".index", ".data-00000-of-00001"):
            try:
                check_regular(f"{ckpt_path}{ending}")
            except ValueError as error:
                raise DamagedCheckpoint(error) from None
        self.tensorflow = import_tensorflow()
        reader = self.tensorflow.train.load_checkpoint
        self.reader = self.translate(reader, str(ckpt_path))

    def translate(self, call, *arguments):
        """Call TensorFlow; turn its many errors over files into one."""
        try:
            return call(*arguments)
        except (self.tensorflow.errors.OpError, IndexError, ValueError) as error:
            words, *_ = [*str(error).splitlines(), type(error).__name__]
            raise DamagedCheckpoint(
                f"{self.ckpt_path} is damaged or incomplete: TensorFlow says {words}"
            ) from None

    def names(self):
        """The names of all arrays."""
        found = self.translate(self.reader.get_variable_to_shape_map)
        return [name.removeprefix("model/") for name in sorted(found)]

    def __call__(self, name):
        """One array, without axes of length 1."""
        return np.squeeze(self.translate(self.reader.get_tensor, f"model/{name}"))


def read_settings(folder):
    """The sizes of a model in OpenAI's hparams.json: {"n_vocab": 50257, ...}.

    Raises DamagedCheckpoint unless all five are there, and the checkpoint in the same
    folder has as many blocks.
    """
    path = Path(folder) / "hparams.json"
    try:
        settings = read_json(path)
    except ValueError as error:
        raise DamagedCheckpoint(error) from None
    sizes = [settings.get(key) if isinstance(settings, dict) else 0 for key in HPARAMS]
    if not all(type(size) is int and size > 0 for size in sizes):
        raise DamagedCheckpoint(
            f"{path} is damaged: it must give the numbers {', '.join(HPARAMS)}"
        )
    names = TensorFlowReader(Path(folder) / "model.ckpt").names()
    blocks = {name.split("/")[0] for name in names if re.match(r"h\d+/", name)}
    if len(blocks) != settings["n_layer"]:
        raise DamagedCheckpoint(
            f"{path} does not belong to the checkpoint beside it: it speaks of "
            f"{settings['n_layer']} blocks, and there are {len(blocks)}"
        )
    return settings
