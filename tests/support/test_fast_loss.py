"""The fast loss is PyTorch's, and so are its gradients."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from support.device import choice, fast_loss
from support.device.fast_loss import FastLoss, cross_entropy, gains_by_fast_loss
from support.pretraining.run_folder import RunFolder
from tests.tiny_run import SETTINGS, tiny_run

NUM_TOKENS, VOCAB_SIZE = 17, 50


@pytest.fixture(params=[1, 3 * VOCAB_SIZE, 10**6], ids=["row", "rows", "all"])
def chunk(request, monkeypatch):
    """One token at a time, three, or all of them; 17 is no multiple of 3."""
    monkeypatch.setattr(fast_loss, "CHUNK", request.param)


def draw(dtype=torch.float64, num_ignored=2):
    """Seeded logits that ask for gradients, and targets, of which some are ignored."""
    generator = torch.Generator().manual_seed(123)
    logits = 3 * torch.randn(NUM_TOKENS, VOCAB_SIZE, generator=generator)
    targets = torch.randint(VOCAB_SIZE, (NUM_TOKENS,), generator=generator)
    targets[3 : 3 + num_ignored] = -100
    return logits.to(dtype).requires_grad_(), targets


def gradient(function, logits, targets):
    """The gradient of three times the loss."""
    (found,) = torch.autograd.grad(3 * function(logits, targets), logits)
    return found


@pytest.mark.parametrize("num_ignored", [0, 2, NUM_TOKENS - 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_pytorchs(chunk, dtype, num_ignored):
    logits, targets = draw(dtype, num_ignored)
    before = logits.detach().clone()
    found, expected = (f(logits, targets) for f in (cross_entropy, F.cross_entropy))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        gradient(cross_entropy, logits, targets),
        gradient(F.cross_entropy, logits, targets),
    )
    assert torch.equal(logits, before) and found.dtype == dtype


def test_gradients_by_small_steps(chunk):
    logits, targets = draw()
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, targets), logits)


def test_huge_logits_do_not_overflow(chunk):
    logits, targets = draw(torch.float32)
    found = cross_entropy(1e4 * logits, targets)
    torch.testing.assert_close(found, F.cross_entropy(1e4 * logits, targets))


def test_bfloat16_is_summed_in_float32(chunk):
    logits, targets = draw(torch.bfloat16)
    found = cross_entropy(logits, targets)
    torch.testing.assert_close(found, F.cross_entropy(logits.float(), targets))
    grad = gradient(cross_entropy, logits, targets)
    assert grad.dtype == torch.bfloat16
    expected = gradient(
        F.cross_entropy, logits.detach().float().requires_grad_(), targets
    )
    torch.testing.assert_close(grad.float(), expected, atol=1e-4, rtol=0.01)


def test_nothing_counts_and_the_loss_is_nan():
    logits, targets = draw()
    assert cross_entropy(logits, torch.full_like(targets, -100)).isnan()


@pytest.mark.parametrize("target", [VOCAB_SIZE, -1])
def test_a_target_outside_the_vocabulary_is_an_error(target):
    logits, targets = draw()
    targets[0] = target
    with pytest.raises((IndexError, RuntimeError)):
        cross_entropy(logits, targets)


@pytest.mark.parametrize(
    "options",
    [
        {"reduction": "sum"},
        {"reduction": "none"},
        {"label_smoothing": 0.1},
        {"ignore_index": 5},
        {"weight": torch.arange(VOCAB_SIZE, dtype=torch.float64)},
    ],
    ids=str,
)
def test_with_options_it_is_pytorchs_own(options):
    logits, targets = draw(num_ignored=0)
    with FastLoss():
        found = F.cross_entropy(logits, targets, **options)
    assert torch.equal(found, F.cross_entropy(logits, targets, **options))


def test_other_shapes_and_kinds_of_targets_are_pytorchs_own():
    logits, targets = draw(num_ignored=0)
    three = logits.view(1, NUM_TOKENS, VOCAB_SIZE).mT, targets[None]  # (b, v, n)
    shares = logits, logits.softmax(-1).detach()
    one = logits[0], targets[0]
    for pair in (three, shares, one):
        with FastLoss():
            found = F.cross_entropy(*pair)
        assert torch.equal(found, F.cross_entropy(*pair))


def note_calls(monkeypatch):
    """A list that notes the dtype of the logits of each fast loss."""
    dtypes, usual = [], fast_loss.ChunkedCrossEntropy.apply

    def apply(logits, targets):
        dtypes.append(logits.dtype)
        return usual(logits, targets)

    monkeypatch.setattr(fast_loss.ChunkedCrossEntropy, "apply", apply)
    return dtypes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("is_fast", [True, False])
def test_a_run_trains_with_it_if_its_settings_say_so(
    tmp_path, monkeypatch, one_thread, is_fast, dtype
):
    dtypes = note_calls(monkeypatch)
    settings = replace(SETTINGS, is_loss_fast=is_fast, dtype=dtype)
    tiny_run(RunFolder(tmp_path / "run"), settings)
    assert set(dtypes) == ({getattr(torch, dtype)} if is_fast else set())


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """What is fast is not known yet, and forgotten afterwards."""
    monkeypatch.delenv("LLMS_PLAIN", raising=False)
    monkeypatch.setattr(choice, "CHOICES", tmp_path / "choices.json")
    monkeypatch.setattr(fast_loss, "TRIED_SHAPE", (NUM_TOKENS, VOCAB_SIZE))
    gains_by_fast_loss.cache_clear()
    yield
    gains_by_fast_loss.cache_clear()


def set_seconds(monkeypatch, is_faster):
    """Let FastLoss take less time than PyTorch's loss, or more."""
    seconds = {"plain": 2, "FastLoss": 1 if is_faster else 3}
    monkeypatch.setattr(
        choice, "time_in_turn", lambda ways: {n: seconds[n] for n in ways}
    )


@pytest.mark.parametrize("is_exact", [True, False])
@pytest.mark.parametrize("is_faster", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_used_where_it_is_as_exact_and_faster(
    monkeypatch, anew, dtype, is_faster, is_exact
):
    set_seconds(monkeypatch, is_faster)
    dtypes = note_calls(monkeypatch)
    if not is_exact:
        monkeypatch.setattr(
            fast_loss.ChunkedCrossEntropy,
            "apply",
            lambda logits, _: logits.float().square().mean(),
        )
    assert gains_by_fast_loss(dtype) is (is_faster and is_exact)
    dtypes.clear()
    if is_exact:
        with fast_loss.fast_loss("cpu", dtype):
            F.cross_entropy(*draw(dtype))
        assert bool(dtypes) is is_faster
    with fast_loss.fast_loss("cuda", dtype):
        assert torch.overrides._len_torch_function_stack() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_chosen_wherever_the_caller_stands(monkeypatch, anew, dtype):
    """Without gradients, and where matrices are multiplied in bfloat16."""
    set_seconds(monkeypatch, is_faster=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert gains_by_fast_loss(dtype)
