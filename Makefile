# Everything a newcomer needs: make demo, make up, make test. The environment is made from requirements.lock on first use.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo up test lint bench fuzz clean lock

help:
	@echo "make demo    a synthetic department from its silos to open data"
	@echo "make up      the Dagster UI and the portal on that state, until Ctrl-C"
	@echo "make test    all tests;  make lint  all linters"
	@echo "make bench   measures against peers;  make fuzz  every reader on 100,000 broken files"
	@echo "make clean   removes state and environment"

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; install it, or name it: make demo PYTHON=/path/to/python3"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) lacks its venv module; on Debian: apt-get install python3-venv"; exit 2; }
	@echo "environment: installing from requirements.lock (once, a minute or two)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade >/dev/null
	@( $(BIN)/python -m pip install --require-hashes -r requirements.lock && \
	   $(BIN)/python -m pip install --no-deps --no-build-isolation --editable . ) > .venv/install.log 2>&1 \
	   || { tail -n 20 .venv/install.log; echo "the environment could not be installed; all of it: .venv/install.log"; exit 1; }
	@touch $(READY)

demo: $(READY)
	@$(BIN)/dopa demo

up: $(READY)
	@$(BIN)/dopa up

test: $(READY)
	@$(BIN)/python -m pytest $(ARGS)

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/dopa check
	@! git grep -nE '(^|[^A-Za-z0-9_.}~-])/(home|root|Users|work)/[A-Za-z]' \
	   || { echo "absolute paths of one machine: write them relative to the project"; exit 1; }

# The peers that we are measured against are in a lock of their own: nothing else needs them.
bench: $(READY)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-bench.lock
	@$(BIN)/python -m benchmarks $(ARGS)

# Every reader on 100,000 broken files; ARGS="--inputs 1000 --seed 7 --target json" for others.
fuzz: $(READY)
	@$(BIN)/python -m tests.bad_input.fuzz $(ARGS)

clean:
	@rm -rf .dopa .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# Pins every dependency with hashes; needs uv.
lock:
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-strip-extras \
		--extra dev pyproject.toml --output-file requirements.lock
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-strip-extras \
		--extra dev --extra bench --constraint requirements.lock pyproject.toml --output-file requirements-bench.lock
