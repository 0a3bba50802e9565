"""The Llama model equals transformers', part by part and whole."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP, apply_rotary_pos_emb

from ch05.llama import (
    SMOLLM2_CONFIG_135M,
    GroupedQueryAttention,
    LlamaBlock,
    LlamaModel,
    RMSNorm,
    SwiGLU,
    apply_rope,
    llama_layout,
    load_weights_into_llama,
    rope_angles,
)
from ch05.training import calc_loss_batch

pytestmark = pytest.mark.usefixtures("one_thread")

TINY_LLAMA = SMOLLM2_CONFIG_135M | {
    "vocab_size": 101,
    "context_length": 12,
    "emb_dim": 48,
    "n_heads": 6,
    "n_layers": 2,
    "hidden_dim": 40,
    "n_kv_groups": 2,
    "rope_base": 10_000.0,
}
HEAD_DIM = 8


def draw(*shape):
    """Seeded normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(123))


def neighbours(weight):
    """Rows of W_query or W_key as ours, from transformers' order.

    There feature i of a head is turned together with feature i + head_dim / 2, here 2i
    with 2i + 1. GGUF files have our order.
    """
    by_half = weight.unflatten(0, (-1, 2, HEAD_DIM // 2))  # (heads, 2, pairs, in)
    return by_half.transpose(1, 2).flatten(0, 2)


def gguf_arrays(reference):
    """The arrays of a transformers Llama under the names that GGUF gives them."""
    arrays = {
        "token_embd.weight": reference.model.embed_tokens.weight,
        "output_norm.weight": reference.model.norm.weight,
    }
    for layer, block in enumerate(reference.model.layers):
        arrays |= {
            f"blk.{layer}.{name}.weight": weight
            for name, weight in (
                ("attn_norm", block.input_layernorm.weight),
                ("attn_q", neighbours(block.self_attn.q_proj.weight)),
                ("attn_k", neighbours(block.self_attn.k_proj.weight)),
                ("attn_v", block.self_attn.v_proj.weight),
                ("attn_output", block.self_attn.o_proj.weight),
                ("ffn_norm", block.post_attention_layernorm.weight),
                ("ffn_gate", block.mlp.gate_proj.weight),
                ("ffn_up", block.mlp.up_proj.weight),
                ("ffn_down", block.mlp.down_proj.weight),
            )
        }
    return {name: array.detach() for name, array in arrays.items()}


@pytest.fixture
def tiny_llama():
    """A seeded tiny Llama; tied embeddings of this size keep its logits apart."""
    torch.manual_seed(123)
    return LlamaModel(TINY_LLAMA).eval()


@pytest.fixture
def reference():
    """A tiny Llama of transformers; none of its weights is 0 or 1."""
    config = LlamaConfig(
        vocab_size=101,
        max_position_embeddings=12,
        hidden_size=48,
        num_attention_heads=6,
        num_key_value_heads=2,
        num_hidden_layers=2,
        intermediate_size=40,
        rope_theta=10_000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    torch.manual_seed(123)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def test_smollm2s_config_is_the_published_one():
    """As config.json of HuggingFaceTB/SmolLM2-135M-Instruct has it."""
    assert SMOLLM2_CONFIG_135M == {
        "vocab_size": 49_152,
        "context_length": 8192,
        "emb_dim": 576,
        "n_heads": 9,
        "n_layers": 30,
        "hidden_dim": 1536,
        "n_kv_groups": 3,
        "rope_base": 100_000.0,
    }


def test_rms_norm_equals_torch():
    ours, theirs = RMSNorm(16), nn.RMSNorm(16, eps=1e-5)
    with torch.no_grad():
        ours.scale.copy_(draw(16))
        theirs.weight.copy_(ours.scale)
    x = 5 * draw(3, 4, 16) + 2
    torch.testing.assert_close(ours(x), theirs(x))


def test_rms_norm_gives_root_mean_square_1_and_keeps_direction():
    x = 5 * draw(3, 4, 64) + 2
    normed = RMSNorm(64)(x)
    torch.testing.assert_close(normed.square().mean(-1), torch.ones(3, 4))
    torch.testing.assert_close(F.cosine_similarity(normed, x, dim=-1), torch.ones(3, 4))


def test_rms_norm_of_zeros_is_zero():
    assert torch.equal(RMSNorm(4)(torch.zeros(1, 4)), torch.zeros(1, 4))


def test_swiglu_equals_transformers():
    torch.manual_seed(123)
    ours = SwiGLU(16, 40)
    config = LlamaConfig(hidden_size=16, intermediate_size=40)
    theirs = LlamaMLP(config)
    with torch.no_grad():
        theirs.gate_proj.weight.copy_(ours.gate.weight)
        theirs.up_proj.weight.copy_(ours.up.weight)
        theirs.down_proj.weight.copy_(ours.down.weight)
    x = draw(2, 5, 16)
    torch.testing.assert_close(ours(x), theirs(x))


def test_swiglu_by_hand():
    """One feature: down * silu(gate * x) * up * x, silu(y) = y / (1 + exp(-y))."""
    layer = SwiGLU(1, 1)
    with torch.no_grad():
        for linear, value in ((layer.gate, 2.0), (layer.up, 3.0), (layer.down, 5.0)):
            linear.weight.fill_(value)
    expected = 5 * 3 * 4 * 8 / (1 + math.exp(-8))
    assert layer(torch.tensor([[4.0]])).item() == pytest.approx(expected)


def test_a_gate_that_is_shut_lets_nothing_pass():
    layer = SwiGLU(8, 16)
    nn.init.zeros_(layer.gate.weight)
    assert torch.equal(layer(draw(2, 3, 8)), torch.zeros(2, 3, 8))


def test_angles_by_hand():
    """Pair i turns by position * base ** (-i / pairs)."""
    angles = rope_angles(torch.tensor([0, 1, 5]), head_dim=6, rope_base=1000.0)
    speeds = torch.tensor([1.0, 0.1, 0.01])
    expected = torch.stack([0 * speeds, speeds, 5 * speeds])
    torch.testing.assert_close(angles, expected)


def test_angles_of_each_row_of_a_batch():
    positions = torch.tensor([[0, 1, 2], [7, 8, 9]])
    angles = rope_angles(positions, HEAD_DIM, 10_000.0)
    assert angles.shape == (2, 3, HEAD_DIM // 2)
    torch.testing.assert_close(angles[1], rope_angles(positions[1], HEAD_DIM, 10_000.0))


def test_angles_are_exact_to_the_last_position():
    """Float32 against float64: each angle is right to six digits, the largest too."""
    positions = torch.arange(SMOLLM2_CONFIG_135M["context_length"])
    found = rope_angles(positions, 64, 100_000.0).double()
    pairs = torch.arange(0, 64, 2, dtype=torch.float64)
    exact = positions[:, None] * 100_000.0 ** (-pairs / 64)
    assert found[:, 0].equal(exact[:, 0])
    torch.testing.assert_close(found, exact, atol=0, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_angles_are_float32_whatever_the_default(dtype):
    expected = rope_angles(torch.arange(500), 64, 10_000.0)
    assert expected.dtype == torch.float32
    torch.set_default_dtype(dtype)
    try:
        found = rope_angles(torch.arange(500), 64, 10_000.0)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected)


def rotated(x, positions, base=10_000.0):
    """Rotary positions as multiplications of complex numbers."""
    pairs = torch.arange(x.shape[-1] // 2, dtype=torch.float64)
    angles = positions[:, None] * base ** (-2 * pairs / x.shape[-1])
    points = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
    turned = points * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2)


def rope(x, positions, base=10_000.0):
    """Rotary positions as the course has them."""
    return apply_rope(x, rope_angles(positions, x.shape[-1], base))


def test_rope_multiplies_complex_numbers(device):
    x, positions = draw(2, 3, 10, HEAD_DIM), torch.arange(40, 50)
    found = rope(x.to(device), positions.to(device)).cpu()
    expected = rotated(x, positions).float()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_rope_equals_transformers_with_the_features_in_its_order(reference):
    x, positions = draw(2, 6, 10, HEAD_DIM), torch.arange(10)
    halves = torch.cat((x[..., 0::2], x[..., 1::2]), dim=-1)
    cos, sin = reference.model.rotary_emb(x, positions[None])
    theirs, _ = apply_rotary_pos_emb(halves, halves, cos, sin)
    ours = rope(x, positions)
    found = torch.cat((ours[..., 0::2], ours[..., 1::2]), dim=-1)
    torch.testing.assert_close(found, theirs, atol=1e-5, rtol=0)


def test_rope_leaves_position_0_as_it_is():
    x = draw(2, 3, 1, HEAD_DIM)
    assert torch.equal(rope(x, torch.tensor([0])), x)


def test_rope_keeps_lengths():
    x = draw(2, 3, 10, HEAD_DIM)
    found = rope(x, torch.arange(990, 1000))
    torch.testing.assert_close(found.norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize("shift", [1, 17, 300])
def test_scores_depend_on_the_distance_only(shift):
    queries, keys = draw(2, 3, 10, HEAD_DIM), draw(2, 3, 10, HEAD_DIM).flip(0)
    near, far = torch.arange(10), torch.arange(shift, shift + 10)
    scores = rope(queries, near) @ rope(keys, near).mT
    moved = rope(queries, far) @ rope(keys, far).mT
    torch.testing.assert_close(moved, scores, atol=1e-3, rtol=0)
    apart = rope(queries, far) @ rope(keys, near).mT  # other distances
    assert not torch.allclose(apart, scores, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rope_in_half_precision_rounds_once(dtype):
    """Far to the right a rounded angle would be off by whole radians."""
    x, positions = draw(1, 1, 4, 64).to(dtype), torch.arange(8000, 8004)
    found = rope(x, positions, base=100_000.0)
    assert found.dtype == dtype
    expected = rotated(x.double(), positions, base=100_000.0)
    atol = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), expected, atol=atol, rtol=atol)


def attention(n_kv_groups):
    """A seeded attention layer with six heads of queries."""
    torch.manual_seed(123)
    return GroupedQueryAttention(48, 6, n_kv_groups, rope_base=10_000.0)


@pytest.mark.parametrize("n_kv_groups", [1, 2, 3, 6])
def test_grouped_attention_head_by_head(n_kv_groups):
    """Mask and softmax written out: query head h reads group h // (6 / groups)."""
    layer = attention(n_kv_groups)
    x, positions = draw(2, 7, 48), torch.arange(7)
    future = torch.ones(7, 7, dtype=torch.bool).triu(1)
    heads = []
    for head in range(6):
        rows = slice(8 * head, 8 * head + 8)
        group = head // (6 // n_kv_groups)
        shared = slice(8 * group, 8 * group + 8)
        query = rotated(x @ layer.W_query.weight[rows].T, positions)
        key = rotated(x @ layer.W_key.weight[shared].T, positions)
        value = (x @ layer.W_value.weight[shared].T).double()
        scores = (query @ key.mT / 8**0.5).masked_fill(future, -torch.inf)
        heads.append(scores.softmax(dim=-1) @ value)
    expected = torch.cat(heads, dim=-1).float() @ layer.out_proj.weight.T
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=0)


def test_grouped_attention_is_full_attention_with_repeated_heads():
    grouped, full = attention(2), attention(6)
    with torch.no_grad():
        for name in ("W_query", "out_proj"):
            getattr(full, name).weight.copy_(getattr(grouped, name).weight)
        for name in ("W_key", "W_value"):
            heads = getattr(grouped, name).weight.unflatten(0, (2, 8))
            repeated = heads.repeat_interleave(3, dim=0).flatten(0, 1)
            getattr(full, name).weight.copy_(repeated)
    x = draw(2, 7, 48)
    torch.testing.assert_close(grouped(x), full(x), atol=1e-6, rtol=1e-4)


def test_only_keys_and_values_shrink():
    shapes = {name: p.shape[0] for name, p in attention(2).named_parameters()}
    assert shapes == {
        "W_query.weight": 48,
        "W_key.weight": 16,
        "W_value.weight": 16,
        "out_proj.weight": 48,
    }


def test_order_of_the_tokens_matters():
    """Without positions the last token would see the same set of keys."""
    layer, x = attention(2), draw(1, 7, 48)
    swapped = x[:, [1, 0, 2, 3, 4, 5, 6]]
    assert not torch.allclose(layer(swapped)[:, -1], layer(x)[:, -1], atol=1e-3)


def test_block_adds_to_what_it_gets():
    """With silent last layers a block hands its input on unchanged."""
    block = LlamaBlock(TINY_LLAMA)
    nn.init.zeros_(block.att.out_proj.weight)
    nn.init.zeros_(block.ff.down.weight)
    x = draw(2, 5, 48)
    assert torch.equal(block(x), x)


def torch_norm(norm):
    """A norm of transformers, which rounds to float32 in between, as torch has it."""
    exact = nn.RMSNorm(norm.weight.shape, norm.variance_epsilon)
    exact.weight = norm.weight
    return exact


def leave_float32(reference):
    """Let a float64 model of transformers compute in float64 throughout.

    Its angles stay float32, as ours do, so they have to be rounded alike.
    """
    for block in reference.model.layers:
        block.input_layernorm = torch_norm(block.input_layernorm)
        block.post_attention_layernorm = torch_norm(block.post_attention_layernorm)
    reference.model.norm = torch_norm(reference.model.norm)
    angles = rope_angles(torch.tensor([1]), HEAD_DIM, TINY_LLAMA["rope_base"])
    reference.model.rotary_emb.inv_freq.copy_(angles[0])


@torch.no_grad()
@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-4), (torch.float64, 1e-9)]
)
def test_logits_equal_transformers(reference, token_ids, dtype, atol):
    reference.to(dtype)
    if dtype == torch.float64:
        leave_float32(reference)
    model = LlamaModel(TINY_LLAMA).eval().to(dtype)
    load_weights_into_llama(model, gguf_arrays(reference).__getitem__)
    expected = reference(token_ids).logits
    assert expected.std() > 0.5  # or the tolerance would mean nothing
    torch.testing.assert_close(model(token_ids), expected, atol=atol, rtol=0)


