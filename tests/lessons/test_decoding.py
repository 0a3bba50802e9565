"""Decoding chooses as transformers does; what cannot be meant is refused."""

from functools import partial

import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ch04.gpt import DummyGPTModel, GPTModel, TransformerBlock, generate_text_simple
from ch05 import decoding
from ch05.decoding import (
    TOY_VOCAB,
    choose_next,
    extend,
    generate,
    generate_stream,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    print_sampled_tokens,
    softmax_with_temperature,
    uncached_logits,
)
from tests.conftest import TINY
from tests.lessons.test_gpt import copy_from_transformers

TOY_LOGITS = torch.tensor([4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79])
CONTEXT = 32


@pytest.fixture
def logits():
    """Four rows of float64 logits over a vocabulary of 50."""
    generator = torch.Generator().manual_seed(123)
    return 3 * torch.randn(4, 50, generator=generator, dtype=torch.float64)


@pytest.fixture
def probas(logits):
    """The probabilities of these logits."""
    return logits.softmax(dim=-1)


@pytest.fixture(scope="module")
def twins():
    """A tiny GPT-2 of transformers and ours with its weights, in float64."""
    sizes = {"vocab_size": 101, "n_positions": CONTEXT, "n_embd": 16}
    ids = {"bos_token_id": None, "eos_token_id": None}
    torch.manual_seed(123)
    theirs = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=4, **sizes, **ids))
    theirs = theirs.double().eval()
    cfg = {"vocab_size": 101, "context_length": CONTEXT, "emb_dim": 16}
    cfg |= {"n_layers": 2, "n_heads": 4, "drop_rate": 0.1, "qkv_bias": True}
    ours = GPTModel(cfg).double().eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            is_scale = "ln_" in name and name.endswith("weight")
            parameter.normal_(mean=float(is_scale), std=0.3)  # biases too
        copy_from_transformers(ours, theirs)
    return ours, theirs


@pytest.mark.parametrize("temperature", [0.01, 0.5, 1, 3, 1000])
def test_probabilities_sum_to_1(logits, temperature):
    sums = softmax_with_temperature(logits, temperature).sum(dim=-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_temperature_1_is_the_softmax(logits, probas):
    torch.testing.assert_close(softmax_with_temperature(logits, 1), probas)
    alone = softmax_with_temperature(logits[0], 1)
    torch.testing.assert_close(alone, probas[0])


def test_temperatures_sharpen_and_flatten(logits):
    def entropy(temperature):
        return torch.special.entr(softmax_with_temperature(logits, temperature)).sum(-1)

    spread = torch.stack([entropy(t) for t in (0.1, 0.5, 1, 2, 10)])
    assert (spread.diff(dim=0) > 0).all()


@pytest.mark.parametrize("scale", [1, 1e9])
@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-300])
def test_near_0_the_likeliest_takes_all(logits, temperature, scale):
    found = softmax_with_temperature((scale * logits).float(), temperature)
    expected = torch.nn.functional.one_hot(logits.argmax(dim=-1), 50).float()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [0, -1, float("nan")])
def test_no_distribution_at_temperature_0_or_below(logits, temperature):
    with pytest.raises(ValueError, match=f"above 0 here, not {temperature}"):
        softmax_with_temperature(logits, temperature)


def test_sampled_tokens_are_counted_as_in_the_book(capsys):
    print_sampled_tokens(TOY_LOGITS.softmax(dim=-1))
    counts, words = zip(
        *(line.split(" x ") for line in capsys.readouterr().out.splitlines())
    )
    assert list(words) == TOY_VOCAB
    assert [int(count) for count in counts] == [73, 0, 0, 582, 2, 0, 0, 343, 0]


def test_sampled_tokens_come_as_often_as_they_should(capsys):
    print_sampled_tokens(torch.tensor([0.2, 0.0, 0.8]), vocab=["a", "b", "c"])
    lines = capsys.readouterr().out.splitlines()
    a, b, c = (int(line.split()[0]) for line in lines)
    assert a + b + c == 1000 and b == 0
    assert abs(a - 200) < 4 * (1000 * 0.2 * 0.8) ** 0.5  # four standard deviations


def warped(logits, *warpers):
    """Probabilities after transformers' processors."""
    for warper in warpers:
        logits = warper(None, logits)
    return logits.softmax(dim=-1)


