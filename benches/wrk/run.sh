#!/usr/bin/env bash
# How fast is one node? INSERT and read by key over HTTP, beside the bare disk and a Redis that syncs every write.
#
# Starts its own node and its own Redis in a fresh directory on this disk, loads them with wrk and
# redis-benchmark, and stops them. Every case runs REPEATS times; the table shows medians, and lowest and
# highest throughput. CPU is user + system of all the server's threads, divided by the requests answered.
# A case fails the run when a request failed or an acknowledged row is missing.
#
# Environment: SECONDS_EACH (5) of a case, REPEATS (3), SHARDS (2), CONNECTIONS ("1 64 256"), ROWS (10000) of the
# table that is read, REDIS (1, 0 leaves it out), QUIET_SECONDS (180) to wait at most for an idle machine before
# each case, DEBROS (bin/debros), DIR (target/; a directory on the disk to measure), OUT (a file for the table).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../lib.sh"
seconds=${SECONDS_EACH:-5} repeats=${REPEATS:-3} shards=${SHARDS:-2} connections=${CONNECTIONS:-1 64 256}
rows=${ROWS:-10000} redis=${REDIS:-1} out=${OUT:-}

need wrk curl python3 awk
[ "$redis" = 0 ] || need redis-server redis-benchmark redis-cli

in_directory
work=$(mktemp -d "$DIR/bench.XXXXXX")
results=$work/results
node_pid='' redis_pid=''

cleanup() {
    stop "$node_pid"
    stop "$redis_pid"
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# CPU ticks of this shell's ended children; the load generators are among them.
ticks_of_children() { awk '{ sub(/.*\) /, ""); print $14 + $15 }' "/proc/$$/stat"; }

# Run a load against a process, and write down what it cost. When others had more than a tenth of the machine
# meanwhile, do it again, twice at most, and keep the run that was disturbed least.
#   measure SUBJECT OPERATION CLIENTS SHARDS PID COMMAND...
# The command prints: requests, microseconds, p50, p99 in microseconds.
measure() {
    local attempt
    : >"$work/attempts"
    for attempt in 1 2 3; do
        quiet
        attempt "$@" >>"$work/attempts"
        tail -n 1 "$work/attempts" | awk -F'\t' '{ exit !($9 <= 10) }' && break
    done
    sort -t$'\t' -k9,9g "$work/attempts" | head -n 1 >>"$results"
    say "$(tail -n 1 "$results") (attempt $attempt)"
}
attempt() {
    local subject=$1 operation=$2 clients=$3 n_shards=$4 pid=$5
    shift 5
    local cpu children busy all cpu_after children_after busy_after all_after
    read -r busy all < <(ticks_of_machine)
    children=$(ticks_of_children) cpu=$(ticks_of "$pid")
    "$@" >"$work/line"
    cpu_after=$(ticks_of "$pid") children_after=$(ticks_of_children)
    read -r busy_after all_after < <(ticks_of_machine)
    # What others had of the machine: the kernel's own threads and some of its interrupts are among them.
    awk -v s="$subject" -v o="$operation" -v c="$clients" -v n="$n_shards" -v hertz="$hertz" \
        -v cpu=$((cpu_after - cpu)) -v load=$((children_after - children)) \
        -v busy=$((busy_after - busy)) -v all=$((all_after - all)) -v OFS='\t' '{
            others = 100 * (busy - cpu - load) / all
            print s, o, c, n, $1 / $2 * 1e6, $3, $4, cpu / hertz * 1e6 / $1, others < 0 ? 0 : others
        }' "$work/line"
}

# ---- the node ----------------------------------------------------------------------------------------------

key=bench-$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')
export BENCH_DIR=$here BENCH_KEY=$key BENCH_ROWS=$rows

start_node() {
    local n_shards=$1 port
    port=$(free_port)
    url=http://127.0.0.1:$port
    rm -rf "$work/data"
    GATEWAY_API_KEYS=$key:bench "$debros" node --data "$work/data" --gateway-addr "127.0.0.1:$port" --metrics-addr= \
        --shards "$n_shards" >"$work/node.log" 2>&1 &
    node_pid=$!
    answers "$node_pid" "$work/node.log" curl -fsS -m 2 "$url/health"
}
stop_node() {
    stop "$node_pid"
    node_pid=''
    if grep -E '\b(WARN|ERROR)\b' "$work/node.log" | grep -v 'setting has no effect' >&2; then
        say "the node complained"
    fi
}

ask() { curl -fsS -m 30 -H "X-API-Key: $key" -H 'Content-Type: application/json' -d "$2" "$url/v1/rqlite/$1"; }
count() { ask query "{\"sql\": \"SELECT count(*) FROM $1\"}" | sed -E 's/.*"rows":\[\[([0-9]+)\]\].*/\1/'; }

