# All targets share one environment, $(VENV). The first target that needs it makes it; after a
# change of pyproject.toml or constraints.txt it is brought up to date.

VENV ?= .venv
# The Python that makes the environment; without a choice, the first that will do.
PYTHON ?=
# Further arguments of demo, bench and the tests: make demo ARGS=--explain
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.monetor-installed
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadscope

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-contracts test-pure test-anvil test-interop test-long lint bench constraints
.DELETE_ON_ERROR:

help:
	@echo 'make demo            buy a download over three relays, then settle all accounts'
	@echo 'make test            all tests but the long ones'
	@echo 'make test-contracts  the contracts and their Python face alone'
	@echo "make test-pure       a sample of the contracts' tests on py-evm's own precompiles"
	@echo "make test-anvil      the contracts' tests on anvil, and a download over it"
	@echo 'make test-interop    all tests against an unmodified tor, which must be on the PATH'
	@echo 'make test-long       the long tests alone'
	@echo 'make lint            ruff and mypy'
	@echo 'make bench           how long the cryptography and the protocols take'
	@echo 'make setup           only make the environment, $(VENV)'
	@echo 'make constraints     resolve all dependencies anew into constraints.txt'
	@echo
	@echo 'ARGS="..." passes arguments on: make demo ARGS="--dispute relay-vanishes"'
	@echo 'PYTHON=...  chooses the Python (3.11 to 3.13) that makes the environment'

setup: $(STAMP)

demo: setup
	@$(BIN)/monetor demo $(ARGS)

test: setup
	$(PYTEST) -m 'not long' $(ARGS)

test-contracts: setup
	$(PYTEST) -m 'not long' tests/contracts tests/monetor_chain $(ARGS)

test-pure: setup
	$(PYTEST) -m precompiles --chain pure tests/contracts $(ARGS)

test-anvil: setup
	$(PYTEST) -m 'not long' --chain anvil tests/contracts $(ARGS)
	$(PYTEST) -k anvil --timeout 3600 tests/monetor_chain tests/end_to_end $(ARGS)

test-interop: setup
	$(PYTEST) --timeout 1200 tests/interop $(ARGS)

test-long: setup
	$(PYTEST) -m long --timeout 3600 $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: setup
	@$(BIN)/monetor bench $(ARGS)

# Prints the Python to use; otherwise says what is missing and fails.
define FIND_PYTHON
find_python() { \
  for candidate in $(if $(PYTHON),'$(PYTHON)',python3 python3.13 python3.12 python3.11); do \
    "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
      >/dev/null 2>&1 || continue; \
    if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; \
    then echo "$$candidate"; return 0; fi; \
    incomplete="$$candidate"; \
  done; \
  if [ -n "$${incomplete-}" ]; then \
    echo "setup: $$incomplete cannot make virtual environments;" \
      'install its venv module (Debian, Ubuntu: apt install python3-venv)' >&2; \
  else \
    echo 'setup: moneTor needs Python 3.11, 3.12 or 3.13$(if $(PYTHON),, on the PATH); $(or $(PYTHON),python3) is' \
      "$$($(or $(PYTHON),python3) --version 2>/dev/null || echo not found)" >&2; \
  fi; \
  return 1; \
}
endef

$(STAMP): pyproject.toml constraints.txt
	@$(FIND_PYTHON); set -eu; \
	if ! '$(BIN)/python' -m pip --version >/dev/null 2>&1; then \
	  python=$$(find_python); \
	  clear=; if [ -e '$(VENV)/pyvenv.cfg' ]; then clear=--clear; fi; \
	  echo "setup: making $(VENV) with $$($$python --version)">&2; \
	  "$$python" -m venv $$clear '$(VENV)'; \
	fi; \
	echo 'setup: installing (less than a minute, once)' >&2; \
	'$(BIN)/python' -m pip install --quiet --disable-pip-version-check --prefer-binary \
	  --constraint constraints.txt --editable '.[dev]' || { \
	    echo 'setup: the installation failed, see above. It needs a connection to a package' \
	      'index, and a C compiler where a package has no binary for this machine.' >&2; \
	    exit 1; \
	  }; \
	touch '$@'

constraints:
	@$(FIND_PYTHON); set -eu; \
	python=$$(find_python); folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	"$$python" -m venv "$$folder"; \
	"$$folder/bin/python" -m pip install --quiet --disable-pip-version-check '.[dev,experiments]'; \
	"$$folder/bin/python" -m pip list --format freeze --disable-pip-version-check \
	  --exclude monetor --exclude pip --exclude setuptools | LC_ALL=C sort -f > constraints.txt
