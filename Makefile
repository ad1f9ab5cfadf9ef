# Needs make and Python 3.11 to 3.13, nothing else. Debian: apt-get install make python3-venv; real Kafka: a JDK and Maven.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.callmood-ready
# Hundreds of processes start in a test run: compiled modules are kept, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE
# One thread a process: tests and servers share the cores.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# What training is compared with. Without what they need: torchaudio would bring another torch.
REFERENCE = 'speechbrain==1.1.2' 'torchaudio==2.11.1'
# Tests are chosen by folder, so that no phase collects another's. A folder that is not named here needs no server.
LIGHT := $(filter-out tests/integration tests/chaos tests/cluster tests/simulation tests/__pycache__,$(patsubst %/,%,$(wildcard tests/*/)))
# The longest tests start first (tests/conftest.py), and a process that has ended its share takes from another's.
SHARED := --numprocesses auto --dist worksteal
# Four processes on the servers: their tests mostly wait. Each file stays in one process.
WAITING := --numprocesses 4 --dist loadfile --no-loadscope-reorder

ALL := .[demo,otel,page,train,test]
# uv takes a fraction of pip's time. An index that only pip is configured for is left to pip.
install = PATH="$$PATH:$(BIN)" uv pip install --quiet --python $(BIN)/python $(1) || $(BIN)/python -m pip install --quiet $(1)

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types style light cpus check compiled slow integration faults cluster nightly simulate chaos bench schemas docs site lock audit release demo-model

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## create the virtual environment with everything that the other targets need

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
		echo "callmood needs Python 3.11 to 3.13, and $(PYTHON) is not: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "installing into $(VENV); the first time this is several GB and minutes" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) 2> /dev/null || uv venv --quiet --python "$$(command -v $(PYTHON))" $(VENV)
	@command -v uv > /dev/null || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	@$(call install,--editable '$(ALL)')
	@$(call install,--no-deps $(REFERENCE))
	@$(BIN)/python -m deploy.local fetch
	@touch $@

demo: $(READY) ## show several simultaneous calls live in the terminal
	@$(BIN)/python -m deploy.local run -- $(BIN)/callmood demo

test: light compiled slow integration faults cluster ## all tests that a change must pass, with a real Kafka and a real Redis

SIDE_BY_SIDE = @$(MAKE) --no-print-directory --jobs --output-sync

lint: $(READY) ## check style, types, imports and generated files
	$(SIDE_BY_SIDE) types style

types: $(READY) ## mypy only
	$(BIN)/mypy

style: $(READY) ## lint without mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/python -m callmood.schemas --check
	$(BIN)/python -m deploy.pages --check
	@if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint deploy/Dockerfile; fi

light: $(READY) ## tests without servers
	$(PYTEST) $(SHARED) -m 'not integration and not slow' $(LIGHT)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.cpus --quick

cpus: $(READY) ## the engine's tests as on smaller CPUs; lists tests that no CPU ran
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.cpus

check: $(READY) ## run before every commit: lint, and the tests without servers
	$(SIDE_BY_SIDE) types style light

compiled: $(READY) ## compile the code that handles each record, and run its tests on that
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.compiled

slow: $(READY) ## tests without servers that take minutes: simulation, whole trainings, the wheel
	$(PYTEST) $(SHARED) -m '(simulation or slow) and not nightly' tests/simulation tests/training tests/project tests/unit/test_plausible.py

integration: $(READY) ## tests with a real Kafka and a real Redis
	$(PYTEST) $(WAITING) --one-stack -m 'integration and not nightly' tests/integration $(wildcard tests/contract/test_local_stack*.py)

faults: $(READY) ## short chaos runs: servers and workers are killed, and no result is lost
	$(PYTEST) --numprocesses 3 --dist worksteal --one-stack -m 'not nightly' tests/chaos

cluster: $(READY) ## the chart on a real Kubernetes API server, built by tests/cluster/apiserver/build
	$(PYTEST) tests/cluster

# What starts threads, processes or servers must hold every time, in any order.
OFTEN := tests/unit tests/contract tests/integration tests/chaos/test_proxy.py
TIMES ?= 20

nightly: $(READY) ## long tests: tests of threads and servers twenty times, the image, 20,000 seeds, twenty times the examples
	@for time in $$(seq $(TIMES)); do \
		$(PYTEST) --quiet $(WAITING) --one-stack --ignore tests/integration/test_image.py $(OFTEN) || exit 1; \
	done
	$(PYTEST) -m nightly tests/integration/test_image.py tests/chaos tests/training tests/project
	HYPOTHESIS_PROFILE=nightly $(PYTEST) $(SHARED) tests/simulation tests/property tests/contract/test_schemas*.py

SEEDS ?= 0..9999
simulate: $(READY) ## run simulations: make simulate SEEDS=0..100000
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS)

PROFILE ?= full
SEED ?= 1
chaos: $(READY) ## chaos runs in each output mode: make chaos PROFILE=short SEED=7
	@for mode in redis kafka both; do \
		$(BIN)/python -m tests.chaos --profile $(PROFILE) --mode $$mode --seed $(SEED) || exit 1; \
	done

bench: $(READY) ## run the benchmarks; each prints a table
	@for file in bench/[a-z]*.py; do echo "== $$file"; $(BIN)/python -m "callmood.bench.$$(basename $$file .py)" || exit 1; done
	@for shape in base large; do echo "== callmood bench engine --shape $$shape"; $(BIN)/callmood bench engine --shape $$shape || exit 1; done

schemas: $(READY) ## write the files generated from the schemas: JSON Schemas, tables
	$(BIN)/python -m callmood.schemas

docs: $(READY) ## write the documents generated from settings, options, metrics, commands and the chart's values
	$(BIN)/python -m deploy.pages

site: $(READY) ## build the documents as a site in site/; a broken link fails
	$(BIN)/python -m sphinx -q -W --keep-going -c deploy/site . site
	@cp site/README.html site/index.html

lock: $(READY) ## update the pinned versions and hashes of the image
	$(BIN)/python -m deploy.lock

audit: $(READY) ## look for known vulnerabilities of the pinned packages
	$(BIN)/uv tool run pip-audit --disable-pip --require-hashes -r deploy/requirements.txt -r deploy/requirements-cuda.txt -r deploy/requirements-compile.txt

release: $(READY) ## dry run: build and test all artefacts of a release in dist/
	$(BIN)/python -m deploy.release

demo-model: $(READY) ## generate the synthetic corpus and train the bundled demo model again
	$(BIN)/python -m callmood.training demo-tiny
