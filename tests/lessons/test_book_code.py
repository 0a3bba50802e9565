"""Calls as a reader of the book types them, chapter by chapter, on tiny models.

Names, arguments and printed numbers are the book's; each call asserts on its result.
Numbers that dropout masks would change are left out: they differ between systems.
"""

import json
import math
import re
import zipfile
from copy import deepcopy
from functools import partial
from hashlib import sha256
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tiktoken
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from ch02.dataset import GPTDatasetV1, create_dataloader_v1
from ch02.tokenizer import (
    BPETokenizer,
    SimpleTokenizerV1,
    SimpleTokenizerV2,
    get_tokenizer,
    split_words,
)
from ch03.attention import (
    CausalAttention,
    MultiHeadAttention,
    MultiHeadAttentionWrapper,
    SelfAttention_v1,
    SelfAttention_v2,
    softmax_naive,
)
from ch04.gpt import (
    GELU,
    GPT_CONFIG_124M,
    DummyGPTModel,
    DummyLayerNorm,
    DummyTransformerBlock,
    ExampleDeepNeuralNetwork,
    FeedForward,
    GPTModel,
    LayerNorm,
    TransformerBlock,
    generate_text_simple,
    print_gradients,
)
from ch05.decoding import generate, print_sampled_tokens, softmax_with_temperature
from ch05.openai_weights import (
    assign,
    download_and_load_gpt2,
    download_file,
    load_weights_into_gpt,
)
from ch05.recipe import find_highest_gradient, train_model
from ch05.training import (
    calc_loss_batch,
    calc_loss_loader,
    evaluate_model,
    generate_and_print_sample,
    plot_losses,
    text_to_token_ids,
    token_ids_to_text,
    train_model_simple,
)
from ch06 import classifier as chapter6
from ch06 import spam
from ch06.classifier import (
    calc_accuracy_loader,
    classify_review,
    plot_values,
    train_classifier_simple,
)
from ch06.spam import (
    SpamDataset,
    create_balanced_dataset,
    download_and_unzip_spam_data,
    random_split,
)
from ch07.instructions import (
    InstructionDataset,
    custom_collate_draft_1,
    custom_collate_draft_2,
    custom_collate_fn,
    download_and_load_file,
    format_input,
)
from ch07.judge import check_if_running, generate_model_scores, query_model
from ch07.lora import LinearWithLoRA, LoRALayer, replace_linear_with_lora
from tests.ollama import message
from tests.server import closed_url, serving

DEVICE = torch.device("cpu")
SMALL = {
    "vocab_size": 50257,
    "context_length": 32,
    "emb_dim": 8,
    "n_heads": 2,
    "n_layers": 2,
    "drop_rate": 0.0,
    "qkv_bias": False,
}
TEXT = "The harbour was quiet, and the tide went out; nobody saw it go. " * 12
CONTEXT = "The harbour was"


def near(tensor, numbers):
    """Whether a tensor holds numbers as the book prints them, to four decimals."""
    return torch.allclose(tensor, torch.tensor(numbers), atol=6e-5)


def seeded(cls, *args, seed=123, **kwargs):
    """A module created right after torch.manual_seed, as the book creates it."""
    torch.manual_seed(seed)
    return cls(*args, **kwargs)


# Chapter 2: working with text data


QUOTE = (
    '"It\'s the last he painted, you know," Mrs. Gisburn said with pardonable pride.'
)
QUOTE_IDS = [1, 56, 2, 850, 988, 602, 533, 746, 5, 1126, 596, 5]
QUOTE_IDS += [1, 67, 7, 38, 851, 1108, 754, 793, 7]
TWO_TEXTS = (
    "Hello, do you like tea? <|endoftext|> In the sunlit terraces of the palace."
)


@pytest.fixture
def words(verdict_file):
    """The words of the book's text, sorted, without special tokens."""
    return sorted(set(split_words(verdict_file.read_text(encoding="utf-8"))))


@pytest.fixture
def vocab():
    """A small vocabulary in the book's form: {word: id}, special tokens last."""
    words = sorted(set(split_words(TEXT + "Yes: or; no?")))
    return {word: i for i, word in enumerate([*words, "<|endoftext|>", "<|unk|>"])}


def test_the_vocabulary_of_the_verdict(verdict_file, words):
    text = verdict_file.read_text(encoding="utf-8")
    assert (len(text), len(split_words(text)), len(words)) == (20479, 4690, 1130)


def test_simple_tokenizer_v1_encodes(words):
    tokenizer = SimpleTokenizerV1({word: i for i, word in enumerate(words)})
    assert tokenizer.encode(QUOTE) == QUOTE_IDS


def test_simple_tokenizer_v1_decodes(words):
    tokenizer = SimpleTokenizerV1({word: i for i, word in enumerate(words)})
    said = '" It\' s the last he painted, you know," Mrs. Gisburn said with '
    assert tokenizer.decode(QUOTE_IDS) == said + "pardonable pride."


def test_simple_tokenizer_v2_encodes_unknown_words(words):
    entries = [*words, "<|endoftext|>", "<|unk|>"]
    tokenizer = SimpleTokenizerV2({word: i for i, word in enumerate(entries)})
    expected = [1131, 5, 355, 1126, 628, 975, 10, 1130]
    expected += [55, 988, 956, 984, 722, 988, 1131, 7]
    assert tokenizer.encode(TWO_TEXTS) == expected


def test_simple_tokenizer_v2_decodes(words):
    entries = [*words, "<|endoftext|>", "<|unk|>"]
    tokenizer = SimpleTokenizerV2({word: i for i, word in enumerate(entries)})
    said = tokenizer.decode(tokenizer.encode(TWO_TEXTS))
    expected = "<|unk|>, do you like tea? <|endoftext|> In the sunlit terraces of the "
    assert said == expected + "<|unk|>."


def test_simple_tokenizer_v2_closes_up_before_punctuation(vocab):
    tokenizer = SimpleTokenizerV2(vocab)
    said = "Yes: the tide; or the harbour, was quiet?"
    assert tokenizer.decode(tokenizer.encode(said)) == said


@pytest.mark.parametrize("cls", [SimpleTokenizerV1, SimpleTokenizerV2])
def test_simple_tokenizers_keep_both_tables(cls, vocab):
    tokenizer = cls(vocab=vocab)
    assert tokenizer.str_to_int == vocab
    assert tokenizer.int_to_str == {i: word for word, i in vocab.items()}


def test_gpt2_tokenizer_with_a_special_token():
    tokenizer = get_tokenizer("gpt2")
    text = "Hello, do you like tea? <|endoftext|> In the sunlit terraces"
    ids = tokenizer.encode(
        text + "of someunknownPlace.", allowed_special={"<|endoftext|>"}
    )
    expected = [15496, 11, 466, 345, 588, 8887, 30, 220, 50256, 554, 262, 4252, 18250]
    assert ids == [*expected, 8812, 2114, 1659, 617, 34680, 27271, 13]
    assert tokenizer.decode(ids) == text + "of someunknownPlace."


def test_gpt2_tokenizer_on_an_unknown_word():
    """Exercise 2.1."""
    ids = get_tokenizer("gpt2").encode("Akwirw ier")
    assert ids == [33901, 86, 343, 86, 220, 959]


def test_gpt2_tokenizer_is_what_tiktoken_gives():
    tokenizer = get_tokenizer("gpt2")
    assert isinstance(tokenizer, tiktoken.Encoding)
    assert (tokenizer.name, tokenizer.n_vocab, tokenizer.eot_token) == (
        "gpt2",
        50257,
        50256,
    )


def test_gpt_dataset_v1_positionally(tokenizer):
    dataset = GPTDatasetV1(TEXT, tokenizer, 4, 4)
    ids = tokenizer.encode(TEXT)
    assert len(dataset) == len(range(0, len(ids) - 4, 4))
    inputs, targets = dataset[1]
    assert (inputs.tolist(), targets.tolist()) == (ids[4:8], ids[5:9])


def test_gpt_dataset_v1_by_keyword(tokenizer):
    dataset = GPTDatasetV1(txt=TEXT, tokenizer=tokenizer, max_length=8, stride=1)
    assert len(dataset) == len(tokenizer.encode(TEXT)) - 8
    assert dataset[0][0].shape == (8,) and dataset[0][0].dtype == torch.long


def test_gpt_dataset_v1_keeps_inputs_and_targets(tokenizer):
    dataset = GPTDatasetV1(TEXT, tokenizer, 4, 2)
    assert len(dataset.input_ids) == len(dataset.target_ids) == len(dataset)
    assert torch.equal(dataset.input_ids[3][1:], dataset.target_ids[3][:-1])


def test_create_dataloader_v1_on_the_verdict(verdict_file):
    raw_text = verdict_file.read_text(encoding="utf-8")
    dataloader = create_dataloader_v1(
        raw_text, batch_size=1, max_length=4, stride=1, shuffle=False
    )
    data_iter = iter(dataloader)
    first, second = next(data_iter), next(data_iter)
    assert [part.tolist() for part in first] == [
        [[40, 367, 2885, 1464]],
        [[367, 2885, 1464, 1807]],
    ]
    assert second[0].tolist() == [[367, 2885, 1464, 1807]]


