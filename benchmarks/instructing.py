"""Instruction fine-tuning beside the book's way: `python -m benchmarks.instructing`.

First the peaks of memory of a 355M model with random weights, each in a process of its
own, over the longest batches of the course's instructions. Then both fine-tune
SmolLM2-135M on them for one epoch, and are compared by the same loss, that of the
validation part's answers. The book's way is its own package's: its Llama with the same
weights, its batches and its loop, which evaluates every five steps. Ours is notebook
7.6's, with twice its learning rate, since one epoch has to do.

It needs the package, without those that it asks for: `pip install --no-deps
llms-from-scratch==1.0.19`. About half an hour on two cores.
"""

import argparse
import math
import resource
import subprocess
import sys
import time
from functools import partial
from unittest.mock import patch

import torch
from llms_from_scratch import appendix_e, ch04
from llms_from_scratch import ch05 as book_ch05
from llms_from_scratch import ch07 as book
from torch.utils.data import DataLoader

from benchmarks.classifying import MEDIUM, as_the_books
from ch02.tokenizer import get_tokenizer
from ch05.training import add_gradients, calc_loss_loader, evaluating
from ch07.finetuning import (
    add_answer_gradients,
    calc_shared_prefix_loss,
    checkpoint_blocks,
    finetune,
)
from ch07.instructions import InstructionDataset, create_instruction_loader
from ch07.lora import adapter_parameters
from support.apps.assistant import (
    LORA,
    add_lora,
    create_instruction_loaders,
    load_split_entries,
)
from support.apps.finetuning_plans import PLANS, create_workload
from support.device.device import fast_dtype, fast_math
from support.pretraining.memory import count_bytes, needed_bytes
from support.weights.checkpoint import build_model
from support.weights.pretrained import load_pretrained

NAME = "smollm2-135M"
BOOK_BATCH_SIZE = 8  # the book's in chapter 7; memory is measured at it for both ways
NUM_STEPS = 4  # of the longest batches, while memory is measured
MEMORY_RUNS = {
    "book, all parameters": "book_full",
    "book, LoRA": "book_lora",
} | {f"ours, {plan}": plan for plan in PLANS}


def answer_loss(model, loader):
    """The loss of answers, by the same function for both ways, in float32."""
    model.float()  # ours keeps its frozen weights in bfloat16
    with evaluating(model), torch.no_grad():
        return calc_loss_loader(loader, model, "cpu")


def book_loaders(parts, tokenizer):
    """The book's datasets and loaders."""
    pad_token_id = tokenizer.eot_token
    collate_fn = partial(book.custom_collate_fn, pad_token_id=pad_token_id)
    return [
        DataLoader(
            book.InstructionDataset(part, tokenizer),
            BOOK_BATCH_SIZE,
            shuffle=i == 0,
            drop_last=i == 0,
            collate_fn=collate_fn,
        )
        for i, part in enumerate(parts)
    ]


def measure_book(parts, val_loader):
    """Seconds of the book's epoch, evaluations included, and the loss after it."""
    pretrained = load_pretrained(NAME)
    model, tokenizer = as_the_books(pretrained), pretrained.tokenizer
    train, validation = book_loaders(parts[:2], tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.1)
    context = book.format_input(parts[1][0])
    torch.manual_seed(123)
    start = time.perf_counter()
    # its sample at an epoch's end asks for positions that its own Llama does not have
    with patch.object(book_ch05, "generate_and_print_sample"):
        book_ch05.train_model_simple(
            model, train, validation, optimizer, "cpu", 1, 5, 5, context, tokenizer
        )
    seconds = time.perf_counter() - start
    return seconds, answer_loss(model, val_loader)


def measure_ours(parts):
    """Seconds of our epoch, loss before and after it, and the validation's loader."""
    pretrained = load_pretrained(NAME)
    model, tokenizer = pretrained.model, pretrained.tokenizer
    loaders = create_instruction_loaders(parts[:2], tokenizer, model.context_length)
    before = answer_loss(model, loaders[1])
    add_lora(model)
    optimizer = torch.optim.AdamW(
        adapter_parameters(model).values(), lr=2e-3, weight_decay=0.1, fused=True
    )
    settings = {"dtype": fast_dtype("cpu"), "calc_loss": calc_shared_prefix_loss}
    eval_freq = math.ceil(len(loaders[0]) / 2)
    start = time.perf_counter()
    finetune(model, *loaders, optimizer, "cpu", 1, eval_freq, **settings)
    seconds = time.perf_counter() - start
    return seconds, before, answer_loss(model, loaders[1]), loaders[1]


