"""The folder of a training run: checkpoints, a log, one run at a time.

    log.jsonl                   a line for each step
    step-0000200.safetensors    the last checkpoints
    model.safetensors           the model, once the run has ended

A checkpoint consists of the weights, the optimizer's moments, the step and the run's
settings, from which the rest follows, such as the order of the data and dropout. It has
a seal in it, as a model that `save_model` wrote. At step 0 it consists of the settings.
"""

import json
import os
import re
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from support.checks import is_number
from support.download.files import (
    check_regular,
    check_writable,
    make_folder,
    parse_json,
    remove_temporaries,
    set_aside,
    write_atomically,
)
from support.messages import one_line, say
from support.pretraining.distributed import broadcast, rank
from support.pretraining.distributed_checkpoint import (
    gather_state,
    gather_weights,
    load_state,
)
from support.weights.checkpoint import SafetensorsReader, SavedFile, save_weights
from support.weights.saving import size_in_bytes

# settings that the first runs did not write down, and one that is now part of another
ADDED_SETTINGS = "precision", "is_dropout_fast", "is_vocabulary_fast"
REMOVED_SETTING = "is_loss_fast"
NUM_KEPT = 2  # checkpoints: the last one, and one more in case it gets damaged
LOG, MODEL = "log.jsonl", "model.safetensors"
STEP_NAME = re.compile(r"step-(\d{7,})\.safetensors")
WRITTEN_NAMES = re.compile(f"{STEP_NAME.pattern}|{re.escape(LOG)}|{re.escape(MODEL)}")


