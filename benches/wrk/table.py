#!/usr/bin/env python3
"""Turn the measurements of run.sh into a markdown table of medians.

usage: table.py FILE, with a measurement a line, tab-separated:
subject, operation, clients, shards, requests per second, p50 and p99 in us, CPU in us a request, CPU of others in %
"""
import sys
from statistics import median


def number(text):
    return None if text == "-" else float(text)


def middle(values):
    known = [it for it in values if it is not None]
    return median(known) if known else None


def show(value, digits=0):
    return "-" if value is None else f"{value:,.{digits}f}".replace(",", " ")


def main():
    cases = {}
    for line in open(sys.argv[1], encoding="utf-8"):
        subject, operation, clients, shards, *numbers = line.rstrip("\n").split("\t")
        cases.setdefault((subject, operation, clients, shards), []).append([number(it) for it in numbers])
    medians = {case: [middle(column) for column in zip(*runs)] for case, runs in cases.items()}
    disk = medians.get(("disk", "write+fdatasync", "1", "-"))
    like = {"insert": "set", "read": "get"}
    print("| case | clients | shards | per second | lowest to highest | p50 us | p99 us | CPU us each | of Redis | p50 of disk's | others' CPU |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for (subject, operation, clients, shards), (rate, p50, p99, cpu, others) in medians.items():
        rates = [it[0] for it in cases[subject, operation, clients, shards]]
        redis = medians.get(("redis", like.get(operation), clients, "-"))
        of_redis = f"{100 * rate / redis[0]:.0f} %" if redis else "-"
        of_disk = f"{p50 / disk[1]:.1f} x" if disk and operation in ("insert", "set") else "-"
        spread = f"{show(min(rates))} to {show(max(rates))}"
        print(f"| {subject} {operation} | {clients} | {shards} | {show(rate)} | {spread} | {show(p50)} | {show(p99)} "
              f"| {show(cpu, 1)} | {of_redis} | {of_disk} | {'-' if others is None else f'{others:.0f} %'} |")


main()
