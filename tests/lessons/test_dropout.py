"""Dropout works wherever it should while a model trains, and nowhere else."""

import copy

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ch03.attention import (
    CausalAttention,
    MultiHeadAttention,
    MultiHeadAttentionWrapper,
)
from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.decoding import generate, generate_stream
from ch05.training import (
    calc_loss_batch,
    evaluate_model,
    generate_and_print_sample,
    train_model_simple,
)
from ch06.baselines import predict
from ch06.classifier import (
    Classifier,
    calc_accuracy_loader,
    create_token_loader,
    spam_probability,
    train_classifier_simple,
)
from ch06.spam import SpamDataset
from ch07.evaluation import answer_losses, generate_answers, prefers_references
from ch07.finetuning import finetune
from support.apps.chat import stream_answer
from support.device.fast_dropout import FastDropout
from support.pretraining.trainer import validation_loss

pytestmark = pytest.mark.usefixtures("one_thread")
P = 0.25
GPT = GPT_CONFIG_124M | {"context_length": 128, "emb_dim": 32, "n_heads": 4}
GPT |= {"n_layers": 2, "drop_rate": P}
ENTRIES = [
    {"instruction": "Name a color.", "input": "", "output": color, "category": "a"}
    for color in ("Blue.", "Red.", "Green, or yellow.", "None.")
]
SPAM = pd.DataFrame({"Label": [0, 1, 1], "Text": ["See you", "Win!", "Free prize"]})


@pytest.fixture
def model():
    """A GPT with GPT-2's vocabulary whose layers all make a difference."""
    torch.manual_seed(123)
    model = GPTModel(GPT)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=float("scale" in name), std=0.3)
    return model


@pytest.fixture
def ids(tokenizer):
    """Token ids of a text, (2, 24)."""
    text = "Every effort moves you a little further along the path. " * 5
    return torch.tensor(tokenizer.encode(text)[:48]).view(2, 24)


# Where values are dropped


def dropped(found, whole, p=P):
    """Where values are 0 that were not; all others have to be whole / (1 - p)."""
    is_dropped = (found == 0) & (whole != 0)
    expected = (whole / (1 - p)).masked_fill(is_dropped, 0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    return is_dropped


def assert_share(is_dropped, p=P):
    """The share of dropped values is p, within five standard deviations."""
    deviation = (p * (1 - p) / is_dropped.numel()) ** 0.5
    assert is_dropped.double().mean().item() == pytest.approx(p, abs=5 * deviation)


def record(model):
    """A dict that notes what modules get and give, by their names."""
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _, args, output, name=name: seen.update({name: (args[0], output)})
        )
    return seen


@torch.no_grad()
def test_a_gpt_drops_from_embeddings_and_from_both_paths_of_each_block(model, ids):
    seen = record(model)
    model.train()(ids)
    embedded = seen["tok_emb"][1] + seen["pos_emb"][1]
    x = seen["trf_blocks.0"][0]
    masks = [dropped(x, embedded)]
    for layer in range(2):
        block = f"trf_blocks.{layer}"
        between = seen[f"{block}.norm2"][0]
        masks.append(dropped(between - x, seen[f"{block}.att"][1]))
        x_after = seen[block][1]
        masks.append(dropped(x_after - between, seen[f"{block}.ff"][1]))
        x = x_after
    assert torch.equal(seen["final_norm"][0], x)
    for mask in masks:
        assert_share(mask)
    for first, second in zip(masks, masks[1:]):  # each place draws for itself
        assert_share(first ^ second, p=2 * P * (1 - P))


NUM_TOKENS = 64


def show_weights(attention):
    """Let an attention layer give its weights: values and output are the identity."""
    with torch.no_grad():
        for layer in attention.modules():
            if hasattr(layer, "W_value"):
                heads = layer.W_value.out_features // NUM_TOKENS
                layer.W_value.weight.copy_(torch.eye(NUM_TOKENS).repeat(heads, 1))
            if hasattr(layer, "out_proj"):
                layer.out_proj.weight.copy_(torch.eye(layer.out_proj.in_features))
                layer.out_proj.bias.zero_()
    return attention


