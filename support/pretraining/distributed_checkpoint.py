"""Weights and moments that several processes hold, gathered by name and put back."""

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def gather_weights(model):
    """All weights of a tied model by name, on rank 0's CPU; {} on the other ranks."""
    weights = get_model_state_dict(model, options=WHOLE)
    weights.pop("out_head.weight", None)  # it is the token embedding
    return weights


def gather_state(model, optimizer):
    """All weights and moments of a tied model by name, as `gather_weights` does."""
    return flatten(*get_state_dict(model, optimizer, options=WHOLE))


def flatten(weights, moments):
    """State dicts of a tied model and of its optimizer as one dict of tensors."""
    tensors = {f"model.{name}": tensor for name, tensor in weights.items()}
    tensors.pop("model.out_head.weight", None)
    for name, state in moments.get("state", {}).items():
        tensors |= {f"optimizer.{name}.{key}": value for key, value in state.items()}
    return tensors


@torch.no_grad()
def load_state(reader, model, optimizer):
    """Fill a tied model and its optimizer with the tensors of a SafetensorsReader."""
    weights, moments = get_state_dict(model, optimizer)
    for name, tensor in flatten(weights, moments).items():
        whole = reader(name).to(tensor.device)
        if isinstance(tensor, DTensor):  # each process takes its shard
            whole = distribute_tensor(
                whole, tensor.device_mesh, tensor.placements, src_data_rank=None
            )
        tensor.copy_(whole)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)
