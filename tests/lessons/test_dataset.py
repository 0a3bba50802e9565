"""From a text to batches: reading it, its windows, and the data loader."""

import os
import shutil
from itertools import product

import pytest
import torch

from ch02.dataset import (
    VERDICT_SHA256,
    VERDICT_URLS,
    GPTDatasetV1,
    create_dataloader_v1,
    load_text,
)
from ch02.tokenizer import BPETokenizer, get_tokenizer
from support.download.fetch import FetchError
from support.download.files import sha256_of

END = "<|endoftext|>"
BYTES = BPETokenizer.train("", 257)  # a token for each byte, and END
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """An empty folder of downloads, and no network."""
    monkeypatch.setenv("LLMS_DOWNLOADS", str(tmp_path))
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def as_file(tmp_path):
    """Write content to a file and return its path."""

    def write(content):
        path = tmp_path / "text.txt"
        path.write_bytes(content)
        return path

    return write


def batches(loader):
    """The input batches of a loader, as lists."""
    return [input_batch.tolist() for input_batch, _ in loader]


def letters_in_batches(seed=123, **options):
    """Input batches over the alphabet, two letters a window, after seeding."""
    torch.manual_seed(seed)
    options = {"batch_size": 4, "max_length": 2, "stride": 1} | options
    return batches(create_dataloader_v1(ALPHABET, tokenizer=BYTES, **options))


def test_no_other_process_reads_unless_asked_to():
    loader = create_dataloader_v1(ALPHABET, 1, max_length=2, tokenizer=BYTES)
    assert loader.num_workers == 0


def test_windows_are_those_of_a_loop():
    for max_length, stride, spare in product(range(1, 7), range(1, 7), range(1, 9)):
        length = max_length + spare
        text = ALPHABET[:length]
        ids = list(text.encode())
        expected = [
            (ids[i : i + max_length], ids[i + 1 : i + max_length + 1])
            for i in range(0, length - max_length, stride)
        ]
        dataset = GPTDatasetV1(text, BYTES, max_length, stride)
        windows = [dataset[i] for i in range(len(dataset))]
        found = [(inputs.tolist(), targets.tolist()) for inputs, targets in windows]
        assert found == expected, (length, max_length, stride)


def test_targets_are_the_inputs_one_token_later():
    dataset = GPTDatasetV1(load_text()[:2000], get_tokenizer("gpt2"), 8, 1)
    assert torch.equal(dataset.input_ids[1:], dataset.target_ids[:-1])
    assert torch.equal(dataset.input_ids[:, 1:], dataset.target_ids[:, :-1])


def test_windows_share_eight_bytes_a_token():
    dataset = GPTDatasetV1("tide table" * 100_000, BYTES, max_length=256, stride=1)
    assert dataset.input_ids.untyped_storage().nbytes() == 8 * 1_000_000
    (first, _), (_, last) = dataset[0], dataset[len(dataset) - 1]
    storages = [dataset.input_ids, dataset.target_ids, first, last]
    assert len({ids.untyped_storage().data_ptr() for ids in storages}) == 1


def test_token_ids_are_int64_as_an_embedding_wants_them():
    assert GPTDatasetV1("abc", BYTES, 2, 1)[0][0].dtype == torch.int64


def test_the_end_of_a_text_is_one_token():
    dataset = GPTDatasetV1(f"ab{END}c", BYTES, max_length=3, stride=1)
    assert dataset.input_ids.tolist() == [[97, 98, 256]]


@pytest.mark.parametrize("max_length", [3, 256])
def test_a_text_without_a_window_is_refused(max_length):
    reason = f"the text has 3 tokens; .* {max_length} .* need {max_length + 1}: give"
    with pytest.raises(ValueError, match=reason):
        GPTDatasetV1("abc", BYTES, max_length, stride=1)


def test_an_empty_text_is_refused():
    with pytest.raises(ValueError, match="the text has 0 tokens"):
        GPTDatasetV1("", BYTES, max_length=1, stride=1)


@pytest.mark.parametrize(("max_length", "stride"), [(4, 0), (4, -1), (0, 1), (-1, 1)])
def test_sizes_below_one_are_refused(max_length, stride):
    reason = f"max_length {max_length} and stride {stride} must be whole numbers of"
    with pytest.raises(ValueError, match=reason):
        GPTDatasetV1(ALPHABET, BYTES, max_length, stride)


def test_same_seed_same_order():
    assert letters_in_batches(seed=1) == letters_in_batches(seed=1)
    assert letters_in_batches(seed=1) != letters_in_batches(seed=2)


