#!/bin/bash
# Trains with one process on each of two nodes: `sbatch slurm.sh`. docs/clusters.md explains it.
#
# How far it was run: Slurm 22.05 with two nodes, which were network namespaces of one machine. The job was run to its
# end, stopped by `scancel --signal=HUP`, and put into the queue again by its time limit.
#
#SBATCH --job-name=charloom
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=02:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append

# USR1 arrives 180 to 240 s before the time limit. Then the run saves everything, and the job starts again later. The
# processes receive HUP from Slurm and from torchrun, which has the effect of TERM.
trap 'again=yes; scancel --signal=HUP "$SLURM_JOB_ID"' USR1

export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 TORCH_CPP_LOG_LEVEL=ERROR # docs/clusters.md explains both
# export GLOO_SOCKET_IFNAME=eth0 # needed if a node knows its own name as 127.0.1.1

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000)) # another job may share the node
srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 1 --max-restarts 3 \
  --rdzv-backend c10d --rdzv-endpoint "$first:$port" --rdzv-id "$SLURM_JOB_ID" \
  -m charloom train my.txt --out run --resume auto --steps 100000 &
wait $!
status=$?
if [ "$again" ]; then # the signal ended `wait`, and the run is still saving
  wait $!
  status=$?
  [ $status = 0 ] || scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
