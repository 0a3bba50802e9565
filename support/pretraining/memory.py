"""Forecasts of the memory and the time that a training run will need.

Memory is counted on tensors that have shapes and no numbers, so counting takes none.
Then, if there is room for it, the time of one block and of a model with one block is
measured. Both are multiplied by the number of blocks. Call `fast_math` before, as a run
does. `benchmarks.forecasting` compares forecasts with real steps.
"""

import logging
import math
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import psutil
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from ch05.training import calc_loss_batch
from support.checks import check_whole
from support.device.device import autocast
from support.device.fast_dropout import fast_dropout
from support.device.fast_vocabulary import FastVocabulary
from support.device.precision import has_bfloat16
from support.device.self_test import seeding
from support.weights.checkpoint import build_model
from support.weights.saving import size_in_bytes

SAMPLE_TOKENS = 2048  # of a step on a CPU that are timed
OVERHEAD = 2 * 10**8  # bytes that PyTorch's libraries and gaps in memory take
NUM_RUNS = 3  # a time is their median, after a first run that does not count


@dataclass(frozen=True)
class Workload:
    """A training step: the model, the size of the batch, and how it is computed."""

    cfg: dict
    batch_size: int
    num_tokens: int  # of each text
    dtype: torch.dtype  # of matrix multiplications
    device: str = "cpu"
    num_parts: int = 1  # into which a batch is cut
    is_checkpointed: bool = False  # blocks keep only their inputs
    is_tied: bool = False  # the output layer's weight is the token embedding
    prepare: Callable | None = None  # what is done to the model first, such as LoRA
    num_targets: int | None = None  # that count in a batch's loss; None: all
    calc_loss: Callable = calc_loss_batch
    is_vocabulary_fast: bool = False  # FastVocabulary computes both ends of the model

    def __post_init__(self):
        check_whole(batch_size=self.batch_size, num_tokens=self.num_tokens)
        check_whole(num_parts=self.num_parts)

    @property
    def part_size(self):
        """How many texts are computed at once."""
        return math.ceil(self.batch_size / self.num_parts)

    @property
    def part_targets(self):
        """How many targets a part has, if all parts have the same number."""
        whole = self.batch_size * self.num_tokens
        num_targets = whole if self.num_targets is None else self.num_targets
        return math.ceil(num_targets * self.part_size / self.batch_size)

    def sample(self):
        """A step on fewer texts, from which the time of this step can be calculated.

        On a CPU time is proportional to tokens; a GPU is busy with a whole part only.
        """
        rows = self.part_size
        if torch.device(self.device).type == "cpu":
            rows = min(rows, math.ceil(SAMPLE_TOKENS / self.num_tokens))
        num_targets = math.ceil(self.part_targets * rows / self.part_size)
        return replace(self, batch_size=rows, num_parts=1, num_targets=num_targets)

    def build(self, **sizes):
        """The model as it is trained, with some sizes of its config replaced."""
        model = build_model(self.cfg | sizes)
        if self.is_tied:
            model.out_head.weight = model.tok_emb.weight
        for parameter in model.parameters():
            nn.init.uniform_(parameter, -0.05, 0.05)
        if self.prepare:
            self.prepare(model)
        return model.train()

    def dropout(self):
        """A `with` block for fast dropout, which checkpointed blocks cannot use."""
        return nullcontext() if self.is_checkpointed else fast_dropout(self.device)

    def vocabulary(self):
        """A `with` block in which both ends of the model are computed as it says."""
        return FastVocabulary() if self.is_vocabulary_fast else nullcontext()

    def draw_hidden(self, model):
        """A part's input to a block of a model: (part_size, num_tokens, emb_dim)."""
        weight = model.tok_emb.weight
        shape = self.part_size, self.num_tokens, weight.shape[1]
        return weight.new_empty(shape).normal_().requires_grad_()

    def draw_batch(self):
        """A part's input and target ids, (part_size, num_tokens); -100 is ignored."""
        shape = self.part_size, self.num_tokens
        inputs, targets = torch.randint(self.cfg["vocab_size"], (2, *shape))
        targets.view(-1)[self.part_targets :] = -100
        return inputs.to(self.device), targets.to(self.device)


@dataclass(frozen=True)
class Forecast:
    """What training needs, in addition to what the process holds before it."""

    bytes: dict  # by what they hold; not all at the same time
    needed: int  # the most bytes at any moment
    seconds: float  # of a step; nan if it was not measured

    def minutes(self, num_steps):
        """Minutes of num_steps steps, without evaluations."""
        return num_steps * self.seconds / 60


def forecast_training(work):
    """Count what a Workload keeps in memory and measure how long it takes.

    The time is nan if a model of one block does not fit into the free memory, or if a
    CPU has no instructions for bfloat16: it imitates them, so slowly that nobody should
    train that way. Raises ValueError for sizes that are too large to be counted.
    """
    parts = count_bytes(work)
    of_one_block = replace(work.sample(), cfg=work.cfg | {"n_layers": 1})
    needed = needed_bytes(of_one_block, count_bytes(of_one_block))
    is_cpu = torch.device(work.device).type == "cpu"
    is_imitated = is_cpu and work.dtype == torch.bfloat16 and not has_bfloat16("cpu")
    can_measure = needed < free_bytes(work.device) and not is_imitated
    seconds = measure_seconds(work) if can_measure else math.nan
    return Forecast(parts, needed_bytes(work, parts), seconds)


