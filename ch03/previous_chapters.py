"""What chapter 3 uses of the chapter before it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the repository's root

from ch02.dataset import create_dataloader_v1, load_text
from ch02.tokenizer import get_tokenizer

__all__ = ["create_dataloader_v1", "get_tokenizer", "load_text"]
