"""A long run starts small, learns at the right rate, and knows each step's batch."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import default_collate

from ch04.gpt import GPTModel
from ch05.recipe import (
    ClippedGradients,
    StepBatches,
    decayed_groups,
    find_highest_gradient,
    initialize,
    learning_rate_at,
    seed_for,
    set_learning_rate,
    train_model,
)
from ch05.training import add_gradients, calc_loss_batch, training_steps
from tests.conftest import TINY

pytestmark = pytest.mark.usefixtures("one_thread")
DEEP = TINY | {"emb_dim": 64, "n_layers": 8, "qkv_bias": True}


# The start


@pytest.fixture(scope="module")
def started():
    """A model of eight blocks as `initialize` leaves it."""
    torch.manual_seed(123)
    model = GPTModel(DEEP).eval()
    initialize(model)
    return model


def test_the_first_loss_is_that_of_a_blind_guess(started):
    generator = torch.Generator().manual_seed(123)
    ids = torch.randint(DEEP["vocab_size"], (8, 13), generator=generator)
    loss = calc_loss_batch(ids[:, :-1], ids[:, 1:], started, "cpu")
    assert loss.item() == pytest.approx(math.log(DEEP["vocab_size"]), abs=0.05)


def test_weights_have_the_deviation_that_gpt2_began_with(started):
    for name, parameter in started.named_parameters():
        if parameter.dim() == 2:
            is_added = name.endswith(("att.out_proj.weight", "ff.layers.2.weight"))
            deviation = 0.02 / math.sqrt(16) if is_added else 0.02
            if name == "pos_emb.weight":  # so it is in OpenAI's code
                deviation = 0.01
            assert parameter.std().item() == pytest.approx(deviation, rel=0.1), name
            assert abs(parameter.mean()) < 0.1 * deviation, name


def test_all_else_is_neutral(started):
    for name, parameter in started.named_parameters():
        if parameter.dim() == 1:
            neutral = 1.0 if name.endswith("scale") else 0.0
            assert parameter.eq(neutral).all(), name


def test_the_output_layer_is_the_token_embedding(started):
    assert started.out_head.weight is started.tok_emb.weight
    names = [name for name, _ in started.named_parameters()]
    assert "tok_emb.weight" in names and "out_head.weight" not in names


def test_the_start_follows_from_the_seed():
    weights = []
    for seed in (1, 1, 2):
        model = GPTModel(TINY)
        torch.manual_seed(seed)
        initialize(model)
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# The learning rate


def test_learning_rate_rises_and_falls():
    rates = [learning_rate_at(step, 100, 2.0) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10] == 2.0
    assert rates[50] == pytest.approx(1 + math.cos(math.pi * 40 / 89))
    assert rates[99] == 0.0
    assert sorted(rates[10:], reverse=True) == rates[10:]


@pytest.mark.parametrize("warmup_share", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 9, 10, 57])
def test_the_last_step_has_the_least_rate_unless_the_warm_up_takes_all(
    num_steps, warmup_share
):
    rates = [
        learning_rate_at(step, num_steps, 1e-3, warmup_share, min_lr=1e-5)
        for step in range(num_steps)
    ]
    num_warmup = math.ceil(warmup_share * num_steps)
    assert rates[-1] == (1e-3 if num_warmup == num_steps else 1e-5)
    assert all(1e-5 <= rate <= 1e-3 for rate in rates[num_warmup:])
    rising = [1e-3 * (step + 1) / num_warmup for step in range(num_warmup)]
    assert rates[:num_warmup] == rising
    falling = rates[max(0, num_warmup - 1) :]
    assert falling == sorted(falling, reverse=True)


def test_learning_rate_falls_halfway_to_its_least():
    rates = [learning_rate_at(step, 101, 2.0, min_lr=0.5) for step in range(101)]
    assert rates[:12] == [learning_rate_at(step, 101, 2.0) for step in range(12)]
    assert rates[11] == 2.0 and (rates[55] + rates[56]) / 2 == pytest.approx(1.25)


def test_without_a_warm_up_the_first_rate_is_the_peak():
    assert learning_rate_at(0, 100, 2.0, warmup_share=0.0) == 2.0


def test_the_rate_is_set_for_all_weights():
    groups = [{"params": [torch.zeros(1)], "lr": lr} for lr in (1.0, 2.0)]
    optimizer = torch.optim.SGD(groups)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


# Weight decay


def test_matrices_decay_and_all_else_does_not(started):
    """Embeddings are matrices; a tied one is there once, a frozen one not at all."""
    decayed, kept = decayed_groups(started, 0.3)
    assert decayed["weight_decay"] == 0.3 and kept["weight_decay"] == 0.0
    names = {id(parameter): name for name, parameter in started.named_parameters()}
    named = [[names[id(p)] for p in group["params"]] for group in (decayed, kept)]
    assert sorted(sum(named, [])) == sorted(names.values())
    assert all(name.endswith("weight") for name in named[0])
    assert all(name.endswith(("bias", "scale", "shift")) for name in named[1])
    started.pos_emb.weight.requires_grad_(False)
    assert started.pos_emb.weight not in set(decayed_groups(started, 0.3)[0]["params"])
    started.pos_emb.weight.requires_grad_(True)


def test_without_gradients_only_matrices_shrink(started):
    model = copy.deepcopy(started)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    torch.optim.AdamW(decayed_groups(model, 0.5), lr=0.1).step()
    for name, parameter in model.named_parameters():
        expected = 0.95 if parameter.dim() == 2 else 1.0
        assert parameter.eq(torch.tensor(expected)).all(), name


# The order


def test_seeds_of_near_numbers_are_not_near():
    seeds = [seed_for(seed, step) for seed in range(20) for step in range(20)]
    seeds += [seed_for(1, 2, 30), seed_for(12, 30)]
    assert len({*seeds}) == len(seeds) and max(seeds) < 2**63
    gaps = [b - a for a, b in zip(sorted(seeds), sorted(seeds)[1:])]
    assert min(gaps) > 2**40
    assert seed_for(3, 4) == seed_for(3, 4)


def numbered(num_windows):
    """A data set whose windows are their own numbers."""
    return [(torch.tensor([i]), torch.tensor([i, i])) for i in range(num_windows)]


sizes = st.integers(1, 12).flatmap(
    lambda batch: st.tuples(st.just(batch), st.integers(batch, 40))
)


@settings(max_examples=50)
@given(sizes, st.integers(0, 2**40))
def test_a_pass_takes_each_window_once_and_drops_what_is_left_over(sizes, seed):
    batch_size, num_windows = sizes
    in_a_pass = num_windows // batch_size
    batches = StepBatches(range(num_windows), batch_size, 3 * in_a_pass, seed)
    for epoch in range(3):
        steps = range(epoch * in_a_pass, (epoch + 1) * in_a_pass)
        taken = [i for step in steps for i in batches.indices(step).tolist()]
        assert len(taken) == len({*taken}) == in_a_pass * batch_size
        assert {*taken} <= {*range(num_windows)}


@settings(max_examples=50)
@given(sizes, st.integers(0, 50), st.integers(0, 50))
def test_a_batch_depends_on_seed_and_step_alone(sizes, start, num_more):
    """Not on where the run began, nor on what was asked for before."""
    batch_size, num_windows = sizes
    num_steps, data = start + num_more, numbered(num_windows)
    late = StepBatches(data, batch_size, num_steps, seed=5, start=start)
    assert len(late) == num_more
    asked = StepBatches(data, batch_size, num_steps, seed=5)
    for step, (input_ids, target_ids) in enumerate(late, start):
        asked.indices((7 * step) % (num_steps + 1))
        expected = asked.indices(step)
        assert input_ids.tolist() == [[i] for i in expected.tolist()]
        assert target_ids.tolist() == [[i, i] for i in expected.tolist()]
    assert num_more == 0 or step == num_steps - 1


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 9))
def test_the_shares_of_all_processes_are_the_batch(world_size, share, extra):
    batch_size = world_size * share
    data, num_steps = numbered(batch_size + extra), 5
    whole = StepBatches(data, batch_size, num_steps)
    shares = [
        StepBatches(data, batch_size, num_steps, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for (expected, _), *parts in zip(whole, *shares):
        assert [len(ids) for ids, _ in parts] == [share] * world_size
        assert torch.equal(torch.cat([ids for ids, _ in parts]), expected)


def test_each_pass_and_each_seed_has_an_order_of_its_own():
    def passes(seed):
        batches = StepBatches(range(40), 40, num_steps=4, seed=seed)
        return [tuple(batches.indices(step).tolist()) for step in range(4)]

    orders = {*passes(seed=1), *passes(seed=2)}
    assert len(orders) == 8 and tuple(range(40)) not in orders
    assert passes(seed=1) == passes(seed=1)


def test_dropout_draws_the_same_wherever_the_run_began():
    def draws(start, rank=0):
        batches = StepBatches(numbered(8), 4, 6, start=start, rank=rank, world_size=2)
        return [torch.rand(1).item() for _ in batches]

    torch.manual_seed(1)
    expected = draws(start=0)
    torch.manual_seed(2)
    assert draws(start=4) == expected[4:]
    both = expected + draws(start=0, rank=1)
    assert len({*both}) == len(both)  # no two steps or processes have one mask


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="3 processes cannot share batches of 8"):
        StepBatches(numbered(9), 8, num_steps=1, world_size=3)


def test_a_text_shorter_than_a_batch_is_refused():
    reason = "the text has 7 windows, fewer than batch_size 8: give more text"
    with pytest.raises(ValueError, match=reason):
        StepBatches(numbered(7), 8, num_steps=1)


# The gradients


@pytest.fixture
def model(tiny_config):
    """A tiny GPT without dropout, in float64."""
    torch.manual_seed(123)
    model = GPTModel(tiny_config | {"drop_rate": 0.0}).double()
    initialize(model)
    return model


@pytest.fixture
def batch():
    """Six rows of ids and targets: (6, 9) each."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(TINY["vocab_size"], (6, 10), generator=generator)
    return ids[:, :-1], ids[:, 1:]


