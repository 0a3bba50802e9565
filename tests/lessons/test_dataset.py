"""From a text to batches: its windows, and the data loader."""

from itertools import product

import pytest
import torch

from ch02.dataset import GPTDatasetV1, create_dataloader_v1
from ch02.tokenizer import BPETokenizer, get_tokenizer
from support.download.texts import load_text

END = "<|endoftext|>"
BYTES = BPETokenizer.train("", 257)  # a token for each byte, and END
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


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
