"""Checkers of chapter 2's exercises.

Looking in here spoils the exercises.
"""

import re
from collections import Counter

import torch
import torch.nn.functional as F
from torch import nn

from ch02.bpe import train_vocab
from ch02.dataset import GPTDatasetV1, load_text
from ch02.tokenizer import (
    SimpleTokenizerV1,
    SimpleTokenizerV2,
    get_tokenizer,
    split_words,
)
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

# the measurements of 2.0
HOURS = torch.arange(6.0)
DEPTHS = torch.tensor([1.1, 1.7, 2.6, 3.3, 3.8, 4.8])


@exercise(
    "2.0.a",
    "write, 4 minutes, •",
    "The means of the rows must be a column, so that they fit the matrix.",
)
def rows_centered(answer):
    """A function that subtracts from each row of a matrix its mean."""
    require_function(answer)
    for shape in ((2, 3), (4, 4), (1, 5), (3, 1)):
        x = torch.randn(shape)
        found = as_tensor(answer(x.clone()), shape)
        columns = x - x.mean(dim=0)
        if shape[0] > 1 and is_near(found, columns):
            raise NotYet("it subtracts the means of the columns, which are dim 0")
        require(
            not is_near(found, x - x.mean()) or shape[0] == 1,
            "it subtracts the mean of the whole matrix from each number",
        )
        right = x - x.mean(dim=-1, keepdim=True)
        require(
            is_near(found, right), f"a row {x[0].tolist()} became {found[0].tolist()}"
        )


@exercise(
    "2.0.b", "write, 6 minutes, ••", "product[i, j] needs row a[i] and column b[:, j]."
)
def matrix_product(answer):
    """A function that multiplies two matrices without PyTorch's products."""
    require_function(answer)
    for n, m, k in ((2, 3, 2), (1, 4, 3), (3, 2, 5), (2, 1, 1)):
        a, b = torch.randn(n, m), torch.randn(m, k)
        with Refusing("matmul", "__matmul__", "mm", "einsum", "dot", "linear", "mv"):
            found = answer(a.clone(), b.clone())
        require(
            is_near(as_tensor(found, (n, k)), a @ b),
            f"({n}, {m}) @ ({m}, {k}) gives {as_tensor(found).tolist()}, not "
            f"{(a @ b).tolist()}",
        )


@exercise("2.0.c", "write, 5 minutes, ••", "The two points are 2 * step apart.")
def measured_slope(answer):
    """A function that measures the slope of a function at a point."""
    require_function(answer)
    for f, x, right in (
        (lambda x: 3 * x + 1, 2.0, 3.0),
        (lambda x: x * x, 3.0, 6.0),
        (lambda x: x * x, -1.0, -2.0),
        (lambda x: x**3, 1.0, 3.0),
    ):
        found = as_number(answer(f, x))
        require(
            abs(found - 2 * right) > 0.01,
            "it is twice as large as it should be: how far apart are the two points?",
        )
        require(
            abs(found + right) > 0.01, "it has the wrong sign: is it right minus left?"
        )
        require(
            abs(found - right) < 0.01, f"at x = {x} it is {found:.3f}, not {right:.3f}"
        )


@exercise(
    "2.0.d",
    "write, 4 minutes, ••",
    "The slope of u ** 2 is 2 * u, and here u is w * x - y.",
)
def gradient_of_square(answer):
    """A function for the gradient of (w * x - y) ** 2 with respect to w."""
    require_function(answer)
    for w, x, y in (
        (2.0, 3.0, 4.0),
        (0.5, -1.0, 2.0),
        (1.0, 0.0, 5.0),
        (-2.0, 4.0, 1.0),
    ):
        found, right = as_number(answer(w, x, y)), 2 * (w * x - y) * x
        without_x = x not in (0, 1) and is_near(found, 2 * (w * x - y))
        require(not without_x, "the slope of the first step, times x, is missing")
        require(
            is_near(found, right),
            f"for w = {w}, x = {x}, y = {y} it is {found:g}, not {right:g}",
        )


