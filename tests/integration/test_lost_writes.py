# SPDX-License-Identifier: Apache-2.0
"""The kernel reports a lost write once. Mooring does not forget it."""
import os
import pathlib

import pytest

from mooring import kernel
from mooring.kernel import run

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


@pytest.mark.parametrize("fs", ["xfs", "ext4"])
def test_a_lost_write_sticks_although_the_device_is_well_again(pool, agent, fs):
    a = agent()
    doc = a.attach("v", a.file_spec(pool, fs=fs))
    data = pathlib.Path(doc["mount_path"], "data")
    with open(data, "wb") as file:
        file.write(os.urandom(4 * MIB))
        os.fsync(file.fileno())
    # All of the image has its space, but for the blocks of this one file: metadata can be written, its data not.
    with open(pool, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 320 * MIB)
    before = os.stat(pool).st_blocks
    for offset, length in kernel.file_extents(data):
        kernel.punch_hole(pool, offset, length)
    assert os.stat(pool).st_blocks * 512 <= before * 512 - 3 * MIB, "space was taken away"
    ballast = fill(pool)
    with open(data, "r+b") as file:
        file.write(os.urandom(4 * MIB))

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
