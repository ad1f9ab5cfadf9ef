# Needs make and Python 3.11 to 3.13, nothing else. Debian: apt-get install make python3-venv; real Kafka: a JDK and Maven.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.callmood-ready
# Tests that start no server of their own and use none.
LIGHT := not integration and not chaos

.DEFAULT_GOAL := help
.PHONY: help setup demo test check integration bench schemas docs demo-model

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make the virtual environment, with everything the other targets need

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
		echo "callmood needs Python 3.11 to 3.13, and $(PYTHON) is not: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "installing into $(VENV); the first time this is several GB and minutes" >&2
	@if command -v uv > /dev/null; then \
		{ test -x $(BIN)/python || uv venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV); } && \
		uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[demo,train,test]'; \
	else \
		{ test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV); } && \
		$(BIN)/python -m pip install --quiet --editable '.[demo,train,test]'; \
	fi
	@$(BIN)/python -m deploy.local fetch
	@touch $@

demo: $(READY) ## several calls at once, live in the terminal
	@$(BIN)/python -m deploy.local run -- $(BIN)/callmood demo

test: $(READY) ## every test, on a real Kafka and a real Redis
	$(BIN)/python -m pytest

check: $(READY) ## what must hold before a commit: style, types, imports, and the tests that need no server
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m schemas --check
	$(BIN)/python -m deploy.configuration --check
	$(BIN)/python -m pytest -m '$(LIGHT)'

integration: $(READY) ## the tests on a real Kafka and a real Redis alone
	$(BIN)/python -m pytest -m 'integration or chaos'

bench: $(READY) ## measure; each benchmark prints a table
	@for file in bench/[a-z]*.py; do echo "== $$file"; $(BIN)/python -m "bench.$$(basename $$file .py)" || exit 1; done

schemas: $(READY) ## write what is derived from the schemas: JSON Schemas, examples
	$(BIN)/python -m schemas

docs: $(READY) ## write docs/configuration.md from the settings
	$(BIN)/python -m deploy.configuration

demo-model: $(READY) ## make the synthetic corpus and train the bundled demo model again
	$(BIN)/python -m training demo-tiny
