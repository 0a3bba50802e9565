"""Losses are what they say, and the loop trains, reports and stops as promised."""

import copy
import math

import matplotlib
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from ch02.dataset import GPTDatasetV1
from ch02.tokenizer import BPETokenizer, get_tokenizer
from ch04.gpt import GPT_CONFIG_124M, DummyGPTModel, GPTModel
from ch05 import training
from ch05.recipe import train_model
from ch05.training import (
    calc_loss_batch,
    calc_loss_loader,
    context_size_of,
    create_train_val_loaders,
    evaluate_model,
    evaluating,
    generate_and_print_sample,
    has_targets,
    plot_losses,
    text_to_token_ids,
    token_ids_to_text,
    train_model_simple,
    training_steps,
)
from ch06.classifier import train_classifier_simple
from ch07.finetuning import finetune
from support.download.texts import load_text
from tests.conftest import TINY

matplotlib.use("Agg")
STORY_CONFIG = TINY | {"vocab_size": 300}


@pytest.fixture(scope="module")
def story_tokenizer():
    """A vocabulary of 300 tokens, small enough for a tiny model."""
    return BPETokenizer.train(load_text(), 300)


@pytest.fixture
def small_config(tiny_config, one_thread):
    """The tiny model with the story's vocabulary."""
    return tiny_config | {"vocab_size": 300}


def story_loader(tokenizer, num_characters, batch_size=4):
    """Batches of 12-token windows over the story's first characters, in order."""
    text = load_text()[:num_characters]
    dataset = GPTDatasetV1(text, tokenizer, max_length=12, stride=12)
    return torch.utils.data.DataLoader(dataset, batch_size=batch_size)


def held_out_loader(tokenizer, batch_size=4):
    """Batches of 12-token windows over the story's last 700 characters, in order."""
    dataset = GPTDatasetV1(load_text()[-700:], tokenizer, max_length=12, stride=12)
    return torch.utils.data.DataLoader(dataset, batch_size=batch_size)


def test_text_to_ids_and_back():
    tokenizer = get_tokenizer("gpt2")
    token_ids = text_to_token_ids("Every effort<|endoftext|>", tokenizer)
    assert token_ids.tolist() == [[6109, 3626, 50256]]
    assert token_ids.dtype == torch.int64
    assert token_ids_to_text(token_ids, tokenizer) == "Every effort<|endoftext|>"


def test_an_empty_text_gives_no_tokens():
    assert text_to_token_ids("", get_tokenizer("gpt2")).shape == (1, 0)


def test_loss_by_hand(tiny_model, token_ids, device):
    """Minus the mean of the logarithms of the right tokens' probabilities."""
    inputs, targets = token_ids[:, :-1], token_ids[:, 1:]
    probas = tiny_model(inputs).softmax(dim=-1)
    right = [
        probas[row, position, targets[row, position]].log().item()
        for row in range(2)
        for position in range(9)
    ]
    loss = calc_loss_batch(inputs, targets, tiny_model.to(device), device)
    assert loss.item() == pytest.approx(-sum(right) / 18, rel=1e-4)


def test_loader_loss_is_the_mean_over_tokens(small_config, story_tokenizer):
    """A short last batch counts by its tokens, not as much as a full one."""
    torch.manual_seed(123)
    model = GPTModel(small_config).eval()
    loader = story_loader(story_tokenizer, 1000)
    sizes = [len(inputs) for inputs, _ in loader]
    assert sizes[-1] < sizes[0]
    joined = [torch.cat(tensors) for tensors in zip(*loader)]
    expected = F.cross_entropy(model(joined[0]).flatten(0, 1), joined[1].flatten())
    assert calc_loss_loader(loader, model, "cpu") == pytest.approx(expected.item())


def test_loader_loss_over_the_first_batches(small_config, story_tokenizer):
    torch.manual_seed(123)
    model = GPTModel(small_config).eval()
    loader = story_loader(story_tokenizer, 1000)
    first = calc_loss_batch(*next(iter(loader)), model, "cpu").item()
    assert calc_loss_loader(loader, model, "cpu", 1) == pytest.approx(first)


