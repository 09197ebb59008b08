# SPDX-License-Identifier: Apache-2.0
"""The deterministic ways to make an unmount lie or hang, each ended by its cause alone. Where each of them is:

 1  asynchronous umount, no process in another namespace    test_holders: open_tree
 2  a namespace without process                             test_holders: nsfs_bind
 3  one thread in a namespace of its own                    test_holders: thread_copy
 4  a namespace kept by an fd on its mountinfo only         test_holders: mountinfo_fd; here: we keep none ourselves
 5  a frozen file system                                    test_holders: frozen
 6  an overlay's lower layer                                test_holders: overlay
 7  EBUSY after the holder was reaped (io_uring)            here
 8  a holder that is in flight in a socket only             test_holders: file_in_flight, raw_in_flight
 9  blind spots of an exclusive open                        test_holders: raw_fd, stacked_loop, stacked_mount
10  a prober that opens the device exclusively              here
11  udevd opens the device at each of its events            here
12  namespaces that come and go                             test_cycles, test_chaos
13  the founding hang: metadata cannot be written           here
14  a mute device                                           here; iSCSI: test_mute_target, test_failing_device
"""
import os
import pathlib
import re
import signal
import sys
import threading
import time

import pytest

from mooring import kernel
from mooring.heartbeat import Heartbeat
from mooring.holders import Helper
from mooring.kernel import mounts_at
from mooring.udev import change
from mooring.wait import eventually

MIB = 1 << 20
DEADLINE_S = 3  # of a worker
PROMPT_S = 6  # from the end of the cause to the end of the detach


# --- 4 ---

def pinned_namespaces(a):
    """Fds of the agent and its workers that would keep a foreign mount namespace."""
    found = []
    for process in [kernel.Process(a.pid), *kernel.our_processes("mooring-worker")]:
        try:
            for entry in os.scandir(f"/proc/{process.pid}/fd"):
                path = os.readlink(entry.path)
                if path.startswith("mnt:[") or (path.endswith(("/mountinfo", "/mounts"))
                                                and f"/{process.pid}/" not in path):
                    found.append((process, path))
        except OSError:
            continue  # ended meanwhile
    return found


def test_4_nobody_of_us_keeps_a_namespace(agent, image, hold):
    """A scan reads foreign tables and enters namespaces; one of their fds kept would be a hold of our own."""
    a = agent()
    doc = a.attach("v", a.file_spec(image(64 * MIB), fs="ext4"))
    holders = [getattr(hold, kind)(doc) for kind in ("mount_copy", "nsfs_bind", "mountinfo_fd")]
    operation = a.delete("v", wait=1).expect(202).operation
    for _ in range(10):
        a.holders("v")
    # A scan at work may have one for a moment.
    eventually(lambda: not pinned_namespaces(a), 5, "no namespace is kept")
    for holder in holders:
        holder.release()
    assert a.operation(operation, wait=10)["state"] == "done"


# --- 7 ---

