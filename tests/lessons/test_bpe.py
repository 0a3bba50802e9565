"""The byte-pair algorithm, slow and fast: pre-tokens, learning merges, using them."""

import sys
from collections import Counter

import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from ch02.bpe import (
    SPLIT_PATTERN,
    BPETokenizerSimple,
    count_pairs,
    encode_word,
    learn_merges,
    merge_bytes,
    merge_pair,
    most_frequent,
    recount,
    split_special,
    train_vocab,
)
from ch02.tokenizer import BPETokenizer
from support.download.texts import load_text
from support.exercises.ch02 import replaced

MANY = settings(max_examples=300)
SINGLE_BYTES = {bytes([value]): value for value in range(256)}
NUM_MERGES = 200


def learn_naively(words, num_merges):
    """Learn merges from a list of words; count every pair anew for each merge."""
    spellings, merges = [list(word) for word in words], []
    while len(merges) < num_merges:
        counts = Counter(pair for ids in spellings for pair in zip(ids, ids[1:]))
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        new_id = 256 + len(merges)
        spellings = [replaced(ids, best, new_id) for ids in spellings]
        merges.append(best)
    return merges


@pytest.fixture(scope="module")
def story():
    """The first 20 kB of the story."""
    return load_text().encode()[:20_000].decode(errors="ignore")


@pytest.fixture(scope="module")
def words(story):
    """Its pre-tokens, as often as they occur."""
    return [word.encode() for word in SPLIT_PATTERN.findall(story)]


@pytest.fixture(scope="module")
def merges(words):
    """What the naive trainer learns from it."""
    return learn_naively(words, NUM_MERGES)


@pytest.fixture(scope="module")
def vocab(story):
    """What the course's trainer learns from it."""
    return train_vocab(story, 256 + NUM_MERGES, [])[0]


@pytest.mark.parametrize("kind", [r"\p{L}", r"\p{N}", r"\s"])
def test_each_code_point_is_of_the_kind_that_tiktoken_finds(kind):
    codes = [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]
    everything = "".join(map(chr, codes))
    matches_only = tiktoken.Encoding(
        kind, pat_str=kind, mergeable_ranks=SINGLE_BYTES, special_tokens={}
    )
    theirs = bytes(matches_only.encode_ordinary(everything)).decode()
    ours = regex.findall(kind, everything, flags=SPLIT_PATTERN.flags)
    assert not set(ours) ^ set(theirs)


@MANY
@given(st.text(st.characters()))
def test_pre_tokens_leave_nothing_out(text):
    assert "".join(SPLIT_PATTERN.findall(text)) == text


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a b's", ["a", " b", "'s"]),
        ("we'll", ["we", "'ll"]),
        ("R2D2 42", ["R", "2", "D", "2", " 42"]),
        ("a   b", ["a", "  ", " b"]),
        ("a \n", ["a", " \n"]),
        ("(so!)", ["(", "so", "!)"]),
    ],
)
def test_pre_tokens_worked_by_hand(text, pieces):
    assert SPLIT_PATTERN.findall(text) == pieces


@MANY
@given(st.text(st.sampled_from("abS1½ \t\n\u00a0'sdmtlvre-é🌊"), max_size=60))
def test_pre_tokens_are_those_of_the_pattern_that_openai_published(text):
    published = (
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    )
    assert regex.findall(published, text) == SPLIT_PATTERN.findall(text)


@pytest.mark.parametrize(
    ("text", "names", "parts"),
    [
        ("a<|x|>b", ["<|x|>"], ["a", "<|x|>", "b"]),
        ("a<|x|>b", [], ["a<|x|>b"]),
        ("ab.", ["a.", "."], ["ab", ".", ""]),
        ("<x>y", ["<x>", "<x>y"], ["", "<x>y", ""]),
    ],
)
def test_special_tokens_are_cut_out_the_longest_first(text, names, parts):
    assert split_special(text, names) == parts


