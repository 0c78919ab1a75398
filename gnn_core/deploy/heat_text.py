"""The scripts that cloud-init runs on the machines of a stack, as root, once.

What Heat fills in (keys, the command that signals) stands in the head alone, as @NAME@; what a user
has typed stands in the body alone, quoted for the shell, where Heat replaces nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

HOME = "/srv/ringsage"  # of the user that installs and runs
TOLD = "/var/lib/ringsage"  # log and state, written by root
NETWORK = "10.8.0.0/16"
MASTER = "10.8.255.10"
_PORT = 29_500  # where the processes of torchrun meet
_SECONDS_OF_A_START = 60

_HEAD = """\
#!/bin/bash
# Printed by `python -m gnn_core.deploy heat`. cloud-init runs it once, as root.
public_key='@PUBLIC_KEY@'
"""
_SIGNAL = (
    'signal() { @SIGNAL@ --silent --show-error --max-time 30 --retry 5 --data-binary "$1"; }\n'
)
_NO_SIGNAL = "signal() { :; }\n"
_PRIVATE_KEY = """\
private_key() {
    cat <<'END'
@PRIVATE_KEY@
END
}
"""

_FUNCTIONS = r"""
report() {  # $1: SUCCESS or FAILURE, $2: why, which Heat shows
    local text='import json, sys
print(json.dumps({"status": sys.argv[1], "reason": sys.argv[2][-1500:]}))'
    signal "$(python3 -c "$text" "$1" "$2")" || echo "Heat was not reached to signal $1"
}
failed() {  # $1: why
    trap - ERR
    echo "$1"
    echo "failed: $1" > "$told/state"
    report FAILURE "$(tail -n 20 "$told/log")"
    exit 1
}
retry() {  # networks and package servers may not be there yet
    local try
    for try in 1 2 3; do
        "$@" && return
        echo "try $try of 3 failed: $1 $2"
        sleep 10
    done
    failed "three tries failed: $*"
}
as_user() { runuser -u ringsage -- env -C "$home" HOME="$home" GIT_TERMINAL_PROMPT=0 "$@"; }

set -uo pipefail
mkdir "$told" "$home"
exec >> "$told/log" 2>&1
trap 'failed "line $LINENO failed: $BASH_COMMAND"' ERR
echo installing > "$told/state"
useradd --no-create-home --home-dir "$home" --shell /bin/bash ringsage
chown ringsage: "$home"

# ssh: by key alone; between the machines by a key that counts within their network.
printf '%s\n' 'PasswordAuthentication no' 'KbdInteractiveAuthentication no' 'PermitRootLogin no' \
    > /etc/ssh/sshd_config.d/10-ringsage.conf
systemctl try-reload-or-restart ssh
mkdir -m 700 "$home/.ssh"
"""
_AUTHORIZE = """\
echo "from=\\"{network}\\",restrict $public_key" > "$home/.ssh/authorized_keys"
"""
_CONNECT = """\
private_key > "$home/.ssh/id"
printf '%s\\n' 'Host 10.8.*' 'IdentityFile ~/.ssh/id' 'BatchMode yes' 'ConnectTimeout 10' \\
    'StrictHostKeyChecking accept-new' > "$home/.ssh/config"
