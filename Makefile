# One command for each thing. `make` alone lists them; everything works in a fresh clone.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# What can be set on the command line: make serve HTTP_PORT=9000 WORKERS=2
VENV      ?= .venv
PYTHON    ?=
HOST      ?= 127.0.0.1
HTTP_PORT ?= 8080
WORKERS   ?= 1
FUNCTION  ?= examples/iris/function.py
# Further requirements for the tests' environment, such as 'numpy<2'.
WITH      ?=
# Further arguments for pytest, such as tests/graph or -k router.
ARGS      ?=
# The environment of the large frameworks, and what is installed there. This PyTorch is one for CPUs where such a
# build is at hand; elsewhere: make test-frameworks FRAMEWORKS='torch transformers tensorflow-cpu'
FRAMEWORKS_VENV ?= .venv-frameworks
FRAMEWORKS      ?= torch==2.13.0 transformers tensorflow-cpu

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help
help:
	@echo "make serve    train the iris example and serve it   (HOST=$(HOST) HTTP_PORT=$(HTTP_PORT) WORKERS=$(WORKERS))"
	@echo "make test     run the whole test suite              (ARGS='-k router' for some of it)"
	@echo "make test-quick   run it without the slow tests"
	@echo "make test-frameworks   the tests with PyTorch, TensorFlow and transformers, in $(FRAMEWORKS_VENV)"
	@echo "make check    format, lint, types, layers, spelling, sizes"
	@echo "make format   put the code into its format, mend what the linter can"
	@echo "make bench    run the benchmarks"
	@echo "make docs     build the documentation into docs/_build/html"
	@echo "make venv     make the virtual environment, with all that tests and checks need"
	@echo "make clean    remove what was made: environments, caches, builds, the trained examples"
	@echo
	@echo "The environment is $(VENV), made with Python 3.11 to 3.13; PYTHON=/path/to/python chooses one."

# ---------------------------------------------------------------- environments

# The environment itself. It is made anew when its interpreter is gone.
$(BIN)/python:
	@python="$(PYTHON)"; \
	if [ -z "$$python" ]; then python=$$(tools/find-python) || { \
	    echo "Install one of them, or name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }; fi; \
	echo "Making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV)

# One stamp for each set of extras; a second run with nothing changed installs nothing.
EXTRAS_serve := numpy,sklearn
EXTRAS_test  := test
EXTRAS_check := test,check
EXTRAS_docs  := docs
EXTRAS_bench := http,numpy,pandas,sklearn,seldon

$(VENV)/.installed-%: pyproject.toml setup.py | $(BIN)/python
	@echo "Installing servegraph[$(EXTRAS_$*)] $(WITH) into $(VENV) (the first time takes a few minutes)"
	@$(PIP) install --quiet --editable '.[$(EXTRAS_$*)]' $(foreach package,$(WITH),'$(package)')
	@touch $@

.PHONY: venv
venv: $(VENV)/.installed-check

# ---------------------------------------------------------------- what one does

.PHONY: serve
serve: $(VENV)/.installed-serve
	@$(BIN)/python examples/iris/train.py
	@echo "Serving $(FUNCTION) on http://$(HOST):$(HTTP_PORT) (stop with Ctrl-C)"
	@exec $(BIN)/servegraph serve $(FUNCTION) --host $(HOST) --http-port $(HTTP_PORT) --workers $(WORKERS)

.PHONY: test test-quick
test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(ARGS)

test-quick: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

# PyTorch comes first, so that nothing else brings in a build with CUDA.
.PHONY: test-frameworks
test-frameworks:
	@$(MAKE) --no-print-directory VENV=$(FRAMEWORKS_VENV) $(FRAMEWORKS_VENV)/.installed-test
	@tools/install-frameworks $(FRAMEWORKS_VENV) $(foreach package,$(FRAMEWORKS),'$(package)')
	@# 5 is what pytest says when it ran none: no framework could be installed, as is told above.
	$(FRAMEWORKS_VENV)/bin/python -m pytest tests/frameworks --timeout 300 $(ARGS) || [ $$? -eq 5 ]

# All the checks run, even when one finds something.
CHECKS := check-format check-lint check-types check-layers check-spelling check-sizes
.PHONY: check $(CHECKS)
check: $(VENV)/.installed-check
	@$(MAKE) --no-print-directory --keep-going $(CHECKS)

check-format: $(VENV)/.installed-check
	$(BIN)/ruff format --check .
check-lint: $(VENV)/.installed-check
	$(BIN)/ruff check .
check-types: $(VENV)/.installed-check
	$(BIN)/mypy
check-layers: $(VENV)/.installed-check
	$(BIN)/lint-imports
check-spelling: $(VENV)/.installed-check
	$(BIN)/codespell --skip '*/_build,./build,./dist,*.egg-info,*/models,*/results' .
check-sizes: $(VENV)/.installed-check
	$(BIN)/python tools/check_sizes.py

.PHONY: format
format: $(VENV)/.installed-check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: docs
docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

.PHONY: clean
clean:
	rm -rf .venv .venv-* .envs build dist *.egg-info docs/_build examples/*/models examples/*/records
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
