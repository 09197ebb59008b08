# SPDX-License-Identifier: Apache-2.0
"""Attach and detach again and again, while mount namespaces come and go beside it."""
import hashlib
import os
import pathlib
import subprocess
import threading

import pytest

from mooring import kernel
from mooring.holders import tool
from mooring.kernel import run
from mooring.usage import wait_for_rest
from mooring.wait import eventually

CYCLES = int(os.environ.get("MOORING_CYCLES", "100"))


@pytest.fixture
def churn():
    """`unshare -m sleep 0.02` in a loop: each one is a copy of our namespace that lives a moment."""
    stop, count = threading.Event(), [0]

    def loop():
        while not stop.is_set():
            subprocess.run(["unshare", "-m", "sleep", "0.02"], check=True, timeout=20)
            count[0] += 1

    thread = threading.Thread(target=loop)
    thread.start()
    yield count
    stop.set()
    thread.join(30)


def test_a_hundred_cycles_under_churn(agent, target, churn, tmp):
    a = agent()
    spec, backing = target.spec(), target.luns[1]
    previous, seen_alive, held = None, 0, []
    for cycle in range(CYCLES):
        doc = a.attach("v", spec)
        assert len(target.connections()) == 1
        observer = tool("observe", os.path.basename(doc["device"]))
        try:
            path = pathlib.Path(doc["mount_path"], "data")
            if previous:
                assert hashlib.sha256(path.read_bytes()).hexdigest() == previous, f"cycle {cycle}: data differs"
            data = os.urandom(1 << 20)
            path.write_bytes(data)
            previous = hashlib.sha256(data).hexdigest()
            proof = a.detach("v")
            assert proof["evidence"]["exclusive_open"] is True
            held.append(proof["held_ms"])
            assert not kernel.still_mapped(doc) and not kernel.mounts_at(doc["mount_path"])
            assert target.connections() == [] and kernel.our_processes("mooring-lun") == []
            eventually(lambda: kernel.our_processes("mooring-worker") == [], 5, "the worker ends")
        finally:
            said = observer.release().split()
        assert said[:2] == ["early", "0"], f"cycle {cycle}: unmap asked for while the file system lived: {said}"
        seen_alive += int(said[3])
        if cycle % 10 == 9:
            run("xfs_repair", "-n", backing)
    run("xfs_repair", "-n", backing)
    assert seen_alive > 5 * CYCLES, "the observer saw the file systems"
    assert churn[0] > CYCLES, "there was churn"
    print(f"held after umount, ms: median {sorted(held)[len(held) // 2]}, max {max(held)}; "
          f"{sum(h > 20 for h in held)} of {CYCLES} above 20 ms; {churn[0]} namespaces")


def test_cycles_do_not_make_the_agent_grow(agent, image):
    a = agent()
    spec = a.file_spec(image(64 << 20), fs="ext4")

    def facts():
        status = pathlib.Path(f"/proc/{a.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]), len(os.listdir(f"/proc/{a.pid}/fd"))

    def cycles(count):
        for _ in range(count):
            a.attach("v", spec)
            a.detach("v")
        wait_for_rest(a.pid)  # it has nothing of its last worker any more

    cycles(10)
    rss, fds = facts()
    cycles(30)
    rss_after, fds_after = facts()
    assert fds_after <= fds, f"{fds} fds became {fds_after}"
    if "asan" not in str(a.binary):
        assert rss_after < rss + 2048, f"{rss} KiB became {rss_after} KiB"
