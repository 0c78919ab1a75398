"""What a stack of OpenStack Heat is to be like: flags, or answers to questions."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gnn_core.usage import UsageError, read_whole, shown

LAUNCHERS = ("horovodrun", "mpirun", "torchrun")
WAITS = ("started", "done", "none")
MOST_WORKERS = 254
_MOST_FLAGS = 8192  # characters; user data of 64 KiB is what Nova takes
_MOST_SHOWN = 200
_URL = re.compile(r"https://[A-Za-z0-9][A-Za-z0-9.-]*(?::\d{1,5})?(?:/[A-Za-z0-9._~-]+)+/?")
_PATH = re.compile(r"(?!.*(?:^|/)\.\.(?:/|$))[A-Za-z0-9._][A-Za-z0-9._/-]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:()/-]*")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


@dataclass(frozen=True, kw_only=True)
class HeatSettings:
    """None where nothing was given yet."""

    repository: str | None = None  # HTTPS URL for git
    workers: int | None = None  # machines besides the master
    requirements: str | None = None  # folder of requirements.txt, in the repository
    entrypoint: str | None = None  # program, in the repository
    launcher: str | None = None  # of LAUNCHERS
    image: str | None = None
    flavor: str | None = None
    key: str | None = None  # key pair of Nova, for the user's own ssh
    network: str | None = None  # external one
    ssh_from: str | None = None  # CIDR
    reservation: str | None = None
    ranks_per_machine: int
    make: bool  # `make install` in place of pip
    login: str  # user of the image
    wait_for: str  # of WAITS
    timeout: int  # minutes
    flags: Sequence[str]  # of the program

    @property
    def signals(self) -> bool:
        """Whether the machines signal to Heat."""
        return self.wait_for != "none"

    def problems(self) -> list[str]:
        """Every problem, each as one clause."""
        found = [
            f"--{name.replace('_', '-')}: {problem}"
            for name, (_, check) in QUESTIONS.items()
            if (problem := check(getattr(self, name)))
        ]
        if self.reservation is not None and (problem := _name(self.reservation)):
            found.append(f"--reservation: {problem}")
        if not _USER.fullmatch(self.login):
            found.append(f"--login: expected the name of a user, got {shown(self.login)}")
        if any(not flag.isprintable() for flag in self.flags):
            found.append("flags of the program: expected no control characters in them")
        if sum(map(len, self.flags)) > _MOST_FLAGS:
            found.append(f"flags of the program: expected at most {_MOST_FLAGS} characters in all")
        return found


def _matches(pattern: re.Pattern[str], wanted: str) -> Callable[[str | None], str]:
    def check(text: str | None) -> str:
        if text is not None and len(text) <= _MOST_SHOWN and pattern.fullmatch(text):
            return ""
        return f"expected {wanted}, got {'none' if text is None else shown(text)}"

    return check


def _workers(number: int | None) -> str:
    if number is not None and 0 <= number <= MOST_WORKERS:
        return ""
    return f"expected a number from 0 to {MOST_WORKERS}, got {'none' if number is None else number}"


def _network_of(text: str | None) -> str:
    try:
        ipaddress.IPv4Network(text or "")
    except ValueError:
        got = "none" if text is None else shown(text)
        return f"expected a network of IPv4, such as 203.0.113.0/24, got {got}"
    return ""


_name = _matches(_NAME, "a name or id of the cloud: letters, digits, spaces and ._:()/-")
_launcher = _matches(re.compile("|".join(LAUNCHERS)), f"one of {', '.join(LAUNCHERS)}")
_repository = _matches(
    _URL, "an HTTPS URL for git without user and password, such as https://example.org/me/code.git"
)
_folder = _matches(_PATH, "a folder in the repository, or . for its top")
_program = _matches(_PATH, "a program in the repository, such as horovod_gnn/train.py")

QUESTIONS: dict[str, tuple[str, Callable[..., str]]] = {
    "repository": ("HTTPS URL of the git repository", _repository),
    "workers": (f"number of workers besides the master, 0 to {MOST_WORKERS}", _workers),
    "requirements": ("folder of requirements.txt in the repository, such as .", _folder),
    "entrypoint": ("program in the repository, such as horovod_gnn/train.py", _program),
    "launcher": (f"launcher ({', '.join(LAUNCHERS)})", _launcher),
    "image": ("image of the machines, of Debian or Ubuntu", _name),
    "flavor": ("flavor of the machines", _name),
    "key": ("your key pair in OpenStack", _name),
    "network": ("external network, for the floating IP", _name),
    "ssh_from": ("network from which ssh is allowed, such as 203.0.113.0/24", _network_of),
}
"""What a stack needs -> how it is asked for, and what is wrong with an answer."""


def ask(settings: HeatSettings) -> HeatSettings:
    """Ask on the terminal for what is missing, until the answer is right.

    The questions go to stderr, since the template goes to stdout. Raises UsageError at the end of
    the input.
    """
    answers: dict[str, str | int] = {}
    for name, (question, check) in QUESTIONS.items():
        while getattr(settings, name) is None and name not in answers:
            print(f"{question}: ", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:
                raise UsageError(f"--{name.replace('_', '-')}: expected an answer, got none")
            answer = _read(name, line.strip())
            if problem := check(answer):
                print(problem, file=sys.stderr)
            elif answer is not None:
                answers[name] = answer
    return replace(settings, **answers)  # type: ignore[arg-type]


def _read(name: str, text: str) -> str | int | None:
    if name != "workers":
        return text
    try:
        return read_whole(text)
    except ValueError:
        return None
