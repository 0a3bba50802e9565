"""Each row of DIFFERENCES.md, the table of what differs from the book, is true."""

import math
import re
from importlib import import_module

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ch02.bpe import BPETokenizerSimple
from ch02.dataset import GPTDatasetV1, create_dataloader_v1
from ch02.tokenizer import (
    BPETokenizer,
    SimpleTokenizerV1,
    SimpleTokenizerV2,
    get_tokenizer,
)
from ch03.attention import CausalAttention, MultiHeadAttention
from ch04.gpt import (
    ExampleDeepNeuralNetwork,
    GPTModel,
    generate_text_simple,
    print_gradients,
)
from ch05.decoding import generate, print_sampled_tokens, softmax_with_temperature
from ch05.kv_cache import KVCache
from ch05.openai_weights import assign, download_file, load_weights_into_gpt
from ch05.training import (
    calc_loss_batch,
    calc_loss_loader,
    evaluate_model,
    plot_losses,
    train_model_simple,
)
from ch06.classifier import (
    Classifier,
    calc_accuracy_loader,
    classify_review,
    plot_values,
    spam_probability,
    train_classifier_simple,
)
from ch06.spam import SpamDataset, download_and_unzip_spam_data
from ch07.instructions import InstructionDataset, download_and_load_file
from ch07.judge import OllamaError, generate_model_scores, query_model
from ch07.lora import LoRALayer
from support.download.fetch import FetchError
from support.paths import ROOT
from tests.ollama import message
from tests.server import closed_url, serving

PAGE = ROOT / "DIFFERENCES.md"
ROWS = []  # the names of each row that has a test here


def row(*names):
    """Mark the test of the row that begins with these names."""

    def note(test):
        ROWS.append(names)
        return test

    return note


@pytest.fixture
def cfg(tiny_config):
    """A tiny config whose vocabulary is GPT-2's."""
    return tiny_config | {"vocab_size": 50257, "emb_dim": 8, "n_heads": 2}


@pytest.fixture
def model(cfg):
    """A seeded GPT of that config, in training mode."""
    torch.manual_seed(123)
    return GPTModel(cfg)


@pytest.fixture
def two_way(model):
    """The same with a two-way output layer, as the book's chapter 6 makes it."""
    model.out_head = nn.Linear(8, 2)
    return model


def spoiled(model):
    """A model all of whose logits are nan."""
    with torch.no_grad():
        model.final_norm.shift.fill_(math.nan)
    return model


def pairs(*targets):
    """Inputs and targets of one row each, the inputs all 1."""
    return [(torch.ones_like(t), t) for t in map(torch.tensor, targets)]


