"""The forecast counts what is there, and says what fits."""

from types import SimpleNamespace

import psutil
import pytest
import torch
from torch import nn

from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.llama import SMOLLM2_CONFIG_135M, LlamaModel
from ch05.openai_weights import MODEL_CONFIGS
from ch07.finetuning import checkpoint_blocks
from ch07.preflight import (
    PLANS,
    Plan,
    activation_bytes,
    forecast,
    kept_bytes,
    preflight,
    size_in_bytes,
)
from tests.conftest import TINY
from tests.test_kv_cache import LLAMA

pytestmark = pytest.mark.usefixtures("one_thread")
F32, BF16 = torch.float32, torch.bfloat16
# vocab_size, emb_dim and hidden_dim differ, so that no two matrices have one size
GPT_CFG = TINY | {"qkv_bias": True, "drop_rate": 0.0}
LLAMA_CFG = LLAMA | {"rope_base": 100.0}
ARCHITECTURES = {"GPT": (GPTModel, GPT_CFG), "Llama": (LlamaModel, LLAMA_CFG)}
FULL, FULL_CHECKPOINTED, LORA, LORA_CHECKPOINTED, LORA_HALVED = PLANS
MEDIUM = GPT_CONFIG_124M | {"qkv_bias": True, "drop_rate": 0.0}
MEDIUM |= MODEL_CONFIGS["gpt2-medium (355M)"]


@pytest.fixture(params=ARCHITECTURES)
def architecture(request):
    """A class of models, and the config of a tiny one."""
    return ARCHITECTURES[request.param]


def tied(architecture):
    """The tiny model, its output layer the token embedding."""
    build, cfg = architecture
    model = build(cfg)
    model.out_head.weight = model.tok_emb.weight
    return model


def numbers(model):
    """How many numbers the parameters of a model are, each counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


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
    found = activation_bytes(cfg, FULL, 3, 10, F32)
    assert found == pytest.approx(measured(build(cfg), cfg, 3, 10), rel=0.1)
    assert found == 5 * activation_bytes(cfg | {"n_layers": 1}, FULL, 3, 10, F32)


def test_checkpointed_blocks_keep_their_inputs_and_one_block_more(architecture):
    _, cfg = architecture
    cfg = cfg | {"n_layers": 5}
    one = activation_bytes(cfg | {"n_layers": 1}, FULL, 3, 10, F32)
    found = activation_bytes(cfg, FULL_CHECKPOINTED, 3, 10, F32)
    assert found == one + 5 * 3 * 10 * cfg["emb_dim"] * 4


@pytest.mark.parametrize("plan", [FULL, FULL_CHECKPOINTED], ids=lambda p: p.title)
def test_forecast_of_training_all_parameters(architecture, plan):
    size = 4 * numbers(tied(architecture))
    found = forecast(architecture[1], plan, 3, 10, num_targets=7, dtype=F32)
    assert found["weights"] == found["gradients"] == size
    assert found["AdamW"] == 2 * size
    assert found["logits"] == 3 * 7 * 101 * 4
    assert found["blocks"] == activation_bytes(architecture[1], plan, 3, 10, F32)


def lora_numbers(model, rank):
    """rank * (in + out) for every linear layer."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return sum(rank * (m.in_features + m.out_features) for m in layers)


@pytest.mark.parametrize("rank", [1, 5])
@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_forecast_of_lora(architecture, rank, is_checkpointed):
    model = tied(architecture)
    learning = 4 * lora_numbers(model, rank)
    plan = Plan("LoRA", rank, is_checkpointed)
    found = forecast(architecture[1], plan, 3, 10, num_targets=7, dtype=F32)
    assert found["weights"] == 4 * numbers(model) + learning
    assert (found["gradients"], found["AdamW"]) == (learning, 2 * learning)


def test_forecast_of_a_halved_base(architecture):
    model = tied(architecture)
    learning = 4 * lora_numbers(model, LORA_HALVED.rank)
    found = forecast(architecture[1], LORA_HALVED, 3, 10, num_targets=7, dtype=BF16)
    assert found["weights"] == 2 * numbers(model) + learning
    assert (found["gradients"], found["AdamW"]) == (learning, 2 * learning)