@pytest.mark.parametrize("top_k", [1, 2, 7, 49, 50, 1000])
def test_top_k_equals_transformers(logits, probas, top_k):
    expected = warped(logits, TopKLogitsWarper(top_k))
    torch.testing.assert_close(keep_top_k(probas, top_k), expected)
    assert ((keep_top_k(probas, top_k) > 0).sum(dim=-1) == min(top_k, 50)).all()


@pytest.mark.parametrize("top_p", [1e-6, 0.1, 0.5, 0.9, 0.99])
def test_top_p_equals_transformers(logits, probas, top_p):
    expected = warped(logits, TopPLogitsWarper(top_p))
    torch.testing.assert_close(keep_top_p(probas, top_p), expected)


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.99])
def test_top_p_keeps_the_fewest_that_reach_it(probas, top_p):
    kept = keep_top_p(probas, top_p) > 0
    mass = (probas * kept).sum(dim=-1)
    least = probas.masked_fill(~kept, 1).min(dim=-1).values
    assert (mass >= top_p).all()
    assert (mass - least < top_p).all()


def test_top_p_by_hand():
    probas = torch.tensor([0.125, 0.5, 0.0625, 0.25, 0.0625])
    torch.testing.assert_close(keep_top_p(probas, 0.5), torch.eye(5)[1])
    expected = torch.tensor([0, 2 / 3, 0, 1 / 3, 0])
    torch.testing.assert_close(keep_top_p(probas, 0.6), expected)


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3, 10.0])
def test_penalty_equals_transformers(logits, penalty):
    rows = torch.randint(50, (4, 8), generator=torch.Generator().manual_seed(1))
    before = logits.clone()
    found = penalize_repetition(logits, rows.tolist(), penalty)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(rows, logits)
    torch.testing.assert_close(found, expected)
    assert torch.equal(logits, before)


def test_penalty_by_hand():
    found = penalize_repetition(torch.tensor([[3.0, -1.0, 2.0]]), [[0, 1, 1]], 2)
    assert found.tolist() == [[1.5, -2.0, 2.0]]


@pytest.mark.parametrize("seed", range(10))
def test_all_settings_together_equal_transformers(logits, seed):
    """Temperature, then top-k, then top-p, as in transformers' generate."""
    warpers = TemperatureLogitsWarper(1.7), TopKLogitsWarper(12), TopPLogitsWarper(0.8)
    probas = warped(logits, *warpers)
    assert ((probas > 0).sum(dim=-1) < 12).any()  # both settings cut something
    expected = probas.multinomial(
        1, generator=torch.Generator().manual_seed(seed)
    ).squeeze(-1)
    settings = {"temperature": 1.7, "top_k": 12, "top_p": 0.8}
    generator = torch.Generator().manual_seed(seed)
    assert torch.equal(choose_next(logits, **settings, generator=generator), expected)


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 5, "top_k": 1}, {"temperature": 5, "top_p": 1e-9}],
    ids=["temperature 0", "top_k 1", "top_p near 0"],
)
def test_three_ways_to_take_the_likeliest(logits, settings):
    assert torch.equal(choose_next(logits, **settings), logits.argmax(dim=-1))


def test_neutral_settings_change_nothing(logits):
    torch.manual_seed(123)
    plain = choose_next(logits, temperature=1.0)
    torch.manual_seed(123)
    assert torch.equal(choose_next(logits, 1.0, top_k=50, top_p=1.0), plain)


def test_a_choice_can_be_made_on_each_device(logits, device):
    logits = logits.float().to(device)
    generator = torch.Generator(device).manual_seed(123)
    found = choose_next(logits, 1.0, top_k=5, top_p=0.9, generator=generator)
    top = logits.topk(5).indices
    assert found.shape == (4,)
    assert (top == found[:, None]).any(dim=-1).all()


@pytest.mark.parametrize("values", [["nan"], ["inf"], ["-inf"], ["inf", "-inf"]])
@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_no_numbers_are_refused(logits, values, temperature):
    for place, value in enumerate(values):
        logits[2, 7 + place] = float(value)
    with pytest.raises(FloatingPointError, match="not finite"):
        choose_next(logits, temperature)


def test_large_logits_of_small_types_are_numbers():
    logits = torch.full((1, 50_257), 30_000.0, dtype=torch.float16)  # their sum is not
    logits[0, 7] = 40_000
    assert choose_next(logits).tolist() == [7]


def test_a_broken_model_is_noticed(tiny_model, token_ids):
    with torch.no_grad():
        tiny_model.final_norm.scale[0] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite"):
        generate(tiny_model, token_ids, 1, context_size=12)


