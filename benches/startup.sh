#!/usr/bin/env bash
# How fast does a node start, and what does it cost when nobody asks?
#
# Starts its own node on an empty directory, RUNS times: from spawning it to the first 200 of a CREATE TABLE
# (POST /v1/rqlite/exec), in milliseconds. Then leaves the last one alone for IDLE_SECONDS: the share of one
# processor it used, and its resident memory. Stops what it started, and nothing else.
#
# Environment: RUNS (5), SHARDS (2), IDLE_SECONDS (10), DEBROS (bin/debros), DIR (target/; where the data goes).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"
runs=${RUNS:-5} shards=${SHARDS:-2} idle_seconds=${IDLE_SECONDS:-10}
need python3
in_directory

exec env PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 python3 - "$debros" "$DIR" "$runs" "$shards" "$idle_seconds" <<'PYTHON'
import http.client, json, statistics, sys, tempfile, time
from node import Node

debros, parent, runs, shards, idle_seconds = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
PATIENCE = 30  # seconds for a node to answer, and to stop

def first_answer(node, began):
    body = json.dumps({"sql": "CREATE TABLE t (v TEXT)"})
    status = None
    while time.monotonic() - began < PATIENCE:
        if node.ended_with() is not None:
            sys.exit(f"startup.sh: the node ended with {node.ended_with()}")
        connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=PATIENCE)
        try:
            connection.request("POST", "/v1/rqlite/exec", body, {"X-API-Key": "k"})
            status = connection.getresponse().status
            if status == 200:
                return time.monotonic() - began
            if status != 503:
                sys.exit(f"startup.sh: the node answered {status}")
        except OSError:
            pass  # does not listen yet
        finally:
            connection.close()
        time.sleep(0.001)
    sys.exit(f"startup.sh: no 200 within {PATIENCE} s, last {status}")

took = []
for run in range(runs):
    with tempfile.TemporaryDirectory(prefix="startup.", dir=parent) as data, tempfile.TemporaryFile() as log:
        began = time.monotonic()
        with Node(debros, f"{data}/data", log, "k:default", shards, PATIENCE) as node:
            took.append(1000 * first_answer(node, began))
            if run == runs - 1:
                time.sleep(1)  # let the start end
                idle, resident = node.share(idle_seconds), node.resident_mb()
each = ", ".join(f"{it:.0f}" for it in took)
print(f"start to first 200 of exec: median {statistics.median(took):.0f} ms ({each})")
print(f"idle: {idle:.1f} % of a processor, {resident:.0f} MB resident")
PYTHON
