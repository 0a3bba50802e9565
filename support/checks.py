"""Is an argument what it should be? (a support module: used, not taught)

True and False are no numbers here, though Python takes them for 1 and 0.
"""

import math
from numbers import Integral, Real


def is_number(value, lowest=-math.inf, highest=math.inf):
    """True for a finite number from lowest to highest."""
    is_real = isinstance(value, Real) and not isinstance(value, bool)
    return is_real and math.isfinite(value) and lowest <= value <= highest


def is_whole(value, lowest=1):
    """True for a whole number, as an int, of at least lowest."""
    return isinstance(value, Integral) and is_number(value, lowest)


def check_whole(lowest=1, **values):
    """Raise ValueError naming a value that is not a whole number from lowest on."""
    for name, value in values.items():
        if not is_whole(value, lowest):
            raise ValueError(
                f"{name} is {value!r}; it must be a whole number of at least {lowest}"
            )


def check_rows(prompts):
    """Raise ValueError unless each prompt is a list of token ids."""
    try:
        are_ids = all(int(value) == value for row in prompts for value in row)
    except (TypeError, ValueError, OverflowError):  # a text, or one list for all
        are_ids = False
    if not are_ids:
        raise ValueError(
            "the prompts are not token ids: give a list of ids for each prompt, or a "
            "tensor (b, num_tokens)"
        )


def check_ends(messages, pad_token_id):
    """Raise ValueError for a list of token ids that ends as padding does."""
    for i, token_ids in enumerate(messages):
        if len(token_ids) == 0 or token_ids[-1] == pad_token_id:
            raise ValueError(
                f"message {i} is empty or ends with pad_token_id {pad_token_id}, which "
                "would be taken for padding: take an id that no message has"
            )


def check_number(lowest, highest=math.inf, **values):
    """Raise ValueError naming a value that is not a number from lowest to highest."""
    expected = f"a number from {lowest} to {highest}"
    if highest == math.inf:
        expected = f"a number of at least {lowest}"
    for name, value in values.items():
        if not is_number(value, lowest, highest):
            raise ValueError(f"{name} is {value!r}; it must be {expected}")


def check_share(**values):
    """Raise ValueError naming a value that is not a number above 0 and at most 1."""
    for name, value in values.items():
        if not is_number(value, 0, 1) or value == 0:
            raise ValueError(f"{name} is {value!r}; it must be above 0 and at most 1")
