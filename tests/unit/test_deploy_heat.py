"""Templates of Heat: the machines asked for, scripts that work, no input that a shell obeys."""

from __future__ import annotations

import io
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from gnn_core.deploy.__main__ import main
from gnn_core.deploy.heat import LAUNCHERS, QUESTIONS, WAITS
from gnn_core.usage import UsageError
from tests.heat_stacks import GIVEN, servers, user_data, words

HOSTILE = [
    "it's",
    'a "b"',
    "$(touch made)",
    "`touch made`",
    "; touch made",
    "@STATE_SIGNAL@",
    "%index%",
]
KEY = "ssh-ed25519 AAAAC3/+x="
LAUNCHER = """\
printf '%s\\0' "$0" "$@" >> "$FAKE/launched"; echo launched; exit "$CODE"
"""
STUBS = {  # of what the scripts call; `python3` makes an environment with a launcher
    "runuser": '[ "$2" = nobody ] && echo "$@" > "$FAKE/served" && exit\nshift 3; exec "$@"',
    "git": '[ "$1" = clone ] && { printf "%s\\n" "$@" > "$FAKE/clone"; mkdir -p job/parts/one; }\n'
    'echo "${COMMIT:-c0ffee}"',
    "python3": '[ "$2" = venv ] || exec /usr/bin/python3 "$@"\n'
    'mkdir -p venv/bin; cp "$FAKE/launcher" "venv/bin/$NAME"; cp "$FAKE/pip" venv/bin/pip',
    "pip": 'echo pip "$@"; exit "${PIP:-0}"',
    "ssh": '[ "$2" = cat ] && echo "$WORKER" && exit\necho ssh "$@" >> "$FAKE/remote"; '
    'shift; cd "$HOME" && exec bash -c "$*"',
    "ssh-keygen": f'echo secret > .ssh/id; echo "{KEY} ringsage" > .ssh/id.pub',
    "curl": '[[ ${@: -1} = http* ]] && exec cat "$FAKE/key"\n'
    'printf "%s\\n" "${@: -1}" >> "$FAKE/signals"',
    "launcher": LAUNCHER,
    **dict.fromkeys(("apt-get", "useradd", "chown", "systemctl", "sleep"), "exit 0"),
}


def template(
    capsys: pytest.CaptureFixture[str], *others: str, **changed: str | None
) -> dict[str, Any]:
    assert main(words(*others, **changed)) == 0
    read = yaml.safe_load(capsys.readouterr().out)
    assert isinstance(read, dict)
    return read


def depends(resource: object) -> set[str]:
    """The resources that one is created after."""
    found: set[str] = set()
    if isinstance(resource, dict):
        for key, value in resource.items():
            if key == "get_resource":
                found.add(value)
            elif key == "get_attr":
                found.add(value[0])
            elif key == "depends_on":
                found |= {value} if isinstance(value, str) else set(value)
            else:
                found |= depends(value)
    elif isinstance(resource, list):
        found = set().union(*map(depends, resource))
    return found


def scripts(made: dict[str, Any]) -> dict[str, str]:
    """The user data of master and worker."""
    return {name: user_data(one, f"{KEY} ringsage") for name, one in servers(made).items()}


@pytest.mark.parametrize("workers", [0, 1, 3, 254])
@pytest.mark.parametrize("wait", WAITS)
def test_the_machines_and_their_order(
    capsys: pytest.CaptureFixture[str], workers: int, wait: str
) -> None:
    made = template(capsys, f"--wait-for={wait}", workers=str(workers))
    resources = made["resources"]
    order = {name: depends(one) for name, one in resources.items()}
    assert set().union(*order.values()) <= resources.keys()
    signals = wait != "none"
    assert order["master"] == {"interface", "port"} | (
        {"master_signal", "key_signal"} if signals else set()
    )
    assert order["address"] == {"interface", "port"}
    assert order["port"] == {"net", "subnet", "inside", "ssh"}
    assert ("workers" in resources) == bool(workers)
    if workers:
        told = {"worker_signal", "key_state"} if signals else set()
        assert order["workers"] == {"interface", "subnet", "net", "inside"} | told
        assert resources["workers"]["properties"]["count"] == workers
    waits = {
        name: one["properties"]["count"] for name, one in resources.items() if "_state" in name
    }
    if signals:
        wanted = {"key_state": 1, "master_state": 1}
        assert waits == wanted | ({"worker_state": workers} if workers else {})
        # The master signals its key before it waits for workers, which are made after that.
        assert order["key_state"] == order["master_state"] - {"master_signal"} | {"key_signal"}
    else:
        assert waits == {}
    hosts = re.search(r"^hosts=\((.*)\)$", scripts(made)["master"], re.M)
    assert hosts is not None
    addresses = hosts[1].split()
    assert len(set(addresses)) == len(addresses) == workers + 1
    assert addresses[1:] == [f"10.8.{one}.10" for one in range(workers)]
    pool = resources["subnet"]["properties"]["allocation_pools"][0]
    assert not any(one.startswith("10.8.254.") for one in addresses) and "10.8.254" in pool["end"]


