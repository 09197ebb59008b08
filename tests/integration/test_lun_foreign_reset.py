# SPDX-License-Identifier: Apache-2.0
"""Resets of a LUN: what becomes of our commands after another initiator's, and when there is one of ours."""
import os
import pathlib
import signal
import struct
import threading
import time

from mooring import kernel, lun
from mooring.proxy import SCSI_COMMAND, WRITES, Proxy
from mooring.wait import eventually

TIMEOUT_S = 5  # a command without an answer ends the session after four of these
SCSI_RESPONSE = 0x21
TASK_MANAGEMENT = 0x02
ABORT_TASK, LUN_RESET = 1, 5  # RFC 7143 section 11.5.1
CHECK_CONDITION = 2


class Forgetful(Proxy):
    """Once armed, answers to so many writes are lost, and the next answer is the attention that tells of a reset."""

    def __init__(self, port, lose):
        super().__init__(port)
        self.lose = lose
        self.writes = set()  # task tags
        self.lost = []
        self.told = False
        self.aborts = []
        self.resets = 0
        self.lock = threading.Lock()

    def _copy(self, source, sink, lie):
        try:
            while True:
                head = self._read(source, 48)
                length = head[4] * 4 + (int.from_bytes(head[5:8], "big") + 3) // 4 * 4
                data = head + self._read(source, length)
                with self.lock:
                    data = self._answer(data) if lie else self._note(data)
                if data:
                    sink.sendall(data)
        except OSError:
            self._break(source, sink)

    def _note(self, data):
        opcode, tag = data[0] & 0x3F, data[16:20]
        if opcode == SCSI_COMMAND and data[32] in WRITES:
            self.writes.add(tag)
        if opcode == TASK_MANAGEMENT and data[1] & 0x7F == ABORT_TASK:
            self.aborts.append(data[20:24])
        self.resets += opcode == TASK_MANAGEMENT and data[1] & 0x7F == LUN_RESET
        return data

    def _answer(self, data):
        tag = data[16:20]
        if not self.armed.is_set() or data[0] & 0x3F != SCSI_RESPONSE or tag not in self.writes:
            return data
        if len(self.lost) < self.lose:
            self.lost.append(tag)
            return None
        if self.told:
            return data
        self.told = True
        sense = struct.pack(">HBBBIBIBB", 18, 0x70, 0, 6, 0, 10, 0, 0x29, 0) + bytes(4)
        head = data[:3] + bytes([CHECK_CONDITION]) + bytes(1) + len(sense).to_bytes(3, "big") + data[8:]
        return head[:48] + sense


def test_writes_that_are_forgotten_are_written_again(agent, target):
    """In this session, and in little more than a second: with a session of its own and a reset each, two nodes could
    go on taking each other's commands away."""
    a = agent(config={"iscsi": {"timeout_seconds": TIMEOUT_S}})
    proxy = Forgetful(target.port, lose=3)
    proxy.start()
    doc = a.attach("v", target.spec(portals=[proxy.portal], fs="ext4"))
    path = pathlib.Path(doc["mount_path"], "data")
    data = os.urandom(8 << 20)
    proxy.armed.set()
    started = time.monotonic()
    with open(path, "wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    took = time.monotonic() - started
    counters = lun.status(a)["counters"]
    print(f"{took:.1f} s; {counters}")
    assert proxy.told and len(proxy.lost) == 3
    assert set(proxy.aborts) == set(proxy.lost), "what was forgotten, and nothing else"
    assert counters["lost_sessions"] == 0 and counters["errors"] == 0
    assert took < 4 * TIMEOUT_S, "longer than a command may be without an answer"
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as drop:
        drop.write("1")
    assert path.read_bytes() == data
    a.detach("v")
    kernel.run("e2fsck", "-fn", target.luns[1])


def test_first_login_resets_only_after_an_unclean_end(agent, target):
    """What the target has still to do for an attachment that died would come after what the next one writes; but a
    reset also ends what others have under way, who may only read."""
    a = agent()
    proxy = Forgetful(target.port, lose=0)
    proxy.start()
    spec = target.spec(portals=[proxy.portal], fs="ext4")
    for _ in range(2):
        a.attach("v", spec)
        a.detach("v")
    assert proxy.resets == 0
    a.attach("v", spec)
    os.kill(lun.keepers()[0].pid, signal.SIGKILL)
    eventually(lambda: a.get("v").json["state"] == "failed", 10, "the attachment has failed")
    a.delete("v", wait=30, accept_data_loss="true").expect(200)
    assert proxy.resets == 0
    a.attach("v", spec)
    assert proxy.resets == 1
    a.detach("v")
    a.attach("v", spec)
    assert proxy.resets == 1
    a.detach("v")
    kernel.run("e2fsck", "-fn", target.luns[1])
