"""Losses, evaluation and the training loop (chapter 5).

Shapes: b = batch; input_batch and target_batch are token ids, (b, num_tokens).
"""

import math
import time
from contextlib import closing, contextmanager
from itertools import islice

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from ch02.dataset import create_dataloader_v1
from ch04.gpt import generate_text_simple
from support.checks import check_number, check_whole


def text_to_token_ids(text, tokenizer):
    """Text to a batch of one: (1, num_tokens). `<|endoftext|>` counts as one token."""
    token_ids = tokenizer.encode(text, allowed_special={"<|endoftext|>"})
    return torch.tensor(token_ids, dtype=torch.long).unsqueeze(0)


def token_ids_to_text(token_ids, tokenizer):
    """A batch of one, (1, num_tokens), back to text."""
    return tokenizer.decode(token_ids.squeeze(0).tolist())


def create_train_val_loaders(txt, context_length, batch_size=2, train_ratio=0.9):
    """Loaders over the first train_ratio of a text, shuffled, and over the rest."""
    check_number(0, 1, train_ratio=train_ratio)
    split_idx = int(train_ratio * len(txt))
    sizes = {
        "batch_size": batch_size,
        "max_length": context_length,
        "stride": context_length,
    }
    train_loader = create_dataloader_v1(txt[:split_idx], **sizes)
    val_loader = create_dataloader_v1(
        txt[split_idx:], **sizes, shuffle=False, drop_last=False
    )
    return train_loader, val_loader


def calc_loss_batch(input_batch, target_batch, model, device):
    """Mean cross-entropy of the next tokens of a batch, in nats per token.

    Targets of -100 do not count: F.cross_entropy leaves them out.
    """
    input_batch, target_batch = input_batch.to(device), target_batch.to(device)
    logits = model(input_batch)  # (b, num_tokens, vocab_size)
    return F.cross_entropy(logits.flatten(0, 1), target_batch.flatten())


def count_targets(target_batch):
    """How many targets of a batch count in its loss."""
    return (target_batch != -100).sum().item()


def has_targets(data_loader, num_batches=None):
    """True if a target counts in one of the first num_batches of a loader."""
    batches = islice(data_loader, num_batches)
    return any(count_targets(target_batch) > 0 for _, target_batch in batches)


def calc_loss_loader(
    data_loader, model, device, num_batches=None, calc_loss=calc_loss_batch
):
    """Mean loss per token over the first num_batches of a loader (default: all).

    It is nan if the loader is empty or no target counts. calc_loss is called for each
    batch, as `calc_loss_batch` is.
    """
    total_loss, num_tokens = 0.0, 0
    for input_batch, target_batch in islice(data_loader, num_batches):
        num_targets = count_targets(target_batch)
        if num_targets == 0:  # the batch has no mean loss
            continue
        loss = calc_loss(input_batch, target_batch, model, device)
        total_loss += loss.detach() * num_targets
        num_tokens += num_targets
    return (total_loss / num_tokens).item() if num_tokens else math.nan


@contextmanager
def evaluating(model):
    """Switch dropout off in a `with` block, and back to what it was after it."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def evaluate_model(
    model, train_loader, val_loader, device, eval_iter, calc_loss=calc_loss_batch
):
    """(train loss, validation loss) over eval_iter batches each, without dropout.

    Raises FloatingPointError if one of them is not a finite number; its message tells a
    run that failed from a loader without targets.
    """
    losses = []
    for name, loader in (("training", train_loader), ("validation", val_loader)):
        with evaluating(model):
            loss = calc_loss_loader(loader, model, device, eval_iter, calc_loss)
        if not math.isfinite(loss):
            reason = "training failed; try a lower learning rate"
            if not has_targets(loader, eval_iter):
                reason = f"the loader is empty or no target counts ({eval_iter=})"
            raise FloatingPointError(f"the {name} loss is {loss}: {reason}")
        losses.append(loss)
    return tuple(losses)


def context_size_of(model, default):
    """How many tokens a model can look at, as far as it says so; else default."""
    if hasattr(model, "pos_emb"):  # it has one row for each position
        return model.pos_emb.weight.shape[0]
    return getattr(model, "context_length", default)


def generate_and_print_sample(model, tokenizer, device, start_context):
    """Print start_context and the 50 tokens that the model likes best after it."""
    idx = text_to_token_ids(start_context, tokenizer).to(device)
    context_size = context_size_of(model, default=idx.shape[1] + 50)
    with evaluating(model):
        token_ids = generate_text_simple(model, idx, 50, context_size)
    tqdm.write(token_ids_to_text(token_ids, tokenizer).replace("\n", " "))


def add_gradients(input_batch, target_batch, model, device):
    """Add the gradients of a batch's loss to those that the parameters have."""
    calc_loss_batch(input_batch, target_batch, model, device).backward()


