"""A forecast counts the memory that a step takes and measures its time."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.llama import SMOLLM2_CONFIG_135M, LlamaModel
from ch05.openai_weights import MODEL_CONFIGS
from ch07.finetuning import checkpoint_blocks
from support.device.fast_vocabulary import FastVocabulary
from support.pretraining import memory
from support.pretraining.memory import (
    OVERHEAD,
    Forecast,
    Workload,
    activation_bytes,
    count_bytes,
    forecast_training,
    free_bytes,
    kept_bytes,
    measure_seconds,
    needed_bytes,
)
from support.weights.saving import size_in_bytes
from tests.conftest import TINY
from tests.lessons.test_kv_cache import LLAMA

pytestmark = pytest.mark.usefixtures("one_thread")
F32, BF16 = torch.float32, torch.bfloat16
# vocab_size, emb_dim and hidden_dim differ, so that no two matrices have one size
ARCHITECTURES = {
    "GPT": (GPTModel, TINY | {"qkv_bias": True, "drop_rate": 0.0}),
    "Llama": (LlamaModel, LLAMA | {"rope_base": 100.0}),
}


@pytest.fixture(params=ARCHITECTURES)
def architecture(request):
    """A class of models, and the config of a tiny one."""
    return ARCHITECTURES[request.param]


@pytest.fixture
def work():
    """A step of a tiny GPT's training: 6 texts of 10 tokens."""
    return Workload(ARCHITECTURES["GPT"][1], 6, 10, F32)


def numbers(parameters):
    """How many numbers these parameters are, each counted once."""
    return sum(parameter.numel() for parameter in parameters)


def test_size_in_bytes_by_hand():
    tensors = [
        torch.zeros(3, 5),  # 15 numbers of 4 bytes
        torch.zeros(7, dtype=BF16),  # 7 of 2
        torch.zeros(2, dtype=torch.int64),  # 2 of 8
        torch.zeros(0),
    ]
    assert size_in_bytes(tensors) == 60 + 14 + 16
    assert size_in_bytes(iter(tensors)) == 90
    assert size_in_bytes([]) == 0


def test_size_in_bytes_of_shapes_without_numbers():
    assert size_in_bytes([torch.zeros(10**6, 10**6, device="meta")]) == 4 * 10**12


class HandWorked(nn.Module):
    """Linear, then sigmoid, then a product: what is kept of it can be said by hand."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 32, bias=False)

    def forward(self, x):
        hidden = self.linear(x)  # keeps x, for the gradient of its weight
        gate = torch.sigmoid(hidden)  # keeps what comes out of it
        return hidden * gate  # keeps both factors: one is new, one kept already


def test_kept_bytes_by_hand():
    x, block = torch.randn(5, 8), HandWorked()
    assert kept_bytes(block, x, F32) == 4 * 5 * (8 + 32 + 32)


def test_a_frozen_layer_does_not_keep_its_input():
    x = torch.randn(5, 8, requires_grad=True)
    block = HandWorked().requires_grad_(False)
    assert kept_bytes(block, x, F32) == 4 * 5 * (32 + 32)


def test_nothing_is_kept_where_nothing_learns():
    block = HandWorked().requires_grad_(False)
    assert kept_bytes(block, torch.randn(5, 8), F32) == 0


def test_parameters_are_not_counted_as_kept():
    x, layer = torch.randn(2, 3, requires_grad=True), nn.Linear(3, 500)
    assert kept_bytes(layer, x, F32) == 4 * 2 * 3


def test_a_storage_that_is_kept_twice_is_counted_once():
    class Square(nn.Module):
        def forward(self, x):
            return (x * x).sum() + (x.T * x.T).sum()

    x = torch.randn(5, 8, requires_grad=True)
    assert kept_bytes(Square(), x, F32) == 4 * 5 * 8


def test_bfloat16_keeps_two_bytes_a_number():
    """x as it came in is not needed again, but its cast is, and the weight's."""
    x, block = torch.randn(5, 8), HandWorked()
    expected = 2 * 5 * (8 + 32 + 32)
    assert kept_bytes(block, x, BF16) == expected
    x.requires_grad_()
    assert kept_bytes(block, x, BF16) == expected + 2 * block.linear.weight.numel()


