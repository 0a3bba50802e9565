"""From a text to batches of token windows (chapter 2).

Shapes: num_tokens is the length of the text in tokens, max_length that of a window.
"""

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ch02.tokenizer import get_tokenizer
from support.checks import is_whole
from support.download.texts import load_text  # noqa: F401


class GPTDatasetV1(Dataset):
    """Windows of max_length tokens, each with the same window one token later.

    `input_ids` and `target_ids`, (num_windows, max_length), are views of one tensor of
    token ids: overlapping windows take no memory of their own.
    """

    def __init__(self, txt, tokenizer, max_length, stride):
        if not is_whole(max_length) or not is_whole(stride):
            raise ValueError(
                f"max_length {max_length} and stride {stride} must be whole numbers of "
                "at least 1"
            )
        token_ids = tokenizer.encode(txt, allowed_special={"<|endoftext|>"})
        # numpy reads a long list many times as fast as torch.tensor
        token_ids = torch.from_numpy(np.array(token_ids, dtype=np.int64))
        if len(token_ids) <= max_length:
            raise ValueError(
                f"the text has {len(token_ids)} tokens; one window of max_length "
                f"{max_length} and its next token need {max_length + 1}: give a longer "
                "text or a smaller max_length"
            )
        self.input_ids = token_ids[:-1].unfold(0, max_length, stride)
        self.target_ids = token_ids[1:].unfold(0, max_length, stride)

    def __len__(self):
        return len(self.input_ids)

    def __getitem__(self, idx):
        return self.input_ids[idx], self.target_ids[idx]


def create_dataloader_v1(
    txt,
    batch_size=4,
    max_length=256,
    stride=128,
    shuffle=True,
    drop_last=True,
    num_workers=0,
    tokenizer=None,
):
    """Batches (input_ids, target_ids), each (batch_size, max_length).

    The tokenizer is GPT-2's unless another is given. Raises ValueError when the text
    is too short for a window, or for one batch when drop_last is set.
    """
    dataset = GPTDatasetV1(txt, tokenizer or get_tokenizer("gpt2"), max_length, stride)
    if drop_last and len(dataset) < batch_size:
        raise ValueError(
            f"the text gives {len(dataset)} windows, fewer than batch_size "
            f"{batch_size}, and drop_last drops them all: give a longer text, a "
            "smaller batch_size or drop_last=False"
        )
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=shuffle,
        drop_last=drop_last,
        num_workers=num_workers,
    )
