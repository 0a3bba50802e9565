"""Answers to chapter 2's exercises, right ones and such as a reader gets wrong."""

import copy
import heapq
import math
import re
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import torch
from sklearn.metrics.pairwise import cosine_similarity
from torch import nn
from torch.utils.data import DataLoader

from ch02.bpe import BPETokenizerSimple
from ch02.dataset import GPTDatasetV1, create_dataloader_v1
from ch02.tokenizer import (
    BPETokenizer,
    SimpleTokenizerV1,
    SimpleTokenizerV2,
    get_tokenizer,
    split_words,
)
from support.download.texts import load_text
from support.exercises.ch02 import DEPTHS, HOURS, share_of_followers

END = "<|endoftext|>"
MARKS = list(",.?!\"()'")


def vocab_in_a_loop(tokens):
    """Numbers each new token of a sorted list."""
    vocab = {}
    for token in sorted(tokens):
        if token not in vocab:
            vocab[token] = torch.tensor(len(vocab))
    return vocab


def encode_in_a_loop(text, vocab):
    """Appends one id after the other, to a tuple."""
    ids = ()
    for token in split_words(text):
        ids += (np.int64(vocab[token]),)
    return ids


def decode_with(
    pattern=r'\s+([,.?!"()\'])', replacement=r"\1", space=" ", tokens_given=False
):
    """2.3's decode, with other parts; tokens_given: it only joins tokens."""

    def join(tokens):
        return re.sub(pattern, replacement, space.join(tokens))

    def decode(ids, vocab):
        token_of = {token_id: token for token, token_id in vocab.items()}
        return join(token_of[token_id] for token_id in ids)

    return join if tokens_given else decode


def decode_in_a_loop(ids, vocab):
    """No regular expression, and no second dictionary."""
    tokens, numbers = list(vocab), list(vocab.values())
    text = ""
    for token_id in ids:
        token = tokens[numbers.index(token_id)]
        text += token if token in MARKS or not text else " " + token
    return text


def join_in_a_loop(starts_open=False, closes=True):
    """What 2.3.4 asks for, with faults if asked for."""

    def join_tokens(tokens):
        text, is_open, behind = "", starts_open, True
        for token in tokens:
            glued = behind or token in list(",.?!)") or (token == '"' and is_open)
            text += token if glued else " " + token
            behind = token == '"' and not is_open
            if token == '"' and (closes or not is_open):
                is_open = not is_open
        return text

    return join_tokens


def join_by_pattern(tokens):
    """A pattern finds each pair of quotation marks."""
    text = re.sub(r'"\s*([^"]*?)\s*"', r'"\1"', " ".join(tokens))
    return re.sub(r"\s+([,.?!)])", r"\1", text)


def tokenizer_with(token_id=None):
    """2.4's tokenizer, or one with another `token_id`."""
    if token_id is None:
        return SimpleTokenizerV2
    return type("SimpleTokenizerV2", (SimpleTokenizerV1,), {"token_id": token_id})


class TokenizerWithGet(SimpleTokenizerV1):
    """Asks for a default."""

    def token_id(self, token):
        return self.str_to_int.get(token, self.str_to_int["<|unk|>"])


class TokenizerWithTry(SimpleTokenizerV1):
    """Catches the error of its base class."""

    def token_id(self, token):
        try:
            return np.int64(super().token_id(token))
        except ValueError:
            return super().token_id("<|unk|>")


def join_with(before_first=False, after_last=False):
    """What 2.4.c asks for, with faults if asked for."""

    def join_texts(texts, tokenizer):
        end = tokenizer.str_to_int[END]
        ids = [end] if before_first else []
        for text in texts:
            ids += [*tokenizer.encode(text), end]
        return ids if after_last else ids[:-1]

    return join_texts


def share_in_lower_case(lower_known=True, lower_new=True):
    """What 2.4.3 asks for, with faults if asked for."""

    def share(known_tokens, new_tokens):
        known = {t.lower() if lower_known else t for t in known_tokens}
        new = [t.lower() if lower_new else t for t in new_tokens]
        return torch.tensor(sum(t not in known for t in new) / len(new))

    return share


def split_at(token_ids, end_id):
    """Keeps no empty texts."""
    texts, current = [], []
    for token_id in token_ids:
        if token_id == end_id:
            texts += [current] if current else []
            current = []
        else:
            current.append(token_id)
    return texts + [current]


GPT2 = get_tokenizer("gpt2")
STORY = load_text()
torch.manual_seed(123)
TABLE = nn.Embedding(6, 3)


def linear(weight, bias=False):
    """An nn.Linear with this weight."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def loader(**changes):
    """The loader that 2.6.2 asks for, with changes."""
    right = {"max_length": 64, "stride": 64, "shuffle": False, "drop_last": False}
    return create_dataloader_v1(STORY, **right | changes)


def pairs_with_loop(words):
    """Two loops by position, and a plain dictionary."""
    counts = {}
    for ids in words:
        for place in range(1, len(ids)):
            pair = ids[place - 1], ids[place]
            counts[pair] = counts.get(pair, 0) + 1
    return counts


def pairs_by(of_word):
    """Counts what a function finds in each word."""
    return lambda words: Counter(pair for ids in words for pair in of_word(ids))


def pairs_without_overlap(ids):
    """(1, 1) is found once in [1, 1, 1]."""
    found, place = [], 0
    while place < len(ids) - 1:
        found.append((ids[place], ids[place + 1]))
        again = tuple(ids[place + 1 : place + 3]) == found[-1]
        place += 2 if again else 1
    return found


def merge_with(step=2, only_first=False, keep=False, slice_is_pair=False):
    """A function that merges a pair by position, with faults if asked for."""

    def merge_pair(ids, pair, new_id):
        merged, place, done = [], 0, False
        while place < len(ids):
            two = ids[place : place + 2]  # a list, which equals no tuple
            if (two if slice_is_pair else tuple(two)) == pair and not done:
                merged += [new_id, pair[1]] if keep else [new_id]
                place += step
                done = only_first
            else:
                merged.append(ids[place])
                place += 1
        return merged

    return merge_pair


def merge_in_place(ids, pair, new_id):
    """Changes the list that it is given."""
    place = 0
    while place < len(ids) - 1:
        if (ids[place], ids[place + 1]) == pair:
            ids[place : place + 2] = [new_id]
        place += 1
    return np.array(ids)


def merge_as_text(ids, pair, new_id):
    """Replaces the pair in a text of the ids, so it finds 1, 2 in 11, 2."""
    text = " ".join(map(str, ids)).replace("{} {}".format(*pair), str(new_id))
    return [int(part) for part in text.split()]


def merge_without_end(ids, pair, new_id):
    """Forgets to move on after an id that is not merged."""
    merged, place = [], 0
    while place < len(ids):
        if tuple(ids[place : place + 2]) == pair:
            merged.append(new_id)
            place += 2
        else:
            merged.append(ids[place])
    return merged


def merge_from_the_right(ids, pair, new_id):
    """Begins at the end."""
    return merge_with()(ids[::-1], pair[::-1], new_id)[::-1]


def encode_with(choose, repeat=True):
    """Merges one pair of neighbours after the other, as `choose` says."""

    def encode_word(ids, merges):
        ids = list(ids)
        while True:
            places = [i for i, p in enumerate(zip(ids, ids[1:])) if p in merges]
            if not places:
                return ids
            place = choose(places, ids, merges)
            ids[place : place + 2] = [merges[ids[place], ids[place + 1]]]
            if not repeat:
                return ids

    return encode_word


def lowest(places, ids, merges):
    """Where the pair with the lowest new id is."""
    return min(places, key=lambda i: merges[ids[i], ids[i + 1]])


def highest(places, ids, merges):
    """Where the pair with the highest new id is."""
    return max(places, key=lambda i: merges[ids[i], ids[i + 1]])


def encode_without_end(ids, merges):
    """Forgets to keep the merged list."""
    while known := [pair for pair in zip(ids, ids[1:]) if pair in merges]:
        merge_with()(ids, min(known, key=merges.get), 256)
    return ids


def encode_in_order(ids, merges):
    """Goes once through all merges, in the order of their ids."""
    for pair in sorted(merges, key=merges.get):
        ids = merge_with()(ids, pair, merges[pair])
    return torch.tensor(ids)


def recount_with(factor=None, subtract=True, distinct=False, returns="all"):
    """An update of pair counts, with faults if asked for."""

    def recount(pair_counts, old, new, count):
        kind = set if distinct else list
        old_pairs, new_pairs = kind(zip(old, old[1:])), kind(zip(new, new[1:]))
        for pair in old_pairs:
            pair_counts[pair] -= (factor or count) * subtract
        for pair in new_pairs:
            pair_counts[pair] += factor or count
        pairs = {"all": [*old_pairs, *new_pairs], "new": new_pairs, "none": None}
        return pairs[returns]

    return recount


def recount_difference(pair_counts, old, new, count):
    """Returns only the pairs whose counts change."""
    change = Counter(zip(new, new[1:]))
    change.subtract(zip(old, old[1:]))
    for pair, number in change.items():
        pair_counts[pair] += count * number
    return {pair for pair, number in change.items() if number}


def pop_with(is_valid, last=None):
    """Pops entries until one is valid; then returns `last` or raises ValueError."""

    def pop_most_frequent(heap, pair_counts):
        while heap:
            count, pair = heapq.heappop(heap)
            if is_valid(-count, pair_counts[pair]):
                return pair
        if last:
            return last
        raise ValueError("no pair is left")

    return pop_most_frequent


def most_frequent_in_counts(heap, pair_counts):
    """Looks at all pairs, and never at the heap."""
    if not any(pair_counts.values()):
        raise ValueError("no pair is left")
    return min(pair_counts, key=lambda pair: (-pair_counts[pair], pair))


def pop_by_looking(heap, pair_counts):
    """Looks at the first entry before it takes it away."""
    while heap and (heap[0][0] == 0 or -heap[0][0] != pair_counts[heap[0][1]]):
        heapq.heappop(heap)
    if not heap:
        raise ValueError("empty")
    return list(heapq.heappop(heap)[1])


def split_by(pattern_of):
    """Cuts a text with the pattern that a function makes of the names."""
    return lambda text, names: re.split(pattern_of(names), text) if names else [text]


def split_by_partition(text, names):
    """Cuts at one name after the other, the longest first; no empty parts."""
    parts = [text]
    for name in sorted(names, key=len, reverse=True):
        cut = []
        for part in parts:
            while part not in names and name in part:
                before, _, part = part.partition(name)
                cut += [before, name]
            cut.append(part)
        parts = cut
    return tuple(part for part in parts if part)


def shrink_with(keep=0, renumber=True, in_place=False):
    """A smaller tokenizer, with faults if asked for."""

    def shrink(tokenizer, vocab_size):
        names = list(tokenizer.special_tokens)
        size = vocab_size - len(names) + keep
        vocab = {token: i for token, i in tokenizer.vocab.items() if i < size}
        special_tokens = {name: size + i for i, name in enumerate(names)}
        if not renumber:
            special_tokens = tokenizer.special_tokens
        if in_place:
            tokenizer.vocab.clear()
        return BPETokenizer(vocab, special_tokens)

    return shrink


def shrink_by_order(tokenizer, vocab_size):
    """Takes the first entries of the vocabulary."""
    size = vocab_size - len(tokenizer.special_tokens)
    vocab = dict(list(tokenizer.vocab.items())[:size])
    ids = range(size, vocab_size)
    return BPETokenizer(vocab, dict(zip(tokenizer.special_tokens, ids)))


def rotation(frequencies, sign):
    """Turns each pair of columns by its frequency."""
    angles = [sign * frequency for frequency in frequencies]
    turns = [[[a.cos(), -a.sin()], [a.sin(), a.cos()]] for a in angles]
    return torch.block_diag(*torch.tensor(turns))


def cut_at(token_ids, end_id):
    """Keeps empty texts, each an array."""
    row = np.array(token_ids)
    return [part[part != end_id] for part in np.split(row, np.where(row == end_id)[0])]


def neighbours_in_loop(word, words):
    """Both lists of a word's neighbours, found with indexes."""
    left, right = [], []
    for i, found in enumerate(words):
        if found == word and i > 0:
            left.append(words[i - 1])
        if found == word and i + 1 < len(words):
            right.append(words[i + 1])
    return [left, right]