def check_training(train_loader, num_epochs, eval_freq=1, eval_iter=None):
    """Raise ValueError if there is no batch, or for numbers that cannot be meant."""
    check_whole(0, num_epochs=num_epochs)
    check_whole(eval_freq=eval_freq, eval_iter=1 if eval_iter is None else eval_iter)
    if len(train_loader) == 0:
        raise ValueError("the loader is empty: there is no batch to train on")


def training_steps(
    model,
    train_loader,
    optimizer,
    device,
    num_epochs,
    unit="tokens",
    add_gradients=add_gradients,
):
    """Train for num_epochs; after each step yield the epoch and all targets so far.

    A progress bar counts the targets, in units of `unit`, per second of these steps.
    add_gradients is called for each batch, as the function of that name is.
    """
    check_training(train_loader, num_epochs)
    model.train()
    num_seen, seconds = 0, 0.0
    num_steps = num_epochs * len(train_loader)
    with tqdm(total=num_steps, unit="step", leave=False) as bar:
        for epoch in range(num_epochs):
            for input_batch, target_batch in train_loader:
                start = time.perf_counter()
                optimizer.zero_grad()
                add_gradients(input_batch, target_batch, model, device)
                optimizer.step()
                seconds += time.perf_counter() - start  # without the caller's time
                num_seen += count_targets(target_batch)
                speed = f"{num_seen / seconds:,.0f} {unit}/s"
                bar.set_postfix_str(speed, refresh=False)
                bar.update()
                yield epoch, num_seen


def train_model_simple(
    model,
    train_loader,
    val_loader,
    optimizer,
    device,
    num_epochs,
    eval_freq,
    eval_iter,
    start_context,
    tokenizer,
    add_gradients=add_gradients,
):
    """Train for num_epochs; every eval_freq steps evaluate on eval_iter batches.

    add_gradients is called for each batch, as the function of that name is. Returns
    three lists of one length: train losses, validation losses, tokens seen. Raises
    FloatingPointError as soon as an evaluation finds a loss that is not finite.
    """
    check_training(train_loader, num_epochs, eval_freq, eval_iter)
    train_losses, val_losses, track_tokens_seen = [], [], []
    loaders = train_loader, val_loader
    steps = training_steps(
        model, train_loader, optimizer, device, num_epochs, add_gradients=add_gradients
    )
    with closing(steps):  # and the progress bar with it, also after an error
        for global_step, (epoch, tokens_seen) in enumerate(steps):
            if global_step % eval_freq == 0:
                losses = evaluate_model(model, *loaders, device, eval_iter)
                train_losses.append(losses[0])
                val_losses.append(losses[1])
                track_tokens_seen.append(tokens_seen)
                tqdm.write(
                    f"Ep {epoch + 1} (Step {global_step:06d}): "
                    f"Train loss {losses[0]:.3f}, Val loss {losses[1]:.3f}"
                )
            if (global_step + 1) % len(train_loader) == 0:  # an epoch has ended
                generate_and_print_sample(model, tokenizer, device, start_context)
    return train_losses, val_losses, track_tokens_seen


def plot_losses(epochs_seen, tokens_seen, train_losses, val_losses, path=None):
    """Draw both losses over epochs and over tokens seen; save to path if given."""
    fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    ax.plot(epochs_seen, train_losses, label="training")
    ax.plot(epochs_seen, val_losses, linestyle="--", label="validation")
    ax.set(xlabel="epochs", ylabel="loss (nats per token)")
    ax.locator_params(axis="x", integer=True)  # whole epochs only
    ax.legend()
    above = ax.twiny()  # the same x axis, counted in tokens
    above.plot(tokens_seen, train_losses, alpha=0)
    above.set_xlabel("tokens seen")
    if path:
        fig.savefig(path, dpi=150)
