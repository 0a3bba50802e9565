"""The checkers of the exercises: `check("3.6.1", answer)`.

`checking` has `check` and the tools that checkers are written with; each chapter has a
module of checkers. Looking into those spoils the exercises.
"""

from support.exercises.checking import check

__all__ = ["check"]
