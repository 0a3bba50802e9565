"""Checkers of chapter 5's exercises.

Looking in here spoils the exercises.
"""

import copy
import io
import math

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import nn

from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.decoding import generate, softmax_with_temperature
from ch05.llama import GroupedQueryAttention
from ch05.openai_weights import MODEL_CONFIGS, openai_layout
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
)


@exercise(
    "5.1.1",
    "number, 3 minutes, •",
    "Take the mean of the three losses first, then its exponential.",
)
def perplexity_of_three_tokens(answer):
    """The geometric mean of 2, 4 and 8."""
    found = as_number(answer)
    for value, reason in (
        (
            14 / 3,
            "that is the mean of 2, 4 and 8; the mean is taken of their logarithms",
        ),
        (24 / 7, "the mean is taken of the logarithms, not of the probabilities"),
        (math.log(4), "that is the mean loss; the perplexity is its exponential"),
        (64, "that is the exponential of the sum of the losses; take their mean"),
        (1 / 4, "that is a probability; the perplexity is 1 divided by it"),
    ):
        require(not is_near(found, value, 0.01), reason)
    require(is_near(found, 4, 0.01), f"the perplexity is not {found:g}")


@exercise(
    "5.1.2",
    "write, 8 minutes, ••",
    "Taking the same number from all logits changes no probability.",
)
def cross_entropy_by_hand(answer):
    """A function that equals F.cross_entropy, large logits included."""
    require_function(answer)
    targets = torch.tensor([0, 3, 6, 2, 2])
    logits = torch.randn(5, 7)
    high, low = torch.tensor([[1000.0], [0.0], [500.0], [1e4], [-7.0]]), -1000.0
    for name, given, asked in (
        ("small logits", logits, targets),
        ("two rows of logits", logits[:2], targets[:2]),
        ("logits around 1,000", logits + 1000, targets),
        ("logits around -1,000", logits + low, targets),
        ("rows far from each other", logits + high, targets),
        (
            "a right logit of 1,000 among small ones",
            1000 * F.one_hot(targets, 7),
            targets,
        ),
        ("large logits, wrong ones among them", 1000 * logits, targets),
    ):
        expected = F.cross_entropy(given.double(), asked).item()
        with Refusing("cross_entropy"):
            loss = as_number(answer(given.float(), asked.clone()))
        total = is_near(loss, expected * len(asked), 1e-4)
        require(not total or is_near(loss, expected, 1e-3), "it is a sum, not a mean")
        reason = f"for {name} it gives {loss:.4g}, not {expected:.4g}"
        require(is_near(loss, expected, 1e-3), reason)


@exercise(
    "5.1.3",
    "write, 5 minutes, ••",
    "How many nats does the whole text cost, and how many bits is a nat?",
)
def bits_of_a_character(answer):
    """A function that converts nats per token to bits per character."""
    require_function(answer)
    found = as_number(answer(math.log(2), 50, 200))
    in_nats = is_near(found, 0.25 * math.log(2), 1e-3)
    require(not in_nats, "it gives nats; a bit is ln 2 nats")
    require(
        is_near(found, 0.25, 1e-3),
        f"50 tokens of 1 bit each over 200 characters give 0.25, not {found:.4g}",
    )
    found = as_number(answer(3.0, 10, 40))
    require(is_near(found, 1.0820, 1e-3), f"3 nats gave {found:.4g}, not 1.082")


@exercise(
    "5.2.1",
    "write, 4 minutes, •",
    "How many whole windows fit, if the last token is only a target?",
)
def steps_of_a_run(answer):
    """A function that counts the optimizer's steps."""
    require_function(answer)
    for sizes, expected in (
        ((5145, 256, 2, 10), 100),
        ((513, 256, 2, 10), 10),
        ((512, 256, 2, 10), 0),
        ((1281, 256, 2, 3), 6),
    ):
        found = as_number(answer(*sizes))
        require(found == expected, f"{sizes} gives {expected} steps, not {found:g}")


