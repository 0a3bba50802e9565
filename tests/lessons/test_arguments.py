"""What a function accepts it obeys; everything else it refuses in a sentence.

Each table has a call for every function that takes an argument of a kind, and values
that it cannot mean. The sentence names the argument, or else shows the value.
"""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ch02.bpe import train_vocab
from ch02.dataset import GPTDatasetV1, create_dataloader_v1
from ch02.tokenizer import BPETokenizer
from ch03.attention import (
    CausalAttention,
    MultiHeadAttention,
    MultiHeadAttentionWrapper,
)
from ch04.gpt import GPT_CONFIG_124M, GPTModel, generate_text_simple
from ch05.decoding import (
    choose_next,
    generate,
    generate_stream,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    softmax_with_temperature,
)
from ch05.kv_cache import KVCache, forward_cached
from ch05.recipe import (
    ClippedGradients,
    StepBatches,
    find_highest_gradient,
    train_model,
)
from ch05.training import (
    create_train_val_loaders,
    train_model_simple,
    training_steps,
)
from ch06.bucketing import LengthBuckets, create_bucket_loader
from ch06.classifier import (
    Classifier,
    classify_review,
    create_feature_loader,
    create_token_loader,
    spam_probability,
    train_classifier_simple,
)
from ch07.finetuning import finetune
from ch07.instructions import InstructionDataset, custom_collate_fn
from ch07.lora import LinearWithLoRA, LoRALayer, replace_linear_with_lora
from support.apps.finetuning_plans import forecast_plans
from support.checks import check_number, check_whole, is_number, is_whole
from support.pretraining.memory import Workload, forecast_training

TEXT = "The tide comes in, and the tide goes out again. " * 30
BYTES = BPETokenizer.train("", 257)
NOT_WHOLE = [-1, 0, 1.5, True, math.nan, math.inf, "3", None]


def refuses(call, name, value):
    """True if a call raises a ValueError that names an argument and its value."""
    with pytest.raises(ValueError, match=re.escape(name)) as caught:
        call(value)
    assert "\n" not in str(caught.value)
    return str(value) in str(caught.value)


def calls(**table):
    """A parameter for each call of a table: {name: {function's name: call}}."""
    return [
        pytest.param(name, call, id=f"{name} of {function}")
        for name, functions in table.items()
        for function, call in functions.items()
    ]


@pytest.mark.parametrize("value", NOT_WHOLE)
def test_what_is_no_size_is_refused(value):
    assert not is_whole(value)
    assert refuses(lambda value: check_whole(top_k=value), "top_k is", value)


@pytest.mark.parametrize("value", [1, 7, np.int64(3), 10**30])
def test_whole_numbers_are_sizes(value):
    assert is_whole(value)
    check_whole(top_k=value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1, True, "0.5", None])
def test_what_is_no_share_is_refused(value):
    assert not is_number(value, 0, 1)
    share = {"train_ratio": value}
    with pytest.raises(ValueError, match="train_ratio is .* from 0 to 1"):
        check_number(0, 1, **share)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.25), 1e-320])
def test_numbers_are_shares(value):
    check_number(0, 1, train_ratio=value)


def attention(kind, **settings):
    sizes = {"d_in": 4, "d_out": 4, "context_length": 8, "dropout": 0.0}
    return kind(**sizes | settings)


def multi_head(**settings):
    return attention(MultiHeadAttention, **{"num_heads": 2} | settings)


