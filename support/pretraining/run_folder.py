"""A training run on disk: whole checkpoints, a log, one run at a time (support).

    settings.json            what the run was begun with
    log.jsonl                a line for each step
    step-0000200/            the last checkpoints: safetensors files and seal.json
    model.safetensors        the model, once the run has ended

A checkpoint is the weights and the optimizer's moments. All else, order and dropout
included, follows from the settings and the step. Each process writes its own part
(torch.distributed.checkpoint), and any number of processes can read it.
"""

import json
import math
import os
import re
import secrets
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from types import NoneType

from filelock import FileLock, Timeout

from support.download.files import (
    check_regular,
    check_sha256,
    check_writable,
    fsync_folder,
    make_folder,
    parse_json,
    remove_temporaries,
    replacing,
    set_aside,
    sha256_of,
    write_atomically,
)
from support.download.json_files import read_sealed, read_small_json, write_sealed
from support.messages import one_line, say
from support.pretraining.distributed import from_rank_0, rank, wait_for_all
from support.pretraining.distributed_checkpoint import (
    load_state,
    optimizer_steps,
    save_state,
    whole_weights,
)
from support.weights.checkpoint import save_weights
from support.weights.saving import size_in_bytes

NUM_KEPT = 2  # checkpoints: the last one, and one more in case it gets damaged
STEP_FOLDER = re.compile(r"step-(\d{7,})")
PART = re.compile(rf"{STEP_FOLDER.pattern}\.[0-9a-f]{{16}}\.part")
SEAL = "seal.json"
FILES = "settings.json", "log.jsonl", "model.safetensors"
RUN_NAMES = re.compile("|".join(map(re.escape, FILES)))
HEX_DIGEST = re.compile("[0-9a-f]{64}")
MOST_LINE = 10_000  # bytes of a line of the log


class RunFolderError(ValueError):
    """The folder of a run cannot be used; the message says why and what to do."""


def check_finite(model):
    """Raise FloatingPointError if one of a model's weights is not a finite number."""
    for name, parameter in model.named_parameters():
        if not parameter.detach().isfinite().all():
            raise FloatingPointError(f"{name} holds numbers that are not finite")