def test_create_dataloader_v1_in_larger_batches():
    loader = create_dataloader_v1(
        TEXT, batch_size=8, max_length=4, stride=4, shuffle=False
    )
    inputs, targets = next(iter(loader))
    assert inputs.shape == targets.shape == (8, 4)
    assert torch.equal(inputs.flatten()[1:], targets.flatten()[:-1])


def test_create_dataloader_v1_positionally(tokenizer):
    loader = create_dataloader_v1(TEXT, 2, 4, 4, False, False, 0)
    num_windows = len(range(0, len(tokenizer.encode(TEXT)) - 4, 4))
    assert len(loader) == math.ceil(num_windows / 2)
    assert sum(len(inputs) for inputs, _ in loader) == num_windows


def test_create_dataloader_v1_has_the_books_defaults():
    loader = create_dataloader_v1(TEXT * 8)
    assert (loader.batch_size, loader.drop_last, loader.num_workers) == (4, True, 0)
    assert next(iter(loader))[0].shape == (4, 256)


def test_create_dataloader_v1_shuffles_with_torchs_seed(tokenizer):
    """The order is that of PyTorch's own loader after the same seed."""
    dataset = GPTDatasetV1(TEXT, tokenizer, 4, 4)
    torch.manual_seed(123)
    expected = [
        pair[0] for pair in DataLoader(dataset, 2, shuffle=True, drop_last=True)
    ]
    torch.manual_seed(123)
    loader = create_dataloader_v1(TEXT, batch_size=2, max_length=4, stride=4)
    found = [inputs for inputs, _ in loader]
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


def test_token_and_position_embeddings():
    """Section 2.8, with the loader's batch."""
    loader = create_dataloader_v1(TEXT, batch_size=8, max_length=4, stride=4)
    inputs, _ = next(iter(loader))
    token_embeddings = nn.Embedding(50257, 16)(inputs)
    pos_embeddings = nn.Embedding(4, 16)(torch.arange(4))
    assert (token_embeddings + pos_embeddings).shape == (8, 4, 16)


def test_byte_pair_encoding_is_learned_from_a_text():
    """The bonus tokenizer, under the course's name."""
    tokenizer = BPETokenizer.train(TEXT, 280)
    ids = tokenizer.encode("The tide<|endoftext|>", allowed_special={"<|endoftext|>"})
    assert ids[-1] == tokenizer.special_tokens["<|endoftext|>"]
    assert tokenizer.decode(ids) == "The tide<|endoftext|>"
    assert tokenizer.n_vocab == 280


# Chapter 3: attention


INPUTS = torch.tensor(
    [
        [0.43, 0.15, 0.89],
        [0.55, 0.87, 0.66],
        [0.57, 0.85, 0.64],
        [0.22, 0.58, 0.33],
        [0.77, 0.25, 0.10],
        [0.05, 0.80, 0.55],
    ]
)
BATCH = torch.stack((INPUTS, INPUTS), dim=0)
CAUSAL = [[-0.4519, 0.2216], [-0.5874, 0.0058], [-0.6300, -0.0632]]
CAUSAL += [[-0.5675, -0.0843], [-0.5526, -0.0981], [-0.5299, -0.1081]]
SECOND_HEAD = [[0.4772, 0.1063], [0.5891, 0.3257], [0.6202, 0.3860]]
SECOND_HEAD += [[0.5478, 0.3589], [0.5321, 0.3428], [0.5077, 0.3493]]


def test_softmax_naive():
    weights = softmax_naive(INPUTS @ INPUTS[1])
    assert near(weights, [0.1385, 0.2379, 0.2333, 0.1240, 0.1082, 0.1581])
    assert near(weights @ INPUTS, [0.4419, 0.6515, 0.5683])


def test_self_attention_v1():
    sa_v1 = seeded(SelfAttention_v1, 3, 2)
    found = sa_v1(INPUTS)
    assert near(found[0], [0.2996, 0.8053]) and near(found[5], [0.2990, 0.8040])


def test_self_attention_v2():
    sa_v2 = seeded(SelfAttention_v2, 3, 2, seed=789)
    found = sa_v2(INPUTS)
    assert near(found[0], [-0.0739, 0.0713]) and near(found[5], [-0.0754, 0.0693])


def test_self_attention_v2_with_bias():
    sa_v2 = SelfAttention_v2(d_in=3, d_out=2, qkv_bias=True)
    assert sa_v2.W_query.bias.shape == sa_v2.W_key.bias.shape == (2,)
    assert sa_v2(INPUTS).shape == (6, 2)


def test_v1_with_the_weights_of_v2():
    """Exercise 3.1."""
    sa_v1, sa_v2 = SelfAttention_v1(3, 2), SelfAttention_v2(3, 2)
    sa_v1.W_query = nn.Parameter(sa_v2.W_query.weight.T)
    sa_v1.W_key = nn.Parameter(sa_v2.W_key.weight.T)
    sa_v1.W_value = nn.Parameter(sa_v2.W_value.weight.T)
    torch.testing.assert_close(sa_v1(INPUTS), sa_v2(INPUTS))


def test_causal_attention():
    ca = seeded(CausalAttention, 3, 2, 6, 0.0)
    context_vecs = ca(BATCH)
    assert context_vecs.shape == (2, 6, 2)
    assert near(context_vecs, [CAUSAL, CAUSAL])


def test_causal_attention_by_keyword():
    ca = CausalAttention(d_in=3, d_out=2, context_length=9, dropout=0.5, qkv_bias=True)
    assert ca.d_out == 2 and ca.dropout.p == 0.5 and ca.W_value.bias is not None
    assert ca.eval()(BATCH).shape == (2, 6, 2)


def test_multi_head_attention_wrapper():
    mha = seeded(MultiHeadAttentionWrapper, 3, 2, 6, 0.0, num_heads=2)
    both = [a + b for a, b in zip(CAUSAL, SECOND_HEAD)]
    assert near(mha(BATCH), [both, both])


def test_multi_head_attention_wrapper_of_width_two():
    """Exercise 3.2."""
    mha = MultiHeadAttentionWrapper(3, 1, 6, 0.0, num_heads=2)
    assert mha(BATCH).shape == (2, 6, 2)
    assert len(mha.heads) == 2 and isinstance(mha.heads[0], CausalAttention)


def test_multi_head_attention():
    mha = seeded(MultiHeadAttention, 3, 2, 6, 0.0, num_heads=2)
    context_vecs = mha(BATCH)
    assert context_vecs.shape == (2, 6, 2)
    assert near(context_vecs[1, 0], [0.3190, 0.4858])
    assert near(context_vecs[1, 5], [0.2575, 0.4028])


def test_multi_head_attention_of_gpt2():
    """Exercise 3.3."""
    with torch.device("meta"):
        mha = MultiHeadAttention(768, 768, 1024, 0.0, num_heads=12)
    assert sum(p.numel() for p in mha.parameters()) == 2_360_064


def test_multi_head_attention_has_the_books_attributes():
    mha = MultiHeadAttention(
        d_in=3, d_out=4, context_length=6, dropout=0.1, num_heads=2, qkv_bias=True
    )
    assert (mha.d_out, mha.num_heads, mha.head_dim, mha.dropout.p) == (4, 2, 2, 0.1)
    assert mha.W_query.bias.shape == (4,)
    assert mha.out_proj.weight.shape == (4, 4) and mha.out_proj.bias is not None


@pytest.mark.parametrize(
    "attention",
    [
        partial(CausalAttention, 3, 2, 5, 0.0),
        partial(MultiHeadAttention, 3, 2, 5, 0.0, 1),
    ],
)
def test_the_mask_hides_what_the_book_hides(attention):
    """The book turns it into bool and cuts it to the number of tokens."""
    hidden = attention().mask.bool()[:3, :3]
    assert hidden.tolist() == [
        [False, True, True],
        [False, False, True],
        [False, False, False],
    ]


# Chapter 4: the GPT model


@pytest.fixture
def cfg():
    """A config in the book's form, small enough for milliseconds."""
    return dict(SMALL)


@pytest.fixture
def model(cfg):
    """A seeded GPT of that config, in evaluation mode."""
    return seeded(GPTModel, cfg).eval()


def four_tokens(tokenizer):
    """The two texts of section 4.1, (2, 4)."""
    texts = "Every effort moves you", "Every day holds a"
    return torch.stack([torch.tensor(tokenizer.encode(text)) for text in texts])


