"""Check that a model computes what the weights in its file compute.

GPT-2 is computed a second time, in NumPy and directly from the file's arrays. Then each
part of the model gets the same input and must give the same output.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from support.device.precision import undisturbed

PROMPT_IDS = [464, 3290, 373, 1043, 287, 257, 2214, 1474]  # The dog was found in ...
TOLERANCE = 1e-4  # relative to the largest value; rounding errors are a tenth of it
PROBE = np.linspace(-3, 3, 61, dtype=np.float32)  # where the two kinds of GELU differ


class ParityError(ValueError):
    """A model does not match its file; the message names each part that differs."""


def raise_parity_error(faults):
    """Raise ParityError with one line for each fault, if there are any."""
    if faults:
        raise ParityError("the loaded model is wrong:\n  " + "\n  ".join(faults))


def check_parameters(model):
    """Raise ParityError unless all parameters are finite and contiguous."""
    faults = []
    for name, parameter in model.named_parameters():
        if not all(x.isfinite() for x in parameter.aminmax()):  # no copy
            faults.append(f"{name} holds values that are not finite numbers")
        if not parameter.is_contiguous():
            faults.append(f"{name} is not contiguous in memory")
    raise_parity_error(faults)


def layer_norm(x, scale, shift):
    """Layer normalization: mean 0, variance 1, then scale and shift."""
    x = x - x.mean(-1, keepdims=True)
    return scale * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) + shift


def tanh_gelu(x):
    """GELU by the formula of GPT-2 (Hendrycks & Gimpel 2016, 2)."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def causal_attention(queries, keys, values, num_heads):
    """Multi-head causal attention of arrays (num_tokens, emb_dim)."""
    num_tokens, emb_dim = queries.shape
    queries, keys, values = (
        x.reshape(num_tokens, num_heads, -1).swapaxes(0, 1)
        for x in (queries, keys, values)
    )  # (num_heads, num_tokens, head_dim)
    scores = queries @ keys.swapaxes(1, 2) / math.sqrt(emb_dim / num_heads)
    scores = np.where(np.tri(num_tokens, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return (weights @ values).swapaxes(0, 1).reshape(num_tokens, emb_dim)


def block_steps(x, read, num_heads):
    """Compute a block from the file: {name of a part: (input, expected output)}."""
    norm1 = layer_norm(x, read("ln_1/g"), read("ln_1/b"))
    qkv = norm1 @ read("attn/c_attn/w") + read("attn/c_attn/b")
    query, key, value = np.split(qkv, 3, axis=-1)
    heads = causal_attention(query, key, value, num_heads)
    att = heads @ read("attn/c_proj/w") + read("attn/c_proj/b")
    middle = x + att
    norm2 = layer_norm(middle, read("ln_2/g"), read("ln_2/b"))
    wide = norm2 @ read("mlp/c_fc/w") + read("mlp/c_fc/b")
    narrow = tanh_gelu(wide) @ read("mlp/c_proj/w") + read("mlp/c_proj/b")
    return {
        ".norm1": (x, norm1),
        ".att.W_query": (norm1, query),
        ".att.W_key": (norm1, key),
        ".att.W_value": (norm1, value),
        ".att.out_proj": (heads, att),
        ".att": (norm1, att),
        ".norm2": (middle, norm2),
        ".ff.layers.0": (norm2, wide),
        ".ff.layers.1": (PROBE, tanh_gelu(PROBE)),
        ".ff.layers.2": (tanh_gelu(wide), narrow),
        ".ff": (norm2, narrow),
        "": (x, middle + narrow),
    }


def gpt_steps(read_tensor, n_layers, n_heads):
    """Compute GPT-2 from its file: {name of a part: (input, expected output)}.

    read_tensor(name) gives the array of OpenAI's name, (in, out) for matrices. Only one
    large array is in memory at a time, so call it before the model is loaded.
    """

    def read(name):
        return np.asarray(read_tensor(name))

    wte, wpe = read("wte"), read("wpe")
    ids, positions = np.array(PROMPT_IDS) % len(wte), np.arange(len(wpe))
    steps = {"tok_emb": (ids, wte[ids]), "pos_emb": (positions, wpe)}
    x = wte[ids] + wpe[: len(ids)]
    del wte  # the largest array: it is read again at the end
    for layer in range(n_layers):
        block = block_steps(x, lambda name, n=layer: read(f"h{n}/{name}"), n_heads)
        steps |= {f"trf_blocks.{layer}{part}": step for part, step in block.items()}
        x = block[""][1]
    final = layer_norm(x, read("ln_f/g"), read("ln_f/b"))
    logits = final @ read("wte").T
    return steps | {
        "final_norm": (x, final),
        "out_head": (final, logits),
        "": (ids, logits),
    }


def agrees(found, expected):
    """Return True if a tensor equals an array except for rounding errors."""
    off = np.abs(found.numpy() - expected).max()
    return off <= TOLERANCE * max(1.0, np.abs(expected).max())  # False for NaN


@torch.no_grad()
@undisturbed()
def check_parity(model, steps):
    """Raise ParityError that names the parts of a GPTModel on the CPU that differ.

    steps: from `gpt_steps`. A module is named only if all of its parts are right.
    """
    check_parameters(model)
    faults = {}
    for name, (given, expected) in steps.items():
        found = model.get_submodule(name)(torch.from_numpy(given)[None])[0]
        has_wrong_part = any(part.startswith(name) for part in faults)
        if not has_wrong_part and not agrees(found, expected):
            faults[name] = diagnosis(model.get_submodule(name), name, found, steps)
    if model.out_head.weight is not model.tok_emb.weight:
        faults["out_head.weight"] = (
            "is not tok_emb.weight, but GPT-2 uses one weight for both"
        )
    raise_parity_error([f"{name or 'the model'} {why}" for name, why in faults.items()])


def diagnosis(part, name, found, steps):
    """Describe what is wrong with a part, as far as its output shows it."""
    given, expected = steps[name]
    x = torch.from_numpy(given)
    for other, (same, output) in steps.items():
        if same is given and output.shape == found.shape and agrees(found, output):
            return f"holds the weights of {other}"
    is_square = isinstance(part, nn.Linear) and part.in_features == part.out_features
    if is_square and agrees(x @ part.weight + part.bias, expected):
        return "holds its matrix transposed"
    if given is PROBE and agrees(found, F.gelu(x).numpy()):
        return "is the exact GELU, but GPT-2 was trained with the tanh formula"
    if torch.equal(found, x):
        return "returns its input unchanged"
    if isinstance(part, (nn.Linear, nn.Embedding)) or not list(part.children()):
        return "does not compute what the file's weights compute"
    return "has the right parts, but omits one or uses them in another order"


@torch.no_grad()
@undisturbed()
def fixed_logits(model):
    """Return eight logits of a fixed prompt, to recognize a model by them later."""
    ids = torch.tensor([PROMPT_IDS]) % model.tok_emb.num_embeddings
    return model(ids)[0, -1, :8].tolist()


def check_logits(model, expected):
    """Raise ParityError unless `fixed_logits` of a model are the expected ones."""
    found = fixed_logits(model)
    if not agrees(torch.tensor(found), np.array(expected)):
        raise_parity_error([f"a fixed prompt gives the logits {found}, not {expected}"])
