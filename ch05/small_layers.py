"""Layers with small weights, to decode with on a CPU (a support module: not taught).

They take float32 and give float32. `ch05.readied` puts them into a model.
"""

import warnings
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

HALF_ROWS = 8  # up to here, multiplying in float16 takes less time than unpacking
UNPACKED = 2**20  # weights that are unpacked at once: they stay in the CPU's cache
FBGEMM_ENGINES = "x86", "fbgemm"  # what PyTorch calls it

multiply_half = torch.ops.quantized.linear_dynamic_fp16.default
multiply_int8 = torch.ops.quantized.linear_dynamic.default


class SmallLayer(nn.Module):
    """A layer that only infers, and only on the CPU."""

    def train(self, mode=True):
        if mode:
            raise ValueError(
                "a readied model cannot be trained: train the one it was made from"
            )
        return super().train(mode)

    def _apply(self, fn, recurse=True):
        probe = fn(torch.zeros(1))  # .to(), .cuda(), .half() and the like come here
        if probe.dtype != torch.float32 or probe.device.type != "cpu":
            raise ValueError(
                "a readied model stays on the CPU and keeps its dtypes: move or "
                "convert the one it was made from"
            )
        return super()._apply(fn, recurse)


class PackedHalfLinear(SmallLayer):
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


class HalfLinear(SmallLayer):
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


class Int8Linear(SmallLayer):
    """A linear layer that multiplies whole numbers: weights and inputs of 8 bits.

    The weights of each output have a scale of their own, and so has each row of inputs,
    found when it comes. FBGEMM multiplies on x86, QNNPACK on ARM; each keeps the
    weights in its own order.
    """

    def __init__(self, weight, bias):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        bias = weight.new_zeros(self.out_features) if bias is None else bias
        self.register_buffer("bias", bias)
        self.packed = pack_int8(*quantize(weight), bias)
        self.reduce_range = int8_overflows()

    @property
    def weight(self):
        """The weights that it computes with, as float32."""
        return self.packed.unpack()[0].dequantize()

    def forward(self, x):
        if x.numel() == self.in_features:
            return multiply_int8(x, self.packed, self.reduce_range)
        # the library has one scale for all rows: make them equally large first
        sizes = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30)
        out = multiply_int8(x / sizes, self.packed, self.reduce_range)
        return torch.lerp(self.bias, out, sizes)  # bias + sizes * (out - bias)


def quantize(weight):
    """Each row as int8 from -127 to 127, and the scale that turns it back, (n, 1)."""
    scales = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / 127
    return (weight / scales).round().to(torch.int8), scales


def pack_int8(table, scales, bias):
    """What `multiply_int8` takes: weights and bias in the library's own order."""
    zeros = torch.zeros(len(table), dtype=torch.int64)
    with warnings.catch_warnings():  # a later PyTorch will not have such tensors
        warnings.simplefilter("ignore", UserWarning)
        quantized = torch._make_per_channel_quantized_tensor(
            table, scales.flatten().double(), zeros, 0
        )
        return torch.ops.quantized.linear_prepack(quantized, bias)


@cache
def int8_overflows():
    """True on x86 CPUs without VNNI: they add two products in 16 bits.

    With inputs of 7 bits, which `reduce_range` makes, that cannot overflow.
    """
    packed = pack_int8(
        torch.full((1, 64), 127, dtype=torch.int8), torch.ones(1), torch.zeros(1)
    )
    share = multiply_int8(torch.ones(1, 64), packed).item() / (64 * 127)
    return not 0.99 < share < 1.01


class SmallEmbedding(SmallLayer):
    """A token embedding whose table is float16, or int8 with a scale for each row."""

    def __init__(self, table, scales=None):
        super().__init__()
        self.num_embeddings, self.embedding_dim = table.shape
        self.register_buffer("weight", table)
        self.register_buffer("scales", scales)

    def forward(self, ids):
        rows = F.embedding(ids, self.weight).float()  # (..., emb_dim)
        return rows if self.scales is None else rows * F.embedding(ids, self.scales)


class JoinedLinear(SmallLayer):
    """Linear layers that read one input, as one layer: it is asked once for each.

    sizes: their out_features. It multiplies when the first asks, and keeps what the
    others will want.
    """

    def __init__(self, layer, sizes):
        super().__init__()
        self.layer, self.sizes = layer, sizes
        self.kept = [(None, None)]  # the last input, and the parts of its output

    def output(self, x, i):
        """What layer i gives for x. Until the last has asked, x must not change."""
        kept_x, parts = self.kept[0]
        if kept_x is not x:
            parts = self.layer(x).split(self.sizes, dim=-1)
        is_last = i == len(self.sizes) - 1
        self.kept[0] = (None, None) if is_last else (x, parts)
        return parts[i]


class LinearPart(SmallLayer):
    """Layer i of those that are joined."""

    def __init__(self, joined, i):
        super().__init__()
        self.joined, self.i = joined, i
        self.out_features = joined.sizes[i]

    @property
    def weight(self):
        """The weights that it computes with, as float32."""
        return self.joined.layer.weight.split(self.joined.sizes)[self.i]

    def forward(self, x):
        return self.joined.output(x, self.i)