def books_parameters(cfg):
    """All random parameters in the order in which the book creates them."""
    width = cfg["emb_dim"]
    qkv = partial(nn.Linear, width, width, bias=cfg["qkv_bias"])
    modules = {
        "tok_emb": nn.Embedding(cfg["vocab_size"], width),
        "pos_emb": nn.Embedding(cfg["context_length"], width),
    }
    for i in range(cfg["n_layers"]):
        block = f"trf_blocks.{i}"
        modules[f"{block}.att.W_query"] = qkv()
        modules[f"{block}.att.W_key"] = qkv()
        modules[f"{block}.att.W_value"] = qkv()
        modules[f"{block}.att.out_proj"] = nn.Linear(width, width)
        modules[f"{block}.ff.layers.0"] = nn.Linear(width, 4 * width)
        modules[f"{block}.ff.layers.2"] = nn.Linear(4 * width, width)
    modules["out_head"] = nn.Linear(width, cfg["vocab_size"], bias=False)
    return {
        f"{name}.{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }


def books_keys(cfg):
    """The keys of the state dict that the book's GPTModel has: masks among them."""
    keys = set(books_parameters(cfg)) | {"final_norm.scale", "final_norm.shift"}
    for i in range(cfg["n_layers"]):
        keys |= {f"trf_blocks.{i}.norm{n}.scale" for n in (1, 2)}
        keys |= {f"trf_blocks.{i}.norm{n}.shift" for n in (1, 2)}
        keys |= {f"trf_blocks.{i}.att.mask"}
    return keys


def books_state_dict(cfg, seed):
    """What the book's GPTModel saves, filled with seeded numbers."""
    state = GPTModel(cfg).state_dict()
    generator = torch.Generator().manual_seed(seed)
    for name, value in state.items():
        state[name] = torch.randn(value.shape, generator=generator)
    size = cfg["context_length"], cfg["context_length"]
    for i in range(cfg["n_layers"]):
        state[f"trf_blocks.{i}.att.mask"] = torch.triu(torch.ones(size), diagonal=1)
    return state


def test_gpt_config_124m():
    assert GPT_CONFIG_124M == {
        "vocab_size": 50257,
        "context_length": 1024,
        "emb_dim": 768,
        "n_heads": 12,
        "n_layers": 12,
        "drop_rate": 0.1,
        "qkv_bias": False,
    }
    assert type(GPT_CONFIG_124M) is dict


def test_dummy_gpt_model(cfg, tokenizer):
    model = seeded(DummyGPTModel, cfg)
    logits = model(four_tokens(tokenizer))
    assert logits.shape == (2, 4, 50257)
    torch.manual_seed(123)
    tok_emb, pos_emb = nn.Embedding(50257, 8), nn.Embedding(32, 8)
    out_head = nn.Linear(8, 50257, bias=False)
    x = tok_emb(four_tokens(tokenizer)) + pos_emb(torch.arange(4))
    torch.testing.assert_close(logits, out_head(x))


def test_dummy_transformer_block(cfg):
    x = torch.randn(2, 4, 8)
    assert torch.equal(DummyTransformerBlock(cfg)(x), x)


def test_dummy_layer_norm():
    x = torch.randn(2, 4, 8)
    assert torch.equal(DummyLayerNorm(8)(x), x)
    assert torch.equal(DummyLayerNorm(normalized_shape=8, eps=1e-5)(x), x)


def test_layer_norm():
    torch.manual_seed(123)
    batch_example = torch.randn(2, 5)
    ln = LayerNorm(emb_dim=5)
    out_ln = ln(batch_example)
    assert near(out_ln[0], [0.5528, 1.0693, -0.0223, 0.2656, -1.8654])
    assert near(out_ln[1], [0.9087, -1.3767, -0.9564, 1.1304, 0.2940])
    assert near(out_ln.var(dim=-1, unbiased=False), [1.0, 1.0])


def test_layer_norm_has_scale_shift_and_eps():
    ln = LayerNorm(5)
    assert ln.scale.tolist() == [1.0] * 5 and ln.shift.tolist() == [0.0] * 5
    assert ln.eps == 1e-5


def test_gelu():
    x = torch.linspace(-3, 3, 100)
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    torch.testing.assert_close(GELU()(x), 0.5 * x * (1 + torch.tanh(inner)))


def test_feed_forward(cfg):
    ffn = FeedForward(cfg)
    assert ffn(torch.rand(2, 3, 8)).shape == (2, 3, 8)
    assert [tuple(p.shape) for p in ffn.layers.parameters()] == [
        (32, 8),
        (32,),
        (8, 32),
        (8,),
    ]
    assert isinstance(ffn.layers[1], GELU)


@pytest.mark.parametrize(
    ("use_shortcut", "expected"),
    [
        (False, [0.00020174, 0.00012011, 0.0007152, 0.0013989, 0.0050496]),
        (True, [0.22170, 0.20694, 0.32897, 0.26657, 1.32585]),
    ],
)
def test_print_gradients(use_shortcut, expected, capsys):
    """The book's numbers, as far as six decimals show them."""
    layer_sizes = [3, 3, 3, 3, 3, 1]
    sample_input = torch.tensor([[1.0, 0.0, -1.0]])
    net = seeded(ExampleDeepNeuralNetwork, layer_sizes, use_shortcut=use_shortcut)
    print_gradients(net, sample_input)
    printed = re.findall(r"(\S+) has gradient mean of (\S+)", capsys.readouterr().out)
    assert [name for name, _ in printed] == [f"layers.{i}.0.weight" for i in range(5)]
    assert [float(number) for _, number in printed] == pytest.approx(expected, rel=5e-3)


def test_transformer_block(cfg):
    block = seeded(TransformerBlock, cfg)
    x = torch.rand(2, 4, 8)
    assert block(x).shape == x.shape


def test_transformer_block_has_the_books_attributes(cfg):
    block = TransformerBlock(cfg | {"drop_rate": 0.3})
    assert isinstance(block.att, MultiHeadAttention)
    assert isinstance(block.ff, FeedForward)
    assert isinstance(block.norm1, LayerNorm) and isinstance(block.norm2, LayerNorm)
    assert block.drop_shortcut.p == 0.3


def test_gpt_model(model, tokenizer):
    out = model(four_tokens(tokenizer))
    assert out.shape == (2, 4, 50257)


def test_gpt_model_takes_in_idx_by_keyword(model, tokenizer):
    batch = four_tokens(tokenizer)
    assert torch.equal(model(in_idx=batch), model(batch))


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_the_books_seed_gives_the_books_parameters(cfg, qkv_bias):
    """Every random parameter is drawn in the book's order, none in between."""
    cfg["qkv_bias"] = qkv_bias
    state = seeded(GPTModel, cfg).state_dict()
    torch.manual_seed(123)
    for name, value in books_parameters(cfg).items():
        assert torch.equal(state[name], value), name


def test_gpt_model_has_the_books_parameter_names(model, cfg):
    masks = {f"trf_blocks.{i}.att.mask" for i in range(cfg["n_layers"])}
    assert set(model.state_dict()) | masks == books_keys(cfg)
    names = {name for name, _ in model.named_parameters()}
    assert names == books_keys(cfg) - masks


def test_gpt_model_has_the_books_attributes(model, cfg):
    assert model.tok_emb.weight.shape == model.out_head.weight.shape == (50257, 8)
    assert model.pos_emb.weight.shape == (cfg["context_length"], 8)
    assert len(model.trf_blocks) == 2 and isinstance(model.final_norm, LayerNorm)
    assert model.drop_emb.p == cfg["drop_rate"] and model.out_head.bias is None


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, 163_009_536),
        ({"emb_dim": 1024, "n_layers": 24, "n_heads": 16}, 406_212_608),
        ({"emb_dim": 1280, "n_layers": 36, "n_heads": 20}, 838_220_800),
        ({"emb_dim": 1600, "n_layers": 48, "n_heads": 25}, 1_637_792_000),
        ({"qkv_bias": True}, 163_037_184),
    ],
)
def test_number_of_parameters(sizes, expected):
    """Section 4.6 and exercise 4.2, counted without memory."""
    config = GPT_CONFIG_124M.copy()
    config.update(sizes)
    with torch.device("meta"):
        model = GPTModel(config)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_number_of_parameters_with_weight_tying():
    with torch.device("meta"):
        model = GPTModel(GPT_CONFIG_124M)
    total = sum(p.numel() for p in model.parameters())
    tied = total - sum(p.numel() for p in model.out_head.parameters())
    assert tied == 124_412_160
    assert round(total * 4 / (1024 * 1024), 2) == 621.83


def test_number_of_parameters_in_a_block():
    """Exercise 4.1."""
    with torch.device("meta"):
        block = TransformerBlock(GPT_CONFIG_124M)
    assert sum(p.numel() for p in block.ff.parameters()) == 4_722_432
    assert sum(p.numel() for p in block.att.parameters()) == 2_360_064


def test_three_dropout_rates(cfg):
    """Exercise 4.3: the config has three keys in the place of drop_rate."""
    del cfg["drop_rate"]
    cfg |= {"drop_rate_emb": 0.1, "drop_rate_attn": 0.2, "drop_rate_shortcut": 0.3}
    model = GPTModel(cfg)
    assert model.drop_emb.p == 0.1
    for block in model.trf_blocks:
        assert (block.att.dropout.p, block.drop_shortcut.p) == (0.2, 0.3)
    assert model(torch.tensor([[1, 2, 3]])).shape == (1, 3, 50257)


def test_generate_text_simple(model, tokenizer, cfg):
    encoded_tensor = torch.tensor(tokenizer.encode("Hello, I am")).unsqueeze(0)
    out = generate_text_simple(
        model=model,
        idx=encoded_tensor,
        max_new_tokens=6,
        context_size=cfg["context_length"],
    )
    assert out.shape == (1, 10)
    for end in range(4, 10):
        assert out[0, end] == model(out[:, :end])[0, -1].argmax()


def test_generate_text_simple_positionally_past_the_context(model):
    out = generate_text_simple(model, torch.tensor([[1, 2], [3, 4]]), 9, 4)
    assert out.shape == (2, 11)
    last = model(out[:, -5:-1])[:, -1].argmax(dim=-1)
    assert torch.equal(out[:, -1], last)


