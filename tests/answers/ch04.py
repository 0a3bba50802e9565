"""Answers to chapter 4's exercises, right ones and such as a reader gets wrong."""

import copy
from collections import Counter, defaultdict
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ch02.tokenizer import get_tokenizer
from ch03.attention import MultiHeadAttention
from ch04.gpt import (
    GELU,
    GPT_CONFIG_124M,
    DummyGPTModel,
    DummyLayerNorm,
    DummyTransformerBlock,
    ExampleDeepNeuralNetwork,
    FeedForward,
    GPTModel,
    LayerNorm,
    TransformerBlock,
    generate_text_simple,
)
from support.download.texts import load_text
from support.exercises.ch04 import TOY_WORDS

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
PARTS = "norm1", "att", "norm2", "ff"
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


class TwoWords(nn.Module):
    """The toy model that also looks at the word before the last one."""

    def forward(self, ids):
        before = torch.cat((ids[:, :1] * 0 + 5, ids[:, :-1]), dim=1)
        scores = TOY_TABLE[ids]
        scores[(ids == 0) & (before == 3)] = torch.eye(6)[4]
        return scores


TOY_TABLE = torch.tensor(
    [
        [0.0, 3.0, 1.0, 0.0, 2.0, 0.0],
        [0.0, 0.0, 3.0, 1.0, 0.0, 2.0],
        [1.0, 0.0, 0.0, 3.0, 0.0, 2.0],
        [3.0, 1.0, 0.0, 0.0, 1.0, 0.0],
        [0.0, 0.0, 0.0, 1.0, 0.0, 3.0],
        [2.0, 1.0, 0.0, 0.0, 1.0, 0.0],
    ]
)


def two_words_in_loops(ids):
    scores = TOY_TABLE[ids]
    for text, rows in zip(ids.tolist(), scores):
        for i in range(1, len(text)):
            if text[i - 1 : i + 1] == [3, 0]:
                rows[i, 4] = 9
    return scores


def two_words_by_position(ids):
    scores = TOY_TABLE[ids]
    scores[:, 4:5, 4] += 9 * (ids[:, 4:5] == 0)
    return scores


def two_words_of_one_text(ids):
    scores = TOY_TABLE[ids]
    if ids.shape[1] > 1 and ids[0, -2:].tolist() == [3, 0]:
        scores[:, -1, 4] = 9
    return scores


def next_by_loop(logits):
    rows = [text[-1].tolist() for text in logits]
    return [[row.index(max(row))] for row in rows]


def loop_with(choose=None, seen=lambda idx: idx, put=None):
    """A greedy loop with parts that a reader may get wrong."""
    choose = choose or (lambda logits: logits[:, -1].argmax(dim=-1, keepdim=True))
    put = put or (lambda idx, new: torch.cat((idx, new), dim=1))

    def write(model, idx, max_new_tokens):
        for _ in range(max_new_tokens):
            idx = put(idx, choose(model(seen(idx))))
        return idx

    return write


def loop_with_lists(model, idx, max_new_tokens):
    rows = idx.tolist()
    for _ in range(max_new_tokens):
        last = model(torch.tensor(rows))[:, -1].softmax(dim=-1)
        for row, new in zip(rows, last.argmax(dim=-1).tolist()):
            row.append(new)
    return rows


def loop_of_new_tokens(model, idx, max_new_tokens):
    return loop_with()(model, idx, max_new_tokens)[:, idx.shape[1] :]


def loop_from_the_prompt(model, idx, max_new_tokens):
    text = idx
    for _ in range(max_new_tokens):
        text = torch.cat((text, model(idx)[:, -1].argmax(dim=-1, keepdim=True)), dim=1)
    return text


def one_step_more(model, idx, max_new_tokens):
    return loop_with()(model, idx, max_new_tokens + 1)


def window_in_lists(model, idx, max_new_tokens, context_size):
    text = idx.clone()
    while max_new_tokens:
        seen = text if text.shape[1] < context_size else text[:, -context_size:]
        text = torch.hstack((text, model(seen)[:, -1:].argmax(dim=2)))
        max_new_tokens -= 1
    return text.numpy()


def window_that_forgets(model, idx, max_new_tokens, context_size):
    for _ in range(max_new_tokens):
        idx = idx[:, -context_size:]
        idx = torch.cat((idx, model(idx)[:, -1:].argmax(dim=-1)), dim=1)
    return idx[:, -context_size:]


def window_at_the_start(model, idx, max_new_tokens, context_size):
    return loop_with(seen=lambda x: x[:, :context_size])(model, idx, max_new_tokens)


def window_of_one(model, idx, max_new_tokens, context_size):
    return loop_with(seen=lambda x: x[:, -1:])(model, idx, max_new_tokens)


def window_missing(model, idx, max_new_tokens, context_size):
    return loop_with()(model, idx, max_new_tokens)


def window_only_of_the_prompt(model, idx, max_new_tokens, context_size):
    return loop_with()(model, idx[:, -context_size:], max_new_tokens)


def counted(*sizes, penalty=5.0, all_rows=False):
    """A model of the story's counts: what followed the longest context that is known.

    sizes: of the contexts that are looked for, the longest one first.
    """
    story = get_tokenizer().encode(load_text())
    followers = defaultdict(Counter)
    for size in sizes:
        for i in range(len(story) - size):
            followers[tuple(story[i : i + size])][story[i + size]] += 1

    def model(ids):
        scores = torch.zeros(len(ids), ids.shape[1] if all_rows else 1, 50257)
        for row, of_row in zip(ids.tolist(), scores):
            used = Counter(row)
            contexts = [tuple(row[-size:]) for size in sizes]
            known = [context for context in contexts if context in followers]
            for token, count in followers[known[0]].items():
                of_row[-1, token] = count / (1 + penalty * used[token])
        return scores

    return model


