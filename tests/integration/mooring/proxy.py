# SPDX-License-Identifier: Apache-2.0
"""Between initiator and target: counts what passes, and lies when asked to (RFC 7143 section 11)."""
import collections
import socket
import struct
import threading

SCSI_COMMAND, R2T = 0x01, 0x31


class Proxy(threading.Thread):
    """commands counts SCSI operation codes; once armed, every R2T asks for almost 4 GiB."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port
        self.armed = threading.Event()
        self.lies = 0
        self.commands = collections.Counter()
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
                if not lie and head[0] & 0x3F == SCSI_COMMAND:
                    self.commands[head[32]] += 1
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
