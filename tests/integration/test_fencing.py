# SPDX-License-Identifier: Apache-2.0
"""Two nodes and one LUN: with "fencing": "reserve" the second is refused by the key of the first, or takes the LUN from
it by an explicit request; and what the first still had to write never gets there.

Both nodes are on this host, with initiator names of their own. ext4, because it can be mounted twice."""
import mmap
import os
import pathlib
import re
import signal
import threading
import time

import pytest

from mooring import kernel, lun
from mooring.load import Load
from mooring.proxy import Proxy
from mooring.wait import eventually

MIB = 1 << 20
FILE_BYTES = 2 * MIB
BLOCK = 64 << 10
INQUIRY, PR_IN, PR_OUT = 0x12, 0x5E, 0x5F
WERO = 5  # write exclusive, registrants only


class Gate(Proxy):
    """The way of one node to the target: can be shut and opened again."""

    def __init__(self, port):
        super().__init__(port)
        self.is_shut = threading.Event()

    def shut(self):
        self.is_shut.set()
        for pair in self.pairs:
            self._break(*pair)

    def open(self):
        self.is_shut.clear()

    def _copy(self, source, sink, lie):
        if self.is_shut.is_set():
            self._break(source, sink)
        else:
            super()._copy(source, sink, lie)


class Killer(Proxy):
    """Kills the worker of an attach that has sent so many PERSISTENT RESERVE OUT, when the next command of a kind comes
    by. The answer to that one takes its time."""

    def __init__(self, port, outs, command):
        super().__init__(port)
        self.outs, self.command = outs, command
        self.killed = []

    def _count(self, command):
        super()._count(command)
        if command == self.command and self.commands[PR_OUT] >= self.outs and not self.killed:
            self.killed = [process.pid for process in kernel.our_processes("mooring-worker")]
            for pid in self.killed:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.3)


class Writers(threading.Thread):
    """Writes one byte all over a file, past the page cache, until that fails."""

    def __init__(self, path, byte):
        super().__init__(daemon=True)
        self.path, self.byte = path, byte
        self.count = 0
        self.error = None
        self.start()

    def run(self):
        data = mmap.mmap(-1, BLOCK)  # aligned
        data.write(self.byte * BLOCK)
        fd = os.open(self.path, os.O_WRONLY | os.O_DIRECT)
        try:
            while True:
                os.pwrite(fd, data, self.count * BLOCK % FILE_BYTES)
                self.count += 1
        except OSError as error:
            self.error = error
        finally:
            os.close(fd)

    def goes_on(self):
        count = self.count
        eventually(lambda: self.count > count + 2, 20, "the writer writes")


@pytest.fixture
def nodes(agent, target):
    """(agent of node 1, its gate, its spec, agent of node 2, its spec)"""
    gate = Gate(target.port)
    gate.start()
    one, two = [agent(config={"iscsi": {"initiator_name": f"iqn.2026-11.example.test:node{n}"}}) for n in (1, 2)]
    yield one, gate, reserving(target, portals=[gate.portal]), two, reserving(target)
    gate.cut()


def reserving(target, preempt=None, **more):
    spec = target.spec(fs="ext4", **more)
    spec["source"]["fencing"] = "reserve"
    if preempt:
        spec["source"]["preempt"] = preempt
    return spec


def preempting(spec, key):
    return {**spec, "source": {**spec["source"], "preempt": key}}


def key_of(a):
    """The volume is attached and the LUN is its own: returns the key."""
    fencing = a.get("v").expect(200).json["fencing"]
    key = fencing["key"]
    assert re.fullmatch("0x[0-9a-f]{16}", key), fencing
    assert (fencing["mode"], fencing["registered"], fencing["holder"], fencing["type"], fencing["keys"]) == \
        ("reserve", True, key, WERO, [key]), fencing
    return key


def node_of(key):
    return key[:10]


def refused(a, spec, key):
    """A PUT is refused and names the key in the way."""
    problem = a.put("v", spec).expect(409, code="source-in-use").json
    assert key in problem["detail"] and "preempt" in problem["remedy"], problem
    return problem


def fenced(a, timeout=20):
    doc = eventually(lambda: (d := a.get("v").json)["state"] == "fenced" and d, timeout, "the volume is fenced")
    assert doc["error"]["code"] == "fenced" and doc["transport"]["state"] == "fenced", doc
    return doc


