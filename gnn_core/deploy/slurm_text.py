"""The text of the batch scripts of Slurm, for a person to read and to change."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gnn_core.strategies import STRATEGIES
from gnn_core.usage import printable

_LOWEST_PORT, _NUM_PORTS = 20_000, 12_000  # below those that kernels give to connections


@dataclass(frozen=True, kw_only=True)
class Header:
    """What stands in the `#SBATCH` lines."""

    head: str  # what the job is, for the first line
    name: str
    nodes: int
    ranks_per_node: int
    threads: int  # cores of each rank
    memory: str | None  # of each node
    time: str
    save_before: int  # seconds
    tasks: int | None  # of an array

    def lines(self) -> list[str]:
        """The first lines of the script."""
        return [
            "#!/bin/bash",
            f"# {printable(self.head)}.",
            "# Submit this file with sbatch; options given to sbatch beat those below.",
            f"#SBATCH --job-name={self.name}",
            *([f"#SBATCH --array=1-{self.tasks}"] if self.tasks else []),
            f"#SBATCH --nodes={self.nodes}",
            f"#SBATCH --ntasks-per-node={self.ranks_per_node}",
            f"#SBATCH --cpus-per-task={self.threads}",
            *([f"#SBATCH --mem={self.memory}"] if self.memory else []),
            f"#SBATCH --time={self.time}",
            f"#SBATCH --signal=B:USR1@{self.save_before}  # so many seconds before the time is up",
            "#SBATCH --requeue",
            "#SBATCH --open-mode=append",
            f"#SBATCH --output=%x-{'%A_%a' if self.tasks else '%j'}.log",
        ]


def script(header: Header, body: Sequence[str]) -> str:
    """The script for sbatch."""
    return "\n".join([*header.lines(), "", *body, ""])


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the script of a training run is made of."""

    strategy: str
    flags: Sequence[str]  # of the trainer, but for those of folders
    servers: int  # processes of a parameter server
    nodes: int
    ranks_per_node: int
    threads: int  # of each rank
    dataset: str | None  # that is prepared first; None for a folder, which is read where it lies
    data_root: str | None  # folder of its published files
    shared: Path  # folder that all nodes see
    local: str | None  # folder on the disk of each node; None makes no copy of the graph there
    restarts: int  # how often the job is queued again at most
    root: Path  # the repository

    @property
    def copies(self) -> bool:
        """Whether each node gets a copy of the graph."""
        return self.dataset is not None and self.local is not None

    def body(self) -> list[str]:
        """The commands."""
        disk = [f"disk={shlex.quote(str(self.local))}/ringsage-$SLURM_JOB_ID  # of each node"]
        return [
            *_environment(self.root),
            f"export OMP_NUM_THREADS={self.threads}",
            "export SLURM_MPI_TYPE=none  # srun starts processes, and no more",
            f"shared={shlex.quote(str(self.shared))}  # all nodes see it",
            *(disk if self.copies else []),
            "restarts=${SLURM_RESTART_COUNT:-0}",
            'echo "start $restarts on $(scontrol show hostnames | paste -sd " ")"',
            *_queue_again(self.restarts),
            *self._graph(),
            *self._flags(),
            *self._launch(),
            *_WAIT,
            *([_CLEAN] if self.copies else []),
            *_END,
        ]

    def _graph(self) -> list[str]:
        if self.dataset is None:
            return []
        command = _prepare(self.dataset, self.data_root)
        if not self.copies:
            return ["# Prepared once, then found.", f"{command} || exit", ""]
        return [
            "# Prepared once, then found; and copied to the disk of each node.",
            f"graph=$({command}) || exit",
            'srun --ntasks="$SLURM_NNODES" --ntasks-per-node=1 \\',
            '    sh -c \'mkdir -p "$3" && cd "$1" && cp -r --parents "$2" "$3"\' \\',
            '    copy "$shared/cache" "${graph#"$shared/cache/"}" "$disk" || queue_again 1',
            "",
        ]

    def _flags(self) -> list[str]:
        cache = "$disk" if self.copies else "$shared/cache"
        first, threads, *given = self.flags  # what the user gives comes last, and counts
        return [
            "flags=(",
            f"    {shlex.quote(first)}",
            f"    {shlex.quote(threads)}",
            f'    --cache-dir="{cache}"',
            '    --records="$shared/records"',
            '    --checkpoint-dir="$shared/checkpoints/$SLURM_JOB_NAME-$SLURM_JOB_ID"',
            "    --resume  # begins where there is no checkpoint yet",
            *([f"    {shlex.join(given)}"] if given else []),
            ")",
        ]

    def _launch(self) -> list[str]:
        program = f'python {STRATEGIES[self.strategy].program} "${{flags[@]}}"'
        if self.strategy == "ddp":
            return [f"srun --kill-on-bad-exit=1 {program} &"]
        if self.strategy != "param-server":
            return [
                "# It starts its daemons through srun: no ssh, no host file.",
                f'mpirun -np "$SLURM_NTASKS" --map-by ppr:{self.ranks_per_node}:node {program} &',
            ]
        nodes = min(self.servers, self.nodes)
        return [
            f"coordinator=$SLURMD_NODENAME:$(({_LOWEST_PORT} + SLURM_JOB_ID % {_NUM_PORTS}))",
            'flags+=(--coordinator="$coordinator")',
            "RINGSAGE_JOB_SECRET=$(python -c 'import secrets; print(secrets.token_hex(16))')",
            "export RINGSAGE_JOB_SECRET",
            f"srun --overlap --nodes={nodes} --ntasks={self.servers} {program} --role=server &",
            f"srun --overlap {program} --role=worker &",
            f"{program} --role=coordinator &",
        ]


