"""GPT-2 as in transformers and in its publishers' files, to compare the course with."""

import json
import re

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from ch05.openai_weights import copy_openai_weights
from support.download.files import sha256_of
from support.download.tensorflow_checkpoint import import_tensorflow

SMALL = "gpt2-small (124M)"
# tests put it in the place of the 124M in ch05.openai_weights.MODEL_CONFIGS
TINY = {
    "vocab_size": 101,
    "context_length": 24,
    "emb_dim": 16,
    "n_layers": 2,
    "n_heads": 4,
}


def transformers_config(cfg):
    """Return transformers' config of a GPT-2 with the sizes of ours."""
    return GPT2Config(
        vocab_size=cfg["vocab_size"],
        n_positions=cfg["context_length"],
        n_embd=cfg["emb_dim"],
        n_layer=cfg["n_layers"],
        n_head=cfg["n_heads"],
    )


def transformers_gpt2(cfg, seed=123, std=0.5):
    """Return transformers' GPT-2 of our config, with all its parameters random."""
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(transformers_config(cfg)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model


def openai_arrays(reference):
    """Return a GPT2LMHeadModel's weights by OpenAI's names, matrices as (in, out)."""
    arrays = {}
    for name, parameter in reference.transformer.named_parameters():
        *path, kind = re.sub(r"^h\.", "h", name).split(".")
        letter = "b" if kind == "bias" else "g" if path[-1][:3] == "ln_" else "w"
        last = [] if path[0] in ("wte", "wpe") else [letter]
        arrays["/".join(path + last)] = parameter.detach().numpy()
    return arrays


def copy_from_transformers(model, reference):
    """Copy the weights of a GPT2LMHeadModel into a GPTModel."""
    copy_openai_weights(model, openai_arrays(reference).__getitem__)


def write_checkpoint(folder, arrays):
    """Write arrays as OpenAI did: model.ckpt.index, model.ckpt.data-00000-of-00001."""
    arrays = {f"model/{name}": array for name, array in arrays.items()}
    for name, array in arrays.items():
        if name.endswith("/w"):
            arrays[name] = array[None]  # they were one-dimensional convolutions
    folder.mkdir(parents=True, exist_ok=True)
    import_tensorflow().raw_ops.SaveV2(
        prefix=str(folder / "model.ckpt"),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=list(arrays.values()),
    )


def write_openai(folder, reference):
    """Write the seven files that OpenAI published of each size."""
    write_checkpoint(folder, openai_arrays(reference))
    config = reference.config
    keys = {"n_vocab": "vocab_size", "n_ctx": "n_positions", "n_embd": "n_embd"}
    keys |= {"n_head": "n_head", "n_layer": "n_layer"}
    settings = {key: getattr(config, name) for key, name in keys.items()}
    (folder / "hparams.json").write_text(json.dumps(settings), encoding="utf-8")
    for name in ("checkpoint", "encoder.json", "vocab.bpe", "model.ckpt.meta"):
        (folder / name).write_text(f"a placeholder for {name}", encoding="utf-8")


def write_hugging_face(folder, reference):
    """Write the file that Hugging Face publishes of each size."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = dict(reference.transformer.named_parameters())
    save_file(weights, folder / "model.safetensors")


def sizes_and_hashes(folder):
    """Return {name: (bytes, sha256)} of all files in a folder."""
    return {
        path.name: (path.stat().st_size, sha256_of(path)) for path in folder.iterdir()
    }
