"""A recipe for long training runs: initialization, schedule, batches, clipping (5.2).

Shapes: b = batch; input_batch and target_batch are token ids, (b, num_tokens).
"""

import hashlib
import math

import torch
from torch import nn
from torch.utils.data import default_collate

from ch05.training import calc_loss_batch, train_model_simple
from support.checks import check_whole
from support.device.device import autocast


def initialize(model):
    """Initialize a GPTModel as GPT-2 was initialized (Radford et al. 2019, 2.3).

    Weights are normal numbers with standard deviation 0.02, or 0.01 for the position
    embedding, as in OpenAI's code. Biases are 0, and the token embedding becomes the
    output layer. Two layers of each block add their outputs to the residual stream.
    Their standard deviation is divided by the square root of their number, so that the
    growth of the stream does not depend on the number of blocks.
    """
    model.out_head.weight = model.tok_emb.weight
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            std = 0.01 if name == "pos_emb.weight" else 0.02
            nn.init.normal_(parameter, std=std)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    num_added = 2 * len(model.trf_blocks)
    for block in model.trf_blocks:
        for layer in (block.att.out_proj, block.ff.layers[-1]):
            nn.init.normal_(layer.weight, std=0.02 / math.sqrt(num_added))


def decayed_groups(model, weight_decay):
    """Parameter groups for AdamW: weight decay for matrices, none for vectors."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.dim() >= 2]  # embeddings, too
    vectors = [p for p in parameters if p.dim() < 2]  # biases, scales and shifts
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def learning_rate_at(step, num_steps, peak_lr, warmup_share=0.1, min_lr=0.0):
    """Linear warm-up to peak_lr, then cosine decay to min_lr at the last step."""
    num_warmup = math.ceil(warmup_share * num_steps)
    if step < num_warmup:
        return peak_lr * (step + 1) / num_warmup
    left = (num_steps - 1 - step) / max(1, num_steps - 1 - num_warmup)  # 1 to 0
    return min_lr + (peak_lr - min_lr) * (1 - math.cos(math.pi * left)) / 2


def set_learning_rate(optimizer, lr):
    """Set the learning rate of the optimizer's next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def seed_for(*numbers):
    """Combine numbers into one seed; similar numbers get unrelated seeds."""
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # 63 bits


