#!/usr/bin/env bash
# What a change does to the results, as Markdown: scripts/review.sh [base revision, default main]
# Ends with the exit code of the verdict: 1 when a target is missed. PICTURES is what pictures are linked to: a folder, or
# an address with the revision's files.
set -euo pipefail
cd "$(dirname "$0")/.."
base=${1:-main}
echo "## Metrics against $base"
dvc metrics diff "$base" --targets metrics/comparison.json results/reports/*.json --md
echo
echo "## Parameters against $base"
dvc params diff "$base" --md
echo
echo "## Plots that changed against $base"
changed=$(git diff --name-only --diff-filter=d "$base" -- 'plots/models/*.png')
[[ -n $changed ]] || echo "None."
for picture in $changed; do echo "![$picture](${PICTURES:-.}/$picture)"; done
echo
echo "## Reports"
echo '```'
python -m reverse_perturbation reports
echo '```'
echo
echo "## Verdict"
echo '```'
code=0
python -m reverse_perturbation check || code=$?
echo '```'
exit "$code"
