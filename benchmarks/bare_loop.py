"""Greedy decoding in a bare loop of PyTorch's functions, over a GPTModel's weights.

No module is called, nothing is checked, and prompts are not padded: what a step takes
here is what the weights and PyTorch's functions take, and Python's part is small.
"""

import torch
import torch.nn.functional as F


@torch.no_grad()
def generate_bare(model, prompts, num_tokens):
    """Continue prompts, (b, n) ids, by the likeliest tokens: (b, n + num_tokens)."""
    n_heads, head_dim = (
        model.trf_blocks[0].att.num_heads,
        model.trf_blocks[0].att.head_dim,
    )
    batch_size, capacity = len(prompts), prompts.shape[1] + num_tokens
    sizes = batch_size, n_heads, capacity, head_dim
    store = torch.empty(len(model.trf_blocks), 2, *sizes)
    text, idx, start = prompts, prompts, 0
    for _ in range(num_tokens):
        end = start + idx.shape[1]
        x = F.embedding(idx, model.tok_emb.weight) + model.pos_emb.weight[start:end]
        for block, cache in zip(model.trf_blocks, store):
            x = x + attend(block.att, normalize(x, block.norm1), cache, start, end)
            x = x + feed_forward(block.ff, normalize(x, block.norm2))
        last = normalize(x[:, -1], model.final_norm)
        idx = F.linear(last, model.out_head.weight).argmax(-1, keepdim=True)
        text, start = torch.cat([text, idx], dim=1), end
    return text


def normalize(x, norm):
    """Layer normalization of x, (..., emb_dim)."""
    return F.layer_norm(x, x.shape[-1:], norm.scale, norm.shift, norm.eps)


def attend(att, x, cache, start, end):
    """Attention of the tokens from start to end, x (b, n, emb_dim), to all until end.

    cache: the block's keys and values, (2, b, n_heads, capacity, head_dim).
    """
    layers = att.W_query, att.W_key, att.W_value
    queries, keys, values = (
        F.linear(x, layer.weight, layer.bias)
        .unflatten(-1, (att.num_heads, att.head_dim))
        .transpose(1, 2)
        for layer in layers
    )
    cache[0, :, :, start:end], cache[1, :, :, start:end] = keys, values
    context = F.scaled_dot_product_attention(
        queries, *cache[:, :, :, :end], is_causal=start == 0
    )
    context = context.transpose(1, 2).flatten(2)
    return F.linear(context, att.out_proj.weight, att.out_proj.bias)


def feed_forward(ff, x):
    """The feed-forward network of x, (b, n, emb_dim)."""
    wide, _, narrow = ff.layers
    hidden = F.gelu(F.linear(x, wide.weight, wide.bias), approximate="tanh")
    return F.linear(hidden, narrow.weight, narrow.bias)
