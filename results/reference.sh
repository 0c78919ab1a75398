#!/usr/bin/env bash
# Make the records behind the figures of README.md and docs/results.md, one kind after the other:
#
#   make reference                  all of them, about four hours on two cores
#   results/reference.sh cora       one kind: synthetic cora models curves compare links links_large workers weak memory benches scaling
#                                   autoscale, or recipes, which needs graphs that were imported, or faults, which takes hours
#
# Each kind replaces its folder below results/reference/; records are gzipped. Real data is found by RINGSAGE_DATA.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

single="python baselines/single.py --progress off"
keras() { python tf_mirrored/train.py --progress off --strategy "$@"; }
keras_workers() { local count=$1; shift; mpirun -np "$count" python tf_mirrored/train.py --progress off --strategy multiworker "$@"; }
ranks() { local count=$1; shift; horovodrun -np "$count" python horovod_gnn/train.py --progress off "$@"; }
processes() { local count=$1; shift; torchrun --standalone --nproc-per-node "$count" baselines/ddp.py --progress off "$@"; }
fresh() { rm -rf "results/reference/$1"; mkdir -p "results/reference/$1"; }

# Features alone against the graph, on the default data set.
synthetic() {
    fresh synthetic
    for seed in 0 1 2; do
        $single --seed $seed --aggregator none --records results/reference/synthetic
        $single --seed $seed --records results/reference/synthetic
        ranks 2 --seed $seed --records results/reference/synthetic
    done
}

# Cora, the public split: one process, two ranks, two ranks in bf16, Keras twice over.
cora() {
    fresh cora
    for seed in 0 1 2 3 4 5 6 7 8 9; do
        $single --dataset cora --seed $seed --records results/reference/cora
        ranks 2 --dataset cora --seed $seed --records results/reference/cora
        keras mirrored --replicas 2 --dataset cora --seed $seed --records results/reference/cora
        keras_workers 2 --dataset cora --seed $seed --records results/reference/cora
        ranks 2 --dataset cora --seed $seed --precision bf16 --records results/reference/cora
    done
}

# Cora's models without message passing.
models() { results/cora_models.sh; }

# The same loss at every step, whatever the number of ranks, and the framework.
curves() {
    fresh curves
    for options in "--precision fp64 --dropout 0" "--precision fp32 --dropout 0" \
        "--precision fp64 --dropout 0.3"; do
        options="$options --epochs 20 --records results/reference/curves"
        # shellcheck disable=SC2086
        $single $options
        for count in 1 2 4 8; do
            # shellcheck disable=SC2086
            { ranks $count $options; processes $count $options; }
        done
        # shellcheck disable=SC2086
        { keras one $options; keras mirrored --replicas 2 $options; keras_workers 2 $options; keras_workers 4 $options; }
    done
}

# Seconds per epoch, all strategies taking turns; on the large graph one round at two ranks. The first
# epoch of a run warms up and is not counted.
compare() {
    fresh compare
    python baselines/compare.py --records results/reference/compare
    python baselines/compare.py --records results/reference/compare/large \
        --dataset synthetic-arxiv --epochs 2 --rounds 1 --ranks 2
}

# Link prediction: how well references are ranked, beside heuristics and, of synthetic graphs, an oracle.
links() {
    fresh links
    local saved
    saved=$(mktemp -d)
    for seed in 0 1 2; do
        for data in synthetic synthetic:closure=0.5 cora cit-hepth; do
            $single --task link --dataset $data --seed $seed --records results/reference/links \
                --checkpoint-dir "$saved/$data-$seed"
        done
    done
    python baselines/link_groups.py --checkpoint-dir "$saved/cit-hepth-0" --json results/reference/links/groups.json
    rm -r "$saved"
    python -m gnn_core.report.link_figure results/reference/links/groups.json docs/links.svg
    python baselines/heuristics.py --dataset synthetic --json results/reference/links/synthetic.json
    python baselines/heuristics.py --dataset synthetic:closure=0.5 --json results/reference/links/synthetic-closure.json
    python baselines/heuristics.py --dataset cora --seeds 0-2 --json results/reference/links/cora.json
    python baselines/heuristics.py --dataset cit-hepth --json results/reference/links/cit-hepth.json
}

# Link prediction on a graph of the size of ogbl-citation2.
links_large() {
    fresh links_large
    local graph="--dataset synthetic:papers=2.9e6,citations_per_paper=10,closure=0.5 --held-out 0.002"
    # shellcheck disable=SC2086
    {
        $single --task link $graph --epochs 6 --eval-every 3 --records results/reference/links_large
        python baselines/heuristics.py $graph --no-oracle --json results/reference/links_large/heuristics.json
    }
}

