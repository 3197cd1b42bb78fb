# What the scripts here have in common; sourced, not run.
#
# The caller sets `here`, its own folder. This gives `root`, `debros` (DEBROS, or bin/debros), `hertz`, and functions.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
debros=${DEBROS:-$root/bin/debros}
hertz=$(getconf CLK_TCK)

fail() { echo "$(basename "$0"): $*" >&2; exit 1; }
say() { echo "$(date +%T) $*" >&2; }

# Give up unless these tools are there, and the executable.
need() {
    local tool missing=()
    for tool in "$@"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
    [ ${#missing[@]} = 0 ] || fail "missing: ${missing[*]} (Debian: apt-get install wrk curl python3 redis-server)"
    [ -x "$debros" ] || fail "$debros is missing: make build, or set DEBROS"
}

# DIR, where data goes: there, and on a disk.
in_directory() {
    mkdir -p "${DIR:=$root/target}"
    [ "$(stat -f -c %T "$DIR")" != tmpfs ] || fail "DIR is in memory; the disk is what matters"
}

# Stop a child by its id: politely, then not.
stop() {
    local pid=$1
    [ -n "$pid" ] || return 0
    kill -TERM "$pid" 2>/dev/null || return 0
    for _ in $(seq 150); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null && say "process $pid had to be killed"
    wait "$pid" 2>/dev/null || true
}

# A port that nobody listens on.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
# CPU ticks of a process so far. Its name is the second field and may hold spaces, so count from the parenthesis.
ticks_of() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }
# Ticks that the machine's processors were busy, and that they had altogether.
ticks_of_machine() { awk '/^cpu / { idle = $5 + $6; all = 0; for (i = 2; i <= 9; i++) all += $i; print all - idle, all }' /proc/stat; }

# Wait until nobody else uses the processors: for a second less than a tenth of them, QUIET_SECONDS (180) at most.
quiet() {
    local deadline=$((SECONDS + ${QUIET_SECONDS:-180})) busy all before_busy before_all
    while :; do
        read -r before_busy before_all < <(ticks_of_machine)
        sleep 1
        read -r busy all < <(ticks_of_machine)
        (( 10 * (busy - before_busy) > all - before_all )) || return 0
        (( SECONDS < deadline )) || { say "the machine did not become idle (load $(cut -d' ' -f1 /proc/loadavg))"; return 0; }
    done
}

# Wait until a command succeeds, or the server has ended: answers PID LOG COMMAND...
answers() {
    local pid=$1 log=$2
    shift 2
    for _ in $(seq 100); do
        "$@" >/dev/null 2>&1 && return 0
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$log" >&2
    fail "the server did not start"
}
