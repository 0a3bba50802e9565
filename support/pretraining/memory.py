"""What a training run will need, before it begins (support: used, not taught).

What autograd keeps of one block of the model is counted on tensors that have shapes and
no numbers, which takes no memory. Then the block, and what stands before and behind the
blocks, compute one batch, or as much of it as is needed to see how long it takes, if
there is room for it; the block's share is multiplied. Call `fast_math` before, as
before the run itself; dropout is that of `FastDropout`, as in a run.
`benchmarks.forecasting` compares forecasts with what real steps take.
"""

import logging
import math
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import psutil
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ch05.training import calc_loss_batch
from support.checks import check_whole
from support.device.device import autocast
from support.device.fast_dropout import FastDropout
from support.pretraining.timing import measure_seconds
from support.weights.checkpoint import build_model
from support.weights.saving import size_in_bytes

SAMPLE_TOKENS = 2048  # of a step on a CPU that are timed
OVERHEAD = 2 * 10**8  # bytes of PyTorch's libraries at work and of gaps in memory


@dataclass(frozen=True)
class Workload:
    """A step of training: which model, on how large a batch, computed in which way."""

    cfg: dict
    batch_size: int
    num_tokens: int  # of each text
    dtype: torch.dtype  # of matrix products
    device: str = "cpu"
    num_parts: int = 1  # into which a batch is cut
    is_checkpointed: bool = False  # blocks keep their inputs alone
    is_tied: bool = False  # the output layer's weight is the token embedding
    prepare: Callable | None = None  # what is done to the model first, such as LoRA
    num_targets: int | None = None  # that count in a batch's loss; None: all
    calc_loss: Callable = calc_loss_batch

    def __post_init__(self):
        check_whole(batch_size=self.batch_size, num_tokens=self.num_tokens)
        check_whole(num_parts=self.num_parts)

    @property
    def part_size(self):
        """How many texts are computed at once."""
        return math.ceil(self.batch_size / self.num_parts)

    @property
    def part_targets(self):
        """How many targets a part has, if the parts are alike."""
        whole = self.batch_size * self.num_tokens
        num_targets = whole if self.num_targets is None else self.num_targets
        return math.ceil(num_targets * self.part_size / self.batch_size)

    def sample(self):
        """A step on fewer texts that tells how long this one takes.

        On a CPU a few thousand tokens take their share of the time of more. A GPU is
        filled by many only, and measured at the real size.
        """
        rows = self.part_size
        if torch.device(self.device).type == "cpu":
            rows = min(rows, math.ceil(SAMPLE_TOKENS / self.num_tokens))
        num_targets = math.ceil(self.part_targets * rows / self.part_size)
        return replace(self, batch_size=rows, num_parts=1, num_targets=num_targets)

    def build(self, **sizes):
        """The model as it is trained, some sizes of its config replaced."""
        model = build_model(self.cfg | sizes)
        if self.is_tied:
            model.out_head.weight = model.tok_emb.weight
        for parameter in model.parameters():
            nn.init.uniform_(parameter, -0.05, 0.05)
        if self.prepare:
            self.prepare(model)
        return model.train()

    def dropout(self):
        """A `with` block: dropout as a run draws it; checkpointed blocks cannot."""
        return nullcontext() if self.is_checkpointed else FastDropout()

    def draw_hidden(self, model):
        """A part's input to a block of a model: (part_size, num_tokens, emb_dim)."""
        weight = model.tok_emb.weight
        shape = self.part_size, self.num_tokens, weight.shape[1]
        return weight.new_empty(shape).normal_().requires_grad_()

    def draw_batch(self):
        """A part's ids and targets, (part_size, num_tokens); -100 where none counts."""
        shape = self.part_size, self.num_tokens
        inputs, targets = torch.randint(self.cfg["vocab_size"], (2, *shape))
        targets.view(-1)[self.part_targets :] = -100
        return inputs.to(self.device), targets.to(self.device)


@dataclass(frozen=True)
class Forecast:
    """What training takes, above what the process holds before it."""

    bytes: dict  # by what they hold; not all at the same time
    needed: int  # bytes at the fullest moment
    seconds: float  # a step; nan if there was no room to measure it
    eval_seconds: float  # a batch of an evaluation, likewise

    def minutes(self, num_steps, num_eval_batches=0):
        """Minutes of a run that evaluates on so many batches in all."""
        return (num_steps * self.seconds + num_eval_batches * self.eval_seconds) / 60


def forecast_training(work):
    """Count what a Workload keeps in memory and measure how long it takes.

    What is measured is a model of one block, and its time is nan if that does not fit
    into the memory that is free. Raises ValueError for sizes beyond all counting.
    """
    parts = count_bytes(work)
    of_one_block = replace(work.sample(), cfg=work.cfg | {"n_layers": 1})
    needed = needed_bytes(of_one_block, count_bytes(of_one_block))
    seconds = math.nan, math.nan
    if needed < free_bytes(work.device):
        seconds = measure_seconds(work)
    return Forecast(parts, needed_bytes(work, parts), *seconds)


