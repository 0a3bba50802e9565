"""The benchmarks judge rightly, measure in processes of their own, miss no peer."""

import os
import sys
from functools import partial

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import (
    decoding,
    growth,
    limits,
    loading,
    measure,
    text,
    trainees,
    training,
)
from benchmarks.bare_loop import generate_bare
from benchmarks.decoding import THEIRS_HALF
from benchmarks.table import (
    COLUMNS,
    Row,
    draw,
    markdown_table,
    plain_table,
    short,
    verdict,
)
from ch02.bpe import SPLIT_PATTERN
from ch02.tokenizer import BPETokenizer
from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.decoding import generate
from ch05.openai_weights import MODEL_CONFIGS
from support.device.fast_decoding import WAYS, fast_decoding
from support.download import checked_files, gpt2_files
from support.weights.reference import SMALL
from support.weights.reference import TINY as TINY_GPT2
from tests.conftest import TINY

SPEED = Row(
    "training step", "ours", "the book's", [300.0], [100.0], "tokens/s", goal=4.0
)
MEMORY = Row("memory", "ours", "the book's", [60.0], [100.0], "MB", goal=0.7)
SECONDS = Row("loading", "ours", "transformers", [2.0], [3.0], "s")


def in_this_process(function, *arguments):
    """In the place of `in_fresh_process`, which would take seconds."""
    return function(*arguments)


def test_ratios_of_speed_seconds_and_memory():
    assert (SPEED.ratio, SECONDS.ratio, MEMORY.ratio) == (3.0, 1.5, 0.6)


@pytest.mark.parametrize(
    ("unit", "ours", "goal", "figure_goal", "met"),
    [
        ("tokens/s", 30, 3.0, None, True),
        ("tokens/s", 30, 3.1, None, False),
        ("s", 2, 5.0, None, True),
        ("s", 2, 5.1, None, False),
        ("MB", 7, 0.7, None, True),
        ("MB", 7, 0.6, None, False),
        ("MB/s", 3.5, None, 3.5, True),
        ("MB/s", 3.4, None, 3.5, False),
        ("s", 0.05, None, 0.05, True),
        ("s", 0.06, None, 0.05, False),
        ("MB", 11, None, 10.5, False),
        ("MB", 9, 0.5, 10.5, False),
        ("MB", 9, None, None, None),
    ],
)
def test_goals_bound_from_the_right_side(unit, ours, goal, figure_goal, met):
    row = Row("work", "ours", "peer", [ours], [10], unit, goal, figure_goal)
    assert row.met is met


def test_the_median_of_rounds_is_judged_and_their_range_is_shown():
    rounds = [30.0, 10.0, 24.0], [10.0, 10.0, 12.0]
    row = Row("work", "ours", "peer", *rounds, "tokens/s", goal=2.0)
    assert (row.our_figure, row.ratio, row.met) == (24.0, 2.0, True)
    assert row.cells()[3:7] == [
        "24.0 tokens/s",
        "10.0 tokens/s",
        "2.00x",
        "1.00 to 3.00",
    ]
    once = Row("work", "ours", "peer", [6.0], [10.0, 20.0], "s")
    assert once.ratios == [10 / 6, 20 / 6]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1234.5, "1,234"),
        (99.96, "100"),
        (12.34, "12.3"),
        (0.0123, "0.0123"),
        (0, "0.0000"),
    ],
)
def test_three_digits(number, words):
    assert short(number) == words


def test_a_missed_goal_is_said_so():
    said = verdict([SPEED, MEMORY, SECONDS])
    assert (
        said == "1 of 2 goals are met. Missed: training step, ours beside the book's."
    )
    missed, met, unjudged = plain_table([SPEED, MEMORY, SECONDS]).splitlines()[1:]
    assert missed.endswith("at least 4x   NO") and met.endswith("at most 0.7x  yes")
    assert unjudged.endswith("1.50x")


def test_columns_stand_under_each_other():
    lines = plain_table([SPEED, MEMORY]).splitlines()
    assert {line.index(cell) for line, cell in zip(lines, ("peer", "the", "the"))} == {
        lines[0].index("peer")
    }


def test_the_markdown_table_is_one():
    lines = markdown_table([SPEED, SECONDS]).splitlines()
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 1}
    assert lines[1] == "|" + " --- |" * 3 + " ---: |" * 3 + " --- |" * 3


