"""The byte-pair algorithm (chapter 2): learning merges, and applying them.

A word is a pre-token as bytes: `b" water"`. Ids 0 to 255 are the single bytes.
"""

import heapq
import re
from collections import Counter, defaultdict

import regex

from support.checks import check_whole
from support.download.vocabulary import check_names

# GPT-2's pre-tokenizer: contractions, then runs of letters, of digits and of other
# signs, each with one space before it, then the white space that is left over.
# Merges never cross these borders. `++` is `+` that gives nothing back.
SPLIT_PATTERN = regex.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
)


def count_pairs(words):
    """How often each pair of neighbouring ids occurs: words is a list of lists."""
    counts = Counter()
    for ids in words:
        counts.update(zip(ids, ids[1:]))  # adds 1 for each pair
    return counts


def merge_pair(ids, pair, new_id):
    """Replace each pair, from the left: ([1, 2, 3, 1, 2], (1, 2), 4) -> [4, 3, 4]."""
    merged = []
    for token_id in ids:
        # (new_id is not in pair, so what was just merged is not used again.)
        if merged and (merged[-1], token_id) == pair:
            merged[-1] = new_id
        else:
            merged.append(token_id)
    return merged


def most_frequent(counts):
    """The pair with the highest count; of equals, the one with the smaller ids."""
    return min(counts, key=lambda pair: (-counts[pair], pair))


def encode_word(ids, merges):
    """Merge the bytes of a word: the pair that was learned first goes first."""
    while True:
        known = [pair for pair in zip(ids, ids[1:]) if pair in merges]
        if not known:
            return ids
        first = min(known, key=merges.get)  # the pair whose merged id is the lowest
        ids = merge_pair(ids, first, merges[first])


class BPETokenizerSimple:
    """Byte-pair encoding, written to be read and not to be fast."""

    def __init__(self):
        self.bpe_merges = {}  # (left id, right id): id of the merged token
        self.vocab = {i: bytes([i]) for i in range(256)}  # id: the token's bytes

    def split(self, text):
        """Cut a text into words, each of them a list of bytes."""
        return [list(word.encode()) for word in SPLIT_PATTERN.findall(text)]

    def train(self, text, vocab_size):
        """Learn merges from a text until the vocabulary has vocab_size tokens."""
        self.__init__()  # begin again with the 256 bytes
        words = self.split(text)
        for new_id in range(256, vocab_size):
            counts = count_pairs(words)
            if not counts:
                break  # every word is a single token
            pair = most_frequent(counts)
            left, right = pair
            words = [merge_pair(ids, pair, new_id) for ids in words]
            self.bpe_merges[pair] = new_id
            self.vocab[new_id] = self.vocab[left] + self.vocab[right]

    def encode(self, text):
        """Text to token ids."""
        ids = []
        for word in self.split(text):
            ids += encode_word(word, self.bpe_merges)
        return ids

    def decode(self, token_ids):
        """Token ids to text; bytes that are not a character are replaced."""
        tokens = [self.vocab[token_id] for token_id in token_ids]
        return b"".join(tokens).decode(errors="replace")


def split_special(text, names):
    """Cut out the special tokens: ("a<|x|>b", ["<|x|>"]) -> ["a", "<|x|>", "b"]."""
    if not names:
        return [text]
    longest_first = sorted(names, key=len, reverse=True)
    return re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)


def learn_merges(words, num_merges):
    """Learn merges from {word: count}: [(left id, right id), ...], the first one first.

    Merge i makes id 256 + i. The most frequent pair wins; among equals the one with
    the smaller left id, then the smaller right id. Only the words that hold the pair
    are touched. Raises ValueError when the words give fewer merges.
    """
    spellings = [list(word) for word in words]
    counts = list(words.values())
    pair_counts, holders = Counter(), defaultdict(set)
    for index, ids in enumerate(spellings):
        for pair in zip(ids, ids[1:]):
            pair_counts[pair] += counts[index]
            holders[pair].add(index)
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)
    merges = []
    while len(merges) < num_merges:
        best = pop_most_frequent(heap, pair_counts)
        touched = set()
        for index in holders.pop(best):
            old = spellings[index]
            new = merge_pair(old, best, 256 + len(merges))
            spellings[index] = new
            touched.update(recount(pair_counts, old, new, counts[index]))
            for pair in zip(new, new[1:]):
                holders[pair].add(index)
        for pair in touched:
            heapq.heappush(heap, (-pair_counts[pair], pair))
        merges.append(best)
    return merges


def recount(pair_counts, old, new, count):
    """Count a word's new pairs in place of its old ones; returns the set of both."""
    old_pairs, new_pairs = list(zip(old, old[1:])), list(zip(new, new[1:]))
    for pair in old_pairs:
        pair_counts[pair] -= count
    for pair in new_pairs:
        pair_counts[pair] += count
    return set(old_pairs + new_pairs)


def pop_most_frequent(heap, pair_counts):
    """Pop the pair with the highest count; entries out of date are passed over."""
    while heap:
        count, pair = heapq.heappop(heap)
        if count < 0 and -count == pair_counts[pair]:
            return pair
    raise ValueError(
        "the text has no pair left to merge: give more text or a smaller vocab_size"
    )


def train_vocab(text, vocab_size, special_tokens):
    """Learn ({token bytes: id}, {special token: id}), vocab_size entries in all."""
    check_names(special_tokens)
    check_whole(vocab_size=vocab_size)
    num_merges = vocab_size - 256 - len(special_tokens)
    if num_merges < 0:
        raise ValueError(
            f"vocab_size {vocab_size} is too small: 256 single bytes and "
            f"{len(special_tokens)} special tokens need {vocab_size - num_merges}"
        )
    words = Counter()
    for part in split_special(text, special_tokens):
        if part not in special_tokens:
            words.update(word.encode() for word in SPLIT_PATTERN.findall(part))
    tokens = [bytes([value]) for value in range(256)]
    for left, right in learn_merges(words, num_merges):
        tokens.append(tokens[left] + tokens[right])
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    return vocab, {name: len(tokens) + i for i, name in enumerate(special_tokens)}


def merge_bytes(word, vocab):
    """Split a word into ids: the pair whose merged token has the lowest id goes first.

    Tokens are spans of the word, linked by their ends; a heap holds the possible
    merges. So a word of n bytes costs n log n steps, not n * n.
    """
    if word in vocab:
        return [vocab[word]]
    size = len(word)
    end = list(range(1, size + 1))  # end[i]: where the token starting at i stops
    before = list(range(-1, size - 1))  # before[i]: where the token left of i starts
    heap = []

    def offer(start, middle):
        """Put the merge of the tokens at start and middle, if any, on the heap."""
        rank = vocab.get(word[start : end[middle]])
        if rank is not None:
            heapq.heappush(heap, (rank, start, middle, end[middle]))

    for start in range(size - 1):
        offer(start, start + 1)
    while heap:
        _, start, middle, stop = heapq.heappop(heap)
        if end[start] != middle or end[middle] != stop:
            continue  # one of the two has been merged elsewhere since
        end[start], end[middle] = stop, 0
        if before[start] >= 0:
            offer(before[start], start)
        if stop < size:
            before[stop] = start
            offer(start, stop)
    ids, start = [], 0
    while start < size:
        ids.append(vocab[word[start : end[start]]])
        start = end[start]
    return ids
