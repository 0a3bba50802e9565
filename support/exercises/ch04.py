"""Checkers of chapter 4's exercises.

Looking in here spoils the exercises.
"""

import copy
import math
from functools import partial
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import nn

from ch02.tokenizer import get_tokenizer
from ch04.gpt import (
    GPT_CONFIG_124M,
    ExampleDeepNeuralNetwork,
    GPTModel,
    TransformerBlock,
    check_config,
    generate_text_simple,
)
from support.download.texts import load_text
from support.exercises.checking import (
    NotYet,
    Refusing,
    as_number,
    as_tensor,
    as_whole_number,
    as_whole_numbers,
    exercise,
    is_count,
    is_near,
    require,
    require_function,
    require_kind,
    require_learning,
)


def require_class_of_modules(answer, name):
    """Raise NotYet unless the answer is a class of PyTorch modules."""
    is_class = isinstance(answer, type) and issubclass(answer, nn.Module)
    reason = f"it should be the class {name}(nn.Module) itself, not an object of it"
    require(is_class, reason)


def require_input_parts(module, cfg):
    """Raise NotYet unless a module has the two tables and the dropout of cfg."""
    for name, rows in (("tok_emb", "vocab_size"), ("pos_emb", "context_length")):
        table = getattr(module, name, None)
        require(isinstance(table, nn.Embedding), f"self.{name} is no nn.Embedding")
        shape, wanted = tuple(table.weight.shape), (cfg[rows], cfg["emb_dim"])
        reason = f"self.{name} has the shape {shape}. For this cfg it should have "
        reason += f'{wanted}: a row for each of cfg["{rows}"], and cfg["emb_dim"] '
        require(shape == wanted, f"{reason}columns")
    dropout = getattr(module, "drop_emb", None)
    require(isinstance(dropout, nn.Dropout), "self.drop_emb is no nn.Dropout")
    reason = f"self.drop_emb has the rate {dropout.p}, and cfg the drop_rate "
    require(dropout.p == cfg["drop_rate"], f"{reason}{cfg['drop_rate']}")


def compare_with_sum(found, tok_emb, pos_emb, ids, after=lambda x: x):
    """Raise NotYet, with the likely mistake, unless found is after(the sum)."""
    num_tokens = ids.shape[1]
    tokens, positions = tok_emb.weight[ids], pos_emb.weight[:num_tokens]
    right = after(tokens + positions)
    if found.shape == right.shape and is_near(found, right, 1e-4):
        return
    for wrong, reason in (
        (tokens, "the vectors of the positions are missing"),
        (positions.expand_as(tokens), "the vectors of the tokens are missing"),
        (
            tokens + pos_emb.weight[ids],
            "the positions are looked up by token ids: use torch.arange(num_tokens)",
        ),
        (
            tokens + pos_emb.weight.roll(-1, dims=0)[:num_tokens],
            "the positions begin with 1: the first token has position 0",
        ),
        (tokens * positions, "the two vectors are multiplied: add them"),
        ((tokens + positions) / 2, "it is the mean of the two vectors, not the sum"),
    ):
        wrong = after(wrong)
        is_it = found.shape == wrong.shape and is_near(found, wrong, 1e-4)
        require(not is_it, reason)


def run_on_ids(module, ids):
    """module(ids), where an error says what does not fit."""
    try:
        return module(ids)
    except (RuntimeError, IndexError) as error:
        reason = f"for ids of shape {tuple(ids.shape)} it raises: {error}. It should "
        reason += "use as many positions as there are tokens in a text, in_idx.shape[1]"
        raise NotYet(reason) from None


LITTLE = GPT_CONFIG_124M | {
    "vocab_size": 30,
    "context_length": 9,
    "emb_dim": 6,
    "n_heads": 2,
    "n_layers": 3,
    "drop_rate": 0.5,
}
SHAPES_OF_IDS = (2, 4), (1, 9), (3, 1), (4, 4)


@exercise(
    "4.1.a",
    "write, 6 minutes, ••",
    "self.drop_emb(self.tok_emb(in_idx) + self.pos_emb(torch.arange(...))).",
)
def gpt_input(answer):
    """The class GPTInput: token plus position vectors, and dropout."""
    require_class_of_modules(answer, "GPTInput")
    for shape in SHAPES_OF_IDS:
        module = answer(LITTLE)
        require_input_parts(module, LITTLE)
        module.eval()
        ids = torch.randint(9, shape)  # they are positions, too
        output = run_on_ids(module, ids)
        found = as_tensor(output)
        again = is_near(found, as_tensor(module(ids)))
        require(again, "after eval() it still drops numbers: use self.drop_emb")
        compare_with_sum(found, module.tok_emb, module.pos_emb, ids)
        right = module.tok_emb(ids) + module.pos_emb.weight[: shape[1]]
        reason = "it is not the vectors of the tokens plus those of the positions"
        require(is_near(as_tensor(output, tuple(right.shape)), right), reason)
        require_learning(module, output)
    module, ids = answer(LITTLE), torch.randint(30, (20, 9))  # in training
    with torch.no_grad():
        ratios = module(ids) / (module.tok_emb(ids) + module.pos_emb.weight)
    reason = "in training nothing is dropped: apply self.drop_emb to the sum"
    require(not is_near(ratios, torch.ones(ratios.shape), 1e-3), reason)
    is_dropped = (ratios.abs() < 1e-3) | ((ratios - 2).abs() < 1e-3)
    reason = "dropout should be applied to the sum, not to each of its two parts"
    require(is_dropped.all(), reason)


class Marked(nn.Module):
    """Takes the place of a part, so that one sees whether it is used, and when."""

    def __init__(self, factor, shift):
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, x):
        return self.factor * x + self.shift


def require_output_parts(model, cfg):
    """Raise NotYet unless a model has blocks, a last normalization and an out_head."""
    blocks = getattr(model, "trf_blocks", None)
    reason = "self.trf_blocks is no nn.Sequential: nn.Sequential(*list_of_blocks)"
    require(isinstance(blocks, nn.Sequential), reason)
    reason = f"self.trf_blocks has {len(blocks)} blocks, and cfg n_layers "
    require(len(blocks) == cfg["n_layers"], f"{reason}{cfg['n_layers']}")
    reason = "all blocks are the same object: make a new one for each"
    require(len({id(block) for block in blocks}) == len(blocks), reason)
    for name in ("final_norm", "out_head"):
        require(isinstance(getattr(model, name, None), nn.Module), f"no self.{name}")
    head = model.out_head
    require(isinstance(head, nn.Linear), "self.out_head is no nn.Linear")
    sizes = head.in_features, head.out_features
    wanted = cfg["emb_dim"], cfg["vocab_size"]
    reason = f"self.out_head maps {sizes[0]} numbers to {sizes[1]}, not "
    require(sizes == wanted, f"{reason}{wanted[0]} to {wanted[1]}")
    require(head.bias is None, "self.out_head has a bias: bias=False leaves it out")


@exercise(
    "4.1.b",
    "write, 10 minutes, ••",
    "Write forward with one line for each box of the picture: x = self.drop_emb(x).",
)
def dummy_gpt(answer):
    """The class DummyGPTModel: all parts, in the order of the plan."""
    require_class_of_modules(answer, "DummyGPTModel")
    for shape in SHAPES_OF_IDS:
        try:
            model = answer(LITTLE)
        except TypeError as error:
            reason = "nn.Sequential got a list: write nn.Sequential(*blocks), with the "
            require("Module subclass" not in str(error), f"{reason}star")
            raise
        require_input_parts(model, LITTLE)
        require_output_parts(model, LITTLE)
        ids = torch.randint(9, shape)
        model.eval()
        output = run_on_ids(model, ids)
        compare_with_plan(model, ids, as_tensor(output))
        require_learning(model, output)
        parts = {
            "drop_emb": Marked(2.0, 0.0),
            "trf_blocks": nn.Sequential(*[Marked(0.5, 1.0 + n) for n in range(3)]),
            "final_norm": Marked(3.0, -1.0),
        }
        for name, part in parts.items():
            setattr(model, name, part)
        found = as_tensor(run_on_ids(model, ids))
        compare_with_plan(model, ids, found)


def compare_with_plan(model, ids, found):
    """Raise NotYet, with the likely mistake, unless the logits are right."""
    head, order = model.out_head, ["drop_emb", "trf_blocks", "final_norm"]

    def through(names, x):
        for name in names:
            x = getattr(model, name)(x)
        return head(x)

    x = model.tok_emb(ids) + model.pos_emb.weight[: ids.shape[1]]
    right = through(order, x)
    if found.shape == right.shape and is_near(found, right, 1e-4):
        return
    is_bare = found.shape == x.shape
    require(not is_bare, "it returns vectors, not logits: apply self.out_head at last")
    as_tensor(found, tuple(right.shape))
    softened = torch.softmax(right, dim=-1)
    reason = "it returns probabilities: the logits are the scores before the softmax"
    require(not is_near(found, softened, 1e-4), reason)
    for used in (used for n in (2, 1, 0) for used in combinations(order, n)):
        missing = " and ".join(f"self.{name}" for name in order if name not in used)
        reason = f"forward does not use {missing}"
        require(not is_near(found, through(used, x), 1e-4), reason)
    for names in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        wrong = through([order[n] for n in names], x)
        reason = "the parts come in another order than in the picture"
        require(not is_near(found, wrong, 1e-4), reason)
    both = model.drop_emb(model.tok_emb(ids)) + model.pos_emb.weight[: ids.shape[1]]
    reason = "self.drop_emb should be applied to the sum, not to the tokens alone"
    require(not is_near(found, through(order[1:], both), 1e-4), reason)
    after_sum = partial(through, order)
    compare_with_sum(found, model.tok_emb, model.pos_emb, ids, after_sum)
    raise NotYet("its logits are not what the parts give, one after the other")


def require_config(answer):
    """Raise NotYet unless an answer is a config that `check_config` accepts."""
    require(isinstance(answer, dict), "it should be a dict like GPT_CONFIG_124M")
    try:
        check_config(answer)
    except ValueError as error:
        raise NotYet(f"check_config says: {error}") from None


@exercise(
    "4.1.1",
    "write, 4 minutes, •",
    "What must happen to n_heads so that emb_dim / n_heads stays 64?",
)
def laptop_config(answer):
    """GPT_CONFIG_124M at half the width, a quarter of the depth and of the context."""
    require_config(answer)
    head_dim = answer["emb_dim"] / answer["n_heads"]
    require(head_dim == 64, f"the head dimension is {head_dim:g}, not 64")
    sizes = {"emb_dim": 384, "n_heads": 6, "n_layers": 3, "context_length": 256}
    for key, right in (GPT_CONFIG_124M | sizes).items():
        require(answer[key] == right, f"{key} {answer[key]} is not what is asked for")


