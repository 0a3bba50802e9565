"""Save what was trained, in another folder if its own cannot be written."""

import tempfile
from contextlib import suppress
from itertools import chain
from pathlib import Path

from support.download.files import check_regular, check_writable
from support.messages import one_line, say
from support.paths import MODELS, ROOT


def locate_model(path):
    """Return the path of a saved model, or its old path if the file is only there.

    The course's first versions had a folder `checkpoints` in each chapter.
    """
    if path.parent == MODELS and not path.exists():
        return next(ROOT.glob(f"ch0[2-7]/checkpoints/{path.name}"), path)
    return path


def check_can_save(path, num_bytes=2**20):
    """Raise OSError or ValueError if num_bytes cannot be written to path.

    Call it before a training run, whose result would be lost otherwise.
    """
    path = Path(path)
    try:
        check_regular(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        check_writable(path, num_bytes)
    except OSError as error:
        raise OSError(
            f"nothing was trained, because the result could not be saved: "
            f"{one_line(path)} cannot be written ({error.strerror or error}). Free "
            "some space there, or make the folder writable, and start again"
        ) from None


def save_or_fall_back(path, save):
    """Call save(path); if that fails, call save(another path) and print which.

    Returns True if path itself was written. It raises no OSError, so that a trained
    model is not lost with the process.
    """
    path = Path(path)
    for target in chain([path], fallback_paths(path.name)):
        try:
            save(target)
        except OSError as error:
            reason = error.strerror and f"{target} cannot be written: {error.strerror}"
            say(one_line(reason or error, longest=1000))
            continue
        if target != path:
            say(
                f"{one_line(path.name)} is saved as {one_line(target)} instead. Move "
                f"it to {one_line(path.parent)} as soon as that folder can be written"
            )
        return target == path
    say(
        f"{one_line(path.name)} could not be saved anywhere: it will be lost when this "
        "process ends"
    )
    return False


def fallback_paths(name):
    """Yield a path of this name in a new temporary folder, then one in a new home."""
    for base in (tempfile.gettempdir, Path.home):
        with suppress(OSError, RuntimeError):  # there may be no such folder
            folder = Path(tempfile.mkdtemp(prefix="trained-", dir=base()))
            yield folder / name
            folder.rmdir()  # the next path is wanted, so nothing was saved here


def size_in_bytes(tensors):
    """Return how many bytes these tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
