"""The command `hosts`: whether a job would start on these hosts, and the lines that start it."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gnn_core.deploy.hosts_sessions import (
    NO_FOLDER,
    NO_PYTHON,
    NO_SSH,
    Answer,
    Failed,
    ask_all,
    is_here,
)
from gnn_core.deploy.manifest_files import REPOSITORY
from gnn_core.deploy.programs import dataset_problem
from gnn_core.env.findings import Finding, ok, problem, warning
from gnn_core.files import path_argument, read_regular
from gnn_core.number_text import counted
from gnn_core.usage import UsageError, finite, shown

_DESCRIPTION = """\
Checks hosts before a job is started on them, from the host on which you will start it, with the
Python and in the repository that the job is to use.

    python -m gnn_core.deploy hosts -H one:4,two:4 --dataset cora
    python -m gnn_core.deploy hosts --hostfile hosts.txt --interface eth1
    python -m gnn_core.deploy hosts --hostfile hosts.txt --quick

All hosts are asked at the same time: ssh without a password, the Python at the same path, versions
and how Horovod was built, the source, the prepared graph, clocks within a second, whether they
reach each other over TCP in both directions, cores and memory. Nothing is changed on them. Where
nothing is wrong it prints the lines that start the job.

A host file has a line `NAME slots=N` for each host, as for mpirun and horovodrun. Users, ports and
keys of ssh are those of ~/.ssh/config.

Exit code 0, 1 where something is wrong, 2 for wrong flags.
"""
_MOST_HOSTS, _MOST_SLOTS, _MOST_BYTES = 256, 1024, 1 << 20
_MOST_CLOCK_SECONDS = 1.0
_RANK_BYTES = 500_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")
_LINE = re.compile(r"(?P<name>\S+)(?:\s+slots\s*=\s*(?P<slots>\d+))?(?:\s+max[-_]slots\s*=\s*\d+)?")
_SSH_ADVICE = (  # what ssh says -> what to do
    ("Permission denied", "give it your key: ssh-copy-id {host}"),
    ("Host key verification failed", "connect once by hand and accept its key: ssh {host}"),
    ("Could not resolve", "correct the name, or add it to /etc/hosts"),
    ("refused", "start its sshd, or give its Port in ~/.ssh/config"),
    ("", "is it on, and its sshd reachable from here? try: ssh {host} true"),
)


def add_command(commands: Any) -> None:
    """Add the command, with its flags, to those of a parser (`add_subparsers`)."""
    parser = commands.add_parser(
        "hosts",
        help="check hosts, and print the lines that start a job on them",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("-H", "--hosts", metavar="NAME:SLOTS,...", help="as for horovodrun")
    given.add_argument("--hostfile", type=path_argument, metavar="FILE", help="see above")
    add("--dataset", metavar="NAME", help="a graph that has to be prepared on each of them")
    add("--cache-dir", metavar="DIR", help="where prepared graphs are kept there")
    add("--interface", metavar="NAME", help="network of the job (default: where a host's name is)")
    add("--quick", action="store_true", help="do not import Horovod to see how it was built")
    add(
        "--timeout",
        type=finite(1, 3600),
        default=120.0,
        metavar="SECONDS",
        help="how long a host may take to answer (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Check the hosts, print what was found; the exit code. Raises UsageError."""
    slots = read_hosts(options.hosts, options.hostfile)
    if options.dataset is not None and (unknown := dataset_problem(options.dataset)):
        raise UsageError(f"--dataset: {unknown}")
    if options.interface is not None and not re.fullmatch(r"[\w.:-]{1,15}", options.interface):
        raise UsageError(f"--interface: expected a name such as eth0, got {options.interface!r}")
    if shutil.which("ssh") is None and not all(map(is_here, slots)):
        raise UsageError("ssh: expected it on PATH, got none: install openssh-client")
    here = next(filter(is_here, slots), "localhost")
    names = [*dict.fromkeys([*slots, here])]
    requests = {
        name: {
            "peer": next((one for one in slots if one != name), None),
            "interface": options.interface,
            "dataset": options.dataset,
            "cache_dir": options.cache_dir,
            "frameworks": not options.quick,
        }
        for name in names
    }
    print(f"asking     {counted(len(slots), 'host')} ...", file=sys.stderr, flush=True)
    answers = ask_all(requests, options.timeout)
    if failure := answers[here].failure:
        raise UsageError(f"{here}: expected the probe to run on this host, got: {failure}")
    found = {host: check(host, slots, answers, here) for host in slots}
    flags = [f"--dataset={options.dataset}"] if options.dataset else []
    flags += [f"--cache-dir={options.cache_dir}"] if options.cache_dir else []
    print("\n".join(table(found)))
    wrong = [(host, one) for host in found for one in found[host] if one.status != "ok"]
    print("\n".join(["", *(f"{f.status:<8} {h}: {f.text}: {f.advice}" for h, f in wrong)]))
    if any(one.status == "problem" for _, one in wrong):
        return 1
    interfaces = {host: answers[host].facts["interface"] for host in slots}
    print("\n".join(launch_lines(slots, interfaces, flags)))
    return 0


