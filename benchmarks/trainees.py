"""GPT-2 124M as its users train it: ours, the book's, transformers', litgpt's.

Each function makes a Trainee of a config of ours: random weights, dropout, AdamW. The
peers are imported where they are used, since they need not be installed. The book's
model is ours, number for number. transformers' output layer is its token embedding:
124 million parameters in the place of 163. So is ours where it is "tied", like
OpenAI's GPT-2 and the models of a long run (5.2). litgpt's model turns queries and keys
instead of adding embeddings of positions, and has no dropout; its training is in
bfloat16 by default, and transformers' is measured in both. Compiled, by
`torch.compile`, is transformers' alone, where there is a compiler for C++: the first
step then takes half a minute or more.
"""

import shutil
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from benchmarks.measure import IS_QUICK
from ch04.gpt import GPTModel
from ch05.recipe import initialize
from ch05.training import calc_loss_batch
from support.device.device import autocast, fast_math
from support.device.fast_dropout import fast_dropout
from support.device.fast_vocabulary import fast_vocabulary
from support.device.precision import has_bfloat16

ADAMW = {"lr": 4e-4, "weight_decay": 0.1}
OURS, FASTER = "ours, float32", "ours, bfloat16"
TIED, FASTER_TIED = "ours tied, float32", "ours tied, bfloat16"
WITHOUT, FASTER_WITHOUT = f"{TIED}, no dropout", f"{FASTER_TIED}, no dropout"
BOOK, LITGPT = "the book's", "litgpt, bfloat16"
LITGPT_FUSED = f"{LITGPT}, fused AdamW"
TRANSFORMERS, FASTER_TRANSFORMERS = "transformers", "transformers, bfloat16"
COMPILED = f"{FASTER_TRANSFORMERS}, compiled"


@dataclass
class Trainee:
    """A model, what its users train it with, and calc_loss(inputs, targets)."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    calc_loss: object

    def step(self, batch):
        """Train on a batch, (inputs, targets)."""
        self.optimizer.zero_grad()
        self.calc_loss(*batch).backward()
        self.optimizer.step()

    @torch.no_grad()
    def evaluate(self, batch):
        """The loss of a batch without dropout."""
        self.model.eval()
        return self.calc_loss(*batch).item()


def our_trainee(cfg, device="cpu", dtype=torch.float32, is_tied=False, **changes):
    """Our model as the course trains it for hours, with products in dtype.

    changes: of the config.
    """
    fast_math(device)
    model = GPTModel(cfg | changes)
    if is_tied:
        initialize(model)
    model.to(device)

    def calc_loss(inputs, targets):
        ends = fast_vocabulary(device, dtype)
        with autocast(device, dtype), fast_dropout(device), ends:
            return calc_loss_batch(inputs, targets, model, device)

    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW, fused=True)
    return Trainee(model, optimizer, calc_loss)


def book_trainee(cfg, device="cpu"):
    """The book's model by the book's functions."""
    from llms_from_scratch import ch04, ch05

    model = ch04.GPTModel(cfg).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)
    return Trainee(
        model, optimizer, lambda *batch: ch05.calc_loss_batch(*batch, model, device)
    )


def transformers_trainee(cfg, device="cpu", dtype=torch.float32, is_compiled=False):
    """transformers' GPT-2 of our shape, with its default attention.

    The fused AdamW is the default of transformers' Trainer as well.
    """
    from transformers import GPT2LMHeadModel

    from support.weights.reference import transformers_config

    model = GPT2LMHeadModel(transformers_config(cfg)).to(device)
    if is_compiled:
        model.compile()

    def calc_loss(inputs, targets):
        with autocast(device, dtype):
            logits = model(inputs, use_cache=False).logits
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW, fused=True)
    return Trainee(model, optimizer, calc_loss)


def litgpt_trainee(cfg, device="cpu", is_fused=False):
    """litgpt's model of our shape, its loss, and the precision that it defaults to.

    is_fused: the fused AdamW on a CPU too; litgpt takes it on a GPU alone.
    """
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    shape = {"n_embd": cfg["emb_dim"], "n_layer": cfg["n_layers"]}
    shape |= {"n_head": cfg["n_heads"], "block_size": cfg["context_length"]}
    shape |= {"vocab_size": cfg["vocab_size"], "padded_vocab_size": cfg["vocab_size"]}
    blocks = {"parallel_residual": False, "gelu_approximate": "tanh"}
    model = GPT(Config(**shape, **blocks))
    model.apply(model._init_weights)
    model.to(device)

    def calc_loss(inputs, targets):
        with autocast(device, torch.bfloat16):
            return chunked_cross_entropy(model(inputs), targets)

    is_fused = is_fused or torch.device(device).type == "cuda"
    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW, fused=is_fused)
    return Trainee(model, optimizer, calc_loss)


def ours(**settings):
    """What makes our Trainee with these settings, and the package that it needs."""
    return partial(our_trainee, **settings), "torch"


BFLOAT16 = {"dtype": torch.bfloat16}
TRAINEES = {  # what makes them of a config and a device, and the packages they need
    BOOK: (book_trainee, "llms_from_scratch"),
    TRANSFORMERS: (transformers_trainee, "transformers"),
    FASTER_TRANSFORMERS: (partial(transformers_trainee, **BFLOAT16), "transformers"),
    LITGPT: (litgpt_trainee, "litgpt"),
    OURS: ours(),
    FASTER: ours(**BFLOAT16),
    TIED: ours(is_tied=True),
    FASTER_TIED: ours(**BFLOAT16, is_tied=True),
    WITHOUT: ours(is_tied=True, drop_rate=0.0),
    FASTER_WITHOUT: ours(**BFLOAT16, is_tied=True, drop_rate=0.0),
}
if not IS_QUICK:
    TRAINEES[LITGPT_FUSED] = partial(litgpt_trainee, is_fused=True), "litgpt"
if not IS_QUICK and shutil.which("g++"):
    compiled = partial(transformers_trainee, **BFLOAT16, is_compiled=True)
    TRAINEES[COMPILED] = compiled, "transformers"
IN_BFLOAT16 = (
    LITGPT,
    LITGPT_FUSED,
    FASTER_TRANSFORMERS,
    COMPILED,
    FASTER,
    FASTER_TIED,
    FASTER_WITHOUT,
)


def trainees_for(device):
    """The titles of TRAINEES without those that a device can only imitate."""
    has_all = has_bfloat16(torch.device(device).type)
    return [title for title in TRAINEES if has_all or title not in IN_BFLOAT16]


def random_batch(cfg, batch_size):
    """The same random (inputs, targets) for all, each (batch_size, context_length)."""
    shape = batch_size, cfg["context_length"] + 1
    generator = torch.Generator().manual_seed(123)
    ids = torch.randint(cfg["vocab_size"], shape, generator=generator)
    return ids[:, :-1], ids[:, 1:]
