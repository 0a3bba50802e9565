"""Chapter 2 measured: `python -m benchmarks.text [FILE]` (default: the story).

Our byte-pair tokenizer beside tiktoken on the same text in the same run, and the memory
of a loader over a million tokens. Trust the ratios: machines differ, and are noisy.
"""

import statistics
import sys
import time

import torch

from ch02.dataset import GPTDatasetV1, load_text
from ch02.tokenizer import BPETokenizer, get_tokenizer
from ch02.vocabulary import gpt2_files

RUNS = 5
NUM_TOKENS = 1_000_000


def median_seconds(prepare, work):
    """Median time of work(prepare()) over a few runs, prepare not counted."""
    seconds = []
    for _ in range(RUNS):
        prepared = prepare()
        start = time.perf_counter()
        work(prepared)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure_encoding(text):
    """Print the encoding speed of ours, its cache cold and warm, and tiktoken's."""
    reference, files = get_tokenizer("gpt2"), gpt2_files()
    ours = BPETokenizer.from_openai(*files)
    assert ours.encode(text) == reference.encode_ordinary(text)
    seconds = {
        "ours, cold": median_seconds(
            lambda: BPETokenizer.from_openai(*files), lambda fresh: fresh.encode(text)
        ),
        "ours, warm": median_seconds(lambda: ours, lambda warm: warm.encode(text)),
        "tiktoken": median_seconds(
            lambda: reference, lambda encoding: encoding.encode_ordinary(text)
        ),
    }
    for name, each in seconds.items():
        ratio = seconds["tiktoken"] / each
        speed = len(text.encode()) / 1e6 / each
        print(f"encode {name:11} {speed:6.2f} MB/s, {ratio:.2f} of tiktoken's speed")


def measure_training(text):
    """Print the time to learn 1,000 tokens."""
    seconds = median_seconds(lambda: text, lambda t: BPETokenizer.train(t, 1000))
    print(f"train  1,000 tokens on {len(text.encode()) / 1e6:.2f} MB: {seconds:.2f} s")


def measure_windows():
    """Print what the windows of a million tokens hold, at several strides."""

    class Numbers:
        """A tokenizer whose text is already numbers."""

        encode = staticmethod(lambda text, allowed_special: list(range(NUM_TOKENS)))

    for stride in (1, 128, 256):
        start = time.perf_counter()
        windows = GPTDatasetV1("", Numbers, max_length=256, stride=stride)
        seconds = time.perf_counter() - start
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for tensor in (windows.input_ids, windows.target_ids)
        }
        print(
            f"loader stride {stride:3}: {len(windows):7,} windows in "
            f"{sum(storages.values()) / 1e6:.0f} MB, {seconds:.2f} s"
        )


def main():
    """Measure all three and print a line each."""
    text = load_text(*sys.argv[1:2])
    print(f"{len(text):,} characters, {torch.get_num_threads()} threads")
    measure_encoding(text)
    measure_training(text)
    measure_windows()


if __name__ == "__main__":
    main()
