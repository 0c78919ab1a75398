"""Before a worker's pod ends its ranks get SIGTERM, once, and sshd waits for them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gnn_core.deploy.manifest_files import MANIFESTS

SCRIPT = MANIFESTS / "save_ranks.sh"
# Processes of its own, so that no rank of another job on this machine is met.
ALONE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
# $1: the folder; $2: the script, which two may run at once. `orted` has two ranks.
POD = """\
rank='trap "echo told >> $0; sleep 1; echo saved >> $0; exit 143" TERM; while :; do sleep 0.1; done'
"$1/orted" -c "bash -c '$rank' $1/first & bash -c '$rank' $1/second & wait; wait" &
bash -c "$rank" "$1/other" &
sleep 1
"$2" 30 & one=$!
"$2" 30 & wait $one $!
date +%s.%N > "$1/ended"
"""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("bash") is None,
    reason="needs root, unshare and bash",
)


def test_ranks_save_before_it_goes_on(tmp_path: Path) -> None:
    shutil.copy(shutil.which("bash") or "", tmp_path / "orted")
    pod = tmp_path / "pod.sh"
    pod.write_text(POD, encoding="utf-8")
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    env.pop("K_MPI_JOB_ROLE", None)
    words = [*ALONE, "bash", str(pod), str(tmp_path), str(SCRIPT)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
    if "unshare failed" in done.stderr:
        pytest.skip(done.stderr)
    ended = float((tmp_path / "ended").read_text())
    for rank in ("first", "second"):
        file = tmp_path / rank
        assert file.read_text() == "told\nsaved\n"  # twice asked, once told
        assert file.stat().st_mtime <= ended
    assert not (tmp_path / "other").exists()  # whoever is no rank is left alone