@torch.no_grad()
def test_the_order_of_the_features_is_no_detail(reference, token_ids):
    """With transformers' rows left as they are the logits are others."""
    arrays = gguf_arrays(reference)
    for layer, block in enumerate(reference.model.layers):
        arrays[f"blk.{layer}.attn_q.weight"] = block.self_attn.q_proj.weight
        arrays[f"blk.{layer}.attn_k.weight"] = block.self_attn.k_proj.weight
    model = LlamaModel(TINY_LLAMA).eval()
    load_weights_into_llama(model, arrays.__getitem__)
    assert (model(token_ids) - reference(token_ids).logits).abs().max() > 0.1


@pytest.mark.parametrize("changed", range(1, 10))
@torch.no_grad()
def test_llama_is_causal(tiny_llama, token_ids, changed, device):
    tiny_llama.to(device)
    token_ids = token_ids.to(device)
    other = token_ids.clone()
    other[:, changed:] = (other[:, changed:] + 1) % 101
    before, after = tiny_llama(token_ids), tiny_llama(other)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.allclose(before[:, changed], after[:, changed])


@torch.no_grad()
def test_rows_of_a_batch_do_not_mix(tiny_llama, token_ids):
    alone = tiny_llama(token_ids[1:])
    torch.testing.assert_close(tiny_llama(token_ids)[1:], alone, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_same_on_each_device(tiny_llama, token_ids, device):
    expected = tiny_llama(token_ids)
    found = tiny_llama.to(device)(token_ids.to(device)).cpu()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_gives_nearly_the_same(tiny_llama, token_ids, dtype):
    expected = tiny_llama(token_ids)
    logits = tiny_llama.to(dtype)(token_ids)
    assert logits.dtype == dtype
    off = (logits.float() - expected).abs().max() / expected.abs().max()
    assert off < 16 * torch.finfo(dtype).eps


def test_the_head_is_the_embedding(tiny_llama):
    assert tiny_llama.out_head.weight is tiny_llama.tok_emb.weight
    names = [name for name, _ in tiny_llama.named_parameters()]
    assert "out_head.weight" not in names
    tiny_llama.to(torch.float64)
    assert tiny_llama.out_head.weight is tiny_llama.tok_emb.weight


def test_there_is_no_bias_and_no_dropout(tiny_llama):
    assert not [name for name, _ in tiny_llama.named_parameters() if "bias" in name]
    assert not [m for m in tiny_llama.modules() if isinstance(m, nn.Dropout)]


def test_parameters_of_smollm2():
    """As Hugging Face counts them: 134,515,008."""
    with torch.device("meta"):
        model = LlamaModel(SMOLLM2_CONFIG_135M)
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008


def test_each_parameter_gets_a_gradient_that_helps(tiny_llama, token_ids, device):
    model, token_ids = tiny_llama.to(device), token_ids.to(device)
    before = calc_loss_batch(token_ids[:, :-1], token_ids[:, 1:], model, device)
    before.backward()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            assert parameter.grad.abs().max() > 0, name
            parameter -= 1e-3 * parameter.grad
        after = calc_loss_batch(token_ids[:, :-1], token_ids[:, 1:], model, device)
    assert after < before


def test_too_many_tokens_are_refused(tiny_llama):
    with pytest.raises(ValueError, match="13 tokens exceed context_length 12"):
        tiny_llama(torch.zeros(1, 13, dtype=torch.long))
    assert tiny_llama(torch.zeros(1, 12, dtype=torch.long)).shape[1] == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_heads": 5}, "n_heads 5 does not divide emb_dim 48 into heads with an"),
        ({"n_heads": 16}, "n_heads 16 does not divide emb_dim 48 into heads with an"),
        ({"n_kv_groups": 4}, "n_kv_groups 4 does not divide n_heads 6"),
        ({"n_layer": 2}, "keys .'n_layer'. are missing or unknown"),
        ({"n_heads": 0}, "n_heads must be a whole number of at least 1, not 0"),
        ({"n_layers": -1}, "n_layers must be a whole number of at least 1, not -1"),
        ({"n_layers": True}, "n_layers must be a whole number of at least 1, not True"),
        ({"emb_dim": 48.0}, "emb_dim must be a whole number of at least 1, not 48.0"),
        (
            {"hidden_dim": "40"},
            "hidden_dim must be a whole number of at least 1, not '40'",
        ),
        ({"rope_base": 0.0}, "rope_base must be a number above 0, not 0.0"),
        ({"rope_base": math.nan}, "rope_base must be a number above 0, not nan"),
        ({"rope_base": "1e5"}, "rope_base must be a number above 0, not '1e5'"),
        ({"rope_base": True}, "rope_base must be a number above 0, not True"),
    ],
)
def test_config_errors_name_the_key(change, message):
    with pytest.raises(ValueError, match=message):
        LlamaModel(TINY_LLAMA | change)


