# SPDX-License-Identifier: Apache-2.0
"""Helpers that run as processes of their own: tools.py MODE ARGUMENT. Each says "ready", and ends when stdin closes."""
import os
import select
import sys
import time

BLOCK_BYTES = 4096


def asked_to_end(timeout_s):
    return bool(select.select([sys.stdin], [], [], timeout_s)[0])


def writer(path):
    """Appends and fsyncs all the time."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    count, failed = 0, None
    print("ready", flush=True)
    while not asked_to_end(0.002):
        if failed is not None:
            continue
        try:
            os.write(fd, bytes([count & 0xff]) * BLOCK_BYTES)
            os.fsync(fd)
            count += 1
        except OSError as error:
            failed = error.errno
    print(f"ok {count}" if failed is None else f"error {failed} after {count}")


def pulse(path):
    """Appends and fsyncs all the time, and takes the longest time between two that were done."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    count, longest = 0, 0.0
    last = time.monotonic()
    print("ready", flush=True)
    while not asked_to_end(0.002):
        os.write(fd, bytes([count & 0xff]) * BLOCK_BYTES)
        os.fsync(fd)
        count, now = count + 1, time.monotonic()
        longest, last = max(longest, now - last), now
    print(f"{count} {longest:.3f}")


def observe(name):
    """Watches one loop device: it must not be on its way out (autoclear) while an xfs lives on it."""
    alive = f"/sys/fs/xfs/{name}"
    seen_alive = early = 0
    print("ready", flush=True)
    while not asked_to_end(0):
        if os.path.exists(alive):
            seen_alive += 1
            try:
                with open(f"/sys/block/{name}/loop/autoclear", encoding="ascii") as file:
                    early += file.read(1) == "1" and os.path.exists(alive)
            except OSError:
                pass
        time.sleep(0.0003)
    print(f"early {early} of {seen_alive}")


{"writer": writer, "pulse": pulse, "observe": observe}[sys.argv[1]](sys.argv[2])
