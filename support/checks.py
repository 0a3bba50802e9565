"""Check arguments and settings, and name the one that is wrong.

True and False are not numbers here, although Python treats them as 1 and 0.
"""

import math
import os
from numbers import Integral, Real


def is_number(value, lowest=-math.inf, highest=math.inf):
    """Return True for a finite number from lowest to highest."""
    is_real = isinstance(value, Real) and not isinstance(value, bool)
    return is_real and math.isfinite(value) and lowest <= value <= highest


def is_whole(value, lowest=1):
    """Return True for an integer that is at least lowest."""
    return isinstance(value, Integral) and is_number(value, lowest)


def is_switched_on(name):
    """Return True if an environment variable has a value that does not mean no."""
    value = os.environ.get(name, "").strip().lower()
    return value not in ("", "0", "false", "no", "off")


def check_values(values, is_right, expected):
    """Raise ValueError with the name of the first value that is not right."""
    for name, value in values.items():
        if not is_right(value):
            raise ValueError(f"{name} is {value!r}; it must be {expected}")


def check_whole(lowest=1, **values):
    """Raise ValueError unless the values are whole numbers of at least lowest."""
    expected = f"a whole number of at least {lowest}"
    check_values(values, lambda value: is_whole(value, lowest), expected)


def check_number(lowest, highest=math.inf, **values):
    """Raise ValueError unless the values are numbers from lowest to highest."""
    expected = f"a number from {lowest} to {highest}"
    if highest == math.inf:
        expected = f"a number of at least {lowest}"
    check_values(values, lambda value: is_number(value, lowest, highest), expected)


def check_config_values(cfg):
    """Raise ValueError with the name of the first value of a GPT's config at fault."""
    for key, value in cfg.items():
        if key.startswith("drop_rate"):
            is_right = is_number(value, 0) and value < 1
            expected = "a number of at least 0 and below 1"
        elif key == "qkv_bias":
            is_right, expected = isinstance(value, bool), "True or False"
        else:
            is_right, expected = is_whole(value), "a whole number of at least 1"
        if not is_right:
            raise ValueError(f"config: {key} must be {expected}, not {value!r}")


def check_share(**values):
    """Raise ValueError unless the values are numbers above 0 and at most 1."""
    expected = "above 0 and at most 1"
    check_values(values, lambda value: is_number(value, 0, 1) and value != 0, expected)


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
    """Raise ValueError for an empty list of token ids, or one that ends in padding."""
    for i, token_ids in enumerate(messages):
        if len(token_ids) == 0 or token_ids[-1] == pad_token_id:
            raise ValueError(
                f"message {i} is empty, or it ends with pad_token_id {pad_token_id}, "
                "which would count as padding: remove the message, or choose a "
                "pad_token_id that is in no message"
            )
