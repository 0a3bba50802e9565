"""Pretrained models from wherever they can be had (support: used, not taught).

`load_pretrained()` in Python. In the shell: `python -m support.weights get NAME`, and
likewise `convert NAME`, `verify NAME` and `list`.
"""

from dataclasses import dataclass

from torch import nn

from support.download.fetch import FetchError, is_offline
from support.download.gpt2_files import is_fault
from support.messages import say
from support.weights.sources import DESCRIPTIONS, SOURCES

PREFERRED = (
    "gpt2-small (124M)",
    "smollm2-135M",
    "local",
)  # what "auto" tries, in order


@dataclass
class Pretrained:
    """A model in evaluation mode, its tokenizer, and where its weights came from."""

    model: nn.Module
    tokenizer: object
    name: str
    source: str
    config: dict


def load_pretrained(name="auto", *, source="auto", device="cpu"):
    """Load a pretrained model and check it against its file: a Pretrained.

    name: "gpt2-small (124M)" or one of OpenAI's three larger ones, "smollm2-135M"
    (SmolLM2-135M-Instruct with 4-bit weights, which is already instruction-tuned),
    "local" (trained on one story, by 5.2 or `make`), or "auto" for the first of 124M,
    SmolLM2 and local that can be had. source: "auto", or the `title` of a class in
    sources.py, beside this file. Prints which model it is. Raises FetchError when no
    source has it, CertificateError when the model is not what its file says.
    """
    if name == "auto":
        return load_first(PREFERRED, source, device)
    name = full_name(name)
    place, loaded = first_success(name, places(name, source), "load")
    model, tokenizer, config = loaded
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    what = f"{DESCRIPTIONS[name]}, {millions:.1f} million parameters"
    print(f"{name}: {what}, from source: {place.title}")
    return Pretrained(model.to(device), tokenizer, name, place.title, config)


def load_first(names, source, device):
    """Load the first of several models that can be had; say why not those before it."""
    names = [name for name in names if source in ("auto", *titles(name))] or names
    for name in names[:-1]:
        try:
            return load_pretrained(name, source=source, device=device)
        except FetchError:
            say(f"{name} cannot be had: {brief(name)}")
    return load_pretrained(names[-1], source=source, device=device)


def brief(name):
    """Why a model for which there is a substitute was not had."""
    found = [fault.strip() for fault in faults(places(name))]
    if damaged := [fault for fault in found if fault.startswith("damaged")]:
        return "; ".join(damaged)
    if is_offline():
        return "not here, and LLMS_OFFLINE forbids fetching it"
    return f"`python -m support.weights get {name.split()[0]}` says why"


def full_name(name):
    """A model's full name: "gpt2-small" will do for "gpt2-small (124M)"."""
    for known in SOURCES:
        if name in (known, known.split()[0]):
            return known
    raise ValueError(f"unknown model {name!r}: there are {', '.join(SOURCES)}")


def titles(name):
    """What the sources of a model are called."""
    return [place.title for place in SOURCES[name]]


def places(name, source="auto"):
    """The sources of a model, those first whose files are here."""
    found = [place(name) for place in SOURCES[name] if source in ("auto", place.title)]
    if not found:
        there_are = ", ".join(titles(name))
        raise ValueError(f"{name} has no source {source!r}: there are {there_are}")
    return sorted(found, key=lambda place: not place.is_here())


def first_success(name, sources, action):
    """`get` or `load` from the first source that can: (source, what it returned)."""
    failures = []
    for place in sources:
        try:
            return place, getattr(place, action)()
        except FetchError as error:
            failures += [f"from {place.title}: {error}", *faults([place])]
    raise FetchError(f"{name} cannot be had.\n" + "\n".join(failures))


def faults(sources):
    """A line for each file of these sources that is missing or damaged."""
    states = [state for place in sources for state in place.states()]
    return [f"  {state}: {path}" for path, state in states if is_fault(state)]
