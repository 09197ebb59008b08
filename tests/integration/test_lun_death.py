# SPDX-License-Identifier: Apache-2.0
"""A mooring-lun dies (SIGKILL; the OOM killer sends no other): its volume fails at once and says what that means, the
detach ends without a hang, a PUT attaches again, and the others do not notice. The kernel's writeback may retry, but
nobody may be stuck."""
import os
import pathlib
import random
import signal
import time

import pytest

from mooring import kernel
from mooring.truth import stuck_processes
from mooring.wait import eventually

MIB = 1 << 20
NOTICED_S = 1.0
DETACHED_S = 20


def kill_lun():
    """Kills the only one; returns when, and its pid."""
    [lun] = kernel.our_processes("mooring-lun")
    started = time.monotonic()
    os.kill(lun.pid, signal.SIGKILL)
    eventually(lambda: not kernel.alive(lun.pid), 5, "mooring-lun is dead", interval=0.001)
    return started, lun.pid


def failed_volume(a, since):
    """Waits until the volume is said to have failed; returns its document."""
    doc = eventually(lambda: (d := a.get("v").json)["state"] == "failed" and d, 5, "the volume has failed",
                     interval=0.002)
    took = time.monotonic() - since
    print(f"noticed after {took * 1000:.0f} ms: {doc['error']['message']}; {doc['error']['remedy']}")
    assert took < NOTICED_S, f"noticed after {took:.2f} s"
    return doc


def assert_said(a, doc, pid):
    """The error says what has ended, what that means for the file system, and what to do."""
    text = doc["error"]["message"] + doc["error"]["remedy"]
    assert "mooring-lun" in text and str(pid) in text, text
    assert "PUT" in text and "DELETE" in text, text
    lost = [item for item in a.history("v") if "server" in item["event"] or "lun" in item["event"]]
    assert len(lost) == 1, [item["event"] for item in a.history("v")]


