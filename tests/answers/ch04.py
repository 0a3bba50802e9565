"""Answers to chapter 4's exercises, right ones and such as a reader gets wrong."""

from fractions import Fraction

import numpy as np
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


class Layer(nn.Module):
    """A module that does what a function does."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


class MeanByMatrix(nn.Module):
    """Means of what came so far, by a triangle whose rows sum to 1."""

    def forward(self, x):
        triangle = torch.ones(x.shape[1], x.shape[1]).tril()
        return triangle / triangle.sum(dim=1, keepdim=True) @ x


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


def identity(biases=None):
    """A FeedForward that returns its input: by GELU(x) - GELU(-x), or far to the right.

    Where GELU's argument is large it changes nothing: with biases, x + b - b.
    """
    ff = FeedForward({"emb_dim": 8})
    eye, unused = torch.eye(8), torch.zeros(16, 8)
    sign = -1 if biases is None else 0
    with torch.no_grad():
        ff.layers[0].weight.copy_(torch.cat((eye, sign * eye, unused)))
        ff.layers[2].weight.copy_(torch.cat((eye, sign * eye, unused)).T)
        ff.layers[0].bias.fill_(biases or 0)
        ff.layers[2].bias.fill_(-(biases or 0))
    return ff


def torch_norm():
    """PyTorch's LayerNorm does the same."""
    norm = nn.LayerNorm(8)
    nn.init.constant_(norm.weight, 3)
    nn.init.constant_(norm.bias, 2)
    return norm


def deep(sizes, bias):
    """A deep network with shortcuts whose layers see their biases alone."""
    network = ExampleDeepNeuralNetwork(sizes, True)
    for layer in network.layers:
        nn.init.zeros_(layer[0].weight)
        nn.init.constant_(layer[0].bias, bias)
    return network


def zeroed(model, biases=True):
    for name, parameter in model.named_parameters():
        if biases or name.endswith("weight"):
            nn.init.zeros_(parameter)
    return model


LAST = [
    "att.out_proj.weight",
    "att.out_proj.bias",
    "ff.layers.2.weight",
    "ff.layers.2.bias",
]
SMALL = GPT_CONFIG_124M | {"vocab_size": 1000, "emb_dim": 192, "n_layers": 2}


def block_without(names):
    """A small block in which the named parameters are zero."""
    block = TransformerBlock(SMALL)
    with torch.no_grad():
        for name in names:
            block.get_parameter(name).zero_()
    return block


class PostNorm(TransformerBlock):
    """The block of 2017."""

    def forward(self, x):
        x = self.norm1(x + self.drop_resid(self.att(x)))
        return self.norm2(x + self.drop_resid(self.ff(x)))


class PostNormByFormulas(TransformerBlock):
    """The same, written another way."""

    def forward(self, x):
        shortcut = x
        h = self.norm1(self.drop_shortcut(self.att(x)) + shortcut)
        return self.norm2(torch.add(h, self.ff(h)))


class NormsSwapped(TransformerBlock):
    def forward(self, x):
        x = self.norm2(x + self.att(x))
        return self.norm1(x + self.ff(x))


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


def tied(std=1.0, cfg=SMALL):
    """A model whose output layer is its token embedding, drawn anew."""
    model = GPTModel(cfg)
    model.out_head.weight = model.tok_emb.weight
    nn.init.normal_(model.tok_emb.weight, std=std)
    return model


def tied_to_out_head():
    """The other way round: the table is that of the output layer, which is calm."""
    model = GPTModel(SMALL)
    model.tok_emb.weight = model.out_head.weight
    return model


def tied_by_data():
    """Two parameters on the same memory: an optimizer moves it twice."""
    model = tied_to_out_head()
    model.tok_emb.weight = nn.Parameter(model.out_head.weight.data)
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


@torch.no_grad()
def until(model, idx, max_new_tokens, context_size, eos_id):
    """Right, on the device of the model's parameters."""
    idx = idx.to(next(model.parameters()).device)
    for _ in range(max_new_tokens):
        probas = torch.softmax(model(idx[:, -context_size:])[:, -1], dim=-1)
        idx_next = probas.argmax(dim=-1, keepdim=True)
        if (idx_next == eos_id).all():
            return idx
        idx = torch.cat((idx, idx_next), dim=1)
    return idx


def until_with_lists(model, idx, max_new_tokens, context_size, eos_id):
    """Right, a step of generate_text_simple at a time."""
    row = idx[0].tolist()
    for _ in range(max_new_tokens):
        longer = generate_text_simple(model, torch.tensor([row]), 1, context_size)
        if longer[0, -1] == eos_id:
            break
        row = longer[0].tolist()
    return [row]


def last_token_alone(model, idx, max_new_tokens, context_size, eos_id):
    return until(model, idx, max_new_tokens, 1, eos_id)


def first_tokens(model, idx, max_new_tokens, context_size, eos_id):
    for _ in range(max_new_tokens):
        longer = generate_text_simple(model, idx[:, :context_size], 1, context_size)
        if longer[0, -1] == eos_id:
            break
        idx = torch.cat((idx, longer[:, -1:]), dim=1)
    return idx


