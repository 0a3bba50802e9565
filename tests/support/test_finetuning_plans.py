"""Plans to fine-tune are forecast as they train; the first that fits is proposed."""

import math
import re
from functools import partial
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest
import torch
from torch import nn

from ch04.gpt import GPTModel
from ch05.llama import LlamaModel
from support.apps.finetuning_plans import (
    PLANS,
    create_workload,
    forecast_plans,
    freeze_and_add_lora,
    propose_plan,
)
from support.device.precision import has_bfloat16
from support.pretraining import memory
from support.pretraining.memory import activation_bytes, count_bytes, needed_bytes
from tests.support.test_memory import ARCHITECTURES, BF16, F32, MEDIUM, numbers

pytestmark = pytest.mark.usefixtures("one_thread")
FULL, FULL_CHECKPOINTED, LORA, LORA_CHECKPOINTED, LORA_HALVED = PLANS.values()
GPT_CFG = ARCHITECTURES["GPT"][1]


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


def lora_numbers(model, rank):
    """rank * (in + out) for every linear layer."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return sum(rank * (m.in_features + m.out_features) for m in layers)


def bytes_of(plan, cfg, dtype=F32, sizes=(3, 10, 7)):
    """What a plan takes for some texts, tokens each, and targets of all of them."""
    return count_bytes(create_workload(plan, cfg, *sizes, dtype))


def needed_by(plan, cfg, dtype=F32, sizes=(3, 10, 7)):
    """The bytes of such a step's fullest moment."""
    work = create_workload(plan, cfg, *sizes, dtype)
    return needed_bytes(work, count_bytes(work))


@pytest.mark.parametrize("plan", [FULL, FULL_CHECKPOINTED], ids=str)
def test_all_parameters(architecture, plan):
    size = 4 * numbers(tied(architecture).parameters())
    found = bytes_of(plan, architecture[1])
    assert found["weights"] == found["gradients"] == size
    assert found["AdamW"] == 2 * size
    assert found["logits"] == 4 * 7 * 101 * 4


@pytest.mark.parametrize("rank", [1, 5])
@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_lora(architecture, rank, is_checkpointed):
    model = tied(architecture)
    learning = 4 * lora_numbers(model, rank)
    plan = {"prepare": partial(freeze_and_add_lora, rank=rank)}
    plan["is_checkpointed"] = is_checkpointed
    found = bytes_of(plan, architecture[1])
    assert found["weights"] == 4 * numbers(model.parameters()) + learning
    assert (found["gradients"], found["AdamW"]) == (learning, 2 * learning)


def test_a_halved_base_is_computed_in_bfloat16(architecture):
    model = tied(architecture)
    learning = 4 * lora_numbers(model, rank=16)
    found = bytes_of(LORA_HALVED, architecture[1])
    assert found["weights"] == 2 * numbers(model.parameters()) + learning
    assert (found["gradients"], found["AdamW"]) == (learning, 2 * learning)
    assert found == bytes_of(LORA_HALVED, architecture[1], BF16)


def test_checkpointed_lora_keeps_inputs_and_one_block_more(architecture):
    cfg = architecture[1] | {"n_layers": 5}
    sizes = 3, 10, 7, F32
    one = activation_bytes(create_workload(LORA, cfg | {"n_layers": 1}, *sizes))
    found = activation_bytes(create_workload(LORA_CHECKPOINTED, cfg, *sizes))
    assert found == one + 5 * 3 * 10 * cfg["emb_dim"] * 4


def test_lora_of_355m_by_formula():
    """24 blocks of four square layers and two of a fourfold width; the output layer."""
    found = bytes_of(LORA_CHECKPOINTED, MEDIUM, sizes=(1, 8, 5))
    blocks = 24 * 16 * (4 * 2 * 1024 + 2 * 5 * 1024)
    assert found["gradients"] == 4 * (blocks + 16 * (1024 + 50257))


def test_each_plan_takes_less_than_the_one_before(architecture):
    _, cfg = architecture
    cfg = cfg | {"n_layers": 6, "emb_dim": 48 * 4, "context_length": 64}
    cfg |= {"hidden_dim": 512} if "hidden_dim" in cfg else {}
    totals = [needed_by(plan, cfg, BF16, (8, 32, 20)) for plan in PLANS.values()]
    assert totals == sorted(totals, reverse=True)
    assert len({*totals}) == len(PLANS)


def pretend(monkeypatch, process, free):
    """Let this process hold, and this machine have free, so many bytes."""
    memory = SimpleNamespace(rss=process)
    fake = SimpleNamespace(memory_info=lambda: memory)
    monkeypatch.setattr(psutil, "Process", lambda: fake)
    available = SimpleNamespace(available=free)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)