@pytest.mark.parametrize("rows", [[SPEED, MEMORY, SECONDS], [SPEED]])
def test_the_picture_is_drawn(tmp_path, rows):
    draw(rows, tmp_path / "speed.png", "a machine")
    assert (tmp_path / "speed.png").read_bytes()[1:4] == b"PNG"


def test_a_fresh_process_is_another():
    assert measure.in_fresh_process(os.getpid) != os.getpid()


def test_what_a_fresh_process_raises_arrives():
    with pytest.raises(ValueError, match="'many'"):
        measure.in_fresh_process(int, "many")


def test_a_killed_process_is_a_sentence():
    with pytest.raises(
        RuntimeError, match=r"_exit\(9,\) was killed: if memory ran out"
    ):
        measure.in_fresh_process(os._exit, 9)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_memory_is_that_of_the_process_alone():
    ballast = b"x" * 600_000_000  # resident, and thus in this process's peak
    there = measure.in_fresh_process(measure.peak_megabytes)
    assert measure.peak_megabytes() > len(ballast) / 1e6 > there > 0


def test_the_median_does_not_count_what_prepares(monkeypatch):
    passed = []
    monkeypatch.setattr(measure.time, "perf_counter", lambda: sum(passed))
    durations = iter([3, 1, 8])
    seconds = measure.median_seconds(
        lambda: passed.append(100), lambda _: passed.append(next(durations)), runs=3
    )
    assert seconds == 3 and passed == [100, 3, 100, 1, 100, 8]


def test_this_machine_has_a_name():
    assert f"torch {torch.__version__}" in measure.machine()
    assert measure.processor()


@pytest.fixture
def tiny_benchmark(monkeypatch, one_thread, usual_precision):
    """Training measured in this process, twice; without litgpt and a compiler."""
    monkeypatch.setattr(training, "in_fresh_process", in_this_process)
    monkeypatch.setattr(training, "ROUNDS", 2)
    monkeypatch.setattr(training, "CONFIG", TINY)
    found = {"default": 1e9, "float32": 2e9, "bfloat16": 4e9, "memory": 1e10}
    monkeypatch.setattr(training, "measure_limits", lambda: found)

    def not_installed(cfg, device):
        raise ModuleNotFoundError("No module named 'litgpt'", name="litgpt")

    for title in (trainees.LITGPT, trainees.LITGPT_FUSED):
        monkeypatch.setitem(training.TRAINEES, title, (not_installed, "litgpt"))
    monkeypatch.delitem(training.TRAINEES, trainees.COMPILED, raising=False)


def test_all_that_is_installed_is_compared(tiny_benchmark):
    pytest.importorskip("llms_from_scratch", reason="needs the book's package")
    rows, notes = training.measure_rows()
    peers = {row.peer for row in rows if not row.peer.startswith("ours")}
    transformers = {trainees.TRANSFORMERS, trainees.FASTER_TRANSFORMERS}
    assert peers == {trainees.BOOK, *(transformers & training.TRAINEES.keys())}
    assert [note for note in notes if "pip install --no-deps litgpt==" in note]
    assert all(min(row.our_figures + row.peer_figures) > 0 for row in rows)


def test_without_any_peer_ours_are_compared(tiny_benchmark, monkeypatch):
    absent = training.TRAINEES[trainees.LITGPT]
    for title in [t for t in training.TRAINEES if not t.startswith("ours")]:
        monkeypatch.setitem(training.TRAINEES, title, absent)
    rows, notes = training.measure_rows()
    assert {row.peer for row in rows} <= {trainees.TIED, trainees.FASTER_TIED}
    assert {row.work for row in rows} == {"training step"}
    num_ours = sum(title.startswith("ours") for title in training.TRAINEES)
    assert len(notes) == 1 + num_ours + 1  # the missing package, this machine's limits
    assert num_ours == 3 * len(limits.DTYPES)  # tied and not, and without dropout