class InputOfGPT(nn.Module):
    """Token plus position vectors; the wrong ones below change one thing each."""

    def __init__(self, cfg):
        super().__init__()
        self.tok_emb = nn.Embedding(cfg["vocab_size"], cfg["emb_dim"])
        self.pos_emb = nn.Embedding(cfg["context_length"], cfg["emb_dim"])
        self.drop_emb = nn.Dropout(cfg["drop_rate"])

    def forward(self, in_idx):
        positions = torch.arange(in_idx.shape[1])
        return self.drop_emb(self.tok_emb(in_idx) + self.pos_emb(positions))


class InputByRows(InputOfGPT):
    """Right: cuts the table of the positions, and does not look anything up."""

    def forward(self, in_idx):
        num_tokens = in_idx.size(-1)
        return self.drop_emb(self.pos_emb.weight[:num_tokens] + self.tok_emb(in_idx))


class InputByLoop(InputOfGPT):
    """Right: one position after the other."""

    def forward(self, in_idx):
        vectors = [
            self.tok_emb(in_idx[:, t]) + self.pos_emb(torch.tensor(t))
            for t in range(in_idx.shape[1])
        ]
        return self.drop_emb(torch.stack(vectors, dim=1))


def input_with(forward):
    """A class like InputOfGPT with another forward."""
    return type("GPTInput", (InputOfGPT,), {"forward": forward})


def arange(in_idx, dim=1):
    return torch.arange(in_idx.shape[dim])


class InputWithoutColumns(InputOfGPT):
    """Its tables have exchanged sizes."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.tok_emb = nn.Embedding(cfg["emb_dim"], cfg["vocab_size"])


class InputOfFixedSize(InputOfGPT):
    """Forgets cfg."""

    def __init__(self, cfg):
        super().__init__(GPT_CONFIG_124M)


class DummyByLoop(nn.Module):
    """A right DummyGPTModel: the blocks in a loop, the positions cut from the table."""

    def __init__(self, cfg):
        super().__init__()
        rows, width = cfg["vocab_size"], cfg["emb_dim"]
        self.tok_emb, self.out_head = nn.Embedding(rows, width), nn.Linear(width, rows)
        self.out_head.bias = None
        self.pos_emb = nn.Embedding(cfg["context_length"], width)
        self.drop_emb = nn.Dropout(cfg["drop_rate"])
        self.trf_blocks = nn.Sequential()
        for _ in range(cfg["n_layers"]):
            self.trf_blocks.append(DummyTransformerBlock(cfg))
        self.final_norm = DummyLayerNorm(width)

    def forward(self, in_idx):
        x = self.pos_emb.weight[: in_idx.shape[1]] + self.tok_emb(in_idx)
        x = self.drop_emb(x)
        for block in self.trf_blocks:
            x = block(x)
        return self.out_head(self.final_norm(x))


def dummy_with(forward):
    """A class like DummyGPTModel with another forward."""
    return type("DummyGPTModel", (DummyGPTModel,), {"forward": forward})


def added(model, in_idx):
    return model.tok_emb(in_idx) + model.pos_emb(arange(in_idx))


class DummyWithoutStar(DummyGPTModel):
    """Hands the list of blocks over as one argument."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.trf_blocks = nn.Sequential([DummyTransformerBlock(cfg)])