def longest_batches(parts, tokenizer):
    """The batches of the training part with the most tokens."""
    context_length = MEDIUM["context_length"]
    dataset = InstructionDataset(parts[0], tokenizer, context_length, mask_prompt=True)
    sizes = BOOK_BATCH_SIZE, tokenizer.eot_token
    train = create_instruction_loader(dataset, *sizes)
    return sorted(train, key=lambda batch: -batch[0].shape[1])[:NUM_STEPS]


def create_355m(run):
    """A 355M model with random weights, prepared, and what adds its gradients."""
    torch.manual_seed(123)
    if run.startswith("book"):
        model = ch04.GPTModel(MEDIUM)
        if run == "book_lora":
            model.requires_grad_(False)
            appendix_e.replace_linear_with_lora(model, **LORA)
        return model, add_gradients
    fast_math("cpu")
    model = build_model(MEDIUM)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    model.out_head.weight = model.tok_emb.weight
    plan = PLANS[run]
    if "prepare" in plan:
        plan["prepare"](model)
    if "is_checkpointed" in plan:
        checkpoint_blocks(model)
    return model, partial(add_answer_gradients, dtype=fast_dtype("cpu"))


def measure_memory(run):
    """Print the peak of this process in GB and the seconds of a step."""
    parts = load_split_entries()
    batches = longest_batches(parts, get_tokenizer("gpt2"))
    model, add = create_355m(run)
    trained = [p for p in model.parameters() if p.requires_grad]
    settings = {} if run.startswith("book") else {"fused": True}
    optimizer = torch.optim.AdamW(trained, lr=1e-5, **settings)
    start = time.perf_counter()
    for inputs, targets in batches:
        optimizer.zero_grad()
        add(inputs, targets, model, "cpu")
        optimizer.step()
    seconds = (time.perf_counter() - start) / len(batches)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{peak:.2f} GB at most, {seconds:.1f} s a step")


def compare_memory(parts):
    """Measure each of MEMORY_RUNS in a process of its own, beside its forecast."""
    inputs, targets = longest_batches(parts, get_tokenizer("gpt2"))[0]
    num_targets = (targets != -100).sum().item()
    print(f"355M, random weights, batches of up to {tuple(inputs.shape)} tokens:")
    for title, run in MEMORY_RUNS.items():
        command = [sys.executable, "-m", "benchmarks.instructing", "--memory", run]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        said = found.stdout.strip()
        if not run.startswith("book"):
            sizes = MEDIUM, *inputs.shape, num_targets, fast_dtype("cpu")
            work = create_workload(PLANS[run], *sizes)
            needed = needed_bytes(work, count_bytes(work)) / 1e9
            said += f" (forecast {needed:.2f} GB above the interpreter's)"
        print(f"  {title:45} {said}", flush=True)


def compare_speed(parts):
    """Measure an epoch of each way, ours first, and the losses after it."""
    print(f"{len(parts[0])} entries, {torch.get_num_threads()} threads")
    precision = torch.get_float32_matmul_precision()
    fast_math("cpu")
    our_seconds, before, our_loss, val_loader = measure_ours(parts)
    print(f"validation loss of the answers before: {before:.3f}")
    print(f"ours: {our_seconds:.0f} s, loss {our_loss:.3f}", flush=True)
    torch.set_float32_matmul_precision(precision)
    book_seconds, book_loss = measure_book(parts, val_loader)
    print(f"the book: {book_seconds:.0f} s, loss {book_loss:.3f}")
    print(f"book / ours: {book_seconds / our_seconds:.1f} times the seconds")


def main():
    """Compare the peaks of memory, then one epoch of each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--memory", metavar="RUN", help="measure this run's peak only")
    run = parser.parse_args().memory
    if run:
        measure_memory(run)
        return
    parts = load_split_entries()
    compare_memory(parts)
    compare_speed(parts)


if __name__ == "__main__":
    main()