fill() {
    ask create-table '{"schema": "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT NOT NULL)"}' >/dev/null
    ask create-table '{"schema": "CREATE TABLE k (id INTEGER PRIMARY KEY, v TEXT NOT NULL)"}' >/dev/null
    local from to
    for ((from = 1; from <= rows; from += 500)); do
        to=$((from + 499 < rows ? from + 499 : rows))
        ask exec "{\"sql\": \"WITH RECURSIVE n(i) AS (SELECT $from UNION ALL SELECT i + 1 FROM n WHERE i < $to) INSERT INTO k (id, v) SELECT i, 'the value of row ' || i FROM n\"}" >/dev/null
    done
    [ "$(count k)" = "$rows" ] || fail "the table has $(count k) rows instead of $rows"
}

# wrk with a script, for some seconds; prints what `measure` reads. Requests answered are added to $work/acknowledged.
load() {
    local script=$1 clients=$2 time=$3 name n us p50 p99 longest statuses sockets
    timeout $((time + 30)) wrk -t1 -c"$clients" -d"${time}s" --timeout 10s --latency -s "$here/$script.lua" "$url" >"$work/wrk"
    read -r name n us p50 p99 longest statuses sockets < <(grep '^case ' "$work/wrk")
    [ "$name" = case ] && [ "$n" -gt 0 ] || { cat "$work/wrk" >&2; fail "$script with $clients connections: no requests"; }
    [ "$statuses" = 0 ] && [ "$sockets" = 0 ] || { cat "$work/wrk" >&2; fail "$script with $clients connections: $statuses refused, $sockets socket errors"; }
    echo "$n" >>"$work/acknowledged"
    echo "$n $us $p50 $p99 $longest"
}

cases() {
    local n_shards=$1 clients acknowledged stored
    shift
    start_node "$n_shards"
    fill
    : >"$work/acknowledged"
    for clients in "$@"; do
        load insert "$clients" 1 >/dev/null
        measure debros insert "$clients" "$n_shards" "$node_pid" load insert "$clients" "$seconds"
    done
    acknowledged=$(awk '{ n += $1 } END { print n }' "$work/acknowledged") stored=$(count t)
    [ "$stored" -ge "$acknowledged" ] || fail "$acknowledged inserts acknowledged, $stored stored"
    say "$acknowledged inserts acknowledged, $stored stored"
    for clients in "$@"; do
        load read "$clients" 1 >/dev/null
        measure debros read "$clients" "$n_shards" "$node_pid" load read "$clients" "$seconds"
    done
    say "memory $(awk '/^VmRSS/ { printf "%.0f MB, ", $2 / 1024 } /^VmHWM/ { printf "highest %.0f MB, ", $2 / 1024 }' "/proc/$node_pid/status")directory $(du -sm "$work/data" | cut -f1) MB"
    stop_node
}

# ---- what it is measured against ---------------------------------------------------------------------------

disk() {
    local rate p50 p99
    quiet
    read -r rate p50 p99 < <(timeout 120 python3 "$here/disk.py" "$work" "$seconds")
    printf 'disk\twrite+fdatasync\t1\t-\t%s\t%s\t%s\t-\t-\n' "$rate" "$p50" "$p99" >>"$results"
    say "$(tail -n 1 "$results")"
}

# redis-benchmark wants a number of requests, not a time; prints what `measure` reads.
load_redis() {
    local operation=$1 clients=$2 n=$3
    timeout 120 redis-benchmark -p "$redis_port" -t "$operation" -c "$clients" -d 64 -P 1 -n "$n" --csv >"$work/redis.csv"
    # "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
    tail -n 1 "$work/redis.csv" | tr -d '"' | awk -F, -v n="$n" '{ print n, n / $2 * 1e6, 1000 * $5, 1000 * $7 }'
}

cases_of_redis() {
    local clients operation rate
    mkdir "$work/redis"
    redis_port=$(free_port)
    redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$work/redis" --appendonly yes --appendfsync always \
        --auto-aof-rewrite-percentage 0 --save '' --daemonize no >"$work/redis.log" 2>&1 &
    redis_pid=$!
    answers "$redis_pid" "$work/redis.log" redis-cli -p "$redis_port" ping
    for clients in $connections; do
        for operation in set get; do
            # The warm-up says how many requests fill the time.
            rate=$(load_redis "$operation" "$clients" 5000 | awk '{ printf "%.0f", $1 / $2 * 1e6 }')
            measure redis "$operation" "$clients" - "$redis_pid" load_redis "$operation" "$clients" $((rate * seconds))
        done
    done
    stop "$redis_pid"
    redis_pid=''
    rm -rf "$work/redis"
}

# ---- the run -----------------------------------------------------------------------------------------------

for ((repeat = 1; repeat <= repeats; repeat++)); do
    say "run $repeat of $repeats"
    disk
    # shellcheck disable=SC2086 # a list of words
    cases "$shards" $connections
    [ "$shards" = 1 ] || cases 1 1
    [ "$redis" = 0 ] || cases_of_redis
done

table() {
    echo "$(date -u +%F), $(uname -m), $(nproc) processors, Linux $(uname -r), $("$debros" --version 2>/dev/null | head -n 1),"
    echo "\`SECONDS_EACH=$seconds REPEATS=$repeats SHARDS=$shards CONNECTIONS=\"$connections\" benches/wrk/run.sh\`"
    echo
    python3 "$here/table.py" "$results"
}
if [ -n "$out" ]; then table | tee "$out"; else table; fi
