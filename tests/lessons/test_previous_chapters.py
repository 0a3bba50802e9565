"""Each previous_chapters.py opens from anywhere and hands on all that was built."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT
from tests.notebooks.running import label

MODULES = sorted(ROOT.glob("ch[0-9][0-9]/*.py"))
DOORS = [path for path in MODULES if path.name == "previous_chapters.py"]
# enough to start an interpreter, nothing of this process's import paths
ENVIRONMENT = {"PATH": os.defpath, "HOME": str(Path.home())}
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)

# what the book's previous_chapters.py, or its package, has of each chapter
BOOK = {
    "ch02": "SimpleTokenizerV1 SimpleTokenizerV2 GPTDatasetV1 create_dataloader_v1",
    "ch03": "softmax_naive SelfAttention_v1 SelfAttention_v2 CausalAttention "
    "MultiHeadAttentionWrapper MultiHeadAttention",
    "ch04": "GPT_CONFIG_124M DummyGPTModel DummyTransformerBlock DummyLayerNorm "
    "LayerNorm GELU FeedForward ExampleDeepNeuralNetwork print_gradients "
    "TransformerBlock GPTModel generate_text_simple",
    "ch05": "text_to_token_ids token_ids_to_text calc_loss_batch calc_loss_loader "
    "train_model_simple evaluate_model generate_and_print_sample plot_losses "
    "print_sampled_tokens softmax_with_temperature generate assign "
    "load_weights_into_gpt download_and_load_gpt2 download_file "
    "load_gpt2_params_from_tf_ckpt find_highest_gradient train_model",
    "ch06": "download_and_unzip_spam_data create_balanced_dataset random_split "
    "SpamDataset calc_accuracy_loader train_classifier_simple plot_values "
    "classify_review",
}


def parse(path):
    """The syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path):
    """Yield (module, name) for each import in a file; name is None for a plain one."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)


def handed_on(door):
    """The (module, name) pairs that a door imports from the course."""
    return [pair for pair in imports(door) if pair[0].startswith(("ch", "support"))]


@pytest.mark.parametrize("way", ["own folder", "root", "elsewhere"])
@pytest.mark.parametrize("door", DOORS, ids=label)
def test_opens_in_a_clean_process(door, way, tmp_path):
    by_chapter = f"import {door.parent.name}.previous_chapters as door"
    folder, opening = {
        "own folder": (door.parent, "import previous_chapters as door"),
        "root": (ROOT, by_chapter),
        "elsewhere": (tmp_path, f"sys.path.append({str(ROOT)!r})\n{by_chapter}"),
    }[way]
    lines = ["import sys", opening]
    for module, name in handed_on(door):
        lines.append(f"import {module}\nassert door.{name} is {module}.{name}")
        home = f"getattr(door.{name}, '__module__', '{module}')"
        lines.append(f"assert {home} == '{module}', '{name} was built in ' + {home}")
    command = [sys.executable, "-c", "\n".join(lines)]
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True)


@pytest.mark.parametrize("door", DOORS, ids=label)
def test_defines_nothing_and_lists_what_it_imports(door):
    tree = parse(door)
    assert not any(isinstance(node, DEFINITIONS) for node in ast.walk(tree))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    assert [ast.unparse(node.targets) for node in assigned] == ["__all__"]
    names = [name for _, name in handed_on(door)]
    assert sorted(ast.literal_eval(assigned[0].value)) == sorted(names)


@pytest.mark.parametrize("door", DOORS, ids=label)
def test_hands_on_earlier_chapters_only(door):
    for module, name in handed_on(door):
        is_support = module.startswith("support.")
        is_earlier = is_support or int(module[2:4]) < int(door.parent.name[2:])
        assert is_earlier, f"{name} from {module}"


@pytest.mark.parametrize("door", DOORS, ids=label)
def test_hands_on_the_books_names_of_all_earlier_chapters(door):
    names = {name for _, name in handed_on(door)}
    for chapter, expected in BOOK.items():
        if chapter < door.parent.name:
            missing = set(expected.split()) - names
            assert not missing, f"of {chapter}: {sorted(missing)}"


@pytest.mark.parametrize("door", DOORS, ids=label)
def test_a_door_is_short(door):
    assert len(door.read_text(encoding="utf-8").splitlines()) <= 70


def test_modules_import_by_chapter_name():
    """None imports from a door, nor from its neighbour without naming the chapter."""
    unnamed = {path.stem for path in MODULES} | {""}
    found = {
        label(module): imported
        for module in MODULES
        for imported, _ in imports(module)
        if imported.split(".")[0] in unnamed or "previous_chapters" in imported
    }
    assert not found
