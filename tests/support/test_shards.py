"""Windows over shards hold each token once; what is damaged is said in a sentence."""

import copy
import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from support.download.json_files import content_sha256
from support.pretraining.chunks import split_texts
from support.pretraining.shards import (
    SPLITS,
    TokenShards,
    check_shards,
    read_index,
    shard_path,
    write_index,
)
from support.pretraining.writer import write_shards

VOCAB_SIZE = 101
SIZES = {"train": [40, 40, 17], "val": [23]}


def write_folder(folder, sizes, dtype="uint16"):
    """Shards of seeded ids below VOCAB_SIZE, so many in each: {split: ids}."""
    draw = np.random.default_rng(123)
    ids = {split: [] for split in SPLITS}
    index = {
        "vocab_size": VOCAB_SIZE,
        "eot_id": VOCAB_SIZE - 1,
        "dtype": dtype,
        "end": {"piece": 0, "read_sha256": ""},
        "shards": {split: [] for split in SPLITS},
    }
    for split, lengths in sizes.items():
        for number, length in enumerate(lengths):
            shard = draw.integers(VOCAB_SIZE, size=length)
            shard.astype(dtype).tofile(shard_path(folder, split, number))
            index["shards"][split].append({"tokens": length, "sha256": ""})
            ids[split].append(shard)
    write_index(folder, index)
    return ids


@pytest.fixture
def folder(tmp_path):
    """A folder of small shards."""
    write_folder(tmp_path, SIZES)
    return tmp_path


@pytest.fixture
def written(tmp_path, tokenizer):
    """A folder that write_shards has written, full shards of 50 ids among others."""
    texts = ["one " * 120, "two " * 30]
    pieces = split_texts(texts, 0.5)
    write_shards(pieces, tmp_path, tokenizer, shard_tokens=50)
    return tmp_path


def change_index(folder, **changes):
    """Put other values into an index, and seal it again."""
    write_index(folder, read_index(folder) | changes)


@settings(max_examples=50)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    max_length=st.integers(1, 8),
    dtype=st.sampled_from(["uint16", "uint32"]),
)
def test_windows_hold_each_token_once(tmp_path_factory, lengths, max_length, dtype):
    folder = tmp_path_factory.mktemp("shards")
    shards = write_folder(folder, {"train": lengths}, dtype)["train"]
    expected = [
        shard[start : start + max_length + 1].tolist()
        for shard in shards
        for start in range(0, len(shard) - max_length, max_length)
    ]
    if not expected:
        with pytest.raises(ValueError, match="give more text or a smaller max_length"):
            TokenShards(folder, "train", max_length)
        return
    windows = TokenShards(folder, "train", max_length)
    assert len(windows) == len(expected) and windows.num_tokens == sum(lengths)
    for (input_ids, target_ids), window in zip(windows, expected):
        assert input_ids.tolist() == window[:-1]
        assert target_ids.tolist() == window[1:]


def test_ids_are_int64_and_can_be_had_many_at_once(folder):
    windows = TokenShards(folder, "train", 5)
    assert windows[3][0].dtype == windows[3][1].dtype == torch.int64
    assert windows[3][0].shape == windows[3][1].shape == (5,)
    input_ids, target_ids = windows.batch([11, 0, 7, 0])
    assert input_ids.shape == target_ids.shape == (4, 5)
    for row, idx in enumerate([11, 0, 7, 0]):
        assert torch.equal(input_ids[row], windows[idx][0])
        assert torch.equal(target_ids[row], windows[idx][1])
    from_tensor = windows.batch(torch.tensor([11, 0, 7, 0]))
    assert torch.equal(from_tensor[0], input_ids)


def test_a_loader_takes_them(folder):
    windows = TokenShards(folder, "train", 5)
    batches = list(DataLoader(windows, batch_size=4))
    assert torch.equal(batches[1][0], windows.batch(range(4, 8))[0])
    assert sum(len(input_ids) for input_ids, _ in batches) == len(windows)


def test_shards_stay_on_disk(folder):
    windows = TokenShards(folder, "train", 5)
    copied = copy.copy(windows)  # what a process that loads batches is sent
    for shard in [*windows.shards, *copied.shards]:
        assert isinstance(shard, np.memmap) and not shard.flags.writeable
    assert copied.shards[0] is not windows.shards[0]
    assert torch.equal(copied[9][0], windows[9][0])


