# SPDX-License-Identifier: Apache-2.0
"""A detach that waits is taken back (PUT) or given up (forget). Neither is ever reported as a release."""
import http.client
import pathlib
import threading
import time

import pytest

from mooring import kernel
from mooring.kernel import mounts_at
from mooring.wait import eventually, never

MIB = 1 << 20
# Where the detach waits, and the holder that makes it wait there.
WAITS = {"unmount": "open_file", "drain": "mount_copy", "unmap-asked": "raw_fd"}


class Waiter(threading.Thread):
    """A client that waits for its answer; when the agent is killed it gets none."""

    def __init__(self, ask):
        super().__init__(daemon=True)
        self.ask, self.answer = ask, None
        self.start()

    def run(self):
        try:
            self.answer = self.ask()
        except (OSError, http.client.HTTPException) as error:
            self.answer = error

    def result(self):
        self.join(30)
        assert self.answer is not None, "it still waits"
        return self.answer


def begin(a, doc, hold, where):
    """A detach that waits there, with two clients. Returns the holder, the operation and the waiters."""
    holder = getattr(hold, WAITS[where])(doc)
    step = "unmount" if where == "unmount" else "drain"
    answer = a.delete(doc["id"], wait=1).expect(202)
    assert answer.json["step"] == step, answer
    if where == "unmap-asked":
        eventually(lambda: kernel.unmap_asked(doc), 5, "the unmap was asked for")
    waiters = [Waiter(lambda: a.delete(doc["id"], wait=30)),
               Waiter(lambda: a.request("GET", f"/operations/{answer.operation}", None, {"Prefer": "wait=30"}))]
    time.sleep(0.1)
    return holder, answer.operation, waiters


def write(doc):
    pathlib.Path(doc["mount_path"], "data").write_text("written before\n")


def assert_attached(a, doc):
    """The very device and its files are back."""
    now = a.get(doc["id"]).expect(200).json
    assert now["state"] == "attached" and now["error"] is None and now["operation"] is None, now
    assert now["identity"] == doc["identity"] and now["device"] == doc["device"]
    assert kernel.still_mapped(doc) and not kernel.unmap_asked(doc)
    [mount] = mounts_at(doc["mount_path"])
    assert mount.major_minor == f"{doc['identity']['major']}:{doc['identity']['minor']}"
    assert {"nosuid", "nodev"} <= set(mount.options)
    path = pathlib.Path(doc["mount_path"], "data")
    assert path.read_text() == "written before\n"
    path.write_text("written before\n")
    return now


def assert_cancelled(operation, waiters, a):
    for waiter in waiters[:1]:
        waiter.result().expect(409, code="detach-cancelled")
    ended = waiters[1].result().expect(200).json
    assert ended["state"] == "failed" and ended["error"]["code"] == "detach-cancelled", ended
    assert a.operation(operation) == ended


# --- PUT ---

@pytest.mark.parametrize("driver", ["file", "iscsi"])
@pytest.mark.parametrize("where", WAITS)
def test_put_takes_a_waiting_detach_back(agent, image, target, hold, observer, driver, where):
    a = agent()
    spec = a.file_spec(image(64 * MIB), fs="ext4") if driver == "file" else target.spec()
    doc = a.attach("v", spec)
    write(doc)
    holder, operation, waiters = begin(a, doc, hold, where)
    guard = observer.guard(doc, where, claimed=False)
    answer = a.put("v", spec)
    answer.expect(200, 201)
    assert answer.json["identity"] == doc["identity"]
    assert_cancelled(operation, waiters, a)
    assert_attached(a, doc)
    # It stays when the holder goes: nothing of the detach is left in the kernel.
    holder.release()
    never(lambda: not kernel.still_mapped(doc), 0.7, "unmapped after all")
    assert_attached(a, doc)
    events = [item["event"] for item in a.history("v")]
    assert "detach_cancelled" in events, events
    guard.end()
    proof = a.detach("v")
    assert proof["operation"] != operation and proof["evidence"]["exclusive_open"] is True
    assert not kernel.still_mapped(doc)
    if driver == "iscsi":
        kernel.run("xfs_repair", "-n", target.luns[1])


def test_put_again_and_again(agent, image, hold):
    a = agent()
    spec = a.file_spec(image(64 * MIB), fs="ext4")
    doc = a.attach("v", spec)
    write(doc)
    for where in [*WAITS, *WAITS]:
        holder, operation, waiters = begin(a, doc, hold, where)
        a.put("v", spec).expect(200, 201)
        assert_cancelled(operation, waiters, a)
        assert_attached(a, doc)
        holder.release()
    assert_attached(a, doc)
    a.detach("v")


def test_another_spec_does_not_cancel(agent, image, hold):
    a = agent()
    spec = a.file_spec(image(64 * MIB), fs="ext4")
    doc = a.attach("v", spec)
    holder, operation, waiters = begin(a, doc, hold, "drain")
    other = {**spec, "filesystem": {**spec["filesystem"], "options": ["noatime"]}}
    a.put("v", other).expect(409, code=("spec-conflict", "operation-pending"))
    a.put("w", a.file_spec(spec["source"]["path"], fs="ext4")).expect(409, code="source-in-use")
    assert a.get("v").json["state"] == "detaching"
    holder.release()
    assert waiters[0].result().expect(200).json["operation"] == operation
    assert not kernel.still_mapped(doc)


