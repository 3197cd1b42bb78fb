#!/usr/bin/env bash
# The figures of one node: inserts, reads and transactions over HTTP, beside the bare disk, the floor of HTTP alone,
# and a Redis that syncs every write. `debros bench` is the load generator.
#
# Starts its own nodes and its own Redis in a fresh directory on this disk and stops them. Every case runs REPEATS
# times; the table shows medians, and lowest and highest throughput. CPU is user + system of all the server's threads
# for each request, or each row of a transaction. A case fails the run when a request failed or an acknowledged row
# is missing.
#
# Environment: SECONDS_EACH (5) of a case, REPEATS (3), REDIS (1, 0 leaves it out), QUIET_SECONDS (180) to wait at most
# for an idle machine before each case, DEBROS (bin/debros), DIR (target/; a directory on the disk to measure),
# OUT (a file for the table).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"
seconds=${SECONDS_EACH:-5} repeats=${REPEATS:-3} redis=${REDIS:-1} out=${OUT:-}

need curl python3 awk
[ "$redis" = 0 ] || need redis-server redis-benchmark redis-cli

in_directory
work=$(mktemp -d "$DIR/bench.XXXXXX")
results=$work/results
server=''
: >"$results"

stop_server() {
    local pid=$server
    server=''
    stop "$pid"
}
trap 'stop_server; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A line for table.py: name, clients, shards, per second, p50, p99, CPU each, disk's p50. The first two columns and the
# third come from here, the others from a result of `debros bench`.
#   measure NAME CLIENTS SHARDS SCENARIO MORE...
measure() {
    local name=$1 clients=$2 shards=$3 scenario=$4
    shift 4
    quiet
    "$debros" bench "$scenario" --url "$url" --clients "$clients" --duration "${seconds}s" --warmup 1s \
        --json "$work/result.json" "$@" >"$work/said" || { cat "$work/said" >&2; fail "$name with $clients clients"; }
    python3 "$here/table.py" line "$work/result.json" "$name" "$clients" "$shards" >>"$results" || { cat "$work/said" >&2; exit 1; }
    say "$(tail -n 1 "$results")"
}

node() {
    local shards=$1 port
    port=$(free_port)
    url=http://127.0.0.1:$port
    rm -rf "$work/data"
    GATEWAY_API_KEYS=bench:bench "$debros" node --data "$work/data" --gateway-addr "127.0.0.1:$port" --metrics-addr= \
        --shards "$shards" >"$work/log" 2>&1 &
    server=$!
    answers "$server" "$work/log" curl -fsS -m 2 "$url/health"
    local key=(--key bench --disk "$work")
    if [ "$shards" != 1 ]; then
        measure insert 64 "$shards" insert "${key[@]}"
        measure insert 256 "$shards" insert "${key[@]}"
        measure "transaction of 1 000 rows" 4 "$shards" transaction "${key[@]}"
        measure "read by key" 64 "$shards" read "${key[@]}"
    fi
    measure insert 1 "$shards" insert "${key[@]}"
    measure "read by key" 1 "$shards" read "${key[@]}"
    stop_server
    if grep -E '\b(WARN|ERROR)\b' "$work/log" | grep -v 'setting has no effect' >&2; then say "the node complained"; fi
}

floor() {
    url=http://127.0.0.1:$(free_port)
    "$debros" bench hello --url "$url" --threads "$1" >"$work/log" 2>&1 &
    server=$!
    answers "$server" "$work/log" curl -fsS -m 2 "$url"
    [ "$1" = 1 ] || measure "HTTP alone" 64 "$1" get --disk ''
    measure "HTTP alone" 1 "$1" get --disk ''
    stop_server
}

# redis-benchmark wants a number of requests, not a time; prints requests per second, p50 and p99 in us.
load_redis() {
    timeout 120 redis-benchmark -p "$port" -t "$1" -c "$2" -d 64 -P 1 -n "$3" --csv >"$work/redis.csv"
    tail -n 1 "$work/redis.csv" | tr -d '"' | awk -F, '{ print $2, 1000 * $5, 1000 * $7 }'
}

redis() {
    local port clients operation rate p50 p99 n before
    port=$(free_port)
    mkdir "$work/redis"
    redis-server --port "$port" --bind 127.0.0.1 --dir "$work/redis" --appendonly yes --appendfsync always \
        --auto-aof-rewrite-percentage 0 --save '' --daemonize no >"$work/log" 2>&1 &
    server=$!
    answers "$server" "$work/log" redis-cli -p "$port" ping
    for clients in 1 64 256; do
        for operation in set get; do
            # The warm-up says how many requests fill the time.
            read -r rate _ < <(load_redis "$operation" "$clients" 5000)
            n=$(awk -v rate="$rate" -v seconds="$seconds" 'BEGIN { printf "%d", rate * seconds }')
            quiet
            before=$(ticks_of "$server")
            read -r rate p50 p99 < <(load_redis "$operation" "$clients" "$n")
            awk -v name="Redis $operation" -v clients="$clients" -v rate="$rate" -v p50="$p50" -v p99="$p99" \
                -v ticks=$(($(ticks_of "$server") - before)) -v hertz="$hertz" -v n="$n" -v OFS='\t' \
                'BEGIN { print name, clients, "-", rate, p50, p99, ticks / hertz * 1e6 / n, "-" }' >>"$results"
            say "$(tail -n 1 "$results")"
        done
    done
    stop_server
    rm -rf "$work/redis"
}

for ((repeat = 1; repeat <= repeats; repeat++)); do
    say "run $repeat of $repeats"
    node 2
    node 1
    floor 2
    floor 1
    [ "$redis" = 0 ] || redis
done

table() {
    echo "$(date -u +%F), $(uname -m), $(nproc) processors, Linux $(uname -r), $("$debros" version),"
    echo "\`SECONDS_EACH=$seconds REPEATS=$repeats benches/run.sh\`"
    echo
    python3 "$here/table.py" table "$results"
}
if [ -n "$out" ]; then table | tee "$out"; else table; fi
