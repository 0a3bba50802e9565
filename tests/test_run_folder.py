"""A run's folder keeps a whole checkpoint, whatever fails, and says what is wrong."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from itertools import count

import pytest
import torch

from ch04.gpt import GPTModel
from ch05 import spread_state
from ch05.checkpoint import is_tied, load_model
from ch05.long_run import initialize
from ch05.run import build
from ch05.run_folder import RunFolder, RunFolderError, check_seal, seal
from ch05.spread_state import number_files
from tests.test_fetch import foreign_folder, no_rights  # noqa: F401
from tests.tiny_run import CONFIG, SETTINGS

pytestmark = pytest.mark.usefixtures("one_thread")


def trained(seed=1, config=CONFIG):
    """A tiny model and its optimizer after one step on gradients of a seed."""
    torch.manual_seed(seed)
    model, optimizer = GPTModel(config), None
    initialize(model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return model, optimizer


def state(model, optimizer):
    """All numbers of both by name: weights, moments, and steps taken."""
    found = dict(model.named_parameters())
    for name, parameter in model.named_parameters():
        found |= {f"{name} {k}": v for k, v in optimizer.state[parameter].items()}
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def assert_equal(found, expected):
    """Two dicts of tensors are equal to the bit."""
    assert found.keys() == expected.keys() and found
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.fixture
def folder(tmp_path):
    """A folder of a run, held as the run holds it."""
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        yield folder


@pytest.fixture
def states(folder):
    """What was saved at steps 10 and 20: {step: state}."""
    saved = {}
    for step in (10, 20):
        pair = trained(seed=step)
        folder.save(step, *pair)
        saved[step] = state(*pair)
    return saved


def assert_loads(folder, step, states):
    """The folder's last whole checkpoint is that of a step, as it was saved."""
    pair = build(SETTINGS, "cpu", is_sharded=False)
    assert folder.load(*pair) == step
    assert_equal(state(*pair), states[step])


# What is saved comes back


def test_a_checkpoint_comes_back_to_the_bit(folder, states):
    assert_loads(folder, 20, states)


def test_the_output_layer_stays_the_token_embedding(folder, states):
    model, optimizer = build(SETTINGS, "cpu", is_sharded=False)
    folder.load(model, optimizer)
    assert is_tied(model)


def test_a_new_folder_begins_at_step_0(folder):
    pair = build(SETTINGS, "cpu", is_sharded=False)
    before = {name: p.clone() for name, p in pair[0].named_parameters()}
    assert folder.load(*pair) == 0
    assert_equal(dict(pair[0].named_parameters()), before)


def test_the_last_two_checkpoints_are_kept(folder, states):
    for step in (30, 9_999_999, 10_000_000):
        folder.save(step, *trained())
    assert folder.steps() == [10_000_000, 9_999_999]
    assert sorted(entry.name for entry in folder.path.iterdir()) == [
        "lock",
        "step-10000000",
        "step-9999999",
    ]


def test_large_states_are_cut_into_files(folder, monkeypatch):
    monkeypatch.setattr(spread_state, "FILE_BYTES", 3000)
    pair = trained()
    folder.save(5, *pair)
    files = list(folder.folder(5).glob("*.safetensors"))
    assert len(files) > 10
    assert max(file.stat().st_size for file in files) < 40_000
    assert_loads(folder, 5, {5: state(*pair)})


@pytest.mark.parametrize(
    ("kilobytes", "numbers"),
    [
        ([4, 4], [1, 1]),
        ([6, 6, 6, 6], [1, 1, 2, 2]),
        ([25, 1, 1], [1, 2, 2]),  # none is cut, and no number is left out
        ([1, 25, 1, 40, 1], [1, 1, 2, 2, 3]),
        ([], []),
    ],
)
def test_files_are_numbered_without_a_gap(monkeypatch, kilobytes, numbers):
    monkeypatch.setattr(spread_state, "FILE_BYTES", 10 * 1024)
    tensors = {str(i): torch.zeros(size, 256) for i, size in enumerate(kilobytes)}
    assert list(number_files(tensors).values()) == numbers


def test_the_result_is_a_model_that_load_model_reads(folder):
    model, _ = trained()
    folder.save_result(model, CONFIG)
    loaded, cfg = load_model(folder.path / "model.safetensors")
    assert cfg == CONFIG and is_tied(loaded)
    assert_equal(dict(loaded.named_parameters()), dict(model.named_parameters()))


# What is damaged is passed over


def flip(path):
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    """Let the last byte of a file be missing."""
    os.truncate(path, path.stat().st_size - 1)


def empty(path):
    """Let all bytes of a file be missing."""
    os.truncate(path, 0)


def remove(path):
    """Let a file be missing."""
    path.unlink()


