"""What was trained is saved: there, elsewhere, or at least returned to the caller."""

import errno
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from ch05 import pretrain as script
from ch07.lora import adapter_parameters
from support.apps import assistant, spam_filter, train_and_save
from support.weights import sources
from support.weights.checkpoint import load_model, load_parameters, save_model
from support.weights.pretrained import load_pretrained
from support.weights.saving import check_can_save, save_or_fall_back
from tests.support.test_local import tiny_story  # noqa: F401
from tests.support.test_spam_filter import CONFIG, Shelf

pytestmark = pytest.mark.usefixtures("one_thread")
ERRORS = [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO]


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """A folder for temporary files and a home, for the test alone."""
    for name in ("temporary", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def fail_in(monkeypatch):
    """fail_in(error, *folders): nothing can be written to those any more."""

    def fail(error, *folders):
        def check(path):
            if any(Path(path).is_relative_to(folder) for folder in folders):
                raise OSError(error, os.strerror(error), str(path))

        def replace(source, target, real=os.replace):
            check(target)
            real(source, target)

        def mkdir(path, *args, real=os.mkdir, **kwargs):
            check(path)
            real(path, *args, **kwargs)

        def check_writable(path, _):
            check(path)

        def savefig(figure, path, *_, **__):
            check(path)
            Path(path).write_bytes(b"a plot")

        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(os, "mkdir", mkdir)
        monkeypatch.setattr("support.weights.saving.check_writable", check_writable)
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)

    return fail


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("num_full", [0, 1, 2, 3])
def test_a_model_is_kept_where_it_can_be(
    tmp_path, tiny_model, tiny_config, capsys, fail_in, error, num_full
):
    path = tmp_path / "course" / "a.safetensors"
    places = [tmp_path / name for name in ("course", "temporary", "home")]
    fail_in(error, *places[:num_full])
    is_kept = save_or_fall_back(
        path, lambda place: save_model(place, tiny_model, tiny_config)
    )
    assert is_kept == (num_full == 0)
    found = [file for place in places for file in place.rglob("*") if file.is_file()]
    said = capsys.readouterr().out
    if num_full == 3:
        assert not found and "it will be lost when this process ends" in said
        return
    assert [file.name for file in found] == [path.name]
    assert found[0].is_relative_to(places[num_full])
    load_model(found[0])
    if num_full:
        assert f"is saved as {found[0]} instead" in said
        assert os.strerror(error) in said and str(path.parent) in said
    left = [folder for place in places[:num_full] for folder in place.glob("*")]
    assert not left


