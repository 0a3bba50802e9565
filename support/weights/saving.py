"""A trained model is kept, in one folder or another (support: used, not taught)."""

import tempfile
from contextlib import suppress
from itertools import chain
from pathlib import Path

from support.download.files import check_regular, check_writable
from support.messages import one_line, say
from support.paths import MODELS, ROOT


def present(path):
    """path, or where the course's first versions kept that file, if only that is here.

    They had a folder `checkpoints` in each chapter in the place of `models`.
    """
    if path.parent == MODELS and not path.exists():
        return next(ROOT.glob(f"ch0[2-7]/checkpoints/{path.name}"), path)
    return path


def check_can_be_kept(path, num_bytes=2**20):
    """Raise OSError, or ValueError, unless num_bytes can be written to where path is.

    To be called before a training that nobody wants to lose.
    """
    path = Path(path)
    try:
        check_regular(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        check_writable(path, num_bytes)
    except OSError as error:
        raise OSError(
            f"nothing was trained, because the result could not be kept: "
            f"{one_line(path)} cannot be written ({error.strerror or error}). Make "
            "room there, or make the folder writable, and start again"
        ) from None


def keep(path, save):
    """Call save(path), or save(another path) where that fails, and say so.

    Returns True if path itself was written. No OSError is raised: whoever has trained
    a model goes on having it.
    """
    path = Path(path)
    for place in chain([path], elsewhere(path.name)):
        try:
            save(place)
        except OSError as error:
            say(f"{one_line(place)} could not be written: {one_line(error)}")
            continue
        if place != path:
            say(
                f"The trained model is kept as {one_line(place)} instead. Once "
                f"{one_line(path.parent)} can be written, move it there"
            )
        return place == path
    say("The trained model could not be written anywhere; only this process has it")
    return False


def elsewhere(name):
    """Yield paths of this name in new folders, among temporary files and at home."""
    for base in (tempfile.gettempdir, Path.home):
        with suppress(OSError, RuntimeError):  # there may be none
            folder = Path(tempfile.mkdtemp(prefix="trained-", dir=base()))
            yield folder / name
            folder.rmdir()  # it is asked for the next one: nothing came of this


def size_in_bytes(tensors):
    """What these tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