@exercise(
    "4.1.2",
    "number, 4 minutes, •",
    "How many logits does one token get? A float32 takes 4 bytes.",
)
def bytes_of_logits(answer):
    """The bytes of the float32 logits for 8 x 1,024 tokens."""
    found = as_number(answer)
    scores = 8 * 1024 * 50257
    require(found != scores, "that counts the numbers; each of them takes 4 bytes")
    require(found != scores // 8 * 4, "that is one text; the batch holds 8")
    near_units = any(abs(found * 10**k / scores / 4 - 1) < 0.1 for k in (3, 6, 9))
    require(not near_units, f"{found:g} is a larger unit; give bytes")
    reason = f"{found:g} is not texts x tokens x logits of a token x bytes of a logit"
    require(is_count(found, 4 * scores), reason)


@exercise(
    "4.1.3",
    "write, 10 minutes, •••",
    "torch.cumsum(x, dim=1) adds up what has been seen so far.",
)
def running_mean(answer):
    """A block whose output is the mean of a token and all the tokens before it."""
    require_kind(answer, "Module")
    for num_tokens in (5, 9):
        x = torch.rand(2, num_tokens, 3)
        found = as_tensor(answer(x), (2, num_tokens, 3))
        changed = x.clone()
        changed[:, -1] += 1
        same = is_near(found[:, :-1], answer(changed)[:, :-1])
        require(same, "a changed last token changes the output of those before it")
        require(is_near(found[:, 0], x[:, 0]), "the first token is its own mean")
        for end in range(num_tokens):
            same = is_near(found[:, end], x[:, : end + 1].mean(dim=1))
            require(same, f"output {end} is not the mean of the tokens 0 to {end}")


@exercise(
    "4.1.4",
    "predict, 6 minutes, ••",
    "Without positions, what differs between two tokens that see the same values?",
)
def different_rows(answer):
    """How many of five rows of logits differ, for three models."""
    found = as_whole_numbers(answer)
    reason = f"it should be three numbers, for (a), (b) and (c), not {len(found)}"
    require(len(found) == 3, reason)
    explained = (
        ("a", 5, "each token has another position, and the position is added"),
        ("b", 2, "nothing but the token itself enters its logits"),
        ("c", 4, "a token gets a weighted mean of the values up to itself"),
    )
    for (name, right, reason), number in zip(explained, found):
        require(1 <= number <= 5, f"({name}) there are five rows, so not {number}")
        require(number == right, f"({name}) it is not {number}. Think again: {reason}")


@exercise(
    "4.2.a",
    "write, 5 minutes, •",
    "differences = row - row.mean(); the variance is (differences**2).mean().",
)
def row_normalized(answer):
    """A function row -> its numbers with mean 0 and variance 1."""
    require_function(answer)
    for size in (4, 6, 3, 9):
        row = 5 + 3 * torch.randn(size)
        found = as_tensor(answer(row.clone()), (size,))
        differences = row - row.mean()
        variance = differences.square().mean()
        if is_near(found, differences / variance.sqrt(), 1e-4):
            continue
        for wrong, reason in (
            (differences, "the mean is 0, but it is not divided by the root"),
            (differences / variance, "it divides by the variance: take its root"),
            (
                differences / row.std(),
                "it divides by n - 1: take the mean of the squares, or "
                "unbiased=False in std or var",
            ),
            (row / variance.sqrt(), "the mean is not subtracted"),
            (
                row - row.mean() / variance.sqrt(),
                "only the mean is divided: parentheses around the difference",
            ),
            (
                differences / differences.norm(),
                "it divides by the root of the sum of the squares: take their mean",
            ),
            (
                differences / differences.abs().mean(),
                "it divides by the mean distance: square the differences first",
            ),
        ):
            require(not is_near(found, wrong), reason)
        mean, var = found.double().mean(), found.double().var(unbiased=False)
        reason = f"the result has the mean {mean:.2f} and the variance {var:.2f}"
        raise NotYet(f"{reason}, or another pattern than the row")


def standardized(x, dim=-1, eps=1e-5, unbiased=False):
    """x with mean 0 and variance 1 along a dimension, or along all (None)."""
    dim = tuple(range(x.dim())) if dim is None else dim
    mean = x.mean(dim=dim, keepdim=True)
    return (x - mean) / (x.var(dim=dim, keepdim=True, unbiased=unbiased) + eps).sqrt()


@exercise(
    "4.2.b",
    "write, 8 minutes, ••",
    "mean = x.mean(dim=-1, keepdim=True); var needs unbiased=False as well.",
)
def layer_norm_class(answer):
    """The class LayerNorm, with eps, scale and shift."""
    require_class_of_modules(answer, "LayerNorm")
    for shape in ((2, 3, 5), (4, 4, 4), (1, 6, 8)):
        layer = answer(shape[-1])
        known = dict(layer.named_parameters())
        for name, start in (("scale", 1.0), ("shift", 0.0)):
            parameter = getattr(layer, name, None)
            require(parameter is not None, f"it has no self.{name}")
            reason = f"self.{name} is no parameter: use nn.Parameter(...)"
            require(name in known, reason)
            found = as_tensor(parameter, shape[-1:])
            reason = f"at first, self.{name} should contain only {start:g}"
            require((found == start).all(), reason)
        with torch.no_grad():
            layer.scale.uniform_(1.5, 3)
            layer.shift.normal_()
        x = 5 + 3 * torch.randn(shape)
        try:
            output = layer(x.clone())
        except RuntimeError as error:
            reason = f"x of shape {shape} raises: {error}. Is keepdim=True missing?"
            raise NotYet(reason) from None
        compare_normalized(layer, x, as_tensor(output))
        require_learning(layer, output)
    equal = torch.full((1, 2, 8), 3.0)
    found = as_tensor(layer(equal))
    reason = "equal numbers give nan: add eps to the variance"
    require(not found.isnan().any(), reason)
    x = 0.01 * torch.randn(1, 2, 8)  # with a variance that is not far from eps
    found, deviation = as_tensor(layer(x)), x.std(-1, unbiased=False)[..., None]
    outside = (x - x.mean(dim=-1, keepdim=True)) / (deviation + 1e-5)
    for wrong in (outside, standardized(x, eps=0)):
        is_it = is_near(found, layer.scale * wrong + layer.shift, 1e-4)
        require(not is_it, "eps should be added to the variance, before the root")
    right = layer.scale * standardized(x) + layer.shift
    require(is_near(found, right, 1e-4), "eps should be 1e-5, added to the variance")


def compare_normalized(layer, x, found):
    """Raise NotYet, with the likely mistake, unless found is the layer norm of x."""
    scale, shift = layer.scale.detach(), layer.shift.detach()
    normalized = standardized(x)
    right = scale * normalized + shift
    as_tensor(found, tuple(right.shape))
    if is_near(found, right, 1e-4):
        return
    mean, variance = x.mean(dim=-1, keepdim=True), x.var(-1, unbiased=False)
    mistakes = [
        (normalized, "scale and shift are not used"),
        (normalized * scale, "the shift is not added"),
        (normalized + shift, "it is not multiplied by the scale"),
        ((normalized + shift) * scale, "multiply by the scale, then add the shift"),
        (normalized * shift + scale, "scale and shift are exchanged"),
    ]
    for wrong, reason in (
        (
            standardized(x, unbiased=True),
            "it divides by n - 1: use unbiased=False",
        ),
        (
            standardized(x, dim=1),
            "it normalizes over the tokens of a text, dim=1: each token by itself has "
            "dim=-1",
        ),
        (standardized(x, dim=0), "it normalizes over the texts, dim=0: use dim=-1"),
        (
            standardized(x, dim=None),
            "it takes one mean for all tokens: use dim=-1",
        ),
        (standardized(x, dim=(1, 2)), "it takes one mean for a text: use dim=-1"),
        ((x - mean) / variance[..., None], "it divides by the variance: take its root"),
        (x - mean, "it does not divide by the root of the variance"),
        (x / variance[..., None].sqrt(), "the mean is not subtracted"),
    ):
        mistakes.append((scale * wrong + shift, reason))
    if len(set(x.shape)) == 1:  # otherwise it raises an error
        wrong = (x - x.mean(dim=-1)) / (variance + 1e-5).sqrt()
        reason = "the means fit the wrong dimension: use keepdim=True"
        mistakes.append((scale * wrong + shift, reason))
    for wrong, reason in mistakes:
        require(not is_near(found, wrong, 1e-4), reason)
    raise NotYet("its result is not that of the formula")


@exercise(
    "4.2.1",
    "predict, 4 minutes, •",
    "Mean first, then the mean of the squared differences from it.",
)
def normalized_by_hand(answer):
    """The layer norm of 1, 1, 1, 9 to two decimals."""
    found = as_tensor(answer).flatten().double()
    require(len(found) == 4, f"it should be four numbers, not {len(found)}")
    x = torch.tensor([1.0, 1.0, 1.0, 9.0], dtype=torch.float64)
    centred = x - x.mean()
    unbiased = centred / centred.square().sum().div(3).sqrt()
    close = torch.allclose(found, unbiased, rtol=0, atol=0.01)
    require(not close, "you divided by n - 1 = 3; the layer divides by n = 4")
    close = torch.allclose(found, centred / 12, rtol=0, atol=0.01)
    require(not close, "you divided by the variance, not by its square root")
    mean = found.mean().item()
    require(abs(mean) < 0.01, f"the mean of your numbers is {mean:.2f}, not 0")
    variance = found.var(unbiased=False).item()
    require(abs(variance - 1) < 0.03, f"their variance is {variance:.2f}, not 1")
    close = torch.allclose(found, centred / 12**0.5, rtol=0, atol=0.01)
    reason = "three of your numbers should be equal, and the last one the largest"
    require(close, reason)


@exercise(
    "4.2.2",
    "write, 4 minutes, •",
    "What do scale and shift do to the mean 0 and the standard deviation 1?",
)
def norm_to_two_and_three(answer):
    """A LayerNorm of 8 whose output has mean 2 and standard deviation 3."""
    require_kind(answer, "LayerNorm")
    sizes = [parameter.numel() for parameter in answer.parameters()]
    require({8}.issuperset(sizes), f"it has {sizes} parameters, and a token 8 numbers")
    out = answer(torch.rand(2, 3, 8) * 5 + 1).detach()
    mean, deviation = out.mean(dim=-1), out.std(dim=-1, unbiased=False)
    off = (mean - 2).abs().max().item()
    require(off < 1e-3, f"the mean of a token is {mean[0, 0]:.2f}, not 2")
    off = (deviation - 3).abs().max().item()
    found = f"{deviation[0, 0]:.2f}"
    require(off < 1e-2, f"the standard deviation of a token is {found}, not 3")


@exercise(
    "4.2.3",
    "break, 6 minutes, ••",
    "With dim=1, which numbers are averaged for index 0 of the vectors?",
)
def positions_that_change(answer):
    """Positions whose result changes, for a norm over dim=1 and one over dim=-1."""
    is_pair = isinstance(answer, (list, tuple)) and len(answer) == 2
    require(is_pair, "it should be two lists: positions for dim=1, and for dim=-1")
    tokens, numbers = (sorted(as_whole_numbers(part)) for part in answer)
    reason = "the two lists are exchanged: dim=1 is the dimension of the tokens"
    require((tokens, numbers) != ([2], [0, 1, 2, 3, 4]), reason)
    reason = "with dim=-1 each token is normalized by itself"
    require(numbers == [2], f"the second list is not right: {reason}")
    reason = "with dim=1 the mean of an index is taken over all five tokens"
    require(tokens == [0, 1, 2, 3, 4], f"the first list is not right: {reason}")


@exercise(
    "4.3.a",
    "write, 3 minutes, •",
    "torch.where(x > 0, x, ...), or x.clamp with the smallest number that is allowed.",
)
def relu_of_each_number(answer):
    """A function: each negative number becomes 0, the others stay."""
    require_function(answer)
    drawn = 3 * torch.randn(2, 3, 4), torch.randn(5), torch.tensor(-1.5)
    for x in (torch.tensor([-2.0, 0.0, 3.0]), *drawn):
        given, size = x.clone(), tuple(x.shape)
        with Refusing("relu", "relu_"):
            found = as_tensor(answer(given))
        reason = "it changes its argument; make a new tensor instead"
        require(torch.equal(given, x), reason)
        shape = tuple(found.shape)
        kept = shape == (int((x > 0).sum()),) and found.dim() == x.dim() == 1
        reason = "it leaves the negative numbers out; each of them should become 0"
        require(shape == size or not kept, reason)
        reason = f"for x of shape {size} the result should have that shape, not {shape}"
        require(shape == size, reason)
        right = torch.tensor([max(0.0, n) for n in x.flatten().tolist()]).view(size)
        if is_near(found, right):
            continue
        for wrong, reason in (
            (x - right, "it keeps the negative numbers, and makes 0 of the others"),
            (x.abs(), "it only removes the signs; a negative number should become 0"),
            ((x > 0).float(), "it says only which numbers are positive: keep them"),
        ):
            require(not is_near(found, wrong), reason)
        at = (found - right).abs().argmax()
        before, after, wanted = (n.flatten()[at].item() for n in (x, found, right))
        raise NotYet(f"{before:.2f} becomes {after:.2f}, and not {wanted:.2f}")


def gelu_with(x, root=0.5, power=3, half=0.5, factor=0.044715):
    """GELU's tanh formula in float64, with parts that a reader may get wrong."""
    x = x.double()
    return half * x * (1 + torch.tanh((2 / math.pi) ** root * (x + factor * x**power)))


@exercise(
    "4.3.b",
    "write, 5 minutes, ••",
    "First the inner part: (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3).",
)
def gelu_by_its_formula(answer):
    """A function: GELU by the tanh formula, for each number."""
    require_function(answer)
    for size in ((33,), (3, 11), (1, 3, 11)):
        x = torch.linspace(-4, 4, 33)[torch.randperm(33)].view(size)
        given = x.clone()
        with Refusing("gelu"):
            found = as_tensor(answer(given), size)
        reason = "it changes its argument; make a new tensor instead"
        require(torch.equal(given, x), reason)
        right = gelu_with(x)
        if is_near(found, right):
            continue
        wide = x.double()
        inner = (2 / math.pi) ** 0.5 * (wide + 0.044715 * wide**3)
        cube = torch.tanh((2 / math.pi) ** 0.5 * (wide + (0.044715 * wide) ** 3))
        all_cube = torch.tanh((2 / math.pi) ** 0.5 * (1.044715 * wide) ** 3)
        for wrong, reason in (
            (F.gelu(wide), "this is the exact GELU; the tanh formula is asked for"),
            (gelu_with(x, root=1), "the square root of 2 / pi is missing"),
            (gelu_with(x, power=2), "it squares x; the formula has x**3"),
            (gelu_with(x, power=1), "it takes x itself where the formula has x**3"),
            (gelu_with(x, factor=1), "the factor 0.044715 of x**3 is missing"),
            (gelu_with(x, half=1), "the factor 0.5 at the front is missing"),
            (0.5 * (1 + torch.tanh(inner)), "this is the share; multiply it by x"),
            (
                0.5 * wide * torch.tanh(inner),
                "inside the outer bracket the 1 is missing",
            ),
            (0.5 * wide * (1 + inner), "the tanh is missing"),
            (0.5 * wide * (1 + cube), "only x is cubed, not 0.044715 * x"),
            (0.5 * wide * (1 + all_cube), "only the second x of the bracket is cubed"),
            (x.clamp(min=0), "this is ReLU"),
        ):
            require(not is_near(found, wrong), reason)
        off = (found - right).abs().argmax()
        at, wanted = x.flatten()[off].item(), right.flatten()[off].item()
        reason = f"for x = {at:g} it gives {found.flatten()[off].item():.4f}"
        raise NotYet(f"{reason}, and the formula {wanted:.4f}")


@exercise(
    "4.3.c",
    "write, 8 minutes, ••",
    "nn.Sequential(nn.Linear(d, 4 * d), GELU(), nn.Linear(4 * d, d)) with d = emb_dim.",
)
def feed_forward_class(answer):
    """The class FeedForward."""
    require_class_of_modules(answer, "FeedForward")
    for d in (6, 10):
        module = answer(GPT_CONFIG_124M | {"emb_dim": d, "n_heads": 2})
        layers = [m for m in module.modules() if isinstance(m, nn.Linear)]
        shapes = [(m.in_features, m.out_features) for m in layers]
        wanted = [(d, 4 * d), (4 * d, d)]
        reason = f"for emb_dim {d} its linear layers should be {wanted}, not {shapes}"
        if {(d, d)}.issuperset(shapes) or (d, 4 * 768) in shapes:
            reason += "; in between there should be four times emb_dim numbers"
        require(sorted(shapes) == sorted(wanted), reason)
        reason = "a linear layer has no bias; leave out bias=False"
        require(all(m.bias is not None for m in layers), reason)
        x = torch.randn(2, 3, d)
        output = module(x.clone())
        first, second = sorted(layers, key=lambda m: m.in_features)
        compare_with_feed_forward(x, first, second, as_tensor(output))
        require_learning(module, output)


def compare_with_feed_forward(x, first, second, found):
    """Raise NotYet, with the likely mistake, unless the output is right."""
    with torch.no_grad():
        hidden = first(x)
        gelu = partial(F.gelu, approximate="tanh")
        right = second(gelu(hidden))
        size, wanted = tuple(found.shape), tuple(right.shape)
        require(size != tuple(hidden.shape), "it stops after the first linear layer")
        reason = f"for x of shape {wanted} the output should have it too, not {size}"
        require(size == wanted, reason)
        if is_near(found, right):
            return
        for wrong, reason in (
            (second(hidden), "it has no activation function between the two layers"),
            (second(hidden.relu()), "it uses ReLU; GPT-2 uses GELU"),
            (second(F.gelu(hidden)), "it uses the exact GELU, not the tanh formula"),
            (gelu(right), "there is a GELU after the second layer, too"),
            (gelu(second(hidden)), "GELU belongs between the layers, not at the end"),
            (
                second(first(gelu(x))),
                "GELU belongs between the layers, not before them",
            ),
            (x + right, "it adds its input to the result; that comes in section 4.4"),
        ):
            require(not is_near(found, wrong), reason)
    raise NotYet("its output is not that of linear layer, GELU, linear layer")


@exercise(
    "4.3.1",
    "predict, 5 minutes, •",
    "For x = 3 the hidden numbers are 3 and 1, before and after ReLU.",
)
def outputs_of_two_neurons(answer):
    """relu(x) - 2 * relu(x - 2) at -1, 1, 3 and 5."""
    found = as_tensor(answer).flatten().double()
    require(len(found) == 4, f"it should be four numbers, not {len(found)}")
    x = torch.tensor([-1.0, 1.0, 3.0, 5.0]).double()
    first, second = x.clamp(min=0), (x - 2).clamp(min=0)
    for wrong, reason in (
        (x - 2 * (x - 2), "that is the network without ReLU"),
        (first - second, "the second number is subtracted twice"),
        (first + 2 * second, "the second number is subtracted, not added"),
        (first - 2 * (x - 2), "ReLU belongs to the second number, too"),
        (x - 2 * second, "ReLU belongs to the first number, too"),
        (second - 2 * first, "the first number is not the one that counts twice"),
    ):
        require(not is_near(found, wrong, 1e-3), reason)
    for at, number, right in zip(x.tolist(), found.tolist(), first - 2 * second):
        reason = f"for x = {at:g} the output is not {number:g}"
        require(abs(number - right) < 1e-3, reason)


@exercise(
    "4.3.2",
    "write, 12 minutes, •••",
    "GELU(x) - GELU(-x) is x. Give each input number two hidden ones.",
)
def feed_forward_identity(answer):
    """A FeedForward of emb_dim 8 that returns its input."""
    require_kind(answer, "FeedForward")
    sizes = [tuple(p.shape) for p in answer.parameters()]
    wanted = [(32, 8), (32,), (8, 32), (8,)]
    require(sizes == wanted, f"its parameters have shapes {sizes}, not {wanted}")
    x = torch.linspace(-10, 10, 48)[torch.randperm(48)].view(2, 3, 8)
    off = (answer(x) - x).abs().max().item()
    require(off < 1e-4, f"output and input differ by up to {off:.2g}")


def small_network(d, activation, bias=True):
    """Two linear layers with something between them, drawn not too small."""
    layers = nn.Linear(d, 3 * d, bias), activation, nn.Linear(3 * d, d, bias)
    for layer in (layers[0], layers[2]):
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.7)
    return nn.Sequential(*layers)


