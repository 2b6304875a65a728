#!/usr/bin/env bash
# Ablation on real cells: every row differs from `default` in what its name says. Rows are DVC experiments, so a row
# that was run before comes from the run-cache; a row that fails is named at the end and the script exits with 1.
#
#   scripts/ablation.sh /path/to/norman_subset.h5ad [group ...]     groups: adaptation loss values readout heads augmentation other
#
# Writes results/reports/ablation.md and .csv, both by `dvc exp show`; what mattered, in scripts/ablation_findings.md, is
# written by hand from them and put before the table.
set -uo pipefail
cd "$(dirname "$0")/.."
data=$(realpath "${1:?path of an .h5ad file}")
shift
groups=${*:-adaptation loss values readout heads augmentation other}
report=results/reports/ablation
failed=()

row() {
  local name=$1
  shift
  local settings=()
  for setting in data.source=h5ad "data.path=$data" "seeds=${SEEDS:-[0,1,2]}" 'models=[scgpt]' 'finetune.readout=[cls,mean]' \
    finetune.epochs=25 finetune.patience=25 finetune.head_learning_rate=0.001 finetune.head_dropout=0.5 "$@"; do
    settings+=(-S "$setting")
  done
  dvc exp remove -q "$name" 2>/dev/null
  echo "ablation: $name: $*"
  dvc exp run --temp -n "$name" "${settings[@]}" compare || failed+=("$name")
}

adaptation() {
  row frozen finetune.adaptation=frozen finetune.mixing=1
  row head finetune.adaptation=head finetune.mixing=1
  row head-mixed finetune.adaptation=head
  row last-1 finetune.adaptation=last_n finetune.last_layers=1
  row last-2 finetune.adaptation=last_n finetune.last_layers=2
  for rank in 8 16 32; do
    row lora-$rank finetune.adaptation=lora finetune.lora.rank=$rank finetune.lora.alpha=$((2 * rank))
  done
}

loss() {
  for batch in 32 64 128; do
    for sampler in random balanced; do
      row $sampler-$batch finetune.batch_size=$batch finetune.sampler=$sampler
      row $sampler-infonce-$batch finetune.batch_size=$batch finetune.sampler=$sampler finetune.loss.infonce=0.5
      row $sampler-supcon-$batch finetune.batch_size=$batch finetune.sampler=$sampler finetune.loss.supcon=0.5
    done
  done
  row balanced-uncorrected finetune.sampler=balanced finetune.prior_correction=false
  row shared-gene-credit finetune.loss.shared_gene_credit=0.2
}

values() {
  row binned scgpt.value_input=binned
  row binned-random scgpt.value_input=binned_random
}

readout() {
  row cls 'finetune.readout=[cls]'
  row mean 'finetune.readout=[mean]'
  row cls-mean-genes 'finetune.readout=[cls,mean,genes]'
}

heads() {
  row head-depth-0 finetune.head_depth=0
  row head-depth-2 finetune.head_depth=2
  row head-width-256 finetune.head_depth=2 finetune.head_width=256
  row head-dim-32 finetune.head_dim=32
  row head-dim-256 finetune.head_dim=256
}

other() {
  row not-pretrained pretrain.epochs=0
  row pretrained-20 pretrain.epochs=20
  row ema-0.99 finetune.ema=0.99
  row probe-5 finetune.probe_epochs=5
}

augmentation() {
  for cells in 1 2 4; do
    row mixing-$cells finetune.mixing=$cells
  done
  row thinning finetune.mixing=1 finetune.thinning=0.5
  row token-dropout finetune.mixing=1 finetune.token_dropout=0.2
}

row default
for group in $groups; do
  "$group"
done
set -e
keep='^Experiment$|^data\.source$|scgpt\.(exact_hit@1|mrr)$|scgpt\.std\.(exact_hit@1|mrr)$|logreg\.mrr$|^gap\.mrr$'
dvc exp show --hide-workspace --drop '.*' --keep "$keep" --sort-by metrics/comparison.json:scgpt.mrr --sort-order desc \
  --precision 3 --csv > "$report.csv"
{
  echo "# Ablation on real cells"
  echo
  echo "Mask all_targets, canonical labels, split seed 42, query cells; training seeds ${SEEDS:-[0,1,2]}, groups of rows:"
  echo "$groups. A row differs from \`default\` in what its name says (scripts/ablation.sh); \`std\` is over the training"
  echo "seeds, \`logreg\` the tuned logistic regression, \`gap\` scGPT minus it."
  echo
  cat scripts/ablation_findings.md
  echo
  # From the CSV: in Markdown \`dvc exp show\` does not round, and the branch itself, on simulated cells, is no row of this.
  python - "$report.csv" << 'EOF'
import sys

import pandas as pd

from reverse_perturbation.report.tables import markdown

rows = pd.read_csv(sys.argv[1])
print(markdown(rows[rows["data.source"] == "h5ad"].drop(columns="data.source")))
EOF
} > "$report.md"
if ((${#failed[@]})); then
  echo "ablation: failed: ${failed[*]}" >&2
  exit 1
fi
echo "ablation: $report.md and .csv"
