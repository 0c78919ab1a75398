#!/usr/bin/env bash
# Make the records of Cora's models without message passing, ten seeds each:
#
#   results/cora_models.sh                 all of them, about a quarter of an hour on two cores
#   results/cora_models.sh words graph     some: words graph both mirrored multiworker linqs
#
# Each kind replaces its folder below results/reference/cora_models/. Planetoid's public split,
# or for linqs that data set's own. Real data is found by RINGSAGE_DATA.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

program="baselines/cora_models.py --seeds 0-9"
folder() { echo "results/reference/cora_models/$1"; }
fresh() { rm -rf "$(folder "$1")"; mkdir -p "$(folder "$1")"; }

# One replica.
words() { python $program --model words --records "$(folder words)"; }
graph() { python $program --model graph --records "$(folder graph)"; }
both() { python $program --model graph+words --records "$(folder both)"; }

# Two replicas, in one process and in two.
mirrored() {
    python $program --model graph+words --strategy mirrored --replicas 2 \
        --records "$(folder mirrored)"
}
multiworker() {
    mpirun -np 2 --bind-to none python $program --model graph+words --strategy multiworker \
        --records "$(folder multiworker)"
}

# One replica on the LINQS files: the same papers, another split.
linqs() {
    for model in words graph graph+words; do
        python $program --model $model --dataset cora-linqs --records "$(folder linqs)"
    done
}

for kind in ${*:-words graph both mirrored multiworker linqs}; do
    echo "== $kind"
    fresh "$kind"
    $kind
done