@exercise(
    "4.3.3",
    "break, 10 minutes, •••",
    "A layer with a bias gives f(0) for zeros. Subtract it: what is left of f(a + b)?",
)
def detects_a_missing_activation(answer):
    """A function (network, d) -> whether the network is one linear layer."""
    require_function(answer)
    cases = {
        "one linear layer": (nn.Linear(4, 4), True),
        "two linear layers with biases": (small_network(4, nn.Identity()), True),
        "two linear layers without biases": (
            small_network(3, nn.Identity(), bias=False),
            True,
        ),
        "a network that returns its input": (nn.Identity(), True),
        "a network with GELU": (small_network(4, nn.GELU()), False),
        "a network with ReLU": (small_network(3, nn.ReLU()), False),
        "a network with ReLU and without biases": (
            small_network(4, nn.ReLU(), bias=False),
            False,
        ),
        "a network with tanh": (small_network(4, nn.Tanh(), bias=False), False),
        "a network that removes signs": (nn.Sequential(Absolute()), False),
    }
    for name, (network, right) in cases.items():
        d = network[0].in_features if hasattr(network, "__getitem__") else 4
        found = as_tensor(answer(Closed(network), d))
        require(found.numel() == 1, "it should return True or False")
        is_bool = bool(found.item()) == found.item()
        require(is_bool, f"it should return True or False, not {found.item()}")
        said = f"{name} is {'' if right else 'not '}linear, and it says {bool(found)}"
        require(bool(found) == right, said)


