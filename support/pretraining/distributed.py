"""One process or several: what `torchrun` started.

The rank is the number of a process among world_size processes. With one process, these
functions do nothing.
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
def process_group():
    """Join the processes that `torchrun` has started; yield the device of this one.

    Each process takes its own GPU if there are GPUs; otherwise all share the CPU.
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


def parallelize(model, is_sharded):
    """Wrap a model so that the processes train it together; returns what to train.

    Each process holds the whole model, and gradients are averaged (DDP). If is_sharded,
    each holds a shard of every weight, gradient and moment, and the weights of a block
    are gathered when it computes (FSDP2).
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
    """Gradients that the processes average, once for all parts of a batch."""

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


def all_reduce_mean(*numbers):
    """The mean of each of these numbers over all processes, as a list of floats."""
    if world_size() == 1:
        return list(numbers)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return (total / world_size()).tolist()


def broadcast(value):
    """The value that rank 0 gives, in every process."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]
