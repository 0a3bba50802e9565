"""A run's folder keeps a whole checkpoint, whatever fails, and says what is wrong."""

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from itertools import count

import pytest
import torch
from filelock import Timeout

from ch04.gpt import GPTModel
from ch05.recipe import initialize
from support.pretraining.run_folder import RunFolder
from support.pretraining.trainer import build
from support.weights.checkpoint import is_tied, load_model, save_weights
from tests.support.test_fetch import foreign_folder, no_rights  # noqa: F401
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
    """A folder of a run that has begun, held as the run holds it."""
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        folder.start(asdict(SETTINGS))
        yield folder


@pytest.fixture
def new_folder(tmp_path):
    """A folder that is empty, but for its lock."""
    folder = RunFolder(tmp_path / "new")
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
        "step-10000000.safetensors",
        "step-9999999.safetensors",
    ]


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


@pytest.mark.parametrize("damage", [flip, truncate, empty])
def test_a_damaged_checkpoint_is_skipped(folder, states, capsys, damage):
    damaged = folder.checkpoint(20)
    damage(damaged)
    assert_loads(folder, 10, states)
    assert "skipping a checkpoint that cannot be used: " in capsys.readouterr().out
    assert damaged.is_file()


def test_every_byte_of_a_checkpoint_counts(new_folder):
    new_folder.start(RUN)
    path = new_folder.checkpoint(7)
    tensors = {"model.a": torch.arange(4.0), "optimizer.a.step": torch.tensor(7.0)}
    new_folder.write_checkpoint(7, tensors)
    content = path.read_bytes()
    new_folder.check(7)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        blanks = content[place : place + 1].isspace() and chr(changed[place]).isspace()
        if not blanks:
            with pytest.raises((ValueError, OSError)):
                new_folder.check(7)


def test_without_a_whole_checkpoint_nothing_is_begun_anew(folder, states):
    for step in (10, 20):
        flip(folder.checkpoint(step))
    reason = f"no checkpoint in {folder.path} can be used: give the run another"
    with pytest.raises(ValueError, match=re.escape(reason)):
        folder.load(*build(SETTINGS, "cpu", is_sharded=False))
    assert folder.steps() == [20, 10]


def test_a_whole_checkpoint_takes_the_place_of_a_damaged_one(folder, states):
    flip(folder.checkpoint(20))
    pair = trained(seed=3)
    folder.save(20, *pair)
    assert_loads(folder, 20, {20: state(*pair)})


def test_damaged_checkpoints_do_not_count_among_those_kept(folder, states):
    """Or the whole ones would have to go while they stay."""
    shutil.copy(folder.checkpoint(20), folder.checkpoint(30))
    for step in (20, 30):
        flip(folder.checkpoint(step))
    assert folder.last_valid_step() == 10
    folder.save(15, *trained())
    assert folder.steps() == [15, 10] and folder.last_valid_step() == 15


# A whole checkpoint of something else


def rename(folder):
    """The checkpoint of step 10 as that of step 20."""
    shutil.copy(folder.checkpoint(10), folder.checkpoint(20))


def be_model(folder):
    """A model, which is sealed in the same way."""
    model, _ = trained()
    save_weights(folder.checkpoint(20), dict(model.named_parameters()), CONFIG)


def exchange(config, **changes):
    """A function that puts the checkpoint of a run with other settings there."""

    def exchange(folder):
        other = RunFolder(folder.path.with_name("other"))
        with other.locked():
            other.start(asdict(replace(SETTINGS, config=config, **changes)))
            other.save(20, *trained(seed=20, config=config))
        shutil.copy(other.checkpoint(20), folder.checkpoint(20))

    return exchange


OTHERS = {
    "another step": (rename, "step-0000020.safetensors holds step 10, not 20"),
    "a model": (be_model, "is not a checkpoint of a run"),
    "a deeper model": (
        exchange(CONFIG | {"n_layers": 3}),
        "belongs to another run: n_layers was 3 and is now 2",
    ),
    "other dropout": (
        exchange(CONFIG | {"drop_rate": 0.3}),
        "belongs to another run: drop_rate was 0.3 and is now 0.1",
    ),
    "another seed": (exchange(CONFIG, seed=7), "seed was 7 and is now 123"),
}


@pytest.mark.parametrize(("change", "reason"), OTHERS.values(), ids=OTHERS)
def test_what_is_not_this_runs_checkpoint_is_skipped(
    folder, states, capsys, change, reason
):
    change(folder)
    assert_loads(folder, 10, states)
    assert re.search(f"skipping .*{reason}", capsys.readouterr().out)


# A small file that is damaged, or something else