# Workers, epochs, minutes: more workers than cores show that the result stays the same. An epoch is
# a part of the citations, drawn anew each time.
workers() {
    fresh workers
    local options data epochs count
    for data in "cit-hepth" "synthetic:papers=1e5,closure=0.5"; do
        for epochs in 10 30; do
            options="--task link --dataset $data --epochs $epochs --eval-every 5"
            options="$options --records results/reference/workers"
            for count in 1 2 4; do
                # shellcheck disable=SC2086
                { ranks $count $options; processes $count $options; }
            done
        done
    done
}

# The same work for each rank: the global batch grows with their number.
weak() {
    fresh weak
    python -m gnn_core.sweep results/plans/weak.yaml --records results/reference/weak
}

# What an allreduce costs on this machine, and the prediction held to hosts of their own (needs root).
scaling() {
    fresh scaling
    results/scaling_hosts.sh
    python tests/hosts/measure_controllers.py --rounds 7 --json results/reference/benches/controllers-hosts.json
    python tests/hosts/measure_parts.py --json results/reference/benches/parts-hosts.json
}

# Workers chosen by policies, simulated on runs that were recorded before; no run is made.
autoscale() {
    fresh autoscale
    local command="python -m gnn_core.deploy autoscale --simulate --policy efficiency:0.7 --policy efficiency:0.5"
    $command --policy deadline:5 results/reference/scaling/hosts/1000mbit --epochs 1000 \
        --json results/reference/autoscale/hosts.json
    $command --policy deadline:4.3 results/reference/workers --dataset cit-hepth \
        --json results/reference/autoscale/links.json --figure docs/autoscale.svg
}

# Runs that are killed or stopped. Only when named; what was made before is gone on with.
faults() {
    mkdir -p results/reference/faults
    python -m baselines.faults_bench --json results/reference/faults/faults.json
}

# Four ranks share one copy of a graph of 2 GiB.
memory() {
    fresh memory
    ranks 4 --dataset synthetic:papers=3.6e6 --epochs 1 --eval sampled --records results/reference/memory \
        --fanouts 10,5 --global-batch-size 4096 --hidden 64
}

# Recipes compared on validation splits, and the accuracy of what they choose beside PyG's. Only when named,
# since the graphs have to be imported first: see the top of results/plans/recipes.yaml.
recipes() {
    fresh recipes
    python -m gnn_core.sweep results/plans/recipes.yaml --records results/reference/recipes
    # As a folder Cora has no recipe of its own.
    local folder
    folder=$(mktemp -d)
    cp -r "$(python -m gnn_core.data.datasets prepare cora)" "$folder/cora"
    python baselines/pyg_accuracy.py cora_ml citeseer_full amazon_photo twitch musae_engb "$folder/cora" \
        --json results/reference/recipes/pyg.json
    python baselines/pyg_accuracy.py twitch musae_engb --seeds 0-9 \
        --json results/reference/recipes/pyg-ten-seeds.json
    rm -r "$folder"
}

# Sampler and training step on the arxiv-sized graph; ranks against their bound; how long starts take.
benches() {
    fresh benches
    python -m gnn_core.bench.sampling --json results/reference/benches/sampler.json
    python -m gnn_core.bench.assigning --json results/reference/benches/assign.json
    python -m gnn_core.bench.assigning --dataset synthetic-arxiv --json results/reference/benches/assign-arxiv.json
    python -m gnn_core.bench.assigning --dataset cora --json results/reference/benches/assign-cora.json
    python -m gnn_core.bench.assigning --dataset cit-hepth --task link \
        --json results/reference/benches/assign-links.json
    python -m gnn_core.bench.pair_rates --json results/reference/benches/pairs.json
    python -m gnn_core.bench.partitioning --json results/reference/benches/partitioning.json
    python -m gnn_core.bench.parts synthetic-arxiv --json results/reference/benches/parts.json
    python -m gnn_core.bench.disk --json results/reference/benches/disk.json
    python -m horovod_gnn.bench --json results/reference/benches/step.json
    python -m tf_mirrored.bench --json results/reference/benches/keras.json
    python -m baselines.ranks_bench --rounds 7 --json results/reference/benches/ranks.json
    python -m baselines.ranks_bench --busy 1 --rounds 3 --json results/reference/benches/ranks-busy.json
    python -m baselines.ranks_bench --dataset synthetic-arxiv --epochs 2 --rounds 3 \
        --json results/reference/benches/ranks-arxiv.json
    python -m baselines.start_bench --json results/reference/benches/start.json
}

for kind in ${*:-synthetic cora models curves compare links links_large workers weak memory benches scaling autoscale}; do
    echo "== $kind"
    $kind
    find results/reference -name '*.jsonl' -exec gzip -9n {} +
done
