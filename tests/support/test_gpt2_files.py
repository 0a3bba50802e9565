"""Damaged checkpoints are seen, said in a sentence, and fetched again once."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.download import gpt2_files
from support.download.fetch import FetchError
from support.download.gpt2_files import (
    BY_SIZE,
    KNOWN_124M,
    RemoteFile,
    fetch_and_read,
    hugging_face_file,
    is_fault,
    openai_files,
)
from support.download.tensorflow_checkpoint import (
    DamagedCheckpoint,
    TensorFlowReader,
    read_settings,
)
from support.messages import printable
from support.paths import ROOT
from support.weights.reference import sizes_and_hashes, write_checkpoint
from tests.damage import cut, flip_a_bit
from tests.server import serving

ZERO = "/dev/zero"
INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"
ARRAYS = {
    "wte": np.arange(300, dtype=np.float32).reshape(60, 5),
    "h0/attn/c_attn/w": np.ones((5, 15), dtype=np.float32),
    "ln_f/b": np.zeros(5, dtype=np.float32),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The two files of a checkpoint: {name: bytes}."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder, ARRAYS)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert found.keys() == {INDEX, DATA}
    return found


@pytest.fixture
def folder(originals, tmp_path):
    """A folder with a whole checkpoint."""
    for name, content in originals.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def read_all(folder):
    """All arrays of the checkpoint in a folder."""
    read = TensorFlowReader(folder / "model.ckpt")
    return {name: read(name) for name in read.names()}


def test_names_lose_their_model_and_arrays_their_axis_of_one(folder):
    found = read_all(folder)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert np.array_equal(found[name], array)


DAMAGES = {
    "data cut": lambda folder: cut(folder / DATA, 400),
    "data empty": lambda folder: cut(folder / DATA, 0),
    "data missing": lambda folder: (folder / DATA).unlink(),
    "first bit of the data": lambda folder: flip_a_bit(folder / DATA, 0),
    "last bit of the data": lambda folder: flip_a_bit(folder / DATA),
    "index cut": lambda folder: cut(folder / INDEX, 100),
    "index empty": lambda folder: cut(folder / INDEX, 0),
    "index missing": lambda folder: (folder / INDEX).unlink(),
    "first bit of the index": lambda folder: flip_a_bit(folder / INDEX, 0),
    "last bit of the index": lambda folder: flip_a_bit(folder / INDEX),
    "a web page": lambda folder: (folder / INDEX).write_text("<html>Log in</html>"),
    "escape sequences": lambda folder: (folder / INDEX).write_text("\x1b[2J" * 999),
}


@pytest.mark.timeout(60)  # a pipe would be waited for, and a device has no end
@pytest.mark.parametrize("name", [INDEX, DATA])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to(ZERO)])
def test_what_is_no_file_is_a_damaged_checkpoint(folder, name, make):
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises(
        DamagedCheckpoint, match=f"{name} is a .*, and a file is expect"
    ):
        read_all(folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_sentence(folder, damage):
    DAMAGES[damage](folder)
    with pytest.raises(DamagedCheckpoint) as raised:
        read_all(folder)
    said = str(raised.value)
    assert "model.ckpt is damaged or incomplete: TensorFlow says " in said
    assert "\n" not in said and said == printable(said)
    # no second traceback above it
    assert raised.value.__cause__ is None and raised.value.__suppress_context__


def test_no_flipped_bit_changes_an_array(folder, originals):
    """Wherever it is: it is reported, or the arrays are still the same."""
    for name, step in ((INDEX, 7), (DATA, 61)):
        for place in range(0, len(originals[name]), step):
            flip_a_bit(folder / name, place)
            try:
                found = read_all(folder)
            except DamagedCheckpoint:
                found = ARRAYS
            assert found.keys() == ARRAYS.keys()
            assert all(np.array_equal(found[key], ARRAYS[key]) for key in ARRAYS)
            (folder / name).write_bytes(originals[name])


def test_the_first_line_of_a_long_complaint_is_enough(folder):
    def complain(_):
        raise ValueError("checksum does not match\nand twenty more lines")

    reader = TensorFlowReader(folder / "model.ckpt")
    with pytest.raises(DamagedCheckpoint, match="says checksum does not match$"):
        reader.call(complain, "wte")


def test_no_words_at_all_are_damage_too(folder):
    def complain(_):
        raise ValueError("")

    reader = TensorFlowReader(folder / "model.ckpt")
    with pytest.raises(DamagedCheckpoint, match="TensorFlow says ValueError$"):
        reader.call(complain, "wte")


SETTINGS = {"n_vocab": 60, "n_ctx": 5, "n_embd": 5, "n_head": 1, "n_layer": 1}


def test_the_settings_are_read(folder):
    text = "\ufeff" + json.dumps(SETTINGS, indent=1).replace("\n", "\r\n")
    (folder / "hparams.json").write_text(text, encoding="utf-8")
    assert read_settings(folder) == SETTINGS


BAD_SETTINGS = [
    *["", "[]", "null", "7", "{}", '"n_layer"', "[" * 99_999, "9" * 9999, "{"],
    *["\x1b[2J", "\ud83d", "<html>"],
    *[
        json.dumps(SETTINGS | {"n_layer": n})
        for n in (0, -1, 2, 1.0, True, "1", [], 9**99)
    ],
    *[json.dumps({k: v for k, v in SETTINGS.items() if k != key}) for key in SETTINGS],
]


@pytest.mark.parametrize("text", BAD_SETTINGS, ids=lambda text: repr(text[:20]))
def test_settings_that_are_none_are_one_sentence(folder, text):
    (folder / "hparams.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DamagedCheckpoint, match="hparams.json") as raised:
        read_settings(folder)
    said = str(raised.value)
    assert "\n" not in said and said == printable(said) and len(said) < 1100


@pytest.mark.timeout(60)  # a pipe would be waited for, and a device has no end
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to(ZERO)])
def test_settings_that_are_no_file_are_one_sentence(folder, make):
    make(folder / "hparams.json")
    with pytest.raises(DamagedCheckpoint, match="hparams.json is a .*, and a file is"):
        read_settings(folder)


def test_an_array_that_is_not_there_is_damage(folder):
    with pytest.raises(DamagedCheckpoint):
        TensorFlowReader(folder / "model.ckpt")("h1/attn/c_attn/w")


def test_tensorflow_comes_without_greetings(monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    code = "from support.download.tensorflow_checkpoint import import_tensorflow\n"
    code += (
        "print(import_tensorflow().zeros(3) + 1)"  # the first sum has its greetings too
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert "[1. 1. 1.]" in done.stdout
    assert done.stderr == ""


# fetch_and_read


@pytest.fixture
def server(originals, monkeypatch):
    """A server that has the whole files."""
    with serving(monkeypatch) as server:
        for name, content in originals.items():
            server.mirror(f"/{name}", body=content)
        yield server


@pytest.fixture
def files(originals, server):
    """The two files as the course knows those of 355M: by size, without a sha256."""
    base = f"http://127.0.0.1:{server.server_port}"
    return [
        RemoteFile(name, len(content), None, (f"{base}/{name}",))
        for name, content in originals.items()
    ]


def test_whole_files_are_fetched_once_and_then_read(files, server, tmp_path):
    for _ in range(2):
        found = fetch_and_read(files, tmp_path, lambda: read_all(tmp_path))
        assert np.array_equal(found["wte"], ARRAYS["wte"])
        assert sorted(server.paths) == sorted([f"/{INDEX}", f"/{DATA}"])


def test_damaged_files_are_fetched_again_and_kept(files, server, folder, originals):
    flip_a_bit(folder / DATA)  # of the right size, and so not seen by `fetch`
    damaged = (folder / DATA).read_bytes()
    found = fetch_and_read(files, folder, lambda: read_all(folder))
    assert np.array_equal(found["wte"], ARRAYS["wte"])
    assert server.paths.count(f"/{DATA}") == 1
    assert (folder / f"{DATA}.old").read_bytes() == damaged
    assert not (folder / f"{INDEX}.old").exists()


def test_when_one_of_two_files_cannot_be_had_both_stay(files, server, folder):
    flip_a_bit(folder / DATA)
    flip_a_bit(folder / INDEX, 0)
    before = sizes_and_hashes(folder)
    server.mirror(f"/{files[1].name}", status=404)
    with pytest.raises(FetchError, match="is damaged.* It stays as it is, because no"):
        fetch_and_read(files, folder, lambda: read_all(folder))
    assert sizes_and_hashes(folder).items() >= before.items()


def test_damaged_files_are_fetched_again_only_once(
    files, server, folder, originals, monkeypatch
):
    content = bytearray(originals[DATA])
    content[-1] ^= 1
    server.mirror(f"/{DATA}", body=bytes(content))
    flip_a_bit(folder / DATA)
    with pytest.raises(DamagedCheckpoint):
        fetch_and_read(files, folder, lambda: read_all(folder))
    assert server.paths.count(f"/{DATA}") == 1


def test_offline_nothing_is_deleted(files, server, folder, monkeypatch):
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    flip_a_bit(folder / DATA)
    before = sizes_and_hashes(folder)
    with pytest.raises(DamagedCheckpoint):
        fetch_and_read(files, folder, lambda: read_all(folder))
    assert sizes_and_hashes(folder) == before
    assert not server.paths


def test_files_whose_sha256_is_right_are_not_fetched_again(files, server, folder):
    known = sizes_and_hashes(folder)
    files = [dataclasses.replace(f, sha256=known[f.name][1]) for f in files]

    def read():
        raise DamagedCheckpoint("whatever it is, it is not these files")

    with pytest.raises(DamagedCheckpoint):
        fetch_and_read(files, folder, read)
    assert not server.paths
    assert sizes_and_hashes(folder) == known


# the tables


@pytest.mark.parametrize("model_size", BY_SIZE)
def test_openai_has_seven_files_on_two_servers(model_size):
    files = openai_files(model_size)
    assert len({file.name for file in files}) == 7
    for file in files:
        assert len(file.urls) == 2
        for url in file.urls:
            assert url.startswith("https://")
            assert url.endswith(f"/{model_size}/{file.name}")


def test_the_data_has_four_bytes_for_each_parameter():
    for model_size, num_parameters in (
        ("124M", 124_439_808),
        ("355M", 354_823_168),
        ("774M", 774_030_080),
        ("1558M", 1_557_611_200),
    ):
        assert BY_SIZE[model_size][DATA][0] == 4 * num_parameters


def test_every_sha256_is_one():
    known = [file.sha256 for size in BY_SIZE for file in openai_files(size)]
    known += [hugging_face_file(size).sha256 for size in BY_SIZE]
    for sha256 in filter(None, known):
        assert len(sha256) == 64 and int(sha256, 16) > 0
    assert len(KNOWN_124M) == 2


def test_hf_endpoint_names_the_first_server(monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    first, second = hugging_face_file("124M").urls
    assert first.startswith("https://huggingface.co/openai-community/gpt2/resolve/")
    assert second.startswith("https://hf-mirror.com/openai-community/gpt2/resolve/")
    monkeypatch.setenv("HF_ENDPOINT", "https://hf.example.org/")
    changed = hugging_face_file("124M").urls
    assert changed == (first.replace("huggingface.co", "hf.example.org"), second)
    monkeypatch.setenv("HF_ENDPOINT", gpt2_files.HUGGING_FACE_MIRROR)
    assert hugging_face_file("124M").urls == (second,)


@pytest.mark.parametrize(
    ("model_size", "name", "revision", "is_pinned"),
    [
        ("124M", "gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e", True),
        ("355M", "gpt2-medium", "6dcaa7a952f72f9298047fd5137cd6e4f05f41da", True),
        ("774M", "gpt2-large", "32b71b12589c2f8d625668d2335a01cac3249519", False),
        ("1558M", "gpt2-xl", "15ea56dee5df4983c59b2538573817e1667135e2", True),
    ],
)
def test_hugging_faces_files_are_of_a_known_revision(
    model_size, name, revision, is_pinned
):
    file = hugging_face_file(model_size)
    for url in file.urls:
        assert f"/openai-community/{name}/resolve/{revision}/model.safetensors" in url
    assert (file.sha256 is not None) == is_pinned


UNPINNED = {
    1500: "right size, content unchecked",
    1499: "damaged: it has 1,500 bytes, not 1,499",
    None: "size and content unchecked",
}


@pytest.mark.parametrize(("size", "state"), UNPINNED.items())
def test_what_is_not_known_is_never_called_whole(tmp_path, size, state):
    (tmp_path / "file").write_bytes(bytes(1500))
    assert RemoteFile("file", size, None, ()).state_in(tmp_path) == state
    assert is_fault(state) == (size == 1499)


@pytest.mark.timeout(30)  # a pipe would be waited for, and a device has no end
@pytest.mark.parametrize("sha256", [None, "0" * 64])
@pytest.mark.parametrize("size", [None, 0, 5])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to(ZERO)])
def test_what_is_no_file_is_damage(tmp_path, make, size, sha256):
    make(tmp_path / "file")
    file = RemoteFile("file", size, sha256, ())
    assert file.state_in(tmp_path) == "damaged: it is not a file"
    assert not file.is_in(tmp_path)


def test_an_empty_file_is_damage(tmp_path):
    (tmp_path / "file").touch()
    assert (
        RemoteFile("file", None, None, ()).state_in(tmp_path) == "damaged: it is empty"
    )


@pytest.mark.parametrize(
    ("damage", "state"),
    [
        (lambda path: None, "whole"),
        (lambda path: path.unlink(), "missing"),
        (lambda path: cut(path, 1000), "damaged: it has 1,000 bytes, not 1,500"),
        (flip_a_bit, "damaged: its sha256 is not the expected one"),
    ],
)
def test_the_state_of_a_file(tmp_path, damage, state):
    path = tmp_path / "file"
    path.write_bytes(bytes(1500))
    file = RemoteFile("file", *sizes_and_hashes(tmp_path)["file"], urls=())
    damage(path)
    assert file.state_in(tmp_path) == state
    if state != "whole":
        with pytest.raises(FetchError):
            file.fetch_to(tmp_path)
