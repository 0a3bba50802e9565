"""Checkers of chapter 7's exercises.

Looking in here spoils the exercises.
"""

import math
import re

import torch
from torch import nn

from ch02.tokenizer import get_tokenizer
from ch04.gpt import GPTModel
from ch05.recipe import learning_rate_at
from ch07.evaluation import rouge_l
from ch07.instructions import (
    InstructionDataset,
    custom_collate_draft_2,
    custom_collate_fn,
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
from support.weights.checkpoint import is_tied

SHORT = {"instruction": "Name a color.", "input": "", "output": "Green."}
LONG = {"instruction": "Make it plural:", "input": "a goose", "output": "two geese"}


@exercise(
    "7.2.1",
    "write, 4 minutes, •",
    "Which letters or digits, cut in two, would GPT-2 rather have whole?",
)
def bad_seam(answer):
    """A prompt and an answer that are encoded otherwise apart than in one text."""
    require(isinstance(answer, (tuple, list)), "it should be a pair of texts")
    is_pair = len(answer) == 2 and all(isinstance(text, str) for text in answer)
    require(is_pair, "it should be two texts, (prompt, answer)")
    prompt, output = answer
    require(prompt and output, "one of the two texts is empty")
    require(not prompt[-1].isspace(), "the prompt ends in white space")
    require(not output[0].isspace(), "the answer begins with white space")
    encode = get_tokenizer().encode_ordinary
    apart, whole = encode(prompt) + encode(output), encode(prompt + output)
    require(apart != whole, f"apart and in one text it is {whole}, a clean seam")


@exercise(
    "7.2.2",
    "write, 6 minutes, ••",
    "Begin as format_input does, with the part for the input apart.",
)
def form_of_phi3(answer):
    """A function that writes an entry in the form of Phi-3's prompts."""
    require_function(answer)
    for entry in (SHORT, LONG):
        found = answer(dict(entry))
        require_kind(found, "str")
        lines = ["<|user|>", entry["instruction"], entry["input"], "<|assistant|>"]
        wanted = "\n".join(line for line in lines if line) + "\n"
        missing = [line for line in lines if line not in found]
        require(not missing, f"of {entry} the prompt lacks {missing[:1]}")
        require(entry["output"] not in found, "the prompt must not hold the answer")
        blank = f"an empty line stands where the input would, in {found!r}"
        require("\n\n" not in found, blank)
        require(found == wanted, f"of {entry} it makes {found!r}")


@exercise(
    "7.2.3",
    "write, 8 minutes, ••",
    "len(token_ids) of an entry's prompt and output, and the end's place.",
)
def entries_that_fit(answer):
    """A function that parts the entries that fit from those that do not."""
    require_function(answer)
    tokenizer = get_tokenizer()
    words = {"instruction": "Say it.", "input": "", "output": "yes " * 40}
    data = [words, SHORT, LONG, words | {"input": "now"}, SHORT | {"output": "Red."}]
    sizes = [len(row) + 1 for row in InstructionDataset(data, tokenizer)]
    for max_length in sorted({*sizes, min(sizes) - 1, max(sizes) - 1}):
        found = answer([*data], tokenizer, max_length)
        is_pair = isinstance(found, (tuple, list)) and len(found) == 2
        require(is_pair, "it should return two lists, of what fits and what does not")
        fits = [entry for entry, n in zip(data, sizes) if n <= max_length]
        others = [entry for entry, n in zip(data, sizes) if n > max_length]
        ours, theirs = (list(part) for part in found)
        require(
            sorted(map(str, ours + theirs)) == sorted(map(str, data)),
            "an entry is in neither list, or in both",
        )
        for entry in ours:
            length = sizes[data.index(entry)]
            reason = f"it keeps an entry of {length} tokens, with the end, for"
            require(entry in fits, f"{reason} a max_length of {max_length}")
        for entry in theirs:
            length = sizes[data.index(entry)]
            reason = f"it leaves out an entry of {length} tokens, with the end, for"
            require(entry in others, f"{reason} a max_length of {max_length}")
        in_order = (ours, theirs) == (fits, others)
        require(in_order, "the entries are no longer in their old order")


@exercise(
    "7.3.1",
    "number, 4 minutes, •",
    "The last token of a prompt has the answer's first as its target.",
)
def targets_of_a_toy_batch(answer):
    """The targets of two rows with prompts of two tokens and of one."""
    has_rows = hasattr(answer, "__len__") and not isinstance(answer, str)
    require(has_rows, "it should be two rows of numbers")
    rows = [as_whole_numbers(row) for row in answer]
    wanted = [[-100, 7, 8, 0], [2, 3, 0, -100]]
    for wrong, reason in (
        ([[5, 6, 7, 8], [1, 2, 3, 0]], "those are the inputs"),
        ([[6, 7, 8, 0], [2, 3, 0, 0]], "that is the second draft; mark what is left"),
        ([[6, 7, 8, 0], [2, 3, 0, -100]], "the first row's prompt is not marked"),
        ([[-100, -100, 7, 8], [-100, 2, 3, -100]], "the targets are not moved"),
    ):
        require(rows != wrong, reason)
    sizes = [len(row) for row in rows]
    require(sizes == [4, 4], f"it should be two rows of 4 targets, not {sizes}")
    for number, (row, right) in enumerate(zip(rows, wanted)):
        for place in range(4):
            reason = f"row {number}, place {place} should not be {row[place]}"
            require(row[place] == right[place], reason)


def wider(batch, pad_token_id):
    """Right, with a place of padding more than needed."""
    inputs, targets = custom_collate_fn(batch, pad_token_id)
    more = torch.full((len(batch), 1), pad_token_id)
    return torch.cat([inputs, more], 1), torch.cat([targets, 0 * more - 100], 1)


def with_prompts(batch, pad_token_id):
    """Right about the end; the prompts count, too."""
    return custom_collate_fn([row for row, _ in batch], pad_token_id)


def without_padding(batch, pad_token_id):
    """Every target that equals the padding token is ignored."""
    inputs, targets = custom_collate_fn(batch, pad_token_id)
    return inputs, targets.masked_fill(targets == pad_token_id, -100)


def all_padding(batch, pad_token_id):
    """No target is ignored."""
    return custom_collate_draft_2([row for row, _ in batch], pad_token_id)


def without_end_of_longest(batch, pad_token_id):
    """Padded to the longest row, and the end is not thought of."""
    inputs, targets = custom_collate_fn(batch, pad_token_id)
    return inputs[:, :-1], targets[:, :-1]


def end_at_the_edge(batch, pad_token_id):
    """The end is learned at the end of the row, behind the padding."""
    inputs, targets = without_padding(batch, pad_token_id)
    targets[:, -1] = pad_token_id
    return inputs, targets


def another_end(batch, pad_token_id):
    """Padded with the token asked for, ended by another."""
    inputs, targets = custom_collate_fn(batch, pad_token_id)
    return inputs, targets.masked_fill(targets == pad_token_id, pad_token_id + 1)


def end_of_first_row(batch, pad_token_id):
    """Only the first row keeps its end."""
    inputs, targets = custom_collate_fn(batch, pad_token_id)
    others = without_padding(batch, pad_token_id)[1]
    return inputs, torch.cat([targets[:1], others[1:]])


def end_of_longest(batch, pad_token_id):
    """Only rows without padding keep their ends."""
    inputs, targets = custom_collate_fn(batch, pad_token_id)
    is_full = (inputs != pad_token_id).all(dim=1, keepdim=True)
    keeps = is_full | (targets != pad_token_id)
    return inputs, torch.where(keeps, targets, -100)


@exercise(
    "7.3.2",
    "write, 10 minutes, •••",
    "At place len(row) - 1 the target is the end, and nowhere else.",
)
def test_of_ends(answer):
    """A function that says whether batches teach the end of each answer once."""
    require_function(answer)
    for collate_fn, is_right, reason in (
        (custom_collate_fn, True, "it finds fault with custom_collate_fn"),
        (without_padding, False, "it passes batches in which no end is a target"),
        (all_padding, False, "it passes batches in which all padding is a target"),
        (wider, True, "it fails right batches that are a place wider than needed"),
        (with_prompts, True, "it fails batches for their prompts; ask about the end"),
        (without_end_of_longest, False, "it misses that the longest row has no end"),
        (end_of_first_row, False, "it passes batches with the end of row 0 alone"),
        (end_of_longest, False, "it passes batches whose padded rows have no end"),
        (end_at_the_edge, False, "it passes ends that stand behind the padding"),
        (another_end, False, "it takes another token than pad_token_id for the end"),
    ):
        found = answer(collate_fn)
        require(found is not None, "it returns None; did you forget `return`?")
        require(bool(found) == is_right, reason)


@exercise(
    "7.3.3",
    "write, 12 minutes, •••",
    "Make one row of tokens and one of True and False; then shift both.",
)
def targets_of_a_conversation(answer):
    """A function that makes inputs and targets of a conversation."""
    require_function(answer)
    for turns in (
        [([1, 2, 3], False), ([4, 5], True)],
        [([1, 2], False), ([3], True), ([4], False), ([5, 6], True)],
        [([1, 2], True), ([3, 4], True), ([5], False), ([6], False), ([7], True)],
        [([1], False), ([9, 2], True), ([9, 3], False), ([4, 9], True)],
    ):
        row, targets = [], []
        for token_ids, is_answer in turns:
            turn = token_ids + [9] if is_answer else token_ids
            row += turn
            targets += turn if is_answer else [-100] * len(turn)
        found = answer([(list(ids), is_answer) for ids, is_answer in turns], 9)
        is_pair = isinstance(found, (tuple, list)) and len(found) == 2
        require(is_pair, "it should return two lists, inputs and targets")
        inputs, marked = (as_whole_numbers(part) for part in found)
        require(len(inputs) == len(marked), "the lists are not of one length")
        what = f"of {turns}, with 9 as the end, the"
        reason = f"{what} last end is an input: nothing comes after it"
        require(inputs != row, reason)
        require(inputs == row[:-1], f"{what} inputs are {inputs}, not {row[:-1]}")
        wanted = targets[1:]
        require(marked == wanted, f"{what} targets are {marked}, not {wanted}")


@exercise(
    "7.5.1",
    "number, 5 minutes, ••",
    "A matrix of a by b gets rank * (a + b). Each block has six.",
)
def numbers_of_lora(answer):
    """The numbers that learn in GPT-2's second size with LoRA of rank 8."""
    number = as_number(answer)
    blocks, head = 24 * 8 * (4 * 2 * 1024 + 2 * 5 * 1024), 8 * (1024 + 50257)
    for value, reason in (
        (blocks, "that leaves the output layer out"),
        (blocks / 24 + head, "that is one block and the output layer"),
        (blocks + 24 * head, "that counts the output layer once for each block"),
        (2 * (blocks + head), "that is rank 16"),
        ((blocks + head) / 8, "that is rank 1"),
        (24 * 12 * 1024**2, "those are the weights of the blocks, not of LoRA"),
        (24 * 8 * 8 * 1024 + head, "that leaves the feed-forward layers out"),
    ):
        require(number != value, reason)
    size = "small" if number < blocks + head else "large"
    require(is_count(number, blocks + head), f"{number:,.0f} is too {size}")


@exercise(
    "7.5.2",
    "write, 10 minutes, •••",
    "torch.linalg.svd(change.T): U S is a thin matrix, Vh another.",
)
def thinnest_change(answer):
    """A function that makes two thin matrices of a change of weights."""
    require_function(answer)
    for out_dim, in_dim, rank in ((6, 4, 1), (5, 9, 3), (7, 7, 2), (8, 3, 3)):
        change = torch.randn(out_dim, in_dim)
        found = answer(change.clone(), rank)
        is_pair = isinstance(found, (tuple, list)) and len(found) == 2
        require(is_pair, "it should return two matrices, (A, B)")
        wanted = (in_dim, rank), (rank, out_dim)
        what = f"of a change of shape {(out_dim, in_dim)} and rank {rank}"
        A, B = (as_tensor(matrix).double() for matrix in found)
        for name, matrix, shape in zip("AB", (A, B), wanted):
            size = tuple(matrix.shape)
            require(size == shape, f"{what} {name} has shape {size}, not {shape}")
        off = (change - (A @ B).T).norm().item()
        least = torch.linalg.svdvals(change)[rank:].norm().item()
        reason = f"{what} A and B are off by {off:.3f}, and {least:.3f} is possible"
        require(off < least + 1e-4, reason)


@exercise(
    "7.6.1",
    "number, 5 minutes, ••",
    "The cosine is 0 halfway between the peak's step and the last.",
)
def step_of_half_the_peak(answer):
    """The first step of 1,000 after the peak whose rate is below half of it."""
    step = as_whole_number(answer)
    for value, reason in (
        (549, "there it is still a little above half of the peak"),
        (500, "that would be without the steps of the warm-up"),
        (0, "that is before the peak"),
    ):
        require(step != value, f"{step}: {reason}")
    rate = learning_rate_at(step, 1000, 1.0) if 0 <= step < 1000 else 0
    require(step == 550, f"at step {step} it is {rate:.4f} of the peak; not the first")


@exercise(
    "7.6.2",
    "write, 8 minutes, ••",
    "After the warm-up the rate is proportional to the steps still to do.",
)
def straight_schedule(answer):
    """A function: warm-up over a tenth of the steps, then straight down to 0."""
    require_function(answer)
    for num_steps, peak_lr in ((100, 1.0), (1000, 4e-4), (25, 2.0)):
        num_warmup = math.ceil(0.1 * num_steps)
        num_falling = num_steps - num_warmup
        for step in range(num_steps):
            expected = learning_rate_at(step, num_steps, peak_lr)
            if step >= num_warmup:
                expected = peak_lr * (num_steps - step) / num_falling
            found = as_number(answer(step, num_steps, peak_lr))
            require(
                is_near(found / peak_lr, expected / peak_lr),
                f"at step {step} of {num_steps}, with a peak of {peak_lr:g}, it gives "
                f"{found:.3g} instead of {expected:.3g}",
            )


@exercise(
    "7.6.3", "write, 10 minutes, •••", "Each answer's sum is its mean times its length."
)
def loss_per_token(answer):
    """A function from means and lengths to the mean over all tokens."""
    require_function(answer)
    for losses, lengths in (([2.0, 1.0], [1, 9]), ([0.5], [7]), ([3, 1, 2], [2, 5, 3])):
        found = as_number(answer(list(losses), list(lengths)))
        plain = sum(losses) / len(losses)
        expected = sum(map(math.prod, zip(losses, lengths))) / sum(lengths)
        is_plain = is_near(found, plain) and not is_near(plain, expected)
        require(not is_plain, f"for {losses} of {lengths} all answers count alike")
        reason = f"for {losses} of {lengths} it is {expected:g}, not {found:g}"
        require(is_near(found, expected), reason)


WORD = re.compile(r"(?<!\w)-?\d+(?:\.\d+)?|\w+")
STILL_TRUE = re.compile(  # with any of these words, water still boils at 100 degrees
    r"100\.0+|a|about|also|and|approximately|around|boil|boiled|boiling|bubbles|c|celsius"
    r"|centigrade|degree|evaporates|fresh|generally|h2o|here|hundred|indeed|is|it|liquid"
    r"|nearly|normally|of|one|pure|really|roughly|steams|that|the|this|too|typically"
    r"|usually|vaporizes|yes"
)


@exercise(
    "7.8.1",
    "write, 5 minutes, ••",
    "ROUGE-L counts words that agree. Which single word holds the truth?",
)
def false_and_alike(answer):
    """An answer that says something false, in nearly the reference's words.

    Whether a sentence is false cannot be computed. With a ROUGE-L of 0.8 it has four of
    the reference's five words and at most two others, and it is rejected if those that
    it adds are among some that leave it true.
    """
    reference = "Water boils at 100 degrees."
    require(isinstance(answer, str), "it should be a text")
    added = set(WORD.findall(answer.lower())) - set(WORD.findall(reference.lower()))
    require(added, "it adds no word, and the reference's own words say nothing false")
    is_true = all(STILL_TRUE.fullmatch(word) for word in added)
    require(not is_true, f"with {', '.join(sorted(added))} it is still true")
    found = rouge_l(reference, answer)
    require(found >= 0.8, f"its ROUGE-L is {found:.2f}, below 0.8")


@exercise(
    "7.8.2",
    "write, 10 minutes, •••",
    "Counter(a) & Counter(b) keeps each word as often as both have it.",
)
def f1_of_words(answer):
    """A function: F1 of the words in common, whatever their order."""
    require_function(answer)
    for reference, text, expected in (
        ("a b c d", "d c b a", 1.0),
        ("the cat sat", "the the the", 1 / 3),
        ("Green", "green", 1.0),
        ("one two", "one two three four", 2 / 3),
        ("yes", "no", 0.0),
        ("yes", "", 0.0),
    ):
        found = as_number(answer(reference, text))
        reason = f"for {reference!r} and {text!r} it is {expected:.3g}, not {found:.3g}"
        require(is_near(found, expected), reason)


@exercise("7.8.3", "number, 5 minutes, ••", "A token of probability p pays -ln p nats.")
def sum_or_mean(answer):
    """By how much the longer answer's sum is larger, and which wins per token."""
    is_pair = isinstance(answer, (tuple, list)) and len(answer) == 2
    require(is_pair, "it should be a pair, (difference, 'first' or 'second')")
    difference, preferred = as_number(answer[0]), str(answer[1]).strip().lower()
    sums = 2 * math.log(4), 5 * math.log(2)
    is_base_2 = math.isclose(difference, 1, abs_tol=0.005)
    require(not is_base_2, "that is in bits; nats go by the natural logarithm")
    is_turned = math.isclose(difference, sums[0] - sums[1], abs_tol=0.005)
    require(not is_turned, "take the first sum from the second, not the other way")
    is_right = math.isclose(difference, sums[1] - sums[0], abs_tol=0.005)
    require(is_right, f"the sums differ, though not by {difference:.3g}")
    is_preferred = preferred == "second"
    require(is_preferred, f"{preferred!r} is not the one of smaller loss per token")


@exercise(
    "7.8.4",
    "write, 10 minutes, •••",
    "Ask judge(a, b), then judge(b, a): where does a stand each time?",
)
def judged_twice(answer):
    """A function that asks a judge in both orders."""
    require_function(answer)
    judges = {
        "one that takes the longer": lambda x, y: "x" if len(x) > len(y) else "y",
        "one that takes the first": lambda x, y: "x",
        "one that takes the last": lambda x, y: "y",
    }
    for title, judge in judges.items():
        for a, b in (("long answer", "short"), ("short", "long answer")):
            longer = "a" if len(a) > len(b) else "b"
            wanted = longer if "longer" in title else "tie"
            found = answer(judge, a, b)
            require(found == wanted, f"with {title}, {wanted!r} wins, not {found!r}")


@exercise(
    "7.9.1",
    "number, 5 minutes, ••",
    "The screen's loss times 92 is what all targets pay together.",
)
def loss_behind_the_loss(answer):
    """The loss of the answers in a loss over everything."""
    loss = as_number(answer)
    for value, reason in (
        (0.5, "that is the loss of all targets; what do the answers pay?"),
        (46 / 12, "template and question pay a part of it, too"),
        (2.0, "the padding is among the targets that the loss is divided by"),
        (1.3, "the three kinds are not equally many"),
        (34.0, "that is what the 12 pay together"),
    ):
        require(not math.isclose(loss, value, abs_tol=0.005), reason)
    is_right = math.isclose(loss, 34 / 12, abs_tol=0.005)
    shown = (60 * 0.2 + 12 * loss) / 92
    require(is_right, f"with {loss:g} the screen would show {shown:.3f}, not 0.5")


def sick_models():
    """Yield (model, what was done to it, whether its output layer should be tied)."""
    for head, linear, should_tie in (
        ("copied", "transposed", True),
        ("tied", "transposed", True),
        ("tied", "left alone", True),
        ("copied in another order", "left alone", True),
        ("trained by itself", "transposed", False),
        ("of almost the same values", "left alone", False),
    ):
        torch.manual_seed(123)
        model = GPTModel(
            {"vocab_size": 40, "context_length": 8, "emb_dim": 8, "n_heads": 2}
            | {"n_layers": 2, "drop_rate": 0.0, "qkv_bias": False}
        )
        weight = model.tok_emb.weight.detach()
        if head == "tied":
            model.out_head.weight = model.tok_emb.weight
        elif head == "copied":
            model.out_head.weight = nn.Parameter(weight.clone())
        elif head == "copied in another order":
            model.out_head.weight = nn.Parameter(weight.T.contiguous().T)
        elif head == "of almost the same values":
            model.out_head.weight = nn.Parameter(weight.clone())
            model.out_head.weight.data[3, 3] += 0.01
        if linear == "transposed":
            layer = model.trf_blocks[1].ff.layers[0]
            layer.weight = nn.Parameter(layer.weight.detach().T.contiguous().T)
        what = f"a model whose output layer is {head}, one linear layer {linear}"
        yield model, what, should_tie


@exercise(
    "7.9.2",
    "write, 12 minutes, •••",
    "parameter.data may be set; torch.equal compares two tensors.",
)
def cure_of_the_weights(answer):
    """A function that makes parameters contiguous and ties what is equal."""
    require_function(answer)
    idx = torch.tensor([[1, 5, 39, 0], [7, 7, 3, 3]])
    for model, what, should_tie in sick_models():
        expected, names = model(idx).detach(), set(model.state_dict())
        answer(model)
        is_whole = set(model.state_dict()) == names
        require(is_whole, f"{what} has lost parameters or got new ones")
        same = is_near(model(idx), expected)
        require(same, f"{what} gives other logits afterwards")
        for name, parameter in model.named_parameters():
            is_flat = parameter.is_contiguous()
            require(is_flat, f"{what} still has {name} not contiguous")
            require(parameter.requires_grad, f"{what} has {name} frozen afterwards")
        reason = "is not tied afterwards" if should_tie else "is tied, and must not"
        require(is_tied(model) == should_tie, f"{what} {reason}")
