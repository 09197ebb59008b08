# SPDX-License-Identifier: Apache-2.0
"""Between initiator and target: counts what passes, and lies when asked to (RFC 7143 section 11)."""
import collections
import socket
import struct
import threading

SCSI_COMMAND, TASK_MANAGEMENT, LOGIN, SCSI_RESPONSE, DATA_IN, R2T = 0x01, 0x02, 0x03, 0x21, 0x25, 0x31
WRITES = (0x2A, 0x8A)  # 10 and 16, SBC-3


class Proxy(threading.Thread):
    """commands counts SCSI operation codes. passed: kinds of PDU and operation codes in the order in which they got to
    the target, of commands, task management and logins. unanswered: what the target says to commands of these codes is
    lost. Once armed, every R2T asks for almost 4 GiB. freeze() loses all that is sent from then on; cut() breaks the
    connections, and there are no new ones. at_write: is called once, by the next write."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port
        self.armed = threading.Event()
        self.frozen = threading.Event()
        self.lies = 0
        self.at_write = None
        self.pairs = []
        self.commands = collections.Counter()
        self.unanswered = ()
        self.muted = set()  # initiator task tags
        self.passed = []
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
                    self._count(head[32])
                if lie and self.armed.is_set() and head[0] & 0x3F == R2T:
                    head = head[:40] + struct.pack(">II", 0, 0xFFFFFE00)
                    self.lies += 1
                data = head + self._read(source, length)
                if not self.frozen.is_set() and self._passes(head, lie):
                    sink.sendall(data)
        except OSError:
            self._break(source, sink)

    def _count(self, command):
        self.commands[command] += 1
        if command in WRITES and self.at_write:
            act, self.at_write = self.at_write, None
            act()

    def _passes(self, head, from_target):
        kind, tag = head[0] & 0x3F, head[16:20]
        if from_target:
            return kind not in (SCSI_RESPONSE, DATA_IN) or tag not in self.muted
        self.muted.discard(tag)
        if kind == SCSI_COMMAND and head[32] in self.unanswered:
            self.muted.add(tag)
        if kind in (SCSI_COMMAND, TASK_MANAGEMENT, LOGIN):
            self.passed.append((kind, head[32] if kind == SCSI_COMMAND else None))
        return True

    @staticmethod
    def _break(*ends):
        for end in ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def freeze(self):
        self.frozen.set()

    def cut(self):
        self._break(self.listener)
        self.listener.close()
        for pair in self.pairs:
            self._break(*pair)

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.port))
            self.pairs.append((client, server))
            for pair in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._copy, args=pair, daemon=True).start()
