"""The classifier is the whole model with another end, computed without the waste."""

import copy
import math

import matplotlib
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from ch05 import training
from ch06.bucketing import LengthBuckets
from ch06.classifier import (
    Classifier,
    block_output_at,
    calc_accuracy_loader,
    calc_loss_batch,
    calc_loss_loader,
    classify_review,
    create_feature_loader,
    create_token_loader,
    evaluate_model,
    plot_values,
    spam_probability,
    train_classifier_simple,
)
from ch06.spam import SpamDataset
from ch07.lora import adapter_parameters, merge_lora, replace_linear_with_lora
from tests.lessons.test_kv_cache import MODELS

matplotlib.use("Agg")
pytestmark = pytest.mark.usefixtures("one_thread")
PAD = 100
CLOSE = {torch.float32: 1e-5, torch.float64: 1e-10}


class Letters:
    """A tokenizer whose tokens are letters: "abc" -> [0, 1, 2]."""

    def encode_ordinary(self, text):
        return [ord(letter) - ord("a") for letter in text]


class Told(nn.Module):
    """A model that answers with the class that stands first in its row."""

    def forward(self, inputs):
        return nn.functional.one_hot(inputs[:, :1], 2).float()


@pytest.fixture(params=MODELS)
def model(request):
    """A tiny model of each architecture, with weights that make a difference."""
    return seeded_model(request.param)


@pytest.fixture
def classifier(model):
    """A classifier that trains one block of two."""
    return seeded_classifier(model)


@pytest.fixture
def gpt_classifier():
    """A classifier on a GPT, where the architecture plays no part."""
    return seeded_classifier(seeded_model("GPT"))


def seeded_model(kind, seed=123):
    """A tiny model whose parameters are all drawn, biases too."""
    torch.manual_seed(seed)
    model = MODELS[kind]().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=float("scale" in name), std=0.2)
    return model


def seeded_classifier(model, num_trained=1):
    """A classifier in evaluation mode on a model."""
    torch.manual_seed(1)
    return Classifier(model, PAD, num_trained=num_trained).eval()


def toy_messages(num_messages, seed=123):
    """Token ids of unequal lengths, and whether the token 7 is among them."""
    generator = torch.Generator().manual_seed(seed)
    messages = []
    for i in range(num_messages):
        length = int(torch.randint(2, 13, (), generator=generator))
        token_ids = torch.randint(8, 40, (length,), generator=generator)
        if i % 2:
            token_ids[int(torch.randint(length, (), generator=generator))] = 7
        messages.append((token_ids, torch.tensor(i % 2)))
    return messages


def padded(messages):
    """A batch of all messages, (b, num_tokens)."""
    rows = [token_ids for token_ids, _ in messages]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


def loaders_of(create, classifier, num_messages, device="cpu"):
    """A loader of messages to train on, and one of 12 others."""
    on = [device] if create is create_feature_loader else []
    return [
        create(classifier, toy_messages(n, seed), 8, *on)
        for n, seed in ((num_messages, 123), (12, 2))
    ]


def train(model, loaders, device="cpu", num_epochs=2, lr=3e-3, eval_freq=3):
    """Train what learns in a model on the first of two loaders."""
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=lr)
    torch.manual_seed(123)
    return train_classifier_simple(
        model, *loaders, optimizer, device, num_epochs, eval_freq, eval_iter=2
    )


# the answer


