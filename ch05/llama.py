"""From GPT-2 to Llama: what changed from 2019 to 2024 (5.6; Touvron et al. 2023).

Shapes: b = batch; head_dim = emb_dim / n_heads; n_kv_groups = heads of keys and values.
"""

import torch
import torch.nn.functional as F
from torch import nn

from ch05.openai_weights import assign

SMOLLM2_CONFIG_135M = {
    "vocab_size": 49152,  # entries of the BPE vocabulary
    "context_length": 8192,  # tokens the model can look at
    "emb_dim": 576,  # width of the residual stream
    "n_heads": 9,  # heads of queries
    "n_layers": 30,  # transformer blocks
    "hidden_dim": 1536,  # width inside the feed-forward network
    "n_kv_groups": 3,  # heads of keys and values, each shared by n_heads / 3 queries
    "rope_base": 100_000.0,  # the higher, the slower the slowest rotation
}


class RMSNorm(nn.Module):
    """Root mean square 1 over emb_dim, then scale (Zhang & Sennrich 2019, 4)."""

    def __init__(self, emb_dim):
        super().__init__()
        self.eps = 1e-5
        self.scale = nn.Parameter(torch.ones(emb_dim))

    def forward(self, x):
        return F.rms_norm(x, self.scale.shape, self.scale, self.eps)


class SwiGLU(nn.Module):
    """A feed-forward network whose gate decides what passes (Shazeer 2020, 2)."""

    def __init__(self, emb_dim, hidden_dim):
        super().__init__()
        self.gate = nn.Linear(emb_dim, hidden_dim, bias=False)
        self.up = nn.Linear(emb_dim, hidden_dim, bias=False)
        self.down = nn.Linear(hidden_dim, emb_dim, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))  # (b, num_tokens, emb_dim)


def rope_angles(positions, head_dim, rope_base):
    """Angles in radians of each pair of features: (..., num_tokens, head_dim / 2)."""
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device)
    return positions[..., None] * rope_base ** (-pairs / head_dim)


def apply_rope(x, angles):
    """Turn neighbouring features of x, (b, heads, num_tokens, head_dim), as points.

    Feature pairs (0, 1), (2, 3), ... are points of a plane; each is turned by its angle
    (Su et al. 2021, 3.2.2).
    """
    cos, sin = angles.cos().unsqueeze(-3), angles.sin().unsqueeze(-3)  # for all heads
    first, second = x[..., 0::2], x[..., 1::2]
    turned = first * cos - second * sin, first * sin + second * cos
    return torch.stack(turned, dim=-1).flatten(-2).to(x.dtype)


