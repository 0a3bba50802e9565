"""LoRA equals peft's, merges back without a trace, and is kept apart from its model."""

import copy
import math

import peft
import pytest
import torch
from torch import nn

from ch05.decoding import generate
from ch05.kv_cache import CachedLogits
from ch07.lora import (
    LinearWithLoRA,
    LoRALayer,
    adapter_parameters,
    load_adapter,
    merge_lora,
    replace_linear_with_lora,
    save_adapter,
)
from support.weights.checkpoint import build_model, save_weights
from tests.lessons.test_kv_cache import LLAMA, MODELS

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = torch.arange(20).view(2, 10)


def seeded(name):
    """A tiny model, frozen."""
    torch.manual_seed(123)
    return MODELS[name]().eval().requires_grad_(False)


@pytest.fixture(params=MODELS)
def model(request):
    """A tiny model of each architecture, frozen."""
    return seeded(request.param)


def shake(model):
    """Values in B that make a difference."""
    torch.manual_seed(5)
    for name, parameter in adapter_parameters(model).items():
        nn.init.normal_(parameter, std=0.1 if name.endswith("B") else 0.05)


@pytest.fixture
def adapted(model):
    """The model with LoRA layers that make a difference."""
    replace_linear_with_lora(model, rank=3, alpha=6)
    shake(model)
    return model


def test_a_new_layer_adds_nothing(model):
    before = model(IDS)
    replace_linear_with_lora(model, rank=4, alpha=8)
    assert torch.equal(model(IDS), before)


def test_by_hand():
    layer = LoRALayer(2, 1, rank=1, alpha=3)
    layer.A.data = torch.tensor([[2.0], [5.0]])
    layer.B.data = torch.tensor([[10.0]])
    assert layer(torch.tensor([[1.0, 1.0]])).item() == 3 * (2 + 5) * 10


def test_layers_have_the_books_attributes():
    linear = nn.Linear(8, 6)
    layer = LinearWithLoRA(linear, rank=4, alpha=2)
    assert layer.linear is linear and isinstance(layer.lora, LoRALayer)
    assert (layer.lora.rank, layer.lora.alpha) == (4, 2)
    assert layer.lora.A.shape == (8, 4) and layer.lora.B.shape == (4, 6)


def test_a_layer_obeys_another_alpha():
    """In its output, and as one matrix."""
    layer = LinearWithLoRA(nn.Linear(8, 6, bias=False), rank=4, alpha=2)
    nn.init.ones_(layer.lora.B)
    x = torch.randn(3, 8)
    for _ in range(2):
        layer.lora.alpha *= 3
        change = layer.lora.alpha / 4 * x @ layer.lora.A @ layer.lora.B
        torch.testing.assert_close(layer(x), layer.linear(x) + change)
        torch.testing.assert_close(x @ layer.weight.T, layer(x))


def test_alpha_counts_by_rank():
    torch.manual_seed(1)
    layer = LoRALayer(8, 8, rank=4, alpha=2)
    nn.init.ones_(layer.B)
    x = torch.randn(3, 8)
    torch.testing.assert_close(layer(x), 0.5 * x @ layer.A @ layer.B)


def test_first_matrix_begins_as_a_linear_layer_does():
    torch.manual_seed(1)
    bound = 1 / 400**0.5
    values = LoRALayer(400, 10, rank=64, alpha=1).A
    assert 0.95 * bound < values.abs().max() <= bound


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_one_is_refused(rank):
    with pytest.raises(
        ValueError, match=f"the rank is {rank}; it must be a whole number above 0"
    ):
        LoRALayer(8, 8, rank, alpha=1)


def test_every_linear_layer_is_replaced_and_only_lora_learns(model):
    num_linear = sum(isinstance(m, nn.Linear) for m in model.modules())
    replace_linear_with_lora(model, rank=2, alpha=4)
    layers = [m for m in model.modules() if isinstance(m, LinearWithLoRA)]
    assert len(layers) == num_linear
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning == adapter_parameters(model).keys()
    assert len(learning) == 2 * num_linear


