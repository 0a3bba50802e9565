"""Each attention equals the one before it, torch's own, and keeps to the past."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ch03.attention import (
    CausalAttention,
    MultiHeadAttention,
    MultiHeadAttentionWrapper,
    SelfAttention_v1,
    SelfAttention_v2,
    softmax_naive,
)

PROJECTIONS = ("W_query", "W_key", "W_value")
CAUSAL = {
    "CausalAttention": lambda: CausalAttention(8, 8, 10, dropout=0.5),
    "MultiHeadAttentionWrapper": lambda: MultiHeadAttentionWrapper(
        8, 4, 10, dropout=0.5, num_heads=2
    ),
    "MultiHeadAttention": lambda: MultiHeadAttention(
        8, 8, 10, dropout=0.5, num_heads=2
    ),
}


def draw(*shape):
    """Seeded normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(123))


@pytest.fixture(params=CAUSAL)
def causal(request):
    """Each causal layer, seeded, in evaluation mode."""
    torch.manual_seed(123)
    return CAUSAL[request.param]().eval()


def test_softmax_naive_equals_torch():
    x = draw(4, 7)
    torch.testing.assert_close(softmax_naive(x), torch.softmax(x, dim=-1))


def test_softmax_by_hand():
    shares = softmax_naive(torch.tensor([math.log(1), math.log(2), math.log(5)]))
    torch.testing.assert_close(shares, torch.tensor([0.125, 0.25, 0.625]))


def test_v1_by_hand():
    """Queries and keys of 0 give even weights: the output is the mean of the values."""
    attention = SelfAttention_v1(2, 2)
    with torch.no_grad():
        attention.W_query.zero_()
        attention.W_value.copy_(torch.eye(2))
    x = torch.tensor([[1.0, 0.0], [3.0, 2.0]])
    torch.testing.assert_close(attention(x), torch.tensor([[2.0, 1.0], [2.0, 1.0]]))


def test_v2_equals_v1_with_its_weights_transposed():
    torch.manual_seed(123)
    v1, v2 = SelfAttention_v1(3, 2), SelfAttention_v2(3, 2)
    with torch.no_grad():
        for name in PROJECTIONS:
            getattr(v1, name).copy_(getattr(v2, name).weight.T)
    x = draw(6, 3)
    torch.testing.assert_close(v1(x), v2(x))


def test_v2_equals_torch():
    torch.manual_seed(123)
    attention = SelfAttention_v2(3, 2, qkv_bias=True)
    x = draw(6, 3)
    projected = [getattr(attention, name)(x) for name in PROJECTIONS]
    expected = F.scaled_dot_product_attention(*projected)
    torch.testing.assert_close(attention(x), expected)


def test_causal_attention_equals_torch():
    torch.manual_seed(123)
    attention = CausalAttention(3, 2, context_length=8, dropout=0.0)
    x = draw(2, 6, 3)
    projected = [getattr(attention, name)(x) for name in PROJECTIONS]
    expected = F.scaled_dot_product_attention(*projected, is_causal=True)
    torch.testing.assert_close(attention(x), expected)


def test_multi_head_equals_the_wrapper():
    torch.manual_seed(123)
    wrapper = MultiHeadAttentionWrapper(3, 4, 6, dropout=0.0, num_heads=2)
    attention = MultiHeadAttention(3, 8, 6, dropout=0.0, num_heads=2)
    with torch.no_grad():
        for name in PROJECTIONS:
            rows = [getattr(head, name).weight for head in wrapper.heads]
            getattr(attention, name).weight.copy_(torch.cat(rows))
        attention.out_proj.weight.copy_(torch.eye(8))
        attention.out_proj.bias.zero_()
    x = draw(2, 6, 3)
    torch.testing.assert_close(attention(x), wrapper(x))


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_multi_head_equals_torch(qkv_bias):
    torch.manual_seed(123)
    ours = MultiHeadAttention(8, 8, 6, 0.0, num_heads=2, qkv_bias=qkv_bias)
    reference = nn.MultiheadAttention(8, num_heads=2, batch_first=True)
    layers = [getattr(ours, name) for name in PROJECTIONS]
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        if qkv_bias:
            reference.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        reference.out_proj.load_state_dict(ours.out_proj.state_dict())
    x = draw(2, 6, 8)
    future = nn.Transformer.generate_square_subsequent_mask(6)
    expected, _ = reference(x, x, x, attn_mask=future)
    torch.testing.assert_close(ours(x), expected)


def with_masks(layer):
    """Weights as the book's classes save them: each causal layer's mask is there."""
    masked = (
        {"": layer} if hasattr(layer, "mask") else dict(layer.heads.named_children())
    )
    names = [f"heads.{name}.mask" if name else "mask" for name in masked]
    return layer.state_dict() | {name: torch.ones(10, 10).triu(1) for name in names}


def test_weights_that_the_books_classes_saved_are_loaded(causal):
    saved = with_masks(causal)
    expected = causal(draw(2, 10, 8))
    for other in (CAUSAL[type(causal).__name__]().eval(), copy.deepcopy(causal)):
        for parameter in other.parameters():
            nn.init.zeros_(parameter)
        other.load_state_dict(saved)
        assert torch.equal(other(draw(2, 10, 8)), expected)
    assert saved.keys() > causal.state_dict().keys()  # the caller's dict is left alone
    causal.load_state_dict(causal.state_dict())
    with pytest.raises(RuntimeError, match="Unexpected key.*future"):
        causal.load_state_dict(saved | {"future": torch.ones(10, 10)})


@pytest.mark.parametrize("name", ["CausalAttention", "MultiHeadAttention"])
def test_the_books_attributes(name, device):
    layer = CAUSAL[name]().to(device)
    assert layer.d_out == 8
    assert layer.mask.device.type == device.type
    assert torch.equal(layer.mask.cpu().float(), torch.ones(10, 10).triu(1))


@pytest.mark.parametrize("changed", range(1, 10))
def test_no_token_sees_the_future(causal, changed, device):
    causal.to(device)
    x = draw(2, 10, 8).to(device)
    other = x.clone()
    other[:, changed:] += 1
    before, after = causal(x), causal(other)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.allclose(before[:, changed], after[:, changed])


def test_rows_of_a_batch_do_not_mix(causal):
    x = draw(2, 10, 8)
    torch.testing.assert_close(causal(x)[1:], causal(x[1:]))


def test_same_on_each_device(causal, device):
    x = draw(2, 10, 8)
    expected = causal(x)
    actual = causal.to(device)(x.to(device)).cpu()
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_dropout_only_when_training(causal):
    x = draw(2, 10, 8)
    assert torch.equal(causal(x), causal(x))
    causal.train()
    torch.manual_seed(123)
    assert not torch.equal(causal(x), causal(x))


def test_dropout_keeps_the_expected_output():
    torch.manual_seed(123)
    attention = MultiHeadAttention(8, 8, 10, dropout=0.5, num_heads=2)
    x = draw(1, 10, 8).expand(4000, -1, -1)
    expected = attention.eval()(x[:1])
    mean = attention.train()(x).mean(dim=0, keepdim=True)
    torch.testing.assert_close(mean, expected, atol=0.05, rtol=0)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="num_heads 3 does not divide d_out 8"):
        MultiHeadAttention(8, 8, 10, dropout=0.0, num_heads=3)


def test_too_many_tokens_are_refused():
    attention = MultiHeadAttention(8, 8, context_length=10, dropout=0.0, num_heads=2)
    with pytest.raises(ValueError, match="11 tokens exceed context_length 10"):
        attention(draw(1, 11, 8))