def be_folder(path):
    """A folder in the place of a file."""
    path.mkdir()


def be_pipe(path):
    """A pipe in which nothing is: whoever reads it waits."""
    os.mkfifo(path)


def be_endless(path):
    """A file without an end."""
    path.symlink_to("/dev/zero")


def be_huge(path):
    """A file of a terabyte, which takes no room."""
    path.touch()
    os.truncate(path, 10**12)


def be_lost(path):
    """A link that leads nowhere."""
    path.symlink_to(path.parent / "nowhere")


def be_round(path):
    """A link to itself, which cannot even be looked at."""
    path.symlink_to(path)


def holding(content):
    """A function that writes bytes to a path."""
    return lambda path: path.write_bytes(content)


SPECIAL = {made.__name__: made for made in (be_folder, be_pipe, be_endless, be_huge)}
CONTENTS = [b"", b"[]", b"null", b"7", b'"a"', b"{}", b"{", b"\xff\xfe", b"\0" * 99]
CONTENTS += [b"[" * 10**5, b'{"a":' * 10**5, b"NaN", b'{"files": Infinity}']
CONTENTS += [b'{"a": null}', b'{"a": {"bytes": 1}}', b'{"files": []}', b"9" * 10**5]
CONTENTS += [b'{"../../a": "%s"}' % (b"0" * 64), b'{"step": 1e999, "files": {}}']
SMALL = SPECIAL | {made.__name__: made for made in (be_lost, be_round)}
SMALL |= {repr(content[:20]): holding(content) for content in CONTENTS}


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
def test_whatever_a_checkpoint_is_the_one_before_is_taken(folder, states, make, capsys):
    path = folder.checkpoint(20)
    path.unlink()
    make(path)
    folder.start(asdict(SETTINGS))
    assert_loads(folder, 10, states)
    said = capsys.readouterr().out
    assert said.startswith("skipping a checkpoint") and said.count("\n") == 1
    folder.save(20, *trained())
    assert folder.last_valid_step() == 20


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize("step", [0, 1])
def test_lost_settings_are_in_the_other_checkpoint(new_folder, make, step):
    new_folder.start(RUN)
    new_folder.save(1, *trained())
    path = new_folder.checkpoint(step)
    path.unlink()
    make(path)
    with pytest.raises(ValueError, match="num_steps was 8 and is now 9"):
        new_folder.start(RUN | {"num_steps": 9})
    new_folder.start(RUN)
    assert new_folder.last_valid_step() == 1 - step


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
def test_without_any_settings_it_is_a_sentence(new_folder, make):
    new_folder.start(RUN)
    path = new_folder.checkpoint(0)
    path.unlink()
    make(path)
    new_folder.start(RUN)
    with pytest.raises(ValueError, match="no checkpoint in .* can be used: give the"):
        new_folder.last_valid_step()


@pytest.mark.parametrize("depth", [100, 800, 900, 950, 980, 2000])
def test_however_deep_settings_are_it_is_a_sentence(new_folder, depth):
    deep = "[" * depth + "]" * depth
    settings = f'{{"config": {{}}, "a": {deep}}}'
    path = new_folder.checkpoint(0)
    save_weights(path, {}, {}, step="0", settings=settings)
    with pytest.raises(ValueError, match="has other settings|can be used: give"):
        new_folder.start(RUN)
        new_folder.last_valid_step()


@pytest.mark.parametrize(
    "name", ["log.jsonl", "model.safetensors", "step-0000010.safetensors"]
)
def test_a_new_run_does_not_take_over_what_it_has_not_made(new_folder, name):
    (new_folder.path / name).write_bytes(b"a reader's")
    reason = f"holds {name}, but no checkpoint|no checkpoint in .* can be used"
    with pytest.raises(ValueError, match=reason):
        new_folder.start(RUN)
        new_folder.load(*trained())
    assert tree(new_folder.path) == {"lock": b"", name: b"a reader's"}


@pytest.mark.parametrize("name", ["log.jsonl", "model.safetensors"])
@pytest.mark.parametrize("make", [be_folder, be_pipe, be_endless])
def test_what_is_no_file_is_named_before_the_first_step(tmp_path, make, name):
    make(tmp_path / name)
    reason = f"{name} is a .*, and a file is expected there: move it away"
    with pytest.raises(ValueError, match=reason), RunFolder(tmp_path).locked():
        pass


def test_a_file_is_no_folder_of_a_run(tmp_path):
    (tmp_path / "file").write_bytes(b"a reader's")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        refused = pytest.raises(
            ValueError, match="cannot be created, because it or one"
        )
        with refused, RunFolder(path).locked():
            pass


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
    assert folder.steps() == [20, 10] and not list(folder.path.glob("*.tmp"))
    assert_loads(folder, 20, states)