@exercise(
    "2.0.e",
    "write, 8 minutes, ••",
    "loss.backward() first; then the with block; then .grad = None.",
)
def gradient_step(answer):
    """A function that takes one step of gradient descent on the section's line."""
    require_function(answer)
    w, b = (torch.tensor(0.0, requires_grad=True) for _ in range(2))
    u, v = 0.0, 0.0  # what w and b should be
    for step in range(3):
        errors = u * HOURS + v - DEPTHS
        loss = as_number(answer(w, b, 0.05))
        require(
            is_near(loss, errors.square().mean(), 1e-4),
            f"step {step} returns {loss:.4f}, not the loss before it, "
            f"{errors.square().mean():.4f}",
        )
        u -= 0.05 * (2 * errors * HOURS).mean().item()
        v -= 0.05 * (2 * errors).mean().item()
        both = torch.stack([w.detach(), b.detach()])
        if step and not is_near(both, [u, v], 1e-4):
            raise NotYet(
                "the second step is wrong: were the gradients set back to None?"
            )
        require(
            is_near(both, [u, v], 1e-4),
            f"w and b should be {u:.3f} and {v:.3f}, and are {w.item():.3f} and "
            f"{b.item():.3f}",
        )


@exercise(
    "2.0.f",
    "write, 4 minutes, •",
    "self.linear = nn.Linear(1, 1) in __init__, self.linear(x) in forward.",
)
def line_module(answer):
    """A module that is a line: one linear layer from one number to one."""
    require(isinstance(answer, type), "it should be the class itself")
    model = answer()
    require_kind(model, "Module")
    numel = sum(p.numel() for p in model.parameters())
    require(numel == 2, f"it has {numel} parameters; a line has a weight and a bias")
    x = torch.randn(5, 1)
    found = as_tensor(model(x), (5, 1))
    weight, bias = (p.detach().flatten() for p in model.parameters())
    right = [is_near(found, a * x + b) for a, b in ((weight, bias), (bias, weight))]
    require(any(right), "forward should return weight * x + bias")


@exercise(
    "2.0.1",
    "number, 3 minutes, •",
    "A mean removes its dimension; @ replaces the last one.",
)
def two_shapes(answer):
    """The shapes of a mean over the last dimension and of a product."""
    require_kind(answer, "list", "tuple")
    require(len(answer) == 2, f"it should hold two shapes, not {len(answer)}")
    for name, found, right in zip(
        ("mean", "product"), answer, ((8, 1024), (8, 1024, 50257))
    ):
        require(tuple(found) == right, f"the shape of the {name} is not {tuple(found)}")


@exercise(
    "2.0.2",
    "predict, 6 minutes, ••",
    "Each step repeats all earlier ones. What if the line is at the bottom already?",
)
def gradients_that_add_up(answer):
    """A function that trains a line and never sets gradients to zero."""
    require_function(answer)
    found = as_tensor(answer(30), (30,))
    torch.manual_seed(123)
    linear = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        loss = (linear(HOURS[:, None]) - DEPTHS[:, None]).square().mean()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    require(
        is_near(found[0], losses[0], 1e-3),
        "the first loss is that of a line with seed 123, before any step",
    )
    require(
        is_near(found[1], losses[1], 1e-3), "the loss after the first step is not right"
    )
    require(
        is_near(found, losses, 1e-2),
        "from the second step on the gradients should add up",
    )


@exercise(
    "2.0.3",
    "break, 10 minutes, •••",
    "Make the inputs about as large as 1 before you train, and before you predict.",
)
def learning_in_minutes(answer):
    """A function that learns a line from minutes to depths."""
    require_function(answer)
    minutes, depths = 60 * HOURS[:, None], DEPTHS[:, None]
    predict = answer(minutes.clone(), depths.clone())
    require(callable(predict), "it should return a function from minutes to depths")
    found = as_tensor(predict(minutes.clone()), (6, 1))
    loss = (found - depths).square().mean().item()
    require(loss < 0.02, f"its predictions have a loss of {loss:.3g}")
    between = as_tensor(predict(torch.tensor([[150.0]])), (1, 1)).item()
    require(2.5 < between < 3.2, f"after 150 minutes it predicts {between:.2f} m")


