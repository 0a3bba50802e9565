"""The parity check passes every right model and names the faults of wrong ones."""

import numpy as np
import pytest
import torch
from torch import nn

from ch04.gpt import GELU, GPT_CONFIG_124M, GPTModel, LayerNorm, TransformerBlock
from ch05.openai_weights import assign, copy_openai_weights, openai_layout
from support.weights.parity import (
    ParityError,
    check_logits,
    check_parameters,
    check_parity,
    fixed_logits,
    gpt_steps,
)
from support.weights.reference import TINY, openai_arrays, transformers_gpt2
from tests.low_precision import low_precision

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = GPT_CONFIG_124M | {"drop_rate": 0.0, "qkv_bias": True} | TINY | {"n_layers": 3}
SIZES = [
    {"n_layers": 1, "n_heads": 1},
    {},
    {"n_layers": 12, "n_heads": 16, "emb_dim": 64},
    {"vocab_size": 50257, "context_length": 9},
    {"n_layers": 48, "n_heads": 25, "emb_dim": 50},  # as deep as GPT-2 gets
]


@pytest.fixture(scope="module")
def arrays():
    """What a file of weights holds, by OpenAI's names."""
    return openai_arrays(transformers_gpt2(CONFIG))


@pytest.fixture(scope="module")
def steps(arrays):
    """What the file's weights compute."""
    return gpt_steps(arrays.__getitem__, CONFIG["n_layers"], CONFIG["n_heads"])


@pytest.fixture
def gpt(arrays):
    """A model that holds the file's weights, still right."""
    model = GPTModel(CONFIG).eval()
    copy_openai_weights(model, arrays.__getitem__)
    return model


def faults(model, steps):
    """The lines of the error that the parity check raises."""
    with pytest.raises(ParityError) as raised:
        check_parity(model, steps)
    first, *lines = str(raised.value).splitlines()
    assert first == "the loaded model is wrong:"
    return [line.strip() for line in lines]


@pytest.mark.parametrize(("seed", "size"), list(enumerate([*SIZES, {}, {}])))
def test_a_right_model_passes(seed, size):
    cfg = CONFIG | size
    arrays = openai_arrays(transformers_gpt2(cfg, seed))
    model = GPTModel(cfg).eval()
    copy_openai_weights(model, arrays.__getitem__)
    check_parity(model, gpt_steps(arrays.__getitem__, cfg["n_layers"], cfg["n_heads"]))


def test_a_right_model_passes_with_the_large_values_that_gpt2_has(arrays):
    """In GPT-2 a few features of the residual stream are in the thousands."""
    large = dict(arrays)
    for name in ("wpe", "h0/mlp/c_proj/b", "h1/mlp/c_proj/b"):
        large[name] = arrays[name].copy()
        large[name][..., 3] += 3000
    model = GPTModel(CONFIG).eval()
    copy_openai_weights(model, large.__getitem__)
    check_parity(
        model, gpt_steps(large.__getitem__, CONFIG["n_layers"], CONFIG["n_heads"])
    )


@pytest.mark.parametrize("factor", [1, 0.01])  # of the embeddings: epsilon shows
@torch.no_grad()
def test_the_second_computation_is_gpt2s(factor):
    reference = transformers_gpt2(CONFIG)
    reference.transformer.wte.weight.mul_(factor)
    reference.transformer.wpe.weight.mul_(factor)
    arrays = openai_arrays(reference)
    steps = gpt_steps(arrays.__getitem__, CONFIG["n_layers"], CONFIG["n_heads"])
    ids, logits = steps[""]
    expected = reference(torch.tensor(ids)[None]).logits[0].numpy()
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("is_right", [True, False])
def test_the_check_leaves_precision_and_threads_as_they_were(gpt, steps, is_right):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    torch.set_num_threads(2)  # the fixture one_thread puts it back
    try:
        if is_right:
            check_parity(gpt, steps)
        else:
            gpt.trf_blocks[1] = nn.Flatten()  # has no such parts: any error will do
            with pytest.raises(AttributeError):
                check_parity(gpt, steps)
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.get_num_threads() == 2
    finally:
        torch.set_float32_matmul_precision(before)


def test_what_a_reader_sets_does_not_make_a_right_model_wrong(
    gpt, steps, usual_precision
):
    with low_precision(), torch.autocast("cpu", torch.bfloat16):
        torch.set_float32_matmul_precision("medium")
        check_parity(gpt, steps)


# planted errors: what is done to a right model, and the one line that must come of it


def transpose(gpt):
    weight = gpt.trf_blocks[1].att.out_proj.weight
    weight.copy_(weight.T.clone())


def transpose_all_square_ones(gpt):
    """What a mapping does that forgets `.T`; only square matrices hide it."""
    for block in gpt.trf_blocks:
        weight = block.att.out_proj.weight
        weight.copy_(weight.T.clone())