@pytest.mark.parametrize("where", WAITS)
def test_kill_in_the_middle_of_a_cancel(agent, image, hold, observer, where):
    """Either it was taken back or the detach goes on; the next PUT settles it, and nothing is unmapped early."""
    a = agent()
    spec = a.file_spec(image(64 * MIB), fs="ext4")
    doc = a.attach("v", spec)
    write(doc)
    seen = set()
    for delay_ms in (0, 1, 2, 4, 8, 16):
        holder, operation, waiters = begin(a, doc, hold, where)
        guard = observer.guard(doc, where, claimed=False)
        asked = Waiter(lambda: a.put("v", spec))
        time.sleep(delay_ms / 1000)
        a.restart("kill9")
        asked.join(30)
        now, ended = a.get("v").json, a.operation(operation)
        seen.add((now["state"], ended["state"]))
        assert now["state"] != "failed" or now["error"], f"failed without a reason: {now}"
        assert ended["state"] != "done", "released while held"
        eventually(lambda: a.put("v", spec).expect(200, 201), 10, "the next PUT brings it back")
        assert_attached(a, doc)
        guard.end()
        holder.release()
        assert_attached(a, doc)
        for waiter in waiters:
            waiter.join(30)
    print(f"after the kill: {seen}")
    a.detach("v")
    kernel.run("e2fsck", "-fn", spec["source"]["path"])


# --- forget ---

def test_forget_leaves_an_orphan_that_is_detached_by_its_own_verb(agent, image, hold, observer):
    a = agent()
    spec = a.file_spec(image(64 * MIB), fs="ext4")
    doc = a.attach("v", spec)
    a.forget("v").expect(409, code="not-detaching")
    a.forget("never-there").expect(404, code="volume-not-found")
    holder, operation, waiters = begin(a, doc, hold, "drain")
    guard = observer.guard(doc, "a forgotten volume")
    orphan = a.forget("v", reason="node goes down for repair").expect(200).json
    assert orphan["state"] == "orphan" and orphan["device"] == doc["device"]
    waiters[0].result().expect(409, code="orphan")
    ended = waiters[1].result().expect(200).json
    assert ended["state"] == "failed" and ended["error"]["code"] == "orphan", ended

    def still_known():
        [row] = a.orphans()
        assert (row["id"], row["reason"]) == ("v", "node goes down for repair")
        assert row["volume"]["state"] == "orphan" and row["forgotten_at"] and row["forgotten_by"]
        assert a.get("v").json["state"] == "orphan"
        a.delete("v").expect(409, code="orphan")
        a.put("w", a.file_spec(spec["source"]["path"], fs="ext4")).expect(409, code="source-in-use")
        a.put("w", a.file_spec(image(64 * MIB), fs="ext4", mount_path=doc["mount_path"])).expect(
            409, code="mount-path-busy")
        assert a.operation(operation)["state"] == "failed", "never reported as released"

    still_known()
    for how in ("stop", "kill9"):
        a.restart(how)
        still_known()
    never(lambda: not kernel.still_mapped(doc), 0.5, "an orphan was unmapped")
    guard.end()
    # Nobody waits for it: it stays when the holder goes.
    holder.release()
    never(lambda: not kernel.still_mapped(doc), 0.7, "an orphan was unmapped by nobody's word")
    proof = a.delete_orphan("v").expect(200).json
    assert proof["volume"] == "v" and proof["evidence"]["exclusive_open"] is True
    assert not kernel.still_mapped(doc) and a.orphans() == []
    a.get("v").expect(404)
    a.delete_orphan("v").expect(404, code="volume-not-found")
    a.attach("v", spec)
    assert [item["event"] for item in a.history("v")].count("forgotten") == 1


def test_a_held_orphan_is_waited_for_like_any_other(agent, image, hold, observer):
    a = agent()
    doc = a.attach("v", a.file_spec(image(64 * MIB), fs="ext4"))
    holder, _, _ = begin(a, doc, hold, "drain")
    guard = observer.guard(doc, "an orphan")
    a.forget("v").expect(200)
    answer = a.delete_orphan("v", wait=1).expect(202)
    assert answer.json["step"] == "drain"
    assert [row["pid"] for row in a.holders("v")["holders"]] == [holder.pid]
    # And it can be given up once more.
    a.forget("v", reason="again").expect(200)
    assert a.operation(answer.operation)["error"]["code"] == "orphan"
    operation = a.delete_orphan("v", wait=0).expect(202).operation
    guard.end()
    holder.release()
    assert a.operation(operation, wait=10)["state"] == "done"
    assert not kernel.still_mapped(doc) and a.orphans() == []


@pytest.mark.parametrize("where", WAITS)
def test_forget_wherever_it_waits(agent, image, hold, where):
    a = agent()
    doc = a.attach("v", a.file_spec(image(64 * MIB), fs="ext4"))
    holder, _, waiters = begin(a, doc, hold, where)
    a.forget("v").expect(200)
    waiters[0].result().expect(409, code="orphan")
    holder.release()
    # Where the kernel was asked already to drop the mapping with its last user, that cannot be promised.
    proof = a.delete_orphan("v").expect(200).json
    assert proof["volume"] == "v" and not kernel.still_mapped(doc) and a.orphans() == []