@exercise(
    "5.2.2",
    "write, 8 minutes, ••",
    "Remember where the lowest loss stood, and how long ago that was.",
)
def early_stopping(answer):
    """A function that finds the evaluation at which patience runs out."""
    require_function(answer)
    for losses, patience, expected, hint in (
        ([5, 4, 3, 4, 5, 6], 2, 4, "the minimum, 3, is two evaluations old"),
        ([5, 4, 3, 4, 2, 3, 3, 3], 3, 7, "2 is a new minimum"),
        ([5, 4, 3], 1, None, "it should go on"),
        ([5, 4, 3, 4], 2, None, "one loss without a new minimum is not two"),
        ([3, 4], 1, 1, "the last loss counts, too"),
        ([3, 3, 3], 2, 2, "an equal loss is no new minimum"),
        ([3, 5, 4.5, 4], 2, 2, "compare with the minimum, not with the loss before"),
        ([3, 4, 5, 1, 2, 3], 2, 2, "the run stops before it can see the losses after"),
    ):
        found = answer(list(losses), patience)
        found = found if found is None else as_whole_number(found)
        reason = f"for {losses} and patience {patience} it gave {found}, not {expected}"
        require(found == expected, f"{reason}: {hint}")


@exercise(
    "5.2.3",
    "write, 10 minutes, •••",
    "A copy of length 5 contains a copy of length 4. Let it grow.",
)
def longest_common_run(answer):
    """A function that finds the longest part of a sample that is copied."""
    require_function(answer)
    for sample, text, length in (
        ("the tide was late", "and the tide was out", 13),
        ("abc", "xyz", 0),
        ("abc", "zabcz", 3),
        ("one tide, two tides", "two tides, one tide", 9),
    ):
        found = answer(sample, text)
        require_kind(found, "str")
        require(
            found in sample and found in text,
            f"{found!r} does not stand in both {sample!r} and {text!r}",
        )
        require(
            len(found) == length,
            f"{sample!r} has a copy of {length} characters, not {len(found)}",
        )


@exercise(
    "5.2.4", "write, 6 minutes, ••", "Both pieces are the peak at step num_warmup - 1."
)
def root_schedule(answer):
    """A function that gives the learning rates of the first transformers."""
    require_function(answer)
    for step, num_warmup, peak_lr in (
        (0, 4, 1.0),
        (3, 4, 1.0),
        (15, 4, 2.0),
        (99, 1, 3),
    ):
        number = step + 1
        expected = peak_lr * min(number / num_warmup, math.sqrt(num_warmup / number))
        found = as_number(answer(step, num_warmup, peak_lr))
        require(
            is_near(found, expected),
            f"at step {step}, with {num_warmup} steps of warm-up to {peak_lr}, it gave "
            f"{found}, not {expected}",
        )


@exercise(
    "5.2.5",
    "write, 8 minutes, ••",
    "Try the numbers from 1 up. The first that divides and fits is it.",
)
def equal_parts(answer):
    """A function that finds into how many parts a batch has to be cut."""
    require_function(answer)
    for batch_size, most, expected in ((8, 8, 1), (8, 3, 4), (12, 5, 3), (7, 3, 7)):
        found = as_number(answer(batch_size, most))
        require(
            found == expected,
            f"for {batch_size} windows, at most {most} in a part, it gave {found:g}, "
            f"not {expected}",
        )


@exercise("5.2.6", "write, 8 minutes, ••", "Within one pass no window comes twice.")
def windows_not_seen(answer):
    """A function that counts the windows that a short run has left out."""
    require_function(answer)
    for sizes, expected in (
        ((100, 8, 3), 76),
        ((100, 8, 12), 4),
        ((100, 8, 13), None),
        ((96, 8, 12), 0),
        ((5, 2, 0), 5),
    ):
        found = answer(*sizes)
        found = found if found is None else as_whole_number(found)
        require(found == expected, f"{sizes} gives {expected}, not {found}")


@exercise(
    "5.3.1",
    "number, 5 minutes, ••",
    "It is below 1. Halve the interval that holds it, a few times.",
)
def temperature_for_nine_tenths(answer):
    """The temperature at which the toy logits give one word 0.9."""
    temperature = as_number(answer)
    require(temperature > 0, f"a temperature is above 0, and not {temperature}")
    logits = torch.tensor([4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79])
    share = softmax_with_temperature(logits, temperature).max().item()
    require(0.898 <= share <= 0.902, f"at {temperature:.4g} it gets {share:.3f}")


