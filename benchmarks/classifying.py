"""The spam classifier beside the book's way: `python -m benchmarks.classifying`.

Both fine-tune the last block of SmolLM2-135M, its norm and a new head on the same
messages for five epochs, and answer the test part. The book's way runs functions of its
own package, on its own Llama with the same weights: all messages padded to 120 tokens,
all blocks at every step, the answer read at the last place. That takes half an hour or
more; by default it trains on a part of the messages: its time is scaled up, its
accuracy unknown. `--full` runs it whole. It needs the package, without those that it
asks for: `pip install --no-deps llms-from-scratch==1.0.19`. `--memory` measures, in
two minutes, the peak of memory of our way with a 355M model of random weights instead.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch
from llms_from_scratch import ch06 as book
from llms_from_scratch.llama3 import Llama3Model
from torch.utils.data import DataLoader

from ch02.tokenizer import get_tokenizer
from ch04.gpt import GPT_CONFIG_124M
from ch05.openai_weights import MODEL_CONFIGS
from ch06.baselines import wilson_interval
from ch06.classifier import Classifier, calc_accuracy_loader
from ch06.spam import load_messages, split_messages
from support.apps.spam_filter import (
    BATCH_SIZE,
    NUM_EPOCHS,
    create_classifier,
    create_loaders,
    train_head,
)
from support.device.device import fast_math
from support.weights.checkpoint import build_model
from support.weights.pretrained import load_pretrained

NAME = "smollm2-135M"
MAX_LENGTH = 120  # tokens to which the book pads
SEEDS = (1, 2, 3)
MEDIUM = (
    GPT_CONFIG_124M
    | MODEL_CONFIGS["gpt2-medium (355M)"]
    | {"qkv_bias": True, "drop_rate": 0.0}
)
PART = 48  # messages that stand for all, unless `--full`


def half_turns(weight, head_dim):
    """Rows of a query or key weight in the book's order of rotary pairs.

    Ours turns neighbours, (0, 1), (2, 3); the book's turns the halves of a head.
    """
    pairs = weight.unflatten(0, (-1, head_dim // 2, 2))
    return pairs.transpose(1, 2).flatten(0, 2)


@torch.no_grad()
def as_the_books(pretrained):
    """The book's Llama with our model's weights."""
    cfg = pretrained.config | {"rope_freq": None, "dtype": torch.float32}
    theirs = Llama3Model(cfg)
    ours = pretrained.model
    theirs.tok_emb.weight.copy_(ours.tok_emb.weight)
    theirs.out_head.weight.copy_(ours.out_head.weight)
    theirs.final_norm.weight.copy_(ours.final_norm.scale)
    for their, our in zip(theirs.trf_blocks, ours.trf_blocks):
        their.norm1.weight.copy_(our.norm1.scale)
        their.norm2.weight.copy_(our.norm2.scale)
        for name in ("W_query", "W_key"):
            weight = half_turns(getattr(our.att, name).weight, our.att.head_dim)
            getattr(their.att, name).weight.copy_(weight)
        their.att.W_value.weight.copy_(our.att.W_value.weight)
        their.att.out_proj.weight.copy_(our.att.out_proj.weight)
        their.ff.fc1.weight.copy_(our.ff.gate.weight)
        their.ff.fc2.weight.copy_(our.ff.up.weight)
        their.ff.fc3.weight.copy_(our.ff.down.weight)
    idx = torch.tensor([[504, 3575, 282, 4649, 314]])
    torch.testing.assert_close(theirs(idx), ours(idx), rtol=1e-3, atol=1e-3)
    return theirs


def prepare_the_books(model):
    """Freeze all but the last block, the norm and a new head, as the book does."""
    torch.manual_seed(123)
    model.requires_grad_(False)
    model.out_head = torch.nn.Linear(model.cfg["emb_dim"], 2)
    for trained in (model.trf_blocks[-1], model.final_norm):
        trained.requires_grad_(True)
    return model


def book_loader(part, tokenizer, shuffle):
    """The book's dataset and loader over a table of messages."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.csv"
        part.to_csv(path, index=False)
        dataset = book.SpamDataset(path, tokenizer, MAX_LENGTH, tokenizer.eot_token)
    return DataLoader(dataset, BATCH_SIZE, shuffle, drop_last=shuffle)


