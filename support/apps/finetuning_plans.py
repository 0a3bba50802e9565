"""Five ways to fine-tune a model, and how much memory and time each needs.

`benchmarks.instructing` compares the forecasts with the memory that real steps take.
"""

import math
from functools import partial

import pandas as pd
import psutil
import torch

from ch07.finetuning import calc_answer_loss, halve_frozen
from ch07.lora import replace_linear_with_lora
from support.pretraining.memory import Workload, forecast_training, free_bytes

NUM_STEPS = 100  # how many the forecast minutes are for


def freeze_and_add_lora(model, rank=16, alpha=32, is_halved=False):
    """Freeze a model, in bfloat16 if is_halved, and add LoRA to its linear layers."""
    model.requires_grad_(False)
    replace_linear_with_lora(model, rank, alpha)
    if is_halved:
        halve_frozen(model)


# What is special in each plan's Workload. From LoRA on, each plan needs less memory
# than the one before. A base in bfloat16 must be computed in bfloat16.
CHECKPOINTED = {"is_checkpointed": True}
LORA = {"prepare": freeze_and_add_lora}
HALVED = {
    "prepare": partial(freeze_and_add_lora, is_halved=True),
    "dtype": torch.bfloat16,
}
PLANS = {
    "all parameters": {},
    "all parameters, blocks checkpointed": CHECKPOINTED,
    "LoRA": LORA,
    "LoRA, blocks checkpointed": LORA | CHECKPOINTED,
    "LoRA, blocks checkpointed, base halved": HALVED | CHECKPOINTED,
}


def create_workload(
    plan, cfg, batch_size, num_tokens, num_targets, dtype, device="cpu"
):
    """A step that trains a pretrained model by a plan, one of PLANS' values.

    The batch has batch_size texts of num_tokens tokens; num_targets tokens of the batch
    have a loss. The output layer is tied, as in the pretrained models.
    """
    settings = {"dtype": dtype, "device": device, "num_targets": num_targets}
    settings |= {"is_tied": True, "calc_loss": calc_answer_loss} | plan
    return Workload(cfg, batch_size, num_tokens, **settings)


def forecast_plans(
    cfg, batch_size, num_tokens, num_targets, dtype=torch.float32, device="cpu"
):
    """What each of PLANS needs, and which one to choose: (table, sentence).

    The table has GB, where *in all* includes what this process uses already, whether
    the plan fits into the free memory, and the minutes of NUM_STEPS steps, which are
    nan if they were not measured (see `forecast_training`). Raises ValueError for
    absurd sizes.
    """
    process, free = psutil.Process().memory_info().rss, free_bytes(device)
    rows, sizes = {}, (cfg, batch_size, num_tokens, num_targets, dtype, device)
    for title, plan in PLANS.items():
        forecast = forecast_training(create_workload(plan, *sizes))
        row = {name: size / 1e9 for name, size in forecast.bytes.items()}
        row |= {"in all": (process + forecast.needed) / 1e9}
        row |= {"fits": forecast.needed < free, "minutes": forecast.minutes(NUM_STEPS)}
        rows[title] = row
    table = pd.DataFrame(rows).T.infer_objects()
    return table, propose_plan(table, free)


def propose_plan(table, free):
    """A sentence that names the first plan of a table that fits into `free` bytes."""
    fitting = table.index[table["fits"]]
    if len(fitting) == 0:
        return (
            f"no plan fits into the {free / 1e9:.1f} GB of free memory: split batches "
            "into parts (num_parts), or use a smaller model"
        )
    title, minutes = fitting[0], table.loc[fitting[0], "minutes"]
    proposal = f"{title}: it fits into the {free / 1e9:.1f} GB of free memory"
    if math.isnan(minutes):
        return proposal
    return f"{proposal}, and {NUM_STEPS} steps take {minutes:.1f} min"