def test_generate_text_simple_with_the_dummy_model(cfg):
    out = generate_text_simple(DummyGPTModel(cfg).eval(), torch.tensor([[1, 2]]), 3, 32)
    assert out.shape == (1, 5)


# Chapter 5: pretraining


NEXT_TOKEN_LOGITS = torch.tensor(
    [4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79]
)


class Echo(nn.Module):
    """Any module that maps ids to logits: each token is followed by the next id."""

    def __init__(self, vocab_size=50257):
        super().__init__()
        self.vocab_size = vocab_size
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, idx):
        one_hot = F.one_hot((idx + 1) % self.vocab_size, self.vocab_size)
        return 50 * self.weight * one_hot.float()


def book_loaders(tokenizer):
    """Loaders over the first nine tenths of a text and over the rest."""
    split_idx = int(0.9 * len(TEXT))
    sizes = {"batch_size": 2, "max_length": 8, "stride": 8, "num_workers": 0}
    train_loader = create_dataloader_v1(
        TEXT[:split_idx], **sizes, drop_last=True, shuffle=True
    )
    val_loader = create_dataloader_v1(
        TEXT[split_idx:], **sizes, drop_last=False, shuffle=False
    )
    return train_loader, val_loader


@pytest.fixture
def loaders(tokenizer):
    """The loaders for training and validation."""
    return book_loaders(tokenizer)


@pytest.fixture
def drawn():
    """The two curves of the figure that was drawn last, which is closed at the end."""
    yield lambda: [list(line.get_ydata()) for line in plt.gcf().axes[0].lines][:2]
    plt.close("all")


def adamw(model, lr=0.01):
    """The book's optimizer."""
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)


def test_text_to_token_ids(tokenizer):
    ids = text_to_token_ids("Every effort moves you", tokenizer)
    assert ids.tolist() == [[6109, 3626, 6100, 345]]


def test_text_to_token_ids_by_keyword(tokenizer):
    ids = text_to_token_ids(text="<|endoftext|>", tokenizer=tokenizer)
    assert ids.tolist() == [[50256]]


def test_token_ids_to_text(tokenizer):
    ids = torch.tensor([[6109, 3626, 6100, 345]])
    assert token_ids_to_text(ids, tokenizer) == "Every effort moves you"
    assert token_ids_to_text(token_ids=ids[0], tokenizer=tokenizer).startswith("Every")


def test_calc_loss_batch(model):
    inputs, targets = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[2, 5], [4, 6]])
    loss = calc_loss_batch(inputs, targets, model, DEVICE)
    logits = model(inputs)
    expected = -torch.log_softmax(logits, -1).gather(2, targets[..., None]).mean()
    torch.testing.assert_close(loss, expected)
    assert loss.requires_grad and loss.shape == ()


def test_calc_loss_batch_of_a_model_that_knows_nothing(model):
    nn.init.zeros_(model.out_head.weight)
    ids = torch.tensor([[1, 2, 3]])
    loss = calc_loss_batch(
        input_batch=ids, target_batch=ids, model=model, device=DEVICE
    )
    assert loss.item() == pytest.approx(math.log(50257))


def test_calc_loss_loader(model):
    """Of batches with equally many tokens it is the mean of their losses."""
    train_loader = create_dataloader_v1(TEXT, 2, 8, 8, shuffle=False)
    found = calc_loss_loader(train_loader, model, DEVICE)
    losses = [calc_loss_batch(x, y, model, DEVICE).item() for x, y in train_loader]
    assert found == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_calc_loss_loader_of_some_batches(model):
    loader = create_dataloader_v1(TEXT, 2, 8, 8, shuffle=False)
    found = calc_loss_loader(
        data_loader=loader, model=model, device=DEVICE, num_batches=2
    )
    pairs = list(loader)[:2]
    losses = [calc_loss_batch(x, y, model, DEVICE).item() for x, y in pairs]
    assert found == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_calc_loss_loader_with_more_batches_than_there_are(model):
    loader = create_dataloader_v1(TEXT, 2, 8, 8, shuffle=False)
    found = calc_loss_loader(loader, model, DEVICE, 1000)
    assert found == calc_loss_loader(loader, model, DEVICE)


@pytest.mark.parametrize("empty", [[], DataLoader([])], ids=["list", "loader"])
def test_calc_loss_loader_of_an_empty_loader(model, empty):
    assert math.isnan(calc_loss_loader(empty, model, DEVICE))


def test_evaluate_model(model, loaders):
    train_loader, val_loader = loaders
    found = evaluate_model(model, train_loader, val_loader, DEVICE, eval_iter=1)
    assert len(found) == 2
    assert found[1] == pytest.approx(calc_loss_loader(val_loader, model, DEVICE, 1))


def test_train_model_simple(cfg, loaders, tokenizer, capsys):
    model = seeded(GPTModel, cfg)
    train_losses, val_losses, tokens_seen = train_model_simple(
        model,
        *loaders,
        adamw(model),
        DEVICE,
        num_epochs=2,
        eval_freq=5,
        eval_iter=1,
        start_context=CONTEXT,
        tokenizer=tokenizer,
    )
    num_steps = 2 * len(loaders[0])
    assert tokens_seen == [16 * (step + 1) for step in range(0, num_steps, 5)]
    assert len(train_losses) == len(val_losses) == len(tokens_seen)
    assert val_losses[-1] < val_losses[0]
    printed = capsys.readouterr().out
    assert printed.count(CONTEXT) == 2 and "Ep 1 (Step 000000)" in printed


def test_train_model_simple_positionally(cfg, loaders, tokenizer):
    model = seeded(GPTModel, cfg)
    before = model.out_head.weight.detach().clone()
    found = train_model_simple(
        model, *loaders, adamw(model), DEVICE, 1, 5, 1, CONTEXT, tokenizer
    )
    assert len(found) == 3
    assert not torch.equal(model.out_head.weight, before)


def test_train_model_simple_is_the_books_loop(cfg, loaders, tokenizer):
    """Weights afterwards are those of zero_grad, backward and step on each batch."""
    train_loader, val_loader = loaders
    model, expected = seeded(GPTModel, cfg), seeded(GPTModel, cfg)
    optimizer = adamw(expected)
    torch.manual_seed(123)
    for inputs, targets in train_loader:
        optimizer.zero_grad()
        calc_loss_batch(inputs, targets, expected, DEVICE).backward()
        optimizer.step()
    torch.manual_seed(123)
    arguments = adamw(model), DEVICE, 1, 1000, 1, CONTEXT, tokenizer
    train_model_simple(model, train_loader, val_loader, *arguments)
    for found, wanted in zip(model.parameters(), expected.parameters()):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cls", [GPTModel, DummyGPTModel])
def test_generate_and_print_sample(cls, cfg, tokenizer, capsys):
    model = cls(cfg)
    generate_and_print_sample(model, tokenizer, DEVICE, CONTEXT)
    printed = capsys.readouterr().out
    assert printed.startswith(CONTEXT) and printed.count("\n") == 1


def test_generate_and_print_sample_of_any_module(tokenizer, capsys):
    """With no table of positions, too."""
    arguments = {"tokenizer": tokenizer, "device": DEVICE, "start_context": CONTEXT}
    generate_and_print_sample(model=Echo(), **arguments)
    ids = tokenizer.encode(CONTEXT)
    expected = tokenizer.decode([*ids, *range(ids[-1] + 1, ids[-1] + 51)])
    assert capsys.readouterr().out == expected.replace("\n", " ") + "\n"


def test_train_model_simple_with_any_module(loaders, tokenizer, capsys):
    """A model of the reader's own, with none of the book's attributes."""
    model = nn.Sequential(nn.Embedding(50257, 4), nn.Linear(4, 50257))
    settings = adamw(model), DEVICE, 2, 5, 1, CONTEXT, tokenizer
    train_losses, _, _ = train_model_simple(model, *loaders, *settings)
    assert train_losses[-1] < train_losses[0]
    assert capsys.readouterr().out.count(CONTEXT) == 2


def test_plot_losses(drawn):
    epochs_tensor = torch.linspace(0, 10, 3)
    plot_losses(epochs_tensor, [16, 32, 48], [9.0, 6.0, 3.0], [9.0, 7.0, 6.0])
    assert drawn() == [[9.0, 6.0, 3.0], [9.0, 7.0, 6.0]]


def test_print_sampled_tokens(capsys):
    print_sampled_tokens(torch.softmax(NEXT_TOKEN_LOGITS, dim=0))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:8] == [
        "73 x closer",
        "0 x every",
        "0 x effort",
        "582 x forward",
        "2 x inches",
        "0 x moves",
        "0 x pizza",
        "343 x toward",
    ]


def test_softmax_with_temperature():
    temperatures = [1, 0.1, 5]
    scaled_probas = [
        softmax_with_temperature(NEXT_TOKEN_LOGITS, T) for T in temperatures
    ]
    for T, probas in zip(temperatures, scaled_probas):
        torch.testing.assert_close(probas, torch.softmax(NEXT_TOKEN_LOGITS / T, dim=0))


def test_the_probability_of_pizza():
    """Exercise 5.1."""
    probas = softmax_with_temperature(logits=NEXT_TOKEN_LOGITS, temperature=5)
    assert probas[6].item() == pytest.approx(0.0430, abs=5e-5)


