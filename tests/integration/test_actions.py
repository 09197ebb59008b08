# SPDX-License-Identifier: Apache-2.0
"""Ending a hold by request: each verb does what it says, to whom it was told, and only while a detach waits."""
import json
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

from mooring import kernel
from mooring.wait import eventually, never

MIB = 1 << 20


@pytest.fixture
def a(agent):
    return agent()


def detaching(a, doc, step="drain"):
    """DELETE that waits; returns the operation."""
    answer = a.delete(doc["id"], wait=1).expect(202)
    assert answer.json["step"] == step, answer
    return answer.operation


def rows_of(a, doc, kind):
    """The rows of this kind, from a fresh scan."""
    rows = [row for row in a.holders(doc["id"])["holders"] if row["kind"] == kind]
    assert rows, f"no {kind} in {a.holders(doc['id'])['holders']}"
    return rows


def ends(a, doc, operation):
    done = a.operation(operation, wait=15)
    assert done["state"] == "done", done
    assert not kernel.still_mapped(doc)
    return done["result"]


def the_action(a, doc, name):
    """What the journal has of it: the request with its caller comes first, then how it ended."""
    items = [i for i in a.history(doc["id"]) if i["event"].startswith("action") and i["detail"]["action"] == name]
    assert [i["event"] for i in items] in (["action", "action_done"], ["action", "action_failed"]), items
    caller = items[0]["detail"]["caller"]
    assert (caller["via"], caller["uid"], caller["pid"]) == ("unix", os.getuid(), os.getpid()), caller
    assert items[0]["seq"] < items[1]["seq"] and items[0]["at"] <= items[1]["at"]
    return items


# --- unmount-copies ---

