"""Self-attention, from plain to causal to multi-head (chapter 3).

Shapes: b = batch, num_tokens <= context_length, head_dim = d_out / num_heads.
"""

import torch
import torch.nn.functional as F
from torch import nn

from support.checks import check_whole


def softmax_naive(x):
    """exp(x) divided by its sum over the last axis; overflows where x is large."""
    return torch.exp(x) / torch.exp(x).sum(dim=-1, keepdim=True)


class SelfAttention_v1(nn.Module):
    """Self-attention with weight matrices as bare parameters (Vaswani et al. 2017)."""

    def __init__(self, d_in, d_out):
        super().__init__()
        self.W_query = nn.Parameter(torch.rand(d_in, d_out))
        self.W_key = nn.Parameter(torch.rand(d_in, d_out))
        self.W_value = nn.Parameter(torch.rand(d_in, d_out))

    def forward(self, x):
        keys = x @ self.W_key  # (num_tokens, d_out)
        queries = x @ self.W_query
        values = x @ self.W_value
        attn_scores = queries @ keys.T  # (num_tokens, num_tokens)
        attn_weights = torch.softmax(attn_scores / keys.shape[-1] ** 0.5, dim=-1)
        return attn_weights @ values  # (num_tokens, d_out)


class SelfAttention_v2(nn.Module):
    """Self-attention with linear layers, which start from better scaled weights."""

    def __init__(self, d_in, d_out, qkv_bias=False):
        super().__init__()
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)

    def forward(self, x):
        keys = self.W_key(x)  # (num_tokens, d_out)
        queries = self.W_query(x)
        values = self.W_value(x)
        attn_scores = queries @ keys.T  # (num_tokens, num_tokens)
        attn_weights = torch.softmax(attn_scores / keys.shape[-1] ** 0.5, dim=-1)
        return attn_weights @ values  # (num_tokens, d_out)


def leave_out_mask(layer, state_dict, prefix, *_):
    """Remove a saved mask from weights about to be loaded: a layer makes its own."""
    state_dict.pop(f"{prefix}mask", None)


class CausalAttention(nn.Module):
    """Self-attention over a batch in which no token sees the tokens after it."""

    def __init__(self, d_in, d_out, context_length, dropout, qkv_bias=False):
        super().__init__()
        check_whole(context_length=context_length)
        self.d_out = d_out
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.dropout = nn.Dropout(dropout)
        future = torch.ones(context_length, context_length, dtype=torch.bool).triu(1)
        self.register_buffer("mask", future, persistent=False)
        self.register_load_state_dict_pre_hook(leave_out_mask)

    def forward(self, x):
        num_tokens = x.shape[1]
        keys = self.W_key(x)  # (b, num_tokens, d_out)
        queries = self.W_query(x)
        values = self.W_value(x)
        attn_scores = queries @ keys.transpose(1, 2)  # (b, num_tokens, num_tokens)
        attn_scores = attn_scores.masked_fill(
            self.mask[:num_tokens, :num_tokens], -torch.inf
        )
        attn_weights = torch.softmax(attn_scores / keys.shape[-1] ** 0.5, dim=-1)
        return self.dropout(attn_weights) @ values  # (b, num_tokens, d_out)


class MultiHeadAttentionWrapper(nn.Module):
    """num_heads causal attentions side by side: (b, num_tokens, num_heads * d_out)."""

    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__()
        check_whole(num_heads=num_heads)
        self.heads = nn.ModuleList(
            CausalAttention(d_in, d_out, context_length, dropout, qkv_bias)
            for _ in range(num_heads)
        )

    def forward(self, x):
        return torch.cat([head(x) for head in self.heads], dim=-1)


class MultiHeadAttention(nn.Module):
    """Causal self-attention, all heads at once (Vaswani et al. 2017, 3.2.2).

    (b, num_tokens, d_in) -> (b, num_tokens, d_out). ValueError when num_heads does not
    divide d_out, or when there are more than context_length tokens.
    """

    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__()
        check_whole(d_out=d_out, context_length=context_length, num_heads=num_heads)
        if d_out % num_heads:
            raise ValueError(f"num_heads {num_heads} does not divide d_out {d_out}")
        self.context_length = context_length
        self.d_out = d_out
        self.num_heads = num_heads
        self.head_dim = d_out // num_heads
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.out_proj = nn.Linear(d_out, d_out)
        self.dropout = nn.Dropout(dropout)
        self.register_load_state_dict_pre_hook(leave_out_mask)

    @property
    def mask(self):
        """What is_causal hides: True above the diagonal, for context_length tokens."""
        size = self.context_length, self.context_length
        device = next(self.parameters()).device
        return torch.ones(size, dtype=torch.bool, device=device).triu(1)

    def split_heads(self, x):
        """(b, num_tokens, d_out) -> (b, num_heads, num_tokens, head_dim)."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def forward(self, x):
        if x.shape[1] > self.context_length:
            raise ValueError(
                f"{x.shape[1]} tokens exceed context_length {self.context_length}"
            )
        context_vec = F.scaled_dot_product_attention(
            self.split_heads(self.W_query(x)),
            self.split_heads(self.W_key(x)),
            self.split_heads(self.W_value(x)),
            dropout_p=self.dropout.p if self.training else 0.0,
            is_causal=True,
        )  # (b, num_heads, num_tokens, head_dim)
        context_vec = context_vec.transpose(1, 2).flatten(2)  # (b, num_tokens, d_out)
        return self.out_proj(context_vec)
