"""Examines this machine and environment and says what keeps Ringsage from running well.

    python -m gnn_core.env.doctor            all of it, about half a minute (`make doctor`)
    python -m gnn_core.env.doctor --quick    nothing that imports a framework, a second
    python -m gnn_core.env.doctor --json     the same for a machine to read

Every line is `ok`, `warning` (works, but) or `problem` (does not work) and says what to do.
The exit status is 1 when there is a problem.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
if not __package__:
    sys.path[0] = str(_ROOT)

from gnn_core.env.findings import Finding, as_json, as_text  # noqa: E402
from gnn_core.env.framework_checks import framework_checks, rank_checks  # noqa: E402
from gnn_core.env.machine_checks import environment_checks, machine_checks  # noqa: E402
from gnn_core.launch import guarded  # noqa: E402
from gnn_core.usage import Parser, finite  # noqa: E402

_EPILOG = """\
what is looked at:
  machine        cores (affinity and container quota), memory, /dev/shm, disk, host name
  environment    Python, whether .venv matches requirements.txt, compiler, which mpirun and
                 horovodrun come first on PATH, Open MPI's settings, ssh, variables that decide
                 how ranks meet
  frameworks     each imported and used in a process of its own, with a time limit, so that a
                 broken one is reported and takes nothing down; which libmpi Horovod and mpi4py load
  ranks          2 real ranks under horovodrun and under mpirun, whose sum must be right

typical answers to problems:
  libmpi, mpirun   another MPI comes first: unset LD_LIBRARY_PATH, `module unload`, activate .venv
  installation     `make install` brings .venv up to date, in seconds when little has changed
  a framework      `rm -r .venv && make install` (about a minute: the built Horovod is kept)
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status (1 when there is a problem)."""
    return guarded(lambda: _examine(_parse(argv)))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m gnn_core.env.doctor",
        description=(__doc__ or "").split("\n")[0],
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="import no framework, start no ranks")
    parser.add_argument(
        "--timeout",
        type=finite(1, 86_400),
        default=120.0,
        metavar="SECONDS",
        help="how long each framework and each job of ranks may take (default: %(default)s)",
    )
    return parser.parse_args(argv)


def _examine(options: argparse.Namespace) -> int:
    findings: list[Finding] = []
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def show(title: str, found: list[Finding]) -> None:
        findings.extend(found)
        if not options.json:  # as it is found: some of it takes a while
            print(f"{title}\n{as_text(found, colours)}\n", flush=True)

    show("machine", machine_checks(_ROOT, os.environ))
    show("environment", environment_checks(_ROOT, os.environ))
    if not options.quick:
        show("frameworks", framework_checks(options.timeout))
        show("ranks", rank_checks(options.timeout))
    problems = sum(finding.status == "problem" for finding in findings)
    warnings = sum(finding.status == "warning" for finding in findings)
    if options.json:
        print(as_json(findings))
    else:
        print(f"{problems} problem(s), {warnings} warning(s)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
