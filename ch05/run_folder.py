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
import os
import re
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from ch02.files import check_sha256, fsync_folder, sha256_of, write_atomically
from ch05.checkpoint import save_weights
from ch05.ranks import from_rank_0, rank, wait_for_all
from ch05.spread_state import load_state, save_state, whole_weights

NUM_KEPT = 2  # checkpoints: the last one, and one more in case it gets damaged
STEP_FOLDER = re.compile(r"step-(\d{7,})")
SEAL = "seal.json"


class RunFolderError(ValueError):
    """The folder of a run cannot be used; the message says why and what to do."""


def check_finite(model):
    """Raise FloatingPointError if one of a model's weights is not a finite number."""
    for name, parameter in model.named_parameters():
        if not parameter.detach().isfinite().all():
            raise FloatingPointError(f"{name} holds numbers that are not finite")


def all_settings(settings):
    """A run's settings and its config's as one dict, to be compared one by one."""
    found = settings | settings["config"]
    del found["config"]
    return found


def seal(folder):
    """Write the sha256 of each file of a folder into it."""
    digests = {file.name: sha256_of(file) for file in sorted(folder.iterdir())}
    write_atomically(folder / SEAL, json.dumps(digests, indent=2).encode())


def check_seal(folder):
    """Raise ValueError, or OSError, unless all files are as they were sealed."""
    for name, digest in json.loads((folder / SEAL).read_text(encoding="utf-8")).items():
        check_sha256(folder / name, digest)


class RunFolder:
    """The folder of one run. Rank 0 alone writes what is not a checkpoint's tensors."""

    def __init__(self, path):
        self.path = Path(path)
        self.log = self.path / "log.jsonl"

    @contextmanager
    def locked(self):
        """Refuse the folder to a second run; RunFolderError if one is under way."""
        if rank() > 0:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
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
        """Remove what a process that was killed had not finished writing."""
        for part in self.path.glob("step-*.part"):
            shutil.rmtree(part)
        for temporary in self.path.glob("*.[0-9]*.tmp"):
            temporary.unlink()

    def agree_on(self, settings):
        """Write down a new run's settings; RunFolderError if it has others already."""
        path = self.path / "settings.json"
        if not path.is_file():
            write_atomically(path, json.dumps(settings, indent=2).encode())
            return
        try:
            old = all_settings(json.loads(path.read_bytes()))
        except (ValueError, TypeError, KeyError):
            raise RunFolderError(
                f"{path} is damaged: delete it, and give the settings that the run was "
                "begun with"
            ) from None
        new = all_settings(settings)
        different = [
            f"{key} was {old.get(key)!r} and is now {new.get(key)!r}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        if different:
            raise RunFolderError(
                f"the run in {self.path} has other settings: {'; '.join(different)}. "
                "Go on with its own, or give this run another folder"
            )

    def dtype(self):
        """That of the run that lies here; None if there is none, or it does not say."""
        with suppress(OSError, ValueError, TypeError, LookupError):
            return json.loads((self.path / "settings.json").read_bytes())["dtype"]
        return None

    def folder(self, step):
        """Where the checkpoint of a step lies."""
        return self.path / f"step-{step:07}"

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
                check_seal(self.folder(step))
            except (OSError, ValueError) as error:
                print(f"passing over a checkpoint that is not whole: {error}")
            else:
                return step
        if steps:
            raise RunFolderError(
                f"no checkpoint in {self.path} is whole: delete it to begin anew"
            )
        return 0

    def save(self, step, model, optimizer):
        """Write a checkpoint; it appears whole or not at all. Every process calls this.

        Raises OSError if it cannot be written, and FloatingPointError if a weight is
        not finite; earlier ones stay.
        """
        check_finite(model)
        part = self.folder(step).with_suffix(".part")
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
        seal(part)
        with suppress(FileNotFoundError), open(self.log, "rb+") as log:
            os.fsync(log.fileno())  # or it could be behind the checkpoint after a crash
        shutil.rmtree(self.folder(step), ignore_errors=True)  # one that was passed over
        os.replace(part, self.folder(step))
        fsync_folder(self.path)
        steps = self.steps()
        passed_over = [other for other in steps if other > step]
        for old in passed_over + steps[len(passed_over) + NUM_KEPT :]:
            shutil.rmtree(self.folder(old))

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
        if self.log.is_file():
            lines = [
                json.dumps(entry) for entry in self.entries() if entry["step"] <= step
            ]
            write_atomically(self.log, "".join(f"{line}\n" for line in lines).encode())

    def note(self, **entry):
        """Add a line to the log."""
        if rank() == 0:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def entries(self):
        """The lines of the log as dicts, but for those half written or damaged."""
        found = []
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, TypeError, KeyError):
                entry = json.loads(line)
                found.append(entry | {"step": int(entry["step"])})
        return found

    def save_result(self, model, cfg):
        """Write model.safetensors, which `ch05.checkpoint.load_model` reads."""
        weights = whole_weights(model)
        if rank() == 0:
            del weights["out_head.weight"]  # it is the token embedding
            path = self.path / "model.safetensors"
            try:
                save_weights(path, weights, cfg, tied="True")
            except SafetensorError as error:  # what it makes of a full disk
                raise OSError(str(error)) from None
        wait_for_all()
