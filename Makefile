# Flaneur from a fresh clone: `make play`. Everything lives in .venv; repeat runs are quick.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: play setup setup-dev check test test-slow clean

play: setup
	$(BIN)/flaneur play

setup: $(VENV)/base.stamp

setup-dev: $(VENV)/dev.stamp

check: setup-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

# The pocket's training in miniature takes minutes, but nothing else shows that a killed one goes on.
test: check
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest -m slow tests/test_pocket_run.py

# Engines are built here alone, so only this tier installs their builder.
test-slow: setup-dev
	$(PIP) install --editable '.[rtx]'
	$(BIN)/python -m pytest -m "slow and not gpu"

clean:
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "flaneur needs Python 3.11 or later, and there is no $(PYTHON); install it, or run make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "flaneur needs Python 3.11 or later, and $(PYTHON) is $$($(PYTHON) -V 2>&1); install a later one, or run make PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# Bytecode is made when a module is first used; made for everything it would be a tenth of the installation.
$(VENV)/base.stamp: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --no-compile --editable .
	@touch $@

# torch goes first and by its plain version, so that pip takes a CPU build where one lies at hand.
$(VENV)/dev.stamp: pyproject.toml | $(VENV)/bin/python
	$(PIP) install torch==2.13.0
	$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/base.stamp
