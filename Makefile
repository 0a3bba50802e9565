# make              train a GPT on a short story and draw ch05/train_plot.png
# make test         run the tests
# make lint         check the code and its imports, which `make test` does as well
# make test-browser read notebooks in a real JupyterLab in a real browser
# make lab          open the notebooks in JupyterLab
# make notebooks    run every notebook in full and save its outputs
# make shakespeare  train on tiny Shakespeare for three minutes, killed on the way
# make kill-test    kill a run 200 times and compare it with one that was left alone
# make mutants      change lesson modules in 400 places; do the tests notice?
#
# Each sets up .venv first, once, from requirements.lock: every package of
# requirements.txt and what it needs, with the sha256 of each file. A change of either
# sets it up again. `make lock` writes the lock anew.

READY := .venv/ready
TEXT := the-tide-table
# By this way neither make nor the shell reads commands in the name of a text.
export LLMS_TEXT = $(value TEXT)
unexport TEXT
# Another file for pip to install from than the lock.
PACKAGES :=
# Gigabytes that the packages take; PyTorch for Linux brings NVIDIA's libraries along.
NEED_GB := $(if $(filter Darwin,$(shell uname -s)),6,12)

.PHONY: train test test-browser lint lab notebooks lock shakespeare kill-test mutants
.DEFAULT_GOAL := train

train: $(READY)
	@.venv/bin/python -m ch05.pretrain --text="$$LLMS_TEXT"

test: $(READY)
	@.venv/bin/python -m support.weights get smollm2-135M \
	  || echo "The tests that need SmolLM2's file will be skipped."
	@.venv/bin/python -m pytest --numprocesses 2 --dist worksteal

test-browser: $(READY)
	@.venv/bin/python -m pytest tests/browser

lint: $(READY)
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/lint-imports --no-cache --no-logo

lab: $(READY)
	@.venv/bin/python -m jupyter lab

notebooks: $(READY)
	@.venv/bin/python -m tests.notebooks

shakespeare: $(READY)
	@.venv/bin/python -m benchmarks.shakespeare

kill-test: $(READY)
	@.venv/bin/python -m tests.kill_run --kills 200

lock: $(READY)
	@.venv/bin/python -m pip install --quiet uv
	@.venv/bin/python -m uv pip compile --universal --python-version 3.11 --quiet \
	  --generate-hashes --no-emit-index-url --no-annotate \
	  --output-file requirements.lock requirements.txt

mutants: $(READY)
	@.venv/bin/python -m tests.mutants

SUITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

$(READY): requirements.txt requirements.lock
	@python=; \
	for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
	  if "$$candidate" -c '$(SUITS)' 2>/dev/null; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "error: this course needs Python 3.11, 3.12 or 3.13, and among" \
	    "'$(or $(PYTHON),python3 python3.13 python3.12 python3.11 python)' there is none." \
	    "Install one, then run: make PYTHON=python3.13" >&2; exit 1; \
	fi; \
	free=$$(df -Pk . | awk 'NR == 2 { print int($$4 / 1048576) }'); \
	if [ "$$free" -lt $(NEED_GB) ]; then \
	  echo "error: setting up takes $(NEED_GB) GB of disk and $$free GB are free here." \
	    "Make room, or say that less will do: make NEED_GB=3" >&2; exit 1; \
	fi; \
	echo "Setting up .venv with $$("$$python" --version); this happens once."; \
	stop() { \
	  echo "error: setting up .venv stopped, for the reason above. Mend it and run make" \
	    "again: it goes on where it stopped." >&2; exit 1; \
	}; \
	"$$python" -m venv .venv || stop; \
	packages=$(or $(PACKAGES),requirements.lock); \
	if [ -z "$(PACKAGES)" ] && .venv/bin/python -m pip config list \
	  | grep -E 'find-links|extra-index-url' > /dev/null; then \
	  packages=requirements.txt; \
	  echo "pip has further sources of packages here (see: pip config list), and their" \
	    "files may have other hashes: installing requirements.txt, without hashes."; \
	fi; \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r "$$packages" || stop
	@touch $(READY)
