# SPDX-License-Identifier: Apache-2.0
"""What is said of the session between a volume and its target: by GET alone, at once, and without asking twice."""
import errno
import mmap
import os
import signal
import time

import pytest

from mooring import kernel, lun
from mooring.usage import idle_wake_ups
from mooring.wait import eventually

TIMEOUT_S = 2  # a target that is silent for so long is dead
SAID_S = 15  # a session is lost or made, and two cores that others use


@pytest.fixture
def a(agent):
    return agent(config={"iscsi": {"timeout_seconds": TIMEOUT_S}})


def spec_of(target, replacement_timeout_s, **more):
    spec = target.spec(**more)
    spec["source"]["replacement_timeout_s"] = replacement_timeout_s
    return spec


def said(a, state):
    """Waits until the transport is said to be in that state; returns the volume document."""
    def now():
        doc = a.get("v").json
        assert doc["transport"], "nothing is said"
        return doc["transport"]["state"] == state and doc
    return eventually(now, SAID_S, f"the transport is {state}", interval=0.05)


def assert_attached(doc):
    """Whatever the transport does, that is no state of the volume."""
    assert (doc["state"], doc["error"], doc["operation"]) == ("attached", None, None), doc


def read_direct(doc):
    """0, or the errno of a read of the device itself."""
    fd = os.open(doc["device"], os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        os.preadv(fd, [mmap.mmap(-1, 4096)], 0)  # an aligned buffer
        return 0
    except OSError as error:
        return error.errno
    finally:
        os.close(fd)


def test_up_down_and_up_again(a, target):
    a.attach("v", spec_of(target, 60))
    up = said(a, "up")
    assert_attached(up)
    assert up["transport"]["portal"] == target.portal and up["transport"]["header_digest"] == "none"
    assert (up["transport"]["timeout_ms"], up["transport"]["replacement_ms"]) == (TIMEOUT_S * 1000, 60000)
    assert up["fencing"] is None
    target.kill()
    down = said(a, "down")
    assert_attached(down)
    assert down["transport"]["reason"] and down["transport"]["since"] > up["transport"]["since"]
    assert a.request("GET", "/volumes").json["items"] == [a.get("v").json]
    target.restart()
    again = said(a, "up")
    assert_attached(again)
    assert again["identity"] == up["identity"] and again["transport"]["since"] > down["transport"]["since"]
    kernel.syncfs(again["mount_path"])
    a.detach("v")


def test_every_change_has_another_tag(a, target):
    a.attach("v", spec_of(target, 60))
    said(a, "up")
    tag = a.get("v").headers["ETag"]
    target.kill()
    said(a, "down")
    answer = a.request("GET", "/volumes/v", headers={"If-None-Match": tag})
    assert answer.status == 200 and answer.headers["ETag"] != tag
    target.restart()
    said(a, "up")
    a.detach("v")


def test_past_the_replacement_timeout_requests_fail(a, target):
    a.attach("v", target.spec(fs="ext4"))
    a.detach("v")
    doc = a.attach("v", spec_of(target, 1, fs="ext4", fmt="never", read_only=True))
    said(a, "up")
    assert read_direct(doc) == 0
    target.kill()
    assert_attached(said(a, "failed"))
    started = time.monotonic()
    assert read_direct(doc) == errno.EIO
    assert time.monotonic() - started < 5
    a.put("v", doc["spec"]).expect(200)
    assert_attached(said(a, "failed"))
    target.restart()
    assert_attached(said(a, "up"))
    assert read_direct(doc) == 0
    a.detach("v")


@pytest.mark.parametrize("how", ["stop", "kill9"])
def test_the_next_agent_says_it_too(a, target, how):
    a.attach("v", spec_of(target, 60))
    up = said(a, "up")
    a.restart(how)
    now = said(a, "up")
    assert_attached(now)
    assert now["transport"] == up["transport"]
    target.kill()
    down = said(a, "down")
    a.restart(how)
    assert said(a, "down")["transport"]["since"] == down["transport"]["since"]
    target.restart()
    said(a, "up")
    a.detach("v")


def test_what_is_said_costs_no_wake_ups(a, target):
    a.attach("v", spec_of(target, 60))
    said(a, "up")
    assert idle_wake_ups(a.pid, 3) == 0


def test_server_that_is_stopped_is_not_up(a, target):
    """Its keeper is told by the kernel, and tells; nobody polls."""
    a.attach("v", spec_of(target, 60))
    up = said(a, "up")
    [server], [keeper] = lun.servers(), lun.keepers()
    os.kill(server.pid, signal.SIGSTOP)
    doc = said(a, "unresponsive")
    assert_attached(doc)
    assert "stopped" in doc["transport"]["reason"] and doc["transport"]["since"] > up["transport"]["since"]
    assert idle_wake_ups(keeper.pid, 2) == 0
    os.kill(server.pid, signal.SIGCONT)
    assert_attached(said(a, "up"))
    assert lun.servers()[0].pid == server.pid
    kernel.syncfs(up["mount_path"])
    a.detach("v")


@lun.needs_resend
def test_server_that_is_exchanged_is_not_up(a, target):
    """What is pushed between the end of one server and the next session."""
    a.attach("v", spec_of(target, 60))
    said(a, "up")
    with lun.Watcher(a) as watcher:
        watcher.hear(lambda d: d["state"] == "up")
        os.kill(lun.servers()[0].pid, signal.SIGKILL)
        first = watcher.hear(lambda d: True)
        assert (first["server_pid"], first["state"], first["transport"]["state"]) == (0, "restarting", "restarting")
        watcher.hear(lambda d: d["state"] == "up" and d["server_pid"])
    said(a, "up")
    a.detach("v")


def test_a_file_has_no_transport(a, image):
    doc = a.attach("v", a.file_spec(image(64 << 20), fs="ext4"))
    assert doc["transport"] is None and doc["fencing"] is None