@pytest.mark.parametrize("damage", [flip, truncate, empty, remove])
@pytest.mark.parametrize("pattern", ["*.safetensors", "seal.json"])
def test_a_damaged_checkpoint_is_passed_over(folder, states, capsys, damage, pattern):
    damaged, *_ = folder.folder(20).glob(pattern)
    damage(damaged)
    assert_loads(folder, 10, states)
    assert "passing over a checkpoint that is not whole: " in capsys.readouterr().out
    assert damaged.parent.is_dir()


def test_every_byte_of_a_seal_counts(tmp_path):
    (tmp_path / "part").write_bytes(b"numbers")
    seal(tmp_path)
    content = (tmp_path / "seal.json").read_bytes()
    check_seal(tmp_path)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        (tmp_path / "seal.json").write_bytes(changed)
        blanks = content[place : place + 1].isspace() and chr(changed[place]).isspace()
        if not blanks:
            with pytest.raises((ValueError, OSError)):
                check_seal(tmp_path)


def test_without_a_whole_checkpoint_nothing_is_begun_anew(folder, states):
    for step in (10, 20):
        flip(next(folder.folder(step).glob("*.safetensors")))
    reason = f"no checkpoint in {folder.path} is whole: delete it to begin anew"
    with pytest.raises(RunFolderError, match=re.escape(reason)):
        folder.load(*build(SETTINGS, "cpu", is_sharded=False))
    assert folder.steps() == [20, 10]


def test_a_whole_checkpoint_takes_the_place_of_a_damaged_one(folder, states):
    flip(next(folder.folder(20).glob("*.safetensors")))
    pair = trained(seed=3)
    folder.save(20, *pair)
    assert_loads(folder, 20, {20: state(*pair)})


def test_damaged_checkpoints_do_not_count_among_those_kept(folder, states):
    """Or the whole ones would have to go while they stay."""
    shutil.copytree(folder.folder(20), folder.folder(30))
    for step in (20, 30):
        flip(next(folder.folder(step).glob("*.safetensors")))
    assert folder.last_whole_step() == 10
    folder.save(15, *trained())
    assert folder.steps() == [15, 10] and folder.last_whole_step() == 15


def test_a_checkpoint_of_another_model_is_a_sentence(folder, states):
    other = trained(config=CONFIG | {"emb_dim": 32})
    with pytest.raises(ValueError, match=r"of another model: .*\[16\].*\[32\]"):
        folder.load(*other)


# What fails on the way


@contextmanager
def largest_file(num_bytes):
    """A disk on which files cannot get larger than this."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


@pytest.mark.parametrize("num_bytes", [100, 5000])
def test_a_disk_too_small_leaves_the_last_checkpoint(folder, states, num_bytes):
    with largest_file(num_bytes), pytest.raises(OSError, match="File too large"):
        folder.save(30, *trained())
    assert folder.steps() == [20, 10] and not list(folder.path.glob("*.part"))
    assert_loads(folder, 20, states)


def test_a_disk_too_small_leaves_the_last_result(folder):
    before, _ = trained(seed=1)
    folder.save_result(before, CONFIG)
    with largest_file(5000), pytest.raises(OSError, match="File too large"):
        folder.save_result(trained(seed=2)[0], CONFIG)
    loaded, _ = load_model(folder.path / "model.safetensors")
    assert_equal(dict(loaded.named_parameters()), dict(before.named_parameters()))
    assert not list(folder.path.glob("*.tmp"))


@contextmanager
def full_from(number, monkeypatch):
    """A disk that is full from the fsync of this number on; yields those asked for."""
    asked, usual = [], os.fsync

    def fsync(file):
        asked.append(file)
        if len(asked) >= number:
            raise OSError(errno.ENOSPC, "No space left on device")
        usual(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield asked


def test_a_disk_that_fills_up_anywhere_leaves_a_whole_checkpoint(
    folder, states, monkeypatch
):
    pair = trained(seed=30)
    states[30] = state(*pair)
    for number in count(1):
        with full_from(number, monkeypatch) as asked:
            try:
                folder.save(30, *pair)
                step = 30
            except OSError as error:
                assert "No space left on device" in str(error)
                step = 20
        assert not list(folder.path.glob("*.part"))
        assert_loads(folder, step, states)
        if len(asked) < number:
            break
    assert step == 30 and number > 3


def test_a_folder_without_the_right_to_write_is_named(foreign_folder):  # noqa: F811
    folder = RunFolder(foreign_folder / "run")
    refused = pytest.raises(OSError, match="Permission denied: .*run")
    with no_rights(), refused, folder.locked():
        pass


def test_checkpoints_in_a_folder_that_became_read_only_stay(
    foreign_folder,  # noqa: F811
):
    foreign_folder.chmod(0o755)
    folder, pair = RunFolder(foreign_folder), trained()
    folder.save(10, *pair)
    foreign_folder.chmod(0o555)
    with no_rights(), pytest.raises(OSError, match="Permission"), folder.locked():
        pass
    with no_rights(), pytest.raises(OSError, match="Permission denied"):
        folder.save(20, *trained())
    assert_loads(folder, 10, {10: state(*pair)})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(folder, states, bad):
    model, optimizer = trained()
    with torch.no_grad():
        model.trf_blocks[1].ff.layers[0].bias[2] = bad
    named = r"trf_blocks\.1\.ff\.layers\.0\.bias holds numbers that are not finite"
    with pytest.raises(FloatingPointError, match=named):
        folder.save(30, model, optimizer)
    assert folder.steps() == [20, 10]


def test_an_interrupt_stays_one_while_a_checkpoint_is_written(
    folder, states, monkeypatch
):
    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            folder.save(30, *trained())
    assert not list(folder.path.glob("*.part"))
    assert_loads(folder, 20, states)


def test_what_a_killed_process_left_is_no_checkpoint_and_goes(tmp_path):
    folder = RunFolder(tmp_path)
    part = tmp_path / "step-0000010.part"
    part.mkdir()
    (part / "shard").write_bytes(b"half")
    (tmp_path / "model.safetensors.4711.tmp").write_bytes(b"half")
    kept = [tmp_path / name for name in ("notes.tmp", "other.part", "step-1")]
    for path in kept:
        path.write_bytes(b"not of this run")
    assert folder.steps() == [] and folder.last_whole_step() == 0
    with folder.locked():
        assert {*tmp_path.iterdir()} == {*kept, tmp_path / "lock"}
        folder.save(10, *trained())
    assert folder.last_whole_step() == 10


# One run at a time, and always the same one

HOLDING = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    input()
"""