def ignored(batch):
    """A batch with all of its targets ignored."""
    inputs, targets = batch
    return inputs, torch.full_like(targets, -100)


def test_a_batch_without_targets_does_not_count(tiny_model, token_ids):
    """It has no mean loss: PyTorch's is nan."""
    batch = token_ids[:, :-1], token_ids[:, 1:]
    assert calc_loss_batch(*ignored(batch), tiny_model, "cpu").isnan()
    expected = calc_loss_loader([batch], tiny_model, "cpu")
    for loader in ([ignored(batch), batch], [batch, ignored(batch)]):
        assert calc_loss_loader(loader, tiny_model, "cpu") == expected
        assert has_targets(loader)
    assert math.isnan(calc_loss_loader([ignored(batch), batch], tiny_model, "cpu", 1))
    assert not has_targets([ignored(batch), batch], num_batches=1)


def test_a_single_target_is_enough(tiny_model, token_ids):
    inputs, targets = ignored((token_ids, token_ids))
    targets[1, 3] = 7
    assert has_targets([(inputs, targets)])
    assert math.isfinite(calc_loss_loader([(inputs, targets)], tiny_model, "cpu"))


def test_a_loader_without_targets_has_no_loss(tiny_model, token_ids):
    """As in the book, where the loader is empty."""
    for loader in ([], [ignored((token_ids, token_ids))]):
        assert math.isnan(calc_loss_loader(loader, tiny_model, "cpu"))
        assert not has_targets(loader)


def test_train_and_validation_text_do_not_overlap():
    text = load_text()
    train_loader, val_loader = create_train_val_loaders(text, context_length=64)
    decode = get_tokenizer("gpt2").decode
    train = decode(train_loader.dataset.input_ids.flatten().tolist())
    val = decode(val_loader.dataset.input_ids.flatten().tolist())
    assert text.startswith(train)
    assert text[int(0.9 * len(text)) :].startswith(val)