def test_who_may_use_ssh_and_what_is_secret(capsys: pytest.CaptureFixture[str]) -> None:
    made = template(capsys)
    resources = made["resources"]
    (rule,) = resources["ssh"]["properties"]["rules"]
    assert rule["remote_ip_prefix"] == {"get_param": "ssh_from"}
    assert (rule["port_range_min"], rule["port_range_max"], rule["protocol"]) == (22, 22, "tcp")
    worker = resources["workers"]["properties"]["resource_def"]["properties"]
    assert worker["security_groups"] == [{"get_resource": "inside"}]
    assert {one["type"] for one in resources.values()} & {"OS::Nova::KeyPair"} == set()
    assert made["parameters"]["ssh_from"]["default"] == GIVEN["ssh-from"]
    assert "reservation" not in made["parameters"] and "scheduler_hints" not in str(made)
    reserved = template(capsys, "--reservation=12ab-34")
    assert reserved["parameters"]["reservation"]["default"] == "12ab-34"
    assert str(reserved).count("scheduler_hints") == 2


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("make", [[], ["--make"]])
def test_shells_can_read_the_scripts(
    capsys: pytest.CaptureFixture[str], launcher: str, wait: str, make: list[str]
) -> None:
    made = template(capsys, f"--wait-for={wait}", *make, "--", *HOSTILE, launcher=launcher)
    for role, text in scripts(made).items():
        assert f"\nmake={'yes' if make else 'no'}\n" in text and "\nfolder=parts/one\n" in text
        assert len(text) < 48 * 1024  # Nova takes 64 KiB, encoded
        if shutil.which("shellcheck"):
            # `wait_for=done`; and on a worker, what is of the job is neither assigned nor reached.
            excluded = "SC1010" if role == "master" else "SC1010,SC2154"
            done = subprocess.run(
                ["shellcheck", "--severity=warning", f"--exclude={excluded}", "-"],
                input=text,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stdout


Ran = Callable[..., "Outcome"]


class Outcome:
    """What a script has left behind."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.state = (folder / "told/state").read_text().strip()
        self.served = self._read("served")
        self.log = (folder / "told/log").read_text()
        self.launched = self._read("launched").split("\0")[:-1]
        self.signals = [json.loads(line) for line in self._read("signals").splitlines()]
        for one in self.signals:
            assert one["id"] == socket.gethostname() and one["data"] == one["reason"]
        self.told = [(one["status"], one["reason"]) for one in self.signals]
        self.remote = self._read("remote").splitlines()

    def _read(self, name: str) -> str:
        file = self.folder / name
        return file.read_text() if file.exists() else ""


@pytest.fixture
def run(tmp_path: Path) -> Ran:
    """Run a script with stand-ins for the programs that need a machine of their own."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for name, text in STUBS.items():
        file = (tmp_path if name in ("pip", "launcher") else stubs) / name
        file.write_text(f"#!/bin/bash\n{text}\n")
        file.chmod(0o755)
    (tmp_path / "etc").mkdir()

    def start(text: str, **variables: str) -> Outcome:
        text = text.replace("home=/srv/ringsage", f"home={tmp_path}/home")
        text = text.replace("told=/var/lib/ringsage", f"told={tmp_path}/told")
        text = text.replace("/etc/ssh/sshd_config.d", f"{tmp_path}/etc")
        env = {"PATH": f"{stubs}:/usr/bin:/bin", "FAKE": str(tmp_path), "CODE": "0"}
        env |= {"NAME": "horovodrun", "WORKER": "ready c0ffee", **variables}
        done = subprocess.run(["bash"], input=text, text=True, env=env, cwd=tmp_path, timeout=60)
        outcome = Outcome(tmp_path)
        assert (done.returncode == 0) != outcome.state.startswith("failed"), outcome.log
        assert not list(tmp_path.rglob("made"))
        return outcome

    return start


def test_a_worker_installs_and_says_so(capsys: pytest.CaptureFixture[str], run: Ran) -> None:
    done = run(scripts(template(capsys))["worker"])
    assert done.state == "ready c0ffee"
    assert done.told == [("SUCCESS", "installed c0ffee")]
    assert "pip install --no-input -r job/parts/one/requirements.txt" in done.log
    assert GIVEN["repository"] in (done.folder / "clone").read_text().split()
    keys = done.folder / "home/.ssh/authorized_keys"
    assert keys.read_text() == f'from="10.8.0.0/16",restrict {KEY}\n'
    assert not (done.folder / "home/.ssh/id").exists()
    assert "PasswordAuthentication no\n" in (done.folder / "etc/10-ringsage.conf").read_text()


def test_a_worker_that_cannot_install_says_why(
    capsys: pytest.CaptureFixture[str], run: Ran
) -> None:
    done = run(scripts(template(capsys))["worker"], PIP="1")
    assert done.state.startswith("failed: three tries failed: ")
    ((status, reason),) = done.told
    assert status == "FAILURE" and "pip" in reason


def test_a_worker_without_a_key_says_so(capsys: pytest.CaptureFixture[str], run: Ran) -> None:
    done = run(scripts(template(capsys))["worker"].replace(KEY, "'$(touch made)"[1:]))
    assert done.state.startswith("failed: expected the master's key, got: ")


def test_the_key_travels_inside_the_network_where_heat_cannot_be_reached(
    capsys: pytest.CaptureFixture[str], run: Ran, tmp_path: Path
) -> None:
    made = scripts(template(capsys, "--wait-for=none"))
    master = run(made["master"])
    assert "--bind 10.8.255.10" in master.served and "29501" in master.served
    served = tmp_path / "told/public/key"
    assert served.read_text() == f"{KEY} ringsage\n"
    shutil.copy(served, tmp_path / "key")
    for folder in ("told", "home"):
        shutil.rmtree(tmp_path / folder)
    worker = run(made["worker"])
    assert (worker.state, worker.signals) == ("ready c0ffee", [])
    assert KEY in (tmp_path / "home/.ssh/authorized_keys").read_text()


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("wait", ["started", "done"])
def test_the_master_starts_the_job_on_all(
    capsys: pytest.CaptureFixture[str], run: Ran, launcher: str, wait: str
) -> None:
    """Flags of the program reach it as they were typed."""
    flags = [f"--wait-for={wait}", "--ranks-per-machine=2", "--", *HOSTILE]
    text = scripts(template(capsys, *flags, launcher=launcher))["master"]
    done = run(text, NAME=launcher)
    assert done.state == "done"
    assert done.told == [("SUCCESS", f"{KEY} ringsage"), ("SUCCESS", "the job is done")]
    program = [GIVEN["entrypoint"], *HOSTILE]
    if launcher == "torchrun":
        ranks = [word for word in done.launched if word.startswith("--node-rank=")]
        assert sorted(ranks) == [f"--node-rank={one}" for one in range(3)]
        assert len(done.remote) == 2 and "--master-addr=10.8.255.10" in done.launched
        starts = "\0".join(done.launched).split("--node-rank=")[1:]
        for one in starts:
            assert one.split("\0")[1 : len(program) + 1] == program
    else:
        assert done.launched[-len(program) :] == program
        assert "10.8.255.10:2,10.8.0.10:2,10.8.1.10:2" in done.launched and "6" in done.launched
        assert done.launched[0] == str(done.folder / "home/venv/bin" / launcher)
    assert "secret" not in str(done.signals)


def test_heat_is_told_once_that_the_job_runs(capsys: pytest.CaptureFixture[str], run: Ran) -> None:
    text = scripts(template(capsys))["master"]
    before = 'if [ "$wait_for" = started ]; then\n    for'  # a job that is still there after it
    assert before in text
    text = text.replace(
        before, f"wait $!; sleep() {{ :; }}; /bin/sleep 4 & processes=($!)\n{before}"
    )
    done = run(text)
    assert done.state == "done"
    assert [text for _, text in done.told[1:]] == ["the job has run for 60 seconds"]


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"CODE": "3"}, "the job ended with exit code 3"),
        ({"NAME": "other"}, "expected horovodrun to be installed, found none"),
        ({"WORKER": "failed: no disk"}, "10.8.0.10 failed: no disk"),
        ({"WORKER": "ready another"}, "expected commit c0ffee, got another: "),
        ({"WORKER": "refused"}, "10.8.0.10: not ready after"),
    ],
)
def test_the_master_says_what_failed(
    capsys: pytest.CaptureFixture[str], run: Ran, variables: dict[str, str], reason: str
) -> None:
    text = scripts(template(capsys))["master"].replace("seconds=3480", "seconds=2")
    done = run(text, **variables)
    assert reason in done.state
    (_, (status, text)) = done.told
    assert status == "FAILURE" and reason in text


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"repository": None}, "--repository: expected an HTTPS URL"),
        ({"repository": "git@example.org:me/code"}, "--repository: expected an HTTPS URL"),
        ({"repository": "http://example.org/a"}, "--repository: expected an HTTPS URL"),
        ({"repository": "https://me:word@example.org/a"}, "without user and password"),
        ({"repository": "https://example.org/$(x)"}, "--repository: expected an HTTPS URL"),
        ({"repository": "https://example.org/a\nb"}, "--repository: expected an HTTPS URL"),
        ({"repository": "https://example.org/a\n"}, "--repository: expected an HTTPS URL"),
        ({"workers": "255"}, "--workers: expected a number from 0 to 254, got 255"),
        ({"workers": "-1"}, "--workers"),
        ({"requirements": "../up"}, "--requirements: expected a folder"),
        ({"requirements": "/etc"}, "--requirements: expected a folder"),
        ({"requirements": "a'b"}, "--requirements: expected a folder"),
        ({"entrypoint": "-rf"}, "--entrypoint: expected a program"),
        ({"entrypoint": "train.py; x"}, "--entrypoint: expected a program"),
        ({"launcher": "srun"}, "srun"),
        ({"image": "a\nb"}, "--image: expected a name"),
        ({"flavor": '"'}, "--flavor: expected a name"),
        ({"key": ""}, "--key: expected a name"),
        ({"network": "$x"}, "--network: expected a name"),
        ({"ssh_from": "203.0.113.1/24"}, "--ssh-from: expected a network"),
        ({"ssh_from": None}, "--ssh-from: expected a network"),
        ({"reservation": "`x`"}, "--reservation: expected a name"),
        ({"login": "root;x"}, "--login: expected the name"),
        ({"timeout": "721"}, "--timeout"),
    ],
)
def test_a_slip_is_one_line(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str | None], complaint: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(UsageError) as caught:
        main(words(**changed))
    message = str(caught.value)
    assert complaint in message and "\n" not in message


