"""A long pretraining run, on one process or many (support: used, not taught).

`python -m support.pretraining run` calls it. The pieces are those of 5.2, training for
hours; begun again with the same settings, a run goes on from its last checkpoint.
"""

import signal
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass

import torch
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from ch04.gpt import GPTModel
from ch05.recipe import (
    StepBatches,
    decayed_groups,
    initialize,
    learning_rate_at,
    set_learning_rate,
)
from ch05.training import calc_loss_loader, evaluating, training_steps
from support.device.device import autocast
from support.device.fast_dropout import FastDropout
from support.pretraining.distributed import (
    AveragedGradients,
    mean_of_all,
    rank,
    spread,
    world_size,
)

BETAS = (0.9, 0.95)  # as GPT-3 was trained (Brown et al. 2020, appendix B)


@dataclass(frozen=True)
class RunSettings:
    """What decides the result of a run; written into its folder."""

    config: dict  # of the model
    data: str  # fingerprint of the shards
    num_steps: int
    batch_size: int  # windows that all processes together take in a step
    peak_lr: float
    min_lr: float
    warmup_share: float = 0.1
    weight_decay: float = 0.1
    max_norm: float = 1.0  # of the gradient
    seed: int = 123
    dtype: str = "float32"  # of matrix multiplications; or "bfloat16"

    def learning_rate(self, step):
        """The learning rate of a step, counted from 0."""
        return learning_rate_at(
            step, self.num_steps, self.peak_lr, self.warmup_share, self.min_lr
        )


@dataclass(frozen=True)
class Rhythm:
    """How often a run looks up, and how it fits into memory.

    The result is the same, unless dropout draws other masks for more or fewer parts.
    """

    eval_freq: int = 100  # steps between two evaluations
    eval_iter: int = 8  # batches that an evaluation looks at
    save_freq: int = 100  # steps between two checkpoints
    num_parts: int = 1  # into which each process cuts its share of a batch
    is_sharded: bool = False  # FSDP2 instead of DDP


def build(settings, device, is_sharded):
    """A model at its start, spread over the processes, and its optimizer."""
    torch.manual_seed(settings.seed)
    model = GPTModel(settings.config)
    initialize(model)
    model = spread(model.to(device), is_sharded)
    optimizer = torch.optim.AdamW(
        decayed_groups(model, settings.weight_decay),
        lr=settings.peak_lr,
        betas=BETAS,
        fused=True,
    )
    return model, optimizer


def create_val_loader(dataset, batch_size, eval_iter):
    """This process's share of the first eval_iter batches of the validation part."""
    num_windows = min(len(dataset), eval_iter * batch_size)
    num_windows -= num_windows % world_size()  # all shares are equal
    if num_windows == 0:
        raise ValueError(
            f"the validation part has {len(dataset)} windows for {world_size()} "
            "processes: give more text or fewer processes"
        )
    mine = Subset(dataset, range(rank(), num_windows, world_size()))
    return DataLoader(mine, max(1, batch_size // world_size()))


@torch.no_grad()
def validation_loss(model, loader, device, dtype):
    """Loss per token, in nats, over a loader whose batches the processes share."""
    with evaluating(model), autocast(device, dtype):
        (loss,) = mean_of_all(calc_loss_loader(loader, model, device))
    return loss


@contextmanager
def asked_to_stop():
    """Yield a function that says if Ctrl-C or SIGTERM came.

    A second Ctrl-C stops at once; a second SIGTERM does not, for a scheduler and
    torchrun may both send one. Signals reach the main thread only; elsewhere the
    function says no.
    """
    asked = []

    def note(number, _):
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Run:
    """A run between its last checkpoint and its last step.

    train and validation are datasets of windows; folder is a RunFolder.
    """

    def __init__(self, settings, rhythm, folder, train, validation, device):
        self.settings, self.rhythm, self.folder = settings, rhythm, folder
        self.device, self.dtype = device, getattr(torch, settings.dtype)
        self.val_loader = create_val_loader(
            validation, settings.batch_size, rhythm.eval_iter
        )
        self.model, self.optimizer = build(settings, device, rhythm.is_sharded)
        self.step = folder.load(self.model, self.optimizer)  # how many are taken
        self.evaluation_seconds = 0.0
        self.batches = StepBatches(
            train,
            settings.batch_size,
            settings.num_steps,
            settings.seed,
            self.step,
            rank(),
            world_size(),
        )

    def train(self):
        """Take the steps that are left; False if Ctrl-C or SIGTERM ended it before.

        Raises FloatingPointError, with the checkpoints as they were, when a number is
        not finite, and OSError when a checkpoint cannot be written.
        """
        start = time.perf_counter()
        try:
            with asked_to_stop() as is_asked, FastDropout():
                if self.step < self.settings.num_steps:
                    self.take_steps(is_asked)
        except FloatingPointError as error:
            windows = self.batches.indices(self.step).tolist()
            raise FloatingPointError(
                f"step {self.step + 1}, on windows {windows}: {error}. The checkpoints "
                "stay as they were; try another folder and a lower learning rate"
            ) from None
        share = self.evaluation_seconds / (time.perf_counter() - start)
        if rank() == 0:
            print(f"{share:.1%} of the time went into evaluation")
        is_done = self.step == self.settings.num_steps
        if is_done:  # also if a process was killed right before it
            self.folder.save_result(self.model, self.settings.config)
        return is_done

    def take_steps(self, is_asked):
        """Train until the last step, or the first after which is_asked() is true."""
        settings, rhythm = self.settings, self.rhythm
        self.folder.check_room(self.model)
        gradients = AveragedGradients(rhythm.num_parts, settings.max_norm, self.dtype)
        steps = training_steps(
            self.model,
            self.batches,
            self.optimizer,
            self.device,
            num_epochs=1,  # StepBatches goes over the data as often as it has to
            add_gradients=gradients,
        )
        set_learning_rate(self.optimizer, settings.learning_rate(self.step))
        with closing(steps):
            for step, _ in enumerate(steps, self.step + 1):
                loss, num_asked = mean_of_all(gradients.loss, is_asked())
                is_last = step == settings.num_steps or num_asked > 0
                self.take_note(step, loss, gradients.norm)
                if is_last or step % rhythm.save_freq == 0:
                    self.folder.save(step, self.model, self.optimizer)
                self.step = step
                if is_last:
                    break
                set_learning_rate(self.optimizer, settings.learning_rate(step))

    def take_note(self, step, loss, norm):
        """Write a line of the log; evaluate every eval_freq steps and at the end."""
        entry = {"step": step, "loss": loss, "norm": norm}
        if step == self.settings.num_steps or step % self.rhythm.eval_freq == 0:
            start = time.perf_counter()
            val_loss = validation_loss(
                self.model, self.val_loader, self.device, self.dtype
            )
            self.evaluation_seconds += time.perf_counter() - start
            entry["val_loss"] = val_loss
            losses = f"Train loss {loss:.3f}, Val loss {val_loss:.3f}"
            if rank() == 0:
                tqdm.write(f"Step {step:6}: {losses}")
        self.folder.note(**entry)


def run_to_end(settings, rhythm, folder, train, validation, device):
    """Begin a run or go on with it; True when its last step has been taken.

    Raises RunFolderError when the folder is in use, holds another run, or is damaged.
    """
    with folder.locked():
        if rank() == 0:
            folder.agree_on(asdict(settings))
        run = Run(settings, rhythm, folder, train, validation, device)
        if run.step and rank() == 0:
            print(f"going on after step {run.step} of {settings.num_steps}")
        return run.train()
