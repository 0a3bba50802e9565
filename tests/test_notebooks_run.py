"""Every notebook runs from its first cell to its last, with small parameters."""

import os
import shutil

import nbformat
import pytest
from filelock import FileLock

from ch04.gpt import GPT_CONFIG_124M
from ch05.pretrain import train_small
from tests.notebooks import (
    all_notebooks,
    clean,
    copy_course,
    execute,
    expected_verdicts,
    label,
    outputs,
    verdicts,
    words,
)

# what the cell tagged `parameters` says in the tests, so that each takes seconds
SMALL = {
    "ch05/5.2_training.ipynb": {
        "cfg": GPT_CONFIG_124M
        | {"context_length": 64, "emb_dim": 32, "n_heads": 4, "n_layers": 2},
        "num_epochs": 1,
        "checkpoint": "checkpoints/small.safetensors",  # local.safetensors is in use
    },
    "ch05/5.3_kv_cache.ipynb": {
        "cfg": GPT_CONFIG_124M | {"emb_dim": 32, "n_heads": 4, "n_layers": 2},
        "max_new_tokens": 5,
    },
    "ch05/5.2_training_for_hours.ipynb": {"num_steps": 12, "stop_at": 5},
    "ch05/5.7_where_the_time_goes.ipynb": {
        "cfg": GPT_CONFIG_124M
        | {"context_length": 32, "emb_dim": 32, "n_heads": 4, "n_layers": 2},
        "num_steps": 1,
    },
    "ch06/6.7_finetuning.ipynb": {"num_epochs": 1},
    "ch06/6.8_spam_classifier.ipynb": {"seeds": (1,), "num_epochs": 1},
    "ch07/7.5_fitting_in_memory.ipynb": {"num_steps": 1, "ranks": (0,)},
    "ch07/7.6_instruction_finetuning.ipynb": {"num_train": 24, "num_epochs": 1},
    "ch07/7.8_evaluating_responses.ipynb": {
        "seeds": (1,),
        "num_asked": 14,
        "num_train": 16,
        "num_epochs": 1,
    },
    "ch07/7.8_judging_responses.ipynb": {
        "num_asked": 14,
        "num_train": 16,
        "num_epochs": 1,
    },
    "ch07/7.9_what_went_wrong.ipynb": {"num_epochs": 24, "num_asked": 2},
}
BARS = """
import sys
from tqdm import tqdm
from tqdm.auto import tqdm as widget_bar
for _ in widget_bar(range(size)):
    print("step", end=" ")
for _ in tqdm(range(size)):
    pass
print("kept", file=sys.stderr)
"""


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """A copy of the course in which notebooks run; what they write stays in it."""
    folder = tmp_path_factory.mktemp("course")
    copy_course(folder)
    return folder


@pytest.fixture(scope="session")
def local_model(course, tmp_path_factory):
    """The model that `load_pretrained` falls back to, put into the copy of the course.

    Training it takes a minute: one of the processes that run tests does it for all.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with FileLock(shared / "local.lock"):
        if not (shared / "local").is_dir():
            train_small(shared / "local" / "local.safetensors")
    checkpoints = course / "ch05" / "checkpoints"
    shutil.copytree(shared / "local", checkpoints, dirs_exist_ok=True)


def speaks(path):
    """Whether a notebook loads a pretrained model."""
    return "load_pretrained(" in path.read_text(encoding="utf-8")


# first those that compute longest, so that none is left when the rest is done
@pytest.mark.parametrize("path", sorted(all_notebooks(), key=speaks)[::-1], ids=label)
def test_notebook_runs(path, course, monkeypatch, tmp_path, request):
    if speaks(path):
        request.getfixturevalue("local_model")
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    monkeypatch.setenv("LLMS_DOWNLOADS", str(tmp_path))  # empty, on every machine
    notebook = execute(course / label(path), SMALL.get(label(path))).notebook
    assert verdicts(notebook) == expected_verdicts(path, notebook)
    for output in outputs(notebook):
        assert output.output_type != "error", output
        assert not any("Warning" in text for text in words(output)), output


@pytest.fixture
def toy(tmp_path):
    """A notebook with a parameters cell and progress bars of both kinds."""
    cells = [nbformat.v4.new_code_cell(source) for source in ("size = 10**9", BARS)]
    cells[0].metadata.tags = ["parameters"]
    path = tmp_path / "toy.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_parameters_shrink_a_run_and_its_bars_are_cleaned_away(toy):
    run = execute(toy, {"size": 3})
    assert run.minutes < 1
    assert 10 < run.megabytes < 10_000  # a wrong unit is off by a thousand
    said = [(output.name, output.text) for output in outputs(clean(run.notebook))]
    assert said == [("stdout", "step step step "), ("stderr", "kept\n")]


def test_unknown_parameters_are_refused(toy):
    with pytest.raises(ValueError, match="does not assign"):
        execute(toy, {"sizes": 3})


@pytest.mark.parametrize("name", ["5.5_pretrained_weights", "5.6_gpt_to_llama"])
def test_notebook_speaks_with_smollm2(name, course, monkeypatch, gguf_path):
    monkeypatch.setenv("LLMS_OFFLINE", "1")
    monkeypatch.setenv("LLMS_DOWNLOADS", str(gguf_path.parents[1]))
    run = execute(course / "ch05" / f"{name}.ipynb")
    said = "\n".join(text for output in outputs(run.notebook) for text in words(output))
    assert "smollm2-135M, 134.5 million parameters" in said