SIZES = calls(
    vocab_size={
        "train_vocab": lambda n: train_vocab(TEXT, n, []),
        "BPETokenizer.train": lambda n: BPETokenizer.train(TEXT, n),
    },
    max_length={
        "GPTDatasetV1": lambda n: GPTDatasetV1(TEXT, BYTES, n, 1),
        "create_dataloader_v1": lambda n: create_dataloader_v1(
            TEXT, max_length=n, tokenizer=BYTES
        ),
    },
    stride={
        "GPTDatasetV1": lambda n: GPTDatasetV1(TEXT, BYTES, 4, n),
        "create_dataloader_v1": lambda n: create_dataloader_v1(
            TEXT, max_length=4, stride=n, tokenizer=BYTES
        ),
    },
    context_length={
        "CausalAttention": lambda n: attention(CausalAttention, context_length=n),
        "MultiHeadAttention": lambda n: multi_head(context_length=n),
        "MultiHeadAttentionWrapper": lambda n: attention(
            MultiHeadAttentionWrapper, context_length=n, num_heads=1
        ),
    },
    d_out={"MultiHeadAttention": lambda n: multi_head(d_out=n)},
    num_heads={
        "MultiHeadAttention": lambda n: multi_head(num_heads=n),
        "MultiHeadAttentionWrapper": lambda n: attention(
            MultiHeadAttentionWrapper, num_heads=n
        ),
    },
)


@pytest.mark.parametrize("value", [-1, 0, 1.5, True, math.nan])
@pytest.mark.parametrize(("name", "call"), SIZES)
def test_sizes(name, call, value):
    assert refuses(call, name, value)


@pytest.mark.parametrize("value", [-1, 0, 1.5])
def test_the_batch_size_of_a_loader_is_pytorchs_to_refuse(value):
    def load(size):
        return create_dataloader_v1(TEXT, size, 4, drop_last=False, tokenizer=BYTES)

    assert refuses(load, "batch_size", value)


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_dropout_is_pytorchs_to_refuse(rate):
    for kind in (CausalAttention, MultiHeadAttention):
        heads = {"num_heads": 2} if kind is MultiHeadAttention else {}
        assert refuses(
            lambda rate, kind=kind, heads=heads: attention(kind, dropout=rate, **heads),
            "dropout probability",
            rate,
        )


NOT_NAMES = ["<|x|>", "", ["<|x|>", "<|x|>"], ["<|x|>", ""], [""], [5], ("a", None)]


@pytest.mark.parametrize("names", NOT_NAMES)
@pytest.mark.parametrize(
    "call",
    [
        lambda names: train_vocab(TEXT, 300, names),
        lambda names: BPETokenizer.train(TEXT, 300, names),
        lambda names: BPETokenizer(BYTES.vocab, names),
    ],
    ids=["train_vocab", "BPETokenizer.train", "BPETokenizer"],
)
def test_special_tokens_are_different_names(call, names):
    assert refuses(call, "special_tokens is", names)


@pytest.mark.parametrize(
    ("special_tokens", "reason"),
    [
        (["<|x|>"], "must be a dict"),
        ({"<|x|>": 256, "<|y|>": 256}, "two tokens have the same id: give"),
        ({"<|x|>": 255}, "two tokens have the same id: give"),
    ],
)
def test_a_tokenizer_gives_each_token_its_own_id(special_tokens, reason):
    with pytest.raises(ValueError, match=reason):
        BPETokenizer(BYTES.vocab, special_tokens)


def test_special_tokens_are_allowed_by_name_or_all():
    tokenizer = BPETokenizer.train("", 258, ["<|x|>", "<|y|>"])
    text = "a<|x|><|y|>"
    assert tokenizer.encode(text, allowed_special="all") == [97, 256, 257]
    for names in ({"<|x|>"}, ["<|x|>"], ("<|x|>", "<|other|>"), {"<|x|>": 5}.keys()):
        assert tokenizer.encode(text, allowed_special=names)[:2] == [97, 256]
        assert 257 not in tokenizer.encode(text, allowed_special=names)
    for one in ("<|x|>", "none", "ALL"):
        assert refuses(lambda one: tokenizer.encode(text, one), "allowed_special", one)


@pytest.mark.parametrize("size", [0, -1, -3, 1.5, True, None])
def test_a_context_of_no_tokens_is_none(tiny_model, size):
    """The last 0 tokens, idx[:, -0:], would be all of them."""
    idx = torch.tensor([[1, 2, 3]])
    assert refuses(
        lambda size: generate_text_simple(tiny_model, idx, 2, size),
        "context_size",
        size,
    )