def neighbours_around(word, words):
    """The trap: the first word's left neighbour is the last word."""
    places = [i for i, found in enumerate(words) if found == word]
    right = [words[i + 1] for i in places if i + 1 < len(words)]
    return [words[i - 1] for i in places], right


def neighbour_counter(step=1, skip=True, drop=False, turn=False, halves=2):
    """A function that counts neighbours for 2.1.c, with faults if asked for."""

    def neighbour_counts(words, distinct):
        if drop:
            words = [word for word in words if word in distinct]
        n = len(distinct)
        counts = np.zeros((n, 2 * n))
        for left, right in zip(words, words[1:]):
            if skip and not {left, right} <= set(distinct):
                continue
            i, j = distinct.index(left), distinct.index(right)
            cells = [(j, i), (i, n + j)] if not turn else [(i, j), (j, n + i)]
            for cell in cells[:halves]:
                counts[cell] = counts[cell] + 1 if step else 1
        return counts

    return neighbour_counts


def counts_by_matrix(words, distinct):
    """One-hot vectors of neighbours, multiplied."""
    rows = torch.tensor(
        [[float(word == other) for other in distinct] for word in words]
    )
    pairs = rows[1:].T @ rows[:-1]
    return torch.cat((pairs, pairs.T), dim=1)


def nearest_by(score, descending=True, first=0, count_more=0):
    """A function that lists the words with the largest scores."""

    def nearest(word, distinct, vectors, count=4):
        scores = score(vectors, vectors[distinct.index(word)])
        order = scores.argsort(descending=descending)[first:]
        found = [distinct[i] for i in order if first or distinct[i] != word]
        return found[: count + count_more]

    return nearest


def nearest_by_sorting(word, distinct, vectors, count=4):
    """No PyTorch beyond the cosines."""
    query = vectors[distinct.index(word)]
    others = [other for other in distinct if other != word]

    def distance(other):
        """Minus the cosine of the angle to a word."""
        return -torch.cosine_similarity(query, vectors[distinct.index(other)], dim=0)

    return tuple(sorted(others, key=distance)[:count])


def cosines(vectors, query):
    """The cosine similarity of each row with a vector, by scikit-learn."""
    found = cosine_similarity(vectors.numpy(), query[None].numpy())
    return torch.tensor(found[:, 0])


def one_hot_all_at_once(indexes, num_words):
    """The trap: each row gets the ones of all."""
    rows = torch.zeros(len(indexes), num_words)
    rows[:, indexes] = 1
    return rows


def tokens_in_loop(text):
    """Cuts with str.replace and str.split."""
    text = text.replace("--", "\0")
    for mark in ",.:;?_!\"()'\0":
        text = text.replace(mark, f" {mark} ")
    return ["--" if token == "\0" else token for token in text.split()]


def split_with(pattern, blanks=False):
    """A function that cuts with a pattern, and may keep blanks."""
    return lambda text: [p for p in re.split(pattern, text) if blanks or p.strip()]


def remove_while_going(pieces):
    """Leaves a blank that follows another."""
    for piece in pieces:
        if not piece.strip():
            pieces.remove(piece)
    return pieces


def smaller_tokenizer(part=lambda merges, n: merges[:n], vocab=True):
    """A function for 2.5.d, with faults if asked for."""

    def first_merges(tokenizer, num_merges):
        smaller = BPETokenizerSimple()
        if vocab:
            smaller.vocab = tokenizer.vocab
        smaller.bpe_merges = dict(part([*tokenizer.bpe_merges.items()], num_merges))
        return smaller

    return first_merges


def smaller_by_copy(tokenizer, num_merges):
    """Takes merges out of a copy."""
    smaller = copy.deepcopy(tokenizer)
    while len(smaller.bpe_merges) > num_merges:
        _, new_id = smaller.bpe_merges.popitem()
        del smaller.vocab[new_id]
    return smaller


def smaller_in_place(tokenizer, num_merges):
    """The trap: both tokenizers have the same dictionary."""
    smaller = BPETokenizerSimple()
    smaller.vocab, smaller.bpe_merges = tokenizer.vocab, tokenizer.bpe_merges
    while len(smaller.bpe_merges) > num_merges:
        smaller.bpe_merges.popitem()
    return smaller


def followers_with(which=-1, stride=1, key=tuple, spare=0):
    """A function for 2.6.c, with faults if asked for."""

    def count_followers(token_ids, size):
        followers = defaultdict(Counter)
        for start in range(0, len(token_ids) - size - spare, stride or size):
            target = token_ids[start + 1 : start + size + 1]
            followers[key(token_ids[start : start + size])][target[which]] += 1
        return followers

    return count_followers


def followers_in_dicts(token_ids, size):
    """No windows, no Counter, and arrays."""
    row, followers = np.array(token_ids), {}
    for i in range(size, len(row)):
        counts = followers.setdefault(tuple(row[i - size : i]), {})
        counts[row[i]] = counts.get(row[i], 0) + 1
    return followers


