# SPDX-License-Identifier: Apache-2.0
"""Portals given by name: a target that has moved is found when its name says where it is now."""
import pathlib
import socket

import pytest

from mooring import kernel, lun
from mooring.load import Load
from mooring.proxy import Proxy
from mooring.wait import eventually

NAME = "portal.mooring.test"
OLD = "127.0.0.9"


class Forwarder(Proxy):
    """The old address of a target; at the port of the new one."""

    def __init__(self, port):
        super().__init__(port)
        self.listener.close()
        self.listener = socket.create_server((OLD, port))


@pytest.fixture
def names(tmp):
    """names(ADDRESS): what the name says from then on."""
    hosts = pathlib.Path(tmp, "hosts")

    def says(*addresses):
        hosts.write_text("".join(f"{address} {NAME}\n" for address in addresses))

    says()
    kernel.run("mount", "--bind", str(hosts), "/etc/hosts")
    yield says
    kernel.run("umount", "/etc/hosts")


@pytest.fixture
def silent_name_server(tmp):
    conf = pathlib.Path(tmp, "resolv.conf")
    conf.write_text("nameserver 127.0.0.77\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.77", 53))
        kernel.run("mount", "--bind", str(conf), "/etc/resolv.conf")
        yield
        kernel.run("umount", "/etc/resolv.conf")


def test_target_that_moves_is_found(agent, target, names):
    names(OLD)
    a = agent()
    old = Forwarder(target.port)
    old.start()
    doc = a.attach("v", target.spec(portals=[f"{NAME}:{target.port}"], fs="ext4"))
    assert lun.status(a)["portal"] == f"{OLD}:{target.port}"
    processes = {p.pid for p in kernel.our_processes()}
    with Load(doc["mount_path"]) as load:
        old.cut()
        eventually(lambda: lun.status(a)["state"] == "down", 20, "the session is lost")
        names("127.0.0.1")
        load.goes_on(30)
    status = lun.status(a)
    print(f"stall {load.longest_s:.1f} s, portal {status['portal']}")
    assert load.errors == [] and load.check()
    assert status["portal"] == f"127.0.0.1:{target.port}"
    eventually(lambda: {p.pid for p in kernel.our_processes()} == processes, 15, "the resolver has ended")
    a.detach("v")
    kernel.run("e2fsck", "-fn", target.luns[1])


def test_old_address_is_good_as_long_as_nobody_knows_better(agent, target, names, silent_name_server):
    names(OLD)
    a = agent()
    old = Forwarder(target.port)
    old.start()
    doc = a.attach("v", target.spec(portals=[f"{NAME}:{target.port}"], fs="ext4"))
    with Load(doc["mount_path"]) as load:
        names()
        old.cut()
        eventually(lambda: kernel.our_processes("mooring-lun-dns"), 20, "the name is asked for")
        eventually(lambda: not kernel.our_processes("mooring-lun-dns"), 20, "in vain")
        assert lun.status(a)["state"] == "down"
        again = Forwarder(target.port)
        again.start()
        load.goes_on(30)
    assert load.errors == [] and load.check()
    assert lun.status(a)["portal"] == f"{OLD}:{target.port}"
    a.detach("v")
    again.cut()