def test_peers_are_trained_in_their_best_settings(monkeypatch):
    """transformers compiled, and litgpt with the fused AdamW."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    trainee = trainees.transformers_trainee(TINY, is_compiled=True)
    assert compiled == [trainee.model]
    assert trainee.optimizer.defaults["fused"]
    pytest.importorskip("litgpt", reason="needs litgpt")
    for is_fused in (True, False):
        optimizer = trainees.litgpt_trainee(TINY, is_fused=is_fused).optimizer
        assert bool(optimizer.defaults["fused"]) is is_fused


def test_each_round_is_measured(tiny_benchmark):
    found, _ = training.measure_all(TINY, [trainees.OURS])
    first, second = found[trainees.OURS]
    assert first["num_tokens"] == training.BATCH_SIZE * TINY["context_length"]
    assert len(first["steps"]) == training.NUM_STEPS - 1
    assert len(second["evaluations"]) == training.NUM_EVALUATIONS
    assert first["losses"][1] < first["losses"][0]


def test_speed_is_the_batch_by_the_median_step():
    once = {"num_tokens": 60, "steps": [2.0, 3.0, 9.0], "megabytes": 7.0}
    assert training.figure(once, "steps") == 20
    assert training.figure(once, "megabytes") == 7


@pytest.mark.parametrize(
    "other", [{"parameters": 9}, {"losses": [4.0, 3.4]}, {"losses": [4.1, 3.0]}]
)
def test_other_work_is_not_compared(other):
    ours = {"parameters": 8, "losses": [4.0, 3.0]}
    training.check_same_work({trainees.OURS: [ours], trainees.BOOK: [dict(ours)]})
    with pytest.raises(RuntimeError, match="did other work"):
        training.check_same_work({trainees.OURS: [ours], trainees.BOOK: [ours | other]})


def test_transformers_model_has_the_shape_of_ours_tied(one_thread, usual_precision):
    theirs = trainees.transformers_trainee(TINY).model
    cfg = TINY | {"qkv_bias": True}
    ours = trainees.our_trainee(cfg, is_tied=True).model
    assert ours.out_head.weight is ours.tok_emb.weight
    numel = [sum(p.numel() for p in model.parameters()) for model in (theirs, ours)]
    assert numel[0] == numel[1]


def test_the_batch_is_the_same_for_all():
    inputs, targets = trainees.random_batch(TINY, 3)
    again, _ = trainees.random_batch(TINY, 3)
    assert inputs.shape == (3, TINY["context_length"]) and torch.equal(inputs, again)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


STORY = "The tide went out, and the boats lay on the sand. The boats' owners went home."


def test_the_naive_tokenizers_are_right():
    trained = BPETokenizer.train(STORY, 280)
    assert text.train_naively(STORY, 280) == list(trained.vocab)
    assert text.encode_naively(STORY, trained.vocab) == trained.encode(STORY)
    assert len(trained.encode(STORY)) < sum(map(len, SPLIT_PATTERN.findall(STORY)))


def test_the_text_is_a_megabyte_without_any_download(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMS_DOWNLOADS", str(tmp_path))
    assert 1e6 <= len(text.english()) < 1.5e6
    (tmp_path / "tinyshakespeare.txt").write_text("Speak, speak.", encoding="utf-8")
    assert text.english() == "Speak, speak."


def test_encoders_are_compared_and_equal():
    rows = text.encode_rows(STORY * 20)
    assert [row.peer for row in rows] == ["tiktoken", "tokenizers", "naive loop"]
    assert rows[0].our_figures == rows[1].our_figures and len(rows[0].our_figures) == 5


def test_both_loaders_are_measured_on_as_much_as_they_can_bear(monkeypatch):
    """At stride 1 the book's gets a 20th of the tokens; its figures are scaled up."""
    measured = []

    def in_no_process(function, whose, stride, num_tokens):
        assert function is text.measure_loader
        measured.append((whose, stride, num_tokens))
        return (0.01, 8.0) if whose == "ours" else (3.0, 40.0)

    monkeypatch.setattr(text, "in_fresh_process", in_no_process)
    rows = text.loader_rows()
    million, part = 1_000_000, 50_000
    assert measured == [
        *3 * [("ours", 256, million)],
        ("book", 256, million),
        *3 * [("ours", 1, million)],
        ("book", 1, part),
    ]
    found = [(row.work, row.unit, row.our_figure, *row.peer_figures) for row in rows]
    assert found == [
        ("loader, stride 256", "s", 0.01, 3.0),
        ("loader, stride 256", "MB", 8.0, 40.0),
        ("loader, stride 1", "s", 0.01, 60.0),
        ("loader, stride 1", "MB", 8.0, 800.0),
    ]
    assert all(row.met for row in rows)


