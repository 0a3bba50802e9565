"""The GPT model equals transformers' GPT-2 and counts as the book's."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from ch02.tokenizer import get_tokenizer
from ch04.gpt import (
    DROP_RATES,
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
    check_config,
    generate_text_simple,
    print_gradients,
)
from ch05.training import calc_loss_batch
from support.weights.reference import copy_from_transformers

META = torch.device("meta")
SIZES = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers")
WHOLE, SHARE = "a whole number of at least 1", "a number of at least 0 and below 1"
NO_SIZES = [
    (key, value) for key in SIZES for value in (0, -1, 2.5, 4.0, True, "4", None)
]
NO_RATES = [
    (key, value)
    for key in ("drop_rate", *DROP_RATES)
    for value in (1.0, -0.1, 10, math.nan, True, False, "0.1", None)
]


def draw(*shape):
    """Seeded normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(123))


@pytest.fixture(scope="module")
def gpt2_small():
    """The untrained 124M model, seeded as in the book."""
    torch.manual_seed(123)
    return GPTModel(GPT_CONFIG_124M).eval()


def count(model):
    """Number of parameters, a shared one counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def test_layer_norm_equals_torch():
    ours, reference = LayerNorm(16), nn.LayerNorm(16)
    with torch.no_grad():
        ours.scale.copy_(draw(16))
        ours.shift.copy_(draw(16) + 1)
        reference.weight.copy_(ours.scale)
        reference.bias.copy_(ours.shift)
    x = 5 * draw(3, 4, 16) + 2
    torch.testing.assert_close(ours(x), reference(x))


def test_layer_norm_gives_mean_0_and_variance_1():
    x = LayerNorm(64)(5 * draw(3, 4, 64) + 2)
    torch.testing.assert_close(x.mean(-1), torch.zeros(3, 4), atol=1e-5, rtol=0)
    variance = x.var(-1, unbiased=False)
    torch.testing.assert_close(variance, torch.ones(3, 4), atol=1e-4, rtol=0)


def test_gelu_is_the_tanh_formula():
    x = torch.linspace(-6, 6, 101)
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    torch.testing.assert_close(GELU()(x), 0.5 * x * (1 + torch.tanh(inner)))
    assert not torch.allclose(GELU()(x), F.gelu(x), atol=1e-5)


def test_feed_forward_treats_each_token_alone(tiny_config):
    torch.manual_seed(123)
    layer = FeedForward(tiny_config)
    x = draw(2, 5, 16)
    assert layer.layers[0].out_features == 64
    torch.testing.assert_close(layer(x)[:, 2:3], layer(x[:, 2:3]))


def test_shortcuts_keep_the_gradient_of_the_first_layer_alive():
    norms = {}
    for use_shortcut in (False, True):
        torch.manual_seed(123)
        network = ExampleDeepNeuralNetwork([3] * 12 + [1], use_shortcut)
        network(torch.tensor([[1.0, 0.0, -1.0]])).square().sum().backward()
        norms[use_shortcut] = network.layers[0][0].weight.grad.norm().item()
    assert norms[True] > 1000 * norms[False] > 0


@pytest.mark.parametrize("use_shortcut", [False, True])
def test_a_deep_network_by_hand(use_shortcut):
    """A shortcut goes round a layer whose output has the size of its input."""
    torch.manual_seed(123)
    network = ExampleDeepNeuralNetwork([3, 3, 2, 2, 1], use_shortcut)
    x = expected = draw(4, 3)
    for (linear, _), has_shortcut in zip(network.layers, (True, False, True, False)):
        y = F.gelu(expected @ linear.weight.T + linear.bias, approximate="tanh")
        expected = expected + y if use_shortcut and has_shortcut else y
    assert len(network.layers) == 4
    torch.testing.assert_close(network(x), expected)


def test_block_adds_to_what_it_gets(tiny_config):
    """With silent last layers a block hands its input on unchanged."""
    torch.manual_seed(123)
    block = TransformerBlock(tiny_config).eval()
    for layer in (block.att.out_proj, block.ff.layers[-1]):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    x = draw(2, 5, 16)
    assert torch.equal(block(x), x)


def test_dummies_hand_on_what_they_get(tiny_config, token_ids):
    x = draw(2, 5, 16)
    assert DummyTransformerBlock(tiny_config)(x) is x
    assert DummyLayerNorm(normalized_shape=16, eps=1e-5)(x) is x
    model = DummyGPTModel(tiny_config).eval()
    embedded = model.tok_emb(token_ids) + model.pos_emb.weight[:10]
    assert torch.equal(model(token_ids), model.out_head(embedded))


def test_gradients_are_printed_layer_by_layer(capsys):
    """The gradient of (w2 * w1 * x) ** 2 for x = 1, w1 = 3, w2 = 2."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1))
    nn.init.constant_(model[0].weight, 3)
    nn.init.constant_(model[1].weight, 2)
    nn.init.zeros_(model[1].bias)
    for _ in range(2):  # a second call does not add to the first
        print_gradients(model, torch.ones(1, 1))
        assert capsys.readouterr().out.splitlines() == [
            "0.weight has gradient mean of 24.000000",
            "1.weight has gradient mean of 36.000000",
        ]