def swap(first, second):
    for left, right in zip(first.parameters(), second.parameters()):
        kept = left.clone()
        left.copy_(right)
        right.copy_(kept)


def swap_queries_and_keys(gpt):
    swap(gpt.trf_blocks[2].att.W_query, gpt.trf_blocks[2].att.W_key)


def swap_the_layer_norms(gpt):
    swap(gpt.trf_blocks[0].norm1, gpt.trf_blocks[0].norm2)


def skip_a_norm(gpt):
    gpt.trf_blocks[1].norm2 = nn.Identity()


class BlockWithoutNorm(TransformerBlock):
    def forward(self, x):
        x = x + self.att(x)
        return x + self.ff(self.norm2(x))


class PostNormBlock(TransformerBlock):
    def forward(self, x):
        x = self.norm1(x + self.att(x))
        return self.norm2(x + self.ff(x))


class WithoutShortcut(TransformerBlock):
    def forward(self, x):
        return self.ff(self.norm2(self.att(self.norm1(x))))


class WithoutPositions(GPTModel):
    def forward(self, in_idx):
        x = self.trf_blocks(self.tok_emb(in_idx))
        return self.out_head(self.final_norm(x))


def omit_a_norm(gpt):
    gpt.trf_blocks[1].__class__ = BlockWithoutNorm


def normalize_last(gpt):
    gpt.trf_blocks[1].__class__ = PostNormBlock


def omit_the_shortcut(gpt):
    gpt.trf_blocks[0].__class__ = WithoutShortcut


def omit_positions(gpt):
    gpt.__class__ = WithoutPositions


def exact_gelu(gpt):
    gpt.trf_blocks[0].ff.layers[1] = nn.GELU()


def no_gelu(gpt):
    gpt.trf_blocks[0].ff.layers[1] = nn.Identity()


def other_epsilon(gpt):
    gpt.final_norm.eps = 0.1


def wrong_number_of_heads(gpt):
    gpt.trf_blocks[0].att.num_heads = 2
    gpt.trf_blocks[0].att.head_dim = 8


def scale_not_loaded(gpt):
    gpt.final_norm.scale.fill_(1)


def shift_not_loaded(gpt):
    gpt.trf_blocks[0].norm1.shift.zero_()


def bias_not_loaded(gpt):
    gpt.trf_blocks[2].ff.layers[2].bias.zero_()


def one_weight_changed(gpt):
    gpt.trf_blocks[2].ff.layers[0].weight[5, 5] += 1


def one_position_changed(gpt):
    gpt.pos_emb.weight[-1, 3] += 1


def untied_copy(gpt):
    gpt.out_head.weight = nn.Parameter(gpt.tok_emb.weight.clone())


def untied_and_random(gpt):
    gpt.out_head.weight = nn.Parameter(torch.randn_like(gpt.tok_emb.weight))


def not_a_number(gpt):
    gpt.pos_emb.weight[20, 3] = float("nan")


def infinite(gpt):
    gpt.tok_emb.weight[100, 0] = -float("inf")


def not_contiguous(gpt):
    """What `nn.Parameter(torch.tensor(array.T))` makes of a matrix."""
    layer = gpt.trf_blocks[0].att.W_key
    layer.weight = nn.Parameter(layer.weight.T.contiguous().T)


