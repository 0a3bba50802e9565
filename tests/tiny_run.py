"""A pretraining run that takes a second, for tests that stop it, kill it or share it.

`python -m tests.tiny_run '[{"folder": "here", "stop_at": 3}]'` does a list of runs, one
after the other. Each names its folder, and may name the step after which it is told to
stop, and what differs from SETTINGS and OPTIONS ("settings", "options"). Under torchrun
all processes share each of them.
"""

import hashlib
import json
import os
import signal
import sys
from dataclasses import replace

import torch

from ch04.gpt import GPT_CONFIG_124M
from support.pretraining.distributed import process_group, rank, world_size
from support.pretraining.run_folder import RunFolder
from support.pretraining.trainer import RunOptions, RunSettings, Trainer

CONFIG = GPT_CONFIG_124M | {  # with its dropout: the same draws have to come again
    "vocab_size": 61,
    "context_length": 8,
    "emb_dim": 16,
    "n_heads": 2,
    "n_layers": 2,
}
SETTINGS = RunSettings(
    config=CONFIG,
    data="random windows",
    num_steps=8,
    batch_size=6,  # so that 1, 2 and 3 processes can share it
    peak_lr=1e-2,
    min_lr=1e-3,
    is_dropout_fast=True,
    is_vocabulary_fast=True,
)
OPTIONS = RunOptions(eval_freq=4, eval_iter=1, save_freq=3)


def random_windows(num_windows, seed):
    """A data set of pairs (input_ids, target_ids), each (context_length,)."""
    generator = torch.Generator().manual_seed(seed)
    sizes = num_windows, CONFIG["context_length"] + 1
    rows = torch.randint(CONFIG["vocab_size"], sizes, generator=generator)
    return [(row[:-1], row[1:]) for row in rows]


TRAIN, VALIDATION = random_windows(25, seed=1), random_windows(7, seed=2)


class ToldFolder(RunFolder):
    """A RunFolder whose run is told to stop, by a signal to its last process."""

    def __init__(self, path, stop_at=None, number=signal.SIGTERM):
        super().__init__(path)
        self.stop_at, self.number = stop_at, number  # the last step, and the signal's

    def log_entry(self, **entry):
        """Add a line to the log, and see if the next step is the last one."""
        super().log_entry(**entry)
        if entry["step"] + 1 == self.stop_at and rank() == world_size() - 1:
            os.kill(os.getpid(), self.number)

    def save_result(self, model, cfg):
        """Let each process say as well what its weights are, put together."""
        super().save_result(model, cfg)
        (self.path / f"rank-{rank()}.txt").write_text(weights_sha256(model))


def weights_sha256(model):
    """The sha256 of all weights of a model, whichever process holds them."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        is_spread = hasattr(parameter, "full_tensor")
        weight = parameter.full_tensor() if is_spread else parameter
        digest.update(weight.detach().numpy().tobytes())
    return digest.hexdigest()


def tiny_run(folder, settings=SETTINGS, options=OPTIONS, device="cpu"):
    """Start or continue the run of a RunFolder; True when it is done."""
    with folder.locked():
        trainer = Trainer(settings, options, TRAIN, VALIDATION, device)
        return trainer.train(folder)


def main():
    """Do the runs that the command line lists."""
    with process_group() as device:
        for job in json.loads(sys.argv[1]):
            settings = replace(SETTINGS, **job.get("settings", {}))
            options = replace(OPTIONS, **job.get("options", {}))
            folder = ToldFolder(job["folder"], job.get("stop_at"))
            tiny_run(folder, settings, options, device)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
