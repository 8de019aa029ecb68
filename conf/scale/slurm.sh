#!/bin/bash
# Pretraining on two machines of four GPUs each. From the project's folder, after `uv sync`:
#
#   sbatch conf/scale/slurm.sh --data.init_args.root MMEARTH ...
#
# The same with --ckpt_path runs/paper/pretrain/last.ckpt goes on from the last checkpoint.
#SBATCH --job-name=channelmae
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00

srun uv run --no-sync torchgeo fit \
    --config conf/paper/pretrain.yaml --config conf/scale/ddp.yaml \
    --data.init_args.num_workers 7 \
    --trainer.num_nodes "$SLURM_JOB_NUM_NODES" --trainer.devices "$SLURM_NTASKS_PER_NODE" "$@"