class GroupedQueryAttention(nn.Module):
    """Causal attention whose query heads share keys and values (Ainslie et al. 2023).

    (b, num_tokens, emb_dim) -> (b, num_tokens, emb_dim). ValueError when a head is not
    a whole number of pairs, or n_kv_groups does not divide n_heads.
    """

    def __init__(self, emb_dim, n_heads, n_kv_groups, rope_base):
        super().__init__()
        if emb_dim % (2 * n_heads):
            raise ValueError(
                f"n_heads {n_heads} does not divide emb_dim {emb_dim} into heads with "
                "an even number of features"
            )
        if n_heads % n_kv_groups:
            raise ValueError(
                f"n_kv_groups {n_kv_groups} does not divide n_heads {n_heads}"
            )
        self.head_dim = emb_dim // n_heads
        self.rope_base = rope_base
        self.W_query = nn.Linear(emb_dim, emb_dim, bias=False)
        self.W_key = nn.Linear(emb_dim, n_kv_groups * self.head_dim, bias=False)
        self.W_value = nn.Linear(emb_dim, n_kv_groups * self.head_dim, bias=False)
        self.out_proj = nn.Linear(emb_dim, emb_dim, bias=False)

    def split_heads(self, x):
        """(b, num_tokens, width) -> (b, width / head_dim, num_tokens, head_dim)."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def rotate(self, x, positions):
        """Rotary positions for queries or keys, (b, heads, num_tokens, head_dim)."""
        return apply_rope(x, rope_angles(positions, self.head_dim, self.rope_base))

    def forward(self, x):
        positions = torch.arange(x.shape[1], device=x.device)
        context_vec = F.scaled_dot_product_attention(
            self.rotate(self.split_heads(self.W_query(x)), positions),
            self.rotate(self.split_heads(self.W_key(x)), positions),
            self.split_heads(self.W_value(x)),
            is_causal=True,
            enable_gqa=True,
        )  # (b, n_heads, num_tokens, head_dim)
        return self.out_proj(context_vec.transpose(1, 2).flatten(2))


class LlamaBlock(nn.Module):
    """Attention, then SwiGLU, each normalized first and added on."""

    def __init__(self, cfg):
        super().__init__()
        self.att = GroupedQueryAttention(
            cfg["emb_dim"], cfg["n_heads"], cfg["n_kv_groups"], cfg["rope_base"]
        )
        self.ff = SwiGLU(cfg["emb_dim"], cfg["hidden_dim"])
        self.norm1 = RMSNorm(cfg["emb_dim"])
        self.norm2 = RMSNorm(cfg["emb_dim"])

    def forward(self, x):
        x = x + self.att(self.norm1(x))  # (b, num_tokens, emb_dim)
        return x + self.ff(self.norm2(x))


class LlamaModel(nn.Module):
    """Token ids (b, num_tokens) to logits (b, num_tokens, vocab_size)."""

    def __init__(self, cfg):
        super().__init__()
        if wrong := sorted(cfg.keys() ^ SMOLLM2_CONFIG_135M.keys()):
            raise ValueError(f"config: keys {wrong} are missing or unknown")
        for key, value in cfg.items():
            kinds, expected = [int], "a whole number of at least 1"
            if key == "rope_base":
                kinds, expected = [int, float], "a number above 0"
            if type(value) not in kinds or not value > 0:
                raise ValueError(f"config: {key} must be {expected}, not {value!r}")
        self.context_length = cfg["context_length"]
        self.tok_emb = nn.Embedding(cfg["vocab_size"], cfg["emb_dim"])
        self.trf_blocks = nn.Sequential(
            *[LlamaBlock(cfg) for _ in range(cfg["n_layers"])]
        )
        self.final_norm = RMSNorm(cfg["emb_dim"])
        self.out_head = nn.Linear(cfg["emb_dim"], cfg["vocab_size"], bias=False)
        self.out_head.weight = self.tok_emb.weight  # tied: one parameter, used twice

    def forward(self, in_idx):
        if in_idx.shape[1] > self.context_length:
            raise ValueError(
                f"{in_idx.shape[1]} tokens exceed context_length {self.context_length}"
            )
        x = self.trf_blocks(self.tok_emb(in_idx))  # (b, num_tokens, emb_dim)
        return self.out_head(self.final_norm(x))  # (b, num_tokens, vocab_size)


def llama_layout(model):
    """Yield the name that a GGUF file gives each parameter, and the parameter."""
    yield "token_embd", model.tok_emb.weight
    for layer, block in enumerate(model.trf_blocks):
        for name, parameter in (
            ("attn_norm", block.norm1.scale),
            ("attn_q", block.att.W_query.weight),
            ("attn_k", block.att.W_key.weight),
            ("attn_v", block.att.W_value.weight),
            ("attn_output", block.att.out_proj.weight),
            ("ffn_norm", block.norm2.scale),
            ("ffn_gate", block.ff.gate.weight),
            ("ffn_up", block.ff.up.weight),
            ("ffn_down", block.ff.down.weight),
        ):
            yield f"blk.{layer}.{name}", parameter
    yield "output_norm", model.final_norm.scale


def load_weights_into_llama(model, read):
    """Copy weights into a LlamaModel; read(name) gives the array of a GGUF name."""
    for name, parameter in llama_layout(model):
        try:
            assign(parameter, read(f"{name}.weight"))
        except ValueError as error:
            raise ValueError(f"{name} does not fit the model: {error}") from None
