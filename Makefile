# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# The versions that the tests last ran with, on Python 3.10 to 3.13: `make test LOCKED=1` installs exactly these.
LOCK := requirements/dev.lock
CONSTRAINT := $(if $(LOCKED),--constraint $(LOCK))

.PHONY: help demo test test-slow lint format docs docs-serve audit lock clean

help:
	@echo "make demo       install, then fine-tune a small model on pictures drawn for it, evaluate, show what it finds"
	@echo "make test       install what tests need, then run them"
	@echo "make test-slow  the tests that take minutes: all reference outputs, learning tests"
	@echo "make lint       ruff and mypy; make format lets ruff mend what it can"
	@echo "make docs       the documentation as a site, in site/; make docs-serve shows it while one writes"
	@echo "make audit      known holes in the locked versions of what this needs (asks the index's database)"
	@echo "make lock       lock the newest versions that fit together; make test LOCKED=1 installs exactly these"
	@echo "make clean      remove the environment, caches and what was built"

demo: $(VENV)/.train
	$(BIN)/piip demo

# Side by side on up to four cores; about 1.5 GB of memory for each.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

test: $(VENV)/.test
	$(PYTEST)

test-slow: $(VENV)/.test
	$(PYTEST) -m slow
	TRITON_INTERPRET=1 $(PYTEST) tests/lean/gpu/test_sampling_on_gpu.py tests/inference/gpu/test_exchange_on_gpu.py \
		tests/inference/gpu/test_rows_on_gpu.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs
	$(BIN)/python docs/reference/generate.py
	$(BIN)/zensical build --clean --strict

docs-serve: docs
	$(BIN)/zensical serve

# Strict: a package that the database could not be asked about is no success.
audit: $(VENV)/.audit
	$(BIN)/pip-audit --requirement $(LOCK) --no-deps --disable-pip --strict

lock: $(VENV)/.audit
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.10 --extra dev --no-annotate --no-header \
	  --no-emit-index-url --output-file $(LOCK) pyproject.toml

$(VENV)/.train $(VENV)/.test $(VENV)/.dev $(VENV)/.docs $(VENV)/.audit: $(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet $(CONSTRAINT) --editable ".[$*]"
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "piip needs Python 3.10 or newer; set PYTHON=python3.x"; exit 1; }
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist site .cache docs/reference/commands.md \
	  docs/reference/settings.md docs/reference/models.md
