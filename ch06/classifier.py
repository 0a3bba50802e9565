"""From a language model to a classifier: one new head, the last block trained (6.7).

Shapes: b = batch; idx are token ids, (b, num_tokens), padded on the right. Features are
the output of the frozen blocks, (b, num_tokens, emb_dim), and zero at padding.
"""

if __name__ == "__main__":
    from support.commands import exit_renamed

    exit_renamed("ch06.classifier", "support.apps.spam_filter ask")

from contextlib import closing
from functools import partial
from itertools import islice

import matplotlib.pyplot as plt
import torch
from torch import nn
from tqdm.auto import tqdm

from ch05 import training
from ch05.kv_cache import attend, project
from ch05.training import evaluating
from ch06.bucketing import create_bucket_loader
from support.checks import check_ends, check_whole, is_whole


def block_output_at(block, x, last):
    """A block's output at one position of each row, last (b,): (b, emb_dim).

    Queries, keys and values are computed at all positions, the rest only at that one.
    """
    rows, positions = torch.arange(len(x)), torch.arange(x.shape[1], device=x.device)
    queries, keys, values = project(block.att, block.norm1(x), positions)
    query = queries[rows, :, last].unsqueeze(2)  # (b, n_heads, 1, head_dim)
    mask = (positions <= last[:, None])[:, None, None]  # (b, 1, 1, num_tokens)
    x = x[rows, last] + attend(block.att, query, keys, values, mask).squeeze(1)
    return x + block.ff(block.norm2(x))


class ClassificationHead(nn.Module):
    """From features to class logits at the last token, (b, 1, num_classes)."""

    def __init__(self, trf_blocks, final_norm, emb_dim, num_classes):
        super().__init__()
        self.trf_blocks = trf_blocks
        self.final_norm = final_norm
        self.out_head = nn.Linear(emb_dim, num_classes)

    def forward(self, features):
        last = features.any(dim=-1).sum(dim=1) - 1  # (b,): the last real token
        x = self.trf_blocks[:-1](features)  # (b, num_tokens, emb_dim)
        answer = block_output_at(self.trf_blocks[-1], x, last)  # (b, emb_dim)
        return self.out_head(self.final_norm(answer)).unsqueeze(1)


class Classifier(nn.Module):
    """From token ids to class logits, (b, 1, num_classes), with a pretrained model.

    The model's last num_trained blocks, its norm and a new output layer become the
    head, which is trained. All layers before them become the trunk, which is frozen.
    The model itself cannot be used any more.
    """

    def __init__(self, model, pad_token_id, num_classes=2, num_trained=1):
        super().__init__()
        num_blocks = len(model.trf_blocks)
        if isinstance(model.out_head, nn.Identity):
            raise ValueError("a Classifier already uses this model: load it again")
        if not is_whole(num_trained) or num_trained > num_blocks:
            raise ValueError(
                f"num_trained is {num_trained}; it must be a whole number from 1 to "
                f"{num_blocks}"
            )
        check_whole(num_classes=num_classes)
        check_whole(0, pad_token_id=pad_token_id)
        self.pad_token_id = pad_token_id
        self.context_length = model.context_length
        trained = model.trf_blocks[num_blocks - num_trained :]
        emb_dim = model.tok_emb.embedding_dim
        self.head = ClassificationHead(trained, model.final_norm, emb_dim, num_classes)
        self.trunk = model.requires_grad_(False)
        self.trunk.trf_blocks = model.trf_blocks[: num_blocks - num_trained]
        self.trunk.final_norm = self.trunk.out_head = nn.Identity()
        self.head.requires_grad_(True)

    def features(self, idx):
        """The head's inputs for token ids: (b, num_tokens, emb_dim)."""
        with evaluating(self.trunk), torch.no_grad():
            features = self.trunk(idx)
        features = features.to(self.head.out_head.weight.dtype)
        # padding is at the end; the same id inside a message is an ordinary token
        from_end = (idx == self.pad_token_id).int().flip(1).cumprod(dim=1)
        if from_end[:, -1].any():
            raise ValueError("a message is empty, or all of it is padding")
        return features * (1 - from_end.flip(1)).unsqueeze(-1)

    def forward(self, idx):
        return self.head(self.features(idx))


def create_token_loader(classifier, dataset, batch_size, seed=123):
    """A loader of (idx, labels) over an unpadded dataset, in length buckets."""
    pad_token_id = classifier.pad_token_id
    check_ends([token_ids for token_ids, _ in dataset], pad_token_id)
    lengths = [len(token_ids) for token_ids, _ in dataset]
    return create_bucket_loader(dataset, lengths, batch_size, pad_token_id, seed)


def create_feature_loader(classifier, dataset, batch_size, device, seed=123):
    """A loader of (features, labels): the trunk runs only once for all epochs."""
    check_ends([token_ids for token_ids, _ in dataset], classifier.pad_token_id)
    examples = [None] * len(dataset)
    lengths = [len(token_ids) for token_ids, _ in dataset]
    buckets = torch.tensor(lengths).argsort().split(32)
    for bucket in tqdm(buckets, desc="trunk", unit="batch", leave=False):
        token_ids = [dataset[i][0] for i in bucket]
        idx = nn.utils.rnn.pad_sequence(token_ids, True, classifier.pad_token_id)
        features = classifier.features(idx.to(device)).cpu()
        for i, row in zip(bucket.tolist(), features):
            examples[i] = row[: lengths[i]].clone(), dataset[i][1]
    return create_bucket_loader(examples, lengths, batch_size, 0.0, seed)


