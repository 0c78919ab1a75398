"""Rules for an elastic MPIJob, whose ranks may leave and join."""

from __future__ import annotations

from collections.abc import Iterator

from gnn_core.deploy.programs import IN_IMAGE, PREDICT, Command, strategy_of

ELASTIC = "--host-discovery-script"
DISCOVER = f"{IN_IMAGE}/mpi-operator/discover_hosts.sh"


def elastic_problems(command: Command, slots: int, size: int) -> Iterator[str]:
    """What keeps ranks from going and joining, as horovodrun has it."""
    options = command.options
    if command.launcher != "horovodrun":
        yield f"{ELASTIC}: expected horovodrun, got {command.launcher}, which knows no such option"
    if command.program == PREDICT or strategy_of(command) not in (None, "horovod"):
        yield f"{ELASTIC}: expected horovod_gnn/train.py, got {command.program}: leave it out"
    if options[ELASTIC] != DISCOVER:
        yield (
            f"{ELASTIC}: expected {DISCOVER}, which leaves out workers that do not answer, got "
            f"{options[ELASTIC]}"
        )
    if options.get("--slots-per-host") != str(slots):
        got = options.get("--slots-per-host", "none")
        yield f"--slots-per-host: expected {slots}, the job's slotsPerWorker, got {got}"
    if "--network-interfaces" not in options:
        yield (
            "--network-interfaces: expected eth0, got none: horovodrun would wait for a second "
            "worker to find it out"
        )
    least = command.num_ranks or ""
    if not least.isdecimal() or not 1 <= int(least) <= size:
        yield (
            f"-np: expected 1 to {size}, as many ranks as it takes to begin, got {least or 'none'}"
        )
        return
    fewest, most = options.get("--min-np", least), options.get("--max-np", least)
    if not fewest.isdecimal() or not 1 <= int(fewest) <= int(least):
        yield f"--min-np: expected 1 to {least}, the -np, got {fewest}"
    if not most.isdecimal() or int(most) < int(least):
        yield f"--max-np: expected {least}, the -np, or more, got {most}"
