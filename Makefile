# The doors of the workshop. `make demo` and `make test` need Python 3.11 or newer, and set up the rest in .venv.
#
#   make demo      train a small model for about a minute on text that Python carries, and read from it
#   make test      everything that must hold: the checks, then the tests
#   make check     the checks alone: format, lint, types, docs/cli.md
#   make bench     the programs under benchmarks/
#   make docs      write docs/cli.md anew
#   make notebook  execute docs/notebooks/first-steps.ipynb and keep its pictures; two minutes
#   make lock      write requirements.lock anew (needs the network and Python 3.11)
#   make clean     remove .venv and every cache; runs/ stays

# The first that is new enough and can make a venv; 3.11 leads because the lock is made with it.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo $$python && break; done)
VENV := .venv
STAMP := $(VENV)/installed
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --quiet
# mypy and ruff follow these; a folder that is not there yet is left out.
SOURCES := src docs $(wildcard benchmarks)
BENCHMARKS := $(sort $(wildcard benchmarks/[a-z]*.py))
# torch is held at the release that the published figures were measured with.
LOCK_TORCH := torch==2.13.0
LOCK_TOOL := pip-tools==7.6.2

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check bench docs notebook lock clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(STAMP)
	@$(BIN)/charloom demo

test: check
	@$(BIN)/python -m pytest

check: $(STAMP)
	@$(BIN)/ruff format --check $(SOURCES) tests
	@$(BIN)/ruff check $(SOURCES) tests
	@$(BIN)/mypy $(SOURCES)
	@$(BIN)/python docs/make_cli_reference.py --check

bench: $(STAMP)
	@set -e; for program in $(BENCHMARKS); do echo "== $$program"; $(BIN)/python $$program; done

docs: $(STAMP)
	@$(BIN)/python docs/make_cli_reference.py

notebook: $(STAMP)
	@$(BIN)/python docs/execute_notebook.py

# The build backend is in the lock, so that the project itself installs without the network.
$(STAMP): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "charloom needs Python 3.11 or newer with its venv module; none is on PATH" \
		"(Debian: apt install python3-venv; any other place: make PYTHON=/path/to/python3)" >&2; exit 1; }
	@echo "installing requirements.lock into $(VENV) (once; a few minutes at most)" >&2
	@test -f $@ || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) --requirement requirements.lock
	@$(PIP) --no-build-isolation --no-deps --editable .
	@touch $@

# In a venv of its own, so that a change of the build backend or a lock that no longer installs is no obstacle.
lock:
	@python3.11 --version >/dev/null || { echo "the lock is made with Python 3.11, which is not on PATH" >&2; exit 1; }
	@set -e; place=$$(mktemp -d); trap 'rm -rf "$$place"' EXIT; \
	python3.11 -m venv $$place; \
	$$place/bin/python -m pip install --quiet --quiet '$(LOCK_TOOL)'; \
	CUSTOM_COMPILE_COMMAND='make lock' $$place/bin/pip-compile --quiet --upgrade --upgrade-package '$(LOCK_TORCH)' \
		--strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--annotation-style line --extra dev --build-deps-for editable \
		--output-file requirements.lock pyproject.toml
	@# `+cpu` names one build; the lock names the release, and each machine's pip finds the build that suits it.
	@sed -i.made 's/^\(torch==[0-9.]*\)+[a-z0-9]*/\1/' requirements.lock && rm requirements.lock.made

clean:
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests docs $(wildcard benchmarks) -name __pycache__ -type d -prune -exec rm -rf {} +
