"""`deploy hosts` without other hosts: lists of hosts, what is compared, the table, the lines."""

from __future__ import annotations

import math
import re
import shlex
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from gnn_core.data.datasets import load, prepared_folder
from gnn_core.deploy import hosts_sessions
from gnn_core.deploy.__main__ import main
from gnn_core.deploy.hosts import check, launch_lines, read_hosts, table
from gnn_core.deploy.hosts_probe import facts, reach
from gnn_core.deploy.hosts_sessions import Answer, Failed, ask_all, command
from gnn_core.network import open_listener
from gnn_core.usage import UsageError
from tests.patience import patient

GRAPH = "synthetic:papers=200"
REQUEST = {"peer": None, "interface": None, "dataset": None, "cache_dir": None, "frameworks": False}


def answer(**changed: Any) -> Answer:
    own = {
        "versions": {"python": "3.11.7", "numpy": "2.0"},
        "source": "a" * 64,
        "commit": "c" * 40,
        "dataset": {"digest": "d" * 64},
        "interface": "eth0",
        "address": None,
        "cores": 2,
        "memory_bytes": 8_000_000_000,
    }
    return Answer(own | changed, None, 0.01, 0.001, {"a": 0.001, "b": 0.002})


def found(its: Answer, mine: Answer | None = None) -> dict[str, tuple[str, str]]:
    """Status and text of each check of the host b, where a is here."""
    slots = {"a": 2, "b": 2}
    checked = check("b", slots, {"a": mine or answer(), "b": its}, "a")
    return {one.name: (one.status, f"{one.text}: {one.advice}") for one in checked}


def test_a_host_file_is_read_as_by_mpirun(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    for text in (
        "one slots=4\ntwo slots=2\n",
        "# mine\n\n one  slots = 4 # x\ntwo slots=2 max_slots=8",
    ):
        file.write_text(text)
        assert read_hosts(None, file) == read_hosts("one:4, two:2", None) == {"one": 4, "two": 2}
    file.write_text("two\n10.0.0.2 slots=3\n")
    assert list(read_hosts(None, file).items()) == [("two", 1), ("10.0.0.2", 3)]
    for text, problem in (("one:4", "expected lines `NAME slots=N`, got 'one:4'"), ("#", "got 0")):
        file.write_text(text)
        with pytest.raises(UsageError, match=problem):
            read_hosts(None, file)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["-H", "one"], "-H: expected NAME:SLOTS"),
        (["-H", "one:2,"], "-H: expected NAME:SLOTS"),
        (["-H", "one:0"], "1 to 1024 slots of one, got 0"),
        (["-H", "one:2,one:1"], "each host once, got one twice"),
        (["-H", "me@one:2"], "user's name belongs into ~/.ssh/config"),
        (["-H", "-oProxyCommand=x:2"], "expected NAME:SLOTS"),
        (["-H", "one;reboot:2"], "expected NAME:SLOTS"),
        (["-H", "localhost:2,two:2"], "names that all hosts know, got localhost"),
        (["-H", "one:2", "--dataset", "croa"], "--dataset: unknown data set 'croa', did you mean"),
        (["-H", "one:2", "--interface", "eth0;x"], "--interface: expected a name such as eth0"),
        ([], "one of the arguments -H"),
        (["--hostfile", "/no/such/file"], "No such file"),
    ],
)
def test_slips_are_one_line(words: list[str], problem: str) -> None:
    joined = [f"-H{words[1]}"] if words[:1] == ["-H"] else words[:2]  # a name may begin with -
    with pytest.raises((UsageError, OSError), match=re.escape(problem)) as refused:
        main(["hosts", *joined, *words[2:]])
    assert "\n" not in str(refused.value)


def test_a_host_like_this_one_has_no_problem() -> None:
    assert {status for status, _ in found(answer()).values()} == {"ok"}


@pytest.mark.parametrize(
    ("changed", "name", "status", "text"),
    [
        ({"versions": {"python": "3.11.7"}}, "versions", "problem", "numpy none, here 2.0: `make"),
        ({"source": "b" * 64}, "source", "problem", "files bbbbbbb (commit ccccccc), here aaaaaaa"),
        ({"source": "b" * 64, "commit": None}, "source", "problem", "(commit none)"),
        ({"dataset": {"digest": "e" * 64}}, "data", "problem", "eeeeeee, others have ddddddd"),
        ({"dataset": {"problem": "x is not prepared"}}, "data", "problem", "datasets prepare"),
        ({"address": ""}, "network", "problem", "no interface eth0 with an address"),
        ({"more": 1}, "ssh", "problem", "another version of this command: bring source"),
        ({"cores": 1}, "cores", "warning", "2 of 1 slots: ranks will take turns"),
        ({"memory_bytes": 10**8}, "memory", "warning", "0.1 GB free"),
    ],
)
def test_what_differs_is_told(changed: dict[str, Any], name: str, status: str, text: str) -> None:
    others = {one: what for one, what in found(answer(**changed)).items() if what[0] != "ok"}
    assert list(others) == [name] and others[name][0] == status and text in others[name][1]


@pytest.mark.parametrize(("seconds", "status"), [(0.9, "ok"), (-1.3, "problem"), (1.3, "problem")])
def test_clocks_are_within_a_second(seconds: float, status: str) -> None:
    its = answer()
    its.clock_seconds = seconds
    assert found(its)["clock"][0] == status
    its.clock_error_seconds = 0.5  # a slow link: nobody can tell
    assert found(its)["clock"][0] == "ok"


