"""A faster cross-entropy on a CPU, with less memory.

The logits of a batch are the largest tensor of a training step: 512 tokens with GPT-2's
vocabulary are 103 MB in float32. PyTorch writes several tensors of this size: logits in
float32 if they were computed in bfloat16, their log-softmax, and gradients. Here a few
tokens at a time are computed, whose numbers stay in the processor's cache, and only
one number for each token is kept for the backward pass beside the logits.
"""

from contextlib import nullcontext
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from support.device.choice import fastest

CHUNK = 2**20  # logits that are computed at a time, about
IGNORED = -100  # targets that do not count
USUAL = {  # options of F.cross_entropy, which passes them all on
    "size_average": None,
    "ignore_index": IGNORED,
    "reduce": None,
    "reduction": "mean",
    "label_smoothing": 0.0,
}
TRIED_SHAPE = 128, 50257  # num_tokens, vocab_size


class FastLoss(TorchFunctionMode):
    """A `with` block in which `F.cross_entropy` on a CPU is fast."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        fast = {F.cross_entropy: cross_entropy}
        return fast.get(func, func)(*args, **(kwargs or {}))


def cross_entropy(logits, targets, weight=None, **options):
    """Compute `F.cross_entropy`, fast if it is the plain mean over tokens on a CPU."""
    is_plain = weight is None and USUAL | options == USUAL
    has_tokens = logits.dim() == 2 and targets.dim() == 1
    is_on_cpu = logits.device.type == "cpu" and targets.dtype == torch.int64
    if is_plain and has_tokens and is_on_cpu:
        return ChunkedCrossEntropy.apply(logits, targets)
    return F.cross_entropy(logits, targets, weight, **options)


class ChunkedCrossEntropy(torch.autograd.Function):
    """Mean of logsumexp(logits) - logits[target] over the targets that count.

    Shapes: logits (num_tokens, vocab_size), targets (num_tokens). The loss and all sums
    are float32, whatever the logits are (float64 stays float64).
    """

    @staticmethod
    def forward(ctx, logits, targets):
        dtype = torch.promote_types(logits.dtype, torch.float32)
        counts = targets != IGNORED
        targets = targets.where(counts, 0)  # any token: what it gives is not counted
        chunks = logits.split(max(1, CHUNK // logits.shape[1]))
        sums = torch.cat([chunk.to(dtype).logsumexp(dim=1) for chunk in chunks])
        chosen = logits.gather(1, targets[:, None])[:, 0].to(dtype)
        ctx.save_for_backward(logits, targets, sums, counts)
        return ((sums - chosen) * counts).sum() / counts.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        logits, targets, sums, counts = ctx.saved_tensors
        scales = grad_output * counts / counts.sum()
        grad = torch.empty_like(logits)
        size = max(1, CHUNK // logits.shape[1])
        parts = (each.split(size) for each in (logits, targets, sums, scales, grad))
        for chunk, target, total, scale, out in zip(*parts):
            # the gradient of the loss is softmax(logits), less 1 at the target
            found = (chunk.to(sums.dtype) - total[:, None]).exp_()
            found[torch.arange(len(found)), target] -= 1
            out.copy_(found.mul_(scale[:, None]))
        return grad, None


@cache
def gains_by_fast_loss(dtype):
    """Return True if a CPU computes the loss of logits in dtype faster by FastLoss."""
    generator = torch.Generator().manual_seed(123)
    logits = torch.randn(TRIED_SHAPE, generator=generator).to(dtype)
    targets = torch.randint(TRIED_SHAPE[1], TRIED_SHAPE[:1], generator=generator)
    exact = partial(loss_and_gradient, logits.double(), targets, nullcontext)
    ways = {"plain": nullcontext, "FastLoss": FastLoss}
    ways = {
        name: partial(loss_and_gradient, logits, targets, way)
        for name, way in ways.items()
    }
    return fastest(f"loss of logits in {dtype}", ways, exact) == "FastLoss"


@torch.enable_grad()
def loss_and_gradient(logits, targets, way):
    """Return the loss within a `with` block way(), and the gradient of the logits.

    Logits in bfloat16 are float32 for PyTorch's own loss, as autocast makes them.
    """
    logits = logits.clone().requires_grad_()
    with way(), torch.autocast("cpu", enabled=logits.dtype == torch.bfloat16):
        loss = F.cross_entropy(logits, targets)
    loss.backward()
    return loss.detach(), logits.grad


def fast_loss(device, dtype):
    """A `with` block for FastLoss, if it is faster on this device for this dtype."""
    is_cpu = torch.device(device).type == "cpu"
    return FastLoss() if is_cpu and gains_by_fast_loss(dtype) else nullcontext()