@exercise(
    "5.3.2",
    "write, 8 minutes, ••",
    "Each row has its own likeliest token: max(dim=-1, keepdim=True).",
)
def min_p(answer):
    """A function that keeps what is at least min_p times the likeliest."""
    require_function(answer)
    sure = torch.tensor([0.125, 0.5, 0.0625, 0.25, 0.0625])
    unsure = torch.tensor([0.125, 0.25, 0.25, 0.25, 0.125])
    for probas in (sure, unsure, torch.stack((sure, unsure))):
        for share in (0.2, 0.5, 1.0):
            kept = probas * (probas >= share * probas.amax(dim=-1, keepdim=True))
            expected = kept / kept.sum(dim=-1, keepdim=True)
            given = probas.clone()
            found = as_tensor(answer(given, share))
            case = f"for {probas.tolist()} and min_p {share} it gives"
            require(
                found.shape == expected.shape and is_near(found, expected),
                f"{case} {found.tolist()}, not {expected.tolist()}",
            )
            require(torch.equal(given, probas), "it changes the tensor it was given")


@exercise(
    "5.3.3",
    "write, 10 minutes, •••",
    "zip(row, row[1:]) walks through all pairs of neighbours.",
)
def no_pair_twice(answer):
    """A function that finds the ids which have followed the last one before."""
    require_function(answer)
    for row, expected in (
        ([7, 3, 5, 7], {3}),
        ([1, 2, 1, 3, 1], {2, 3}),
        ([1, 2, 3], set()),
        ([4], set()),
        ([2, 2], {2}),
        ([5, 6, 7, 5, 6], {7}),
    ):
        found = set(as_whole_numbers(answer(list(row))))
        require(found == expected, f"for {row} it gives {found}, not {expected}")


@exercise(
    "5.3.4",
    "number, 4 minutes, •",
    "A key and a value, in each layer, for each token: emb_dim numbers each.",
)
def bytes_of_a_cache(answer):
    """The size of the cache of GPT-2 124M for 1,024 tokens in float32."""
    found, exact = as_number(answer), 2 * 12 * 768 * 1024 * 4
    require(found > 1000, f"{found:g} is of a larger unit; give bytes")
    require(found != exact / 2, "that is half of it: there are keys and values")
    require(found != exact / 4, "that counts numbers; each of them has four bytes")
    require(found != exact / 12, "that is the size of one layer, and there are twelve")
    size = "small" if found < exact else "large"
    require(abs(found - exact) <= 0.005 * exact, f"{found:,.0f} bytes is too {size}")


@exercise(
    "5.3.5",
    "write, 8 minutes, ••",
    "Of torch.ones(8, 8).tril(), which rows belong to the new tokens?",
)
def mask_of_three_new_tokens(answer):
    """The mask of 3 new tokens behind 5 in the cache."""
    mask = as_tensor(answer)
    require(
        mask.dtype == torch.bool, f"it should hold True and False, not {mask.dtype}"
    )
    shape = tuple(mask.shape)
    require(shape[-2:] == (3, 8), f"its last axes should be (3, 8); it is {shape}")
    require(mask.numel() == 24, f"(3, 8) is enough, and it has shape {shape}")
    around = not mask.view(3, 8)[:, 0].any()
    require(not around, "it is upside down: True is where a new token may look")
    for row, visible in enumerate(mask.view(3, 8).tolist()):
        for place, sees in enumerate(visible):
            verb = "sees" if sees else "does not see"
            require(sees == (place <= 5 + row), f"token {5 + row} {verb} token {place}")


@exercise(
    "5.3.6",
    "write, 10 minutes, •••",
    "The prompt at once, then a token a step, until the window is full.",
)
def tokens_that_are_computed(answer):
    """A function that counts the tokens which generate sends through the model."""
    require_function(answer)
    tiny = {"vocab_size": 9, "context_length": 32, "emb_dim": 4, "n_heads": 2}
    model = GPTModel(GPT_CONFIG_124M | tiny | {"n_layers": 1})
    counts = []
    model.tok_emb.register_forward_hook(lambda *args: counts.append(args[1][0].numel()))
    for num_prompt, num_new, context_size in (
        (4, 10, 32),
        (1, 1, 32),
        (4, 10, 8),
        (3, 5, 8),
        (10, 5, 8),
    ):
        counts.clear()
        generate(model, [[1] * num_prompt], num_new, context_size)
        found = as_number(answer(num_prompt, num_new, context_size))
        require(
            found == sum(counts),
            f"{num_prompt} tokens, {num_new} new ones and a window of {context_size} "
            f"make {sum(counts)}, not {found:g}",
        )