def test_generate_is_greedy_by_default(model, tokenizer):
    idx = text_to_token_ids("Every effort moves you", tokenizer).to(DEVICE)
    found = generate(model=model, idx=idx, max_new_tokens=5, context_size=32)
    assert torch.equal(found, generate_text_simple(model, idx, 5, 32))


def test_generate_samples_as_the_book_does(model, tokenizer, cfg):
    """The same tokens as top-k, division and torch.multinomial after the seed."""
    idx = text_to_token_ids("Every effort moves you", tokenizer)
    torch.manual_seed(123)
    found = generate(
        model=model,
        idx=idx,
        max_new_tokens=15,
        context_size=cfg["context_length"],
        top_k=25,
        temperature=1.4,
    )
    torch.manual_seed(123)
    expected = idx
    for _ in range(15):
        logits = model(expected)[:, -1]
        logits[logits < logits.topk(25).values[:, -1:]] = -math.inf
        probas = torch.softmax(logits / 1.4, dim=-1)
        expected = torch.cat((expected, torch.multinomial(probas, 1)), dim=1)
    assert torch.equal(found, expected)


def test_generate_positionally(model):
    found = generate(model, torch.tensor([[5, 6]]), 4, 32, 0.0, None, None)
    assert found.shape == (1, 6)


def test_generate_stops_before_eos_id():
    found = generate(Echo(), torch.tensor([[5]]), 20, 32, eos_id=9)
    assert found.tolist() == [[5, 6, 7, 8]]


def test_generate_with_the_dummy_model(cfg):
    """A model of the reader's own: it has no more than the book's attributes."""
    model = seeded(DummyGPTModel, cfg).eval()
    idx = torch.tensor([[5, 6]])
    found = generate(model, idx, max_new_tokens=4, context_size=32)
    assert torch.equal(found, generate_text_simple(model, idx, 4, 32))


def test_generate_with_any_module_and_a_short_context():
    found = generate(
        model=Echo(), idx=torch.tensor([[5, 6, 7]]), max_new_tokens=3, context_size=2
    )
    assert found.tolist() == [[5, 6, 7, 8, 9, 10]]


def test_state_dict_is_saved_and_loaded(cfg, tmp_path):
    model = GPTModel(cfg)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    other = GPTModel(cfg)
    state = torch.load(tmp_path / "model.pth", map_location=DEVICE, weights_only=True)
    other.load_state_dict(state)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(other.eval()(ids), model.eval()(ids))


def test_model_and_optimizer_are_saved_and_loaded(cfg, tmp_path):
    model = GPTModel(cfg)
    optimizer = adamw(model)
    calc_loss_batch(*2 * [torch.tensor([[1, 2]])], model, DEVICE).backward()
    optimizer.step()
    both = {
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
    }
    torch.save(both, tmp_path / "model_and_optimizer.pth")
    checkpoint = torch.load(tmp_path / "model_and_optimizer.pth", weights_only=True)
    other = GPTModel(cfg)
    other.load_state_dict(checkpoint["model_state_dict"])
    resumed = torch.optim.AdamW(other.parameters(), lr=5e-4, weight_decay=0.1)
    resumed.load_state_dict(checkpoint["optimizer_state_dict"])
    assert resumed.param_groups[0]["lr"] == 0.01
    moments = resumed.state[other.out_head.weight]["exp_avg"]
    assert torch.equal(moments, optimizer.state[model.out_head.weight]["exp_avg"])


def test_a_file_of_the_books_classes_is_loaded(cfg, tmp_path):
    """It holds the masks; loading is strict."""
    state = books_state_dict(cfg, seed=1)
    assert set(state) == books_keys(cfg)
    torch.save(state, tmp_path / "model.pth")
    model = GPTModel(cfg)
    loaded = torch.load(tmp_path / "model.pth", weights_only=True)
    found = model.load_state_dict(loaded)
    assert not found.missing_keys and not found.unexpected_keys
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_loading_is_as_strict_as_pytorchs(model, cfg):
    state = books_state_dict(cfg, seed=1)
    state["out_haed.weight"] = state.pop("out_head.weight")
    with pytest.raises(RuntimeError, match="out_haed"):
        model.load_state_dict(state)


def test_the_books_attention_is_loaded():
    mha = MultiHeadAttention(3, 4, 6, 0.0, 2)
    state = mha.state_dict() | {"mask": torch.triu(torch.ones(6, 6), diagonal=1)}
    mha.load_state_dict(state)
    assert mha(BATCH).shape == (2, 6, 4)


def test_assign():
    left, right = nn.Parameter(torch.zeros(2, 3)), np.ones((3, 2), dtype=np.float32)
    found = assign(left, right.T)
    assert isinstance(found, nn.Parameter) and torch.equal(found, torch.ones(2, 3))
    with pytest.raises(ValueError, match="(?i)shape"):
        assign(left, right)


def openai_params(cfg, seed=1):
    """What download_and_load_gpt2 returns: nested dicts of numpy arrays."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    def linear(d_in, d_out):
        return {"w": draw(d_in, d_out), "b": draw(d_out)}

    def norm():
        return {"g": draw(width), "b": draw(width)}

    width = cfg["emb_dim"]
    blocks = [
        {
            "attn": {
                "c_attn": linear(width, 3 * width),
                "c_proj": linear(width, width),
            },
            "mlp": {
                "c_fc": linear(width, 4 * width),
                "c_proj": linear(4 * width, width),
            },
            "ln_1": norm(),
            "ln_2": norm(),
        }
        for _ in range(cfg["n_layers"])
    ]
    tables = {"wte": draw(cfg["vocab_size"], width)}
    tables["wpe"] = draw(cfg["context_length"], width)
    return tables | {"blocks": blocks} | norm()


@pytest.fixture
def openai(cfg):
    """A model with OpenAI's kind of arrays, and those."""
    cfg["qkv_bias"] = True
    gpt, params = GPTModel(cfg), openai_params(cfg)
    load_weights_into_gpt(gpt, params)
    return gpt.eval(), params


def test_load_weights_into_gpt_fills_the_embeddings(openai):
    gpt, params = openai
    for weight in (gpt.tok_emb.weight, gpt.out_head.weight):
        assert np.array_equal(weight.detach().numpy(), params["wte"])
    assert np.array_equal(gpt.pos_emb.weight.detach().numpy(), params["wpe"])
    assert np.array_equal(gpt.final_norm.scale.detach().numpy(), params["g"])
    assert np.array_equal(gpt.final_norm.shift.detach().numpy(), params["b"])


def test_load_weights_into_gpt_splits_and_transposes(openai):
    gpt, params = openai
    att = gpt.trf_blocks[1].att
    found = np.concatenate(
        [
            linear.weight.detach().numpy().T
            for linear in (att.W_query, att.W_key, att.W_value)
        ],
        axis=1,
    )
    assert np.array_equal(found, params["blocks"][1]["attn"]["c_attn"]["w"])
    assert np.array_equal(
        att.W_value.bias.detach().numpy(),
        params["blocks"][1]["attn"]["c_attn"]["b"][16:],
    )


def test_load_weights_into_gpt_by_keyword(cfg):
    cfg["qkv_bias"] = True
    gpt, params = GPTModel(cfg), openai_params(cfg)
    load_weights_into_gpt(gpt=gpt, params=params)
    block, source = gpt.trf_blocks[0], params["blocks"][0]
    found = block.ff.layers[2].weight.detach().numpy()
    assert np.array_equal(found, source["mlp"]["c_proj"]["w"].T)
    assert np.array_equal(block.norm2.scale.detach().numpy(), source["ln_2"]["g"])


def test_loaded_weights_are_put_to_use(openai, tokenizer):
    gpt, _ = openai
    idx = text_to_token_ids("Every effort moves you", tokenizer).to(DEVICE)
    found = generate(
        gpt, idx, max_new_tokens=5, context_size=32, top_k=50, temperature=1.5
    )
    assert found.shape == (1, 9)


def test_download_and_load_gpt2_refuses_other_sizes(tmp_path):
    with pytest.raises(ValueError, match="125M"):
        download_and_load_gpt2(model_size="125M", models_dir=str(tmp_path / "gpt2"))


def test_download_file(monkeypatch, tmp_path):
    destination = tmp_path / "hparams.json"
    with serving(monkeypatch) as server:
        url = server.mirror("/hparams.json", body=b'{"n_layer": 12}')
        download_file(url, str(destination))
    assert destination.read_bytes() == b'{"n_layer": 12}'


def test_download_file_falls_back_on_the_backup(monkeypatch, tmp_path):
    destination = tmp_path / "hparams.json"
    with serving(monkeypatch) as server:
        url = server.mirror("/gone/hparams.json", body=b"", status=404)
        backup_url = server.mirror("/hparams.json", body=b'{"n_layer": 12}')
        download_file(url, destination, backup_url=backup_url)
    assert destination.read_bytes() == b'{"n_layer": 12}'


# Appendix D: more for the training loop


def test_find_highest_gradient_before_backward(model):
    assert find_highest_gradient(model) is None


