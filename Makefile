# What people and CI run. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
MODELS ?= models
BIN := .venv/bin
STARTERS := digits breast-cancer
.PHONY: help setup serve test check format proto proto-check bench image-test image-test-all gpu-check

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: .venv/.ready ## Install everything into .venv

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || \
	  { echo "Amiss needs Python 3.11 to 3.13; set one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "python3-venv is missing; install it with: sudo apt install python3-venv" >&2; exit 1; }
	@echo "Installing into .venv (once)..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,serve,dev]'
	@touch $@

serve: setup ## Serve the detectors in models/; trains two starters when there are none
	@others=$$(find $(MODELS) -mindepth 1 -maxdepth 1 -type d 2>/dev/null | grep -vE '/($(subst $(eval) ,|,$(STARTERS)))$$'); \
	if [ -z "$$others" ]; then for starter in $(STARTERS); do \
	  ls $(MODELS)/$$starter/*/manifest.json >/dev/null 2>&1 || \
	  $(BIN)/amiss train --recipe $$starter --models $(MODELS) || exit 1; \
	done; fi
	@exec $(BIN)/amiss serve --models $(MODELS) --show-examples $(ARGS)

test: setup ## Run the tests (CI runs those that need ../shared/data or build images too)
	@OMP_NUM_THREADS=1 $(BIN)/pytest -m "not (shared or image or image_all or image_cuda)" $(ARGS)

image-test: setup ## Build the image for the CPU and run it, as root with buildah, debootstrap and iproute2
	@$(BIN)/pytest -m image $(ARGS)

image-test-all: setup ## The same with every target, and what DEVICE=cuda installs (10 GB)
	@$(BIN)/pytest -m "image or image_all or image_cuda" $(ARGS)

check: setup proto-check ## Lint, types, arrows between rooms, fresh stubs
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## Format and mend what can be mended
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

# Stubs are made by the lowest protobuf major we support, which cannot live beside protobuf 7.
.venv-proto/.ready: proto/requirements.txt
	@$(PYTHON) -m venv .venv-proto
	@.venv-proto/bin/pip install --quiet --disable-pip-version-check -r proto/requirements.txt
	@touch $@

proto: .venv-proto/.ready ## Generate the stubs from proto/
	@PATH=$$PWD/.venv-proto/bin:$$PATH python -m grpc_tools.protoc -I proto --python_out=proto \
	  --pyi_out=proto --grpc_python_out=proto --mypy_grpc_out=quiet:proto proto/amiss/*/*.proto

proto-check: .venv-proto/.ready
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && \
	PATH=$$PWD/.venv-proto/bin:$$PATH python -m grpc_tools.protoc -I proto --python_out=$$out \
	  --pyi_out=$$out --grpc_python_out=$$out --mypy_grpc_out=quiet:$$out proto/amiss/*/*.proto && \
	for file in $$(cd $$out && find . -type f); do cmp -s $$out/$$file proto/$$file || \
	  { echo "proto/$$file is stale; run: make proto" >&2; exit 1; }; done

bench: setup ## Measure speed, 45 minutes on a quiet machine (prints ratios inside one run)
	@failed=; for script in $(filter-out %/bench_gpu.py,$(wildcard tests/bench/bench_*.py)); do $(BIN)/python $$script || failed="$$failed $$script"; done; \
	[ -z "$$failed" ] || { echo "a bar was missed or a script failed:$$failed" >&2; exit 1; }

gpu-check: setup ## Check a CUDA device: its tests, parity with the CPU, speed, memory
	@$(BIN)/python tests/bench/bench_gpu.py $(ARGS)