def test_replacing_twice_is_refused(adapted):
    with pytest.raises(ValueError, match="already: call merge_lora first"):
        replace_linear_with_lora(adapted, rank=3, alpha=6)


def peft_twin(model, rank, alpha):
    """peft's LoRA around a copy of a model whose LoRA layers are ours."""
    twin = copy.deepcopy(model)
    for parameter in adapter_parameters(twin).values():
        nn.init.zeros_(parameter)
    merge_lora(twin)
    names = [name for name, m in twin.named_modules() if isinstance(m, nn.Linear)]
    cfg = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=names)
    twin = peft.inject_adapter_in_model(cfg, twin)
    theirs = dict(twin.named_parameters())
    for name, ours in adapter_parameters(model).items():
        layer, _, letter = name.rpartition(".lora.")
        theirs[f"{layer}.lora_{letter}.default.weight"].data = ours.detach().T.clone()
    return twin


def test_equals_peft(adapted):
    """Logits, and the gradients of both matrices."""
    twin = peft_twin(adapted, 3, 6)
    found, expected = adapted(IDS), twin(IDS)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    found.square().mean().backward()
    expected.square().mean().backward()
    theirs = dict(twin.named_parameters())
    for name, ours in adapter_parameters(adapted).items():
        layer, _, letter = name.rpartition(".lora.")
        grad = theirs[f"{layer}.lora_{letter}.default.weight"].grad
        torch.testing.assert_close(ours.grad, grad.T, rtol=1e-4, atol=1e-6)


def test_merging_changes_no_logits_and_leaves_no_trace(adapted):
    before = adapted(IDS)
    merge_lora(adapted)
    torch.testing.assert_close(adapted(IDS), before, rtol=1e-5, atol=1e-5)
    assert not any(isinstance(m, LinearWithLoRA) for m in adapted.modules())
    assert adapter_parameters(adapted) == {}


def test_merging_keeps_the_type_of_the_weights(adapted):
    """LoRA's matrices may be float32 beside a model in half that."""
    for module in adapted.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.bfloat16()
    layer = next(m for m in adapted.modules() if isinstance(m, LinearWithLoRA))
    assert layer.lora.A.dtype == torch.float32
    change = layer.lora.scaling * (layer.lora.A @ layer.lora.B).T
    expected = (layer.linear.weight.float() + change).bfloat16()
    assert torch.equal(layer.weight, expected)
    merge_lora(adapted)
    weights = [m.weight for m in adapted.modules() if isinstance(m, nn.Linear)]
    assert {weight.dtype for weight in weights} == {torch.bfloat16}


def test_merging_a_tied_head_leaves_the_embedding_alone():
    model = seeded("Llama")
    embedding = model.tok_emb.weight.clone()
    replace_linear_with_lora(model, rank=3, alpha=6)
    shake(model)
    merge_lora(model)
    assert torch.equal(model.tok_emb.weight, embedding)
    assert not torch.equal(model.out_head.weight, embedding)


def trained_names(model):
    """Which parameters learn, those of LoRA left out."""
    parameters = model.named_parameters(remove_duplicate=False)
    return {
        name.replace(".linear.", ".")
        for name, p in parameters
        if p.requires_grad and ".lora." not in name
    }


@pytest.mark.parametrize("part", ["", "tok_emb", "trf_blocks.1", "nothing"])
@pytest.mark.parametrize("is_tied", [False, True])
def test_merging_leaves_frozen_what_was_frozen(model, part, is_tied):
    """Weights and biases alike, whatever learned beside LoRA."""
    if is_tied:
        model.out_head.weight = model.tok_emb.weight
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(part)
    replace_linear_with_lora(model, rank=3, alpha=6)
    shake(model)
    before = trained_names(model)
    assert bool(before) == (part != "nothing")
    merge_lora(model)
    assert trained_names(model) == before