def letter_step(
    clear=True,
    move=True,
    reduce=torch.mean,
    swap=False,
    one_hot=True,
    after=False,
    give=True,
):
    """A function for 2.7.d, with faults if asked for."""

    def step(embedding, linear, optimizer, inputs, targets):
        def loss_now():
            right = nn.functional.one_hot(targets, 27) if one_hot else targets
            return reduce((linear(embedding(inputs)) - right) ** 2)

        if swap:
            inputs, targets = targets, inputs
        if clear:
            optimizer.zero_grad()
        loss = loss_now()
        loss.backward()
        if move:
            optimizer.step()
        return (loss_now() if after else loss).item() if give else None

    return step


def letter_step_that_clears_last(embedding, linear, optimizer, inputs, targets):
    """PyTorch's loss, a table of ones, and the gradients cleared at the end."""
    found = linear.forward(embedding.weight[inputs])
    loss = nn.functional.mse_loss(found, torch.eye(27)[targets])
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


def sinusoids(dtype):
    """The 200 sinusoids of 2.8.4."""
    angles = torch.arange(200)[:, None] * FREQUENCIES.to(dtype)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def least_squares(dtype):
    """The matrix that fits a step from one sinusoid to the next."""
    table = sinusoids(dtype)
    return torch.linalg.lstsq(table[:-1], table[1:]).solution


def center_in_place(x):
    """Changes its argument and returns it."""
    for row in x:
        row -= row.mean()
    return x


def multiply_in_loops(a, b):
    """Lists of sums of products."""
    columns = list(zip(*b.tolist()))
    return [[sum(x * y for x, y in zip(row, c)) for c in columns] for row in a.tolist()]


def step_with(factor=1.0, forget=True, decay=None):
    """A training step for 2.0's line, with faults if asked for."""

    def training_step(w, b, learning_rate):
        loss = ((w * HOURS + b - DEPTHS) ** 2).mean()
        before = loss.item()
        loss.backward()
        with torch.no_grad():
            for p in (w, b):
                p.sub_(factor * learning_rate * p.grad)
                p.grad = None if forget else p.grad
        return before if decay is None else decay * before

    return training_step


def slope_by_pythagoras(f, x):
    """Divides by the length of the line between the two points of the curve."""
    left, right = f(x - 0.001), f(x + 0.001)
    return (right - left) / math.hypot(0.002, right - left)


def step_to_new_tensors(w, b, learning_rate):
    """The caller's w and b stay as they were."""
    loss = ((w * HOURS + b - DEPTHS) ** 2).mean()
    loss.backward()
    with torch.no_grad():
        w = w - learning_rate * w.grad
        b = b - learning_rate * b.grad
    return loss.item()


def step_without_backward(w, b, learning_rate):
    """The parentheses are missing."""
    loss = ((w * HOURS + b - DEPTHS) ** 2).mean()
    loss.backward  # noqa: B018
    with torch.no_grad():
        w -= learning_rate * w.grad
    return loss.item()


def step_recorded(w, b, learning_rate):
    """There is no torch.no_grad()."""
    loss = ((w * HOURS + b - DEPTHS) ** 2).mean()
    loss.backward()
    w -= learning_rate * w.grad
    return loss.item()


def step_by_the_rate(w, b, learning_rate):
    """Steps equally far whatever the slopes are."""
    loss = ((w * HOURS + b - DEPTHS) ** 2).mean()
    loss.backward()
    with torch.no_grad():
        for p in (w, b):
            p -= learning_rate
            p.grad = None
    return loss.item()


def step_by_formula(w, b, learning_rate):
    """No autograd: the gradients as the formula has them."""
    errors = (w * HOURS + b - DEPTHS).detach()
    w.data -= learning_rate * (2 * errors * HOURS).mean()
    b.data -= learning_rate * (2 * errors).mean()
    return errors.square().mean()


class Line(nn.Module):
    """2.0's line."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x):
        return self.linear(x)


class LineThatCannotLearn(Line):
    def forward(self, x):
        return super().forward(x).detach()


class LineByHand(nn.Module):
    """Two parameters instead of a layer."""

    def __init__(self):
        super().__init__()
        self.w, self.b = (nn.Parameter(torch.randn(1)) for _ in range(2))

    def forward(self, x):
        return x * self.w + self.b


class Unfinished(Line):
    """Has a forward that returns nothing."""

    def forward(self, x):
        self.linear(x)


class Plane(Line):
    """Too many parameters."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 2)


def train_adding(num_epochs, zero=False, seed=123):
    """The losses of a line whose gradients add up, or not."""
    torch.manual_seed(seed)
    model = nn.Linear(1, 1)
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.05), []
    for _ in range(num_epochs):
        if zero:
            optimizer.zero_grad()
        loss = ((model(HOURS[:, None]) - DEPTHS[:, None]) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def learn_from(scale, shift=0.0, num_steps=200):
    """What 2.0.2 asks for, with inputs that are shifted and scaled."""

    def train(x, y):
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(num_steps):
            optimizer.zero_grad()
            ((model((x - shift) / scale) - y) ** 2).mean().backward()
            optimizer.step()
        return lambda minutes: model((minutes - shift) / scale)

    return train


def windows_with(shift=1, spare=0, step=None, length=0):
    """A function that cuts windows, with faults if asked for."""

    def cut_windows(token_ids, max_length, stride):
        inputs, targets, size = [], [], max_length + length
        for start in range(0, len(token_ids) - max_length + spare, step or stride):
            by = stride if shift == "stride" else shift
            inputs.append(token_ids[start : start + size])
            targets.append(token_ids[start + by : start + by + size])
        return inputs, targets

    return cut_windows


def windows_of_arrays(token_ids, max_length, stride):
    """Rows of positions, and the ids there."""
    starts = np.arange(0, max(0, len(token_ids) - max_length), stride)
    places = starts[:, None] + np.arange(max_length)
    ids = np.array(token_ids)
    return ids[places], ids[places + 1]


def windows_in_a_while(token_ids, max_length, stride):
    """A tuple of tuples."""
    rows, start = [], 0
    while start + max_length + 1 <= len(token_ids):
        rows.append(token_ids[start : start + max_length + 1])
        start += stride
    return tuple(row[:-1] for row in rows), tuple(row[1:] for row in rows)


def next_windows(token_ids, max_length, stride):
    """The target is the next window."""
    inputs, _ = windows_with()(token_ids, max_length, stride)
    return inputs[:-1], inputs[1:]


class WindowsOfLists:
    """2.6's dataset without PyTorch; `change` and `kind` make faults."""

    allowed, kind, shift = {"<|endoftext|>"}, staticmethod(torch.tensor), 1

    def __init__(self, txt, tokenizer, max_length, stride):
        ids = tokenizer.encode(txt, allowed_special=self.allowed)
        cut = windows_with(self.shift)
        self.inputs, self.targets = cut(ids, max_length, stride)

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, idx):
        return self.kind(self.inputs[idx]), self.kind(self.targets[idx])


class WindowsOfArrays(WindowsOfLists):
    """Its windows are NumPy arrays."""

    kind = staticmethod(np.array)


class UnstackedWindows(WindowsOfLists):
    """Its windows are lists."""

    kind = staticmethod(list)


class UnshiftedWindows(WindowsOfLists):
    """Its targets are its inputs."""

    shift = 0


class WindowsOfPlainText(WindowsOfLists):
    """Its tokenizer refuses <|endoftext|>."""

    allowed = set()


class WindowsOfPieces(WindowsOfLists):
    """It encodes <|endoftext|> as a text."""

    def __init__(self, txt, tokenizer, max_length, stride):
        ids = tokenizer.encode_ordinary(txt)
        self.inputs, self.targets = windows_with()(ids, max_length, stride)


class InputsOnly(WindowsOfLists):
    """It has no targets."""

    def __getitem__(self, idx):
        return self.kind(self.inputs[idx])


class StackedWindows(WindowsOfLists):
    """Its input and target are one tensor."""

    def __getitem__(self, idx):
        return torch.stack(super().__getitem__(idx))


class NamedWindows(WindowsOfLists):
    """Its input and target are in a dictionary."""

    def __getitem__(self, idx):
        return dict(zip(("input", "target"), super().__getitem__(idx)))


class WindowsWithoutNumber(WindowsOfLists):
    """Its __len__ forgets the `return`."""

    def __len__(self):
        len(self.inputs)


def repeats_without_shift(first, last):
    """Counts as 2.6's guesser does, with the input as its own target."""
    followers = {}
    for token_id in first:
        followers.setdefault(token_id, Counter())[token_id] += 1
    hits = [
        token_id in followers and followers[token_id].most_common(1)[0][0] == token_id
        for token_id in last[:-1]
    ]
    return np.mean(hits)


