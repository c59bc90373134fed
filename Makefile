# `make` lists the targets. Each sets up what it needs in .venv, from a bare Python 3.11.
PYTHON ?= python3
ARGS ?=
FUZZ_SECONDS ?= 60
VENV := .venv
BIN := $(VENV)/bin
TOOLS_READY := $(VENV)/.tools-ready
RUN_READY := $(VENV)/.run-ready
DEV_READY := $(VENV)/.dev-ready
EACH_CORE := --numprocesses=auto --dist=loadfile
PIP := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help venv demo test test-slow test-all check lint types floors sizes pki docs device bench soak proof isolation mutants tools fuzz audit wheel sbom clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name it with: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	@echo "setting up $(VENV) (once)" >&2
	@$(PYTHON) -m venv $(VENV)

$(RUN_READY): setup.cfg constraints.txt | $(VENV)/bin/python
	@$(PIP) --editable .
	@touch $@

$(DEV_READY): setup.cfg constraints.txt | $(VENV)/bin/python
	@$(PIP) --editable '.[dev]'
	@touch $@ $(RUN_READY)

$(TOOLS_READY): setup.cfg constraints.txt | $(VENV)/bin/python
	@$(PIP) --editable '.[dev,supply]'
	@$(PIP) --editable '.[fuzz]' || echo "atheris does not install here; make fuzz does without it" >&2
	@touch $@ $(DEV_READY) $(RUN_READY)

venv: $(DEV_READY) ## set up .venv with everything for development

demo: $(RUN_READY) ## see the whole thing work: three devices, two customers (ARGS=--keep to go on serving)
	@$(BIN)/delegator demo $(ARGS)

test: $(DEV_READY) ## run the tests that fit into five minutes, a process for each core; ARGS runs others, in one
	$(BIN)/python -m pytest $(or $(ARGS),$(EACH_CORE))

test-slow: $(DEV_READY) ## run the slow tests: those that take no times a process for each core, then the others in one
	$(BIN)/python -m pytest $(EACH_CORE) -m "slow and beside"
	$(BIN)/python -m pytest -m "slow and not beside"

test-all: $(DEV_READY) ## run all tests, the slow ones too
	$(BIN)/python -m pytest -m "" $(ARGS)

check: lint types floors sizes ## lint, types, floors, sizes

lint: $(DEV_READY)
	$(BIN)/ruff check .

types: $(DEV_READY)
	$(BIN)/mypy

floors: $(DEV_READY)
	$(BIN)/lint-imports

sizes: $(DEV_READY)
	$(BIN)/python -m pytest -q tests/test_sizes.py

PKI := $(BIN)/python -m pki
ONCE = || [ $$? -eq 6 ]

pki: $(RUN_READY) ## make the factory's certificates in var/pki; what exists already is kept (HOST=name of the server)
	@$(PKI) init $(ARGS) $(ONCE)
	@$(PKI) server delegator --alt localhost --alt 127.0.0.1 $(if $(HOST),--alt $(HOST)) $(ONCE)
	@$(PKI) delegate delegator --client $(ONCE)
	@$(PKI) shared $(ONCE)
	@$(PKI) check

docs: $(RUN_READY) ## draw the parts of pages that come from the code
	@$(BIN)/python -m scripts.claims_page
	@$(BIN)/python -m scripts.schema_page
	@$(BIN)/python scripts/security_page.py

device: $(RUN_READY) ## pack the device client into dist/, one file for any Python
	@$(BIN)/python scripts/build_device.py

bench: $(DEV_READY) ## measure handshakes: ours in several ways, beside nginx and other frameworks
	@$(BIN)/python benchmarks/handshakes.py $(ARGS)

soak: $(RUN_READY) ## 15 minutes at 70 % load with faults mixed in, flat or not (SOAK_SECONDS=900)
	@$(BIN)/python -m benchmarks.soak $(ARGS)

proof: $(DEV_READY) ## the walks and kills that take an hour: 200 kills under load, 100 000 steps under a failing disk
	THOROUGH=1 $(BIN)/python -m pytest -m slow tests/e2e/test_crashes_under_load.py tests/store/test_claims_failing.py

isolation: $(DEV_READY) ## one hostile peer of each kind beside other customers' devices: 25 minutes (ARGS="--layer ssh --at-once 16")
	@$(BIN)/python -m benchmarks.isolation $(ARGS)

mutants: $(DEV_READY) ## put faults into the heart and see whether the quick tests see them: up to an hour (ARGS="--module policy")
	@$(BIN)/python -m scripts.mutants $(ARGS)

tools: $(TOOLS_READY) ## set up what fuzz, audit and sbom need besides

fuzz: $(TOOLS_READY) ## look for bytes that break a reader's law, for FUZZ_SECONDS (60)
	@$(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS) $(ARGS)

audit: $(TOOLS_READY) ## ask whether a dependency has a known weakness; says so where nobody can be asked
	@$(BIN)/python scripts/audit.py $(ARGS) || [ $$? -eq 75 ]

wheel: $(DEV_READY) ## build the wheel into dist/, the same bytes from the same sources
	@$(BIN)/python -m scripts.build_wheel

sbom: $(TOOLS_READY) ## write the bill of materials into dist/ (CycloneDX)
	@$(BIN)/python -m scripts.sbom

clean: ## remove what the targets made, but never var/
	rm -rf $(VENV) dist build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
