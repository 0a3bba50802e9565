"""Every notebook runs from its first cell to its last, with small parameters."""

import nbformat
import pytest

from ch04.gpt import GPT_CONFIG_124M
from tests.notebooks.running import (
    ROOT,
    all_notebooks,
    clean,
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
        "small": {"emb_dim": 16, "n_heads": 2, "n_layers": 1},
        "small_epochs": 2,
        "seeds": (1,),
    },
    "ch05/5.3_kv_cache.ipynb": {
        "cfg": GPT_CONFIG_124M | {"emb_dim": 32, "n_heads": 4, "n_layers": 2},
        "max_new_tokens": 5,
    },
    "ch05/5.2_training_for_hours.ipynb": {
        "num_steps": 12,
        "stop_at": 5,
        "depths": (1, 2),
        "seeds": (1,),
        "tiny_steps": 3,
    },
    "ch05/5.7_where_the_time_goes.ipynb": {
        "cfg": GPT_CONFIG_124M
        | {"context_length": 32, "emb_dim": 32, "n_heads": 4, "n_layers": 2},
        "num_steps": 1,
        "num_rounds": 2,
    },
    "ch06/6.7_finetuning.ipynb": {"num_epochs": 1, "sizes": (10,), "seeds": (1,)},
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


# from the last chapter, whose notebooks compute longest, to the first
@pytest.mark.timeout(1800)  # so that a busy machine can train the local model
@pytest.mark.parametrize("path", all_notebooks()[::-1], ids=label)
def test_notebook_runs(path, run_notebook):
    notebook = run_notebook(path, SMALL.get(label(path)))
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
    assert 10 < run.megabytes < 10_000  # a wrong unit is off by a thousand
    said = [(output.name, output.text) for output in outputs(clean(run.notebook))]
    assert said == [("stdout", "step step step "), ("stderr", "kept\n")]


def test_unknown_parameters_are_refused(toy):
    with pytest.raises(ValueError, match="does not assign"):
        execute(toy, {"sizes": 3})


@pytest.mark.parametrize("name", ["5.5_pretrained_weights", "5.6_gpt_to_llama"])
def test_notebook_speaks_with_smollm2(name, run_notebook, gguf_path):
    path = ROOT / "ch05" / f"{name}.ipynb"
    notebook = run_notebook(path, downloads=gguf_path.parents[1])
    said = "\n".join(text for output in outputs(notebook) for text in words(output))
    assert "SmolLM2-135M-Instruct, 4-bit weights, instruction-tuned" in said
