#!/bin/bash
# Before a pod ends (preStop of launcher and workers): its ranks get SIGTERM, save and end.
#
# On a SIGTERM of its own mpirun sleeps for odls_base_sigkill_timeout before it passes it on, as long
# again before it kills the ranks, and forwards nothing that they say meanwhile. sshd ends its sessions
# at once, and the ranks with them. So both are told only after this: the ranks have until then, and the
# launcher's log has their last words.
seconds=${1:-45}

if [ "$K_MPI_JOB_ROLE" = launcher ]; then
    while read -r worker _; do
        timeout "$seconds" ssh -n -o ConnectTimeout=5 "$worker" "$0" "$seconds" 2>/dev/null &
    done < /etc/mpi/hostfile
    wait
    sleep 5  # mpirun tells how the ranks ended and leaves; this script goes with it
    exit 0
fi

ranks() {
    for process in /proc/[0-9]*; do
        parent=$(sed -n 's/^PPid:\t//p' "$process/status" 2>/dev/null)
        if [ "$(cat "/proc/$parent/comm" 2>/dev/null)" = orted ]; then echo "${process#/proc/}"; fi
    done
}

for rank in $(ranks); do
    # Once: a second SIGTERM would end the rank before it has saved.
    if mkdir "${TMPDIR:-/tmp}/told-$rank" 2>/dev/null; then kill -TERM "$rank"; fi
done
while [ -n "$(ranks)" ] && ((SECONDS < seconds)); do sleep 0.5; done
exit 0
