# SPDX-License-Identifier: Apache-2.0
"""An agent in a mount namespace of its own, as in a container without mount propagation: everything in it is killed.
Whoever ends last takes the volume's mount down with the namespace, and the file system still wants to write: mooring-lun
must not be asked then for what only mooring-lun could answer."""
import errno
import os
import pathlib
import signal

import pytest

from mooring import kernel
from mooring.wait import eventually

GONE_S = 15


class OwnMounts:
    at_agent = ("unshare", "--mount", "--propagation", "private")


@pytest.fixture
def abort_later():
    """The FUSE connection below a device is aborted at the end, if it is still there: nothing stays in D."""
    kernel.mount_fusectl()
    found = []
    yield lambda doc: found.append(kernel.FUSE_CONNECTIONS / str(kernel.fuse_connection(doc["device"])))
    for connection in found:
        if connection.exists():
            (connection / "abort").write_text("1")


def pids_in(namespace):
    """Those that are ending, too, as long as they have it."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{entry}/ns/mnt") == namespace:
                found.append(int(entry))
        except OSError:
            pass
    return found


def free(device):
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        assert error.errno == errno.EBUSY, error
        return False
    return True


@pytest.mark.parametrize("fs", ["xfs", "ext4"])
@pytest.mark.parametrize("last", ["keeper", "server"])
def test_killed_with_its_mount_namespace(agent, target, abort_later, fs, last):
    a = agent(network=OwnMounts)
    doc = a.attach("v", target.spec(fs=fs))
    abort_later(doc)
    pathlib.Path(f"/proc/{a.pid}/root{doc['mount_path']}", "dirty").write_bytes(os.urandom(4 << 20))
    pids = pids_in(os.readlink(f"/proc/{a.pid}/ns/mnt"))
    names = {pathlib.Path(f"/proc/{pid}/comm").read_text().strip(): pid for pid in pids}
    keeper, server = names["mooring-lun"], names["mooring-lun-io"]
    a.kill9()
    eventually(lambda: set(pids_in(os.readlink(f"/proc/{keeper}/ns/mnt"))) == {keeper, server}, 10, "they are alone")
    if last == "keeper":
        os.kill(keeper, signal.SIGSTOP)  # starts no other server
        os.kill(server, signal.SIGKILL)
        eventually(lambda: not kernel.alive(server), GONE_S, "the server is gone")
    os.kill(keeper, signal.SIGKILL)  # and with it the server
    for pid in (keeper, server):
        eventually(lambda: not kernel.alive(pid), GONE_S, f"{pid} has ended")
    eventually(lambda: free(doc["device"]), GONE_S, "the file system has let go of the device")
    found = a.start().get("v").json  # in another namespace
    assert found["state"] == "failed" and found["error"]["residue"] == "possible", found
    a.delete("v", wait=20, accept_data_loss="true").expect(200)
    assert not kernel.still_mapped(doc)
