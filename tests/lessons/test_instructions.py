"""Entries become prompts, prompts become batches, and nothing is lost on the way."""

import json
import os
from functools import partial
from itertools import cycle

import pytest
import torch
from torch.utils.data import DataLoader

from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.training import calc_loss_loader, train_model_simple
from ch06.bucketing import padding_share
from ch06.splits import words_of
from ch07.instructions import (
    KEYS,
    RESPONSE,
    InstructionDataset,
    create_instruction_loader,
    custom_collate_draft_1,
    custom_collate_draft_2,
    custom_collate_fn,
    download_and_load_file,
    format_input,
    format_prompt,
    format_question,
    split_entries,
)
from support.download.fetch import FetchError
from tests.server import serving

EOT = 50256
ENTRY = {"instruction": "Name a color.", "input": "", "output": "Blue."}
WITH_INPUT = {"instruction": "Make it plural.", "input": "goose", "output": "geese"}
BOOK_BATCH = ([0, 1, 2, 3, 4], [5, 6], [7, 8, 9])  # the book's example


def test_a_file_that_is_there_is_read_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    path = tmp_path / "data.json"
    path.write_text(json.dumps([ENTRY]), encoding="utf-8")
    assert download_and_load_file(path, "https://example.com/data.json") == [ENTRY]


def test_a_file_that_is_not_there_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    with pytest.raises(FetchError, match="LLMS_OFFLINE"):
        download_and_load_file(tmp_path / "data.json", "https://example.com/data.json")
    with pytest.raises(ValueError, match="data.json cannot be read: No such file"):
        download_and_load_file(tmp_path / "data.json")


def test_a_file_that_is_fetched_is_read(tmp_path, monkeypatch):
    with serving(monkeypatch) as server:
        url = server.mirror(body=json.dumps([ENTRY]).encode())
        for kind in (str, os.fsencode, lambda path: path):
            path = kind(tmp_path / "data.json")
            assert download_and_load_file(path, url) == [ENTRY]
        assert len(server.requests) == 1


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\n\n"])
def test_an_entry_on_each_line_will_do(tmp_path, mark, newline):
    path = tmp_path / "data.jsonl"
    text = mark + newline.join(map(json.dumps, [ENTRY, WITH_INPUT])) + newline
    path.write_bytes(text.encode())
    assert download_and_load_file(path) == [ENTRY, WITH_INPUT]


BAD_FILES = {
    b"": "is empty",
    b"<html>": "line 1 is not JSON",
    b"[{},\n{}\n": "line 3 is not JSON",
    b'{"instruction": "a"}\n{': "line 2 is not JSON",
    b"\xff\xfe[\x00]\x00": "is UTF-16 text",
    b'["na\xefve"]': "line 1: the byte 0xef is not UTF-8",
    b"[" * 100_000: "nested too deeply",
    None: "is a folder",
}


@pytest.mark.parametrize(("content", "reason"), BAD_FILES.items(), ids=range(8))
def test_a_file_that_cannot_be_read_is_one_sentence(
    tmp_path, monkeypatch, content, reason
):
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    path = tmp_path / "data.json"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=f"data.json.*{reason}") as caught:
        download_and_load_file(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"instruction": "a"}, "must contain a list of at least one entry"),
        ([], "must contain a list of at least one entry"),
        ([ENTRY, {"instruction": "a", "output": "b"}], "entry 1 has no text 'input'"),
        ([ENTRY | {"output": None}], "entry 0 has no text 'output'"),
        ([ENTRY | {"output": " "}], "entry 0 has an empty 'output'"),
        ([ENTRY | {"instruction": ""}], "entry 0 has an empty 'instruction'"),
        (["text"], "entry 0 is not a dict"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, data, reason):
    path = tmp_path / "data.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ValueError, match=reason):
        download_and_load_file(path)


@pytest.mark.parametrize("text", ["\0", "a \ud800 b", "\udfff", "\0\0 c", "\u2028"])
def test_odd_characters_in_entries_go_through(tmp_path, tokenizer, text):
    path = tmp_path / "data.json"
    odd = [
        {"instruction": f"{text}{i * 3}", "input": i * 5, "output": f"{i}{text}"}
        for i in "abc"
    ]
    path.write_text(json.dumps(odd), encoding="utf-8")
    data = download_and_load_file(path)
    assert data == odd
    assert len(InstructionDataset(data, tokenizer)) == sum(
        map(len, split_entries(data))
    )