class DummyWithOneBlock(DummyGPTModel):
    """Repeats the same object."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.trf_blocks = nn.Sequential(*[DummyTransformerBlock(cfg)] * cfg["n_layers"])


class DummyWithBias(DummyGPTModel):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.out_head = nn.Linear(cfg["emb_dim"], cfg["vocab_size"])


def row_by_loop(row):
    numbers = [float(number) for number in row]
    mean = sum(numbers) / len(numbers)
    variance = sum((number - mean) ** 2 for number in numbers) / len(numbers)
    return [(number - mean) / variance**0.5 for number in numbers]


class NormByHand(nn.Module):
    """A right LayerNorm; the wrong ones below change one thing each."""

    def __init__(self, emb_dim):
        super().__init__()
        self.eps = 1e-5
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))

    def forward(self, x):
        differences = x - x.mean(-1, keepdim=True)
        variance = (differences**2).mean(-1, keepdim=True)
        return differences / (variance + self.eps) ** 0.5 * self.scale + self.shift


def norm_with(forward):
    """A class like LayerNorm with another forward."""
    return type("LayerNorm", (NormByHand,), {"forward": forward})


def normed_over(dim, unbiased=False, keepdim=True, eps=1e-5):
    """A LayerNorm with other arguments of mean and var."""

    def forward(self, x):
        mean = x.mean(dim=dim, keepdim=keepdim)
        var = x.var(dim=dim, keepdim=keepdim, unbiased=unbiased)
        return self.scale * (x - mean) / torch.sqrt(var + eps) + self.shift

    return norm_with(forward)


def bare_norm(x):
    return F.layer_norm(x, x.shape[-1:])


class NormWithoutParameters(NormByHand):
    """Its scale and shift are plain tensors, which no optimizer finds."""

    def __init__(self, emb_dim):
        nn.Module.__init__(self)
        self.eps = 1e-5
        self.scale, self.shift = torch.ones(emb_dim), torch.zeros(emb_dim)


class NormFromZero(NormByHand):
    def __init__(self, emb_dim):
        super().__init__(emb_dim)
        nn.init.zeros_(self.scale)


def half_in_steps(x, norm, part):
    shortcut = x
    x = norm(x)
    return torch.add(part(x), shortcut)


def half_by_rows(x, norm, part):
    """One token after the other."""
    rows = [row + part(norm(row)) for row in x.reshape(-1, x.shape[-1])]
    return torch.stack(rows).reshape(x.shape)


def half_in_place(x, norm, part):
    x += part(norm(x))
    return x


def half_of_normalized(x, norm, part):
    x = norm(x)
    return x + part(x)


class BlockInSteps(nn.Module):
    """A transformer block with a step in each line."""

    def __init__(self, cfg):
        super().__init__()
        width, rate = cfg["emb_dim"], cfg["drop_rate"]
        self.norm1, self.norm2 = nn.LayerNorm(width), LayerNorm(width)
        self.ff = FeedForward(cfg)
        self.att = MultiHeadAttention(
            width, width, cfg["context_length"], rate, cfg["n_heads"], cfg["qkv_bias"]
        )
        self.rate = rate

    def forward(self, x):
        for norm, part in ((self.norm1, self.att), (self.norm2, self.ff)):
            shortcut = x
            x = part(norm(x))
            x = F.dropout(x, self.rate, self.training)
            x = shortcut + x
        return x


class BlockAsSum(TransformerBlock):
    """The input, and what both halves add."""

    def forward(self, x):
        one = self.drop_resid(self.att(self.norm1(x)))
        return x + one + self.drop_shortcut(self.ff(self.norm2(x + one)))


def block_with(forward, base=TransformerBlock):
    """The class of a block, with another forward."""
    return type("TransformerBlock", (base,), {"forward": forward})


class BlockOfOneHead(TransformerBlock):
    def __init__(self, cfg):
        super().__init__(cfg | {"n_heads": 1})


class BlockWithShortContext(TransformerBlock):
    def __init__(self, cfg):
        super().__init__(cfg | {"context_length": cfg["emb_dim"]})


class BlockWithOneNorm(TransformerBlock):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.norm2 = self.norm1


class BlockWithoutAttentionDropout(TransformerBlock):
    def __init__(self, cfg):
        super().__init__(cfg | {"drop_rate_attn": 0.0})


def shortcuts_after_norms(block, x):
    x = block.norm1(x)
    x = x + block.drop_resid(block.att(x))
    x = block.norm2(x)
    return x + block.drop_resid(block.ff(x))


def feed_forward_first(block, x):
    x = x + block.drop_resid(block.ff(block.norm2(x)))
    return x + block.drop_resid(block.att(block.norm1(x)))


def both_read_x(block, x):
    a, b = block.att(block.norm1(x)), block.ff(block.norm2(x))
    return x + block.drop_resid(a) + block.drop_resid(b)


def second_shortcut_from_x(block, x):
    h = x + block.drop_resid(block.att(block.norm1(x)))
    return x + block.drop_resid(block.ff(block.norm2(h)))


def without_dropout(block, x):
    x = x + block.att(block.norm1(x))
    return x + block.ff(block.norm2(x))


def dropout_of_sums(block, x):
    x = block.drop_resid(x + block.att(block.norm1(x)))
    return block.drop_resid(x + block.ff(block.norm2(x)))


def dropout_before_parts(block, x):
    x = x + block.att(block.drop_resid(block.norm1(x)))
    return x + block.ff(block.drop_resid(block.norm2(x)))


def without_norms(block, x):
    x = x + block.drop_resid(block.att(x))
    return x + block.drop_resid(block.ff(x))


def without_gradient(block, x):
    return TransformerBlock.forward(block, x).detach()


def pieces(block, x):
    a = block.att(block.norm1(x))
    return a, block.ff(block.norm2(x + a))


@torch.no_grad()
def pieces_by_difference(block, x):
    """The second one is what is missing to the output."""
    a = block.att(block.norm1(x))
    return [a, block(x) - x - a]


def pieces_that_read_x(block, x):
    return block.att(block.norm1(x)), block.ff(block.norm2(x))


class GPTInSteps(nn.Module):
    """A GPT with a list of blocks, and one-hot vectors times tables."""

    def __init__(self, cfg):
        super().__init__()
        width = cfg["emb_dim"]
        self.tok_emb = nn.Embedding(cfg["vocab_size"], width)
        self.pos_emb = nn.Embedding(cfg["context_length"], width)
        self.dropout = nn.Dropout(cfg["drop_rate"])
        self.trf_blocks = nn.ModuleList()
        for _ in range(cfg["n_layers"]):
            self.trf_blocks.append(TransformerBlock(cfg))
        self.final_norm = nn.LayerNorm(width)
        self.out_head = nn.Linear(width, cfg["vocab_size"], bias=False)

    def forward(self, in_idx):
        ids = F.one_hot(in_idx, len(self.tok_emb.weight)).float()
        x = ids @ self.tok_emb.weight + self.pos_emb.weight[: in_idx.shape[1]]
        x = self.dropout(x)
        for block in self.trf_blocks:
            x = block(x)
        return self.out_head(self.final_norm(x))


class GPTOfProbabilities(GPTModel):
    def forward(self, in_idx):
        return torch.softmax(super().forward(in_idx), dim=-1)


class GPTOfLastRow(GPTModel):
    def forward(self, in_idx):
        return super().forward(in_idx)[:, -1]


class GPTWithoutPositions(GPTModel):
    def forward(self, in_idx):
        x = self.trf_blocks(self.drop_emb(self.tok_emb(in_idx)))
        return self.out_head(self.final_norm(x))


class GPTOfFixedLength(GPTModel):
    def forward(self, in_idx):
        x = self.tok_emb(in_idx) + self.pos_emb.weight
        return self.out_head(self.final_norm(self.trf_blocks(self.drop_emb(x))))


class GPTWithoutFinalNorm(GPTModel):
    def forward(self, in_idx):
        x = self.tok_emb(in_idx) + self.pos_emb.weight[: in_idx.shape[1]]
        return self.out_head(self.trf_blocks(self.drop_emb(x)))


class GPTWithoutDropout(GPTModel):
    def forward(self, in_idx):
        x = self.tok_emb(in_idx) + self.pos_emb.weight[: in_idx.shape[1]]
        return self.out_head(self.final_norm(self.trf_blocks(x)))


class GPTOfOneBlock(GPTModel):
    """Its blocks are one and the same."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.trf_blocks = nn.Sequential(*[self.trf_blocks[0]] * cfg["n_layers"])


class GPTWithBias(GPTModel):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.out_head = nn.Linear(cfg["emb_dim"], cfg["vocab_size"])


def count_in_a_loop(model):
    total = 0
    for _, parameter in model.named_parameters():
        rows = 1
        for size in parameter.shape:
            rows *= size
        total += rows
    return torch.tensor(total)


