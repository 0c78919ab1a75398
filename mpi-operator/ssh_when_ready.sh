#!/bin/bash
# ssh for mpirun (OMPI_MCA_plm_rsh_agent): waits until the worker's sshd answers, and names the worker
# that is missing.
#
# A pod that the kubelet has ended (evicted, its node shut down) stays as it is, and has no name in the
# DNS: the MPI Operator makes a worker anew only where there is no pod of its name. Without a wait every
# launcher would fail in seconds, and the job with the last of them.
seconds=${RINGSAGE_WORKER_SECONDS:-600}
port=${RINGSAGE_WORKER_PORT:-2222}

given=("$@")
while [[ $1 == -* ]]; do
    case $1 in -[BbcDEeFIiJLlmOoPpQRSWw]) shift ;; esac  # the option's word
    shift
done
worker=$1 pod=${1%%.*}
remedy="if \`kubectl get pod $pod\` tells another status than Running: kubectl delete pod $pod, and it is made anew"

told=-20  # first after 10 s
until timeout 2 bash -c "</dev/tcp/$worker/$port" 2>/dev/null; do
    if ((SECONDS >= seconds)); then
        echo "error: expected worker $pod to answer within $seconds s, got no answer: $remedy" >&2
        exit 255
    fi
    if ((SECONDS >= told + 30)); then
        echo "waiting    for worker $pod, ${SECONDS} of $seconds s: $remedy" >&2
        told=$SECONDS
    fi
    sleep 1
done
exec ssh "${given[@]}"