def test_greedy_is_generate_text_simple(tiny_model, token_ids):
    """Beyond the context of 12 tokens too."""
    expected = generate_text_simple(tiny_model, token_ids, 8, context_size=12)
    assert torch.equal(generate(tiny_model, token_ids, 8, context_size=12), expected)


def settings_of_transformers(settings):
    """Our settings as those of transformers' generate, which is greedy without any."""
    draws = settings.get("temperature", 0) > 0
    return {"do_sample": draws, "top_k": None if draws else 50} | settings


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"repetition_penalty": 1.5},
        {"temperature": 0.9},
        {"temperature": 1.4, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.2},
    ],
    ids=["greedy", "penalty", "drawn", "all"],
)
@pytest.mark.parametrize("use_cache", [True, False])
def test_ids_equal_transformers(twins, settings, use_cache):
    ours, theirs = twins
    prompts = torch.tensor([[1, 2, 3, 4], [50, 40, 30, 20], [7, 7, 7, 7]])
    torch.manual_seed(123)
    expected = theirs.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=CONTEXT - 4,
        pad_token_id=0,
        **settings_of_transformers(settings),
    )
    torch.manual_seed(123)
    found = generate(
        ours, prompts, CONTEXT - 4, CONTEXT, use_cache=use_cache, **settings
    )
    assert torch.equal(found, expected)
    assert len(set(map(tuple, found[:, 4:].tolist()))) == 3  # three texts, not one


def end_after(rows, prompt_length):
    """An id that ends the first of greedy continuations early, the others not."""
    new = [row[prompt_length:] for row in rows]
    for eos_id in new[0][2:]:
        if new[0].index(eos_id) >= 2 and all(eos_id not in other for other in new[1:]):
            return eos_id
    raise AssertionError("these rows have no such id")


def test_rows_end_at_their_eos_as_in_transformers(twins):
    ours, theirs = twins
    prompts = torch.tensor([[1, 2, 3, 4], [50, 40, 30, 20]])
    endless = generate(ours, prompts, 20, CONTEXT).tolist()
    eos_id = end_after(endless, 4)
    rows = generate(ours, prompts.tolist(), 20, CONTEXT, eos_id=eos_id)
    assert rows == [endless[0][: endless[0].index(eos_id)], endless[1]]
    padded = generate(ours, prompts, 20, CONTEXT, eos_id=eos_id)
    expected = theirs.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=20,
        do_sample=False,
        eos_token_id=eos_id,
        pad_token_id=eos_id,
    )
    assert torch.equal(padded, expected)
    assert padded[0, len(rows[0]) :].tolist() == [eos_id] * (24 - len(rows[0]))


def test_when_all_have_ended_it_stops(twins):
    ours, _ = twins
    prompt = [[1, 2, 3, 4]]
    first, second = generate(ours, prompt, 2, CONTEXT)[0][4:]
    assert first != second
    assert generate(ours, prompt, 20, CONTEXT, eos_id=first) == prompt
    asked = torch.tensor(prompt)
    assert torch.equal(generate(ours, asked, 20, CONTEXT, eos_id=first), asked)
    assert generate(ours, prompt, 20, CONTEXT, eos_id=second) == [[*prompt[0], first]]
    stream = generate_stream(ours, prompt, 20, CONTEXT, eos_id=second)
    assert list(stream) == [[first]]


def test_an_eos_in_the_prompt_ends_nothing(twins):
    ours, _ = twins
    endless = generate(ours, [[9, 2, 3]], 5, CONTEXT)
    assert 9 not in endless[0][3:]
    assert generate(ours, [[9, 2, 3]], 5, CONTEXT, eos_id=9) == endless


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_the_stream_yields_what_generate_appends(twins, temperature):
    ours, _ = twins
    prompts = [[1, 2, 3, 4], [50, 40], [9]]
    settings = {"temperature": temperature, "top_k": 30}
    endless = generate(ours, [prompts[0]], 20, CONTEXT)[0]
    settings["eos_id"] = endless[7]
    torch.manual_seed(123)
    expected = generate(ours, prompts, 20, CONTEXT, **settings)
    torch.manual_seed(123)
    rows = [list(prompt) for prompt in prompts]
    for new_ids in generate_stream(ours, rows, 20, CONTEXT, **settings):
        assert len(new_ids) == 3 and any(i is not None for i in new_ids)
        extend(rows, new_ids)
    assert rows == expected
    assert len(set(map(len, rows))) > 1