def test_kept_bytes_grow_with_the_rows(architecture):
    """In proportion, but for the angles of the positions: all rows share those."""
    build, cfg = architecture
    block = build(cfg).trf_blocks[0]
    two, six = (torch.randn(b, 9, cfg["emb_dim"], requires_grad=True) for b in (2, 6))
    ratio = kept_bytes(block, six, F32) / kept_bytes(block, two, F32)
    assert 2.8 < ratio <= 3


def test_a_checkpointed_block_keeps_its_input_alone(architecture):
    build, cfg = architecture
    model = build(cfg)
    checkpoint_blocks(model)
    x = torch.randn(2, 9, cfg["emb_dim"], requires_grad=True)
    assert kept_bytes(model.trf_blocks[0], x, F32) == size_in_bytes([x])


def measured(model, cfg, batch_size, num_tokens):
    """Bytes that the blocks of a whole model keep, measured as one chain."""
    x = torch.randn(batch_size, num_tokens, cfg["emb_dim"], requires_grad=True)
    return kept_bytes(model.trf_blocks, x, F32)


def test_one_block_stands_for_all(architecture):
    """A block's output is the next one's input, which one block counts as its own."""
    build, cfg = architecture
    cfg = cfg | {"n_layers": 5}
    found = activation_bytes(Workload(cfg, 3, 10, F32))
    assert found == pytest.approx(measured(build(cfg), cfg, 3, 10), rel=0.1)
    assert found == 5 * activation_bytes(Workload(cfg | {"n_layers": 1}, 3, 10, F32))


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("drop_rate", [0.0, 0.1])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_what_is_counted_by_shapes_is_what_is_computed(
    architecture, dtype, drop_rate, batch_size
):
    build, cfg = architecture
    cfg = cfg | ({"drop_rate": drop_rate} if "drop_rate" in cfg else {})
    x = torch.randn(batch_size, 10, cfg["emb_dim"], requires_grad=True)
    of_one = kept_bytes(build(cfg).trf_blocks[0], x, dtype)
    work = Workload(cfg, batch_size, 10, dtype)
    assert activation_bytes(work) == cfg["n_layers"] * of_one


@pytest.mark.parametrize("n_layers", [1, 2, 7])
def test_blocks_are_counted_by_two_of_them(architecture, n_layers):
    build, cfg = architecture
    cfg = cfg | {"n_layers": n_layers}
    found = count_bytes(Workload(cfg, 3, 10, F32))
    assert found["weights"] == 4 * numbers(build(cfg).parameters())


@pytest.mark.parametrize(
    "change", [{"emb_dim": 10**10}, {"context_length": 10**18}, {"vocab_size": 10**18}]
)
def test_sizes_beyond_all_counting_are_a_sentence(work, change):
    sizes = replace(work, cfg=work.cfg | change)
    reason = "the memory for .* cannot be calculated .*: use a smaller model or less"
    with pytest.raises(ValueError, match=reason):
        forecast_training(sizes)


def test_a_billion_blocks_are_counted_at_once(work):
    many = replace(work, cfg=work.cfg | {"n_layers": 10**9})
    assert count_bytes(many)["blocks"] == 10**9 * activation_bytes(work) / 2


def test_dropout_is_counted(work):
    """Its masks are kept, and attention with it keeps all its weights."""
    dropping = Workload(work.cfg | {"drop_rate": 0.1}, 6, 10, F32)
    assert activation_bytes(dropping) > activation_bytes(work)


def test_checkpointed_blocks_keep_their_inputs_and_one_block_more(architecture):
    _, cfg = architecture
    cfg = cfg | {"n_layers": 5}
    one = activation_bytes(Workload(cfg | {"n_layers": 1}, 3, 10, F32))
    found = activation_bytes(Workload(cfg, 3, 10, F32, is_checkpointed=True))
    assert found == one + 5 * 3 * 10 * cfg["emb_dim"] * 4


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_bytes_of_training_all_parameters(architecture, is_checkpointed):
    build, cfg = architecture
    work = Workload(cfg, 3, 10, F32, is_checkpointed=is_checkpointed)
    size = 4 * numbers(build(cfg).parameters())
    assert count_bytes(work) == {
        "weights": size,
        "gradients": size,
        "AdamW": 2 * size,
        "blocks": activation_bytes(work),
        "logits": 4 * 3 * 10 * 101 * 4,
        "overhead": OVERHEAD,
    }


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_a_fast_vocabulary_keeps_logits_and_their_gradients(work, dtype):
    usual, fast = (
        count_bytes(replace(work, dtype=dtype, is_vocabulary_fast=is_fast))["logits"]
        for is_fast in (False, True)
    )
    num_logits = 6 * 10 * work.cfg["vocab_size"]
    assert usual - fast == (16 - 2 * dtype.itemsize) * num_logits


