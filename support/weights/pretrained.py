"""Load pretrained models from whichever source has them.

`load_pretrained()` in Python. In the shell: `python -m support.weights get NAME`, and
likewise `convert NAME`, `verify NAME` and `list`.
"""

from dataclasses import dataclass

from torch import nn

from support.download.fetch import FetchError, is_offline
from support.download.gpt2_files import is_fault
from support.messages import say
from support.weights.sources import DESCRIPTIONS, SOURCES

PREFERRED = "gpt2-small (124M)", "smollm2-135M", "local"  # what "auto" tries, in order


@dataclass
class Pretrained:
    """A model in evaluation mode, its tokenizer, and where its weights came from."""

    model: nn.Module
    tokenizer: object
    name: str
    source: str
    config: dict


def load_pretrained(name="auto", *, source="auto", device="cpu"):
    """Load a pretrained model and check it against its file; returns a Pretrained.

    name: "gpt2-small (124M)" or one of OpenAI's three larger ones, "smollm2-135M"
    (SmolLM2-135M-Instruct with 4-bit weights, which is already instruction-tuned),
    "local" (trained on one story, by 5.2 or `make`), or "auto" for the first of 124M,
    SmolLM2 and local that is available. source: "auto", or the `title` of a class in
    sources.py, beside this file. Prints which model it is. Raises FetchError if no
    source has it, ParityError if the model does not match its file.
    """
    if name == "auto":
        return load_first_available(PREFERRED, source, device)
    name = full_name(name)
    used, loaded = try_sources(name, find_sources(name, source), "load")
    model, tokenizer, config = loaded
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    what = f"{DESCRIPTIONS[name]}, {millions:.1f} million parameters"
    print(f"{name}: {what}, from source: {used.title}")
    return Pretrained(model.to(device), tokenizer, name, used.title, config)


def load_first_available(names, source, device):
    """Load the first available model; print why those before it are not available."""
    names = [name for name in names if source in ("auto", *titles(name))] or names
    for name in names[:-1]:
        try:
            return load_pretrained(name, source=source, device=device)
        except FetchError:
            say(f"{name} is not available: {explain_absence(name)}")
    return load_pretrained(names[-1], source=source, device=device)


def explain_absence(name):
    """Say in a line why a model is not available."""
    found = [fault.strip() for fault in list_faults(find_sources(name))]
    if damaged := [fault for fault in found if fault.startswith("damaged")]:
        return "; ".join(damaged)
    if is_offline():
        return "it is not in downloads, and LLMS_OFFLINE forbids downloading it"
    return f"`python -m support.weights get {name.split()[0]}` says why"


def full_name(name):
    """Return a model's full name: "gpt2-small" stands for "gpt2-small (124M)"."""
    for known in SOURCES:
        if name in (known, known.split()[0]):
            return known
    raise ValueError(f"unknown model {name!r}: choose one of {', '.join(SOURCES)}")


def titles(name):
    """List the titles of a model's sources."""
    return [source.title for source in SOURCES[name]]


def find_sources(name, title="auto"):
    """List the sources of a model; those whose files are here come first."""
    found = [make(name) for make in SOURCES[name] if title in ("auto", make.title)]
    if not found:
        known = ", ".join(titles(name))
        raise ValueError(f"{name} has no source {title!r}: choose one of {known}")
    return sorted(found, key=lambda source: not source.is_here())


def try_sources(name, sources, action):
    """Call `get` or `load` of each source until one succeeds: (source, its result)."""
    failures = []
    for source in sources:
        try:
            return source, getattr(source, action)()
        except FetchError as error:
            failures += [f"from {source.title}: {error}", *list_faults([source])]
    raise FetchError(f"{name} is not available.\n" + "\n".join(failures))


def list_faults(sources):
    """Return a line for each file of these sources that is missing or damaged."""
    states = [state for source in sources for state in source.states()]
    return [f"  {state}: {path}" for path, state in states if is_fault(state)]