def test_the_stream_computes_only_what_is_asked_for(tiny_model):
    calls = []
    tiny_model.final_norm.register_forward_hook(lambda *args: calls.append(1))
    stream = generate_stream(tiny_model, [[1, 2, 3]], 8, context_size=12)
    assert not calls
    next(stream)
    next(stream)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("name", "value"), [("idx", [[101]]), ("context_size", 13), ("top_k", 0)]
)
def test_the_stream_refuses_at_the_call(tiny_model, name, value):
    """Not only when the first step is asked for."""
    settings = {"idx": [[1]], "max_new_tokens": 3, "context_size": 12} | {name: value}
    with pytest.raises(ValueError):
        generate_stream(tiny_model, **settings)


class Counting(nn.Module):
    """Scores highest the id after each; it has no parameters at all."""

    def forward(self, ids):
        return nn.functional.one_hot((ids + 1) % 20, 20).float()


class Upside(GPTModel):
    """Likes best what a GPT likes least."""

    def forward(self, in_idx):
        return -super().forward(in_idx)


class PostNorm(TransformerBlock):
    """Normalizes after each sum (exercise 4.5.3)."""

    def forward(self, x):
        x = self.norm1(x + self.att(x))
        return self.norm2(x + self.ff(x))


def with_post_norm():
    """A GPT in which one block is of another kind."""
    model = GPTModel(TINY)
    model.trf_blocks[1] = PostNorm(TINY)
    return model


MODULES = {
    "GPT": lambda: GPTModel(TINY),
    "dummy": lambda: DummyGPTModel(TINY),
    "two layers": lambda: nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20)),
    "without parameters": Counting,
    "a subclass": lambda: Upside(TINY),
    "another block": with_post_norm,
    "compiled": lambda: torch.compile(GPTModel(TINY), backend="eager"),
}


@pytest.mark.parametrize("name", MODULES)
def test_any_module_writes(name):
    """Each text is what its module's own logits say, whatever it is made of."""
    torch.manual_seed(123)
    model = MODULES[name]().eval()
    idx = torch.tensor([[1, 2, 3], [7, 5, 0]])
    found = generate(model, idx, max_new_tokens=6, context_size=8)
    assert torch.equal(found, generate_text_simple(model, idx, 6, 8))
    rows = generate(model, [[4], [1, 2, 3]], 6, context_size=8)
    for row, length in zip(rows, (1, 3)):
        alone = torch.tensor([row[:length]])
        assert [row] == generate_text_simple(model, alone, 6, 8).tolist()


def test_ids_that_a_module_cannot_mean(tiny_model):
    """It need not say how many it knows; none are negative."""
    with pytest.raises(ValueError, match="go from -1 to 2"):
        generate(Counting(), [[2, -1]], 3, context_size=8)
    with pytest.raises(
        ValueError, match="context_size is 0; this model takes 1 to inf"
    ):
        generate(Counting(), [[2]], 3, context_size=0)
    assert generate(Counting(), [[2]], 3, context_size=10**6) == [[2, 3, 4, 5]]


def test_extend_appends_in_place_and_skips_what_has_ended():
    rows = [[1, 2], [3], []]
    extend(rows, [7, None, 9])
    assert rows == [[1, 2, 7], [3], [9]]


@pytest.mark.parametrize("as_tensor", [True, False])
def test_what_went_in_stays_and_comes_out_in_kind(tiny_model, as_tensor):
    prompts = torch.tensor([[1, 2, 3], [4, 5, 6]])
    given = prompts if as_tensor else prompts.tolist()
    found = generate(tiny_model, given, 4, context_size=12)
    assert torch.equal(prompts, torch.tensor([[1, 2, 3], [4, 5, 6]]))
    assert torch.is_tensor(found) == as_tensor
    found = torch.as_tensor(found)
    assert found.shape == (2, 7) and torch.equal(found[:, :3], prompts)


def test_rows_of_tensors_will_do_too(tiny_model):
    expected = generate(tiny_model, [[1, 2, 3], [4]], 4, context_size=12)
    prompts = [torch.tensor([1, 2, 3]), torch.tensor([4])]
    assert generate(tiny_model, prompts, 4, context_size=12) == expected


@pytest.mark.parametrize("use_cache", [True, False])
def test_no_new_tokens_are_no_new_tokens(tiny_model, token_ids, use_cache):
    found = generate(tiny_model, token_ids, 0, context_size=12, use_cache=use_cache)
    assert torch.equal(found, token_ids)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_long_prompt_is_cropped_to_its_end(tiny_model, token_ids, use_cache):
    settings = {"context_size": 6, "use_cache": use_cache}
    full = generate(tiny_model, token_ids, 5, **settings)
    cropped = generate(tiny_model, token_ids[:, -6:], 5, **settings)
    assert torch.equal(full[:, :10], token_ids)
    assert torch.equal(full[:, 10:], cropped[:, 6:])


