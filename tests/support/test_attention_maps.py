"""The stored attention maps of 3.6 are causal, and those that the model computes."""

import numpy as np
import pytest
import torch

from ch05.llama import SMOLLM2_CONFIG_135M, LlamaModel
from support.weights import attention_maps as stored
from support.weights.attention_maps import attention_maps, weights_of
from support.weights.smollm2 import SHA256, load_smollm2

TINY = SMOLLM2_CONFIG_135M | {
    "vocab_size": 20,
    "emb_dim": 24,
    "n_heads": 6,
    "n_kv_groups": 2,
    "n_layers": 3,
    "hidden_dim": 16,
}


@pytest.fixture(scope="module")
def file():
    """The arrays of the stored file, which numpy reads without pickle."""
    with np.load(stored.PATH, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_the_file_is_small_and_says_what_it_is_of(file):
    assert stored.PATH.stat().st_size < 150_000
    assert file["model"] == "SmolLM2-135M-Instruct, weights of four bits"
    assert file["weights_file"] == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert file["sha256"] == SHA256
    assert [" ".join(tokens) for tokens in file["tokens"]] == [*stored.SENTENCES]


def test_the_stored_rows_sum_to_one_and_are_causal(file):
    weights = file["weights"].astype(np.float64)
    assert weights.shape == (2, 30, 9, 12, 12)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-3)
    assert not np.triu(weights, 1).any()


def test_the_stored_maps_are_those_of_the_model(file, gguf_path):
    model, tokenizer = load_smollm2(gguf_path)
    for sentence, expected in zip(stored.SENTENCES, file["weights"]):
        found = attention_maps(model.eval(), tokenizer.encode(sentence)).numpy()
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_weights_times_values_are_what_the_layer_computes():
    torch.manual_seed(123)
    att = LlamaModel(TINY).trf_blocks[0].att
    x = torch.randn(1, 7, 24)
    values = att.split_heads(att.W_value(x))[0].repeat_interleave(3, dim=0)
    context_vecs = (weights_of(att, x) @ values).transpose(0, 1).flatten(1)
    torch.testing.assert_close(att.out_proj(context_vecs), att(x)[0])


def test_maps_come_layer_by_layer_and_leave_the_model_as_it_was():
    torch.manual_seed(123)
    model, given = LlamaModel(TINY), []
    for block in model.trf_blocks:
        block.att.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    maps = attention_maps(model, [3, 1, 4, 1, 5])
    assert maps.shape == (3, 6, 5, 5)
    for block, x, found in zip(model.trf_blocks, given, maps):
        torch.testing.assert_close(found, weights_of(block.att, x))
        assert not block.att._forward_hooks