ATTENTIONS = {
    "without SDPA": lambda p: CausalAttention(64, 64, 64, dropout=p),
    "wrapper": lambda p: MultiHeadAttentionWrapper(64, 64, 64, p, num_heads=2),
    "SDPA": lambda p: MultiHeadAttention(64, 128, 64, dropout=p, num_heads=2),
}


@torch.no_grad()
@pytest.mark.parametrize("kind", ATTENTIONS)
@pytest.mark.parametrize(
    "mode",
    [FastDropout, lambda: sdpa_kernel(SDPBackend.MATH), torch.no_grad],
    ids=["fast", "math", "plain"],
)
def test_attention_drops_weights(kind, mode):
    """Whole weights of single tokens: each head, row and place for itself."""
    torch.manual_seed(123)
    attention = show_weights(ATTENTIONS[kind](P))
    x = torch.eye(NUM_TOKENS)[None].repeat(3, 1, 1)
    weights = attention.eval()(x)
    with mode():
        found = attention.train()(x)
    is_dropped = dropped(found, weights).unflatten(-1, (-1, NUM_TOKENS)).transpose(1, 2)
    assert_share(is_dropped[..., torch.ones(64, 64).tril().bool()])
    masks = is_dropped.flatten(0, 1)
    for first, second in zip(masks, masks[1:]):
        assert not torch.equal(first, second)


@torch.no_grad()
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_attention_without_dropout_is_the_same_in_training(kind):
    torch.manual_seed(123)
    attention, x = ATTENTIONS[kind](0.0), torch.randn(2, 10, 64)
    expected = attention.eval()(x)
    assert torch.equal(attention.train()(x), expected)


@torch.no_grad()
def test_in_evaluation_mode_a_gpt_has_no_dropout(model, ids):
    """It is the same model built with a rate of 0, and draws nothing."""
    plain = GPTModel(GPT | {"drop_rate": 0.0}).eval()
    plain.load_state_dict(model.state_dict())
    before = torch.get_rng_state()
    assert torch.equal(model.eval()(ids), plain(ids))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(plain.train()(ids), plain.eval()(ids))
    assert not torch.allclose(model.train()(ids), plain(ids))


# Where nothing is dropped: evaluation and sampling


def loaders_of(ids):
    """Two loaders of batches of one row, with different data."""
    rows = [(row[None, :-1], row[None, 1:]) for row in ids]
    return rows, [(inputs.flip(1), targets.flip(1)) for inputs, targets in rows]


QUIET = {
    "evaluate_model": lambda model, ids, tokenizer: evaluate_model(
        model, *loaders_of(ids), "cpu", eval_iter=2
    ),
    "validation_loss": lambda model, ids, tokenizer: validation_loss(
        model, loaders_of(ids)[1], torch.device("cpu"), torch.float32
    ),
    "sample": lambda model, ids, tokenizer: generate_and_print_sample(
        model, tokenizer, "cpu", "Every effort"
    ),
    "generate": lambda model, ids, tokenizer: generate(model, ids, 5, 128),
    "generate, uncached": lambda model, ids, tokenizer: generate(
        model, ids, 5, 128, use_cache=False
    ),
    "generate, drawn": lambda model, ids, tokenizer: generate(
        model, ids, 5, 128, 1.0, top_k=9, generator=torch.Generator().manual_seed(1)
    ),
    "generate_stream": lambda model, ids, tokenizer: [
        *generate_stream(model, ids, 5, 128)
    ],
    "generate_answers": lambda model, ids, tokenizer: generate_answers(
        model, tokenizer, ENTRIES, max_new_tokens=4
    ),
    "stream_answer": lambda model, ids, tokenizer: [
        *stream_answer(model, tokenizer, ENTRIES[0], max_new_tokens=4)
    ],
    "answer_losses": lambda model, ids, tokenizer: answer_losses(
        model, tokenizer, ENTRIES[0], ["Blue.", "Ten."]
    ).tolist(),
    "prefers_references": lambda model, ids, tokenizer: prefers_references(
        model, tokenizer, ENTRIES
    ).tolist(),
}


def classifier_on(model, tokenizer):
    """A classifier of two classes whose new output layer is seeded."""
    torch.manual_seed(1)
    return Classifier(model, tokenizer.eot_token, num_trained=1)


