"""Models readied for decoding on a CPU, with smaller weights (used, not taught).

A step of decoding takes as long as the weights take to come from memory (5.3). As
float16 they are half the bytes, as int8 a quarter. What lies between the matrix
products stays float32: norms, positions, attention, the key-value cache. Not every CPU
multiplies these types fast: `benchmarks.decoding` tells what they are worth on one.
"""

import copy
from collections import defaultdict

import torch
from torch import nn

from ch05.kv_cache import CachedLogits
from ch05.small_layers import (
    HalfLinear,
    Int8Linear,
    JoinedLinear,
    LinearPart,
    SmallEmbedding,
    half_classes,
    quantize,
)

# layers that read the input of another one beside them
SAME_INPUT = {"W_key": "W_query", "W_value": "W_query", "up": "gate"}
# for linear layers, and for the output layer
CLASSES = {"float16": half_classes(), "int8": (Int8Linear, Int8Linear)}
HIGHEST_HALF = torch.finfo(torch.float16).max


def ready_for_decoding(model, weights="float16"):
    """A copy of a GPTModel or LlamaModel with small weights, for `generate`.

    weights: "float16", or "int8", which is faster and far less exact: a trained model
    may write something else, and `logit_error` tells how much. The model stays as it
    was, and nothing of it is shared. The copy cannot be trained, moved off the CPU or
    saved. Raises ValueError for a model that is not in float32 on the CPU, or has
    weights that float16 cannot hold.
    """
    if weights not in CLASSES:
        raise ValueError(f"weights is {weights!r}; it must be one of {[*CLASSES]}")
    check_can_be_readied(model)
    replaced = replace_linears(model, *CLASSES[weights])
    replaced[id(model.tok_emb)] = small_embedding(
        model, weights, replaced.get(id(model.out_head))
    )
    # deepcopy takes what it finds in this dict for copies that it has made already
    return copy.deepcopy(model, replaced).eval().requires_grad_(False)


def small_embedding(model, weights, small_head):
    """What takes the place of the token embedding; it shares a tied head's weights.

    Those that a library keeps in its own order have no rows to share.
    """
    table = model.tok_emb.weight.detach()
    if weights == "int8":
        return SmallEmbedding(*quantize(table))
    is_tied = model.out_head.weight is model.tok_emb.weight
    if is_tied and isinstance(small_head, HalfLinear):
        return SmallEmbedding(small_head.table)
    return SmallEmbedding(table.half())


def check_can_be_readied(model):
    """Raise ValueError for a model that `ready_for_decoding` is not made for."""
    if not isinstance(model.tok_emb, nn.Embedding):
        raise ValueError(
            "this model is readied already: ready the one it was made from"
        )
    kinds = {f"{p.dtype} on {p.device.type}" for p in model.parameters()}
    if kinds != {"torch.float32 on cpu"}:
        raise ValueError(
            f"the model's parameters are {', '.join(sorted(kinds))}; they must be "
            'float32 on the CPU: model.float().to("cpu") makes them so'
        )
    largest = torch.stack([p.detach().abs().max() for p in model.parameters()]).max()
    if not largest <= HIGHEST_HALF:
        raise ValueError(
            f"the model has a weight of size {largest.item()}, and float16 ends at "
            f"{HIGHEST_HALF:.0f}: has its training failed?"
        )


def replace_linears(model, layer_class, head_class):
    """Map the id of each linear layer to what takes its place."""
    replaced = {}
    for layers in groups_of_linears(model):
        weight = torch.cat([layer.weight.detach() for layer in layers])
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        make = head_class if model.out_head in layers else layer_class
        whole = make(weight, torch.cat(biases) if biases else None)
        if len(layers) == 1:
            replaced[id(layers[0])] = whole
            continue
        joined = JoinedLinear(whole, [layer.out_features for layer in layers])
        for i, layer in enumerate(layers):
            replaced[id(layer)] = LinearPart(joined, i)
    return replaced


def groups_of_linears(model):
    """Yield lists of a model's linear layers: those together that read one input."""
    for module in model.modules():
        groups = defaultdict(list)
        for name, layer in module.named_children():
            if isinstance(layer, nn.Linear):
                groups[SAME_INPUT.get(name, name)].append(layer)
        yield from groups.values()


@torch.no_grad()
def logit_error(model, readied, token_ids):
    """How far off a readied model's logits are, relative to their spread.

    Both models read a list of ids one by one, as they do when they write. At each step
    the greatest difference is divided by the standard deviation of the model's own
    logits; the greatest of these quotients is returned.
    """
    next_logits = [CachedLogits(each, 1, len(token_ids)) for each in (model, readied)]
    errors = []
    for end in range(1, len(token_ids) + 1):
        right, found = (each([token_ids[:end]]) for each in next_logits)
        errors.append(((found - right).abs().max() / right.std()).item())
    return max(errors)
