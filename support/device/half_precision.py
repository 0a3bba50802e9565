"""Copies of models with 16-bit weights, which decode faster on many CPUs.

A step of decoding takes as long as the weights take to come from memory (5.3), and
16-bit weights are half the bytes. Only matrix multiplications are computed in 16 bits.
The residual stream and the norms stay float32, because rounding errors add up there.
"""

import copy
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from ch05.kv_cache import CachedLogits
from support.device.precision import TOKEN_SHAPE, faster_dtype


@cache
def faster_half_dtype():
    """Return bfloat16 if this CPU multiplies it clearly faster than float16.

    Otherwise return float16, which is more exact.
    """
    return faster_dtype(torch.float16, torch.bfloat16, TOKEN_SHAPE)


def half_precision_copy(model, dtype=None):
    """Copy a GPTModel or LlamaModel with 16-bit weights, for `generate`.

    dtype: torch.float16 or torch.bfloat16; None for `faster_half_dtype()`. The copy is
    not for training. The model stays as it was and shares nothing with the copy. Raises
    ValueError if the model is not in float32 on the CPU, or if it has weights that
    dtype cannot represent.
    """
    kinds = {f"{p.dtype} on {p.device.type}" for p in model.parameters()}
    if kinds != {"torch.float32 on cpu"}:
        raise ValueError(
            f"the model's parameters are {', '.join(sorted(kinds))}; they must be "
            'float32 on the CPU: use model.float().to("cpu") or, if this model is a '
            "half-precision copy, the model that it was made from"
        )
    dtype = dtype or faster_half_dtype()
    halved = copy.deepcopy(model).eval().requires_grad_(False)
    halved.out_head = HalfOutputLayer(halved.out_head, dtype)
    for layer in halved.trf_blocks.modules():
        if any(p.dim() > 1 for p in layer.parameters(recurse=False)):  # a matrix
            layer.to(dtype).register_forward_pre_hook(cast_input)
    halved.tok_emb.to(dtype).register_forward_hook(cast_to_float32)
    if not all(p.isfinite().all() for p in halved.parameters()):
        raise ValueError(
            f"some weights of the model are not finite numbers in {dtype}: try "
            "torch.bfloat16; if that fails too, the training of the model has failed"
        )
    return halved


def cast_input(layer, inputs):
    """Cast the input of a layer to the data type of its weights."""
    return inputs[0].to(next(layer.parameters()).dtype)


def cast_to_float32(layer, inputs, output):
    """Cast the output of a layer to float32."""
    return output.float()


class HalfOutputLayer(nn.Module):
    """An output layer with 16-bit weights and float32 logits.

    GPT-2's logits are around -100, where bfloat16 has steps of 0.5. So the mean of all
    logits is computed in float32, and only their distances from it in 16 bits.
    """

    def __init__(self, linear, dtype):
        super().__init__()
        mean = linear.weight.mean(dim=0)
        self.mean_weight = nn.Parameter(mean, requires_grad=False)
        self.weight = nn.Parameter((linear.weight - mean).to(dtype), False)

    def forward(self, x):
        distances = F.linear(x.to(self.weight.dtype), self.weight).float()
        return distances + (x @ self.mean_weight)[..., None]  # (..., vocab_size)


@torch.no_grad()
def logit_error(model, halved, token_ids):
    """Return the largest error of a copy's logits, in their standard deviations.

    Both models read a list of ids one by one, as in `generate`. At each step the
    largest difference is divided by the standard deviation of the model's logits.
    """
    next_logits = [CachedLogits(each, 1, len(token_ids)) for each in (model, halved)]
    errors = []
    for end in range(1, len(token_ids) + 1):
        exact, found = (each([token_ids[:end]]) for each in next_logits)
        errors.append(((found - exact).abs().max() / exact.std()).item())
    return max(errors)