def test_a_disk_too_small_is_found_before_the_first_step(new_folder, monkeypatch):
    """By what the system gives to a file, by what is free, and by writing."""
    model, _ = trained()
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    new_folder.check_disk_space(model, 1)
    with largest_file(size - 1), pytest.raises(OSError, match="File too large"):
        new_folder.check_disk_space(model, 1)
    usage = shutil.disk_usage(new_folder.path)
    for free in (4 * size, 4 * size - 1):
        monkeypatch.setattr(
            shutil, "disk_usage", lambda _, f=free: usage._replace(free=f)
        )
        if free == 4 * size:
            new_folder.check_disk_space(model, 1)
    with pytest.raises(OSError, match=f"{free:,} bytes left, but .* take {4 * size:,}"):
        new_folder.check_disk_space(model, 1)
    with full_from(1, monkeypatch), pytest.raises(OSError, match="No space left"):
        new_folder.check_disk_space(model, 1)
    assert [entry.name for entry in new_folder.path.iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("num_here", "num_saves", "num_new"),
    [(0, 1, 1), (0, 2, 2), (0, 9, 3), (1, 1, 1), (1, 9, 2), (2, 9, 1)],
)
def test_all_checkpoints_that_a_run_needs_at_once_must_fit_in(
    folder, monkeypatch, num_here, num_saves, num_new
):
    model, optimizer = trained()
    for step in range(num_here):
        folder.save(10 + step, model, optimizer)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    needed, usage = (3 * num_new + 1) * size, shutil.disk_usage(folder.path)
    for free in (needed, needed - 1):
        room = usage._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, room=room: room)
        is_refused = pytest.raises(OSError, match=f"take {needed:,} more")
        with nullcontext() if free == needed else is_refused:
            folder.check_disk_space(model, num_saves)


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
        assert not list(folder.path.glob("*.tmp"))
        assert_loads(folder, step, states)
        if len(asked) < number:
            break
    assert step == 30 and number > 2


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
    folder.start(asdict(SETTINGS))
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
    assert not list(folder.path.glob("*.tmp"))
    assert_loads(folder, 20, states)


TOKEN = "0123456789abcdef"


def test_what_a_killed_process_left_is_no_checkpoint_and_goes(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / f"step-0000010.safetensors.{TOKEN}.tmp").write_bytes(b"half")
    (tmp_path / f"model.safetensors.{TOKEN}.tmp").write_bytes(b"half")
    assert folder.steps() == [] and folder.last_valid_step() == 0
    with folder.locked():
        assert {*tmp_path.iterdir()} == {tmp_path / "lock"}
        folder.start(asdict(SETTINGS))
        folder.save(10, *trained())
    assert folder.last_valid_step() == 10


def tree(path):
    """All files below a path: {relative name: bytes}."""
    files = [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


READERS = (
    "notes.tmp",
    "model.safetensors.4711.tmp",
    f"notes.{TOKEN}.tmp",
    "step-mine.safetensors",
    "step-000010.safetensors",  # one digit less than a run gives to it
    "step-0000007.safetensors",
    "step-0000030.safetensors/notes",
    "step-0000040.safetensors",
    "step-0000050.safetensors",
    "step-0000020.old",
    "step-0000020.part",
    f"step-0000020.{TOKEN}.part",
    "seal.json",
    "model/model.safetensors",
)


def test_what_a_reader_keeps_there_stays(folder, states, capsys):
    """Though it has names that a run could give, and is in the way of a checkpoint."""
    for name in READERS:
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).write_bytes(name.encode())
    kept = {name: name.encode() for name in READERS}
    with RunFolder(folder.path / "model").locked():
        pass  # nor does a run in a folder of it touch anything
    assert folder.last_valid_step() == 20
    for step in (25, 30, 45, 50, 55):
        folder.save(step, *trained())
    for name in ("30.safetensors/notes", "50.safetensors"):
        old = name.replace("safetensors", "safetensors.old")
        kept[f"step-00000{old}"] = kept.pop(f"step-00000{name}")
    assert kept.items() <= tree(folder.path).items()
    assert [step for step in folder.steps() if step > 40] == [55, 50]
    said = capsys.readouterr().out
    assert "step-0000030.safetensors was not the expected file" in said


def test_what_a_reader_keeps_there_is_there_when_a_run_begins_again(tmp_path):
    folder = RunFolder(tmp_path / "run")
    for name in READERS:
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).write_bytes(name.encode())
    for _ in range(2):
        with folder.locked():
            folder.start(asdict(SETTINGS))
            folder.save(60, *trained())
    kept = {name: name.encode() for name in READERS}
    assert kept.items() <= tree(folder.path).items()


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
        with pytest.raises(Timeout), folder.locked():
            pass
        process.send_signal(signal.SIGKILL)
    with folder.locked():  # whoever was killed holds it no more
        pass