@pytest.mark.parametrize("use_cache", [True, False])
def test_same_generator_same_ids_and_nothing_global_is_drawn(tiny_model, use_cache):
    def drawn(seed):
        return generate(
            tiny_model,
            [[1, 2], [3]],
            8,
            context_size=12,
            temperature=2.0,
            use_cache=use_cache,
            generator=torch.Generator().manual_seed(seed),
        )

    before = torch.get_rng_state()
    assert drawn(1) == drawn(1)
    assert len({str(drawn(seed)) for seed in range(8)}) > 1
    assert torch.equal(torch.get_rng_state(), before)


def test_greedy_draws_nothing(tiny_model, token_ids):
    before = torch.get_rng_state()
    generate(tiny_model.train(), token_ids, 4, context_size=12)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_restored(
    tiny_config, token_ids, training, use_cache
):
    torch.manual_seed(123)
    model = GPTModel(tiny_config | {"drop_rate": 0.5}).eval()
    expected = generate_text_simple(model, token_ids, 6, context_size=12)
    model.train(training)
    stream = generate_stream(model, token_ids, 6, 12, use_cache=use_cache)
    rows = token_ids.tolist()
    for new_ids in stream:
        assert {module.training for module in model.modules()} == {training}
        extend(rows, new_ids)
    assert torch.equal(torch.tensor(rows), expected)


@pytest.mark.parametrize("use_cache", [True, False])
def test_no_gradients_inside_and_as_before_outside(tiny_model, use_cache):
    seen = []
    tiny_model.final_norm.register_forward_hook(
        lambda module, args, output: seen.append(output.requires_grad)
    )
    for _ in generate_stream(tiny_model, [[1, 2]], 3, 12, use_cache=use_cache):
        assert torch.is_grad_enabled()
    assert seen == [False] * 3


def test_uncached_logits_are_the_models_last(tiny_model):
    rows = [[1, 2, 3], [4], list(range(20))]
    with torch.no_grad():
        found = uncached_logits(tiny_model, rows, context_size=12)
        for row, logits in zip(rows, found):
            expected = tiny_model(torch.tensor([row[-12:]]))[0, -1]
            torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "a prompt is empty"),
        ([[]], "a prompt is empty"),
        ([[1], []], "a prompt is empty"),
        (torch.zeros(0, 3, dtype=torch.long), "a prompt is empty"),
        (torch.zeros(1, 0, dtype=torch.long), "a prompt is empty"),
        ([[1, 2], [3, 101]], "go from 1 to 101, but the model knows only 0 to 100"),
        ([[1, 2], [3, 999]], "go from 1 to 999, but the model knows only 0 to 100"),
        (torch.tensor([[-1, 5]]), "go from -1 to 5,.*use the model's own tokenizer"),
    ],
)
@pytest.mark.parametrize("use_cache", [True, False])
def test_prompts_that_cannot_be_meant(tiny_model, prompts, message, use_cache):
    with pytest.raises(ValueError, match=message):
        generate(tiny_model, prompts, 3, context_size=12, use_cache=use_cache)


@pytest.mark.parametrize("context_size", [13, 0, -1])
def test_a_context_that_the_model_does_not_have(tiny_model, context_size):
    with pytest.raises(ValueError, match=f"is {context_size}; .*takes 1 to 12 tokens"):
        generate(tiny_model, [[1]], 3, context_size)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", -1),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_k", 0),
        ("top_k", -5),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_p", float("nan")),
        ("repetition_penalty", 0),
        ("repetition_penalty", -1),
    ],
)
def test_settings_that_cannot_be_meant(tiny_model, name, value):
    settings = {"max_new_tokens": 3} | {name: value}
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be"):
        generate(tiny_model, [[1]], context_size=12, **settings)


def test_the_cache_has_room_for_the_text_and_no_more(tiny_model, monkeypatch):
    capacities = []

    def without_cache(model, num_rows, capacity):
        capacities.append(capacity)
        return partial(decoding.uncached_logits, model, context_size=12)

    monkeypatch.setattr(decoding, "CachedLogits", without_cache)
    for max_new_tokens in (0, 1, 5, 100):
        list(generate_stream(tiny_model, [[1, 2], [3, 4, 5]], max_new_tokens, 12))
    assert capacities == [3, 4, 8, 12]