def test_who_does_not_reach_whom_is_told() -> None:
    its = answer()
    its.reached = {"a": "port 4000 of a: timed out", "localhost": "refused"}
    status, text = found(its)["network"]
    assert status == "problem" and "a (port 4000 of a: timed out): let all TCP" in text
    assert "localhost" not in text  # no host of the job


@pytest.mark.parametrize(
    ("code", "words", "text"),
    [
        (255, "b: Permission denied (publickey).", "ssh-copy-id b"),
        (255, "Host key verification failed.", "accept its key: ssh b"),
        (255, "ssh: Could not resolve hostname b: ...", "/etc/hosts"),
        (255, "connect to host b port 22: Connection refused", "Port in ~/.ssh/config"),
        (255, "connect to host b port 22: No route to host", "ssh b true"),
        (101, "sh: cd: no", f"{hosts_sessions.REPOSITORY} is not there"),
        (102, "", f"{sys.executable} is not there"),
        (1, "No module named gnn_core.deploy.hosts_probe", "those here"),
        (-9, "no answer in 3 s", "--timeout"),
    ],
)
def test_what_a_host_without_an_answer_needs(code: int, words: str, text: str) -> None:
    checked = found(Answer(failure=Failed(code, words)))
    assert list(checked) == ["ssh"] and checked["ssh"][0] == "problem"
    assert text in checked["ssh"][1] and "\n" not in checked["ssh"][1]


def test_the_table_has_a_line_for_each_host() -> None:
    answers = {"a": answer(cores=1), "b": Answer(failure=Failed(255, "refused"))}
    rows = table({host: check(host, {"a": 2, "b": 2}, answers, "a") for host in answers})
    assert [row.split()[:2] for row in rows] == [["host", "ssh"], ["a", "here"], ["b", "problem"]]
    assert rows[0].split()[1:] == ["ssh", "versions", "source", "data", "clock", "network"] + [
        "cores",
        "memory",
    ]
    assert "warning" in rows[1] and rows[2].split()[2:] == ["-"] * 7


def test_the_lines_name_hosts_interface_and_port() -> None:
    slots, faces = {"a": 2, "b": 1}, {"a": "eth0", "b": "ib0"}
    horovodrun, mpirun, *torchrun = launch_lines(slots, faces, ["--dataset=x y"])
    assert shlex.split(horovodrun) == shlex.split(
        "horovodrun -np 3 -H a:2,b:1 --network-interfaces eth0,ib0 "
        "python horovod_gnn/train.py '--dataset=x y'"
    )
    include = [word for word in shlex.split(mpirun) if word.endswith("_if_include")]
    assert include == ["btl_tcp_if_include", "oob_tcp_if_include"]
    assert [line.rpartition("# on ")[2] for line in torchrun] == ["a", "b"]
    assert "GLOO_SOCKET_IFNAME=ib0 torchrun --nnodes 2 --master-addr a --node-rank 1" in torchrun[1]
    alone = launch_lines({"a": 2}, {"a": None}, [])
    assert alone[0] == "horovodrun -np 2 -H a:2 python horovod_gnn/train.py"


def test_no_shell_sees_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts_sessions, "REPOSITORY", Path("/a b/$(reboot)"))
    words = command("far")
    assert words[:2] == ["ssh", "-o"] and words[-3:-1] == ["--", "far"]
    assert shlex.split(words[-1])[-2:] == ["/a b/$(reboot)", sys.executable]


def test_a_probe_tells_facts_clock_and_whom_it_reaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepared_folder(GRAPH, tmp_path) is None
    noisy = hosts_sessions._SCRIPT.replace("exec", "echo Welcome; exec")
    monkeypatch.setattr(hosts_sessions, "_SCRIPT", noisy)
    request = REQUEST | {"dataset": GRAPH, "cache_dir": str(tmp_path)}
    both = {"localhost": request, "127.0.0.1": request}
    answers = ask_all(both, patient(60))
    assert all(one.failure is None for one in answers.values()), answers
    own = answers["localhost"]
    assert own.facts["dataset"] == {"problem": f"{GRAPH} is not prepared in {tmp_path}"}
    assert own.facts["source"] == answers["127.0.0.1"].facts["source"]
    assert abs(own.clock_seconds) <= own.clock_error_seconds + 0.01 < math.inf
    trip = own.reached["127.0.0.1"]
    assert isinstance(trip, float) and trip > 0

    graph = load(GRAPH, cache_dir=tmp_path)
    assert prepared_folder(GRAPH, tmp_path) == graph.folder
    assert facts(request | {"seconds": 1})["dataset"] == {"digest": graph.fingerprint}


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("REPOSITORY", Path("/no such folder"), 101),
        ("_SCRIPT", "echo gone wrong >&2; exit 3", 3),
        ("_SCRIPT", "sleep 600", -9),
    ],
)
def test_a_probe_that_does_not_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, code: int
) -> None:
    monkeypatch.setattr(hosts_sessions, name, value)
    failure = ask_all({"localhost": REQUEST}, 1 if code < 0 else patient(30))["localhost"].failure
    assert failure is not None and failure.code == code
    assert str(failure) == {3: "gone wrong", -9: "no answer in 1 s"}.get(code, str(failure))


def test_an_interpreter_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python")
    failure = ask_all({"localhost": REQUEST}, patient(30))["localhost"].failure
    assert failure is not None and failure.code == 102


def test_a_port_that_nobody_answers_at() -> None:
    with open_listener(0) as listener:
        port = listener.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = silent.getsockname()[1]
        answers = reach({"shut": ["127.0.0.1", port], "mute": ["127.0.0.1", mute]})
    assert answers["shut"] == f"port {port} of 127.0.0.1: Connection refused"
    assert answers["mute"] == f"port {mute} of 127.0.0.1: timed out"
