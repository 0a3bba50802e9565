"""Answers to chapter 3's exercises, right ones and such as a reader gets wrong."""

import copy
from fractions import Fraction

import numpy as np
import torch

from ch03.attention import (
    CausalAttention,
    MultiHeadAttention,
    MultiHeadAttentionWrapper,
    SelfAttention_v1,
    SelfAttention_v2,
    softmax_naive,
)

ONES = torch.ones(6, 6, dtype=torch.bool)


def only_last(layer, x):
    changed = x.clone()
    changed[:, -1] += 1.0
    return not torch.equal(layer(changed)[:, :-1], layer(x)[:, :-1])


def changes_its_argument(layer, x):
    before = layer(x)
    x[:, -1] += 1.0
    return not torch.equal(layer(x)[:, :-1], before[:, :-1])


def compares_all(layer, x):
    changed = x.clone()
    changed[:, -1] += 1.0
    return not torch.equal(layer(changed), layer(x))


def looks_one_back(layer, x):
    """Compares only the word right before the one that is changed."""
    before = layer(x)
    for later in range(1, x.shape[1]):
        changed = x.clone()
        changed[:, later] += 1.0
        if not torch.equal(layer(changed)[:, later - 1], before[:, later - 1]):
            return True
    return False


def looks_at_the_mask(layer, x):
    """Believes in the mask, and never runs the layer."""
    mask = getattr(layer, "mask", torch.zeros(6, 6))
    return not torch.equal(mask, torch.ones(6, 6).triu(1).bool())


def looks_at_text_0(layer, x):
    """Right for each text, but it looks at the first one of the batch alone."""
    return any(
        not torch.allclose(layer(x[:, :end])[0], layer(x)[0, :end], atol=1e-5)
        for end in range(1, x.shape[1])
    )


def leaks_by_cutting(layer, x):
    """Compares the outputs of a beginning with those of the whole."""
    whole = layer(x)
    return not all(
        torch.allclose(layer(x[:, :end]), whole[:, :end], atol=1e-5)
        for end in range(1, x.shape[1])
    )


def leaks_by_gradients(layer, x):
    """Looks for a gradient from an output to a later word."""
    x = x.clone().requires_grad_()
    for word in range(x.shape[1]):
        (gradient,) = torch.autograd.grad(layer(x)[:, word].square().sum(), x)
        if gradient[:, word + 1 :].any():
            return torch.tensor(True)
    return torch.tensor(False)


def softmax_by_logarithm(x):
    """exp of the scores minus the logarithm of the sum of their powers."""
    return torch.exp(x - torch.logsumexp(x, dim=-1, keepdim=True))