def test_the_file_is_read_when_a_window_is_asked_for(folder):
    windows = TokenShards(folder, "train", 5)
    before = windows[0][0].tolist()
    with open(shard_path(folder, "train", 0), "rb+") as file:
        file.write(b"\x07\x00")
    assert windows[0][0].tolist() == [7, *before[1:]]


def test_it_says_what_it_holds(folder):
    windows = TokenShards(folder, "val", 5)
    assert (windows.vocab_size, windows.eot_id) == (VOCAB_SIZE, VOCAB_SIZE - 1)
    assert windows.num_tokens == 23


def test_a_window_that_is_not_there(folder):
    windows = TokenShards(folder, "val", 5)
    for idx in (-1, 4):
        with pytest.raises(IndexError, match=f"no window {idx}: there are 4"):
            windows[idx]


def test_other_data_have_another_fingerprint(written, tmp_path_factory, tokenizer):
    prints = {
        TokenShards(written, split, length).fingerprint
        for split in SPLITS
        for length in (4, 8)
    }
    for texts in (["one " * 120, "two " * 30], ["one " * 120, "six " * 30]):
        other = tmp_path_factory.mktemp("other")
        write_shards(split_texts(texts, 0.5), other, tokenizer, shard_tokens=50)
        prints.add(TokenShards(other, "train", 4).fingerprint)
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("split", "max_length", "reason"),
    [
        ("test", 5, "split 'test' must be one of"),
        ("train", 0, "max_length 0 at least 1"),
        ("val", 23, "the val part of .* has 23 tokens; one window of max_length 23"),
        ("train", 40, "has 97 tokens; .* need 41 in a shard: give more text"),
    ],
)
def test_what_cannot_be_had(folder, split, max_length, reason):
    with pytest.raises(ValueError, match=reason):
        TokenShards(folder, split, max_length)


def test_a_split_without_shards_is_too_short(tmp_path):
    write_folder(tmp_path, {"train": [40]})
    with pytest.raises(ValueError, match="the val part of .* has 0 tokens"):
        TokenShards(tmp_path, "val", 5)


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path):
    with open(path, "ab") as file:
        file.write(b"\x00\x00")


DAMAGE = {
    "missing": (
        os.unlink,
        r"train-00001\.bin is missing, or it is not a regular file; the ",
    ),
    "cut": (cut, r"train-00001\.bin is damaged: it has 99 bytes, not 100; the "),
    "longer": (lengthen, r"train-00001\.bin is damaged: it has 102 bytes, not 100;"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("split", SPLITS)
def test_a_damaged_shard_is_named(written, damage, reason, split):
    damage(shard_path(written, "train", 1))
    with pytest.raises(ValueError, match=reason):
        TokenShards(written, split, 5)


def test_a_flipped_bit_is_found_when_asked_for(written):
    TokenShards(written, "train", 5, verify=True)
    path = shard_path(written, "train", 1)
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    TokenShards(written, "train", 5)
    reason = r"train-00001\.bin is damaged: its sha256 is not the one in shards\.json"
    with pytest.raises(ValueError, match=reason):
        TokenShards(written, "train", 5, verify=True)


def test_an_id_beyond_the_vocabulary_does_not_get_through(folder):
    windows = TokenShards(folder, "train", 5)
    with open(shard_path(folder, "train", 1), "rb+") as file:
        file.write(VOCAB_SIZE.to_bytes(2, "little"))
    windows.batch(range(7))
    reason = r"train-00001\.bin is damaged: it holds the token id 101, and the vocab"
    with pytest.raises(ValueError, match=reason):
        windows.batch(range(8))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.replace(b"101", b"102"),
        lambda content: content[:-1],
        lambda content: b"[]",
        lambda content: b"{}",
        lambda content: b"\xff\x00",
        lambda content: b"",
    ],
)
def test_a_damaged_index_is_said_to_be(folder, change):
    path = folder / "shards.json"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=r"shards\.json.*\. Delete it and the"):
        TokenShards(folder, "train", 5)


def test_an_index_seals_all_that_it_says(folder):
    index = read_index(folder)
    for key in index:
        assert content_sha256(index | {key: None}) != content_sha256(index)
    assert json.loads((folder / "shards.json").read_bytes()).keys() > index.keys()


def test_a_folder_without_an_index_is_not_one_of_shards(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=r"holds no shards\.json; `python -m"):
            TokenShards(folder, "train", 5)


def test_what_is_not_complete_is_not_read(folder):
    change_index(folder, end=None)
    with pytest.raises(ValueError, match="is not complete: run the command that"):
        TokenShards(folder, "train", 5)
    check_shards(folder, read_index(folder))  # what is there is whole all the same
