"""Train, save and load an assistant that follows instructions.

`python -m support.apps.assistant` fine-tunes it as notebook 7.6 does, and
`python -m support.apps.chat` talks with it.
"""

if __name__ == "__main__":
    from support.commands import exit_on_interrupt

    exit_on_interrupt()  # before imports that take seconds

import argparse
import math
from functools import partial
from pathlib import Path

import torch

from ch07.finetuning import calc_shared_prefix_loss, finetune
from ch07.instructions import (
    DATA,
    InstructionDataset,
    create_instruction_loader,
    download_and_load_file,
    split_entries,
)
from ch07.lora import adapter_parameters, load_adapter, merge_lora, save_adapter
from support.apps.finetuning_plans import freeze_and_add_lora
from support.apps.train_and_save import (
    check_fingerprint,
    fingerprint,
    run_training_command,
    train_and_save,
)
from support.device.device import fast_dtype
from support.paths import MODELS
from support.weights.checkpoint import open_saved
from support.weights.pretrained import load_pretrained
from support.weights.saving import locate_model

COMMAND = "python -m support.apps.assistant"
ASSISTANT = MODELS / "assistant.safetensors"
LORA = {"rank": 16, "alpha": 32}
ADAMW = {"lr": 1e-3, "weight_decay": 0.1}
NUM_EPOCHS = 2
BATCH_SIZE = 16
NUM_EVALUATIONS = 4


def load_split_entries(seed=123):
    """The course's entries, split: (train, validation, test)."""
    return split_entries(download_and_load_file(DATA), seed)


def create_instruction_loaders(parts, tokenizer, max_length, seed=123):
    """A loader for each list of entries; only answers and their ends are targets."""
    settings = BATCH_SIZE, tokenizer.eot_token, seed
    datasets = [
        InstructionDataset(part, tokenizer, max_length, mask_prompt=True)
        for part in parts
    ]
    return [create_instruction_loader(d, *settings) for d in datasets]


def add_lora(model, seed=123):
    """Freeze a model and add LoRA layers with seeded weights to its linear layers.

    The frozen parameters become bfloat16 if matrices are multiplied in bfloat16 anyway.
    """
    torch.manual_seed(seed)
    is_halved = fast_dtype(model.tok_emb.weight.device) == torch.bfloat16
    freeze_and_add_lora(model, **LORA, is_halved=is_halved)


def save_assistant(path, model, name, rank, alpha):
    """Write a model's LoRA layers, and the name and hash of its pretrained model."""
    identity = {"pretrained": name, "fingerprint": fingerprint(model)}
    save_adapter(path, model, rank, alpha, **identity)


def load_assistant(path=ASSISTANT, device="cpu"):
    """Read what `save_assistant` wrote: (merged model, tokenizer).

    Raises FileNotFoundError if the file does not exist, and ValueError if it is damaged
    or was trained on another pretrained model.
    """
    file = open_saved(locate_model(Path(path)))
    name = file.metadata().get("pretrained")
    if name is None:
        raise ValueError(
            f"{path} is not an assistant's file: it does not name a pretrained model. "
            f"Move it away, and run `{COMMAND}`"
        )
    pretrained = load_pretrained(name, device=device)
    check_fingerprint(file, pretrained.model, name, COMMAND)
    load_adapter(file, pretrained.model)
    merge_lora(pretrained.model)
    return pretrained.model.eval(), pretrained.tokenizer


def train_assistant(path, name="auto", seed=123, num_train=None, num_epochs=NUM_EPOCHS):
    """Fine-tune an assistant on num_train entries (None: all), as notebook 7.6 does.

    Returns and raises what `train_and_save` does.
    """

    def adapt(pretrained):
        add_lora(pretrained.model, seed)
        return pretrained.model

    def train(model, tokenizer, device):
        entries, validation, _ = load_split_entries()
        parts, longest = (entries[:num_train], validation), model.context_length
        loaders = create_instruction_loaders(parts, tokenizer, longest, seed)
        lora = adapter_parameters(model).values()
        optimizer = torch.optim.AdamW(lora, **ADAMW, fused=True)
        eval_freq = math.ceil(num_epochs * len(loaders[0]) / NUM_EVALUATIONS)
        run = model, *loaders, optimizer, device, num_epochs, eval_freq
        finetune(*run, dtype=fast_dtype(device), calc_loss=calc_shared_prefix_loss)

    save = partial(save_assistant, **LORA)
    return train_and_save(path, name, adapt, train, save)


def main():
    """Read the command line and train an assistant."""
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Fine-tune an assistant and save it.",
        epilog="Use it with `python -m support.apps.chat`.",
    )
    run_training_command(parser, ASSISTANT, train_assistant)


if __name__ == "__main__":
    main()