LARGE = {
    "GPT-2 355M": (MEDIUM, 354_823_168),
    "SmolLM2": (SMOLLM2_CONFIG_135M, 134_515_008),
}


@pytest.mark.parametrize("name", LARGE)
def test_real_models_have_their_published_sizes(name):
    """And no number of theirs is made: 355M are forecast in no time and no memory."""
    cfg, num_parameters = LARGE[name]
    before = psutil.Process().memory_info().rss
    found = forecast(cfg, FULL_CHECKPOINTED, 1, 8, num_targets=5, dtype=BF16)
    assert found["weights"] == 4 * num_parameters
    assert psutil.Process().memory_info().rss - before < 0.5 * 4 * num_parameters


def test_lora_of_355m_by_formula():
    """24 blocks of four square layers and two of a fourfold width; the output layer."""
    found = forecast(MEDIUM, LORA_CHECKPOINTED, 1, 8, num_targets=5, dtype=F32)
    blocks = 24 * 16 * (4 * 2 * 1024 + 2 * 5 * 1024)
    assert found["gradients"] == 4 * (blocks + 16 * (1024 + 50257))


def test_each_plan_takes_less_than_the_one_before(architecture):
    _, cfg = architecture
    cfg = cfg | {"n_layers": 6, "emb_dim": 48 * 4, "context_length": 64}
    cfg |= {"hidden_dim": 512} if "hidden_dim" in cfg else {}
    totals = [sum(forecast(cfg, p, 2, 32, 20, BF16).values()) for p in PLANS]
    assert totals == sorted(totals, reverse=True)
    assert len({*totals}) == len(PLANS)


def pretend(monkeypatch, process, free):
    """Let this process hold, and this machine have free, so many bytes."""
    memory = SimpleNamespace(rss=process)
    fake = SimpleNamespace(memory_info=lambda: memory)
    monkeypatch.setattr(psutil, "Process", lambda: fake)
    available = SimpleNamespace(available=free)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)


COLUMNS = ["weights", "gradients", "AdamW", "blocks", "logits", "in all", "fits"]


def test_the_table_has_a_row_a_plan_and_adds_up(architecture, monkeypatch):
    pretend(monkeypatch, process=2 * 10**9, free=10**12)
    _, cfg = architecture
    table = preflight(cfg, 3, 10, 7, BF16)
    assert list(table.columns) == COLUMNS
    assert list(table.index) == [plan.title for plan in PLANS]
    for plan in PLANS:
        parts = forecast(cfg, plan, 3, 10, 7, BF16)
        row = table.loc[plan.title]
        assert {name: row[name] * 1e9 for name in parts} == pytest.approx(parts)
        assert row["in all"] == pytest.approx(2 + sum(parts.values()) / 1e9)


def test_what_fits_is_what_takes_less_than_is_free(monkeypatch):
    """With room for the last three plans alone, as on a small computer."""
    totals = [sum(forecast(MEDIUM, p, 1, 16, 9, BF16).values()) for p in PLANS]
    assert totals[1] > 2 * totals[2]
    pretend(monkeypatch, process=10**12, free=(totals[1] + totals[2]) // 2)
    table = preflight(MEDIUM, 1, 16, 9, BF16)
    assert table["fits"].tolist() == [False, False, True, True, True]


@pytest.mark.parametrize(("free", "fits"), [(0, False), (10**15, True)])
def test_nothing_fits_into_nothing_and_all_into_plenty(monkeypatch, free, fits):
    pretend(monkeypatch, process=0, free=free)
    assert preflight(GPT_CFG, 3, 10, 7, BF16)["fits"].tolist() == [fits] * len(PLANS)


def test_this_machine_is_asked():
    """The process and the memory are the real ones: the sums are above them."""
    table = preflight(GPT_CFG, 3, 10, 7, BF16)
    held = psutil.Process().memory_info().rss / 1e9
    assert (table["in all"] > 0.5 * held).all()
    assert table["fits"].all()  # 16 numbers wide


def test_the_default_dtype_makes_a_table(architecture):
    """float32, which machines without bfloat16 compute in."""
    assert len(preflight(architecture[1], 3, 10, 7)) == len(PLANS)