@pytest.fixture
def pretended_seconds(monkeypatch):
    """All that is timed runs once and takes three seconds."""
    monkeypatch.setattr(memory, "time_call", lambda run, _: (run(), 3.0)[1])
    monkeypatch.setattr(memory, "has_bfloat16", lambda device: True)


SIZES = ["weights", "gradients", "AdamW", "blocks", "logits", "overhead"]


@pytest.mark.usefixtures("pretended_seconds")
def test_the_table_has_a_row_a_plan_and_adds_up(architecture, monkeypatch):
    pretend(monkeypatch, process=2 * 10**9, free=10**12)
    _, cfg = architecture
    table, _ = forecast_plans(cfg, 3, 10, 7, BF16)
    assert list(table.columns) == [*SIZES, "in all", "fits", "minutes"]
    assert list(table.index) == list(PLANS)
    for title, plan in PLANS.items():
        parts = bytes_of(plan, cfg, BF16)
        row = table.loc[title]
        assert {name: row[name] * 1e9 for name in SIZES} == pytest.approx(parts)
        assert row["in all"] == pytest.approx(2 + needed_by(plan, cfg, BF16) / 1e9)


@pytest.mark.usefixtures("pretended_seconds")
def test_minutes_are_those_of_all_steps():
    """100 steps: a block more and a model take 3 seconds each, and 3 for AdamW."""
    table, _ = forecast_plans(GPT_CFG, 3, 10, 7)
    assert table["minutes"].tolist() == [pytest.approx(100 * 2 * 6 / 60)] * len(PLANS)


@pytest.mark.usefixtures("pretended_seconds")
def test_what_fits_is_what_takes_less_than_is_free(monkeypatch):
    """With room for the last three plans alone, the first of them is proposed.

    100 steps of two blocks more and a model, each 3 seconds and 3 more for AdamW.
    """
    cfg = GPT_CFG | {"emb_dim": 512, "n_layers": 3}
    totals = [needed_by(plan, cfg, BF16) for plan in PLANS.values()]
    pretend(monkeypatch, process=10**12, free=(totals[1] + totals[2]) // 2)
    table, sentence = forecast_plans(cfg, 3, 10, 7, BF16)
    assert table["fits"].tolist() == [False, False, True, True, True]
    assert re.fullmatch(
        r"LoRA: it fits into the 0\.\d GB of free memory, and 100 steps take 30\.0 min",
        sentence,
    )


@pytest.mark.usefixtures("pretended_seconds")
@pytest.mark.parametrize(("free", "fits"), [(0, False), (10**15, True)])
def test_nothing_fits_into_nothing_and_all_into_plenty(monkeypatch, free, fits):
    pretend(monkeypatch, process=0, free=free)
    table, sentence = forecast_plans(GPT_CFG, 3, 10, 7, BF16)
    assert table["fits"].tolist() == [fits] * len(PLANS)
    assert sentence.startswith("all parameters: it fits" if fits else "no plan fits")


def test_a_proposal_without_a_time_is_one_all_the_same():
    table = pd.DataFrame({"fits": [True], "minutes": [math.nan]}, index=["halved"])
    assert propose_plan(table, 4e9) == "halved: it fits into the 4.0 GB of free memory"


def test_the_proposal_is_the_first_that_fits():
    columns = {"fits": [False, True, True], "minutes": [1.0, 2.0, 3.0]}
    table = pd.DataFrame(columns, index=["large", "less", "least"])
    said = "less: it fits into the 4.0 GB of free memory, and 100 steps take 2.0 min"
    assert propose_plan(table, 4e9) == said


def test_this_machine_is_asked(architecture):
    """The process, the memory and the times are real; one plan is in bfloat16."""
    build, cfg = architecture
    table, _ = forecast_plans(cfg, 3, 10, 7)
    held = psutil.Process().memory_info().rss / 1e9
    assert (table["in all"] > 0.5 * held).all()
    assert table["fits"].all()  # 16 numbers wide
    is_timed = table["minutes"].notna()
    assert is_timed.tolist() == 4 * [True] + [has_bfloat16("cpu")]
    assert (table["minutes"][is_timed] > 0).all()


@pytest.mark.parametrize("build", [GPTModel, LlamaModel])
def test_plans_prepare_what_they_say(build):
    cfg = {entry[0]: entry[1] for entry in ARCHITECTURES.values()}[build]
    model = build(cfg)
    LORA_HALVED["prepare"](model)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {BF16}
