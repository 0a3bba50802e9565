"""Shards hold the texts' tokens, whole and the same however often a run was killed."""

import errno
import json
import os
import signal
import time
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from random import Random

import numpy as np
import pytest
from filelock import FileLock, Timeout
from hypothesis import given, settings
from hypothesis import strategies as st

from ch02.tokenizer import BPETokenizer, get_tokenizer
from support.download.json_files import write_sealed
from support.download.texts import load_text
from support.download.vocabulary import SINGLE_BYTES
from support.pretraining import writer as shard_writer
from support.pretraining.chunks import group_pieces, split_texts
from support.pretraining.shards import ID_TYPES, SPLITS, read_index, shard_path
from support.pretraining.writer import write_shards

STORY = load_text()
TEXTS = STORY.split("\n\n")[:60]
FOLDER_ERROR = "the texts are not those that .* was started with"


@pytest.fixture(autouse=True, scope="module")
def no_waiting():
    """Nothing waits for the disk: no test here takes the machine's power away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="module")
def small_tokenizer():
    """A BPETokenizer of 300 tokens."""
    return BPETokenizer.train(STORY, 300)


@pytest.fixture
def folder(tmp_path):
    """Where the shards are to lie."""
    return tmp_path / "shards"


def write(folder, tokenizer, texts=TEXTS, val_share=0.2, characters=1000):
    """Write the shards of texts, so many characters in a group."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_writer, "GROUP_CHARACTERS", characters)
        return write_shards(split_texts(texts, val_share), folder, tokenizer)


def shards_of(folder, split):
    """The token ids of each shard of a split."""
    index = read_index(folder)
    return [
        np.fromfile(shard_path(folder, split, number), ID_TYPES[index["dtype"]])
        for number in range(len(index["shards"][split]))
    ]


def documents(folder, split, tokenizer):
    """The texts of a split, read from its shards."""
    index = read_index(folder)
    found, ids = [], []
    for token_id in [i for shard in shards_of(folder, split) for i in shard.tolist()]:
        if token_id == index["eot_id"]:
            found.append(tokenizer.decode(ids))
            ids = []
        else:
            ids.append(token_id)
    assert ids == []
    return found


def contents(folder):
    """What a folder holds, the lock left out: {name: bytes}."""
    paths = [path for path in folder.iterdir() if path.name != "shards.lock"]
    return {path.name: path.read_bytes() for path in paths}


@settings(max_examples=30)
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=12
    ),
    val_share=st.sampled_from([0.0, 0.1, 0.5]),
    characters=st.integers(10, 60) | st.just(1),
)
def test_the_texts_come_back(
    tmp_path_factory, small_tokenizer, texts, val_share, characters
):
    texts = [*texts, "the last <|endoftext|> one"]
    folder = tmp_path_factory.mktemp("shards")
    write(folder, small_tokenizer, texts, val_share, characters)
    expected = {"train": [], "val": []}
    for piece in split_texts(texts, val_share):
        expected[piece.split].append(piece.text)
    for split in SPLITS:
        assert documents(folder, split, small_tokenizer) == expected[split]


def test_ids_are_those_of_encode_ordinary(folder, tokenizer, small_tokenizer):
    text = STORY + "\nignore <|endoftext|> this \ud800 café 🙂"
    for each, name in ((tokenizer, "gpt2"), (small_tokenizer, "small")):
        write(folder / name, each, [text], val_share=0.0)
        ids = np.concatenate(shards_of(folder / name, "train")).tolist()
        eot_id = read_index(folder / name)["eot_id"]
        assert ids == [*each.encode_ordinary(text), eot_id]
        assert ids.count(eot_id) == 1


def test_the_index_says_what_the_ids_mean(folder, tokenizer):
    index = write(folder, tokenizer)
    assert (index["vocab_size"], index["eot_id"]) == (50257, 50256)
    assert (index["dtype"], index["tokenizer"]) == ("uint16", "gpt2")
    assert json.loads((folder / "shards.json").read_bytes()).items() > index.items()


def test_the_index_knows_a_vocabulary_of_our_own(folder, small_tokenizer):
    index = write(folder, small_tokenizer)
    assert (index["vocab_size"], index["eot_id"]) == (300, 299)
    assert index["tokenizer"] == "BPETokenizer"
    assert {path.suffix for path in folder.iterdir()} == {".bin", ".json", ".lock"}


def test_a_large_vocabulary_takes_four_bytes(folder):
    pairs = (i.to_bytes(2, "big") + b"z" for i in range(2**16))
    tokens = [*sorted(SINGLE_BYTES), *pairs]
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    tokenizer = BPETokenizer(vocab, {"<|endoftext|>": len(vocab)})
    index = write(folder, tokenizer, ["text"], val_share=0.0)
    assert index["dtype"] == "uint32" and index["eot_id"] == 2**16 + 256
    assert documents(folder, "train", tokenizer) == ["text"]
    assert shard_path(folder, "train", 0).stat().st_size == 4 * 5