@pytest.mark.parametrize("number", [-1, 1.5, True, None])
def test_tokens_to_come_are_counted(tiny_model, number):
    idx = torch.tensor([[1, 2, 3]])
    assert refuses(
        lambda number: generate_text_simple(tiny_model, idx, number, 12),
        "max_new_tokens",
        number,
    )
    assert torch.equal(generate_text_simple(tiny_model, idx, 0, 12), idx)


def test_equal_logits_do_not_widen_top_k():
    """The first of equal ones are kept: with top_k=1, the one that argmax takes."""
    probas = torch.tensor([[0.1, 0.3, 0.1, 0.3, 0.1, 0.1], [1 / 6] * 6])
    kept = [[1], [1, 3], [0, 1, 3], [0, 1, 2, 3]]
    for top_k, first in enumerate(kept, 1):
        found = keep_top_k(probas, top_k)
        assert found[0].nonzero().flatten().tolist() == first
        assert found[1].nonzero().flatten().tolist() == [*range(top_k)]
        torch.testing.assert_close(found.sum(dim=-1), torch.ones(2))


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=40), st.integers(1, 50))
def test_top_k_keeps_k(logits, top_k):
    logits = torch.tensor(logits, dtype=torch.float32)
    kept = keep_top_k(logits.softmax(dim=-1), top_k) > 0
    assert kept.sum() == min(top_k, len(logits))
    if not kept.all():
        assert logits[kept].min() >= logits[~kept].max()
    assert keep_top_k(logits.softmax(dim=-1), 1).argmax() == logits.argmax()


