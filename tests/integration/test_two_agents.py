# SPDX-License-Identifier: Apache-2.0
"""Two agents on one directory would undo each other's work: the second says who is there, and ends."""
import hashlib
import pathlib
import re
import subprocess
import sys
import time

import pytest

from mooring import kernel
from mooring.agent import Agent
from mooring.wait import eventually

MIB = 1 << 20


def second_of(a, *shared):
    """Another agent; what is named in `shared` is the first one's. Its socket is its own, unless it is shared, too."""
    other = Agent(a.base.parent / "second", loopback=False)
    for what in shared:
        setattr(other, what, getattr(a, what))
    return other


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("shared", [("state",), ("runtime",), ("state", "runtime"), ("state", "runtime", "socket")],
                         ids="+".join)
def test_the_second_says_who_is_there(agent, image, hold, shared):
    a = agent()
    doc = a.attach("v", a.file_spec(image(8 * MIB), fs="ext4"))
    writer = hold.writer(pathlib.Path(doc["mount_path"], "log"))
    other = second_of(a, *shared)
    before = digest(a.state / "journal.db"), a.log(), [m.id for m in kernel.mounts_at(doc["mount_path"])]
    started = time.monotonic()
    done = other.refused_to_start()
    took = time.monotonic() - started
    assert done.returncode == 71, done
    assert re.search(rf"\b{a.pid}\b", done.stderr) and "mooringd" in done.stderr.split("starts", 1)[1], done.stderr
    if shared != ("state", "runtime", "socket"):  # there the socket says it first
        directory = a.state if "state" in shared else a.runtime
        assert str(directory) in done.stderr, done.stderr
    assert took < 5, f"{took:.1f} s"
    # The first one did not notice.
    assert (digest(a.state / "journal.db"), [m.id for m in kernel.mounts_at(doc["mount_path"])]) == before[::2]
    assert a.get("v").expect(200).json["identity"] == doc["identity"]
    assert a.request("GET", "/readyz").status == 200
    a.attach("w", a.file_spec(image(8 * MIB), fs="ext4"))
    assert writer.release().startswith("ok")
    assert a.detach("v")["evidence"]["exclusive_open"] is True


def test_the_second_takes_over_from_the_dead_first(agent, image):
    a = agent()
    doc = a.attach("v", a.file_spec(image(8 * MIB), fs="ext4"))
    other = agent(start=False, base=a.base)
    assert other.refused_to_start().returncode == 71
    a.kill9()
    started = time.monotonic()
    other.start()
    print(f"started {time.monotonic() - started:.2f} s after the death of the first")
    assert other.get("v").json["identity"] == doc["identity"] and other.get("v").json["state"] == "attached"
    assert a.refused_to_start().returncode == 71, "now it is the other way round"
    assert other.detach("v")["evidence"]["exclusive_open"] is True


def test_one_of_many_wins(agent, image):
    a = agent()
    a.attach("v", a.file_spec(image(8 * MIB), fs="ext4"))
    a.kill9()
    many = [agent(start=False, base=a.base) for _ in range(6)]
    for one in many:
        one.log_path = one.log_path.with_name(f"agent{many.index(one)}.log")
        one.spawn()
    eventually(lambda: sum(one.process.poll() is None for one in many) == 1, 10, "all but one have ended")
    [winner] = [one for one in many if one.running]
    for one in many:
        if one is not winner:
            assert one.process.returncode == 71, one.log()
            assert re.search(rf"\b{winner.pid}\b", one.log()), one.log()
            one.process = None
    winner.wait_ready()
    assert winner.get("v").json["state"] == "attached"


LOCKER = """
import fcntl, os, sys, time
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("ready", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def locker():
    """A factory of processes that have the lock of a directory for some seconds."""
    made = []

    def make(directory, seconds):
        made.append(subprocess.Popen([sys.executable, "-I", "-c", LOCKER, directory, str(seconds)],
                                     stdout=subprocess.PIPE, text=True))
        assert made[-1].stdout.readline() == "ready\n"
        return made[-1]

    yield make
    for one in made:
        one.kill()
        one.communicate(timeout=10)


@pytest.mark.parametrize("which", ["state", "runtime"])
def test_a_lock_that_goes_soon_keeps_nobody_out(agent, image, locker, which):
    """As a child of the dead agent may have it, on its way to exec(2)."""
    a = agent()
    a.attach("v", a.file_spec(image(8 * MIB), fs="ext4"))
    a.kill9()
    started = time.monotonic()
    locker(getattr(a, which), 0.5)
    a.start()
    took = time.monotonic() - started
    assert 0.5 < took < 10, f"{took:.2f} s"
    assert a.get("v").json["state"] == "attached"


@pytest.mark.parametrize("which", ["state", "runtime"])
def test_a_lock_of_somebody_else_is_named(agent, image, locker, which):
    a = agent()
    a.attach("v", a.file_spec(image(8 * MIB), fs="ext4"))
    a.stop()
    other = locker(getattr(a, which), 60)
    done = a.refused_to_start()
    other.kill()
    other.wait(10)
    a.start()
    assert a.get("v").json["state"] == "attached"
    assert done.returncode == 71 and str(getattr(a, which)) in done.stderr, done
    assert re.search(rf"\b{other.pid}\b", done.stderr) and "python" in done.stderr, done.stderr