def read_hosts(text: str | None, file: Path | None) -> dict[str, int]:
    """Slots by host, in their order, of `one:4,two:4` or of a host file. Raises UsageError."""
    if file is None:
        pairs = [part.strip().rpartition(":")[::2] for part in (text or "").split(",")]
        flag, form = "-H", "NAME:SLOTS, such as one:4,two:4"
    else:
        flag, form = f"--hostfile {file}", "lines `NAME slots=N`"
        pairs = []
        for line in read_regular(file, _MOST_BYTES).decode("utf-8", "replace").splitlines():
            if line := line.partition("#")[0].strip():
                parts = _LINE.fullmatch(line)
                pairs.append((parts["name"], parts["slots"] or "1") if parts else (line, ""))
    slots: dict[str, int] = {}
    for name, count in pairs:
        if not _NAME.fullmatch(name) or not re.fullmatch("[0-9]{1,4}", count):
            hint = " (a user's name belongs into ~/.ssh/config)" if "@" in name else ""
            raise UsageError(f"{flag}: expected {form}, got {shown(name or count)}{hint}")
        if not 1 <= int(count) <= _MOST_SLOTS:
            raise UsageError(f"{flag}: expected 1 to {_MOST_SLOTS} slots of {name}, got {count}")
        if name in slots:
            raise UsageError(f"{flag}: expected each host once, got {name} twice: add its slots up")
        slots[name] = int(count)
    if not 1 <= len(slots) <= _MOST_HOSTS:
        raise UsageError(f"{flag}: expected 1 to {_MOST_HOSTS} hosts, got {len(slots)}")
    if len(slots) > 1 and (local := {"localhost", "127.0.0.1"}.intersection(slots)):
        raise UsageError(f"{flag}: expected names that all hosts know, got {min(local)}")
    return slots


def check(
    host: str, slots: Mapping[str, int], answers: Mapping[str, Answer], here: str
) -> list[Finding]:
    """What was found of a host, a finding for each check; `here` is what it is held to."""
    its, mine = answers[host].facts, answers[here].facts
    if (failure := answers[host].failure) is not None:
        return [_failure(host, failure)]
    if its.keys() != mine.keys():
        return [_failure(host, Failed(1, "it answers as another version of this command"))]
    return [
        ok("ssh", "here" if host == here else "ok"),
        _versions(its["versions"], mine["versions"]),
        _source(its, mine),
        *_data(its["dataset"], [one.facts["dataset"] for one in answers.values() if one.facts]),
        _clock(answers[host]),
        _network(answers[host], slots),
        *_resources(slots.get(host, 0), its["cores"], its["memory_bytes"]),
    ]


def _failure(host: str, failure: Failed) -> Finding:
    if failure.code in (NO_FOLDER, NO_PYTHON):
        where = REPOSITORY if failure.code == NO_FOLDER else sys.executable
        advice = "put repository and environment at the same path there, or on a shared disk"
        return problem("ssh", f"{where} is not there", advice)
    if failure.code == NO_SSH:
        advice = next(do for words, do in _SSH_ADVICE if words in str(failure))
        return problem("ssh", str(failure), advice.format(host=host))
    advice = "bring source and environment there up to those here, or raise --timeout"
    return problem("ssh", f"no answer from its Python: {failure}", advice)


def _versions(its: Mapping[str, str], mine: Mapping[str, str]) -> Finding:
    other = [name for name in {**mine, **its} if its.get(name) != mine.get(name)]
    if not other:
        return ok("versions", "ok")
    each = [f"{name} {its.get(name, 'none')}, here {mine.get(name, 'none')}" for name in other]
    return problem("versions", "; ".join(each), "`make install` there, of the same source")


