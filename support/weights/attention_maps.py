"""Write the attention maps of SmolLM2 that 3.6 shows: ch03/smollm2_attention.npz.

`python -m support.weights.attention_maps` needs the file of SmolLM2-135M-Instruct,
which `python -m support.weights get smollm2-135M` downloads.
"""

if __name__ == "__main__":
    from support.commands import exit_on_interrupt

    exit_on_interrupt()  # before imports that take seconds

import argparse

import numpy as np
import torch

from support.commands import clean_exit
from support.device.precision import undisturbed
from support.download.fetch import FetchError, downloads_folder
from support.messages import say
from support.paths import ROOT
from support.weights.smollm2 import GGUF, SHA256, fetch_gguf, load_smollm2

PATH = ROOT / "ch03" / "smollm2_attention.npz"
MODEL = "SmolLM2-135M-Instruct, weights of four bits"
SENTENCES = (  # heads are picked with the first; the second shows whether they keep on
    "The captain slept because he was tired and the boat was late",
    "The girl was hungry so she ate while the bread was warm",
)


@torch.no_grad()
@undisturbed()
def attention_maps(model, ids):
    """Return the attention weights of a LlamaModel for a list of token ids.

    The shape is (n_layers, n_heads, num_tokens, num_tokens): a row for each query.
    """
    maps = []
    hooks = [
        block.att.register_forward_hook(
            lambda att, given, _: maps.append(weights_of(att, given[0]))
        )
        for block in model.trf_blocks
    ]
    try:
        model(torch.tensor([ids]))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(maps)


def weights_of(att, x):
    """Return the weights of a GroupedQueryAttention for x, (1, num_tokens, emb_dim)."""
    num_tokens = x.shape[1]
    positions = torch.arange(num_tokens)
    queries = att.rotate(att.split_heads(att.W_query(x)), positions)[0]
    keys = att.rotate(att.split_heads(att.W_key(x)), positions)[0]
    keys = keys.repeat_interleave(len(queries) // len(keys), dim=0)  # shared by groups
    scores = queries @ keys.transpose(1, 2) / att.head_dim**0.5
    future = torch.ones(num_tokens, num_tokens, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(dim=-1)


def main():
    """Compute the maps of each sentence and write them into one file."""
    argparse.ArgumentParser(
        prog="python -m support.weights.attention_maps",
        description=__doc__.splitlines()[0],
    ).parse_args()
    with clean_exit(FetchError, ValueError, OSError):
        model, tokenizer = load_smollm2(fetch_gguf(downloads_folder() / "smollm2"))
        ids = [tokenizer.encode(sentence) for sentence in SENTENCES]
        maps = [attention_maps(model.eval(), each).numpy() for each in ids]
        np.savez_compressed(
            PATH,
            model=MODEL,
            weights_file=GGUF,
            sha256=SHA256,
            tokens=[[tokenizer.decode([i]).strip() for i in each] for each in ids],
            weights=np.stack(maps).astype(np.float16),
        )
        say(f"wrote {PATH.relative_to(ROOT)}, {PATH.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
