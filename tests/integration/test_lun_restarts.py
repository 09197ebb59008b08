# SPDX-License-Identifier: Apache-2.0
"""The server of a LUN dies, is stopped, is exchanged: who uses the volume notices a pause at most."""
import contextlib
import ctypes
import os
import pathlib
import shutil
import signal
import threading
import time

import pytest

from mooring import kernel, lun
from mooring.agent import build_dir
from mooring.load import Load, ended, fio
from mooring.wait import eventually

SYS_PIDFD_GETFD = 438
RESIZE_LIMIT_S = 30  # storage/lun/keeper_verbs.c
ORDER_FD = 7  # storage/lun/start.h
KILLS = int(os.environ.get("MOORING_LUN_KILLS", "16"))


def exchanged(pid, timeout=10):
    """Waits for another server."""
    return eventually(lambda: [p for p in lun.servers() if p.pid != pid], timeout, "a new server")[0]


@lun.needs_resend
def test_server_killed_again_and_again_under_load(agent, target):
    a = agent()
    doc = a.attach("v", target.spec())
    before = lun.status(a)
    work = fio(doc["mount_path"] + "/fio", "--bs=4k", "--size=48m", "--iodepth=32", "--loops=4")
    with Load(doc["mount_path"]) as load:
        for _ in range(KILLS):
            [server] = lun.servers()
            os.kill(server.pid, signal.SIGKILL)
            exchanged(server.pid)
            load.goes_on(30)
    ended(work, 180)
    after = lun.status(a)
    print(f"{KILLS} kills, longest stall {load.longest_s:.2f} s, {load.check()} files equal, "
          f"counters {after['counters']}")
    assert load.errors == []
    assert after["servers"] == before["servers"] + KILLS and after["pid"] == before["pid"]
    assert after["counters"]["resent"] > 0, "requests were with a server when it died"
    assert after["counters"]["writes"] > before["counters"]["writes"], "counters outlive a server"
    assert a.get("v").json["state"] == "attached"
    a.detach("v")
    kernel.run("xfs_repair", "-n", target.luns[1])


@pytest.mark.skipif(lun.RESENDS, reason="the kernel is 6.9 or later")
def test_server_killed_on_an_older_kernel(agent, target):
    """Nobody can say what it had in hand: everything fails, and nothing hangs."""
    a = agent()
    doc = a.attach("v", target.spec())
    with Load(doc["mount_path"]) as load:
        load.goes_on()
        os.kill(lun.servers()[0].pid, signal.SIGKILL)
        eventually(lambda: load.errors, 10, "an I/O error", interval=0.02)
        eventually(lambda: a.get("v").json["state"] == "failed", 10, "the volume says so")
    assert not lun.keepers() and not lun.servers()
    a.delete("v", wait=30, accept_data_loss="true").expect(200)
    again = a.attach("v", target.spec())
    load.check(again["mount_path"])
    a.detach("v")


def test_exchange_under_load(agent, target):
    """hand-over: nothing is in flight while the servers change."""
    a = agent()
    doc = a.attach("v", target.spec(fs="ext4"))
    work = fio(doc["mount_path"] + "/fio", "--bsrange=512-256k", "--size=64m", "--iodepth=16",
               "--loops=2")
    with Load(doc["mount_path"]) as load:
        for _ in range(5):
            [server] = lun.servers()
            lun.control(a, "hand-over")
            exchanged(server.pid)
            load.goes_on(30)
    ended(work, 180)
    status = lun.status(a)
    print(f"longest stall {load.longest_s:.2f} s; {status['counters']}")
    assert load.errors == [] and load.check()
    assert status["counters"]["resent"] == 0, "it was drained"
    a.detach("v")
    kernel.run("e2fsck", "-fn", target.luns[1])


