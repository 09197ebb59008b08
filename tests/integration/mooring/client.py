# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 over a unix socket, with nothing in between: what is sent is what is asked."""
import http.client
import json
import socket
import time


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.socket_path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.socket_path)


class Answer:
    """Status, headers and body of one response; ms is how long it took."""

    def __init__(self, response, started):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()
        self.ms = (time.monotonic() - started) * 1000
        self.content_type = response.headers.get_content_type()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        """The problem code, or None."""
        return self.json.get("code") if self.content_type == "application/problem+json" else None

    @property
    def operation(self):
        """The id in Location: /operations/{op}."""
        return self.headers["Location"].rsplit("/", 1)[1]

    def expect(self, *statuses, code=None):
        assert self.status in statuses, f"expected {statuses}, got {self!r}"
        if code is not None:
            codes = (code,) if isinstance(code, str) else code
            assert self.code in codes, f"expected code {codes}, got {self!r}"
            assert self.json["type"] == f"/problems/{self.code}" and self.json["status"] == self.status
        return self

    def __repr__(self):
        return f"<{self.status} after {self.ms:.0f} ms: {self.body[:2000].decode(errors='replace')}>"


def request(socket_path, method, target, body=None, headers=None, timeout=90):
    """body: bytes as they are, or anything else as JSON."""
    headers = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers.setdefault("Content-Type", "application/json")
    connection = UnixConnection(socket_path, timeout)
    started = time.monotonic()
    try:
        connection.request(method, target, body=body, headers=headers)
        return Answer(connection.getresponse(), started)
    finally:
        connection.close()
