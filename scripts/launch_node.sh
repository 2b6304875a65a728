#!/usr/bin/env bash
# One node's part of `accelerate launch` over several, started by srun on each (docs/scale.md): which node this is, only
# the node knows. MASTER names the first, GPUS says how many processes a node has.
exec accelerate launch --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" --main_process_ip "$MASTER" \
  --main_process_port 29500 --num_processes $((GPUS * SLURM_NNODES)) -m "$@"