@pytest.mark.parametrize(
    ("ids", "pair", "merged"),
    [
        ([1, 2, 3, 1, 2], (1, 2), [4, 3, 4]),
        ([1, 1, 1], (1, 1), [4, 1]),
        ([1, 1, 1, 1], (1, 1), [4, 4]),
        ([2, 1], (1, 2), [2, 1]),
        ([], (1, 2), []),
    ],
)
def test_pairs_are_replaced_from_the_left(ids, pair, merged):
    assert merge_pair(ids, pair, 4) == merged


def test_pairs_are_counted_within_words():
    words = [[1, 1, 1], [2, 1], [1, 2, 1], [3], []]
    assert count_pairs(words) == {(1, 1): 2, (2, 1): 2, (1, 2): 1}
    assert count_pairs([]) == {}


def test_the_most_frequent_pair_with_the_smaller_ids():
    counts = {(2, 1): 3, (1, 9): 3, (1, 8): 3, (0, 0): 2}
    assert most_frequent(counts) == (1, 8)
    assert most_frequent(counts | {(5, 5): 4}) == (5, 5)


def test_counts_are_corrected_for_one_word():
    counts = Counter({(1, 2): 7, (2, 1): 3, (9, 9): 1})
    pairs = recount(counts, [1, 2, 1, 2], [4, 4], 3)
    assert pairs == {(1, 2), (2, 1), (4, 4)}
    assert counts == Counter({(1, 2): 1, (4, 4): 3, (9, 9): 1})


def test_merges_worked_by_hand():
    words = {b"low": 5, b"lower": 2, b"newest": 6, b"widest": 3}
    # e+s and s+t: 9 each, and e is the smaller; then es+t: 9; l+o and o+w: 7 each;
    # lo+w: 7; e+w, n+e and w+est: 6 each, and e+w has the smallest left id
    merges = [(101, 115), (256, 116), (108, 111), (258, 119), (101, 119)]
    assert learn_merges(words, 5) == merges


def test_among_equals_the_smaller_left_id_wins_then_the_smaller_right_id():
    words = dict.fromkeys([b"bc", b"bd", b"ad"], 1)
    assert learn_merges(words, 3) == [(97, 100), (98, 99), (98, 100)]


@MANY
@given(st.lists(st.text("abc", max_size=9).map(str.encode)))
def test_training_equals_naive_training_up_to_the_last_merge(words):
    merges = learn_naively(words, num_merges=1000)
    assert learn_merges(Counter(words), len(merges)) == merges
    with pytest.raises(ValueError, match="no pair left"):
        learn_merges(Counter(words), len(merges) + 1)


@MANY
@given(st.text(st.sampled_from("aab '1\né😀"), max_size=80), st.integers(0, 12))
def test_a_trained_vocabulary_spells_the_naive_merges(text, num_merges):
    words = [word.encode() for word in SPLIT_PATTERN.findall(text)]
    merges = learn_naively(words, num_merges)
    vocab, special_tokens = train_vocab(text, 256 + len(merges), [])
    spelling = {token_id: token for token, token_id in vocab.items()}
    learnt = [spelling[256 + i] for i in range(len(merges))]
    assert learnt == [spelling[left] + spelling[right] for left, right in merges]
    assert vocab.items() >= SINGLE_BYTES.items() and not special_tokens


def test_training_on_the_story_equals_naive_training(words, merges):
    assert learn_merges(Counter(words), NUM_MERGES) == merges


def test_no_two_merges_spell_one_token(vocab):
    assert sorted(vocab.values()) == list(range(256 + NUM_MERGES))


def test_vocabulary_worked_by_hand():
    vocab, special_tokens = train_vocab("abab abab<|x|>ab", 259, ["<|x|>"])
    assert vocab == SINGLE_BYTES | {b"ab": 256, b"abab": 257}
    assert special_tokens == {"<|x|>": 258}


def test_special_tokens_teach_nothing_and_part_their_neighbours():
    vocab, _ = train_vocab("ab" + 9 * "<|x|>c", 258, ["<|x|>"])
    assert vocab.keys() - SINGLE_BYTES.keys() == {b"ab"}


