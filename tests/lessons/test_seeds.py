"""A seed that is asked for is obeyed wherever chapters 6 and 7 take one."""

import inspect
from importlib import import_module

import numpy as np
import pytest
import torch

from ch02.tokenizer import get_tokenizer
from ch06 import bucketing as batches
from ch06 import classifier, spam
from ch07 import evaluation, instructions, lora
from support.apps import assistant, few_messages, spam_filter, train_and_save
from support.paths import ROOT
from tests.lessons.test_classifier import seeded_classifier, seeded_model, toy_messages
from tests.support.test_spam_filter import Shelf

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTHS = [1 + i % 9 for i in range(60)]
TOKENIZER = get_tokenizer("gpt2")
MESSAGES = spam.read_messages(spam.SAMPLE)
MANY = instructions.download_and_load_file(instructions.DATA)[:450]
ENTRIES = MANY[:80]


@pytest.fixture(autouse=True)
def shelf(monkeypatch, tmp_path):
    """Tiny models, the messages of the sample, and nothing outside of a folder."""
    monkeypatch.setattr(train_and_save, "load_pretrained", Shelf().load)
    monkeypatch.setattr(train_and_save, "fast_math", lambda device: None)
    monkeypatch.setattr(spam_filter, "load_messages", lambda: MESSAGES)
    monkeypatch.setattr(assistant, "download_and_load_file", lambda path: MANY)
    monkeypatch.setenv("LLMS_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)


def epoch(loader):
    """What a loader gives in an epoch."""
    return [inputs.tolist() for inputs, _ in loader]


def texts(parts):
    """The messages of each part of a split."""
    return [part["Text"].tolist() for part in parts]


def labelled():
    """The sample with a group for each message."""
    return MESSAGES.assign(Group=range(len(MESSAGES)))


def bucket_loader(seed):
    examples = [(torch.full((n,), i), torch.tensor(0)) for i, n in enumerate(LENGTHS)]
    return epoch(batches.create_bucket_loader(examples, LENGTHS, 8, -1, seed))


def token_loader(seed):
    ours = seeded_classifier(seeded_model("GPT"))
    return epoch(classifier.create_token_loader(ours, toy_messages(40), 8, seed))


def feature_loader(seed):
    ours = seeded_classifier(seeded_model("GPT"))
    settings = toy_messages(40), 8, "cpu", seed
    return epoch(classifier.create_feature_loader(ours, *settings))


def new_head(seed):
    ours = spam_filter.create_classifier(Shelf().load(), seed=seed)
    return ours.head.out_head.weight.tolist()


def filter_loaders(seed):
    ours = spam_filter.create_classifier(Shelf().load())
    parts = spam.split_messages(MESSAGES)[1:2]
    return [
        *map(epoch, spam_filter.create_loaders(ours, TOKENIZER, parts, "cpu", seed))
    ]


def trained_filter(seed):
    """The head and the batches that training would begin with."""
    seen = []

    def train_head(head, train_loader, val_loader, device):
        seen.extend([head.out_head.weight.tolist(), epoch(train_loader)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spam_filter, "train_head", train_head)
        spam_filter.train_filter("spam.safetensors", seed=seed)
    return seen


def instruction_loader(seed):
    dataset = instructions.InstructionDataset(ENTRIES, TOKENIZER)
    return epoch(instructions.create_instruction_loader(dataset, 8, 50256, seed))


def instruction_loaders(seed):
    settings = [ENTRIES], TOKENIZER, 128, seed
    return [*map(epoch, assistant.create_instruction_loaders(*settings))]


def new_lora(seed):
    model = Shelf().load().model
    assistant.add_lora(model, seed)
    return first_matrices(model)


def first_matrices(model):
    """LoRA's A of each layer; B is zero at first."""
    parameters = lora.adapter_parameters(model)
    return [p.tolist() for name, p in parameters.items() if name.endswith("A")]


def trained_assistant(seed):
    """The matrices and the batches that training would begin with."""
    seen = []

    def finetune(model, train_loader, *_, **settings):
        seen.extend([*first_matrices(model), epoch(train_loader)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            assistant, "load_split_entries", lambda: (ENTRIES[:40], ENTRIES[40:], [])
        )
        patch.setattr(assistant, "finetune", finetune)
        assistant.train_assistant("assistant.safetensors", seed=seed)
    return seen


def random_numbers(seed):
    model = seeded_model("GPT")
    few_messages.randomize_weights(model, seed)
    return [parameter.tolist() for parameter in model.parameters()]


def learned_head(seed):
    """A head after a step or two from the same start."""
    head = seeded_classifier(seeded_model("GPT")).head
    start = {key: value.clone() for key, value in head.state_dict().items()}
    examples = [(torch.ones(n, 16), n % 2) for n in LENGTHS[:16]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(few_messages, "MIN_STEPS", 1)
        patch.setattr(spam_filter, "NUM_EPOCHS", 1)
        few_messages.train_head_from(head, start, examples, seed, "cpu")
    return head.out_head.weight.tolist()


def preferences(seed):
    """With a model that prefers short answers."""

    def losses(model, tokenizer, entry, outputs):
        return torch.tensor([float(len(output)) for output in outputs])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "answer_losses", losses)
        return evaluation.prefers_references(None, None, ENTRIES, seed=seed).tolist()


def bootstrap(seed):
    rng = np.random.default_rng(1)
    return evaluation.paired_bootstrap(*rng.random((2, 50)), num_draws=200, seed=seed)


DRAWS = {
    batches.LengthBuckets: lambda seed: [*batches.LengthBuckets(LENGTHS, 8, seed)],
    batches.create_bucket_loader: bucket_loader,
    classifier.create_token_loader: token_loader,
    classifier.create_feature_loader: feature_loader,
    spam.create_balanced_dataset: lambda seed: texts(
        [spam.create_balanced_dataset(MESSAGES, seed)]
    ),
    spam.group_split: lambda seed: texts(spam.group_split(labelled(), seed)),
    spam.split_messages: lambda seed: texts(spam.split_messages(MESSAGES, seed)),
    spam_filter.create_classifier: new_head,
    spam_filter.create_loaders: filter_loaders,
    spam_filter.train_filter: trained_filter,
    instructions.split_entries: lambda seed: instructions.split_entries(MANY, seed),
    instructions.create_instruction_loader: instruction_loader,
    assistant.load_split_entries: assistant.load_split_entries,
    assistant.create_instruction_loaders: instruction_loaders,
    assistant.add_lora: new_lora,
    assistant.train_assistant: trained_assistant,
    few_messages.randomize_weights: random_numbers,
    few_messages.train_head_from: learned_head,
    few_messages.sample_messages: lambda seed: few_messages.sample_messages(
        np.arange(60) % 2, 10, seed
    ).tolist(),
    evaluation.draw_distractors: lambda seed: evaluation.draw_distractors(
        ENTRIES, seed=seed
    ),
    evaluation.prefers_references: preferences,
    evaluation.paired_bootstrap: bootstrap,
}


def takers(module):
    """The functions and classes of a module that take a seed."""
    for thing in vars(module).values():
        called = thing.__init__ if inspect.isclass(thing) else thing
        is_ours = getattr(thing, "__module__", None) == module.__name__
        if is_ours and "seed" in inspect.signature(called).parameters:
            yield thing


def test_whatever_takes_a_seed_is_in_the_table():
    found = set()
    for path in [*ROOT.glob("ch0[67]/*.py"), *ROOT.glob("support/apps/*.py")]:
        if path.name != "previous_chapters.py":
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found |= {*takers(import_module(name))}
    assert found == DRAWS.keys()


@pytest.mark.parametrize("thing", DRAWS, ids=lambda thing: thing.__name__)
def test_the_seed_decides_what_is_drawn(thing, capsys):
    """Also after others have drawn; and another seed draws something else."""
    draw = DRAWS[thing]
    torch.manual_seed(1)
    np.random.seed(1)
    first = draw(5)
    torch.manual_seed(2)
    np.random.seed(2)
    assert draw(5) == first != draw(6)


@pytest.mark.parametrize("draw", [trained_filter, trained_assistant])
def test_each_part_of_a_run_is_the_seeds(draw, capsys):
    """The first numbers that are to learn, and the order of the batches."""
    for one, other in zip(draw(5), draw(6), strict=True):
        assert one != other
