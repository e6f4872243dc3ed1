# `make` lists the targets. All of them work on a machine with Python 3.11+, pip and make.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# one process per core, one thread per process: tests are many and small
# what `make bench` runs, and how much of it: `make bench BENCH=lockstep`, `make bench QUICK=` for the whole of it
BENCH  ?= step_cost lockstep data_path startup store analysis growth levers layout canonical
QUICK  ?= --quick
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install quickstart test bench lint docs format validate-statistics validate-trials ui clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## create the environment (.venv) with the tested versions

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: install  ## run the quickstart suite on embedded real data: leaderboard and verdict
	$(BIN)/kdbench run quickstart

test: install  ## run the test suite
	$(PYTEST)

lint: install  ## ruff, mypy, the layer test, and whether generated documentation is current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_layers.py
	$(BIN)/python .ci/docs.py --check

format: install  ## format and fix what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install  ## renew the generated parts of the documentation
	$(BIN)/python .ci/docs.py

validate-statistics: install  ## coverage, false alarms and power of the statistics, on simulated experiments
	$(BIN)/python benchmarks/validate_statistics.py

validate-trials: install  ## false alarms on real trials: scratch against scratch under another name
	OMP_NUM_THREADS=1 $(BIN)/kdbench run benchmarks/aa.yaml > /dev/null
	$(BIN)/python benchmarks/validate_trials.py

bench: install  ## measure speed: all benchmarks in about 10 minutes, or BENCH=NAME; QUICK= for the long version
	@for name in $(BENCH); do $(BIN)/python -m benchmarks.$$name $(QUICK) || exit 1; echo; done

ui: install  ## serve the leaderboards of results/ in the MLflow UI
	$(BIN)/kdbench ui

clean:  ## remove the environment and caches; results stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
