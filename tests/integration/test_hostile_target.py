# SPDX-License-Identifier: Apache-2.0
"""A target that lies: what it costs is its own volume, in bounded time."""
import os
import pathlib
import socket
import struct
import threading
import time

import pytest

from mooring import kernel
from mooring.wait import eventually

R2T = 0x31
STUCK_CPU_S = 10  # storage/lun/process.c


class Liar(threading.Thread):
    """Between initiator and target; once armed, it makes every R2T ask for almost 4 GiB (RFC 7143 section 11.8)."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port
        self.armed = threading.Event()
        self.lies = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.portal = "127.0.0.1:%d" % self.listener.getsockname()[1]

    @staticmethod
    def _read(source, count):
        data = b""
        while len(data) < count:
            more = source.recv(count - len(data))
            if not more:
                raise ConnectionError
            data += more
        return data

    def _copy(self, source, sink, lie):
        try:
            while True:
                head = self._read(source, 48)
                length = head[4] * 4 + (int.from_bytes(head[5:8], "big") + 3) // 4 * 4
                if lie and self.armed.is_set() and head[0] & 0x3F == R2T:
                    head = head[:40] + struct.pack(">II", 0, 0xFFFFFE00)
                    self.lies += 1
                sink.sendall(head + self._read(source, length))
        except OSError:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.port))
            for pair in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._copy, args=pair, daemon=True).start()


@pytest.fixture
def liar(target):
    liar = Liar(target.port)
    liar.start()
    yield liar
    liar.listener.close()


def test_endless_r2t_ends_in_an_io_error(agent, target, liar, image):
    a = agent(config={"iscsi": {"timeout_seconds": 5}})
    doc = a.attach("v", target.spec(portals=[liar.portal]))
    other = a.attach("w", a.file_spec(image(64 << 20), fs="ext4"))
    liar.armed.set()
    started = time.monotonic()
    with pytest.raises(OSError):
        with open(pathlib.Path(doc["mount_path"], "data"), "wb") as file:
            file.write(os.urandom(8 << 20))
            os.fsync(file.fileno())
    took = time.monotonic() - started
    print(f"I/O error after {took:.1f} s and {liar.lies} lies")
    assert liar.lies > 0
    assert took < STUCK_CPU_S + 20, f"{took:.1f} s"
    assert a.request("GET", "/livez").expect(200).ms < 250
    a.detach("w")
    assert not kernel.still_mapped(other)
    # What was written is lost, and said so; with that accepted the volume goes.
    a.delete("v").expect(409, code="data-not-written")
    a.delete("v", wait=30, accept_data_loss="true").expect(200)
    eventually(lambda: kernel.our_processes("mooring-lun") == [], 10, "mooring-lun has ended")
