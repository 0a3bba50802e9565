"""What chapter 6 uses of the chapters before it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the repository's root

from ch02.tokenizer import get_tokenizer
from ch04.gpt import GPTModel, generate_text_simple
from ch05 import training
from ch05.decoding import generate
from ch05.device import fast_autocast, fast_math, pick_device
from ch05.kv_cache import attend, project
from ch05.openai_weights import download_and_load_gpt2, load_weights_into_gpt
from ch05.pretrained import load_pretrained
from ch05.smollm2 import chat_ids, has_chat_template
from ch05.training import (
    evaluating,
    text_to_token_ids,
    token_ids_to_text,
    training_steps,
)

__all__ = [
    "GPTModel",
    "attend",
    "chat_ids",
    "download_and_load_gpt2",
    "evaluating",
    "fast_autocast",
    "fast_math",
    "generate",
    "generate_text_simple",
    "get_tokenizer",
    "has_chat_template",
    "load_pretrained",
    "load_weights_into_gpt",
    "pick_device",
    "project",
    "text_to_token_ids",
    "token_ids_to_text",
    "training",
    "training_steps",
]
