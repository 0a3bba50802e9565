"""Savings of memory change what is kept, and nothing of the gradients."""

import pytest
import torch
from torch import nn

from ch05.recipe import learning_rate_at
from ch05.training import add_gradients, calc_loss_loader
from ch07.finetuning import (
    add_answer_gradients,
    calc_answer_loss,
    calc_shared_prefix_loss,
    checkpoint_blocks,
    count_shared_prefix,
    finetune,
    halve_frozen,
    only_at_targets,
)
from ch07.lora import adapter_parameters, replace_linear_with_lora
from support.device.device import autocast
from support.pretraining.memory import kept_bytes
from tests.lessons.test_kv_cache import MODELS

pytestmark = pytest.mark.usefixtures("one_thread")
CLOSE = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.fixture(params=MODELS)
def model(request):
    """A tiny model of each architecture, without dropout."""
    torch.manual_seed(123)
    model = MODELS[request.param]()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.fixture
def batch():
    """Six rows of ids and targets; of two rows none counts."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randint(101, (6, 9), generator=generator)
    targets = inputs.roll(-1, dims=1)
    targets[torch.rand(6, 9, generator=generator) < 0.6] = -100
    targets[[1, 4]] = -100
    return inputs, targets


def others(batch):
    """A batch of other ids, with targets at other places."""
    inputs, targets = (ids.flip(0, 1) for ids in batch)
    return (inputs + 1) % 101, targets


def cut(batch, num_rows):
    """A batch as a loader of smaller ones."""
    return list(zip(*(ids.split(num_rows) for ids in batch)))


def gradients(model, batch, calc=add_gradients, **settings):
    """All gradients of a batch, as clones."""
    model.zero_grad()
    calc(*batch, model, "cpu", **settings)
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def assert_same(found, expected, tolerance):
    """All tensors agree within a share of the expected one's largest value.

    Keys' biases have gradients of 0 but for rounding: those count by all the others.
    """
    assert len(found) == len(expected) > 0
    least = 1e-3 * max(theirs.abs().max() for theirs in expected)
    for ours, theirs in zip(found, expected):
        scale = max(theirs.abs().max(), least)
        assert (ours - theirs).abs().max() <= tolerance * scale


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("num_parts", [1, 2, 3, 6])
def test_parts_and_selected_logits_give_the_plain_gradients(
    model, batch, dtype, num_parts
):
    """Though two parts of six have no target at all."""
    model.to(dtype)
    expected = gradients(model, batch)
    found = gradients(model, batch, add_answer_gradients, num_parts=num_parts)
    assert_same(found, expected, CLOSE[dtype])


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("num_shared", [0, 1, 4])
def test_a_start_that_rows_share_changes_no_gradient(model, batch, dtype, num_shared):
    """Of the start's gradients too: every row adds its share to them."""
    inputs, targets = batch
    inputs[:, :num_shared] = inputs[0, :num_shared]
    inputs[0, num_shared] = inputs[1, num_shared] + 1  # here they part
    targets[:, :num_shared] = -100
    assert count_shared_prefix(inputs, targets) == num_shared
    model.to(dtype)
    expected = gradients(model, batch)
    found = gradients(
        model, batch, add_answer_gradients, calc_loss=calc_shared_prefix_loss
    )
    assert_same(found, expected, CLOSE[dtype])


def test_a_shared_start_ends_before_the_first_target(batch):
    inputs, targets = batch
    inputs[:] = inputs[0]
    targets[:] = -100
    targets[2, 5] = 7
    assert count_shared_prefix(inputs, targets) == 5
    assert count_shared_prefix(inputs[:1], targets[:1]) == 9


def test_what_rows_share_is_computed_once(model, batch):
    inputs, targets = batch
    inputs[:, :5] = inputs[0, :5]
    targets[:, :5] = -100
    seen = []
    count = lambda module, args: seen.append(args[0].shape[:2].numel())  # noqa: E731
    model.trf_blocks[0].ff.register_forward_pre_hook(count)
    calc_shared_prefix_loss(inputs, targets, model, "cpu")
    assert seen == [5, 6 * (9 - 5)]


@pytest.mark.parametrize("calc_loss", [calc_answer_loss, calc_shared_prefix_loss])
def test_the_loss_of_answers_is_the_plain_loss(model, batch, calc_loss):
    loader = [(batch[0][:4], batch[1][:4]), (batch[0][4:], batch[1][4:])]
    with torch.no_grad():
        expected = calc_loss_loader(loader, model, "cpu")
        found = calc_loss_loader(loader, model, "cpu", calc_loss=calc_loss)
    assert found == pytest.approx(expected, rel=1e-5)


def test_gradients_are_added_to_those_there(model, batch):
    once = gradients(model, batch, add_answer_gradients)
    add_answer_gradients(*batch, model, "cpu")
    assert_same([p.grad for p in model.parameters()], [2 * g for g in once], 1e-6)


def test_logits_are_computed_only_where_there_is_a_target(model, batch):
    inputs, targets = batch
    everywhere = model(inputs)
    with only_at_targets(model, targets):
        selected = model(inputs)
    assert selected.shape == ((targets != -100).sum(), 101)
    torch.testing.assert_close(selected, everywhere[targets != -100])
    assert model(inputs).shape == everywhere.shape  # the hook is gone


def test_the_hook_goes_even_after_an_error(model, batch):
    stopped = pytest.raises(RuntimeError, match="on the way")
    with stopped, only_at_targets(model, batch[1]):
        raise RuntimeError("on the way")
    assert model(batch[0]).shape == (6, 9, 101)


