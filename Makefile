# make run: set up, run the experiment, print the verdict.   make check: lint, types, fast tests.   make test: all tests.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: run check test lint norman_subset screens norman_scale ablation benchmarks faults repository setup

run: repository setup
	dvc repro
	@reverse-perturbation check || echo "The pipeline ran; the lines above say which targets are missed."

# Files of tests side by side, one thread each.
PYTEST := OMP_NUM_THREADS=1 pytest -n auto --maxprocesses 8 --dist loadfile

# About two minutes on two cores.
check: lint
	$(PYTEST) -m "not slow"

# Everything, with coverage.
test: lint
	$(PYTEST) --cov --cov-report=term:skip-covered

lint: setup
	ruff check .
	ruff format --check .
	mypy

# Results on real cells: half an hour on two cores.
norman_subset: setup
	reverse-perturbation experiments norman_subset

# The same on every real screen at hand (data/raw/README.md), two rows at a time: hours on two cores.
screens: setup
	reverse-perturbation experiments norman_subset -j 2
	reverse-perturbation experiments papalexi -j 2
	reverse-perturbation experiments norman_singles -j 2

# The specification's protocol on simulated cells of Norman's size: about two hours on two cores.
norman_scale: setup
	reverse-perturbation experiments norman_scale

# What each part of the adaptation contributes, on real cells.
ablation: setup
	reverse-perturbation experiments ablation

# What is slow, timed against the usual alternative: results/benchmarks/. Hours; the machine should do nothing else.
benchmarks: setup
	benchmarks/all.sh

# Breaks small runs in hundreds of ways and counts what holds: docs/reliability.md. About ten minutes.
faults: setup
	OMP_NUM_THREADS=1 python -m scripts.faults

# A downloaded ZIP is no git repository.
repository:
	@test -e .git || { echo 'This folder is not a git repository, which DVC needs: run `git init && git add -A && git commit -m start` once' >&2; exit 1; }

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt scripts/make_plots_page.py third_party/torchtext_standin/pyproject.toml $(wildcard third_party/torchtext_standin/torchtext/*.py)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 run")'
	$(PYTHON) -m venv .venv
	python -m pip install -c constraints.txt -e '.[dev]' ./third_party/torchtext_standin
	# scgpt declares packages that our part of it never imports, and a torchtext that no longer loads.
	python -m pip install --no-deps scgpt==0.2.4
	python scripts/make_plots_page.py
	# DVC's own place is one folder that all users of a machine may write to, with pickles in it.
	mkdir -p .dvc/tmp/site_cache/repo
	dvc config --local core.site_cache_dir '$(CURDIR)/.dvc/tmp/site_cache'
	touch $@
