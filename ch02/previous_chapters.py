"""Nothing comes before chapter 2: this only makes the course's modules importable.

The notebooks of every chapter start by importing it.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the repository's root

__all__ = []