def test_where_nothing_could_be_saved_no_empty_folder_stays(tmp_path, capsys):
    def save(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert not save_or_fall_back(tmp_path / "course" / "a.png", save)
    for folder in ("temporary", "home"):
        assert not any((tmp_path / folder).iterdir())
    *reasons, last = capsys.readouterr().out.splitlines()
    assert last.startswith("a.png could not be saved anywhere: it will be lost")
    assert reasons[0] == (
        f"{tmp_path}/course/a.png cannot be written: No space left on device"
    )
    assert len(reasons) == 3


@pytest.mark.parametrize(
    "name", ["os.fsync", "pathlib.Path.mkdir", "support.download.files.allocate"]
)
def test_a_target_is_tried_out(tmp_path, monkeypatch, name):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    check_can_save(tmp_path / "a" / "b")
    monkeypatch.setattr(name, fail)
    with pytest.raises(OSError, match="nothing was trained.*No space left on device"):
        check_can_save(tmp_path / "a" / "b")
    assert not any((tmp_path / "a").iterdir())


def test_a_folder_is_no_target(tmp_path):
    with pytest.raises(ValueError, match="is a folder, and a file is expected"):
        check_can_save(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file/b cannot be written"):
        check_can_save(tmp_path / "file" / "b")


# the functions that train


@pytest.fixture
def spam(tmp_path, monkeypatch):
    """A filter is trained on nothing, in a folder of its own."""
    monkeypatch.setattr(train_and_save, "load_pretrained", Shelf().load)
    monkeypatch.setattr(train_and_save, "fast_math", lambda device: None)
    monkeypatch.setattr(spam_filter, "load_messages", list)
    monkeypatch.setattr(spam_filter, "split_messages", lambda _: [[], [], []])
    monkeypatch.setattr(spam_filter, "create_loaders", lambda *_: [[], [], []])
    monkeypatch.setattr(spam_filter, "calc_accuracy_loader", lambda *_: 1.0)
    monkeypatch.setattr(spam_filter, "train_head", lambda *_: None)
    monkeypatch.setenv("LLMS_DEVICE", "cpu")


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """An assistant is fine-tuned on nothing."""
    monkeypatch.setattr(assistant, "load_pretrained", Shelf().load)
    monkeypatch.setattr(train_and_save, "load_pretrained", Shelf().load)
    monkeypatch.setattr(train_and_save, "fast_math", lambda device: None)
    monkeypatch.setattr(assistant, "load_split_entries", lambda: ([], [], []))
    monkeypatch.setattr(assistant, "create_instruction_loaders", lambda *_: [[], []])
    monkeypatch.setattr(assistant, "finetune", lambda *_, **__: None)
    monkeypatch.setenv("LLMS_DEVICE", "cpu")


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("kind", ["spam", "helper"])
def test_nothing_is_loaded_where_nothing_can_be_kept(
    request, tmp_path, monkeypatch, fail_in, kind, error
):
    request.getfixturevalue(kind)
    fail = lambda *_, **__: pytest.fail("loaded")  # noqa: E731
    monkeypatch.setattr(train_and_save, "load_pretrained", fail)
    fail_in(error, tmp_path / "course")
    train = {"spam": spam_filter.train_filter, "helper": assistant.train_assistant}
    with pytest.raises(OSError, match="nothing was trained"):
        train[kind](tmp_path / "course" / "a.safetensors")


@pytest.fixture
def sizes(monkeypatch):
    """The sizes for which there has to be room, in the order of the checks."""
    asked = []
    note = lambda path, num_bytes: asked.append(num_bytes)  # noqa: E731
    monkeypatch.setattr("support.weights.saving.check_writable", note)
    return asked


def test_room_for_all_that_is_trained_is_asked_for_first(
    spam, helper, tmp_path, monkeypatch, sizes
):
    known = []
    train = lambda *_, **__: known.append(sizes[-1])  # noqa: E731
    monkeypatch.setattr(spam_filter, "train_head", train)
    monkeypatch.setattr(assistant, "finetune", train)
    path = tmp_path / "a.safetensors"
    for train_one in (spam_filter.train_filter, assistant.train_assistant):
        train_one(path)
        with safe_open(path, "pt") as file:
            tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
        assert known.pop() == sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("module", [spam_filter, assistant])
def test_a_command_that_saved_elsewhere_says_so_and_fails(
    spam, helper, tmp_path, monkeypatch, fail_in, module
):
    course = tmp_path / "course"
    train = lambda *_, **__: fail_in(errno.EROFS, course)  # noqa: E731
    monkeypatch.setattr(spam_filter, "train_head", train)
    monkeypatch.setattr(assistant, "finetune", train)
    for name in ("spam_filter.SPAM_FILTER", "assistant.ASSISTANT"):
        monkeypatch.setattr(f"support.apps.{name}", course / "a.safetensors")
    monkeypatch.setattr(sys, "argv", [module.__name__])
    ends = []
    for _ in range(2):  # the second time, the folder is read-only from the start
        with pytest.raises(SystemExit) as stopped:
            module.main()
        ends.append(stopped.value.code)
    assert ends[0].startswith("error: the model was not saved to its usual file")
    assert ends[1].startswith("error: nothing was trained")


@pytest.mark.parametrize("error", ERRORS)
def test_a_filter_that_was_trained_is_returned(spam, tmp_path, monkeypatch, error):
    def fail_now(*_, **__):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(
        spam_filter, "train_head", lambda *_: monkeypatch.setattr(os, "fsync", fail_now)
    )
    path = tmp_path / "course" / "spam.safetensors"
    classifier, _, is_saved = spam_filter.train_filter(path)
    assert not is_saved and classifier.head.out_head.out_features == 2


def test_a_filter_is_kept_elsewhere(spam, tmp_path, monkeypatch, fail_in, capsys):
    train = lambda *_: fail_in(errno.EROFS, tmp_path / "course")  # noqa: E731
    monkeypatch.setattr(spam_filter, "train_head", train)
    path = tmp_path / "course" / "spam.safetensors"
    classifier, _, is_saved = spam_filter.train_filter(path)
    (found,) = (tmp_path / "temporary").rglob("spam.safetensors")
    assert not is_saved and str(found) in capsys.readouterr().out
    load_parameters(found, dict(classifier.head.named_parameters()))


def test_an_assistant_is_kept_elsewhere(helper, tmp_path, monkeypatch, fail_in, capsys):
    path = tmp_path / "course" / "assistant.safetensors"
    train = lambda *_, **__: fail_in(errno.EROFS, tmp_path / "course")  # noqa: E731
    monkeypatch.setattr(assistant, "finetune", train)
    model, _, is_saved = assistant.train_assistant(path)
    assert not is_saved and adapter_parameters(model)
    (found,) = (tmp_path / "temporary").rglob("assistant.safetensors")
    assert str(found) in capsys.readouterr().out
    assistant.load_assistant(found)


@pytest.fixture
def run_story(tmp_path, monkeypatch):
    """run_story(at_the_end): `python -m ch05.pretrain` trains nothing, then calls it.

    Returns the models that were trained, and the message with which the command ended.
    """
    trained = []

    def run(at_the_end):
        def train(model, *_):
            at_the_end()
            trained.append(model)
            return [3.0], [4.0], [2]

        monkeypatch.setattr(script, "train_model_simple", train)
        with pytest.raises(SystemExit) as stopped:
            script.main()
        return trained, stopped.value.code

    monkeypatch.setattr(sys, "argv", ["ch05.pretrain"])
    monkeypatch.setattr(script, "LOCAL", tmp_path / "course/models/local.safetensors")
    monkeypatch.setattr(script, "PLOT", tmp_path / "course" / "train_plot.png")
    monkeypatch.setattr(script, "CONFIG", CONFIG)
    monkeypatch.setattr(script, "fast_math", lambda device: None)
    monkeypatch.setattr(script, "print_losses", lambda *_: None)
    monkeypatch.setattr(script, "generate_and_print_sample", lambda *_: None)
    monkeypatch.setenv("LLMS_DEVICE", "cpu")
    return run


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", ["models", "train_plot.png"])
def test_the_story_run_loses_neither_weights_nor_plot(
    tmp_path, run_story, fail_in, capsys, name, error
):
    course = tmp_path / "course"
    (model,), said = run_story(lambda: fail_in(error, course / name))
    assert "not all results" in said
    assert os.strerror(error) in capsys.readouterr().out
    (found,) = tmp_path.rglob("local.safetensors")
    assert torch.equal(load_model(found)[0].tok_emb.weight, model.tok_emb.weight)
    assert found.is_relative_to(course) == (name == "train_plot.png")
    (plot,) = tmp_path.rglob("train_plot.png")
    assert plot.is_relative_to(course) == (name == "models")


@pytest.mark.parametrize("name", ["models", "train_plot.png"])
def test_the_story_run_checks_its_folder_first(tmp_path, run_story, fail_in, name):
    fail_in(errno.EROFS, tmp_path / "course" / name)
    trained, said = run_story(lambda: None)
    assert not trained and said.startswith("error: nothing was trained")


def test_the_story_run_asks_for_room_for_all_weights(run_story, sizes):
    _, known = run_story(lambda: sys.exit(sizes[-1]))
    assert known == sum(p.numel() * 4 for p in script.GPTModel(CONFIG).parameters())


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.usefixtures("tiny_story")
def test_local_is_trained_though_it_cannot_be_kept(
    tmp_path, monkeypatch, fail_in, capsys, error
):
    course = tmp_path / "course"
    monkeypatch.setattr(sources, "LOCAL", course / "local.safetensors")
    fail_in(error, course)
    trained = load_pretrained("local")
    assert not trained.model.training and trained.source == "checkpoint"
    said = capsys.readouterr().out
    assert (
        "The model could not be saved, so it will be trained again next time: " in said
    )
    assert not course.exists()
