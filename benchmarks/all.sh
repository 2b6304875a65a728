#!/usr/bin/env bash
# Run every benchmark on one thread and keep what each prints, results/benchmarks/*.md: hours, on a machine that does
# nothing else. THREADS=2 benchmarks/all.sh uses two.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=${THREADS:-1}
folder=results/benchmarks
mkdir -p $folder

# measure NAME COMMAND...: the command as one would type it, then what it printed; progress stays on the terminal.
measure() {
  local name=$1
  shift
  echo "all: $*"
  { printf 'Made by `benchmarks/all.sh`: `OMP_NUM_THREADS=%s %s`\n\n' "$OMP_NUM_THREADS" "$*"; "$@"; } > "$folder/$name.tmp"
  mv "$folder/$name.tmp" "$folder/$name.md"
}

measure machine python benchmarks/machine.py
measure tokens python benchmarks/tokens.py
measure embed python benchmarks/embed.py
measure embed_small python benchmarks/embed.py --layers 2 --width 64 --heads 4 --cells 2000
measure finetune_step python benchmarks/finetune_step.py
measure stages python benchmarks/stages.py
measure search python benchmarks/search.py --grid
measure logreg python benchmarks/logreg.py --path
measure logreg_norman python benchmarks/logreg.py --conditions 282 --cells 91205 --genes 5045 --c 0.01 --repeats 1 --most 240
if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "all: benchmarks/gpu.sh"
  benchmarks/gpu.sh
fi