@exercise(
    "2.1.1",
    "write, 3 minutes, •",
    "Row i of the matrix says which row of the table to read.",
)
def one_hot_rows(answer):
    """A matrix that reads rows 3, 0 and 3 of a table of five rows."""
    matrix = as_tensor(answer, (3, 5))
    for row, number in enumerate((3, 0, 3)):
        found, wanted = matrix[row], F.one_hot(torch.tensor(number), 5)
        reason = f"row {row}, {found.tolist()}, does not read row {number} of a table"
        require(is_near(found, wanted), reason)


@exercise(
    "2.1.2",
    "write, 5 minutes, ••",
    "Give both words the same word before and the same word after.",
)
def equal_company(answer):
    """A text in which ebb and flood have the same neighbours, and boat others."""
    require_kind(answer, "str")
    words = answer.split()
    for word in ("ebb", "flood", "boat"):
        require(word in words, f"the word {word} is missing")
    pairs = list(zip(words, words[1:]))
    together = ("ebb", "flood") in pairs or ("flood", "ebb") in pairs
    require(not together, "ebb and flood stand side by side")
    ebb, flood, boat = (company(word, pairs) for word in ("ebb", "flood", "boat"))
    require(ebb, "ebb has no neighbours")
    unequal = ", ".join(sorted((ebb - flood) + (flood - ebb)))
    require(not unequal, f"ebb and flood do not equally often have {unequal}")
    require(ebb != boat, "boat has the same neighbours as ebb and flood")


def company(word, pairs):
    """Count a word's neighbours: {"the on the left": 2, ...}."""
    before = [f"{left} on the left" for left, right in pairs if right == word]
    after = [f"{right} on the right" for left, right in pairs if left == word]
    return Counter(before + after)


@exercise(
    "2.1.3",
    "write, 8 minutes, ••",
    "Scale to length 1; then add up each row's products with the rest.",
)
def odd_one_out(answer):
    """A function that finds the row whose direction is least like the others'."""
    require_function(answer)
    for odd, factor in ((0, 1.0), (2, 1.0), (4, 50.0), (1, 0.02)):
        rows = torch.tensor([[5.0, 4, 0], [1, 1, 0], [9, 9, 1], [4, 5, 1], [2, 2, 0]])
        rows[odd] = factor * torch.tensor([1.0, -2.0, 2.0])
        found = as_whole_number(answer(rows.clone()))
        require(found == odd, f"it says row {found}, not row {odd}, of {rows.tolist()}")


@exercise(
    "2.2.1",
    "predict, 3 minutes, •",
    "Count each quotation mark, comma and apostrophe; -- is one token.",
)
def number_of_tokens(answer):
    """How many tokens split_words finds in the exercise's sentence."""
    tokens = split_words('"There\'s the sea--look!" said Amos, and listened.')
    found = as_whole_number(answer)
    size = "few" if found < len(tokens) else "many"
    require(found == len(tokens), f"{found} is too {size}")


@exercise(
    "2.2.2",
    "write, 6 minutes, ••",
    "The first alternative that fits wins: should - or -- come first?",
)
def hyphens_apart(answer):
    """A split_words that cuts at hyphens too and leaves -- whole."""
    require_function(answer)
    texts = ["harbour-master", "Gone -- all gone.", "sea--look", "a half-hour", "- -"]
    for text in [*texts, "a daughter-in-law, wet", load_text()]:
        pieces = re.split(r'([,.:;?_!"()\']|--|-|\s)', text)
        compare_tokens(answer(text), [p for p in pieces if p.strip()], text)


