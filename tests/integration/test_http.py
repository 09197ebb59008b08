# SPDX-License-Identifier: Apache-2.0
"""HTTP against the real agent: bytes as they are sent, waits, disconnects, listening, starting and stopping."""
import json
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from mooring.wait import eventually, never

HOST = b"Host: localhost\r\n"


class Raw:
    """A connection that sends bytes as they are and reads one answer at a time."""

    def __init__(self, where, timeout=10):
        if isinstance(where, tuple):
            self.sock = socket.create_connection(where, timeout)
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout)
            self.sock.connect(str(where))
        self.data = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all was read
        return self

    def _more(self):
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        self.data += data
        return bool(data)

    def answer(self):
        """(status, headers, body), or None when the connection was closed instead."""
        while b"\r\n\r\n" not in self.data:
            if not self._more():
                assert not self.data, self.data
                return None
        head, self.data = self.data.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        while len(self.data) < length and self._more():
            pass
        body, self.data = self.data[:length], self.data[length:]
        return int(lines[0].split()[1]), headers, body

    def closed(self):
        return not self._more()

    def rest(self):
        """All that comes until the connection is closed."""
        while self._more():
            pass
        return self.data


def put(volume, spec, extra=b""):
    body = json.dumps(spec).encode()
    return (b"PUT /volumes/%s HTTP/1.1\r\n" % volume.encode() + HOST + b"Content-Type: application/json\r\n"
            + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body)


# --- framing ---

VICTIM = b"DELETE /volumes/v HTTP/1.1\r\n" + HOST + b"\r\n"
PUT_X = b"PUT /volumes/x HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
GET = b"GET /livez HTTP/1.1\r\n"

