"""The command turns files or a data set into shards, or says what to mend."""

import argparse
import json
import os
import socket
import sys
from types import SimpleNamespace

import pytest
from filelock import FileLock

from ch02.tokenizer import BPETokenizer, get_tokenizer
from ch05.training import create_train_val_loaders
from support.commands import INTERRUPTED
from support.download.fetch import FetchError
from support.download.texts import STORY, load_text
from support.pretraining import command_tokenize
from support.pretraining.__main__ import main
from support.pretraining.command_tokenize import (
    add_tokenize_arguments,
    dataset_texts,
    tokenize_command,
)
from support.pretraining.shards import TokenShards, read_index

ROWS = [{"text": f"document {number}", "id": number} for number in range(20)]


@pytest.fixture
def folder(tmp_path):
    """Where the shards are to lie."""
    return tmp_path / "shards"


def run(folder, *words):
    """Do what `tokenize FOLDER WORDS...` asks for."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_tokenize_arguments(parser)
    args = parser.parse_intermixed_args([str(folder), *map(str, words)])
    tokenize_command(args)


@pytest.fixture
def asked(monkeypatch):
    """A stand-in for the package datasets; a list of what it is asked for."""
    calls = []

    def load_dataset(name, subset=None, **settings):
        calls.append((name, subset, settings))
        if name == "gone":
            raise ConnectionError("Couldn't reach 'gone' on the Hub")
        return iter(ROWS)

    monkeypatch.delenv("LLMS_OFFLINE", raising=False)
    stand_in = SimpleNamespace(load_dataset=load_dataset, config=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    return calls


def decoded(folder, split, tokenizer=None):
    """The text of all windows of one token; the last target, an end, left out."""
    windows = TokenShards(folder, split, max_length=1)
    ids = [windows[idx][0].item() for idx in range(len(windows))]
    return (tokenizer or get_tokenizer()).decode(ids)


def test_a_file_gives_the_windows_of_the_course(folder, capsys):
    run(folder, STORY)
    loaders = create_train_val_loaders(load_text(), context_length=32)
    for split, loader in zip(("train", "val"), loaders):
        windows = TokenShards(folder, split, max_length=32)
        for expected, found in zip(loader.dataset, windows):
            assert expected[0].tolist() == found[0].tolist()
            assert expected[1].tolist() == found[1].tolist()
        assert len(windows) - len(loader.dataset) in (0, 1)  # the end is a token more
    said, shown = capsys.readouterr()
    train, val = (TokenShards(folder, s, 32).num_tokens for s in ("train", "val"))
    tokens = f"{train:,} training tokens and {val:,} validation tokens"
    assert said == f"{folder} holds {tokens}\n"
    assert "100%" in shown and "B/s" in shown


def test_a_vocabulary_of_our_own(folder, tmp_path):
    tokenizer = BPETokenizer.train(load_text(), 300)
    tokenizer.save(tmp_path / "mine.json")
    run(folder, STORY, "--tokenizer", tmp_path / "mine.json", "--val-share", "0.5")
    assert read_index(folder)["vocab_size"] == 300
    text = load_text()
    assert decoded(folder, "train", tokenizer) == text[: len(text) // 2]
    assert decoded(folder, "val", tokenizer) == text[len(text) // 2 :]


def test_a_data_set_is_streamed(folder, asked):
    run(folder, "--dataset", "owner/name", "--subset", "small")
    streamed = {"data_files": None, "split": "train", "streaming": True}
    assert asked == [("owner/name", "small", streamed)]
    assert decoded(folder, "val") == "document 9<|endoftext|>document 19"
    rest = [row["text"] for row in ROWS if row["id"] not in (9, 19)]
    assert decoded(folder, "train") == "<|endoftext|>".join(rest)


def test_files_of_a_data_set_need_no_network(folder, asked, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    file = tmp_path / "rows.jsonl"
    file.write_text("{}\n")
    run(folder, file, "--dataset", "json")
    assert asked[0][2]["data_files"] == [str(file)]


def test_a_real_data_set(folder, tmp_path, monkeypatch):
    asked_for = []
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *host, **_: asked_for.append(host)
    )
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    run(folder, file, "--dataset", "json")
    assert decoded(folder, "val") == "document 9<|endoftext|>document 19"
    file.write_text("no rows", encoding="utf-8")
    with pytest.raises(ValueError, match="JSON"):
        run(tmp_path / "other", file, "--dataset", "json")
    assert not asked_for  # no server, not even to count what was read


@pytest.mark.parametrize(
    ("words", "kind", "reason"),
    [
        ([], ValueError, "nothing to tokenize: name files, or a data set on Hugging F"),
        (["--dataset", "json"], ValueError, "nothing to tokenize: name files"),
        (["none.txt"], ValueError, r"none\.txt cannot be read: No such file"),
        (
            [STORY, "--tokenizer", "gpt9"],
            ValueError,
            "gpt9 is not a file: give gpt2, or",
        ),
        ([STORY, "--tokenizer", STORY], ValueError, "is not a file that BPETokenizer"),
        (
            ["--dataset", "a", "--column", "id"],
            ValueError,
            "row 0 of a has no text in the column 'id'; its",
        ),
        (
            ["--dataset", "a", "--column", "x"],
            ValueError,
            "the column 'x'; its columns are .*: choose one with --column",
        ),
        (
            ["--dataset", "gone"],
            FetchError,
            "the data set gone cannot be read: Couldn't",
        ),
    ],
)
def test_what_a_reader_can_mend(folder, asked, words, kind, reason):
    with pytest.raises(kind, match=reason):
        run(folder, *words)
    assert not (folder / "shards.json").exists()


@pytest.mark.parametrize("share", ["-0.1", "1", "nan", "ten"])
def test_a_share_that_is_none(folder, share):
    with pytest.raises(
        argparse.ArgumentError, match="is not a number of at least 0 and below 1"
    ):
        run(folder, STORY, f"--val-share={share}")


def test_offline_no_data_set_is_asked_for(folder, asked, monkeypatch, tmp_path):
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    with pytest.raises(
        FetchError,
        match="LLMS_OFFLINE forbids downloading the data set a: unset it, or",
    ):
        run(folder, "--dataset", "a")
    assert asked == []
    run(folder, "--dataset", tmp_path)  # one that lies here
    assert asked[0][0] == str(tmp_path)


def test_no_row_is_read_before_it_is_wanted(asked):
    texts = dataset_texts("a", None, [], "text")
    assert asked == []
    assert next(texts) == "document 0"


def end_of_main(monkeypatch, *words):
    """What the whole command ends with: its exit status or its last message."""
    monkeypatch.setattr(sys, "argv", ["pretraining", "tokenize", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_being_stopped_says_how_to_continue(folder, monkeypatch, capsys):
    def stop(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_tokenize, "write_shards", stop)
    assert end_of_main(monkeypatch, folder, STORY) == INTERRUPTED
    said = "stopped; run the same command again to continue\n"
    assert capsys.readouterr().err == said


def test_a_full_disk_is_one_sentence(folder, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    said = end_of_main(monkeypatch, folder, STORY)
    assert said.startswith(f"error: the work in {folder} stopped: ")
    assert "No space left on device" in said and "Errno" not in said
    assert said.endswith("problem and run the same command again to continue")


def test_a_second_process_is_refused(folder, monkeypatch):
    folder.mkdir()
    with FileLock(folder / "shards.lock"):
        said = end_of_main(monkeypatch, folder, STORY)
    assert said == (
        f"error: another process is writing to {folder}: wait for it, stop it, or name "
        "another folder"
    )


ORDERS = {
    "names first": ["s", "a", "b", "--val-share", "0.2"],
    "names last": ["--val-share", "0.2", "s", "a", "b"],
    "an option behind the folder": ["s", "--val-share", "0.2", "a", "b"],
    "an option between the files": ["s", "a", "--val-share=0.2", "b"],
    "options everywhere": ["--column", "x", "s", "--val-share", "0.2", "a", "--", "b"],
    "all names marked": ["--val-share=0.2", "--", "s", "a", "b"],
}


@pytest.fixture
def parse(monkeypatch):
    """A function that returns what the command line gives to the command."""

    def parse(words):
        given = []
        command = add_tokenize_arguments, given.append
        monkeypatch.setitem(main.__globals__["COMMANDS"], "tokenize", command)
        monkeypatch.setattr(sys, "argv", ["pretraining", "tokenize", *words])
        main()
        return given[0]

    return parse


@pytest.mark.parametrize("words", ORDERS.values(), ids=ORDERS)
def test_options_may_be_anywhere(parse, words):
    args = parse(words)
    assert (args.folder, args.files, args.val_share) == ("s", ["a", "b"], 0.2)


@pytest.mark.parametrize(
    ("words", "folder", "files"),
    [
        (["s", "--column", "x", "--", "-a", "--column"], "s", ["-a", "--column"]),
        (["s", "a", "--", "-b"], "s", ["a", "-b"]),
        (["./-s", "./-a"], "./-s", ["./-a"]),
        (["s"], "s", []),
    ],
)
def test_names_may_begin_with_a_dash(parse, words, folder, files):
    args = parse(words)
    assert (args.folder, args.files) == (folder, files)


@pytest.mark.parametrize("words", [[], ["s", "--none", "a"], ["s", "-a"], ["--column"]])
def test_what_the_command_does_not_know_is_refused(parse, words):
    with pytest.raises(SystemExit) as end:
        parse(words)
    assert end.value.code == 2


def test_names_are_printed_on_one_line(tmp_path, capsys):
    folder = tmp_path / "a\nb\x1b[2J"
    run(folder, STORY)
    assert capsys.readouterr().out.startswith(f"{tmp_path}/a\\nb\\x1b[2J holds ")
    with pytest.raises(ValueError, match=r"none\\n\.txt cannot be read") as caught:
        run(folder, tmp_path / "none\n.txt")
    assert "\n" not in str(caught.value)
