"""What was built in chapters 2 to 4, for the notebooks of chapter 5."""

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
from support.download.fetch import fetch
from support.download.texts import load_text

__all__ = [
    "BPETokenizer", "CausalAttention", "DummyGPTModel", "DummyLayerNorm",
    "DummyTransformerBlock", "ExampleDeepNeuralNetwork", "FeedForward", "GELU",
    "GPTDatasetV1", "GPTModel", "GPT_CONFIG_124M", "LayerNorm", "MultiHeadAttention",
    "MultiHeadAttentionWrapper", "SelfAttention_v1", "SelfAttention_v2",
    "SimpleTokenizerV1", "SimpleTokenizerV2", "TransformerBlock",
    "create_dataloader_v1", "fetch", "generate_text_simple", "get_tokenizer",
    "load_text", "print_gradients", "softmax_naive",
]