def test_find_highest_gradient(model):
    ids = torch.tensor([[1, 2, 3]])
    calc_loss_batch(ids, ids, model, DEVICE).backward()
    expected = max(p.grad.max().item() for p in model.parameters())
    assert find_highest_gradient(model).item() == pytest.approx(expected)
    nn.utils.clip_grad_norm_(model.parameters(), max_norm=expected / 100)
    assert find_highest_gradient(model=model).item() < expected / 10


def books_rates(num_steps, warmup_steps, initial_lr, peak_lr, min_lr):
    """A rise in equal steps, then half a cosine."""
    rates = []
    for step in range(num_steps):
        if step < warmup_steps:
            lr = initial_lr + step * (peak_lr - initial_lr) / warmup_steps
        else:
            progress = (step - warmup_steps) / (num_steps - warmup_steps)
            lr = min_lr + (peak_lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2
        rates.append(lr)
    return rates


@pytest.fixture
def trained(cfg, loaders, tokenizer):
    """What train_model returns with the arguments of appendix D."""
    model = seeded(GPTModel, cfg)
    optimizer = adamw(model, lr=0.01)
    return train_model(
        model,
        *loaders,
        optimizer,
        DEVICE,
        n_epochs=2,
        eval_freq=5,
        eval_iter=1,
        start_context=CONTEXT,
        tokenizer=tokenizer,
        warmup_steps=4,
        initial_lr=1e-5,
        min_lr=1e-5,
    )


def test_train_model(trained, loaders):
    train_losses, val_losses, tokens_seen, lrs = trained
    num_steps = 2 * len(loaders[0])
    assert tokens_seen == [16 * (step + 1) for step in range(0, num_steps, 5)]
    assert len(train_losses) == len(val_losses) == len(tokens_seen)
    assert val_losses[-1] < val_losses[0]


def test_train_model_warms_up_and_cools_down(trained, loaders):
    num_steps = 2 * len(loaders[0])
    assert trained[3] == pytest.approx(books_rates(num_steps, 4, 1e-5, 0.01, 1e-5))


def test_train_model_with_its_own_rates(cfg, loaders, tokenizer):
    model = seeded(GPTModel, cfg)
    arguments = adamw(model), DEVICE, 1, 5, 1, CONTEXT, tokenizer, 4
    found = train_model(model, *loaders, *arguments)
    num_steps = len(loaders[0])
    assert found[3] == pytest.approx(books_rates(num_steps, 4, 3e-5, 0.01, 1e-6))


@pytest.mark.parametrize("orig_book_version", [False, True])
def test_train_model_clips_after_the_warmup(orig_book_version, loaders, tokenizer):
    """The printed book begins one step later, as the parameter says."""
    torch.manual_seed(123)
    expected = nn.Sequential(nn.Embedding(50257, 4), nn.Linear(4, 50257))
    nn.init.normal_(expected[1].weight, std=9.0)  # for gradients longer than 1
    model = deepcopy(expected)
    train_loader = list(loaders[0])[:3]
    for step, (inputs, targets) in enumerate(train_loader):
        expected.zero_grad()
        calc_loss_batch(inputs, targets, expected, DEVICE).backward()
        length = math.hypot(*[p.grad.norm().item() for p in expected.parameters()])
        scale = 1 / length if step >= 1 + orig_book_version else 1
        lr = books_rates(3, 1, 3e-5, 0.5, 1e-6)[step]
        with torch.no_grad():
            for parameter in expected.parameters():
                parameter -= lr * scale * parameter.grad
        assert length > 1.5
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    settings = optimizer, DEVICE, 1, 9, 1, CONTEXT, tokenizer, 1
    train_model(
        model, train_loader, loaders[1], *settings, orig_book_version=orig_book_version
    )
    for found, wanted in zip(model.parameters(), expected.parameters()):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


# Chapter 6: a classifier


MESSAGES = [
    ("ham", "See you at the harbour"),
    ("ham", "The tide is out, bring boots, and a coat if it rains tonight"),
    ("ham", "Late again"),
    ("ham", "Is anyone home?"),
    ("ham", "Fish for dinner"),
    ("ham", "Back at nine"),
    ("spam", "WIN a free boat, call now"),
    ("spam", "Free entry! Text TIDE to 80082"),
    ("spam", "You have won, claim your prize now"),
]


@pytest.fixture
def messages():
    """A table in the form of the spam collection."""
    return pd.DataFrame(MESSAGES, columns=["Label", "Text"])


@pytest.fixture
def csv_file(messages, tmp_path):
    """The balanced messages as the book saves them, with labels 0 and 1."""
    balanced_df = create_balanced_dataset(messages)
    balanced_df["Label"] = balanced_df["Label"].map({"ham": 0, "spam": 1})
    balanced_df.to_csv(tmp_path / "train.csv", index=None)
    return tmp_path / "train.csv"


@pytest.fixture
def spam_loader(csv_file, tokenizer):
    """Batches of padded messages, from PyTorch's own loader."""
    dataset = SpamDataset(csv_file=csv_file, max_length=None, tokenizer=tokenizer)
    return DataLoader(dataset=dataset, batch_size=2, shuffle=False, drop_last=True)


@pytest.fixture
def spam_model(cfg):
    """A GPT with a new two-way output layer; its last block and norm are trained."""
    model = seeded(GPTModel, cfg)
    for param in model.parameters():
        param.requires_grad = False
    torch.manual_seed(123)
    model.out_head = nn.Linear(in_features=cfg["emb_dim"], out_features=2)
    for part in (model.trf_blocks[-1], model.final_norm):
        for param in part.parameters():
            param.requires_grad = True
    return model


def last_logits(model, inputs):
    """The logits at the last position of padded rows."""
    with torch.no_grad():
        return model(inputs)[:, -1, :]


@pytest.fixture
def spam_zip(monkeypatch):
    """The zip of a collection of two messages, which is taken for the real one."""
    lines, file = b"ham\tLate again\nspam\tWIN a boat\n", BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("SMSSpamCollection", lines)
    for name, content in (("MEMBER", lines), ("ZIP", file.getvalue())):
        monkeypatch.setattr(spam, f"{name}_SHA256", sha256(content).hexdigest())
        monkeypatch.setattr(spam, f"{name}_SIZE", len(content))
    return file.getvalue()


def test_download_and_unzip_spam_data(spam_zip, monkeypatch, tmp_path):
    data_file_path = tmp_path / "sms_spam_collection" / "SMSSpamCollection.tsv"
    with serving(monkeypatch) as server:
        url = server.mirror("/sms.zip", body=spam_zip)
        places = str(tmp_path / "sms.zip"), str(data_file_path.parent), data_file_path
        download_and_unzip_spam_data(url, *places)
        download_and_unzip_spam_data(url, *places)
    assert server.paths == ["/sms.zip"]  # what is there is kept
    df = pd.read_csv(data_file_path, sep="\t", header=None, names=["Label", "Text"])
    assert df.values.tolist() == [["ham", "Late again"], ["spam", "WIN a boat"]]


def test_create_balanced_dataset(messages):
    balanced_df = create_balanced_dataset(messages)
    assert balanced_df["Label"].value_counts().to_dict() == {"ham": 3, "spam": 3}
    ham = messages[messages["Label"] == "ham"].sample(3, random_state=123)
    spam = messages[messages["Label"] == "spam"]
    assert balanced_df["Text"].tolist() == [*ham["Text"], *spam["Text"]]


def test_random_split():
    df = pd.DataFrame({"Label": [0, 1] * 747, "Text": [str(i) for i in range(1494)]})
    train_df, validation_df, test_df = random_split(df, 0.7, 0.1)
    assert (len(train_df), len(validation_df), len(test_df)) == (1045, 149, 300)
    shuffled = df.sample(frac=1, random_state=123)["Text"].tolist()
    found = pd.concat([train_df, validation_df, test_df])["Text"].tolist()
    assert found == shuffled


def test_random_split_by_keyword(messages):
    df = pd.concat([messages] * 4)
    parts = random_split(df=df, train_frac=0.5, validation_frac=0.25)
    assert [len(part) for part in parts] == [18, 9, 9]
    assert parts[0].index.tolist() == list(range(18))


def test_spam_dataset_pads_to_the_longest(csv_file, tokenizer):
    dataset = SpamDataset(csv_file=csv_file, max_length=None, tokenizer=tokenizer)
    lengths = [len(tokenizer.encode(text)) for text in pd.read_csv(csv_file)["Text"]]
    assert dataset.max_length == dataset._longest_encoded_length() == max(lengths)
    assert len(dataset) == len(lengths) == 6
    ids, label = dataset[0]
    assert ids.shape == (max(lengths),) and ids.dtype == label.dtype == torch.long
    assert (ids[lengths[0] :] == 50256).all() and label.item() == 0


def test_spam_dataset_cuts_to_max_length(csv_file, tokenizer):
    dataset = SpamDataset(csv_file, tokenizer, 4, 0)
    assert dataset.max_length == 4
    for (ids, _), text in zip(dataset, pd.read_csv(csv_file)["Text"]):
        expected = tokenizer.encode(text)[:4]
        assert ids.tolist() == expected + [0] * (4 - len(expected))


def test_spam_dataset_in_a_loader(spam_loader):
    inputs, labels = next(iter(spam_loader))
    assert inputs.shape == (2, spam_loader.dataset.max_length)
    assert labels.shape == (2,) and len(spam_loader) == 3


def test_the_new_output_layer(spam_model, tokenizer):
    inputs = torch.tensor(tokenizer.encode("Do you have time")).unsqueeze(0)
    assert spam_model(inputs).shape == (1, 4, 2)
    learning = {n for n, p in spam_model.named_parameters() if p.requires_grad}
    assert "trf_blocks.0.norm1.scale" not in learning
    assert {"out_head.weight", "out_head.bias", "final_norm.scale"} <= learning


def test_calc_accuracy_loader(spam_model, spam_loader):
    found = calc_accuracy_loader(spam_loader, spam_model, DEVICE)
    right = [last_logits(spam_model, x).argmax(-1) == y for x, y in spam_loader]
    assert found == torch.cat(right).float().mean().item()


def test_calc_accuracy_loader_of_some_batches(spam_model, spam_loader):
    found = calc_accuracy_loader(
        data_loader=spam_loader, model=spam_model, device=DEVICE, num_batches=1
    )
    inputs, labels = next(iter(spam_loader))
    right = last_logits(spam_model, inputs).argmax(-1) == labels
    assert found == right.float().mean().item()


def test_calc_loss_batch_of_chapter_6(spam_model, spam_loader):
    """The loss at the last position, padding or not."""
    inputs, labels = next(iter(spam_loader))
    loss = chapter6.calc_loss_batch(inputs, labels, spam_model, DEVICE)
    expected = F.cross_entropy(last_logits(spam_model, inputs), labels)
    torch.testing.assert_close(loss, expected)
    assert loss.requires_grad


def test_calc_loss_loader_of_chapter_6(spam_model, spam_loader):
    found = chapter6.calc_loss_loader(spam_loader, spam_model, DEVICE)
    losses = [F.cross_entropy(last_logits(spam_model, x), y) for x, y in spam_loader]
    assert found == pytest.approx(sum(losses).item() / 3, rel=1e-5)


def test_calc_loss_loader_of_chapter_6_on_some_batches(spam_model, spam_loader):
    found = chapter6.calc_loss_loader(spam_loader, spam_model, DEVICE, num_batches=2)
    pairs = list(spam_loader)[:2]
    losses = [F.cross_entropy(last_logits(spam_model, x), y) for x, y in pairs]
    assert found == pytest.approx(sum(losses).item() / 2, rel=1e-5)


def test_calc_loss_loader_of_chapter_6_of_an_empty_loader(spam_model):
    assert math.isnan(chapter6.calc_loss_loader([], spam_model, DEVICE))


def test_evaluate_model_of_chapter_6(spam_model, spam_loader):
    train_loss, val_loss = chapter6.evaluate_model(
        spam_model, spam_loader, list(spam_loader)[1:], DEVICE, eval_iter=1
    )
    losses = [F.cross_entropy(last_logits(spam_model, x), y) for x, y in spam_loader]
    assert train_loss == pytest.approx(losses[0].item(), rel=1e-5)
    assert val_loss == pytest.approx(losses[1].item(), rel=1e-5)


def test_train_classifier_simple(spam_model, spam_loader):
    frozen = spam_model.trf_blocks[0].att.W_query.weight.clone()
    optimizer = adamw(spam_model)
    train_losses, val_losses, train_accs, val_accs, examples_seen = (
        train_classifier_simple(
            spam_model,
            spam_loader,
            spam_loader,
            optimizer,
            DEVICE,
            num_epochs=4,
            eval_freq=2,
            eval_iter=3,
        )
    )
    assert len(train_losses) == len(val_losses) == 6  # steps 0, 2, ..., 10
    assert len(train_accs) == len(val_accs) == 4 and examples_seen == 24
    assert train_losses[-1] < train_losses[0]
    assert torch.equal(spam_model.trf_blocks[0].att.W_query.weight, frozen)


def test_train_classifier_simple_positionally(spam_model, spam_loader):
    loaders = spam_loader, spam_loader
    found = train_classifier_simple(
        spam_model, *loaders, adamw(spam_model), DEVICE, 1, 50, 1
    )
    assert len(found) == 5 and found[4] == 6


def test_plot_values(drawn):
    epochs_tensor = torch.linspace(0, 5, 2)
    examples_seen_tensor = torch.linspace(0, 9, 2)
    plot_values(epochs_tensor, examples_seen_tensor, [0.5, 0.25], [0.75, 0.5])
    assert drawn() == [[0.5, 0.25], [0.75, 0.5]]


def test_plot_values_of_accuracies(drawn):
    epochs_tensor = torch.linspace(0, 5, 2)
    plot_values(epochs_tensor, epochs_tensor, [0.5, 1], [0.25, 1], label="accuracy")
    assert drawn() == [[0.5, 1], [0.25, 1]]
    assert "accuracy" in plt.gcf().axes[0].get_ylabel().lower()


def padded_answer(model, text, tokenizer, length):
    """What the logits at the last position of the padded text say."""
    ids = tokenizer.encode(text)[:length]
    ids += [50256] * (length - len(ids))
    is_spam = last_logits(model, torch.tensor([ids])).argmax(-1).item() == 1
    return "spam" if is_spam else "not spam"


def test_classify_review_pads_as_in_training(spam_model, tokenizer):
    """Two models that differ in what they say after padding, and only there."""
    spam_model.eval()
    texts = [text for _, text in MESSAGES]
    found, expected = [], []
    for seed in range(4):
        torch.manual_seed(seed)
        nn.init.normal_(spam_model.out_head.weight)
        for text in texts:
            found.append(classify_review(text, spam_model, tokenizer, DEVICE, 20))
            expected.append(padded_answer(spam_model, text, tokenizer, 20))
    assert found == expected and set(found) == {"spam", "not spam"}


def test_classify_review_by_keyword(spam_model, tokenizer):
    found = classify_review(
        MESSAGES[1][1],
        spam_model,
        tokenizer,
        DEVICE,
        max_length=5,
        pad_token_id=50256,
    )
    assert found == padded_answer(spam_model.eval(), MESSAGES[1][1], tokenizer, 5)


def test_chapter_6_with_any_module(spam_loader, tokenizer):
    """A model of the reader's own: ids in, two logits at each position out."""
    torch.manual_seed(123)
    model = nn.Sequential(nn.Embedding(50257, 4), nn.Linear(4, 2))
    settings = adamw(model), DEVICE, 1, 1, 1
    found = train_classifier_simple(model, spam_loader, spam_loader, *settings)
    assert len(found[0]) == 3 and found[4] == 6
    said = classify_review("Late again", model, tokenizer, DEVICE, max_length=7)
    assert said == padded_answer(model, "Late again", tokenizer, 7)


def test_the_classifier_is_saved_and_loaded(spam_model, cfg, tmp_path):
    torch.save(spam_model.state_dict(), tmp_path / "review_classifier.pth")
    other = GPTModel(cfg)
    other.out_head = nn.Linear(in_features=cfg["emb_dim"], out_features=2)
    other.load_state_dict(torch.load(tmp_path / "review_classifier.pth"))
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(other.eval()(ids), spam_model.eval()(ids))


# Chapter 7: following instructions


ENTRY = {"instruction": "Make it plural.", "input": "goose", "output": "geese"}
NO_INPUT = {"instruction": "Name a colour.", "input": "", "output": "Green."}
HEADER = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
INSTRUCTION_BATCH = ([0, 1, 2, 3, 4], [5, 6], [7, 8, 9])
PADDED = [
    [0, 1, 2, 3, 4],
    [5, 6, 50256, 50256, 50256],
    [7, 8, 9, 50256, 50256],
]


def test_download_and_load_file_reads_what_is_there(tmp_path):
    file_path = tmp_path / "instruction-data.json"
    file_path.write_text(json.dumps([ENTRY, NO_INPUT]), encoding="utf-8")
    assert download_and_load_file(str(file_path), closed_url()) == [ENTRY, NO_INPUT]


def test_download_and_load_file_downloads(monkeypatch, tmp_path):
    file_path = tmp_path / "instruction-data.json"
    with serving(monkeypatch) as server:
        url = server.mirror("/data.json", body=json.dumps([ENTRY]).encode())
        assert download_and_load_file(file_path=file_path, url=url) == [ENTRY]
    assert json.loads(file_path.read_text(encoding="utf-8")) == [ENTRY]


def test_format_input():
    expected = f"{HEADER}\n\n### Instruction:\nMake it plural.\n\n### Input:\ngoose"
    assert format_input(ENTRY) == expected


def test_format_input_without_input():
    expected = f"{HEADER}\n\n### Instruction:\nName a colour."
    assert format_input(entry=NO_INPUT) == expected


def test_instruction_dataset_holds_lists_of_ids(tokenizer):
    dataset = InstructionDataset([ENTRY, NO_INPUT], tokenizer)
    assert len(dataset) == 2 and dataset.data == [ENTRY, NO_INPUT]
    for i, entry in enumerate([ENTRY, NO_INPUT]):
        full_text = f"{format_input(entry)}\n\n### Response:\n{entry['output']}"
        assert type(dataset[i]) is list
        assert dataset[i] == tokenizer.encode(full_text)


def test_instruction_dataset_by_keyword(tokenizer):
    dataset = InstructionDataset(data=[ENTRY], tokenizer=tokenizer)
    assert tokenizer.decode(dataset[0]).endswith("\n\n### Response:\ngeese")


def test_custom_collate_draft_1():
    assert custom_collate_draft_1(INSTRUCTION_BATCH).tolist() == PADDED


def test_custom_collate_draft_2():
    inputs, targets = custom_collate_draft_2(INSTRUCTION_BATCH, 50256, "cpu")
    assert inputs.tolist() == PADDED
    assert targets.tolist() == [
        [1, 2, 3, 4, 50256],
        [6, 50256, 50256, 50256, 50256],
        [8, 9, 50256, 50256, 50256],
    ]


def test_custom_collate_fn():
    inputs, targets = custom_collate_fn(INSTRUCTION_BATCH)
    assert inputs.tolist() == PADDED
    assert targets.tolist() == [
        [1, 2, 3, 4, 50256],
        [6, 50256, -100, -100, -100],
        [8, 9, 50256, -100, -100],
    ]


def test_custom_collate_fn_positionally():
    inputs, targets = custom_collate_fn(INSTRUCTION_BATCH, 0, -1, 3, "cpu")
    assert inputs.tolist() == [[0, 1, 2], [5, 6, 0], [7, 8, 9]]
    assert targets.tolist() == [[1, 2, 3], [6, 0, -1], [8, 9, 0]]


def test_custom_collate_fn_in_a_loader(tokenizer):
    customized_collate_fn = partial(
        custom_collate_fn, device=DEVICE, allowed_max_length=20
    )
    loader = DataLoader(
        InstructionDataset([ENTRY, NO_INPUT] * 2, tokenizer),
        batch_size=2,
        collate_fn=customized_collate_fn,
        shuffle=True,
        drop_last=True,
        num_workers=0,
    )
    for inputs, targets in loader:
        assert inputs.shape == targets.shape == (2, 20)
        assert inputs.dtype == targets.dtype == torch.long


@pytest.fixture
def instruction_model(cfg):
    """A GPT with room for a formatted instruction."""
    return seeded(GPTModel, cfg | {"context_length": 64})


@pytest.fixture
def instruction_loader(tokenizer):
    """Two batches of instructions, as the book collates them."""
    collate = partial(custom_collate_fn, device=DEVICE, allowed_max_length=64)
    dataset = InstructionDataset([ENTRY, NO_INPUT] * 2, tokenizer)
    return DataLoader(dataset, batch_size=2, collate_fn=collate)


def test_losses_before_finetuning(instruction_model, instruction_loader):
    """The losses of chapter 5 count all targets but those of the padding."""
    loss = calc_loss_loader(
        instruction_loader, instruction_model, DEVICE, num_batches=1
    )
    inputs, targets = next(iter(instruction_loader))
    logits = instruction_model(inputs).flatten(0, 1)
    expected = F.cross_entropy(logits, targets.flatten(), ignore_index=-100)
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_instruction_finetuning(instruction_model, instruction_loader, tokenizer):
    found = train_model_simple(
        instruction_model,
        instruction_loader,
        instruction_loader,
        adamw(instruction_model),
        DEVICE,
        num_epochs=1,
        eval_freq=1,
        eval_iter=2,
        start_context=format_input(ENTRY),
        tokenizer=tokenizer,
    )
    train_losses, val_losses, tokens_seen = found
    assert len(train_losses) == len(val_losses) == len(tokens_seen) == 2
    assert train_losses[-1] < train_losses[0]


def test_a_response_is_extracted(instruction_model, tokenizer):
    input_text = format_input(ENTRY)
    token_ids = generate(
        model=instruction_model,
        idx=text_to_token_ids(input_text, tokenizer).to(DEVICE),
        max_new_tokens=8,
        context_size=64,
        eos_id=50256,
    )
    generated_text = token_ids_to_text(token_ids, tokenizer)
    assert generated_text.startswith(input_text)
    response = generated_text[len(input_text) :].replace("### Response:", "").strip()
    assert response and "Below is" not in response


@pytest.mark.parametrize(("name", "running"), [("ollama-of-nobody", False)])
def test_check_if_running(name, running):
    assert check_if_running(name) is running
    assert check_if_running(process_name=name) is running


def test_query_model(ollama):
    ollama.replies += [message("Llamas eat grass.")]
    assert (
        query_model("What do llamas eat?", "llama3", ollama.url) == "Llamas eat grass."
    )
    assert ollama.asked[0]["model"] == "llama3"


def test_query_model_by_keyword(ollama):
    ollama.replies += [message("Grass.")]
    assert query_model(prompt="And goats?", model="phi3", url=ollama.url) == "Grass."
    assert ollama.asked[0]["messages"][-1]["content"] == "And goats?"
    assert ollama.asked[0]["model"] == "phi3"


def test_generate_model_scores(ollama):
    test_data = [entry | {"model_response": "geese"} for entry in (ENTRY, NO_INPUT)]
    ollama.replies += [message('{"score": 80}'), message('{"score": 35}')]
    scores = generate_model_scores(test_data, "model_response", url=ollama.url)
    assert scores == [80, 35]
    assert all(asked["model"] == "llama3" for asked in ollama.asked)


# Appendix E: LoRA


def test_lora_layer():
    layer = LoRALayer(in_dim=4, out_dim=3, rank=2, alpha=8)
    assert (layer.rank, layer.alpha) == (2, 8)
    assert layer.A.shape == (4, 2) and layer.B.shape == (2, 3)
    x = torch.rand(5, 4)
    assert torch.equal(layer(x), torch.zeros(5, 3))


def test_lora_layer_scales_by_alpha_over_rank():
    layer = LoRALayer(4, 3, 2, 8)
    nn.init.normal_(layer.B)
    x = torch.rand(5, 4)
    torch.testing.assert_close(layer(x), 4 * (x @ layer.A @ layer.B))


def test_linear_with_lora_begins_as_the_linear():
    linear = nn.Linear(4, 3)
    layer = LinearWithLoRA(linear, rank=2, alpha=8)
    x = torch.rand(5, 4)
    torch.testing.assert_close(layer(x), linear(x))
    assert layer.linear is linear and isinstance(layer.lora, LoRALayer)


def test_linear_with_lora_adds_the_change():
    layer = LinearWithLoRA(nn.Linear(4, 3), 2, 8)
    nn.init.normal_(layer.lora.B)
    x = torch.rand(5, 4)
    torch.testing.assert_close(layer(x), layer.linear(x) + layer.lora(x))


def test_replace_linear_with_lora_counts_as_the_book():
    """GPT-2 with a two-way output layer and rank 16."""
    with torch.device("meta"):
        model = GPTModel(GPT_CONFIG_124M | {"qkv_bias": True})
        model.out_head = nn.Linear(768, 2)
        assert sum(p.numel() for p in model.parameters()) == 124_441_346
        for param in model.parameters():
            param.requires_grad = False
        replace_linear_with_lora(model, rank=16, alpha=16)
    learning = [p.numel() for p in model.parameters() if p.requires_grad]
    assert sum(learning) == 2_666_528


@pytest.fixture
def lora_model(spam_model):
    """The classifier with every linear layer wrapped and nothing else trained."""
    for param in spam_model.parameters():
        param.requires_grad = False
    torch.manual_seed(123)
    replace_linear_with_lora(spam_model, 4, 4)
    return spam_model


def test_replace_linear_with_lora_wraps_every_linear(lora_model):
    assert isinstance(lora_model.out_head, LinearWithLoRA)
    for block in lora_model.trf_blocks:
        assert isinstance(block.att.W_query, LinearWithLoRA)
        assert isinstance(block.att.out_proj, LinearWithLoRA)
        assert isinstance(block.ff.layers[0], LinearWithLoRA)


def test_lora_changes_no_answer_before_training(cfg, tokenizer):
    model = seeded(GPTModel, cfg).eval()
    batch = four_tokens(tokenizer)
    expected = model(batch)
    replace_linear_with_lora(model, rank=4, alpha=8)
    torch.testing.assert_close(model(batch), expected)


def test_a_classifier_with_lora_is_trained_and_asked(
    lora_model, spam_loader, tokenizer
):
    before = lora_model.out_head.linear.weight.clone()
    found = train_classifier_simple(
        lora_model,
        spam_loader,
        spam_loader,
        adamw(lora_model),
        DEVICE,
        num_epochs=4,
        eval_freq=2,
        eval_iter=3,
    )
    assert found[0][-1] < found[0][0]
    assert torch.equal(lora_model.out_head.linear.weight, before)
    length = spam_loader.dataset.max_length
    for _, text in MESSAGES:
        answer = classify_review(text, lora_model, tokenizer, DEVICE, max_length=length)
        assert answer == padded_answer(lora_model.eval(), text, tokenizer, length)


def test_instruction_finetuning_with_lora(
    instruction_model, instruction_loader, tokenizer
):
    """Exercise 7.4."""
    for param in instruction_model.parameters():
        param.requires_grad = False
    replace_linear_with_lora(instruction_model, rank=4, alpha=4)
    frozen = instruction_model.tok_emb.weight.clone()
    found = train_model_simple(
        instruction_model,
        instruction_loader,
        instruction_loader,
        adamw(instruction_model, lr=0.05),
        DEVICE,
        1,
        1,
        2,
        format_input(ENTRY),
        tokenizer,
    )
    assert found[0][-1] < found[0][0]
    assert torch.equal(instruction_model.tok_emb.weight, frozen)
