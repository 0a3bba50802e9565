"""The key-value cache changes what is computed, and nothing of what comes out."""

import gc

import pytest
import torch

from ch04.gpt import GPTModel
from ch05.decoding import generate, uncached_logits
from ch05.kv_cache import (
    CachedLogits,
    KVCache,
    attend,
    forward_cached,
    pad_right,
    project,
)
from ch05.llama import LlamaModel
from tests.conftest import TINY

LLAMA = {key: TINY[key] for key in ("vocab_size", "context_length", "n_layers")}
LLAMA |= {"emb_dim": 24, "n_heads": 6, "n_kv_groups": 2, "hidden_dim": 32}
MODELS = {
    "GPT": lambda: GPTModel(TINY | {"qkv_bias": True}),
    "Llama": lambda: LlamaModel(LLAMA | {"rope_base": 100.0}),
}
UNEQUAL = [[5, 17, 80, 3, 66, 21], [42], [9, 8, 7]]


@pytest.fixture(params=MODELS)
def model(request):
    """A tiny model of each architecture, in float64, where ties do not happen."""
    torch.manual_seed(123)
    model = MODELS[request.param]().double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=float("scale" in name), std=0.3)  # biases too
    return model


def hidden_of(model, token_ids):
    """What the model's last norm gives, (b, num_tokens, emb_dim)."""
    caught = []
    hook = model.final_norm.register_forward_hook(lambda *args: caught.append(args[2]))
    model(token_ids)
    hook.remove()
    return caught[0]


@torch.no_grad()
def test_the_courses_models_use_the_cache(model):
    """Each step after the first computes one token for each prompt."""
    computed = []
    model.tok_emb.register_forward_hook(lambda *args: computed.append(args[1][0].shape))
    generate(model, UNEQUAL, 3, context_size=12)
    assert computed == [(3, 6), (3, 1), (3, 1)]


def test_pad_right_keeps_the_last_ids():
    idx, lengths = pad_right([[1, 2, 3, 4], [5], [6, 7]], context_size=3)
    assert idx.tolist() == [[2, 3, 4], [5, 0, 0], [6, 7, 0]]
    assert lengths.tolist() == [3, 1, 2]


@torch.no_grad()
def test_padding_on_the_right_changes_nothing_before_it(model):
    idx, lengths = pad_right(UNEQUAL, context_size=12)
    logits = model(idx)
    for row, length, found in zip(UNEQUAL, lengths, logits):
        expected = model(torch.tensor([row]))[0]
        torch.testing.assert_close(found[:length], expected)


@pytest.fixture
def x(model):
    """Seeded inputs of a block, (2, 7, emb_dim)."""
    generator = torch.Generator().manual_seed(123)
    size = 2, 7, model.tok_emb.embedding_dim
    return torch.randn(size, generator=generator, dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("num_tokens", [1, 2, 7])
def test_attention_without_a_mask_is_causal(model, x, num_tokens):
    """It is the model's own."""
    att, x = model.trf_blocks[0].att, x[:, :num_tokens]
    found = attend(att, *project(att, x, torch.arange(num_tokens)))
    torch.testing.assert_close(found, att(x))


@torch.no_grad()
def test_attention_with_a_mask_is_the_masks(model, x):
    """By hand, with every weight looked at: each row and query has its own mask."""
    att = model.trf_blocks[0].att
    queries, keys, values = project(att, x, torch.arange(7))
    mask = torch.rand(2, 1, 7, 7, generator=torch.Generator().manual_seed(1)) < 0.5
    mask |= torch.eye(7, dtype=torch.bool)
    assert mask.triu(1).any()  # a token may look ahead, if the mask says so
    times = queries.shape[1] // keys.shape[1]
    keys_of, values_of = (t.repeat_interleave(times, dim=1) for t in (keys, values))
    scores = queries @ keys_of.transpose(2, 3) / att.head_dim**0.5
    weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)
    expected = att.out_proj((weights @ values_of).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attend(att, queries, keys, values, mask), expected)


@torch.no_grad()
def test_one_query_without_a_mask_looks_at_all(model, x):
    att = model.trf_blocks[0].att
    queries, keys, values = project(att, x, torch.arange(7))
    found = attend(att, queries[:, :, -1:], keys, values)
    torch.testing.assert_close(found, att(x)[:, -1:])