@torch.no_grad()
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("num_trained", [1, 2])
def test_logits_are_those_of_the_whole_model_without_padding(model, num_trained, dtype):
    """Each message alone through all blocks, the new output layer at its end."""
    whole = copy.deepcopy(model).to(dtype)
    classifier = seeded_classifier(model, num_trained).to(dtype)
    whole.out_head = classifier.head.out_head
    messages = toy_messages(20)
    logits = classifier(padded(messages))
    assert logits.shape == (20, 1, 2) and logits.dtype == dtype
    for (token_ids, _), found in zip(messages, logits):
        expected = whole(token_ids[None])[0, -1:]
        torch.testing.assert_close(found, expected, atol=CLOSE[dtype], rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("num_classes", [2, 5])
def test_there_is_a_logit_for_each_class(num_classes):
    classifier = Classifier(seeded_model("GPT"), PAD, num_classes)
    assert classifier(torch.tensor([[1, 2]])).shape == (1, 1, num_classes)


@torch.no_grad()
@pytest.mark.parametrize("num_trained", [1, 2])
def test_padding_changes_nothing(model, num_trained):
    classifier = seeded_classifier(model, num_trained)
    token_ids = torch.tensor([[5, 17, 80, 3]])
    expected = classifier(token_ids)
    for num_pads in (1, 5, 8):
        idx = nn.functional.pad(token_ids, (0, num_pads), value=PAD)
        torch.testing.assert_close(classifier(idx), expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_answer_at_a_place_is_the_whole_blocks(model):
    block = model.double().trf_blocks[0]
    generator = torch.Generator().manual_seed(123)
    emb_dim = model.tok_emb.embedding_dim
    x = torch.randn(6, 9, emb_dim, generator=generator, dtype=torch.float64)
    last = torch.tensor([0, 8, 4, 1, 8, 3])
    expected = block(x)[torch.arange(6), last]
    found = block_output_at(block, x, last)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@torch.no_grad()
def test_what_stands_behind_a_place_does_not_reach_it(model):
    block = model.trf_blocks[0]
    generator = torch.Generator().manual_seed(123)
    x = torch.randn(1, 9, model.tok_emb.embedding_dim, generator=generator)
    last = torch.tensor([4])
    expected = block_output_at(block, x, last)
    x[:, 5:] = 1000.0
    torch.testing.assert_close(block_output_at(block, x, last), expected)
    x[:, 4] = 1000.0
    assert not torch.allclose(block_output_at(block, x, last), expected)


def test_gradients_are_those_of_the_whole_block(model):
    block = model.double().trf_blocks[0]
    x = torch.randn(3, 5, model.tok_emb.embedding_dim, dtype=torch.float64)
    last = torch.tensor([4, 0, 2])
    parameters = [*block.parameters()]
    whole = block(x)[torch.arange(3), last].square().sum()
    alone = block_output_at(block, x, last).square().sum()
    for found, expected in zip(
        *(torch.autograd.grad(y, parameters) for y in (alone, whole))
    ):
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


def test_features_are_zero_exactly_at_padding(classifier):
    messages = toy_messages(10)
    features = classifier.features(padded(messages))
    assert features.shape[:2] == padded(messages).shape
    assert not features.requires_grad
    for (token_ids, _), row in zip(messages, features):
        assert row[: len(token_ids)].ne(0).any(dim=-1).all()
        assert row[len(token_ids) :].eq(0).all()


def test_features_are_the_trunks_whatever_the_mode(gpt_classifier):
    """Nothing is dropped out in front of a head that trains."""
    idx = padded(toy_messages(10))
    expected = gpt_classifier.eval().features(idx)
    assert torch.equal(gpt_classifier.train().features(idx), expected)
    assert gpt_classifier.trunk.training


def test_head_and_trunk_are_the_whole_classifier(gpt_classifier):
    idx = padded(toy_messages(10))
    found = gpt_classifier.head(gpt_classifier.features(idx))
    assert torch.equal(found, gpt_classifier(idx))


@pytest.mark.parametrize("num_trained", [-1, 0, 3])
def test_there_must_be_blocks_to_train(model, num_trained):
    reason = f"num_trained is {num_trained}; it must be a whole number from 1 to 2"
    with pytest.raises(ValueError, match=reason):
        Classifier(model, PAD, num_trained=num_trained)


def test_a_message_beyond_the_context_is_refused(classifier):
    assert classifier.context_length == 12
    with pytest.raises(ValueError, match="13 tokens exceed context_length 12"):
        classifier(torch.ones(1, 13, dtype=torch.long))


def test_it_answers_on_each_device(device):
    classifier = seeded_classifier(seeded_model("GPT"))
    idx = padded(toy_messages(10))
    expected = classifier(idx)
    found = classifier.to(device)(idx.to(device)).cpu()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


# training with kept features and without


@pytest.mark.parametrize("num_trained", [1, 2])
def test_kept_features_give_the_same_training(model, num_trained):
    """The losses and accuracies of a whole run."""
    slow = seeded_classifier(model, num_trained)
    fast = copy.deepcopy(slow)
    expected = train(slow, loaders_of(create_token_loader, slow, 45))
    found = train(fast.head, loaders_of(create_feature_loader, fast, 45))
    assert len(found[0]) == 4
    for losses, expected_losses in zip(found[:2], expected[:2]):
        assert losses == pytest.approx(expected_losses, abs=1e-5)
    assert found[2:] == expected[2:]


def test_both_loaders_give_the_same_messages_in_the_same_order(gpt_classifier):
    messages = toy_messages(45)
    token_loader = create_token_loader(gpt_classifier, messages, 8)
    feature_loader = create_feature_loader(gpt_classifier, messages, 8, "cpu")
    for _ in range(2):
        for (idx, labels), (features, same) in zip(token_loader, feature_loader):
            assert torch.equal(labels, same)
            expected = gpt_classifier.features(idx)
            torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("create", [create_token_loader, create_feature_loader])
def test_loaders_are_in_length_buckets(gpt_classifier, create):
    messages = toy_messages(45)
    on = ["cpu"] if create is create_feature_loader else []
    shapes = [
        inputs.shape[:2] for inputs, _ in create(gpt_classifier, messages, 8, *on)
    ]
    lengths = torch.tensor([len(token_ids) for token_ids, _ in messages])
    buckets = LengthBuckets(lengths, 8)
    assert shapes == [(len(b), lengths[b].max()) for b in buckets]


def test_kept_features_have_no_padding_and_memory_of_their_own(gpt_classifier):
    """A view would keep the whole padded batch."""
    messages = toy_messages(20)
    loader = create_feature_loader(gpt_classifier, messages, 8, "cpu")
    for (token_ids, label), (features, same) in zip(messages, loader.dataset):
        assert features.shape == (len(token_ids), 16) and same == label
        assert features.untyped_storage().nbytes() == 4 * features.numel()


def test_the_trunk_runs_once_for_all_epochs(gpt_classifier):
    calls = []
    gpt_classifier.trunk.register_forward_hook(lambda *_: calls.append(1))
    loaders = loaders_of(create_feature_loader, gpt_classifier, 45)
    assert len(calls) == 2 + 1  # 32 messages at once
    train(gpt_classifier.head, loaders)
    assert len(calls) == 2 + 1


def test_the_trunk_stays_and_all_of_the_head_learns(classifier):
    before = copy.deepcopy(classifier)
    assert not any(p.requires_grad for p in classifier.trunk.parameters())
    assert all(p.requires_grad for p in classifier.head.parameters())
    train(classifier, loaders_of(create_token_loader, classifier, 16))
    for old, new in zip(before.trunk.parameters(), classifier.trunk.parameters()):
        assert new.grad is None and torch.equal(old, new)
    for old, new in zip(before.head.parameters(), classifier.head.parameters()):
        assert not torch.equal(old, new)


@pytest.mark.parametrize("num_trained", [1, 2])
def test_head_and_trunk_share_nothing(model, num_trained):
    num_before = sum(p.numel() for p in model.trf_blocks.parameters())
    classifier = Classifier(model, PAD, num_trained=num_trained)
    head = {id(p) for p in classifier.head.parameters()}
    trunk = {id(p) for p in classifier.trunk.parameters()}
    assert not head & trunk
    blocks = [*classifier.trunk.trf_blocks, *classifier.head.trf_blocks]
    assert len(classifier.head.trf_blocks) == num_trained and len(blocks) == 2
    assert sum(p.numel() for b in blocks for p in b.parameters()) == num_before


@pytest.mark.parametrize("kind", MODELS)
def test_a_toy_task_is_learned(kind):
    """Does the token 7 occur? Also with messages that it has not seen."""
    classifier = seeded_classifier(seeded_model(kind), num_trained=2)
    loaders = [
        create_feature_loader(classifier, toy_messages(n, seed), 16, "cpu")
        for n, seed in ((200, 1), (60, 2))
    ]
    train(classifier.head, loaders, num_epochs=12, lr=1e-2, eval_freq=100)
    assert calc_accuracy_loader(loaders[0], classifier.head, "cpu") > 0.95
    assert calc_accuracy_loader(loaders[1], classifier.head, "cpu") > 0.8


def test_training_reports_as_the_book_says(gpt_classifier, device, capsys):
    gpt_classifier.to(device)
    head = gpt_classifier.head
    loaders = loaders_of(create_feature_loader, gpt_classifier, 20, device)
    *tracks, examples_seen = train(head, loaders, device, num_epochs=3)
    assert [len(track) for track in tracks] == [math.ceil(9 / 3)] * 2 + [3, 3]
    assert examples_seen == 60 and head.training
    assert capsys.readouterr().out.splitlines() == [
        f"Ep {i} ({20 * i} examples): Train accuracy {train_acc:.1%}, "
        f"Val accuracy {val_acc:.1%}"
        for i, (train_acc, val_acc) in enumerate(zip(*tracks[2:]), 1)
    ]
    for accuracies, loader in zip(tracks[2:], loaders):
        assert accuracies[-1] == calc_accuracy_loader(loader, head, device)


def test_losses_and_accuracies_are_of_their_own_loaders(gpt_classifier):
    """Without learning they stay; of four batches and of three, two make a loss."""
    loaders = [
        [*create_feature_loader(gpt_classifier, toy_messages(n, n), 8, "cpu")]
        for n in (30, 20)
    ]
    head = gpt_classifier.head
    optimizer = torch.optim.SGD(head.parameters(), lr=0.0)
    found = train_classifier_simple(head, *loaders, optimizer, "cpu", 2, 2, 2)
    for i, loader in enumerate(loaders):
        loss = calc_loss_loader(loader, head.eval(), "cpu", 2)
        assert loss != pytest.approx(calc_loss_loader(loader, head, "cpu"), abs=1e-4)
        assert found[i] == pytest.approx([loss] * 4, abs=1e-6)
        assert found[2 + i] == [calc_accuracy_loader(loader, head, "cpu")] * 2
    assert found[0][0] != pytest.approx(found[1][0], abs=1e-4)
    assert found[2] != found[3]


def test_speed_is_in_messages(gpt_classifier, monkeypatch):
    units, usual = [], training.training_steps

    def training_steps(*args, unit, **settings):
        units.append(unit)
        return usual(*args, unit=unit, **settings)

    monkeypatch.setattr(training, "training_steps", training_steps)
    loaders = loaders_of(create_feature_loader, gpt_classifier, 8)
    train(gpt_classifier.head, loaders, num_epochs=1)
    assert units == ["messages"]


def test_same_seed_same_training():
    runs = []
    for _ in range(2):
        classifier = seeded_classifier(seeded_model("GPT"), num_trained=2)
        loaders = loaders_of(create_feature_loader, classifier, 30)
        runs.append(train(classifier.head, loaders))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(gpt_classifier, value):
    loaders = loaders_of(create_feature_loader, gpt_classifier, 20)
    with torch.no_grad():
        gpt_classifier.head.out_head.bias[0] = value
    with pytest.raises(FloatingPointError, match="training failed"):
        train(gpt_classifier.head, loaders)


def test_training_works_in_float64(model):
    classifier = seeded_classifier(model).double()
    loaders = loaders_of(create_feature_loader, classifier, 20)
    losses = train(classifier.head, loaders)[0]
    assert all(map(math.isfinite, losses))
    assert {p.dtype for p in classifier.head.parameters()} == {torch.float64}


# accuracy


def told_batches():
    """Batches of 3, 1 and 2 rows, of whose answers 2, 0 and 2 are right."""
    rows = [([0, 1, 1], [0, 1, 0]), ([1], [0]), ([1, 0], [1, 0])]
    return [(torch.tensor(a)[:, None], torch.tensor(b)) for a, b in rows]


@pytest.mark.parametrize(
    ("num_batches", "expected"), [(None, 4 / 6), (1, 2 / 3), (2, 2 / 4), (9, 4 / 6)]
)
def test_accuracy_by_hand(num_batches, expected, device):
    """Over the examples, of which a short batch has fewer."""
    found = calc_accuracy_loader(told_batches(), Told(), device, num_batches)
    assert found == pytest.approx(expected)


def test_the_loss_of_an_empty_loader_is_nan():
    assert math.isnan(calc_loss_loader([], Told(), "cpu"))


def test_no_answers_have_no_accuracy():
    with pytest.raises(ValueError, match="the loader is empty"):
        calc_accuracy_loader([], Told(), "cpu")


def test_accuracy_is_read_at_the_last_place():
    class Two(Told):
        def forward(self, inputs):
            answers = super().forward(inputs)
            return torch.cat([answers.flip(-1), answers], dim=1)

    assert calc_accuracy_loader(told_batches(), Two(), "cpu") == pytest.approx(4 / 6)


def test_labels_may_lie_on_the_device_already(device):
    batches = [(inputs, labels.to(device)) for inputs, labels in told_batches()]
    assert calc_accuracy_loader(batches, Told(), device) == pytest.approx(4 / 6)


@pytest.mark.parametrize("training", [True, False])
def test_accuracy_is_taken_without_dropout_and_gradients(training):
    seen = []
    model = Told().train(training)
    model.register_forward_hook(
        lambda model, *_: seen.append((model.training, torch.is_grad_enabled()))
    )
    calc_accuracy_loader(told_batches(), model, "cpu")
    assert set(seen) == {(False, False)} and model.training is training


# pictures and answers


@pytest.mark.parametrize("label", ["loss", "accuracy"])
def test_both_curves_are_drawn(label):
    plot_values([0, 1, 2], [0, 50, 100], [9, 5, 2], [9, 7, 8], label=label)
    figure = matplotlib.pyplot.gcf()
    below, above = figure.axes
    assert [line.get_ydata().tolist() for line in below.lines] == [[9, 5, 2], [9, 7, 8]]
    assert [line.get_xdata().tolist() for line in below.lines] == [[0, 1, 2]] * 2
    assert [t.get_text() for t in below.get_legend().get_texts()] == [
        f"training {label}",
        f"validation {label}",
    ]
    assert below.get_ylabel() == label
    assert above.lines[0].get_xdata().tolist() == [0, 50, 100]
    matplotlib.pyplot.close(figure)


@pytest.mark.parametrize("training", [True, False])
def test_a_probability_is_the_softmax_of_the_logits(classifier, training):
    with torch.no_grad():
        expected = classifier(torch.tensor([[7, 4, 11]])).softmax(dim=-1)[0, 0, 1]
    classifier.train(training)
    found = spam_probability("hel", classifier, Letters(), "cpu")
    assert found == pytest.approx(expected.item(), abs=1e-6)
    assert classifier.training is training


def test_messages_have_different_probabilities(classifier):
    texts = ["hello", "olleh", "h", "helloyou"]
    found = [spam_probability(text, classifier, Letters(), "cpu") for text in texts]
    assert len({round(p, 6) for p in found}) == 4 and all(0 < p < 1 for p in found)


def test_a_classifier_pads_with_its_own_token(classifier):
    """Another vocabulary's id would be an unknown or, worse, a wrong word."""
    expected = spam_probability("hel", classifier, Letters(), "cpu")
    found = spam_probability("hel", classifier, Letters(), "cpu", max_length=9)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("max_length", [None, 3, 12])
def test_a_long_message_is_cut(gpt_classifier, max_length):
    """To the context of 12 tokens if nothing else is said."""
    text = "abcdefghijklmnopqrstuvwxyz"
    found, expected = (
        spam_probability(t, gpt_classifier, Letters(), "cpu", max_length)
        for t in (text, text[: max_length or 12])
    )
    assert found == expected


def test_an_empty_message_has_no_probability(gpt_classifier):
    with pytest.raises(ValueError, match="the message is empty: give a text"):
        spam_probability("", gpt_classifier, Letters(), "cpu")
    with pytest.raises(ValueError, match="the message is empty: give a text"):
        classify_review("", gpt_classifier, Letters(), "cpu")


def test_an_even_chance_is_not_spam(gpt_classifier):
    nn.init.zeros_(gpt_classifier.head.out_head.weight)
    nn.init.zeros_(gpt_classifier.head.out_head.bias)
    assert spam_probability("a", gpt_classifier, Letters(), "cpu") == 0.5
    assert classify_review("a", gpt_classifier, Letters(), "cpu") == "not spam"


def test_the_answer_agrees_with_the_probability(classifier):
    texts = ["".join(chr(97 + i * j % 23) for i in range(1, 9)) for j in range(1, 20)]
    for text in texts:
        is_spam = spam_probability(text, classifier, Letters(), "cpu") > 0.5
        said = classify_review(text, classifier, Letters(), "cpu")
        assert said == ("spam" if is_spam else "not spam")


# the book's chapter 6, as the book writes it


TEXTS = [
    "".join(chr(ord("a") + token_id % 7) for token_id in token_ids[1:])
    + "ah"[label]  # spam ends in an h
    for token_ids, label in toy_messages(64)
]


def book_dataset(texts=TEXTS, **settings):
    """Messages, padded, and their labels."""
    df = pd.DataFrame({"Text": texts})
    df["Label"] = df["Text"].str.endswith("h").astype(int)
    return SpamDataset(df, Letters(), pad_token_id=PAD, **settings)


@pytest.fixture
def book_model():
    """A GPT with another output layer, frozen but for its end."""
    model = seeded_model("GPT")
    for param in model.parameters():
        param.requires_grad = False
    torch.manual_seed(123)
    model.out_head = nn.Linear(in_features=16, out_features=2)
    for part in (model.trf_blocks[-1], model.final_norm):
        for param in part.parameters():
            param.requires_grad = True
    return model


def book_loaders(batch_size=8):
    """A loader to train on, and one of other messages whose last batch is short."""
    train_dataset = book_dataset(TEXTS[:40])
    val_dataset = book_dataset(TEXTS[40:61], max_length=train_dataset.max_length)
    train_loader = DataLoader(train_dataset, batch_size, shuffle=True, drop_last=True)
    val_loader = DataLoader(val_dataset, batch_size=batch_size, drop_last=False)
    return train_loader, val_loader


def book_logits(model, dataset):
    """The logits at the last position of each message's row: (num_messages, 2)."""
    with torch.no_grad():
        rows = torch.stack([token_ids for token_ids, _ in dataset])
        return model.eval()(rows)[:, -1]


def test_the_loss_is_read_at_the_last_position(book_model, device):
    dataset = book_dataset()
    token_ids, labels = next(iter(DataLoader(dataset, batch_size=len(dataset))))
    logits = book_logits(book_model, dataset)
    expected = nn.functional.cross_entropy(logits, labels)
    loss = calc_loss_batch(token_ids, labels, book_model.to(device), device)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_loss_of_a_loader_is_that_of_its_messages(book_model):
    """Each counts alike, also in a short batch; or those of the first batches."""
    _, val_loader = book_loaders()
    logits = book_logits(book_model, val_loader.dataset)
    labels = torch.tensor(val_loader.dataset.labels)
    for num_batches, num_messages in ((None, 21), (2, 16), (9, 21)):
        found = calc_loss_loader(val_loader, book_model, "cpu", num_batches=num_batches)
        expected = nn.functional.cross_entropy(
            logits[:num_messages], labels[:num_messages]
        )
        assert found == pytest.approx(expected.item(), rel=1e-5)


def test_an_evaluation_is_of_both_loaders_and_without_dropout(book_model):
    train_loader, val_loader = book_loaders()
    in_order = DataLoader(train_loader.dataset, batch_size=8)
    losses = evaluate_model(book_model.train(), in_order, val_loader, "cpu", 3)
    assert book_model.training
    book_model.eval()
    for loss, loader in zip(losses, (in_order, val_loader)):
        expected = calc_loss_loader(loader, book_model, "cpu", num_batches=3)
        assert loss == pytest.approx(expected, rel=1e-6)
    assert losses[0] != pytest.approx(losses[1])


def test_the_books_model_learns_and_is_asked_as_it_was_trained(book_model, device):
    model, (train_loader, val_loader) = book_model.to(device), book_loaders()
    before = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    torch.manual_seed(123)
    train_losses, val_losses, train_accs, val_accs, examples_seen = (
        train_classifier_simple(
            model,
            train_loader,
            val_loader,
            optimizer,
            device,
            num_epochs=12,
            eval_freq=30,
            eval_iter=5,
        )
    )
    assert len(train_losses) == len(val_losses) == 2
    assert len(train_accs) == len(val_accs) == 12 and examples_seen == 12 * 40
    assert train_losses[-1] < train_losses[0] and train_accs[-1] > train_accs[0]
    for (name, old), new in zip(before.named_parameters(), model.parameters()):
        learns = name.startswith(("trf_blocks.1", "final_norm", "out_head"))
        assert torch.equal(old, new) != learns, name
    max_length = train_loader.dataset.max_length
    logits = book_logits(model.cpu(), val_loader.dataset)
    said = ["spam" if spam > ham else "not spam" for ham, spam in logits.tolist()]
    assert set(said) == {"spam", "not spam"}
    for text, answer in zip(TEXTS[40:61], said):
        settings = {"max_length": max_length, "pad_token_id": PAD}
        assert classify_review(text, model, Letters(), "cpu", **settings) == answer


@pytest.mark.parametrize(("bias", "said"), [(50.0, "spam"), (-50.0, "not spam")])
def test_both_answers_are_given(book_model, bias, said, device):
    with torch.no_grad():
        book_model.out_head.bias[1] = bias
    book_model.to(device)
    for settings in ((), (12, PAD)):
        found = classify_review("hello", book_model, Letters(), device, *settings)
        assert found == said


@pytest.mark.parametrize("max_length", [9, 12])
def test_a_message_is_padded_or_cut_as_in_the_dataset(book_model, max_length):
    dataset = book_dataset(max_length=max_length)
    probabilities = book_logits(book_model, dataset).softmax(dim=-1)[:, 1]
    for text, expected in zip(TEXTS, probabilities.tolist()):
        settings = "cpu", max_length, PAD
        found = spam_probability(text, book_model, Letters(), *settings)
        assert found == pytest.approx(expected, abs=1e-5)


def test_padding_makes_a_difference_to_the_books_model_and_none_to_ours(book_model):
    ours = seeded_classifier(seeded_model("GPT"))
    for model, is_ours in ((book_model, False), (ours, True)):
        bare, padded_up = (
            spam_probability("abc", model, Letters(), "cpu", max_length, PAD)
            for max_length in (None, 12)
        )
        assert (bare == pytest.approx(padded_up, abs=1e-5)) == is_ours


@pytest.mark.parametrize("text", ["abc", "abcdefghijklmnop"])
@pytest.mark.parametrize("settings", [(), (12, PAD)])
def test_a_model_need_not_say_its_context(book_model, text, settings):
    """Other people's GPTs have no attribute for it, only embeddings of positions."""
    expected = spam_probability(text, book_model, Letters(), "cpu", *settings)
    del book_model.context_length
    book_model.forward = lambda idx: book_model.out_head(
        book_model.final_norm(
            book_model.trf_blocks(
                book_model.tok_emb(idx) + book_model.pos_emb.weight[: idx.shape[1]]
            )
        )
    )
    found = spam_probability(text, book_model, Letters(), "cpu", *settings)
    assert found == pytest.approx(expected, abs=1e-6)
    said = classify_review(text, book_model, Letters(), "cpu", *settings)
    assert said == ("spam" if found > 0.5 else "not spam")


def test_a_message_longer_than_the_context_is_refused_by_the_model(book_model):
    with pytest.raises(ValueError, match="13 tokens exceed context_length 12"):
        classify_review("abc", book_model, Letters(), "cpu", 13, PAD)


@pytest.mark.parametrize("is_ours", [False, True])
def test_lora_learns_by_the_same_functions(is_ours):
    """In appendix E all is frozen, and every linear layer has LoRA, the new one too."""
    model = seeded_model("GPT")
    if is_ours:
        model = seeded_classifier(model)
        adapted = model.head
    else:
        model.out_head = nn.Linear(16, 2)
        adapted = model
    for param in model.parameters():
        param.requires_grad = False
    replace_linear_with_lora(adapted, rank=4, alpha=8)
    before = {name: p.clone() for name, p in model.named_parameters()}
    train_loader, val_loader = book_loaders()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    losses, *_ = train_classifier_simple(
        model, train_loader, val_loader, optimizer, "cpu", 8, 10, 5
    )
    assert losses[-1] < losses[0]
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == adapter_parameters(model).keys()
    logits = book_logits(model, val_loader.dataset)
    merge_lora(model)
    merged = book_logits(model, val_loader.dataset)
    torch.testing.assert_close(merged, logits, atol=1e-4, rtol=1e-4)


def test_no_epoch_sees_no_example(gpt_classifier):
    loaders = loaders_of(create_token_loader, gpt_classifier, 8)
    assert train(gpt_classifier, loaders, num_epochs=0) == ([], [], [], [], 0)