_WAIT = [
    "",
    "# Slurm sends USR1 before the time is up, TERM when it ends the job (scancel). On USR1 ranks",
    "# save a checkpoint and end.",
    "training=$! signal=",
    "trap 'signal=USR1; kill -USR1 \"$training\"' USR1",
    "trap 'signal=TERM; kill -USR1 \"$training\"' TERM",
    'wait "$training"',
    "code=$?",
    'if [ -n "$signal" ]; then  # it has ended that wait',
    '    wait "$training"',
    "    code=$?",
    "fi",
]


_CLEAN = 'timeout 30 srun --overlap --ntasks="$SLURM_NNODES" --ntasks-per-node=1 rm -rf "$disk"'


_END = [
    "",
    "# 0: done. 2: a wrong flag or file, which another start does not correct.",
    'if [ "$code" = 0 ] || [ "$code" = 2 ] || [ "$signal" = TERM ]; then',
    '    exit "$code"',
    "fi",
    'queue_again "$code"',
]


def _queue_again(restarts: int) -> list[str]:
    return [
        "",
        "queue_again() {  # to go on from the last checkpoint; $1: the exit code of this try",
        f'    if [ "$restarts" -ge {restarts} ]; then',
        f'        echo "exit code $1 after {restarts} restarts: not queued again" >&2',
        "    else",
        '        echo "exit code $1: queued again"',
        '        scontrol requeue "$SLURM_JOB_ID"',
        "    fi",
        '    exit "$1"',
        "}",
        "",
    ]


def _environment(root: Path) -> list[str]:
    return [
        f"cd {shlex.quote(str(root))} || exit",
        f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
    ]


def _prepare(dataset: str, data_root: str | None) -> str:
    root = f" --data-root {shlex.quote(data_root)}" if data_root else ""
    words = f"python -m gnn_core.data.datasets prepare {shlex.quote(dataset)}"
    return f'{words}{root} --cache-dir "$shared/cache"'


def array_body(plan: Path, shared: Path, root: Path) -> list[str]:
    """The commands of one task of an array: a run of the plan."""
    return [
        *_environment(root),
        f"export RINGSAGE_CACHE={shlex.quote(str(shared / 'cache'))}",
        "turn=$SLURM_ARRAY_TASK_ID",
        'unset "${!SLURM_@}"  # launchers start the ranks on this node, as on a workstation',
        f'exec python -m gnn_core.sweep {shlex.quote(str(plan))} --turn "$turn"',
    ]


def chained(
    text: str,
    *,
    name: str,
    datasets: Sequence[str],
    data_root: str | None,
    records: Path,
    shared: Path,
    time: str,
    memory: str | None,
    root: Path,
) -> str:
    """A script for bash that submits three jobs, each of which waits for the one before.

    Args:
        text: the script of the job in the middle.
        name: of that job.
        datasets: what the first job prepares.
        data_root: folder of their published files.
        records: what the last job reports.
        shared: folder that all nodes see.
        time: limit of each job.
        memory: of each job.
        root: the repository.
    """
    options = f"--time={time} --output=%x-%j.log" + (f" --mem={memory}" if memory else "")
    return "\n".join(
        [
            "#!/bin/bash",
            "# Run this file with bash: it submits three jobs, one after the other.",
            "set -eu",
            f"prepare=$(sbatch --parsable --job-name={name}-prepare {options} <<'PREPARE'",
            *_preparing(datasets, data_root, shared, root),
            "PREPARE",
            ")",
            "train=$(sbatch --parsable --dependency=\"afterok:$prepare\" <<'TRAIN'",
            text.rstrip("\n"),
            "TRAIN",
            ")",
            "# The report is made of whatever ended, well or not.",
            f"report=$(sbatch --parsable --job-name={name}-report {options} \\",
            "    --dependency=\"afterany:$train\" <<'REPORT'",
            *_reporting(records, shared, root),
            "REPORT",
            ")",
            'echo "prepare $prepare, train $train, report $report"',
            "",
        ]
    )


def _preparing(
    datasets: Sequence[str], data_root: str | None, shared: Path, root: Path
) -> list[str]:
    return [
        "#!/bin/bash",
        *_environment(root),
        f"shared={shlex.quote(str(shared))}",
        *(f"{_prepare(one, data_root)} || exit" for one in datasets),
    ]


def _reporting(records: Path, shared: Path, root: Path) -> list[str]:
    return [
        "#!/bin/bash",
        *_environment(root),
        f"records={shlex.quote(str(records))}",
        'python -m gnn_core.report.analysis "$records"',
        f"report={shlex.quote(str(shared / 'report.html'))}",
        'python -m gnn_core.report.page "$records" --output "$report"',
    ]
