"""A filter is trained, saved with a hash of its model, loaded, and used in a shell."""

import io
import json
import re
import sys
from functools import partial

import pytest
import torch

from ch02.tokenizer import get_tokenizer
from ch04.gpt import GPTModel
from ch06.classifier import calc_accuracy_loader, spam_probability
from ch06.spam import SAMPLE, read_messages, split_messages
from support.apps import spam_filter, train_and_save
from support.apps.spam_filter import create_classifier, load_classifier, save_classifier
from support.weights.checkpoint import save_model, save_weights
from support.weights.pretrained import Pretrained
from tests.conftest import TINY, count_hashing

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = TINY | {"vocab_size": 50257, "context_length": 128}
TEXTS = ["Back by six", "Free entry! Text WIN to 80123", "a", "ok " * 200]


class Shelf:
    """Stands in for `load_pretrained`; `seed` decides which model lies there."""

    def __init__(self):
        self.seed, self.asked = 123, []

    def load(self, name="auto", *, device="cpu"):
        """A tiny GPT whose weights make a difference, under the name of "tiny"."""
        self.asked.append(name)
        torch.manual_seed(self.seed)
        model = GPTModel(CONFIG).eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                parameter.normal_(mean=float("scale" in key), std=0.3)
        return Pretrained(model.to(device), get_tokenizer("gpt2"), "tiny", "", CONFIG)