def test_the_time_is_measured_with_a_fast_vocabulary(work, monkeypatch):
    calls, usual = [], FastVocabulary.__torch_function__

    def note(self, func, *rest):
        calls.append(func)
        return usual(self, func, *rest)

    monkeypatch.setattr(FastVocabulary, "__torch_function__", note)
    measure_seconds(work)
    assert not calls
    measure_seconds(replace(work, is_vocabulary_fast=True))
    assert F.cross_entropy in calls


def test_a_tied_output_layer_is_counted_once(work):
    model = GPTModel(work.cfg)
    model.out_head.weight = model.tok_emb.weight
    tied = count_bytes(Workload(work.cfg, 6, 10, F32, is_tied=True))
    assert tied["weights"] == 4 * numbers(model.parameters())
    assert count_bytes(work)["weights"] == tied["weights"] + 4 * 101 * 16


def test_parts_take_less_for_blocks_and_logits(work):
    """But each part's largest gradient stands beside those that are there already."""
    whole, parts = (
        count_bytes(Workload(work.cfg, 6, 10, F32, num_parts=n)) for n in (1, 3)
    )
    assert 3 * parts["logits"] == whole["logits"]
    assert parts["blocks"] < 0.4 * whole["blocks"]
    assert parts["gradients"] == whole["gradients"] + 4 * 101 * 16


def test_logits_are_counted_at_targets(work):
    few = Workload(work.cfg, 6, 10, F32, num_targets=7)
    assert count_bytes(few)["logits"] == 4 * 7 * 101 * 4
    halves = Workload(work.cfg, 6, 10, F32, num_targets=7, num_parts=2)
    assert count_bytes(halves)["logits"] == 4 * 4 * 101 * 4


@pytest.mark.parametrize(("gradients", "blocks"), [(100, 30), (30, 100)])
def test_gradients_come_as_what_blocks_keep_goes(work, gradients, blocks):
    """Unless a part of the batch has left its gradients when the next one begins."""
    parts = {"weights": 1000, "gradients": gradients, "blocks": blocks}
    assert needed_bytes(work, parts) == 1100
    assert needed_bytes(Workload(work.cfg, 6, 10, F32, num_parts=2), parts) == 1130


def test_a_forecast_needs_what_its_parts_need(work):
    found = forecast_training(work)
    assert found.bytes == count_bytes(work)
    assert found.needed == needed_bytes(work, found.bytes)


def test_bfloat16_needs_a_copy_of_the_output_layer(work):
    in_bf16 = count_bytes(Workload(work.cfg, 6, 10, BF16))
    assert in_bf16["logits"] == count_bytes(work)["logits"] + 2 * 101 * 16
    halved = Workload(work.cfg, 6, 10, BF16, prepare=lambda model: model.to(BF16))
    assert count_bytes(halved)["logits"] == count_bytes(work)["logits"]


MEDIUM = GPT_CONFIG_124M | {"qkv_bias": True, "drop_rate": 0.0}
MEDIUM |= MODEL_CONFIGS["gpt2-medium (355M)"]
LARGE = {
    "GPT-2 355M": (MEDIUM, 354_823_168),
    "SmolLM2": (SMOLLM2_CONFIG_135M, 134_515_008),
}


@pytest.mark.parametrize("name", LARGE)
def test_real_models_have_their_published_sizes(name):
    """And no number of theirs is made: 355M are counted in no time and no memory."""
    cfg, num_parameters = LARGE[name]
    before = psutil.Process().memory_info().rss
    work = Workload(cfg, 1, 8, BF16, is_checkpointed=True, is_tied=True)
    assert count_bytes(work)["weights"] == 4 * num_parameters
    assert psutil.Process().memory_info().rss - before < 0.5 * 4 * num_parameters