def test_the_books_saved_weights_are_loaded(tiny_model, tiny_config, token_ids):
    """The book's classes keep each block's mask in the state dict."""
    mask = torch.ones(12, 12).triu(1)
    saved = tiny_model.state_dict()
    saved |= {f"trf_blocks.{layer}.att.mask": mask for layer in range(2)}
    model = GPTModel(tiny_config).eval()
    model.load_state_dict(saved)
    assert torch.equal(model(token_ids), tiny_model(token_ids))
    model.load_state_dict(tiny_model.state_dict())
    assert torch.equal(model.trf_blocks[1].att.mask.float(), mask)


def test_the_smallest_sizes_are_ones():
    ones = dict.fromkeys(GPT_CONFIG_124M, 1) | {"drop_rate": 0, "qkv_bias": True}
    check_config(ones)
    assert GPTModel(ones)(torch.tensor([[0]])).shape == (1, 1, 1)


def test_parameters_as_the_book_counts_them(gpt2_small):
    assert count(gpt2_small) == 163_009_536


def test_tied_embeddings_are_one_parameter():
    with META:
        model = GPTModel(GPT_CONFIG_124M)
    model.out_head.weight = model.tok_emb.weight
    assert count(model) == 124_412_160


@pytest.mark.parametrize(
    ("emb_dim", "n_layers", "n_heads", "untied"),
    [
        (768, 12, 12, 163_037_184),
        (1024, 24, 16, 406_286_336),
        (1280, 36, 20, 838_359_040),
        (1600, 48, 25, 1_638_022_400),
    ],
)
def test_sizes_with_bias(emb_dim, n_layers, n_heads, untied):
    sizes = {"emb_dim": emb_dim, "n_layers": n_layers, "n_heads": n_heads}
    with META:
        model = GPTModel(GPT_CONFIG_124M | sizes | {"qkv_bias": True})
    assert count(model) == untied


def test_seeded_as_the_book_it_gives_the_book_tokens(gpt2_small):
    prompt = torch.tensor([get_tokenizer("gpt2").encode("Hello, I am")])
    token_ids = generate_text_simple(gpt2_small, prompt, 6, context_size=1024)
    new = [27018, 24086, 47843, 30961, 42348, 7267]
    assert token_ids.tolist() == [[15496, 11, 314, 716, *new]]


@torch.no_grad()
@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-4), (torch.float64, 1e-10)]
)
def test_logits_equal_transformers(tiny_config, token_ids, dtype, atol):
    cfg = tiny_config | {"qkv_bias": True}
    sizes = {
        "vocab_size": cfg["vocab_size"],
        "n_positions": cfg["context_length"],
        "n_embd": cfg["emb_dim"],
        "n_layer": cfg["n_layers"],
        "n_head": cfg["n_heads"],
    }
    torch.manual_seed(123)
    reference = GPT2LMHeadModel(GPT2Config(**sizes)).eval().to(dtype)
    for parameter in reference.parameters():
        parameter.normal_(std=0.3)  # biases and norms too: none is 0 or 1 any more
    model = GPTModel(cfg).eval().to(dtype)
    copy_from_transformers(model, reference)
    expected = reference(token_ids).logits
    torch.testing.assert_close(model(token_ids), expected, atol=atol, rtol=0)


@pytest.mark.parametrize("changed", range(1, 10))
@torch.no_grad()
def test_model_is_causal(tiny_model, token_ids, changed, device):
    tiny_model.to(device)
    token_ids = token_ids.to(device)
    other = token_ids.clone()
    other[:, changed:] = (other[:, changed:] + 1) % 101
    before, after = tiny_model(token_ids), tiny_model(other)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.allclose(before[:, changed], after[:, changed])


@torch.no_grad()
def test_rows_of_a_batch_do_not_mix(tiny_model, token_ids):
    alone = tiny_model(token_ids[1:])
    torch.testing.assert_close(tiny_model(token_ids)[1:], alone)