def test_a_missing_key_is_named():
    config = {key: TINY_LLAMA[key] for key in TINY_LLAMA if key != "rope_base"}
    with pytest.raises(ValueError, match="keys .'rope_base'. are missing"):
        LlamaModel(config)


def test_the_layout_names_each_parameter_once(tiny_llama):
    names, parameters = zip(*llama_layout(tiny_llama))
    assert len(set(names)) == len(names)
    assert {id(p) for p in parameters} == {id(p) for p in tiny_llama.parameters()}
    assert len(parameters) == len(list(tiny_llama.parameters()))


def test_weights_are_copied_in_place(tiny_llama, reference):
    before = {name: p.data_ptr() for name, p in tiny_llama.named_parameters()}
    load_weights_into_llama(tiny_llama, gguf_arrays(reference).__getitem__)
    assert before == {name: p.data_ptr() for name, p in tiny_llama.named_parameters()}
    assert tiny_llama.out_head.weight is tiny_llama.tok_emb.weight


def test_an_array_that_does_not_fit_is_named(tiny_llama, reference):
    arrays = gguf_arrays(reference)
    arrays["blk.1.ffn_up.weight"] = arrays["blk.1.ffn_up.weight"].T
    message = (
        r"blk.1.ffn_up does not fit the model: .*left \(40, 48\), right \(48, 40\)"
    )
    with pytest.raises(ValueError, match=message):
        load_weights_into_llama(tiny_llama, arrays.__getitem__)


def test_an_array_that_is_missing_is_named(tiny_llama, reference):
    arrays = gguf_arrays(reference)
    del arrays["blk.1.attn_norm.weight"]
    with pytest.raises(KeyError, match=r"blk\.1\.attn_norm\.weight"):
        load_weights_into_llama(tiny_llama, arrays.__getitem__)
