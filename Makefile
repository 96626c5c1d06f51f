# ebbtide: everything a user types. `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SPHINX := build/sphinx
GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo yes)
PINS := requirements/$(if $(GPU),gpu,cpu).txt
# tests with engines, runs or a cluster mostly wait; those of one file or with the same engines come after each other
REAL := engine or run or slurm
AT_A_TIME := -n 2 --dist loadgroup --no-loadscope-reorder
# whole runs on a cluster: files with many of them first
SLOW_AT_A_TIME := -n 2 --dist loadgroup
TORCH := torch==$(if $(GPU),2.11.0,2.13.0)

.DEFAULT_GOAL := help
.PHONY: help install slurm demo screenshots session containers docs test test-slow test-light test-real test-all stress test-gpu lint mutants bench clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP) ## Make .venv with everything pinned (about 3 minutes)

$(STAMP): requirements/cpu.txt requirements/gpu.txt setup.cfg
	$(PYTHON) -c 'import sys; sys.exit("ebbtide needs Python 3.11 or newer, found %d.%d: make PYTHON=/path/to/python3.11 …" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@echo "packages for $(if $(GPU),GPUs,CPUs; for nodes with GPUs: make install GPU=yes) ($(PINS))"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet $(if $(GPU),,--no-deps) -r $(PINS)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: install ## Train SmolLM2-135M on one-digit sums: about 5 minutes on two CPU cores
	$(BIN)/ebbtide run examples/smollm2-arithmetic.yaml

screenshots: install ## Take the pictures of the demo's report that the pages show (needs chromium from apt)
	$(BIN)/python -m tests.screenshots

session: install ## Record the demo at terminals of 80 and 120 columns for docs/session.md (10 minutes)
	$(BIN)/python -m tests.session

containers: install ## Check the files of the container image; build it where there is a builder
	$(BIN)/python -m pytest -q tests/test_containers.py
	containers/build.sh

docs: $(SPHINX)/.installed ## Make the documentation site: build/docs/index.html, which opens offline
	$(SPHINX)/bin/sphinx-build --quiet --fail-on-warning --keep-going -c docs . build/docs
	@echo "build/docs/index.html"

$(SPHINX)/.installed: requirements/docs.txt
	$(PYTHON) -m venv $(SPHINX)
	$(SPHINX)/bin/pip install --quiet -r requirements/docs.txt
	@touch $@

test: install ## Run the tests that need no GPU; those on Slurm are skipped where there can be no cluster
	$(BIN)/python -m pytest $(AT_A_TIME) -m "not slow"

test-slow: install ## Run the long ones: whole runs on a Slurm cluster, nodes that die, jobs that are cancelled
	$(BIN)/python -m pytest $(SLOW_AT_A_TIME) -m slow

# both of the above again, for .ci/run: the first computes while the second waits
test-light: install ## Run those that need neither engines nor runs nor a cluster
	nice -n 5 $(BIN)/python -m pytest $(AT_A_TIME) -m "not slow and not ($(REAL))"

test-real: install ## Run the others, long ones too
	$(BIN)/python -m pytest $(SLOW_AT_A_TIME) -m "slow or $(REAL)"

test-all: export EBBTIDE_TESTS = all
test-all: test test-slow ## Run both, and all moments of those that try many

slurm: ## Install Slurm from apt for the tests that start a cluster (as root; nothing to do where it is there)
	$(PYTHON) -m tests.slurm_cluster install

stress: install ## Disturb small runs at random, here and on a cluster, as root: make stress MINUTES=30
	$(BIN)/python -m tests.stress --minutes $(or $(MINUTES),30)

test-gpu: install ## Run the tests that need a GPU
	$(BIN)/python -m pytest -m gpu

lint: install ## ruff, mypy --strict, and the import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_arrows.py tests/test_rooms.py tests/test_twins.py

mutants: install ## Put small faults into the pure modules, one at a time: which of them no fast test notices (20 minutes)
	$(BIN)/python bench/mutants.py

bench: install ## Benchmarks, each beside a peer or a physical limit measured in the same run
	@for name in update packing threads rendezvous $(if $(GPU),park streamed weight_sync orchestration mfu moe row_graphs); do echo "== $$name"; $(BIN)/python bench/$$name.py || exit 1; done

clean: ## Remove what make made: .venv, caches; runs/ stays
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