def count_by_layers(model):
    """Counts a parameter that is used twice for each of its layers."""
    return sum(p.numel() for m in model.modules() for p in m.parameters(False))


def ties_tok_emb(model):
    model.tok_emb.weight = model.out_head.weight
    return model


def ties_out_head(model):
    model.out_head.weight = model.tok_emb.weight


def ties_a_copy(model):
    copied_model = copy.deepcopy(model)
    ties_out_head(copied_model)
    return copied_model


def ties_data(model):
    model.out_head.weight.data = model.tok_emb.weight.data


def ties_copied_numbers(model):
    with torch.no_grad():
        model.out_head.weight.copy_(model.tok_emb.weight)


def ties_modules(model):
    model.out_head = model.tok_emb


def ties_a_new_table(model):
    model.tok_emb.weight = nn.Parameter(model.tok_emb.weight.clone())
    model.out_head.weight = model.tok_emb.weight


def sized(emb_dim, n_layers, **more):
    """A config with heads of 64 numbers and short texts."""
    sizes = {"emb_dim": emb_dim, "n_heads": emb_dim // 64, "n_layers": n_layers}
    return GPT_CONFIG_124M | sizes | {"context_length": 256} | more


def relu_by_where(x):
    return torch.where(x > 0, x, torch.zeros(()))


def relu_in_place(x):
    x[x < 0] = 0
    return x


def gelu_by_formula(x, root=0.5, power=3, half=0.5, one=1.0):
    """GELU's tanh formula, with parts that a reader may get wrong."""
    inner = (2 / torch.pi) ** root * (x + 0.044715 * x**power)
    return half * x * (one + torch.tanh(inner))


def gelu_by_powers(x):
    """The same in NumPy: (1 + tanh(y)) / 2 is 1 / (1 + exp(-2 y))."""
    x = x.double().numpy()
    return x / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x * x * x)))


def feed_forward_with(activation, last=nn.Identity, factor=4, bias=True):
    """A class like FeedForward with parts that a reader may get wrong."""

    class FeedForward(nn.Module):
        def __init__(self, cfg):
            super().__init__()
            d = cfg["emb_dim"]
            self.fc1 = nn.Linear(d, factor * d, bias)
            self.fc2 = nn.Linear(factor * d, d, bias)
            self.activation, self.last = activation(), last()

        def forward(self, x):
            return self.last(self.fc2(self.activation(self.fc1(x))))

    return FeedForward


class FeedForwardByFormula(nn.Module):
    """The same, with the reader's own formula."""

    def __init__(self, cfg):
        super().__init__()
        d = cfg["emb_dim"]
        self.back, self.forth = nn.Linear(4 * d, d), nn.Linear(d, 4 * d)

    def forward(self, x):
        return self.back(gelu_by_formula(self.forth(x)))


class FeedForwardGeluFirst(FeedForward):
    def forward(self, x):
        return self.layers[2](self.layers[0](self.layers[1](x)))


class FeedForwardDetached(FeedForward):
    def forward(self, x):
        return super().forward(x).detach()


class FeedForwardStopsEarly(FeedForward):
    def forward(self, x):
        return self.layers[:2](x)


def linear_by_sums(network, d):
    a, b = torch.randn(2, 50, d)
    rest = network(a + b) + network(torch.zeros(1, d)) - network(a) - network(b)
    return bool(rest.abs().max() < 1e-4)


def linear_by_matrix(network, d):
    """Builds the only linear layer that it could be, and compares."""
    bias = network(torch.zeros(1, d))
    matrix = network(torch.eye(d)) - bias
    x = 3 * torch.randn(40, d)
    return torch.allclose(network(x), x @ matrix + bias, atol=1e-4)


def linear_by_halves(network, d):
    """The middle between two inputs leads to the middle between two outputs."""
    a, b = torch.randn(30, d), torch.randn(30, d)
    middle = (network(a) + network(b)) / 2
    return torch.allclose(network((a + b) / 2), middle, atol=1e-4)


def linear_without_bias(network, d):
    a, b = torch.randn(2, 50, d)
    return torch.allclose(network(a + b), network(a) + network(b), atol=1e-4)


def linear_if_scaled(network, d):
    """Does not notice ReLU without biases."""
    a, zero = torch.randn(50, d), network(torch.zeros(1, d))
    return torch.allclose(network(2 * a) - zero, 2 * (network(a) - zero), atol=1e-4)


def through(layers, x, use_shortcut):
    for layer in layers:
        out = layer(x)
        x = x + out if use_shortcut and x.shape == out.shape else out
    return x


def through_by_recursion(layers, x, use_shortcut):
    if not len(layers):
        return x
    output = layers[0](x)
    if use_shortcut and x.size(-1) == output.size(-1):
        output = torch.add(output, x)
    return through_by_recursion(layers[1:], output, use_shortcut)


def through_without_looking(layers, x, use_shortcut):
    for layer in layers:
        x = x + layer(x) if use_shortcut else layer(x)
    return x


def through_or_error(layers, x, use_shortcut):
    """Believes that + raises an error whenever the shapes differ."""
    for layer in layers:
        out = layer(x)
        try:
            x = x + out if use_shortcut else out
        except RuntimeError:
            x = out
    return x


def through_from_the_start(layers, x, use_shortcut):
    start = x
    for layer in layers:
        x = layer(x)
        if use_shortcut and start.shape == x.shape:
            x = start + x
    return x


def through_in_place(layers, x, use_shortcut):
    for layer in layers:
        out = layer(x)
        if use_shortcut and x.shape == out.shape:
            x += out
        else:
            x = out
    return x


def gradients_with(of=lambda g: g.abs().mean(), clear=True, loss=None, names="weight"):
    """Mean gradients, with parts that a reader may get wrong."""
    loss = loss or (lambda out: F.mse_loss(out, torch.zeros_like(out)))

    def answer(model, x):
        if clear:
            model.zero_grad()
        loss(model(x)).backward()
        return [
            of(parameter.grad)
            for name, parameter in model.named_parameters()
            if name.endswith(names)
        ]

    return answer


