"""What fine-tuning will need, before it begins (support: used, not taught).

One block of the model computes one batch; the bytes that autograd keeps of it are
counted and multiplied. `benchmarks.instructing` measures how near the forecast comes.
"""

from dataclasses import dataclass, replace

import pandas as pd
import psutil
import torch

from ch05.checkpoint import build_model
from ch05.device import autocast
from ch07.finetuning import checkpoint_blocks, halve_frozen
from ch07.lora import replace_linear_with_lora


@dataclass(frozen=True)
class Plan:
    """A way to fine-tune; the later ones in PLANS need less memory and more time."""

    title: str
    rank: int = 0  # of LoRA; 0 trains all parameters
    is_checkpointed: bool = False
    is_halved: bool = False  # frozen parameters in bfloat16

    def prepare(self, model):
        """Make a model ready to be trained by this plan."""
        if self.rank:
            model.requires_grad_(False)
            replace_linear_with_lora(model, self.rank, alpha=2 * self.rank)
        if self.is_halved:
            halve_frozen(model)
        if self.is_checkpointed:
            checkpoint_blocks(model)


PLANS = (
    Plan("all parameters"),
    Plan("all parameters, blocks checkpointed", is_checkpointed=True),
    Plan("LoRA", rank=16),
    Plan("LoRA, blocks checkpointed", rank=16, is_checkpointed=True),
    Plan("LoRA, blocks checkpointed, base halved", 16, True, True),
)


def size_in_bytes(tensors):
    """What these tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def kept_bytes(block, x, dtype, device="cpu"):
    """Bytes that autograd keeps, the block's parameters apart, while it computes x."""
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, autocast(device, dtype):
        y = block(x)  # held until the end, so that no storage is counted twice
    for parameter in block.parameters():
        kept.pop(parameter.data_ptr(), None)
    return sum(kept.values()) if y.requires_grad else 0


def activation_bytes(cfg, plan, batch_size, num_tokens, dtype):
    """Bytes of what all blocks keep for the way back, by one that is computed."""
    small = build_model(cfg | {"n_layers": 1, "vocab_size": 2})
    replace(plan, is_checkpointed=False).prepare(small)
    x_dtype = torch.float32
    if plan.is_halved:  # then products have to be in bfloat16 too
        x_dtype = dtype = torch.bfloat16
    x = torch.zeros(batch_size, num_tokens, cfg["emb_dim"], dtype=x_dtype)
    of_one = kept_bytes(small.trf_blocks[0], x.requires_grad_(), dtype)
    if plan.is_checkpointed:  # all keep their inputs; one at a time computes again
        return cfg["n_layers"] * size_in_bytes([x]) + of_one
    return cfg["n_layers"] * of_one


def forecast(cfg, plan, batch_size, num_tokens, num_targets, dtype):
    """Bytes that training takes above the interpreter, by what they hold: a dict.

    batch_size texts of num_tokens tokens each, num_targets of all of them with a loss.
    """
    with torch.device("meta"):  # shapes without numbers
        model = build_model(cfg)
        model.out_head.weight = model.tok_emb.weight  # as pretrained models have it
        plan.prepare(model)
    trained = size_in_bytes(p for p in model.parameters() if p.requires_grad)
    return {
        "weights": size_in_bytes(model.parameters()),
        "gradients": trained,
        "AdamW": 2 * trained,
        "blocks": activation_bytes(cfg, plan, batch_size, num_tokens, dtype),
        "logits": 3 * 4 * num_targets * cfg["vocab_size"],  # they, softmax, gradient
    }


def preflight(cfg, batch_size, num_tokens, num_targets, dtype=torch.float32):
    """A table in GB of what each of PLANS will take, and whether that is free now."""
    process = psutil.Process().memory_info().rss
    free = psutil.virtual_memory().available
    rows = {}
    for plan in PLANS:
        parts = forecast(cfg, plan, batch_size, num_tokens, num_targets, dtype)
        total = sum(parts.values())
        row = {name: size / 1e9 for name, size in parts.items()}
        row |= {"in all": (process + total) / 1e9, "fits": total < free}
        rows[plan.title] = row
    return pd.DataFrame(rows).T