def different_settings(old, new):
    """What differs between two runs' settings, a few words each, in one text.

    What the course's earlier versions did not write down, or wrote down in addition, is
    no difference.
    """
    left_out = {"config": None, REMOVED_SETTING: None}
    old, new = (kept | kept["config"] | left_out for kept in (old, new))
    old = {key: new.get(key) for key in ADDED_SETTINGS} | old
    return "; ".join(
        f"{key} was {old.get(key)!r} and is now {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )


def parse_settings(reader):
    """The settings in a checkpoint; ValueError if it has none."""
    settings = parse_json(reader.metadata().get("settings", "null"), reader.path)
    if not isinstance(settings, dict) or "config" not in settings:
        raise ValueError(f"{reader.path} is not a checkpoint of a run")
    return settings


def parse_entry(line):
    """A line of a log as a dict; None if `log_entry` has not written it like this."""
    with suppress(ValueError, OverflowError):  # the latter for absurdly long numbers
        entry = parse_json(line.decode(), LOG)
        is_entry = isinstance(entry, dict) and type(entry.get("step")) is int
        if is_entry and all(map(is_number, entry.values())):
            return entry
    return None


class RunFolder:
    """The folder of one run, in which rank 0 writes.

    Only what a run has written there is ever deleted.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.log = self.path / LOG
        self.settings = None  # of the run, once it has started

    @contextmanager
    def locked(self):
        """Let no second run use the folder; filelock.Timeout if another one does."""
        if rank() > 0:
            yield
            return
        make_folder(self.path)
        with FileLock(self.path / "lock", timeout=0):
            for path in (self.log, self.path / MODEL):
                check_regular(path)
            remove_temporaries(self.path, WRITTEN_NAMES)  # of a killed process
            yield

    def start(self, settings):
        """Write down the settings of a new run, or compare them with the known ones.

        Raises ValueError if the folder holds a run with other settings, or files of no
        known run.
        """
        self.settings, known = settings, [*self.known_settings().values()]
        different = [different_settings(each, settings) for each in known]
        if known and all(different):
            different = different[0]
            raise ValueError(
                f"the run in {self.path} has other settings: {different}. Continue "
                "with its own settings, or give this run another folder"
            )
        if not self.steps():
            for path in (self.log, self.path / MODEL):
                if os.path.lexists(path):
                    raise ValueError(
                        f"{self.path} holds {path.name}, but no checkpoint of a run: "
                        "give this run another folder"
                    )
            self.write_checkpoint(0, {})

    def steps(self):
        """The steps that there are checkpoints of, the last one first."""
        if not self.path.is_dir():
            return []
        names = [STEP_NAME.fullmatch(entry.name) for entry in self.path.iterdir()]
        return sorted((int(match[1]) for match in names if match), reverse=True)

    def checkpoint(self, step):
        """The path of a step's checkpoint."""
        return self.path / f"step-{step:07}.safetensors"

    def known_settings(self):
        """The settings in each checkpoint that can be read, by step, last step first.

        Tensors may be damaged nevertheless: `check` tells.
        """
        known = {}
        for step in self.steps():
            with suppress(OSError, ValueError):
                check_regular(self.checkpoint(step))
                known[step] = parse_settings(SafetensorsReader(self.checkpoint(step)))
        return known

    def last_valid_step(self):
        """The step of the last checkpoint that is not damaged; 0 if there is none.

        Raises ValueError if there are checkpoints and all are damaged.
        """
        steps = self.steps()
        for step in steps:
            try:
                self.check(step)
                return step
            except (OSError, ValueError) as error:
                reason = one_line(error, longest=1000)
                say(f"skipping a checkpoint that cannot be used: {reason}")
        if steps:
            raise ValueError(
                f"no checkpoint in {self.path} can be used: give the run another "
                "folder to start it again"
            )
        return 0

    def check(self, step):
        """Raise ValueError, or OSError, if a step's checkpoint cannot be used."""
        file = SavedFile(self.checkpoint(step))
        settings, found = parse_settings(file), file.metadata().get("step")
        if found != str(step):
            raise ValueError(f"{file.path} holds step {found}, not {step}")
        different = different_settings(settings, self.settings or settings)
        if different:
            raise ValueError(f"{file.path} belongs to another run: {different}")

    def check_disk_space(self, model, num_saves):
        """Raise OSError unless num_saves checkpoints of a tied model fit in.

        Some of them will be removed again; but the result must fit in beside the rest.
        """
        if rank() > 0:
            return
        size = size_in_bytes(model.parameters())
        check_writable(self.path / MODEL, size)
        num_here = sum(step > 0 for step in self.known_settings())
        num_new = min(num_saves, max(1, NUM_KEPT + 1 - num_here))  # at the same time
        free = shutil.disk_usage(self.path).free
        needed = (3 * num_new + 1) * size  # a checkpoint holds two moments as well
        if free < needed:
            raise OSError(
                f"{self.path} has {free:,} bytes left, but its checkpoints and the "
                f"final model take {needed:,} more"
            )

    def save(self, step, model, optimizer):
        """Write a complete checkpoint, or none. Every process calls this.

        Raises OSError if it cannot be written, and FloatingPointError if a weight is
        not finite; earlier checkpoints stay.
        """
        for name, parameter in model.named_parameters():
            if not parameter.detach().isfinite().all():
                raise FloatingPointError(f"{name} holds numbers that are not finite")
        tensors = gather_state(model, optimizer)
        if rank() == 0:
            self.write_checkpoint(step, tensors)
        broadcast(None)  # the other processes wait

    def write_checkpoint(self, step, tensors):
        """Write tensors as the checkpoint of a step; remove old checkpoints."""
        with suppress(FileNotFoundError), open(self.log, "rb+") as log:
            os.fsync(log.fileno())  # or a crash could leave it behind the checkpoint
        path, ours = self.checkpoint(step), {*self.known_settings()}
        if step not in ours:
            set_aside(path)  # it is not ours, or too damaged to say
        metadata = {"step": str(step), "settings": json.dumps(self.settings)}
        save_weights(path, tensors, self.settings["config"], **metadata)
        kept = sorted({n for n in ours if n < step} | {step})[-NUM_KEPT:]
        for other in ours - {*kept}:
            self.checkpoint(other).unlink()

    def load(self, model, optimizer):
        """Fill both from the last valid checkpoint; return its step, 0 without one."""
        step = broadcast(self.last_valid_step() if rank() == 0 else 0)
        if step:
            load_state(SafetensorsReader(self.checkpoint(step)), model, optimizer)
        if rank() == 0 and self.log.is_file():
            self.truncate_log(step)
        return step

    def truncate_log(self, step):
        """Remove the lines of later steps, which will be taken once more."""
        entries = [entry for entry in self.read_log() if entry["step"] <= step]
        lines = [f"{json.dumps(entry)}\n" for entry in entries]
        write_atomically(self.log, "".join(lines).encode())
        if num_missing := step - len({entry["step"] for entry in entries}):
            say(
                f"{one_line(self.log)} is damaged: {num_missing} of {step} steps are "
                "missing in it"
            )

    def log_entry(self, **entry):
        """Add a line to the log; FloatingPointError if a number is not finite."""
        for key, value in entry.items():
            if not is_number(value):
                raise FloatingPointError(f"{key} is {value}")
        if rank() == 0:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def read_log(self):
        """The lines of the log as dicts, without those that are torn or damaged."""
        with open(self.log, "rb") as file:
            entries = [parse_entry(line) for line in file]
        return [entry for entry in entries if entry is not None]

    def save_result(self, model, cfg):
        """Write model.safetensors, which `load_model` reads."""
        weights = gather_weights(model)
        if rank() == 0:
            save_weights(self.path / MODEL, weights, cfg, tied="True")
        broadcast(None)  # the other processes wait
