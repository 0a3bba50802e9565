"""Fast dropout drops the right share, and computes what the formulas say."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import CheckpointError, checkpoint

from ch04.gpt import TransformerBlock
from support.device import choice, fast_dropout
from support.device.fast_dropout import (
    FastDropout,
    attention,
    draw_kept,
    dropout,
    gains_by_fast_dropout,
)
from support.pretraining.run_folder import RunFolder
from tests.conftest import TINY
from tests.tiny_run import SETTINGS, tiny_run

P = 0.25
SHAPE = 2, 3, 5, 4  # b, num_heads, num_tokens, head_dim


def draw_qkv(dtype=torch.float64):
    """Seeded queries, keys and values that ask for gradients."""
    generator = torch.Generator().manual_seed(123)
    drawn = torch.randn(3, *SHAPE, generator=generator).to(dtype)
    return [each.clone().requires_grad_() for each in drawn]


def seeded(function, *inputs):
    """function(*inputs), with the same draws at each call."""
    torch.manual_seed(123)
    return function(*inputs)


def note_draws(monkeypatch):
    """A list that notes the shape of each draw."""
    shapes, usual = [], fast_dropout.draw_kept

    def draw(shape, p):
        shapes.append(shape)
        return usual(shape, p)

    monkeypatch.setattr(fast_dropout, "draw_kept", draw)
    return shapes


fast_attention = partial(
    seeded, partial(attention, dropout_p=P, is_causal=True)
)  # of query, key, value


def attention_by_formula(query, key, value):
    """Vaswani et al. 2017, equation 1, with a causal mask and the same dropout."""
    num_tokens, head_dim = query.shape[-2:]
    kept = seeded(draw_kept, query.shape[:-1] + (num_tokens,), P)
    scores = query @ key.transpose(-1, -2) / head_dim**0.5
    future = torch.ones(num_tokens, num_tokens, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, -torch.inf).softmax(-1)
    return (weights * kept / (1 - P)) @ value


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped(p):
    kept = seeded(draw_kept, torch.Size([1_000_003]), p)
    assert kept.dtype == torch.uint8 and set(kept.unique().tolist()) == {0, 1}
    assert kept.double().mean().item() == pytest.approx(1 - p, abs=0.002)


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 8])
def test_draws_beside_one_another_are_independent(distance):
    kept = seeded(draw_kept, torch.Size([1_000_000]), 0.5).double() - 0.5
    together = (kept[distance:] * kept[:-distance]).mean().item() / 0.25
    assert abs(together) < 0.005  # five standard deviations


def test_what_is_kept_grows_and_so_do_its_gradients():
    x = torch.arange(1.0, 25.0).view(2, 3, 4).requires_grad_()
    y = seeded(dropout, x, P)
    kept = seeded(draw_kept, x.shape, P)
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(y, x * kept / (1 - P))
    y.sum().backward()
    torch.testing.assert_close(x.grad, kept / (1 - P))


def test_attention_is_the_formula():
    inputs = draw_qkv()
    torch.testing.assert_close(fast_attention(*inputs), attention_by_formula(*inputs))


def test_gradients_of_attention():
    assert torch.autograd.gradcheck(fast_attention, draw_qkv())


def test_without_dropped_weights_it_is_pytorchs(monkeypatch):
    monkeypatch.setattr(
        fast_dropout, "draw_kept", lambda shape, p: torch.ones(shape).byte()
    )
    inputs = draw_qkv()
    expected = F.scaled_dot_product_attention(*inputs, is_causal=True) / (1 - P)
    torch.testing.assert_close(fast_attention(*inputs), expected)


def test_bfloat16_is_near():
    inputs = draw_qkv(torch.bfloat16)
    exact = [each.detach().double().requires_grad_() for each in inputs]
    out, expected = fast_attention(*inputs), attention_by_formula(*exact)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), expected, atol=0.03, rtol=0.03)
    out.sum().backward()
    expected.sum().backward()
    for given, right in zip(inputs, exact):
        assert given.grad.dtype == torch.bfloat16
        torch.testing.assert_close(given.grad.double(), right.grad, atol=0.1, rtol=0.03)


def test_a_block_uses_both_within_the_mode_only(monkeypatch):
    draws = note_draws(monkeypatch)
    torch.manual_seed(123)
    block, x = TransformerBlock(TINY), torch.randn(2, 10, TINY["emb_dim"])
    with FastDropout():
        block(x)
    assert draws == [(2, TINY["n_heads"], 10, 10), x.shape, x.shape]
    block(x)
    assert len(draws) == 3


def test_without_dropout_nothing_changes():
    torch.manual_seed(123)
    block, x = TransformerBlock(TINY).eval(), torch.randn(2, 10, TINY["emb_dim"])
    expected = block(x)
    state = torch.random.get_rng_state()
    with FastDropout():
        assert torch.equal(block(x), expected)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "settings",
    [
        {"is_causal": False},
        {"is_causal": False, "attn_mask": torch.zeros(5, 5, dtype=torch.float64)},
        {"is_causal": True, "scale": 0.3},
    ],
)
def test_other_attention_is_left_to_pytorch(settings):
    call = partial(F.scaled_dot_product_attention, dropout_p=P, **settings)
    expected = seeded(call, *draw_qkv())
    with FastDropout():
        assert torch.equal(seeded(call, *draw_qkv()), expected)


def test_other_devices_are_left_to_pytorch():
    x = torch.ones(2, 3, device="meta")
    with FastDropout():
        assert F.dropout(x, P).device.type == "meta"


def test_in_place_stays_in_place():
    x = torch.ones(100)
    with FastDropout():
        assert F.dropout(x, P, inplace=True) is x
    assert (x == 0).any()


def test_checkpointed_blocks_are_refused():
    """They compute again with PyTorch's dropout, which keeps something else."""
    block, x = TransformerBlock(TINY), torch.ones(2, 10, TINY["emb_dim"])
    with FastDropout():
        y = checkpoint(block, x.requires_grad_(), use_reentrant=False)
        with pytest.raises(CheckpointError, match="different metadata"):
            y.sum().backward()