class Absolute(nn.Module):
    """Removes signs: (n, 4) -> (n, 4)."""

    in_features = 4

    def forward(self, x):
        return x.abs()


class Closed:
    """A network that can be called and nothing else."""

    def __init__(self, network):
        self.__function = network

    def __call__(self, x):
        with torch.no_grad():
            return self.__function(x)


def mixed_layers(sizes):
    """Linear layers with tanh, of these sizes, in a list."""
    pairs = zip(sizes, sizes[1:])
    return [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairs]


@exercise(
    "4.4.a",
    "write, 6 minutes, ••",
    "In the loop: output = layer(x); then x = x + output if the shapes are equal.",
)
def layers_with_shortcuts(answer):
    """A function (layers, x, use_shortcut) -> the result of the last layer."""
    require_function(answer)
    for sizes in ([3, 3, 3], [2, 2, 4, 4, 3], [1, 4, 4, 1], [5, 2]):
        layers = mixed_layers(sizes)
        x = torch.randn(6, sizes[0])
        for use_shortcut in (False, True):
            given, said = x.clone(), f"layers of sizes {sizes}, {use_shortcut=}"
            try:
                output = answer(layers, given, use_shortcut)
            except RuntimeError as error:
                reason = f"{said} raise: {error}. Compare the shapes before you add"
                raise NotYet(reason) from None
            reason = "it changes the x that it got: x = x + ... makes a new tensor"
            require(torch.equal(given, x), reason)
            found = as_tensor(output)
            compare_with_shortcuts(layers, x, use_shortcut, found, said)
            require_learning(nn.ModuleList(layers), output)


def run_layers(layers, x, adds):
    """The result of layers, where adds(x, output, start) says what follows each."""
    start = x
    with torch.no_grad():
        for layer in layers:
            x = adds(x, layer(x), start)
    return x


def compare_with_shortcuts(layers, x, use_shortcut, found, said):
    """Raise NotYet, with the likely mistake, unless the result is right."""
    plain = run_layers(layers, x, lambda x, out, start: out)
    right = run_layers(
        layers,
        x,
        lambda x, out, start: x + out if use_shortcut and x.shape == out.shape else out,
    )
    if found.shape == right.shape and is_near(found, right):
        return
    shape, wanted = tuple(found.shape), tuple(right.shape)
    reason = (
        f"{said} give {shape}, not {wanted}: where one width is 1, + repeats numbers "
        "and raises no error. Compare the shapes before you add"
    )
    require(1 not in (x.shape[1], wanted[1]) or shape == wanted, reason)
    require(shape == wanted, f"{said} should give {wanted}, not {shape}")
    if not use_shortcut:
        raise NotYet("with use_shortcut=False it should give layer(x) alone, each time")
    require(not is_near(found, plain), "with use_shortcut=True it adds nothing")
    for adds, reason in (
        (
            lambda x, out, start: start + out if start.shape == out.shape else out,
            "it adds the very first x each time; add what this layer got",
        ),
        (
            lambda x, out, start: out + out if x.shape == out.shape else out,
            "it adds the output to itself; add the input of the layer",
        ),
    ):
        require(not is_near(found, run_layers(layers, x, adds)), reason)
    if 1 in (x.shape[1], wanted[1]):
        raise NotYet(
            f"{said} give a wrong result: where one width is 1, + repeats numbers and "
            "raises no error. Compare the shapes before you add"
        )
    raise NotYet(f"{said} give a wrong result")


@exercise(
    "4.4.b",
    "write, 8 minutes, ••",
    "After loss.backward(): layer[0].weight.grad.abs().mean() for each layer.",
)
def mean_gradients_of_layers(answer):
    """A function (model, x) -> the mean absolute gradient of each layer's weights."""
    require_function(answer)
    for sizes, use_shortcut in (([3, 3, 3, 1], True), ([4, 2, 5], False)):
        model = ExampleDeepNeuralNetwork(sizes, use_shortcut)
        x = torch.randn(6, sizes[0])
        weights = [layer[0].weight for layer in model.layers]
        output = model(x)
        loss = F.mse_loss(output, torch.zeros_like(output))
        gradients = torch.autograd.grad(loss, weights, retain_graph=True)
        of_sum = torch.autograd.grad(output.sum(), weights)
        right = torch.stack([g.abs().mean() for g in gradients])
        for calls in (1, 2):  # the second one finds gradients in .grad
            found = as_tensor(answer(model, x.clone()))
            size, wanted = tuple(found.shape), (len(weights),)
            with_biases = size == (2 * len(weights),)
            require(not with_biases, "the biases do not count: take layer[0].weight")
            reason = f"it should be {wanted[0]} numbers, one for each layer"
            require(size == wanted, f"{reason}; its shape is {size}")
            if is_near(found, right, 1e-6):
                continue
            old = is_near(found, calls * right, 1e-6)
            reason = "called twice, it adds up gradients: call model.zero_grad() first"
            require(calls == 1 or not old, reason)
            for wrong, reason in (
                ([g.mean() for g in gradients], "take .abs() before the mean"),
                ([g.mean().abs() for g in gradients], "take .abs() before the mean"),
                (
                    [g.abs().sum() for g in gradients],
                    "it takes the sums, not the means",
                ),
                ([g.norm() for g in gradients], "it takes the norms, not the means"),
                ([g.abs().max() for g in gradients], "it takes the largest numbers"),
                ([w.abs().mean() for w in weights], "these are weights, not gradients"),
                (
                    [g.abs().mean() for g in of_sum],
                    "these are gradients of the output; take those of the loss",
                ),
                (right.flip(0).unbind(), "it begins with the last layer"),
            ):
                require(not is_near(found, torch.stack(wrong), 1e-6), reason)
            off = ", ".join(f"{number:.4f}" for number in right)
            raise NotYet(f"for one network the right numbers are {off}")


@exercise(
    "4.4.c",
    "write, 3 minutes, ••",
    "Along which dimension are the inputs counted? Take the standard deviation there.",
)
def difference_of_vectors(answer):
    """A function: vectors (n, d) -> the mean of the d standard deviations."""
    require_function(answer)
    for n, d in ((40, 3), (6, 6), (5, 20)):
        vectors = torch.randn(n, d) * torch.rand(d) + 3 * torch.randn(d)
        right, biased = (vectors.std(0, unbiased=u).mean() for u in (True, False))
        found = as_tensor(answer(vectors.clone()))
        whole = found.numel() == 1
        reason = f"it gives {found.numel()} numbers; take their mean at the end"
        require(whole or tuple(found.shape) != (d,), reason)
        require(whole, f"it should be one number, not {found.numel()}")
        if is_near(found.squeeze(), right) or is_near(found.squeeze(), biased):
            continue
        for wrong, reason in (
            (
                vectors.std(dim=1).mean(),
                "it compares the numbers in each vector: that is the other dimension",
            ),
            (vectors.std(), "it takes all numbers together; take each column alone"),
            (vectors.var(dim=0).mean(), "these are variances: take std"),
            (vectors.std(dim=0).sum(), "it takes the sum at the end, not the mean"),
            (vectors.mean(dim=0).std(), "take the standard deviation first"),
        ):
            require(not is_near(found.squeeze(), wrong), reason)
        raise NotYet(f"it gives {float(found):.4f}, and it should be {right:.4f}")


@exercise(
    "4.4.1",
    "predict, 5 minutes, ••",
    "With a shortcut, the slope of a layer is 1 plus its own slope.",
)
def gradients_of_negative_slopes(answer):
    """0.9**10 without shortcuts and 0.1**10 with them."""
    found = as_tensor(answer).flatten().double().tolist()
    require(len(found) == 2, f"it should be two numbers, not {len(found)}")
    without, with_shortcuts = found
    right = 0.9**10, 0.1**10
    swapped = abs(without / right[1] - 1) < 0.01
    require(not swapped, "it is the other way round: first the one without shortcuts")
    reason = f"without shortcuts, ten factors of -0.9 do not give {without:.3g}"
    require(without >= 0, f"{reason}: an even number of minus signs gives a plus")
    require(abs(without / right[0] - 1) < 0.01, reason)
    reason = f"with shortcuts it is not {with_shortcuts:.3g}"
    sign = abs(with_shortcuts / 1.9**10 - 1) < 0.01
    require(not sign, f"{reason}: the slope is -0.9, so 1 + (-0.9)")
    require(abs(with_shortcuts / right[1] - 1) < 0.01, reason)


@exercise("4.4.2", "predict, 3 minutes, •", "x + f(x) needs two tensors of one shape.")
def layers_with_shortcut(answer):
    """The layers of [4, 8, 8, 4, 4, 1] whose input and output are equally wide."""
    answer = as_whole_numbers(answer)
    found = set(answer)
    require(found != {2, 4}, "count the layers from 0, not from 1")
    require(found <= set(range(5)), "there are five layers, numbered 0 to 4")
    require(len(answer) == len(found), "a layer is named twice")
    sizes = [4, 8, 8, 4, 4, 1]
    for number, (size_in, size_out) in enumerate(zip(sizes, sizes[1:])):
        says = f"layer {number} takes {size_in} numbers and gives {size_out}"
        require((number in found) == (size_in == size_out), says)