def gradient_of(model, batch, calc=add_gradients):
    """A batch's whole gradient as one vector."""
    model.zero_grad()
    calc(*batch, model, "cpu")
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("num_parts", [1, 2, 3, 6])
def test_parts_give_the_whole_batchs_gradient(model, batch, num_parts):
    expected, rows = gradient_of(model, batch), []
    model.tok_emb.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    in_parts = ClippedGradients(num_parts, max_norm=torch.inf)
    found = gradient_of(model, batch, in_parts)
    assert rows == [6 // num_parts] * num_parts
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    loss = calc_loss_batch(*batch, model, "cpu").item()
    assert in_parts.loss == pytest.approx(loss, rel=1e-12)
    assert in_parts.norm == pytest.approx(expected.norm().item(), rel=1e-9)


def test_a_long_gradient_is_cut_and_keeps_its_direction(model, batch):
    expected = gradient_of(model, batch)
    cut = ClippedGradients(max_norm=0.1)
    found = gradient_of(model, batch, cut)
    assert found.norm().item() == pytest.approx(0.1, rel=1e-4)
    torch.testing.assert_close(
        found / found.norm(), expected / expected.norm(), rtol=1e-6, atol=1e-9
    )
    assert cut.norm == pytest.approx(expected.norm().item())  # before it was cut


def test_a_short_gradient_stays_as_it_is(model, batch):
    expected = gradient_of(model, batch)
    assert torch.equal(
        gradient_of(model, batch, ClippedGradients(max_norm=9)), expected
    )


def test_bfloat16_stays_near(model, batch):
    expected = gradient_of(model.float(), batch)
    found = gradient_of(model, batch, ClippedGradients(2, 9, torch.bfloat16))
    assert found.dtype == torch.float32
    assert 0 < (found - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stops_before_a_weight_has_changed(model, batch, bad):
    with torch.no_grad():
        model.pos_emb.weight[0, 0] = bad
    before = torch.cat([p.detach().clone().flatten() for p in model.parameters()])
    optimizer = torch.optim.AdamW(model.parameters())
    gradients = ClippedGradients()
    steps = training_steps(
        model, [batch], optimizer, "cpu", num_epochs=1, add_gradients=gradients
    )
    reason = "is nan and the norm of the gradient is nan; both must be finite"
    with pytest.raises(FloatingPointError, match=reason):
        list(steps)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.equal(after.nan_to_num(), before.nan_to_num())


def test_a_gradient_that_is_not_finite_counts_though_the_loss_is(model, batch):
    model.final_norm.scale.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(
        FloatingPointError, match=r"is 4\.\d+ and the norm .* (inf|nan); both"
    ):
        ClippedGradients()(*batch, model, "cpu")


def test_a_batch_without_equal_parts_is_refused(model, batch):
    with pytest.raises(
        ValueError, match="a batch of 6 cannot be split into 4 equal parts"
    ):
        ClippedGradients(num_parts=4)(*batch, model, "cpu")


def test_it_trains(model, batch):
    """Fed by StepBatches, clipped and in parts, the loop learns a batch by heart."""
    rows = list(zip(*batch))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    gradients = ClippedGradients(num_parts=2)
    batches = StepBatches(rows, batch_size=4, num_steps=60)
    list(training_steps(model, batches, optimizer, "cpu", 1, add_gradients=gradients))
    last = calc_loss_batch(*default_collate(rows), model, "cpu")
    assert last < 0.2 * math.log(TINY["vocab_size"])


# The book's loop for long runs


class Letters:
    """A tokenizer of capital letters: their codes are in the tiny vocabulary."""

    def encode(self, text, allowed_special=()):
        return [ord(letter) for letter in text]

    def decode(self, ids):
        return "".join(map(chr, ids))


def batches_of(num_batches, seed):
    """Batches of two rows of eight tokens."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(101, (num_batches, 2, 9), generator=generator)
    return [(batch[:, :-1], batch[:, 1:]) for batch in rows]


def books_rates(num_steps, warmup_steps, initial_lr, peak_lr, min_lr):
    """From initial_lr in equal steps to the peak, then down along half a cosine."""
    rising = [
        initial_lr + step * (peak_lr - initial_lr) / warmup_steps
        for step in range(warmup_steps)
    ]
    num_decay = num_steps - warmup_steps
    cosines = [math.cos(math.pi * step / num_decay) for step in range(num_decay)]
    return rising + [min_lr + (peak_lr - min_lr) * (1 + c) / 2 for c in cosines]


def trained(lr, warmup_steps, **settings):
    """A tiny model and what `train_model`, called as in the book, returns for it."""
    torch.manual_seed(123)
    model = GPTModel(TINY | {"drop_rate": 0.0})
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)
    loaders = batches_of(6, seed=1), batches_of(2, seed=2)
    return model, train_model(
        model,
        *loaders,
        optimizer,
        torch.device("cpu"),
        n_epochs=2,
        eval_freq=5,
        eval_iter=1,
        start_context="HIGH WATER",
        tokenizer=Letters(),
        warmup_steps=warmup_steps,
        **settings,
    )


@pytest.mark.parametrize(
    "settings", [{}, {"initial_lr": 1e-3, "min_lr": 1e-4}, {"orig_book_version": True}]
)
@pytest.mark.parametrize("warmup_steps", [0, 1, 4, 11, 12])
def test_the_books_loop_has_the_books_rates(warmup_steps, settings, capsys):
    _, (train_losses, val_losses, tokens_seen, lrs) = trained(
        2e-2, warmup_steps, **settings
    )
    asked = {"initial_lr": 3e-5, "min_lr": 1e-6} | settings
    asked.pop("orig_book_version", None)
    assert lrs == pytest.approx(books_rates(12, warmup_steps, peak_lr=2e-2, **asked))
    assert tokens_seen == [16, 96, 176]
    assert len(train_losses) == len(val_losses) == 3
    said = capsys.readouterr().out
    assert said.count("HIGH WATER") == 2 and f"Val loss {val_losses[1]:.3f}" in said


@pytest.mark.parametrize("orig_book_version", [False, True])
def test_the_books_loop_clips_after_the_warm_up(monkeypatch, orig_book_version):
    """From the first step after it; in the book's first version, from the second."""
    found, usual = [], torch.nn.utils.clip_grad_norm_

    def record(parameters, max_norm):
        found.append(max_norm)
        return usual(parameters, max_norm)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", record)
    trained(1e-3, warmup_steps=4, orig_book_version=orig_book_version)
    num_unclipped = 4 + orig_book_version
    assert found == num_unclipped * [math.inf] + (12 - num_unclipped) * [1.0]


def test_the_books_loop_by_hand():
    """The same weights as from its lines: a rate, a gradient, clipping, a step."""
    found, (_, _, _, lrs) = trained(1e-2, warmup_steps=3)
    torch.manual_seed(123)
    model = GPTModel(TINY | {"drop_rate": 0.0})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    for step, batch in enumerate(2 * batches_of(6, seed=1)):
        optimizer.param_groups[0]["lr"] = lrs[step]
        optimizer.zero_grad()
        calc_loss_batch(*batch, model, "cpu").backward()
        if step >= 3:
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
    for name, parameter in found.named_parameters():
        torch.testing.assert_close(parameter, model.get_parameter(name))


def test_the_highest_gradient_is_found(tiny_model, token_ids):
    """Not the largest in size: a number below 0 is never the highest."""
    assert find_highest_gradient(tiny_model) is None
    for parameter in tiny_model.parameters():
        parameter.grad = torch.full_like(parameter, -2.0)
    tiny_model.pos_emb.weight.grad = None
    tiny_model.final_norm.shift.grad[3] = 0.25
    tiny_model.final_norm.scale.grad[0] = -9.0
    assert find_highest_gradient(tiny_model).item() == 0.25
