"""Damaged checkpoints are seen, said in a sentence, and fetched again once."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from ch02.fetch import FetchError
from ch05 import remote_files
from ch05.remote_files import (
    BY_SIZE,
    KNOWN_124M,
    RemoteFile,
    fetch_and_read,
    hugging_face_file,
    openai_files,
)
from ch05.tensorflow_reader import DamagedCheckpoint, TensorFlowReader
from tests.gpt2_files import cut, facts, flip_a_bit, write_checkpoint
from tests.notebooks import ROOT
from tests.server import serving

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
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_sentence(folder, damage):
    DAMAGES[damage](folder)
    with pytest.raises(DamagedCheckpoint) as raised:
        read_all(folder)
    said = str(raised.value)
    assert "model.ckpt is damaged or incomplete: TensorFlow says " in said
    assert "\n" not in said
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
        reader.translate(complain, "wte")


def test_an_array_that_is_not_there_is_damage(folder):
    with pytest.raises(DamagedCheckpoint):
        TensorFlowReader(folder / "model.ckpt")("h1/attn/c_attn/w")


def test_tensorflow_comes_without_greetings(monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    code = "from ch05.tensorflow_reader import import_tensorflow as tensorflow\n"
    code += "print(tensorflow().zeros(3) + 1)"  # the first sum has its greetings too
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


def test_damaged_files_are_fetched_again(files, server, folder):
    flip_a_bit(folder / DATA)  # of the right size, and so not seen by `fetch`
    found = fetch_and_read(files, folder, lambda: read_all(folder))
    assert np.array_equal(found["wte"], ARRAYS["wte"])
    assert server.paths.count(f"/{DATA}") == 1


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
    before = facts(folder)
    with pytest.raises(DamagedCheckpoint):
        fetch_and_read(files, folder, lambda: read_all(folder))
    assert facts(folder) == before
    assert not server.paths


def test_files_whose_sha256_is_right_are_not_fetched_again(files, server, folder):
    known = facts(folder)
    files = [dataclasses.replace(f, sha256=known[f.name][1]) for f in files]

    def read():
        raise DamagedCheckpoint("whatever it is, it is not these files")

    with pytest.raises(DamagedCheckpoint):
        fetch_and_read(files, folder, read)
    assert not server.paths
    assert facts(folder) == known


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
    monkeypatch.setenv("HF_ENDPOINT", remote_files.HUGGING_FACE_MIRROR)
    assert hugging_face_file("124M").urls == (second,)


@pytest.mark.parametrize(
    ("damage", "state"),
    [
        (lambda path: None, "whole"),
        (lambda path: path.unlink(), "missing"),
        (lambda path: cut(path, 1000), "damaged: 1,000 of 1,500 bytes"),
        (flip_a_bit, "damaged: its sha256 is another"),
    ],
)
def test_the_state_of_a_file(tmp_path, damage, state):
    path = tmp_path / "file"
    path.write_bytes(bytes(1500))
    file = RemoteFile("file", *facts(tmp_path)["file"], urls=())
    damage(path)
    assert file.state_in(tmp_path) == state
    if state != "whole":
        with pytest.raises(FetchError):
            file.fetch_to(tmp_path)
