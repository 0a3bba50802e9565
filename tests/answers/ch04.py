"""Answers to chapter 4's exercises, each wrong as a reader's might be."""

import torch
import torch.nn.functional as F
from torch import nn

from ch04.gpt import (
    GELU,
    GPT_CONFIG_124M,
    ExampleDeepNeuralNetwork,
    FeedForward,
    GPTModel,
    LayerNorm,
    TransformerBlock,
    generate_text_simple,
)

LAPTOP = {"emb_dim": 384, "n_heads": 6, "n_layers": 3, "context_length": 256}
RIGHT_CONFIG = GPT_CONFIG_124M | LAPTOP


def counts(x):
    return torch.arange(1, x.shape[1] + 1)[:, None]


def filled(module, scale, shift):
    with torch.no_grad():
        module.scale.fill_(scale)
        module.shift.fill_(shift)
    return module


def relu_style():
    """The identity as one would try it first: each number once."""
    ff = FeedForward({"emb_dim": 8})
    with torch.no_grad():
        ff.layers[0].weight.copy_(torch.eye(32, 8))
        ff.layers[2].weight.copy_(torch.eye(8, 32))
        ff.layers[0].bias.zero_()
        ff.layers[2].bias.zero_()
    return ff


def zeroed(model, biases=True):
    for name, parameter in model.named_parameters():
        if biases or name.endswith("weight"):
            nn.init.zeros_(parameter)
    return model


SMALL = GPT_CONFIG_124M | {"vocab_size": 1000, "emb_dim": 192, "n_layers": 2}


def block_without(names):
    """A small block in which the named parameters are zero."""
    block = TransformerBlock(SMALL)
    with torch.no_grad():
        for name in names:
            block.get_parameter(name).zero_()
    return block


class ReturnsInput(TransformerBlock):
    def forward(self, x):
        return x


class NormalizesBoth(TransformerBlock):
    def forward(self, x):
        x = self.norm1(x + self.att(self.norm1(x)))
        return self.norm2(x + self.ff(self.norm2(x)))


class NoShortcut(TransformerBlock):
    def forward(self, x):
        return self.norm2(self.ff(self.norm1(self.att(x))))


class OnlyFirst(TransformerBlock):
    def forward(self, x):
        x = self.norm1(x + self.att(x))
        return x + self.ff(x)


def tied():
    model = GPTModel(SMALL)
    model.out_head.weight = model.tok_emb.weight
    return model


def copied():
    model = GPTModel(SMALL)
    model.out_head.weight = nn.Parameter(model.tok_emb.weight.detach() * 0.02)
    return model


def appends_the_end(model, idx, max_new_tokens, context_size, eos_id):
    for _ in range(max_new_tokens):
        idx = generate_text_simple(model, idx, 1, context_size)
        if idx[0, -1] == eos_id:
            break
    return idx


def never_ends(model, idx, max_new_tokens, context_size, eos_id):
    return generate_text_simple(model, idx, max_new_tokens, context_size)


def cuts_at_first(model, idx, max_new_tokens, context_size, eos_id):
    ids = generate_text_simple(model, idx, max_new_tokens, context_size)[0].tolist()
    return torch.tensor([ids[: ids.index(eos_id)] if eos_id in ids else ids])


def no_window(model, idx, max_new_tokens, context_size, eos_id):
    for _ in range(max_new_tokens):
        idx_next = model(idx)[:, -1].argmax(dim=-1, keepdim=True)
        if idx_next == eos_id:
            break
        idx = torch.cat((idx, idx_next), dim=1)
    return idx


