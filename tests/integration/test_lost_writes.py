# SPDX-License-Identifier: Apache-2.0
"""The kernel reports a lost write once. Mooring does not forget it."""
import os
import pathlib
import signal

import pytest

from mooring import kernel
from mooring.crash_rig import FaultAgent
from mooring.kernel import run
from mooring.wait import eventually

MIB = 1 << 20


@pytest.fixture
def pool(tmp):
    """A small tmpfs as file root, with one image in it: a thin pool that can run full."""
    root = tmp / "a0" / "images"
    root.mkdir(parents=True)
    run("mount", "-t", "tmpfs", "-o", "size=400M", "pool", root)
    image = root / "thin.img"
    with open(image, "wb") as file:
        file.truncate(320 * MIB)
    yield image
    run("umount", root)


def fill(pool):
    """Nothing more goes into the pool; returns the file that fills it."""
    ballast = pool.with_name("ballast")
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 << 10))
        except OSError:
            return ballast


@pytest.fixture
def faulty(tmp):
    """An agent with fault points."""
    a = FaultAgent(tmp / "a0")
    a.start()
    yield a
    a.disarm()
    if not a.running:
        a.start()
    for volume in a.volumes():
        a.delete(volume["id"], wait=20, accept_data_loss="true").expect(200)
    assert a.stop() == 0


def dirty_volume(pool, a, fs):
    """Attached, with a file that was written once, and written again in memory; returns both."""
    doc = a.attach("v", a.file_spec(pool, fs=fs))
    data = pathlib.Path(doc["mount_path"], "data")
    with open(data, "wb") as file:
        file.write(os.urandom(4 * MIB))
        os.fsync(file.fileno())
    return doc, data


def write_again(data):
    with open(data, "r+b") as file:
        file.write(os.urandom(4 * MIB))


def lose_a_write(pool, data):
    """What is in memory cannot be written; returns the file whose removal makes that possible again."""
    # All of the image has its space, but for the blocks of this one file: metadata can be written, its data not.
    with open(pool, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 320 * MIB)
    before = os.stat(pool).st_blocks
    for offset, length in kernel.file_extents(data):
        kernel.punch_hole(pool, offset, length)
    assert os.stat(pool).st_blocks * 512 <= before * 512 - 3 * MIB, "space was taken away"
    ballast = fill(pool)
    write_again(data)
    return ballast


@pytest.mark.parametrize("fs", ["xfs", "ext4"])
def test_a_lost_write_sticks_although_the_device_is_well_again(pool, agent, fs):
    a = agent()
    doc, data = dirty_volume(pool, a, fs)
    ballast = lose_a_write(pool, data)

    problem = a.delete("v").expect(409, code="data-not-written").json
    assert problem["remedy"] and problem["step"] == "unmount"
    assert kernel.still_mapped(doc) and not kernel.unmap_asked(doc)
    ballast.unlink()
    for _ in range(3):
        a.delete("v").expect(409, code="data-not-written")
    a.restart("kill9")
    a.delete("v").expect(409, code="data-not-written")
    assert kernel.mounts_at(doc["mount_path"]), "it is still mounted: the caller may save what there is"
    a.delete("v", accept_data_loss="false").expect(409, code="data-not-written")
    assert a.detach("v", accept_data_loss="true")["evidence"]["exclusive_open"] is True


@pytest.mark.parametrize("features", ["has_journal", "^has_journal"])
def test_lost_metadata_is_a_lost_write(pool, agent, features):
    """No data of a file is in memory: the error is kept nowhere, it is told once to whoever waits for it."""
    a = agent()
    run("mkfs.ext4", "-q", "-F", "-O", features, pool)
    mount = pathlib.Path(a.attach("v", a.file_spec(pool, fs="ext4"))["mount_path"])
    ballast = fill(pool)
    for i in range(2000):
        (mount / f"n{i}").touch()

    a.delete("v").expect(409, code="data-not-written")
    assert kernel.mounts_at(mount)
    ballast.unlink()
    a.detach("v", accept_data_loss="true")


def test_a_journal_that_was_lost_before_is_a_lost_write(pool, agent):
    """ext4 has tried by itself, and given up: for a flush there is nothing left to do."""
    a = agent()
    run("mkfs.ext4", "-q", "-F", pool)
    doc = a.attach("v", a.file_spec(pool, fs="ext4"))
    mount = pathlib.Path(doc["mount_path"])
    ballast = fill(pool)
    (mount / "name").touch()
    fd = os.open(mount, os.O_RDONLY)
    with pytest.raises(OSError):
        os.fsync(fd)  # as its timer does
    os.close(fd)
    ballast.unlink()
    os.sync()

    for _ in range(2):
        a.delete("v").expect(409, code="data-not-written")
    a.detach("v", accept_data_loss="true")


def end_at(a, point, victims):
    """A DELETE, in which these end at that point, one of them by itself; the next ones take their places."""
    a.arm(point, "die" if victims == "worker" else "stop")
    operation = a.delete("v", wait=0).expect(202).operation
    if victims == "worker":
        eventually(lambda: list(a.points.glob(point + ".hit.*")), 15, f"it was at {point}")
        return operation
    worker = eventually(lambda: a.hit(point), 15, f"it is at {point}")
    a.kill9()
    os.kill(worker, signal.SIGKILL)
    a.start()
    return operation


VICTIMS = ["worker", "agent and worker"]


@pytest.mark.parametrize("victims", VICTIMS)
@pytest.mark.parametrize("point, fs, why", [
    ("worker.flush.before", "xfs", "syncfs reported"),  # the kernel has not been asked
    ("worker.flush.inside", "ext4", "died while it asked"),
    ("worker.flush.after", "xfs", "reported an error to a worker that died"),
], ids=["before", "inside", "after"])
def test_a_lost_write_is_not_forgotten_with_who_was_told(pool, faulty, point, fs, why, victims):
    a = faulty
    doc, data = dirty_volume(pool, a, fs)
    ballast = lose_a_write(pool, data)
    operation = end_at(a, point, victims)
    if point != "worker.flush.before":  # nothing was tried until then: the next one is told
        ballast.unlink()
    error = a.operation(operation, wait=30)["error"]
    ballast.unlink(missing_ok=True)
    assert error["code"] == "data-not-written" and why in error["message"] and error["remedy"], error
    a.delete("v").expect(409, code="data-not-written")
    assert kernel.still_mapped(doc) and kernel.mounts_at(doc["mount_path"])
    # Repaired, and said so: the next detach asks afresh.
    write_again(data)
    a.put("v", doc["spec"]).expect(200)
    a.detach("v")


@pytest.mark.parametrize("victims", VICTIMS)
@pytest.mark.parametrize("point", ["worker.flush.before", "worker.flush.after"])
def test_nobody_is_asked_when_all_was_written(pool, faulty, point, victims):
    _, data = dirty_volume(pool, faulty, "ext4")
    write_again(data)
    operation = end_at(faulty, point, victims)
    done = faulty.operation(operation, wait=30)
    assert done["state"] == "done", done
