"""Windows over shards hold each token once; what is damaged is said in a sentence."""

import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from support.download.json_files import content_sha256, write_sealed
from support.pretraining import chunks, writer
from support.pretraining.chunks import split_texts
from support.pretraining.shards import (
    SPLITS,
    TokenShards,
    find_damage,
    read_index,
    shard_path,
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
        "is_complete": True,
        "shards": {split: [] for split in SPLITS},
    }
    for split, lengths in sizes.items():
        for number, length in enumerate(lengths):
            shard = draw.integers(VOCAB_SIZE, size=length)
            shard.astype(dtype).tofile(shard_path(folder, split, number))
            index["shards"][split].append({"tokens": length, "sha256": ""})
            ids[split].append(shard)
    write_sealed(folder / "shards.json", index)
    return ids


@pytest.fixture
def folder(tmp_path):
    """A folder of small shards."""
    write_folder(tmp_path, SIZES)
    return tmp_path


@pytest.fixture
def written(tmp_path, tokenizer, monkeypatch):
    """A folder that write_shards has written, shards of 50 ids among others."""
    monkeypatch.setattr(chunks, "PIECE", 100)
    monkeypatch.setattr(writer, "GROUP_CHARACTERS", 150)
    texts = ["one " * 120, "two " * 30]
    pieces = split_texts(texts, 0.5)
    write_shards(pieces, tmp_path, tokenizer)
    return tmp_path


def change_index(folder, **changes):
    """Put other values into an index, and seal it again."""
    write_sealed(folder / "shards.json", read_index(folder) | changes)


@settings(max_examples=50)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=9),
    max_length=st.integers(1, 8),
    dtype=st.sampled_from(["uint16", "uint32"]),
)
def test_windows_hold_each_token_once(tmp_path_factory, lengths, max_length, dtype):
    folder = tmp_path_factory.mktemp("shards")
    shards = write_folder(folder, {"train": lengths}, dtype)["train"]
    ids = np.concatenate(shards).tolist()
    expected = [
        ids[start : start + max_length + 1]
        for start in range(0, len(ids) - max_length, max_length)
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


def test_ids_are_int64(folder):
    input_ids, target_ids = TokenShards(folder, "train", 5)[3]
    assert input_ids.dtype == target_ids.dtype == torch.int64
    assert input_ids.shape == target_ids.shape == (5,)


def test_a_loader_takes_them(folder):
    windows = TokenShards(folder, "train", 5)
    batches = list(DataLoader(windows, batch_size=4))
    rows = torch.stack([windows[idx][0] for idx in range(4, 8)])
    assert torch.equal(batches[1][0], rows)
    assert sum(len(input_ids) for input_ids, _ in batches) == len(windows)


def test_shards_stay_on_disk(folder):
    windows = TokenShards(folder, "train", 5)
    for shard in windows.shards:
        assert isinstance(shard, np.memmap) and not shard.flags.writeable


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
        with pytest.raises(IndexError, match=f"no window {idx}: the last one is 3"):
            windows[idx]


def test_other_data_have_another_fingerprint(written, tmp_path_factory, tokenizer):
    prints = {
        TokenShards(written, split, length).fingerprint
        for split in SPLITS
        for length in (4, 8)
    }
    for texts in (["one " * 120, "two " * 30], ["one " * 120, "six " * 30]):
        other = tmp_path_factory.mktemp("other")
        write_shards(split_texts(texts, 0.5), other, tokenizer)
        prints.add(TokenShards(other, "train", 4).fingerprint)
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("split", "max_length", "reason"),
    [
        ("val", 23, "the val part of .* has 23 tokens; one window of max_length 23"),
        ("train", 97, "has 97 tokens; .* need 98: give more text or a smaller"),
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
        r"train-00001\.bin is missing, or it is not a regular file; to repair it",
    ),
    "cut": (cut, r"train-00001\.bin is damaged: it has 99 bytes, not 100; to repair"),
    "longer": (lengthen, r"train-00001\.bin is damaged: it has 102 bytes, not 100; to"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("split", SPLITS)
def test_a_damaged_shard_is_named(written, damage, reason, split):
    damage(shard_path(written, "train", 1))
    with pytest.raises(ValueError, match=reason):
        TokenShards(written, split, 5)


def test_a_flipped_bit_is_found_when_asked_for(written):
    index = read_index(written)
    assert find_damage(written, index, verify=True) == {}
    path = shard_path(written, "train", 1)
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    assert find_damage(written, index) == {}
    fault = "is damaged: its sha256 is not the one in shards.json"
    assert find_damage(written, index, verify=True) == {path: fault}


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
    change_index(folder, is_complete=False)
    with pytest.raises(ValueError, match="is not complete: run `python -m support"):
        TokenShards(folder, "train", 5)
    assert find_damage(folder, read_index(folder)) == {}