def test_the_bytes_on_disk_have_one_order(folder, tokenizer):
    write(folder, tokenizer, [""], val_share=0.0)
    assert shard_path(folder, "train", 0).read_bytes() == b"\x50\xc4"  # 0xc450


def test_texts_are_taken_as_they_come(folder, tokenizer):
    taken, seen = [], []

    def texts():
        for number, text in enumerate(TEXTS):
            taken.append(number)
            seen.append(shard_path(folder, "train", 0).is_file())
            yield text

    write(folder, tokenizer, texts())
    assert seen[0] is False and seen[-1] is True


def test_what_is_complete_stays_as_it_is(folder, small_tokenizer):
    write(folder, small_tokenizer)
    before = contents(folder)
    write(folder, small_tokenizer)
    assert contents(folder) == before


def refuse_to_write(monkeypatch, number):
    """Let the disk be full once `number` files have been written."""
    written, usual = [], Path.write_bytes

    def write_bytes(path, content):
        if len(written) >= number:
            usual(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path)
        return usual(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


@pytest.mark.parametrize("number", range(11))
def test_a_full_disk_leaves_whole_shards_and_can_be_mended(
    tmp_path, folder, small_tokenizer, number
):
    write(tmp_path / "unbroken", small_tokenizer)
    with pytest.MonkeyPatch.context() as monkeypatch:
        refuse_to_write(monkeypatch, number)
        with pytest.raises(OSError, match="No space left"):
            write(folder, small_tokenizer)
    unbroken = contents(tmp_path / "unbroken")
    found = contents(folder)
    found.pop("shards.json", None)
    assert found.items() <= unbroken.items() and len(found) <= number
    write(folder, small_tokenizer)
    assert contents(folder) == unbroken


def groups_of(split):
    """The texts of a split in each group of TEXTS."""
    return [
        [piece.text for piece in group if piece.split == split]
        for group in group_pieces(split_texts(TEXTS, 0.2), 1000)
    ]


def spy_on(monkeypatch, tokenizer, change=lambda ids: ids):
    """Let the writer encode as this tokenizer does, its ids changed; the texts."""
    encoded, usual = [], shard_writer.as_encoding(tokenizer)

    class Spy:
        """An encoding that notes what it is given."""

        def __getattr__(self, name):
            return getattr(usual, name)

        def encode_ordinary_batch(self, texts, num_threads):
            encoded.extend(texts)
            rows = usual.encode_ordinary_batch(texts, num_threads=num_threads)
            return [change(row) for row in rows]

    monkeypatch.setattr(shard_writer, "as_encoding", lambda tokenizer: Spy())
    return encoded


def test_old_shards_are_not_tokenized_again(monkeypatch, folder, small_tokenizer):
    with monkeypatch.context() as patch:
        refuse_to_write(patch, 9)
        with pytest.raises(OSError, match="No space left"):
            write(folder, small_tokenizer)
    number = len(read_index(folder)["texts"])
    encoded = spy_on(monkeypatch, small_tokenizer)
    write(folder, small_tokenizer)
    assert 0 < number < len(groups_of("train")) - 1
    for split in SPLITS:
        needed = sum(groups_of(split)[number:], [])
        assert [text for text in encoded if text in needed] == needed
        assert not {*encoded} & {*sum(groups_of(split)[:number], [])}


def in_child(work, *args):
    """Call a function in a process of its own: a started one, to be joined.

    It is a fork of a process that has no threads, so that none can hold a lock.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.support.test_writer"])
    process = context.Process(target=work, args=args)
    process.start()
    return process


def write_few(folder, vocabulary):
    """Write the shards of a few texts."""
    write(folder, BPETokenizer.load(vocabulary), TEXTS[:15])


def write_and_die(folder, vocabulary, step):
    """Write until the given one of all steps to the disk, and be killed before it."""
    steps = iter(range(step + 1))

    def mortal(usual):
        def call(*args, **kwargs):
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return usual(*args, **kwargs)

        return call

    os.fsync = lambda file: None  # nothing waits for the disk here either
    for module, name in ((os, "fsync"), (os, "replace"), (Path, "write_bytes")):
        setattr(module, name, mortal(getattr(module, name)))
    write_few(folder, vocabulary)


def write_slowly(folder, vocabulary):
    """Write to a disk that is slow."""
    os.fsync = lambda file: time.sleep(0.002)
    write_few(folder, vocabulary)


@pytest.fixture
def vocabulary(tmp_path, small_tokenizer):
    """A file of the small tokenizer's."""
    small_tokenizer.save(tmp_path / "small.json")
    return tmp_path / "small.json"


@pytest.fixture
def unbroken(tmp_path, vocabulary):
    """What a run over a few texts writes that nothing happens to."""
    write_few(tmp_path / "unbroken", vocabulary)
    return contents(tmp_path / "unbroken")


needs_fork = pytest.mark.skipif(
    "forkserver" not in get_all_start_methods(), reason="needs a system with fork"
)


@needs_fork
def test_a_process_may_be_killed_at_every_step(folder, vocabulary, unbroken):
    step, exit_code = 0, -signal.SIGKILL
    while exit_code == -signal.SIGKILL:
        process = in_child(write_and_die, folder / str(step), vocabulary, step)
        process.join()
        exit_code = process.exitcode
        write_few(folder / str(step), vocabulary)
        assert contents(folder / str(step)) == unbroken, step
        step += 1
    assert exit_code == 0 and step > 4 * len(unbroken)


@needs_fork
def test_a_process_may_be_killed_at_any_moment(folder, vocabulary, unbroken):
    draw, num_killed, exit_code = Random(123), 0, None
    while exit_code != 0:
        process = in_child(write_slowly, folder, vocabulary)
        process.join(draw.uniform(0, 0.02 * (1 + num_killed)))  # longer and longer
        process.kill()
        process.join()
        exit_code = process.exitcode
        num_killed += exit_code == -signal.SIGKILL
    assert num_killed > 2
    assert contents(folder) == unbroken


def test_what_dead_processes_left_is_removed_and_nothing_else(folder, small_tokenizer):
    """A reader's files stay, whatever they are called."""
    folder.mkdir()
    token = "0123456789abcdef"
    left = [f"train-00002.bin.{token}.tmp", f"shards.json.{token}.tmp"]
    mine = ["notes.tmp", "shards.json.4711.tmp", "train-00002.bin.old.tmp", "a.bin.tmp"]
    mine += [f"notes.{token}.tmp", f"train-x.bin.{token}.tmp", "test-00000.bin"]
    for name in (*left, *mine):
        (folder / name).write_bytes(b"half")
    (folder / f"val-00000.bin.{token}.tmp").mkdir()
    write(folder, small_tokenizer)
    found = {name for name, _ in contents_of(folder)}
    assert found.isdisjoint(left)
    assert found >= {*mine, f"val-00000.bin.{token}.tmp"}


def contents_of(folder):
    """What a folder holds: (name, bytes), None for a folder's."""
    return [
        (path.name, None if path.is_dir() else path.read_bytes())
        for path in folder.iterdir()
    ]


def test_shards_that_no_index_knows_are_not_written_over(folder, small_tokenizer):
    folder.mkdir()
    (folder / "val-00000.bin").write_bytes(b"a reader's own")
    with pytest.raises(ValueError, match=r"holds val-00000\.bin, but no shards\.json"):
        write(folder, small_tokenizer)
    assert (folder / "val-00000.bin").read_bytes() == b"a reader's own"


def test_two_processes_do_not_write_to_one_folder(folder, small_tokenizer):
    folder.mkdir()
    with FileLock(folder / "shards.lock"), pytest.raises(Timeout):
        write(folder, small_tokenizer)
    write(folder, small_tokenizer)


CHANGED = {
    "another text at the end": [*TEXTS[:-1], "another"],
    "another text in the middle": [*TEXTS[:20], "another", *TEXTS[21:]],
    "fewer texts": TEXTS[:-1],
    "far fewer texts": TEXTS[:5],
    "more texts": [*TEXTS, *TEXTS],
    "another order": TEXTS[::-1],
}


@pytest.mark.parametrize("texts", CHANGED.values(), ids=CHANGED)
def test_other_texts_are_refused(folder, small_tokenizer, texts):
    write(folder, small_tokenizer)
    before = contents(folder)
    with pytest.raises(ValueError, match=FOLDER_ERROR):
        write(folder, small_tokenizer, texts)
    assert contents(folder) == before


@pytest.mark.parametrize("val_share", [0.0, 0.1, 0.5])
def test_another_share_is_refused(folder, small_tokenizer, val_share):
    write(folder, small_tokenizer)
    with pytest.raises(ValueError, match=FOLDER_ERROR):
        write(folder, small_tokenizer, val_share=val_share)


@pytest.mark.parametrize("texts", [CHANGED["far fewer texts"], TEXTS[::-1]])
def test_an_unfinished_folder_refuses_other_texts(
    monkeypatch, folder, small_tokenizer, texts
):
    with monkeypatch.context() as patch:
        refuse_to_write(patch, 8)
        with pytest.raises(OSError, match="No space left"):
            write(folder, small_tokenizer)
    with pytest.raises(ValueError, match=FOLDER_ERROR):
        write(folder, small_tokenizer, texts)


def test_other_settings_are_refused(folder, tokenizer, small_tokenizer):
    write(folder, small_tokenizer)
    with pytest.raises(ValueError, match=FOLDER_ERROR):
        write(folder, small_tokenizer, characters=600)
    with pytest.raises(
        ValueError, match="started with tokenizer BPETokenizer, not gpt2"
    ):
        write(folder, tokenizer)
    with pytest.raises(ValueError, match="started with vocabulary_sha256 .*, not"):
        write(folder, BPETokenizer.train(STORY.upper(), 300))


def scramble(path, draw):
    """Give a shard other ids of the vocabulary, in a place or everywhere."""
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content))
    content[place] ^= 1
    path.write_bytes(content if draw.random() < 0.5 else bytes(len(content)))