def gradients_by_autograd(model, x):
    weights = [layer[0].weight for layer in model.layers]
    gradients = torch.autograd.grad((model(x) ** 2).mean(), weights)
    return torch.tensor([g.abs().sum().item() / g.numel() for g in gradients])


class ProjectedNetwork(nn.Module):
    """A network with a shortcut around every layer."""

    def __init__(self, layer_sizes):
        super().__init__()
        pairs = [*zip(layer_sizes, layer_sizes[1:])]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(a, b), GELU()) for a, b in pairs
        )
        self.shortcuts = nn.ModuleList(self.shortcut(a, b) for a, b in pairs)

    def shortcut(self, a, b):
        return nn.Identity() if a == b else nn.Linear(a, b, bias=False)

    def forward(self, x):
        for layer, shortcut in zip(self.layers, self.shortcuts):
            x = shortcut(x) + layer(x)
        return x


class ProjectedByIndex(ProjectedNetwork):
    """The same, written another way."""

    def shortcut(self, a, b):
        return nn.Linear(a, b, False) if a != b else nn.Sequential()

    def forward(self, x):
        for i in range(len(self.layers)):
            layer_output = self.layers[i](x)
            x = layer_output + self.shortcuts[i](x)
        return x


class ProjectedEverywhere(ProjectedNetwork):
    def shortcut(self, a, b):
        return nn.Linear(a, b, bias=False)


class ProjectedWithBias(ProjectedNetwork):
    def shortcut(self, a, b):
        return nn.Identity() if a == b else nn.Linear(a, b)


class ProjectedNowhere(ProjectedNetwork):
    def shortcut(self, a, b):
        return nn.Identity()


class ProjectedInAChain(ProjectedNetwork):
    def forward(self, x):
        for layer, shortcut in zip(self.layers, self.shortcuts):
            x = shortcut(layer(x)) if x.shape == layer(x).shape else shortcut(x)
        return x


RIGHT = {
    "4.1.a": [InputOfGPT, InputByRows, InputByLoop],
    "4.1.b": [DummyGPTModel, DummyByLoop],
    "4.1.1": [RIGHT_CONFIG, dict(sorted(RIGHT_CONFIG.items()))],
    "4.1.2": [
        8 * 1024 * 50257 * 4,
        np.float32(1_646_821_376),
        torch.tensor(1_646_821_376),
    ],
    "4.1.3": [Layer(lambda x: x.cumsum(dim=1) / counts(x)), MeanByMatrix()],
    "4.1.4": [[5, 2, 4], (5, 2, 4), torch.tensor([5, 2, 4]), np.array([5.0, 2, 4])],
    "4.2.a": [
        row_by_loop,
        lambda row: (row - row.mean()) / row.std(unbiased=False),
        lambda row: F.layer_norm(row, row.shape),
    ],
    "4.2.b": [NormByHand, LayerNorm, normed_over(-1), normed_over(2)],
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
    "4.2.3": [
        [[0, 1, 2, 3, 4], [2]],
        (range(5), {2}),
        [torch.arange(5), np.array([2])],
        ([4, 3, 2, 1, 0], (2.0,)),
    ],
    "4.3.a": [
        lambda x: x.clamp(min=0),
        relu_by_where,
        lambda x: x * (x > 0),
        lambda x: (x + x.abs()) / 2,
        lambda x: np.maximum(x.numpy(), 0),
    ],
    "4.3.b": [gelu_by_formula, gelu_by_powers],
    "4.3.c": [FeedForward, FeedForwardByFormula, feed_forward_with(GELU)],
    "4.3.1": [[0, 1, 1, -1], (0.0, 1.0, 1.0, -1.0), np.array([0, 1, 1, -1])],
    "4.3.2": [identity(), identity(biases=100)],
    "4.3.3": [linear_by_sums, linear_by_matrix, linear_by_halves],
    "4.4.a": [through, through_by_recursion],
    "4.4.b": [gradients_with(), gradients_by_autograd],
    "4.4.c": [
        lambda vectors: vectors.std(dim=0).mean().item(),
        lambda vectors: vectors.numpy().std(axis=0).mean(),
        lambda vectors: sum(column.std() for column in vectors.T) / vectors.shape[1],
    ],
    "4.4.1": [
        (0.9**10, 0.1**10),
        [0.349, 1e-10],
        torch.tensor([(-0.9) ** 10, (1 - 0.9) ** 10]),
        np.array([0.3487, 1e-10]),
    ],
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
        zeroed(ProjectedNetwork([4, 4, 4, 4])),  # a class of the reader's own
    ],
    "4.4.4": [ProjectedNetwork, ProjectedByIndex],
    "4.5.a": [
        lambda x, norm, part: x + part(norm(x)),
        half_in_steps,
        half_by_rows,
    ],
    "4.5.b": [TransformerBlock, BlockInSteps, BlockAsSum],
    "4.5.c": [
        pieces,
        pieces_by_difference,
        lambda block, x: torch.stack(pieces(block, x)),
    ],
    "4.5.1": [
        {"norm1": [2], "att": [2, 3, 4, 5], "norm2": range(2, 6), "ff": {2, 3, 4, 5}},
        {name: np.arange(2, 3 if name == "norm1" else 6) for name in PARTS},
    ],
    "4.5.2": [
        block_without(LAST),
        block_without(["ff.layers.0.weight", "ff.layers.0.bias", *LAST[:2], LAST[3]]),
        block_without(["att.W_value.weight", *LAST[1:]]),
    ],
    "4.5.3": [PostNorm(SMALL), PostNormByFormulas(SMALL)],
    "4.6.a": [GPTModel, GPTInSteps],
    "4.6.b": [
        lambda model: sum(p.numel() for p in model.parameters()),
        count_in_a_loop,
        lambda model: np.sum([p.numel() for p in {*model.parameters()}]),
    ],
    "4.6.c": [ties_out_head, ties_tok_emb],
    "4.6.1": [
        [(0, 2), (0, 3)],
        {(0, 3), (0, 2)},
        [[0, 2], [0, 3]],
        torch.tensor([[0, 2], [0, 3]]),
    ],
    "4.6.2": [sized(256, 20), sized(192, 40), sized(128, 112)],
    "4.6.3": [tied(0.02), tied_to_out_head()],
    "4.7.a": [
        lambda logits: logits[:, -1].argmax(dim=-1, keepdim=True),
        lambda logits: logits[:, -1:, :].softmax(dim=-1).argmax(dim=-1),
        next_by_loop,
        lambda logits: logits.numpy()[:, -1].argmax(axis=1)[:, None],
        lambda logits: logits[:, -1].topk(1).indices,
    ],
    "4.7.b": [loop_with(), loop_with_lists],
    "4.7.c": [generate_text_simple, window_in_lists],
    "4.7.1": [
        ["the", "cat", "sat", "on"],
        {"on", "sat", "cat", "the"},
        [0, 1, 2, 3],
        torch.arange(4),
        "the, cat, sat, on",
    ],
    "4.7.2": [TwoWords(), two_words_in_loops],
    "4.7.3": [until, until_with_lists],
    "4.7.4": [counted(1), counted(1, penalty=2.0, all_rows=True)],
}