@exercise(
    "2.2.3",
    "write, 8 minutes, ••",
    "split_words strips pieces and drops empty ones: which may you do?",
)
def nothing_lost(answer):
    """A function whose tokens are those of split_words, and the white space."""
    require_function(answer)
    for text in ("What did it do?", "  two  spaces ", "a\n\nb\tc", "", load_text()):
        tokens = list(answer(text))
        where = f"of {text!r}" if len(text) < 50 else "of the story"
        require("" not in tokens, f"the tokens {where} include empty strings")
        require("".join(tokens) == text, f"the tokens {where} do not give it back")
        visible = [token for token in tokens if token.strip()]
        compare_tokens(visible, split_words(text), text)


def compare_tokens(found, wanted, text):
    """Raise NotYet at the first token that is not the wanted one."""
    found = list(found)
    if len(text) < 50:
        require(found == wanted, f"{text!r} gives {found}, not {wanted}")
    for number, (token, right) in enumerate(zip(found, wanted)):
        reason = f"token {number} of the story is {token!r}, not {right!r}"
        require(token == right, reason)
    sizes = f"{len(found):,} tokens, not {len(wanted):,}"
    require(len(found) == len(wanted), f"the story gives {sizes}")


def story_vocab():
    """The vocabulary of the story, with the special tokens at its end."""
    tokens = sorted(set(split_words(load_text()))) + ["<|endoftext|>", "<|unk|>"]
    return {token: token_id for token_id, token in enumerate(tokens)}


@exercise(
    "2.3.1", "write, 3 minutes, •", "Each word once, from a to z, numbered from 0."
)
def small_vocabulary(answer):
    """The vocabulary of "to err or not to err"."""
    require_kind(answer, "dict")
    wanted = {"err": 0, "not": 1, "or": 2, "to": 3}
    missing, extra = wanted.keys() - answer.keys(), answer.keys() - wanted.keys()
    require(not missing, f"it has no entry for {sorted(missing)}")
    require(not extra, f"it has entries that are not words of the text: {list(extra)}")
    for word, token_id in wanted.items():
        found = answer[word]
        require(found == token_id, f"{word!r} has the id {found!r}, not {token_id}")


@exercise(
    "2.3.2",
    "write, 5 minutes, ••",
    "decode puts one space before a token, and none before punctuation.",
)
def survivor(answer):
    """A text with a comma and a quotation mark that encode and decode give back."""
    require_kind(answer, "str")
    for mark in (",", '"'):
        require(mark in answer, f"it has no {mark}")
    vocab = story_vocab()
    unknown = [token for token in split_words(answer) if token not in vocab]
    require(not unknown, f"the story does not have the tokens {unknown}")
    tokenizer = SimpleTokenizerV1(vocab)
    ids = tokenizer.encode(answer)
    require(len(ids) >= 6, f"it has {len(ids)} tokens, fewer than 6")
    back = tokenizer.decode(ids)
    require(back == answer, f"{answer!r} comes back as {back!r}")


@exercise(
    "2.3.3",
    "write, 8 minutes, ••",
    "sorted takes a key; a key may be a pair: (-count, token).",
)
def by_frequency(answer):
    """A function that numbers tokens by frequency, then by alphabet."""
    require_function(answer)
    for tokens in (["b", "a", "b"], ["b", "c", "a"], [], split_words(load_text())):
        counts = Counter(tokens)
        order = sorted(counts, key=lambda token: (-counts[token], token))
        wanted = {token: token_id for token_id, token in enumerate(order)}
        found = answer(list(tokens))
        require_kind(found, "dict")
        if len(tokens) < 10:
            require(found == wanted, f"{tokens} gives {found}, not {wanted}")
        for token, token_id in wanted.items():
            reason = f"in the story {token!r} has the id {found.get(token)}"
            require(found.get(token) == token_id, f"{reason}, not {token_id}")
        require(len(found) == len(wanted), "it has tokens that are not in the story")