def kept_bytes(block, x, dtype, device="cpu"):
    """Bytes that autograd keeps, the block's parameters apart, while it computes x."""
    kept = {}

    def note(tensor):
        kept[storage_of(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, autocast(device, dtype), FastDropout():
        y = block(x)  # held until the end, so that no storage is counted twice
    for parameter in block.parameters():
        kept.pop(storage_of(parameter), None)
    return sum(kept.values()) if y.requires_grad else 0


def storage_of(tensor):
    """A number by which the memory behind a tensor can be known, with or without it."""
    return tensor.untyped_storage()._cdata


@contextmanager
def counting(work):
    """Let what is too large for PyTorch to count become ValueError, and no more."""
    log = logging.getLogger("torch._subclasses.fake_tensor")  # it would tell more
    was_disabled, log.disabled = log.disabled, True
    try:
        yield
    except (RuntimeError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"a step on {work.part_size:,} texts of {work.num_tokens:,} tokens is too "
            f"large to be counted ({reason}): take a smaller model or less text"
        ) from None
    finally:
        log.disabled = was_disabled


def activation_bytes(work):
    """Bytes of what all blocks keep for the backward pass, by the shapes of one."""
    with counting(work):
        model = meta_model(work, n_layers=1, vocab_size=2)
        with FakeTensorMode(allow_non_fake_inputs=True):  # takes no memory and no time
            model.to_empty(device=work.device)
            x = work.draw_hidden(model)
            of_one = kept_bytes(model.trf_blocks[0], x, work.dtype, work.device)
    if work.is_checkpointed:  # all keep their inputs; one at a time computes again
        return work.cfg["n_layers"] * size_in_bytes([x]) + of_one
    return work.cfg["n_layers"] * of_one


def meta_model(work, **sizes):
    """A Workload's model without numbers, some sizes of its config replaced."""
    with torch.device("meta"):
        return work.build(**sizes)


def parameter_bytes(model):
    """Bytes of the parameters, of those that are trained, and of the largest one."""
    trained = [p for p in model.parameters() if p.requires_grad]
    largest = max(size_in_bytes([p]) for p in trained)
    return size_in_bytes(model.parameters()), size_in_bytes(trained), largest


def count_bytes(work):
    """Bytes that a Workload takes above the interpreter, by what they hold: a dict.

    Raises ValueError for sizes beyond all counting.
    """
    with counting(work):
        model = meta_model(work, n_layers=1)
        one, two = (parameter_bytes(meta_model(work, n_layers=n)) for n in (1, 2))
    num_more = work.cfg["n_layers"] - 1  # blocks, each as large as the first
    weights, trained, _ = (a + num_more * (b - a) for a, b in zip(one, two))
    gradients = trained
    if work.num_parts > 1:  # a part's own, before they are added to what is there
        gradients += one[2]
    logits = 4 * work.part_targets * work.cfg["vocab_size"]
    is_cast = work.dtype == torch.bfloat16 != model.tok_emb.weight.dtype
    head = 2 * work.cfg["vocab_size"] * work.cfg["emb_dim"] if is_cast else 0
    return {
        "weights": weights,
        "gradients": gradients,
        "AdamW": 2 * trained,
        "blocks": activation_bytes(work),
        # they, log-probabilities, the gradients of both; what they are computed by
        "logits": 4 * logits + head,
        "overhead": OVERHEAD,
    }


def needed_bytes(work, parts):
    """Bytes at the fullest moment of a step, from what `count_bytes` says of its parts.

    On the way back gradients come as what the blocks keep goes: the larger counts. Of
    a batch in parts, the later ones find the gradients of the first.
    """
    together = parts["gradients"], parts["blocks"]
    return sum(parts.values()) - (min(together) if work.num_parts == 1 else 0)


def free_bytes(device="cpu"):
    """Memory that nobody uses at this moment, in bytes."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def lighter(work):
    """Yield Workloads with the same result in less and less memory: in more parts."""
    for num_parts in range(work.num_parts, work.batch_size + 1):
        if work.batch_size % num_parts == 0:
            yield replace(work, num_parts=num_parts)


def propose(work):
    """A sentence: how training fits into the memory that is free, or that it cannot."""
    free = free_bytes(work.device)
    for way in lighter(work):
        needed = needed_bytes(way, count_bytes(way))
        if needed < free:
            return (
                f"with num_parts {way.num_parts} it takes {needed / 1e9:.1f} GB, and "
                f"{free / 1e9:.1f} GB are free"
            )
    return (
        f"one text at a time takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
        "free: take a smaller model or shorter texts"
    )
