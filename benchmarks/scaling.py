"""What pretraining costs, by arithmetic: `python -m benchmarks.scaling`.

GPT-2's four sizes, with twenty tokens a parameter (Hoffmann et al. 2022, 3.4). Each
token takes 6 operations a parameter, forward and backward, and 12 n_layers
context_length emb_dim for attention (Chowdhery et al. 2022, appendix B). Memory: 16
bytes a parameter for weight, gradient and AdamW's two moments in float32; activations
come on top. GPU: an H100, with two fifths of the 989 TFLOP/s that its maker states for
bfloat16, at 2.50 dollars an hour; put your own figures in.
"""

import torch

from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.openai_weights import MODEL_CONFIGS

TOKENS_A_PARAMETER = 20
BYTES_A_PARAMETER = 16
GPU_FLOPS = 0.4 * 989e12  # a second, that a run really gets
GPU_DOLLARS = 2.50  # an hour
NUM_GPUS = 8
COLUMNS = (
    "size",
    "parameters",
    "tokens",
    "FLOPs",
    "memory",
    f"on each of {NUM_GPUS}",
    "one GPU",
    f"{NUM_GPUS} GPUs",
    "dollars",
)


def count_parameters(cfg):
    """Parameters of a model whose output layer is its token embedding."""
    with torch.device("meta"):  # shapes without numbers
        model = GPTModel(cfg)
    model.out_head.weight = model.tok_emb.weight
    return sum(parameter.numel() for parameter in model.parameters())


def flops_a_token(cfg):
    """Operations that training takes for a token."""
    attention = 12 * cfg["n_layers"] * cfg["context_length"] * cfg["emb_dim"]
    return 6 * count_parameters(cfg) + attention


def duration(hours):
    """Hours in words: 0.4 -> "24 min", 30 -> "30 h", 100 -> "4.2 days"."""
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.1f} days"


def row(size, cfg):
    """A line of the table, as texts."""
    parameters = count_parameters(cfg)
    tokens = TOKENS_A_PARAMETER * parameters
    flops = tokens * flops_a_token(cfg)
    gigabytes = BYTES_A_PARAMETER * parameters / 1e9
    hours = flops / GPU_FLOPS / 3600
    return (
        size,
        f"{parameters / 1e6:,.0f} M",
        f"{tokens / 1e9:.1f} G",
        f"{flops:.1e}",
        f"{gigabytes:.1f} GB",
        f"{gigabytes / NUM_GPUS:.1f} GB",
        duration(hours),
        duration(hours / NUM_GPUS),
        f"{hours * GPU_DOLLARS:,.0f}",
    )


def table():
    """All sizes, as a table in Markdown."""
    sizes = {name.split()[0]: cfg for name, cfg in MODEL_CONFIGS.items()}
    rows = [row(size, GPT_CONFIG_124M | cfg) for size, cfg in sizes.items()]
    lines = [COLUMNS, ["---", *["---:"] * (len(COLUMNS) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(table())