@exercise(
    "5.4.1",
    "number, 4 minutes, •",
    "Three numbers for each parameter: its value and two means.",
)
def bytes_of_a_checkpoint(answer):
    """Twelve bytes for each parameter."""
    found = as_number(answer)
    for times, reason in (
        (1, "that counts numbers of one kind; each takes four bytes"),
        (3, "that counts the numbers; each of them takes four bytes"),
        (4, "that is the model alone"),
        (8, "AdamW keeps two means, beside the model"),
        (16, "gradients are not saved"),
    ):
        require(not is_count(found, times * 124_439_808), reason)
    reason = f"{found:,.6g} is not the number of bytes"
    require(is_count(found, 12 * 124_439_808), reason)


@exercise(
    "5.4.2",
    "write, 8 minutes, ••",
    "Eight bytes, little end first, tell how long the JSON text is.",
)
def shapes_in_a_file(answer):
    """A function from a file's bytes to {name: shape}."""
    require_function(answer)
    tensors = {"a": torch.ones(2, 3), "b.bias": torch.ones(4)}
    expected = {"a": [2, 3], "b.bias": [4]}
    for content, what in (
        (save(tensors), f"for tensors of shapes {expected}"),
        (save(tensors, metadata={"config": "{}"}), "with metadata in the table"),
    ):
        found = answer(content)
        require_kind(found, "dict")
        has_rows = not any(isinstance(shape, (str, dict)) for shape in found.values())
        require(has_rows, f"{what} it gives {found}")
        found = {name: as_whole_numbers(shape) for name, shape in found.items()}
        require(found == expected, f"{what} it gives {found}")


@exercise(
    "5.4.3",
    "write, 12 minutes, •••",
    "torch.get_rng_state() is a tensor; what sets it again?",
)
def going_on_after_a_break(answer):
    """Two functions, to save a run with dropout and to restore it."""
    require(
        isinstance(answer, (tuple, list)) and len(answer) == 2,
        "it should be the two functions: answer = save, resume",
    )
    save_run, resume = answer
    require_function(save_run)
    require_function(resume)
    with torch.random.fork_rng(devices=[]):
        model, optimizer = run_with_dropout(123)
        losses_of_steps(model, optimizer)
        state = through_a_file(save_run(model, optimizer))
        weights, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
        expected = losses_of_steps(model, optimizer)
        model, optimizer = run_with_dropout(7)
        resume(state, model, optimizer)
        loaded = model.state_dict()
        same = all(torch.equal(loaded[name], weights[name]) for name in weights)
        require(same, "after `resume` the model has other weights")
        same = torch.equal(torch.get_rng_state(), generator)
        require(same, "after `resume` the next random numbers are others: dropout")
        found = losses_of_steps(model, optimizer)
    require(
        found == expected,
        f"the losses after the break are {found}, and without it {expected}: what "
        "does the optimizer remember?",
    )


def run_with_dropout(seed):
    """A small model with dropout, and its optimizer."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8))
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def losses_of_steps(model, optimizer):
    """Train for three steps: the losses, which depend on all that a run remembers."""
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.mse_loss(model(torch.ones(4, 8)), torch.zeros(4, 8))
        loss.backward()
        optimizer.step()
        losses.append(round(loss.item(), 6))
    return losses


def through_a_file(state):
    """What is left of a state when it has been written and read again."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        return torch.load(file, weights_only=True)
    except Exception:
        raise NotYet("torch.load(..., weights_only=True) refuses its file") from None