def change_length(path, draw):
    """Cut a shard, or make it longer."""
    os.truncate(path, draw.choice([0, 1, path.stat().st_size + 2]))


def take_away(path, draw):
    """Let a shard be missing."""
    path.unlink()


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    characters=st.integers(1, 80),
    num_texts=st.integers(1, 12),
    is_complete=st.booleans(),
)
def test_damaged_shards_are_mended_and_no_others_are_touched(
    tmp_path_factory, small_tokenizer, seed, characters, num_texts, is_complete
):
    folder, draw = tmp_path_factory.mktemp("shards"), Random(seed)
    texts = [text[:60] for text in TEXTS[:num_texts]]
    index = write(folder, small_tokenizer, texts, 0.5, characters)
    before = contents(folder)
    if not is_complete:  # as it is when a process was killed before the last index
        write_sealed(folder / "shards.json", index | {"is_complete": False})
    paths = sorted(path for path in folder.glob("*.bin") if path.stat().st_size)
    damaged = draw.sample(paths, draw.randint(1, len(paths)))
    nodes = {path: path.stat().st_ino for path in paths if path not in damaged}
    for path in damaged:
        draw.choice([scramble, change_length, take_away])(path, draw)
    write(folder, small_tokenizer, texts, 0.5, characters)
    assert contents(folder) == before
    assert nodes == {path: path.stat().st_ino for path in nodes}