@pytest.mark.parametrize("flag", ["a\nb", "a\x1bb", "x" * 9000])
def test_flags_that_a_script_cannot_hold_are_refused(flag: str) -> None:
    with pytest.raises(UsageError, match="flags of the program: expected"):
        main(words("--", flag))


def test_questions_give_the_same_template(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = dict(GIVEN)
    answers["workers"] = "many\n300\n2"  # asked again until it is right
    text = "".join(f"{one}\n" for one in answers.values())
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["heat", "--ask"]) == 0
    asked = capsys.readouterr()
    assert asked.err.count("expected a number from 0 to 254") == 2
    assert all(question in asked.err for question, _ in QUESTIONS.values())
    assert main(words()) == 0
    assert asked.out == capsys.readouterr().out


def test_an_input_that_ends_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("https://example.org/me/code\n"))
    with pytest.raises(UsageError, match="--workers: expected an answer, got none"):
        main(["heat", "--ask"])


@pytest.mark.parametrize("workers", [0, 1, 3, 254])
def test_the_diagram_shows_the_machines(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, workers: int
) -> None:
    file = tmp_path / "stack.svg"
    template(capsys, f"--diagram={file}", workers=str(workers))
    texts = [one.text for one in ElementTree.parse(file).iter("{http://www.w3.org/2000/svg}text")]
    assert {"master", "10.8.255.10", "external network", "public"} <= {*texts}
    assert (f"10.8.{workers - 1}.10" in texts) == (workers > 0)
    assert ("and 251 workers between the last two" in texts) == (workers == 254)


def test_a_terminal_is_asked_without_the_flag(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.StringIO("mine\n")
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", stdin)
    assert template(capsys, key=None)["parameters"]["key"]["default"] == "mine"
