# SPDX-License-Identifier: Apache-2.0
"""The keeper of a LUN: what it says and does at its control socket, and the memory control group of its processes."""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess

import pytest

from mooring import kernel, lun
from mooring.agent import build_dir
from mooring.wait import eventually

GROUPS = pathlib.Path("/sys/fs/cgroup")


def group_of(a):
    """The group of the attachment, which must be its own and hold both processes; skips where none can be made."""
    path = lun.status(a)["memory"].get("cgroup")
    if not path:
        assert "cgroup" in a.log(), "it was said that there is none"
        pytest.skip("no control group can be made here")
    members = {int(pid) for pid in pathlib.Path(path, "cgroup.procs").read_text().split()}
    assert members == {p.pid for p in lun.keepers() + lun.servers()}
    return pathlib.Path(path)


@lun.needs_resend
@pytest.mark.parametrize("end", ["detach", "killed", "attach fails"])
def test_group_goes_with_the_attachment(agent, target, end):
    a = agent()
    if end == "attach fails":
        kernel.run("mkfs.ext4", "-q", target.luns[1])
        a.put("v", target.spec(fs="xfs")).expect(409)
    else:
        a.attach("v", target.spec(fs="ext4"))
        group = group_of(a)
        os.kill(lun.servers()[0].pid, signal.SIGKILL)
        eventually(lambda: lun.status(a)["servers"] == 2 and lun.servers(), 5, "a second server")
        assert group_of(a) == group, "a later server is in it, too"
        if end == "killed":
            os.kill(lun.keepers()[0].pid, signal.SIGKILL)
        a.delete("v", wait=20, accept_data_loss="true").expect(200)
        assert not group.exists()
    assert list((a.runtime / "lun").glob("*.cgroup")) == []


def test_group_of_nobody_is_cleared_away(agent, image):
    """After a crash of everything: found by its name in the runtime directory, though no journal knows it."""
    a = agent()
    own = subprocess.run(["sh", "-c", "cat /proc/self/cgroup"], capture_output=True, text=True, check=True).stdout
    memory = [line.split(":", 2)[2] for line in own.splitlines() if line.split(":")[1] == "memory"]
    if not memory:
        pytest.skip("no memory control group of version 1 here")
    group = GROUPS / "memory" / memory[0].lstrip("/") / ("mooring-lun-" + "0" * 31 + "1")
    group.mkdir()
    (a.runtime / "lun").mkdir(exist_ok=True)
    link = a.runtime / "lun" / ("0" * 31 + "1.cgroup")
    link.symlink_to(group)
    try:
        a.orphans()
        eventually(lambda: not link.is_symlink() and not group.exists(), 10, "it is gone")
    finally:
        if group.exists():
            group.rmdir()


def test_stopped_server_is_cut_through_its_keeper(agent, target, hold):
    a = agent()
    doc = a.attach("v", target.spec(fs="ext4"))
    copy = hold.open_tree(doc)
    operation = a.delete("v", wait=1).expect(202).operation
    os.kill(lun.servers()[0].pid, signal.SIGSTOP)
    [result] = a.act("v", "cut-transport", accept_data_loss=True).expect(200).json["results"]
    assert result["done"] is True and "aborted" in result["detail"], result
    eventually(lambda: lun.servers() + lun.keepers() == [], 5, "both have ended")
    copy.release()
    done = a.operation(operation, wait=20)
    if done["state"] == "failed":
        a.detach("v", accept_data_loss="true")
    assert not kernel.still_mapped(doc)


def test_orders_that_make_no_sense_change_nothing(agent, target):
    a = agent()
    a.attach("v", target.spec(fs="ext4"))
    before = lun.status(a)
    for verb, arguments, word in (
            ("nonsense", {}, "unknown command"), ("fence", {}, "fencing"), ("stop", {}, "open"),
            ("set-timeouts", {"timeout_ms": 1}, "range"), ("set-timeouts", {"replacement_ms": -2}, "range"),
            ("hand-over", {"program": "bin/true"}, "path"), ("hand-over", {"program": "/none"}, "opened"),
            ("hand-over", {"program": "/bin/true"}, "the one before"), ("hand-over", {"program": "/etc/passwd"},
                                                                          "the one before")):
        said = lun.control(a, verb, check=False, **arguments)
        assert said["ok"] is False and word in said["error"]["message"], (verb, said)
    now = eventually(lambda: (s := lun.status(a))["state"] == "up" and s, 10, "it is up again")
    assert now["pid"] == before["pid"] and now["transport"]["timeout_ms"] == before["transport"]["timeout_ms"]
    said = lun.control(a, "set-timeouts", timeout_ms=7000, replacement_ms=-1)
    assert (said["transport"]["timeout_ms"], said["transport"]["replacement_ms"]) == (7000, -1)


