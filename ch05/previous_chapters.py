"""What chapter 5 uses of the chapters before it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the repository's root

from ch02.dataset import GPTDatasetV1, create_dataloader_v1, load_text
from ch02.fetch import fetch
from ch02.tokenizer import get_tokenizer
from ch03.attention import MultiHeadAttention
from ch04.gpt import (
    GELU,
    GPT_CONFIG_124M,
    GPTModel,
    LayerNorm,
    generate_text_simple,
)

__all__ = [
    "GELU",
    "GPTDatasetV1",
    "GPTModel",
    "GPT_CONFIG_124M",
    "LayerNorm",
    "MultiHeadAttention",
    "create_dataloader_v1",
    "fetch",
    "generate_text_simple",
    "get_tokenizer",
    "load_text",
]