def look_up_in_loops(ids, table, axis=1):
    """Fills zeros; of another length if asked for."""
    vectors = torch.zeros(*ids.shape, table.shape[axis])
    for i, row in enumerate(ids):
        for j, token_id in enumerate(row):
            vectors[i, j] = table[token_id]
    return vectors


def one_hot_by_hand(ids, table):
    """Compares each id with all numbers of rows."""
    is_row = ids[..., None] == torch.arange(len(table))
    return torch.einsum("btv,vd->btd", is_row.to(table.dtype), table)


def table_gradient(ids, gradients, vocab_size):
    """A list of lists, added up in Python."""
    table = [[0.0] * gradients.shape[1] for _ in range(vocab_size)]
    for token_id, gradient in zip(ids.tolist(), gradients.tolist()):
        table[token_id] = [a + b for a, b in zip(table[token_id], gradient)]
    return table


def overwritten_gradient(ids, gradients, vocab_size):
    """The trap: of a row that was read twice, one gradient is lost."""
    table = torch.zeros(vocab_size, gradients.shape[1])
    table[ids] += gradients
    return table


def averaged_gradient(ids, gradients, vocab_size):
    """The mean of what arrives at a row."""
    one_hot = nn.functional.one_hot(ids, vocab_size).float()
    return one_hot.T @ gradients / one_hot.sum(dim=0).clamp(min=1)[:, None]


