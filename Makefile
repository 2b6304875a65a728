# make run: set up, run the experiment, print the verdict.   make test: set up, lint, type-check, test.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: run test setup

run: setup
	dvc repro
	@python -m reverse_perturbation.check || echo "The pipeline ran; the lines above say which targets are missed."

test: setup
	ruff check .
	ruff format --check .
	mypy
	pytest

setup: .venv/installed

.venv/installed: requirements.txt constraints.txt pyproject.toml $(wildcard third_party/torchtext_standin/torchtext/*.py)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 run")'
	$(PYTHON) -m venv .venv
	python -m pip install -r requirements.txt -c constraints.txt
	# scgpt declares packages that what we use of it never imports, and a torchtext that no longer loads.
	python -m pip install --no-deps scgpt==0.2.4
	python -m pip install --no-deps -e .
	touch $@
