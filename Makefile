# Flaneur from a fresh clone: `make play`. Everything lives in .venv; repeat runs are quick.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Four processes of one thread each: some wait for seconds to pass, and two cores are never idle. A file's tests are in one of them and
# share what they build.
# Files start in the order of tests/conftest.py, the longest first. Bytecode is kept: they, and the commands that they start, import the same.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder
ROOMS := cli client engine evaluation export holodeck model training
# What players run on Windows and macOS.
PLAYED := cli client engine holodeck
# Reads lines of a platform and the folders to check for it.
TYPES := xargs -P 2 -L 1 $(BIN)/pyright --pythonpath $(BIN)/python --pythonplatform
FETCH_LIMIT := $(if $(shell command -v timeout),timeout 300)

.PHONY: play setup setup-dev check test test-slow clean

play: setup
	$(BIN)/flaneur play

setup: $(VENV)/base.stamp

setup-dev: $(VENV)/dev.stamp

check: setup-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	printf '%s\n' 'Linux $(ROOMS) tests' 'Windows $(PLAYED)' 'Darwin $(PLAYED)' | $(TYPES)

# Slow tests marked `every_change` belong to it: nothing else shows that a killed training goes on and that engines can be built.
# Where the builder of engines cannot be fetched, their test is skipped and says so.
test: check
	$(FETCH_LIMIT) $(PIP) install --timeout 30 --retries 1 'tensorrt-rtx>=1.7' || echo "no TensorRT for RTX: no engine is built" >&2
	$(PYTEST) -m "not gpu and (not slow or every_change)"

test-slow: setup-dev
	printf '%s\n' 'Windows $(ROOMS)' 'Darwin $(ROOMS)' | $(TYPES)
	$(PIP) install --editable '.[rtx]'
	$(PYTEST) -m "slow and not gpu"

clean:
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "flaneur needs Python 3.11 or later, and there is no $(PYTHON); install it, or run make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "flaneur needs Python 3.11 or later, and $(PYTHON) is $$($(PYTHON) -V 2>&1); install a later one, or run make PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# With a C compiler memories are rendered twice as fast; without one it says so and goes on.
KERNELS := engine/memory/kernels.c engine/memory/kernels.py
COMPILE := $(BIN)/python -m engine.memory.kernels

# Bytecode is made when a module is first used; made for everything it would be a tenth of the installation.
$(VENV)/base.stamp: pyproject.toml $(KERNELS) | $(VENV)/bin/python
	$(PIP) install --no-compile --editable .
	$(COMPILE)
	@touch $@

# torch goes first and by its plain version, so that pip takes a CPU build where one lies at hand.
$(VENV)/dev.stamp: pyproject.toml $(KERNELS) | $(VENV)/bin/python
	$(PIP) install torch==2.13.0
	$(PIP) install --editable '.[dev]'
	$(COMPILE)
	@touch $@ $(VENV)/base.stamp