def test_prompts_have_alpacas_form():
    assert format_input(ENTRY) == (
        "Below is an instruction that describes a task. Write a response that "
        "appropriately completes the request.\n\n### Instruction:\nName a color."
    )
    assert format_input(WITH_INPUT).endswith("Make it plural.\n\n### Input:\ngoose")
    assert format_prompt(ENTRY).endswith("Name a color.\n\n### Response:\n")
    assert format_question(ENTRY) == "Name a color."
    assert format_question(WITH_INPUT) == "Make it plural. goose"


def test_an_example_is_the_list_of_ids_of_prompt_and_answer(tokenizer):
    """As in the book, where both are one text."""
    dataset = InstructionDataset([ENTRY, WITH_INPUT], tokenizer)
    assert len(dataset) == 2
    for token_ids, entry in zip(dataset, (ENTRY, WITH_INPUT)):
        full_text = format_input(entry) + f"\n\n### Response:\n{entry['output']}"
        assert token_ids == tokenizer.encode(full_text)
        assert type(token_ids) is list


def test_with_its_prompt_masked_an_example_says_how_long_the_prompt_is(tokenizer):
    plain = InstructionDataset([ENTRY, WITH_INPUT], tokenizer)
    masked = InstructionDataset([ENTRY, WITH_INPUT], tokenizer, mask_prompt=True)
    for (token_ids, prompt_length), same, entry in zip(
        masked, plain, (ENTRY, WITH_INPUT), strict=True
    ):
        assert token_ids == same
        assert tokenizer.decode(token_ids[:prompt_length]) == format_prompt(entry)


def test_special_tokens_in_an_entry_are_plain_text(tokenizer):
    sly = ENTRY | {"instruction": "Say <|endoftext|>", "output": "<|endoftext|>"}
    assert EOT not in InstructionDataset([sly], tokenizer)[0]


def test_an_entry_longer_than_the_context_is_named(tokenizer):
    length = len(InstructionDataset([ENTRY], tokenizer)[0]) + 1  # end of text
    InstructionDataset([ENTRY], tokenizer, max_length=length)
    with pytest.raises(ValueError, match=rf"entry 1 has {length} tokens.*'Name a"):
        InstructionDataset([ENTRY | {"output": "B"}, ENTRY], tokenizer, length - 1)


def test_drafts_on_the_books_batch():
    assert custom_collate_draft_1(BOOK_BATCH).tolist() == [
        [0, 1, 2, 3, 4],
        [5, 6, EOT, EOT, EOT],
        [7, 8, 9, EOT, EOT],
    ]
    inputs, targets = custom_collate_draft_2(BOOK_BATCH)
    assert inputs.tolist() == custom_collate_draft_1(BOOK_BATCH).tolist()
    assert targets.tolist() == [
        [1, 2, 3, 4, EOT],
        [6, EOT, EOT, EOT, EOT],
        [8, 9, EOT, EOT, EOT],
    ]


def test_collate_on_the_books_batch():
    inputs, targets = custom_collate_fn(BOOK_BATCH)
    assert inputs.tolist() == custom_collate_draft_1(BOOK_BATCH).tolist()
    assert targets.tolist() == [
        [1, 2, 3, 4, EOT],
        [6, EOT, -100, -100, -100],
        [8, 9, EOT, -100, -100],
    ]


def test_only_the_answer_and_its_end_are_targets():
    inputs, targets = custom_collate_fn([([1, 2, 3, 4], 3), ([5, 6], 1)], 9, -1)
    assert inputs.tolist() == [[1, 2, 3, 4], [5, 6, 9, 9]]
    assert targets.tolist() == [[-1, -1, 4, 9], [6, 9, -1, -1]]


def test_padding_that_is_also_a_word_ends_only_once():
    """A 9 inside an answer is a target; a 9 behind the end is not."""
    _, targets = custom_collate_fn([([1, 9, 9], 1), ([2, 3, 4, 5, 6], 1)], 9, -1)
    assert targets[0].tolist() == [9, 9, 9, -1, -1]


