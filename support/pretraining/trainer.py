"""A long pretraining run, on one process or several.

`python -m support.pretraining run` uses it. Its parts are those of section 5.2. Started
again with the same settings, a run continues from its last checkpoint.
"""

import math
import signal
from contextlib import closing, contextmanager, nullcontext
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
from support.device.fast_vocabulary import FastVocabulary
from support.device.precision import matmul_precision
from support.pretraining.distributed import (
    AveragedGradients,
    all_reduce_mean,
    parallelize,
    rank,
    world_size,
)

BETAS = (0.9, 0.95)  # as GPT-3 was trained (Brown et al. 2020, appendix B)


@dataclass(frozen=True)
class RunSettings:
    """What the result of a run depends on; it is written into the run's folder."""

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
    precision: str = "highest"  # of float32 matrix multiplications, as PyTorch calls it
    is_dropout_fast: bool = False
    is_vocabulary_fast: bool = False

    def learning_rate(self, step):
        """The learning rate of a step, counted from 0."""
        return learning_rate_at(
            step, self.num_steps, self.peak_lr, self.warmup_share, self.min_lr
        )


@dataclass(frozen=True)
class RunOptions:
    """What may change when a run continues, because the result is the same.

    There is one exception: with dropout, more parts or processes draw other masks.
    """

    eval_freq: int = 100  # steps between two evaluations
    eval_iter: int = 8  # batches of an evaluation
    save_freq: int = 100  # steps between two checkpoints
    num_parts: int = 1  # into which each process cuts its share of a batch
    is_sharded: bool = False  # FSDP2 instead of DDP


def build(settings, device, is_sharded):
    """A new model, shared by all processes, and its optimizer."""
    torch.manual_seed(settings.seed)
    model = GPTModel(settings.config)
    initialize(model)
    model = parallelize(model.to(device), is_sharded)
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
            f"the validation part has only {len(dataset)} windows for {world_size()} "
            "processes: give more text, or use fewer processes"
        )
    share = Subset(dataset, range(rank(), num_windows, world_size()))
    return DataLoader(share, max(1, batch_size // world_size()))


@torch.no_grad()
def validation_loss(model, loader, device, dtype):
    """Loss per token, in nats, over a loader whose batches the processes share."""
    with evaluating(model), autocast(device, dtype):
        (loss,) = all_reduce_mean(calc_loss_loader(loader, model, device))
    return loss


@contextmanager
def catching_stop_signals():
    """Yield a function that returns True after Ctrl-C or SIGTERM.

    A second Ctrl-C stops at once. A second SIGTERM does not, because a scheduler and
    torchrun may both send one.
    """
    received = []

    def handle(number, _):
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Trainer:
    """Trains a model on train_data and val_data, datasets of windows.

    Raises ValueError, before a model is built, if the batches cannot be made.
    """

    def __init__(self, settings, options, train_data, val_data, device):
        self.settings, self.options, self.device = settings, options, device
        self.dtype = getattr(torch, settings.dtype)
        self.step = 0  # how many steps are done
        self.val_loader = create_val_loader(
            val_data, settings.batch_size, options.eval_iter
        )
        self.batches = StepBatches(
            train_data,
            settings.batch_size,
            settings.num_steps,
            settings.seed,
            rank=rank(),
            world_size=world_size(),
        )
        share = settings.batch_size // world_size()
        if share % options.num_parts:
            raise ValueError(
                f"a batch of {share} windows cannot be split into {options.num_parts} "
                "equal parts: choose another number of parts (--num-parts)"
            )

    def train(self, folder):
        """Start or continue the run in a RunFolder, which is locked.

        Returns True after the last step, and False if Ctrl-C or SIGTERM came before it.
        Raises ValueError if the folder holds another run or is damaged;
        FloatingPointError if a number is not finite; and OSError if a checkpoint cannot
        be written. The earlier checkpoints stay as they were.
        """
        if rank() == 0:
            folder.start(asdict(self.settings))
        model, optimizer = build(self.settings, self.device, self.options.is_sharded)
        self.step = self.batches.start = folder.load(model, optimizer)
        if self.step and rank() == 0:
            print(f"continuing after step {self.step} of {self.settings.num_steps}")
        try:
            if self.step < self.settings.num_steps:
                folder.check_disk_space(model, self.num_saves())
                with catching_stop_signals() as is_stopped, self.chosen_ways():
                    self.take_steps(model, optimizer, folder, is_stopped)
        except FloatingPointError as error:
            windows = self.batches.indices(self.step).tolist()
            raise FloatingPointError(
                f"step {self.step + 1}, on windows {windows}: {error}. The checkpoints "
                "stay as they were; try another folder and a lower learning rate"
            ) from None
        is_done = self.step == self.settings.num_steps
        if is_done:  # even if a process was killed after the last step
            folder.save_result(model, self.settings.config)
        return is_done

    def num_saves(self):
        """How many checkpoints the steps that are left will write."""
        freq, last = self.options.save_freq, self.settings.num_steps
        return math.ceil(last / freq) - self.step // freq

    @contextmanager
    def chosen_ways(self):
        """Compute in a `with` block as the settings say."""
        dropout = FastDropout() if self.settings.is_dropout_fast else nullcontext()
        ends = FastVocabulary() if self.settings.is_vocabulary_fast else nullcontext()
        with matmul_precision(self.settings.precision), dropout, ends:
            yield

    def take_steps(self, model, optimizer, folder, is_stopped):
        """Train until the last step, or the first after which is_stopped() is true."""
        settings, options = self.settings, self.options
        gradients = AveragedGradients(options.num_parts, settings.max_norm, self.dtype)
        steps = training_steps(
            model,
            self.batches,
            optimizer,
            self.device,
            num_epochs=1,  # StepBatches repeats the data as often as necessary
            add_gradients=gradients,
        )
        set_learning_rate(optimizer, settings.learning_rate(self.step))
        with closing(steps):
            for step, _ in enumerate(steps, self.step + 1):
                loss, num_stopped = all_reduce_mean(gradients.loss, is_stopped())
                entry = {"step": step, "loss": loss, "norm": gradients.norm}
                if step == settings.num_steps or step % options.eval_freq == 0:
                    entry["val_loss"] = self.evaluate(model, step, loss)
                folder.log_entry(**entry)
                is_last = step == settings.num_steps or num_stopped > 0
                if is_last or step % options.save_freq == 0:
                    folder.save(step, model, optimizer)
                self.step = step
                if is_last:
                    break
                set_learning_rate(optimizer, settings.learning_rate(step))

    def evaluate(self, model, step, loss):
        """Calculate the validation loss and print it beside the training loss."""
        val_loss = validation_loss(model, self.val_loader, self.device, self.dtype)
        if rank() == 0:
            tqdm.write(f"Step {step:6}: Train loss {loss:.3f}, Val loss {val_loss:.3f}")
        return val_loss
