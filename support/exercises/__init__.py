"""The checkers of the exercises: `check("3.6.1", answer)`.

`checking` has `check` and the functions that checkers are made of. Each chapter has a
module of checkers; reading them spoils the exercises.
"""

from support.exercises.checking import check

__all__ = ["check"]
