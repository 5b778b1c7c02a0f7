# Each target sets up what it needs in .venv; the second time it starts at once. See `make help`.
#
#   make test TORCH="torch torchvision --index-url https://download.pytorch.org/whl/cpu"
#   make test TORCH="torch==2.14.1 torchvision==0.29.1"     other torch builds (make clean first)
#   make test PYTHON=/path/to/python3.12                    another Python
#   make test ARGS="-k alpha"                               arguments for pytest, or for the demo

TORCH ?= torch torchvision
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c '$(SUPPORTED)' >/dev/null 2>&1 && { echo $$p; break; }; done)

VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean
.NOTPARALLEL:

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /  make \1	/'

demo: $(VENV)/.installed-3d,diffusion  ## regions named, a mesh made, subjects drawn anew: outputs/demo
	@echo "==> demo: writing to outputs/demo"
	@$(VENV)/bin/alphaclip-gen demo --output outputs/demo $(ARGS)

test: $(VENV)/.installed-test  ## run the tests
	@echo "==> test: pytest $(ARGS)"
	@$(VENV)/bin/python -m pytest $(ARGS)

lint: $(VENV)/.installed-test  ## check style and types
	@echo "==> lint: ruff check, ruff format --check, mypy"
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

bench: $(VENV)/.installed-3d,diffusion  ## what focus and a step of text to 3D cost: outputs/bench
	@echo "==> bench: writing to outputs/bench"
	@$(VENV)/bin/alphaclip-gen bench --output outputs/bench $(ARGS)
	@$(VENV)/bin/python nerf/bench.py --output outputs/bench

clean:  ## remove .venv, caches and built packages (outputs/ stays)
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed-%: pyproject.toml $(VENV)/.torch
	@echo "==> set-up: installing alphaclip-gen[$*] into $(VENV) (about a minute)"
	@$(PIP) --quiet --editable ".[$*]"
	@touch $@

$(VENV)/.torch: $(VENV)/bin/python
	@echo "==> set-up: installing $(TORCH) (a few minutes, once)"
	@case "$$(uname -s)-$(TORCH)" in Linux-torch\ torchvision) command -v nvidia-smi >/dev/null || \
		echo "    no GPU? This is far smaller: make $(MAKECMDGOALS)" \
		'TORCH="torch torchvision --index-url https://download.pytorch.org/whl/cpu"' ;; esac
	@$(PIP) $(TORCH)
	@touch $@

$(VENV)/bin/python:
	@$(or $(PYTHON),false) -c '$(SUPPORTED)' || { \
		echo "error: Python 3.11, 3.12 or 3.13 is required; got $(or $(PYTHON),python3) ($$($(or $(PYTHON),python3) --version 2>&1))." \
		"Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
		echo "error: $(PYTHON) has no venv module. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "==> set-up: creating $(VENV) with $(PYTHON), $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
