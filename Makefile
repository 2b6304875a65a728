# make run: set up, run the experiment, print the verdict.   make test: set up, lint, type-check, test.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: run test norman_subset norman_scale benchmarks sweep setup

run: setup
	dvc repro
	@python -m reverse_perturbation.check || echo "The pipeline ran; the lines above say which targets are missed."

test: setup
	ruff check .
	ruff format --check .
	mypy
	pytest

# The result on real cells: some minutes a mask. DATA is an .h5ad file of raw counts.
DATA ?= data/raw/norman_subset.h5ad
norman_subset: setup
	python -m reverse_perturbation.real_cells --data $(DATA)

# The specification's protocol on simulated cells of Norman's size: about two hours on two cores.
norman_scale: setup
	python -m reverse_perturbation.norman_scale

# What is slow, timed against what one would use otherwise: results/benchmarks/. Hours; the machine should do nothing else.
benchmarks: setup
	benchmarks/all.sh

# make sweep SWEEPS="library query" WORKERS=2: named sweeps of scripts/sweep.sh, through DVC's queue with WORKERS.
SWEEPS ?= library query
sweep: setup
	scripts/sweep.sh $(if $(WORKERS),-j $(WORKERS)) $(SWEEPS)

setup: .venv/installed

.venv/installed: requirements.txt constraints.txt pyproject.toml scripts/make_plots_page.py $(wildcard third_party/torchtext_standin/torchtext/*.py)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 run")'
	$(PYTHON) -m venv .venv
	python -m pip install -r requirements.txt -c constraints.txt
	# scgpt declares packages that what we use of it never imports, and a torchtext that no longer loads.
	python -m pip install --no-deps scgpt==0.2.4
	python -m pip install --no-deps -e .
	python scripts/make_plots_page.py
	touch $@
