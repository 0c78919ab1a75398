#!/bin/bash
# The workers that a rank can be started on, a name each line: for horovodrun, which asks every second.
#
# A worker counts from the first answer of its sshd until 40 s after its last, whatever the operator lists
# meanwhile. Horovod ends the whole job when a rank that it has asked for does not come: the operator lists
# a worker before its sshd answers, and one that is cut off for minutes after. And horovodrun tells rank 0
# of a host that is listed no more: had that one gone itself, it would wait for it while the others wait for
# horovodrun; 40 s later they have missed it (after 20 s) and there is another rank 0.
listed=${1:-/etc/mpi/discover_hosts.sh}
seen=${TMPDIR:-/tmp}/ringsage-workers
mkdir -p "$seen"

look_at() {
    # Each look is a line in that sshd's log.
    [ -n "$(find "$seen/$1" -newermt '-10 seconds' 2>/dev/null)" ] && return
    timeout 2 bash -c "</dev/tcp/$1/2222" 2>/dev/null && touch "$seen/$1"
}

tell_missing() {
    # Once a minute, of the workers that the job is to have (its host file, which is never shortened).
    file=$(dirname "$listed")/hostfile told=$seen/.told
    [ -f "$file" ] || return
    [ -e "$told" ] || touch "$told"  # not in the first minute: they may all be starting
    [ -n "$(find "$told" -newermt '-60 seconds')" ] && return
    touch "$told"
    while read -r host _; do
        [ -n "$(find "$seen/$host" -newermt '-40 seconds' 2>/dev/null)" ] && continue
        pod=${host%%.*}
        echo "missing    worker $pod: if \`kubectl get pod $pod\` tells another status than Running:" \
            "kubectl delete pod $pod, and it is made anew" >&2
    done < "$file"
}

hosts=$("$listed") || exit
for host in $hosts; do look_at "$host" & done
wait
tell_missing
find "$seen" -type f -not -name .told -newermt '-40 seconds' -printf '%f\n'
