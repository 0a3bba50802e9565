"""Both ends of a model are computed as PyTorch does, and so are their gradients."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ch04.gpt import GPTModel
from support.device import choice, fast_vocabulary
from support.device.fast_vocabulary import (
    FastVocabulary,
    cross_entropy,
    gains_by_fast_vocabulary,
)
from support.pretraining.run_folder import RunFolder
from tests.conftest import TINY
from tests.tiny_run import SETTINGS, tiny_run

NUM_TOKENS, VOCAB_SIZE = 17, 50


@pytest.fixture(params=[1, 3 * VOCAB_SIZE, 10**6], ids=["row", "rows", "all"])
def chunk(request, monkeypatch):
    """One token at a time, three, or all of them; 17 is no multiple of 3."""
    monkeypatch.setattr(fast_vocabulary, "CHUNK", request.param)


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
    with FastVocabulary():
        found = F.cross_entropy(logits, targets, **options)
    assert torch.equal(found, F.cross_entropy(logits, targets, **options))


def test_other_shapes_and_kinds_of_targets_are_pytorchs_own():
    logits, targets = draw(num_ignored=0)
    three = logits.view(1, NUM_TOKENS, VOCAB_SIZE).mT, targets[None]  # (b, v, n)
    shares = logits, logits.softmax(-1).detach()
    one = logits[0], targets[0]
    for pair in (three, shares, one):
        with FastVocabulary():
            found = F.cross_entropy(*pair)
        assert torch.equal(found, F.cross_entropy(*pair))


class Ends(nn.Module):
    """An embedding and an output layer with the same weight, or another one."""

    def __init__(self, is_tied=True, **options):
        super().__init__()
        torch.manual_seed(123)
        self.tok_emb = nn.Embedding(VOCAB_SIZE, 6, dtype=torch.float64, **options)
        self.out_head = nn.Linear(6, VOCAB_SIZE, bias=False, dtype=torch.float64)
        if is_tied:
            self.out_head.weight = self.tok_emb.weight

    def forward(self, ids):
        return self.out_head(self.tok_emb(ids).tanh())


def gradients(model, way=FastVocabulary, runs=1, loss_of=torch.mean):
    """The gradients of a model's parameters after runs on ids that repeat."""
    ids = torch.tensor([[3, 1, 3, 3], [0, 1, 49, 7]])
    with way():
        for _ in range(runs):
            loss_of(model(ids).square()).backward()
    found = [p.grad for p in model.parameters()]
    model.zero_grad()
    return found


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def is_tied(request):
    """Whether both ends have the same weight."""
    return request.param


@pytest.mark.parametrize("runs", [1, 3])
def test_gradients_of_both_ends_are_pytorchs(is_tied, runs):
    model = Ends(is_tied)
    found, expected = (gradients(model, w, runs) for w in (FastVocabulary, nullcontext))
    torch.testing.assert_close(found, expected)
    assert len(found) == (1 if is_tied else 2)
    assert not any(each.is_sparse for each in found)


def test_a_gradient_is_added_to_one_that_is_there(is_tied):
    model = Ends(is_tied)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    kept = [p.grad for p in model.parameters()]
    before = [p.grad.clone() for p in model.parameters()]
    found = gradients(model)
    expected = [a + b for a, b in zip(before, gradients(model, nullcontext))]
    torch.testing.assert_close(found, expected)
    assert all(a is b for a, b in zip(found, kept))


@pytest.mark.parametrize("end", ["tok_emb", "out_head"])
def test_only_one_end_gives_a_gradient(end):
    """The other end's output is not part of the loss."""
    model = Ends()

    def run(way):
        ids = torch.tensor([2, 5, 2])
        with way():
            embedded = model.tok_emb(ids)
            logits = model.out_head(embedded.detach())
            ({"tok_emb": embedded, "out_head": logits}[end]).square().sum().backward()
        found = model.tok_emb.weight.grad
        model.zero_grad()
        return found

    torch.testing.assert_close(run(FastVocabulary), run(nullcontext))


def test_gradients_of_both_ends_by_torch_autograd_grad():
    model, ids = Ends(), torch.tensor([3, 1, 3])
    (expected,) = torch.autograd.grad(model(ids).sum(), model.tok_emb.weight)
    with FastVocabulary():
        logits = model(ids)
    (found,) = torch.autograd.grad(logits.sum(), model.tok_emb.weight)
    torch.testing.assert_close(found, expected)
    assert model.tok_emb.weight.grad is None


def test_the_backward_pass_can_be_repeated():
    model = Ends()
    expected = gradients(model, nullcontext, runs=2)
    with FastVocabulary():
        loss = model(torch.tensor([[3, 1, 3, 3], [0, 1, 49, 7]])).square().mean()
    loss.backward(retain_graph=True)
    loss.backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], expected)


def test_two_texts_before_the_backward_pass():
    """The look-ups of both are followed by the output layers of both."""
    model, ids = Ends(), torch.tensor([3, 1, 3])

    def run(way):
        with way():
            one, other = model.tok_emb(ids), model.tok_emb(ids + 1)
            logits = model.out_head(one), model.out_head(other)
            (logits[0] * logits[1]).sum().backward()
        found = model.tok_emb.weight.grad
        model.zero_grad()
        return found

    torch.testing.assert_close(run(FastVocabulary), run(nullcontext))