def different_settings(old, new):
    """What differs between two runs' settings, a few words each."""
    old, new = (kept | kept["config"] | {"config": None} for kept in (old, new))
    return [
        f"{key} was {old.get(key)!r} and is now {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def read_run_settings(path):
    """The settings in settings.json or in a seal; None where there are none."""
    try:
        content = read_small_json(path)
        settings = content.get("settings", content)
        values = [*(settings | {"config": None} | settings["config"]).values()]
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    is_flat = all(isinstance(v, (str, int, float, NoneType)) for v in values)
    return settings if is_flat else None


def seal(folder, step, settings):
    """Write into a checkpoint's folder what it is, and size and sha256 of each file."""
    files = {
        file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
        for file in sorted(folder.iterdir())
    }
    content = {"step": step, "settings": settings, "files": files}
    write_sealed(folder / SEAL, content)


def read_seal(folder):
    """What `seal` wrote: a dict of step, settings and files; ValueError if damaged.

    The course's first version sealed the sha256 of each file, and nothing else: of its
    checkpoints, step, settings and sizes are None.
    """
    path = folder / SEAL
    content = read_small_json(path)
    if not isinstance(content, dict) or "files" in content:
        return read_sealed(path, {"step", "settings", "files"})
    if not all(HEX_DIGEST.fullmatch(str(digest)) for digest in content.values()):
        raise ValueError(f"{path} is damaged")
    files = {name: {"bytes": None, "sha256": d} for name, d in content.items()}
    return {"step": None, "settings": None, "files": files}


def check_seal(folder, step, settings=None):
    """Raise ValueError, or OSError, unless a checkpoint is as it was sealed.

    It has to be that of this step, and of a run with these settings, if they are known.
    """
    sealed = read_seal(folder)
    names = {entry.name for entry in folder.iterdir() if is_sealed(entry.name)}
    if missing := sorted(sealed["files"].keys() - names):
        raise ValueError(f"{folder} lacks {missing[0]}")
    if unknown := sorted(names - sealed["files"].keys()):
        raise ValueError(
            f"{folder} holds {unknown[0]}, which does not belong to it: move that file "
            "away"
        )
    for name, file in sealed["files"].items():
        check_sha256(folder / name, file["sha256"], file["bytes"])
    taken = optimizer_steps(folder) if sealed["step"] is None else {sealed["step"]}
    if taken != {step}:
        raise ValueError(f"{folder} holds step {min(taken, default=0)}")
    if settings is not None and sealed["settings"] is not None:
        different = different_settings(sealed["settings"], settings)
        if different:
            raise ValueError(f"{folder} is of another run: {'; '.join(different)}")


def is_sealed(name):
    """True for the files that are sealed; systems put hidden ones into folders."""
    is_hidden = name.startswith(".") and not name.endswith(".safetensors")
    return name != SEAL and not is_hidden


def parse_entry(line):
    """A line of a log as a dict; ValueError if `RunFolder.note` has not written it."""
    entry = parse_json(line.decode(), "log.jsonl")
    if not isinstance(entry, dict) or type(entry.get("step")) is not int:
        raise ValueError("an entry has a step")
    if not all(is_finite_number(value) for value in entry.values()):
        raise ValueError("an entry has finite numbers")
    return entry


def is_finite_number(value):
    """True for an int or a float that is not nan, and not infinite."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


class RunFolder:
    """The folder of one run. Rank 0 alone writes what is not a checkpoint's tensors.

    Nothing is deleted in it but what a run has written there.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.log = self.path / "log.jsonl"
        self.settings = None  # of the run, once they are agreed on

    @contextmanager
    def locked(self):
        """Refuse the folder to a second run; RunFolderError if one is under way."""
        if rank() > 0:
            yield
            return
        make_folder(self.path)
        lock = FileLock(self.path / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunFolderError(
                f"another process trains in {self.path}. Wait for it, stop it, or give "
                "this run another folder"
            ) from None
        try:
            self.tidy()
            yield
        finally:
            lock.release()

    def tidy(self):
        """Remove what a process that was killed had not finished writing.

        ValueError if something else than a file has a name that a file needs.
        """
        for entry in list(self.path.iterdir()):
            if PART.fullmatch(entry.name) and not entry.is_symlink():
                shutil.rmtree(entry)
            if entry.name in FILES:
                check_regular(entry)
        remove_temporaries(self.path, RUN_NAMES)

    def agree_on(self, settings):
        """Write down a new run's settings; RunFolderError if it has others already."""
        self.settings, path = settings, self.path / "settings.json"
        known, names = self.known_settings(), self.names_of_run()
        if known is None and names:
            fault = f"{self.path} holds {', '.join(names)}, but no {path.name}"
            if path.name in names:
                fault = f"{path} is damaged"
            raise RunFolderError(
                f"{fault}, and no checkpoint has the settings: give this run another "
                "folder"
            )
        if different := different_settings(known or settings, settings):
            raise RunFolderError(
                f"the run in {self.path} has other settings: {'; '.join(different)}. "
                "Go on with its own, or give this run another folder"
            )
        if read_run_settings(path) is None:
            if names:
                say(f"{one_line(path)} was lost; a checkpoint has the settings, too")
            write_atomically(path, json.dumps(settings, indent=2).encode())

    def known_settings(self):
        """Those of the run that is here; None if nothing says what they are.

        Those of a run whose settings.json was lost are in its checkpoints, too.
        """
        with suppress(OSError):
            seals = [self.folder(step) / SEAL for step in self.steps()]
            for path in (self.path / "settings.json", *seals):
                if (settings := read_run_settings(path)) is not None:
                    return settings
        return None

    def names_of_run(self):
        """The names here that a run uses, sorted."""
        entries = [entry.name for entry in self.path.iterdir()]
        return sorted(n for n in entries if n in FILES or STEP_FOLDER.fullmatch(n))

    def dtype(self):
        """That of the run that is here; None if there is none, or it does not say."""
        return (self.known_settings() or {}).get("dtype")

    def folder(self, step):
        """Where the checkpoint of a step lies."""
        return self.path / f"step-{step:07}"

    def part(self, step, token):
        """Where a checkpoint is while it is written, and while it is removed."""
        return self.path / f"{self.folder(step).name}.{token:016x}.part"

    def steps(self):
        """The steps that there are checkpoints of, the last one first."""
        names = [STEP_FOLDER.fullmatch(entry.name) for entry in self.path.iterdir()]
        return sorted((int(match[1]) for match in names if match), reverse=True)

    def last_whole_step(self):
        """The step of the last checkpoint that is not damaged; 0 if there is none yet.

        RunFolderError if there are checkpoints and none is whole.
        """
        steps = self.steps()
        for step in steps:
            try:
                check_seal(self.folder(step), step, self.settings)
            except (OSError, ValueError) as error:
                reason = one_line(error, longest=1000)
                say(f"passing over a checkpoint that is not whole: {reason}")
            else:
                return step
        if steps:
            raise RunFolderError(
                f"no checkpoint in {self.path} is whole: give the run another folder "
                "to begin anew"
            )
        return 0

    def check_room(self, model):
        """Raise OSError unless a checkpoint of a tied model, and the result, fit in."""
        if rank() > 0:
            return
        size = size_in_bytes(model.parameters())
        check_writable(self.path / FILES[-1], size)
        free, needed = shutil.disk_usage(self.path).free, (3 + 1) * size  # and moments
        if free < needed:
            raise OSError(
                f"{self.path} has {free:,} bytes left, and a checkpoint and the result "
                f"take {needed:,}"
            )

    def save(self, step, model, optimizer):
        """Write a checkpoint; it appears whole or not at all. Every process calls this.

        Raises OSError if it cannot be written, and FloatingPointError if a weight is
        not finite; earlier ones stay.
        """
        check_finite(model)
        part = self.part(step, from_rank_0(secrets.randbits(62)))
        if rank() == 0:
            part.mkdir()
        wait_for_all()
        try:
            save_state(part, model, optimizer)
            if rank() == 0:
                self.finish(step, part)
        finally:
            if rank() == 0:
                shutil.rmtree(part, ignore_errors=True)
        wait_for_all()

    def finish(self, step, part):
        """Seal the folder that holds a step's tensors and name it; remove old ones."""
        seal(part, step, self.settings)
        with suppress(FileNotFoundError), open(self.log, "rb+") as log:
            os.fsync(log.fileno())  # or it could be behind the checkpoint after a crash
        self.remove(step)  # one that was passed over
        set_aside(self.folder(step))  # or what else is in the way
        self.folder(step).unlink(missing_ok=True)  # an empty file
        os.replace(part, self.folder(step))
        fsync_folder(self.path)
        steps = [step for step in self.steps() if (self.folder(step) / SEAL).is_file()]
        passed_over = [other for other in steps if other > step]
        for old in passed_over + steps[len(passed_over) + NUM_KEPT :]:
            self.remove(old)

    def remove(self, step):
        """Delete a checkpoint, unless it holds what its seal does not name."""
        folder = self.folder(step)
        try:
            names = read_seal(folder)["files"].keys()
        except (OSError, ValueError):  # whose it is cannot be said
            return
        found = {entry.name for entry in folder.iterdir() if is_sealed(entry.name)}
        if found <= names and not folder.is_symlink():
            part = self.part(step, secrets.randbits(62))
            os.replace(folder, part)  # so that it is gone as a whole
            shutil.rmtree(part)

    def load(self, model, optimizer):
        """Fill both from the last whole checkpoint; return its step, 0 without one."""
        step = from_rank_0(self.last_whole_step() if rank() == 0 else 0)
        if step:
            load_state(self.folder(step), model, optimizer)
        if rank() == 0:
            self.cut_log(step)
        return step

    def cut_log(self, step):
        """Forget what the log says of later steps: they are taken once more."""
        if not self.log.is_file():
            return
        steps = set()
        with (
            replacing(self.log) as temporary,
            open(temporary, "w", encoding="utf-8") as file,
        ):
            for entry in self.read_log():
                if entry["step"] <= step:
                    steps.add(entry["step"])
                    file.write(json.dumps(entry) + "\n")
        if len(steps) < step:
            lacking = f"{step - len(steps)} of {step} steps"
            say(f"{one_line(self.log)} lacks {lacking}: it was damaged")

    def note(self, **entry):
        """Add a line to the log; FloatingPointError if a number is not finite."""
        for key, value in entry.items():
            if not is_finite_number(value):
                raise FloatingPointError(f"{key} is {value}")
        if rank() == 0:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def entries(self):
        """The lines of the log as dicts, but for those half written or damaged."""
        return list(self.read_log())

    def read_log(self):
        """Yield what `entries` lists, one after another."""
        with open(self.log, "rb") as file:
            while line := file.readline(MOST_LINE):
                with suppress(ValueError):
                    yield parse_entry(line)

    def save_result(self, model, cfg):
        """Write model.safetensors, which `load_model` reads."""
        weights = whole_weights(model)
        if rank() == 0:
            del weights["out_head.weight"]  # it is the token embedding
            path = self.path / "model.safetensors"
            save_weights(path, weights, cfg, tied="True")
        wait_for_all()
