#!/usr/bin/env bash
# What do namespaces cost that were written once and are idle, and the first write to one more?
#
# Starts its own node on an empty directory, has N namespaces come to be with a row each, and waits until the node
# is quiet. Then, for IDLE_SECONDS: the share of one processor that it uses; its resident memory, open files and open
# databases. Then the first write (CREATE TABLE) to further namespaces, one after another, over one connection each
# time, in milliseconds. Stops what it started, and nothing else.
#
# Environment: N (2000), MORE (11) further ones, SHARDS (2), IDLE_SECONDS (10), DEBROS (bin/debros), DIR (target/;
# where the data goes).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"
need python3
in_directory

exec env PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 python3 - "$debros" "$DIR" \
    "${N:-2000}" "${MORE:-11}" "${SHARDS:-2}" "${IDLE_SECONDS:-10}" <<'PYTHON'
import http.client, json, statistics, sys, tempfile, time
from node import Node

debros, parent, n, more, shards, idle_seconds = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
PATIENCE = 60  # seconds for a node to answer, to become quiet, and to stop

def write(connection, key, sql):
    connection.request("POST", "/v1/rqlite/exec", json.dumps({"sql": sql}), {"X-API-Key": key})
    reply = connection.getresponse()
    body = reply.read()
    assert reply.status == 200, (key, reply.status, body)

with tempfile.TemporaryDirectory(prefix="idle.", dir=parent) as data, tempfile.TemporaryFile() as log:
    keys = ",".join(f"k{it}:n{it}" for it in range(n + more))
    with Node(debros, f"{data}/data", log, keys, shards, PATIENCE) as node:
        began = time.monotonic()
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=PATIENCE)
                connection.request("GET", "/health/ready")
                reply = connection.getresponse()
                reply.read()
                if reply.status == 200:
                    break
            except OSError:
                pass  # does not listen yet
            if node.ended_with() is not None or time.monotonic() - began > PATIENCE:
                sys.exit("idle.sh: the node did not start")
            time.sleep(0.02)
        empty = node.resident_mb()
        began = time.monotonic()
        for nth in range(n):
            write(connection, f"k{nth}", "CREATE TABLE t (v TEXT)")
            write(connection, f"k{nth}", "INSERT INTO t VALUES ('one row')")
        took = time.monotonic() - began
        connection.close()
        busy, until = node.resident_mb(), time.monotonic() + PATIENCE
        while node.share(1) > 1 and time.monotonic() < until:
            pass
        used, resident, files = node.share(idle_seconds), node.resident_mb(), node.files()
        databases = sum(it.endswith(".db") for it in files)
        connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=PATIENCE)
        firsts = []
        for nth in range(n, n + more):
            time.sleep(0.2)
            began = time.monotonic()
            write(connection, f"k{nth}", "CREATE TABLE t (v TEXT)")
            firsts.append(1000 * (time.monotonic() - began))
print(f"{n} namespaces with a row each: {took:.1f} s; resident {empty:.0f} MB before, {busy:.0f} MB at once")
print(f"idle: {used:.2f} % of a processor, {resident:.0f} MB resident, {len(files)} files open, {databases} of them databases")
each = ", ".join(f"{it:.1f}" for it in firsts)
print(f"first write to one more: median {statistics.median(firsts):.1f} ms ({each})")
PYTHON
