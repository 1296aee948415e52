# `make serve` runs Upwell, `make test` checks it. Both make what they need in .venv first.

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
CLIENTS := tests/clients/js/node_modules/.upwell
LLAMAINDEX := $(VENV)-llamaindex/.upwell
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
LOCK := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate

LOCKS := requirements.lock requirements-dev.lock tests/bench/requirements.lock tests/bench/peers/requirements.lock \
	tests/clients/llamaindex/requirements.lock

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve demo test test-all crash soak check format audit bench-ack bench-peers bench-filters bench-growth bench-small bench-limit \
	bench-doors bench-texts bench-full-text bench-workers bench-memory bench-report lock install install-dev clean

help: ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'
	@echo '  Options of the command go in ARGS, as in: make serve ARGS="--port 9000"'

serve: $(VENV)/.runtime ## run everything on this machine
	@exec $(BIN)/upwell serve $(ARGS)

demo: $(VENV)/.runtime ## show a mutation on its way from upload to visible
	@exec $(BIN)/upwell demo $(ARGS)

test: check $(CLIENTS) $(LLAMAINDEX) ## all checks and tests but the slow ones
	@$(BIN)/python -m pytest $(ARGS)

test-all: check $(CLIENTS) $(LLAMAINDEX) ## the slow tests as well, and every property on more examples
	@TEST_THOROUGHLY=1 $(BIN)/python -m pytest -m "not bench" $(ARGS)

crash: $(VENV)/.dev ## kill everything a thousand times under load, and check the four promises
	@exec $(BIN)/python -m tests.crash $(ARGS)

soak: $(VENV)/.dev ## ten minutes of load and faults: does anything grow?
	@exec $(BIN)/python -m tests.crash.soak $(ARGS)

check: $(VENV)/.dev ## lint, format, types and import rules
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev ## put the code into its usual form
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

# Not a part of `test`: it asks advisory databases over the network, and what they say changes without a change here.
audit: $(VENV)/.dev ## look for known vulnerabilities in what is locked
	@for lock in $(LOCKS); do echo "$$lock" && $(BIN)/pip-audit --strict --require-hashes --disable-pip \
		--vulnerability-service osv --progress-spinner off --requirement $$lock || exit 1; done
	@cd tests/clients/js && $(CURDIR)/$(BIN)/npm audit --package-lock-only --audit-level=moderate

bench-ack: $(VENV)/.dev ## measure the time to acknowledged and to visible
	@exec $(BIN)/python -m tests.bench.ack_and_visible $(ARGS)

bench-peers: $(VENV)/.dev ## measure Upwell beside other vector stores
	@exec $(BIN)/python -m tests.bench.peers $(ARGS)

bench-filters: $(VENV)/.dev ## measure queries with filters beside other vector stores
	@exec $(BIN)/python -m tests.bench.filters $(ARGS)

bench-growth: $(VENV)/.dev ## measure upserts as an index grows to a million vectors
	@exec $(BIN)/python -m tests.bench.growth $(ARGS)

bench-small: $(VENV)/.dev ## measure one-vector upserts (ARGS=--peers for Chroma and pgvector too)
	@exec $(BIN)/python -m tests.bench.small $(ARGS)

bench-limit: $(VENV)/.dev ## measure bulk upserts as a share of the limit
	@exec $(BIN)/python -m tests.bench.limit $(ARGS)

bench-doors: $(VENV)/.dev ## measure the three doors with the same vectors
	@exec $(BIN)/python -m tests.bench.doors $(ARGS)

bench-texts: $(VENV)/.dev ## measure texts that workers turn into vectors
	@exec $(BIN)/python -m tests.bench.texts $(ARGS)

bench-full-text: $(VENV)/.dev ## measure full-text search beside other stores with BM25
	@exec $(BIN)/python -m tests.bench.full_text $(ARGS)

bench-workers: $(VENV)/.dev ## measure what a second worker brings
	@exec $(BIN)/python -m tests.bench.workers $(ARGS)

bench-memory: $(VENV)/.dev ## measure the memory of a front end that serves a million vectors
	@exec $(BIN)/python -m tests.bench.memory $(ARGS)

bench-report: $(VENV)-bench/.report ## write tables and plots of what was measured
	@exec $(VENV)-bench/bin/python -m tests.bench.report $(ARGS)

$(VENV)-bench/.report: tests/bench/requirements.lock
	@test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	@$(VENV)-bench/bin/python -m pip install -q --disable-pip-version-check --no-input --require-hashes -r $<
	@touch $@

lock: $(VENV)/.dev ## renew the lock files (ARGS=--upgrade for newer versions)
	@$(LOCK) pyproject.toml --group build $(ARGS) -o requirements.lock
	@$(LOCK) pyproject.toml --group dev --constraint requirements.lock $(ARGS) -o requirements-dev.lock
	@$(LOCK) tests/bench/requirements.in $(ARGS) -o tests/bench/requirements.lock
	@$(LOCK) tests/bench/peers/requirements.in $(ARGS) -o tests/bench/peers/requirements.lock
	@$(LOCK) tests/clients/llamaindex/requirements.in $(ARGS) -o tests/clients/llamaindex/requirements.lock
	@cd tests/clients/js && $(CURDIR)/$(BIN)/npm install --package-lock-only --loglevel=error >/dev/null

install: $(VENV)/.runtime ## only make .venv

install-dev: $(VENV)/.dev $(CLIENTS) $(LLAMAINDEX) ## only make .venv, with what tests need

clean: ## remove .venv and caches; data/ stays
	@rm -rf $(VENV) $(VENV)-bench $(VENV)-llamaindex $(dir $(CLIENTS)) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
	@find upwell ingest workers tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is as new as the last install that went through, so that nothing is installed twice.
$(VENV)/.runtime: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Upwell needs Python 3.11 or newer, and '$(PYTHON)' is not: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing Upwell into $(VENV) (about a minute, once) ..."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@echo "Installing what the tests need into $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

# Without them only their tests are lost, so a machine that cannot have them is told so and goes on; CI does not.
$(CLIENTS): tests/clients/js/package-lock.json tests/clients/js/.npmrc | $(VENV)/.dev
	@echo "Installing the vendors' JavaScript clients for the tests into $(dir $@) ..."
	@if cd tests/clients/js && $(CURDIR)/$(BIN)/npm ci --loglevel=error </dev/null >/dev/null; then \
		touch $(CURDIR)/$@; else echo "They cannot be installed here: their tests will be skipped." >&2; test -z "$$CI"; fi

$(LLAMAINDEX): tests/clients/llamaindex/requirements.lock | $(VENV)/.dev
	@echo "Installing LlamaIndex for the tests into $(dir $@) ..."
	@if { test -x $(dir $@)bin/python || $(BIN)/python -m venv $(dir $@); } && $(dir $@)bin/python -m pip install --quiet \
		--disable-pip-version-check --no-input --require-hashes -r $<; then touch $@; else \
		echo "It cannot be installed here: its tests will be skipped." >&2; test -z "$$CI"; fi