def test_shuffling_changes_the_order_and_loses_nothing():
    in_order = letters_in_batches(batch_size=1, shuffle=False)
    shuffled = letters_in_batches(batch_size=1)
    assert shuffled != in_order
    assert sorted(shuffled) == in_order == [[[i, i + 1]] for i in range(97, 121)]


@pytest.mark.parametrize(
    ("drop_last", "sizes"), [(True, [7] * 3), (False, [7, 7, 7, 3])]
)
def test_drop_last_drops_the_short_batch(drop_last, sizes):
    found = letters_in_batches(batch_size=7, drop_last=drop_last)
    assert [len(batch) for batch in found] == sizes


def test_a_worker_loads_the_same_batches():
    assert letters_in_batches(num_workers=1) == letters_in_batches()


def test_a_loader_without_a_batch_is_refused():
    with pytest.raises(
        ValueError, match="24 windows, fewer than batch_size 25, .*: give"
    ):
        letters_in_batches(batch_size=25)
    assert len(letters_in_batches(batch_size=25, drop_last=False)) == 1
    assert len(letters_in_batches(batch_size=24)) == 1


def test_the_tokenizer_is_gpt2s_unless_another_is_given():
    text = f"The tide table.{END} The tide."
    expected = get_tokenizer("gpt2").encode(text, allowed_special={END})
    sizes = {"batch_size": 1, "max_length": len(expected) - 1}
    assert batches(create_dataloader_v1(text, **sizes)) == [[expected[:-1]]]
    sizes["max_length"] = len(BYTES.encode(text, allowed_special={END})) - 1
    assert len(create_dataloader_v1(text, tokenizer=BYTES, **sizes)) == 1


def test_the_loaders_defaults_are_the_books():
    loader = create_dataloader_v1(load_text())
    input_batch, target_batch = next(iter(loader))
    assert input_batch.shape == target_batch.shape == (4, 256)
    first, second = loader.dataset.input_ids[:2]
    assert torch.equal(second[:128], first[128:])


def test_the_story_is_of_the_length_that_the_course_counts_on():
    assert 20_000 <= len(load_text()) <= 30_000


@pytest.mark.parametrize("kind", [str, os.fsencode, lambda path: path])
def test_a_file_is_read_by_its_path(as_file, kind):
    assert load_text(kind(as_file("naïve\r\ntide".encode()))) == "naïve\ntide"


def test_a_byte_order_mark_is_no_part_of_the_text(as_file):
    assert load_text(as_file("\ufefftide".encode())) == "tide"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "text.txt contains no text"),
        (b" \r\n\t", "text.txt contains no text"),
        ("\ufeff".encode(), "text.txt contains no text"),
        (b"tide\nna\xefve", "text.txt, line 2: the byte 0xef is not UTF-8"),
        ("tide".encode("utf-16"), "text.txt is UTF-16 text; save it as UTF-8"),
    ],
)
def test_a_file_without_a_text_is_refused(as_file, content, reason):
    with pytest.raises(ValueError, match=reason):
        load_text(as_file(content))


@pytest.mark.parametrize("name", [".", "missing.txt", "missing/text.txt"])
def test_what_is_no_file_is_named(tmp_path, name):
    with pytest.raises(ValueError, match="is not a file: give the path of") as caught:
        load_text(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["tide " * 5000, "a\0b", "", b"tide", "/dev/zero"], ids=range(5)
)
def test_a_text_in_a_paths_place_is_a_short_sentence(text):
    with pytest.raises(ValueError, match="is not a file: give the path of") as caught:
        load_text(text)
    assert len(str(caught.value)) < 400


def test_the_verdict_is_read_from_the_downloads(verdict_file, downloads):
    shutil.copy(verdict_file, downloads)
    assert load_text("the-verdict") == verdict_file.read_text(encoding="utf-8")
    assert sha256_of(verdict_file) == VERDICT_SHA256


@pytest.mark.parametrize("damaged", [False, True], ids=["absent", "damaged"])
def test_offline_the_verdict_says_where_to_get_and_put_it(downloads, damaged):
    target = downloads / "the-verdict.txt"
    if damaged:
        target.write_text("I HAD always thought")
    with pytest.raises(FetchError, match="LLMS_OFFLINE") as caught:
        load_text("the-verdict")
    for needed in (str(target), *VERDICT_URLS):
        assert needed in str(caught.value)
    assert ("damaged" in str(caught.value)) == damaged
