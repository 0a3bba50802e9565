"""What chapter 7 uses of the chapters before it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the repository's root

from ch02.fetch import fetch
from ch02.tokenizer import BPETokenizer, get_tokenizer
from ch04.gpt import GPT_CONFIG_124M, GPTModel, generate_text_simple
from ch05.certificate import check_parameters
from ch05.checkpoint import is_tied, load_parameters, open_saved, save_weights
from ch05.decoding import check_prompts, generate
from ch05.device import autocast, fast_dtype, fast_math, pick_device
from ch05.kv_cache import forward_cached
from ch05.long_run import learning_rate_at, set_learning_rate
from ch05.openai_weights import (
    MODEL_CONFIGS,
    assign,
    download_and_load_gpt2,
    load_weights_into_gpt,
)
from ch05.preflight import kept_bytes
from ch05.pretrained import load_pretrained
from ch05.smollm2 import chat_ids, has_chat_template
from ch05.training import (
    add_gradients,
    calc_loss_batch,
    calc_loss_loader,
    count_targets,
    evaluate_model,
    evaluating,
    plot_losses,
    text_to_token_ids,
    token_ids_to_text,
    train_model_simple,
    training_steps,
)
from ch06.batches import LengthBuckets, padding_share
from ch06.spam import group_split, near_duplicate_groups, words_of

__all__ = [
    "BPETokenizer",
    "GPTModel",
    "GPT_CONFIG_124M",
    "LengthBuckets",
    "MODEL_CONFIGS",
    "add_gradients",
    "assign",
    "autocast",
    "calc_loss_batch",
    "calc_loss_loader",
    "chat_ids",
    "check_parameters",
    "check_prompts",
    "count_targets",
    "download_and_load_gpt2",
    "evaluate_model",
    "evaluating",
    "fast_dtype",
    "fast_math",
    "fetch",
    "forward_cached",
    "generate",
    "generate_text_simple",
    "get_tokenizer",
    "group_split",
    "has_chat_template",
    "is_tied",
    "kept_bytes",
    "learning_rate_at",
    "load_parameters",
    "load_pretrained",
    "load_weights_into_gpt",
    "near_duplicate_groups",
    "open_saved",
    "padding_share",
    "pick_device",
    "plot_losses",
    "save_weights",
    "set_learning_rate",
    "text_to_token_ids",
    "token_ids_to_text",
    "train_model_simple",
    "training_steps",
    "words_of",
]