@pytest.mark.parametrize("whose", ["ours", "book"])
def test_a_loader_is_measured(whose):
    if whose == "book":
        pytest.importorskip("llms_from_scratch", reason="needs the book's package")
    seconds, megabytes = text.measure_loader(whose, stride=1, num_tokens=1000)
    assert seconds > 0 and megabytes >= 0


@pytest.fixture
def tiny_downloads(monkeypatch, tmp_path):
    """GPT-2's files, tiny, in a folder that `write_files` has filled."""
    monkeypatch.setenv("LLMS_DOWNLOADS", str(tmp_path))
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    monkeypatch.setitem(MODEL_CONFIGS, SMALL, TINY_GPT2)
    monkeypatch.setitem(gpt2_files.BY_SIZE, "124M", {})
    monkeypatch.setitem(gpt2_files.HUGGING_FACE, "124M", ())
    monkeypatch.setattr(checked_files, "LEAST_AGE", 0)  # a check is noted at once
    loading.write_files("124M", tmp_path)


@pytest.mark.parametrize("title", [*loading.OURS, "transformers"])
def test_each_form_is_loaded_and_measured(tiny_downloads, title):
    seconds, megabytes, in_model = loading.measure_load("124M", title)
    assert seconds > 0 and megabytes >= 0
    assert 0 < in_model < 0.1


@pytest.mark.parametrize("title", loading.OURS)
def test_the_first_load_checks_and_the_next_one_knows(
    tiny_downloads, checked_path, monkeypatch, title
):
    """Whatever was checked when the files were written. A reader's list stays."""
    answers, usual = [], checked_files.CheckedFiles.have_passed

    def note(self, check):
        answers.append(usual(self, check))
        return answers[-1]

    monkeypatch.setattr(checked_files.CheckedFiles, "have_passed", note)
    for is_known in (False, True):
        loading.measure_load("124M", title)
        assert set(answers) == {is_known}
        answers.clear()
    assert not checked_path.exists()


def test_the_books_loader_is_measured(tiny_downloads):
    pytest.importorskip("llms_from_scratch", reason="needs the book's package")
    assert loading.measure_load("124M", "the book's")[0] > 0


def test_loading_is_judged_by_the_models_size():
    found = dict.fromkeys(loading.OURS, ([1.0, 0.6], [140.0] * 2, [100.0] * 2))
    rows = loading.compare(found | {"transformers": ([0.3] * 2, [280.0] * 2, [100.0])})
    assert [row.met for row in rows] == [False, False, False, True, False, None]
    assert [row.ratio for row in rows[3:]] == [0.3, 0.5, 0.5]


def test_a_size_is_measured_once():
    found = growth.sizes({"a": 1, "b": 2}, {"a": (1, 3), "b": (2, 4)})
    assert found == [{"a": 1, "b": 2}, {"a": 3, "b": 2}, {"a": 1, "b": 4}]


def test_limits_grow_as_the_work_does():
    base = growth.TRAINED
    limit = partial(growth.step_limit, operations_a_second=1e12)
    assert limit(base | {"batch": 4}) == 2 * limit(base)
    assert limit(base | {"context": 512}) > 2 * limit(base)
    base = growth.DECODED
    limit = partial(growth.token_limit, bytes_a_second=1e10)
    assert limit(base) < limit(base | {"batch": 8}) < 8 * limit(base)