def test_the_folder_is_free_again_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), RunFolder(tmp_path).locked():
            raise KeyError


RUN = {"num_steps": 8, "config": {"emb_dim": 16, "n_heads": 2}}


def test_the_same_settings_are_agreed_on(new_folder):
    new_folder.start(RUN)
    new_folder.start(RUN)
    assert new_folder.known_settings() == {0: RUN} and new_folder.steps() == [0]
    assert new_folder.load(*trained()) == 0


def test_other_settings_are_named_one_by_one(new_folder):
    new_folder.start(RUN | {"old": 1})
    other = {"num_steps": 9, "config": {"emb_dim": 32, "n_heads": 2}, "new": "a"}
    with pytest.raises(ValueError) as refusal:
        new_folder.start(other)
    assert str(refusal.value) == (
        f"the run in {new_folder.path} has other settings: emb_dim was 16 and is now "
        "32; new was None and is now 'a'; num_steps was 8 and is now 9; old was 1 and "
        "is now None. Continue with its own settings, or give this run another folder"
    )
    new_folder.start(RUN | {"old": 1})


# The log


def test_the_log_says_what_was_noted(folder):
    folder.log_entry(step=1, loss=0.1 + 0.2)
    folder.log_entry(step=2, loss=1e-9, val_loss=3.5)
    assert folder.read_log() == [
        {"step": 1, "loss": 0.1 + 0.2},
        {"step": 2, "loss": 1e-9, "val_loss": 3.5},
    ]


@pytest.mark.parametrize(
    "torn",
    [
        b'{"step": 2, "lo',
        b'{"step": 2',
        b"\xff\xfe",
        b"\0\0\0",
        b"7",
        b'{"stop": 2}',
        b'{"step": Infinity}',
        b'{"step": 1e999}',
        b'{"step": NaN}',
        b'{"step": 2, "loss": Infinity}',
        b'{"step": 2, "loss": 1e999}',
        b'{"step": "2"}',
        b'{"step": true}',
        b'{"step": null}',
        b'{"step": 2, "loss": [1]}',
        b"[" * 10**5,
        b'{"step": ' * 10**4,
        b'{"step": ' + b"9" * 10**4 + b"}",
        b"\n\n",
        b"\0" * 10**6,
    ],
)
def test_a_torn_line_is_left_out_and_cut_off(folder, torn):
    folder.log_entry(step=1, loss=1.0)
    with open(folder.log, "ab") as log:
        log.write(torn)
    assert folder.read_log() == [{"step": 1, "loss": 1.0}]
    folder.truncate_log(step=1)
    folder.log_entry(step=2, loss=2.0)
    assert [entry["step"] for entry in folder.read_log()] == [1, 2]


def test_a_step_beyond_all_numbers_is_one_that_comes_later(folder):
    folder.log_entry(step=1, loss=1.0)
    with open(folder.log, "a") as log:
        log.write('{"step": %s}\n' % ("9" * 500))
    folder.truncate_log(step=1)
    assert folder.read_log() == [{"step": 1, "loss": 1.0}]


def test_lines_that_are_missing_are_counted(folder, capsys):
    for step in (1, 2, 3, 4, 5):
        folder.log_entry(step=step, loss=1.0)
    lines = folder.log.read_bytes().splitlines()
    folder.log.write_bytes(b"\n".join([*lines[:2], lines[2][:9], lines[3] + lines[4]]))
    folder.truncate_log(step=4)
    assert [entry["step"] for entry in folder.read_log()] == [1, 2]
    said = f"{folder.log} is damaged: 2 of 4 steps are missing in it\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), None, True])
def test_what_is_no_finite_number_is_not_noted(folder, bad):
    with pytest.raises(FloatingPointError, match=f"val_loss is {bad}"):
        folder.log_entry(step=1, val_loss=bad)
    assert not folder.log.exists()


def test_steps_after_the_checkpoint_leave_the_log(folder, states):
    for step in range(1, 24):
        folder.log_entry(step=step, loss=1 / step)
    before = folder.log.read_text().splitlines()
    folder.load(*build(SETTINGS, "cpu", is_sharded=False))
    assert folder.log.read_text().splitlines() == before[:20]


def test_without_a_checkpoint_the_log_begins_anew(folder):
    folder.log_entry(step=1, loss=1.0)
    folder.load(*build(SETTINGS, "cpu", is_sharded=False))
    assert folder.read_log() == []
