# SPDX-License-Identifier: Apache-2.0
"""What an operator orders at the control socket of a LUN is done at once, in whatever state the session is, and what
the answer says is true."""
import errno
import mmap
import os
import signal
import threading
import time

import pytest

from mooring import lun
from mooring.proxy import LOGIN, SCSI_COMMAND, TASK_MANAGEMENT
from mooring.wait import eventually

TIMEOUT_S = 60  # nothing here waits for that
BLOCK = 4096
READ = (SCSI_COMMAND, 0x88)  # READ (16), SBC-3


class Read(threading.Thread):
    """Of a block of the device, past the page cache."""

    def __init__(self, doc, block=0):
        super().__init__(daemon=True)
        self.device, self.block = doc["device"], block
        self.result = None  # 0, or an errno
        self.start()

    def run(self):
        fd = os.open(self.device, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            os.preadv(fd, [mmap.mmap(-1, BLOCK)], self.block * BLOCK)
            self.result = 0
        except OSError as error:
            self.result = error.errno
        finally:
            os.close(fd)

    def ended(self, timeout=10):
        self.join(timeout)
        assert not self.is_alive(), "a read hangs"
        return self.result


def attach(a, target, **more):
    """Read-only: no file system is told that it failed."""
    a.attach("v", target.spec(fs="ext4"))
    a.detach("v")
    return a.attach("v", target.spec(fs="ext4", fmt="never", read_only=True, **more))


def waiting(a, doc, count):
    """So many reads that wait for the target."""
    reads = [Read(doc, 100 + block) for block in range(count)]
    eventually(lambda: lun.status(a)["in_flight"] >= count, 10, "they are under way")
    return reads


@lun.needs_resend
def test_fail_now_though_the_server_is_stopped(agent, target):
    a = agent(config={"iscsi": {"timeout_seconds": TIMEOUT_S}})
    doc = attach(a, target)
    target.stop()
    reads = waiting(a, doc, 3)
    [server] = lun.servers()
    os.kill(server.pid, signal.SIGSTOP)
    eventually(lambda: lun.status(a)["state"] == "unresponsive", 10, "it is seen")
    reads.append(Read(doc, 200))
    said = lun.control(a, "fail-now")
    assert said["state"] == "failed" and said["server_pid"] != server.pid, said
    assert [read.ended() for read in reads] == [errno.EIO] * 4
    target.cont()
    eventually(lambda: lun.status(a)["state"] == "up", 30, "there is another session")
    assert Read(doc, 300).ended() == 0
    a.detach("v")


def test_fence_without_a_session(agent, target):
    """Says at once what is known, and that it is no more than that."""
    a = agent(config={"iscsi": {"timeout_seconds": TIMEOUT_S}})
    spec = target.spec(fs="ext4")
    spec["source"]["fencing"] = "reserve"
    a.attach("v", spec)
    good = lun.control(a, "fence")
    known = good["fencing"]
    assert known["keys"] == [known["key"]] and good["ok"] is True
    target.kill()
    eventually(lambda: transport(a)["state"] == "down", 20, "the session is lost")

    def asked(state):
        started = time.monotonic()
        said = lun.control(a, "fence", check=False)
        took = time.monotonic() - started
        assert took < 5 and said["ok"] is False and said["fencing"]["key"] == known["key"], (took, said)
        assert said["transport"]["state"] == state and said["transport"]["reason"], said
        return said["fencing"]

    assert asked("down") == known
    target.restart()  # it has forgotten the reservation
    eventually(lambda: transport(a)["state"] == "fenced", 20, "which ends it")
    assert asked("fenced")["keys"] == []
    a.delete("v", wait=20, accept_data_loss="true").expect(200)


def transport(a):
    return lun.status(a)["transport"]


@pytest.mark.parametrize("how", ["silent", "answers pings only", "down"])
def test_fail_now(agent, target, proxy, how):
    """Whatever the session counts as: all requests fail at once, and after the next login all is well."""
    a = agent(config={"iscsi": {"timeout_seconds": TIMEOUT_S}})
    doc = attach(a, target, portals=[target.portal if how == "down" else proxy.portal])
    if how == "silent":
        target.stop()
    elif how == "answers pings only":
        proxy.unanswered = (0x88,)
    else:
        target.kill()
        eventually(lambda: transport(a)["state"] == "down", 20, "the session is lost")
    reads = waiting(a, doc, 3)
    assert transport(a)["state"] == ("down" if how == "down" else "up")
    started = time.monotonic()
    said = lun.control(a, "fail-now")
    assert [read.ended() for read in reads] == [errno.EIO] * 3
    took = time.monotonic() - started
    print(f"EIO after {took:.3f} s")
    assert took < 5 and said["transport"]["reason"], said
    if how != "answers pings only":  # else there is another session by now
        assert said["state"] == "failed", said
        assert Read(doc, 200).ended() == errno.EIO and transport(a)["state"] == "failed"
    proxy.unanswered = ()
    if how == "silent":
        target.cont()
    elif how == "down":
        target.restart()
    eventually(lambda: transport(a)["state"] == "up", 30, "there is another session")
    assert Read(doc, 300).ended() == 0
    if how != "down":
        last = max(i for i, (kind, _) in enumerate(proxy.passed) if kind == LOGIN)
        after = proxy.passed[last:]
        assert (TASK_MANAGEMENT, None) in after[:after.index(READ)], "what had failed might still be carried out"
    assert a.get("v").json["state"] == "attached"
    a.detach("v")