def test_the_weights_that_a_token_reads():
    model = GPTModel(GPT_CONFIG_124M | {"n_layers": 1})
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    weights = sum(layer.weight.numel() for layer in layers)
    size = {"context": -growth.NUM_NEW // 2, "batch": 1, "blocks": 1}  # no cache
    assert growth.token_limit(size, bytes_a_second=4) == weights


def test_growth_is_measured_printed_and_drawn(monkeypatch, tmp_path):
    monkeypatch.setattr(growth, "in_fresh_process", in_this_process)
    monkeypatch.setattr(growth, "measure_step", lambda size, dtype: 5.0)
    monkeypatch.setattr(growth, "measure_token", lambda size: 0.2)
    found = growth.measure_growth({"float32": 1e11, "bfloat16": 2e11, "memory": 1e10})
    numbers = [len(points) for points in found.values()]
    assert numbers == [*len(limits.DTYPES) * [8], 9]
    assert len(growth.table(found).splitlines()) == 1 + sum(numbers)
    growth.draw_growth(found, tmp_path / "growth.png", "a machine")
    assert (tmp_path / "growth.png").read_bytes()[1:4] == b"PNG"


def test_steps_and_tokens_are_timed(monkeypatch, one_thread, usual_precision):
    monkeypatch.setattr(growth, "GPT_CONFIG_124M", TINY | {"context_length": 40})
    size = {"context": 4, "batch": 2, "blocks": 1}
    assert growth.measure_step(size, "float32") > 0
    assert growth.measure_token(size) > 0
    assert limits.product_speed(torch.float32, 4, 4, runs=1) > 0
    assert limits.read_speed(megabytes=1, runs=1) > 0


@pytest.fixture
def ran(monkeypatch, tmp_path, capsys):
    """A function that runs the command with arguments: what it printed."""
    monkeypatch.setattr(command, "PLOT", tmp_path / "speed.png")
    notes = {part: [f"a note on {part}"] for part in command.PARTS}
    monkeypatch.setattr(
        command, "in_fresh_process", lambda _, part: ([SPEED], notes[part])
    )

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        command.main()
        return capsys.readouterr().out.splitlines()

    return run


def test_all_parts_are_measured_and_drawn(ran, tmp_path):
    lines = ran()
    assert lines[0] == measure.machine()
    for part in command.PARTS:
        assert f"measuring {part}" in lines and f"a note on {part}" in lines
    assert (tmp_path / "speed.png").is_file()
    assert lines[-1].startswith(f"0 of {len(command.PARTS)} goals are met.")


def test_some_parts_are_measured_and_not_drawn(ran, tmp_path):
    lines = ran("text", "--markdown")
    assert "measuring text" in lines and "measuring training" not in lines
    assert f"| {' | '.join(COLUMNS)} |" in lines
    assert not (tmp_path / "speed.png").exists()


def rounds():
    """How much is measured, as the modules of a process say."""
    return training.ROUNDS, decoding.ROUNDS, text.ROUNDS, decoding.NUM_TOKENS


def test_a_quick_run_measures_once_and_is_not_drawn(ran, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMS_QUICK", "0")
    lines = ran("--quick")
    assert "measuring training" in lines and not (tmp_path / "speed.png").exists()
    assert measure.in_fresh_process(rounds) == (1, 1, 1, 60)


def test_an_unknown_part_is_named(ran, capsys):
    with pytest.raises(SystemExit):
        ran("tarining")
    assert "there is no part tarining" in capsys.readouterr().err


@pytest.mark.parametrize("way", WAYS)
def test_the_bare_loop_writes_what_the_model_writes(tiny_config, usual_precision, way):
    torch.manual_seed(123)
    model = GPTModel(tiny_config | {"qkv_bias": True}).eval()
    prompts = torch.tensor([[7, 30, 2], [5, 6, 7]])
    with fast_decoding(choose=lambda num_rows: way):
        found = generate_bare(model, prompts, 9)
    assert torch.equal(found, generate(model, prompts, 9, 12))


def test_all_ways_to_decode_are_measured_and_compared(
    monkeypatch, tiny_config, usual_precision
):
    torch.manual_seed(123)
    model = GPTModel(tiny_config | {"context_length": 40}).eval()
    monkeypatch.setattr(decoding, "PROMPT", torch.tensor([[7, 30, 2]]))
    monkeypatch.setattr(decoding, "NUM_TOKENS", 9)
    monkeypatch.setattr(decoding, "twins", lambda: (model, model))
    monkeypatch.setattr(decoding, "trained_note", lambda: "no trained model")

    def write(model, prompt, num_tokens):
        return decoding.generate_ours(model.float(), prompt, num_tokens)

    monkeypatch.setattr(decoding, "generate_theirs", write)
    monkeypatch.setattr(decoding, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(decoding, "decoding_way", lambda num_rows: "plain")
    rows, notes = decoding.measure_rows()
    monkeypatch.setattr(decoding, "has_bfloat16", lambda device: False)
    fewer, _ = decoding.measure_rows()
    assert {row.peer for row in rows} - {row.peer for row in fewer} == {THEIRS_HALF}
    assert [row.goal for row in rows] == [goal for *_, goal in decoding.COMPARED]
    assert all(min(row.ratios) > 0 for row in rows)
    assert notes[-1] == (
        "`fast_decoding` chooses 'plain' here for one prompt, and 'plain' for 8."
    )
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="different"):
        patch.setattr(decoding, "generate_bare", lambda *_, **more: torch.zeros(1, 12))
        decoding.measure_rows()
