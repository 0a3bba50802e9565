"""Training that takes hours: its start, its rate, its order and its limits (5.2).

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


@torch.no_grad()
def initialize(model):
    """Give a GPTModel the start that GPT-2 had (Radford et al. 2019, 2.3).

    Normal numbers of standard deviation 0.02, or 0.01 for the positions, as OpenAI's
    code has it; biases of 0; the token embedding as output layer. The layers whose
    outputs are added to the residual stream, two in each block, start smaller by the
    root of their number, so that the growth of the stream does not depend on how many
    blocks there are.
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
    """Parameter groups for AdamW: matrices decay; biases, scales and shifts do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.dim() >= 2]  # embeddings, too
    vectors = [p for p in parameters if p.dim() < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def learning_rate_at(step, num_steps, peak_lr, warmup_share=0.1, min_lr=0.0):
    """A straight line up to peak_lr, then half a cosine to min_lr at the last step."""
    num_warmup = math.ceil(warmup_share * num_steps)
    if step < num_warmup:
        return peak_lr * (step + 1) / num_warmup
    left = (num_steps - 1 - step) / max(1, num_steps - 1 - num_warmup)  # 1 to 0
    return min_lr + (peak_lr - min_lr) * (1 - math.cos(math.pi * left)) / 2


def set_learning_rate(optimizer, lr):
    """Let the optimizer's next step be taken at this rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def seed_for(*numbers):
    """One seed for several numbers; near numbers get seeds that are not near."""
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # 63 bits


class StepBatches:
    """The batches of a run from step `start` on; each depends on seed and step alone.

    dataset[i] is (input_ids, target_ids). Every pass over it has an order of its own;
    what is left over at its end is dropped. Before a batch is handed out, the random
    numbers of its step are seeded. Of world_size processes, each takes its own share of
    every batch. Raises ValueError for sizes that do not divide.
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
        """Which windows the batch of a step consists of, (batch_size,)."""
        epoch, place = divmod(step, len(self.dataset) // self.batch_size)
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed(seed_for(self.seed, epoch))
            self.order = torch.randperm(len(self.dataset), generator=generator)
            self.epoch = epoch
        return self.order[place * self.batch_size : (place + 1) * self.batch_size]

    def __iter__(self):
        for step in range(self.start, self.num_steps):
            mine = self.indices(step).chunk(self.world_size)[self.rank].tolist()
            torch.manual_seed(seed_for(self.seed, step, self.rank))  # for dropout
            yield default_collate([self.dataset[i] for i in mine])


class ClippedGradients:
    """What `add_gradients` does, part by part, and not longer than max_norm in all.

    A batch is cut into num_parts equal parts; without dropout, the sum is the whole
    batch's gradient, in the memory of one part. dtype: what matrix products are
    computed in. `loss` and `norm`, before it was clipped, are those of the last batch.
    Raises FloatingPointError, before any weight has changed, if they are not finite.
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
                f"a batch of {len(input_batch)} has no {self.num_parts} equal parts"
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
                f"the loss is {self.loss} and the gradient's length {self.norm}"
            )

    def add_part(self, inputs, targets, model, device):
        """Add the gradients of one part; returns its loss."""
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

    The learning rate rises from initial_lr to the optimizer's own in warmup_steps, then
    falls; min_lr, as in the book, would be that of the step after the last. Gradients
    are clipped from the end of the warm-up on, or one step later (orig_book_version).
    Returns what `train_model_simple` returns, and the learning rate of every step.
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