def test_single_bytes_and_special_tokens_need_no_text():
    names = ["<|x|>", "<|y|>"]
    assert train_vocab("", 258, names) == (SINGLE_BYTES, {"<|x|>": 256, "<|y|>": 257})


@pytest.mark.parametrize(
    ("text", "vocab_size", "reason"),
    [
        ("abab", 256, "vocab_size 256 is too small.*need 257"),
        ("abab", -1, "vocab_size is -1; it must be a whole number"),
        ("abab", "300", "vocab_size is .300.; it must be a whole number"),
        ("a b", 259, "smaller vocab_size"),
        ("", 258, "more text"),
    ],
)
def test_a_vocabulary_that_cannot_be_had_is_refused(text, vocab_size, reason):
    with pytest.raises(ValueError, match=reason):
        train_vocab(text, vocab_size, ["<|x|>"])


@MANY
@given(st.data())
def test_merging_bytes_equals_the_merges_applied_in_their_order(vocab, merges, data):
    tokens = st.sampled_from(list(vocab))
    word = data.draw(st.lists(tokens, min_size=1).map(b"".join))
    ids = list(word)
    for rank, pair in enumerate(merges):
        ids = replaced(ids, pair, 256 + rank)
    assert merge_bytes(word, vocab) == ids


# The slow tokenizer of 2.5, and the fast one


def test_words_are_encoded_in_the_order_of_learning():
    merges = {(105, 110): 256, (116, 105): 257, (257, 256): 258}
    assert encode_word(list(b"tin"), merges) == [116, 256]
    assert encode_word(list(b"titin"), merges) == [257, 116, 256]
    assert encode_word(list(b"tiin"), merges) == [258]
    assert encode_word(list(b"sea"), merges) == list(b"sea")
    assert encode_word([], merges) == []


def test_what_the_simple_tokenizer_learns_worked_by_hand():
    tokenizer = BPETokenizerSimple()
    assert tokenizer.encode("tide") == list(b"tide")
    tokenizer.train("tide-tide-tin", 259)
    assert tokenizer.bpe_merges == {(116, 105): 256, (100, 101): 257, (256, 257): 258}
    assert [tokenizer.vocab[i] for i in (45, 256, 257, 258)] == [
        b"-",
        b"ti",
        b"de",
        b"tide",
    ]
    assert tokenizer.encode("timid tide") == [256, 109, 105, 100, 32, 258]
    tokenizer.train("abab", 1000)
    assert tokenizer.bpe_merges == {(97, 98): 256, (256, 256): 257}
    assert len(tokenizer.vocab) == 258 and tokenizer.decode([257, 256]) == "ababab"


def test_half_a_character_is_decoded_to_a_replacement_character():
    tokenizer = BPETokenizerSimple()
    assert tokenizer.decode(tokenizer.encode("né")[:-1]) == "n\ufffd"
    assert tokenizer.decode([]) == ""


TEXTS = st.text(st.sampled_from("aab '1\né😀"), max_size=80)


@MANY
@given(TEXTS, TEXTS, st.integers(250, 268))
def test_the_fast_tokenizer_gives_what_the_simple_one_gives(text, other, vocab_size):
    simple = BPETokenizerSimple()
    simple.train(text, vocab_size)
    fast = BPETokenizer.train(text, len(simple.vocab), special_tokens=())
    assert fast.token_bytes == simple.vocab
    for some in (text, other):
        assert fast.encode(some) == simple.encode(some)
        assert simple.decode(simple.encode(some)) == some


def test_both_learn_the_same_from_the_story(story):
    simple = BPETokenizerSimple()
    size = 256 + 300  # more merges than there are bytes
    simple.train(story[:5000], size)
    fast = BPETokenizer.train(story[:5000], size, special_tokens=())
    assert fast.token_bytes == simple.vocab
    assert fast.encode(story) == simple.encode(story)