WRONG = {
    "4.1.1": [
        GPT_CONFIG_124M,
        RIGHT_CONFIG | {"n_heads": 12},
        RIGHT_CONFIG | {"drop_rate": 0.0},
        RIGHT_CONFIG | {"n_layer": 3},
        GPT_CONFIG_124M | {"emb_dim": 384, "n_heads": 6},
        LAPTOP,
        "emb_dim 384",
    ],
    "4.1.2": [
        8 * 1024 * 50257,
        8 * 1024 * 768 * 4,
        1024 * 50257 * 4,
        8 * 1024 * 50257 * 8,
        1.65,
        "1.6 GB",
    ],
    "4.1.3": [
        nn.Identity(),
        lambda x: x.cumsum(dim=1),
        lambda x: x.mean(dim=1, keepdim=True).expand_as(x),
        lambda x: x.mean(dim=1),
        lambda x: x.cumsum(dim=0),
        lambda x: (x.cumsum(dim=1) - x) / counts(x),
        lambda x: x.cumsum(dim=1) / x.shape[1],
        lambda x: None,
        nn.Identity,
        3,
    ],
    "4.2.1": [
        [1, 1, 1, 9],
        [-0.5, -0.5, -0.5, 1.5],
        [-2 / 12, -2 / 12, -2 / 12, 0.5],
        [-2, -2, -2, 6],
        [1.73, -0.58, -0.58, -0.58],
        [-0.58, 1.73],
        "no idea",
    ],
    "4.2.2": [
        LayerNorm(8),
        filled(LayerNorm(8), 2, 3),
        filled(LayerNorm(8), 9, 2),
        filled(LayerNorm(4), 3, 2),
        nn.LayerNorm(8, elementwise_affine=False),
        LayerNorm,
    ],
    "4.2.3": [
        FeedForward({"emb_dim": 8}),
        FeedForward({"emb_dim": 768}),
        relu_style(),
        nn.Identity(),
        GELU(),
    ],
    "4.4.1": [11, 24, 1.1**24, 0.1**24, 11.0**-24, 11 * 24, (1.1 - 0.1) ** 24, "big"],
    "4.4.2": [[], [1], [2, 4], [0, 1, 2, 3, 4], [1, 1, 3], [8, 4], 2, "1, 3"],
    "4.4.3": [
        ExampleDeepNeuralNetwork([3, 3, 3, 3], True),
        zeroed(ExampleDeepNeuralNetwork([3, 3, 3, 3], False)),
        zeroed(ExampleDeepNeuralNetwork([3, 3, 3], True)),
        zeroed(ExampleDeepNeuralNetwork([3, 3, 3, 3], True), biases=False),
        zeroed(ExampleDeepNeuralNetwork([3, 3, 3, 1], True)),
        nn.Identity(),
        ExampleDeepNeuralNetwork,
    ],
    "4.5.1": [48 * 30_736_000, 30_736_000 + 4800, 30_729_600, 7_085_568, "many", 3e7],
    "4.5.2": [
        TransformerBlock(SMALL),
        TransformerBlock,
        ReturnsInput(SMALL),
        block_without(["att.out_proj.weight", "ff.layers.2.weight"]),
        block_without(["norm1.scale", "norm2.scale"]),
        block_without(["att.out_proj.weight", "att.out_proj.bias"]),
        nn.Identity(),
    ],
    "4.5.3": [
        TransformerBlock(SMALL),
        NormalizesBoth(SMALL),
        NoShortcut(SMALL),
        OnlyFirst(SMALL),
        ReturnsInput(SMALL),
        NormalizesBoth,
        lambda x: x,
    ],
    "4.6.1": [406_212_608, 303_359_000, 124_412_160, 345_000_000, "355M", True],
    "4.6.2": [11, 14, 16, 24, 0, -3, 10**9, 15.7],
    "4.6.3": [GPTModel(SMALL), tied(), copied(), GPTModel],
    "4.7.1": [140, 95, 14, 40, 84, [85, 1], 84.5],
    "4.7.2": [
        lambda ids: (ids + 1) % 20,
        lambda ids: F.one_hot(ids, 20).float(),
        lambda ids: F.one_hot((ids + 1).clamp(max=19), 20).float(),
        lambda ids: F.one_hot((ids[:, -1] + 1) % 20, 20).float(),
        lambda ids: -F.one_hot((ids + 1) % 20, 20).float(),
        lambda ids: F.one_hot(ids + 1, 20).float(),
        8,
    ],
    "4.7.3": [
        generate_text_simple,
        appends_the_end,
        never_ends,
        cuts_at_first,
        no_window,
        torch.tensor([[1, 2]]),
        lambda *args: None,
        lambda *args: appends_the_end(*args).tolist(),
    ],
}