@exercise(
    "2.4.1",
    "write, 3 minutes, •",
    "A name that the story does not have is unknown; so is email.",
)
def two_unknown(answer):
    """A sentence of five tokens or more, two of them unknown to the story."""
    require_kind(answer, "str")
    require("<|" not in answer, "it spells a special token out")
    vocab = story_vocab()
    ids = SimpleTokenizerV2(vocab).encode(answer)
    require(len(ids) >= 5, f"it has {len(ids)} tokens, fewer than 5")
    unknown = [token for token in split_words(answer) if token not in vocab]
    require(len(unknown) == 2, f"the unknown tokens are {unknown}, not two")


@exercise(
    "2.4.2", "write, 6 minutes, ••", "Walk through the ids; at end_id begin a new list."
)
def apart_again(answer):
    """A function that cuts token ids into documents at end_id."""
    require_function(answer)
    cases = [([5, 9, 0, 7], 0), ([5, 9, 0, 7], 9), ([3], 1), ([8, 1, 1, 8, 1, 4], 1)]
    for ids, end_id in cases:
        wanted = [[]]
        for token_id in ids:
            if token_id == end_id:
                wanted.append([])
            else:
                wanted[-1].append(token_id)
        found = [[int(i) for i in document] for document in answer(list(ids), end_id)]
        reason = f"{ids} with end_id {end_id} gives {found}, not {wanted}"
        require(found == wanted, reason)


@exercise(
    "2.4.3",
    "write, 8 minutes, ••",
    "Lower-case the story, then cut it into tokens and tenths as above.",
)
def unknown_in_lower_case(answer):
    """The share of unknown tokens in the last tenth of the story in lower case."""
    tokens = split_words(load_text().lower())
    cut = len(tokens) * 9 // 10
    known = set(tokens[:cut])
    share = sum(token not in known for token in tokens[cut:]) / (len(tokens) - cut)
    answer = as_number(answer)
    require(answer <= 1, f"{answer:g} is no share: it should lie between 0 and 1")
    size = "small" if answer < share else "large"
    require(abs(answer - share) < 0.0005, f"{answer:.4f} is too {size}")


@exercise(
    "2.5.1",
    "write, 4 minutes, •",
    "encode gives the ids; decode takes a list, even of one id.",
)
def pieces_of_unknown_words(answer):
    """The strings of GPT-2's tokens for the book's made-up words."""
    is_list = not isinstance(answer, str)
    answer = list(answer)
    is_list = is_list and all(isinstance(piece, str) for piece in answer)
    require(is_list, "it should be a list of strings, one for each token")
    joined = "".join(answer)
    require(
        joined == "Akwirw ier", f"the pieces join to {joined!r}, not to 'Akwirw ier'"
    )
    gpt2 = get_tokenizer("gpt2")
    pieces = [gpt2.decode([token_id]) for token_id in gpt2.encode("Akwirw ier")]
    require(
        answer == pieces,
        f"GPT-2 cuts it into {len(pieces)} tokens, and yours are other {len(answer)}",
    )


@exercise(
    "2.5.2",
    "write, 8 minutes, ••",
    "ti must be more frequent than de; and a space is a neighbour too.",
)
def text_that_teaches_tide(answer):
    """A text whose first three merges make ti, de and tide."""
    require_kind(answer, "str")
    vocab, _ = train_vocab(answer, 259, [])
    learned = [token for token, token_id in vocab.items() if token_id > 255]
    require(
        learned == [b"ti", b"de", b"tide"],
        f"it teaches {', '.join(str(token)[1:] for token in learned) or 'nothing'}",
    )


