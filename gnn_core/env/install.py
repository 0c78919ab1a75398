"""Installs Ringsage's environment: Open MPI, torch, Horovod built to fit, and everything else
pinned.

    python3 gnn_core/env/install.py              fill or complete .venv (what `make install` runs)
    python3 gnn_core/env/install.py --check      say whether there is anything to do; status 1 if so

Needs Python 3.11, make and g++, and pip's access to a package index. Nothing to do takes a blink.
"""

# No `from __future__` and no new syntax in this file: an old Python must get as far as being
# refused.

import sys

if sys.version_info < (3, 11):
    sys.stderr.write(
        "error: Ringsage needs Python 3.11 or newer, this is %d.%d; name another one: "
        "make install PYTHON=python3.11\n" % sys.version_info[:2]
    )
    sys.exit(2)

import argparse
import os
import signal
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
if not __package__:
    sys.path[0] = str(_ROOT)

from gnn_core.env import installation
from gnn_core.env.failures import diagnose
from gnn_core.env.horovod_source import BuildProblem
from gnn_core.env.step_runner import StepRunner, StepFailed
from gnn_core.env.virtual_environment import cache_folder


def main(argv: "list[str] | None" = None) -> int:
    """Run the command line; return the exit status (0 done, 1 failed or something to do)."""
    parser = argparse.ArgumentParser(
        prog="install.py",
        description="Install Ringsage's environment into .venv.",
        epilog="RINGSAGE_CACHE names the folder of the built Horovod wheel (default: "
        "~/.cache/ringsage), RINGSAGE_BUILD_JOBS how many compilers run at once; pip's own "
        "settings (PIP_INDEX_URL, pip.conf ...) are respected.",
    )
    parser.add_argument("--venv", type=Path, default=_ROOT / ".venv", help="default: %(default)s")
    parser.add_argument(
        "--check", action="store_true", help="only say whether there is anything to do"
    )
    parser.add_argument("--force", action="store_true", help="go through all steps even so")
    parser.add_argument(
        "--this-python",
        action="store_true",
        help="refuse an existing environment that has another Python than the one running this",
    )
    options = parser.parse_args(argv)
    job = installation.Installation(
        root=_ROOT,
        venv=Path.cwd() / options.venv,  # not resolve(): .venv may be a link
        cache=cache_folder(os.environ),
        runner=StepRunner(),
        this_python=options.this_python,
        force=options.force,
    )
    if job.up_to_date() and not options.force:
        return 0
    if options.check:
        sys.stdout.write("The environment is not up to date: make install\n")
        return 1
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        job.run()
    except (installation.InstallProblem, BuildProblem) as problem:
        return _fail(str(problem))
    except StepFailed as failure:
        reason = diagnose(failure.lines)
        if reason is None and failure.code == -signal.SIGKILL:
            reason = "it was killed; when memory runs out the system does that"
        if reason is None:
            reason = "\n".join(["it ended with status %d:" % failure.code, *failure.lines[-15:]])
        where = " [log: %s]" % failure.log if failure.log else ""
        return _fail("%s: %s%s" % (failure.title, reason, where))
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on from here\n")
        return 130
    return 0


def _fail(message: str) -> int:
    sys.stderr.write("error: %s\n" % message)
    return 1


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
