"""How long a step of training takes, by its parts (support: used, not taught).

One block is measured, and what stands before and behind all of them.
"""

import statistics
import time
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ch05.training import evaluating
from support.device.device import autocast
from support.device.self_test import seeding

NUM_RUNS = 3  # that a time is the median of, after one that does not count


class PassOn(nn.Module):
    """Stands in for a model's blocks: gradients flow on to it, as they do to them."""

    def forward(self, x):
        return x if x.requires_grad else x.detach().requires_grad_()


def timed(run, device):
    """Seconds that a function takes, its work on the device included."""
    synchronize, seconds = torch.get_device_module(device).synchronize, []
    for _ in range(1 + NUM_RUNS):
        start = time.perf_counter()
        run()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def seconds_of(module, compute, work):
    """Seconds that a part spends in a module: (training, evaluation, AdamW)."""
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)

    def output():
        with autocast(work.device, work.dtype):
            return compute()

    def train():
        optimizer.zero_grad()
        y = output()
        y.backward(torch.ones_like(y))

    training = timed(train, work.device)
    update = timed(optimizer.step, work.device)
    with evaluating(module), torch.no_grad():
        return training, timed(output, work.device), update


def measure_seconds(work):
    """Seconds of a Workload's step, and of an evaluation of such a batch."""
    num_texts, work = work.batch_size, work.sample()
    with seeding(torch.device(work.device)), work.dropout():
        rest, batch = work.build(n_layers=1).to(work.device), work.draw_batch()
        block, rest.trf_blocks = rest.trf_blocks[0], PassOn()
        through_block = partial(block, work.draw_hidden(rest))
        if work.is_checkpointed:
            through_block = partial(checkpoint, through_block, use_reentrant=False)
        of_block = seconds_of(block, through_block, work)
        loss = partial(work.calc_loss, *batch, rest, work.device)
        of_rest = seconds_of(rest, loss, work)
    training, evaluation, update = (
        work.cfg["n_layers"] * one + other for one, other in zip(of_block, of_rest)
    )
    num_passes = num_texts / work.batch_size
    return num_passes * training + update, num_passes * evaluation
