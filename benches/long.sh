#!/usr/bin/env bash
# What do long statements cost those beside them?
#
# 1. A table of ROWS rows; CLIENTS clients insert into the same database, first alone, then while a SELECT over all
#    of it runs for READ_SECONDS. Percentiles of the inserts, and the largest -wal seen.
# 2. A table of TABLE_MIB; each statement whose time grows with it, while another namespace on the same core is
#    served by one client. Then what the core tells of its turns when it stops.
#
# Starts its own node with one shard on a fresh directory, and stops it. Phases alternate, ROUNDS times; medians.
# The clients are wrk's: ones that take as much of a processor as the node does would be measured with it.
#
# Environment: ROWS (1000000), TABLE_MIB (1024), CLIENTS (4), READ_SECONDS (10), ROUNDS (3), DEBROS (bin/debros),
# DIR (target/; a directory on the disk to measure).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"
need python3 wrk
in_directory

exec env PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 python3 - "$debros" "$DIR" "${ROWS:-1000000}" \
    "${TABLE_MIB:-1024}" "${CLIENTS:-4}" "${READ_SECONDS:-10}" "${ROUNDS:-3}" <<'PYTHON'
import glob, http.client, json, os, re, signal, statistics, subprocess, sys, tempfile, threading, time
from node import Node

debros, parent, rows, mib, clients, read_seconds, rounds = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
PATIENCE = 120

class Client:
    def __init__(self, port, key):
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.key = key

    def post(self, what, sql, args=()):
        body = json.dumps({"sql": sql, "args": list(args)})
        self.http.request("POST", f"/v1/rqlite/{what}", body, {"X-API-Key": self.key})
        reply = self.http.getresponse()
        return reply.status, json.loads(reply.read())

    def must(self, what, sql, args=()):
        until = time.time() + PATIENCE
        while True:
            status, reply = self.post(what, sql, args)
            # Refused if the -wal stays at its bound.
            if status != 503 or time.time() > until:
                assert status == 200, (status, reply, sql)
                return reply
            time.sleep(0.05)

def wal_bytes(data):
    return max((os.path.getsize(it) for it in glob.glob(f"{data}/partitions/*/*/*-wal")), default=0)

def under_load(port, key, n, sql, seconds, ended=None):
    """Insert from n clients, one request at a time each, for so long, or until it has ended; p50 and p99 in ms."""
    script = f"{work}/{key}.lua"
    with open(script, "w") as file:
        body = json.dumps({"sql": sql, "args": [7]})
        file.write(f"""
            wrk.method, wrk.body = "POST", [==[{body}]==]
            wrk.headers["X-API-Key"], wrk.headers["Content-Type"] = "{key}", "application/json"
            done = function(summary, latency)
                local errors = summary.errors
                io.write(string.format("%d %d %d\\n", latency:percentile(50), latency:percentile(99),
                    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
            end""")
    load = subprocess.Popen(
        ["wrk", "-t1", f"-c{n}", f"-d{seconds}s", "-s", script, f"http://127.0.0.1:{port}/v1/rqlite/exec"],
        stdout=subprocess.PIPE, text=True)
    if ended:
        ended.wait(seconds)
        load.send_signal(signal.SIGINT)
    told, _ = load.communicate()
    p50, p99, errors = map(int, told.split("\n")[-2].split())
    if errors:
        print(f"  {errors} requests were refused")
    return p50 / 1e3, p99 / 1e3

