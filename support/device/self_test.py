"""Test whether a device computes what the CPU computes.

Some devices have had faults that raise no error: a causal mask that lets tokens see
later ones in evaluation mode only, or an output layer that is wrong from nine texts on.
The checks run tiny models and take a second or two. Each one yields what it compared,
the difference that it found, and the largest difference that is allowed.
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F

from ch04.gpt import GPT_CONFIG_124M, GPTModel
from support.device.precision import matmul_precision

TINY_CONFIG = GPT_CONFIG_124M | {
    "vocab_size": 97,
    "emb_dim": 32,
    "n_heads": 4,
    "n_layers": 2,
    "drop_rate": 0.0,
}
WIDE_CONFIG = TINY_CONFIG | {"vocab_size": 50257, "n_layers": 1}
MODES = (("evaluation", 0.0), ("training", 0.0), ("training", 0.1))
NUM_EARLY = 8  # tokens that stand before the changed ones
NUM_STEPS = 8


def find_faults(device, dtype):
    """Return a sentence for each fault of a device; an empty list if it has none.

    dtype: the data type in which it multiplies matrices, besides float32.
    """
    device, faults = torch.device(device), []
    with seeding(device), matmul_precision("highest"):
        for check in (compare_early_logits, compare_logits, compare_losses):
            try:
                for what, off, most in check(device, dtype):
                    if not off <= most:  # nan is a fault too
                        faults.append(
                            f"{what} by {off:.2g}; at most {most} was expected"
                        )
            except RuntimeError as error:  # a missing operation, or too little memory
                reason = str(error).partition("\n")[0]
                faults.append(f"the self-test ended with an error: {reason}")
    return [f"{device}: {fault}" for fault in faults]


@contextmanager
def seeding(device):
    """Seed the random numbers of the CPU and of a device in a `with` block.

    After it, their generators are as they were. Other devices are not touched.
    """
    is_cpu = device.type == "cpu"
    others = [] if is_cpu else [torch.accelerator.current_device_index()]
    with torch.random.fork_rng(others):
        seed(device)
        yield


def seed(device):
    """Seed the generators of the CPU and of this device only."""
    torch.default_generator.manual_seed(123)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(123)


def draw(cfg, batch_size, num_tokens):
    """Return a seeded model on the CPU, and ids (batch_size, num_tokens)."""
    torch.default_generator.manual_seed(123)
    model = GPTModel(cfg).eval()
    return model, torch.randint(cfg["vocab_size"], (batch_size, num_tokens))


def largest_difference(a, b):
    """Return the largest difference of two tensors; nan if one holds a nan."""
    return (a.detach().cpu().float() - b.detach().cpu().float()).abs().max().item()


def compare_early_logits(device, dtype):
    """Check that changed later tokens do not change the logits of earlier ones."""
    for used in dict.fromkeys((torch.float32, dtype)):
        for mode, drop_rate in MODES:
            model, ids = draw(TINY_CONFIG | {"drop_rate": drop_rate}, 2, 2 * NUM_EARLY)
            model, is_training = model.to(device), mode == "training"
            model.train(is_training)
            changed = ids.clone()
            changed[:, NUM_EARLY:] = 0
            with torch.set_grad_enabled(is_training):
                both = [early_logits(model, i, device, used) for i in (ids, changed)]
            what = f"in {mode} ({used}, dropout {drop_rate}) later tokens change the"
            yield f"{what} logits of earlier ones", largest_difference(*both), 1e-4


def early_logits(model, ids, device, dtype):
    """Return the logits of the first NUM_EARLY tokens; dropout is seeded."""
    seed(device)
    is_bf16 = dtype == torch.bfloat16
    with torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
        return model(ids.to(device))[:, :NUM_EARLY]


@torch.no_grad()
def compare_logits(device, _):
    """Check logits in float32 against the CPU's, for several sizes of batches."""
    batches = [("tiny GPT", TINY_CONFIG, (9, 16)), ("tiny GPT", TINY_CONFIG, (1, 1024))]
    batches += [("50,257 logits", WIDE_CONFIG, (b, 16)) for b in (1, 2, 9, 16)]
    for title, cfg, (batch_size, num_tokens) in batches:
        model, ids = draw(cfg, batch_size, num_tokens)
        expected = model(ids)
        off = largest_difference(model.to(device)(ids.to(device)), expected)
        size = f"batch of {batch_size} x {num_tokens} tokens"
        yield f"{title}, {size}: logits differ from the CPU's", off, 1e-3


def compare_losses(device, _):
    """Check the losses of a few steps of training against the CPU's."""
    off = largest_difference(step_losses(device), step_losses(torch.device("cpu")))
    yield f"the losses of {NUM_STEPS} training steps differ from the CPU's", off, 1e-3


def step_losses(device):
    """Return the losses of NUM_STEPS steps of gradient descent, in float32."""
    model, ids = draw(TINY_CONFIG, 4, 16)
    model, ids, losses = model.to(device).train(), ids.to(device), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(NUM_STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses)