@lun.needs_resend
def test_exchange_for_another_program_under_load(agent, target):
    a = agent()
    doc = a.attach("v", target.spec(fs="ext4"))
    with Load(doc["mount_path"]) as load:
        for _ in range(2):
            said = lun.control(a, "hand-over", program=build_dir() / "libexec/mooring/mooring-lun")
            assert "program_on_trial" not in said and said["server_pid"] == lun.servers()[0].pid, said
            os.kill(said["server_pid"], signal.SIGKILL)
            exchanged(said["server_pid"])
            load.goes_on(30)
    assert load.errors == [] and load.check()
    a.detach("v")


@lun.needs_resend
@pytest.mark.parametrize("death", ["at its first request", "as if it had served", "when idle", "never: it hangs"])
def test_program_that_dies_before_it_served_is_not_kept(agent, target, tmp, death):
    """It says that it is ready, no more: the one before goes on with what was given to it."""
    a = agent()
    doc = a.attach("v", target.spec(fs="ext4"))
    bad = pathlib.Path(tmp, "bad_server")
    source = pathlib.Path(__file__).with_name("bad_server.c")
    option, times, end = {"at its first request": ([], 8, "signal 6"),
                          "as if it had served": (["-DEXIT_STATUS=0"], 8, "exit status 0"),
                          "when idle": (["-DIDLE_MS=500"], 8, "signal 6"),
                          "never: it hangs": (["-DIDLE_MS=-1"], 1, "signal 9")}[death]
    kernel.run("cc", "-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", *option, "-o", bad, source)
    with contextlib.nullcontext() if death == "when idle" else Load(doc["mount_path"]) as load:
        for _ in range(times):  # it is no crash of ours, however often somebody tries
            said = lun.control(a, "hand-over", check=False, program=bad)
            assert said["ok"] is False and end in said["error"]["message"], said
            status = eventually(lambda: (s := lun.status(a))["state"] == "up" and s, 10, "it is up again")
        if load:
            load.goes_on(30)
    print(f"{status['servers']} servers, {status['counters']}" + (f", longest stall {load.longest_s:.2f} s" if load else ""))
    assert status["counters"]["errors"] == 0
    if load:
        assert load.errors == [] and load.check()
    if death == "at its first request":
        assert status["counters"]["resent"] > 0
    said = lun.control(a, "hand-over", program=build_dir() / "libexec/mooring/mooring-lun")
    assert said["ok"] and "program_on_trial" not in said, "an idle volume is no obstacle"
    kernel.syncfs(doc["mount_path"])
    a.detach("v")
    kernel.run("e2fsck", "-fn", target.luns[1])


@lun.needs_resend
def test_program_without_a_session_is_not_kept(agent, target, tmp):
    """Is it the target that is away, or can this program not log in? The one before is no worse."""
    a = agent()
    doc = a.attach("v", target.spec(fs="ext4"))
    program = shutil.copy(build_dir() / "libexec/mooring/mooring-lun", pathlib.Path(tmp, "mooring-lun"))
    with Load(doc["mount_path"]) as load:
        target.kill()
        said = lun.control(a, "hand-over", timeout=70, check=False, program=program)
        assert said["ok"] is False and "the one before" in said["error"]["message"], said
        [server] = lun.servers()
        assert os.readlink(f"/proc/{server.pid}/exe") != str(program)
        target.restart()
        load.goes_on(30)
    assert load.errors == [] and load.check()
    a.detach("v")
    kernel.run("e2fsck", "-fn", target.luns[1])


@lun.needs_resend
def test_a_new_server_is_no_outage_of_the_target(agent, target):
    """replacement_timeout_s 0: the target was not away."""
    a = agent()
    doc = a.attach("v", target.spec(fs="ext4", replacement=0))
    with Load(doc["mount_path"]) as load:
        for kill in (False, True, False):
            [server] = lun.servers()
            if kill:
                os.kill(server.pid, signal.SIGKILL)
            else:
                lun.control(a, "hand-over")
            exchanged(server.pid)
            load.goes_on(30)
    assert load.errors == [] and load.check()
    a.detach("v")


