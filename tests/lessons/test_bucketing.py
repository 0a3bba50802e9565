"""Batches of similar lengths hold every message once, and little padding."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ch02.tokenizer import get_tokenizer
from ch06.bucketing import LengthBuckets, create_bucket_loader, padding_share
from ch06.spam import MEMBER, SAMPLE, read_messages, split_messages
from support.download.fetch import downloads_folder

LENGTHS = torch.randint(1, 40, (203,), generator=torch.Generator().manual_seed(1))


def lengths_of(path):
    """How many tokens the training messages have that a file gives."""
    train = split_messages(read_messages(path))[0]
    return [
        len(ids)
        for ids in get_tokenizer("gpt2").encode_ordinary_batch([*train["Text"]])
    ]


@pytest.fixture(scope="module")
def sample_lengths():
    """Tokens of each training message of the course's own sample."""
    return lengths_of(SAMPLE)


def examples_of(lengths):
    """An example for each length: ids that count from its number, a label."""
    return [
        (torch.arange(i, i + n), torch.tensor(i % 2)) for i, n in enumerate(lengths)
    ]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=80), st.integers(1, 100))
def test_every_index_comes_once_an_epoch(lengths, batch_size):
    buckets = LengthBuckets(lengths, batch_size)
    for _ in range(3):
        batches = [*buckets]
        assert len(batches) == len(buckets)
        assert sorted(sum(batches, [])) == [*range(len(lengths))]
        sizes = sorted(map(len, batches), reverse=True)
        assert set(sizes[:-1]) <= {batch_size} and sizes[-1] <= batch_size


@given(st.lists(st.integers(1, 30), min_size=1, max_size=80), st.integers(1, 20))
def test_no_batch_reaches_into_another_ones_lengths(lengths, batch_size):
    lengths = torch.tensor(lengths)
    spans = sorted(
        (int(lengths[batch].min()), int(lengths[batch].max()))
        for batch in LengthBuckets(lengths, batch_size)
    )
    for (_, longest), (shortest, _) in zip(spans, spans[1:]):
        assert longest <= shortest


def test_epochs_differ_in_order_and_in_neighbours():
    buckets = LengthBuckets(LENGTHS, 8)
    epochs = [[*buckets] for _ in range(4)]
    as_sets = [{frozenset(batch) for batch in epoch} for epoch in epochs]
    in_order = [[int(LENGTHS[b].max()) for b in epoch] for epoch in epochs]
    for one in range(3):
        assert as_sets[one] != as_sets[one + 1]  # other neighbours among equals
        assert in_order[one] != in_order[one + 1]
    assert sorted(in_order[0]) != in_order[0]  # not from short to long


def test_same_seed_same_batches():
    runs = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        buckets = LengthBuckets(LENGTHS, 8, seed=5)
        runs.append([[*buckets] for _ in range(3)])
    assert runs[0] == runs[1]
    assert [*LengthBuckets(LENGTHS, 8, seed=6)] != runs[0][0]


def test_nothing_global_is_drawn():
    before = torch.get_rng_state()
    [*LengthBuckets(LENGTHS, 8)]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [1, 7, 203, 1000])
def test_there_are_as_many_batches_as_it_takes(size):
    buckets = LengthBuckets(LENGTHS, size)
    assert len(buckets) == len([*buckets]) == -(-203 // size)


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor])
def test_lengths_may_come_as_they_are(kind):
    expected = [*LengthBuckets(LENGTHS, 8)]
    assert [*LengthBuckets(kind(LENGTHS.tolist()), 8)] == expected


@pytest.mark.parametrize(("lengths", "size"), [([], 8), ([3, 4], 0), ([3, 4], -1)])
def test_no_texts_or_no_size_is_refused(lengths, size):
    fault = f"{len(lengths)} texts cannot be put into batches of {size}"
    with pytest.raises(ValueError, match=fault):
        LengthBuckets(lengths, size)


@pytest.mark.parametrize("value", [50256, 0])
def test_inputs_are_filled_up_on_the_right(value):
    lengths = [3, 1, 5, 2]
    inputs, labels = next(
        iter(create_bucket_loader(examples_of(lengths), lengths, 4, value))
    )
    assert inputs.shape == (4, 5)
    rows = sorted(zip(inputs.tolist(), labels.tolist()))
    expected = [
        ([*range(i, i + n), *[value] * (5 - n)], i % 2) for i, n in enumerate(lengths)
    ]
    assert rows == sorted(expected)


def test_features_are_filled_up_with_zeros():
    examples = [(torch.ones(n, 3), torch.tensor(0)) for n in (1, 4, 2)]
    features, _ = next(iter(create_bucket_loader(examples, [1, 4, 2], 3, 0.0)))
    assert features.shape == (3, 4, 3)
    assert sorted(features.sum(dim=(1, 2)).tolist()) == [3, 6, 12]


def test_a_loader_gives_every_example_once_an_epoch_and_others_next_to_it():
    loader = create_bucket_loader(examples_of(LENGTHS), LENGTHS, 8, -1)
    epochs = []
    for _ in range(2):
        batches = [inputs[:, 0].tolist() for inputs, _ in loader]
        assert len(batches) == len(loader) == 26
        assert sorted(sum(batches, [])) == [*range(203)]
        epochs.append(batches)
    assert epochs[0] != epochs[1]


def test_a_batch_is_no_longer_than_its_longest():
    loader = create_bucket_loader(examples_of(LENGTHS), LENGTHS, 8, -1)
    for inputs, _ in loader:
        assert (inputs != -1).any(dim=0).all()


def test_padding_by_hand():
    """3 + 3 places and 5 + 5, of which 3 + 1 and 5 + 4 are used."""
    assert padding_share([3, 5, 1, 4], [[0, 2], [1, 3]]) == pytest.approx(1 - 13 / 16)
    assert padding_share([3, 5, 1, 4], [[0, 1, 2, 3]]) == pytest.approx(1 - 13 / 20)
    assert padding_share([3, 5, 1, 4], [[0], [1], [2], [3]]) == 0


def test_the_samples_share_of_padding_is_the_least_there_is(sample_lengths):
    """As if cut from the sorted messages; a tenth of what random batches have."""
    lengths = torch.tensor(sample_lengths)
    least = padding_share(lengths, lengths.argsort().split(8))
    at_random = padding_share(lengths, torch.randperm(len(lengths)).split(8))
    buckets = LengthBuckets(lengths, 8)
    for _ in range(3):
        share = padding_share(lengths, [*buckets])
        assert share == pytest.approx(least)
        assert share < 0.06 < 0.3 < at_random


def test_the_collection_has_less_than_3_percent_padding():
    path = downloads_folder() / MEMBER
    if not path.is_file():
        pytest.skip(f"needs downloads/{MEMBER}: load_messages fetches it")
    lengths = lengths_of(path)
    assert padding_share(lengths, [*LengthBuckets(lengths, 8)]) < 0.03
