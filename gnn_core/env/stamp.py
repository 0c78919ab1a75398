"""The stamp of a finished installation: what it was made of, at which path, for which clone.

`installation` writes it and asks whether it still holds; the doctor asks where it was made. An
environment may be reached by another path than the one it was made at, and a clone's .venv may be a
link to the environment of another one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["STAMP", "holds", "made_at", "problem", "same_place"]

STAMP = "ringsage-install.json"


def holds(venv: Path, state: dict[str, Any]) -> bool:
    """Whether the stamp in `venv` says `state`, by whatever path its folders are reached.

    `state` has `venv` and `root` (the clone) as text; whatever else is in it must be equal.
    """
    stamp = _read(venv)
    return (
        bool(stamp)
        and {**stamp, "venv": "", "root": ""} == {**state, "venv": "", "root": ""}
        and same_place(stamp["venv"], venv)
        and (same_place(stamp["root"], state["root"]) or _belongs_to_another(venv, stamp))
    )


def made_at(venv: Path) -> Path:
    """The path that `venv` had when it was installed; `venv` itself if it has been moved since."""
    recorded = _read(venv).get("venv", venv)
    return Path(recorded) if same_place(recorded, venv) else venv


def problem(venv: Path, root: Path) -> str | None:
    """Why `venv` cannot be installed into for the clone at `root`, in one line; None if it can."""
    stamp = _read(venv)
    if not stamp:
        return None
    if not same_place(stamp["venv"], venv):
        return (
            f"{venv} was made at {stamp['venv']} and cannot be moved: remove it (rm -r .venv) and "
            "run make install again"
        )
    if not same_place(stamp["root"], root) and _belongs_to_another(venv, stamp):
        return (
            f"{venv} is a link to the environment of {stamp['root']}: run make install there, or "
            "remove the link (rm .venv) and run make install again"
        )
    return None


def same_place(one: str | Path, other: str | Path) -> bool:
    """Whether two paths lead to the same place."""
    return Path(one).resolve() == Path(other).resolve()


def _belongs_to_another(venv: Path, stamp: dict[str, Any]) -> bool:
    return same_place(Path(stamp["root"], ".venv"), venv)


def _read(venv: Path) -> dict[str, Any]:
    """The stamp, or {} where there is none that can be read."""
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and {"venv", "root"} <= stamp.keys() else {}