LEAVES_OUT = "has the right parts, but omits one or uses them in another order"
ELSE = "does not compute what the file's weights compute"
TIED = "out_head.weight is not tok_emb.weight, but GPT-2 uses one weight for both"
HOLDS = "holds the weights of trf_blocks"
UNCHANGED = "returns its input unchanged"
PLANTED = {
    transpose: ["trf_blocks.1.att.out_proj holds its matrix transposed"],
    transpose_all_square_ones: [
        f"trf_blocks.{i}.att.out_proj holds its matrix transposed" for i in range(3)
    ],
    swap_queries_and_keys: [
        f"trf_blocks.2.att.W_query {HOLDS}.2.att.W_key",
        f"trf_blocks.2.att.W_key {HOLDS}.2.att.W_query",
    ],
    swap_the_layer_norms: [f"trf_blocks.0.norm1 {ELSE}", f"trf_blocks.0.norm2 {ELSE}"],
    skip_a_norm: [f"trf_blocks.1.norm2 {UNCHANGED}"],
    omit_a_norm: [f"trf_blocks.1 {LEAVES_OUT}"],
    normalize_last: [f"trf_blocks.1 {LEAVES_OUT}"],
    omit_the_shortcut: [f"trf_blocks.0 {LEAVES_OUT}"],
    omit_positions: [f"the model {LEAVES_OUT}"],
    exact_gelu: [
        "trf_blocks.0.ff.layers.1 is the exact GELU, but GPT-2 was trained with the "
        "tanh formula"
    ],
    no_gelu: [f"trf_blocks.0.ff.layers.1 {UNCHANGED}"],
    other_epsilon: [f"final_norm {ELSE}"],
    wrong_number_of_heads: [f"trf_blocks.0.att {LEAVES_OUT}"],
    scale_not_loaded: [f"final_norm {ELSE}"],
    shift_not_loaded: [f"trf_blocks.0.norm1 {ELSE}"],
    bias_not_loaded: [f"trf_blocks.2.ff.layers.2 {ELSE}"],
    one_weight_changed: [f"trf_blocks.2.ff.layers.0 {ELSE}"],
    one_position_changed: [f"pos_emb {ELSE}"],
    untied_copy: [TIED],
    untied_and_random: [f"out_head {ELSE}", TIED],
    not_a_number: ["pos_emb.weight holds values that are not finite numbers"],
    infinite: ["tok_emb.weight holds values that are not finite numbers"],
    not_contiguous: ["trf_blocks.0.att.W_key.weight is not contiguous in memory"],
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
@torch.no_grad()
def test_a_planted_error_is_named(gpt, steps, plant):
    check_parity(gpt, steps)
    plant(gpt)
    assert faults(gpt, steps) == PLANTED[plant]


def test_two_errors_are_both_named(gpt, steps):
    with torch.no_grad():
        transpose(gpt)
        exact_gelu(gpt)
    assert faults(gpt, steps) == PLANTED[exact_gelu] + PLANTED[transpose]


def wrong_mapping(gpt, arrays):
    """Queries, keys and values in another order, matrices not transposed."""
    for name, parameters in openai_layout(gpt):
        parts = np.array_split(arrays[name], len(parameters), axis=-1)
        for parameter, part in zip(reversed(parameters), parts):
            fits = parameter.shape == part.shape
            assign(parameter, part if fits else part.T)


def test_a_wrong_mapping_is_named_in_every_layer(gpt, arrays, steps):
    wrong_mapping(gpt, arrays)
    said = "\n".join(faults(gpt, steps))
    for layer in range(3):
        for name in ("W_query", "W_key", "W_value", "out_proj"):
            assert f"trf_blocks.{layer}.att.{name} " in said
    assert "out_proj holds its matrix transposed" in said
    assert "norm" not in said and "ff" not in said  # what is right is not accused


def test_every_single_parameter_counts(arrays):
    """Add a little to any parameter, and the part that it belongs to is named."""
    gpt = GPTModel(CONFIG | {"n_layers": 1}).eval()
    copy_openai_weights(gpt, arrays.__getitem__)
    steps = gpt_steps(arrays.__getitem__, 1, CONFIG["n_heads"])
    for name, parameter in gpt.named_parameters():
        with torch.no_grad():
            first = parameter.view(-1)[:1]
            kept = first.clone()
            first += 0.5
            (fault,) = faults(gpt, steps)
            first.copy_(kept)
        part = name.rpartition(".")[0]
        if part == "tok_emb":  # row 0 is no token of the prompt: the output tells
            part = "out_head"
        assert fault.split()[0] == part
    check_parity(gpt, steps)


def test_our_parts_pass_where_torchs_fail(gpt, steps):
    """nn.LayerNorm is the same as ours, nn.GELU is not: the check knows."""
    reference = nn.LayerNorm(CONFIG["emb_dim"])
    with torch.no_grad():
        reference.weight.copy_(gpt.final_norm.scale)
        reference.bias.copy_(gpt.final_norm.shift)
    gpt.final_norm = reference
    gpt.trf_blocks[0].ff.layers[1] = nn.GELU(approximate="tanh")
    check_parity(gpt, steps)
    assert isinstance(gpt.trf_blocks[1].ff.layers[1], GELU)
    assert isinstance(gpt.trf_blocks[0].norm1, LayerNorm)


# the smaller checks


def test_check_parameters_passes_what_is_finite(gpt):
    with torch.no_grad():
        gpt.tok_emb.weight[0] = torch.finfo(torch.float32).max  # a sum would overflow
    check_parameters(gpt)


def test_fixed_logits_know_a_model_again(gpt):
    logits = fixed_logits(gpt)
    assert len(logits) == 8
    check_logits(gpt, logits)
    with torch.no_grad():
        gpt.trf_blocks[0].att.W_key.weight[0, 0] += 5
    with pytest.raises(ParityError, match="a fixed prompt gives the logits"):
        check_logits(gpt, logits)
    with torch.no_grad():
        gpt.tok_emb.weight[3] = float("nan")
    with pytest.raises(ParityError, match="a fixed prompt gives the logits"):
        check_logits(gpt, logits)
