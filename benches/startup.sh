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

exec python3 - "$debros" "$DIR" "$runs" "$shards" "$idle_seconds" <<'PYTHON'
import http.client, json, os, socket, statistics, subprocess, sys, tempfile, time

debros, parent, runs, shards, idle_seconds = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
PATIENCE = 30  # seconds for a node to answer, and to stop

def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]

def ticks(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])

def resident_kb(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))

def first_answer(node, port, began):
    body = json.dumps({"sql": "CREATE TABLE t (v TEXT)"})
    status = None
    while time.monotonic() - began < PATIENCE:
        if node.poll() is not None:
            sys.exit(f"startup.sh: the node ended with {node.returncode}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
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

def stop(node):
    node.terminate()
    try:
        node.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()

took = []
for run in range(runs):
    with tempfile.TemporaryDirectory(prefix="startup.", dir=parent) as data, tempfile.TemporaryFile() as log:
        port = free_port()
        command = [debros, "node", "--data", f"{data}/data", "--gateway-addr", f"127.0.0.1:{port}", "--metrics-addr=",
                   "--shards", str(shards), "--rqlite-http-port", str(free_port()),
                   "--rqlite-raft-port", str(free_port()), "--p2p-port", str(free_port())]
        began = time.monotonic()
        node = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "GATEWAY_API_KEYS": "k:default"})
        try:
            took.append(1000 * first_answer(node, port, began))
            if run == runs - 1:
                time.sleep(1)  # let the start end
                before, since = ticks(node.pid), time.monotonic()
                time.sleep(idle_seconds)
                used = (ticks(node.pid) - before) / os.sysconf("SC_CLK_TCK")
                idle = 100 * used / (time.monotonic() - since)
                resident = resident_kb(node.pid)
        finally:
            stop(node)
each = ", ".join(f"{it:.0f}" for it in took)
print(f"start to first 200 of exec: median {statistics.median(took):.0f} ms ({each})")
print(f"idle: {idle:.1f} % of a processor, {resident / 1024:.0f} MB resident")
PYTHON
