"""Print a job for Kubernetes, Slurm, OpenStack or hosts, check manifests and hosts, scale a job.

    python -m gnn_core.deploy mpijob --workers 4 --slots 2 --dataset cora --image me/ringsage:0.1.0
    python -m gnn_core.deploy mpijob --workers 4 --elastic --dataset cora --image me/ringsage:0.1.0
    python -m gnn_core.deploy mpijob ... --strategy ddp -- --epochs 5 --lr 1e-3 | kubectl apply -f -
    python -m gnn_core.deploy validate mpi-operator/overlays/* my-job.yaml
    kubectl kustomize mine | python -m gnn_core.deploy validate -
    python -m gnn_core.deploy slurm --nodes 2 --ranks-per-node 2 --dataset cora > job.sh
    python -m gnn_core.deploy slurm --nodes 4 --dataset cora --time 8:00:00 -- --epochs 500 | sbatch
    python -m gnn_core.deploy slurm --array results/plans/short.yaml | sbatch --account=mine
    python -m gnn_core.deploy slurm --nodes 2 --dataset cora --chain | bash
    python -m gnn_core.deploy heat > stack.yaml    # asks for what it needs
    openstack stack create --wait -t stack.yaml training
    python -m gnn_core.deploy autoscale results/scaling --policy efficiency:0.7 --log job.log
    python -m gnn_core.deploy hosts --hostfile hosts.txt --dataset cora

What follows `--` are flags of the trainer, or of the program that a stack starts. A job of Slurm
saves and is queued again before its time is up or when a node is lost, and goes on from its
checkpoint; with --array each run of a sweep's plan is a task of its own; with --chain a job
prepares the data before, and one makes the report behind (docs/platforms/slurm.md). A stack of
OpenStack Heat has a master and workers that install a repository and start its program
(docs/platforms/heat.md). `validate` takes files and folders of kustomize, each applied as a whole,
and says what the API server, the operator or the trainer would refuse, and what would be lost or
hang: one line each. Several are checked against each other as well. `autoscale` says how many
workers an elastic job is to have, and sets it (`autoscale --help`). `hosts` checks hosts that
are reached by ssh, and prints the lines that start a job on them (`hosts --help`).

Exit code 0, 2 for whatever is wrong; of `hosts` 1 where the hosts are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gnn_core.deploy import autoscale, hosts, kubernetes_schema
from gnn_core.deploy.heat import QUESTIONS, WAITS, HeatSettings, ask
from gnn_core.deploy.heat_diagram import draw
from gnn_core.deploy.heat_template import make_heat
from gnn_core.deploy.manifest_files import ManifestProblem, Manifests, read_manifests
from gnn_core.deploy.mpijob import JobSettings, make_job
from gnn_core.deploy.programs import TRAINERS
from gnn_core.deploy.slurm import STRATEGIES_OF_SEVERAL_NODES, SlurmSettings, make_slurm
from gnn_core.deploy.validate import check
from gnn_core.deploy.yaml_text import write
from gnn_core.files import path_argument
from gnn_core.launch import guarded
from gnn_core.usage import MOST_WHOLE, Parser, UsageError, whole
from gnn_core.whole_file import write_whole


def main(argv: Sequence[str] | None = None) -> int:
    """The command line (None: of this process); the exit code. Raises UsageError."""
    words = sys.argv[1:] if argv is None else list(argv)
    split = words.index("--") if "--" in words else len(words)
    options = _parser().parse_args(words[:split])
    if options.command == "mpijob":
        return _print_job(options, words[split + 1 :])
    if options.command == "slurm":
        given = {name: value for name, value in vars(options).items() if name != "command"}
        print(make_slurm(SlurmSettings(flags=tuple(words[split + 1 :]), **given)), end="")
        return 0
    if options.command == "heat":
        return _print_stack(options, words[split + 1 :])
    if options.command == "autoscale":
        return autoscale.run(options)
    if options.command == "hosts":
        return hosts.run(options)
    there = {f"PersistentVolumeClaim/{name}" for name in options.external_pvc}
    return _validate(options.manifests + words[split + 1 :], there | set(options.external))


def _print_job(options: argparse.Namespace, flags: Sequence[str]) -> int:
    given = {name: value for name, value in vars(options).items() if name != "command"}
    objects = make_job(JobSettings(flags=tuple(flags), **given))
    there = {f"PersistentVolumeClaim/{options.pvc}"} if options.pvc else set()
    if wrong := check([Manifests("the job", objects)], there):
        raise UsageError("; ".join(map(str, wrong)))
    print(write(objects), end="")
    return 0


def _print_stack(options: argparse.Namespace, flags: Sequence[str]) -> int:
    given = {
        name: value for name, value in vars(options).items() if name in HeatSettings.__annotations__
    }
    settings = HeatSettings(flags=tuple(flags), **given)
    if options.ask or sys.stdin.isatty():
        settings = ask(settings)
    template = make_heat(settings)
    if options.diagram is not None:
        write_whole(options.diagram, draw(settings))
    print(template, end="")
    return 0


def _validate(given: Sequence[str], there: set[str]) -> int:
    sets, findings = [], []
    for name in given:
        try:
            sets.append(read_manifests(name))
        except UsageError as error:
            findings.append(ManifestProblem("", "", str(error)))
    findings += check(sets, there)
    if not kubernetes_schema.is_there():
        print(f"note: {kubernetes_schema.NOT_CHECKED}", file=sys.stderr)
    for finding in findings:
        print(f"error: {finding}", file=sys.stderr)
    if findings:
        return 2
    for one in sets:
        kinds = ", ".join(f"{each['kind']} {each['metadata']['name']}" for each in one.objects)
        print(f"{one.file}: in order: {kinds}")
    return 0


def _parser() -> Parser:
    parser = Parser.of(__doc__, prog="python -m gnn_core.deploy", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    job = commands.add_parser("mpijob", help="print the manifest of a job", allow_abbrev=False)
    job.add_argument(
        "--workers", type=whole(-MOST_WHOLE), required=True, metavar="N", help="pods that train"
    )
    job.add_argument(
        "--slots",
        type=whole(-MOST_WHOLE),
        default=1,
        metavar="N",
        help="ranks of each (default: 1)",
    )
    job.add_argument("--dataset", required=True, metavar="NAME", help="data set, or a folder there")
    job.add_argument("--image", required=True, metavar="NAME:TAG", help="the image, with its tag")
    job.add_argument("--strategy", choices=[*TRAINERS], default="horovod", help="default: horovod")
    job.add_argument(
        "--gpus", type=whole(0), choices=(0, 1), default=0, help="of each rank (default: 0)"
    )
    job.add_argument(
        "--threads",
        type=whole(-MOST_WHOLE),
        default=1,
        metavar="N",
        help="cores of each rank (default: 1)",
    )
    job.add_argument("--memory", default="4Gi", help="of each worker (default: 4Gi)")
    job.add_argument("--name", help="of the job (default: made of what it is)")
    job.add_argument("--pvc", metavar="NAME", help="claim in the cluster (default: one is printed)")
    job.add_argument("--queue", metavar="NAME", help="Kueue's local queue (default: none)")
    job.add_argument(
        "--elastic", action="store_true", help="go on when workers go, take in others that join"
    )
    _add_slurm(commands.add_parser("slurm", help="print a batch script", allow_abbrev=False))
    _add_heat(commands.add_parser("heat", help="print a stack's template", allow_abbrev=False))
    validate = commands.add_parser("validate", help="check manifests", allow_abbrev=False)
    validate.add_argument("manifests", nargs="+", metavar="FILE", help="or folder, or - (stdin)")
    validate.add_argument(
        "--external-pvc",
        action="append",
        default=[],
        metavar="NAME",
        help="a claim that is in the cluster already; may be repeated",
    )
    validate.add_argument(
        "--external",
        action="append",
        default=[],
        type=_kind_and_name,
        metavar="KIND/NAME",
        help="another object that is there, such as PriorityClass/high; may be repeated",
    )
    autoscale.add_command(commands)
    hosts.add_command(commands)
    return parser


def _add_slurm(job: argparse.ArgumentParser) -> None:
    number = whole(-MOST_WHOLE)
    job.add_argument("--nodes", type=number, metavar="N", help="nodes (default: 1)")
    job.add_argument(
        "--ranks-per-node", type=number, metavar="N", help="ranks of each node (default: 1)"
    )
    job.add_argument("--threads", type=number, metavar="N", help="cores of each rank (default: 1)")
    job.add_argument("--dataset", metavar="NAME", help="data set, or an absolute path of a graph")
    job.add_argument(
        "--strategy",
        choices=STRATEGIES_OF_SEVERAL_NODES,
        default="horovod",
        help="default: horovod",
    )
    job.add_argument(
        "--time", default="1:00:00", help="limit, after which it is queued again (default: 1:00:00)"
    )
    job.add_argument(
        "--save-before",
        type=whole(1, 3600),
        default=120,
        metavar="SECONDS",
        help="so long before the time is up it saves and ends (default: 120)",
    )
    job.add_argument(
        "--restarts",
        type=whole(0, 1000),
        default=10,
        metavar="N",
        help="how often it is queued again at most (default: 10)",
    )
    job.add_argument("--memory", help="of each node, such as 8G (default: the cluster's)")
    job.add_argument("--name", help="of the job (default: made of what it is)")
    job.add_argument(
        "--shared",
        type=path_argument,
        default=path_argument("results/slurm"),
        metavar="DIR",
        help="folder that all nodes see: records, checkpoints, graphs (default: results/slurm)",
    )
    job.add_argument(
        "--local",
        default="/tmp",
        metavar="DIR",
        help="folder on each node's own disk, for a copy of the graph; none reads it from --shared "
        "(default: /tmp)",
    )
    job.add_argument(
        "--array", type=path_argument, metavar="PLAN", help="a sweep: each run is a task of its own"
    )
    job.add_argument(
        "--chain", action="store_true", help="print a script for bash: prepare, train, report"
    )


def _add_heat(stack: argparse.ArgumentParser) -> None:
    stack.add_argument(
        "--ask", action="store_true", help="ask for what is missing, also without a terminal"
    )
    for name, (question, _) in QUESTIONS.items():
        kind = whole(0) if name == "workers" else str
        stack.add_argument(f"--{name.replace('_', '-')}", type=kind, help=question)
    stack.add_argument(
        "--reservation", metavar="ID", help="of Blazar, as on Chameleon (default: none)"
    )
    stack.add_argument(
        "--ranks-per-machine", type=whole(1, 1024), default=1, metavar="N", help="default: 1"
    )
    stack.add_argument(
        "--make",
        action="store_true",
        help="install by `make install`, not pip, as Ringsage needs it",
    )
    stack.add_argument("--login", default="ubuntu", help="user of the image (default: ubuntu)")
    stack.add_argument(
        "--wait-for",
        choices=WAITS,
        default="started",
        help="when the stack is complete: once the job has run for a minute (default), is done, or "
        "at once, where machines cannot reach Heat",
    )
    stack.add_argument(
        "--timeout",
        type=whole(2, 720),
        default=60,
        metavar="MINUTES",
        help="after which that counts as failed (default: 60)",
    )
    stack.add_argument(
        "--diagram", type=path_argument, metavar="FILE", help="draw the stack as SVG into a file"
    )


def _kind_and_name(text: str) -> str:
    kind, slash, name = text.partition("/")
    if not (kind and slash and name):
        raise argparse.ArgumentTypeError(
            f"expected KIND/NAME such as PriorityClass/high, got {text!r}"
        )
    return text


if __name__ == "__main__":
    sys.exit(guarded(main))