def take_down(a, doc):
    """DELETE; what could not be written is accepted as lost where the agent asks for that."""
    answer = a.delete("v", wait=20)
    if answer.status != 200:
        answer.expect(409, code="data-not-written")
        answer = a.delete("v", wait=20, accept_data_loss="true")
    assert answer.expect(200).json["evidence"]["exclusive_open"] is True
    assert not kernel.still_mapped(doc) and not kernel.mounts_at(doc["mount_path"])


def fill(doc, byte):
    """A file with blocks of its own, all on the disk; returns its path."""
    path = pathlib.Path(doc["mount_path"], "shared")
    with open(path, "wb") as file:
        file.write(byte * FILE_BYTES)
        os.fsync(file.fileno())
    kernel.syncfs(doc["mount_path"])
    return path


def on_disk(path):
    """The file's bytes, past the page cache."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        data = mmap.mmap(-1, FILE_BYTES)
        assert os.preadv(fd, [data], 0) == FILE_BYTES
        return data[:]
    finally:
        os.close(fd)


def test_the_second_node_is_refused_and_then_takes_over(nodes):
    one, gate, spec_one, two, spec_two = nodes
    doc = one.attach("v", spec_one)
    key = key_of(one)
    fill(doc, b"0")
    for spec in (spec_two, preempting(spec_two, "0x1234567800000001")):
        refused(two, spec, key)
    unfenced = {**spec_two, "source": {**spec_two["source"], "fencing": "off"}}
    problem = two.put("v", unfenced).expect(409, code="source-in-use").json
    assert key in problem["detail"] and "reserve" in problem["remedy"], problem
    lun.control(one, "fence")
    assert key_of(one) == key, "a refused node leaves nothing"
    assert two.get("v").status == 404 or two.get("v").json["state"] == "failed"

    # Node 1 is cut off, with writes in flight; node 2 takes the LUN and writes.
    writers = [Writers(pathlib.Path(doc["mount_path"], "shared"), b"1") for _ in range(4)]
    for writer in writers:
        writer.goes_on()
    gate.shut()
    eventually(lambda: one.get("v").json["transport"]["state"] == "down", 10, "the link is down")
    doc_two = two.attach("v", preempting(spec_two, key))
    key_two = key_of(two)
    assert node_of(key_two) != node_of(key)
    assert [w for w in writers if not w.is_alive()] == [], "they wait"
    shared = fill(doc_two, b"2")

    # Node 1 is back: it replays nothing, and says why.
    gate.open()
    fenced_doc = fenced(one)
    assert key_two in fenced_doc["error"]["message"], fenced_doc["error"]
    assert fenced_doc["fencing"]["keys"] == [key_two] and fenced_doc["fencing"]["holder"] == key_two
    for writer in writers:
        writer.join(20)
        assert not writer.is_alive() and writer.error, "a write of the fenced node did not fail"
    with pytest.raises(OSError):
        fill(doc, b"3")
    assert set(on_disk(shared)) == set(b"2"), "the fenced node wrote"
    assert lun.status(one)["counters"]["replayed"] == 0
    key_of(two)

    # PUT does not bring it back while the other has it; DELETE takes it down; and so on in turn.
    take_down(one, doc)
    refused(one, spec_one, key_two)
    two.detach("v")
    doc = one.attach("v", spec_one)
    assert key_of(one) != key, "each attachment has a key of its own"
    assert set(on_disk(pathlib.Path(doc["mount_path"], "shared"))) == set(b"2")
    one.detach("v")
    two.attach("v", spec_two)
    assert key_of(two) != key_two
    two.detach("v")


def test_fenced_while_the_link_is_up(nodes):
    one, _, spec_one, two, spec_two = nodes
    doc = one.attach("v", spec_one)
    key = key_of(one)
    writer = Writers(fill(doc, b"0"), b"1")
    writer.goes_on()
    doc_two = two.attach("v", preempting(spec_two, key))
    shared = fill(doc_two, b"2")
    fenced(one)
    writer.join(20)
    assert writer.error, "a write of the fenced node did not fail"
    assert set(on_disk(shared)) == set(b"2")
    said = lun.control(one, "cut")
    assert said["cut"] is True and said["transport"]["state"] == "fenced", said
    assert key_of(two) in fenced(one)["error"]["message"], "that it was fenced stays told"
    take_down(one, doc)
    assert key_of(two)
    two.detach("v")


@lun.needs_resend
def test_outages_and_deaths_of_the_server_fence_nobody(nodes):
    one, gate, spec_one, two, spec_two = nodes
    doc = one.attach("v", spec_one)
    key = key_of(one)
    with Load(doc["mount_path"]) as load:
        for _ in range(2):
            gate.shut()
            eventually(lambda: one.get("v").json["transport"]["state"] == "down", 10, "the link is down")
            refused(two, spec_two, key)  # nobody is there, but it is not free
            gate.open()
            load.goes_on()
        for _ in range(3):
            [server] = lun.servers()
            os.kill(server.pid, signal.SIGKILL)
            eventually(lambda pid=server.pid: [p for p in lun.servers() if p.pid != pid], 10, "another server")
            load.goes_on()
    assert load.errors == []
    load.check()
    assert key_of(one) == key, "one registration, however many sessions there were"
    one.detach("v")
    two.attach("v", spec_two)
    key_of(two)
    two.detach("v")


def test_the_node_takes_over_what_its_dead_server_left(nodes):
    one, _, spec_one, two, spec_two = nodes
    doc = one.attach("v", spec_one)
    key = key_of(one)
    shared = fill(doc, b"1")
    one.kill9()
    for process in [*lun.keepers(), *lun.servers()]:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # a server goes with its keeper
    eventually(lambda: not kernel.our_processes("mooring-lun"), 10, "all are dead")
    refused(two, spec_two, key)
    one.start()
    eventually(lambda: one.get("v").json["state"] == "failed", 20, "its failure was noticed")
    take_down(one, doc)
    refused(two, spec_two, key)
    one.attach("v", spec_one)
    again = key_of(one)
    assert again != key and node_of(again) == node_of(key)
    assert set(on_disk(shared)) == set(b"1")
    one.detach("v")
    two.attach("v", spec_two)
    two.detach("v")


@lun.needs_resend
def test_detach_releases_though_the_server_died_with_the_file(nodes):
    """The server that finds the file released has never had a session."""
    one, _, spec_one, two, spec_two = nodes
    doc = one.attach("v", spec_one)
    key_of(one)
    device = os.open(doc["device"], os.O_RDONLY)
    [keeper], [server] = lun.keepers(), lun.servers()
    operation = one.delete("v", wait=2).expect(202).operation
    os.kill(keeper.pid, signal.SIGSTOP)
    try:
        os.kill(server.pid, signal.SIGKILL)
        os.close(device)
        eventually(lambda: not kernel.still_mapped(doc), 10, "the device is let go")
    finally:
        os.kill(keeper.pid, signal.SIGCONT)
    assert one.operation(operation, wait=20)["state"] == "done"
    two.attach("v", spec_two)
    key_of(two)
    two.detach("v")


@pytest.mark.parametrize("outs, command", [(1, PR_IN), (2, INQUIRY)], ids=["registered", "reserved"])
def test_start_that_is_called_off_leaves_nothing(nodes, target, outs, command):
    one, _, _, two, spec_two = nodes
    killer = Killer(target.port, outs, command)
    killer.start()
    try:
        one.put("v", reserving(target, portals=[killer.portal])).expect(500)
        assert killer.killed
        eventually(lambda: not lun.keepers(), 10, "the keeper has ended")
        two.attach("v", spec_two)
        key_of(two)
    finally:
        killer.cut()
    two.detach("v")


def test_a_target_that_forgets_registrations_fences(agent, target):
    """tgtd keeps nothing: after a restart nobody can say whether another node was there meanwhile."""
    a = agent()
    spec = reserving(target)
    doc = a.attach("v", spec)
    key_of(a)
    fill(doc, b"1")
    target.kill()
    eventually(lambda: a.get("v").json["transport"]["state"] == "down", 10, "the link is down")
    target.restart()
    assert fenced(a)["fencing"]["keys"] == []
    take_down(a, doc)
    doc = a.attach("v", spec)
    key_of(a)
    assert set(on_disk(pathlib.Path(doc["mount_path"], "shared"))) == set(b"1")
    a.detach("v")