def test_stopped_server_can_be_aborted(agent, target):
    a = agent()
    doc = a.attach("v", target.spec())
    with Load(doc["mount_path"]) as load:
        [server] = lun.servers()
        os.kill(server.pid, signal.SIGSTOP)
        time.sleep(1)
        count = load.count
        started = time.monotonic()
        lun.control(a, "abort")
        eventually(lambda: load.errors, 10, "an I/O error", interval=0.02)
        took = time.monotonic() - started
    print(f"EIO {took:.2f} s after the abort; {load.count - count} writes since")
    assert took < 2
    eventually(lambda: a.get("v").json["state"] == "failed", 10, "the volume says so")
    a.delete("v", wait=30, accept_data_loss="true").expect(200)
    again = a.attach("v", target.spec())
    load.check(again["mount_path"])
    a.detach("v")


def test_keeper_takes_its_server_along(agent, target):
    a = agent()
    a.attach("v", target.spec(fs="ext4"))
    [keeper], [server] = lun.keepers(), lun.servers()
    os.kill(keeper.pid, signal.SIGKILL)
    eventually(lambda: not kernel.alive(server.pid), 5, "the server ends with its keeper")
    eventually(lambda: a.get("v").json["state"] == "failed", 5, "the volume has failed")
    a.delete("v", wait=30, accept_data_loss="true").expect(200)


def test_server_that_dies_at_once_is_given_up(agent, target):
    """No endless loop of restarts: the file fails instead."""
    a = agent()
    a.attach("v", target.spec(fs="ext4"))
    [keeper] = lun.keepers()

    def killed():
        for server in lun.servers():
            os.kill(server.pid, signal.SIGKILL)
        return not kernel.alive(keeper.pid)

    eventually(killed, 60, "the keeper gives up", interval=0.02)
    eventually(lambda: a.get("v").json["state"] == "failed", 5, "the volume has failed")
    a.delete("v", wait=30, accept_data_loss="true").expect(200)


@lun.needs_resend
@pytest.mark.parametrize("how", ["stop", "kill9"])
def test_agent_finds_the_attachment_again(agent, target, how):
    a = agent()
    doc = a.attach("v", target.spec(fs="ext4"))
    before = lun.status(a)
    with Load(doc["mount_path"]) as load:
        getattr(a, how)()
        os.kill(lun.servers()[0].pid, signal.SIGKILL)
        load.goes_on(30)
        a.start()
        load.goes_on(30)
    assert load.errors == []
    now = eventually(lambda: (d := a.get("v").json)["transport"]["state"] != "unknown" and d, 5, "the agent is told about the transport")
    assert now["state"] == "attached" and now["transport"]["state"] == "up"
    assert lun.status(a)["pid"] == before["pid"]
    a.detach("v")


def steal_announcement(server):
    """Takes the count of the server's order eventfd: it has read that, and got no further."""
    pidfd = os.pidfd_open(server.pid)
    fd = ctypes.CDLL(None, use_errno=True).syscall(SYS_PIDFD_GETFD, pidfd, ORDER_FD, 0)
    os.close(pidfd)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0
    finally:
        os.close(fd)


@lun.needs_resend
def test_an_order_outlives_the_server_that_was_told(agent, target):
    """Killed between the announcement of an order and the order itself: the next server answers it."""
    a = agent()
    a.attach("v", target.spec(fs="ext4"))
    [server] = lun.servers()
    os.kill(server.pid, signal.SIGSTOP)
    answer = threading.Thread(target=lun.control, args=(a, "resize"), kwargs={"check": False}, daemon=True)
    answer.start()
    eventually(lambda: steal_announcement(server), 5, "it is told so", interval=0.01)
    os.kill(server.pid, signal.SIGKILL)
    answer.join(RESIZE_LIMIT_S / 2)
    assert not answer.is_alive(), "nobody has taken the order"
    exchanged(server.pid)
    eventually(lambda: a.get("v").json["transport"]["state"] == "up", 20, "the link is up")
    a.detach("v")
