"""TensorFlow's checkpoints, array by array (a support module: used, not taught)."""

import os
from contextlib import contextmanager

import numpy as np


class DamagedCheckpoint(ValueError):
    """A checkpoint that TensorFlow cannot read whole."""


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
        self.tensorflow = import_tensorflow()
        reader = self.tensorflow.train.load_checkpoint
        self.reader = self.translate(reader, str(ckpt_path))

    def translate(self, call, argument):
        """Call TensorFlow; turn its many errors over files into one."""
        try:
            return call(argument)
        except (self.tensorflow.errors.OpError, IndexError, ValueError) as error:
            raise DamagedCheckpoint(
                f"{self.ckpt_path} is damaged or incomplete: TensorFlow says "
                f"{str(error).splitlines()[0]}"
            ) from None

    def names(self):
        """The names of all arrays."""
        found = self.reader.get_variable_to_shape_map()
        return [name.removeprefix("model/") for name in sorted(found)]

    def __call__(self, name):
        """One array, without axes of length 1."""
        return np.squeeze(self.translate(self.reader.get_tensor, f"model/{name}"))
