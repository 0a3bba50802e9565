"""Checkers of chapter 4's exercises.

Looking in here spoils the exercises.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from ch04.gpt import (
    GPT_CONFIG_124M,
    GPTModel,
    TransformerBlock,
    check_config,
    generate_text_simple,
)
from support.exercises.checking import (
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
)


@exercise(
    "4.1.1",
    "write, 4 minutes, •",
    "What must happen to n_heads so that emb_dim / n_heads stays 64?",
)
def laptop_config(answer):
    """GPT_CONFIG_124M at half the width, a quarter of the depth and of the context."""
    require(isinstance(answer, dict), "it should be a dict like GPT_CONFIG_124M")
    try:
        check_config(answer)
    except ValueError as error:
        require(False, f"check_config says: {error}")
    head_dim = answer["emb_dim"] / answer["n_heads"]
    require(head_dim == 64, f"its heads are {head_dim:g} numbers wide, not 64")
    sizes = {"emb_dim": 384, "n_heads": 6, "n_layers": 3, "context_length": 256}
    for key, right in (GPT_CONFIG_124M | sizes).items():
        require(answer[key] == right, f"{key} {answer[key]} is not what is asked for")


@exercise(
    "4.1.2",
    "number, 4 minutes, •",
    "How many scores does one token get? A float32 takes 4 bytes.",
)
def bytes_of_logits(answer):
    """The bytes of the float32 logits for 8 x 1,024 tokens."""
    found = as_number(answer)
    scores = 8 * 1024 * 50257
    require(found != scores, "that counts the numbers; each of them takes 4 bytes")
    require(found != scores // 8 * 4, "that is one text; the batch holds 8")
    near_units = any(abs(found * 10**k / scores / 4 - 1) < 0.1 for k in (3, 6, 9))
    require(not near_units, f"{found:g} is a larger unit; give bytes")
    reason = f"{found:g} is not batch x tokens x scores a token x bytes a number"
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
    "4.2.1",
    "number, 4 minutes, •",
    "Mean first, then the mean of the squared distances to it.",
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
    require(close, "your numbers do not stand to each other as 1, 1, 1, 9 do")


@exercise(
    "4.2.2",
    "write, 4 minutes, •",
    "What do scale and shift do to a mean of 0 and a deviation of 1?",
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


@exercise(
    "4.4.1",
    "number, 4 minutes, •",
    "Without shortcuts the factors are 0.1, with them 1 + 0.1.",
)
def gain_of_shortcuts(answer):
    """(1.1 / 0.1) ** 24."""
    found = as_number(answer)
    mistakes = {
        11: "that is one layer; the chain has 24",
        1.1**24: "that is the chain with shortcuts; divide it by the one without",
        0.1**24: "that is the chain without shortcuts; divide the one with by it",
        11.0**-24: "it is the other way round: with shortcuts / without",
    }
    for mistake, reason in mistakes.items():
        require(abs(found / mistake - 1) > 0.01, reason)
    reason = f"{found:.3g} is not the product with shortcuts / the one without"
    require(abs(found / 11.0**24 - 1) < 0.01, reason)


@exercise("4.4.2", "number, 3 minutes, •", "x + f(x) needs two tensors of one shape.")
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
    require_kind(answer, "ExampleDeepNeuralNetwork")
    require(answer.use_shortcut, "it was made without shortcuts")
    count = len(answer.layers)
    require(count >= 3, f"it has {count} layers, fewer than three")
    x = 10 * torch.randn(5, answer.layers[0][0].in_features)
    found = answer(x)
    require(found.shape == x.shape, "its output is not as wide as its input")
    off = (found - x).abs().max().item()
    require(off < 1e-5, f"output and input differ by up to {off:.2g}")


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
    "4.5.1",
    "number, 4 minutes, •",
    "Attention has four square matrices and one bias. And the rest?",
)
def parameters_of_a_large_block(answer):
    """The number of parameters in one block of GPT-2 1558M, without qkv bias."""
    answer = as_whole_number(answer)
    with torch.device("meta"):  # shapes without values
        block = TransformerBlock(GPT_CONFIG_124M | {"emb_dim": 1600, "n_heads": 25})
    right = sum(p.numel() for p in block.parameters())
    require(answer != 48 * right, "that is all 48 blocks; one is asked for")
    require(answer != right + 3 * 1600, "query, key and value have no bias here")
    require(
        is_count(answer, right),
        f"{answer:,} is too {'many' if answer > right else 'few'}: count attention, "
        "the feed-forward network and two normalizations",
    )


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


@exercise(
    "4.6.1",
    "number, 4 minutes, •",
    "parameters_by_part counts both tables. Which one goes?",
)
def parameters_of_medium(answer):
    """The number of parameters of GPT-2 medium, tied."""
    answer = as_whole_number(answer)
    cfg = GPT_CONFIG_124M | {"emb_dim": 1024, "n_layers": 24, "n_heads": 16}
    right = tied_parameters(cfg)
    table = cfg["vocab_size"] * cfg["emb_dim"]
    require(answer != right + table, "that is the untied model: one table is too many")
    require(answer != right - table, "that has no table at all; tied models keep one")
    require(answer != 124_412_160, "that is the small model")
    biases = 24 * 3 * cfg["emb_dim"]
    require(answer != right + biases, "query, key and value have no bias here")
    many = "many" if answer > right else "few"
    require(is_count(answer, right), f"{answer:,} parameters are too {many}")


@exercise(
    "4.6.2",
    "number, 8 minutes, ••",
    "4 billion bytes are 250 million parameters. What does a block add?",
)
def layers_that_fit(answer):
    """The most layers of width 1,024 whose training state fits in 4 billion bytes."""
    answer = as_whole_number(answer)
    cfg = GPT_CONFIG_124M | {"emb_dim": 1024, "n_heads": 16}
    require(answer >= 1, "a model has at least one layer")
    require(answer < 100, f"{answer} layers are too many: count the bytes of one")
    for n_layers, verb in ((answer, "take"), (answer + 1, "would also fit: they take")):
        size = 16 * tied_parameters(cfg | {"n_layers": n_layers}) / 1e9
        fits = (size <= 4) == (n_layers == answer)
        require(fits, f"{n_layers} layers {verb} {size:.2f} billion bytes")


@exercise(
    "4.6.3",
    "write, 10 minutes, •••",
    "nn.Embedding draws with standard deviation 1, GPT-2 with 0.02.",
)
def tied_model_with_a_calm_start(answer):
    """A tied GPTModel whose starting loss is near ln(vocab_size)."""
    require_kind(answer, "GPTModel")
    tied = answer.out_head.weight is answer.tok_emb.weight
    require(tied, "out_head.weight is not tok_emb.weight: they are two parameters")
    vocab_size, width = answer.tok_emb.weight.shape
    sizes = vocab_size, width, len(answer.trf_blocks)
    reason = "vocab_size, emb_dim and n_layers should be (1000, 192, 2)"
    require(sizes == (1000, 192, 2), f"{reason}, not {sizes}")
    ids = torch.randint(vocab_size, (4, 65))
    logits = in_eval_mode(answer, answer, ids[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item()
    target = math.log(vocab_size)
    require(
        abs(loss - target) < 0.5,
        f"its loss starts at {loss:.2f}, and ln({vocab_size}) is {target:.2f}",
    )


@exercise(
    "4.7.1",
    "number, 3 minutes, •",
    "The last token is appended and not sent through the model.",
)
def tokens_through_the_model(answer):
    """How many tokens ten steps send through the model, from a prompt of four."""
    answer = as_whole_number(answer)
    require(answer != 140, "the text is shorter at the start: not 14 tokens each time")
    require(answer != sum(range(4, 15)), "the complete text is not sent through again")
    require(answer != sum(range(5, 15)), "the first time only the prompt goes in")
    require(answer == sum(range(4, 14)), f"{answer} is not 4 + 5 + ... over ten steps")


class Adder(nn.Module):
    """A model of 20 tokens: each continues the sum of what the model is shown."""

    def __init__(self):
        super().__init__()
        self.longest = 0
        self.scores = nn.Parameter(torch.eye(20))

    def forward(self, ids):
        self.longest = max(self.longest, ids.shape[1])
        return self.scores[(ids.cumsum(dim=1) + 1) % 20]


@exercise(
    "4.7.2",
    "write, 6 minutes, ••",
    "F.one_hot gives a row with a single 1, where you want the maximum.",
)
def counting_model(answer):
    """A function or module whose highest score is at the id plus one, modulo 20."""
    require_function(answer)
    ids = torch.tensor([[3, 7, 19], [0, 18, 4]])
    scores = answer(ids)
    require(isinstance(scores, torch.Tensor), "it should give back a tensor of scores")
    shape = tuple(scores.shape)
    require(shape == (2, 3, 20), f"ids (2, 3) give shape {shape}, not (2, 3, 20)")
    found = scores[:, -1].argmax(dim=-1).tolist()
    require(found == [0, 5], f"after 19 and 4 it counts {found}, not [0, 5]")
    for start in (0, 7, 17):
        idx = torch.tensor([[start]])
        found = generate_text_simple(answer, idx, 5, context_size=8)[0].tolist()
        right = [(start + step) % 20 for step in range(6)]
        require(found == right, f"from {start} it counts {found[1:]}, not {right[1:]}")


@exercise(
    "4.7.3",
    "write, 10 minutes, •••",
    "Compare idx_next with eos_id before you append it, and break.",
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
            reason = f"in a window of 2, {right} was to come, and not {found}"
        require(found == right, reason)