@exercise(
    "5.5.1",
    "number, 4 minutes, •",
    "The queries of all heads come first, and a head is 768 / 12 wide.",
)
def columns_of_a_head(answer):
    """The columns of c_attn/w that make the keys of head 7."""
    found = as_whole_numbers(answer)
    first, last = found[0], found[-1]
    columns = f"columns {first} to {last}"
    require(len(found) == 64, f"these are {len(found)} columns, and a head has 64")
    whole = found == list(range(first, first + 64))
    require(whole, f"{columns} do not stand side by side")
    third = "queries" if first < 768 else "values"
    require(768 <= first < 1536, f"{columns} make {third}, not keys")
    head = (first - 768) / 64
    require(head == 7, f"{columns} are those of head {head:g}, not of head 7")


@exercise(
    "5.5.2",
    "write, 8 minutes, ••",
    "A block has 12 matrices of emb_dim x emb_dim, in effect.",
)
def gpt2_parameters(answer):
    """A function that counts GPT-2's parameters, tied and with all biases."""
    require_function(answer)
    for name, size in MODEL_CONFIGS.items():
        cfg = GPT_CONFIG_124M | {"drop_rate": 0.0, "qkv_bias": True} | size
        width = cfg["emb_dim"]
        embeddings = (cfg["vocab_size"] + cfg["context_length"]) * width
        blocks = cfg["n_layers"] * (12 * width + 13) * width
        expected, found = embeddings + blocks + 2 * width, as_number(answer(cfg))
        require(
            found != expected + cfg["vocab_size"] * width,
            "it counts the output layer besides the token embedding: they are one",
        )
        reason = f"{name} has {expected:,} parameters, not {found:,.0f}"
        require(is_count(found, expected), reason)


@exercise(
    "5.5.3",
    "write, 10 minutes, •••",
    "dict(openai_layout(gpt)) has the parameters; join, then transpose.",
)
def back_to_openai(answer):
    """A function from a GPTModel and a name to OpenAI's array of that name."""
    require_function(answer)
    cfg = GPT_CONFIG_124M | {"vocab_size": 11, "context_length": 5, "emb_dim": 6}
    cfg |= {"n_layers": 2, "n_heads": 2, "drop_rate": 0.0, "qkv_bias": True}
    gpt = GPTModel(cfg)
    for parameter in gpt.parameters():
        torch.nn.init.normal_(parameter)
    for name, parameters in openai_layout(gpt):
        expected = torch.cat([parameter.detach() for parameter in parameters])
        expected = expected.T if name.endswith("/w") else expected
        found = as_tensor(answer(gpt, name)).squeeze()
        shape, wanted = tuple(found.shape), tuple(expected.shape)
        require(shape == wanted, f"{name} has shape {shape}, not {wanted}")
        require(is_near(found, expected), f"{name} has other values than the file")


