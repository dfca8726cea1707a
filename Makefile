# make demo            the whole way on synthetic sound: pretrain, fine-tune, compare
# make demo DATA=DIR   the same on real sound in published layouts below DIR
# make test            format, lint, types, import order, all tests but the slow ones
# make test-slow       the slow ones

PYTHON ?= python3
BIN := .venv/bin
DATA ?=
RUNS ?= runs

.PHONY: demo test test-slow format install

install: .venv/.installed

.venv/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=24"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch .venv/.installed

demo: install
	PATH="$(CURDIR)/$(BIN):$$PATH" RUNS="$(RUNS)" bash benchmarks/demo.sh "$(DATA)"

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not slow and not gpu" -n auto --dist loadfile

test-slow: install
	$(BIN)/python -m pytest -m "slow and not gpu" -n auto
