"""Ways to fine-tune, and what each needs (a support module: used, not taught).

`support.pretraining.memory` counts and measures; here are LoRA and a halved base.
`benchmarks.instructing` compares the forecast memory with what real steps take.
"""

from dataclasses import dataclass, replace

import pandas as pd
import psutil
import torch

from ch07.finetuning import calc_answer_loss, checkpoint_blocks, halve_frozen
from ch07.lora import replace_linear_with_lora
from support.pretraining.memory import Workload, forecast_training, free_bytes


@dataclass(frozen=True)
class Plan:
    """A way to fine-tune; from LoRA on, the later ones in PLANS need less memory."""

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

    def workload(self, cfg, batch_size, num_tokens, num_targets, dtype, device="cpu"):
        """A step by this plan, of a pretrained model, whose output layer is tied.

        batch_size texts of num_tokens tokens each, num_targets of all of them with a
        loss. A halved base needs bfloat16, whatever the dtype.
        """
        return Workload(
            cfg,
            batch_size,
            num_tokens,
            dtype=torch.bfloat16 if self.is_halved else dtype,
            device=device,
            is_checkpointed=self.is_checkpointed,
            is_tied=True,
            prepare=replace(self, is_checkpointed=False).prepare,
            num_targets=num_targets,
            calc_loss=calc_answer_loss,
        )


PLANS = (
    Plan("all parameters"),
    Plan("all parameters, blocks checkpointed", is_checkpointed=True),
    Plan("LoRA", rank=16),
    Plan("LoRA, blocks checkpointed", rank=16, is_checkpointed=True),
    Plan("LoRA, blocks checkpointed, base halved", 16, True, True),
)


def preflight(
    cfg,
    batch_size,
    num_tokens,
    num_targets,
    dtype=torch.float32,
    device="cpu",
    num_steps=100,
):
    """What each of PLANS will take, and a proposal: (table, sentence).

    The table has GB, what this process holds already *in all* included, the minutes of
    num_steps steps, nan where not even one block fits, and whether the plan fits into
    what is free now. Raises ValueError for sizes beyond all counting.
    """
    process, free = psutil.Process().memory_info().rss, free_bytes(device)
    rows, sizes = {}, (cfg, batch_size, num_tokens, num_targets, dtype, device)
    for plan in PLANS:
        forecast = forecast_training(plan.workload(*sizes))
        row = {name: size / 1e9 for name, size in forecast.bytes.items()}
        row |= {"in all": (process + forecast.needed) / 1e9}
        row |= {"fits": forecast.needed < free, "minutes": forecast.minutes(num_steps)}
        rows[plan.title] = row
    table = pd.DataFrame(rows).T.infer_objects()
    return table, proposal(table, free)


def proposal(table, free):
    """A sentence: the first plan of a table that fits into so many bytes, or none."""
    fitting = table.index[table["fits"]]
    if len(fitting) == 0:
        return (
            f"no plan fits into the {free / 1e9:.1f} GB that are free: compute batches "
            "in parts (num_parts), or take a smaller model"
        )
    title, minutes = fitting[0], table.loc[fitting[0], "minutes"]
    return f"{title}: {minutes:.1f} min, and {free / 1e9:.1f} GB are free"
