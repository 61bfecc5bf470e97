# `make demo` and `make test` set up .venv on first use; nothing is installed again until what it depends on changes.
.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint docs evidence pictures clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The first of these that runs and is new enough; override with `make PYTHON=...`.
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python3.10 python,$(shell \
	$(p) -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && echo $(p))))
# One thread per test process: the processes share the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST)

demo: $(READY) ## Refine a small tower in three stages and report what it gained (minutes, no download of data)
	$(BIN)/sailvit demo

test: $(READY) ## Run the tests that take seconds
	$(PYTEST) -m "not slow"

test-all: $(READY) ## Run every test
	$(PYTEST)

lint: $(READY) ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY) ## Build the documentation site into build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

interop: $(READY) ## Compare every layout again, and write the table of docs/interop.md
	PYTHONPATH=tests:tests/data:tests/models:tests/models/towers:tests/interop:tests/interop/export $(BIN)/python tests/interop/interop_table.py docs/interop.md

evidence: $(READY) ## Write docs/evidence.md, its picture and README's figures from the committed cells of studies/
	for study in demo regime real; do test ! -d studies/$$study || $(BIN)/sailvit study studies/$$study.yaml --report; done
	$(BIN)/python benchmarks/evidence.py docs/evidence.md docs/earlier_evidence.md README.md
	$(BIN)/python docs/pictures/evidence.py

pictures: $(READY) ## Draw the pictures of README again (wants Chromium)
	$(BIN)/python docs/pictures/stages.py
	$(BIN)/sailvit demo --quick --run runs/pictures
	$(BIN)/python docs/pictures/report.py runs/pictures

clean: ## Remove .venv, caches and builds; runs/ stays
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone, so that nothing else can choose its version.
$(READY): pyproject.toml constraints.txt
	$(if $(PYTHON),,$(error no Python 3.10 or newer found; install one, or name it with `make PYTHON=/path/to/python3`))
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt torch
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@
