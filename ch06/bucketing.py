"""Batches of texts of similar length, so that little of a batch is padding (6.2)."""

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler

from support.checks import is_whole


class LengthBuckets(Sampler):
    """Batches of indices of texts with similar lengths; each index comes once an epoch.

    Each epoch shuffles the texts of equal length and the order of the batches. The seed
    determines all of them.
    """

    def __init__(self, lengths, batch_size, seed=123):
        if not is_whole(batch_size) or len(lengths) == 0:
            raise ValueError(
                f"{len(lengths)} texts cannot be put into batches of {batch_size}"
            )
        self.lengths = torch.as_tensor(lengths)
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self):
        return -(-len(self.lengths) // self.batch_size)  # rounded up

    def __iter__(self):
        order = torch.randperm(len(self.lengths), generator=self.generator)
        order = order[self.lengths[order].argsort(stable=True)]
        batches = order.split(self.batch_size)
        for i in torch.randperm(len(batches), generator=self.generator):
            yield batches[i].tolist()


def create_bucket_loader(examples, lengths, batch_size, padding_value, seed=123):
    """A loader of (padded inputs, labels) over examples of (tensor, label).

    Inputs are padded on the right to the longest in their batch; the seed shuffles.
    """

    def pad_batch(batch):
        inputs, labels = zip(*batch)
        padded = pad_sequence(inputs, batch_first=True, padding_value=padding_value)
        return padded, torch.tensor(labels)

    buckets = LengthBuckets(lengths, batch_size, seed)
    return DataLoader(examples, batch_sampler=buckets, collate_fn=pad_batch)


def padding_share(lengths, batches):
    """The share of padding if each batch is padded to its longest text."""
    lengths = torch.as_tensor(lengths)
    num_positions = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1 - int(lengths.sum()) / num_positions