def calc_loss_batch(input_batch, target_batch, model, device):
    """Mean cross-entropy of the labels, with logits of each row's last position."""
    logits = model(input_batch.to(device))[:, -1, :]  # (b, num_classes)
    return nn.functional.cross_entropy(logits, target_batch.to(device))


# chapter 5's functions with the loss above
calc_loss_loader = partial(training.calc_loss_loader, calc_loss=calc_loss_batch)
evaluate_model = partial(training.evaluate_model, calc_loss=calc_loss_batch)


@torch.no_grad()
def calc_accuracy_loader(data_loader, model, device, num_batches=None):
    """The accuracy over the first num_batches batches (default: all).

    Raises ValueError for an empty loader.
    """
    num_right = num_examples = 0
    with evaluating(model):
        for inputs, labels in islice(data_loader, num_batches):
            answers = model(inputs.to(device))[:, -1, :].argmax(dim=-1)
            num_right += (answers == labels.to(device)).sum().item()
            num_examples += len(labels)
    if num_examples == 0:
        raise ValueError("the accuracy cannot be computed, because the loader is empty")
    return num_right / num_examples


def train_classifier_simple(
    model,
    train_loader,
    val_loader,
    optimizer,
    device,
    num_epochs,
    eval_freq,
    eval_iter,
):
    """Train for num_epochs; evaluate on eval_iter batches every eval_freq steps.

    Returns training losses, validation losses, training accuracies and validation
    accuracies after each epoch, and the number of examples seen. Raises
    FloatingPointError if a loss is not finite.
    """
    training.check_training(train_loader, num_epochs, eval_freq, eval_iter)
    train_losses, val_losses, train_accs, val_accs, examples_seen = [], [], [], [], 0
    steps = training.training_steps(
        model,
        train_loader,
        optimizer,
        device,
        num_epochs,
        unit="messages",
        add_gradients=lambda *arguments: calc_loss_batch(*arguments).backward(),
    )
    loaders = train_loader, val_loader
    with closing(steps):  # this closes the progress bar, too, even after an error
        for global_step, (epoch, examples_seen) in enumerate(steps):
            if global_step % eval_freq == 0:
                losses = evaluate_model(model, *loaders, device, eval_iter)
                train_losses.append(losses[0])
                val_losses.append(losses[1])
            if (global_step + 1) % len(train_loader) == 0:  # an epoch has ended
                accs = [calc_accuracy_loader(part, model, device) for part in loaders]
                train_accs.append(accs[0])
                val_accs.append(accs[1])
                tqdm.write(
                    f"Ep {epoch + 1} ({examples_seen:,} examples): "
                    f"Train accuracy {accs[0]:.1%}, Val accuracy {accs[1]:.1%}"
                )
    return train_losses, val_losses, train_accs, val_accs, examples_seen


def plot_values(epochs_seen, examples_seen, train_values, val_values, label="loss"):
    """Plot losses or accuracies over epochs and over examples seen."""
    fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
    ax.plot(epochs_seen, train_values, label=f"training {label}")
    ax.plot(epochs_seen, val_values, linestyle="--", label=f"validation {label}")
    ax.set(xlabel="epochs", ylabel=label)
    ax.legend()
    above = ax.twiny()  # the same x axis, counted in examples
    above.plot(examples_seen, train_values, alpha=0)
    above.set_xlabel("examples seen")


@torch.no_grad()
def spam_probability(
    text, model, tokenizer, device, max_length=None, pad_token_id=50256
):
    """The model's probability that a message is spam, from 0 to 1.

    With max_length, the message is truncated or padded to that many tokens, as in
    `SpamDataset`: use it for a model that was trained on padded messages. A
    `Classifier` has its own pad_token_id. Without max_length, the message is truncated
    to the context length and not padded. Raises ValueError for an empty text, and for
    one that ends with the pad_token_id of a `Classifier`.
    """
    if max_length is not None:
        check_whole(max_length=max_length)
    longest = max_length or training.context_size_of(model, default=None)
    token_ids = tokenizer.encode_ordinary(text)[:longest]
    if not token_ids:
        raise ValueError("the message is empty: give a text to classify")
    if hasattr(model, "pad_token_id"):
        pad_token_id = model.pad_token_id
        check_ends([token_ids], pad_token_id)
    token_ids += [pad_token_id] * ((max_length or 0) - len(token_ids))
    with evaluating(model):
        logits = model(torch.tensor([token_ids], device=device))[:, -1, :]
    return logits.softmax(dim=-1)[0, 1].item()


def classify_review(
    text, model, tokenizer, device, max_length=None, pad_token_id=50256
):
    """Classify a message as "spam" or "not spam" by its `spam_probability`."""
    settings = model, tokenizer, device, max_length, pad_token_id
    return "spam" if spam_probability(text, *settings) > 0.5 else "not spam"