def save(doc, name="synced", size=MIB):
    """Something that must be there again: fsynced, with its name."""
    data = os.urandom(size)
    path = pathlib.Path(doc["mount_path"], name)
    with open(path, "wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    directory = os.open(path.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    return data


def assert_saved(doc, data, name="synced"):
    assert pathlib.Path(doc["mount_path"], name).read_bytes() == data, "what was fsynced is not there"


def assert_others_work(other):
    """sync -f and a write of another volume."""
    started = time.monotonic()
    save(other, f"f{started}", 4096)
    kernel.run("sync", "-f", other["mount_path"], timeout=10)
    assert time.monotonic() - started < 3


def take_down(a, doc):
    """DELETE without, then with accept_data_loss. Lost writes are accepted by the caller only."""
    answer = a.delete("v", wait=DETACHED_S)
    if answer.status != 200:
        problem = answer.expect(409, code="data-not-written").json
        assert problem["remedy"] and problem["residue"] == "possible"
        assert kernel.still_mapped(doc)
        a.delete("v", wait=DETACHED_S).expect(409, code="data-not-written")
        answer = a.delete("v", wait=DETACHED_S, accept_data_loss="true")
    proof = answer.expect(200).json
    assert proof["evidence"]["exclusive_open"] is True and proof["volume"] == "v"
    assert not kernel.still_mapped(doc) and not kernel.mounts_at(doc["mount_path"])
    assert kernel.our_processes("mooring-lun") == [] and stuck_processes() == set()
    return proof


@pytest.fixture
def other(agent, image):
    """(agent, document of another volume)"""
    a = agent(config={"iscsi": {"timeout_seconds": 3}})
    return a, a.attach("other", a.file_spec(image(64 * MIB), fs="ext4"))


@pytest.mark.parametrize("fs", ["xfs", "ext4"])
def test_idle(other, target, fs):
    a, calm = other
    spec = target.spec(fs=fs)
    doc = a.attach("v", spec)
    data = save(doc)
    failed = failed_volume(a, (killed := kill_lun())[0])
    assert_said(a, failed, killed[1])
    assert failed["device"] == doc["device"] and failed["identity"]["diskseq"] == doc["identity"]["diskseq"]
    assert_others_work(calm)
    take_down(a, doc)
    assert_saved(a.attach("v", spec), data)
    assert a.get("other").json["state"] == "attached"


@pytest.mark.parametrize("fs", ["xfs", "ext4"])
def test_dirty_with_a_writer(other, target, hold, fs):
    a, calm = other
    spec = target.spec(fs=fs)
    doc = a.attach("v", spec)
    data = save(doc)
    log = pathlib.Path(doc["mount_path"], "log")
    writer = hold.writer(log)
    eventually(lambda: log.stat().st_size > 2 * 4096, 20, "it has synced something")
    pathlib.Path(doc["mount_path"], "dirty").write_bytes(os.urandom(8 * MIB))
    failed_volume(a, kill_lun()[0])
    assert_others_work(calm)
    eventually(lambda: stuck_processes() == set(), 10, "nobody hangs")
    said = writer.release().split()
    assert said[0] == "error", f"the writer was told that all is well: {said}"
    answer = a.delete("v", wait=DETACHED_S).expect(409, code="data-not-written").json
    assert answer["remedy"]
    take_down(a, doc)
    doc = a.attach("v", spec)
    assert_saved(doc, data)
    there = log.stat().st_size
    assert there >= int(said[-1]) * 4096, f"{said}, but only {there} bytes are there"


def put_until_attached(a, spec):
    """Returns the document, or the problem that says that writes may be lost."""
    def again():
        answer = a.put("v", spec, wait=DETACHED_S)
        if answer.status in (200, 201) or answer.code == "data-not-written":
            return answer
        return answer.expect(202, 409, code="operation-pending") and None
    return eventually(again, DETACHED_S, "attached again")


@pytest.mark.parametrize("fs", ["xfs", "ext4"])
def test_put_attaches_again(other, target, hold, fs):
    """A PUT takes down first what is left. With somebody inside it waits, and says so."""
    a, calm = other
    spec = target.spec(fs=fs)
    doc = a.attach("v", spec)
    data = save(doc)
    inside = hold.cwd(doc)
    kernel.syncfs(doc["mount_path"])
    failed_volume(a, kill_lun()[0])
    answer = a.put("v", spec, wait=2)
    print(answer)
    if answer.status != 202:
        problem = answer.expect(409).json
        assert problem["detail"] and problem["remedy"], problem
    assert kernel.still_mapped(doc), "it was unmapped under its holder"
    assert_others_work(calm)
    inside.release()
    answer = put_until_attached(a, spec)
    print(answer)
    if answer.status == 409:  # nobody knows whether all was written
        assert "accept_data_loss" in answer.json["remedy"], answer
        take_down(a, doc)
    now = a.attach("v", spec)
    assert now["error"] is None
    assert now["identity"]["diskseq"] != doc["identity"]["diskseq"] and not kernel.still_mapped(doc)
    assert_saved(now, data)
    assert len(kernel.our_processes("mooring-lun")) == 1 and len(target.connections()) == 1


def test_put_alone_brings_back_what_was_written_out(other, target):
    a, _ = other
    spec = target.spec(fs="xfs")
    doc = a.attach("v", spec)
    data = save(doc)
    kernel.syncfs(doc["mount_path"])
    failed_volume(a, kill_lun()[0])
    now = a.attach("v", spec)
    assert now["identity"]["diskseq"] != doc["identity"]["diskseq"] and now["error"] is None
    assert_saved(now, data)


def test_put_does_not_accept_lost_writes(other, target):
    a, _ = other
    spec = target.spec(fs="ext4")
    doc = a.attach("v", spec)
    data = save(doc)
    pathlib.Path(doc["mount_path"], "dirty").write_bytes(os.urandom(8 * MIB))
    failed_volume(a, kill_lun()[0])
    problem = a.put("v", spec, wait=DETACHED_S).expect(409, code="data-not-written").json
    assert "accept_data_loss" in problem["remedy"], problem
    assert kernel.still_mapped(doc)
    a.put("v", spec, wait=DETACHED_S).expect(409, code="data-not-written")
    take_down(a, doc)
    assert_saved(a.attach("v", spec), data)


@pytest.mark.parametrize("holder", ["mount_copy", "open_file"])
def test_while_a_detach_waits(other, target, hold, observer, holder):
    a, calm = other
    doc = a.attach("v", target.spec(fs="xfs"))
    data = save(doc)
    held = getattr(hold, holder)(doc)
    operation = a.delete("v", wait=1).expect(202).operation
    guard = observer.guard(doc, holder)
    _, pid = kill_lun()
    eventually(lambda: any("server" in i["event"] or "lun" in i["event"] for i in a.history("v")), NOTICED_S,
               "the history says so")
    assert a.get("v").json["state"] in ("detaching", "failed") and kernel.still_mapped(doc)
    assert a.holders("v")["holders"], "the holder is named, still"
    assert_others_work(calm)
    guard.end()
    started = time.monotonic()
    held.release()
    done = a.operation(operation, wait=DETACHED_S)
    print(f"pid {pid}; ended {time.monotonic() - started:.2f} s after the release: {done['state']} {done['error']}")
    assert done["state"] == "done" or done["error"]["code"] == "data-not-written", done
    if done["state"] == "failed":
        take_down(a, doc)
    assert stuck_processes() == set() and not kernel.still_mapped(doc)
    assert_saved(a.attach("v", target.spec(fs="xfs")), data)


@pytest.mark.parametrize("how", ["stop", "kill9"])
def test_while_the_agent_is_down(other, target, how):
    a, calm = other
    spec = target.spec(fs="ext4")
    doc = a.attach("v", spec)
    data = save(doc)
    getattr(a, how)()
    _, pid = kill_lun()
    a.start()
    failed = a.get("v").json
    assert failed["state"] == "failed", "noticed by the start, before it is ready"
    assert_said(a, failed, pid)
    assert_others_work(calm)
    a.restart(how)
    assert a.get("v").json["error"]["code"] == failed["error"]["code"], "still known after one more start"
    take_down(a, doc)
    assert_saved(a.attach("v", spec), data)


def test_during_an_attach(other, target):
    a, calm = other
    spec = target.spec(fs="xfs")
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    seen = []
    for round_ in range(8):
        operation = a.put("v", spec, wait=0).expect(202).operation
        [lun] = eventually(lambda: kernel.our_processes("mooring-lun"), 10, "mooring-lun runs", interval=0.001)
        time.sleep(chance.uniform(0, 0.25))
        os.kill(lun.pid, signal.SIGKILL)
        done = a.operation(operation, wait=DETACHED_S)
        assert done["state"] in ("done", "failed"), f"seed {seed} round {round_}: {done}"
        if done["state"] == "done":  # it was quicker: then it is a dead volume now
            eventually(lambda: a.get("v").json["state"] == "failed", NOTICED_S, "the volume has failed")
        seen.append(done["error"]["code"] if done["error"] else "too late")
        answer = a.delete("v", wait=DETACHED_S)
        if answer.status == 409:
            answer.expect(409, code="data-not-written")
            answer = a.delete("v", wait=DETACHED_S, accept_data_loss="true")
        answer.expect(200)
        assert kernel.our_processes("mooring-lun") == [] and kernel.mounts_at(a.mount_root / "v") == []
        if done["state"] == "failed":  # a mkfs that was cut off is not taken for blank
            os.truncate(target.luns[1], 0)
            os.truncate(target.luns[1], 320 * MIB)
    print(f"seed {seed}: {seen}")
    assert_others_work(calm)
    assert stuck_processes() == set()
    assert a.attach("v", spec)["state"] == "attached"