@pytest.mark.parametrize(
    "options", [{"padding_idx": 3}, {"max_norm": 0.5}, {"scale_grad_by_freq": True}]
)
def test_an_embedding_with_options_is_pytorchs_own(both_ends, options):
    model = Ends(**options)
    found, expected = (gradients(model, way) for way in (FastVocabulary, nullcontext))
    assert torch.equal(found[0], expected[0]) and not both_ends


def test_a_sparse_embedding_stays_sparse(both_ends):
    model = Ends(is_tied=False, sparse=True)
    assert gradients(model)[0].is_sparse and not both_ends


def test_arguments_may_be_named():
    weight = torch.randn(VOCAB_SIZE, 6, requires_grad=True)
    ids = torch.tensor([3, 1])
    with FastVocabulary():
        x = F.embedding(input=ids, weight=weight)
        found = F.linear(input=x, weight=weight)
    assert torch.equal(found, weight[ids] @ weight.T)


@pytest.fixture
def both_ends(monkeypatch):
    """A list of the weights that `BothEnds` was applied to."""
    calls, usual = [], fast_vocabulary.BothEnds.apply
    monkeypatch.setattr(
        fast_vocabulary.BothEnds, "apply", lambda w: calls.append(w) or usual(w)
    )
    return calls


def test_a_models_embeddings_are_looked_up_in_the_fast_way(both_ends):
    model, ids = GPTModel(TINY), torch.arange(20).view(2, 10)
    model.out_head.weight = model.tok_emb.weight
    with FastVocabulary() as mode:
        model(ids)
    weights = model.tok_emb.weight, model.pos_emb.weight
    assert all(a is b for a, b in zip(both_ends, weights, strict=True))
    assert [*mode.tables] == [id(model.pos_emb.weight)]  # which no layer has used


def test_without_gradients_nothing_changes(is_tied):
    model, ids = Ends(is_tied), torch.tensor([3, 1, 3])
    expected = model(ids)
    with FastVocabulary() as mode:
        with torch.no_grad():
            found = model(ids)
        assert not mode.tables and not found.requires_grad
        model.requires_grad_(False)
        assert torch.equal(model(ids), expected) and not mode.tables
    assert torch.equal(found, expected)


def test_rows_are_added_to_the_table_that_is_there():
    """So no second table of the vocabulary's size is made."""
    table, ids = torch.zeros(5, 2), torch.tensor([[1, 3, 1]])
    rows = torch.sparse_coo_tensor(ids, torch.ones(3, 2), (5, 2), check_invariants=True)
    assert fast_vocabulary.BothEnds.backward(None, rows, table) is table
    assert table[:, 0].tolist() == [0, 2, 0, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_whole_models_gradients_are_pytorchs(dtype):
    torch.manual_seed(123)
    model, ids = GPTModel(TINY).eval(), torch.arange(20).view(2, 10)
    model.out_head.weight = model.tok_emb.weight

    def run(way):
        autocast = torch.autocast(
            "cpu", torch.bfloat16, enabled=dtype == torch.bfloat16
        )
        with way(), autocast:
            loss = F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
        loss.backward()
        found = [p.grad for p in model.parameters()]
        model.zero_grad()
        return found

    close = {"rtol": 0.02, "atol": 1e-3} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(run(FastVocabulary), run(nullcontext), **close)


def note_calls(monkeypatch):
    """A list that notes the dtype of the logits of each fast loss."""
    dtypes, usual = [], fast_vocabulary.ChunkedCrossEntropy.apply

    def apply(logits, targets):
        dtypes.append(logits.dtype)
        return usual(logits, targets)

    monkeypatch.setattr(fast_vocabulary.ChunkedCrossEntropy, "apply", apply)
    return dtypes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("is_fast", [True, False])
def test_a_run_trains_with_it_if_its_settings_say_so(
    tmp_path, monkeypatch, one_thread, is_fast, dtype
):
    dtypes = note_calls(monkeypatch)
    settings = replace(SETTINGS, is_vocabulary_fast=is_fast, dtype=dtype)
    tiny_run(RunFolder(tmp_path / "run"), settings)
    assert set(dtypes) == ({getattr(torch, dtype)} if is_fast else set())


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """What is fast is not known yet, and forgotten afterwards."""
    monkeypatch.delenv("LLMS_PLAIN", raising=False)
    monkeypatch.setattr(choice, "CHOICES", tmp_path / "choices.json")
    monkeypatch.setattr(fast_vocabulary, "TRIED_SHAPE", (NUM_TOKENS, VOCAB_SIZE, 6))
    gains_by_fast_vocabulary.cache_clear()
    yield
    gains_by_fast_vocabulary.cache_clear()


def set_seconds(monkeypatch, is_faster):
    """Let FastVocabulary take less time than PyTorch's loss, or more."""
    seconds = {"plain": 2, "FastVocabulary": 1 if is_faster else 3}
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
            fast_vocabulary.ChunkedCrossEntropy,
            "apply",
            lambda logits, _: logits.float().square().mean(),
        )
    assert gains_by_fast_vocabulary(dtype) is (is_faster and is_exact)
    dtypes.clear()
    if is_exact:
        with fast_vocabulary.fast_vocabulary("cpu", dtype):
            F.cross_entropy(*draw(dtype))
        assert bool(dtypes) is is_faster
    with fast_vocabulary.fast_vocabulary("cuda", dtype):
        assert torch.overrides._len_torch_function_stack() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_chosen_wherever_the_caller_stands(monkeypatch, anew, dtype):
    """Without gradients, and where matrices are multiplied in bfloat16."""
    set_seconds(monkeypatch, is_faster=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert gains_by_fast_vocabulary(dtype)
