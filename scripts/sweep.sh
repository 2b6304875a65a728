#!/usr/bin/env bash
# Named sweeps over what params.yaml says, each row a DVC experiment SWEEP-ROW. A row that was made from this commit
# before is left as it is, so an interrupted sweep goes on; rows that failed are named at the end, exit code 1.
#
#   scripts/sweep.sh [-j WORKERS] SWEEP ... [-- KEY=VALUE ...]
#
# SWEEP: loss sampler adaptation library query mask seeds. KEY=VALUE is set in every row. With -j the rows go through
# DVC's queue, WORKERS at a time, else one after the other. Each row is made up to the comparison, without a report.
set -uo pipefail
cd "$(dirname "$0")/.."
sweeps=() settings=() names=() workers=0
while (($#)); do
  case $1 in
    -j) workers=${2:?number of workers} && shift ;;
    --) shift && settings=("$@") && break ;;
    loss | sampler | adaptation | library | query | mask | seeds) sweeps+=("$1") ;;
    *) echo "sweep: no sweep named $1: loss sampler adaptation library query mask seeds" >&2 && exit 2 ;;
  esac
  shift
done
((${#sweeps[@]})) || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2 && exit 2; }

made() { dvc exp list --name-only 2>/dev/null | sed 's/ *//g'; }
before=$(made)

row() {
  local name=$1 how=--temp options=() setting
  shift
  names+=("$name")
  grep -qxF "$name" <<< "$before" && echo "sweep: $name: made before" && return
  for setting in "${settings[@]}" "$@"; do options+=(-S "$setting"); done
  ((workers)) && how=--queue
  echo "sweep: $name: ${settings[*]} $*"
  dvc exp run "$how" -n "$name" "${options[@]}" compare
}

loss() {
  row loss-cross-entropy finetune.sampler=balanced
  row loss-infonce finetune.sampler=balanced finetune.loss.infonce=0.5
  row loss-supcon finetune.sampler=balanced finetune.loss.supcon=0.5
  row loss-supcon-alone finetune.sampler=balanced finetune.loss.supcon=1 finetune.loss.cross_entropy=0
  row loss-shared-gene finetune.loss.shared_gene_credit=0.2
}

sampler() {
  row sampler-random finetune.sampler=random
  row sampler-balanced finetune.sampler=balanced
  row sampler-uncorrected finetune.sampler=balanced finetune.prior_correction=false
}

adaptation() {
  row adaptation-frozen finetune.adaptation=frozen finetune.mixing=1
  row adaptation-head finetune.adaptation=head
  row adaptation-last-1 finetune.adaptation=last_n finetune.last_layers=1
  for rank in 4 8 16; do
    row adaptation-lora-$rank finetune.adaptation=lora finetune.lora.rank=$rank
  done
  row adaptation-full finetune.adaptation=full
}

library() {
  for kind in bootstrap mean raw_cell raw_cell_vote; do
    row library-$kind evaluate.ranking=library library.kind=$kind
  done
  row library-euclidean evaluate.ranking=library library.similarity=euclidean
  for embedding in centred whitened; do
    row library-$embedding evaluate.ranking=library library.embedding=$embedding
  done
}

query() {
  row query-cell query.kind=cell
  for cells in 5 10 20; do
    row query-pseudobulk-$cells query.kind=pseudobulk query.cells=$cells
  done
}

mask() {
  for mask in none own all_targets; do
    row mask-$mask mask=$mask
  done
}

seeds() {
  for seed in 0 1 2 3 4; do
    row seeds-$seed "seeds=[$seed]"
  done
}

for sweep in "${sweeps[@]}"; do "$sweep"; done
if ((workers)); then
  dvc queue start -j "$workers"
  # A row on its way from the queue to a worker is in neither for a moment, so three looks in a row have to find none.
  for ((idle = 0; idle < 3; )); do
    sleep "${POLL:-5}"
    rows=$(dvc queue status) # no pipe: grep -q ends before dvc has said all, which would count as an error
    if grep -qE ' (Queued|Running) *$' <<< "$rows"; then idle=0; else ((idle += 1)); fi
  done
fi
# What DVC lists is what was made, in the queue too, whose own exit code says nothing.
failed=$(printf '%s\n' "${names[@]}" | grep -vxF -f <(made) | tr '\n' ' ')
if [[ -n $failed ]]; then
  echo "sweep: failed: $failed" >&2
  exit 1
fi
echo "sweep: all ${#names[@]} rows are made; compare them with dvc exp show (docs/experiments.md)"
