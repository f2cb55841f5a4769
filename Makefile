# Needs make and a Python 3.11, 3.12 or 3.13 with venv; everything else goes into .venv, which the first target makes.
# PYTHON=python3.12 chooses the interpreter of a new .venv; ARGS=... is handed on: make test ARGS="-k freeze"

PYTHON ?=
ARGS ?=
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo check quick test lint golden bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

demo: .venv/.installed ## the whole progression in small, from drawn photos to the comparison
	$(BIN)/cnnexp train sweep=demo $(ARGS)

check: .venv/.installed ## lint and the tests without TensorFlow: what a change needs while it is made
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint quick

quick: .venv/.installed
	$(BIN)/python -m pytest --light -n 2 --dist loadscope $(ARGS)

test: .venv/.installed ## run the tests, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadscope $(ARGS)

lint: .venv/.installed ## check style, types and import directions
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

golden: .venv/.installed ## write tests/golden/ anew: the composed config of each experiment
	$(BIN)/python tests/test_golden.py

bench: .venv/.installed ## measure speed
	$(BIN)/python tests/bench/run.py $(ARGS)

lock: .venv/.installed ## write requirements.lock anew, with the newest versions that fit
	$(BIN)/python .ci/lock.py $(ARGS)

clean: ## remove .venv, caches and build products; outputs/ stays
	rm -rf .venv dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find cnnexp tests .ci -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: requirements.lock pyproject.toml
	@PYTHON="$(PYTHON)" sh .ci/install
	@touch $@