@pytest.mark.parametrize("is_fast", [True, False])
def test_a_run_trains_with_it_if_its_settings_say_so(
    tmp_path, monkeypatch, one_thread, is_fast
):
    draws = note_draws(monkeypatch)
    tiny_run(RunFolder(tmp_path / "run"), replace(SETTINGS, is_dropout_fast=is_fast))
    assert bool(draws) is is_fast


@pytest.fixture
def anew():
    """What is fast is not known yet, and forgotten afterwards."""
    gains_by_fast_dropout.cache_clear()
    yield
    gains_by_fast_dropout.cache_clear()


@pytest.fixture
def faster(monkeypatch, anew, tmp_path):
    """FastDropout is the faster way of the two that are tried."""
    monkeypatch.delenv("LLMS_PLAIN")
    monkeypatch.setattr(choice, "CHOICES", tmp_path / "choices.json")
    monkeypatch.setattr(fast_dropout, "TRIED_SHAPE", SHAPE)
    seconds = {"plain": 2, "FastDropout": 1}
    monkeypatch.setattr(
        choice, "time_in_turn", lambda ways: {n: seconds[n] for n in ways}
    )


@pytest.mark.parametrize("way", ["plain", "FastDropout"])
def test_it_is_used_where_it_is_faster(monkeypatch, anew, way):
    monkeypatch.setattr(fast_dropout, "fastest", lambda *_: way)
    draws = note_draws(monkeypatch)
    with fast_dropout.fast_dropout("cpu"):
        F.dropout(torch.ones(8), P)
    assert bool(draws) is (way == "FastDropout")
    with fast_dropout.fast_dropout("cuda"):
        F.dropout(torch.ones(8), P)
    assert len(draws) <= 1


@pytest.mark.parametrize("is_exact", [True, False])
def test_both_ways_are_compared_where_nothing_is_dropped(monkeypatch, faster, is_exact):
    if not is_exact:
        monkeypatch.setattr(
            fast_dropout, "draw_kept", lambda shape, p: torch.zeros(shape).byte()
        )
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    assert fast_dropout.gains_by_fast_dropout() is is_exact
    assert torch.equal(torch.rand(1), expected)


def test_it_is_chosen_wherever_the_caller_stands(faster):
    """Without gradients, and where matrices are multiplied in bfloat16."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert fast_dropout.gains_by_fast_dropout()
