"""An assistant is trained, saved and loaded, and answers in a terminal."""

import io
import math
import re
import sys
from functools import partial

import pytest
import torch

from ch02.tokenizer import get_tokenizer
from ch05.decoding import generate
from ch07.finetuning import calc_shared_prefix_loss, halve_frozen
from ch07.instructions import format_prompt
from ch07.lora import adapter_parameters, merge_lora, replace_linear_with_lora
from support.apps import assistant, chat, train_and_save
from support.apps.assistant import (
    add_lora,
    create_instruction_loaders,
    load_assistant,
    load_split_entries,
    save_assistant,
)
from support.apps.chat import stream_answer
from support.apps.train_and_save import fingerprint
from support.commands import INTERRUPTED
from support.device.device import fast_dtype
from support.weights.checkpoint import save_weights
from tests.conftest import count_hashing
from tests.support.test_spam_filter import CONFIG, Shelf

pytestmark = pytest.mark.usefixtures("one_thread")
EOT = 50256
ENTRY = {"instruction": "Name a color.", "input": ""}


@pytest.fixture(autouse=True)
def shelf(monkeypatch):
    """Tiny models in the pretrained ones' place, on a CPU."""
    shelf = Shelf()
    monkeypatch.setattr(assistant, "load_pretrained", shelf.load)
    monkeypatch.setattr(train_and_save, "load_pretrained", shelf.load)
    monkeypatch.setenv("LLMS_DEVICE", "cpu")
    return shelf


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Where the assistant is to lie, and is looked for."""
    path = tmp_path / "checkpoints" / "assistant.safetensors"
    monkeypatch.setattr(assistant, "ASSISTANT", path)
    monkeypatch.setattr(chat, "ASSISTANT", path)
    return path


def adapted(shelf):
    """A tiny model with LoRA layers as if trained, and its tokenizer."""
    pretrained = shelf.load()
    replace_linear_with_lora(pretrained.model, **assistant.LORA)
    torch.manual_seed(6)
    for parameter in adapter_parameters(pretrained.model).values():
        torch.nn.init.normal_(parameter, std=0.1)
    return pretrained.model, pretrained.tokenizer


@pytest.fixture
def saved(path, shelf):
    """The path of an assistant that was saved."""
    save_assistant(path, adapted(shelf)[0], "tiny", **assistant.LORA)
    return path


def prompt_ids(tokenizer):
    """The ids that a model sees of ENTRY."""
    return tokenizer.encode_ordinary(format_prompt(ENTRY))


def talk(monkeypatch, typed):
    """`python -m support.apps.chat` in this process; its exit code or message, or 0."""
    monkeypatch.setattr(sys, "argv", ["support.apps.chat"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    try:
        chat.main()
    except SystemExit as stopped:
        return stopped.code
    return 0


def test_an_assistant_comes_back_merged(path, shelf):
    model, tokenizer = adapted(shelf)
    ids = torch.tensor([prompt_ids(tokenizer)])
    expected = model(ids)
    save_assistant(path, model, "tiny", **assistant.LORA)
    loaded, same_tokenizer = load_assistant(path)
    assert same_tokenizer is tokenizer
    assert adapter_parameters(loaded) == {} and not loaded.training
    torch.testing.assert_close(loaded(ids), expected, rtol=1e-4, atol=1e-4)


def test_a_loaded_assistant_is_frozen_weights_and_biases_alike(saved):
    loaded, _ = load_assistant(saved)
    assert not [name for name, p in loaded.named_parameters() if p.requires_grad]


def test_a_file_is_read_through_once_when_it_is_loaded(saved, monkeypatch):
    """Its seal vouches for its metadata and for its matrices."""
    hashed = count_hashing(monkeypatch)
    load_assistant(saved)
    assert len(hashed) == 1


def test_a_fingerprint_is_of_the_pretrained_numbers_alone(shelf):
    model = shelf.load().model
    expected = fingerprint(model)
    add_lora(model, seed=5)
    assert fingerprint(model) == expected
    halve_frozen(model)
    assert fingerprint(model) == expected
    with torch.no_grad():
        next(model.trf_blocks[-1].norm2.parameters())[0] += 0.1
    assert fingerprint(model) != expected


def test_only_lora_is_written(saved, shelf):
    model, _ = adapted(shelf)
    num_bytes = sum(4 * p.numel() for p in adapter_parameters(model).values())
    assert num_bytes <= saved.stat().st_size < num_bytes + 9000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path, shelf: path.write_bytes(b"no"), "error: .* is damaged"),
        (
            lambda path, shelf: save_weights(path, {}, {}),
            "error: .* is not an assistant's file: .*run `python -m support.apps.assis",
        ),
        (
            lambda path, shelf: setattr(shelf, "seed", 124),
            "error: .* another version of tiny",
        ),
    ],
    ids=["file", "content", "model"],
)
def test_what_is_wrong_with_an_assistant_is_said(
    saved, shelf, monkeypatch, change, message
):
    change(saved, shelf)
    assert re.match(message, str(talk(monkeypatch, "Hello\n")))


def test_without_an_assistant_the_command_says_how_to_train_one(path, monkeypatch):
    command = "python -m support.apps.assistant"
    said = talk(monkeypatch, "Hello\n")
    assert said == f"no assistant has been trained yet: run `{command}` first"


def test_a_talk(saved, monkeypatch, capsys):
    """Each line is answered as `generate` answers it; an empty one ends the talk."""
    monkeypatch.setattr("builtins.input", lambda _: sys.stdin.readline())
    code = talk(monkeypatch, "Name a color.\n\nNot read\n")
    assert code == 0
    model, tokenizer = load_assistant(saved)
    prompt = prompt_ids(tokenizer)
    row = generate(model, [prompt], 100, 128, eos_id=EOT)[0]
    said = capsys.readouterr().out
    assert said == f"{chat.WELCOME}\n{tokenizer.decode(row[len(prompt) :])}\n"


@pytest.mark.parametrize(
    ("stop", "status"), [(EOFError, 0), (KeyboardInterrupt, INTERRUPTED)]
)
def test_a_talk_ends_in_a_line_at_most(saved, monkeypatch, capsys, stop, status):
    def interrupted(_):
        raise stop

    monkeypatch.setattr("builtins.input", interrupted)
    assert talk(monkeypatch, "") == status
    said = capsys.readouterr()
    assert said.out == f"{chat.WELCOME}\n"
    assert said.err.endswith("stopped\n" if status else "")


def scripted(monkeypatch, token_ids):
    """Let the model say these ids, one a step."""
    monkeypatch.setattr(
        chat, "generate_stream", lambda *_, **__: ([i] for i in token_ids)
    )


@pytest.mark.parametrize("text", ["Blue, of course.", "naïve 🦙 café", "日本", ""])
def test_pieces_are_whole_characters(shelf, monkeypatch, text):
    tokenizer = get_tokenizer("gpt2")
    scripted(monkeypatch, tokenizer.encode_ordinary(text))
    pieces = [*stream_answer(shelf.load().model, tokenizer, ENTRY)]
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_an_answer_streams_and_stops_at_the_end_of_text(shelf):
    model, tokenizer = adapted(shelf)
    merge_lora(model)
    first = next(stream_answer(model, tokenizer, ENTRY, max_new_tokens=3))
    token_id = generate(model, [prompt_ids(tokenizer)], 1, 128)[0][-1]
    assert first == tokenizer.decode([token_id])
    with pytest.raises(ValueError, match="top_k is 0"):  # before the first piece
        stream_answer(model, tokenizer, ENTRY, top_k=0)
    ends_at_once = partial(stream_answer, model, tokenizer, ENTRY)
    with torch.no_grad():
        model.out_head.weight[EOT] = 1e3 * model.out_head.weight[token_id]
    assert [*ends_at_once()] == []


def test_parts_become_loaders(shelf):
    tokenizer = get_tokenizer("gpt2")
    parts = load_split_entries()
    loaders = create_instruction_loaders(parts, tokenizer, 256)
    assert [len(loader.dataset) for loader in loaders] == [len(p) for p in parts]
    for inputs, targets in loaders[1]:
        assert inputs.shape == targets.shape
        assert len(inputs) <= assistant.BATCH_SIZE
    num_targets = sum((targets != -100).sum().item() for _, targets in loaders[1])
    answers = [tokenizer.encode_ordinary(entry["output"]) for entry in parts[1]]
    assert num_targets == sum(len(answer) + 1 for answer in answers)  # with its end


def test_it_is_trained_as_notebook_7_6_does(path, monkeypatch):
    """On so many entries as are wanted; evaluated four times on the validation part."""
    calls, parts = [], load_split_entries()
    monkeypatch.setitem(CONFIG, "context_length", 256)
    monkeypatch.setattr(train_and_save, "fast_math", lambda device: None)
    monkeypatch.setattr(
        assistant, "finetune", lambda *args, **settings: calls.append((args, settings))
    )
    assistant.train_assistant(path, num_train=40, num_epochs=3)
    assistant.train_assistant(path)
    for (args, settings), num_train, epochs in zip(calls, (40, len(parts[0])), (3, 2)):
        model, *loaders, optimizer, device, num_epochs, eval_freq = args
        assert loaders[0].dataset.data == parts[0][:num_train]
        assert loaders[1].dataset.data == parts[1]
        for loader in loaders:
            assert loader.dataset.mask_prompt and loader.batch_sampler.batch_size == 16
        assert num_epochs == epochs
        assert eval_freq == math.ceil(epochs * len(loaders[0]) / 4)
        dtype = fast_dtype(device)
        assert settings == {"dtype": dtype, "calc_loss": calc_shared_prefix_loss}
        (group,) = optimizer.param_groups
        assert (group["lr"], group["weight_decay"]) == (1e-3, 0.1)
        learning = {id(p) for p in model.parameters() if p.requires_grad}
        assert {id(p) for p in group["params"]} == learning
        lora = model.trf_blocks[0].att.W_query.lora
        assert (lora.rank, lora.alpha) == (16, 32)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.9, "top_k": 3}])
def test_an_answer_is_drawn_as_it_is_told(shelf, monkeypatch, settings):
    told = {}

    def generate_stream(model, prompts, *args, **sampling):
        told.update(sampling, args=args)
        return iter([])

    monkeypatch.setattr(chat, "generate_stream", generate_stream)
    model = shelf.load().model
    assert [*stream_answer(model, get_tokenizer("gpt2"), ENTRY, **settings)] == []
    expected = {"args": (100, model.context_length), "eos_id": EOT}
    assert told == expected | settings


def test_an_assistant_is_trained(path, shelf, usual_precision, monkeypatch, capsys):
    entries = load_split_entries()[0][:40]
    monkeypatch.setattr(
        assistant, "load_split_entries", lambda: (entries, entries[:8], [])
    )
    monkeypatch.setitem(CONFIG, "context_length", 256)
    monkeypatch.setattr(sys, "argv", ["support.apps.assistant", "--seed", "7"])
    assistant.main()
    said = capsys.readouterr().out
    assert said.endswith(f" s of training\nwrote {path}\n")
    untrained = shelf.load().model
    trained, _ = load_assistant(path)
    changed = untrained.trf_blocks[0].att.W_query.weight
    assert not torch.equal(trained.trf_blocks[0].att.W_query.weight, changed)
    assert torch.equal(trained.tok_emb.weight, untrained.tok_emb.weight)