"""
_INSTALL = """\
chmod 600 "$home"/.ssh/*
chown -R ringsage: "$home/.ssh"

command -v apt-get > /dev/null || failed "expected an image with apt-get, as of Debian or Ubuntu"
export DEBIAN_FRONTEND=noninteractive
retry apt-get -o DPkg::Lock::Timeout=300 update
retry apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \\
    build-essential ca-certificates cmake git openssh-client python3-dev python3-venv
retry as_user git clone --depth 1 -- {repository} job
commit=$(as_user git -C job rev-parse HEAD)
"""
_WITH_REQUIREMENTS = """\
as_user python3 -m venv venv
retry as_user venv/bin/pip install --no-input -r {requirements}
"""
_WITH_MAKE = """\
retry as_user make -C {folder} install
"""
_WORKER = """\
echo "ready $commit" > "$told/state"
report SUCCESS "installed $commit"
"""
_WAIT_FOR_WORKERS = """
for host in "${{hosts[@]:1}}"; do
    while :; do
        state=$(as_user ssh "$host" cat "$told/state" 2>&1 || :)
        case $state in
            "ready $commit") break ;;
            ready*) failed "$host: expected commit $commit, has $state: create the stack again" ;;
            failed*) failed "$host $state" ;;
        esac
        [ "$SECONDS" -lt {seconds} ] || failed "$host: not ready after $SECONDS seconds: $state"
        sleep 10
    done
done
"""
_LAUNCH = """
run() {{ as_user env -C "$home/job" PATH="$bin:$PATH" "$@"; }}
launcher=$(run which {launcher}) || failed "expected {launcher} to be installed, found none"
echo training > "$told/state"
"""
_HOSTS = """where=$(printf ',%s:{slots}' "${{hosts[@]}}")\n"""
_TORCHRUN = """\
start=(
    "$launcher" --nnodes={nodes} --nproc-per-node={slots}
    --master-addr="${{hosts[0]}}" --master-port={port}
)
run "${{start[@]}}" --node-rank=0 "${{program[@]}}" &
processes=($!)
for ((node = 1; node < {nodes}; node++)); do
    words=("${{start[@]}}" "--node-rank=$node" "${{program[@]}}")
    as_user ssh "${{hosts[node]}}" "cd job && PATH=$bin:\\$PATH exec ${{words[*]@Q}}" &
    processes+=($!)
done
"""
_AWAIT_START = """\
for ((second = 0; second < {seconds}; second++)); do
    [ "$(jobs -pr | wc -l)" = "${{#processes[@]}}" ] || break
    sleep 1
done
if [ "$second" = {seconds} ]; then
    report SUCCESS "the job has run for {seconds} seconds"
    report() {{ :; }}  # Heat waits no longer
fi
"""
_AWAIT_END = """\
for process in "${processes[@]}"; do
    wait "$process" || failed "the job ended with exit code $?"
done
echo "done" > "$told/state"
report SUCCESS "the job is done"
"""


def worker_address(number: int | str) -> str:
    """The address of a worker, from 0."""
    return f"10.8.{number}.10"


def head(signals: bool, master: bool) -> str:
    """The beginning, in which Heat replaces @PUBLIC_KEY@, @SIGNAL@ and @PRIVATE_KEY@."""
    return _HEAD + (_SIGNAL if signals else _NO_SIGNAL) + (_PRIVATE_KEY if master else "")


def _installation(repository: str, folder: str, make: bool, master: bool) -> str:
    place = f"job/{folder}"
    return "".join(
        [
            f"home={HOME} told={TOLD}  # log and state; root alone writes there\n",
            _FUNCTIONS,
            _AUTHORIZE.format(network=NETWORK),
            _CONNECT if master else "",
            _INSTALL.format(repository=shlex.quote(repository)),
            _WITH_MAKE.format(folder=shlex.quote(place))
            if make
            else _WITH_REQUIREMENTS.format(requirements=shlex.quote(f"{place}/requirements.txt")),
        ]
    )


def worker_body(repository: str, folder: str, make: bool) -> str:
    """What a worker does after the head: it installs, and is then there for the master."""
    return _installation(repository, folder, make, False) + _WORKER


def master_body(
    repository: str,
    folder: str,
    make: bool,
    *,
    launcher: str,
    program: Sequence[str],
    workers: int,
    slots: int,
    seconds: int,
    wait_for: str,
) -> str:
    """What the master does after the head: it installs, waits for the workers, starts the job.

    Args:
        repository: HTTPS URL for git.
        folder: of the requirements, in it.
        make: whether `make install` is called there, in place of pip.
        launcher: horovodrun, mpirun or torchrun.
        program: path in the repository, and its flags.
        workers: machines besides this one.
        slots: ranks of each machine.
        seconds: after which a worker that is not ready is a failure.
        wait_for: started, done or none.
    """
    hosts = [MASTER, *map(worker_address, range(workers))]
    nodes = len(hosts)
    parts = [
        _installation(repository, folder, make, True),
        f"\nbin=$home/{f'job/{folder}/.venv' if make else 'venv'}/bin",
        f"\nhosts=({' '.join(hosts)})\nprogram=({shlex.join(program)})",
        _WAIT_FOR_WORKERS.format(seconds=seconds) if workers else "",
        _LAUNCH.format(launcher=launcher),
    ]
    ranks = nodes * slots
    if launcher == "torchrun":
        parts.append(_TORCHRUN.format(nodes=nodes, slots=slots, port=_PORT))
    else:
        start = f'-np {ranks} -H "${{where:1}}"' + (" -x PATH" if launcher == "mpirun" else "")
        # By its path, mpirun finds its daemons at the same place of the other machines.
        parts += [
            _HOSTS.format(slots=slots),
            f'run "$launcher" {start} python "${{program[@]}}" &\nprocesses=($!)\n',
        ]
    if wait_for == "started":
        parts.append(_AWAIT_START.format(seconds=_SECONDS_OF_A_START))
    return "".join([*parts, _AWAIT_END])