@pytest.mark.parametrize("temperature", [5e-324, 1e-320, 1e-45, 1e-38, 1e-5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_smallest_temperatures_are_greedy(temperature, dtype):
    logits = torch.tensor([[1.0, 3.0, 2.0], [-5.0, -60.0, -5.5]], dtype=dtype)
    assert choose_next(logits, temperature).tolist() == [1, 0]
    expected = torch.eye(3, dtype=dtype)[[1, 0]]
    torch.testing.assert_close(softmax_with_temperature(logits, temperature), expected)


NOT_COUNTED = [-1, 1.5, True, math.nan, "3"]  # 0 and None may be meant
IDS = [[1, 2, 3], [4, 5]]
WRONG_SETTINGS = {
    "max_new_tokens": [*NOT_COUNTED, None],
    "context_size": [*NOT_COUNTED, 0, None, 13],
    "temperature": [-0.1, math.nan, math.inf, True, "1", None],
    "top_k": [*NOT_COUNTED, 0, math.inf],
    "top_p": [0, -0.1, 1.1, math.nan, True, "0.5", None],
    "repetition_penalty": [0, -1, math.nan, math.inf, 1e-320, 1e300, True, None],
    "eos_id": [[1], {1, 2}, (1,), "1", "<|endoftext|>", 1.0, True, -1]
    + [torch.tensor([1]), torch.tensor(1)],
}


@pytest.mark.parametrize("function", [generate, generate_stream])
@pytest.mark.parametrize(
    ("name", "value"), [(k, v) for k, values in WRONG_SETTINGS.items() for v in values]
)
def test_settings_of_decoding(tiny_model, function, name, value):
    settings = {"max_new_tokens": 2, "context_size": 12}
    assert refuses(
        lambda value: function(tiny_model, IDS, **settings | {name: value}), name, value
    )


@pytest.mark.parametrize(
    ("call", "name", "values"),
    [
        (softmax_with_temperature, "temperature", [0, *WRONG_SETTINGS["temperature"]]),
        (keep_top_k, "top_k", [*WRONG_SETTINGS["top_k"], None]),
        (keep_top_p, "top_p", WRONG_SETTINGS["top_p"]),
        (
            lambda logits, penalty: penalize_repetition(logits, [[0]], penalty),
            "repetition_penalty",
            [p for p in WRONG_SETTINGS["repetition_penalty"] if p is not True],
        ),
        (
            lambda logits, top_p: choose_next(logits, 1.0, top_p=top_p),
            "top_p",
            [p for p in WRONG_SETTINGS["top_p"] if p is not True],
        ),
        (
            lambda logits, top_k: choose_next(logits, 1.0, top_k),
            "top_k",
            WRONG_SETTINGS["top_k"],
        ),
    ],
)
def test_settings_of_the_parts_of_decoding(call, name, values):
    probas = torch.tensor([[0.5, 0.25, 0.25]])
    for value in values:
        assert refuses(lambda value: call(probas, value), name, value)


@pytest.mark.parametrize(
    "idx",
    ["text", ["text"], [1, 2], torch.tensor([1, 2]), [[1.5]], [["1"]], 5, [[None]]]
    + [torch.tensor([[0.5]]), torch.tensor(3), [[math.nan]], [[math.inf]], None],
)
def test_prompts_are_lists_of_ids(tiny_model, idx):
    with pytest.raises(ValueError, match="the prompts are not token ids: give"):
        generate(tiny_model, idx, 2, 12)


@pytest.mark.parametrize(
    "idx", [IDS, [np.array(row) for row in IDS], [torch.tensor(row) for row in IDS]]
)
def test_prompts_of_other_types_are_read(tiny_model, idx):
    assert generate(tiny_model, idx, 2, 12) == generate(tiny_model, IDS, 2, 12)


@pytest.mark.parametrize("capacity", [1, 3, 4])
def test_a_cache_that_is_full_takes_no_more(tiny_model, capacity):
    cache = KVCache(tiny_model, 1, capacity)
    ids, places = torch.ones(1, 12, dtype=torch.long), torch.arange(12)
    forward_cached(tiny_model, ids[:, :capacity], places[:capacity], cache)
    for num_more in (1, 2):
        rest = slice(capacity, capacity + num_more)
        with pytest.raises(ValueError, match=f"do not fit .* 1 rows of {capacity}"):
            forward_cached(tiny_model, ids[:, rest], places[rest], cache)


def test_a_cache_for_other_rows_takes_none(tiny_model):
    for batch_size, num_rows in ((2, 1), (1, 2), (3, 2)):
        cache = KVCache(tiny_model, batch_size, 4)
        ids = torch.ones(num_rows, 2, dtype=torch.long)
        with pytest.raises(ValueError, match=f"{num_rows} rows of 2 tokens do not fit"):
            forward_cached(tiny_model, ids, torch.arange(2), cache)


@pytest.mark.parametrize("value", NOT_WHOLE)
def test_a_cache_has_a_size(tiny_model, value):
    assert refuses(lambda n: KVCache(tiny_model, 1, n), "capacity", value)
    assert refuses(lambda n: KVCache(tiny_model, n, 4), "batch_size", value)


@pytest.mark.parametrize("ratio", [-0.1, 1.5, math.nan, math.inf, True, "0.9", None])
def test_a_share_of_a_text_is_one(ratio):
    def load(ratio):
        return create_train_val_loaders(TEXT, 4, train_ratio=ratio)

    assert refuses(load, "train_ratio", ratio)


class Unused(torch.nn.Linear):
    """A model that no training may reach."""

    def forward(self, *args):
        raise AssertionError("training has begun")


BATCHES = [(torch.ones(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.long))]


def run(loop, train_loader=BATCHES, num_epochs=1, **settings):
    """Call a training loop with a model that it must not get to."""
    model = Unused(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    settings = {"eval_freq": 1, "eval_iter": 1} | settings
    if loop is finetune:
        del settings["eval_iter"]
    if loop in (train_model_simple, train_model):
        settings |= {"start_context": "", "tokenizer": BYTES}
    if loop is train_model:
        settings["warmup_steps"] = 1
    if loop is training_steps:
        return [*loop(model, train_loader, optimizer, "cpu", num_epochs)]
    run = model, train_loader, BATCHES, optimizer, "cpu", num_epochs
    return loop(*run, **settings)


LOOPS = [training_steps, train_model_simple, train_model, train_classifier_simple]
LOOPS += [finetune]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_training_loop_is_told_what_can_be_meant(loop):
    for value in (-1, 1.5, True, math.nan, None):
        if loop is not train_model or isinstance(value, int):
            assert refuses(lambda n: run(loop, num_epochs=n), "num_epochs is", value)
    with pytest.raises(ValueError, match="the loader is empty: there is no batch"):
        run(loop, train_loader=[])
    names = ["eval_freq", "eval_iter"][: 2 if loop is not finetune else 1]
    for name in names if loop is not training_steps else ():
        for value in (-1, 0, 1.5, True, math.nan):
            assert refuses(
                lambda n, name=name: run(loop, **{name: n}), f"{name} is", value
            )


def test_no_epoch_is_no_training():
    assert run(train_model_simple, num_epochs=0) == ([], [], [])
    assert run(train_classifier_simple, num_epochs=0) == ([], [], [], [], 0)


@pytest.mark.parametrize("value", [-1, 0, 1.5, True])
def test_batches_and_parts_of_long_runs(value):
    assert refuses(lambda n: StepBatches(BATCHES, n, 5), "batch_size", value)
    assert refuses(ClippedGradients, "num_parts", value)
    if value is not True and value != 1.5:
        assert refuses(lambda n: ClippedGradients(max_norm=n), "max_norm", value)


@pytest.mark.parametrize("value", [-1, 0, 1.5, True, None])
def test_buckets_have_a_size(value):
    reason = f"3 texts cannot be put into batches of {value}"
    with pytest.raises(ValueError, match=reason):
        LengthBuckets([1, 2, 3], value)
    with pytest.raises(ValueError, match=reason):
        create_bucket_loader([(torch.ones(1), 0)] * 3, [1, 1, 1], value, 0)


@pytest.fixture
def classifier(tiny_model):
    torch.manual_seed(1)
    return Classifier(tiny_model, pad_token_id=7).eval()


def rows_of(*rows):
    """A batch of rows, filled up with the id 7."""
    tensors = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, True, 7)


def seeded_classifier(pad_token_id):
    """The same small classifier each time, but for the id of its padding."""
    torch.manual_seed(1)
    sizes = {"vocab_size": 20, "context_length": 12, "emb_dim": 8, "n_heads": 2}
    model = GPTModel(GPT_CONFIG_124M | sizes | {"n_layers": 2})
    return Classifier(model, pad_token_id).eval()


@given(st.lists(st.lists(st.integers(5, 9), max_size=9), min_size=1, max_size=4))
def test_the_pad_id_inside_a_message_is_a_token(rows):
    """Each row's answer is the one it has alone, without padding."""
    rows = [[*row, 1] for row in rows]
    classifier, alone = (seeded_classifier(pad_token_id) for pad_token_id in (7, 19))
    found = classifier(rows_of(*rows))
    expected = torch.cat([alone(torch.tensor([row])) for row in rows])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


class Ids:
    """A tokenizer for texts that are ids."""

    def encode_ordinary(self, text):
        return [int(word) for word in text.split()]


def test_a_message_that_ends_as_padding_does_is_refused(classifier):
    examples = [(torch.tensor([1, 2]), 0), (torch.tensor([1, 7]), 1)]
    calls = [
        lambda: create_token_loader(classifier, examples, 2),
        lambda: create_feature_loader(classifier, examples, 2, "cpu"),
        lambda: spam_probability("1 7", classifier, Ids(), "cpu"),
        lambda: spam_probability("1 7 2", classifier, Ids(), "cpu", max_length=2),
        lambda: classify_review("1 7", classifier, Ids(), "cpu"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="ends with pad_token_id 7, which"):
            call()
    for rows in (torch.full((2, 3), 7), rows_of([1], [7])):
        with pytest.raises(ValueError, match="a message is empty, or all of it"):
            classifier(rows)
    assert 0 < spam_probability("7 1 7 2", classifier, Ids(), "cpu") < 1


@pytest.mark.parametrize("value", [-1, 0, 1.5, True])
def test_sizes_of_a_classifier(tiny_model, classifier, value):
    def classify(n):
        return spam_probability("1 2", classifier, Ids(), "cpu", max_length=n)

    assert refuses(classify, "max_length", value)
    fresh = GPTModel(GPT_CONFIG_124M | {"vocab_size": 9, "emb_dim": 12, "n_layers": 2})
    for name in ("num_trained", "num_classes"):
        settings = {"pad_token_id": 0} | {name: value}
        assert refuses(lambda _, s=settings: Classifier(fresh, **s), name, value)


def test_a_model_is_made_a_classifier_once(tiny_model):
    Classifier(tiny_model, 7)
    with pytest.raises(
        ValueError, match="a Classifier already uses this model: load it again"
    ):
        Classifier(tiny_model, 7)


ENTRIES = [{"instruction": "Say a.", "input": "", "output": "a"}]


@pytest.mark.parametrize("value", [-1, 0, 1.5, True])
def test_lengths_of_instructions(value):
    assert refuses(
        lambda n: InstructionDataset(ENTRIES, BYTES, max_length=n), "max_length", value
    )
    assert refuses(
        lambda n: custom_collate_fn([[1, 2]], allowed_max_length=n),
        "allowed_max_length",
        value,
    )


def test_batches_of_instructions():
    with pytest.raises(ValueError, match="num_entries is 0"):
        custom_collate_fn([])
    for value in (-1, 1.5, True, None):
        assert refuses(
            lambda n: custom_collate_fn([[1, 2]], pad_token_id=n), "pad_token_id", value
        )
    for value in (0, 1, 50256):
        assert refuses(
            lambda n: custom_collate_fn([[1, 2]], ignore_index=n), "ignore_index", value
        )


@given(st.lists(st.lists(st.integers(0, 3), min_size=1), min_size=1, max_size=4))
def test_pad_ids_inside_an_answer_are_targets(rows):
    inputs, targets = custom_collate_fn(rows, pad_token_id=3)
    for row, target in zip(rows, targets.tolist()):
        assert [i for i in target if i != -100] == [*row[1:], 3]


def test_lora_is_told_what_can_be_meant():
    for value in (-1, 0, 1.5, True, math.nan, "4"):
        for call in (
            lambda n: LoRALayer(4, 4, n, 8),
            lambda n: LinearWithLoRA(torch.nn.Linear(4, 4), n, 8),
            lambda n: replace_linear_with_lora(
                torch.nn.Sequential(torch.nn.Linear(4, 4)), n, 8
            ),
        ):
            assert refuses(call, "the rank is", value)
    for value in (-1, 0, math.nan, math.inf, True, "4", None):
        assert refuses(lambda n: LoRALayer(4, 4, 2, n), "alpha is", value)


def test_a_model_without_gradients_has_no_highest_one():
    assert find_highest_gradient(torch.nn.Linear(2, 2)) is None


@pytest.mark.parametrize("value", [-1, 0, 1.5, True])
@pytest.mark.parametrize("name", ["batch_size", "num_tokens", "num_parts"])
def test_sizes_of_a_forecast(name, value):
    sizes = {"batch_size": 2, "num_tokens": 8, "dtype": torch.float32} | {name: value}
    assert refuses(lambda _: Workload(GPT_CONFIG_124M, **sizes), name, value)
    if name != "num_parts":
        sizes = {"num_targets": 4} | sizes
        assert refuses(lambda _: forecast_plans(GPT_CONFIG_124M, **sizes), name, value)


@pytest.mark.parametrize(("key", "size"), [("emb_dim", 12 * 10**9), ("batch", 10**12)])
def test_sizes_beyond_all_counting_are_one_sentence(key, size, capfd):
    cfg = GPT_CONFIG_124M | ({key: size} if key in GPT_CONFIG_124M else {})
    batch_size = size if key == "batch" else 2
    with pytest.raises(ValueError, match="tokens cannot be calculated"):
        forecast_training(Workload(cfg, batch_size, 1024, torch.float32))
    with pytest.raises(ValueError, match="tokens cannot be calculated"):
        forecast_plans(cfg, batch_size, 1024, num_targets=4)
    assert capfd.readouterr().err == ""