def _source(its: Mapping[str, Any], mine: Mapping[str, Any]) -> Finding:
    if its["source"] == mine["source"]:
        return ok("source", its["source"][:7])
    other, own = (f"{(one['commit'] or 'none')[:7]}" for one in (its, mine))
    text = f"files {its['source'][:7]} (commit {other}), here {mine['source'][:7]} ({own})"
    return problem("source", text, "bring both to one commit, and to the same changes of it")


def _data(its: Mapping[str, str] | None, all_of: list[dict[str, str] | None]) -> Iterator[Finding]:
    """The graph that most hosts have, and of several the first one, is taken to be right."""
    if its is not None and "problem" in its:
        yield problem("data", its["problem"], "there: python -m gnn_core.data.datasets prepare")
    elif its is not None:
        digests = [one["digest"] for one in all_of if one and "digest" in one]
        usual = max(digests, key=digests.count)
        if its["digest"] == usual:
            yield ok("data", usual[:7])
        else:
            text = f"another graph, {its['digest'][:7]}, others have {usual[:7]}"
            yield problem("data", text, "prepare it of the same files there, or copy its folder")


def _clock(its: Answer) -> Finding:
    text = f"{its.clock_seconds:+.3f} s"
    if abs(its.clock_seconds) <= _MOST_CLOCK_SECONDS + its.clock_error_seconds:
        return ok("clock", text)
    advice = "have NTP set both: timedatectl set-ntp true"
    return problem("clock", f"{text} from the clock here", advice)


def _network(its: Answer, slots: Mapping[str, int]) -> Finding:
    interface = its.facts["interface"]
    if its.facts["address"] == "":
        text = f"it has no interface {interface} with an address of IPv4"
        return problem("network", text, "name another --interface")
    peers = {name: found for name, found in its.reached.items() if name in slots}
    failed = [f"{name} ({why})" for name, why in peers.items() if isinstance(why, str)]
    if failed:
        advice = "let all TCP ports through between the hosts, or name another --interface"
        return problem("network", f"it does not reach {', '.join(failed)}", advice)
    trips = [1e3 * found for found in peers.values() if not isinstance(found, str)]
    longest = f"{max(trips):.2f} ms" if trips else "alone"
    return ok("network", f"{interface or ''} {longest}".strip())


def _resources(slots: int, cores: int, memory: int) -> Iterator[Finding]:
    text, advice = f"{slots} of {cores}", "ranks will take turns: lower its slots"
    yield ok("cores", text) if slots <= cores else warning("cores", f"{text} slots", advice)
    text, advice = f"{memory / 1e9:.1f} GB", "a rank needs 0.5 GB and its share of the batch"
    enough = memory >= slots * _RANK_BYTES
    yield ok("memory", text) if enough else warning("memory", f"{text} free", advice)


def table(found: Mapping[str, list[Finding]]) -> list[str]:
    """A line for each host with a column for each check."""
    checks = list(dict.fromkeys(one.name for several in found.values() for one in several))
    rows = [["host", *checks]]
    for host, several in found.items():
        cells = {one.name: one.text if one.status == "ok" else one.status for one in several}
        rows.append([host, *(cells.get(name, "-") for name in checks)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def launch_lines(
    slots: Mapping[str, int], interfaces: Mapping[str, str | None], flags: Sequence[str]
) -> list[str]:
    """What to type for horovodrun, for mpirun, and for torchrun on each host.

    Args:
        slots: by host.
        interfaces: the one that each host reaches the others by; None where there are none.
        flags: of the trainer.
    """
    where = ["-np", str(sum(slots.values())), "-H", ",".join(f"{h}:{n}" for h, n in slots.items())]
    horovodrun, mpirun = ["horovodrun", *where], ["mpirun", *where]
    if names := ",".join(dict.fromkeys(filter(None, interfaces.values()))):
        horovodrun += ["--network-interfaces", names]
        for layer in ("btl", "oob"):
            mpirun += ["--mca", f"{layer}_tcp_if_include", names]
    train = ["python", "horovod_gnn/train.py", *flags]
    lines = [shlex.join([*horovodrun, *train]), shlex.join([*mpirun, *train])]
    nodes = ["--nnodes", str(len(slots)), "--master-addr", next(iter(slots))]
    for number, (host, count) in enumerate(slots.items()):
        own = interfaces[host]
        words = ["env", f"GLOO_SOCKET_IFNAME={own}"] if own else []
        words += ["torchrun", *nodes, "--node-rank", str(number), "--nproc-per-node", str(count)]
        lines.append(f"{shlex.join([*words, 'baselines/ddp.py', *flags])}    # on {host}")
    return lines
