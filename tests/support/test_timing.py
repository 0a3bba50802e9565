"""A step's time is that of its parts, and what is timed is the real work."""

import itertools

import pytest
import torch

from support.pretraining import memory as preflight
from support.pretraining import timing as step_timer
from support.pretraining.memory import Workload, forecast_training
from tests.support.test_memory import ARCHITECTURES, F32

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def work():
    """A step of a tiny GPT's training: 6 texts of 10 tokens, two blocks."""
    return Workload(ARCHITECTURES["GPT"][1], 6, 10, F32)


def pretend_times(monkeypatch, *seconds):
    """Let what is measured take so long, one after another, instead of being run.

    They are a block's training, AdamW and evaluation, then those of the rest.
    """
    times = iter(seconds)

    def timed(run, device):
        run()
        return next(times)

    monkeypatch.setattr(step_timer, "timed", timed)


def test_seconds_are_those_of_all_blocks_and_the_rest(work, monkeypatch):
    """Two blocks; each part goes through the model, and AdamW comes once."""
    pretend_times(monkeypatch, 1, 10, 100, 1000, 10_000, 100_000)
    found = forecast_training(work)
    assert found.seconds == 2 * (1 + 10) + 1000 + 10_000
    assert found.eval_seconds == 2 * 100 + 100_000


def test_seconds_of_a_batch_in_parts(work, monkeypatch):
    pretend_times(monkeypatch, 1, 10, 100, 1000, 10_000, 100_000)
    found = forecast_training(Workload(work.cfg, 6, 10, F32, num_parts=3))
    assert found.seconds == 2 * (3 * 1 + 10) + 3 * 1000 + 10_000
    assert found.eval_seconds == 3 * (2 * 100 + 100_000)


@pytest.fixture
def passes(monkeypatch):
    """A list that notes of each pass through a block its shape, and if it learns."""
    notes, usual = [], preflight.build_model

    def build_model(cfg):
        model = usual(cfg)

        def note(block, inputs):
            notes.append((tuple(inputs[0].shape), torch.is_grad_enabled()))

        model.trf_blocks[0].register_forward_pre_hook(note)
        return model

    monkeypatch.setattr(preflight, "build_model", build_model)
    return notes


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_what_is_timed_is_the_real_work(work, monkeypatch, passes, is_checkpointed):
    """Checkpointed, a block computes twice on the way there and back."""
    pretend_times(monkeypatch, *range(6))
    work = Workload(work.cfg, 6, 10, F32, num_parts=2, is_checkpointed=is_checkpointed)
    step_timer.measure_seconds(work)
    shape = (3, 10, work.cfg["emb_dim"])
    assert passes == [(shape, True)] * (1 + is_checkpointed) + [(shape, False)]


def test_a_time_is_the_median_of_all_but_the_first_run(monkeypatch):
    moments = itertools.accumulate([0, 90, 0, 3, 0, 50, 0, 4])  # begin, end, begin, ...
    monkeypatch.setattr(step_timer.time, "perf_counter", lambda: next(moments))
    runs = []
    assert step_timer.timed(lambda: runs.append(1), "cpu") == 4
    assert len(runs) == 4


def test_frozen_embeddings_ask_for_gradients_as_blocks_do(work):
    def freeze(model):
        model.requires_grad_(False)
        model.final_norm.requires_grad_(True)
        model.trf_blocks[0].norm1.requires_grad_(True)

    frozen = Workload(work.cfg, 6, 10, F32, prepare=freeze)
    assert forecast_training(frozen).seconds > 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_real_forecast_is_positive(name, device):
    found = forecast_training(Workload(ARCHITECTURES[name][1], 2, 8, F32, device))
    assert found.seconds > 0 and found.eval_seconds > 0


def test_a_forecast_leaves_random_numbers_alone(work):
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    forecast_training(work)
    assert torch.equal(torch.rand(1), expected)