def test_batches_are_cut():
    inputs, targets = custom_collate_fn(BOOK_BATCH, allowed_max_length=2)
    assert inputs.tolist() == [[0, 1], [5, 6], [7, 8]]
    assert targets.tolist() == [[1, 2], [6, EOT], [8, 9]]


def test_a_batch_without_targets_is_an_error_and_not_nan():
    batch = [([1, 2, 3, 4], 3), ([1, 2, 3], 3)]
    with pytest.raises(ValueError, match="is left when 2 entries are truncated to 2"):
        custom_collate_fn(batch, allowed_max_length=2)


def test_batches_come_on_the_device(device):
    for tensor in custom_collate_fn(BOOK_BATCH, device=device):
        assert tensor.device.type == device.type
    assert custom_collate_draft_1(BOOK_BATCH, device=device).device.type == device.type


@pytest.mark.parametrize("mask_prompt", [False, True])
def test_every_entry_comes_once_an_epoch(tokenizer, entries, mask_prompt):
    dataset = InstructionDataset(entries[:203], tokenizer, mask_prompt=mask_prompt)
    loader = create_instruction_loader(dataset, 8, EOT)
    num_targets = sum(map(len, dataset.encoded_texts))  # all but the first, and an end
    if mask_prompt:
        num_targets -= sum(length - 1 for length in dataset.prompt_lengths)
    for _ in range(2):
        batches = [*loader]
        assert sum((targets != -100).sum() for _, targets in batches) == num_targets
        rows = [row for inputs, _ in batches for row in inputs.tolist()]
        texts = [[token_id for token_id in row if token_id != EOT] for row in rows]
        assert sorted(texts) == sorted(dataset.encoded_texts)


def test_a_loader_fills_up_with_the_token_that_it_is_told(tokenizer, entries):
    """In the inputs behind the shorter rows, in the targets once, as each row's end."""
    pad, dataset = 50255, InstructionDataset(entries[:40], tokenizer)
    for inputs, targets in create_instruction_loader(dataset, 8, pad):
        lengths = [
            row.index(pad) if pad in row else len(row) for row in inputs.tolist()
        ]
        for row, wanted, length in zip(inputs.tolist(), targets.tolist(), lengths):
            assert row[length:] == [pad] * (len(row) - length)
            assert wanted[:length] == [*row[1:length], pad]
            assert set(wanted[length:]) <= {-100}
        assert min(lengths) < max(lengths) == inputs.shape[1]


