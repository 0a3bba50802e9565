"""Copies of models with float16 weights, to decode with on a CPU.

A step of decoding takes as long as the weights take to come from memory (5.3), and as
float16 they are half the bytes. What lies between the matrix multiplications stays
float32: norms, positions, attention, the key-value cache. Not every CPU multiplies
float16 fast: `benchmarks.decoding` measures what it gains on one.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from ch05.kv_cache import CachedLogits

HALF_ROWS = 8  # up to here, multiplying in float16 takes less time than unpacking
UNPACKED = 2**20  # weights that are unpacked at once: they stay in the CPU's cache
FBGEMM_ENGINES = "x86", "fbgemm"  # what PyTorch calls it
HIGHEST_HALF = torch.finfo(torch.float16).max

multiply_half = torch.ops.quantized.linear_dynamic_fp16.default


def half_precision_copy(model):
    """A copy of a GPTModel or LlamaModel with float16 weights, for `generate`.

    The model stays as it was, and shares nothing with the copy. The copy cannot be
    trained, moved off the CPU or saved. Raises ValueError for a model that is not in
    float32 on the CPU, or has weights that float16 cannot hold.
    """
    check_can_be_halved(model)
    halved = copy.deepcopy(model).eval().requires_grad_(False)
    is_tied = halved.out_head.weight is halved.tok_emb.weight
    table = halved.tok_emb.weight
    linear_class, head_class = half_classes()
    for module in list(halved.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.Linear):
                kind = head_class if layer is halved.out_head else linear_class
                setattr(module, name, kind(layer.weight, layer.bias))
    if is_tied and isinstance(halved.out_head, HalfLinear):
        table = halved.out_head.table
    halved.tok_emb = HalfEmbedding(table.half())
    return halved.eval()


def check_can_be_halved(model):
    """Raise ValueError for a model that `half_precision_copy` is not made for."""
    if not isinstance(model.tok_emb, nn.Embedding):
        raise ValueError(
            "this model is a copy in half precision already: copy the model that it "
            "was made from"
        )
    kinds = {f"{p.dtype} on {p.device.type}" for p in model.parameters()}
    if kinds != {"torch.float32 on cpu"}:
        raise ValueError(
            f"the model's parameters are {', '.join(sorted(kinds))}; they must be "
            'float32 on the CPU: model.float().to("cpu") makes them so'
        )
    largest = torch.stack([p.detach().abs().max() for p in model.parameters()]).max()
    if not largest <= HIGHEST_HALF:
        raise ValueError(
            f"the model has a weight of size {largest.item()}, and float16 ends at "
            f"{HIGHEST_HALF:.0f}: has its training failed?"
        )


@torch.no_grad()
def logit_error(model, halved, token_ids):
    """How far off a copy's logits are, as a share of their standard deviation.

    Both models read a list of ids one by one, as they do when they write. At each step
    the greatest difference is divided by the standard deviation of the model's own
    logits; the greatest of these quotients is returned.
    """
    next_logits = [CachedLogits(each, 1, len(token_ids)) for each in (model, halved)]
    errors = []
    for end in range(1, len(token_ids) + 1):
        right, found = (each([token_ids[:end]]) for each in next_logits)
        errors.append(((found - right).abs().max() / right.std()).item())
    return max(errors)


class HalfLayer(nn.Module):
    """A layer that only infers, and only on the CPU."""

    def train(self, mode=True):
        if mode:
            raise ValueError(
                "a copy in half precision cannot be trained: train the model that it "
                "was made from"
            )
        return super().train(mode)

    def _apply(self, fn, recurse=True):
        probe = fn(torch.zeros(1))  # .to(), .cuda(), .half() and the like come here
        if probe.dtype != torch.float32 or probe.device.type != "cpu":
            raise ValueError(
                "a copy in half precision stays on the CPU and keeps its dtypes: move "
                "or convert the model that it was made from"
            )
        return super()._apply(fn, recurse)


class PackedHalfLinear(HalfLayer):
    """A linear layer whose weights are float16, and its inputs and sums float32.

    FBGEMM multiplies so on x86. It keeps the weights in its own order, in blocks of 512
    inputs, the last one filled up: 768 inputs take the memory of 1,024.
    """

    def __init__(self, weight, bias):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed = torch.ops.quantized.linear_prepack_fp16(weight, bias)

    @property
    def weight(self):
        """The weights that it computes with, as float32."""
        return self.packed.unpack()[0]

    def forward(self, x):
        return multiply_half(x, self.packed)


class HalfLinear(HalfLayer):
    """A linear layer whose weights are float16, for where there is no FBGEMM.

    So are its inputs and sums when they are a few rows; many are multiplied in float32,
    with weights that are unpacked for it part by part.
    """

    def __init__(self, weight, bias):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("table", weight.half())
        self.register_buffer("bias", bias)

    @property
    def weight(self):
        """The weights that it computes with, as float32."""
        return self.table.float()

    def forward(self, x):
        if x.numel() <= HALF_ROWS * self.in_features:
            out = self.multiply_in_half(x)
        else:
            parts = self.table.split(max(1, UNPACKED // self.in_features))
            out = torch.cat([F.linear(x, part.float()) for part in parts], dim=-1)
        return out if self.bias is None else out.add_(self.bias)

    def multiply_in_half(self, x):
        """x W^T, (..., out_features), as float32."""
        return F.linear(x.half(), self.table).float()


class HalfHead(HalfLinear):
    """An output layer: what is float16 is a logit's distance from the logits' mean.

    GPT-2's logits are around -100, where float16 has steps of 0.06.
    """

    def __init__(self, weight, bias):
        super().__init__(weight, bias)
        self.register_buffer("mean_weight", weight.mean(dim=0))

    def multiply_in_half(self, x):
        rows = x.reshape(-1, self.in_features)
        means = (rows @ self.mean_weight).half()[:, None]  # rounded, and then exact
        distances = torch.addmm(-means, rows.half(), self.table.T)
        return (distances.float() + means).view(*x.shape[:-1], self.out_features)


def half_classes():
    """What is fast here with float16 weights: a linear and an output layer's class."""
    has_fbgemm = torch.backends.quantized.engine in FBGEMM_ENGINES
    return (PackedHalfLinear,) * 2 if has_fbgemm else (HalfLinear, HalfHead)


class HalfEmbedding(HalfLayer):
    """A token embedding whose table is float16."""

    def __init__(self, table):
        super().__init__()
        self.num_embeddings, self.embedding_dim = table.shape
        self.register_buffer("weight", table)

    def forward(self, ids):
        return F.embedding(ids, self.weight).float()  # (..., emb_dim)
