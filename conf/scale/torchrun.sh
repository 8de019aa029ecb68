#!/bin/bash
# The same by torchrun, without Slurm; on each of two machines, HOST being one of them:
#
#   bash conf/scale/torchrun.sh HOST --data.init_args.root MMEARTH ...
HOST=$1
shift

uv run --no-sync torchrun --nnodes 2 --nproc-per-node 4 \
    --rdzv-backend c10d --rdzv-endpoint "$HOST:29500" --no-python \
    torchgeo fit --config conf/paper/pretrain.yaml --config conf/scale/ddp.yaml \
    --trainer.num_nodes 2 --trainer.devices 4 "$@"