@exercise(
    "2.6.1",
    "predict, 4 minutes, •",
    "The last window needs a next token, too. Where may it start?",
)
def number_of_windows(answer):
    """How many windows of 256 at stride 128 a text of 1,024 tokens gives."""
    found = as_whole_number(answer)
    for value, reason in (
        (8, "the last window would start at token 896, where 128 tokens are left"),
        (7, "the last of these windows has no token behind it, and needs a target"),
        (5, "the first window counts, too, and not only the steps behind it"),
        (4, "that is side by side; with a stride of 128 windows overlap"),
        (3, "that is side by side; with a stride of 128 windows overlap"),
    ):
        require(found != value, reason)
    require(found == 6, f"it gives {'more' if found < 6 else 'fewer'} than {found}")


@exercise(
    "2.6.2",
    "write, 4 minutes, •",
    "Four of the arguments must differ from their defaults.",
)
def loader_for_testing(answer):
    """A loader of the story's windows of 64, side by side, four at a time, in order."""
    require_kind(answer, "DataLoader")
    batches, targets = zip(*answer) if len(answer) else ((), ())
    require(len(batches), "it has no batches")
    width = batches[0].shape[1]
    require(width == 64, f"its windows have {width} tokens, not 64")
    require(len(batches[0]) == 4, f"its batches have {len(batches[0])} windows, not 4")
    seen = torch.cat(batches)
    token_ids = torch.tensor(get_tokenizer("gpt2").encode(load_text()))
    windows = token_ids[:-1].unfold(0, 64, 64)
    require(
        len(seen) >= len(windows),
        f"{len(windows)} windows fit side by side, and it shows {len(seen)}",
    )
    require(len(seen) == len(windows), "its windows overlap")
    require(torch.equal(seen, windows), "its windows are not in the text's order")
    windows = token_ids[1:].unfold(0, 64, 64)
    is_next = torch.equal(torch.cat(targets), windows)
    require(is_next, "its targets are not the tokens that follow its inputs")


@exercise(
    "2.6.3",
    "write, 8 minutes, ••",
    "The inputs end one token too early; the last target has it.",
)
def tokens_of_windows(answer):
    """A function from a dataset of windows side by side to the tokens they cover."""
    require_function(answer)
    for text, max_length in [(load_text(), 64), ("What did it do?", 2), ("a b", 1)]:
        dataset = GPTDatasetV1(text, get_tokenizer("gpt2"), max_length, max_length)
        token_ids = torch.tensor(get_tokenizer("gpt2").encode(text))
        expected = token_ids[: dataset.input_ids.numel() + 1]
        found = as_whole_numbers(answer(dataset))
        require(
            len(found) == len(expected),
            f"{len(dataset)} windows of {max_length} cover {len(expected)} tokens, "
            f"and it returns {len(found)}",
        )
        require(found == expected.tolist(), "some tokens are not the text's")


@exercise(
    "2.7.1",
    "number, 3 minutes, •",
    "Count the weights first: one row a token. A weight is a float32.",
)
def bytes_of_the_largest_table(answer):
    """The bytes of a float32 table of 50,257 x 1,600."""
    found, num_weights = as_number(answer), 50257 * 1600
    require(found != num_weights, "that counts the weights, and each takes four bytes")
    require(found != 8 * num_weights, "a float32 takes four bytes, not eight")
    reason = f"{found:,.6g} is not rows x numbers in a row x bytes"
    require(is_count(found, 4 * num_weights), reason)


@exercise(
    "2.7.2",
    "write, 5 minutes, ••",
    "What must the table's row 0 be? `from_pretrained` takes a table.",
)
def one_hot_embedding(answer):
    """An nn.Embedding whose rows are the one-hot vectors of six ids."""
    require_kind(answer, "Embedding")
    shape = tuple(answer.weight.shape)
    require(shape == (6, 6), f"its table has shape {shape}, not (6, 6)")
    ids = torch.arange(6)
    found, wanted = answer(ids), F.one_hot(ids, 6)
    wrong = [i for i in range(6) if not is_near(found[i], wanted[i])]
    require(not wrong, f"the vectors of ids {wrong} are not one-hot")


