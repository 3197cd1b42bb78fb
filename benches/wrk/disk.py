#!/usr/bin/env python3
"""Time a 4 KiB write and fdatasync, again and again, in a file that has its blocks already.

usage: disk.py DIRECTORY SECONDS; prints writes per second, p50 and p99 in microseconds.
This is the least that a durable write can cost here: O_DIRECT, one at a time, no file system metadata to sync.
"""
import mmap
import os
import sys
import time

BLOCK = 4096
FILE = 64 << 20


def main():
    directory, seconds = sys.argv[1], float(sys.argv[2])
    path = os.path.join(directory, "disk.tmp")
    block = mmap.mmap(-1, BLOCK)  # a page of its own, so aligned as O_DIRECT wants it
    block.write(b"\xa5" * BLOCK)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_DIRECT, 0o600)
    try:
        big = mmap.mmap(-1, 1 << 20)
        for offset in range(0, FILE, 1 << 20):
            os.pwrite(file, big, offset)
        os.fsync(file)
        took, offset, begin = [], 0, time.perf_counter()
        end = begin + seconds
        before = begin
        while before < end:
            os.pwrite(file, block, offset)
            os.fdatasync(file)
            after = time.perf_counter()
            took.append(after - before)
            before, offset = after, (offset + BLOCK) % FILE
    finally:
        os.close(file)
        os.unlink(path)
    took.sort()
    p50, p99 = (1e6 * took[int(len(took) * it)] for it in (0.50, 0.99))
    print(f"{len(took) / (before - begin):.0f} {p50:.1f} {p99:.1f}")


main()
