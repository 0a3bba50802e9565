"""Fine-tune, keep and load an assistant (support: used, not taught).

`python -m support.apps.assistant` fine-tunes as notebook 7.6 does and keeps the result;
`python -m support.apps.chat` talks with it.
"""

if __name__ == "__main__":
    from support.commands import exit_on_interrupt

    exit_on_interrupt()  # before imports that take seconds

import argparse
import hashlib
import math
import time

import torch

from ch07.finetuning import calc_shared_loss, finetune, halve_frozen
from ch07.instructions import (
    DATA,
    InstructionDataset,
    create_instruction_loader,
    download_and_load_file,
    split_entries,
)
from ch07.lora import (
    adapter_parameters,
    load_adapter,
    merge_lora,
    replace_linear_with_lora,
    save_adapter,
)
from support.commands import clean_exit, positive
from support.device.device import fast_dtype, fast_math, pick_device
from support.download.fetch import FetchError
from support.messages import one_line, say
from support.paths import MODELS
from support.weights.checkpoint import open_saved
from support.weights.pretrained import load_pretrained
from support.weights.saving import check_can_save, save_or_fall_back, size_in_bytes

ASSISTANT = MODELS / "assistant.safetensors"
LORA = {"rank": 16, "alpha": 32}
ADAMW = {"lr": 1e-3, "weight_decay": 0.1}  # of AdamW
LORA_EPOCHS = 2
LORA_BATCH_SIZE = 16


def load_parts(seed=123):
    """The course's entries, split: (train, validation, test)."""
    return split_entries(download_and_load_file(DATA), seed)


def create_instruction_loaders(parts, tokenizer, max_length, seed=123):
    """A loader of batches for each part; only answers and their ends are targets."""
    settings = LORA_BATCH_SIZE, tokenizer.eot_token, seed
    return [
        create_instruction_loader(
            InstructionDataset(part, tokenizer, max_length, mask_prompt=True), *settings
        )
        for part in parts
    ]


def add_lora(model, seed=123):
    """Freeze a model and put LoRA layers, seeded, beside its linear ones.

    Where matrices are multiplied in bfloat16 anyway, the frozen model is kept in it.
    """
    torch.manual_seed(seed)
    model.requires_grad_(False)
    replace_linear_with_lora(model, **LORA)
    if fast_dtype(model.tok_emb.weight.device) == torch.bfloat16:
        halve_frozen(model)


def finetune_lora(model, train_loader, val_loader, device, num_epochs=LORA_EPOCHS):
    """Train a model's LoRA layers by AdamW; returns what `finetune` returns."""
    trained = adapter_parameters(model).values()
    optimizer = torch.optim.AdamW(trained, **ADAMW, fused=True)
    loaders = train_loader, val_loader
    num_evaluations = 4
    eval_freq = math.ceil(num_epochs * len(train_loader) / num_evaluations)
    run = (model, *loaders, optimizer, device, num_epochs, eval_freq)
    return finetune(*run, dtype=fast_dtype(device), calc_loss=calc_shared_loss)


def fingerprint(model):
    """A hash that tells pretrained models apart, whatever LoRA layers are beside them.

    It is of numbers from every matrix, in the bfloat16 that all of them can be kept in.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if ".lora." not in name:
            few = parameter.detach().flatten()[:64].to("cpu", torch.bfloat16)
            digest.update(few.float().numpy().tobytes())
    return digest.hexdigest()


def save_assistant(path, model, name, rank, alpha):
    """Write a model's LoRA layers, and by name and hash which model they belong to."""
    identity = {"pretrained": name, "fingerprint": fingerprint(model)}
    save_adapter(path, model, rank, alpha, **identity)


def load_assistant(path=ASSISTANT, device="cpu"):
    """Read what `save_assistant` wrote: (merged model, tokenizer).

    Raises FileNotFoundError if nothing was saved there; ValueError for a damaged file,
    and when the pretrained model is another than the one it was trained on.
    """
    file = open_saved(path)
    metadata = file.metadata()
    if not metadata.keys() >= {"pretrained", "fingerprint"}:
        raise ValueError(f"{path} holds something else than an assistant")
    name = metadata["pretrained"]
    pretrained = load_pretrained(name, device=device)
    model, tokenizer = pretrained.model, pretrained.tokenizer
    if fingerprint(model) != metadata["fingerprint"]:
        raise ValueError(
            f"{path} was trained on another {name} than the one that is here: "
            "train again, `python -m support.apps.assistant`"
        )
    load_adapter(file, model)
    merge_lora(model)
    return model.eval(), tokenizer


def finetuned_assistant(path, name, seed, num_train, num_epochs):
    """Fine-tune a pretrained model as 7.6 does, on num_train entries (None: all).

    Returns (model with its LoRA layers, the pretrained model's name, seconds). Raises
    OSError before it trains if path, where it is to be kept, cannot be written.
    """
    check_can_save(path)
    device = pick_device()
    fast_math(device)
    pretrained = load_pretrained(name, device=device)
    model, tokenizer = pretrained.model, pretrained.tokenizer
    train, validation, _ = load_parts()
    parts = train[:num_train], validation
    loaders = create_instruction_loaders(parts, tokenizer, model.context_length, seed)
    add_lora(model, seed)
    check_can_save(path, size_in_bytes(adapter_parameters(model).values()))
    start = time.perf_counter()
    finetune_lora(model, *loaders, device, num_epochs)
    return model, pretrained.name, time.perf_counter() - start


def train_assistant(
    path, name="auto", seed=123, num_train=None, num_epochs=LORA_EPOCHS
):
    """Fine-tune an assistant and save it to path; returns the seconds of training.

    `finetuned_assistant` returns the model itself. Raises OSError if it was saved to
    another folder, because path could not be written, and says which.
    """
    model, name, seconds = finetuned_assistant(path, name, seed, num_train, num_epochs)
    if not save_or_fall_back(
        path, lambda place: save_assistant(place, model, name, **LORA)
    ):
        raise OSError(f"the assistant is not in {path}, as said above")
    return seconds


def main():
    """`python -m support.apps.assistant`."""
    parser = argparse.ArgumentParser(
        prog="python -m support.apps.assistant",
        description="Fine-tune an assistant, keep it.",
    )
    parser.add_argument("--model", default="auto", help="a name of load_pretrained")
    parser.add_argument(
        "--seed",
        type=positive,
        default=123,
        help="of LoRA and the order of batches",
    )
    with clean_exit(ValueError, FetchError, FloatingPointError, OSError):
        arguments = parser.parse_args()
        seconds = train_assistant(ASSISTANT, arguments.model, arguments.seed)
        say(f"{seconds:.0f} s of training; wrote {one_line(ASSISTANT)}")


if __name__ == "__main__":
    main()