class Container:
    """runc, with its own mount, pid, ipc and uts namespaces, and the volumes' directory bound into it."""

    def __init__(self, base, visible):
        self.base = pathlib.Path(base)
        bundle = self.base / "bundle"
        root = bundle / "rootfs"
        for name in ("bin", "proc", "sys", "dev", "tmp", "volumes"):
            (root / name).mkdir(parents=True)
        shutil.copy(shutil.which("busybox"), root / "bin/busybox")
        kernel.run("runc", "spec", cwd=bundle)
        config = json.loads((bundle / "config.json").read_text())
        config["process"].update(terminal=False, rlimits=[], args=["/bin/busybox", "sleep", "600"])
        config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "network"]
        config["mounts"].append({"destination": "/volumes", "source": str(visible), "type": "bind",
                                 "options": ["rbind", "rprivate"]})
        (bundle / "config.json").write_text(json.dumps(config))
        with open(self.base / "runc.log", "wb") as log:
            done = subprocess.run(["runc", "--root", self.base / "runc", "run", "--detach", "--bundle", bundle,
                                   "mooring-test"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=30,
                                  check=False)
        assert done.returncode == 0, (self.base / "runc.log").read_text()

    def state(self):
        return json.loads(kernel.run("runc", "--root", self.base / "runc", "state", "mooring-test").stdout)

    def end(self):
        kernel.run("runc", "--root", self.base / "runc", "delete", "--force", "mooring-test", timeout=30)


@pytest.fixture
def container(tmp):
    made = []

    def make(visible):
        made.append(Container(tmp, visible))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_leaked_copy_of_a_container_is_unmounted_and_the_container_runs_on(a, image, container, observer):
    doc = a.attach("v", a.file_spec(image()))
    one = container(a.mount_root)
    pid = one.state()["pid"]
    guard = observer.guard(doc, "a container")
    operation = detaching(a, doc)
    [row] = rows_of(a, doc, "mount-copy")
    assert (row["pid"], row["path"]) == (pid, "/volumes/v"), row
    assert row["cgroup"] and "unmount-copies" in row["actions"]
    guard.end()
    answer = a.act("v", "unmount-copies", [row]).expect(200).json
    assert (answer["action"], answer["volume"], answer["operation"]) == ("unmount-copies", "v", operation)
    [result] = answer["results"]
    assert (result["holder"], result["kind"], result["pid"], result["done"]) == (row["id"], "mount-copy", pid, True)
    assert answer["started_at"] <= answer["ended_at"] and answer["remaining"]["holders"] == []
    proof = ends(a, doc, operation)
    [seen] = [r for r in proof["waited_for"] if r["pid"] == pid]
    assert seen["gone_at"] and seen["first_seen"] <= seen["last_seen"] <= proof["released_at"]
    the_action(a, doc, "unmount-copies")
    state = one.state()
    assert (state["status"], state["pid"]) == ("running", pid), "the container was not touched"
    points = [m.point for m in kernel.mounts(pid)]
    assert "/volumes" in points and "/volumes/v" not in points


@pytest.mark.parametrize("kind", ["nsfs_bind", "ns_fd", "thread_copy", "bind", "bind_part"])
def test_other_copies_are_unmounted(a, image, hold, kind):
    """Also in a namespace without process, in that of a thread, and an operator's bind mount in our own."""
    doc = a.attach("v", a.file_spec(image()))
    holder = getattr(hold, kind)(doc)
    operation = detaching(a, doc)
    answer = a.act("v", "unmount-copies", rows_of(a, doc, "mount-copy")).expect(200).json
    assert [r["done"] for r in answer["results"]] == [True], answer
    ends(a, doc, operation)
    holder.release()


def test_only_the_listed_copy_is_unmounted(a, image, hold):
    doc = a.attach("v", a.file_spec(image()))
    one, other = hold.mount_copy(doc), hold.mount_copy(doc)
    operation = detaching(a, doc)
    rows = {row["pid"]: row for row in rows_of(a, doc, "mount-copy")}
    answer = a.act("v", "unmount-copies", [rows[one.pid]]).expect(200).json
    assert [r["pid"] for r in answer["remaining"]["holders"]] == [other.pid]
    never(lambda: not kernel.still_mapped(doc), 0.5, "unmapped while held")
    assert kernel.alive(one.pid) and kernel.alive(other.pid)
    a.act("v", "unmount-copies", [rows[other.pid]]).expect(200)
    ends(a, doc, operation)


def test_mounts_in_and_over_the_volume_are_unmounted(a, image, hold):
    doc = a.attach("v", a.file_spec(image()))
    holders = [hold.nested_mount(doc), hold.covering_mount(doc)]
    operation = detaching(a, doc, "unmount")
    for kind in ("covering-mount", "nested-mount"):
        [row] = rows_of(a, doc, kind)
        [result] = a.act("v", "unmount-copies", [row]).expect(200).json["results"]
        assert result["done"], result
    ends(a, doc, operation)
    for holder in holders:
        holder.release()


def test_locked_copy_says_what_works_and_a_signal_ends_it(a, image, hold):
    """The copy of an unprivileged user's namespace cannot be unmounted by anybody: the kernel locks it."""
    doc = a.attach("v", a.file_spec(image()))
    holder = hold.userns_copy(doc)
    operation = detaching(a, doc)
    [row] = rows_of(a, doc, "mount-copy")
    answer = a.act("v", "unmount-copies", [row]).expect(200).json
    [result] = answer["results"]
    assert result["done"] is False and "signal" in result["detail"], result
    assert answer["remaining"]["holders"], "it still holds, and is named"
    assert kernel.still_mapped(doc) and kernel.alive(holder.pid)
    [row] = rows_of(a, doc, "mount-copy")
    [result] = a.act("v", "signal", [row], signal="KILL").expect(200).json["results"]
    assert result["done"] is True, result
    ends(a, doc, operation)
    assert not kernel.alive(holder.pid)


# --- signal ---

@pytest.mark.parametrize("number", ["TERM", "KILL"])
def test_signal_ends_the_process_that_was_listed(a, image, hold, number):
    doc = a.attach("v", a.file_spec(image(64 * MIB), fs="ext4"))
    holder, other = hold.open_file(doc), hold.cwd(doc)
    operation = detaching(a, doc, "unmount")
    [row] = rows_of(a, doc, "open-file")
    answer = a.act("v", "signal", [row], signal=number).expect(200).json
    [result] = answer["results"]
    assert (result["pid"], result["done"]) == (holder.pid, True)
    # The holder lets go in order when it is told to end.
    assert holder.process.wait(5) == (128 + signal.SIGTERM if number == "TERM" else -signal.SIGKILL)
    assert kernel.alive(other.pid), "nobody else was touched"
    assert [r["pid"] for r in answer["remaining"]["holders"]] == [other.pid], answer["remaining"]
    [row] = rows_of(a, doc, "cwd")
    a.act("v", "signal", [row]).expect(200)
    ends(a, doc, operation)
    assert other.process.wait(5) == 128 + signal.SIGTERM


def test_only_holders_of_the_last_scan_can_be_named(a, image, hold):
    doc = a.attach("v", a.file_spec(image(64 * MIB), fs="ext4"))
    holder = hold.open_file(doc)
    operation = detaching(a, doc, "unmount")
    [row] = rows_of(a, doc, "open-file")
    problem = a.act("v", "signal", ["0123456789abcdef"]).expect(409, code="holder-not-found").json
    assert problem["remedy"]
    a.act("v", "signal", [row, "0123456789abcdef"]).expect(409, code="holder-not-found")
    assert kernel.alive(holder.pid), "all or nothing"
    # The row is looked for once more before anything is done.
    second = hold.open_file(doc)
    [fresh] = [r for r in rows_of(a, doc, "open-file") if r["pid"] == second.pid]
    os.kill(second.pid, signal.SIGKILL)
    second.release()
    [result] = a.act("v", "signal", [fresh], signal="KILL").expect(200).json["results"]
    assert result["done"] is True and "does not hold it any more" in result["detail"], result
    a.holders("v")
    a.act("v", "signal", [fresh], signal="KILL").expect(409, code="holder-not-found")
    assert kernel.alive(holder.pid)
    holder.release()
    ends(a, doc, operation)


def test_a_recycled_pid_is_not_killed(a, image, hold):
    """Another process under the listed number: clone3(2) may choose the pid (CAP_CHECKPOINT_RESTORE)."""
    doc = a.attach("v", a.file_spec(image(64 * MIB), fs="ext4"))
    stays = hold.cwd(doc)
    first = hold.open_file(doc)
    operation = detaching(a, doc, "unmount")
    [row] = rows_of(a, doc, "open-file")
    os.kill(first.pid, signal.SIGKILL)
    first.release()
    last = pathlib.Path("/proc/sys/kernel/ns_last_pid")
    for _ in range(50):
        last.write_text(str(row["pid"] - 1))
        bystander = subprocess.Popen(["sleep", "30"])
        if bystander.pid == row["pid"]:
            break
        bystander.kill()
        bystander.wait()
    else:
        pytest.skip("the pid could not be had again")
    try:
        [result] = a.act("v", "signal", [row], signal="KILL").expect(200).json["results"]
        assert "nothing was done" in result["detail"], result
        assert bystander.poll() is None, "a bystander was killed"
    finally:
        bystander.kill()
        bystander.wait()
    stays.release()
    ends(a, doc, operation)


# --- thaw, unmount-overlay ---

@pytest.mark.parametrize("fs", ["xfs", "ext4"])
def test_thaw(a, image, hold, observer, fs):
    doc = a.attach("v", a.file_spec(image(), fs=fs))
    holder = hold.frozen(doc)
    guard = observer.guard(doc, "a freeze")
    operation = detaching(a, doc)
    row = eventually(lambda: rows_of(a, doc, "frozen"), 8, "it is seen to be frozen")[0]
    assert row["pid"] is None and "thaw" in row["actions"]
    guard.end()
    [result] = a.act("v", "thaw").expect(200).json["results"]
    assert result["done"] is True and result["holder"] is None, result
    ends(a, doc, operation)
    the_action(a, doc, "thaw")
    holder.release()


def test_thaw_of_what_is_not_frozen_says_so(a, image, hold):
    doc = a.attach("v", a.file_spec(image(64 * MIB), fs="ext4"))
    holder = hold.open_tree(doc)
    operation = detaching(a, doc)
    [result] = a.act("v", "thaw").expect(200).json["results"]
    assert result["done"] is False and "not frozen" in result["detail"], result
    holder.release()
    ends(a, doc, operation)


@pytest.mark.parametrize("kind", ["overlay", "overlay_upper"])
def test_unmount_overlay(a, image, hold, kind):
    doc = a.attach("v", a.file_spec(image()))
    holder = getattr(hold, kind)(doc)
    operation = detaching(a, doc)
    [result] = a.act("v", "unmount-overlay", rows_of(a, doc, "overlay")).expect(200).json["results"]
    assert result["done"] is True, result
    ends(a, doc, operation)
    holder.release()


# --- shutdown ---

@pytest.mark.parametrize("fs", ["xfs", "ext4"])
def test_shutdown_needs_the_callers_word(a, image, hold, observer, fs):
    """The invisible holder is not ended by it; but its writes fail, and its end can no longer hang on the device."""
    doc = a.attach("v", a.file_spec(image(), fs=fs))
    holder = hold.open_tree(doc)
    guard = observer.guard(doc, "a detached mount")
    operation = detaching(a, doc)
    problem = a.act("v", "shutdown").expect(409, code="loss-not-accepted").json
    assert "not yet written" in problem["detail"] and "accept_data_loss" in problem["remedy"], problem
    assert "action" not in [i["event"] for i in a.history("v")], "nothing was done"
    answer = a.act("v", "shutdown", accept_data_loss=True).expect(200).json
    assert [r["done"] for r in answer["results"]] == [True], answer
    # xfs does not tell any more of which device a file is, once it was shut down: then that is said.
    remaining = answer["remaining"]
    named = [row for row in remaining["holders"] if row["pid"] == holder.pid]
    assert remaining["held"] == "held" and remaining["holders"], "somebody, or honestly nobody"
    assert named or (fs == "xfs" and not remaining["complete"]), remaining
    never(lambda: not kernel.still_mapped(doc), 0.5, "unmapped while held")
    the_action(a, doc, "shutdown")
    guard.end()
    holder.release()
    ends(a, doc, operation)


def test_shutdown_gives_users_errors(a, image, hold):
    doc = a.attach("v", a.file_spec(image(), fs="ext4"))
    writer = hold.writer(pathlib.Path(doc["mount_path"], "log"))
    operation = detaching(a, doc, "unmount")
    a.act("v", "shutdown", accept_data_loss=True).expect(200)
    never(lambda: not kernel.still_mapped(doc), 0.3, "unmapped while held")
    assert writer.release().startswith("error 5 after"), "its writes fail"
    ends(a, doc, operation)


# --- what is refused ---

def test_nothing_is_done_to_an_attached_volume(a, image, hold):
    doc = a.attach("v", a.file_spec(image(64 * MIB), fs="ext4"))
    holder = hold.open_file(doc)
    [row] = rows_of(a, doc, "open-file")
    for action, more in (("signal", {"holders": [row]}), ("unmount-copies", {"holders": [row]}), ("thaw", {}),
                         ("shutdown", {"accept_data_loss": True}), ("cut-transport", {"accept_data_loss": True})):
        problem = a.act("v", action, **more).expect(409, code="not-detaching").json
        assert problem["remedy"]
    a.act("never-there", "thaw").expect(404, code="volume-not-found")
    assert kernel.alive(holder.pid)
    pathlib.Path(doc["mount_path"], "f").write_text("works")
    assert [i for i in a.history("v") if i["event"].startswith("action")] == []


def test_what_does_not_apply_is_refused_by_name(a, image, hold):
    doc = a.attach("v", a.file_spec(image(64 * MIB), fs="ext4"))
    holder = hold.open_file(doc)
    operation = detaching(a, doc, "unmount")
    [row] = rows_of(a, doc, "open-file")
    for action in ("unmount-copies", "unmount-overlay"):
        problem = a.act("v", action, [row]).expect(422, code="action-unsupported").json
        assert problem["pointer"] == "/holders" and "close the file" in problem["remedy"], problem
    a.act("v", "cut-transport", accept_data_loss=True).expect(422, code="action-unsupported")  # a file has none
    assert kernel.alive(holder.pid)
    holder.release()
    ends(a, doc, operation)