with tempfile.TemporaryDirectory(dir=parent, prefix="long.") as work:
    data, config = f"{work}/data", f"{work}/node.yaml"
    with open(config, "w") as file:
        file.write(f"limits:\n  statement_ms: {read_seconds * 1000}\n  statement_steps: 2000000000\n"
                   f"  database_bytes: {8 << 30}\n")
    with open(f"{work}/log", "w") as log, \
            Node(debros, data, log, "k1:one,k2:two", 1, PATIENCE, "--config", config) as node:
        port = node.port
        for _ in range(500):
            try:
                tenant = Client(port, "k1"); tenant.must("query", "SELECT 1"); break
            except OSError:
                time.sleep(0.02)
        numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?)"
        tenant.must("exec", "CREATE TABLE many(a INTEGER PRIMARY KEY, b INTEGER, c TEXT)")
        tenant.must("exec", f"{numbers} INSERT INTO many(b, c) SELECT x % 1000, 'row number ' || x FROM n", [rows])
        endless = "SELECT sum(x.b * y.b) FROM many x, many y"
        insert = "INSERT INTO many(b, c) VALUES (?, 'some text to insert')"
        alone, beside, wal_max = [], [], 0
        for _ in range(rounds):
            alone.append(under_load(port, "k1", clients, insert, read_seconds))
            ended = threading.Event()
            def read():
                status, reply = Client(port, "k1").post("query", endless)
                assert reply.get("code") == "statement_ms", (status, reply)
                ended.set()
            reader = threading.Thread(target=read)
            reader.start()
            def look():
                global wal_max
                while not ended.wait(0.1):
                    wal_max = max(wal_max, wal_bytes(data))
            looker = threading.Thread(target=look)
            looker.start()
            beside.append(under_load(port, "k1", clients, insert, PATIENCE, ended))
            reader.join()
            looker.join()
        median = lambda pairs, at: statistics.median(it[at] for it in pairs)
        print(f"{rows} rows, {clients} clients insert: alone p50 {median(alone, 0):.2f} ms, p99 {median(alone, 1):.2f} ms; "
              f"beside a SELECT of {read_seconds} s p50 {median(beside, 0):.2f} ms, p99 {median(beside, 1):.2f} ms; "
              f"largest -wal {wal_max >> 20} MiB")
        print("  p99 of each round, ms: alone", [round(it[1], 2) for it in alone], "beside", [round(it[1], 2) for it in beside])

        for table in ("large", "other"):
            tenant.must("exec", f"CREATE TABLE {table}(a INTEGER PRIMARY KEY, b INTEGER, c BLOB)")
            for _ in range(max(1, mib // 64)):
                tenant.must("exec", f"{numbers} INSERT INTO {table}(b, c) SELECT x % 1000, randomblob(950) FROM n", [64 << 10])
        neighbour = Client(port, "k2")
        neighbour.must("exec", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        elsewhere = "INSERT INTO t(b) VALUES (?)"
        print(f"table of {mib} MiB; another namespace meanwhile, and alone before and after:")
        for what, sql in [("query", "SELECT count(*) FROM large"), ("exec", "CREATE INDEX large_b ON large(b)"),
                          ("query", "SELECT b, max(c) FROM other GROUP BY b ORDER BY 2 LIMIT 1"),
                          ("exec", "DELETE FROM large"), ("exec", "DROP TABLE other")]:
            ended, ending = threading.Event(), {}
            def run():
                began = time.time()
                ending["is"] = Client(port, "k1").post(what, sql)
                ending["took"] = time.time() - began
                ended.set()
            quiet = [under_load(port, "k2", 1, elsewhere, 3)]
            thread = threading.Thread(target=run)
            thread.start()
            p50, p99 = under_load(port, "k2", 1, elsewhere, PATIENCE, ended)
            thread.join()
            quiet.append(under_load(port, "k2", 1, elsewhere, 3))
            status, reply = ending["is"]
            told = "" if status == 200 else f" ({status} {reply.get('code')})"
            print(f"  {sql}: {ending['took']:.2f} s{told}; p50 {p50:.2f} ms, p99 {p99:.2f} ms "
                  f"(alone p50 {quiet[0][0]:.2f} and {quiet[1][0]:.2f}, p99 {quiet[0][1]:.2f} and {quiet[1][1]:.2f})")
    with open(f"{work}/log") as file:
        text = re.sub(r"\x1b\[[0-9;]*m", "", file.read())
    for line in text.splitlines():
        if "core has stopped" in line:
            print(" ", " ".join(it for it in line.split() if it.startswith("turn")))
PYTHON
