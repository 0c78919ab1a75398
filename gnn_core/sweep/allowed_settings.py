"""The settings that all runs of a sweep or a comparison may be given, and why not the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_REFUSED = {
    **dict.fromkeys(
        ("pin", "scale_lr", "start_timeout", "collective_timeout"), "not every launch has it"
    ),
    **dict.fromkeys(
        ("checkpoint_dir", "resume", "tensorboard", "metrics_port", "metrics_textfile"),
        "it belongs to a single run",
    ),
    **dict.fromkeys(
        ("dry_run", "progress", "quiet", "log_format"), "it is for who watches one run"
    ),
}


def refusals(given: Iterable[str], own: Mapping[str, str]) -> dict[str, str]:
    """Return why not, for those of the settings (field names) that not every run can have.

    `own` says it of the settings that the asking program makes itself.
    """
    reasons = {**_REFUSED, **own}
    return {name: reasons[name] for name in given if name in reasons}
