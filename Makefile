# Every target sets up what it needs in .venv by itself; the second time that takes no time.
# Needs Python 3.11 or newer: PYTHON=/path/to/python3 names another one.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: help demo test check bench serve format clean
.DEFAULT_GOAL := help

help: ## Say what there is.
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "X-Ray needs Python 3.11 or newer, this is " + sys.version.split()[0] + ". Name another with: make PYTHON=/path/to/python3")'
	@echo "Setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# What is installed depends on pyproject.toml and the compiled part alone: the packages are used where they lie.
$(VENV)/.demo: pyproject.toml xray/_fields.c | $(BIN)/python
	@echo "Installing the SDK, the service and the example data (once)"
	@$(PIP) --editable '.[server,examples]'
	@touch $@

$(VENV)/.dev: pyproject.toml xray/_fields.c | $(BIN)/python
	@echo "Installing what development needs (once)"
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo ## Run example pipelines on real data and walk a planted fault to its cause.
	@$(BIN)/xray demo

test: $(VENV)/.dev ## Run all tests, on up to four processors; ARGS="-n 0" runs them one after the other.
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 $(ARGS)

check: $(VENV)/.dev ## Lint, formatting and types.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright

format: $(VENV)/.dev ## Format the code.
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(VENV)/.dev ## Run the benchmarks; each prints ratios.
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

serve: $(VENV)/.demo ## Run the service on the embedded store.
	@$(BIN)/xray serve

clean: ## Remove what the targets made; data under .xray stays.
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
