"""A key-value cache (5.3): until the window is full, attention computes a token once.

Shapes: b = batch; num_new = tokens that the cache has not seen; num_tokens = all.
"""

import torch
import torch.nn.functional as F

from support.checks import check_whole

CACHEABLE = {"ch03.attention.MultiHeadAttention", "ch05.llama.GroupedQueryAttention"}
CACHEABLE |= {"ch04.gpt.GPTModel", "ch04.gpt.TransformerBlock"}
CACHEABLE |= {"ch05.llama.LlamaModel", "ch05.llama.LlamaBlock"}


def pad_right(rows, context_size):
    """The last context_size ids of each row, (b, num_tokens), and how many they are.

    Causal attention hides what stands to the right, so that the padding needs no mask.
    """
    windows = [torch.tensor(row[-context_size:]) for row in rows]
    lengths = torch.tensor([len(window) for window in windows])
    return torch.nn.utils.rnn.pad_sequence(windows, batch_first=True), lengths


class KVCache:
    """Room for the keys and values of every block, allocated once."""

    def __init__(self, model, batch_size, capacity):
        check_whole(batch_size=batch_size, capacity=capacity)
        att = model.trf_blocks[0].att
        n_kv_heads = att.W_key.out_features // att.head_dim
        self.capacity = capacity  # in tokens
        self.num_tokens = 0  # that all blocks have stored
        self.store = att.W_key.weight.new_empty(
            len(model.trf_blocks), 2, batch_size, n_kv_heads, capacity, att.head_dim
        )

    def append(self, layer, keys, values):
        """Store a block's (b, n_kv_heads, num_new, head_dim); return all so far."""
        end, batch_size = self.num_tokens + keys.shape[2], self.store.shape[2]
        if end > self.capacity or len(keys) != batch_size:
            raise ValueError(
                f"{len(keys)} rows of {end} tokens do not fit into a cache for "
                f"{batch_size} rows of {self.capacity}"
            )
        self.store[layer, 0, :, :, self.num_tokens : end] = keys
        self.store[layer, 1, :, :, self.num_tokens : end] = values
        return self.store[layer, :, :, :, :end]


def project(att, x, positions):
    """Queries, keys and values of x, (b, num_tokens, emb_dim), split into heads."""
    queries = att.split_heads(att.W_query(x))  # (b, n_heads, num_tokens, head_dim)
    keys, values = att.split_heads(att.W_key(x)), att.split_heads(att.W_value(x))
    if hasattr(att, "rotate"):  # Llama's positions enter here (section 5.6)
        queries, keys = att.rotate(queries, positions), att.rotate(keys, positions)
    return queries, keys, values


def attend(att, queries, keys, values, mask=None):
    """What the queries gather from the values: (b, num_queries, emb_dim)."""
    context_vec = F.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=mask,
        is_causal=mask is None and queries.shape[2] > 1,
        enable_gqa=queries.shape[1] != keys.shape[1],
    )  # (b, n_heads, num_queries, head_dim)
    return att.out_proj(context_vec.transpose(1, 2).flatten(2))


def attend_cached(att, x, positions, cache, layer, mask):
    """Attention of new tokens x, (b, num_new, emb_dim), to all so far."""
    queries, keys, values = project(att, x, positions)
    keys, values = cache.append(layer, keys, values)
    return attend(att, queries, keys, values, mask)


def forward_cached(model, idx, positions, cache, mask=None):
    """Run a model, without dropout, on new ids only: (b, num_new, emb_dim), normalized.

    positions, (b, num_new) or (num_new,), says where they stand. mask, (num_new,
    num_tokens) with axes b and n_heads before them if wanted, is True where a new token
    may look. Without one it looks at all up to itself.
    """
    if mask is None and cache.num_tokens > 0 and idx.shape[1] > 1:
        places = torch.arange(cache.num_tokens + idx.shape[1], device=idx.device)
        mask = places <= places[cache.num_tokens :, None]  # (num_new, num_tokens)
    x = model.tok_emb(idx)
    if hasattr(model, "pos_emb"):  # GPT's positions enter here
        x = x + model.pos_emb(positions)
    for layer, block in enumerate(model.trf_blocks):
        x = x + attend_cached(block.att, block.norm1(x), positions, cache, layer, mask)
        x = x + block.ff(block.norm2(x))
    cache.num_tokens += idx.shape[1]
    return model.final_norm(x)


def is_cacheable(model):
    """True for a model whose parts are the course's own: `forward_cached` knows them.

    A module of yours, or a subclass of ours, may compute something else.
    """
    blocks = list(getattr(model, "trf_blocks", ()))
    parts = [model, *blocks, *(getattr(block, "att", None) for block in blocks)]
    classes = [type(part) for part in parts]
    return {f"{kind.__module__}.{kind.__name__}" for kind in classes} <= CACHEABLE


class CachedLogits:
    """Logits of each row's next token; each call computes what the last one has not.

    capacity is in tokens. Once it is used up, the positions of all tokens shift with
    every new one, and each call computes the whole window again.
    """

    def __init__(self, model, batch_size, capacity):
        self.model = model
        self.cache = KVCache(model, batch_size, capacity)

    def __call__(self, rows):
        """Logits (b, vocab_size) for rows of ids, each one id longer than last time."""
        is_full = self.cache.num_tokens == self.cache.capacity
        is_new = self.cache.num_tokens == 0
        read = self.read_all if is_new or is_full else self.read_last
        return self.model.out_head(read(rows))

    def read_all(self, rows):
        """Fill the cache anew with the rows' last ids: (b, emb_dim)."""
        device = self.model.tok_emb.weight.device
        idx, self.lengths = (t.to(device) for t in pad_right(rows, self.cache.capacity))
        positions = torch.arange(idx.shape[1], device=device)
        self.is_token = positions < self.lengths[:, None]  # (b, num_tokens)
        self.cache.num_tokens = 0
        hidden = forward_cached(self.model, idx, positions, self.cache)
        return hidden[torch.arange(len(rows), device=device), self.lengths - 1]

    def read_last(self, rows):
        """Add each row's last id to the cache: (b, emb_dim)."""
        idx = torch.tensor([row[-1:] for row in rows], device=self.lengths.device)
        positions, self.lengths = self.lengths[:, None], self.lengths + 1
        self.is_token = F.pad(self.is_token, (0, 1), value=True)
        mask = None if self.is_token.all() else self.is_token[:, None, None]
        return forward_cached(self.model, idx, positions, self.cache, mask)[:, -1]