def spam_loader(model, tokenizer):
    """A loader over three messages."""
    dataset = SpamDataset(SPAM, tokenizer, pad_token_id=None)
    return create_token_loader(model, dataset, batch_size=2)


QUIET_CLASSIFIERS = {
    "calc_accuracy_loader": lambda model, ids, tokenizer: calc_accuracy_loader(
        spam_loader(model, tokenizer), model, "cpu"
    ),
    "predict": lambda model, ids, tokenizer: [
        part.tolist() for part in predict(spam_loader(model, tokenizer), model, "cpu")
    ],
    "spam_probability": lambda model, ids, tokenizer: spam_probability(
        "Win a prize", model, tokenizer, "cpu"
    ),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", QUIET | QUIET_CLASSIFIERS)
def test_it_is_off_where_nothing_learns_and_on_again_after_it(
    model, ids, tokenizer, training, name, capsys
):
    """The result is the model's without dropout, and nothing keeps gradients."""
    call = (QUIET | QUIET_CLASSIFIERS)[name]
    if name in QUIET_CLASSIFIERS:
        model = classifier_on(model, tokenizer)
    without = copy.deepcopy(model)
    for module in without.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    expected = call(without.eval(), ids, tokenizer), capsys.readouterr().out
    keeps_gradients = []
    for module in model.train(training).modules():
        module.register_forward_hook(
            lambda *args: keeps_gradients.append(args[2].requires_grad)
        )
    found = call(model, ids, tokenizer), capsys.readouterr().out
    assert str(found) == str(expected)  # as text, in which tensors can be compared
    assert set(keeps_gradients) == {False}
    assert {module.training for module in model.modules()} == {training}


# Where training needs it


def calls_in(model):
    """A list of what each forward pass is: (in training mode, keeps gradients)."""
    calls = []
    model.register_forward_hook(
        lambda m, _, output: calls.append((m.training, output.requires_grad))
    )
    return calls


LEARNS, LOOKS = (True, True), (False, False)


def test_training_drops_in_its_steps_alone(model, ids, tokenizer):
    """Two epochs of two steps, an evaluation of both loaders on each second one."""
    calls = calls_in(model.eval())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    run = model, *loaders_of(ids), optimizer, "cpu"
    train_model_simple(*run, 2, 2, 1, "Every effort", tokenizer)
    sample = 50 * [LOOKS]
    epoch = [LEARNS, LOOKS, LOOKS, LEARNS, *sample]
    assert calls == 2 * epoch and model.training


def test_a_classifier_drops_in_its_steps_alone(model, tokenizer):
    """Two epochs of two steps; losses at each step, accuracies after each epoch."""
    classifier = classifier_on(model, tokenizer).eval()
    train_loader, val_loader = (spam_loader(classifier, tokenizer) for _ in "12")
    calls = calls_in(classifier)
    optimizer = torch.optim.SGD(classifier.head.parameters(), lr=0.0)
    run = classifier, train_loader, val_loader, optimizer, "cpu"
    train_classifier_simple(*run, 2, 1, 1)
    step = [LEARNS, LOOKS, LOOKS]
    assert calls == 2 * [*step, *step, *(4 * [LOOKS])]
    assert classifier.training


def test_finetuning_drops_in_its_steps_alone(model, ids):
    """Two epochs of two steps; an evaluation on each second one, of both loaders."""
    calls = calls_in(model.eval())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    finetune(model, *loaders_of(ids), optimizer, "cpu", 2, eval_freq=2)
    assert calls == 2 * [LEARNS, LEARNS, *(4 * [LOOKS])]
    assert model.training


def test_dropout_takes_part_in_the_gradients(model, ids):
    """What was dropped from the embeddings gets no gradient, all else 1 / (1 - p)."""
    model.train()
    for block in model.trf_blocks:
        block.eval()
    seen = record(model)
    loss = calc_loss_batch(ids[:, :-1], ids[:, 1:], model, "cpu")
    embedded, x = seen["tok_emb"][1] + seen["pos_emb"][1], seen["trf_blocks.0"][0]
    behind, before = torch.autograd.grad(loss, [x, seen["tok_emb"][1]])
    expected = (behind / (1 - P)).masked_fill(dropped(x, embedded), 0)
    torch.testing.assert_close(before, expected)