@lun.needs_resend
def test_watcher_is_told_of_changes(agent, target):
    a = agent()
    a.attach("v", target.spec(fs="ext4"))
    with lun.Watcher(a) as watcher:
        first = watcher.hear(lambda d: d["ok"])
        for _ in range(8):
            lun.status(a)  # other clients come and go
        os.kill(first["server_pid"], signal.SIGKILL)
        assert watcher.hear(lambda d: d["servers"] > first["servers"])["server_end"] == "signal 9"
        lun.control(a, "cut")
        assert watcher.hear(lambda d: d["state"] == "cut")["transport"]["reason"]
    a.delete("v", wait=20, accept_data_loss="true").expect(200)


def test_programs_that_do_not_serve_never_cost_the_volume(agent, target):
    """However often somebody tries: each time the one before goes on."""
    a = agent()
    a.attach("v", target.spec(fs="ext4"))
    before = lun.status(a)
    for program in ["/bin/true", "/etc/passwd"] * 8:
        said = lun.control(a, "hand-over", check=False, program=program)
        assert said["ok"] is False and "the one before" in said["error"]["message"], said
    now = eventually(lambda: (s := lun.status(a))["state"] == "up" and s, 10, "it is up again")
    assert now["pid"] == before["pid"] and a.get("v").json["state"] == "attached"
    a.detach("v")


class Client:
    """Of the control socket, in two steps: ask, and later hear."""

    def __init__(self, a):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(30)
        [path] = (a.runtime / "lun").glob("*.sock")
        self.socket.connect(str(path))

    def ask(self, verb, **arguments):
        self.socket.send(json.dumps({"version": 3, "cmd": verb, **arguments}).encode())

    def hear(self):
        return json.loads(self.socket.recv(1 << 20))


@lun.needs_resend
def test_program_on_trial_is_not_lost_to_a_second_order(agent, target):
    """A hand-over that is asked for while the server of another one starts."""
    a = agent()
    doc = a.attach("v", target.spec(fs="ext4"))
    [keeper], [server] = lun.keepers(), lun.servers()
    first, second = Client(a), Client(a)
    os.kill(server.pid, signal.SIGSTOP)
    first.ask("hand-over", program=str(build_dir() / "libexec/mooring/mooring-lun"))
    second.ask("stats")
    assert second.hear()["ok"], "the order was taken"
    os.kill(keeper.pid, signal.SIGSTOP)
    try:
        os.kill(server.pid, signal.SIGCONT)
        stat = pathlib.Path(f"/proc/{server.pid}/stat")
        eventually(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "Z", 10, "it has handed over")
        second.ask("hand-over")
    finally:
        os.kill(keeper.pid, signal.SIGCONT)  # sees the end and the second order at once
    assert first.hear()["ok"]
    second.hear()
    for _ in range(2):
        eventually(lambda: lun.status(a)["state"] == "up", 10, "it is up again")
        [server] = lun.servers()
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda pid=server.pid: [p for p in lun.servers() if p.pid != pid], 10, "another server")
    kernel.syncfs(doc["mount_path"])
    a.detach("v")


@pytest.mark.parametrize("other", [{}, {"program": "/none"}])
def test_program_of_a_hand_over_is_not_exchanged_by_another(agent, target, tmp, other):
    """Who is told that it was done has the program that was asked for."""
    a = agent()
    doc = a.attach("v", target.spec(fs="ext4"))
    program = shutil.copy(build_dir() / "libexec/mooring/mooring-lun", pathlib.Path(tmp, "mooring-lun"))
    first, second = Client(a), Client(a)
    [server] = lun.servers()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        first.ask("hand-over", program=str(program))
        second.ask("stats")
        assert second.hear()["ok"], "the order was taken"
        second.ask("hand-over", **other)
        second.ask("stats")
        assert second.hear()["ok"] is False
    finally:
        os.kill(server.pid, signal.SIGCONT)
    said = first.hear()
    assert said["ok"] and os.readlink(f"/proc/{said['server_pid']}/exe") == str(program), said
    kernel.syncfs(doc["mount_path"])
    a.detach("v")
