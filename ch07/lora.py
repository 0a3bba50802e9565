"""LoRA: fine-tuning with two small matrices for each frozen one (7.5; Hu et al. 2021).

Shapes: b = batch; A is (in_dim, rank), B is (rank, out_dim).
"""

import math

import torch
from torch import nn

from support.checks import is_number, is_whole
from support.weights.checkpoint import load_parameters, open_saved, save_weights


class LoRALayer(nn.Module):
    """x (b, num_tokens, in_dim) -> alpha / rank * x A B, which is 0 while B is 0."""

    def __init__(self, in_dim, out_dim, rank, alpha):
        super().__init__()
        if not is_whole(rank):
            raise ValueError(f"the rank is {rank}; it must be a whole number above 0")
        if not is_number(alpha) or alpha <= 0:
            raise ValueError(f"alpha is {alpha}; it must be a number above 0")
        self.A = nn.Parameter(torch.empty(in_dim, rank))
        nn.init.kaiming_uniform_(self.A.T, a=math.sqrt(5))  # as in nn.Linear
        self.B = nn.Parameter(torch.zeros(rank, out_dim))
        self.rank, self.alpha = rank, alpha

    @property
    def scaling(self):
        """The factor of the LoRA output."""
        return self.alpha / self.rank

    def forward(self, x):
        return self.scaling * (x @ self.A @ self.B)  # (b, num_tokens, out_dim)


class LinearWithLoRA(nn.Module):
    """A linear layer, usually frozen, and a LoRALayer whose output is added."""

    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear = linear
        sizes = linear.in_features, linear.out_features
        self.lora = LoRALayer(*sizes, rank, alpha).to(linear.weight.device)

    @property
    def out_features(self):
        return self.linear.out_features

    @property
    def weight(self):
        """The weight of one linear layer that computes the same, (out_dim, in_dim)."""
        change = self.lora.scaling * (self.lora.A @ self.lora.B).T
        return (self.linear.weight + change).to(self.linear.weight.dtype)

    def forward(self, x):
        return self.linear(x) + self.lora(x)


def replace_linear_with_lora(model, rank, alpha):
    """Replace every linear layer of a model by a LinearWithLoRA."""
    for name, module in model.named_children():
        if isinstance(module, LinearWithLoRA):
            raise ValueError(f"{name} has a LoRA layer already: call merge_lora first")
        if isinstance(module, nn.Linear):
            setattr(model, name, LinearWithLoRA(module, rank, alpha))
        else:
            replace_linear_with_lora(module, rank, alpha)


@torch.no_grad()
def merge_lora(model):
    """Replace every LinearWithLoRA by one linear layer that computes the same.

    Its weight and bias are frozen or trainable as those of the layer in it were.
    """
    for name, module in model.named_children():
        if isinstance(module, LinearWithLoRA):
            # a new parameter, because the old one may be tied to the embedding
            is_trained = module.linear.weight.requires_grad
            module.linear.weight = nn.Parameter(module.weight, is_trained)
            setattr(model, name, module.linear)
        else:
            merge_lora(module)


def adapter_parameters(model):
    """The matrices A and B of a model, by name."""
    parameters = model.named_parameters()
    return {name: value for name, value in parameters if ".lora." in name}


def save_adapter(path, model, rank, alpha, **metadata):
    """Write only the matrices A and B: a few percent of the model's size."""
    cfg = {"rank": rank, "alpha": alpha}
    save_weights(path, adapter_parameters(model), cfg, **metadata)


def adapter_shapes(model, rank):
    """The shapes that the matrices A and B of a model would have, by name."""
    shapes = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            shapes[f"{name}.lora.A"] = module.in_features, rank
            shapes[f"{name}.lora.B"] = rank, module.out_features
    return shapes


def load_adapter(path, model):
    """Freeze a model, add LoRA layers, and read what `save_adapter` wrote.

    path may also be a file that `open_saved` has opened. Raises ValueError for a
    damaged file and for a model of other sizes, which is not changed then.
    """
    file = open_saved(path)
    cfg = file.config(rank=int, alpha=int | float)
    file.check_shapes(adapter_shapes(model, cfg["rank"]))  # nothing is allocated yet
    model.requires_grad_(False)
    replace_linear_with_lora(model, cfg["rank"], cfg["alpha"])
    load_parameters(file, adapter_parameters(model))
