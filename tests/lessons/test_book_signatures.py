"""Functions and classes have the book's parameters: names, order and defaults.

Parameters of the course's own come after the book's and have defaults.
"""

import inspect
from importlib import import_module
from operator import attrgetter

import pytest

CONFIG = "cfg"
HEADS = "d_in, d_out, context_length, dropout, num_heads, qkv_bias=False"
DRAFT = "batch, pad_token_id=50256, device='cpu'"
LOSS = "input_batch, target_batch, model, device"
MEAN = "data_loader, model, device, num_batches=None"
LOADERS = "model, train_loader, val_loader"
RUN = f"{LOADERS}, optimizer, device, num_epochs, eval_freq, eval_iter"
OLLAMA = "'http://localhost:11434/api/chat'"

BOOK = {
    "ch02.tokenizer": {
        "SimpleTokenizerV1": "vocab",
        "SimpleTokenizerV1.encode": "self, text",
        "SimpleTokenizerV1.decode": "self, ids",
        "SimpleTokenizerV2": "vocab",
        "SimpleTokenizerV2.encode": "self, text",
        "SimpleTokenizerV2.decode": "self, ids",
    },
    "ch02.dataset": {
        "GPTDatasetV1": "txt, tokenizer, max_length, stride",
        "GPTDatasetV1.__len__": "self",
        "GPTDatasetV1.__getitem__": "self, idx",
        "create_dataloader_v1": "txt, batch_size=4, max_length=256, stride=128, "
        "shuffle=True, drop_last=True, num_workers=0",
    },
    "ch03.attention": {
        "softmax_naive": "x",
        "SelfAttention_v1": "d_in, d_out",
        "SelfAttention_v2": "d_in, d_out, qkv_bias=False",
        "CausalAttention": HEADS.replace("num_heads, ", ""),
        "MultiHeadAttentionWrapper": HEADS,
        "MultiHeadAttention": HEADS,
    },
    "ch04.gpt": {
        "DummyGPTModel": CONFIG,
        "DummyTransformerBlock": CONFIG,
        "DummyLayerNorm": "normalized_shape, eps=1e-5",
        "LayerNorm": "emb_dim",
        "GELU": "",
        "FeedForward": CONFIG,
        "ExampleDeepNeuralNetwork": "layer_sizes, use_shortcut",
        "print_gradients": "model, x",
        "TransformerBlock": CONFIG,
        "GPTModel": CONFIG,
        "GPTModel.forward": "self, in_idx",
        "generate_text_simple": "model, idx, max_new_tokens, context_size",
    },
    "ch05.training": {
        "text_to_token_ids": "text, tokenizer",
        "token_ids_to_text": "token_ids, tokenizer",
        "calc_loss_batch": LOSS,
        "calc_loss_loader": MEAN,
        "train_model_simple": f"{RUN}, start_context, tokenizer",
        "evaluate_model": f"{LOADERS}, device, eval_iter",
        "generate_and_print_sample": "model, tokenizer, device, start_context",
        "plot_losses": "epochs_seen, tokens_seen, train_losses, val_losses",
    },
    "ch05.recipe": {
        "find_highest_gradient": "model",
        "train_model": f"{LOADERS}, optimizer, device, n_epochs, eval_freq, eval_iter, "
        "start_context, tokenizer, warmup_steps, initial_lr=3e-05, min_lr=1e-06, "
        "orig_book_version=False",
    },
    "ch05.decoding": {
        "print_sampled_tokens": "probas",
        "softmax_with_temperature": "logits, temperature",
        "generate": "model, idx, max_new_tokens, context_size, temperature=0.0, "
        "top_k=None, eos_id=None",
    },
    "ch05.openai_weights": {
        "assign": "left, right",
        "load_weights_into_gpt": "gpt, params",
        "download_and_load_gpt2": "model_size, models_dir",
        "download_file": "url, destination, backup_url=None",
        "load_gpt2_params_from_tf_ckpt": "ckpt_path, settings",
    },
    "ch06.spam": {
        "download_and_unzip_spam_data": "url, zip_path, extracted_path, data_file_path",
        "create_balanced_dataset": "df",
        "random_split": "df, train_frac, validation_frac",
        "SpamDataset": "csv_file, tokenizer, max_length=None, pad_token_id=50256",
        "SpamDataset._longest_encoded_length": "self",
    },
    "ch06.classifier": {
        "calc_accuracy_loader": MEAN,
        "calc_loss_batch": LOSS,
        "calc_loss_loader": MEAN,
        "evaluate_model": f"{LOADERS}, device, eval_iter",
        "train_classifier_simple": RUN,
        "plot_values": "epochs_seen, examples_seen, train_values, val_values, "
        "label='loss'",
        "classify_review": "text, model, tokenizer, device, max_length=None, "
        "pad_token_id=50256",
    },
    "ch07.instructions": {
        "download_and_load_file": "file_path, url",
        "format_input": "entry",
        "InstructionDataset": "data, tokenizer",
        "custom_collate_draft_1": DRAFT,
        "custom_collate_draft_2": DRAFT,
        "custom_collate_fn": "batch, pad_token_id=50256, ignore_index=-100, "
        "allowed_max_length=None, device='cpu'",
    },
    "ch07.judge": {
        "check_if_running": "process_name",
        "query_model": f"prompt, model='llama3', url={OLLAMA}",
        "generate_model_scores": "json_data, json_key, model='llama3'",
    },
    "ch07.lora": {
        "LoRALayer": "in_dim, out_dim, rank, alpha",
        "LinearWithLoRA": "linear, rank, alpha",
        "replace_linear_with_lora": "model, rank, alpha",
    },
}
CALLS = [(module, name) for module, names in BOOK.items() for name in names]


def fits(found, wanted):
    """Whether a parameter can be given as the book's: by position and by name."""
    return (
        found.kind is found.POSITIONAL_OR_KEYWORD
        and found.name == wanted.name
        and wanted.default in (wanted.empty, found.default)
    )


def is_optional(parameter):
    """Whether a call may leave the parameter out."""
    return (
        parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        or parameter.default is not parameter.empty
    )


@pytest.mark.parametrize(("module", "name"), CALLS, ids=[name for _, name in CALLS])
def test_parameters_are_the_books(module, name):
    found = attrgetter(name)(import_module(module))
    found = list(inspect.signature(found).parameters.values())
    text = BOOK[module][name]
    wanted = list(inspect.signature(eval(f"lambda {text}: ...")).parameters.values())
    assert len(found) >= len(wanted) and all(map(fits, found, wanted)), found
    assert all(map(is_optional, found[len(wanted) :])), found


@pytest.mark.parametrize(
    "changed",
    [
        lambda a, b=2, *, c=3: ...,  # c by name only
        lambda a, c=3, b=2: ...,
        lambda a, b=2, c=4: ...,
        lambda a, b=2, d=3: ...,
        lambda a, b=2: ...,
    ],
)
def test_a_changed_parameter_is_seen(changed):
    wanted = inspect.signature(lambda a, b=2, c=3: ...).parameters.values()
    found = inspect.signature(changed).parameters.values()
    assert len(found) < len(wanted) or not all(map(fits, found, wanted))