class StepBatches:
    """The batches of a run from step `start` on; each depends only on seed and step.

    dataset[i] is (input_ids, target_ids). Each epoch shuffles the dataset anew and
    drops an incomplete last batch. Before each batch, torch is seeded for its step.
    Each of world_size processes gets its own part of every batch. Raises ValueError if
    batch_size cannot be divided by world_size, or if the dataset is too small.
    """

    def __init__(
        self, dataset, batch_size, num_steps, seed=123, start=0, rank=0, world_size=1
    ):
        check_whole(batch_size=batch_size)
        check_whole(0, num_steps=num_steps, start=start)
        if batch_size % world_size:
            raise ValueError(
                f"{world_size} processes cannot share batches of {batch_size} equally"
            )
        if len(dataset) < batch_size:
            raise ValueError(
                f"the text has {len(dataset)} windows, fewer than batch_size "
                f"{batch_size}: give more text or smaller batches"
            )
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.start, self.num_steps = start, num_steps
        self.rank, self.world_size = rank, world_size
        self.epoch, self.order = None, None

    def __len__(self):
        return self.num_steps - self.start

    def indices(self, step):
        """The indices of the windows in the batch of a step, (batch_size,)."""
        epoch, position = divmod(step, len(self.dataset) // self.batch_size)
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed(seed_for(self.seed, epoch))
            self.order = torch.randperm(len(self.dataset), generator=generator)
            self.epoch = epoch
        start = position * self.batch_size
        return self.order[start : start + self.batch_size]

    def __iter__(self):
        for step in range(self.start, self.num_steps):
            mine = self.indices(step).chunk(self.world_size)[self.rank].tolist()
            torch.manual_seed(seed_for(self.seed, step, self.rank))  # for dropout
            yield default_collate([self.dataset[i] for i in mine])


class ClippedGradients:
    """`add_gradients` part by part, and then clipped to a norm of max_norm.

    A batch is split into num_parts equal parts. Without dropout, the sum of their
    gradients is the gradient of the whole batch, in the memory of one part. dtype is
    that of the matrix multiplications. `loss` and `norm` (before clipping) are those of
    the last batch. Raises FloatingPointError if they are not finite, before any weight
    has changed.
    """

    def __init__(self, num_parts=1, max_norm=1.0, dtype=torch.float32):
        check_whole(num_parts=num_parts)
        if not max_norm > 0:
            raise ValueError(f"max_norm is {max_norm}; it must be above 0")
        self.num_parts, self.max_norm, self.dtype = num_parts, max_norm, dtype
        self.loss = self.norm = math.nan

    def __call__(self, input_batch, target_batch, model, device):
        if len(input_batch) % self.num_parts:
            raise ValueError(
                f"a batch of {len(input_batch)} cannot be split into {self.num_parts} "
                "equal parts: choose another num_parts"
            )
        total = 0.0
        parts = zip(
            input_batch.chunk(self.num_parts), target_batch.chunk(self.num_parts)
        )
        for inputs, targets in parts:
            total += self.add_part(inputs, targets, model, device) / self.num_parts
        norm = nn.utils.clip_grad_norm_(model.parameters(), self.max_norm)
        self.loss, self.norm = total.item(), float(norm)
        if not math.isfinite(self.loss + self.norm):
            raise FloatingPointError(
                f"the loss is {self.loss} and the norm of the gradient is {self.norm}; "
                "both must be finite"
            )

    def add_part(self, inputs, targets, model, device):
        """Add the gradients of one part; return its loss."""
        with autocast(device, self.dtype):
            loss = calc_loss_batch(inputs, targets, model, device)
        (loss / self.num_parts).backward()
        return loss.detach()


def find_highest_gradient(model):
    """The largest number in all gradients of a model; None if it has none."""
    highest = [p.grad.max() for p in model.parameters() if p.grad is not None]
    return max(highest, default=None)


def train_model(
    model,
    train_loader,
    val_loader,
    optimizer,
    device,
    n_epochs,
    eval_freq,
    eval_iter,
    start_context,
    tokenizer,
    warmup_steps,
    initial_lr=3e-05,
    min_lr=1e-06,
    orig_book_version=False,
):
    """`train_model_simple` with warm-up, cosine decay and clipping (book, appendix D).

    The learning rate rises from initial_lr to that of the optimizer in warmup_steps,
    and then decays. As in the book, the step after the last would have min_lr.
    Gradients are clipped from the end of the warm-up on, or one step later
    (orig_book_version). Returns what `train_model_simple` returns, and the learning
    rate of every step.
    """
    check_whole(0, warmup_steps=warmup_steps)
    peak_lr, track_lrs = optimizer.param_groups[0]["lr"], []
    num_decay = n_epochs * len(train_loader) - warmup_steps
    add_clipped = ClippedGradients()

    def add_gradients(*batch):
        step = len(track_lrs)
        lr = initial_lr + (peak_lr - initial_lr) * step / max(1, warmup_steps)
        if step >= warmup_steps:
            lr = learning_rate_at(
                step - warmup_steps, num_decay + 1, peak_lr, 0, min_lr
            )
        track_lrs.append(lr)
        set_learning_rate(optimizer, lr)
        is_clipped = step >= warmup_steps + orig_book_version
        add_clipped.max_norm = 1.0 if is_clipped else math.inf
        add_clipped(*batch)

    run = model, train_loader, val_loader, optimizer, device, n_epochs
    how = eval_freq, eval_iter, start_context, tokenizer
    histories = train_model_simple(*run, *how, add_gradients=add_gradients)
    return *histories, track_lrs
