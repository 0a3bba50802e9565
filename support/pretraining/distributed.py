"""One process or many: what `torchrun` started (a support module: used, not taught).

A rank is the number of a process among world_size. With one process, all of this does
nothing.
"""

import os
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from ch05.recipe import ClippedGradients
from support.device.device import pick_device


def world_size():
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank():
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def joined():
    """Join the other processes that `torchrun` has started; yield this one's device.

    Each takes a GPU of its own where there are some, else all share the CPU.
    """
    if "WORLD_SIZE" not in os.environ:
        yield pick_device()
        return
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def spread(model, is_sharded):
    """Let the processes train one model together; returns what to train.

    Each holds all of it and gradients are averaged (DDP); or, is_sharded, each holds a
    part of every weight, gradient and moment, and a block's weights are put together
    when it computes (FSDP2).
    """
    if world_size() == 1:
        return model
    if not is_sharded:
        return DistributedDataParallel(model)
    device_type = next(model.parameters()).device.type
    mesh = init_device_mesh(device_type, (world_size(),))
    for block in model.trf_blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


class AveragedGradients(ClippedGradients):
    """Gradients that the processes average, in the last part of a batch only."""

    def __call__(self, input_batch, target_batch, model, device):
        self.num_added = 0
        super().__call__(input_batch, target_batch, model, device)

    def add_part(self, inputs, targets, model, device):
        self.num_added += 1
        is_last = self.num_added == self.num_parts
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(is_last)
        elif isinstance(model, DistributedDataParallel):
            model.require_backward_grad_sync = is_last
        return super().add_part(inputs, targets, model, device)


def mean_of_all(*numbers):
    """The mean over all processes of each of these numbers, as a list of floats."""
    if world_size() == 1:
        return list(numbers)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return (total / world_size()).tolist()


def from_all(what):
    """What each process gives, in every process: a list by rank."""
    if world_size() == 1:
        return [what]
    given = [None] * world_size()
    dist.all_gather_object(given, what)
    return given


def from_rank_0(number):
    """The whole number that rank 0 gives, in every process."""
    if world_size() == 1:
        return number
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    said = torch.tensor(number, device=device)
    dist.broadcast(said, src=0)
    return said.item()


def wait_for_all():
    """Go on when every process has come here."""
    if world_size() > 1:
        dist.barrier()
