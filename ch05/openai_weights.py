"""OpenAI's GPT-2 weights: fetched, read with TensorFlow, copied into GPTModel (5.5)."""

from pathlib import Path

import numpy as np
import torch

from support.download.fetch import fetch
from support.download.gpt2_files import fetch_and_read, openai_files
from support.download.tensorflow_checkpoint import TensorFlowReader, read_settings

MODEL_CONFIGS = {
    "gpt2-small (124M)": {"emb_dim": 768, "n_layers": 12, "n_heads": 12},
    "gpt2-medium (355M)": {"emb_dim": 1024, "n_layers": 24, "n_heads": 16},
    "gpt2-large (774M)": {"emb_dim": 1280, "n_layers": 36, "n_heads": 20},
    "gpt2-xl (1558M)": {"emb_dim": 1600, "n_layers": 48, "n_heads": 25},
}


def download_and_load_gpt2(model_size, models_dir):
    """Fetch OpenAI's checkpoint into models_dir/model_size: (settings, params).

    model_size is "124M", "355M", "774M" or "1558M". What lies there whole is not
    fetched again; what TensorFlow finds damaged is, once. Raises FetchError,
    DamagedCheckpoint.
    """
    folder = Path(models_dir) / model_size

    def read():
        settings = read_settings(folder)
        params = load_gpt2_params_from_tf_ckpt(folder / "model.ckpt", settings)
        return settings, params

    return fetch_and_read(openai_files(model_size), folder, read)


def branch_of(params, name):
    """Where nested params keep an array of OpenAI's: (dict, key in it)."""
    *path, key = name.removeprefix("ln_f/").split("/")  # h3/attn/c_attn/w
    branch = params
    for step in path:
        is_block = step.startswith("h")
        branch = (
            params["blocks"][int(step[1:])] if is_block else branch.setdefault(step, {})
        )
    return branch, key


def load_gpt2_params_from_tf_ckpt(ckpt_path, settings):
    """All arrays of a checkpoint in nested dicts; `blocks` has one for each block."""
    params = {"blocks": [{} for _ in range(settings["n_layer"])]}
    read = TensorFlowReader(ckpt_path)
    for name in read.names():
        branch, key = branch_of(params, name)
        branch[key] = read(name)
    return params


def download_file(url, destination, backup_url=None):
    """Fetch a file as the book's function does, but raise FetchError if that fails."""
    fetch([url] if backup_url is None else [url, backup_url], destination)


def assign(left, right):
    """Copy the array right into the parameter left, in place, and return left.

    In place it keeps its memory layout, its data type, and whoever shares it.
    """
    right = torch.as_tensor(right)
    if left.shape != right.shape:
        raise ValueError(
            f"shapes differ: left {tuple(left.shape)}, right {tuple(right.shape)}"
        )
    with torch.no_grad():
        left.copy_(right)
    return left


def openai_layout(gpt):
    """Yield OpenAI's name of each array, and the parameters that its columns fill."""
    yield "wte", [gpt.tok_emb.weight]
    yield "wpe", [gpt.pos_emb.weight]
    for layer, block in enumerate(gpt.trf_blocks):
        for name, linears in (
            ("attn/c_attn", [block.att.W_query, block.att.W_key, block.att.W_value]),
            ("attn/c_proj", [block.att.out_proj]),
            ("mlp/c_fc", [block.ff.layers[0]]),
            ("mlp/c_proj", [block.ff.layers[2]]),
        ):
            yield f"h{layer}/{name}/w", [linear.weight for linear in linears]
            yield f"h{layer}/{name}/b", [linear.bias for linear in linears]
        for name, norm in (("ln_1", block.norm1), ("ln_2", block.norm2)):
            yield f"h{layer}/{name}/g", [norm.scale]
            yield f"h{layer}/{name}/b", [norm.shift]
    yield "ln_f/g", [gpt.final_norm.scale]
    yield "ln_f/b", [gpt.final_norm.shift]


def copy_openai_weights(gpt, read):
    """Fill a GPTModel array by array: read(name) gives the one of OpenAI's name."""
    if gpt.trf_blocks[0].att.W_query.bias is None:
        raise ValueError('GPT-2 has biases: build GPTModel(cfg | {"qkv_bias": True})')
    for name, parameters in openai_layout(gpt):
        array = read(name)
        if name.endswith("/w"):
            array = array.T  # OpenAI computes x @ w; nn.Linear keeps w transposed
        for parameter, part in zip(parameters, np.array_split(array, len(parameters))):
            try:
                assign(parameter, part)
            except ValueError as error:
                raise ValueError(f"{name} does not fit the model: {error}") from None
    gpt.out_head.weight = gpt.tok_emb.weight  # one parameter, used at both ends


def load_weights_into_gpt(gpt, params):
    """Copy OpenAI's nested params into a GPTModel; ValueError where they do not fit."""
    if len(params["blocks"]) != len(gpt.trf_blocks):
        raise ValueError(
            f"the weights have {len(params['blocks'])} blocks, but the model has "
            f"{len(gpt.trf_blocks)}: use the config and the weights of the same size"
        )

    def read(name):
        branch, key = branch_of(params, name)
        return branch[key]

    copy_openai_weights(gpt, read)
