# SPDX-License-Identifier: Apache-2.0
"""What fsync promises is kept by the target, not by us."""
import os
import pathlib

SYNCHRONIZE_CACHE_16 = 0x91


def test_each_fsync_reaches_the_target_but_none_without_a_write(agent, target, proxy):
    a = agent()
    doc = a.attach("v", target.spec(fs="ext4", portals=[proxy.portal]))
    assert proxy.commands[SYNCHRONIZE_CACHE_16] > 0, "the first flush is not answered by ourselves"
    with open(pathlib.Path(doc["mount_path"], "data"), "wb", buffering=0) as file:
        for _ in range(5):
            before = proxy.commands[SYNCHRONIZE_CACHE_16]
            file.write(os.urandom(64 << 10))
            os.fsync(file.fileno())
            assert proxy.commands[SYNCHRONIZE_CACHE_16] > before
    device = os.open(doc["device"], os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(device)
        before = proxy.commands[SYNCHRONIZE_CACHE_16]
        for _ in range(5):
            os.fsync(device)
        # ext4 may write by itself now and then; five flushes for nothing it does not.
        assert proxy.commands[SYNCHRONIZE_CACHE_16] < before + 5
    finally:
        os.close(device)
    a.detach("v")
