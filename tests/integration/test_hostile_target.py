# SPDX-License-Identifier: Apache-2.0
"""A target that lies: what it costs is its own volume, in bounded time."""
import os
import pathlib
import time

import pytest

from mooring import kernel
from mooring.wait import eventually

STUCK_CPU_S = 10  # storage/lun/process.c


def test_endless_r2t_ends_in_an_io_error(agent, target, proxy, image):
    a = agent(config={"iscsi": {"timeout_seconds": 5}})
    doc = a.attach("v", target.spec(portals=[proxy.portal]))
    other = a.attach("w", a.file_spec(image(64 << 20), fs="ext4"))
    proxy.armed.set()
    started = time.monotonic()
    with pytest.raises(OSError):
        with open(pathlib.Path(doc["mount_path"], "data"), "wb") as file:
            file.write(os.urandom(8 << 20))
            os.fsync(file.fileno())
    took = time.monotonic() - started
    print(f"I/O error after {took:.1f} s and {proxy.lies} lies")
    assert proxy.lies > 0
    assert took < STUCK_CPU_S * 6, f"{took:.1f} s"  # of CPU time, which others use as well
    assert a.request("GET", "/livez").expect(200).ms < 250
    a.detach("w")
    assert not kernel.still_mapped(other)
    # What was written is lost, and said so; with that accepted the volume goes.
    a.delete("v").expect(409, code="data-not-written")
    a.delete("v", wait=30, accept_data_loss="true").expect(200)
    eventually(lambda: kernel.our_processes("mooring-lun") == [], 10, "mooring-lun has ended")