@exercise(
    "4.4.3", "write, 6 minutes, ••", "x + f(x) is x when f(x) is 0, and GELU(0) is 0."
)
def starts_as_identity(answer):
    """A network with shortcuts, three layers or more, that returns its input."""
    is_class = isinstance(answer, type)
    require(not is_class, "it should be a network, not a class: call the class")
    layers = getattr(answer, "layers", ())
    reason = "it should be an ExampleDeepNeuralNetwork, or a module like it with layers"
    is_list = isinstance(layers, (nn.ModuleList, nn.Sequential))
    require(isinstance(answer, nn.Module) and is_list, reason)
    require(len(layers) >= 3, f"it has {len(layers)} layers, fewer than three")
    linear = [part for part in layers.modules() if isinstance(part, nn.Linear)]
    require(linear, f"{reason}: linear layers and GELU")
    x = 10 * torch.randn(5, linear[0].in_features)
    found = answer(x)
    require(found.shape == x.shape, "its output is not as wide as its input")
    with torch.no_grad():
        drawn = copy.deepcopy(answer)  # with other weights, shortcuts can be seen
        for parameter in drawn.parameters():
            parameter.normal_(std=0.5)
        right = x
        for layer in drawn.layers:
            output = layer(right)
            right = right + output if output.shape == right.shape else output
        require(is_near(drawn(x), right, 1e-3), "it was made without shortcuts")
    off = (found - x).abs().max().item()
    require(off < 1e-5, f"output and input differ by up to {off:.2g}")


@exercise(
    "4.4.4",
    "write, 12 minutes, •••",
    "self.shortcuts can have nn.Identity() where the sizes are equal.",
)
def projected_shortcuts(answer):
    """A class of networks with a shortcut around every layer."""
    require_class_of_modules(answer, "ProjectedNetwork")
    for sizes in ([3, 3, 5, 1], [4, 2, 2]):
        network = answer(sizes)
        for name in ("layers", "shortcuts"):
            parts = getattr(network, name, None)
            reason = f"self.{name} should be an nn.ModuleList with one part for each "
            reason += f"of the {len(sizes) - 1} layers"
            is_right = isinstance(parts, nn.ModuleList)
            require(is_right and len(parts) == len(sizes) - 1, reason)
        for part, size_in, size_out in zip(network.shortcuts, sizes, sizes[1:]):
            linear = isinstance(part, nn.Linear)
            need = f"from {size_in} to {size_out} numbers"
            reason = f"a shortcut {need} should change nothing: use nn.Identity()"
            require(size_in != size_out or not linear, reason)
            if size_in == size_out:
                continue
            reason = f"a shortcut {need} should be an nn.Linear, and without a bias"
            require(linear and part.bias is None, reason)
        x = torch.randn(6, sizes[0])
        right = x
        with torch.no_grad():
            for layer, part in zip(network.layers, network.shortcuts):
                right = part(right) + layer(right)
        output = network(x.clone())
        found = as_tensor(output, (6, sizes[-1]))
        reason = "each layer should give shortcut(x) + layer(x)"
        require(is_near(found, right), reason)
        require_learning(network, output)


def in_eval_mode(module, function, *inputs):
    """function(*inputs) without gradients, and without the module's dropout."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            return function(*inputs)
    finally:
        module.train(was_training)


@exercise(
    "4.5.a",
    "write, 4 minutes, •",
    "The part gets norm(x), and its result is added to x.",
)
def half_of_a_block(answer):
    """A function that normalizes, calculates and adds."""
    require_function(answer)
    for shape in ((4,), (3, 5), (2, 5, 6)):
        width = shape[-1]
        norm, part = nn.LayerNorm(width), nn.Linear(width, width)
        for parameter in norm.parameters():
            nn.init.normal_(parameter)
        x = torch.randn(shape)
        given = x.clone()
        output = answer(given, norm, part)
        require(torch.equal(given, x), "it changes x itself; make a new tensor for it")
        found = as_tensor(output, shape)
        normed, calculated = norm(x), part(norm(x))
        mistakes = (
            (calculated, "the shortcut is missing: add the result of the part to x"),
            (
                normed + calculated,
                "the result is added to the normalized vectors; add it to x as it was",
            ),
            (x + part(x), "the part gets x itself; it should get norm(x)"),
            (
                norm(x + part(x)),
                "it normalizes after the addition; normalize what the part reads",
            ),
            (
                x + norm(part(x)),
                "it normalizes what the part has calculated, not what it reads",
            ),
            (norm(x + calculated), "it normalizes a second time, after the addition"),
            (x + normed, "the part is missing"),
        )
        for mistake, reason in mistakes:
            require(not is_near(found, mistake), reason)
        require(is_near(found, x + calculated), "its result is not x + part(norm(x))")
        require_learning(nn.Sequential(norm, part), output)


def require_parts(module, *names):
    """Raise NotYet unless a module has parts with these names."""
    for name in names:
        reason = f"it has no part self.{name}"
        require(isinstance(getattr(module, name, None), nn.Module), reason)


def shake(*norms):
    """Give layers of normalization parameters of which no two are alike."""
    with torch.no_grad():
        for norm in norms:
            for parameter in norm.parameters():
                parameter.normal_()


@exercise(
    "4.5.b",
    "write, 10 minutes, ••",
    "x = x + self.drop_resid(self.att(self.norm1(x))), and then the second half.",
)
def block_class(answer):
    """The class TransformerBlock."""
    require_class_of_modules(answer, "TransformerBlock")
    for width, heads, has_bias, length in ((12, 3, False, 5), (8, 2, True, 10)):
        cfg = {"emb_dim": width, "n_heads": heads, "context_length": 10}
        cfg = GPT_CONFIG_124M | cfg | {"qkv_bias": has_bias, "drop_rate": 0.0}
        block = answer(cfg)
        require_parts(block, "att", "ff", "norm1", "norm2")
        check_attention(block.att, cfg)
        reason = "norm1 and norm2 are one layer; each half needs its own"
        require(block.norm1 is not block.norm2, reason)
        shake(block.norm1, block.norm2)
        x = torch.randn(2, length, width)
        given = x.clone()
        output = block.eval()(given)
        require(torch.equal(given, x), "it changes x itself; make new tensors")
        compare_with_halves(block, x, as_tensor(output, tuple(x.shape)))
        require_learning(block, output)
    check_block_dropout(answer)


def check_attention(attention, cfg):
    """Raise NotYet unless an attention layer has the sizes of a config."""
    num_heads = getattr(attention, "num_heads", None)
    wanted = cfg["n_heads"]
    reason = f"num_heads of att is {num_heads}, and n_heads of cfg is {wanted}"
    require(num_heads == wanted, reason)
    has_bias = attention.W_key.bias is not None
    reason = "att should get qkv_bias=cfg['qkv_bias']"
    require(has_bias == cfg["qkv_bias"], reason)
    size, wanted = tuple(attention.W_key.weight.shape), (cfg["emb_dim"],) * 2
    require(size == wanted, f"W_key of att has shape {size}, not {wanted}")
    longest = getattr(attention, "context_length", cfg["context_length"])
    wanted = cfg["context_length"]
    reason = f"att gets context_length {longest}, and the one of cfg is {wanted}"
    require(longest == wanted, reason)


def compare_with_halves(block, x, found):
    """Raise NotYet, with the likely mistake, unless the output of a block is right."""
    att, ff, norm1, norm2 = block.att, block.ff, block.norm1, block.norm2
    a, b = att(norm1(x)), norm1(x)
    h, after, other, last = x + a, b + a, x + att(x), norm1(x + att(x))
    swapped, first = x + att(norm2(x)), x + ff(norm2(x))
    mistakes = (
        (x, "it returns its input: nothing is added to it"),
        (h, "the second half, with the feed-forward network, is missing"),
        (a + ff(norm2(a)), "the first half has no shortcut: add x to its result"),
        (ff(norm2(h)), "the second half has no shortcut: add h to its result"),
        (ff(norm2(a)), "both shortcuts are missing: add the input of each half"),
        (
            after + ff(norm2(after)),
            "the first shortcut begins after norm1; it should begin at x",
        ),
        (
            norm2(after) + ff(norm2(after)),
            "the shortcuts begin after the normalizations, and not before them",
        ),
        (norm2(h) + ff(norm2(h)), "the second shortcut begins after norm2"),
        (h + ff(norm2(x)), "the second half reads x; it should read h"),
        (h + ff(norm2(a)), "the second half reads the result of attention alone"),
        (x + ff(norm2(h)), "the second shortcut begins at x, and not at h"),
        (h + ff(h), "norm2 is not used"),
        (other + ff(norm2(other)), "norm1 is not used"),
        (other + ff(other), "the normalizations are not used"),
        (norm2(last + ff(last)), "it normalizes after each addition, not before"),
        (swapped + ff(norm1(swapped)), "norm1 and norm2 have changed places"),
        (h + ff(norm1(h)), "norm1 is used in both halves; the second has norm2"),
        (first + att(norm1(first)), "the feed-forward network comes first"),
    )
    right = h + ff(norm2(h))
    for mistake, reason in mistakes:
        require(is_near(found, right) or not is_near(found, mistake), reason)
    require(is_near(found, right), "its output is not y of the formula, in eval mode")


def check_block_dropout(answer):
    """Raise NotYet unless both results go through dropout before they are added."""
    cfg = {"emb_dim": 64, "n_heads": 2, "context_length": 8, "drop_rate": 0.5}
    block = answer(GPT_CONFIG_124M | cfg)
    rate = getattr(getattr(block.att, "dropout", None), "p", 0.5)
    require(rate == 0.5, 'att should get dropout=drop_rate_of(cfg, "attn")')
    x = torch.randn(2, 8, 64)
    silent = {"attention": block.ff, "the feed-forward network": block.att}
    parts = {"attention": (block.att, block.norm1)}
    parts["the feed-forward network"] = block.ff, block.norm2
    for name, (part, norm) in parts.items():
        one = copy.deepcopy(block)
        other = one.ff if silent[name] is block.ff else one.att
        for parameter in other.parameters():
            nn.init.zeros_(parameter)
        one.train()
        one.att.eval()  # without the dropout of the attention weights
        one.ff.eval()
        added = in_eval_mode(part, part, norm(x))
        with torch.no_grad():
            ratios = (one(x) - x) / added
        reason = f"in training, the result of {name} should go through dropout"
        require((ratios - 1).abs().mean() > 0.1, reason)
        is_dropped = (ratios.abs() < 0.01) | ((ratios - 2).abs() < 0.01)
        reason = f"dropout should work on the result of {name}, before it is added"
        require(is_dropped.float().mean() > 0.95, reason)


@exercise(
    "4.5.c",
    "write, 6 minutes, ••",
    "The second half reads h, which is x plus what attention adds.",
)
def what_a_block_adds(answer):
    """A function that returns what attention and the feed-forward network add."""
    require_function(answer)
    for width, heads in ((12, 3), (8, 2)):
        cfg = {"emb_dim": width, "n_heads": heads, "drop_rate": 0.0}
        block = TransformerBlock(GPT_CONFIG_124M | cfg).eval()
        shake(block.norm1, block.norm2)
        x = torch.randn(2, 5, width)
        given = x.clone()
        found = answer(block, given)
        require(found is not None, "it returns None: is a `return` missing?")
        require(torch.equal(given, x), "it changes x itself; make new tensors")
        is_sequence = isinstance(found, tuple | list | torch.Tensor)
        reason = "it should return two tensors, as in `return one, other`"
        require(is_sequence and len(found) == 2, reason)
        compare_pieces(block, x, *(as_tensor(part, (2, 5, width)) for part in found))


def compare_pieces(block, x, first, second):
    """Raise NotYet unless these are the two results that a block adds to x."""
    with torch.no_grad():
        a = block.att(block.norm1(x))
        h = x + a
        b = block.ff(block.norm2(h))
        mistakes = (
            (first, b, "the two results have changed places"),
            (first, h, "that is x plus the result of attention; give the result alone"),
            (first, block.att(x), "attention reads x; it should read norm1(x)"),
            (
                second,
                block.ff(block.norm2(x)),
                "the second half reads x; it should read h, x plus the first result",
            ),
            (
                second,
                block.ff(block.norm2(a)),
                "the second half reads the result of attention alone, without x",
            ),
            (second, block.ff(h), "the second half reads h without norm2"),
            (second, h + b, "that is y; give what the second half adds"),
            (second, a + b, "that is what both halves add; give the second alone"),
        )
        for found, mistake, reason in mistakes:
            require(not is_near(found, mistake), reason)
        require(is_near(first, a), "the first result is not what attention adds")
        reason = "the second result is not what the feed-forward network adds"
        require(is_near(second, b, 1e-4), reason)


@exercise(
    "4.5.1",
    "predict, 5 minutes, ••",
    "norm2 reads h, and h has changed wherever attention has changed.",
)
def changed_positions(answer):
    """The positions at which each part's result changes if token 2 of 6 changes."""
    require(isinstance(answer, dict), "it should be a dictionary of lists")
    later = [2, 3, 4, 5]
    right = {"norm1": [2], "att": later, "norm2": later, "ff": later}
    missing = [name for name in right if name not in answer]
    require(not missing, f"the dictionary has no {missing}")
    for name, positions in right.items():
        found = sorted(as_whole_numbers(answer[name]))
        reason = f"{name}: there are six positions, 0 to 5, not {found}"
        require(set(found) <= set(range(6)), reason)
        if found == positions:
            continue
        if name in ("norm1", "ff"):
            is_alone = found == [2]
            reason = "ff treats each token alone, but it reads h: where has h changed?"
            require(not is_alone, reason)
            reason = "norm1 treats each token alone, so only position 2 changes"
            require(name == "ff", reason)
        reason = "att: later tokens see token 2, so their results change, too"
        require(not (name == "att" and found == [2]), reason)
        reason = f"{name}: position 2 itself changes, too"
        require(found != [3, 4, 5], reason)
        reason = f"{name}: tokens before position 2 do not see token 2"
        require(not set(found) & {0, 1}, reason)
        reason = "norm2 works on each token alone, but it reads h: where has h changed?"
        require(not (name == "norm2" and found == [2]), reason)
        raise NotYet(f"{name} changes at other positions than {found}")


