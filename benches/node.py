"""A node of its own for a measurement: started on a directory, looked at through /proc, and stopped.

Imported by the scripts here, which set PYTHONPATH to this folder.
"""
import os, socket, subprocess, time


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


class Node:
    """A running `debros node`. As a context it is stopped at the end, within `patience` seconds or by force."""

    def __init__(self, debros, data, log, keys, shards, patience, *more):
        self.port, self.patience = free_port(), patience
        command = [debros, "node", "--data", data, "--gateway-addr", f"127.0.0.1:{self.port}", "--metrics-addr=",
                   "--shards", str(shards), "--rqlite-http-port", str(free_port()),
                   "--rqlite-raft-port", str(free_port()), "--p2p-port", str(free_port()), *more]
        environment = {**os.environ, "GATEWAY_API_KEYS": keys}
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.proc = f"/proc/{self.process.pid}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(self.patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ended_with(self):
        """Its exit code; None while it runs."""
        return self.process.poll()

    def share(self, seconds):
        """What it uses of one processor for so long, in per cent."""
        before, since = self._ticks(), time.monotonic()
        time.sleep(seconds)
        ticks = self._ticks() - before
        return 100 * ticks / os.sysconf("SC_CLK_TCK") / (time.monotonic() - since)

    def resident_mb(self):
        with open(f"{self.proc}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:")) / 1024

    def files(self):
        """What its open files are called."""
        return [os.readlink(f"{self.proc}/fd/{it}") for it in os.listdir(f"{self.proc}/fd")]

    def _ticks(self):
        # Its name is the second field and may hold spaces, so count from the parenthesis.
        with open(f"{self.proc}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
