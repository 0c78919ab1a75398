# What a machine of a stack does. The lines above say which machine it is and what runs.
home=/srv/ringsage      # of the user that installs and trains
told=/var/lib/ringsage  # log and state, written by root
port=29500              # where the processes of torchrun meet; behind it, the public key

state() { echo "$1" > "$told/state"; }
report() {  # $1: SUCCESS or FAILURE, $2: text that Heat keeps, $3: state (default) or key
    local text='import json, socket, sys
status, text = sys.argv[1], sys.argv[2][-1500:]
print(json.dumps({"status": status, "reason": text, "data": text, "id": socket.gethostname()}))'
    "signal_${3:-state}" "$(python3 -c "$text" "$1" "$2")" > /dev/null ||
        echo "Heat was not reached to signal $1"
}
failed() {  # $1: why
    trap - ERR
    echo "$1"
    state "failed: $1"
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
state installing
useradd --no-create-home --home-dir "$home" --shell /bin/bash ringsage
chown ringsage: "$home"

# ssh: by key alone, and between the machines by a key that the master makes and keeps.
printf '%s\n' 'PasswordAuthentication no' 'KbdInteractiveAuthentication no' 'PermitRootLogin no' \
    > /etc/ssh/sshd_config.d/10-ringsage.conf
systemctl try-reload-or-restart ssh
as_user mkdir -m 700 .ssh
if [ "$role" = master ]; then
    as_user ssh-keygen -q -t ed25519 -N '' -C ringsage -f .ssh/id
    printf '%s\n' 'Host 10.8.*' 'IdentityFile ~/.ssh/id' 'BatchMode yes' 'ConnectTimeout 10' \
        'StrictHostKeyChecking accept-new' > "$home/.ssh/config"
    public_key=$(cat "$home/.ssh/id.pub")
    if [ "$wait_for" = none ]; then
        install -D -m 644 "$home/.ssh/id.pub" "$told/public/key"
        runuser -u nobody -- python3 -m http.server --bind "${hosts[0]}" \
            --directory "$told/public" $((port + 1)) > /dev/null 2>&1 &
        server=$!
    else
        report SUCCESS "$public_key" key
    fi
elif [ "$wait_for" = none ]; then
    until key=$(curl --silent --fail --max-time 10 "http://${hosts[0]}:$((port + 1))/key"); do
        [ "$SECONDS" -lt "$seconds" ] || failed "no key from ${hosts[0]} after $SECONDS seconds"
        sleep 5
    done
fi
if [ "$role" = worker ]; then
    [[ $key =~ ssh-ed25519\ [A-Za-z0-9+/=]+ ]] || failed "expected the master's key, got: $key"
    public_key=${BASH_REMATCH[0]}
fi
echo "from=\"10.8.0.0/16\",restrict $public_key" > "$home/.ssh/authorized_keys"
chmod 600 "$home/.ssh/authorized_keys"
chown -R ringsage: "$home/.ssh"

command -v apt-get > /dev/null || failed "expected an image with apt-get, as of Debian or Ubuntu"
export DEBIAN_FRONTEND=noninteractive
retry apt-get -o DPkg::Lock::Timeout=300 update
retry apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
    build-essential ca-certificates cmake git openssh-client python3-dev python3-venv
retry as_user git clone --depth 1 -- "$repository" job
commit=$(as_user git -C job rev-parse HEAD)
if [ "$make" = yes ]; then
    bin=$home/job/$folder/.venv/bin
    retry as_user make -C "job/$folder" install
else
    bin=$home/venv/bin
    as_user python3 -m venv venv
    retry as_user venv/bin/pip install --no-input -r "job/$folder/requirements.txt"
fi
if [ "$role" = worker ]; then
    state "ready $commit"
    report SUCCESS "installed $commit"
    exit
fi

for host in "${hosts[@]:1}"; do
    while :; do
        answer=$(as_user ssh "$host" cat "$told/state" 2>&1 || :)
        case $answer in
            "ready $commit") break ;;
            ready*)
                failed "$host: expected commit $commit, got ${answer#ready }: create the stack again"
                ;;
            failed*) failed "$host $answer" ;;
        esac
        [ "$SECONDS" -lt "$seconds" ] || failed "$host: not ready after $SECONDS seconds: $answer"
        sleep 10
    done
done
[ "$wait_for" != none ] || kill "$server" || :

# The key of the workers' ssh is on the master alone: it starts every daemon of MPI itself.
run() { as_user env -C "$home/job" PATH="$bin:$PATH" OMPI_MCA_plm_rsh_no_tree_spawn=1 "$@"; }
start=$(run which "$launcher") || failed "expected $launcher to be installed, found none"
state training
if [ "$launcher" = torchrun ]; then
    words=("$start" "--nnodes=${#hosts[@]}" "--nproc-per-node=$slots")
    words+=("--master-addr=${hosts[0]}" "--master-port=$port")
    run "${words[@]}" --node-rank=0 "${program[@]}" &
    processes=($!)
    for ((node = 1; node < ${#hosts[@]}; node++)); do
        there=("${words[@]}" "--node-rank=$node" "${program[@]}")
        as_user ssh "${hosts[node]}" "cd job && PATH=$bin:\$PATH exec ${there[*]@Q}" &
        processes+=($!)
    done
else
    where=$(printf ",%s:$slots" "${hosts[@]}")
    # By its path, mpirun finds its daemons at the same place of the other machines.
    words=("$start" -np $((${#hosts[@]} * slots)) -H "${where:1}")
    [ "$launcher" = horovodrun ] || words+=(-x PATH)
    run "${words[@]}" python "${program[@]}" &
    processes=($!)
fi
if [ "$wait_for" = started ]; then
    for ((second = 0; second < 60; second++)); do
        [ "$(jobs -pr | wc -l)" = "${#processes[@]}" ] || break
        sleep 1
    done
    if [ "$second" = 60 ]; then
        report SUCCESS "the job has run for 60 seconds"
        report() { :; }  # Heat waits no longer
    fi
fi
for process in "${processes[@]}"; do
    wait "$process" || failed "the job ended with exit code $?"
done
state "done"
report SUCCESS "the job is done"
