"""What was built in chapter 2, for the notebooks of chapter 3."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the repository's root

from ch02.dataset import GPTDatasetV1, create_dataloader_v1
from ch02.tokenizer import BPETokenizer, SimpleTokenizerV1, SimpleTokenizerV2
from ch02.tokenizer import get_tokenizer
from support.download.texts import load_text

__all__ = [
    "BPETokenizer", "GPTDatasetV1", "SimpleTokenizerV1", "SimpleTokenizerV2",
    "create_dataloader_v1", "get_tokenizer", "load_text",
]