@torch.no_grad()
def test_projected_heads_have_their_shapes_and_places(model, x):
    """Moved on by as many places, only rotated queries and keys change."""
    att = model.trf_blocks[0].att
    queries, keys, values = project(att, x, torch.arange(7))
    n_kv_heads = att.W_key.out_features // att.head_dim
    assert queries.shape == (2, x.shape[-1] // att.head_dim, 7, att.head_dim)
    assert keys.shape == values.shape == (2, n_kv_heads, 7, att.head_dim)
    moved = project(att, x, torch.arange(7) + 3)
    same = [torch.equal(a, b) for a, b in zip((queries, keys, values), moved)]
    assert same == [not hasattr(att, "rotate")] * 2 + [True]


@torch.no_grad()
@pytest.mark.parametrize("first", [1, 4, 10])
def test_hidden_states_equal_the_models(model, token_ids, first):
    """A prompt of `first` tokens at once, the rest one by one."""
    expected = hidden_of(model, token_ids)
    cache = KVCache(model, batch_size=2, capacity=10)
    positions = torch.arange(10)
    found = [forward_cached(model, token_ids[:, :first], positions[:first], cache)]
    for i in range(first, 10):
        new = slice(i, i + 1)
        found.append(forward_cached(model, token_ids[:, new], positions[new], cache))
    assert cache.num_tokens == 10
    torch.testing.assert_close(torch.cat(found, dim=1), expected)


@torch.no_grad()
def test_several_tokens_at_once_with_a_mask(model, token_ids):
    expected = hidden_of(model, token_ids)
    cache = KVCache(model, batch_size=2, capacity=10)
    positions = torch.arange(10)
    forward_cached(model, token_ids[:, :6], positions[:6], cache)
    mask = torch.ones(4, 10, dtype=torch.bool).tril(6)
    found = forward_cached(model, token_ids[:, 6:], positions[6:], cache, mask)
    torch.testing.assert_close(found, expected[:, 6:])


@pytest.mark.parametrize("num_new", [1, 2, 5, 8])
@pytest.mark.parametrize("num_before", [0, 1, 4])
def test_new_tokens_in_a_cache_see_what_came_before_them(
    tiny_model, num_before, num_new
):
    """As many at once as you like: the same as all together in an empty cache."""
    idx = torch.arange(2 * (num_before + num_new)).view(2, -1)
    positions = torch.arange(idx.shape[1])
    tiny_model.eval()
    whole = forward_cached(tiny_model, idx, positions, KVCache(tiny_model, 2, 12))
    cache = KVCache(tiny_model, 2, 12)
    if num_before:
        start = idx[:, :num_before], positions[:num_before]
        forward_cached(tiny_model, *start, cache)
    rest = idx[:, num_before:], positions[num_before:]
    found = forward_cached(tiny_model, *rest, cache)
    torch.testing.assert_close(found, whole[:, num_before:])


@torch.no_grad()
def test_a_mask_that_is_given_is_used(tiny_config):
    """It hides the first token, whose id then makes no difference."""
    torch.manual_seed(123)
    model = GPTModel(tiny_config | {"n_layers": 1}).eval()
    mask = torch.ones(3, 7, dtype=torch.bool).tril(4)
    positions = torch.arange(7)
    found = {}
    for is_hidden in (True, False):
        mask[:, 0] = not is_hidden
        for first in (3, 8):
            ids, cache = torch.tensor([[first, 5, 6, 7, 1, 2, 9]]), KVCache(model, 1, 7)
            forward_cached(model, ids[:, :4], positions[:4], cache)
            new = ids[:, 4:], positions[4:], cache, mask
            found[is_hidden, first] = forward_cached(model, *new)
    torch.testing.assert_close(found[True, 3], found[True, 8])
    assert not torch.allclose(found[False, 3], found[False, 8])


@torch.no_grad()
@pytest.mark.parametrize("capacity", [4, 8, 12])
def test_logits_equal_uncached_ones(model, capacity):
    """Also when the text outgrows the cache."""
    rows = [list(row) for row in UNEQUAL]
    next_logits = CachedLogits(model, len(rows), capacity)
    for _ in range(15):
        found, expected = next_logits(rows), uncached_logits(model, rows, capacity)
        torch.testing.assert_close(found, expected)
        assert next_logits.cache.num_tokens <= capacity
        for row, new_id in zip(rows, expected.argmax(dim=-1).tolist()):
            row.append(new_id)


@torch.no_grad()
def test_logits_equal_uncached_ones_on_each_device(tiny_model, device):
    tiny_model.to(device)
    rows = [list(row) for row in UNEQUAL]
    next_logits = CachedLogits(tiny_model, len(rows), 10)
    for _ in range(8):
        expected = uncached_logits(tiny_model, rows, 10)
        torch.testing.assert_close(next_logits(rows), expected, atol=1e-4, rtol=1e-4)
        for row in rows:
            row.append(len(row))


@pytest.mark.parametrize("context_size", [5, 12])
@pytest.mark.parametrize("max_new_tokens", [1, 4, 20])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_ids_equal_uncached_ones(model, context_size, max_new_tokens, penalty):
    found, expected = (
        generate(
            model,
            UNEQUAL,
            max_new_tokens,
            context_size,
            repetition_penalty=penalty,
            use_cache=use_cache,
        )
        for use_cache in (True, False)
    )
    assert found == expected
    assert [len(row) for row in found] == [len(row) + max_new_tokens for row in UNEQUAL]


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_batch_is_what_its_rows_are_alone(model, use_cache):
    settings = {"max_new_tokens": 15, "context_size": 12, "use_cache": use_cache}
    alone = [generate(model, [row], **settings)[0] for row in UNEQUAL]
    assert generate(model, UNEQUAL, **settings) == alone
    assert len({tuple(row[-9:]) for row in alone}) == 3  # three texts, not one


def test_rows_that_have_ended_do_not_disturb_the_others(model):
    """The longest prompt ends first; the others outgrow the cache."""
    settings = {"max_new_tokens": 20, "context_size": 12}
    endless = generate(model, UNEQUAL, **settings)
    for eos_id in {row[-1] for row in endless} | {endless[0][7]}:
        cut = [
            row[: row.index(eos_id, len(prompt))]
            if eos_id in row[len(prompt) :]
            else row
            for row, prompt in zip(endless, UNEQUAL)
        ]
        assert cut != endless
        for use_cache in (True, False):
            found = generate(
                model, UNEQUAL, **settings, eos_id=eos_id, use_cache=use_cache
            )
            assert found == cut


@torch.no_grad()
def test_the_cache_stays_where_it_was_allocated(model):
    next_logits = CachedLogits(model, 3, 8)
    start, nbytes = next_logits.cache.store.data_ptr(), next_logits.cache.store.nbytes
    rows = [list(row) for row in UNEQUAL]
    for _ in range(12):
        next_logits(rows)
        assert next_logits.cache.store.data_ptr() == start
        assert next_logits.cache.store.nbytes == nbytes
        for row in rows:
            row.append(1)


def test_the_cache_holds_keys_and_values_of_every_block(model):
    att = model.trf_blocks[0].att
    cache = KVCache(model, batch_size=3, capacity=7)
    width = att.W_key.out_features  # all heads of keys together
    layers = len(model.trf_blocks)
    assert cache.store.numel() == layers * 2 * 3 * 7 * width
    assert cache.store.dtype == att.W_key.weight.dtype


def test_appended_keys_and_values_come_back_with_those_before(model):
    cache = KVCache(model, batch_size=2, capacity=5)
    _, _, b, heads, _, head_dim = cache.store.shape
    generator = torch.Generator().manual_seed(123)
    keys, values = torch.randn(2, b, heads, 3, head_dim, generator=generator).double()
    cache.append(1, keys[:, :, :2], values[:, :, :2])
    cache.num_tokens = 2
    found = cache.append(1, keys[:, :, 2:], values[:, :, 2:])
    assert torch.equal(found[0], keys) and torch.equal(found[1], values)
    assert (
        found.untyped_storage().data_ptr() == cache.store.untyped_storage().data_ptr()
    )


def live_bytes():
    """Bytes of all tensors that Python holds, a shared storage counted once."""
    gc.collect()
    found = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter):
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


@torch.no_grad()
def test_no_second_copy_of_the_parameters(model):
    before = live_bytes()
    next_logits = CachedLogits(model, 1, 4)
    next_logits([[1, 2]])
    next_logits([[1, 2, 3]])
    parameters = sum(p.nbytes for p in model.parameters())
    added = live_bytes() - before - next_logits.cache.store.nbytes
    assert 0 <= added < 100 < parameters  # lengths and the like