def kill_and_reap(holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.release()


def test_7_busy_after_the_holder_was_reaped(agent, image, hold):
    """io_uring lets its files go some time after waitpid(2) has returned: nobody to name, and EBUSY all the same."""
    a = agent()
    spec = a.file_spec(image(64 * MIB), fs="ext4")
    took = []
    for _ in range(10):
        doc = a.attach("v", spec)
        kill_and_reap(hold.io_uring(doc))
        answer = a.delete("v", wait=10).expect(200)
        took.append(answer.ms)
        assert not kernel.still_mapped(doc)
    # The same, with a detach that has named it and waits.
    doc = a.attach("v", spec)
    holder = hold.io_uring(doc)
    operation = a.delete("v", wait=1).expect(202).operation
    assert [row["pid"] for row in a.holders("v")["holders"]] == [holder.pid]
    kill_and_reap(holder)
    started = time.monotonic()
    assert a.operation(operation, wait=10)["state"] == "done"
    took.append((time.monotonic() - started) * 1000)
    print(f"from the holder's end to the end of the detach, ms: {[round(ms) for ms in took]}")
    assert max(took) < 2000


# --- 10 ---

class Prober(threading.Thread):
    """Opens the device exclusively for a moment, each millisecond."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node, self.over = node, threading.Event()
        self.busy = self.free = 0

    def run(self):
        while not self.over.is_set():
            try:
                fd = os.open(self.node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
                time.sleep(0.0002)
                os.close(fd)
                self.free += 1
            except OSError:
                self.busy += 1
            time.sleep(0.001)


def test_10_a_prober_is_no_holder(agent, image):
    a = agent()
    spec = a.file_spec(image(64 * MIB), fs="ext4")
    took = []
    for _ in range(10):
        doc = a.attach("v", spec)
        prober = Prober(doc["device"])
        prober.start()
        try:
            eventually(lambda: prober.busy > 5, 5, "the prober runs")
            answer = a.delete("v", wait=10).expect(200)
        finally:
            prober.over.set()
            prober.join(5)
        took.append(answer.ms)
        assert not kernel.still_mapped(doc)
        assert answer.json["waited_for"] == [], "nobody is accused"
    print(f"detach beside a prober, ms: {[round(ms) for ms in took]}")
    assert max(took) < 2000


# --- 11 ---

def test_11_udevd_looks_at_the_device(udevd, agent, image):
    """Its short opens may put the clearing off; nobody is accused, and the source is free when the proof is there."""
    a = agent()
    spec = a.file_spec(image(64 * MIB), fs="ext4")
    took = []
    for cycle in range(40):
        doc = a.put("v", spec).expect(201).json
        change(doc["device"])
        time.sleep(cycle % 16 / 1000)
        answer = a.delete("v", wait=10).expect(200)
        took.append(answer.ms)
        assert answer.json["waited_for"] == [] and not kernel.still_mapped(doc)
    print(f"detach beside udevd, ms: median {sorted(took)[20]:.0f}, max {max(took):.0f}")
    assert max(took) < 2000


# --- 13 ---

def make_metadata(document):
    for number in range(200):
        with open(pathlib.Path(document["mount_path"], f"f{number}"), "wb", buffering=0) as file:
            file.write(b"x")
            os.fsync(file.fileno())


def wedged_at(a, operation):
    """The volume `v` must become wedged by a worker in D; returns the kernel functions that it is in."""
    wedged = eventually(lambda: (d := a.get("v").json)["state"] == "wedged" and d, DEADLINE_S + 5, "wedged")
    assert (wedged["step"], wedged["operation"]) == ("unmount", operation), wedged
    error = wedged["error"]
    assert error["code"] == "wedged" and error["remedy"], error
    pid, functions = re.search(r"process (\d+) hangs in the kernel at ([\w. <-]+)", error["message"]).groups()
    assert kernel.Process(int(pid)).state == "D"
    return functions.split(" <- ")


def test_13_the_founding_hang(agent, fuse_files, image):
    """XFS as old kernels have it: unmount retries metadata for ever. The volume is wedged, all else goes on."""
    a = agent(config={"worker": {"deadline_seconds": DEADLINE_S}})
    file = fuse_files()
    doc = a.attach("v", a.file_spec(file.path))
    name = os.path.basename(doc["device"])
    fail_at_unmount = pathlib.Path(f"/sys/fs/xfs/{name}/error/fail_at_unmount")
    assert fail_at_unmount.read_text().strip() == "1", "what we rely on"
    fail_at_unmount.write_text("0")
    make_metadata(doc)
    file.fail_below(100 * MIB)
    with Heartbeat(a, image(64 * MIB)):
        operation = a.delete("v", wait=0).expect(202).operation
        assert "xfs_ail_push_all_sync" in wedged_at(a, operation)
        assert kernel.still_mapped(doc)
        a.put("v", doc["spec"]).expect(409)
        time.sleep(1)
        assert a.get("v").json["state"] == "wedged"
    file.well()
    started = time.monotonic()
    done = a.operation(operation, wait=20)
    assert done["state"] == "done" and time.monotonic() - started < PROMPT_S, done
    assert done["result"]["evidence"]["exclusive_open"] is True
    assert not kernel.still_mapped(doc)
    kernel.run("xfs_repair", "-n", file.backing)
    assert a.attach("v", {**doc["spec"], "filesystem": {**doc["spec"]["filesystem"], "format": "never"}})
    assert len(list(pathlib.Path(doc["mount_path"]).iterdir())) == 200


# --- 14 ---

@pytest.mark.parametrize("fs, end", [("xfs", "well"), ("ext4", "abort")])
def test_14_a_mute_device(agent, fuse_files, image, fs, end):
    a = agent(config={"worker": {"deadline_seconds": DEADLINE_S}})
    file = fuse_files()
    doc = a.attach("v", a.file_spec(file.path, fs=fs))
    pathlib.Path(doc["mount_path"], "dirty").write_bytes(os.urandom(4 * MIB))
    file.mute()
    with Heartbeat(a, image(64 * MIB)):
        operation = a.delete("v", wait=0).expect(202).operation
        assert "__x64_sys_syncfs" in wedged_at(a, operation)
        assert kernel.still_mapped(doc) and not kernel.unmap_asked(doc) and mounts_at(doc["mount_path"])
        time.sleep(1)
    getattr(file, end)()
    started = time.monotonic()
    done = a.operation(operation, wait=20)
    assert time.monotonic() - started < PROMPT_S
    if end == "well":
        assert done["state"] == "done", done
        kernel.run("xfs_repair", "-n", file.backing)
    else:
        assert done["error"]["code"] == "data-not-written", done
        assert kernel.still_mapped(doc)
        a.detach("v", accept_data_loss="true")
    assert not kernel.still_mapped(doc)


OPENS_AND_MAPS = """
import mmap, sys
with open(sys.argv[1], "r+b") as file, mmap.mmap(file.fileno(), 0):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_14_a_scan_passes_a_mute_file_of_somebody_else(agent, fuse_files, image, hold):
    """To ask a mute FUSE server for a file's attributes is to hang: the scan looks without asking."""
    a = agent()
    doc = a.attach("v", a.file_spec(image(), fs="ext4"))
    holder = hold.open_file(doc)
    file = fuse_files(MIB)
    other = Helper(sys.executable, "-I", "-c", OPENS_AND_MAPS, file.path)
    file.mute()
    try:
        for _ in range(5):
            started = time.monotonic()
            scan = a.holders("v")
            took = time.monotonic() - started
            assert took < 2, f"{took:.1f} s"
            assert [row["pid"] for row in scan["holders"]] == [holder.pid], scan
        operation = a.delete("v", wait=1).expect(202).operation
        assert [row["pid"] for row in a.holders("v")["holders"]] == [holder.pid]
        holder.release()
        assert a.operation(operation, wait=10)["state"] == "done"
    finally:
        file.well()
    other.release()
