"""Run notebooks in full and save them: `python -m tests.notebooks [PATH ...]`."""

import sys

from tests.notebooks.running import main

main(sys.argv[1:])
