#!/usr/bin/env bash
# What a change does to the results, as Markdown: scripts/review.sh [base revision, default main]
# Ends with the exit code of the gate: 1 when a target is missed.
set -euo pipefail
cd "$(dirname "$0")/.."
base=${1:-main}
echo "## Metrics against $base"
dvc metrics diff "$base" --targets metrics/comparison.json --md
echo
echo "## Parameters against $base"
dvc params diff "$base" --md
echo
echo "## Verdict"
echo '```'
code=0
python -m reverse_perturbation.check || code=$?
echo '```'
exit "$code"
