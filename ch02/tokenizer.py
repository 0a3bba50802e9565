"""Tokenizers (chapter 2): two by words, one by byte pairs, and GPT-2's own."""

import re
from functools import lru_cache

import tiktoken

from ch02.bpe import SPLIT_PATTERN, merge_bytes, split_special, train_vocab
from support.download.vocabulary import (
    allowed_names,
    bytes_of_tokens,
    end_of_text_id,
    for_tiktoken,
    gpt2_vocab_files,
    pair_surrogates,
    read_openai_vocab,
    read_vocab,
    write_vocab,
)


def split_words(text):
    """Cut a text into words and punctuation: "Hi, you." -> ["Hi", ",", "you", "."]."""
    pieces = re.split(r"""([,.:;?_!"()']|--|\s)""", text)
    return [piece for piece in pieces if piece.strip()]


def build_vocab(tokens):
    """Number the different tokens, in sorted order: {token: token id}."""
    return {token: token_id for token_id, token in enumerate(sorted(set(tokens)))}


def look_up(ids, table):
    """The table's entries for ids; ValueError names an id that it does not have."""
    for token_id in ids:
        if token_id not in table:
            raise ValueError(
                f"no token has the id {token_id}: there are {len(table)} tokens"
            )
    return [table[token_id] for token_id in ids]


class SimpleTokenizerV1:
    """Words and punctuation marks as tokens; `vocab` maps each one to its id."""

    def __init__(self, vocab):
        self.str_to_int = vocab
        self.int_to_str = {token_id: token for token, token_id in vocab.items()}

    def encode(self, text):
        """Text to token ids; ValueError for a word that is not in the vocabulary."""
        return [self.token_id(token) for token in split_words(text)]

    def token_id(self, token):
        """The id of one token."""
        if token not in self.str_to_int:
            raise ValueError(f"{token!r} is not in the vocabulary")
        return self.str_to_int[token]

    def decode(self, ids):
        """Token ids to text, with no space before a punctuation mark."""
        text = " ".join(look_up(ids, self.int_to_str))
        return re.sub(r"""\s+([,.?!"()'])""", r"\1", text)


class SimpleTokenizerV2(SimpleTokenizerV1):
    """SimpleTokenizerV1, with `<|unk|>` for a word that is not in the vocabulary."""

    def token_id(self, token):
        """The id of one token, or that of `<|unk|>`."""
        if token not in self.str_to_int:
            token = "<|unk|>"
        return super().token_id(token)

    def decode(self, ids):
        """Token ids to text, with no space before a colon or a semicolon either."""
        return re.sub(r"\s+([:;])", r"\1", super().decode(ids))


class BPETokenizer:
    """GPT-2's byte-pair encoding with vocab {bytes: id}, special_tokens {name: id}."""

    def __init__(self, vocab, special_tokens):
        self.vocab, self.special_tokens = vocab, special_tokens
        self.token_bytes = bytes_of_tokens(vocab, special_tokens)
        self.n_vocab = len(self.token_bytes)
        self.cache = {}  # words come back again and again

    eot_token = property(end_of_text_id)

    def encode_ordinary(self, text):
        """Text to ids; the name of a special token is text like any other."""
        words = SPLIT_PATTERN.findall(pair_surrogates(text))
        for word in set(words) - self.cache.keys():
            self.cache[word] = merge_bytes(word.encode(), self.vocab)
        return [token_id for word in words for token_id in self.cache[word]]

    def encode(self, text, allowed_special=()):
        """Text to ids, with the special tokens allowed by name, or "all" of them."""
        names = allowed_names(allowed_special, self.special_tokens)
        special = {name: [self.special_tokens[name]] for name in names}
        ids = []
        for part in split_special(pair_surrogates(text), names):
            ids += special.get(part) or self.encode_ordinary(part)
        return ids

    def decode(self, ids):
        """Ids to text; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(look_up(ids, self.token_bytes)).decode(errors="replace")

    @classmethod
    def train(cls, text, vocab_size, special_tokens=("<|endoftext|>",)):
        """Learn a vocabulary of vocab_size tokens from a text."""
        return cls(*train_vocab(pair_surrogates(text), vocab_size, special_tokens))

    def save(self, path):
        """Write the vocabulary to a JSON file, whole or not at all."""
        write_vocab(path, self.vocab, self.special_tokens)

    @classmethod
    def load(cls, path):
        """Read what `save` wrote."""
        return cls(*read_vocab(path))

    @classmethod
    def from_openai(cls, encoder_json, vocab_bpe):
        """Read the two vocabulary files that OpenAI published with GPT-2."""
        return cls(*read_openai_vocab(encoder_json, vocab_bpe))


@lru_cache
def get_tokenizer(name="gpt2"):
    """GPT-2's vocabulary as a tiktoken encoding, from files on this machine."""
    if name != "gpt2":
        raise ValueError(f"unknown tokenizer {name!r}: the only one is 'gpt2'")
    vocab, special_tokens = read_openai_vocab(*gpt2_vocab_files())
    return tiktoken.Encoding(
        name,
        pat_str=for_tiktoken(SPLIT_PATTERN.pattern),
        mergeable_ranks=vocab,
        special_tokens=special_tokens,
    )