AMBIGUOUS = {
    "two lengths": PUT_X + b"Content-Length: 0\r\nContent-Length: 54\r\n\r\n",
    "two equal lengths": PUT_X + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "length and chunked": PUT_X + b"Content-Length: 54\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": PUT_X + b"Transfer-Encoding: chunked\r\nContent-Length: 54\r\n\r\n0\r\n\r\n",
    "unknown coding": PUT_X + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two codings": PUT_X + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding in two fields": PUT_X + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "blank before the colon": PUT_X + b"Content-Length : 54\r\n\r\n",
    "tab before the colon": PUT_X + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "NUL in a length": PUT_X + b"Content-Length: 2\x0054\r\n\r\n{}",
    "folded line": PUT_X + b"X: a\r\n Content-Length: 54\r\n\r\n",
    "bare CR": PUT_X + b"X: a\rContent-Length: 54\r\n\r\n",
    "no Host": GET + b"\r\n",
    "two Hosts": GET + HOST + HOST + b"\r\n",
    "NUL in Host": GET + b"Host: localhost\x00.evil.example\r\n\r\n",
    "NUL after a value": GET + HOST + b"X: a\x00\r\n\r\n",
    "NUL in the path": b"GET /livez\x00/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "blank in the path": b"GET /live z HTTP/1.1\r\n" + HOST + b"\r\n",
    "two blanks": b"GET  /livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute form": b"GET http://localhost/livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "authority": b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "no slash": b"GET livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "chunked in 1.0": b"GET /livez HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET with a body": GET + HOST + b"Content-Length: 54\r\n\r\n",
    "DELETE with a body": b"DELETE /volumes/x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}
# What the library refuses by itself; its answer to a bad length has the head twice, then the end.
REFUSED_BY_LIBRARY = {
    "length not a number": PUT_X + b"Content-Length: 2x\r\n\r\n{}",
    "negative length": PUT_X + b"Content-Length: -1\r\n\r\n{}",
    "length list": PUT_X + b"Content-Length: 2, 2\r\n\r\n{}",
    "no colon": GET + HOST + b"nonsense\r\n\r\n",
}


def test_ambiguous_requests_change_nothing(agent, image):
    """Each is answered with one 400 and the end of the connection; the DELETE behind it is never a request."""
    a = agent()
    a.attach("v", a.file_spec(image(), fs="ext4"))
    where = {"unix": a.socket, "tcp": address(a)}
    wrong = []
    for name, request in AMBIGUOUS.items():
        for kind, target in where.items():
            with Raw(target) as raw:
                raw.send(request + VICTIM)
                answer = raw.answer()
                if answer is None or answer[0] != 400 or raw.answer() is not None:
                    wrong.append((kind, name, answer))
    for name, request in REFUSED_BY_LIBRARY.items():
        with Raw(a.socket) as raw:
            if not raw.send(request + VICTIM).rest().startswith(b"HTTP/1.1 400 "):
                wrong.append((name, raw.data))
    assert not wrong, wrong
    assert a.get("v").expect(200).json["state"] == "attached"
    a.get("x").expect(404)


def test_own_answers_to_bad_framing_are_problems(agent):
    with Raw(agent().socket) as raw:
        status, headers, body = raw.send(AMBIGUOUS["two lengths"]).answer()
        assert status == 400 and headers["connection"] == "close"
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["code"] == "invalid-request"


@pytest.mark.parametrize("target", ["/volumes/a%2Fb", "/volumes/a%00b", "/volumes/%", "/volumes/a%zz", "/volumes/..",
                                    "/volumes/" + "a" * 129, "/volumes/%C3%A9", "/volumes/", "/volumes/a%20b",
                                    "/operations/%00", "/volumes?limit=%00", "/volumes?limit=1&limit=1",
                                    "/volumes?nonsense=1"])
def test_bad_paths_and_queries_are_400(agent, target):
    agent().request("GET", target).expect(400, code="invalid-request")


@pytest.mark.parametrize("target", ["/", "/v1", "/v2/volumes", "//volumes", "/volumes/a/../../livez", "/livez/",
                                    "/operations", "/operations/", "/operations/nonsense", "/operations/%FF",
                                    "/volumes/a/holders/", "/volumes/a/holders/actions/", "/volumes/a%2Fforget/b",
                                    "/orphans/a/b"])
def test_unknown_paths_are_404(agent, target):
    problem = agent().request("GET", target).expect(404).json  # also: it is valid UTF-8
    assert problem["code"] in ("not-found", "operation-not-found")


def test_wrong_method_is_405(agent):
    a = agent()
    for method in ("POST", "PATCH", "OPTIONS", "TRACE", "get", "NONSENSE"):
        answer = a.request(method, "/v1/volumes/a").expect(405, code="method-not-allowed")
        assert answer.headers["Allow"] == "GET, HEAD, PUT, DELETE"
    for target in ("/volumes/a/forget", "/volumes/a/holders/actions"):
        assert a.request("GET", target).expect(405).headers["Allow"] == "POST"
    assert a.request("GET", "/orphans/a").expect(405).headers["Allow"] == "DELETE"


def test_bad_bodies(agent):
    a = agent()

    def send(body, **headers):
        return a.request("PUT", "/volumes/x", body, {"Content-Type": "application/json", **headers})

    for body in (b"{", b"nonsense", b"{}{}", b"{'a':1}", b'{"a":NaN}', b'{"a":"\xff"}', b'{"a\\u0000":1}', b"{}\0",
                 b"[" * 5000, b'{"a":' * 5000, b" "):
        send(body).expect(400, code="invalid-request")
    for body in (b"[]", b'""', b"{}"):
        send(body).expect(422, code="invalid-spec")
    # Cut to the size of a message, the name must still be UTF-8.
    answer = send(('{"' + "é" * 2000 + '":1}').encode()).expect(422, code="unknown-field")
    answer.body.decode()
    send(b"{}", **{"Content-Type": "text/plain"}).expect(415, code="unsupported-media-type")
    send(b"{}", **{"Content-Type": "application/jsonx"}).expect(415)
    send(b"{}", **{"Content-Type": "application/json; charset=utf-8"}).expect(422)
    send(b"{}", **{"Content-Encoding": "gzip"}).expect(415)
    a.request("PUT", "/volumes/x").expect(400, code="invalid-request")
    send(b" " * 65536).expect(400)
    send(b" " * 65537).expect(413, code="body-too-large")
    a.get("x").expect(404)


def test_bad_bodies_of_post(agent):
    a = agent()

    def post(target, body, kind="application/json", **headers):
        return a.request("POST", target, body, {"Content-Type": kind, **headers})

    for target in ("/volumes/x/forget", "/v1/volumes/x/holders/actions"):
        for body in (b"{", b"nonsense", b'{"reason":"\xff"}', b"[" * 5000, b" "):
            post(target, body).expect(400, code="invalid-request")
        problem = post(target, b'{"bogus\\nx":1}').expect(422, code="unknown-field").json
        assert problem["pointer"] == "/bogus?x" and problem["remedy"].startswith("known fields here: ")
        post(target, b"{}", "text/plain").expect(415, code="unsupported-media-type")
        post(target, b"{}", **{"Content-Encoding": "gzip"}).expect(415)
    # Forgetting needs no body, acting does.
    a.request("POST", "/volumes/x/forget").expect(404, code="volume-not-found")
    a.request("POST", "/volumes/x/holders/actions").expect(400, code="invalid-request")


def test_answers_of_the_library(agent):
    """The few that are not problem documents: openapi.yaml names them."""
    a = agent()
    for request, status in ((b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
                            (GET + b"X: " + b"a" * 40000 + b"\r\n\r\n", 431),
                            (b"GET /livez HTTP/2.0\r\n" + HOST + b"\r\n", 505),
                            (PUT_X + b"Content-Length: 99999999999999999999999\r\n\r\n", 413)):
        with Raw(a.socket) as raw:
            assert raw.send(request).rest().startswith(b"HTTP/1.1 %d " % status)


def test_truncated_body_does_nothing(agent, image):
    a = agent()
    spec = a.file_spec(image(), fs="ext4")
    with Raw(a.socket) as raw:
        raw.send(put("x", spec)[:-10])
    with Raw(a.socket) as raw:
        raw.send(put("x", spec)[:-10])
        raw.sock.shutdown(socket.SHUT_WR)
        never(lambda: a.get("x").status != 404, 0.3)
    never(lambda: a.get("x").status != 404, 0.3)


def test_silent_client_costs_nobody_else(agent):
    a = agent()
    clients = [Raw(a.socket).send(GET) for _ in range(100)]
    started = time.monotonic()
    a.request("GET", "/livez").expect(200)
    assert time.monotonic() - started < 1
    for raw in clients:
        raw.sock.close()


# --- Host on TCP ---

def address(a):
    host, port = a.tcp.rsplit(":", 1)
    return host, int(port)


@pytest.mark.parametrize("host, status", [("localhost", 200), ("127.0.0.1:1", 200), ("[::1]:80", 200),
                                          ("evil.example", 400), ("localhost.evil.example", 400), ("", 400)])
def test_host_on_tcp_must_be_loopback(agent, host, status):
    with Raw(address(agent())) as raw:
        assert raw.send(b"GET /livez HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode()).answer()[0] == status


# --- waits ---

def test_wait_that_runs_out_is_joined_again(agent, image, hold):
    a = agent()
    doc = a.attach("v", a.file_spec(image(), fs="ext4"))
    copy = hold.mount_copy(doc)
    started = time.monotonic()
    answer = a.delete("v", wait=1).expect(202)
    assert 0.9 < time.monotonic() - started < 3
    assert answer.json["id"] == "v" and answer.json["state"] == "detaching"
    assert answer.headers["Location"] == f"/operations/{answer.json['operation']}"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Preference-Applied"] == "wait=1" and answer.headers["Vary"] == "Prefer"
    again = a.request("DELETE", "/v1/volumes/v", None, {"Prefer": "respond-async"}).expect(202)
    assert again.headers["Location"] == "/v1" + answer.headers["Location"]
    # A long poll ends when the operation does, not when the wait is over.
    threading.Timer(0.5, copy.release).start()
    started = time.monotonic()
    operation = a.operation(answer.operation, wait=60)
    assert operation["state"] == "done" and time.monotonic() - started < 10
    assert operation["result"]["volume"] == "v"
    assert a.delete("v").expect(200).json == operation["result"]


@pytest.mark.parametrize("prefer", ["wait=-1", "wait=x", "wait=", "nonsense", "wait=9999"])
def test_odd_preferences(agent, image, prefer):
    """Malformed ones are ignored, too large ones clamped."""
    a = agent()
    answer = a.request("PUT", "/volumes/v", a.file_spec(image(), fs="ext4"), {"Prefer": prefer}).expect(201)
    assert answer.headers["Preference-Applied"] == ("wait=600" if prefer == "wait=9999" else None)


def test_operation_goes_on_without_its_client(agent, image):
    a = agent()
    with Raw(a.socket) as raw:
        raw.send(put("v", a.file_spec(image(), fs="ext4")))
        eventually(lambda: a.get("v").status == 200)
    eventually(lambda: a.get("v").json["state"] == "attached")


def post(target, body):
    body = json.dumps(body).encode()
    return (b"POST %s HTTP/1.1\r\n" % target.encode() + HOST + b"Content-Type: application/json\r\n"
            + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def test_action_goes_on_without_its_client(agent, image, hold):
    a = agent()
    copy = hold.mount_copy(a.attach("v", a.file_spec(image(), fs="ext4")))
    a.delete("v", wait=1).expect(202)
    rows = [row for row in a.holders("v")["holders"] if row["kind"] == "mount-copy"]
    with Raw(a.socket) as raw:
        raw.send(post("/volumes/v/holders/actions", {"action": "unmount-copies", "holders": [rows[0]["id"]]}))
        eventually(lambda: [i for i in a.history("v") if i["event"] == "action"])
    a.detach("v")
    eventually(lambda: [i for i in a.history("v") if i["event"] == "action_done"], what="the action's end is written")
    copy.release()


def test_journal_knows_who_asked(agent, image, hold):
    """The process on a unix socket, the address on TCP."""
    a = agent()
    copies = [hold.mount_copy(a.attach(name, a.file_spec(image(64 << 20), fs="ext4"))) for name in ("u", "t")]
    for name in ("u", "t"):
        a.delete(name, wait=0).expect(202)
        eventually(lambda name=name: a.get(name).json["step"] == "drain")
    a.forget("u", "by unix").expect(200)
    with Raw(address(a)) as raw:
        tcp = "127.0.0.1:%d" % raw.sock.getsockname()[1]
        assert raw.send(post("/volumes/t/forget", {"reason": "by tcp"})).answer()[0] == 200
    callers = {row["id"]: (row["reason"], row["forgotten_by"]) for row in a.orphans()}
    assert callers == {
        "u": ("by unix", {"via": "unix", "uid": os.getuid(), "gid": os.getgid(), "pid": os.getpid()}),
        "t": ("by tcp", {"via": "tcp", "address": tcp}),
    }
    a.restart()
    assert {row["id"]: (row["reason"], row["forgotten_by"]) for row in a.orphans()} == callers
    for copy in copies:
        copy.release()
    for name in ("u", "t"):
        a.delete_orphan(name).expect(200)
    assert a.orphans() == []


def test_clients_that_wait_leave_room_for_those_who_act(agent, image, hold):
    """All places for waiting are taken: an operator can still see who holds, and end that."""
    a = agent()
    copy = hold.mount_copy(a.attach("v", a.file_spec(image(), fs="ext4")))
    request = b"DELETE /volumes/v HTTP/1.1\r\n" + HOST + b"Prefer: wait=600\r\n\r\n"
    clients = [Raw(a.socket).send(request) for _ in range(400)]
    rows = eventually(lambda: [row for row in a.holders("v")["holders"] if row["kind"] == "mount-copy"])
    result = a.act("v", "unmount-copies", rows).expect(200).json
    assert [r["done"] for r in result["results"]] == [True]
    statuses = [raw.answer()[0] for raw in clients]
    assert statuses.count(200) == 384 and statuses.count(202) == 16
    for raw in clients:
        raw.sock.close()
    copy.release()


def test_clients_that_wait_leave_room(agent, image, hold):
    """Many waiters, all gone again: everybody else is still served, and new ones may wait."""
    a = agent()
    doc = a.attach("v", a.file_spec(image(), fs="ext4"))
    hold.mount_copy(doc)
    request = b"DELETE /volumes/v HTTP/1.1\r\n" + HOST + b"Prefer: wait=600\r\n\r\n"
    clients = [Raw(a.socket).send(request) for _ in range(400)]
    a.request("GET", "/livez", timeout=5).expect(200)
    a.delete("v", wait=600, timeout=5).expect(202)  # over the limit of waiters: answered at once
    for raw in clients:
        raw.sock.close()
    started = time.monotonic()
    eventually(lambda: a.request("GET", "/livez", timeout=5).status == 200)
    a.delete("v", wait=1).expect(202)
    assert time.monotonic() - started > 0.9


# --- GET ---

def test_etag(agent, image):
    a = agent()
    a.attach("v", a.file_spec(image(), fs="ext4"))
    etag = a.get("v").headers["ETag"]
    assert a.request("GET", "/volumes/v", None, {"If-None-Match": etag}).status == 304
    assert a.request("GET", "/volumes/v", None, {"If-None-Match": f'"x", W/{etag}'}).status == 304
    assert a.request("HEAD", "/volumes/v").headers["ETag"] == etag
    a.detach("v")
    a.attach("v", a.file_spec(a.file_root / "image0.img", fs="ext4"))
    assert a.request("GET", "/volumes/v", None, {"If-None-Match": etag}).status == 200


def test_etag_of_another_start_does_not_match(agent, image):
    a = agent()
    a.attach("v", a.file_spec(image(), fs="ext4"))
    etag = a.get("v").headers["ETag"]
    a.restart()
    assert a.request("GET", "/volumes/v", None, {"If-None-Match": etag}).status == 200


def test_list_is_paged(agent, image):
    a = agent()
    for name in ("b", "a", "c"):
        a.attach(name, a.file_spec(image(64 << 20), fs="ext4"))
    page = a.request("GET", "/v1/volumes?limit=2").expect(200).json
    assert [v["id"] for v in page["items"]] == ["a", "b"]
    page = a.request("GET", f"/volumes?limit=2&page_token={page['next_page_token']}").expect(200).json
    assert [v["id"] for v in page["items"]] == ["c"] and page["next_page_token"] is None


def test_requests_are_logged_without_secrets(agent):
    a = agent()
    spec = {"source": {"driver": "iscsi", "portals": ["127.0.0.1:1"], "target": "iqn.2026-11.example:d", "lun": 0,
                       "chap": {"username": "name-of-mine", "password": "hunter2-and-more"}},
            "filesystem": {"type": "xfs"}, "bogus": "evil\nline"}
    a.put("v", spec).expect(422)
    line = eventually(lambda: [x for x in a.log().splitlines() if "method=PUT" in x])[0]
    assert "route=/volumes/{id} id=v" in line and "status=422 code=unknown-field" in line and "ms=" in line
    assert "hunter2" not in a.log()


# --- life ---

def ends(a, *options, status):
    """Runs the agent's program with more options: it must end by itself with this status."""
    done = subprocess.run([*a.argv(), *map(str, options)], capture_output=True, text=True, timeout=20, check=False,
                          env=a.environment(), cwd="/")
    assert done.returncode == status, done
    return done.stdout + done.stderr


def test_exit_codes(agent, tmp):
    a = agent(start=False)
    assert "--nonsense" in ends(a, "--nonsense", status=64)
    ends(a, "--listen", "nonsense", status=64)
    ends(a, "--listen", "10.1.2.3:80", status=78)
    assert "/nonexistent" in ends(a, "--config", "/nonexistent", status=78)
    bad = tmp / "bad.conf"
    bad.write_text("[mount]\nroots = relative\n")
    assert f"{bad}:2" in ends(a, "--config", bad, status=78)
    assert "configuration ok" in ends(a, "--check-config", status=0)
    assert "--config" in ends(a, "--help", status=0)
    assert ends(a, "--version", status=0).startswith("mooringd ")
    a.loopback = False
    assert "--insecure-loopback" in ends(a, "--listen", "127.0.0.1:0", status=78)


def test_socket_is_private_and_goes_with_the_agent(agent):
    a = agent()
    assert a.socket.stat().st_mode & 0o7777 == 0o660
    assert a.stop() == 0
    assert not a.socket.exists()


def test_stale_socket_is_replaced_and_a_live_one_is_not(agent, tmp):
    a = agent()
    a.kill9()
    assert a.socket.exists()
    a.start()
    other = agent(start=False, base=tmp / "other")
    other.socket = a.socket
    assert "in use" in ends(other, status=71)
    a.request("GET", "/livez").expect(200)
    for path in (tmp / "file",):
        path.write_text("precious")
        other.socket = path
        ends(other, status=71)
        assert path.read_text() == "precious"


def test_second_agent_on_the_same_state_is_refused(agent, tmp):
    a = agent()
    other = agent(start=False, base=tmp / "other")
    other.state = a.state
    ends(other, status=71)
    a.request("GET", "/livez").expect(200)


def test_stop_answers_those_who_wait(agent, image, hold):
    a = agent()
    doc = a.attach("v", a.file_spec(image(), fs="ext4"))
    copy = hold.mount_copy(doc)
    with Raw(a.socket) as raw:
        raw.send(b"DELETE /volumes/v HTTP/1.1\r\n" + HOST + b"\r\n")
        eventually(lambda: a.get("v").json["state"] == "detaching")
        assert a.stop() == 0
        status, headers, body = raw.answer()
        assert status == 503 and json.loads(body)["code"] == "shutting-down" and headers["retry-after"] == "1"
        assert raw.closed()
    copy.release()
    a.start()
    a.delete("v").expect(200)


def test_sighup_is_no_end(agent):
    a = agent()
    a.process.send_signal(signal.SIGHUP)
    eventually(lambda: "SIGHUP" in a.log())
    a.request("GET", "/livez").expect(200)


def test_service_manager_gives_sockets_and_is_told(agent, tmp):
    """LISTEN_FDS (sd_listen_fds(3)) and NOTIFY_SOCKET (sd_notify(3))."""
    a = agent(start=False)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp / "given.sock"))
    listener.listen(16)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(tmp / "notify"))
    notify.settimeout(10)
    argv = [x for x in a.argv() if not x.startswith("unix:") and x not in ("--listen", "127.0.0.1:0")]
    code = ("import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid());"
            "os.environ['LISTEN_FDS'] = '1'; os.execv(sys.argv[2], sys.argv[2:])")
    with open(a.log_path, "ab") as log:
        process = subprocess.Popen(["/usr/bin/python3", "-c", code, str(listener.fileno()), *argv], stderr=log,
                                   pass_fds=[listener.fileno()], env={**a.environment(), "NOTIFY_SOCKET": str(tmp / "notify")})
    try:
        assert b"READY=1" in notify.recv(4096)
        with Raw(tmp / "given.sock") as raw:
            assert raw.send(GET + HOST + b"\r\n").answer()[0] == 200
        assert not a.socket.exists()
        process.terminate()
        assert b"STOPPING=1" in notify.recv(4096)
        assert process.wait(10) == 0
        assert os.path.exists(tmp / "given.sock"), "it is the service manager's"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        listener.close()
        notify.close()
