#!/usr/bin/env bash
# One node's part of `accelerate launch` over several nodes, started on each by srun (docs/scale.md), since only the node
# knows its rank. MASTER is the name of the first node, GPUS the number of processes per node.
exec accelerate launch --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" --main_process_ip "$MASTER" \
  --main_process_port 29500 --num_processes $((GPUS * SLURM_NNODES)) -m "$@"