def kept_bytes(block, x, dtype, device="cpu"):
    """Bytes that autograd keeps, without the block's parameters, when it computes x."""
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    dropout = fast_dropout(device)  # chosen now, if at all: what that takes is not kept
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, autocast(device, dtype), dropout:
        y = block(x)  # held until the end, so that no address is used twice
    for parameter in block.parameters():
        kept.pop(parameter.untyped_storage()._cdata, None)
    return sum(kept.values()) if y.requires_grad else 0


def activation_bytes(work):
    """Bytes that all blocks keep for the backward pass, counted on one of them."""
    model = meta_model(work, n_layers=1, vocab_size=2)
    fast_dropout(work.device)  # chosen now, because below nothing is computed
    with FakeTensorMode(allow_non_fake_inputs=True):  # takes no memory and no time
        model.to_empty(device=work.device)
        x = work.draw_hidden(model)
        of_one = kept_bytes(model.trf_blocks[0], x, work.dtype, work.device)
    if work.is_checkpointed:  # one block at a time computes its activations again
        return work.cfg["n_layers"] * size_in_bytes([x]) + of_one
    return work.cfg["n_layers"] * of_one


def meta_model(work, **sizes):
    """A Workload's model without numbers, with some sizes of its config replaced."""
    with torch.device("meta"):
        return work.build(**sizes)


def count_shapes(work):
    """Parameters of one and of two blocks, as shapes, and bytes of all activations.

    Raises ValueError for sizes that are too large to be counted.
    """
    log = logging.getLogger("torch._subclasses.fake_tensor")
    log.disabled = True  # it would print a traceback
    try:
        one, two = (list(meta_model(work, n_layers=n).parameters()) for n in (1, 2))
        return one, two, activation_bytes(work)
    except (RuntimeError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"the memory for a step on {work.part_size:,} texts of {work.num_tokens:,} "
            f"tokens cannot be calculated ({reason}): use a smaller model or less text"
        ) from None
    finally:
        log.disabled = False


def count_bytes(work):
    """Bytes that a Workload takes above the interpreter, by what they hold: a dict.

    Raises what `count_shapes` raises.
    """
    one, two, activations = count_shapes(work)
    trained, trained_two = ([p for p in ps if p.requires_grad] for ps in (one, two))
    num_more = work.cfg["n_layers"] - 1  # blocks, each as large as the first
    weights, gradients = (
        size_in_bytes(a) + num_more * (size_in_bytes(b) - size_in_bytes(a))
        for a, b in ((one, two), (trained, trained_two))
    )
    moments = 2 * gradients
    if work.num_parts > 1:  # a part's largest gradient, before it is added to the sum
        gradients += max(size_in_bytes([p]) for p in trained)
    num_logits = work.part_targets * work.cfg["vocab_size"]
    # logits, log-probabilities and the gradients of both; or logits and their gradients
    logit_bytes = 2 * work.dtype.itemsize if work.is_vocabulary_fast else 4 * 4
    is_cast = work.dtype == torch.bfloat16 != one[0].dtype
    head = 2 * work.cfg["vocab_size"] * work.cfg["emb_dim"] if is_cast else 0
    return {
        "weights": weights,
        "gradients": gradients,
        "AdamW": moments,
        "blocks": activations,
        "logits": logit_bytes * num_logits + head,  # and the cast output layer
        "overhead": OVERHEAD,
    }


def needed_bytes(work, parts):
    """The most bytes at any moment of a step, for the parts that `count_bytes` gives.

    In the backward pass gradients appear while activations disappear, so the larger of
    them counts. If there are more parts, they find the gradients of the first one.
    """
    either = parts["gradients"], parts["blocks"]
    return sum(parts.values()) - (min(either) if work.num_parts == 1 else 0)


def free_bytes(device="cpu"):
    """The free memory of a device, in bytes."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def measure_seconds(work):
    """Seconds of a Workload's step, from one block and a model with one block."""
    num_texts, work = work.batch_size, work.sample()
    with seeding(torch.device(work.device)), work.dropout(), work.vocabulary():
        model, batch = work.build(n_layers=1).to(work.device), work.draw_batch()
        block = model.trf_blocks[0]
        run_block = partial(block, work.draw_hidden(model))
        if work.is_checkpointed:
            run_block = partial(checkpoint, run_block, use_reentrant=False)
        of_block = time_module(block, run_block, work)
        calc_loss = partial(work.calc_loss, *batch, model, work.device)
        of_model = time_module(model, calc_loss, work)
    num_more = work.cfg["n_layers"] - 1  # blocks
    passes, update = (num_more * a + b for a, b in zip(of_block, of_model))
    return num_texts / work.batch_size * passes + update


def time_module(module, compute, work):
    """Seconds of forward and backward pass through a module, and of AdamW's update."""
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)

    def train():
        optimizer.zero_grad()
        with autocast(work.device, work.dtype):
            y = compute()
        y.backward(torch.ones_like(y))

    return time_call(train, work.device), time_call(optimizer.step, work.device)


def time_call(function, device):
    """Seconds that a function takes, including its work on the device."""
    synchronize, seconds = torch.get_device_module(device).synchronize, []
    for _ in range(1 + NUM_RUNS):
        start = time.perf_counter()
        function()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])