@pytest.fixture(autouse=True)
def shelf(monkeypatch):
    """Tiny models in the pretrained ones' place, on a CPU."""
    shelf = Shelf()
    monkeypatch.setattr(spam_filter, "load_pretrained", shelf.load)
    monkeypatch.setattr(train_and_save, "load_pretrained", shelf.load)
    monkeypatch.setenv("LLMS_DEVICE", "cpu")
    return shelf


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Where the filter is to lie, and is looked for."""
    path = tmp_path / "checkpoints" / "spam.safetensors"
    monkeypatch.setattr(spam_filter, "SPAM_FILTER", path)
    here = partial(load_classifier, path)
    monkeypatch.setattr(spam_filter, "load_classifier", here)
    return path


@pytest.fixture
def saved(path, shelf):
    """The path of a filter that was saved."""
    save_classifier(path, create_classifier(shelf.load(), seed=5), "tiny")
    shelf.asked.clear()
    return path


def probabilities(classifier, tokenizer):
    """What a filter says of some texts."""
    return [spam_probability(text, classifier, tokenizer, "cpu") for text in TEXTS]


def ask(monkeypatch, *arguments, typed=b""):
    """`python -m support.apps.spam_filter ask`: its exit code or message, or 0."""
    monkeypatch.setattr(sys, "argv", ["support.apps.spam_filter", "ask", *arguments])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed)))
    try:
        spam_filter.main()
    except SystemExit as stopped:
        return stopped.code
    return 0


def said_of(capsys):
    """Map each text in the output to (answer, probability)."""
    said = {}
    for line in capsys.readouterr().out.splitlines():
        answer, text = line.split("%  ", maxsplit=1)
        said[text] = answer[:8].strip(), float(answer[8:]) / 100
    return said


# saving and loading


@pytest.mark.parametrize("num_trained", [1, 2])
def test_a_filter_comes_back(path, shelf, num_trained):
    pretrained = shelf.load()
    classifier = create_classifier(pretrained, num_trained, seed=5)
    with torch.no_grad():
        for parameter in classifier.head.parameters():
            parameter += 0.1  # as if trained
    expected = probabilities(classifier, pretrained.tokenizer)
    save_classifier(path, classifier, "tiny")
    loaded, same_tokenizer = load_classifier(path)
    assert probabilities(loaded, same_tokenizer) == expected
    assert len(loaded.head.trf_blocks) == num_trained
    assert shelf.asked == ["auto", "tiny"]
    assert len({round(p, 5) for p in expected}) == len(TEXTS)


def test_only_the_head_is_written(saved, shelf):
    head = create_classifier(shelf.load()).head
    num_bytes = 4 * sum(p.numel() for p in head.parameters())
    assert num_bytes <= saved.stat().st_size < num_bytes + 5000


def test_seeds_draw_the_new_output_layer(shelf):
    first, same, other = (
        create_classifier(shelf.load(), seed=seed).head.out_head.weight
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_a_filter_loads_onto_each_device(saved, device):
    classifier, tokenizer = load_classifier(saved, device)
    assert {p.device.type for p in classifier.parameters()} == {device.type}
    expected = spam_probability(TEXTS[1], *load_classifier(saved), "cpu")
    found = spam_probability(TEXTS[1], classifier, tokenizer, device)
    assert found == pytest.approx(expected, abs=1e-3)


def test_no_filter_is_no_damaged_one(path):
    with pytest.raises(FileNotFoundError):
        load_classifier(path)


@pytest.mark.parametrize("place", [0.001, 0.5, 1.0])
def test_a_flipped_bit_is_seen(saved, place):
    content = bytearray(saved.read_bytes())
    content[round(place * (len(content) - 1))] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="spam.safetensors is damaged"):
        load_classifier(saved)


def test_a_file_is_read_through_once_when_it_is_loaded(saved, monkeypatch):
    hashed = count_hashing(monkeypatch)
    load_classifier(saved)
    assert len(hashed) == 1


def test_another_model_under_the_same_name_is_refused(saved, shelf):
    load_classifier(saved)
    shelf.seed = 124
    with pytest.raises(
        ValueError, match="trained on another version of tiny than .*train again"
    ):
        load_classifier(saved)


def test_a_filter_of_the_first_versions_is_loaded_with_a_warning(path, shelf, capsys):
    """They saved the logits of a message instead of a fingerprint."""
    classifier = create_classifier(shelf.load(), seed=5)
    logits = json.dumps([0.5, -0.5])
    cfg = {"pretrained": "tiny", "num_trained": 1}
    save_model(path, classifier.head, cfg, logits=logits)
    loaded, tokenizer = load_classifier(path)
    assert probabilities(loaded, tokenizer) == probabilities(classifier, tokenizer)
    said = capsys.readouterr().out
    assert f"{path} comes from an earlier version of this course" in said
    assert "so it may not belong to the tiny that is here. If it answers badly" in said
    assert "run `python -m support.apps.spam_filter` to train again\n" in said


# the command line


def test_messages_are_judged_one_a_line(saved, monkeypatch, capsys):
    classifier, tokenizer = load_classifier(saved)
    texts = [text.strip() for text in TEXTS]
    assert ask(monkeypatch, *texts) == 0
    said = said_of(capsys)
    assert [*said] == texts
    for text, (answer, share) in said.items():
        expected = spam_probability(text, classifier, tokenizer, "cpu")
        assert share == pytest.approx(expected, abs=6e-4)
        assert answer == ("spam" if expected > 0.5 else "not spam")


@pytest.mark.parametrize(("bias", "answer"), [(40.0, "spam"), (-40.0, "not spam")])
def test_both_answers_are_given(path, shelf, monkeypatch, capsys, bias, answer):
    classifier = create_classifier(shelf.load())
    with torch.no_grad():
        classifier.head.out_head.bias[1] = bias
    save_classifier(path, classifier, "tiny")
    assert ask(monkeypatch, "hello") == 0
    assert said_of(capsys) == {"hello": (answer, float(bias > 0))}


def test_a_file_or_standard_input_is_read_by_lines(
    saved, monkeypatch, tmp_path, capsys
):
    """Blank lines are no messages; a last line may lack its end."""
    lines = "Only £5 today\n\n  \nsee you é\nlast"
    file = tmp_path / "messages.txt"
    file.write_text(lines, encoding="utf-8")
    assert ask(monkeypatch, "--file", str(file)) == 0
    found = said_of(capsys)
    assert [*found] == ["Only £5 today", "see you é", "last"]
    assert ask(monkeypatch, typed=lines.encode()) == 0
    assert said_of(capsys) == found


def test_messages_as_arguments_leave_standard_input_alone(saved, monkeypatch, capsys):
    assert ask(monkeypatch, "one", typed=b"two\n") == 0
    assert [*said_of(capsys)] == ["one"]


def test_arguments_on_both_sides_of_a_file_are_all_judged(
    saved, monkeypatch, tmp_path, capsys
):
    file = tmp_path / "messages.txt"
    file.write_text("two\n", encoding="utf-8")
    assert ask(monkeypatch, "one", "--file", str(file), "three") == 0
    assert [*said_of(capsys)] == ["one", "three", "two"]


def test_without_a_filter_the_command_says_how_to_train_one(path, monkeypatch):
    command = "python -m support.apps.spam_filter"
    said = ask(monkeypatch, "hello")
    assert said == f"no filter has been trained yet: run `{command}` first"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path, shelf: path.write_bytes(b"no"), "error: .* is damaged"),
        (
            lambda path, shelf: save_weights(path, {}, {}),
            "error: the config .* is not the expected one: .* keys pretrained, num_t",
        ),
        (
            lambda path, shelf: setattr(shelf, "seed", 124),
            "error: .* another version of tiny",
        ),
    ],
    ids=["file", "content", "model"],
)
def test_what_is_wrong_with_a_filter_is_said(
    saved, shelf, monkeypatch, change, message
):
    change(saved, shelf)
    said = ask(monkeypatch, "hello")
    assert re.match(message, str(said))


def test_an_empty_message_is_an_error_in_words(saved, monkeypatch):
    assert "the message is empty: give a text" in ask(monkeypatch, "")


def test_a_file_that_is_not_utf_8_is_an_error_in_words(saved, monkeypatch, tmp_path):
    (tmp_path / "latin.txt").write_bytes("£5".encode("latin-1"))
    assert "latin.txt, line 1: the byte 0xa3 is not UTF-8" in ask(
        monkeypatch, "--file", str(tmp_path / "latin.txt")
    )


def test_a_file_of_messages_that_is_not_there_is_named(saved, monkeypatch, capsys):
    said = ask(monkeypatch, "--file", "nowhere.txt")
    assert said == "error: nowhere.txt cannot be read: No such file or directory"


def test_a_filter_is_trained_and_asked(
    path, shelf, usual_precision, monkeypatch, tmp_path, capsys
):
    """On the sample, as where there is no network."""
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    monkeypatch.setenv("LLMS_DOWNLOADS", str(tmp_path / "empty"))
    monkeypatch.setattr(sys, "argv", ["support.apps.spam_filter", "--seed", "7"])
    spam_filter.main()
    said = capsys.readouterr().out
    assert "404 messages from sample.tsv" in said and f"wrote {path}" in said
    untrained = create_classifier(shelf.load(), seed=7)
    trained, tokenizer = load_classifier(path)
    parts = split_messages(read_messages(SAMPLE))[:3]
    train, validation, test = (
        calc_accuracy_loader(loader, trained.head, "cpu")
        for loader in spam_filter.create_loaders(trained, tokenizer, parts, "cpu")
    )
    assert f"test accuracy {test:.1%}\n" in said
    assert len({f"{share:.1%}" for share in (train, validation, test)}) == 3
    for old, new in zip(untrained.head.parameters(), trained.head.parameters()):
        assert not torch.equal(old, new)
    for old, new in zip(untrained.trunk.parameters(), trained.trunk.parameters()):
        assert torch.equal(old, new)
    assert ask(monkeypatch, "Win a free prize") == 0


def test_it_is_trained_as_notebook_6_7_does(path, monkeypatch):
    """On the training part; losses are of it and of the validation part."""
    calls = []
    monkeypatch.setattr(spam_filter, "load_messages", lambda: read_messages(SAMPLE))
    monkeypatch.setattr(train_and_save, "fast_math", lambda device: None)
    monkeypatch.setattr(
        spam_filter,
        "train_classifier_simple",
        lambda *args, **settings: calls.append((args, settings)),
    )
    spam_filter.train_filter(path)
    (((head, *loaders, optimizer, _, num_epochs), settings),) = calls
    for loader, part in zip(loaders, split_messages(read_messages(SAMPLE))):
        assert [label.item() for _, label in loader.dataset] == part["Label"].tolist()
        assert loader.batch_sampler.batch_size == 8
    assert (num_epochs, settings) == (5, {"eval_freq": 50, "eval_iter": 5})
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (4e-4, 0.1)
    assert {id(p) for p in group["params"]} == {id(p) for p in head.parameters()}


def test_the_model_to_train_on_may_be_named(path, shelf, monkeypatch):
    class Enough(Exception):
        """Nothing more is to be computed."""

    def stop(*_, **__):
        raise Enough

    monkeypatch.setenv("LLMS_OFFLINE", "1")
    monkeypatch.setenv("LLMS_DOWNLOADS", str(path.parent))
    monkeypatch.setattr(train_and_save, "fast_math", lambda device: None)
    monkeypatch.setattr(spam_filter, "create_loaders", stop)
    monkeypatch.setattr(
        sys, "argv", ["support.apps.spam_filter", "--model", "smollm2-135M"]
    )
    with pytest.raises(Enough):
        spam_filter.main()
    assert shelf.asked == ["smollm2-135M"]