@exercise(
    "4.5.2",
    "write, 8 minutes, ••",
    "The input already travels along the shortcuts. What must be added?",
)
def block_that_does_nothing(answer):
    """A TransformerBlock that returns its input."""
    require_kind(answer, "TransformerBlock")
    x = 10 * torch.randn(2, 4, answer.norm1.scale.numel())
    output = in_eval_mode(answer, TransformerBlock.forward, answer, x)
    right = is_near(output, x)
    parts = {
        "attention": lambda: answer.att(answer.norm1(x)),
        "the feed-forward network": lambda: answer.ff(answer.norm2(x)),
    }
    for name, part in parts.items():
        size = in_eval_mode(answer, part).abs().max().item()
        require(right or size < 1e-6, f"{name} still adds values up to {size:.2g}")
    require(right, "its output is not its input")


@exercise(
    "4.5.3",
    "write, 10 minutes, •••",
    "The parts keep their names; write a forward with other two lines.",
)
def post_norm_block(answer):
    """A TransformerBlock that normalizes after each addition."""
    require_kind(answer, "TransformerBlock")
    block = copy.deepcopy(answer).eval()
    att, ff, norm1, norm2 = block.att, block.ff, block.norm1, block.norm2
    x = torch.randn(2, 4, norm1.scale.numel())
    with torch.no_grad():
        for norm in (norm1, norm2):  # no two of them alike
            norm.scale.uniform_(0.5, 2)
            norm.shift.normal_()
        output = block(x)
        h, swapped, bare = norm1(x + att(x)), norm2(x + att(x)), norm1(att(x))
        both = norm1(x + att(norm1(x)))
        mistakes = (
            (
                TransformerBlock.forward(block, x),
                "it still normalizes before each part",
            ),
            (norm2(both + ff(norm2(both))), "it also normalizes before each part"),
            (norm2(bare + ff(bare)), "attention has lost its shortcut"),
            (norm2(ff(h)), "the feed-forward network has lost its shortcut"),
            (norm2(ff(bare)), "its parts have lost their shortcuts"),
            (h + ff(h), "the vectors that leave it are not normalized"),
            (norm2(x + ff(h)), "the second shortcut starts at h, not at x"),
            (norm1(swapped + ff(swapped)), "norm1 and norm2 have changed places"),
        )
        for mistake, reason in mistakes:
            require(not is_near(output, mistake), reason)
        right = is_near(output, norm2(h + ff(h)), 1e-4)
    require(right, "its output is not what the formulas give")


def tied_parameters(cfg):
    """Parameters of a GPTModel whose two big tables are one."""
    with torch.device("meta"):  # shapes without values
        model = GPTModel(cfg)
    model.out_head.weight = model.tok_emb.weight
    return sum(p.numel() for p in model.parameters())


SMALL_GPT = {"vocab_size": 11, "context_length": 7, "emb_dim": 8, "n_heads": 2}
SMALL_GPT = GPT_CONFIG_124M | SMALL_GPT | {"n_layers": 3, "drop_rate": 0.0}


@exercise(
    "4.6.a",
    "write, 12 minutes, •••",
    "Compare with DummyGPTModel of 4.1: two of its parts are dummies.",
)
def gpt_class(answer):
    """The class GPTModel, with or without checks of its arguments."""
    require_class_of_modules(answer, "GPTModel")
    for change, num_tokens in (({}, 5), ({"n_layers": 1, "emb_dim": 12}, 7)):
        cfg = SMALL_GPT | change
        model = answer(cfg).eval()
        check_gpt_parts(model, cfg)
        shake(model.final_norm)
        ids = torch.randint(cfg["vocab_size"], (2, num_tokens))
        try:
            output = model(ids)
        except RuntimeError as error:
            if "must match" in str(error) and num_tokens < cfg["context_length"]:
                reason = "make only as many positions as the text has tokens"
                raise NotYet(f"a short text fails: {reason} ({error})") from None
            raise NotYet(f"ids of shape {tuple(ids.shape)} raise: {error}") from None
        compare_logits(model, ids, output)
        require_learning(model, output)
    check_embedding_dropout(answer)


def check_gpt_parts(model, cfg):
    """Raise NotYet unless a GPT has its parts, with the sizes of a config."""
    names = "tok_emb", "pos_emb", "trf_blocks", "final_norm", "out_head"
    require_parts(model, *names)
    width = cfg["emb_dim"]
    for name, rows in (("tok_emb", "vocab_size"), ("pos_emb", "context_length")):
        size = tuple(getattr(model, name).weight.shape)
        wanted = cfg[rows], width
        reason = f"{name} has a table of shape {size}, not {wanted}"
        require(size == wanted, reason)
    blocks = list(model.trf_blocks)
    found, wanted = len(blocks), cfg["n_layers"]
    require(found == wanted, f"it has {found} blocks, and n_layers is {wanted}")
    reason = (
        "all blocks are one and the same: make a new TransformerBlock(cfg) for each"
    )
    require(len({id(block) for block in blocks}) == wanted, reason)
    for block in blocks:
        reason = "a block has no parameters: use TransformerBlock, not the dummy"
        require(list(block.parameters()), reason)
    reason = "final_norm has no parameters: use LayerNorm, not the dummy"
    require(list(model.final_norm.parameters()), reason)
    size, wanted = tuple(model.out_head.weight.shape), (cfg["vocab_size"], width)
    reason = f"out_head has weights of shape {size}, not {wanted}"
    require(size == wanted, reason)
    has_bias = getattr(model.out_head, "bias", None) is not None
    require(not has_bias, "out_head should have no bias: bias=False")


@torch.no_grad()
def compare_logits(model, ids, output):
    """Raise NotYet, with the likely mistake, unless these are the model's logits."""
    tokens = F.one_hot(ids, model.tok_emb.weight.shape[0]).float()
    tokens = tokens @ model.tok_emb.weight
    positions = model.pos_emb.weight[: ids.shape[1]]

    def logits(x, blocks=tuple(model.trf_blocks), norm=model.final_norm):
        """What the rest of the model makes of x."""
        for block in blocks:
            x = block(x)
        return norm(x) @ model.out_head.weight.T

    right = logits(tokens + positions)
    found = as_tensor(output)
    shape, size = tuple(right.shape), tuple(found.shape)
    is_last = size == (shape[0], shape[2]) and is_near(found, right[:, -1])
    require(not is_last, "it returns the last row alone; give the logits of each token")
    require(size == shape, f"the result should have shape {shape}, not {size}")
    mistakes = (
        (logits(tokens), "the vectors of the positions are not added"),
        (logits(tokens + positions, norm=nn.Identity()), "final_norm is not used"),
        (logits(tokens + positions, blocks=()), "the blocks are not used"),
        (
            torch.softmax(right, dim=-1),
            "it returns probabilities: leave the softmax out",
        ),
        (
            logits(tokens + model.pos_emb.weight[ids.clamp(max=len(positions) - 1)]),
            "pos_emb gets the token ids; it should get the positions 0, 1, 2, ...",
        ),
        (
            logits(model.final_norm(tokens + positions), norm=nn.Identity()),
            "final_norm comes before the blocks; it belongs behind the last one",
        ),
    )
    for mistake, reason in mistakes:
        require(not is_near(found, mistake), reason)
    if len(model.trf_blocks) > 1:
        first = logits(tokens + positions, model.trf_blocks[:1])
        require(not is_near(found, first), "only the first block is used")
    require(is_near(found, right, 1e-4), "its logits are not those of its parts")


