#!/usr/bin/env bash
# Hold predicted scaling to four hosts made of network namespaces on this machine, over links of
# 1 Gbit/s and 100 Mbit/s:
#
#   results/scaling_hosts.sh        as root, with iproute2; ten to fifteen minutes on two idle cores
#
# Replaces results/reference/scaling/hosts.json and the run records beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=results/reference/scaling
rm -rf "$folder/hosts"
python tests/hosts/measure_hosts.py --json "$folder/hosts.json" --records "$folder/hosts" "$@"
