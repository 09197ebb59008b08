# SPDX-License-Identifier: Apache-2.0
"""The journal's files over many cycles of attach and detach, and the longest that a record waited, next to a journal
from which nothing is ever removed. On a tmpfs: what is seen is our own work, not the disk's."""
import pathlib

from measure import MIB, Limit, Row
from mooring import kernel

HISTORY_MIB = 16
AROUND_MIB = 7  # free pages that stay, what comes between two passes, the log
BASELINE_CYCLES = 5000


def cycles(env, name, count, history_mib):
    """(greatest MiB of file and log, longest ms, p99 ms, seconds)"""
    path = env.directory(name)
    kernel.run("mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", path)
    try:
        done = kernel.run(pathlib.Path(env.binary).with_name("journal_cycles"), path, count, history_mib, timeout=1200)
    finally:
        kernel.run("umount", path)
    ended, database, log, longest, p99, seconds = map(float, done.stdout.split())
    assert ended == count
    return (database + log) / MIB, longest, p99, seconds


def run(env):
    count = env.pick(20000, 100000)
    size, longest, p99, seconds = cycles(env, "pruned", count, HISTORY_MIB)
    _, plain_longest, plain_p99, plain_seconds = cycles(env, "kept", BASELINE_CYCLES, 0)
    env.note(f"{count} cycles, 8 records each, in {seconds:.1f} s: {count / seconds:.0f} per second, "
             f"{BASELINE_CYCLES / plain_seconds:.0f} when nothing is removed, which is the baseline")
    return [Limit(f"MiB of file and log, history_mib = {HISTORY_MIB}", round(size, 1), HISTORY_MIB,
                  HISTORY_MIB + AROUND_MIB, "MiB"),
            Row("99 % of the records waited at most", [p99], [plain_p99]),
            Row("longest wait of a record", [longest], [plain_longest])]
