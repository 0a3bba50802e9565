"""GPT-2's architecture, piece by piece (chapter 4; Radford et al. 2019).

Shapes: b = batch, num_tokens <= context_length; emb_dim = numbers for each token.
"""

import torch
import torch.nn.functional as F
from torch import nn

from ch03.attention import MultiHeadAttention
from support.checks import check_config_values, check_whole

GPT_CONFIG_124M = {
    "vocab_size": 50257,  # tokens in the vocabulary
    "context_length": 1024,  # tokens that the model can read at once
    "emb_dim": 768,  # numbers for each token: the embedding dimension
    "n_heads": 12,  # attention heads in a block
    "n_layers": 12,  # blocks
    "drop_rate": 0.1,  # share of numbers that dropout sets to zero
    "qkv_bias": False,  # bias in the query, key and value layers
}
# a config may give each place of dropout its own rate (the book's exercise 4.3)
DROP_RATES = ("drop_rate_emb", "drop_rate_attn", "drop_rate_shortcut")


def drop_rate_of(cfg, place):
    """The dropout rate at a place: "emb", "attn" or "shortcut"."""
    return cfg.get(f"drop_rate_{place}", cfg.get("drop_rate"))


def check_config(cfg):
    """Raise ValueError naming the key that is missing, unknown or has a wrong value."""
    needed = GPT_CONFIG_124M.keys()
    if cfg.keys() >= set(DROP_RATES):  # each place has a rate of its own
        needed -= {"drop_rate"}
    missing = sorted(needed - cfg.keys())
    unknown = sorted(cfg.keys() - GPT_CONFIG_124M.keys() - set(DROP_RATES))
    if missing or unknown:
        raise ValueError(f"config: missing keys {missing}, unknown keys {unknown}")
    check_config_values(cfg)
    if cfg["emb_dim"] % cfg["n_heads"]:
        raise ValueError(
            f"config: n_heads {cfg['n_heads']} does not divide emb_dim {cfg['emb_dim']}"
        )


class DummyTransformerBlock(nn.Module):
    """Takes the place of a transformer block, and returns its input."""

    def __init__(self, cfg):
        super().__init__()

    def forward(self, x):
        return x


class DummyLayerNorm(nn.Module):
    """Takes the place of layer normalization, and returns its input."""

    def __init__(self, normalized_shape, eps=1e-5):
        super().__init__()

    def forward(self, x):
        return x


class DummyGPTModel(nn.Module):
    """The frame of a GPT: token ids (b, num_tokens) to logits, with dummies inside."""

    def __init__(self, cfg):
        super().__init__()
        self.tok_emb = nn.Embedding(cfg["vocab_size"], cfg["emb_dim"])
        self.pos_emb = nn.Embedding(cfg["context_length"], cfg["emb_dim"])
        self.drop_emb = nn.Dropout(cfg["drop_rate"])
        blocks = [DummyTransformerBlock(cfg) for _ in range(cfg["n_layers"])]
        self.trf_blocks = nn.Sequential(*blocks)
        self.final_norm = DummyLayerNorm(cfg["emb_dim"])
        self.out_head = nn.Linear(cfg["emb_dim"], cfg["vocab_size"], bias=False)

    def forward(self, in_idx):
        positions = torch.arange(in_idx.shape[1], device=in_idx.device)
        x = self.tok_emb(in_idx) + self.pos_emb(positions)  # (b, num_tokens, emb_dim)
        x = self.drop_emb(x)
        x = self.trf_blocks(x)
        x = self.final_norm(x)
        return self.out_head(x)  # (b, num_tokens, vocab_size)


class LayerNorm(nn.Module):
    """Mean 0 and variance 1 over emb_dim, then scale and shift (Ba et al. 2016)."""

    def __init__(self, emb_dim):
        super().__init__()
        self.eps = 1e-5
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))

    def forward(self, x):
        return F.layer_norm(x, self.scale.shape, self.scale, self.shift, self.eps)


class GELU(nn.Module):
    """GELU by its tanh formula, as GPT-2 was trained (Hendrycks & Gimpel 2016)."""

    def forward(self, x):
        return F.gelu(x, approximate="tanh")


