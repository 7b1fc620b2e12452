# Two commands are for you: `make demo` and `make test`. Python 3.11 or newer is all they need; everything goes into .venv.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint locks clean

ifndef PYTHON
PYTHON := $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,\
	$(if $(shell $(p) -c 'import sys; print("ok" * (sys.version_info >= (3, 11)))' 2>/dev/null),$(p))) python3)
endif
BIN := .venv/bin
INSTALL := $(PYTHON) tools/install.py .venv

help:
	@echo 'make demo   install into .venv, train the built-in credit-risk case, close the loop on digits, write their reports'
	@echo 'make test   lint, types, walls, tests, coverage'

demo: .venv/.cases
	@$(BIN)/makegood run credit-risk
	@$(BIN)/makegood loop digits --budget 10s

test: lint
	@$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --cov --cov-report=json:.coverage.json --cov-report=
	@$(BIN)/python tools/coverage_gate.py .coverage.json

lint: .venv/.dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

FRAME := requirements/build.txt requirements/uv.txt pyproject.toml tools/install.py
.venv/.cases: requirements/cases.txt $(FRAME)
	@$(INSTALL) requirements/cases.txt
	@touch $@

.venv/.dev: requirements/dev.txt requirements/torch.txt $(FRAME)
	@$(INSTALL) requirements/dev.txt requirements/torch.txt
	@touch .venv/.cases $@

# The locks are written for every platform at once; each is bounded by dev.txt, so that one environment fits them all.
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --no-annotate \
	--no-emit-index-url --custom-compile-command 'make locks'
locks: .venv/.dev
	$(COMPILE) pyproject.toml --extra cases --extra image --extra wrap --group dev --output-file requirements/dev.txt
	$(COMPILE) pyproject.toml --extra cases --extra client --extra image --extra serve --extra text --constraint requirements/dev.txt --output-file requirements/cases.txt
	$(COMPILE) pyproject.toml --constraint requirements/dev.txt --output-file requirements/core.txt
	$(COMPILE) --group serve --constraint requirements/dev.txt --output-file requirements/serve.txt
	$(COMPILE) --group build --output-file requirements/build.txt
	$(COMPILE) --group fast --output-file requirements/uv.txt

clean:
	rm -rf .venv .makegood .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage*
