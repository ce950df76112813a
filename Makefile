# The two commands worth knowing: `make demo` and `make test`. Both set everything up first.
VENV ?= .venv
PYTHON ?= python3
export PYTHON
SHELL := /bin/bash
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup setup-test demo test test-slow test-wheel chaos check format lock clean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup:  ## virtual environment, locked dependencies, system libraries
	@.ci/setup $(VENV)

setup-test:
	@KENSA_SYSTEM="postgresql poppler-utils libgl1 softhsm2 java" .ci/setup $(VENV)

demo: setup  ## the main job on synthetic surfaces: inspect, explain, record, report
	@$(BIN)/kensa demo

test: setup-test  ## the tests (heavier ones: make test-slow)
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: setup-test  ## the heavier end-to-end tests
	$(BIN)/python -m pytest -m slow

# Goes on where it stopped; what it found is in build/chaos/results.jsonl. TRIALS=0 prints the table alone.
TRIALS ?= 250
chaos: setup-test  ## kill and starve real runs till TRIALS=250 results are kept (see docs/reliability.md)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.chaos build/chaos --trials $(TRIALS)

test-wheel:  ## the wheel, in an environment of its own and an empty folder
	@.ci/wheel $(WHEEL_VENV)

check: setup  ## ruff, mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## let ruff format and fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## resolve again and write constraints.txt (names and versions only)
	.ci/lock

clean:  ## remove the environment and the demo's output
	rm -rf $(VENV) demo