class FeedForward(nn.Module):
    """Two linear layers, four times as wide in between, applied to each token alone."""

    def __init__(self, cfg):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(cfg["emb_dim"], 4 * cfg["emb_dim"]),
            GELU(),
            nn.Linear(4 * cfg["emb_dim"], cfg["emb_dim"]),
        )

    def forward(self, x):
        return self.layers(x)  # (b, num_tokens, emb_dim)


class ExampleDeepNeuralNetwork(nn.Module):
    """Linear layers with GELU, with or without shortcuts, to watch the gradients."""

    def __init__(self, layer_sizes, use_shortcut):
        super().__init__()
        self.use_shortcut = use_shortcut
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(size_in, size_out), GELU())
            for size_in, size_out in zip(layer_sizes, layer_sizes[1:])
        )

    def forward(self, x):
        for layer in self.layers:
            layer_output = layer(x)
            if self.use_shortcut and x.shape == layer_output.shape:
                x = x + layer_output
            else:
                x = layer_output
        return x


def print_gradients(model, x):
    """Print the mean absolute gradient of each layer's weights, for a target of 0."""
    model.zero_grad()
    output = model(x)
    F.mse_loss(output, torch.zeros_like(output)).backward()
    for name, param in model.named_parameters():
        if name.endswith("weight"):
            print(f"{name} has gradient mean of {param.grad.abs().mean():.6f}")


class TransformerBlock(nn.Module):
    """Attention, then a feed-forward network: each reads norm(x) and adds to x."""

    def __init__(self, cfg):
        super().__init__()
        self.att = MultiHeadAttention(
            d_in=cfg["emb_dim"],
            d_out=cfg["emb_dim"],
            context_length=cfg["context_length"],
            dropout=drop_rate_of(cfg, "attn"),
            num_heads=cfg["n_heads"],
            qkv_bias=cfg["qkv_bias"],
        )
        self.ff = FeedForward(cfg)
        self.norm1 = LayerNorm(cfg["emb_dim"])
        self.norm2 = LayerNorm(cfg["emb_dim"])
        self.drop_resid = nn.Dropout(drop_rate_of(cfg, "shortcut"))
        self.drop_shortcut = self.drop_resid  # the book has both names

    def forward(self, x):
        x = x + self.drop_resid(self.att(self.norm1(x)))  # (b, num_tokens, emb_dim)
        return x + self.drop_resid(self.ff(self.norm2(x)))


class GPTModel(nn.Module):
    """Token ids (b, num_tokens) to logits (b, num_tokens, vocab_size)."""

    def __init__(self, cfg):
        super().__init__()
        check_config(cfg)
        self.context_length = cfg["context_length"]
        self.tok_emb = nn.Embedding(cfg["vocab_size"], cfg["emb_dim"])
        self.pos_emb = nn.Embedding(cfg["context_length"], cfg["emb_dim"])
        self.drop_emb = nn.Dropout(drop_rate_of(cfg, "emb"))
        self.trf_blocks = nn.Sequential(
            *[TransformerBlock(cfg) for _ in range(cfg["n_layers"])]
        )
        self.final_norm = LayerNorm(cfg["emb_dim"])
        self.out_head = nn.Linear(cfg["emb_dim"], cfg["vocab_size"], bias=False)

    def forward(self, in_idx):
        num_tokens = in_idx.shape[1]
        if num_tokens > self.context_length:
            raise ValueError(
                f"{num_tokens} tokens exceed context_length {self.context_length}"
            )
        positions = torch.arange(num_tokens, device=in_idx.device)
        x = self.tok_emb(in_idx) + self.pos_emb(positions)  # (b, num_tokens, emb_dim)
        x = self.trf_blocks(self.drop_emb(x))
        return self.out_head(self.final_norm(x))  # (b, num_tokens, vocab_size)


@torch.no_grad()
def generate_text_simple(model, idx, max_new_tokens, context_size):
    """Append the most likely token max_new_tokens times: idx is (b, num_tokens).

    The model sees the last context_size tokens. Call model.eval() first, or dropout
    disturbs the choice.
    """
    check_whole(0, max_new_tokens=max_new_tokens)
    check_whole(context_size=context_size)
    if idx.shape[1] == 0:
        raise ValueError("the prompt is empty: give at least one token")
    for _ in range(max_new_tokens):
        logits = model(idx[:, -context_size:])[:, -1]  # (b, vocab_size)
        idx_next = logits.argmax(dim=-1, keepdim=True)  # (b, 1)
        idx = torch.cat((idx, idx_next), dim=1)
    return idx