def sinusoids_in_loops(num_positions, output_dim, base=10000, halves=False, factor=2):
    """Lists of sines and cosines; in other orders and speeds if asked for."""
    table = []
    for p in range(num_positions):
        angles = [p / base ** (factor * i / output_dim) for i in range(output_dim // 2)]
        pairs = [(math.sin(angle), math.cos(angle)) for angle in angles]
        turns = zip(*pairs) if halves else pairs
        table.append([number for group in turns for number in group])
    return table


def turn(num_positions, output_dim, angle):
    """Sines and cosines of the angles that a function gives of p and i."""
    return [
        [f(angle(p, i)) for i in range(output_dim // 2) for f in (math.sin, math.cos)]
        for p in range(num_positions)
    ]


def embed_first(ids, tokens, positions):
    """Keeps the beginning of a long text."""
    ids = ids[:, : positions.num_embeddings]
    return tokens(ids) + positions.weight[: ids.shape[1]]


def embed_from_the_difference(ids, tokens, positions):
    """Counts from the front: a negative start takes too little of a short text."""
    ids = ids[:, ids.shape[1] - positions.num_embeddings :]
    return tokens(ids) + positions.weight[: ids.shape[1]]


def embed_last(ids, tokens, positions):
    """Keeps its end."""
    while ids.shape[1] > positions.num_embeddings:
        ids = ids[:, 1:]
    return tokens(ids) + positions(torch.arange(ids.shape[1]))


FREQUENCIES = 10000 ** (-torch.arange(0, 8, 2) / 8)

RIGHT = {
    "2.0.a": [
        lambda x: x - x.mean(dim=-1, keepdim=True),
        lambda x: x.numpy() - x.numpy().mean(axis=1)[:, None],
        center_in_place,
    ],
    "2.0.b": [
        lambda a, b: (a[:, :, None] * b[None]).sum(dim=1),
        multiply_in_loops,
        lambda a, b: np.array([[(x * y).sum() for y in b.T] for x in a]),
    ],
    "2.0.c": [
        lambda f, x, step=0.001: (f(x + step) - f(x - step)) / (2 * step),
        lambda f, x: torch.tensor((f(x + 1e-4) - f(x - 1e-4)) / 2e-4),
    ],
    "2.0.d": [
        lambda w, x, y: 2 * (w * x - y) * x,
        lambda w, x, y: np.float32(2 * x * x * w - 2 * x * y),
    ],
    "2.0.e": [step_with(), step_by_formula],
    "2.0.f": [Line, LineByHand],
    "2.0.1": [train_adding, lambda n: torch.tensor(train_adding(n))],
    "2.0.2": [learn_from(60), learn_from(102.5, 150.0)],
    "2.1.a": [
        lambda a, b: (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt()),
        lambda a, b: torch.cosine_similarity(a, b, dim=0),
        lambda a, b: float(a @ b / a.norm() / b.norm()),
        lambda a, b: cosine_similarity(a[None].numpy(), b[None].numpy()),
    ],
    "2.1.b": [neighbours_in_loop, lambda w, words: tuple(neighbours_in_loop(w, words))],
    "2.1.c": [neighbour_counter(), counts_by_matrix],
    "2.1.d": [
        nearest_by(lambda vectors, query: vectors @ query),
        nearest_by(lambda vectors, query: (vectors - query).norm(dim=1), False),
        nearest_by_sorting,
    ],
    "2.1.e": [
        lambda indexes, num_words: torch.eye(num_words)[indexes],
        lambda indexes, n: [[int(i == j) for j in range(n)] for i in indexes],
        lambda indexes, n: (indexes[:, None] == torch.arange(n)).float(),
    ],
    "2.1.1": [[3, 4], torch.tensor([[3.0, 4.0]]), (3.0, 4.0), np.array([3, 4])],
    "2.1.2": [
        "the ebb came and the flood came and a boat left it",
        "an ebb x an flood x boat",
    ],
    "2.1.3": [nearest_by(cosines), nearest_by_sorting],
    "2.2.a": [
        lambda pieces: filter(str.strip, pieces),
        lambda pieces: tuple(p for p in pieces if p and not p.isspace()),
        lambda pieces: [piece.strip() for piece in pieces if len(piece.strip()) > 0],
    ],
    "2.2.b": [
        split_words,
        tokens_in_loop,
        lambda text: re.findall(
            r'--|[,.:;?_!"()\']|(?:(?!--)[^\s,.:;?_!"()\'])+', text
        ),
    ],
    "2.2.1": [16, 16.0, np.int64(16), torch.tensor(16)],
    "2.2.2": [
        lambda text: tuple(
            re.findall(r'[,.:;?_!"()\']|--|-|[^\s,.:;?_!"()\'-]+', text)
        ),
        lambda text: [
            part
            for token in split_words(text)
            for part in ([token] if token == "--" else re.split("(-)", token))
            if part
        ],
    ],
    "2.2.3": [
        lambda text: filter(None, re.split(r'([,.:;?_!"()\']|--|\s)', text)),
        lambda text: re.findall(
            r'[,.:;?_!"()\']|--|\s+|(?:(?!--)[^\s,.:;?_!"()\'])+', text
        ),
    ],
    "2.2.4": [
        lambda text: re.findall(r"\d+(?:,\d+)*|\w+(?:'\w+)?|--|[^\w\s]", text),
        lambda text: [t for t in re.split(r"(\s|\.+|[^\w\s.])", text) if t.strip()],
    ],
    "2.3.a": [
        lambda tokens: {t: i for i, t in enumerate(sorted(set(tokens)))},
        lambda tokens: {t: np.int64(i) for i, t in enumerate(np.unique(tokens))},
        vocab_in_a_loop,
    ],
    "2.3.b": [
        lambda text, vocab: [vocab[token] for token in split_words(text)],
        lambda text, vocab: torch.tensor([*map(vocab.get, split_words(text))]),
        encode_in_a_loop,
    ],
    "2.3.c": [
        decode_with(),
        decode_with(pattern=r'\s*([,.?!"()\'])'),
        decode_with(pattern=r'\s+([,.:;?!"()\'])'),
        decode_in_a_loop,
    ],
    "2.3.1": [
        {"to": 4, "or": 3, "not": 2, "err": 1, "To": 0},
        {
            t: i
            for i, t in enumerate(np.unique(["To", "err", "or", "not", "to", "err"]))
        },
    ],
    "2.3.2": ['the water was early," said Amos.', 'He said, the tide was early"'],
    "2.3.3": [
        lambda tokens: {
            t: i
            for i, t in enumerate(
                sorted(set(tokens), key=lambda t: (-tokens.count(t), t))
            )
        },
        lambda tokens: dict(
            zip(
                [t for t, _ in Counter(sorted(tokens)).most_common()],
                torch.arange(len(tokens)),
            )
        ),
    ],
    "2.3.4": [join_in_a_loop(), join_by_pattern],
    "2.4.a": [tokenizer_with(), TokenizerWithGet, TokenizerWithTry],
    "2.4.b": [
        lambda tokens, vocab: sum(t not in vocab for t in tokens) / len(tokens),
        lambda tokens, vocab: 1 - np.mean([t in vocab for t in tokens]),
        lambda tokens, vocab: (
            torch.tensor([t not in vocab for t in tokens]).float().mean()
        ),
    ],
    "2.4.c": [
        join_with(),
        lambda texts, tokenizer: tokenizer.encode(" <|endoftext|> ".join(texts)),
        lambda texts, tokenizer: torch.tensor(join_with()(texts, tokenizer)),
    ],
    "2.4.1": [
        "Dorcas had no telephone and no email.",
        "email, email and the sea",
    ],
    "2.4.2": [
        cut_at,
        lambda token_ids, end_id: [
            [int(i) for i in part.split()]
            for part in " ".join(map(str, token_ids)).split(str(end_id))
        ],
    ],
    "2.4.3": [
        lambda known, new: np.mean(
            [t.lower() not in " ".join(known).lower().split() for t in new]
        ),
        share_in_lower_case(),
    ],
    "2.4.4": [
        lambda text: split_words(text.replace(END, f" {END} ")),
        lambda text: [
            token
            for part in re.split(r"(<\|endoftext\|>)", text)
            for token in split_words(part)
        ],
    ],
    "2.5.a": [pairs_with_loop, pairs_by(lambda ids: zip(ids, ids[1:]))],
    "2.5.b": [
        merge_with(),
        lambda ids, pair, new_id: merge_in_place([*ids], pair, new_id),
    ],
    "2.5.c": [encode_with(lowest), encode_in_order],
    "2.5.d": [smaller_tokenizer(), smaller_by_copy],
    "2.5.1": [
        tuple(GPT2.decode([token_id]) for token_id in GPT2.encode("Akwirw ier")),
        np.array([GPT2.decode([i]) for i in GPT2.encode("Akwirw ier")]),
    ],
    "2.5.2": ["tide-tide-tin", "tide tide-tin"],
    "2.5.3": ["🌊🌊", "潮汐", "\u0e19\u0e49\u0e33"],
    "2.5.4": [["aa", "aaaa", "aaa"], (b"aa", b"aaaa", b"aaa")],
    "2.6.a": [
        lambda token_ids: (token_ids[:-1], token_ids[1:]),
        lambda token_ids: np.array(list(zip(token_ids, token_ids[1:]))).T,
        lambda token_ids: torch.tensor(token_ids).unfold(0, len(token_ids) - 1, 1),
    ],
    "2.6.b": [windows_with(), windows_of_arrays, windows_in_a_while],
    "2.6.c": [followers_with(), followers_in_dicts],
    "2.6.d": [GPTDatasetV1, WindowsOfLists, WindowsOfArrays],
    "2.6.1": [
        6,
        6.0,
        np.int64(6),
        torch.tensor(6),
        Fraction(6),
        len(torch.arange(1023).unfold(0, 256, 128)),
    ],
    "2.6.2": [
        loader(),
        DataLoader(GPTDatasetV1(STORY, GPT2, 64, 64), batch_size=4),
        DataLoader(list(GPTDatasetV1(STORY, GPT2, 64, 64)), 4, shuffle=False),
    ],
    "2.6.3": [
        lambda dataset: torch.cat(
            (dataset.input_ids[0, :1], dataset.target_ids.flatten())
        ),
        lambda dataset: [
            *dataset.input_ids.flatten().tolist(),
            dataset.target_ids[-1][-1],
        ],
        lambda dataset: np.append(dataset.input_ids, dataset.target_ids[-1, -1]),
    ],
    "2.6.4": [
        repeats_without_shift,
        lambda first, last: sum(map(set(first).__contains__, last)) / len(last),
    ],
    "2.7.a": [
        lambda ids, table: table[ids],
        look_up_in_loops,
        lambda ids, table: table.detach().numpy()[ids.numpy()],
        lambda ids, table: [[table[i].tolist() for i in row] for row in ids],
    ],
    "2.7.b": [
        lambda ids, table: nn.functional.one_hot(ids, len(table)).float() @ table,
        lambda ids, table: torch.eye(table.shape[0])[ids] @ table,
        one_hot_by_hand,
    ],
    "2.7.c": [
        lambda ids, gradients, vocab_size: torch.zeros(
            vocab_size, gradients.shape[1]
        ).index_add(0, ids, gradients),
        table_gradient,
        lambda ids, gradients, vocab_size: (
            nn.functional.one_hot(ids, vocab_size).float().T @ gradients
        ),
    ],
    "2.7.d": [letter_step(), letter_step_that_clears_last],
    "2.7.1": [" gazing", "<|endoftext|>", "The boat has a radiator."],
    "2.7.2": [
        nn.Embedding.from_pretrained(torch.eye(6), freeze=False),
        nn.Embedding(6, 6, _weight=torch.eye(6, dtype=torch.float64)),
    ],
    "2.7.3": [linear(TABLE.weight.T), linear(TABLE.weight.T).double()],
    "2.7.4": ["h", " H", str(np.str_("h"))],
    "2.8.a": [
        lambda ids, tokens, positions: (
            tokens(ids) + positions(torch.arange(ids.size(-1)).expand_as(ids))
        ),
        lambda ids, tokens, positions: (
            tokens.weight[ids] + positions.weight[: ids.shape[-1]]
        ),
        lambda ids, tokens, positions: torch.stack(
            [
                torch.stack(
                    [tokens(t) + positions.weight[p] for p, t in enumerate(row)]
                )
                for row in ids
            ]
        ).tolist(),
    ],
    "2.8.b": [
        lambda vectors, weights: torch.tanh(vectors @ weights + vectors.mean(0)),
        lambda vectors, weights: np.tanh(
            np.stack(
                [
                    v @ weights.numpy() + sum(vectors.numpy()) / len(vectors)
                    for v in vectors.numpy()
                ]
            )
        ),
    ],
    "2.8.c": [
        sinusoids_in_loops,
        lambda num_positions, output_dim: torch.tensor(
            sinusoids_in_loops(num_positions, output_dim)
        ),
    ],
    "2.8.1": [51_281 * 768, torch.tensor(50257 * 768) + 1024 * 768, 39_383_808.0],
    "2.8.2": [
        embed_last,
        lambda ids, tokens, positions: (
            tokens(ids[:, -len(positions.weight) :]) + positions.weight[: ids.shape[1]]
        ).tolist(),
    ],
    "2.8.3": [0, 0.0, torch.tensor(1.2e-7), np.float32(-6e-8)],
    "2.8.4": [
        rotation(FREQUENCIES, 1),
        rotation(FREQUENCIES, 1).numpy(),
        rotation(FREQUENCIES, 1).tolist(),
        least_squares(torch.float32),
        least_squares(torch.float64),
    ],
    "2.A.a": [recount_with(), recount_difference],
    "2.A.b": [pop_with(lambda count, now: count == now > 0), pop_by_looking],
    "2.A.c": [
        split_by(lambda names: f"({'|'.join(map(re.escape, sorted(names)[::-1]))})"),
        split_by_partition,
    ],
    "2.A.1": [
        re.sub("[^a-z]", "", STORY.lower())[:2000],
        "".join(re.findall("[a-z]+", STORY)[500:])[:1500],
    ],
    "2.A.2": [shrink_with(), shrink_by_order],
}

WRONG = {
    "2.0.a": [
        lambda x: x - x.mean(dim=0),
        lambda x: x - x.mean(),
        lambda x: x - x.mean(dim=-1),
        lambda x: x.numpy() - x.numpy().mean(axis=1),
        lambda x: x.mean(dim=-1, keepdim=True),
        lambda x: print(x - x.mean(dim=-1, keepdim=True)),
    ],
    "2.0.b": [
        lambda a, b: a @ b,
        lambda a, b: multiply_in_loops(b.T, a.T),
        lambda a, b: torch.zeros(a.shape[0], b.shape[1]),
        lambda a, b: torch.einsum("ij,jk->ik", a, b),
    ],
    "2.0.c": [
        lambda f, x: (f(x + 0.001) - f(x - 0.001)) / 0.001,
        lambda f, x: (f(x - 0.001) - f(x + 0.001)) / 0.002,
        lambda f, x: f(x + 0.001) - f(x - 0.001),
        lambda f, x: (f(x + 0.001) - f(x)) / 0.001,
        lambda f, x: (f(x) - f(x - 0.001)) / 0.001,
        slope_by_pythagoras,
    ],
    "2.0.d": [
        lambda w, x, y: 2 * (w * x - y),
        lambda w, x, y: (w * x - y) ** 2,
        lambda w, x, y: 2 * (w * x - y) * w,
    ],
    "2.0.e": [
        step_with(factor=-1.0),
        step_with(forget=False),
        step_with(factor=2.0),
        step_with(decay=0.5),
        step_to_new_tensors,
        step_without_backward,
        step_recorded,
        step_by_the_rate,
    ],
    "2.0.f": [Line(), Unfinished, Plane, LineThatCannotLearn],
    "2.0.1": [
        lambda n: train_adding(n, zero=True),
        lambda n: train_adding(n, seed=1),
        lambda n: train_adding(n)[1:],
    ],
    "2.0.2": [
        learn_from(1.0),
        learn_from(60, num_steps=5),
        lambda x, y: learn_from(60)(x, y)(x),
    ],
    "2.1.a": [
        lambda a, b: (a * b).sum(),
        lambda a, b: (a * b).sum() / a.norm(),
        lambda a, b: (a * b).sum() / a.norm() * b.norm(),
        lambda a, b: (a * b).sum() / (a.norm() + b.norm()),
        lambda a, b: (a * b).sum() / ((a * a).sum() * (b * b).sum()),
        lambda a, b: torch.cosine_similarity(a, b, dim=0).abs(),
        lambda a, b: 1 - torch.cosine_similarity(a, b, dim=0),
        lambda a, b: (a * b).sum() / (len(a) * len(b)),
        lambda a, b: a * b,
    ],
    "2.1.b": [
        neighbours_around,
        lambda word, words: neighbours_in_loop(word, words)[::-1],
        lambda word, words: [set(part) for part in neighbours_in_loop(word, words)],
        lambda word, words: neighbours_in_loop(word, words)[0],
        lambda word, words: (
            [words[i - 1] for i, w in enumerate(words) if w == word and i],
            [words[i + 1] for i, w in enumerate(words) if w == word],
        ),
        lambda word, words: ([words[words.index(word) - 1]], []),
    ],
    "2.1.c": [
        neighbour_counter(step=0),
        neighbour_counter(skip=False),
        neighbour_counter(drop=True),
        neighbour_counter(turn=True),
        neighbour_counter(halves=1),
        lambda words, distinct: counts_by_matrix(words, distinct)[:, : len(distinct)],
        lambda words, distinct: counts_by_matrix(words, distinct).flip(0),
    ],
    "2.1.d": [
        nearest_by(lambda vectors, query: vectors @ query, first=1),
        nearest_by(lambda vectors, query: vectors @ query, descending=False),
        nearest_by(lambda vectors, query: vectors @ query, count_more=1),
        lambda word, distinct, vectors, count=4: (
            vectors @ vectors[distinct.index(word)]
        ).argsort(descending=True)[:count],
        lambda word, distinct, vectors, count=4: distinct[:count],
    ],
    "2.1.e": [
        one_hot_all_at_once,
        lambda indexes, num_words: torch.eye(num_words)[indexes].T,
        lambda indexes, num_words: torch.eye(num_words + 1)[indexes + 1],
        lambda indexes, num_words: torch.eye(num_words)[indexes - 1],
        lambda indexes, num_words: indexes,
    ],
    "2.1.1": [[6, 8], [2, 6], [5, 17 / 3], [3, 4, 0], [1, 3], "3, 4", 3],
    "2.1.2": [
        "the ebb and the flood",
        "ebb flood boat",
        "the ebb came and the flood came and the boat came and",
        "the ebb came and the flood left it by a boat there",
        ["ebb", "flood", "boat"],
    ],
    "2.1.3": [
        nearest_by(lambda vectors, query: vectors @ query),
        nearest_by(lambda vectors, query: vectors @ query / query.norm()),
        nearest_by(lambda vectors, query: (vectors - query).norm(dim=1), False),
        nearest_by(cosines, descending=False),
        ["sea", "tide"],
    ],
    "2.2.a": [
        lambda pieces: [piece for piece in pieces if piece],
        lambda pieces: [piece for piece in pieces if piece != " "],
        lambda pieces: [piece for piece in pieces if piece not in ("", " ")],
        remove_while_going,
        lambda pieces: [piece for piece in pieces if piece.isalpha()],
        lambda pieces: "".join(pieces).split(),
        lambda pieces: list(dict.fromkeys(piece for piece in pieces if piece.strip())),
    ],
    "2.2.b": [
        str.split,
        split_with(r"[,.:;?_!\"()']|--|\s"),
        split_with(r"([,.:;?_!\"()']|\s)"),
        split_with(r"([,.?]|--|\s)"),
        split_with(r"([,.:;?_!\"()']|--|\s)", blanks=True),
        lambda text: re.findall(r"\w+|[^\w\s]", text),
        lambda text: re.split(r"([,.:;?_!\"()'])|(--)|\s", text),
        lambda text: list(dict.fromkeys(split_words(text))),
        lambda text: split_words(text.lower()),
    ],
    "2.2.1": [14, 15, 17, 9, 18, "16"],
    "2.2.2": [
        split_words,
        lambda text: [
            piece
            for piece in re.split(r'([,.:;?_!"()\']|-|--|\s)', text)
            if piece.strip()
        ],
        lambda text: re.split(r'([,.:;?_!"()\']|--|-|\s)', text),
        lambda text: split_words(text.replace("-", " - ")),
        ["harbour", "-", "master"],
    ],
    "2.2.3": [
        split_words,
        lambda text: re.split(r'([,.:;?_!"()\']|--|\s)', text),
        lambda text: list(text),
        lambda text: [piece for piece in re.split(r"(\s)", text) if piece],
        lambda text: [text] if text else [],
    ],
    "2.2.4": [
        split_words,
        str.split,
        list,
        lambda text: re.findall(r"[a-zA-Z]+|[^\w\s]", text),
        lambda text: split_words(text.replace("-", " ")),
    ],
    "2.3.a": [
        lambda tokens: {t: i for i, t in enumerate(set(tokens), start=1)},
        lambda tokens: {t: i for i, t in enumerate(dict.fromkeys(tokens))},
        lambda tokens: {t: i for i, t in enumerate(sorted(tokens))},
        lambda tokens: dict(enumerate(sorted(set(tokens)))),
        lambda tokens: {t: i for i, t in enumerate(sorted(set(tokens), key=len))},
        lambda tokens: {
            t: i for i, t in enumerate(sorted({*tokens}, key=lambda t: (t.lower(), t)))
        },
        lambda tokens: sorted(set(tokens)),
        lambda tokens: print(tokens),
    ],
    "2.3.b": [
        lambda text, vocab: [vocab[token] for token in text.split()],
        lambda text, vocab: [vocab[character] for character in text],
        lambda text, vocab: sorted(vocab[token] for token in split_words(text)),
        lambda text, vocab: [vocab[token] for token in set(split_words(text))],
        lambda text, vocab: [list(vocab).index(token) for token in split_words(text)],
        lambda text, vocab: split_words(text),
        lambda text, vocab: [vocab[t] for t in split_words(text) if t in vocab],
        lambda text, vocab: [vocab.get(t) for t in split_words(text)],
        lambda text, vocab: print(text),
    ],
    "2.3.c": [
        decode_with(pattern="(x)"),
        decode_with(replacement=""),
        decode_with(replacement="\1"),
        decode_with(space=""),
        lambda ids, vocab: decode_with()(ids, {t: i for i, t in enumerate(vocab)}),
        lambda ids, vocab: decode_with()(ids, {i: t for t, i in vocab.items()}),
        lambda ids, vocab: [t for i in ids for t in vocab if vocab[t] == i],
        lambda ids, vocab: print(decode_with()(ids, vocab)),
    ],
    "2.3.1": [
        {"err": 0, "not": 1, "or": 2, "to": 3},
        {"err": 0, "not": 1, "or": 2, "To": 3, "to": 4},
        {"To": 1, "err": 2, "not": 3, "or": 4, "to": 5},
        {0: "To", 1: "err", 2: "not", 3: "or", 4: "to"},
        ["To", "err", "not", "or", "to"],
    ],
    "2.3.2": [
        '"No," said Dorcas.',
        "The water, the sea, the tide.",
        'the water," he',
        'the telephone," he said.',
        'the  water was early," said Amos.',
    ],
    "2.3.3": [
        lambda tokens: {t: i for i, t in enumerate(sorted(set(tokens)))},
        lambda tokens: {t: i for i, (t, _) in enumerate(Counter(tokens).most_common())},
        lambda tokens: dict(Counter(tokens)),
        lambda tokens: sorted(set(tokens)),
        lambda tokens: {
            t: i
            for i, t in enumerate(
                sorted(set(tokens), key=lambda t: (-tokens.count(t), t)), start=1
            )
        },
    ],
    "2.3.4": [
        decode_with(tokens_given=True),
        " ".join,
        join_in_a_loop(starts_open=True),
        join_in_a_loop(closes=False),
        lambda tokens: join_in_a_loop()(tokens).replace('" ', '"'),
        lambda tokens: list(tokens),
    ],
    "2.4.a": [
        SimpleTokenizerV1,
        tokenizer_with(lambda self, token: self.str_to_int.get(token, "<|unk|>")),
        tokenizer_with(
            lambda self, token: self.str_to_int.get(token) or self.str_to_int["<|unk|>"]
        ),
        tokenizer_with(
            lambda self, token: self.str_to_int.get(token, len(self.str_to_int) - 1)
        ),
        tokenizer_with(lambda self, token: self.str_to_int.setdefault(token, 99)),
        tokenizer_with(lambda self, token: self.str_to_int["<|unk|>"]),
        tokenizer_with(lambda self, token: print(self.str_to_int.get(token))),
        tokenizer_with()({"tide": 0, "<|unk|>": 1}),
    ],
    "2.4.b": [
        lambda tokens, vocab: len(set(tokens) - set(vocab)) / len(set(tokens)),
        lambda tokens, vocab: sum(t in vocab for t in tokens) / len(tokens),
        lambda tokens, vocab: sum(t not in vocab for t in tokens),
        lambda tokens, vocab: sum(t not in vocab for t in tokens) / len(vocab),
        lambda tokens, vocab: 100 * sum(t not in vocab for t in tokens) / len(tokens),
        lambda tokens, vocab: print(tokens),
    ],
    "2.4.c": [
        join_with(after_last=True),
        join_with(before_first=True),
        lambda texts, tokenizer: tokenizer.encode("<|endoftext|>".join(texts)),
        lambda texts, tokenizer: tokenizer.encode(" ".join(texts)),
        lambda texts, tokenizer: [tokenizer.encode(text) for text in texts],
        lambda texts, tokenizer: " <|endoftext|> ".join(texts),
        lambda texts, tokenizer: [
            i
            for text in texts
            for i in tokenizer.encode(text)
            + [tokenizer.token_id(END)] * (text != texts[-1])
        ],
        lambda texts, tokenizer: [
            1077 if i == tokenizer.token_id(END) else i
            for i in join_with()(texts, tokenizer)
        ],
        lambda texts, tokenizer: print(texts),
    ],
    "2.4.1": [
        "Dorcas had no telephone.",
        "The <|unk|> had no <|unk|>.",
        "telephone email",
        "Lots of people use email, telephone and internet.",
        6,
    ],
    "2.4.2": [
        split_at,
        lambda token_ids, end_id: [token_ids],
        lambda token_ids, end_id: [[i for i in token_ids if i != end_id]],
        lambda token_ids, end_id: [[i] for i in token_ids if i != end_id],
        [[5, 9], [7]],
    ],
    "2.4.3": [
        lambda known, new: sum(t not in known for t in new) / len(new),
        lambda known, new: share_in_lower_case()(new, known),
        share_in_lower_case(lower_new=False),
        share_in_lower_case(lower_known=False),
        0.1239,
    ],
    "2.4.4": [
        split_words,
        lambda text: split_words(text.replace(END, " ")),
        lambda text: re.split(r"(<\|endoftext\|>)", text),
        lambda text: split_words(text.replace("endoftext", " endoftext ")),
        lambda text: split_words(text.replace(END, f" {END} "))[:-1],
    ],
    "2.5.a": [
        lambda words: pairs_with_loop([sum(words, [])]),
        pairs_by(lambda ids: set(zip(ids, ids[1:]))),
        pairs_by(pairs_without_overlap),
        pairs_by(lambda ids: zip(ids, ids[2:])),
        lambda words: print(pairs_with_loop(words)),
        lambda words: list(pairs_with_loop(words).items()),
    ],
    "2.5.b": [
        merge_with(step=1),
        merge_with(only_first=True),
        merge_with(keep=True),
        merge_from_the_right,
        merge_in_place,
        merge_as_text,
        merge_without_end,
        merge_with(slice_is_pair=True),
        lambda ids, pair, new_id: list(
            bytes(ids).replace(bytes(pair), bytes([new_id]))
        ),
        lambda ids, pair, new_id: [new_id if i in pair else i for i in ids],
        lambda ids, pair, new_id: None,
    ],
    "2.5.c": [
        encode_with(lambda places, ids, merges: places[0]),
        encode_with(lambda places, ids, merges: places[-1]),
        encode_with(highest),
        encode_with(lowest, repeat=False),
        encode_with(lambda places, ids, merges: min(places, key=lambda i: ids[i])),
        encode_without_end,
        lambda ids, merges: None,
    ],
    "2.5.d": [
        smaller_tokenizer(part=lambda merges, n: merges[-n:]),
        smaller_tokenizer(part=lambda merges, n: merges[: max(0, n - 256)]),
        smaller_tokenizer(part=lambda merges, n: sorted(merges)[:n]),
        smaller_tokenizer(vocab=False),
        smaller_in_place,
        lambda tokenizer, num_merges: tokenizer.bpe_merges,
        lambda tokenizer, num_merges: None,
    ],
    "2.5.1": [
        GPT2.encode("Akwirw ier"),
        ["Akwirw", " ier"],
        list("Akwirw ier"),
        GPT2.decode(GPT2.encode("Akwirw ier")),
        ["Ak", "w", "ir", "w", "ier"],
    ],
    "2.5.2": ["tide", "tide tide time", "ti de tide", "", b"tide-tide-tin", 3],
    "2.5.3": ["tide", "", "🌊", "é", "Akwirw ier", b"\xf0\x9f\x8c\x8a", 3],
    "2.5.4": [
        ["aa", "aaa", "aaaa"],
        ["aa", "aaaa", "aaaaaa"],
        ["a", "aa", "aaaa"],
        ["aa", "aaaa"],
        "aa, aaaa, aaa",
        [256, 257, 258],
    ],
    "2.6.a": [
        lambda token_ids: (token_ids, token_ids),
        lambda token_ids: (token_ids[:-1], token_ids[:-1]),
        lambda token_ids: (token_ids[1:], token_ids[:-1]),
        lambda token_ids: (token_ids[:-1], token_ids[-1]),
        lambda token_ids: (token_ids, token_ids[1:]),
        lambda token_ids: token_ids[1:],
    ],
    "2.6.b": [
        windows_with(shift=0),
        windows_with(shift=-1),
        windows_with(shift="stride"),
        windows_with(spare=1),
        windows_with(spare=9),
        windows_with(spare=-1),
        windows_with(step=1),
        windows_with(length=1),
        next_windows,
        lambda ids, size, stride: (
            windows_with()(ids, size, stride) if len(ids) > size + 1 else ([], [])
        ),
        lambda ids, size, stride: (
            windows_with()(ids, size, stride) if len(ids) > size else None
        ),
        lambda ids, size, stride: (
            windows_with()(ids, size, stride)[0],
            [row[-1:] for row in windows_with()(ids, size, stride)[1]],
        ),
        lambda *arguments: list(zip(*windows_with()(*arguments))),
        lambda *arguments: [sum(part, []) for part in windows_with()(*arguments)],
        lambda ids, size, stride: windows_with()(ids, size, size),
    ],
    "2.6.c": [
        followers_with(which=0),
        followers_with(stride=None),
        followers_with(key=lambda context: context[-1]),
        followers_with(key=list),
        followers_with(spare=1),
        lambda ids, size: Counter(zip(ids, ids[1:])),
        lambda ids, size: {c: set(n) for c, n in followers_with()(ids, size).items()},
        lambda ids, size: {
            c: dict.fromkeys(n, 1) for c, n in followers_with()(ids, size).items()
        },
        lambda ids, size: print(followers_with()(ids, size)),
    ],
    "2.6.d": [
        UnstackedWindows,
        UnshiftedWindows,
        WindowsOfPlainText,
        WindowsOfPieces,
        InputsOnly,
        StackedWindows,
        NamedWindows,
        WindowsWithoutNumber,
        GPTDatasetV1("The tide is low at noon.", GPT2, 4, 1),
    ],
    "2.6.1": [7, 8, 5, 4, 767, "6", [6, 6]],
    "2.6.2": [
        create_dataloader_v1(STORY),
        loader(stride=32),
        loader(stride=65),
        loader(shuffle=True),
        loader(drop_last=True),
        loader(batch_size=8),
        loader(max_length=32, stride=32),
        loader().dataset,
        DataLoader([(x, x) for x, _ in GPTDatasetV1(STORY, GPT2, 64, 64)], 4),
    ],
    "2.6.3": [
        lambda dataset: dataset.input_ids.flatten(),
        lambda dataset: torch.cat((dataset.input_ids, dataset.target_ids[:, -1:]), 1),
        lambda dataset: torch.cat(
            (dataset.input_ids, dataset.target_ids[:, -1:]), 1
        ).flatten(),
        lambda dataset: dataset.target_ids.flatten(),
        lambda dataset: dataset.input_ids.flatten().tolist(),
        lambda dataset: sorted({*dataset.input_ids.flatten().tolist()}),
        torch.arange(5),
    ],
    "2.6.4": [
        share_of_followers,
        lambda first, last: 1.0,
        lambda first, last: len(set(first) & set(last)) / len(set(last)),
        lambda first, last: sum(token_id in first for token_id in last),
        lambda first, last: np.mean([token_id in set(last) for token_id in first]),
    ],
    "2.7.a": [
        lambda ids, table: table[ids.flatten()],
        lambda ids, table: table[ids - 1],
        lambda ids, table: table.T[ids % table.shape[1]],
        lambda ids, table: ids[..., None] * table[0],
        lambda ids, table: look_up_in_loops(ids, table, axis=0),
        lambda ids, table: print(table[ids]),
    ],
    "2.7.b": [
        lambda ids, table: nn.functional.one_hot(ids, len(table)) @ table,  # whole
        lambda ids, table: nn.functional.one_hot(ids).float() @ table,  # too short
        lambda ids, table: (
            nn.functional.one_hot(ids, table.shape[1]).float() @ table  # too short
        ),
        lambda ids, table: table @ nn.functional.one_hot(ids, len(table)).float(),
        lambda ids, table: table[ids],
        lambda ids, table: nn.functional.embedding(ids, table),
        lambda ids, table: nn.functional.one_hot(ids, len(table)).float(),
        lambda ids, table: (
            nn.functional.one_hot(ids.flatten(), len(table)).float() @ table
        ),
    ],
    "2.7.c": [
        overwritten_gradient,
        averaged_gradient,
        lambda ids, gradients, vocab_size: table_gradient(
            ids[:1], gradients[:1], vocab_size
        ),
        lambda ids, gradients, vocab_size: gradients,
        lambda ids, gradients, vocab_size: torch.ones(vocab_size, gradients.shape[1]),
        lambda ids, gradients, vocab_size: nn.functional.one_hot(ids, vocab_size),
        lambda ids, gradients, vocab_size: (
            -torch.tensor(table_gradient(ids, gradients, vocab_size))
        ),
    ],
    "2.7.d": [
        letter_step(clear=False),
        letter_step(move=False),
        letter_step(reduce=torch.sum),
        letter_step(reduce=lambda errors: errors.sum(dim=1).mean()),
        letter_step(swap=True),
        letter_step(one_hot=False),
        letter_step(after=True),
        letter_step(give=False),
    ],
    "2.7.1": ["The tide is low.", "", 50256, [" gazing"], "\U0001f30a"],
    "2.7.2": [
        nn.Embedding(6, 6),
        nn.Embedding.from_pretrained(torch.ones(6, 6)),
        nn.Embedding.from_pretrained(torch.eye(5)),
        torch.eye(6),
        nn.Embedding.from_pretrained(torch.eye(6).flip(0)),
    ],
    "2.7.3": [
        nn.Linear(6, 3),
        nn.Linear(3, 6),
        linear(TABLE.weight),
        linear(TABLE.weight.flip(0).T),
        linear(TABLE.weight.reshape(3, 6)),
        linear(TABLE.weight.T, bias=True),
        TABLE,
    ],
    "2.7.4": ["y", "t", "e", "z", "v", "th", 7],
    "2.8.a": [
        lambda ids, tokens, positions: tokens(ids) + positions.weight,
        lambda ids, tokens, positions: tokens(ids) + positions(ids),
        lambda ids, tokens, positions: tokens(ids),
        lambda ids, tokens, positions: (
            tokens(ids) + positions(torch.arange(len(ids)).clamp(max=5))
        ),
        lambda ids, tokens, positions: tokens(ids) + positions(ids.clamp(max=0)),
        lambda ids, tokens, positions: (
            tokens(ids) + positions(torch.arange(1, ids.shape[-1] + 1))
        ),
        lambda ids, tokens, positions: tokens(ids) * positions.weight[: ids.shape[-1]],
        nn.Embedding(6, 3),
    ],
    "2.8.b": [
        lambda vectors, weights: vectors @ weights + vectors.mean(dim=0),
        lambda vectors, weights: torch.tanh(vectors @ weights + vectors.mean()),
        lambda vectors, weights: torch.tanh(vectors @ weights + vectors.mean(dim=1)),
        lambda vectors, weights: torch.tanh(vectors @ weights) + vectors.mean(dim=0),
        lambda vectors, weights: torch.tanh((vectors + vectors.mean(dim=0)) @ weights),
        lambda vectors, weights: torch.tanh(weights @ vectors + vectors.mean(dim=0)),
        lambda vectors, weights: torch.tanh(vectors @ weights),
    ],
    "2.8.c": [
        lambda n, d: sinusoids_in_loops(n, d, halves=True),
        lambda n, d: sinusoids_in_loops(n, d, factor=1),
        lambda n, d: sinusoids_in_loops(n + 1, d)[1:],
        lambda n, d: [[*np.roll(row, 1)] for row in sinusoids_in_loops(n, d)],
        lambda n, d: sinusoids_in_loops(n, d, base=1000),
        lambda n, d: turn(n, d, lambda p, i: p / 10000**2 * i / d),
        lambda n, d: turn(n, d, lambda p, i: p / (10000**2 * i / d)),
        lambda n, d: turn(n, d, lambda p, i: p / 10000 ** (2 * i // d)),
        lambda n, d: turn(n, d, lambda p, i: p / 10000 ** (4 * i / d)),
        lambda n, d: turn(n, d, lambda p, i: p * 0.1**i),
        lambda n, d: turn(n, d, lambda p, i: (p / 10000) ** (2 * i / d)),
        lambda n, d: torch.zeros(n, d),
        lambda n, d: torch.tensor(sinusoids_in_loops(n, d)).T,
    ],
    "2.8.1": [
        50257 * 768,
        1024 * 768,
        50257 * 768 * 1024 * 768,
        (50257 + 1024) * 1024,
        "39 million",
    ],
    "2.8.2": [
        lambda ids, tokens, positions: (
            tokens(ids) + positions(torch.arange(ids.shape[1]))
        ),
        embed_first,
        lambda ids, tokens, positions: (
            tokens(ids) + positions(torch.arange(ids.shape[1]).clamp(max=5))
        ),
        lambda ids, tokens, positions: tokens(ids[:, -6:]),
        lambda ids, tokens, positions: (
            tokens(ids[:, -6:]) + positions(torch.arange(min(6, ids.shape[1])))
        ),
        embed_from_the_difference,
        lambda ids, tokens, positions: tokens(ids[:, -6:]) + positions.weight,
    ],
    "2.8.3": [0.5, -1, torch.tensor(0.2), "nothing", float("nan")],
    "2.8.4": [
        torch.eye(8),
        rotation(FREQUENCIES, -1),
        rotation(FREQUENCIES * torch.tensor([1, 1, 1, 0]), 1),  # the slowest stands
        rotation(FREQUENCIES * torch.tensor([1, 1, 0, 0]), 1),
        rotation(torch.ones(4), 1),
        torch.eye(8).roll(1, 0),
        torch.ones(4, 4),
        [[1.0] * 8] * 8,
    ],
    "2.A.a": [
        recount_with(factor=1),
        recount_with(subtract=False),
        recount_with(distinct=True),
        recount_with(returns="new"),
        recount_with(returns="none"),
    ],
    "2.A.b": [
        pop_with(lambda count, now: True),
        pop_with(lambda count, now: count == now),
        pop_with(lambda count, now: now > 0),
        pop_with(lambda count, now: count == now > 0, last=(0, 0)),
        lambda heap, pair_counts: heap[0][1],
        most_frequent_in_counts,
    ],
    "2.A.c": [
        split_by(lambda names: f"({'|'.join(map(re.escape, names))})"),
        split_by(lambda names: f"({'|'.join(sorted(names, key=len, reverse=True))})"),
        split_by(lambda names: "|".join(map(re.escape, sorted(names, key=len)[::-1]))),
        lambda text, names: [text],
        lambda text, names: list(text),
    ],
    "2.A.1": [STORY[:2000], "the" * 600, re.sub("[^a-z]", "", STORY), "", 3],
    "2.A.2": [
        shrink_with(keep=1),
        shrink_with(renumber=False),
        shrink_with(in_place=True),
        lambda tokenizer, vocab_size: tokenizer,
        lambda tokenizer, vocab_size: tokenizer.vocab,
    ],
}
