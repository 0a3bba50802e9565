"""Models on disk (a support module: used, not taught).

A model is one safetensors file, with its config inside and its sha256 beside it.
"""

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ch02.fetch import check_sha256, replacing, sha256_of, write_atomically
from ch04.gpt import GPTModel


def sha256_file(path):
    """The file that holds the sha256 of `path`."""
    return Path(f"{path}.sha256")


def save_model(path, model, cfg):
    """Write the model's weights and config; the file appears whole or not at all."""
    with replacing(path) as temporary:
        save_file(model.state_dict(), temporary, metadata={"config": json.dumps(cfg)})
        digest = sha256_of(temporary)
    write_atomically(sha256_file(path), f"{digest}  {Path(path).name}\n".encode())


def load_model(path, device="cpu"):
    """Read what `save_model` wrote: (model in evaluation mode, config).

    Raises ValueError when the file is damaged, FileNotFoundError when it is not there.
    """
    check_sha256(path, sha256_file(path).read_text(encoding="utf-8").split()[0])
    with safe_open(path, framework="pt") as file:
        cfg = json.loads(file.metadata()["config"])
    model = GPTModel(cfg)
    model.load_state_dict(load_file(path))
    return model.to(device).eval(), cfg
