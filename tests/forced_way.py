"""One way to compute, chosen wherever it is one of several and exact.

`python -m pytest --way split` runs tests so. The names are those that `fastest` is
given: "split", "medium", "FastDropout", "FastVocabulary", "torch.bfloat16" and "kept".
"""

import os

import pytest

from support.device import (
    choice,
    fast_decoding,
    fast_dropout,
    fast_vocabulary,
    kept_memory,
    precision,
)

CHOOSING = fast_decoding, fast_dropout, fast_vocabulary, kept_memory, precision


def force(name):
    """Let a way be the fastest until this process ends.

    Tests that take LLMS_PLAIN away are about the choice itself, and choose as ever. So
    do the processes that tests start: they compute in plain PyTorch.
    """

    def time_in_turn(ways):
        return {each: 1 if each == name else 2 for each in ways}

    def forced(*args, **options):
        if "LLMS_PLAIN" not in os.environ:
            return choice.fastest(*args, **options)
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("LLMS_PLAIN")
            patch.setattr(choice, "recall", lambda title: None)
            patch.setattr(choice, "remember", lambda title, name: None)
            patch.setattr(choice, "time_in_turn", time_in_turn)
            return choice.fastest(*args, **options)

    for module in CHOOSING:
        module.fastest = forced
