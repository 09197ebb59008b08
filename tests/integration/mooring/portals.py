# SPDX-License-Identifier: Apache-2.0
"""Portals that are no targets: silent ones, and one that says yes to every login and lies then (RFC 7143 section 11)."""
import contextlib
import socket
import struct
import threading

LOGIN, TEXT, SCSI_COMMAND, LOGOUT = 0x03, 0x04, 0x01, 0x06
IMMEDIATE, FINAL, STATUS = 0x40, 0x80, 0x01


@contextlib.contextmanager
def never_answers():
    """Takes connections, and nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield "127.0.0.1:%d" % listener.getsockname()[1]


@contextlib.contextmanager
def never_accepts():
    """Its queue is full: the kernel drops what asks for a connection."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(20):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.2)
            try:
                waiting.connect(listener.getsockname())
            except TimeoutError:
                break
        else:
            raise AssertionError("the queue does not become full")
        yield "127.0.0.1:%d" % listener.getsockname()[1]


class Liar(threading.Thread):
    """text: the answer to SendTargets, as bytes. luns: the parameter data of REPORT LUNS; every other SCSI command stays
    without an answer, and all of them when luns is None. announce: the length that the header of the last of the two
    claims, whatever is sent."""

    def __init__(self, text=b"", luns=None, announce=None):
        super().__init__(daemon=True)
        self.text, self.luns = text, luns
        self.announce_text, self.announce_luns = (announce, None) if luns is None else (None, announce)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.portal = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *why):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    @staticmethod
    def _read(client, count):
        data = b""
        while len(data) < count:
            more = client.recv(count - len(data))
            if not more:
                raise ConnectionError
            data += more
        return data

    @staticmethod
    def _pdu(opcode, flags, request, statsn, data=b"", length=None):
        """Basic header segment and padded data; what is common to all answers."""
        command_sn = struct.unpack(">I", request[24:28])[0] + (0 if request[0] & IMMEDIATE else 1)
        head = (bytes([opcode, flags, 0, 0, 0]) + (len(data) if length is None else length).to_bytes(3, "big")
                + request[8:20] + b"\xff\xff\xff\xff" + struct.pack(">III", statsn, command_sn, command_sn + 64) + bytes(12))
        return head + data + bytes(-len(data) % 4)

    def _serve(self, client):
        statsn = 1
        try:
            with client:
                while True:
                    head = self._read(client, 48)
                    self._read(client, head[4] * 4 + (int.from_bytes(head[5:8], "big") + 3) // 4 * 4)
                    answer = self._answer(head, statsn)
                    statsn += 1
                    if answer:
                        client.sendall(answer)
        except OSError:
            pass

    def _answer(self, head, statsn):
        opcode = head[0] & 0x3F
        if opcode == LOGIN:
            answer = bytearray(self._pdu(0x23, head[1], head, statsn, b"HeaderDigest=None\0DataDigest=None\0"))
            answer[14:16] = b"\x00\x01"  # TSIH
            answer[20:24] = bytes(4)
            return bytes(answer)
        if opcode == TEXT:
            return self._pdu(0x24, FINAL, head, statsn, self.text, self.announce_text)
        if opcode == SCSI_COMMAND and head[32] == 0xA0 and self.luns is not None:
            return self._pdu(0x25, FINAL | STATUS, head, statsn, self.luns, self.announce_luns)
        if opcode == LOGOUT:
            return self._pdu(0x26, FINAL, head, statsn)
        return None


class Hollow(Liar):
    """A disk of 64 MiB whose reads succeed and bring nothing (SPC-4, SBC-3)."""

    TEST_UNIT_READY, INQUIRY, SERVICE_ACTION_IN, READ = 0x00, 0x12, 0x9E, 0x88
    NO_SUCH_FIELD = b"\x00\x12\x70\x00\x05" + bytes(7) + b"\x24" + bytes(5)  # ILLEGAL REQUEST, with its length

    def _answer(self, head, statsn):
        if head[0] & 0x3F != SCSI_COMMAND:
            return super()._answer(head, statsn)
        command, vital = head[32], head[33] & 1
        if command == self.INQUIRY and not vital:
            return self._pdu(0x25, FINAL | STATUS, head, statsn, bytes([0, 0, 5, 2, 31, 0, 0, 0]) + b" " * 28)
        if command == self.SERVICE_ACTION_IN:
            return self._pdu(0x25, FINAL | STATUS, head, statsn, struct.pack(">QI", (64 << 11) - 1, 512) + bytes(20))
        if command in (self.TEST_UNIT_READY, self.READ):
            return self._pdu(0x21, FINAL, head, statsn)
        answer = bytearray(self._pdu(0x21, FINAL, head, statsn, self.NO_SUCH_FIELD))
        answer[3] = 2  # CHECK CONDITION
        return bytes(answer)


class Refuser(Liar):
    """Says no to every login, by its status class and detail (RFC 7143 section 11.13.5)."""

    def __init__(self, status):
        self.status = status
        super().__init__()

    def _answer(self, head, statsn):
        if head[0] & 0x3F != LOGIN:
            return None
        answer = bytearray(self._pdu(0x23, 0, head, statsn))
        answer[36:38] = self.status.to_bytes(2, "big")
        return bytes(answer)


def send_targets(*names, address="127.0.0.1:3260,1"):
    return b"".join(b"TargetName=" + name.encode() + b"\0TargetAddress=" + address.encode() + b"\0" for name in names)


def report_luns(*luns, said=None):
    data = b"".join(lun.to_bytes(2, "big") + bytes(6) for lun in luns)
    return struct.pack(">II", len(data) if said is None else said, 0) + data
