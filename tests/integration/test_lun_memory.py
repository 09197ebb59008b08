# SPDX-License-Identifier: Apache-2.0
"""Below a file system: memory may be what it is asked to free, and an idle volume costs next to nothing."""
import mmap
import os
import pathlib
import subprocess
import time

import pytest

from mooring import kernel, lun
from mooring.load import Load, fio
from mooring.usage import wake_ups
from mooring.wait import eventually

RESIDENT_KIB = 40 << 10
NOP_S = 5
BLOCK = 4096
GROWTHS = 5
MEMORY = pathlib.Path("/sys/fs/cgroup/memory")
WRITER = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, int(sys.argv[2]))
m = mmap.mmap(fd, int(sys.argv[2]))
for turn in range(2):
    for at in range(0, len(m), 4096):
        m[at:at + 8] = (at + turn).to_bytes(8, "little")
m.flush()
"""


@pytest.fixture
def cgroup():
    """A memory control group (version 1, as the machine has it); None where there is none of our own making."""
    if not (MEMORY / "memory.limit_in_bytes").exists():
        pytest.skip("no memory control group of version 1 here")
    own = next(line.split(":")[2] for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines()
               if "memory" in line.split(":")[1].split(","))
    path = MEMORY / own.lstrip("/") / f"mooring-test-{os.getpid()}"
    path.mkdir()
    yield path
    eventually(lambda: (path / "cgroup.procs").read_text() == "", 20, "the group is empty")
    path.rmdir()


def join(cgroup):
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))


def test_dirtying_writer_in_the_same_small_cgroup_finishes(agent, target, cgroup):
    """Page faults of the writer wait for write-back of its own volume: the server must not need memory for that."""
    a = agent()
    doc = a.attach("v", target.spec())
    for process in lun.keepers() + lun.servers():
        (cgroup / "cgroup.procs").write_text(str(process.pid))
    (cgroup / "memory.limit_in_bytes").write_text(str(96 << 20))
    writer = subprocess.Popen(["/usr/bin/python3", "-c", WRITER, doc["mount_path"] + "/mapped", str(160 << 20)],
                              preexec_fn=lambda: join(cgroup))
    try:
        started = time.monotonic()
        assert writer.wait(120) == 0
        print(f"160 MiB dirtied twice within 96 MiB in {time.monotonic() - started:.1f} s, "
              f"failcnt {(cgroup / 'memory.failcnt').read_text().strip()}")
        assert int((cgroup / "memory.failcnt").read_text()) > 0, "there was pressure"
    finally:
        if writer.poll() is None:
            lun.control(a, "abort")  # what a stuck writer can be ended with
            writer.kill()
            writer.wait(20)
    a.detach("v")


def test_idle_volume(agent, target):
    a = agent(config={"iscsi": {"timeout_seconds": 10}})
    a.attach("v", target.spec())
    processes = lun.keepers() + lun.servers()
    assert len(processes) == 2
    resident = {}
    for process in processes:
        text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        resident[process.cmdline] = int(text.split("VmRSS:")[1].split()[0])
    time.sleep(2 * NOP_S)  # what the mount itself wrote is over; and ext4 would go on initialising its inode tables
    before = {p.pid: wake_ups(p.pid) for p in processes}
    time.sleep(3 * NOP_S + 1)
    woken = sum(wake_ups(pid) - count for pid, count in before.items())
    print(f"KiB {resident}, {woken} wake-ups in {3 * NOP_S + 1} s")
    if "asan" not in str(a.binary):
        assert sum(resident.values()) < RESIDENT_KIB
    assert woken <= 4, "one for each NOP interval"
    memory = lun.status(a)["memory"]
    assert memory["locked"] is True
    a.detach("v")


def last_block(node, size):
    """Read from the device itself."""
    fd = os.open(node, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, BLOCK) as page:
            return os.preadv(fd, [page], size - BLOCK)
    finally:
        os.close(fd)


def test_resize_under_load(agent, target):
    """The kernel drops the attributes that it asked for when a write has ended meanwhile: there are many of them."""
    a = agent()
    doc = a.attach("v", target.spec())
    size = before = lun.status(a)["size_bytes"]
    work = fio(doc["mount_path"] + "/fio", "--bs=4k", "--size=64m", "--iodepth=32", "--loops=1000")
    try:
        with Load(doc["mount_path"]) as load:
            for _ in range(GROWTHS):
                size += 64 << 20
                target.kill()
                os.truncate(target.luns[1], size)
                target.restart()
                load.goes_on()
                status = lun.control(a, "resize")
                assert status["size_bytes"] == size
                kernel.run("losetup", "--set-capacity", doc["device"])
                assert last_block(doc["device"], size) == BLOCK, "loop(4) reads nothing behind the size of its file"
            kernel.run("xfs_growfs", doc["mount_path"])
            load.goes_on()
        assert work.poll() is None, "it ran all the time"
    finally:
        work.terminate()
        work.wait(30)
    assert load.errors == [] and load.check()
    assert os.statvfs(doc["mount_path"]).f_blocks * os.statvfs(doc["mount_path"]).f_frsize > before * 1.5
    a.detach("v")
    kernel.run("xfs_repair", "-n", target.luns[1])