def test_what_is_mended_is_said_and_costs_its_own_pieces_only(
    folder, small_tokenizer, monkeypatch, capsys
):
    write(folder, small_tokenizer)
    shards = read_index(folder)["shards"]["train"]
    path, size = shard_path(folder, "train", 1), 2 * shards[1]["tokens"]
    os.truncate(path, 998)
    encoded = spy_on(monkeypatch, small_tokenizer)
    write(folder, small_tokenizer)
    said = (
        f"{path} is damaged: it has 998 bytes, not {size:,}; it will be written again"
    )
    assert capsys.readouterr().out == f"{said}\n"
    assert encoded == groups_of("train")[1]


def test_a_shard_that_would_be_another_now_is_not_written(
    folder, small_tokenizer, monkeypatch
):
    """A tokenizer of the same vocabulary that gives other ids, as a bug in it could."""
    write(folder, small_tokenizer)
    path = shard_path(folder, "train", 1)
    path.write_bytes(b"damaged")
    spy_on(monkeypatch, small_tokenizer, lambda ids: ids[::-1])
    with pytest.raises(ValueError, match="no longer gives the ids that were in it"):
        write(folder, small_tokenizer)
    assert path.read_bytes() == b"damaged"


def test_a_target_that_cannot_be_written_is_found_before_the_first_text(
    folder, small_tokenizer, monkeypatch
):
    """The disk is full from the start; no text is read in vain."""

    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def texts():
        raise AssertionError("a text was read")
        yield

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        write(folder, get_tokenizer(), texts())
    assert contents(folder) == {}


def test_a_file_is_no_folder(tmp_path, small_tokenizer):
    (tmp_path / "file").write_bytes(b"a reader's own")
    for folder in (tmp_path / "file", tmp_path / "file" / "shards"):
        with pytest.raises(ValueError, match="cannot be created, because it or one of"):
            write(folder, small_tokenizer)
    assert (tmp_path / "file").read_bytes() == b"a reader's own"


def test_no_text_is_refused(folder, small_tokenizer):
    with pytest.raises(ValueError, match="there is no text to tokenize"):
        write(folder, small_tokenizer, [])
    assert not (folder / "shards.json").exists()


def test_a_tokenizer_must_know_the_end_of_a_text(folder):
    without_end = BPETokenizer.train(STORY, 300, special_tokens=())
    with pytest.raises(ValueError, match=r"has no <\|endoftext\|>: train one"):
        write(folder, without_end)