def test_decoding_with_lora_equals_decoding_merged(adapted):
    """The cache asks the layers for their sizes, merged or not."""
    adapted.double()
    prompt = [[5, 17, 80], [42]]
    found = generate(adapted, prompt, 6, 12)
    assert found == generate(adapted, prompt, 6, 12, use_cache=False)
    logits = CachedLogits(adapted, 2, 12)(prompt)
    merge_lora(adapted)
    torch.testing.assert_close(CachedLogits(adapted, 2, 12)(prompt), logits)
    assert found == generate(adapted, prompt, 6, 12)


def test_a_saved_adapter_comes_back(adapted, model, tmp_path):
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, adapted, rank=3, alpha=6, note="kept")
    expected = adapted(IDS)
    for parameter in adapter_parameters(adapted).values():
        nn.init.zeros_(parameter)
    merge_lora(adapted)  # the model as it was
    load_adapter(path, adapted.requires_grad_(True))
    torch.testing.assert_close(adapted(IDS), expected, rtol=1e-6, atol=1e-6)
    learning = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert learning == adapter_parameters(adapted).keys()


def test_an_adapter_of_another_model_is_refused(tmp_path):
    path = tmp_path / "adapter.safetensors"
    ours = seeded("Llama")
    replace_linear_with_lora(ours, rank=3, alpha=6)
    save_adapter(path, ours, rank=3, alpha=6)
    with pytest.raises(ValueError, match="does not fit its own config"):
        load_adapter(path, seeded("GPT"))
    wider = build_model(LLAMA | {"rope_base": 100.0, "hidden_dim": 40})
    with pytest.raises(ValueError, match="Shape mismatch|shape"):
        load_adapter(path, wider)


def test_a_damaged_adapter_is_refused(adapted, tmp_path):
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, adapted, rank=3, alpha=6)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        load_adapter(path, seeded("GPT"))


def like(model):
    """The model that this one was before it got LoRA layers."""
    return seeded(type(model).__name__.removesuffix("Model"))


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_an_adapter_of_a_wrapped_model_is_that_of_the_model(adapted, tmp_path, wrap):
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, wrap(adapted), rank=3, alpha=6)
    expected = adapted(IDS)
    merge_lora(adapted)
    other = like(adapted)
    load_adapter(path, other)
    torch.testing.assert_close(other(IDS), expected, rtol=1e-5, atol=1e-5)


CONFIGS = [
    {},
    {"rank": 3},
    {"alpha": 6},
    *({"rank": rank, "alpha": 6} for rank in (10**9, 10**18, 10**30, 0, -3, 4, 3.0)),
    *({"rank": rank, "alpha": 6} for rank in ("3", None, [3], {"3": 3}, math.nan)),
    *({"rank": 3, "alpha": alpha} for alpha in ("6", None, [6], math.inf, 10**400)),
]


@pytest.mark.parametrize("cfg", CONFIGS, ids=repr)
def test_an_absurd_rank_or_alpha_is_a_sentence(adapted, tmp_path, cfg, monkeypatch):
    """Nothing is allocated for it, and the model stays as it was."""
    path = tmp_path / "adapter.safetensors"
    save_weights(path, adapter_parameters(adapted), cfg)
    model = like(adapted).requires_grad_(True)

    def allocate(*_):
        raise AssertionError("memory was asked for")

    monkeypatch.setattr(LoRALayer, "__init__", allocate)
    with pytest.raises(ValueError, match="adapter.safetensors"):
        load_adapter(path, model)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("names", [[], ["A"], ["A", "C"]])
def test_the_matrices_of_a_part_are_refused(tmp_path, names, monkeypatch):
    """A small file must not make a large model's other layers grow."""
    path = tmp_path / "adapter.safetensors"
    layer = "trf_blocks.0.att.W_query.lora"
    matrices = {f"{layer}.{name}": torch.ones(1, 10**6) for name in names}
    save_weights(path, matrices, {"rank": 10**6, "alpha": 6})
    monkeypatch.setattr(LoRALayer, "__init__", lambda *_: pytest.fail("allocated"))
    with pytest.raises(ValueError, match="does not fit its own config"):
        load_adapter(path, seeded("GPT"))