WRONG = {
    "4.1.a": [
        input_with(lambda self, ids: self.drop_emb(self.tok_emb(ids))),
        input_with(lambda self, ids: self.tok_emb(ids) + self.pos_emb(arange(ids))),
        input_with(
            lambda self, ids: self.drop_emb(self.tok_emb(ids) + self.pos_emb(ids))
        ),
        input_with(
            lambda self, ids: self.drop_emb(self.tok_emb(ids) + self.pos_emb.weight)
        ),
        input_with(
            lambda self, ids: self.drop_emb(
                self.tok_emb(ids) + self.pos_emb(arange(ids, 0))
            )
        ),
        input_with(
            lambda self, ids: self.drop_emb(
                self.tok_emb(ids) + self.pos_emb((arange(ids) + 1) % 9)
            )
        ),
        input_with(
            lambda self, ids: (
                self.drop_emb(self.tok_emb(ids))
                + self.drop_emb(self.pos_emb(arange(ids)))
            )
        ),
        input_with(
            lambda self, ids: torch.cat(
                (self.tok_emb(ids), self.pos_emb(arange(ids).expand_as(ids))), dim=-1
            )
        ),
        input_with(lambda self, ids: F.dropout(added(self, ids), 0.5)),
        input_with(lambda self, ids: self.drop_emb(added(self, ids).detach())),
        InputWithoutColumns,
        InputOfFixedSize,
        nn.Embedding(30, 6),
    ],
    "4.1.b": [
        dummy_with(lambda self, ids: self.out_head(self.trf_blocks(added(self, ids)))),
        dummy_with(lambda self, ids: self.trf_blocks(self.drop_emb(added(self, ids)))),
        dummy_with(
            lambda self, ids: self.out_head(
                self.final_norm(self.trf_blocks(self.drop_emb(self.tok_emb(ids))))
            )
        ),
        dummy_with(
            lambda self, ids: self.out_head(
                self.trf_blocks(self.final_norm(self.drop_emb(added(self, ids))))
            )
        ),
        dummy_with(
            lambda self, ids: self.out_head(
                self.final_norm(self.trf_blocks(added(self, ids)))
            )
        ),
        dummy_with(
            lambda self, ids: self.out_head(
                self.final_norm(self.drop_emb(added(self, ids)))
            )
        ),
        dummy_with(lambda self, ids: DummyGPTModel.forward(self, ids).softmax(dim=-1)),
        dummy_with(lambda self, ids: DummyGPTModel.forward(self, ids)[:, -1]),
        dummy_with(lambda self, ids: DummyGPTModel.forward(self, ids).detach()),
        DummyWithOneBlock,
        DummyWithoutStar,
        DummyWithBias,
        InputOfGPT,
        DummyGPTModel(GPT_CONFIG_124M | {"vocab_size": 30}),
    ],
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
    "4.1.4": [[5, 5, 5], [5, 2, 5], [2, 2, 4], [5, 2, 2], [5, 2], 5, "five", [0, 0, 0]],
    "4.2.a": [
        lambda row: (row - row.mean()) / row.std(),
        lambda row: (row - row.mean()) / row.var(unbiased=False),
        lambda row: row - row.mean(),
        lambda row: row - row.mean() / row.std(unbiased=False),
        lambda row: row / row.std(unbiased=False),
        lambda row: (row - row.mean()) / (row - row.mean()).norm(),
        lambda row: torch.softmax(row, dim=-1),
        lambda row: row.mean(),
        lambda row: None,
    ],
    "4.2.b": [
        normed_over(-1, unbiased=True),
        normed_over(1),
        normed_over(0),
        normed_over((0, 1, 2)),
        normed_over((1, 2)),
        normed_over(-1, keepdim=False),
        normed_over(-1, eps=0),
        norm_with(lambda self, x: bare_norm(x)),
        norm_with(lambda self, x: bare_norm(x) * self.scale),
        norm_with(lambda self, x: (bare_norm(x) + self.shift) * self.scale),
        norm_with(lambda self, x: (bare_norm(x) * self.scale + self.shift).detach()),
        norm_with(
            lambda self, x: (
                (x - x.mean(-1, keepdim=True))
                / (x.std(-1, keepdim=True, unbiased=False) + 1e-5)
                * self.scale
                + self.shift
            )
        ),
        NormWithoutParameters,
        NormFromZero,
        nn.LayerNorm,
        LayerNorm(5),
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
        [[2], [0, 1, 2, 3, 4]],
        [[2], [2]],
        [[2, 3, 4], [2]],
        [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]],
        [[0, 1, 2, 3, 4], []],
        [0, 1, 2, 3, 4],
        [[1, 2, 3, 4, 5], [3]],
        [[0, 1, 2, 3, 4], 2],
        "all, and 2",
    ],
    "4.3.a": [
        lambda x: x.abs(),
        lambda x: x.clamp(max=0),
        lambda x: x > 0,
        lambda x: x[x > 0],
        lambda x: torch.relu(x),
        lambda x: torch.where(x > 0, x, 0.01 * x),
        relu_in_place,
        lambda x: None,
        3,
    ],
    "4.3.b": [
        F.gelu,
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: gelu_by_formula(x, root=1),
        lambda x: gelu_by_formula(x, power=2),
        lambda x: gelu_by_formula(x, half=1),
        lambda x: gelu_by_formula(x, one=0),
        lambda x: gelu_by_formula(x) / x,
        lambda x: x * torch.sigmoid(1.702 * x),
        lambda x: x.clamp(min=0),
        lambda x: x * (0.5 + torch.erf(x / 2**0.5) / 2),
    ],
    "4.3.c": [
        feed_forward_with(nn.Identity),
        feed_forward_with(nn.ReLU),
        feed_forward_with(nn.GELU),
        feed_forward_with(GELU, last=GELU),
        feed_forward_with(nn.Identity, last=GELU),
        feed_forward_with(GELU, factor=1),
        feed_forward_with(GELU, factor=2),
        feed_forward_with(GELU, bias=False),
        FeedForwardGeluFirst,
        FeedForwardDetached,
        FeedForwardStopsEarly,
        FeedForward({"emb_dim": 8}),
    ],
    "4.3.1": [
        [5, 3, 1, -1],
        [0, 1, 2, 2],
        [0, 1, 5, 11],
        [-1, 1, 1, -1],
        [0, 1, 1],
        [0, 1, 1, 1],
        1,
        "0, 1, 1, -1",
    ],
    "4.3.2": [
        FeedForward({"emb_dim": 8}),
        FeedForward({"emb_dim": 768}),
        relu_style(),
        identity(biases=8),  # right as long as no input is below -5
        nn.Identity(),
        GELU(),
    ],
    "4.3.3": [
        linear_without_bias,
        linear_if_scaled,
        lambda network, d: True,
        lambda network, d: False,
        lambda network, d: torch.equal(*2 * [network(torch.eye(d))]),
        lambda network, d: None,
        True,
    ],
    "4.4.a": [
        through_without_looking,
        through_or_error,
        through_from_the_start,
        through_in_place,
        lambda layers, x, use_shortcut: through(layers, x, False),
        lambda layers, x, use_shortcut: through(layers, x, True),
        lambda layers, x, use_shortcut: through(layers, x, use_shortcut).detach(),
        lambda layers, x, use_shortcut: x,
        lambda layers, x, use_shortcut: None,
    ],
    "4.4.b": [
        gradients_with(of=torch.mean),
        gradients_with(of=lambda g: g.abs().sum()),
        gradients_with(of=torch.norm),
        gradients_with(clear=False),
        gradients_with(loss=torch.sum),
        gradients_with(names=("weight", "bias")),
        gradients_with(names="bias"),
        lambda model, x: gradients_with()(model, x)[::-1],
        lambda model, x: [layer[0].weight.abs().mean() for layer in model.layers],
        lambda model, x: None,
    ],
    "4.4.c": [
        lambda vectors: vectors.std(dim=1).mean(),
        lambda vectors: vectors.std(),
        lambda vectors: vectors.std(dim=0),
        lambda vectors: vectors.var(dim=0).mean(),
        lambda vectors: vectors.std(dim=0).sum(),
        lambda vectors: vectors.mean(dim=0).std(),
        lambda vectors: vectors.abs().mean(),
        lambda vectors: None,
    ],
    "4.4.1": [
        (0.1**10, 0.9**10),
        (0.9**10, 1.9**10),
        (-(0.9**10), 0.1**10),
        (0.9**10, 0.1),
        (-9, 1),
        0.9**10,
        "smaller",
    ],
    "4.4.2": [[], [1], [2, 4], [0, 1, 2, 3, 4], [1, 1, 3], [8, 4], [1, 2.5], 2, "1, 3"],
    "4.4.3": [
        ExampleDeepNeuralNetwork([3, 3, 3, 3], True),
        zeroed(ExampleDeepNeuralNetwork([3, 3, 3, 3], False)),
        zeroed(ExampleDeepNeuralNetwork([3, 3, 3], True)),
        zeroed(ExampleDeepNeuralNetwork([3, 3, 3, 3], True), biases=False),
        zeroed(ExampleDeepNeuralNetwork([3, 3, 3, 1], True)),
        identity(),  # no shortcuts, and yet it returns its input
        nn.Identity(),
        ExampleDeepNeuralNetwork,
    ],
    "4.4.4": [
        ProjectedEverywhere,
        ProjectedWithBias,
        ProjectedNowhere,
        ProjectedInAChain,
        partial(ExampleDeepNeuralNetwork, use_shortcut=True),
        ProjectedNetwork([3, 3, 1]),
    ],
    "4.5.a": [
        lambda x, norm, part: part(norm(x)),
        lambda x, norm, part: x + part(x),
        lambda x, norm, part: norm(x + part(x)),
        lambda x, norm, part: x + norm(part(x)),
        lambda x, norm, part: x + norm(x),
        lambda x, norm, part: norm(x + part(norm(x))),
        lambda x, norm, part: (x + part(norm(x))).detach(),
        lambda x, norm, part: None,
        half_of_normalized,
        half_in_place,
    ],
    "4.5.b": [
        block_with(shortcuts_after_norms),
        block_with(feed_forward_first),
        block_with(both_read_x),
        block_with(second_shortcut_from_x),
        block_with(without_dropout),
        block_with(dropout_of_sums),
        block_with(dropout_before_parts),
        block_with(without_norms),
        block_with(without_gradient),
        block_with(lambda block, x: block.att(block.norm1(x))),
        block_with(lambda block, x: x + block.att(block.norm1(x))),
        BlockOfOneHead,
        BlockWithShortContext,
        BlockWithOneNorm,
        BlockWithoutAttentionDropout,
        PostNorm,
        NormsSwapped,
        NoShortcut,
        ReturnsInput,
        TransformerBlock(SMALL),
        nn.Identity,
    ],
    "4.5.c": [
        pieces_that_read_x,
        lambda block, x: pieces(block, x)[::-1],
        lambda block, x: (x + pieces(block, x)[0], block(x)),
        lambda block, x: (pieces(block, x)[0], block(x)),
        lambda block, x: (pieces(block, x)[0], block(x) - x),
        lambda block, x: (block.att(x), block.ff(x)),
        lambda block, x: (pieces(block, x)[0], block.ff(x + pieces(block, x)[0])),
        lambda block, x: pieces(block, x)[0],
        lambda block, x: None,
    ],
    "4.5.1": [
        {name: [2] for name in PARTS},
        {name: [2, 3, 4, 5] for name in PARTS},
        {"norm1": [2], "att": [3, 4, 5], "norm2": [3, 4, 5], "ff": [3, 4, 5]},
        {"norm1": [2], "att": [2, 3, 4, 5], "norm2": [2], "ff": [2]},
        {"norm1": [2], "att": [2, 3, 4, 5], "norm2": [2, 3, 4, 5], "ff": [2]},
        {"norm1": [2], "att": [0, 1, 2], "norm2": [0, 1, 2], "ff": [0, 1, 2]},
        {"norm1": [2], "att": range(6), "norm2": range(6), "ff": range(6)},
        {"norm1": [3], "att": [3, 4, 5, 6], "norm2": [3, 4, 5, 6], "ff": [3, 4, 5, 6]},
        {"att": [2, 3, 4, 5]},
        [2, 3, 4, 5],
    ],
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
    "4.6.a": [
        DummyGPTModel,
        GPTOfProbabilities,
        GPTOfLastRow,
        GPTWithoutPositions,
        GPTOfFixedLength,
        GPTWithoutFinalNorm,
        GPTWithoutDropout,
        GPTOfOneBlock,
        GPTWithBias,
        GPTModel(SMALL),
        TransformerBlock,
    ],
    "4.6.b": [
        lambda model: len(list(model.parameters())),
        lambda model: sum(p.shape[0] for p in model.parameters()),
        lambda model: sum(p.numel() for p in model.parameters() if p.dim() > 1),
        lambda model: sum(t.numel() for t in model.state_dict().values()),
        lambda model: next(model.parameters()).numel(),
        lambda model: print(sum(p.numel() for p in model.parameters())),
        count_by_layers,
        163_009_536,
    ],
    "4.6.c": [
        ties_data,
        ties_copied_numbers,
        ties_modules,
        ties_a_copy,
        ties_a_new_table,
        lambda model: model,
        lambda model: model.out_head.weight is model.tok_emb.weight,
    ],
    "4.6.1": [
        [2, 3],
        [(0, 2)],
        [(0, 3)],
        [(0, 0), (0, 1), (0, 2), (0, 3)],
        [(0, 2), (0, 3), (1, 2), (1, 3)],
        [(2, 0), (3, 0)],
        [(1, 3), (1, 4)],
        8,
    ],
    "4.6.2": [
        GPT_CONFIG_124M,
        sized(384, 6),
        sized(320, 10),
        sized(256, 12),
        sized(256, 24),
        sized(256, 20, n_heads=8),
        sized(256, 20, context_length=1024),
        sized(64, 400, vocab_size=1000),
        sized(256, 10**6),
        {"emb_dim": 256, "n_layers": 20},
    ],
    "4.6.3": [
        GPTModel(SMALL),
        tied(),
        copied(),
        tied_by_data(),
        tied(0.02, SMALL | {"vocab_size": 500}),
        tied(0.3),
        GPTModel,
    ],
    "4.7.a": [
        lambda logits: logits.argmax(dim=-1),
        lambda logits: logits[:, -1].argmax(dim=-1),
        lambda logits: logits[:, 0].argmax(dim=-1, keepdim=True),
        lambda logits: logits[-1].argmax(dim=-1),
        lambda logits: logits[-1].argmax(dim=-1, keepdim=True),
        lambda logits: logits.argmax(),
        lambda logits: logits[:, -1].argmax(),
        lambda logits: logits.flatten(1).argmax(dim=1, keepdim=True),
        lambda logits: logits[:, -1].amax(dim=-1, keepdim=True),
        lambda logits: logits[:, -1].argmin(dim=-1, keepdim=True),
        lambda logits: logits[:, -1].softmax(dim=-1),
        lambda logits: None,
    ],
    "4.7.b": [
        loop_of_new_tokens,
        loop_from_the_prompt,
        one_step_more,
        loop_with(seen=lambda idx: idx[:, -1:]),
        loop_with(put=lambda idx, new: torch.cat((new, idx), dim=1)),
        loop_with(put=lambda idx, new: idx),
        loop_with(choose=lambda logits: logits[:, :1].argmax(dim=-1)),
        loop_with(choose=lambda logits: logits[:, -1].argmax(dim=-1)),
        lambda model, idx, max_new_tokens: None,
    ],
    "4.7.c": [
        window_missing,
        window_that_forgets,
        window_at_the_start,
        window_of_one,
        window_only_of_the_prompt,
        lambda model, idx, max_new_tokens, context_size: idx,
    ],
    "4.7.1": [
        ["the", "cat", "sat", "on", "mat"],
        ["the", "cat", "sat", "on", "."],
        TOY_WORDS,
        ["the", "cat"],
        ["dog"],
        [6],
        4,
        "on",
    ],
    "4.7.2": [
        lambda ids: TOY_TABLE[ids],
        two_words_by_position,
        two_words_of_one_text,
        lambda ids: TOY_TABLE[ids[:, -1]],
        lambda ids: TOY_TABLE[ids] + 9 * F.one_hot(torch.tensor(4), 6),
        TOY_TABLE,
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
    "4.7.4": [
        counted(1, penalty=0.0),
        counted(3, 2, 1, penalty=0.0),
        lambda ids: torch.randn(len(ids), ids.shape[1], 50257),
        lambda ids: torch.zeros(ids.shape),
        "a model",
    ],
}
