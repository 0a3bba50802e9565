"""Forecasts of memory and time beside real steps: `python -m benchmarks.forecasting`.

Each setting has a process of its own, which makes the forecast and then trains, with
random weights. Measured memory is the most that the process holds in RAM at any moment,
less what it held with PyTorch and the course loaded. `fast_math` lets the allocator
keep what is freed between the steps, in pieces, so that this is more than the tensors
of any one moment take, and is reached after a few steps only. It is what has to be free
before a run. Goal: memory within 20%, time within 30%. CPU only; some minutes.
"""

import argparse
import math
import resource
import statistics
import subprocess
import sys
import time

import psutil
import torch

from ch04.gpt import GPT_CONFIG_124M
from ch05.pretrain import CONFIG
from ch07.finetuning import add_answer_gradients, checkpoint_blocks
from support.apps.finetuning_plans import PLANS, create_workload
from support.device.device import fast_dtype, fast_math
from support.pretraining.memory import Workload, forecast_training
from support.weights.local import SMALL_CONFIG

FAST, F32 = fast_dtype("cpu"), torch.float32  # FAST is bfloat16 where that is faster
PRETRAINED = GPT_CONFIG_124M | {"qkv_bias": True, "drop_rate": 0.0}
LORA_CHECKPOINTED = "LoRA, blocks checkpointed"
SETTINGS = {
    "124M, 2 x 256 tokens": Workload(CONFIG, 2, 256, FAST),
    "124M, 2 x 256 tokens, float32": Workload(CONFIG, 2, 256, F32),
    "small GPT, 2 x 256 tokens, float32": Workload(SMALL_CONFIG, 2, 256, F32),
    "124M, 8 x 256 tokens in 4 parts": Workload(
        PRETRAINED, 8, 256, FAST, num_parts=4, is_tied=True
    ),
    f"124M, 16 x 104, {LORA_CHECKPOINTED}": create_workload(
        PLANS[LORA_CHECKPOINTED], PRETRAINED, 16, 104, num_targets=293, dtype=FAST
    ),
}
NUM_STEPS = 7  # the first three do not count


def peak_bytes():
    """The most memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def draw_batch(work):
    """Ids and targets, (batch_size, num_tokens), in each row as many that count."""
    shape = work.batch_size, work.num_tokens
    inputs, targets = torch.randint(work.cfg["vocab_size"], (2, *shape))
    if work.num_targets:
        targets[:, math.ceil(work.num_targets / work.batch_size) :] = -100
    return inputs, targets


def measure_steps(work):
    """Seconds of each of some real steps of training."""
    torch.manual_seed(123)
    model, batch, seconds = work.build(), draw_batch(work), []
    if work.is_checkpointed:
        checkpoint_blocks(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    for _ in range(NUM_STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        with work.dropout():
            add_answer_gradients(
                *batch, model, "cpu", work.num_parts, work.dtype, work.calc_loss
            )
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds


def compare(work):
    """Print a setting's forecast, what was measured, and their ratios."""
    before = psutil.Process().memory_info().rss
    fast_math("cpu")
    start = time.perf_counter()
    forecast = forecast_training(work)
    took = time.perf_counter() - start
    size = forecast.needed / 1e9
    seconds = statistics.median(measure_steps(work)[3:])
    peak = (peak_bytes() - before) / 1e9
    print(
        f"{size:5.2f} {peak:8.2f} {size / peak:5.2f}  {forecast.seconds:8.3f} "
        f"{seconds:8.3f} {forecast.seconds / seconds:5.2f}  {took:8.1f}"
    )


def main():
    """Compare each setting in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--setting", choices=SETTINGS, help="compare this one, here")
    setting = parser.parse_args().setting
    if setting:
        compare(SETTINGS[setting])
        return
    print(f"{torch.get_num_threads()} threads. GB: forecast, measured, ratio;")
    print("seconds a step: forecast, measured, ratio; seconds that the forecast took")
    for title in SETTINGS:
        command = [sys.executable, "-m", "benchmarks.forecasting", "--setting", title]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"{title:42} {found.stdout.rstrip()}", flush=True)


if __name__ == "__main__":
    main()