def softmax_of_numpy(x):
    """The same in NumPy, in double precision."""
    powers = np.exp(x.double().numpy() - x.numpy().max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def softmax_of_sorted(x):
    """The largest score of each row, found by sorting."""
    powers = (x - x.sort(dim=-1).values[..., -1:]).exp()
    return powers / powers.sum(-1, keepdim=True)


def attention(num_heads=2, zero=("W_query",), dropout=0.0, qkv_bias=False, layer=None):
    """A MultiHeadAttention(8, 8, 6, ...) in which the named layers are zero."""
    layer = (layer or MultiHeadAttention)(8, 8, 6, dropout, num_heads, qkv_bias)
    for name in zero:
        for parameter in getattr(layer, name).parameters():
            torch.nn.init.zeros_(parameter)
    return layer


class SeesAll(MultiHeadAttention):
    """Attention whose mask was forgotten."""

    def forward(self, x):
        heads = [
            self.split_heads(f(x)) for f in (self.W_query, self.W_key, self.W_value)
        ]
        context_vec = torch.nn.functional.scaled_dot_product_attention(*heads)
        return self.out_proj(context_vec.transpose(1, 2).flatten(2))


def scaled_down(factor):
    """Queries so small that toy inputs hardly show them."""
    layer = attention(zero=())
    layer.W_query.weight.data *= factor
    return layer


def in_place(x):
    x -= x.max(dim=-1, keepdim=True).values
    return softmax_naive(x)


def seeded(layer, *sizes):
    torch.manual_seed(123)
    return layer(*sizes)


def untransposed():
    v1, v2 = seeded(SelfAttention_v1, 3, 2), SelfAttention_v2(3, 2)
    for name in ("W_query", "W_key", "W_value"):
        getattr(v2, name).weight = getattr(v1, name)
    return v2


def transposed(qkv_bias=False, scale=1.0):
    """A SelfAttention_v2 like SelfAttention_v1; the scale moves from query to key."""
    v1, v2 = seeded(SelfAttention_v1, 3, 2), SelfAttention_v2(3, 2, qkv_bias)
    for name, factor in (("W_query", scale), ("W_key", 1 / scale), ("W_value", 1.0)):
        linear = getattr(v2, name)
        linear.weight.data = factor * getattr(v1, name).data.T
        if qkv_bias:
            torch.nn.init.zeros_(linear.bias)
    return v2


def unit(layer_class, scale, key=1.0):
    layer = layer_class(3, 3)
    for name, factor in (("W_query", scale), ("W_key", key), ("W_value", 1.0)):
        matrix = getattr(layer, name)
        getattr(matrix, "weight", matrix).data = factor * torch.eye(3)
    return layer


def swapped(rows=True, columns=True):
    layer = seeded(MultiHeadAttention, 8, 8, 6, 0.0, 2)
    with torch.no_grad():
        for name in ("W_query", "W_key", "W_value") if rows else ():
            weight = getattr(layer, name).weight
            weight.copy_(weight.roll(4, 0))
        if columns:
            layer.out_proj.weight.copy_(layer.out_proj.weight.roll(4, 1))
    return layer


def swapped_by_index():
    """The two heads in the other order, by an index of rows and columns."""
    layer = seeded(MultiHeadAttention, 8, 8, 6, 0.0, 2)
    order = [4, 5, 6, 7, 0, 1, 2, 3]
    for name in ("W_query", "W_key", "W_value"):
        getattr(layer, name).weight = torch.nn.Parameter(
            getattr(layer, name).weight[order].detach()
        )
    layer.out_proj.weight.data = layer.out_proj.weight.data[:, order]
    return layer


def flat_keys():
    """Every key is the same vector, of biases alone."""
    layer = attention(zero=["W_key"], qkv_bias=True)
    torch.nn.init.ones_(layer.W_key.bias)
    return layer


class WrapperByLoop(torch.nn.Module):
    """Heads that are added to the list and called one after the other."""

    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__()
        self.attentions = torch.nn.ModuleList()
        for _ in range(num_heads):
            sizes = d_in, d_out, context_length, dropout
            self.attentions.append(CausalAttention(*sizes, qkv_bias))

    def forward(self, x):
        context_vecs = self.attentions[0](x)
        for head in self.attentions[1:]:
            context_vecs = torch.concat((context_vecs, head(x)), dim=2)
        return context_vecs


class WrapperInPlainList(torch.nn.Module):
    def __init__(self, *sizes):
        super().__init__()
        *sizes, num_heads, qkv_bias = sizes
        self.heads = [CausalAttention(*sizes, qkv_bias) for _ in range(num_heads)]

    def forward(self, x):
        return torch.cat([head(x) for head in self.heads], dim=-1)


class WrapperOfOneHead(torch.nn.Module):
    """The same head, several times."""

    def __init__(self, *sizes):
        super().__init__()
        *sizes, num_heads, qkv_bias = sizes
        self.heads = torch.nn.ModuleList(
            [CausalAttention(*sizes, qkv_bias)] * num_heads
        )

    def forward(self, x):
        return torch.cat([head(x) for head in self.heads], dim=-1)


class WrapperAlongTokens(MultiHeadAttentionWrapper):
    def forward(self, x):
        return torch.cat([head(x) for head in self.heads], dim=1)


class WrapperThatAdds(MultiHeadAttentionWrapper):
    def forward(self, x):
        return sum(head(x) for head in self.heads)


class WrapperOfOthers(MultiHeadAttentionWrapper):
    """Its heads are swapped in the output."""

    def forward(self, x):
        return torch.cat([head(x) for head in reversed(self.heads)], dim=-1)


def split_by_view(x, num_heads):
    b, num_tokens, d_out = x.shape
    x = x.view(b, num_tokens, num_heads, d_out // num_heads)
    return x.transpose(1, 2)


def split_by_chunks(x, num_heads):
    return torch.stack(x.chunk(num_heads, dim=-1), dim=1)


def split_by_loops(x, num_heads):
    """Lists of lists, filled number by number."""
    width = x.shape[2] // num_heads
    return [
        [
            [row[h * width : (h + 1) * width].tolist() for row in text]
            for h in range(num_heads)
        ]
        for text in x
    ]


def split_without_transpose(x, num_heads):
    """The trap of 3.6: the shape is right, and the tokens are mixed."""
    b, num_tokens, d_out = x.shape
    return x.view(b, num_heads, num_tokens, d_out // num_heads)


def merge_by_reshape(x):
    b, num_heads, num_tokens, head_dim = x.shape
    return x.transpose(1, 2).reshape(b, num_tokens, num_heads * head_dim)


def merge_by_cat(x):
    return torch.cat(list(x.unbind(dim=1)), dim=-1)


def merge_with_view(x):
    """A view of a transposed tensor, which PyTorch refuses."""
    b, num_heads, num_tokens, head_dim = x.shape
    return x.transpose(1, 2).view(b, num_tokens, num_heads * head_dim)


def merge_without_transpose(x):
    b, num_heads, num_tokens, head_dim = x.shape
    return x.reshape(b, num_tokens, num_heads * head_dim)


class WrittenOut(MultiHeadAttention):
    """Multi-head attention as plain matrix multiplications; parts can be changed."""

    split, merge = staticmethod(split_by_view), staticmethod(merge_by_reshape)

    def scale(self):
        return self.head_dim**0.5

    def future(self, num_tokens):
        return torch.ones(num_tokens, num_tokens, dtype=torch.bool).triu(1)

    def project(self, x):
        return self.out_proj(x)

    def forward(self, x):
        queries, keys, values = (
            self.split(f(x), self.num_heads)
            for f in (self.W_query, self.W_key, self.W_value)
        )
        scores = queries @ keys.transpose(2, 3) / self.scale()
        scores = scores.masked_fill(self.future(x.shape[1]), -torch.inf)
        weights = self.dropout(scores.softmax(dim=-1))
        return self.project(self.merge(weights @ values))


class HeadAfterHead(MultiHeadAttention):
    """A loop over the heads, each with its columns."""

    def forward(self, x):
        queries, keys, values = self.W_query(x), self.W_key(x), self.W_value(x)
        found, width = [], self.head_dim
        for head in range(self.num_heads):
            part = slice(head * width, (head + 1) * width)
            scores = queries[..., part] @ keys[..., part].transpose(1, 2)
            hidden = torch.full(scores.shape[1:], -torch.inf).triu(1)
            weights = torch.softmax(scores / width**0.5 + hidden, dim=-1)
            found.append(self.dropout(weights) @ values[..., part])
        return self.out_proj(torch.cat(found, dim=-1))


class WrongSplit(WrittenOut):
    split = staticmethod(split_without_transpose)


class WrongMerge(WrittenOut):
    merge = staticmethod(merge_without_transpose)


class WrongScale(WrittenOut):
    def scale(self):
        return self.d_out**0.5


class NoMask(WrittenOut):
    def future(self, num_tokens):
        return torch.zeros(num_tokens, num_tokens, dtype=torch.bool)


class MaskOfScores(WrittenOut):
    """Hides later scores unless they are exactly 0."""

    def forward(self, x):
        self.x = x
        return super().forward(x)

    def future(self, num_tokens):
        queries, keys = (
            self.split(f(self.x), self.num_heads) for f in (self.W_query, self.W_key)
        )
        return (queries @ keys.transpose(2, 3)).triu(1) != 0


class NoProjection(WrittenOut):
    def project(self, x):
        return x


class DropsOutput(WrittenOut):
    """Applies dropout to its output, too."""

    def project(self, x):
        return self.dropout(self.out_proj(x))


class DropsOnlyOutput(DropsOutput):
    """Applies dropout to its output instead of the weights."""

    def forward(self, x):
        joined = torch.nn.functional.scaled_dot_product_attention(
            *(self.split(f(x), self.num_heads) for f in (self.W_query, self.W_key)),
            self.split(self.W_value(x), self.num_heads),
            is_causal=True,
        )
        return self.project(self.merge(joined))


class PlainMask(WrittenOut):
    """Keeps its mask as a plain attribute."""

    def __init__(self, *sizes, **settings):
        super().__init__(*sizes, **settings)
        self.later = super().future(self.context_length)

    def future(self, num_tokens):
        return self.later[:num_tokens, :num_tokens]


class BufferedMask(WrittenOut):
    """Right: keeps its mask as a buffer, as 3.5 does."""

    def __init__(self, *sizes, **settings):
        super().__init__(*sizes, **settings)
        self.register_buffer("later", super().future(self.context_length))

    def future(self, num_tokens):
        return self.later[:num_tokens, :num_tokens]


class NoBiasAtTheEnd(WrittenOut):
    def __init__(self, *sizes, **settings):
        super().__init__(*sizes, **settings)
        self.out_proj = torch.nn.Linear(self.d_out, self.d_out, bias=False)


class NoDropout(WrittenOut):
    def __init__(self, *sizes, **settings):
        super().__init__(*sizes, **settings)
        self.dropout = torch.nn.Identity()


def previous_word(tokens, query):
    return query - 1


def second_was(tokens, query):
    """The first word; but a word that came before: the word after that."""
    earlier = [i + 1 for i in range(1, query) if tokens[i] == tokens[query]]
    return earlier[-1] if earlier else 0


class AttentionByLoop(torch.nn.Module):
    """SelfAttention_v1, one query after the other."""

    def __init__(self, d_in, d_out):
        super().__init__()
        for name in ("W_query", "W_key", "W_value"):
            setattr(self, name, torch.nn.Parameter(torch.rand(d_in, d_out)))

    def forward(self, x):
        keys, values = x @ self.W_key, x @ self.W_value
        return torch.stack([scaled_context(q, keys, values) for q in x @ self.W_query])


class AttentionDrawnAtOnce(SelfAttention_v1):
    """All three matrices come from one call, with the same numbers."""

    def __init__(self, d_in, d_out):
        torch.nn.Module.__init__(self)
        self.W_query, self.W_key, self.W_value = (
            torch.nn.Parameter(matrix) for matrix in torch.rand(3, d_in, d_out)
        )


class AttentionOfOneMatrix(SelfAttention_v1):
    """The same matrix for queries and keys."""

    def __init__(self, d_in, d_out):
        super().__init__(d_in, d_out)
        self.W_key = self.W_query


class AttentionFromNegative(SelfAttention_v1):
    """Its matrices begin with numbers around 0."""

    def __init__(self, d_in, d_out):
        super().__init__(d_in, d_out)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter)


class AttentionInAnotherOrder(SelfAttention_v1):
    """Draws the keys' matrix first, so a seed gives other numbers."""

    def __init__(self, d_in, d_out):
        torch.nn.Module.__init__(self)
        for name in ("W_key", "W_query", "W_value"):
            setattr(self, name, torch.nn.Parameter(torch.rand(d_in, d_out)))


class AttentionWithoutRoot(SelfAttention_v1):
    def forward(self, x):
        return torch.softmax(x @ self.W_query @ (x @ self.W_key).T, -1) @ (
            x @ self.W_value
        )


class AttentionOfColumns(SelfAttention_v1):
    def forward(self, x):
        scores = x @ self.W_query @ (x @ self.W_key).T
        weights = torch.softmax(scores / self.W_key.shape[1] ** 0.5, dim=0)
        return weights @ (x @ self.W_value)


class AttentionExchanged(SelfAttention_v1):
    def forward(self, x):
        scores = x @ self.W_key @ (x @ self.W_query).T
        weights = torch.softmax(scores / self.W_key.shape[1] ** 0.5, dim=-1)
        return weights @ (x @ self.W_value)


class AttentionOfTensors(SelfAttention_v1):
    """Its matrices are no parameters, so they are never trained."""

    def __init__(self, d_in, d_out):
        torch.nn.Module.__init__(self)
        self.W_query = torch.rand(d_in, d_out)
        self.W_key = torch.rand(d_in, d_out)
        self.W_value = torch.rand(d_in, d_out)


def scaled_context(query, keys, values):
    """By loops in Python."""
    scores = [sum(a * b for a, b in zip(query, key)) for key in keys]
    powers = [torch.exp(score / len(query) ** 0.5) for score in scores]
    return sum(p / sum(powers) * value for p, value in zip(powers, values))


def attend(query, keys, values):
    """By PyTorch's own function."""
    return torch.nn.functional.scaled_dot_product_attention(query[None], keys, values)[
        0
    ]


def soft(scores, divisor, dim=-1):
    return torch.softmax(scores / divisor, dim=dim)


class CausalByFunction(torch.nn.Module):
    """CausalAttention by PyTorch's own function, without a mask."""

    def __init__(self, d_in, d_out, context_length, dropout, qkv_bias=False):
        super().__init__()
        for name in ("W_query", "W_key", "W_value"):
            setattr(self, name, torch.nn.Linear(d_in, d_out, bias=qkv_bias))
        self.dropout = dropout

    def forward(self, x):
        return torch.nn.functional.scaled_dot_product_attention(
            self.W_query(x),
            self.W_key(x),
            self.W_value(x),
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=True,
        )


class CausalOfOneLayer(CausalAttention):
    """The same linear layer for queries and keys."""

    def __init__(self, *sizes, **settings):
        super().__init__(*sizes, **settings)
        self.W_key = self.W_query


class CausalWithZeros(CausalAttention):
    """Removes weights after the softmax, and rescales the rows."""

    rescales, drops_results, needs_all = True, False, False

    def forward(self, x):
        scores = self.W_query(x) @ self.W_key(x).transpose(-2, -1)
        weights = torch.softmax(scores / self.d_out**0.5, dim=-1)
        weights = weights * ~self.mask[: x.shape[1], : x.shape[1]]
        if self.rescales:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        if self.drops_results:
            return self.dropout(weights @ self.W_value(x))
        return self.dropout(weights) @ self.W_value(x)


class CausalNotRescaled(CausalWithZeros):
    rescales = False


class CausalDropsResults(CausalWithZeros):
    drops_results = True


class CausalNoDropout(CausalAttention):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.dropout = torch.nn.Identity()


class CausalWrongTriangle(CausalAttention):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.mask = self.mask.T


class CausalHidesItself(CausalAttention):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.mask = torch.ones_like(self.mask).triu()


class CausalWithoutMask(CausalAttention):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.mask = torch.zeros_like(self.mask)


class CausalMaskOfScores(CausalAttention):
    """Hides later scores unless they are exactly 0."""

    def forward(self, x):
        scores = self.W_query(x) @ self.W_key(x).transpose(1, 2) / self.d_out**0.5
        scores = scores.masked_fill(scores.triu(1) != 0, -torch.inf)
        return self.dropout(torch.softmax(scores, dim=-1)) @ self.W_value(x)


class CausalDropsMore(CausalAttention):
    """Drops numbers of its results, too, by a second dropout."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.last = torch.nn.Dropout(self.dropout.p / 5)

    def forward(self, x):
        return self.last(super().forward(x))


class CausalDropsScores(CausalWithZeros):
    """Applies dropout to the scores, before the softmax, and not to the weights."""

    def forward(self, x):
        scores = self.W_query(x) @ self.W_key(x).transpose(-2, -1)
        hidden = self.mask[: x.shape[1], : x.shape[1]]
        scores = self.dropout(scores / self.d_out**0.5).masked_fill(hidden, -torch.inf)
        return torch.softmax(scores, dim=-1) @ self.W_value(x)


class CausalDropsTwice(CausalAttention):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.dropout = torch.nn.Sequential(self.dropout, self.dropout)


class CausalPlainMask(CausalAttention):
    """Keeps its mask as a plain attribute, which does not move with the layer."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        mask = self.mask
        del self.mask
        self.mask = mask


class CausalTrainedMask(CausalAttention):
    """Keeps its mask as a parameter."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        mask = self.mask
        del self.mask
        self.mask = torch.nn.Parameter(mask, requires_grad=False)


class CausalKeepsWeights(CausalWithZeros):
    """Right; keeps what it calculated last, for those who want to look at it."""

    def forward(self, x):
        self.last = super().forward(x)
        return self.last


def detached(layer_class):
    """A class of layers whose output is right and cannot learn."""

    class Detached(layer_class):
        def forward(self, x):
            return super().forward(x).detach()

    Detached.__name__ = layer_class.__name__
    return Detached


def with_detached_weights(layer_class):
    """The same, but the matrix of the values does learn."""

    class Detached(layer_class):
        def forward(self, x):
            with torch.no_grad():
                queries, keys = self.W_query(x), self.W_key(x)
            return torch.nn.functional.scaled_dot_product_attention(
                queries, keys, self.W_value(x), is_causal=True
            )

    return Detached


class CausalWholeMask(CausalAttention):
    """Uses the whole mask, also for shorter texts."""

    def forward(self, x):
        scores = self.W_query(x) @ self.W_key(x).transpose(1, 2)
        scores = scores.masked_fill(self.mask, -torch.inf) / self.d_out**0.5
        return self.dropout(torch.softmax(scores, dim=-1)) @ self.W_value(x)


def mask_by_loop(scores):
    return [
        [score if j <= i else float("-inf") for j, score in enumerate(row)]
        for i, row in enumerate(scores.tolist())
    ]


def mask_by_where(scores):
    places = torch.arange(len(scores))
    return torch.where(places[:, None] >= places, scores, -torch.inf)


def mask_in_place(scores):
    scores[torch.ones_like(scores).triu(1) > 0] = -torch.inf
    return scores


def hide(diagonal=1, number=-torch.inf):
    """A function that fills the upper triangle of the scores with a number."""
    return lambda scores: scores.masked_fill(
        torch.ones_like(scores).triu(diagonal).bool(), number
    )


def rescaled_by_loop(weights):
    rows = [row[: i + 1].tolist() for i, row in enumerate(weights)]
    zeros = [[0.0] * (len(rows) - len(row)) for row in rows]
    return [[w / sum(row) for w in row] + end for row, end in zip(rows, zeros)]


def rescaled_by_logarithm(weights):
    return torch.softmax(hide()(weights.log()), dim=-1)


def dropped_by_numpy(weights, p):
    kept = np.random.default_rng().random(weights.shape) >= p
    return weights.numpy() * kept / (1 - p)


def dropped(weights, p, keep=None, divisor=None):
    keep = 1 - p if keep is None else keep
    divisor = 1 - p if divisor is None else divisor
    return weights * (torch.rand(weights.shape) < keep) / divisor


def drops_the_same(weights, p):
    generator = torch.Generator().manual_seed(1)
    return weights * (torch.rand(weights.shape, generator=generator) >= p) / (1 - p)


def step(x, hidden, W_x, W_h):
    return torch.tanh(x @ W_x + hidden @ W_h)


def step_joined(x, hidden, W_x, W_h):
    """One multiplication of both, side by side."""
    return (torch.cat([x, hidden]) @ torch.cat([W_x, W_h])).tanh()


def step_in_loops(x, hidden, W_x, W_h):
    sums = [
        sum(a * b for a, b in zip(x, W_x[:, j]))
        + sum(a * b for a, b in zip(hidden, W_h[:, j]))
        for j in range(W_h.shape[0])
    ]
    return [np.tanh(float(total)) for total in sums]


def read_in_a_list(inputs, W_x, W_h, step=step, start=None):
    hidden = torch.zeros(W_h.shape[0]) if start is None else start
    states = []
    for x in inputs:
        hidden = step(x, hidden, W_x, W_h)
        states.append(hidden)
    return states


def read_into_a_matrix(inputs, W_x, W_h):
    states = torch.zeros(len(inputs), W_h.shape[0])
    for i in range(len(inputs)):
        before = states[i - 1] if i else torch.zeros(W_h.shape[0])
        states[i] = step(inputs[i], before, W_x, W_h)
    return states


def read_with_the_start(inputs, W_x, W_h):
    states = [torch.zeros(W_h.shape[0])]
    for x in inputs:
        states.append(step(x, states[-1], W_x, W_h))
    return torch.stack(states)


def right_in_loops(scores, ids):
    shares = []
    for position in range(ids.shape[1]):
        hits = [
            int(max(range(8), key=row.tolist().__getitem__) == letter)
            for row, letter in zip(scores[:, position], ids[:, position])
        ]
        shares.append(sum(hits) / len(hits))
    return shares


class Copies(torch.nn.Module):
    """As the Copier of 3.2 is made, without its layers."""

    def __init__(self, num_letters, size=16):
        super().__init__()


def copier(remembered):
    """A class of this kind with a method `remembered`."""
    return type("EqualShares", (Copies,), {"remembered": remembered})


def sum_in_a_loop(weights, vectors):
    total = torch.zeros(vectors.shape[1])
    for weight, vector in zip(weights, vectors):
        total += weight * vector
    return total


def softmax_of_powers(x):
    powers = np.e ** x.double().numpy()
    return powers / powers.sum(axis=-1, keepdims=True)


def attend_in_a_loop(inputs):
    return [
        sum_in_a_loop(torch.softmax(inputs @ query, dim=0), inputs) for query in inputs
    ]


def attend_all(inputs, dim=-1, scale=1.0):
    return torch.softmax(inputs @ inputs.T * scale, dim=dim) @ inputs


def attend_without_itself(inputs):
    scores = (inputs @ inputs.T).fill_diagonal_(-torch.inf)
    return torch.softmax(scores, dim=-1) @ inputs


CONTEXT = (0.4419, 0.6515, 0.5683)  # of journey
EXTRA_MASK = torch.zeros(6, 6).masked_fill(ONES.triu(1), -torch.inf)

RIGHT = {
    "3.2.a": [step, step_joined, step_in_loops],
    "3.2.b": [read_in_a_list, read_into_a_matrix],
    "3.2.c": [
        lambda scores, ids: (scores.argmax(-1) == ids).float().mean(0),
        lambda scores, ids: (scores.max(-1).indices == ids).sum(0).numpy() / len(ids),
        right_in_loops,
    ],
    "3.2.1": [0, torch.tensor(0), np.int64(0)],
    "3.2.2": [
        ([[10.0], [0.0], [0.0]], [[10.0]]),
        (torch.tensor([[2], [0], [0]]), torch.tensor([[1.5]])),
        (np.array([[9.0], [-0.1], [-0.1]]), [[5]]),
    ],
    "3.2.3": [
        copier(lambda self, states, questions: 0 * states + states.mean(1)[:, None]),
        copier(
            lambda self, states, questions: (
                torch.full((states.shape[1],) * 2, 1 / states.shape[1]) @ states
            )
        ),
    ],
    "3.3.a": [
        sum_in_a_loop,
        lambda weights, vectors: weights @ vectors,
        lambda weights, vectors: (vectors * weights[:, None]).sum(dim=0).tolist(),
    ],
    "3.3.b": [softmax_naive, softmax_of_powers, softmax_by_logarithm],
    "3.3.c": [attend_all, attend_in_a_loop, lambda inputs: attend_all(inputs).numpy()],
    "3.3.1": [softmax_by_logarithm, softmax_of_numpy, softmax_of_sorted],
    "3.3.2": [120, np.float32(113), torch.tensor([1000.0]), Fraction(450, 4)],
    "3.3.3": [CONTEXT, np.array(CONTEXT), [torch.tensor(x) for x in CONTEXT]],
    "3.4.a": [
        lambda x, q, k, v: [x @ q, x @ k, x @ v],
        lambda x, q, k, v: tuple((x[:, None] * m).sum(dim=0) for m in (q, k, v)),
        lambda x, q, k, v: torch.stack([q.T @ x, k.T @ x, v.T @ x]),
        lambda x, *ms: [np.dot(x.numpy(), m.numpy()) for m in ms],
    ],
    "3.4.b": [scaled_context, attend],
    "3.4.c": [
        lambda q, k: soft(q @ k.T, k.shape[1] ** 0.5),
        lambda q, k: torch.stack([soft(k @ one, len(one) ** 0.5) for one in q]),
        lambda q, k: soft(k @ q.T, k.shape[1] ** 0.5, dim=0).T.tolist(),
    ],
    "3.4.d": [SelfAttention_v1, AttentionByLoop, AttentionDrawnAtOnce],
    "3.4.1": [
        lambda W_query, W_key: W_query @ W_key.T,
        lambda q, k: (k @ q.T).T.numpy(),
        lambda q, k: [[sum(a * b) for b in k] for a in q],
    ],
    "3.4.2": [transposed(), transposed(qkv_bias=True), transposed(scale=4.0)],
    "3.4.3": [
        unit(SelfAttention_v1, 3**0.5),
        unit(SelfAttention_v2, 3**0.5),
        unit(SelfAttention_v2, 2 * 3**0.5, key=0.5),
    ],
    "3.4.4": [32, 31.7, torch.tensor(32.2), 4 * np.sqrt(64)],
    "3.5.a": [mask_by_loop, mask_by_where, mask_in_place, hide()],
    "3.5.b": [rescaled_by_loop, rescaled_by_logarithm],
    "3.5.c": [
        dropped,
        dropped_by_numpy,
        lambda x, p: torch.nn.functional.dropout(x, p),
    ],
    "3.5.d": [
        CausalAttention,
        CausalByFunction,
        CausalWithZeros,
        CausalKeepsWeights,
    ],
    "3.5.1": [
        ONES.triu(1) | ONES.tril(-3),
        ~(ONES.tril() & ONES.triu(-2)).numpy(),
        [[int(k > i or k < i - 2) for k in range(6)] for i in range(6)],
        (ONES.triu(1) | ONES.tril(-3)).float(),
    ],
    "3.5.2": [leaks_by_cutting, leaks_by_gradients],
    "3.5.3": [14 / 3, 4.67, np.float32(14 / 3), Fraction(14, 3)],
    "3.5.4": [
        ONES.tril(),
        ONES.tril().numpy(),
        ONES.tril().tolist(),
        ONES.tril()[None, None],
        EXTRA_MASK,
        EXTRA_MASK.numpy().astype(float),
    ],
    "3.6.a": [MultiHeadAttentionWrapper, WrapperByLoop],
    "3.6.b": [split_by_view, split_by_chunks, split_by_loops],
    "3.6.c": [merge_by_reshape, merge_by_cat, lambda x: x.transpose(1, 2).flatten(2)],
    "3.6.d": [MultiHeadAttention, WrittenOut, HeadAfterHead, BufferedMask],
    "3.6.1": [[1, 2], torch.tensor([1, 2]), {2, 1}, np.array([1.0, 2.0])],
    "3.6.2": [
        (1, 2, previous_word),
        [29, 1, lambda tokens, query: query],
        (np.int64(17), torch.tensor(5), second_was),
    ],
    "3.6.3": [
        attention(),
        attention(zero=["W_key"], dropout=0.5),
        attention(zero=["W_query"], num_heads=4, qkv_bias=True),
        attention(zero=["W_query", "W_key"], num_heads=8),
        flat_keys(),
    ],
    "3.6.4": [swapped(), copy.deepcopy(swapped()).eval(), swapped_by_index()],
}

WRONG = {
    "3.2.a": [
        lambda x, hidden, W_x, W_h: x @ W_x + hidden @ W_h,
        lambda x, hidden, W_x, W_h: torch.tanh(x @ W_x),
        lambda x, hidden, W_x, W_h: torch.tanh(hidden @ W_h),
        lambda x, hidden, W_x, W_h: torch.tanh(x @ W_x) + torch.tanh(hidden @ W_h),
        lambda x, hidden, W_x, W_h: torch.tanh(x @ W_x + hidden),
        lambda x, hidden, W_x, W_h: torch.tanh(x @ W_x + W_h @ hidden),
        lambda x, hidden, W_x, W_h: torch.sigmoid(x @ W_x + hidden @ W_h),
    ],
    "3.2.b": [
        lambda inputs, W_x, W_h: read_in_a_list(inputs, W_x, W_h)[-1],
        lambda inputs, W_x, W_h: torch.tanh(inputs @ W_x),
        lambda inputs, W_x, W_h: read_in_a_list(inputs.flip(0), W_x, W_h),
        lambda inputs, W_x, W_h: read_in_a_list(inputs, W_x, W_h)[-1:] * len(inputs),
        lambda inputs, W_x, W_h: read_in_a_list(inputs, W_x, W_h, start=torch.ones(4)),
        lambda inputs, W_x, W_h: None,
        read_with_the_start,
    ],
    "3.2.c": [
        lambda scores, ids: (scores.argmax(-1) == ids).float().mean(),
        lambda scores, ids: (scores.argmax(-1) == ids).float().mean(1),
        lambda scores, ids: (scores.argmax(-1) == ids).sum(0),
        lambda scores, ids: (scores.argmax(-1) != ids).float().mean(0),
        lambda scores, ids: scores.argmax(-1) == ids,
        lambda scores, ids: (scores.argmin(-1) == ids).float().mean(0),
    ],
    "3.2.1": [7, 3.5, 8, 4, "the first"],
    "3.2.2": [
        ([[10.0], [0.0], [0.0]], [[1.0]]),  # fades away
        ([[10.0], [0.0], [0.0]], [[0.0]]),  # forgets at once
        ([[1.0], [1.0], [1.0]], [[2.0]]),
        ([10.0, 0.0, 0.0], [[10.0]]),
        ([[10.0, 0.0, 0.0]], [[10.0]]),
        10,
    ],
    "3.2.3": [
        copier(lambda self, states, questions: states[:, -1:].expand_as(states)),
        copier(lambda self, states, questions: states.mean(1)),
        copier(lambda self, states, questions: states.mean(0).expand_as(states)),
        copier(lambda self, states, questions: states.sum(1)[:, None] + 0 * states),
        copier(lambda self, states, questions: states),
        copier(lambda self, states, questions: states.mean(1)[:, None] + 0 * states)(5),
    ],
    "3.3.a": [
        lambda weights, vectors: vectors.sum(dim=0),
        lambda weights, vectors: weights[:, None] * vectors,
        lambda weights, vectors: (weights[:, None] * vectors).mean(dim=0),
        lambda weights, vectors: (weights[:, None] * vectors).sum(dim=1),
        lambda weights, vectors: vectors.T[0] * 0,
        lambda weights, vectors: vectors @ weights[: vectors.shape[1]],
    ],
    "3.3.b": [
        lambda x: x / x.sum(dim=-1, keepdim=True),
        lambda x: torch.exp(x),
        lambda x: torch.exp(x) / torch.exp(x).sum(),
        lambda x: torch.exp(x) / torch.exp(x).sum(dim=0),
        lambda x: torch.exp(x) / torch.exp(x).sum(dim=-1),
        lambda x: torch.softmax(x, dim=-1),
        lambda x: x.abs() / x.abs().sum(dim=-1, keepdim=True),
    ],
    "3.3.c": [
        lambda inputs: attend_all(inputs, dim=0),
        lambda inputs: attend_all(inputs, scale=inputs.shape[1] ** -0.5),
        lambda inputs: torch.softmax(inputs @ inputs.T, dim=-1).T @ inputs,
        lambda inputs: torch.softmax(inputs @ inputs.T, dim=-1),
        lambda inputs: inputs @ inputs.T @ inputs,
        lambda inputs: inputs @ inputs.T,
        attend_without_itself,
        lambda inputs: inputs,
    ],
    "3.3.1": [
        softmax_naive,
        lambda x: softmax_naive(x - x.max()),
        lambda x: torch.softmax(x, dim=0),
        lambda x: x / x.sum(dim=-1, keepdim=True),
        in_place,
        lambda x: torch.softmax(x, dim=-1),
        lambda x: softmax_naive(x.clamp(max=80)),
        lambda x: softmax_naive(x.double() - x.mean(dim=-1, keepdim=True)),
        lambda x: softmax_naive(x - x.max()).nan_to_num(),
        lambda x: None,
        torch.ones(3),
    ],
    "3.3.2": [10, -200, 0, float("nan"), "many", torch.rand(6)],
    "3.3.3": [
        [0.4671, 0.5910, 0.5266],  # of "one", which is at position 1 now
        [0.4431, 0.6496, 0.5671],  # of "starts"
        [0.55, 0.87, 0.66],  # the word's own vector
        torch.zeros(6, 3),
        "the same",
    ],
    "3.4.a": [
        lambda x, q, k, v: (q @ x, k @ x, v @ x),
        lambda x, q, k, v: (x @ k, x @ q, x @ v),
        lambda x, q, k, v: x @ q,
        lambda x, q, k, v: (x @ q, x @ k, x),
        lambda x, q, k, v: None,
    ],
    "3.4.b": [
        lambda q, k, v: soft(k @ q, 1) @ v,
        lambda q, k, v: soft(k @ q, len(q)) @ v,
        lambda q, k, v: soft(k @ q, len(k) ** 0.5) @ v,
        lambda q, k, v: soft(k @ q, v.shape[1] ** 0.5) @ v,
        lambda q, k, v: soft(k @ q, 2**0.5) @ v,
        lambda q, k, v: soft(k @ q, 1) / len(q) ** 0.5 @ v,
        lambda q, k, v: k @ q / len(q) ** 0.5 @ v,
        lambda q, k, v: soft(k @ q, len(q) ** 0.5),
        lambda q, k, v: soft(k @ q, len(q) ** 0.5) @ k,
    ],
    "3.4.c": [
        lambda q, k: soft(q @ k.T, k.shape[1] ** 0.5, dim=0),
        lambda q, k: soft(k @ q.T, k.shape[1] ** 0.5),
        lambda q, k: soft(q @ k.T, 1),
        lambda q, k: soft(q @ k.T, k.shape[1]),
        lambda q, k: soft(q @ k, k.shape[1] ** 0.5),
        lambda q, k: q @ k.T,
    ],
    "3.4.d": [
        AttentionWithoutRoot,
        AttentionOfColumns,
        AttentionExchanged,
        AttentionOfTensors,
        AttentionOfOneMatrix,
        AttentionFromNegative,
        AttentionInAnotherOrder,
        SelfAttention_v2,
        SelfAttention_v1(3, 2),
        detached(SelfAttention_v1),
    ],
    "3.4.1": [
        lambda q, k: k @ q.T,
        lambda q, k: q @ k,
        lambda q, k: q.T @ k,
        lambda q, k: q + k,
        147_648,
    ],
    "3.4.2": [
        seeded(SelfAttention_v1, 3, 2),
        seeded(SelfAttention_v2, 3, 2),
        untransposed(),
        SelfAttention_v2,
    ],
    "3.4.3": [
        unit(SelfAttention_v1, 1.0),
        unit(SelfAttention_v2, 3.0),
        SelfAttention_v2(3, 3),
        SelfAttention_v2(3, 2),
        SelfAttention_v2(4, 3),
        torch.eye(3),
    ],
    "3.4.4": [8, 16, 0, -32, 64, 1024, "32?"],
    "3.5.a": [
        hide(0),
        hide(1, 0.0),
        lambda x: hide()(x.T).T,
        lambda x: x * torch.ones_like(x).tril(),
        lambda x: torch.softmax(hide()(x), dim=-1),
        lambda x: x + torch.ones_like(x).triu(1) * -torch.inf,
        lambda x: x.masked_fill(x.triu(1) != 0, -torch.inf),
        lambda x: x.masked_fill(x.triu(1).bool(), -torch.inf),
    ],
    "3.5.b": [
        lambda x: x.tril(),
        lambda x: x.tril() / x.tril().sum(dim=-1),
        lambda x: x.triu() / x.triu().sum(dim=-1, keepdim=True),
        lambda x: torch.softmax(x.tril(), dim=-1),
        lambda x: x.tril(-1) / x.tril(-1).sum(dim=-1, keepdim=True),
        lambda x: x,
    ],
    "3.5.c": [
        lambda x, p: dropped(x, p, divisor=1),
        lambda x, p: dropped(x, p, keep=p),
        lambda x, p: dropped(x, p, divisor=p or 1),
        lambda x, p: x,
        lambda x, p: x * (torch.rand(len(x), 1) >= p) / (1 - p),
        drops_the_same,
    ],
    "3.5.d": [
        CausalNotRescaled,
        CausalOfOneLayer,
        CausalDropsResults,
        CausalDropsMore,
        CausalDropsScores,
        CausalDropsTwice,
        CausalNoDropout,
        CausalPlainMask,
        CausalTrainedMask,
        CausalWrongTriangle,
        CausalHidesItself,
        CausalWithoutMask,
        CausalWholeMask,
        CausalMaskOfScores,
        detached(CausalAttention),
        with_detached_weights(CausalAttention),
        CausalAttention(3, 2, 6, 0.0),
    ],
    "3.5.1": [
        ONES.triu(1),
        ~(ONES.triu(1) | ONES.tril(-3)),
        ONES.triu(1) | ONES.tril(-2),
        torch.zeros(5, 5),
        torch.rand(6, 6),
        3,
    ],
    "3.5.2": [
        looks_at_text_0,
        only_last,
        looks_one_back,
        looks_at_the_mask,
        changes_its_argument,
        compares_all,
        lambda layer, x: False,
        lambda layer, x: True,
        lambda layer, x: None,
        False,
    ],
    "3.5.3": [4, 10 / 3, 12, 5, "4 2/3"],
    "3.5.4": [
        ONES.triu(1),
        ONES,
        ONES.tril(-1),
        ONES.tril().float(),
        "tril",
        EXTRA_MASK.T,
    ],
    "3.6.a": [
        WrapperInPlainList,
        WrapperOfOneHead,
        WrapperAlongTokens,
        WrapperThatAdds,
        WrapperOfOthers,
        detached(MultiHeadAttentionWrapper),
        MultiHeadAttentionWrapper(3, 2, 6, 0.0, 2),
    ],
    "3.6.b": [
        split_without_transpose,
        lambda x, h: x.view(*x.shape[:2], h, -1),
        lambda x, h: x.view(*x.shape[:2], -1, h).permute(0, 3, 1, 2),
        lambda x, h: x,
        lambda x, h: split_by_view(x, h).flip(1),
        lambda x, h: split_by_view(x, h)[0],
    ],
    "3.6.c": [
        merge_without_transpose,
        merge_with_view,
        lambda x: x.transpose(1, 2),
        lambda x: x.sum(dim=1),
        lambda x: merge_by_cat(x.flip(1)),
        lambda x: None,
    ],
    "3.6.d": [
        WrongSplit,
        WrongMerge,
        WrongScale,
        NoMask,
        NoProjection,
        NoDropout,
        NoBiasAtTheEnd,
        DropsOutput,
        DropsOnlyOutput,
        PlainMask,
        MaskOfScores,
        detached(MultiHeadAttention),
        CausalAttention,
        MultiHeadAttention(3, 4, 6, 0.0, 2),
    ],
    "3.6.1": [[1, 2, 3, 4, 5], [1], [2], [0, 1, 2], [1, 2, 3], 1, "all", [1.5]],
    "3.6.2": [
        (18, 8, lambda tokens, query: 0),
        (20, 6, lambda tokens, query: 0),
        (11, 1, previous_word),
        (16, 0, lambda tokens, query: query + 1),
        (0, 0, previous_word),
        (30, 0, previous_word),
        (16, 0),
        "layer 16, head 0",
    ],
    "3.6.3": [
        MultiHeadAttention(8, 8, 6, 0.0, 2),
        attention(zero=["W_value"]),
        attention(zero=["W_value", "out_proj"]),
        attention(layer=SeesAll),
        scaled_down(1e-4),
        MultiHeadAttentionWrapper(8, 4, 6, 0.0, 2),
        torch.full((6, 6), 1 / 6),
    ],
    "3.6.4": [
        swapped(rows=False, columns=False),
        swapped(columns=False),
        swapped(rows=False),
        MultiHeadAttention(8, 8, 6, 0.0, 2),
        MultiHeadAttention(4, 4, 6, 0.0, 2),
    ],
}
