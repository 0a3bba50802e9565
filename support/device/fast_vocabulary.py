"""Both ends of a model on a CPU, faster and with less memory.

The largest tensors of a training step have a number for each token of the vocabulary:
the logits of 512 tokens are 103 MB with GPT-2's vocabulary, and the gradient of its
token embedding is 154 MB. PyTorch writes several of each. Here the loss is computed for
a few tokens at a time, whose numbers stay in the processor's cache. And if the token
embedding is the weight of the output layer as well (5.2), the gradients of its few rows
that were looked up are added to the output layer's gradient, without a second table.
"""

from contextlib import nullcontext
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from support.device.choice import fastest

CHUNK = 2**20  # logits that are computed at a time, about
IGNORED = -100  # targets that do not count
# options of F.cross_entropy and F.embedding, which pass them all on; with others, both
# are left to PyTorch
USUAL_LOSS = {
    "size_average": None,
    "ignore_index": IGNORED,
    "reduce": None,
    "reduction": "mean",
    "label_smoothing": 0.0,
}
USUAL_LOOKUP = {
    "padding_idx": None,
    "max_norm": None,
    "norm_type": 2.0,
    "scale_grad_by_freq": False,
    "sparse": False,
}
TRIED_SHAPE = 64, 16384, 768  # num_tokens, vocab_size, emb_dim


class FastVocabulary(TorchFunctionMode):
    """A `with` block in which a model's embedding, output layer and loss are fast."""

    def __init__(self):
        super().__init__()
        self.tables = {}  # by id: embeddings, each with what an output layer takes

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.cross_entropy:
            func = cross_entropy
        elif func is F.embedding and is_trained_table(*args, **kwargs):
            ids, weight = args
            rows, table = BothEnds.apply(weight)
            self.tables[id(weight)] = weight, table
            return F.embedding(ids, rows, sparse=True)
        elif func is F.linear and not kwargs and id(args[1]) in self.tables:
            x, weight, *bias = args
            _, table = self.tables.pop(id(weight))
            return F.linear(x, table, *bias)
        return func(*args, **kwargs)


def is_trained_table(ids, weight, **options):
    """Return True for a usual look-up on a CPU whose table asks for gradients."""
    is_usual = options == USUAL_LOOKUP
    is_trained = torch.is_grad_enabled() and weight.requires_grad
    return is_usual and is_trained and weight.device.type == "cpu"


class BothEnds(torch.autograd.Function):
    """A weight, (vocab_size, emb_dim), twice: to look up rows, and to multiply by.

    Both gradients arrive together, that of the rows as a sparse tensor.
    """

    @staticmethod
    def forward(ctx, weight):
        ctx.set_materialize_grads(False)
        return weight.view_as(weight), weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_rows, grad_table):
        if grad_table is None:
            return None if grad_rows is None else grad_rows.to_dense()
        # nothing else holds grad_table: only F.linear has used what it belongs to
        return grad_table if grad_rows is None else grad_table.add_(grad_rows)


def cross_entropy(logits, targets, weight=None, **options):
    """Compute `F.cross_entropy`, fast if it is the plain mean over tokens on a CPU."""
    is_plain = weight is None and USUAL_LOSS | options == USUAL_LOSS
    has_tokens = logits.dim() == 2 and targets.dim() == 1
    is_on_cpu = logits.device.type == "cpu" and targets.dtype == torch.int64
    if is_plain and has_tokens and is_on_cpu:
        return ChunkedCrossEntropy.apply(logits, targets)
    return F.cross_entropy(logits, targets, weight, **options)


class ChunkedCrossEntropy(torch.autograd.Function):
    """Mean of logsumexp(logits) - logits[target] over the targets that count.

    Shapes: logits (num_tokens, vocab_size), targets (num_tokens). The loss and all sums
    are float32, whatever the logits are (float64 stays float64).
    """

    @staticmethod
    def forward(ctx, logits, targets):
        dtype = torch.promote_types(logits.dtype, torch.float32)
        counts = targets != IGNORED
        targets = targets.where(counts, 0)  # any token: what it gives is not counted
        chunks = logits.split(max(1, CHUNK // logits.shape[1]))
        sums = torch.cat([chunk.to(dtype).logsumexp(dim=1) for chunk in chunks])
        chosen = logits.gather(1, targets[:, None])[:, 0].to(dtype)
        ctx.save_for_backward(logits, targets, sums, counts)
        return ((sums - chosen) * counts).sum() / counts.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        logits, targets, sums, counts = ctx.saved_tensors
        scales = grad_output * counts / counts.sum()
        grad = torch.empty_like(logits)
        size = max(1, CHUNK // logits.shape[1])
        parts = (each.split(size) for each in (logits, targets, sums, scales, grad))
        for chunk, target, total, scale, out in zip(*parts):
            # the gradient of the loss is softmax(logits), less 1 at the target
            found = (chunk.to(sums.dtype) - total[:, None]).exp_()
            found[torch.arange(len(found)), target] -= 1
            out.copy_(found.mul_(scale[:, None]))
        return grad, None


@cache
def gains_by_fast_vocabulary(dtype):
    """Return True if a CPU computes both ends of a model faster by FastVocabulary.

    dtype: of matrix multiplications, float32 or bfloat16.
    """
    num_tokens, *shape = TRIED_SHAPE
    generator = torch.Generator().manual_seed(123)
    weight = torch.randn(shape, generator=generator)
    ids = torch.randint(shape[0], (2, num_tokens), generator=generator)
    exact = partial(loss_and_gradient, weight.double(), ids, nullcontext)
    ways = {"plain": nullcontext, "FastVocabulary": FastVocabulary}
    ways = {
        name: partial(loss_and_gradient, weight, ids, way, dtype)
        for name, way in ways.items()
    }
    title = f"vocabulary in {dtype}"
    return fastest(title, ways, exact) == "FastVocabulary"


@torch.enable_grad()
def loss_and_gradient(weight, ids, way, dtype=None):
    """Return the loss and the weight's gradient, computed within a `with` block way().

    Tokens are predicted from their embeddings, by an output layer with the same weight.
    ids: inputs and targets, (2, num_tokens). dtype: of products, if not the weight's.
    """
    weight = weight.detach().requires_grad_()
    inputs, targets = ids
    is_bf16 = dtype == torch.bfloat16
    with way(), torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        x = F.embedding(inputs, weight) * weight.shape[1] ** -0.5
        loss = F.cross_entropy(F.linear(x, weight), targets)
    loss.backward()
    return loss.detach(), weight.grad


def fast_vocabulary(device, dtype):
    """A `with` block for FastVocabulary, if it is faster on this device for a dtype."""
    is_cpu = torch.device(device).type == "cpu"
    gains = is_cpu and gains_by_fast_vocabulary(dtype)
    return FastVocabulary() if gains else nullcontext()
