"""What chapter 4 uses of the chapters before it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the repository's root

from ch02.dataset import create_dataloader_v1, load_text
from ch02.tokenizer import get_tokenizer
from ch03.attention import MultiHeadAttention

__all__ = ["MultiHeadAttention", "create_dataloader_v1", "get_tokenizer", "load_text"]
