"""Faster dropout on a CPU; 5.7 measures what it gains.

PyTorch draws a CPU's random numbers one after another, on one core, and attention with
dropout computes and keeps several matrices of the size of its weights. Here four
numbers are taken from each 64 random bits, and attention keeps one byte for each
weight. The backward pass computes the weights again, as FlashAttention does (Dao et al.
2022, 3.1).
"""

from contextlib import nullcontext
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from support.device.choice import fastest

TRIED_SHAPE = 2, 12, 256, 64  # of queries: b, num_heads, num_tokens, head_dim
NO_DROPOUT = 1e-9  # nothing is dropped, but all is computed as if something were


class FastDropout(TorchFunctionMode):
    """A `with` block in which dropout on a CPU is fast, in layers and in attention.

    It draws other numbers than PyTorch does, from the same generator. Checkpointed
    blocks cannot use it: they compute again in the backward pass, where the mode is not
    active, and PyTorch raises an error.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        fast = {F.dropout: dropout, F.scaled_dot_product_attention: attention}
        return fast.get(func, func)(*args, **(kwargs or {}))


def dropout(x, p=0.5, training=True, inplace=False):
    """Compute `F.dropout`, fast if x is on a CPU."""
    if training and 0 < p < 1 and not inplace and x.device.type == "cpu":
        return x * draw_kept(x.shape, p) * (1 / (1 - p))
    return F.dropout(x, p, training, inplace)


def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **kw):
    """Compute attention, fast if it is causal, with dropout, and on a CPU."""
    is_plain = is_causal and attn_mask is None and not kw
    is_on_cpu = query.device.type == "cpu" and query.shape == key.shape == value.shape
    if is_plain and is_on_cpu and 0 < dropout_p < 1:
        return CausalAttentionWithDropout.apply(query, key, value, dropout_p)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, **kw
    )


def draw_kept(shape, p):
    """Draw 1 for a kept value, 0 for a dropped one (uint8); p in steps of 2**-16."""
    size = shape.numel()
    words = torch.empty(-(-size // 4), dtype=torch.int64).random_(-(2**63), None)
    numbers = words.view(torch.int16)[:size].view(shape)  # -2**15 to 2**15 - 1
    kept = torch.empty(shape, dtype=torch.uint8)
    return torch.ge(numbers, round(p * 2**16) - 2**15, out=kept)


def attention_weights(query, key):
    """Compute causal attention weights, (b, num_heads, num_tokens, num_tokens).

    They are float32 if the matrices are multiplied in bfloat16.
    """
    num_tokens, head_dim = query.shape[-2:]
    scores = (query * head_dim**-0.5) @ key.mT
    future = torch.full((num_tokens, num_tokens), -torch.inf).triu(1)
    dtype = torch.promote_types(scores.dtype, torch.float32)
    return (scores + future).softmax(dim=-1, dtype=dtype)


class CausalAttentionWithDropout(torch.autograd.Function):
    """softmax(q k^T / sqrt(head_dim)), some weights dropped, times v.

    Shapes: query, key, value (b, num_heads, num_tokens, head_dim).
    """

    @staticmethod
    def forward(ctx, query, key, value, p):
        weights = attention_weights(query, key)
        kept = draw_kept(weights.shape, p)
        ctx.save_for_backward(query, key, value, kept)
        ctx.scale = 1 / (1 - p)
        return (weights.mul_(kept).to(value.dtype) @ value) * ctx.scale

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        query, key, value, kept = ctx.saved_tensors
        weights = attention_weights(query, key)
        grad_output = grad_output * ctx.scale
        grad_value = (weights * kept).to(value.dtype).mT @ grad_output
        grad_weights = (grad_output @ value.mT).to(weights.dtype).mul_(kept)
        # the gradient of the softmax is w * (g - sum(w * g))
        sums = (weights * grad_weights).sum(dim=-1, keepdim=True)
        grad_scores = grad_weights.sub_(sums).mul_(weights).to(query.dtype)
        grad_scores *= query.shape[-1] ** -0.5
        return grad_scores @ key, grad_scores.mT @ query, grad_value, None


@cache
def gains_by_fast_dropout():
    """Return True if a CPU computes attention with dropout faster by FastDropout."""
    generator = torch.Generator().manual_seed(123)
    drawn = torch.randn(3, *TRIED_SHAPE, generator=generator)
    exact = partial(attend_and_drop, drawn.double(), nullcontext)
    ways = {"plain": nullcontext, "FastDropout": FastDropout}
    ways = {name: partial(attend_and_drop, drawn, way) for name, way in ways.items()}
    return fastest("dropout", ways, exact) == "FastDropout"


@torch.enable_grad()
def attend_and_drop(drawn, way):
    """Return attention with dropout on its weights and its result, and the gradients.

    drawn: queries, keys and values, (3, *TRIED_SHAPE).
    """
    drawn = drawn.clone().requires_grad_()
    with torch.random.fork_rng([]), torch.autocast("cpu", enabled=False), way():
        out = F.scaled_dot_product_attention(
            *drawn, dropout_p=NO_DROPOUT, is_causal=True
        )
        out = F.dropout(out, NO_DROPOUT)
        out.sum().backward()
    return out.detach(), drawn.grad


def fast_dropout(device):
    """A `with` block for FastDropout, if it is faster on this device."""
    is_cpu = torch.device(device).type == "cpu"
    return FastDropout() if is_cpu and gains_by_fast_dropout() else nullcontext()
