# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-slow lint format clean

help:
	@echo "make demo       install, then train, evaluate and draw with a small model on a generated data set"
	@echo "make test       install what tests need, then run them"
	@echo "make test-slow  the tests that take minutes: all reference outputs, learning tests"
	@echo "make lint       ruff and mypy"

demo: $(VENV)/.train
	$(BIN)/piip demo

# Side by side on up to four cores; about 1.5 GB of memory for each.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

test: $(VENV)/.test
	$(PYTEST)

test-slow: $(VENV)/.test
	$(PYTEST) -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.train $(VENV)/.test $(VENV)/.dev: $(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "piip needs Python 3.10 or newer; set PYTHON=python3.x"; exit 1; }
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist
