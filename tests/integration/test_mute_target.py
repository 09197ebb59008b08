# SPDX-License-Identifier: Apache-2.0
"""A target, or mooring-lun itself, falls silent: that volume suffers, the agent and the others do not."""
import os
import pathlib
import signal
import socket
import time

import pytest

from mooring import kernel
from mooring.heartbeat import Heartbeat
from mooring.wait import eventually

TIMEOUT_S = 3


def test_silent_during_attach(agent, target, image):
    a = agent(config={"iscsi": {"timeout_seconds": TIMEOUT_S}})
    other = image(64 << 20)
    with Heartbeat(a, other):
        target.stop()
        started = time.monotonic()
        answer = a.put("v", target.spec())
        took = time.monotonic() - started
    answer.expect(504, code="target-timeout")
    assert TIMEOUT_S - 0.5 < took < 3 * TIMEOUT_S + 3, f"{took:.1f} s"
    target.cont()
    assert a.attach("v", target.spec())["state"] == "attached"


def test_silent_name_server(agent, target, tmp):
    """An error that says so, in time; and one portal that needs no name is enough."""
    a = agent(config={"iscsi": {"timeout_seconds": 6}})
    conf = pathlib.Path(tmp, "resolv.conf")
    conf.write_text("nameserver 127.0.0.77\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.77", 53))
        kernel.run("mount", "--bind", conf, "/etc/resolv.conf")
        try:
            started = time.monotonic()
            problem = a.put("v", target.spec(portals=["name.example.test"])).expect(502, code="portal-unreachable")
            assert "resolved" in problem.json["detail"] and time.monotonic() - started < 6, problem
            many = [f"name{n}.example.test" for n in range(8)]
            a.put("v", target.spec(portals=many)).expect(504, code="target-timeout")
            a.attach("v", target.spec(portals=["name.example.test", target.portal]))
        finally:
            kernel.run("umount", "/etc/resolv.conf")
    a.detach("v")


def test_silent_in_the_middle_of_an_attach(agent, target, image):
    """The login works, then mkfs stalls: an error after the timeout, and nothing is left."""
    a = agent(config={"iscsi": {"timeout_seconds": TIMEOUT_S}})
    other = image(64 << 20)
    with Heartbeat(a, other):
        operation = a.put("v", target.spec(replacement=0), wait=0).expect(202).operation
        eventually(target.connections, 10, "logged in", interval=0.001)
        target.stop()
        done = a.operation(operation, wait=60)
    if done["state"] == "failed":  # else it was quicker than us
        assert done["error"]["code"] in ("target-timeout", "device-error"), done
        doc = eventually(lambda: (d := a.get("v").json)["device"] is None and d, 20, "undone")
        assert doc["state"] == "failed"
    target.cont()
    assert a.detach("v")["volume"] == "v"


def test_silent_during_detach_with_dirty_data(agent, target, image):
    a = agent(config={"iscsi": {"timeout_seconds": TIMEOUT_S}})
    other = image(64 << 20)
    doc = a.attach("v", target.spec(fs="xfs", replacement=0))
    with Heartbeat(a, other):
        pathlib.Path(doc["mount_path"], "dirty").write_bytes(os.urandom(8 << 20))
        target.stop()
        answer = a.delete("v")
    answer.expect(409, code="data-not-written")
    assert answer.json["retryable"] is False and answer.json["remedy"]
    for _ in range(3):
        a.delete("v").expect(409, code="data-not-written")
    a.restart()
    a.delete("v").expect(409, code="data-not-written")
    assert kernel.still_mapped(doc), "nothing was unmapped without the caller's word"
    target.cont()
    a.delete("v").expect(409, code="data-not-written")
    proof = a.detach("v", accept_data_loss="true")
    assert proof["volume"] == "v" and not kernel.still_mapped(doc)


def test_killed_target_gives_errors_not_hangs(agent, target, image):
    a = agent(config={"iscsi": {"timeout_seconds": TIMEOUT_S}})
    doc = a.attach("v", target.spec(replacement=0))
    target.kill()
    with pytest.raises(OSError):
        with open(pathlib.Path(doc["mount_path"], "f"), "wb") as file:
            file.write(b"x")
            os.fsync(file.fileno())
    started = time.monotonic()
    answer = a.delete("v", accept_data_loss="true")
    assert answer.expect(200).json["evidence"]["exclusive_open"] is True
    assert time.monotonic() - started < 3 * TIMEOUT_S + 5


def test_stopped_lun_process_wedges_its_volume_only(agent, target, image):
    a = agent(config={"worker": {"deadline_seconds": 2, "format_deadline_seconds": 60}})
    other = image(64 << 20)
    doc = a.attach("v", target.spec())
    pathlib.Path(doc["mount_path"], "dirty").write_bytes(os.urandom(1 << 20))
    [lun] = kernel.our_processes("mooring-lun-io")
    os.kill(lun.pid, signal.SIGSTOP)
    try:
        with Heartbeat(a, other):
            operation = a.delete("v", wait=0).expect(202).operation
            wedged = eventually(lambda: (d := a.get("v").json)["state"] == "wedged" and d, 15, "wedged")
            assert wedged["operation"] == operation and wedged["step"] == "unmount"
            assert kernel.still_mapped(doc)
            a.put("v", doc["spec"]).expect(409)
            time.sleep(1)
    finally:
        os.kill(lun.pid, signal.SIGCONT)
    done = a.operation(operation, wait=30)
    assert done["state"] == "done", "it recovers by itself"
    assert done["result"]["evidence"]["exclusive_open"] is True
    a.get("v").expect(404)
    kernel.run("xfs_repair", "-n", target.luns[1])


def test_killed_worker_is_replaced(agent, image, hold):
    a = agent()
    doc = a.attach("v", a.file_spec(image()))
    holder = hold.mount_copy(doc)
    operation = a.delete("v", wait=1).expect(202).operation
    workers = [p for p in kernel.our_processes("mooring-worker") if "scan" not in p.cmdline]
    assert len(workers) == 1, workers
    os.kill(workers[0].pid, signal.SIGKILL)
    time.sleep(0.3)
    assert kernel.still_mapped(doc) and a.get("v").json["state"] == "detaching"
    holder.release()
    assert a.operation(operation, wait=30)["state"] == "done"
