"""A lesson module loads the large packages that it needs, and no others.

Each of them costs every notebook a second or more. A process that has PyTorch already
forks once for each module, so that no module finds what another one has loaded.
"""

import json
import subprocess
import sys

import pytest

from support.paths import ROOT

SCRIPT = """
import importlib, json, os, sys
import torch
for name in sys.argv[1:]:
    if os.fork() == 0:
        importlib.import_module(name)
        print(json.dumps([name, sorted(sys.modules)]), flush=True)
        os._exit(0)
    os.wait()
"""
NAMES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in ROOT.glob("ch0*/*.py")
)
NEVER = {"tensorflow", "keras", "transformers", "datasets", "tokenizers", "jupyterlab"}
SPLITS = "ch06.splits"  # groups near-duplicates by scikit-learn and SciPy
NEEDS_SKLEARN = {SPLITS, "ch06.baselines", "ch06.spam", "ch07.instructions"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_lessons_import_what_they_need():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *NAMES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(json.loads(line) for line in done.stdout.splitlines())
    assert found.keys() == {*NAMES}
    for name, modules in found.items():
        packages = {module.partition(".")[0] for module in modules}
        assert not packages & NEVER, name
        is_told = NEEDS_SKLEARN & {*modules}  # it is one of them, or imports one
        assert is_told or "sklearn" not in packages, name
