"""Weights and moments that are spread over processes, to files and back (support).

Each process writes what it holds, as safetensors files; any number of processes can
read them (torch.distributed.checkpoint).
"""

import warnings
from contextlib import contextmanager

import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)

FILE_BYTES = 256_000_000  # a file is put together in memory before it is written


def flat_tensors(weights, moments):
    """All tensors by name. The output layer is left out: it is the token embedding."""
    tensors = {f"model.{name}": tensor for name, tensor in weights.items()}
    del tensors["model.out_head.weight"]
    for name, state in moments["state"].items():
        tensors |= {f"optimizer.{name}.{key}": value for key, value in state.items()}
    return tensors


def number_files(tensors):
    """The number of the file, from 1, that each tensor goes to: about equal sizes."""
    numbers, size = {}, 0
    for name, tensor in tensors.items():
        numbers[name] = size // FILE_BYTES
        size += tensor.numel() * tensor.element_size()
    ordered = sorted(set(numbers.values()))  # a large tensor skips numbers
    return {name: 1 + ordered.index(number) for name, number in numbers.items()}


def save_state(folder, model, optimizer):
    """Write this process's part of a tied model and its optimizer.

    Raises OSError, in each process, if one of them cannot write.
    """
    tensors = flat_tensors(*get_state_dict(model, optimizer))
    writer = HuggingFaceStorageWriter(
        str(folder), number_files(tensors), save_distributed=True
    )
    try:
        with quiet_if_alone():
            dcp.save(tensors, storage_writer=writer)
    except CheckpointException as error:
        (reason, _), *_ = error.failures.values()  # of the first rank that failed
        if not isinstance(reason, Exception):
            raise reason from None  # Ctrl-C
        raise OSError(str(reason)) from None


def optimizer_steps(folder):
    """How many steps AdamW has taken, as what `save_state` wrote has it: a set."""
    taken = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.endswith(".step")]  # noqa: SIM118
            taken |= {int(file.get_tensor(name)) for name in names}
    return taken


def load_state(folder, model, optimizer):
    """Fill a tied model and its optimizer with what `save_state` wrote.

    Raises ValueError if that was of another model.
    """
    weights, moments = get_state_dict(model, optimizer)
    tensors = flat_tensors(weights, moments)
    reader = HuggingFaceStorageReader(str(folder))
    saved = reader.read_metadata().state_dict_metadata
    if more := sorted(saved.keys() - tensors.keys()):
        raise ValueError(f"{folder} is of another model: it holds {more[0]} as well")
    try:
        with quiet_if_alone():  # in place, tensor by tensor
            dcp.load(tensors, storage_reader=reader)
    except CheckpointException as error:
        (reason, _), *_ = error.failures.values()
        raise ValueError(f"{folder} is of another model: {reason}") from None
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)


def whole_weights(model):
    """All weights of a model by name, put together on rank 0's CPU."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_model_state_dict(model, options=options)


@contextmanager
def quiet_if_alone():
    """Without the warning that there is one process only, which is no mistake."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield
