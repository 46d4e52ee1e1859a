# The commands of this project. `make help` lists them from the comments behind `##`.
# Settings: SECONDS=20 ends `make run` by itself; INKSTREAM_STACK=auto|docker|native says how the servers are run.

SHELL := /bin/sh
PYTHON := .venv/bin/python
UV := .venv/bin/uv
PACKAGES := agents delivery dev enrich notifications ops providers runtime schemas sinks web
PYTEST := $(PYTHON) -m pytest
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder
# Those of the directories that lint and types look at which exist.
CHECKED := $(wildcard $(PACKAGES) bench tests)
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)

.DEFAULT_GOAL := help
.PHONY: help setup run up down clean test test-unit test-integration test-tools check format coverage bench bench-counts bench-indexes bench-notifications bench-paths bench-scale chaos chaos-defects chaos-notifications docs fuzz lock release soak

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' Makefile

setup: ## Create or update .venv from the lock
	@sh dev/setup.sh

run: setup ## Run servers, worker and sample traffic, with live progress (SECONDS=20 ends by itself)
	@$(PYTHON) -m dev.run $(if $(SECONDS),--seconds $(SECONDS))

up: setup ## Start the servers and return when they are ready
	@$(PYTHON) -m dev.stack up

down: setup ## Stop the servers; the data stays
	@$(PYTHON) -m dev.stack down

clean: setup ## Stop the servers and delete their data
	@$(PYTHON) -m dev.stack clean

test: setup ## Run all tests of the program, on real servers (ARGS="-k searches" selects some)
	@$(PYTEST) $(PARALLEL) $(ARGS) --ignore=tests/tools

test-unit: setup ## Run the tests that need no server: unit, contract and providers
	@$(PYTEST) -n logical --dist worksteal tests/unit tests/contract tests/providers $(ARGS)

test-integration: setup ## Run the tests on real servers, three at a time
	@$(PYTEST) $(PARALLEL) tests/integration $(ARGS)

test-tools: setup ## Run the tests of the test tools: chaos, benchmarks, development stack, CONTRIBUTING
	@$(PYTEST) $(PARALLEL) tests/tools $(ARGS)

check: setup ## Check lint, format and types
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy --strict $(CHECKED)

format: setup ## Format the code and fix what ruff can fix
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

coverage: setup ## Measure which lines the tests run; writes htmlcov/ (ARGS="tests/unit" for some)
	@$(PYTEST) $(PARALLEL) --cov --cov-report term --cov-report html $(ARGS) --ignore=tests/tools

bench: setup ## Measure the speed of the page-views path against the baseline
	@$(PYTHON) -m bench.page_views $(ARGS)

bench-paths: setup ## Measure the paths of all other topics against bare writes of the same documents
	@$(PYTHON) -m bench.paths $(ARGS)

bench-scale: setup ## Measure one and two workers, more partitions, and growing backlogs
	@$(PYTHON) -m bench.scale $(ARGS)

bench-counts: setup ## Measure how fresh view counts are (ARGS="--hot 1000000" with a popular post)
	@$(PYTHON) -m bench.view_counts $(ARGS)

bench-indexes: setup ## Measure what each index costs an insert, and what questions read without it
	@$(PYTHON) -m bench.indexes $(ARGS)

bench-notifications: setup ## Measure how fast notifications leave, and an urgent one behind many
	@$(PYTHON) -m bench.notifications $(ARGS)

chaos: setup ## Let everything fail, drawn from a seed; nothing may be lost (SEED=8 CYCLES=20 FAULTS=worker-frozen)
	@$(PYTHON) -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(CYCLES),--cycles $(CYCLES)) $(if $(FAULTS),--faults "$(FAULTS)") $(ARGS)

chaos-defects: setup ## See that chaos notices defects: each is switched on, and the run must fail
	@$(PYTHON) -m tests.chaos.proof $(ARGS)

soak: setup ## Run steadily, and see that memory, files, lag and latency stay as they are (MINUTES=30)
	@$(PYTHON) -m tests.chaos.soak $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

fuzz: setup ## Send random input to the parsers for long; each must give an event or a dead letter
	@$(PYTHON) -m pytest tests/fuzz --hypothesis-profile=long $(ARGS)

chaos-notifications: setup ## Send notifications while everything fails; none may be lost (ARGS="--quick")
	@$(PYTHON) -m tests.chaos --notifications $(if $(SEED),--seed $(SEED)) $(ARGS)

docs: setup ## Generate the pages on topics, settings and collections in docs/
	@$(PYTHON) -m dev.pages

lock: setup ## Update the locks in requirements/ (UPGRADE=1: to the newest versions)
	@$(COMPILE) --output-file requirements/runtime.txt pyproject.toml
	@$(COMPILE) --all-extras --constraint requirements/runtime.txt --output-file requirements/development.txt pyproject.toml

release: setup ## Set the version, date the changelog, commit and tag (VERSION=0.2.0, DRY_RUN=1 only prints)
	@$(PYTHON) -m dev.release $(if $(DRY_RUN),--dry-run) "$(VERSION)"
