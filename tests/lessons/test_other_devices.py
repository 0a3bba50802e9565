"""Whatever is told a device computes there; PyTorch's "meta" stands in for another one.

Its tensors have shapes and no numbers: a function comes to an end where it wants one.
"""

from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F

from ch04.gpt import GPTModel, generate_text_simple
from ch05.decoding import uncached_logits
from ch05.kv_cache import CachedLogits
from ch05.training import (
    calc_loss_batch,
    calc_loss_loader,
    evaluate_model,
    generate_and_print_sample,
    train_model_simple,
    training_steps,
)
from ch06 import classifier
from ch06.baselines import predict
from ch07.evaluation import answer_losses
from ch07.finetuning import calc_answer_loss, calc_shared_prefix_loss
from ch07.instructions import custom_collate_draft_1, custom_collate_draft_2
from ch07.lora import replace_linear_with_lora
from tests.conftest import TINY

CONFIG = TINY | {"vocab_size": 50257, "context_length": 128}
ENTRY = {"instruction": "Name a color.", "input": "", "output": "Blue."}
IDS = torch.arange(18).view(2, 9)
BATCH, LABELLED = (IDS, IDS + 1), (IDS, torch.tensor([0, 1]))


def sgd(model):
    """An optimizer that leaves the weights as they are."""
    return torch.optim.SGD(model.parameters(), lr=0.0)


RUNS = {
    "generate_text_simple": lambda m, t: generate_text_simple(m, IDS.to("meta"), 2, 9),
    "uncached_logits": lambda m, t: uncached_logits(m, IDS.tolist(), 9),
    "CachedLogits": lambda m, t: CachedLogits(m, 2, 9)(IDS.tolist()),
    "calc_loss_batch": lambda m, t: calc_loss_batch(*BATCH, m, "meta"),
    "calc_loss_loader": lambda m, t: calc_loss_loader([BATCH], m, "meta"),
    "evaluate_model": lambda m, t: evaluate_model(m, [BATCH], [BATCH], "meta", 1),
    "sample": lambda m, t: generate_and_print_sample(m, t, "meta", "Every effort"),
    "training_steps": lambda m, t: [*training_steps(m, [BATCH], sgd(m), "meta", 1)],
    "train_model_simple": lambda m, t: train_model_simple(
        m, [BATCH], [BATCH], sgd(m), "meta", 1, 1, 1, "Every effort", t
    ),
    "calc_answer_loss": lambda m, t: calc_answer_loss(*BATCH, m, "meta"),
    "calc_shared_prefix_loss": lambda m, t: calc_shared_prefix_loss(*BATCH, m, "meta"),
    "answer_losses": lambda m, t: answer_losses(m, t, ENTRY, ["Blue.", "Red."]),
    "predict": lambda m, t: predict([LABELLED], m, "meta"),
    "calc_accuracy_loader": lambda m, t: classifier.calc_accuracy_loader(
        [LABELLED], m, "meta"
    ),
    "calc_loss_batch of a classifier": lambda m, t: classifier.calc_loss_batch(
        *LABELLED, m, "meta"
    ),
    "train_classifier_simple": lambda m, t: classifier.train_classifier_simple(
        m, [LABELLED], [LABELLED], sgd(m), "meta", 1, 1, 1
    ),
    "spam_probability": lambda m, t: classifier.spam_probability("Win!", m, t, "meta"),
    "classify_review": lambda m, t: classifier.classify_review("Win!", m, t, "meta"),
}


@pytest.fixture
def seen(monkeypatch):
    """The devices of what losses are given, and a function that adds others."""
    devices = set()
    usual = F.cross_entropy

    def note(*tensors):
        devices.update(t.device.type for t in tensors if torch.is_tensor(t))

    def cross_entropy(*args, **settings):
        note(*args)
        return usual(*args, **settings)

    monkeypatch.setattr(F, "cross_entropy", cross_entropy)
    return devices, note


@pytest.mark.parametrize("name", RUNS)
def test_it_computes_where_it_is_told(name, seen, tokenizer):
    devices, note = seen
    with torch.device("meta"):
        model = GPTModel(CONFIG)
    for layer in model.modules():
        layer.register_forward_pre_hook(lambda _, args: note(*args))
    with suppress(RuntimeError):  # a number is wanted
        RUNS[name](model, tokenizer)
    assert devices == {"meta"}


def test_lora_is_where_its_layer_is():
    with torch.device("meta"):
        model = GPTModel(CONFIG)
    replace_linear_with_lora(model, rank=2, alpha=4)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert model(IDS.to("meta")).device.type == "meta"


def test_batches_of_instructions_are_where_they_are_wanted():
    rows = [[1, 2, 3], [4]]
    assert custom_collate_draft_1(rows, device="meta").device.type == "meta"
    for part in custom_collate_draft_2(rows, device="meta"):
        assert part.device.type == "meta"
