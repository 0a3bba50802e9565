"""The model that 5.2 or `make` trains; if it is missing, a small one is trained."""

import io
from contextlib import redirect_stdout

import torch

from ch02.tokenizer import get_tokenizer
from ch04.gpt import GPT_CONFIG_124M, GPTModel
from ch05.training import create_train_val_loaders, train_model_simple
from support.download.texts import load_text
from support.messages import one_line, say
from support.paths import MODELS
from support.weights.checkpoint import save_model

LOCAL = MODELS / "local.safetensors"
# small enough to learn a story in about a minute
SMALL_CONFIG = GPT_CONFIG_124M | {
    "context_length": 256,
    "emb_dim": 256,
    "n_heads": 4,
    "n_layers": 4,
}


def train_small(path):
    """Train a small GPT on the story, in about a minute, and save it to `path`.

    Returns the model, also if it could not be saved.
    """
    print("training a small GPT on the story; this happens once and takes a minute")
    loaders = create_train_val_loaders(load_text(), SMALL_CONFIG["context_length"])
    with torch.random.fork_rng(), redirect_stdout(io.StringIO()):  # prints no samples
        torch.manual_seed(123)
        model = GPTModel(SMALL_CONFIG)
        settings = {"lr": 1e-3, "weight_decay": 0.1, "fused": True}
        optimizer = torch.optim.AdamW(model.parameters(), **settings)
        train_model_simple(
            *(model, *loaders, optimizer, "cpu"),
            num_epochs=12,
            eval_freq=48,
            eval_iter=1,
            start_context="Every effort moves you",
            tokenizer=get_tokenizer(),
        )
    try:
        save_model(path, model, SMALL_CONFIG)
    except OSError as error:
        say(
            "The model could not be saved, so it will be trained again next time: "
            f"{one_line(error)}"
        )
    return model.eval()