@exercise(
    "5.6.1",
    "write, 6 minutes, ••",
    "A turn is 2 * pi; rope_angles at position 1 gives the speeds.",
)
def tokens_of_a_turn(answer):
    """A function that gives the wavelength of each rotary pair."""
    require_function(answer)
    for head_dim, rope_base in ((8, 10_000.0), (64, 100_000.0), (2, 500.0)):
        pairs = torch.arange(head_dim // 2, dtype=torch.float64)
        expected = 2 * math.pi * rope_base ** (2 * pairs / head_dim)
        found = as_tensor(answer(head_dim, rope_base)).double().reshape(-1)
        shape, wanted = tuple(found.shape), tuple(expected.shape)
        require(
            shape == wanted, f"head_dim {head_dim} gives shape {shape}, not {wanted}"
        )
        require(
            torch.allclose(found, expected, rtol=1e-3),
            f"for head_dim {head_dim} and rope_base {rope_base:g} the first pair turns "
            f"once in {expected[0]:.4g} tokens, the last in {expected[-1]:.6g}; you "
            f"have {found[0]:.4g} and {found[-1]:.6g}",
        )


@exercise(
    "5.6.2",
    "write, 12 minutes, •••",
    "W_key.weight.unflatten(0, (groups, heads of each, head_dim)).mean(1)",
)
def sharing_heads(answer):
    """A function that averages the keys and values of neighbouring heads."""
    require_function(answer)
    many = GroupedQueryAttention(48, 6, 6, rope_base=500.0)
    before = {name: weight.clone() for name, weight in many.state_dict().items()}
    for groups in (3, 2, 1):
        few = answer(many, groups)
        require_kind(few, "GroupedQueryAttention")
        require(few is not many, "it should be a new layer")
        after = many.state_dict()
        same = all(torch.equal(after[name], before[name]) for name in before)
        require(same, "it changed the layer that it was given")
        for name, weight in before.items():
            found = few.get_parameter(name)
            if name in ("W_key.weight", "W_value.weight"):
                weight = weight.unflatten(0, (groups, -1, 8)).mean(dim=1).flatten(0, 1)
            shapes = tuple(found.shape), tuple(weight.shape)
            require(shapes[0] == shapes[1], f"{name} is {shapes[0]}, not {shapes[1]}")
            is_mean = is_near(found, weight)
            require(is_mean, f"with {groups} groups {name} has other values")
        require(few.rope_base == many.rope_base, "rope_base should stay as it was")
        same = GroupedQueryAttention(48, 6, groups, rope_base=500.0)
        same.load_state_dict(few.state_dict())
        x = torch.randn(2, 5, 48)
        reason = f"with {groups} groups it does not compute what its weights say"
        require(is_near(few(x), same(x)), reason)


@exercise(
    "5.6.3",
    "write, 10 minutes, •••",
    "packed & 15 leaves the lower four bits, packed >> 4 the upper four.",
)
def four_bits(answer):
    """A function that unpacks blocks of 32 numbers from 16 bytes each."""
    require_function(answer)
    low, step = -torch.rand(5, 1), torch.rand(5, 1) / 8
    codes = torch.randint(16, (5, 32), dtype=torch.uint8)
    packed = codes[:, :16] | codes[:, 16:] << 4
    found = as_tensor(answer(low.clone(), step.clone(), packed.clone()))
    shape = tuple(found.shape)
    require(shape == (5, 32), f"five blocks should give shape (5, 32), not {shape}")
    off = (found - (low + step * codes)).abs() > 1e-5
    if off.any():
        row, column = off.nonzero()[0].tolist()
        raise NotYet(
            f"value {column} of a block is {found[row, column]:.4f}, and its code "
            f"{codes[row, column]} with low {low[row, 0]:.4f} and step "
            f"{step[row, 0]:.4f} gives {(low + step * codes)[row, column]:.4f}"
        )


@exercise(
    "5.7.1",
    "write, 5 minutes, ••",
    "What stays takes 1 - share; what was changed takes share / factor.",
)
def amdahl(answer):
    """A function that gives the speed-up of the whole from that of a part."""
    require_function(answer)
    for share, factor in ((0.5, 2), (0.9, 10), (0.2, 1e9), (1.0, 3)):
        expected = 1 / (1 - share + share / factor)
        found = as_number(answer(share, factor))
        require(
            is_near(found, expected),
            f"{share} of a step made {factor} times as fast gives {found:.4f}, not "
            f"{expected:.4f}",
        )


@exercise(
    "5.7.2",
    "write, 6 minutes, ••",
    "In units of a step, an evaluation takes 2 * eval_iter / 3.",
)
def share_of_evaluation(answer):
    """A function that gives the share of a run that its evaluations take."""
    require_function(answer)
    for eval_freq, eval_iter in ((5, 5), (100, 8), (6, 2)):
        cost = 2 * eval_iter / 3
        expected = cost / (eval_freq + cost)
        found = as_number(answer(eval_freq, eval_iter))
        require(
            is_near(found, expected),
            f"every {eval_freq} steps on {eval_iter} batches: {found:.4f}, not "
            f"{expected:.4f}",
        )


@exercise(
    "5.7.3",
    "write, 8 minutes, ••",
    "The tokens grow with the parameters, so the parameters come twice.",
)
def days_of_training(answer):
    """A function that gives the days that a training run takes."""
    require_function(answer)
    for sizes in ((124e6, 20, 4e11), (1.5e9, 20, 3e15), (1e6, 5, 1e10)):
        num_parameters, tokens, flops = sizes
        expected = 6 * num_parameters**2 * tokens / flops / 86400
        found = as_number(answer(*sizes))
        require(
            is_near(found / expected, 1),
            f"for {sizes} it gave {found:.4g} days, not {expected:.4g}",
        )