@exercise(
    "2.7.3",
    "write, 8 minutes, ••",
    "nn.Linear keeps its matrix as (outputs, inputs), turned over.",
)
def linear_instead_of_embedding(answer):
    """An nn.Linear that gives the toy table's rows for one-hot vectors."""
    require_kind(answer, "Linear")
    sizes = (answer.in_features, answer.out_features)
    require(sizes == (6, 3), f"it maps {sizes[0]} numbers to {sizes[1]}, not 6 to 3")
    torch.manual_seed(123)
    table = nn.Embedding(6, 3).weight
    found = answer(torch.eye(6, dtype=answer.weight.dtype))
    wrong = [i for i in range(6) if not is_near(found[i], table[i])]
    require(not wrong, f"the rows of tokens {wrong} differ from the table's")


@exercise(
    "2.8.1",
    "number, 3 minutes, •",
    "A table for 50,257 tokens, and another for 1,024 positions.",
)
def weights_of_both_tables(answer):
    """The weights of GPT-2 small's token and position tables together."""
    found, tokens, positions = as_number(answer), 50257 * 768, 1024 * 768
    require(found != tokens, "that is the token table alone")
    require(found != positions, "that is the position table alone")
    product = "the tables stand side by side: add, not multiply"
    require(not is_count(found, tokens * positions), product)
    reason = f"{found:,.8g} is not the sum of the two tables"
    require(is_count(found, tokens + positions), reason)


@exercise(
    "2.8.2",
    "write, 6 minutes, ••",
    "As many positions as there are tokens: token_ids.shape[-1].",
)
def positions_for_any_length(answer):
    """A function (token_ids, token_layer, pos_layer) -> token plus position vectors."""
    require_function(answer)
    token_layer, pos_layer = nn.Embedding(9, 4), nn.Embedding(6, 4)
    for shape in [(2, 6), (2, 3), (3, 1), (5,)]:
        token_ids = torch.randint(9, shape)
        try:
            found = answer(token_ids, token_layer, pos_layer)
        except (RuntimeError, IndexError) as error:
            what = f"ids of shape {shape} raise: {error}"
            raise NotYet(f"{what}. How many positions do they need?") from None
        require_kind(found, "Tensor")
        wanted = token_layer(token_ids) + pos_layer.weight[: shape[-1]]
        require(
            found.shape == wanted.shape,
            f"ids of shape {shape} give shape {tuple(found.shape)}",
        )
        require(
            is_near(found, wanted),
            f"the vectors are wrong for ids of shape {shape}",
        )


@exercise(
    "2.8.3",
    "predict, 5 minutes, ••",
    "Write the mean as a sum of token rows and a sum of position rows.",
)
def change_of_the_mean(answer):
    """How far the mean of the input embeddings moves when two words change places."""
    require(
        abs(as_number(answer)) < 1e-5,
        "both orders add up the same six token rows and the same six position rows",
    )


SLOWEST_STEP = 1e-3  # the angle of the slowest of four hands, 10000 ** (-6 / 8)


@exercise(
    "2.8.4",
    "write, 10 minutes, •••",
    "Each pair of columns turns by its angle; or torch.linalg.lstsq.",
)
def one_position_further(answer):
    """A matrix that takes every sinusoid vector of 8 numbers to the next position's."""
    matrix = as_tensor(answer, (8, 8)).double()
    frequencies = 10000 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    angles = torch.arange(200)[:, None] * frequencies
    table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    off = (table[:-1] @ matrix - table[1:]).abs().amax(dim=0)  # (8,)
    back = (table[1:] @ matrix - table[:-1]).abs().max()
    require(back > 1e-3, "it moves a position back: turn the other way (transpose it)")
    reason = f"it misses column {off.argmax()} of the next position by {off.max():.2g}"
    if off.max() < 20 * SLOWEST_STEP:
        reason += "; the slow columns turn, too, if only a little"
    require(off.max() < SLOWEST_STEP / 2, reason)