def no_window(model, idx, max_new_tokens, context_size, eos_id):
    for _ in range(max_new_tokens):
        idx_next = model(idx)[:, -1].argmax(dim=-1, keepdim=True)
        if idx_next == eos_id:
            break
        idx = torch.cat((idx, idx_next), dim=1)
    return idx


RIGHT = {
    "4.1.1": [RIGHT_CONFIG, dict(sorted(RIGHT_CONFIG.items()))],
    "4.1.2": [
        8 * 1024 * 50257 * 4,
        np.float32(1_646_821_376),
        torch.tensor(1_646_821_376),
    ],
    "4.1.3": [Layer(lambda x: x.cumsum(dim=1) / counts(x)), MeanByMatrix()],
    "4.2.1": [
        [-0.58, -0.58, -0.58, 1.73],
        (np.array([1, 1, 1, 9]) - 3) / 12**0.5,
        LayerNorm(4)(torch.tensor([[1.0, 1, 1, 9]])),
        tuple(torch.tensor([-0.577, -0.577, -0.577, 1.732])),
    ],
    "4.2.2": [
        filled(LayerNorm(8), 3, 2),
        filled(LayerNorm(8), -3, 2),
        torch_norm(),
    ],
    "4.2.3": [identity(), identity(biases=100)],
    "4.4.1": [(1.1 / 0.1) ** 24, 11**24, Fraction(11) ** 24, torch.tensor(11.0) ** 24],
    "4.4.2": [
        [1, 3],
        (3, 1),
        {1, 3},
        range(1, 4, 2),
        np.array([1, 3]),
        torch.tensor([1.0, 3.0]),
        list(torch.tensor([1, 3])),
    ],
    "4.4.3": [
        zeroed(ExampleDeepNeuralNetwork([3, 3, 3, 3], True)),
        deep([5, 5, 5, 5, 5], -100.0),
    ],
    "4.5.1": [
        30_736_000,
        30_736_000.0,
        torch.tensor(30_736_000),
        np.float32(30_736_000),
    ],
    "4.5.2": [
        block_without(LAST),
        block_without(["ff.layers.0.weight", "ff.layers.0.bias", *LAST[:2], LAST[3]]),
        block_without(["att.W_value.weight", *LAST[1:]]),
    ],
    "4.5.3": [PostNorm(SMALL), PostNormByFormulas(SMALL)],
    "4.6.1": [354_749_440, torch.tensor(354_749_440), 354_749_440.0],
    "4.6.2": [15, np.int64(15), torch.tensor(15.0)],
    "4.6.3": [tied(0.02), tied_to_out_head()],
    "4.7.1": [85, 85.0, torch.arange(4, 14).sum(), np.sum(range(4, 14))],
    "4.7.2": [
        lambda ids: F.one_hot((ids + 1) % 20, 20),
        nn.Embedding.from_pretrained(torch.eye(20).roll(1, dims=1)),
        lambda ids: -((torch.arange(20) - (ids[..., None] + 1) % 20) ** 2).float(),
    ],
    "4.7.3": [until, until_with_lists],
}

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
        Layer(lambda x: x.cumsum(dim=1)),
        Layer(lambda x: x.mean(dim=1, keepdim=True).expand_as(x)),
        Layer(lambda x: x.mean(dim=1)),
        Layer(lambda x: x.cumsum(dim=0)),
        Layer(lambda x: (x.cumsum(dim=1) - x) / counts(x)),
        Layer(lambda x: x.cumsum(dim=1) / x.shape[1]),
        Layer(lambda x: x.cumsum(dim=1) / torch.arange(1, 6)[:, None]),
        Layer(lambda x: None),
        lambda x: x.cumsum(dim=1) / counts(x),  # no module
        MeanByMatrix,
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
        identity(biases=8),  # right as long as no input is below -5
        nn.Identity(),
        GELU(),
    ],
    "4.4.1": [11, 24, 1.1**24, 0.1**24, 11.0**-24, 11 * 24, (1.1 - 0.1) ** 24, "big"],
    "4.4.2": [[], [1], [2, 4], [0, 1, 2, 3, 4], [1, 1, 3], [8, 4], [1, 2.5], 2, "1, 3"],
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
        NormsSwapped(SMALL),
        NoShortcut(SMALL),
        OnlyFirst(SMALL),
        ReturnsInput(SMALL),
        NormalizesBoth,
        lambda x: x,
    ],
    "4.6.1": [
        406_212_608,
        354_823_168,
        303_359_000,
        124_412_160,
        345_000_000,
        "355M",
        True,
    ],
    "4.6.2": [11, 14, 16, 24, 0, -3, 10**9, 15.7],
    "4.6.3": [
        GPTModel(SMALL),
        tied(),
        copied(),
        tied_by_data(),
        tied(0.02, SMALL | {"vocab_size": 500}),
        GPTModel,
    ],
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
        last_token_alone,
        first_tokens,
        torch.tensor([[1, 2]]),
        lambda *args: None,
        lambda *args: appends_the_end(*args).tolist(),
    ],
}
