"""What chapter 6 uses of the chapters before it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the repository's root

from ch02.tokenizer import get_tokenizer
from ch05.decoding import generate
from ch05.device import fast_autocast, fast_math, pick_device
from ch05.kv_cache import attend, project
from ch05.pretrained import load_pretrained
from ch05.training import calc_loss_loader, evaluate_model, evaluating, training_steps

__all__ = [
    "attend",
    "calc_loss_loader",
    "evaluate_model",
    "evaluating",
    "fast_autocast",
    "fast_math",
    "generate",
    "get_tokenizer",
    "load_pretrained",
    "pick_device",
    "project",
    "training_steps",
]
