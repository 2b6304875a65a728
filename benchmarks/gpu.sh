#!/usr/bin/env bash
# Measure one NVIDIA GPU in at most eight minutes and write results/benchmarks/gpu.json and gpu.md; --tiny: see gpu.py.
# Needs no DVC, no network and no package scgpt, only these, of which the last three are pure Python:
#   torch >= 2.11, numpy, scipy, pandas, scikit-learn, safetensors, accelerate, peft, tqdm, h5py, pydantic, zarr
#   anndata, ruamel.yaml, statsmodels
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
exec python3 benchmarks/gpu.py "$@"