@torch.no_grad()
def test_untrained_loss_is_near_that_of_guessing(tiny_model, token_ids):
    loss = calc_loss_batch(token_ids[:, :-1], token_ids[:, 1:], tiny_model, "cpu")
    assert abs(loss - math.log(101)) < 0.5


def test_one_batch_can_be_learned_by_heart(tiny_config, token_ids, device):
    torch.manual_seed(123)
    model = GPTModel(tiny_config | {"drop_rate": 0.0}).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        loss = calc_loss_batch(token_ids[:, :-1], token_ids[:, 1:], model, device)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_too_many_tokens_are_refused(tiny_model):
    with pytest.raises(ValueError, match="13 tokens exceed context_length 12"):
        tiny_model(torch.zeros(1, 13, dtype=torch.long))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_heads": 5}, "n_heads 5 does not divide emb_dim 16"),
        ({"n_layer": 2}, "unknown keys ['n_layer']"),
        ({"drop_rate_ff": 0.1}, "unknown keys ['drop_rate_ff']"),
        *(
            ({key: value}, f"{key} must be {WHOLE}, not {value!r}")
            for key, value in NO_SIZES
        ),
        *(
            ({key: value}, f"{key} must be {SHARE}, not {value!r}")
            for key, value in NO_RATES
        ),
        ({"qkv_bias": 1}, "qkv_bias must be True or False, not 1"),
        ({"qkv_bias": None}, "qkv_bias must be True or False, not None"),
    ],
)
def test_config_errors_name_the_key(tiny_config, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        GPTModel(tiny_config | change)


@pytest.mark.parametrize("key", DROP_RATES)
def test_a_place_of_dropout_can_have_its_own_rate(tiny_config, key):
    common, own = GPTModel(tiny_config), GPTModel(tiny_config | {key: 0.7})
    for model in (common, own):
        block = model.trf_blocks[1]
        assert block.drop_shortcut is block.drop_resid
    found = [
        {
            "emb": m.drop_emb.p,
            "attn": block.att.dropout.p,
            "shortcut": block.drop_resid.p,
        }
        for m in (common, own)
        for block in m.trf_blocks
    ]
    rates = dict.fromkeys(("emb", "attn", "shortcut"), 0.1)
    place = key.removeprefix("drop_rate_")
    assert found == 2 * [rates] + 2 * [rates | {place: 0.7}]


def test_three_rates_of_dropout_need_no_common_one(tiny_config):
    rates = dict(zip(DROP_RATES, (0.1, 0.2, 0.3)))
    del tiny_config["drop_rate"]
    assert GPTModel(tiny_config | rates).drop_emb.p == 0.1
    for key in DROP_RATES:
        left = {name: rate for name, rate in rates.items() if name != key}
        with pytest.raises(ValueError, match="missing keys .'drop_rate'."):
            GPTModel(tiny_config | left)


@pytest.mark.parametrize("key", [key for key in GPT_CONFIG_124M if key != "drop_rate"])
def test_each_other_key_is_needed(tiny_config, key):
    del tiny_config[key]
    with pytest.raises(ValueError, match=f"missing keys .'{key}'."):
        check_config(tiny_config | dict.fromkeys(DROP_RATES, 0.1))


def test_a_missing_key_is_named(tiny_config):
    del tiny_config["qkv_bias"]
    with pytest.raises(ValueError, match="missing keys .'qkv_bias'."):
        check_config(tiny_config)


def test_generation_crops_what_the_model_cannot_see(tiny_model, token_ids):
    long = torch.cat((token_ids, token_ids), dim=1)  # 20 tokens, the model takes 12
    cropped = generate_text_simple(tiny_model, long[:, -12:], 3, context_size=12)
    full = generate_text_simple(tiny_model, long, 3, context_size=12)
    assert torch.equal(full[:, -3:], cropped[:, -3:])
    assert torch.equal(full[:, :20], long)


def test_generation_takes_the_most_likely_token(tiny_model, token_ids):
    expected = token_ids
    for _ in range(2):
        likely = tiny_model(expected)[:, -1].argmax(dim=-1, keepdim=True)
        expected = torch.cat((expected, likely), dim=1)
    assert torch.equal(generate_text_simple(tiny_model, token_ids, 2, 12), expected)


def test_generation_keeps_no_gradients(tiny_model, token_ids):
    seen = []
    tiny_model.register_forward_hook(lambda *args: seen.append(args[2].requires_grad))
    generate_text_simple(tiny_model, token_ids, 2, 12)
    assert seen == [False, False]


def test_an_empty_prompt_is_refused(tiny_model):
    with pytest.raises(ValueError, match="the prompt is empty"):
        generate_text_simple(tiny_model, torch.zeros(1, 0, dtype=torch.long), 1, 12)
