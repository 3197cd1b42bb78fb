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

exec python3 - "$debros" "$DIR" "${N:-2000}" "${MORE:-11}" "${SHARDS:-2}" "${IDLE_SECONDS:-10}" <<'PYTHON'
import http.client, json, os, socket, statistics, subprocess, sys, tempfile, time

debros, parent, n, more, shards, idle_seconds = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
PATIENCE = 60  # seconds for a node to answer, to become quiet, and to stop

def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]

def ticks(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])

def status_kb(pid, key):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key + ":"))

def n_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))

def n_databases(pid):
    paths = (os.readlink(f"/proc/{pid}/fd/{it}") for it in os.listdir(f"/proc/{pid}/fd"))
    return sum(it.endswith(".db") for it in paths)

def share(pid, seconds):
    """Of one processor, in per cent."""
    before, since = ticks(pid), time.monotonic()
    time.sleep(seconds)
    return 100 * (ticks(pid) - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - since)

def write(connection, key, sql):
    connection.request("POST", "/v1/rqlite/exec", json.dumps({"sql": sql}), {"X-API-Key": key})
    reply = connection.getresponse()
    body = reply.read()
    assert reply.status == 200, (key, reply.status, body)

with tempfile.TemporaryDirectory(prefix="idle.", dir=parent) as data, tempfile.TemporaryFile() as log:
    port = free_port()
    command = [debros, "node", "--data", f"{data}/data", "--gateway-addr", f"127.0.0.1:{port}", "--metrics-addr=",
               "--shards", str(shards), "--rqlite-http-port", str(free_port()),
               "--rqlite-raft-port", str(free_port()), "--p2p-port", str(free_port())]
    keys = ",".join(f"k{it}:n{it}" for it in range(n + more))
    node = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "GATEWAY_API_KEYS": keys})
    try:
        began = time.monotonic()
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
                connection.request("GET", "/health/ready")
                reply = connection.getresponse()
                reply.read()
                if reply.status == 200:
                    break
            except OSError:
                pass  # does not listen yet
            if node.poll() is not None or time.monotonic() - began > PATIENCE:
                sys.exit("idle.sh: the node did not start")
            time.sleep(0.02)
        empty = status_kb(node.pid, "VmRSS")
        began = time.monotonic()
        for nth in range(n):
            write(connection, f"k{nth}", "CREATE TABLE t (v TEXT)")
            write(connection, f"k{nth}", "INSERT INTO t VALUES ('one row')")
        took = time.monotonic() - began
        connection.close()
        busy, until = status_kb(node.pid, "VmRSS"), time.monotonic() + PATIENCE
        while share(node.pid, 1) > 1 and time.monotonic() < until:
            pass
        used, resident = share(node.pid, idle_seconds), status_kb(node.pid, "VmRSS")
        files, databases = n_files(node.pid), n_databases(node.pid)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        firsts = []
        for nth in range(n, n + more):
            time.sleep(0.2)
            began = time.monotonic()
            write(connection, f"k{nth}", "CREATE TABLE t (v TEXT)")
            firsts.append(1000 * (time.monotonic() - began))
    finally:
        node.terminate()
        try:
            node.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()
print(f"{n} namespaces with a row each: {took:.1f} s; resident {empty / 1024:.0f} MB before, {busy / 1024:.0f} MB at once")
print(f"idle: {used:.2f} % of a processor, {resident / 1024:.0f} MB resident, {files} files open, {databases} of them databases")
each = ", ".join(f"{it:.1f}" for it in firsts)
print(f"first write to one more: median {statistics.median(firsts):.1f} ms ({each})")
PYTHON
