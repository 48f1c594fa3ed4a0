# Every target works on a fresh clone that has nothing but make and Python 3.11 or newer.
#   make demo PORT=9000        another port          make test ARGS="-k stop -x"      some of the tests
#   make PYTHON=/path/python   another interpreter   make bench RUNS=1                a quick measurement
#   make test-python PYTHON=python3.13 VENV=.venv-3.13   a quick part of the tests on another Python

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ARGS :=
# Tests side by side, each file in one process: most of them wait for processes and servers of their own.
JOBS := 3
RUNS := 3
# What a Python may break: its syntax and types, its standard library, its threads, signals, sockets and files.
QUICK := tests/protocol tests/runs/test_driver.py tests/runs/test_containment.py tests/app/test_routes.py \
  tests/app/test_loading.py tests/server/test_server.py tests/redis/test_login.py tests/stores/test_conformance.py \
  tests/tasks/test_local.py tests/cli/test_mistakes.py tests/e2e/test_chat.py tests/e2e/test_unruly.py

# The first of these that is new enough and can make a virtual environment is taken.
PYTHON :=
PYTHONS = $(strip $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14)
USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))

.PHONY: help demo test test-python check bench chaos chaos-tasks kills fuzz clean
.NOTPARALLEL:  # two pips in one environment would break it, also under `make -j`
.DELETE_ON_ERROR:

help:
	@echo 'make demo    start the example agent'
	@echo 'make test    run the tests'
	@echo 'make test-python PYTHON=python3.13 VENV=.venv-3.13   run a quick part of them on another Python'
	@echo 'make check   lint, formatting, types, layers'
	@echo 'make bench   measure this project and the replaced one (RUNS=1: 15 minutes; goes on where it stopped)'
	@echo 'make chaos   break nodes, Redis and networks many times (half an hour; goes on where it stopped)'
	@echo 'make kills   kill processes in the middle of their saves (ten minutes; goes on where it stopped)'
	@echo 'make chaos-tasks   give tasks to Celery workers, stop some, break things (4 minutes; goes on, too)'
	@echo 'make fuzz    send strange requests to every route (some minutes; goes on where it stopped)'
	@echo 'make clean   remove the environment and what tools have left behind'

demo: $(VENV)/.installed
	@$(BIN)/python examples/friday/app.py

test: $(VENV)/.installed-dev
	$(BIN)/pytest -n $(JOBS) --dist loadfile $(ARGS)

test-python: $(VENV)/.installed-dev
	$(BIN)/pytest -n $(JOBS) --dist loadfile $(QUICK) $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/.installed-dev
	$(BIN)/python bench/measure.py --runs $(RUNS) $(ARGS)

chaos: $(VENV)/.installed-dev
	$(BIN)/python -m tests.chaos.run $(ARGS)

kills: $(VENV)/.installed-dev
	$(BIN)/python -m tests.stores.kills $(ARGS)

chaos-tasks: $(VENV)/.installed-dev
	$(BIN)/python -m tests.chaos.tasks $(ARGS)

fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m tests.fuzz.run $(ARGS)

clean:
	rm -rf $(VENV) .venv-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@for python in $(PYTHONS); do \
	  if "$$python" -c '$(USABLE)' >/dev/null 2>&1; then \
	    echo "Making $(VENV) with $$("$$python" --version)."; \
	    "$$python" -m venv --clear $(VENV) && exit 0; \
	    rm -rf $(VENV); exit 1; \
	  fi; \
	done; \
	echo 'Python 3.11 or newer with its venv module is needed, and none of these is: $(PYTHONS).' >&2; \
	echo 'On Debian and Ubuntu: apt install python3-venv. Another interpreter: make PYTHON=/path/to/python.' >&2; \
	exit 1

# The stamps are older than pyproject.toml after it changed, and only then is anything installed again.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo 'Installing what the app needs.'
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo 'Installing what the app, its tests and checks need.'
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.installed
