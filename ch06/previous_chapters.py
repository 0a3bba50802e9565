"""What was built in chapters 2 to 5, for the notebooks of chapter 6."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the repository's root

from ch02.dataset import GPTDatasetV1, create_dataloader_v1
from ch02.tokenizer import BPETokenizer, SimpleTokenizerV1, SimpleTokenizerV2
from ch02.tokenizer import get_tokenizer
from ch03.attention import (
    CausalAttention, MultiHeadAttention, MultiHeadAttentionWrapper, SelfAttention_v1,
    SelfAttention_v2, softmax_naive,
)
from ch04.gpt import (
    DummyGPTModel, DummyLayerNorm, DummyTransformerBlock, ExampleDeepNeuralNetwork,
    FeedForward, GELU, GPTModel, GPT_CONFIG_124M, LayerNorm, TransformerBlock,
    generate_text_simple, print_gradients,
)
from ch05 import training
from ch05.decoding import (
    check_prompts, generate, print_sampled_tokens, softmax_with_temperature,
)
from ch05.kv_cache import KVCache, attend, forward_cached, project
from ch05.openai_weights import (
    MODEL_CONFIGS, assign, download_and_load_gpt2, download_file,
    load_gpt2_params_from_tf_ckpt, load_weights_into_gpt,
)
from ch05.recipe import (
    find_highest_gradient, learning_rate_at, set_learning_rate, train_model,
)
from ch05.training import (
    add_gradients, calc_loss_batch, calc_loss_loader, count_targets,
    create_train_val_loaders, evaluate_model, evaluating, generate_and_print_sample,
    plot_losses, text_to_token_ids, token_ids_to_text, train_model_simple,
    training_steps,
)
from support.device.device import fast_autocast, fast_math, pick_device
from support.download.texts import load_text
from support.weights.pretrained import load_pretrained
from support.weights.smollm2 import chat_ids, has_chat_template

__all__ = [
    "BPETokenizer", "CausalAttention", "DummyGPTModel", "DummyLayerNorm",
    "DummyTransformerBlock", "ExampleDeepNeuralNetwork", "FeedForward", "GELU",
    "GPTDatasetV1", "GPTModel", "GPT_CONFIG_124M", "KVCache", "LayerNorm",
    "MODEL_CONFIGS", "MultiHeadAttention", "MultiHeadAttentionWrapper",
    "SelfAttention_v1", "SelfAttention_v2", "SimpleTokenizerV1", "SimpleTokenizerV2",
    "TransformerBlock", "add_gradients", "assign", "attend", "calc_loss_batch",
    "calc_loss_loader", "chat_ids", "check_prompts", "count_targets",
    "create_dataloader_v1", "create_train_val_loaders", "download_and_load_gpt2",
    "download_file", "evaluate_model", "evaluating", "fast_autocast", "fast_math",
    "find_highest_gradient", "forward_cached", "generate", "generate_and_print_sample",
    "generate_text_simple", "get_tokenizer", "has_chat_template", "learning_rate_at",
    "load_gpt2_params_from_tf_ckpt", "load_pretrained", "load_text",
    "load_weights_into_gpt", "pick_device", "plot_losses", "print_gradients",
    "print_sampled_tokens", "project", "set_learning_rate", "softmax_naive",
    "softmax_with_temperature", "text_to_token_ids", "token_ids_to_text", "train_model",
    "train_model_simple", "training", "training_steps",
]
