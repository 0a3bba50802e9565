"""Fine-tuning on answers, and ways to use less memory (7.5, 7.6).

Shapes: b = batch; input_batch and target_batch are token ids, (b, num_tokens). Targets
of -100 are ignored.
"""

from contextlib import closing, contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from tqdm.auto import tqdm

from ch05.kv_cache import forward_cached
from ch05.recipe import learning_rate_at, set_learning_rate
from ch05.training import check_training, count_targets, evaluate_model, training_steps
from support.device.device import autocast


@contextmanager
def only_at_targets(model, target_batch):
    """In a `with` block, compute logits only at targets: (num_targets, vocab_size).

    The output layer, a fifth to a third of a small model's work, then skips prompts and
    padding.
    """

    def keep_targets(out_head, inputs):
        return inputs[0][target_batch != -100]  # (num_targets, emb_dim)

    handle = model.out_head.register_forward_pre_hook(keep_targets)
    try:
        yield
    finally:
        handle.remove()


def calc_answer_loss(input_batch, target_batch, model, device):
    """The same loss as `calc_loss_batch`, with logits computed only at targets."""
    inputs, targets = input_batch.to(device), target_batch.to(device)
    with only_at_targets(model, targets):
        logits = model(inputs)  # (num_targets, vocab_size)
    return F.cross_entropy(logits, targets[targets != -100])


def add_answer_gradients(
    input_batch,
    target_batch,
    model,
    device,
    num_parts=1,
    dtype=torch.float32,
    calc_loss=calc_answer_loss,
):
    """The same gradients as `add_gradients`, but in parts and with logits at targets.

    Each part is weighted by its number of targets, so that the sum is the gradient of
    the whole batch. dtype: that of matrix multiplications, float32 or bfloat16.
    """
    num_targets = count_targets(target_batch)
    for inputs, targets in zip(
        input_batch.chunk(num_parts), target_batch.chunk(num_parts)
    ):
        share = count_targets(targets) / num_targets
        if share == 0:
            continue
        with autocast(device, dtype):
            loss = calc_loss(inputs, targets, model, device)
        (share * loss).backward()


def finetune(
    model,
    train_loader,
    val_loader,
    optimizer,
    device,
    num_epochs,
    eval_freq,
    dtype=torch.float32,
    calc_loss=calc_answer_loss,
    num_parts=1,
):
    """Train with warm-up and cosine decay; evaluate every eval_freq steps.

    Each evaluation computes the loss of all batches of val_loader, and of the same
    number of batches of train_loader. dtype: that of matrix multiplications. calc_loss:
    the loss for training and evaluation. num_parts: how many parts a batch is split
    into. Returns three lists of the same length: training losses, validation losses,
    and the number of steps before each evaluation.
    """
    for loader in (train_loader, val_loader):
        check_training(loader, num_epochs, eval_freq)
    num_steps = num_epochs * len(train_loader)
    peak_lr = optimizer.param_groups[0]["lr"]
    train_losses, val_losses, track_steps = [], [], []
    set_learning_rate(optimizer, learning_rate_at(0, num_steps, peak_lr))
    add = partial(
        add_answer_gradients, num_parts=num_parts, dtype=dtype, calc_loss=calc_loss
    )
    loaders, eval_iter = (train_loader, val_loader), len(val_loader)
    run = model, train_loader, optimizer, device, num_epochs
    with closing(training_steps(*run, add_gradients=add)) as steps:
        for step, _ in enumerate(steps, 1):
            if step % eval_freq == 0 or step == num_steps:
                how = device, eval_iter, calc_loss
                with autocast(device, dtype):
                    losses = evaluate_model(model, *loaders, *how)
                train_losses.append(losses[0])
                val_losses.append(losses[1])
                track_steps.append(step)
                shown = f"Train loss {losses[0]:.3f}, Val loss {losses[1]:.3f}"
                tqdm.write(f"Step {step:4}: {shown}")
            if step < num_steps:
                lr = learning_rate_at(step, num_steps, peak_lr)
                set_learning_rate(optimizer, lr)
    return train_losses, val_losses, track_steps


class SharedPrefix:
    """Keys and values of the prefix that all rows of a batch share (a KVCache)."""

    def __init__(self):
        self.num_tokens = 0  # of the prefix, when all blocks have stored it
        self.store = []  # a pair per block, each (1, n_kv_heads, num_tokens, head_dim)

    def append(self, layer, keys, values):
        """Store a block's first keys and values; put them before all later ones."""
        if self.num_tokens == 0:
            self.store.append((keys, values))
            return keys, values
        start = (kept.expand(len(keys), -1, -1, -1) for kept in self.store[layer])
        return [torch.cat(pair, dim=2) for pair in zip(start, (keys, values))]


def count_shared_prefix(input_batch, target_batch):
    """The length of the prefix that all rows share, at most up to the first target."""
    is_shared = (input_batch == input_batch[0]) & (target_batch == -100)
    return is_shared.all(dim=0).int().cumprod(dim=0).sum().item()


def calc_shared_prefix_loss(input_batch, target_batch, model, device):
    """The same loss as `calc_answer_loss`; a shared prefix is computed only once.

    The prefix gets the gradients of all rows. Without dropout.
    """
    num_shared = count_shared_prefix(input_batch, target_batch)
    inputs, targets = input_batch.to(device), target_batch.to(device)
    positions = torch.arange(inputs.shape[1], device=device)
    is_seen = positions[num_shared:, None] >= positions  # (num_rest, num_tokens)
    start, counts = SharedPrefix(), targets[:, num_shared:] != -100
    # not fused: on a CPU the gradients of fused attention are slow in bfloat16
    with sdpa_kernel(SDPBackend.MATH):
        if num_shared:
            shared = inputs[:1, :num_shared], positions[:num_shared]
            forward_cached(model, *shared, start)
        rest = inputs[:, num_shared:], positions[num_shared:]
        hidden = forward_cached(model, *rest, start, is_seen)
    logits = model.out_head(hidden[counts])  # (num_targets, vocab_size)
    return F.cross_entropy(logits, targets[:, num_shared:][counts])


def checkpoint_blocks(model):
    """Do not store the activations of blocks, but compute them again when needed.

    This needs memory only for the inputs of the blocks, and time for a second forward
    pass (gradient checkpointing, Chen et al. 2016).
    """
    for block in model.trf_blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def halve_frozen(model):
    """Change the frozen parameters to bfloat16: two bytes per number instead of four.

    The model then needs `autocast` to bfloat16, which `finetune` does with that dtype.
    """
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