def test_checkpointed_blocks_keep_less_and_give_the_same(model, batch):
    expected = gradients(model, batch)
    logits, plain = model(batch[0]), kept_bytes(model, batch[0], torch.float32)
    checkpoint_blocks(model)
    assert torch.equal(model(batch[0]), logits)
    assert_same(gradients(model, batch), expected, 1e-6)
    assert kept_bytes(model, batch[0], torch.float32) < 0.6 * plain


def test_checkpointing_draws_the_same_dropout_again(batch):
    torch.manual_seed(123)
    model = MODELS["GPT"]()
    torch.manual_seed(5)
    expected = gradients(model, batch)
    checkpoint_blocks(model)
    torch.manual_seed(5)
    assert_same(gradients(model, batch), expected, 1e-6)


def test_frozen_parameters_are_halved_and_gradients_stay_near(model, batch):
    model.requires_grad_(False)
    replace_linear_with_lora(model, rank=3, alpha=6)
    for parameter in adapter_parameters(model).values():
        nn.init.normal_(parameter, std=0.1)
    expected = gradients(model, batch)
    halve_frozen(model)
    for parameter in model.parameters():
        wanted = torch.float32 if parameter.requires_grad else torch.bfloat16
        assert parameter.dtype == wanted
    found = gradients(model, batch, add_answer_gradients, dtype=torch.bfloat16)
    assert found[0].dtype == torch.float32
    assert_same(found, expected, 0.1)


def test_finetune_reports_and_lowers_the_loss(model, batch):
    loader, val_loader = cut(batch, 3), [others(batch)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before = calc_loss_loader(loader, model, "cpu")
    losses = finetune(model, loader, val_loader, optimizer, "cpu", 15, eval_freq=20)
    assert losses[2] == [20, 30]
    assert [len(part) for part in losses] == [2, 2, 2]
    assert calc_loss_loader(loader, model, "cpu") < before / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_are_of_their_own_loaders(model, batch, capsys, dtype):
    """Without learning they stay; as many training batches count as there are others.

    Six steps; an evaluation on each fourth, and after the last one.
    """
    loader, val_loader = cut(batch, 2), cut(others(batch), 3)
    assert (len(loader), len(val_loader)) == (3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    run = model, loader, val_loader, optimizer, "cpu"
    found = finetune(*run, num_epochs=2, eval_freq=4, dtype=dtype)
    with torch.no_grad(), autocast("cpu", dtype):
        train_loss = calc_loss_loader(loader, model, "cpu", 2)
        val_loss = calc_loss_loader(val_loader, model, "cpu")
    assert train_loss != pytest.approx(val_loss, abs=1e-3)
    assert found[0] == pytest.approx([train_loss] * 2, rel=1e-2)
    assert found[1] == pytest.approx([val_loss] * 2, rel=1e-2)
    assert found[2] == [4, 6]
    shown = f"Train loss {train_loss:.3f}, Val loss {val_loss:.3f}"
    assert capsys.readouterr().out.splitlines() == [
        f"Step {step:4}: {shown}" for step in (4, 6)
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_that_is_asked_for_is_lowered_and_reported(model, batch, dtype):
    """In parts of two rows with gradients, whole without, and in this dtype."""
    calls = []

    def calc_loss(inputs, *rest):
        is_cast = torch.is_autocast_enabled("cpu")
        calls.append((len(inputs), torch.is_grad_enabled(), is_cast))
        return 2 * calc_answer_loss(inputs, *rest)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    run = model, [batch], [others(batch)], optimizer, "cpu", 1, 1
    losses = finetune(*run, dtype=dtype, calc_loss=calc_loss, num_parts=3)
    is_cast = dtype == torch.bfloat16
    assert calls == 3 * [(2, True, is_cast)] + 2 * [(6, False, is_cast)]
    plain = finetune(*run, dtype=dtype)
    for found, loss in zip(losses[:2], plain[:2]):
        assert found == pytest.approx([2 * loss[0]])


@pytest.mark.parametrize("num_epochs", [1, 7])
def test_each_step_of_finetuning_has_its_learning_rate(model, batch, num_epochs):
    optimizer, rates = torch.optim.SGD(model.parameters(), lr=1e-2), []
    optimizer.register_step_pre_hook(
        lambda *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    run = model, [batch], [others(batch)], optimizer, "cpu", num_epochs
    assert finetune(*run, eval_freq=1)[2] == [*range(1, num_epochs + 1)]
    expected = [learning_rate_at(step, num_epochs, 1e-2) for step in range(num_epochs)]
    assert rates == expected


def test_finetune_stops_at_a_loss_that_is_not_finite(model, batch):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e30)
    with pytest.raises(FloatingPointError, match="training failed"):
        finetune(model, [batch], [others(batch)], optimizer, "cpu", 4, eval_freq=1)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_parts": 3},
        {"calc_loss": calc_shared_prefix_loss},
        {"dtype": torch.bfloat16},
    ],
    ids=["parts", "shared", "bfloat16"],
)
def test_finetune_by_other_ways_ends_near(batch, settings):
    """Near and not far: weights cast once and never again would not learn."""

    def last_loss(**settings):
        torch.manual_seed(123)
        model = MODELS["Llama"]()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        run = (model, [batch], [others(batch)], optimizer, "cpu", 10)
        return finetune(*run, eval_freq=10, **settings)[0][0]

    assert last_loss(**settings) == pytest.approx(last_loss(), rel=0.02)
