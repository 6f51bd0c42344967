# Two commands matter: `make demo` and `make test`. Both set up .venv first; nothing else on the machine is needed but Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test check bench chaos chaos-sinks lock up clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/.installed: requirements-dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.11 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): about two minutes the first time"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

setup: $(VENV)/.installed ## .venv with everything in it

demo: setup ## the main job, end to end, on bundled real recordings
	$(BIN)/replay demo

up: setup ## the embedded stack in the foreground
	$(BIN)/replay up

test: setup ## every test: unit, property, integration, end to end
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: setup ## format, lint, types, direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## the rates of the README, as ratios to named baselines
	$(BIN)/python -m tests.bench

chaos: setup ## 210 kills, stops and outages while recordings flow, then an exact account (SEED=… ACTIONS=… choose)
	$(BIN)/python -m tests.chaos

chaos-sinks: setup ## 300 short rounds: sinks and stores struck in the middle of a flush, each event in both stores once (SEED=… ROUNDS=… choose)
	$(BIN)/python -m tests.chaos.sinks

lock: ## compile the hashed requirement files anew (needs uv); both pin the same versions
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --all-extras -q -o requirements-dev.lock pyproject.toml
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --extra local -c requirements-dev.lock -q -o requirements.lock pyproject.toml

clean: ## remove the virtual environment (data under .replay stays)
	rm -rf $(VENV)