def table():
    """The rows of the page's only table, cell by cell, without its head."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    assert rows[0] == ["name", "in the book", "here", "because"]
    return rows[2:]


def names_in(cell):
    """The names in backticks."""
    return tuple(re.findall(r"`([^`]+)`", cell))


def exists(name):
    """Whether a module of a chapter defines a name."""
    for path in ROOT.glob("ch[0-9][0-9]/*.py"):
        if path.stem != "previous_chapters":
            module = import_module(f"{path.parent.name}.{path.stem}")
            if getattr(module, name, None) is not None:
                return True
    return False


def test_every_row_has_its_names_both_sides_and_a_reason():
    for cells in table():
        assert len(cells) == 4 and names_in(cells[0]), cells
        assert all(cell.endswith(".") for cell in cells[1:]), cells


def test_the_names_exist():
    for cells in table():
        for name in names_in(cells[0]):
            assert exists(name), f"no chapter has {name}"


def test_every_row_is_tested_and_every_test_has_its_row():
    assert sorted(names_in(cells[0]) for cells in table()) == sorted(ROWS)


@row("SimpleTokenizerV1", "SimpleTokenizerV2")
def test_an_unknown_word_or_id_is_named():
    vocab = {"tide": 0, "<|unk|>": 1}
    with pytest.raises(ValueError, match="zebra"):
        SimpleTokenizerV1(vocab).encode("tide zebra")
    assert SimpleTokenizerV2(vocab).encode("tide zebra") == [0, 1]
    for cls in (SimpleTokenizerV1, SimpleTokenizerV2):
        with pytest.raises(ValueError, match="99"):
            cls(vocab).decode([99])


@row("get_tokenizer")
def test_the_tokenizer_needs_no_network(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)
    get_tokenizer.cache_clear()
    assert get_tokenizer("gpt2").encode("Every effort") == [6109, 3626]


@row("BPETokenizerSimple", "BPETokenizer")
def test_tokenizers_start_from_bytes_and_the_fast_one_is_made_by_training():
    simple = BPETokenizerSimple()
    simple.train("the tide the tide", 259)
    fast = BPETokenizer.train("the tide the tide", 260)
    assert isinstance(fast, BPETokenizer)
    assert fast.eot_token == 259 and 259 not in simple.vocab
    for tokenizer in (simple, fast):
        assert tokenizer.decode(tokenizer.encode("né潮\n\n")) == "né潮\n\n"


@row("GPTDatasetV1", "create_dataloader_v1")
def test_a_text_without_windows_is_refused(tokenizer):
    with pytest.raises(ValueError, match="257"):
        GPTDatasetV1("too short", tokenizer, 256, 128)
    with pytest.raises(ValueError, match="fewer than batch_size 4"):
        create_dataloader_v1("word " * 300, batch_size=4)


@row("CausalAttention", "MultiHeadAttention")
def test_masks_are_boolean_and_not_saved():
    for att in (CausalAttention(3, 4, 6, 0.0), MultiHeadAttention(3, 4, 6, 0.0, 2)):
        assert att.mask.dtype == torch.bool and "mask" not in att.state_dict()


@row("GPTModel")
def test_configs_and_lengths_are_checked(cfg, model):
    for change in ({"droprate": 0.1}, {"n_heads": 3}, {"emb_dim": 0}):
        with pytest.raises(ValueError, match="config"):
            GPTModel(cfg | change)
    with pytest.raises(ValueError, match="13 tokens exceed context_length 12"):
        model(torch.ones(1, 13, dtype=torch.long))


@row("FeedForward", "TransformerBlock")
def test_there_is_one_version_of_each():
    for name in ("FeedForwardFast", "TransformerBlockFast", "GPTModelFast"):
        assert not exists(name)
    assert not exists("PyTorchMultiHeadAttention")


@row("print_gradients")
def test_gradients_are_printed_with_six_decimals(capsys):
    print_gradients(ExampleDeepNeuralNetwork([3, 3, 1], True), torch.ones(1, 3))
    numbers = re.findall(r"mean of \d+\.(\d+)\n", capsys.readouterr().out)
    assert [len(decimals) for decimals in numbers] == [6, 6]


@row("generate_text_simple", "softmax_with_temperature")
def test_what_cannot_be_computed_is_refused(model):
    empty = torch.ones(1, 0, dtype=torch.long)
    for function in (generate_text_simple, generate):
        with pytest.raises(ValueError, match="empty"):
            function(model, empty, 2, 12)
    with pytest.raises(ValueError, match="temperature"):
        softmax_with_temperature(torch.ones(3), 0)


@row("calc_loss_loader")
def test_each_target_counts_the_same(model):
    model.eval()
    loader = pairs([[1, 2, 3, 4]], [[5, -100, -100, -100]])
    losses = [calc_loss_batch(x, y, model, "cpu").item() for x, y in loader]
    expected = (4 * losses[0] + losses[1]) / 5
    assert calc_loss_loader(loader, model, "cpu") == pytest.approx(expected, rel=1e-5)


@row("evaluate_model")
def test_evaluation_keeps_the_mode_and_stops_at_nan(model):
    loader = pairs([[1, 2]])
    for mode in (True, False):
        evaluate_model(model.train(mode), loader, loader, "cpu", 1)
        assert model.training is mode
    with pytest.raises(FloatingPointError):
        evaluate_model(spoiled(model), loader, loader, "cpu", 1)


@row("train_model_simple")
def test_tokens_seen_are_targets(model, tokenizer):
    loader = pairs([[1, 2, -100, -100]])
    optimizer = torch.optim.AdamW(model.parameters())
    settings = optimizer, "cpu", 1, 1, 1, "The tide", tokenizer
    assert train_model_simple(model, loader, loader, *settings)[2] == [2]


@row("generate")
def test_generate_takes_batches_and_evaluates(model):
    rows = torch.tensor([[1, 2], [3, 4]])
    found = generate(model, rows, 4, 12, eos_id=7)  # training mode, with dropout
    assert found.shape == (2, 6) and model.training
    assert torch.equal(found, generate(model.eval(), rows, 4, 12, eos_id=7))


@row("print_sampled_tokens")
def test_the_words_are_an_argument(capsys):
    print_sampled_tokens(torch.tensor([0.5, 0.5, 0.0]), ["ebb", "flow", "still"])
    assert re.findall(r"x (\w+)", capsys.readouterr().out) == ["ebb", "flow", "still"]


@row("plot_losses", "plot_values")
def test_plots_are_drawn_and_nothing_else(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("shown"))
    for plot in (plot_losses, plot_values):
        plot([0, 1], [0, 9], [2.0, 1.0], [3.0, 2.0])
        assert not list(tmp_path.iterdir())
    plot_losses([0, 1], [0, 9], [2.0, 1.0], [3.0, 2.0], path=tmp_path / "plot.png")
    assert (tmp_path / "plot.png").is_file()
    plt.close("all")


@row("assign")
def test_assign_fills_the_parameter_that_is_there():
    left = nn.Parameter(torch.zeros(2, 3))
    found = assign(left, np.ones((3, 2), dtype=np.float64).T)
    assert found is left and torch.equal(left, torch.ones(2, 3))
    assert left.is_contiguous() and left.dtype == torch.float32


@row("load_weights_into_gpt")
def test_both_ends_share_one_matrix(cfg):
    gpt = GPTModel(cfg | {"n_layers": 1, "qkv_bias": True})
    width = cfg["emb_dim"]

    def array(*shape):
        return np.ones(shape, dtype=np.float32)

    def linear(d_in, d_out):
        return {"w": array(d_in, d_out), "b": array(d_out)}

    norm = {"g": array(width), "b": array(width)}
    attn = {"c_attn": linear(width, 3 * width), "c_proj": linear(width, width)}
    mlp = {"c_fc": linear(width, 4 * width), "c_proj": linear(4 * width, width)}
    blocks = [{"attn": attn, "mlp": mlp, "ln_1": norm, "ln_2": norm}]
    tables = {"wte": array(50257, width), "wpe": array(cfg["context_length"], width)}
    load_weights_into_gpt(gpt, norm | tables | {"blocks": blocks})
    assert gpt.out_head.weight is gpt.tok_emb.weight
    gpt.out_head = nn.Linear(width, 2)
    assert gpt.tok_emb.weight.shape == (50257, width)


@row("download_file")
def test_a_failed_download_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr("support.download.fetch.pause", lambda seconds: None)
    with serving(monkeypatch), pytest.raises(FetchError):
        download_file(closed_url(), tmp_path / "model.bin")
    assert not (tmp_path / "model.bin").exists()
    (tmp_path / "model.bin").write_bytes(b"here already")
    download_file(closed_url(), tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == b"here already"


@row("KVCache")
def test_the_cache_is_allocated_once(model):
    cache = KVCache(model, batch_size=2, capacity=12)
    assert cache.store.shape == (2, 2, 2, 2, 12, 4)


@row("download_and_unzip_spam_data")
def test_another_collection_is_refused(tmp_path):
    path = tmp_path / "SMSSpamCollection.tsv"
    path.write_text("ham\tcut o", encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged"):
        download_and_unzip_spam_data("url", tmp_path / "a.zip", tmp_path, path)


@row("SpamDataset", "InstructionDataset")
def test_names_of_special_tokens_are_text(tokenizer):
    df = pd.DataFrame({"Label": [0], "Text": ["<|endoftext|>"]})
    entry = {"instruction": "Repeat.", "input": "", "output": "<|endoftext|>"}
    assert 50256 not in SpamDataset(df, tokenizer)[0][0]
    assert 50256 not in InstructionDataset([entry], tokenizer)[0]
    with pytest.raises(ValueError, match="empty"):
        SpamDataset(pd.DataFrame({"Label": [0], "Text": [""]}), tokenizer)


@row("Classifier", "classify_review")
def test_a_message_need_not_be_padded(two_way, tokenizer):
    ids = tokenizer.encode("WIN a boat")
    with torch.no_grad():
        logits = two_way.eval()(torch.tensor([ids]))[0, -1]
    expected = logits.softmax(-1)[1].item()
    found = spam_probability("WIN a boat", two_way, tokenizer, "cpu")
    assert found == pytest.approx(expected, abs=1e-6)
    said = classify_review("WIN a boat", two_way, tokenizer, "cpu")
    assert said == ("spam" if expected > 0.5 else "not spam")
    classifier = Classifier(two_way, 50256).eval()
    batch = torch.tensor([ids + [50256] * 3]), torch.tensor([ids])
    assert torch.allclose(*map(classifier, batch), atol=1e-5)


@row("train_classifier_simple")
def test_accuracies_are_of_whole_loaders(two_way, capsys):
    loader = [(torch.tensor([[i, 2]]), torch.tensor([i % 2])) for i in range(5)]
    for parameter in two_way.parameters():
        parameter.requires_grad = False
    two_way.out_head.requires_grad_(True)
    optimizer = torch.optim.AdamW(two_way.out_head.parameters(), lr=0.0)
    found = train_classifier_simple(two_way, loader, loader, optimizer, "cpu", 1, 9, 1)
    expected = calc_accuracy_loader(loader, two_way, "cpu")
    assert found[2] == found[3] == [expected] and 0 < expected < 1
    assert "loss" not in capsys.readouterr().out.lower()


@row("calc_accuracy_loader")
def test_an_empty_loader_has_no_accuracy(two_way):
    with pytest.raises(ValueError, match="empty"):
        calc_accuracy_loader([], two_way, "cpu")


@row("download_and_load_file")
def test_a_bad_entry_is_named(tmp_path):
    path = tmp_path / "data.json"
    path.write_text('[{"instruction": "Name a fish.", "input": ""}]', encoding="utf-8")
    with pytest.raises(ValueError, match="entry 0.*output"):
        download_and_load_file(path, "url")


@row("generate_model_scores", "query_model")
def test_each_entry_has_a_score(ollama):
    entry = {"instruction": "Name a fish.", "input": "", "output": "Cod."}
    data = [entry | {"answer": answer} for answer in ("Cod.", "", "Cow.")]
    ollama.replies += [message('{"score": 90}'), message('{"score": 0}')]
    assert generate_model_scores(data, "answer", url=ollama.url) == [90, 0, 0]
    assert all("format" in asked for asked in ollama.asked)
    ollama.replies += [message("ninety"), message('{"score": 7}')]
    scores = generate_model_scores(data, "answer", url=ollama.url)
    assert math.isnan(scores[0]) and scores[1:] == [0, 7]
    ollama.replies += [(404, {"error": "no such model"})]
    with pytest.raises(OllamaError, match="ollama pull"):
        query_model("Hello?", "llama4", ollama.url)


@row("LoRALayer")
def test_lora_begins_as_in_its_paper():
    layer = LoRALayer(in_dim=400, out_dim=3, rank=4, alpha=8)
    assert layer.A.abs().max().item() == pytest.approx(1 / 20, rel=0.02)
    nn.init.ones_(layer.B)
    x = torch.rand(1, 400)
    torch.testing.assert_close(layer(x), 8 / 4 * (x @ layer.A @ layer.B))