def test_two_runs_in_one_folder_are_refused(tmp_path):
    folder = RunFolder(tmp_path)
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "lock")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:
        assert process.stdout.readline() == "held\n"
        reason = f"another process trains in {tmp_path}. Wait for it, stop it, or give"
        refused = pytest.raises(RunFolderError, match=re.escape(reason))
        with refused, folder.locked():
            pass
        process.send_signal(signal.SIGKILL)
    with folder.locked():  # whoever was killed holds it no more
        pass


def test_the_folder_is_free_again_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), RunFolder(tmp_path).locked():
            raise KeyError


RUN = {"num_steps": 8, "config": {"emb_dim": 16, "n_heads": 2}}


def test_the_same_settings_are_agreed_on(folder):
    folder.agree_on(RUN)
    folder.agree_on(RUN)
    assert json.loads((folder.path / "settings.json").read_text()) == RUN


def test_other_settings_are_named_one_by_one(folder):
    folder.agree_on(RUN | {"old": 1})
    other = {"num_steps": 9, "config": {"emb_dim": 32, "n_heads": 2}, "new": "a"}
    with pytest.raises(RunFolderError) as refusal:
        folder.agree_on(other)
    assert str(refusal.value) == (
        f"the run in {folder.path} has other settings: emb_dim was 16 and is now 32; "
        "new was None and is now 'a'; num_steps was 8 and is now 9; old was 1 and is "
        "now None. Go on with its own, or give this run another folder"
    )
    folder.agree_on(RUN | {"old": 1})


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1]", b"3", b"{}", b"null"])
def test_damaged_settings_are_a_sentence(folder, content):
    path = folder.path / "settings.json"
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match=re.escape(f"{path} is damaged: delete")):
        folder.agree_on(RUN)


# The log


def test_the_log_says_what_was_noted(folder):
    folder.note(step=1, loss=0.1 + 0.2)
    folder.note(step=2, loss=1e-9, val_loss=3.5)
    assert folder.entries() == [
        {"step": 1, "loss": 0.1 + 0.2},
        {"step": 2, "loss": 1e-9, "val_loss": 3.5},
    ]


@pytest.mark.parametrize(
    "torn",
    [b'{"step": 2, "lo', b'{"step": 2', b"\xff\xfe", b"\0\0\0", b"7", b'{"stop": 2}'],
)
def test_a_torn_line_is_left_out_and_cut_off(folder, torn):
    folder.note(step=1, loss=1.0)
    with open(folder.log, "ab") as log:
        log.write(torn)
    assert folder.entries() == [{"step": 1, "loss": 1.0}]
    folder.cut_log(step=1)
    folder.note(step=2, loss=2.0)
    assert [entry["step"] for entry in folder.entries()] == [1, 2]


def test_steps_after_the_checkpoint_leave_the_log(folder, states):
    for step in range(1, 24):
        folder.note(step=step, loss=1 / step)
    before = folder.log.read_text().splitlines()
    folder.load(*build(SETTINGS, "cpu", is_sharded=False))
    assert folder.log.read_text().splitlines() == before[:20]


def test_without_a_checkpoint_the_log_begins_anew(folder):
    folder.note(step=1, loss=1.0)
    folder.load(*build(SETTINGS, "cpu", is_sharded=False))
    assert folder.entries() == []