@pytest.mark.parametrize(
    ("settings", "batch_size", "share"),
    [({}, 2, 0.9), ({"batch_size": 3, "train_ratio": 0.75}, 3, 0.75)],
)
def test_loaders_cut_the_text_into_windows(settings, batch_size, share):
    """To train on, whole batches in any order; to validate on, all windows in order."""
    text, encode = load_text()[:6000], get_tokenizer("gpt2").encode
    loaders = create_train_val_loaders(text, context_length=16, **settings)
    split_idx = int(share * len(text))
    windows = []
    for part in (text[:split_idx], text[split_idx:]):
        ids = encode(part)
        starts = range(0, len(ids) - 16, 16)
        windows.append([(ids[i : i + 16], ids[i + 1 : i + 17]) for i in starts])
    train, val = windows
    assert len(train) % batch_size and len(val) % batch_size  # some are left over
    epochs = []
    for loader in (loaders[0], *loaders):
        batches = [list(zip(*(part.tolist() for part in batch))) for batch in loader]
        assert {len(batch) for batch in batches[:-1]} == {batch_size}
        epochs.append(sum(batches, []))
    *shuffled, in_order = epochs
    assert in_order == val
    for epoch in shuffled:
        assert len(epoch) == len(train) - len(train) % batch_size
        assert all(window in train for window in epoch) and epoch != train[: len(epoch)]
    assert shuffled[0] != shuffled[1]


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_uses_no_dropout_and_restores_the_mode(
    small_config, story_tokenizer, training
):
    torch.manual_seed(123)
    model = GPTModel(small_config).train(training)
    loaders = story_loader(story_tokenizer, 1000), held_out_loader(story_tokenizer)
    found = evaluate_model(model, *loaders, "cpu", eval_iter=2)
    assert model.training is training
    model.eval()
    expected = [calc_loss_loader(loader, model, "cpu", 2) for loader in loaders]
    assert list(found) == expected and found[0] != pytest.approx(found[1], abs=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_switches_dropout_off_and_restores_the_mode(
    tiny_model, token_ids, training
):
    tiny_model.train(training)
    with evaluating(tiny_model):
        assert not any(module.training for module in tiny_model.modules())
        assert torch.equal(tiny_model(token_ids), tiny_model(token_ids))
    assert all(module.training is training for module in tiny_model.modules())


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_restores_the_mode_after_an_exception(tiny_model, training):
    tiny_model.train(training)
    with pytest.raises(KeyError), evaluating(tiny_model):
        raise KeyError
    assert all(module.training is training for module in tiny_model.modules())


NO_TARGETS = "the loader is empty or no target counts"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("place", ["training", "validation"])
@pytest.mark.parametrize("kind", ["empty", "ignored", "diverged"])
def test_an_evaluation_that_fails_says_why(
    tiny_model, token_ids, training, place, kind
):
    """The message names the loader; the model gets its mode back."""
    batch = token_ids, token_ids
    bad, reason = {
        "empty": ([], NO_TARGETS),
        "ignored": ([ignored(batch)], NO_TARGETS),
        "diverged": ([batch, batch], "training failed"),
    }[kind]
    losses = iter([1.0, math.inf] if place == "training" else [1.0, 1.0, math.inf, 1.0])

    def calc_loss(*_):
        return torch.tensor(next(losses))

    loaders = (bad, [batch]) if place == "training" else ([batch, batch], bad)
    tiny_model.train(training)
    with pytest.raises(FloatingPointError, match=f"the {place} loss is .*: {reason}"):
        evaluate_model(tiny_model, *loaders, "cpu", None, calc_loss)
    assert tiny_model.training is training


def test_evaluation_keeps_no_gradients(small_config, story_tokenizer):
    torch.manual_seed(123)
    model = GPTModel(small_config)
    loaders = story_loader(story_tokenizer, 1000), held_out_loader(story_tokenizer)
    grad_modes = []
    model.register_forward_hook(lambda *_: grad_modes.append(torch.is_grad_enabled()))
    evaluate_model(model, *loaders, "cpu", eval_iter=1)
    assert grad_modes == [False, False] and torch.is_grad_enabled()


def test_a_sample_is_printed(small_config, story_tokenizer, capsys):
    torch.manual_seed(123)
    model = GPTModel(small_config)
    generate_and_print_sample(model, story_tokenizer, "cpu", "High water")
    assert capsys.readouterr().out.startswith("High water")
    assert model.training


ANY_MODELS = {
    "GPT": lambda: GPTModel(STORY_CONFIG),
    "dummy": lambda: DummyGPTModel(STORY_CONFIG),
    "two layers": lambda: nn.Sequential(nn.Embedding(300, 8), nn.Linear(8, 300)),
    "compiled": lambda: torch.compile(GPTModel(STORY_CONFIG), backend="eager"),
}


@pytest.mark.parametrize("name", ANY_MODELS)
def test_a_sample_of_any_module(name, story_tokenizer, capsys):
    """It needs token ids to logits, and no attribute of a GPT."""
    torch.manual_seed(123)
    model = ANY_MODELS[name]()
    generate_and_print_sample(model, story_tokenizer, "cpu", "High water")
    said = capsys.readouterr().out.rstrip("\n")
    idx = text_to_token_ids("High water", story_tokenizer)
    model.eval()
    for _ in range(50):
        window = idx if name == "two layers" else idx[:, -12:]
        idx = torch.cat((idx, model(window)[:, -1:].argmax(dim=-1)), dim=1)
    assert said == token_ids_to_text(idx, story_tokenizer).replace("\n", " ")


def test_a_model_says_how_much_it_can_look_at(tiny_model):
    assert context_size_of(tiny_model, default=5) == 12
    del tiny_model.context_length  # the book's model has its position embedding alone
    assert context_size_of(tiny_model, default=5) == 12
    del tiny_model.pos_emb
    assert context_size_of(tiny_model, default=5) == 5
    tiny_model.context_length = 7  # and Llama's has none
    assert context_size_of(tiny_model, default=5) == 7


def train(model, loader, tokenizer, device="cpu", lr=1e-2, num_epochs=2):
    """Train a small model, evaluating on each third step, and on the story's end."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    settings = {"eval_freq": 3, "eval_iter": 2, "start_context": "High water"}
    return train_model_simple(
        model,
        loader,
        held_out_loader(tokenizer),
        optimizer,
        device,
        num_epochs=num_epochs,
        tokenizer=tokenizer,
        **settings,
    )


def test_training_learns_and_reports(small_config, story_tokenizer, device, capsys):
    torch.manual_seed(123)
    model = GPTModel(small_config).to(device)
    loader = story_loader(story_tokenizer, 2000)
    steps = 4 * len(loader)
    train_losses, val_losses, tokens_seen = train(
        model, loader, story_tokenizer, device, num_epochs=4
    )
    assert len(train_losses) == len(val_losses) == len(tokens_seen)
    assert len(tokens_seen) == math.ceil(steps / 3)
    assert tokens_seen[:2] == [48, 4 * 48]
    assert train_losses[-1] < train_losses[0] - 1
    said = capsys.readouterr().out
    assert f"Ep 1 (Step 000000): Train loss {train_losses[0]:.3f}, Val loss" in said
    assert said.count("High water") == 4


def test_losses_are_of_their_own_loaders(small_config, story_tokenizer, capsys):
    """Without learning they stay; a sample follows each epoch's last step."""
    torch.manual_seed(123)
    model = GPTModel(small_config | {"drop_rate": 0.5})
    loaders = story_loader(story_tokenizer, 1000), held_out_loader(story_tokenizer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    settings = {"num_epochs": 2, "eval_freq": 2, "eval_iter": 3}
    settings |= {"start_context": "High water", "tokenizer": story_tokenizer}
    found = train_model_simple(model, *loaders, optimizer, "cpu", **settings)
    said = capsys.readouterr().out.rstrip("\n").split("\n")
    model.eval()
    losses = [calc_loss_loader(loader, model, "cpu", 3) for loader in loaders]
    assert losses[0] != pytest.approx(losses[1], abs=1e-3)
    generate_and_print_sample(model, story_tokenizer, "cpu", "High water")
    sample, expected = capsys.readouterr().out.rstrip("\n"), []
    in_an_epoch = len(loaders[0])
    assert in_an_epoch % 2 == 1  # the epochs' last steps are of both kinds
    for step in range(2 * in_an_epoch):
        if step % 2 == 0:
            place = f"Ep {1 + step // in_an_epoch} (Step {step:06d})"
            shown = f"Train loss {losses[0]:.3f}, Val loss {losses[1]:.3f}"
            expected.append(f"{place}: {shown}")
        if step in (in_an_epoch - 1, 2 * in_an_epoch - 1):
            expected.append(sample)
    assert said == expected
    for track, loss in zip(found, losses):
        assert track == pytest.approx(in_an_epoch * [loss])


def test_same_seed_same_run(small_config, story_tokenizer):
    runs = []
    for _ in range(2):
        torch.manual_seed(123)
        model = GPTModel(small_config)
        runs.append(train(model, story_loader(story_tokenizer, 1000), story_tokenizer))
    assert runs[0] == runs[1]


def test_a_loss_that_is_not_finite_stops_the_run(small_config, story_tokenizer):
    torch.manual_seed(123)
    model = GPTModel(small_config)
    loader = story_loader(story_tokenizer, 1000)
    with pytest.raises(FloatingPointError, match="training failed"):
        train(model, loader, story_tokenizer, lr=float("inf"))


def steps_of(model, loader, num_epochs=3):
    """The training steps of a model, by gradient descent."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return training_steps(model, loader, optimizer, "cpu", num_epochs)


def three_batches(token_ids):
    """Batches of 2, 2 and 1 rows of nine tokens."""
    rows = token_ids[:, :-1], token_ids[:, 1:]
    return [rows, rows, tuple(tensor[:1] for tensor in rows)]


def test_each_step_tells_its_epoch_and_all_targets_so_far(tiny_model, token_ids):
    found = [*steps_of(tiny_model, three_batches(token_ids), num_epochs=2)]
    assert found == [(0, 18), (0, 36), (0, 45), (1, 63), (1, 81), (1, 90)]


def test_ignored_targets_are_not_counted(tiny_model, token_ids):
    """Of 18 targets 11 are left over; a target of -99 would be a wrong one."""
    inputs, targets = token_ids[:, :-1], token_ids[:, 1:].clone()
    targets[0, :7] = -100
    loader = [(inputs, targets), (inputs[1:], targets[1:])]
    assert [*steps_of(tiny_model, loader, num_epochs=1)] == [(0, 11), (0, 20)]
    losses = [calc_loss_batch(*batch, tiny_model.eval(), "cpu") for batch in loader]
    found = calc_loss_loader(loader, tiny_model, "cpu")
    assert found == pytest.approx(((11 * losses[0] + 9 * losses[1]) / 20).item())


def test_no_epochs_are_no_steps(tiny_model, token_ids):
    before = [p.clone() for p in tiny_model.parameters()]
    assert [*steps_of(tiny_model, three_batches(token_ids), num_epochs=0)] == []
    assert all(map(torch.equal, before, tiny_model.parameters()))


def test_a_caller_that_stops_early_has_trained_so_far(tiny_config, token_ids):
    """Two steps, each of its own gradient, as by hand."""
    torch.manual_seed(123)
    model = GPTModel(tiny_config | {"drop_rate": 0.0})
    by_hand = copy.deepcopy(model)
    loader = three_batches(token_ids)
    steps = steps_of(model.eval(), loader)
    assert next(steps) == (0, 18) and model.training
    assert next(steps) == (0, 36)
    steps.close()
    for inputs, targets in loader[:2]:
        loss = calc_loss_batch(inputs, targets, by_hand, "cpu")
        gradients = torch.autograd.grad(loss, [*by_hand.parameters()])
        with torch.no_grad():
            for parameter, gradient in zip(by_hand.parameters(), gradients):
                parameter -= 0.1 * gradient
    for found, expected in zip(model.parameters(), by_hand.parameters()):
        torch.testing.assert_close(found, expected)
    assert [*steps] == []


def test_nothing_is_trained_before_it_is_asked_for(tiny_model, token_ids):
    before = [p.clone() for p in tiny_model.parameters()]
    steps_of(tiny_model, three_batches(token_ids))
    assert all(map(torch.equal, before, tiny_model.parameters()))


class Clock:
    """A clock that a test moves on, in the place of the module `time`."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


class Bars:
    """Keeps the progress bars that are made, in the place of tqdm."""

    def __init__(self):
        self.made = []

    def __call__(self, *args, **settings):
        self.made.append(tqdm(*args, **settings, disable=True))
        bar = self.made[-1]
        bar.said, bar.is_closed = [], False
        bar.set_postfix_str = lambda text, refresh: bar.said.append(text)
        bar.close = lambda: setattr(bar, "is_closed", True)
        return bar

    write = staticmethod(tqdm.write)


@pytest.fixture
def bars(monkeypatch):
    """The progress bars of a training run."""
    bars = Bars()
    monkeypatch.setattr(training, "tqdm", bars)
    return bars


def test_speed_is_that_of_the_steps_alone(tiny_model, token_ids, bars, monkeypatch):
    """18 targets in 2 seconds; the caller's 100 seconds between steps do not count."""
    clock = Clock()
    monkeypatch.setattr(training, "time", clock)

    def add_gradients(*batch):
        training.add_gradients(*batch)
        clock.now += 2.0

    loader = three_batches(token_ids)[:2]
    optimizer = torch.optim.SGD(tiny_model.parameters(), lr=0.1)
    run = tiny_model, loader, optimizer, "cpu", 2
    for _ in training_steps(*run, unit="words", add_gradients=add_gradients):
        clock.now += 100.0
    assert bars.made[0].said == 4 * ["9 words/s"]


def test_the_bar_is_closed_at_the_end(tiny_model, token_ids, bars):
    assert len([*steps_of(tiny_model, three_batches(token_ids))]) == 9
    assert [(bar.total, bar.is_closed) for bar in bars.made] == [(9, True)]


def test_the_bar_is_closed_when_the_caller_stops(tiny_model, token_ids, bars):
    steps = steps_of(tiny_model, three_batches(token_ids))
    next(steps)
    assert not bars.made[0].is_closed
    steps.close()
    assert bars.made[0].is_closed


def test_the_bar_is_closed_when_a_step_fails(tiny_model, token_ids, bars):
    steps = steps_of(tiny_model, [(token_ids + 101, token_ids)])
    with pytest.raises(IndexError) as error:  # no such ids; the error keeps the frames
        next(steps)
    assert bars.made[0].is_closed and error


class Letters:
    """A tokenizer of capital letters: their codes are in the tiny vocabulary."""

    def encode(self, text, allowed_special=()):
        return [ord(letter) for letter in text]

    def decode(self, ids):
        return "".join(map(chr, ids))


class Promises(list):
    """A loader that says it has a batch, and gives none."""

    def __len__(self):
        return 1


LOOPS = {
    "train_model_simple": lambda *run: train_model_simple(*run, 1, 1, "A", Letters()),
    "train_model": lambda *run: train_model(*run, 1, 1, "A", Letters(), 0),
    "train_classifier_simple": lambda *run: train_classifier_simple(*run, 1, 1),
    "finetune": lambda *run: finetune(*run, 1),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_the_bar_is_closed_when_an_evaluation_fails(loop, tiny_model, token_ids, bars):
    """While the error, and so the generator, is still held."""
    targets = token_ids[:, 0] if loop == "train_classifier_simple" else token_ids
    batch = token_ids, targets
    optimizer = torch.optim.SGD(tiny_model.parameters(), lr=0.1)
    with pytest.raises(FloatingPointError, match="loss is nan: the loader") as error:
        LOOPS[loop](tiny_model, [batch], Promises(), optimizer, "cpu", 2)
    assert [bar.is_closed for bar in bars.made] == [True] and error


def test_losses_are_drawn_and_saved(tmp_path):
    plot_losses([0, 1, 2], [0, 50, 100], [9, 5, 2], [9, 7, 8], path=tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    below, above = matplotlib.pyplot.gcf().axes
    training, validation = below.lines
    for line, losses in ((training, [9, 5, 2]), (validation, [9, 7, 8])):
        assert line.get_xydata().tolist() == [*map(list, zip([0, 1, 2], losses))]
    assert training.get_linestyle() != validation.get_linestyle()
    legend = [text.get_text() for text in below.get_legend().get_texts()]
    assert legend == ["training", "validation"]
    assert (below.get_xlabel(), below.get_ylabel()) == (
        "epochs",
        "loss (nats per token)",
    )
    assert all(place == int(place) for place in below.get_xticks())
    (hidden,) = above.lines
    assert hidden.get_xdata().tolist() == [0, 50, 100] and hidden.get_alpha() == 0
    assert above.get_xlabel() == "tokens seen"
    matplotlib.pyplot.close()


def test_losses_can_be_drawn_without_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plot_losses([0, 1], [0, 50], [9, 5], [9, 7])
    assert not [*tmp_path.iterdir()]
    matplotlib.pyplot.close()


def test_untrained_losses_on_the_verdict_are_the_books(verdict_file):
    """10.988 and 10.981, as the book prints them for this text and these seeds."""
    text = load_text(verdict_file)
    torch.manual_seed(123)
    loaders = create_train_val_loaders(text, context_length=256)
    torch.manual_seed(123)
    model = GPTModel(GPT_CONFIG_124M | {"context_length": 256})
    losses = evaluate_model(model, *loaders, "cpu", eval_iter=None)
    assert losses == pytest.approx((10.988, 10.981), abs=0.001)