def test_the_books_chapter_7(tokenizer, entries, capsys):
    """Lists of ids without categories, chapter 5's loss and loop, all targets."""
    data = [{key: entry[key] for key in KEYS} for entry in entries[:40]]
    customized_collate_fn = partial(
        custom_collate_fn, device=torch.device("cpu"), allowed_max_length=64
    )
    torch.manual_seed(123)
    train_loader, val_loader = (
        DataLoader(
            InstructionDataset(part, tokenizer),
            batch_size=8,
            collate_fn=customized_collate_fn,
            shuffle=is_training,
            drop_last=is_training,
            num_workers=0,
        )
        for part, is_training in ((data[:30], True), (data[30:], False))
    )
    inputs, targets = next(iter(train_loader))
    assert inputs.shape == targets.shape == (8, inputs.shape[1])
    assert inputs.shape[1] <= 64
    sizes = {"context_length": 64, "emb_dim": 16, "n_heads": 2, "n_layers": 1}
    model = GPTModel(GPT_CONFIG_124M | sizes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    before = calc_loss_loader(val_loader, model, "cpu", num_batches=5)
    train_losses, val_losses, tokens_seen = train_model_simple(
        model,
        train_loader,
        val_loader,
        optimizer,
        "cpu",
        num_epochs=2,
        eval_freq=5,
        eval_iter=5,
        start_context=format_input(data[30]),
        tokenizer=tokenizer,
    )
    assert len(train_losses) == len(val_losses) == len(tokens_seen) == 2
    assert calc_loss_loader(val_loader, model, "cpu") < before
    assert "Below is an instruction" in capsys.readouterr().out


@pytest.mark.parametrize("pad_token_id", [EOT, 7])
@pytest.mark.parametrize("ignore_index", [-100, -1])
@pytest.mark.parametrize("allowed_max_length", [None, 1, 3, 9])
def test_batches_of_lists_are_the_books(pad_token_id, ignore_index, allowed_max_length):
    """Row by row: shift by one, keep the first end, mark the others, then cut."""
    rows = [[11, 12, 13, 14], [21], [31, 32]]
    inputs, targets = custom_collate_fn(
        rows,
        pad_token_id=pad_token_id,
        ignore_index=ignore_index,
        allowed_max_length=allowed_max_length,
        device="cpu",
    )
    for row, found_inputs, found_targets in zip(rows, inputs, targets, strict=True):
        filled = row + [pad_token_id] * (4 - len(row))
        wanted = row[1:] + [pad_token_id] + [ignore_index] * (4 - len(row))
        assert found_inputs.tolist() == filled[:allowed_max_length]
        assert found_targets.tolist() == wanted[:allowed_max_length]


def test_little_is_padding(tokenizer, entries):
    dataset = InstructionDataset(split_entries(entries)[0], tokenizer)
    loader = create_instruction_loader(dataset, 8, EOT)
    lengths = [len(token_ids) for token_ids in dataset]
    assert padding_share(lengths, [*loader.batch_sampler]) < 0.03


def jaccard(first, second):
    """The share of words in both, of the words in either."""
    return len(first & second) / len(first | second)


@pytest.mark.parametrize("seed", [1, 123])
def test_parts_are_apart_and_alike_in_categories(entries, seed):
    train, validation, test = split_entries(entries, seed)
    assert sorted(map(str, train + validation + test)) == sorted(map(str, entries))
    for part, share in zip((train, validation, test), (0.85, 0.05, 0.10)):
        assert abs(len(part) - share * len(entries)) < 0.02 * len(entries)
    categories = {entry["category"] for entry in entries}
    assert {entry["category"] for entry in test} == categories
    known = [words_of(format_question(entry)) for entry in train]
    for entry in validation + test:
        words = words_of(format_question(entry))
        assert max(jaccard(words, other) for other in known) < 0.6


def test_alike_prompts_stay_together():
    """Of 100 pairs with three of five words in common, none is split."""
    names = [first + second for first in "abcdefghij" for second in "klmnopqrst"]
    data = [
        ENTRY | {"category": kind, "instruction": f"{name} {name}x {name}y {end}"}
        for name in names
        for kind, end in (("sums", "now"), ("words", "then"))
    ]
    for part in split_entries(data):
        found = [entry["instruction"][:2] for entry in part]
        assert all(found.count(name) == 2 for name in found)


def test_data_without_categories_are_split_too(entries):
    """The book's own have none."""
    plain = [{key: entry[key] for key in KEYS} for entry in entries]
    for part, share in zip(split_entries(plain), (0.85, 0.05, 0.10)):
        assert abs(len(part) - share * len(entries)) < 0.02 * len(entries)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [3, 5, 20, 41])
@pytest.mark.parametrize(
    "categories", [[], "a", "ab", range(4), range(100), ["a", None, 3, ["b"]]], ids=str
)
def test_few_entries_are_split_more_coarsely(number, categories):
    """One category or many, none, or such that are no texts: no part is empty."""
    texts = [f"{'a' * i} {'b' * i}" for i in range(1, number + 1)]
    data = [ENTRY | {"instruction": text} for text in texts]
    for entry, category in zip(data, cycle(categories)):
        entry["category"] = category
    parts = split_entries(data)
    assert sorted(map(str, sum(parts, []))) == sorted(map(str, data))
    assert len(parts[0]) >= len(parts[2]) >= len(parts[1]) >= 1


@pytest.mark.parametrize("number", [0, 1, 2, 30])
def test_entries_that_are_too_few_or_too_alike_are_refused(number):
    reason = f"^{number} texts cannot be split into three parts: near-copies"
    with pytest.raises(ValueError, match=reason):
        split_entries([ENTRY] * number)


def test_the_response_mark_stands_between(tokenizer):
    assert RESPONSE in format_prompt(ENTRY)
    assert not format_input(ENTRY).endswith(RESPONSE)