def test_minutes_by_hand():
    assert Forecast({}, 0, seconds=3.0).minutes(num_steps=100) == 5.0


def pretend_free(monkeypatch, free):
    """Let this machine have so many bytes free."""
    available = SimpleNamespace(available=free)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)


def test_free_bytes_are_the_systems(monkeypatch):
    pretend_free(monkeypatch, 17)
    assert free_bytes() == free_bytes("mps") == 17


# Time


def pretend_times(monkeypatch, *seconds):
    """Let what is measured take so long, one after another, and run it once only.

    They are a block's passes and its update by AdamW, then those of a model.
    """
    times = iter(seconds)

    def time_call(function, device):
        function()
        return next(times)

    monkeypatch.setattr(memory, "time_call", time_call)


def test_seconds_are_those_of_a_small_model_and_more_blocks(work, monkeypatch):
    """What is measured is a model of one block; five of them have four more."""
    pretend_times(monkeypatch, 1, 10, 100, 1000)
    five = replace(work, cfg=work.cfg | {"n_layers": 5})
    assert forecast_training(five).seconds == 4 * (1 + 10) + 100 + 1000


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_imitated_bfloat16_is_not_timed(work, monkeypatch, dtype, has):
    """On a processor without instructions for it, a step would take minutes."""
    pretend_times(monkeypatch, 1, 1, 1, 1)
    monkeypatch.setattr(memory, "has_bfloat16", lambda device: has)
    found = forecast_training(replace(work, dtype=dtype))
    assert math.isnan(found.seconds) is (dtype == BF16 and not has)
    assert found.needed > 0


def test_seconds_of_a_batch_in_parts(work, monkeypatch):
    pretend_times(monkeypatch, 1, 10, 100, 1000)
    """Each part goes through the model, and AdamW comes once."""
    parts = replace(work, cfg=work.cfg | {"n_layers": 5}, num_parts=3)
    assert forecast_training(parts).seconds == 4 * (3 * 1 + 10) + 3 * 100 + 1000


@pytest.fixture
def passes(monkeypatch):
    """A list that notes of each pass through a block its shape, and if it learns."""
    notes, usual = [], memory.build_model

    def build_model(cfg):
        model = usual(cfg)

        def note(block, inputs):
            notes.append((tuple(inputs[0].shape), torch.is_grad_enabled()))

        model.trf_blocks[0].register_forward_pre_hook(note)
        return model

    monkeypatch.setattr(memory, "build_model", build_model)
    return notes


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_what_is_timed_is_the_real_work(work, monkeypatch, passes, is_checkpointed):
    """A block, which computes twice if it is checkpointed, and a model with it."""
    pretend_times(monkeypatch, *range(4))
    work = replace(work, num_parts=2, is_checkpointed=is_checkpointed)
    memory.measure_seconds(work)
    shape = (3, 10, work.cfg["emb_dim"])
    assert passes == [(shape, True)] * (2 + is_checkpointed)


def test_a_time_is_the_median_of_all_but_the_first_run(monkeypatch):
    moments = itertools.accumulate([0, 90, 0, 3, 0, 50, 0, 4])  # begin, end, begin, ...
    monkeypatch.setattr(memory.time, "perf_counter", lambda: next(moments))
    runs = []
    assert memory.time_call(lambda: runs.append(1), "cpu") == 4
    assert len(runs) == 4


def test_frozen_embeddings_ask_for_gradients_as_blocks_do(work):
    def freeze(model):
        model.requires_grad_(False)
        model.final_norm.requires_grad_(True)
        model.trf_blocks[0].norm1.requires_grad_(True)

    assert forecast_training(replace(work, prepare=freeze)).seconds > 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_real_forecast_is_positive(name, device):
    work = Workload(ARCHITECTURES[name][1], 2, 8, F32, device)
    assert forecast_training(work).seconds > 0


def test_a_forecast_leaves_random_numbers_alone(work):
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    forecast_training(work)
    assert torch.equal(torch.rand(1), expected)