def check_embedding_dropout(answer):
    """Raise NotYet unless the sum of the embeddings goes through dropout."""
    model = answer(SMALL_GPT | {"drop_rate": 0.5}).train()
    model.trf_blocks.eval()
    ids = torch.zeros(2, 5, dtype=torch.long)
    reason = "in training, the sum of the embeddings should go through drop_emb"
    require(not torch.equal(model(ids), model(ids)), reason)
    model.eval()
    reason = "after eval() dropout is still at work; use nn.Dropout"
    require(torch.equal(model(ids), model(ids)), reason)


@exercise(
    "4.6.b",
    "write, 4 minutes, •",
    "Add up p.numel() for each p in model.parameters().",
)
def parameter_counter(answer):
    """A function that counts the parameters of a model."""
    require_function(answer)
    shared = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    shared[1].weight = shared[0].weight
    models = {
        "nn.Linear(3, 2)": nn.Linear(3, 2),
        "nn.Linear(3, 2, bias=False)": nn.Linear(3, 2, bias=False),
        "a small GPTModel": GPTModel(SMALL_GPT),
        "two layers of 5 x 5 weights with one shared matrix": shared,
        "a layer with a buffer": nn.BatchNorm1d(4),
    }
    for name, model in models.items():
        right = sum(math.prod(p.shape) for p in {*model.parameters()})
        output = answer(model)
        require(output is not None, "it returns None: is a `return` missing?")
        found = as_whole_number(output)
        parameters = list(model.parameters())
        mistakes = {
            len(parameters): "that is the number of tensors; count their numbers",
            sum(p.shape[0] for p in parameters): "that counts rows; use p.numel()",
            sum(p.numel() for p in parameters if p.dim() > 1): (
                "vectors are parameters, too: biases, scales and shifts are missing"
            ),
            sum(t.numel() for t in model.state_dict().values()): (
                "a parameter that is used twice counts once, and a buffer does not "
                "count: use parameters()"
            ),
        }
        says = f"for {name} it gives {found}, not {right}"
        reason = mistakes.get(found, "add up the numbers of all parameters")
        require(found == right, f"{says}: {reason}")


@exercise(
    "4.6.c",
    "write, 3 minutes, •",
    "Assign the parameter of one layer to the other: no copy, no .data.",
)
def tie_tables(answer):
    """A function that ties the two large tables of a GPTModel."""
    require_function(answer)
    for change in ({}, {"emb_dim": 12}):
        model = GPTModel(SMALL_GPT | change).eval()
        tables = model.tok_emb.weight, model.out_head.weight
        returned = answer(model)
        require_parts(model, "tok_emb", "out_head")
        ids = torch.randint(11, (2, 5))
        try:
            shape = tuple(model(ids).shape)
        except Exception as error:
            raise NotYet(f"the model does not run any more: {error}") from None
        require(shape == (2, 5, 11), f"the logits now have shape {shape}")
        one, other = model.tok_emb.weight, model.out_head.weight
        if one is other:
            kept = any(one is table for table in tables)
            reason = "both are now a new table; use one of those that the model has"
            require(kept, reason)
            continue
        is_copy = isinstance(returned, nn.Module) and returned is not model
        reason = "it leaves the model as it was: change the model that it gets"
        require(not is_copy, reason)
        same_memory = one.data_ptr() == other.data_ptr()
        reason = (
            "there are still two parameters, on the same numbers: an optimizer would "
            "change them twice in each step. Assign the parameter, not its .data"
        )
        require(not same_memory, reason)
        reason = "the numbers were copied: after a training step they differ again"
        require(not torch.equal(one, other), reason)
        raise NotYet("out_head.weight and tok_emb.weight are still two parameters")


@exercise(
    "4.6.1",
    "predict, 3 minutes, •",
    "Which tokens see token 2 of text 0? Texts do not see each other.",
)
def changed_rows(answer):
    """The rows of logits of two texts of four that change with token 2 of text 0."""
    answer = list(answer) if isinstance(answer, set | frozenset) else answer
    found = as_tensor(answer)
    pairs_only = found.dim() == 2 and found.shape[1] == 2
    require(pairs_only, "it should be a list of pairs: [(text, token), ...]")
    pairs = {tuple(as_whole_numbers(pair)) for pair in found}
    inside = all(text in (0, 1) and 0 <= token < 4 for text, token in pairs)
    require(inside, "texts are 0 and 1, and tokens are 0 to 3")
    reason = "the texts of a batch do not see each other: text 1 does not change"
    require(not any(text for text, _ in pairs), reason)
    reason = "a token does not see later ones: rows 0 and 1 do not change"
    require(not {(0, 0), (0, 1)} & pairs, reason)
    reason = "the row of token 2 itself changes, and those of later tokens that see it"
    require(pairs == {(0, 2), (0, 3)}, reason)


@exercise(
    "4.6.2",
    "write, 10 minutes, ••",
    "Try widths of 128, 192 and 256, and then add layers.",
)
def model_for_a_laptop(answer):
    """A config of 25 to 30 million tied parameters, half of them in the blocks."""
    require_config(answer)
    vocab_size, length = answer["vocab_size"], answer["context_length"]
    require(vocab_size == 50257, f"vocab_size is {vocab_size}; leave it at 50257")
    require(length == 256, f"context_length is {length}, and should be 256")
    head_dim = answer["emb_dim"] / answer["n_heads"]
    require(head_dim == 64, f"its heads have {head_dim:g} numbers each, not 64")
    reason = "that is far too large: a block alone has 12 times the width squared"
    require(answer["emb_dim"] <= 4096 and answer["n_layers"] <= 1000, reason)
    found = tied_parameters(answer)
    with torch.device("meta"):  # shapes without values
        block = TransformerBlock(answer)
    in_blocks = answer["n_layers"] * sum(p.numel() for p in block.parameters())
    reason = f"it has {found / 1e6:.1f} million parameters, tied"
    require(found <= 30_000_000, f"{reason}, more than 30")
    require(found >= 25_000_000, f"{reason}, fewer than 25")
    share = in_blocks / found
    reason = f"only {share:.0%} of its parameters are in the blocks; make it narrower"
    require(share >= 0.5, f"{reason} and deeper")


@exercise(
    "4.6.3",
    "break, 10 minutes, •••",
    "nn.Embedding draws numbers with standard deviation 1, GPT-2 with 0.02.",
)
def tied_model_that_is_not_sure(answer):
    """A tied GPTModel that gives no token a large probability before training."""
    require_kind(answer, "GPTModel")
    tied = answer.out_head.weight is answer.tok_emb.weight
    require(tied, "out_head.weight is not tok_emb.weight: they are two parameters")
    vocab_size, width = answer.tok_emb.weight.shape
    sizes = vocab_size, width, len(answer.trf_blocks)
    reason = "vocab_size, emb_dim and n_layers should be (1000, 192, 2)"
    require(sizes == (1000, 192, 2), f"{reason}, not {sizes}")
    ids = torch.randint(vocab_size, (4, 64))
    logits = in_eval_mode(answer, answer, ids)
    require(logits.isfinite().all(), "its logits are not all finite numbers")
    probabilities = torch.softmax(logits, dim=-1)
    largest = probabilities.max().item()
    own = probabilities.gather(2, ids[..., None]).mean().item()
    says = f"its largest probability is {largest:.2f}, more than 0.05"
    also = f"; the token that was just read gets {own:.2f} on average"
    require(largest <= 0.05, says + also * (own > 0.05))


def next_ids_of(logits):
    """The index of the largest logit in the last row of each text: (b, 1)."""
    rows = [text[-1] for text in logits]
    return torch.tensor([[row.index(max(row))] for row in rows])


@exercise(
    "4.7.a",
    "write, 4 minutes, •",
    "logits[:, -1] is the last row of each text; argmax takes dim and keepdim.",
)
def next_token_of_each_text(answer):
    """A function: logits (b, num_tokens, vocab_size) -> ids (b, 1)."""
    require_function(answer)
    for b, num_tokens, vocab_size in ((1, 2, 6), (3, 4, 7), (4, 2, 9), (2, 1, 30)):
        logits = torch.randn(b, num_tokens, vocab_size)
        logits[:, -1] -= 4 * (num_tokens > 1)  # the largest number is in another row
        right = next_ids_of(logits.tolist())
        found = as_tensor(answer(logits.clone()))
        size, given = tuple(found.shape), f"logits of shape {tuple(logits.shape)}"
        all_rows = logits.argmax(dim=-1)
        reason = "it gives a token for each row; only the last row is about a new token"
        require(size not in {(b, num_tokens), (b, num_tokens, 1)} - {(b, 1)}, reason)
        flat = size == (b,) and torch.equal(found, right[:, 0])
        reason = f"the ids are right, but their shape is {size} and not {(b, 1)}: "
        require(not flat, f"{reason}keep the dimension with keepdim=True")
        last_text = found.numel() == num_tokens and torch.equal(
            found.flatten(), all_rows[-1]
        )
        reason = (
            "logits[-1] is the last text; the last row of each text is logits[:, -1]"
        )
        require(not (last_text and size != (b, 1)), reason)
        over_all = size == () and b > 1 and found == logits.argmax()
        reason = "argmax without dim counts through the whole tensor: use dim=-1"
        require(not over_all, reason)
        reason = f"for {given} the result should have shape {(b, 1)}, not {size}"
        require(size == (b, 1), reason)
        if torch.equal(found.double(), right.double()):
            continue
        largest = logits[:, -1].amax(dim=-1, keepdim=True)
        for wrong, reason in (
            (largest, "these are the largest logits; their indices are wanted"),
            (all_rows[:, :1], "it takes the first row of each text; take the last one"),
            (logits[:, -1].argmin(dim=-1, keepdim=True), "it takes the smallest logit"),
            (
                logits.flatten(1).argmax(dim=1, keepdim=True),
                "it looks for the largest of all rows; take the last row first",
            ),
        ):
            require(not is_near(found, wrong), reason)
        raise NotYet(f"for {given} the ids should be {right.flatten().tolist()}")


class Adder(nn.Module):
    """A model of 20 tokens: each continues the sum of what the model is shown."""

    def __init__(self, most=99):
        super().__init__()
        self.longest = self.calls = 0
        self.most = most
        self.scores = nn.Parameter(torch.eye(20))

    def forward(self, ids):
        self.calls += 1
        self.longest = max(self.longest, ids.shape[1])
        require(ids.dim() == 2, f"the model gets ids of shape {tuple(ids.shape)}")
        if ids.shape[1] > self.most:
            raise ValueError(f"{ids.shape[1]} tokens exceed context_length {self.most}")
        return self.scores[(ids.cumsum(dim=1) + 1) % 20]


