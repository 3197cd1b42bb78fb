#!/usr/bin/env python3
"""Results of `debros bench` as lines, and lines as a markdown table of medians. For run.sh.

usage: table.py line RESULT.json NAME CLIENTS SHARDS
       table.py table FILE
A line is tab-separated: name, clients, shards, per second, p50 and p99 in us, CPU in us each, p50 of the disk in us.
A transaction counts its rows, per second and for the CPU.
"""
import json
import sys
from statistics import median


def line(path, name, clients, shards):
    with open(path, encoding="utf-8") as file:
        result = json.load(file)
    phase = result["phases"][0]
    group, server, disk = phase["groups"][0], phase["server"], result["disk"]
    if group["errors"]:
        sys.exit(f"{name} with {clients} clients: {group['errors']}")
    cpu = server["cpu_us_per_row"] or server["cpu_us_per_operation"]
    latency = group["latency_us"]
    rate = group["rows_per_second"] or group["operations_per_second"]
    of_disk = min(disk["before"]["p50_us"], disk["after"]["p50_us"]) if disk and disk["p50_ratio"] else "-"
    print(name, clients, shards, rate, latency["p50"], latency["p99"], cpu, of_disk, sep="\t")


def show(value, digits=0):
    return "-" if value is None else f"{value:,.{digits}f}".replace(",", " ")


def middle(values):
    known = [float(it) for it in values if it != "-"]
    return median(known) if known else None


def table(path):
    cases = {}
    with open(path, encoding="utf-8") as file:
        for text in file:
            name, clients, shards, *numbers = text.rstrip("\n").split("\t")
            cases.setdefault((name, clients, shards), []).append(numbers)
    print("| case | clients | shards | per second | lowest to highest | p50 us | p99 us | CPU us each | p50 of the disk, us | p50 of disk's |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for (name, clients, shards), runs in cases.items():
        rate, p50, p99, cpu, disk = (middle(column) for column in zip(*runs))
        rates = [float(it[0]) for it in runs]
        ratio = f"{p50 / disk:.1f} x" if disk else "-"
        spread = f"{show(min(rates))} to {show(max(rates))}"
        print(f"| {name} | {clients} | {shards} | {show(rate)} | {spread} | {show(p50)} | {show(p99)} "
              f"| {show(cpu, 1)} | {show(disk)} | {ratio} |")


if __name__ == "__main__":
    {"line": line, "table": table}[sys.argv[1]](*sys.argv[2:])