def measure_book(parts, is_full):
    """Seconds of the book's way, training and test, and its test accuracy or None."""
    pretrained = load_pretrained(NAME)
    model = prepare_the_books(as_the_books(pretrained))
    used = parts if is_full else [part.sample(PART, random_state=1) for part in parts]
    loaders = [
        book_loader(part, pretrained.tokenizer, shuffle=i == 0)
        for i, part in enumerate(used)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.1)
    start = time.perf_counter()
    if is_full:
        run = (model, *loaders[:2], optimizer, "cpu", NUM_EPOCHS)
        book.train_classifier_simple(*run, eval_freq=50, eval_iter=5)
    else:
        train_one_epoch(model, loaders[0], optimizer)
    middle = time.perf_counter()
    accuracy = book.calc_accuracy_loader(loaders[2], model, "cpu")
    end = time.perf_counter()
    if is_full:
        return end - start, accuracy
    train_scale = NUM_EPOCHS * len(parts[0]) / len(used[0])
    test_scale = len(parts[2]) / len(used[2])
    return train_scale * (middle - start) + test_scale * (end - middle), None


def train_one_epoch(model, loader, optimizer):
    """The steps of the book's loop, without its evaluations on the way."""
    model.train()
    for inputs, labels in loader:
        optimizer.zero_grad()
        book.calc_loss_batch(inputs, labels, model, "cpu").backward()
        optimizer.step()


def measure_ours(parts):
    """Seconds of our way, trunk and evaluations included, and test accuracies."""
    seconds, accuracies = [], []
    for seed in SEEDS:
        pretrained = load_pretrained(NAME)
        classifier = create_classifier(pretrained, seed=seed)
        start = time.perf_counter()
        loaders = create_loaders(classifier, pretrained.tokenizer, parts, "cpu")
        train, validation, test = loaders
        train.batch_sampler.generator.manual_seed(seed)
        train_head(classifier.head, train, validation, "cpu")
        accuracies.append(calc_accuracy_loader(test, classifier.head, "cpu"))
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2], accuracies


def measure_memory(parts):
    """The GB that this process takes at most: the trunk, one epoch of the head."""
    torch.manual_seed(123)
    model = build_model(MEDIUM)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    tokenizer = get_tokenizer("gpt2")
    classifier = Classifier(model, tokenizer.eot_token)
    train, validation, _ = create_loaders(classifier, tokenizer, parts, "cpu")
    train_head(classifier.head, train, validation, "cpu", num_epochs=1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main():
    """Measure both; the book's also with float32 as `fast_math` sets it, if it does."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="run the book's way whole")
    parser.add_argument("--memory", action="store_true", help="measure memory only")
    arguments = parser.parse_args()
    is_full, parts = arguments.full, split_messages(load_messages())[:3]
    if arguments.memory:
        fast_math("cpu")
        print(f"355M, random weights: {measure_memory(parts):.2f} GB at most")
        return
    print(
        f"{[len(part) for part in parts]} messages, {torch.get_num_threads()} threads"
    )
    book_seconds, book_accuracy = measure_book(parts, is_full)
    how = f"accuracy {book_accuracy:.3f}" if is_full else f"scaled from {PART} messages"
    print(f'the book, precision "highest": {book_seconds:,.0f} s, {how}')
    fast_math("cpu")
    precision = torch.get_float32_matmul_precision()
    if precision != "highest" and not is_full:
        faster, _ = measure_book(parts, is_full)
        print(f'the book, precision "{precision}": {faster:,.0f} s, {how}')
        print("  (it does not set that itself)")
    our_seconds, accuracies = measure_ours(parts)
    mean = sum(accuracies) / len(accuracies)
    low, high = wilson_interval(round(mean * len(parts[2])), len(parts[2]))
    each = ", ".join(f"{accuracy:.3f}" for accuracy in accuracies)
    print(f"ours: {our_seconds:.0f} s, accuracy {mean:.3f} [{low:.3f}, {high:.3f}]")
    print(f"  seeds {SEEDS}: {each}")
    print(f"book / ours: {book_seconds / our_seconds:.1f} times the seconds")


if __name__ == "__main__":
    main()