def added(row, steps, window=99):
    """What an Adder makes of a list of ids, and the same with mistakes: {name: ids}."""
    names = "right", "last", "row", "again", "first", "front"
    texts = {name: list(row) for name in names}
    for _ in range(steps):
        for name, seen in (("right", window), ("last", 1)):
            texts[name].append((sum(texts[name][-seen:]) + 1) % 20)
        texts["row"].append((texts["row"][-window:][0] + 1) % 20)
        texts["again"].append((sum(row[-window:]) + 1) % 20)
        texts["first"].append((sum(texts["first"][:window]) + 1) % 20)
        texts["front"].insert(0, (sum(texts["front"]) + 1) % 20)
    return texts


def check_written(found, rows, steps, window=99):
    """Raise NotYet unless these are the rows with the tokens that an Adder adds."""
    found = as_tensor(found)
    b, num_tokens = len(rows), len(rows[0])
    size, wanted = tuple(found.shape), (b, num_tokens + steps)
    texts = [added(row, steps, window) for row in rows]
    right = torch.tensor([text["right"] for text in texts])
    given = f"a prompt of {num_tokens} token(s) and {steps} new ones"
    if steps and size == (b, steps):
        only_new = torch.equal(found, right[:, num_tokens:])
        require(not only_new, "it returns the new tokens alone; the prompt comes first")
    end = right[:, -min(window, num_tokens + steps) :]
    is_cut = size != wanted and size == tuple(end.shape) and torch.equal(found, end)
    reason = (
        "it returns the window alone: show the model a part, but keep the whole text"
    )
    require(not is_cut, reason)
    require(size == wanted, f"{given} should give shape {wanted}, not {size}")
    if torch.equal(found.double(), right.double()):
        return
    mistakes = {
        "last": "it shows the model the last token alone; show it all tokens so far",
        "row": "it takes the first row of the logits; take the last one",
        "again": "each step begins with the prompt: put the longer text back into idx",
        "first": "it shows the model the first tokens; the last ones are wanted",
        "front": "it puts new tokens at the front; they belong at the end",
    }
    for name, reason in mistakes.items():
        wrong = torch.tensor([text[name] for text in texts])
        require(not torch.equal(found, wrong), reason)
    begins = torch.equal(found[:, :num_tokens], right[:, :num_tokens])
    require(begins, "the text should begin with the prompt")
    reason = f"{given} gave {found[0].tolist()}, not {right[0].tolist()}"
    if window < 99:
        reason += f" (the model saw up to {window} tokens)"
    raise NotYet(reason)


@exercise(
    "4.7.b",
    "write, 6 minutes, ••",
    "In the loop: ids = next_token(model(idx)), then torch.cat((idx, ids), dim=1).",
)
def greedy_loop(answer):
    """A function (model, idx, max_new_tokens) -> the ids of the longer texts."""
    require_function(answer)
    for rows, steps in (
        ([[2, 7, 1], [4, 0, 9]], 3),
        ([[5]], 4),
        ([[3, 6], [6, 3], [1, 1]], 1),
        ([[8, 2]], 0),
    ):
        idx = torch.tensor(rows)
        found = answer(Adder(), idx, steps)
        require(
            idx.tolist() == rows, "it changes idx itself; torch.cat makes a new one"
        )
        check_written(found, rows, steps)


@exercise(
    "4.7.c",
    "write, 5 minutes, ••",
    "Give the model idx[:, -context_size:], and append to the whole idx.",
)
def greedy_loop_with_a_window(answer):
    """A function (model, idx, max_new_tokens, context_size) -> the longer texts."""
    require_function(answer)
    for rows, steps, window in (
        ([[2, 7, 1, 4, 3], [4, 0, 9, 9, 1]], 3, 3),
        ([[5]], 6, 2),
        ([[3, 6]], 5, 4),
        ([[8, 2]], 3, 64),
        ([[8, 2]], 0, 2),
    ):
        idx, model = torch.tensor(rows), Adder(window)
        try:
            found = answer(model, idx, steps, window)
        except ValueError as error:
            if "exceed context_length" not in str(error):
                raise
            raise NotYet(
                f"with context_size {window} the model gets too much: {error}"
            ) from None
        require(
            idx.tolist() == rows, "it changes idx itself; torch.cat makes a new one"
        )
        check_written(found, rows, steps, window)


TOY_WORDS = ["the", "cat", "sat", "on", "mat", "."]


@exercise(
    "4.7.1",
    "predict, 4 minutes, •",
    "Follow the largest number of each row: the, cat, ... and where does mat lead?",
)
def words_at_the_end(answer):
    """The words that greedy writing with the toy model keeps on writing."""
    if isinstance(answer, str):
        answer = answer.replace(",", " ").split()
    is_list = isinstance(answer, (list, tuple, set, frozenset))
    texts = is_list and all(isinstance(word, str) for word in answer)
    if not texts:
        numbers = as_whole_numbers(answer)
        in_range = all(0 <= number < 6 for number in numbers)
        require(in_range, "write the words, or their ids from 0 to 5")
        answer = [TOY_WORDS[number] for number in numbers]
    found = {word.strip() for word in answer}
    unknown = sorted(found - {*TOY_WORDS})
    require(not unknown, f"{unknown} are not among the six words")
    reason = "no row has its largest number at mat, so it is never written"
    require("mat" not in found, reason)
    reason = "the full stop is written once, after mat, and mat itself is never written"
    require("." not in found, reason)
    missing = sorted({"the", "cat", "sat", "on"} - found)
    require(not missing, f"{missing} can be among them, too: follow the rows further")


@exercise(
    "4.7.2",
    "write, 10 minutes, ••",
    "Start with table[ids]; where the word before the is on, make the score of mat 9.",
)
def model_of_two_words(answer):
    """A function ids -> scores that makes the loop write the cat sat on the mat."""
    require_function(answer)
    ids = torch.tensor([[0, 1, 2], [2, 3, 0]])
    scores = answer(ids)
    require(isinstance(scores, torch.Tensor), "it should return a tensor of scores")
    shape = tuple(scores.shape)
    require(shape == (2, 3, 6), f"ids (2, 3) give shape {shape}, not (2, 3, 6)")
    for rows, right in (
        ([[0]], [[1, 2, 3, 0, 4, 5, 0, 1]]),  # and so on, in the larger circle
        ([[3]], [[0, 4, 5]]),
        ([[2, 3, 0]], [[4, 5]]),
        ([[5, 0]], [[1, 2, 3, 0, 4, 5]]),
        ([[4, 5, 0, 1, 2, 3]], [[0, 4, 5]]),
        ([[2, 3, 0], [3, 5, 0]], [[4], [1]]),
    ):
        idx = torch.tensor(rows)
        new = generate_text_simple(answer, idx, len(right[0]), context_size=8)
        new = new[:, idx.shape[1] :].tolist()
        for row, wanted, words in zip(rows, right, new):
            prompt, wanted, words = (
                " ".join(TOY_WORDS[i] for i in part) for part in (row, wanted, words)
            )
            reason = f"after {prompt!r} it writes {words!r}, not {wanted!r}"
            require(words == wanted, reason)


@exercise(
    "4.7.3",
    "write, 10 minutes, •••",
    "Compare the new id with eos_id before you append it, and break.",
)
def generation_that_ends(answer):
    """generate_text_simple with an early end at eos_id."""
    require_function(answer)
    # after 5, 6 in a window of two comes 5 + 6 + 1
    cases = [
        ([5], 4, 99, [5, 6, 12, 19, 12], "it should stop after max_new_tokens"),
        ([5], 12, 19, [5, 6, 12], "it should stop before it appends eos_id"),
        ([5], 12, 6, [5], "when eos_id is picked at once, the prompt comes back"),
        ([9, 3], 2, 9, [9, 3, 13, 17], "an eos_id in the prompt should not end a text"),
        ([5], 0, 6, [5], "with max_new_tokens 0 the prompt comes back"),
    ]
    for prompt, steps, eos_id, right, reason in cases:
        model = Adder()
        found = answer(model, torch.tensor([prompt]), steps, 2, eos_id)
        found = as_whole_numbers(as_tensor(found).flatten())
        require(model.longest <= 2, "it shows the model more than context_size tokens")
        given = f"prompt {prompt}, {steps} steps, eos_id {eos_id}"
        reason = f"{reason} ({given} gave {found}, not {right})"
        if found[: len(right)] != right[: len(found)]:
            reason = f"in a window of 2, {right} should come, and not {found}"
        require(found == right, reason)


def longest_copy(new, story):
    """The most tokens in a row of a text that are in the story in the same order."""
    pieces = {n: {*zip(*(story[i:] for i in range(n)))} for n in range(1, 11)}
    return max(
        (
            n
            for n, known in pieces.items()
            for i in range(len(new) - n + 1)
            if tuple(new[i : i + n]) in known
        ),
        default=0,
    )


@exercise(
    "4.7.4",
    "open, 30 minutes, •••",
    "Count which token follows which; make a count smaller if its token was used.",
)
def model_without_training(answer):
    """A model made of the story's counts, which neither copies nor repeats itself."""
    require_function(answer)
    tokenizer = get_tokenizer()
    story = tokenizer.encode(load_text())
    followers = {*zip(story, story[1:])}
    for prompt in ("The water", "In the morning", "She"):
        idx = torch.tensor([tokenizer.encode(f" {prompt}")])
        num_tokens = idx.shape[1]
        scores = answer(idx)
        require(isinstance(scores, torch.Tensor), "it should return a tensor of scores")
        size = tuple(scores.shape)
        is_right = len(size) == 3 and size[0] == 1 and size[2] == 50257
        wanted = f"(1, {num_tokens}, 50257), or (1, 1, 50257) with the last row alone"
        require(is_right, f"{num_tokens} ids give shape {size}, not {wanted}")
        row = generate_text_simple(answer, idx, 30, context_size=64)[0].tolist()
        new, text = row[num_tokens:], tokenizer.decode(row)
        num_known = sum(pair in followers for pair in zip(row[num_tokens - 1 :], new))
        reason = f"only {num_known} of 30 new tokens follow their token in the story"
        require(num_known >= 27, f"{reason}, and at least 27 should: {text!r}")
        count = len({*new})
        reason = f"the 30 new tokens are only {count} different ones; 20 are wanted"
        require(count >= 20, f"{reason}: {text!r}")
        copied = longest_copy(new, story)
        reason = "10 tokens in a row, or more, are copied from the story"
        require(copied < 10, f"{reason}: {text!r}")
