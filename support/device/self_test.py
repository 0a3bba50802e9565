"""Does a device compute what the CPU computes? (a support module: used, not taught)

Devices have had faults that raise no error: a causal mask that lets the future through
in evaluation alone, an output layer that is wrong from nine texts on, zeros for ids
that no vocabulary has. The checks here run tiny models and take a second or two.
"""

from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F

from ch04.gpt import GPT_CONFIG_124M, GPTModel

TINY_CONFIG = GPT_CONFIG_124M | {
    "vocab_size": 97,
    "emb_dim": 32,
    "n_heads": 4,
    "n_layers": 2,
    "drop_rate": 0.0,
}
WIDE_CONFIG = TINY_CONFIG | {"vocab_size": 50257, "n_layers": 1}
MODES = (("evaluation", 0.0), ("training", 0.0), ("training", 0.1))
NUM_SEEN = 8  # tokens that look at none of the changed ones
NUM_STEPS = 8


def find_faults(device, dtype):
    """What a device computes wrongly: a sentence for each fault, none if it is sound.

    dtype: what its matrix products are to be computed in, besides float32.
    """
    device, faults = torch.device(device), []
    checks = partial(find_leaks, dtype=dtype), compare_logits, compare_steps
    with seeding(device):
        torch.set_float32_matmul_precision("highest")
        for check in checks:
            try:
                faults += check(device)
            except RuntimeError as error:  # an operation that it has not, or no memory
                reason = str(error).partition("\n")[0]
                faults.append(f"the self-test ended with an error: {reason}")
    return [f"{device}: {fault}" for fault in faults]


def find_unchecked_ids(device):
    """A sentence if a device takes ids that the vocabulary has not; else None.

    What is computed from other ids is right. A CUDA device is not asked: there such an
    id raises an error, and the process cannot use the device again.
    """
    device, vocab_size = torch.device(device), TINY_CONFIG["vocab_size"]
    if device.type == "cuda":
        return None
    with seeding(device):
        model = GPTModel(TINY_CONFIG).to(device)
    try:
        with torch.no_grad():
            model(torch.tensor([[vocab_size]]).to(device)).cpu()  # waits for the device
    except (IndexError, RuntimeError):
        return None
    return (
        f"{device}: token id {vocab_size}, which a vocabulary of {vocab_size} has not, "
        "gives logits; an IndexError was expected. Look at ids before you use them"
    )


@contextmanager
def seeding(device):
    """Seed random numbers in a `with` block; what is drawn outside is as without it.

    So is the precision of products. No device but the CPU and this one is touched.
    """
    on_cpu, precision = device.type == "cpu", torch.get_float32_matmul_precision()
    others = [] if on_cpu else [torch.accelerator.current_device_index()]
    try:
        with torch.random.fork_rng(others):
            seed(device)
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def seed(device):
    """Seed the generators of the CPU and of this device, and of no other."""
    torch.default_generator.manual_seed(123)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(123)


def draw(cfg, batch_size, num_tokens):
    """A seeded model on the CPU, and ids (batch_size, num_tokens)."""
    torch.default_generator.manual_seed(123)
    model = GPTModel(cfg).eval()
    return model, torch.randint(cfg["vocab_size"], (batch_size, num_tokens))


def largest_difference(a, b):
    """The largest distance of two numbers at one place; nan where one is nan."""
    return (a.detach().cpu().float() - b.detach().cpu().float()).abs().max().item()


def find_leaks(device, dtype):
    """Yield a sentence for each way of computing in which the future is visible."""
    for used in dict.fromkeys((torch.float32, dtype)):
        for mode, drop_rate in MODES:
            model, ids = draw(TINY_CONFIG | {"drop_rate": drop_rate}, 2, 2 * NUM_SEEN)
            model, is_training = model.to(device), mode == "training"
            model.train(is_training)
            changed = ids.clone()
            changed[:, NUM_SEEN:] = (ids[:, NUM_SEEN:] + 1) % TINY_CONFIG["vocab_size"]
            with torch.set_grad_enabled(is_training):
                before, after = (
                    seen_logits(model, batch, device, used) for batch in (ids, changed)
                )
            off = largest_difference(before, after)
            if not off <= 1e-4:
                yield (
                    f"in {mode} ({used}, dropout {drop_rate}) later tokens change the "
                    f"logits of earlier ones by {off:.2g}; 0 was expected"
                )


def seen_logits(model, ids, device, dtype):
    """Logits of the first NUM_SEEN tokens; dropout is the same in each call."""
    seed(device)
    is_bf16 = dtype == torch.bfloat16
    with torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
        return model(ids.to(device))[:, :NUM_SEEN]


@torch.no_grad()
def compare_logits(device):
    """Yield a sentence for each batch whose logits are not the CPU's, in float32."""
    batches = [("tiny GPT", TINY_CONFIG, (9, 16)), ("tiny GPT", TINY_CONFIG, (1, 1024))]
    batches += [("50,257 logits", WIDE_CONFIG, (b, 16)) for b in (1, 2, 9, 16)]
    for title, cfg, shape in batches:
        model, ids = draw(cfg, *shape)
        expected = model(ids)
        off = largest_difference(model.to(device)(ids.to(device)), expected)
        if not off <= 1e-3:
            yield (
                f"{title}, batch of {shape[0]} x {shape[1]} tokens: logits differ by "
                f"{off:.2g} from the CPU's; at most 0.001 was expected"
            )


def compare_steps(device):
    """Yield a sentence if a few steps of training give other losses than the CPU."""
    expected, found = step_losses(torch.device("cpu")), step_losses(device)
    for step, (ours, theirs) in enumerate(zip(found, expected), 1):
        if not abs(ours - theirs) <= 1e-3:
            yield (
                f"step {step} of training has a loss of {ours:.4f}; {theirs:.4f} was "
                "expected, the CPU's, give or take 0.001"
            )
            return


def step_losses(device):
    """The losses of NUM_STEPS steps of gradient descent, in float32."""
    model, ids = draw(TINY_CONFIG, 4, 16)
    model, ids, losses = model.to(device).train(), ids.to(device), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(NUM_STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
