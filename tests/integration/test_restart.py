# SPDX-License-Identifier: Apache-2.0
"""The agent dies and comes back: nothing is interrupted, nothing is lost, nothing is left behind."""
import contextlib
import os
import pathlib
import random
import sqlite3
import subprocess
import time

import pytest

from mooring import kernel
from mooring.agent import Agent
from mooring.kernel import mounts_at
from mooring.wait import eventually, never


def spec_of(driver, a, image, target):
    return a.file_spec(image()) if driver == "file" else target.spec()


@pytest.mark.parametrize("how", ["kill9", "stop"])
@pytest.mark.parametrize("driver", ["file", "iscsi"])
def test_restart_while_attached(agent, image, target, hold, driver, how):
    a = agent()
    doc = a.attach("v", spec_of(driver, a, image, target))
    [mount] = mounts_at(doc["mount_path"])
    luns = [p.pid for p in kernel.our_processes("mooring-lun")]
    writer = hold.writer(pathlib.Path(doc["mount_path"], "log"))
    for _ in range(3):
        time.sleep(0.2)
        a.restart(how)
    after = a.get("v").expect(200).json
    assert after["state"] == "attached"
    for field in ("device", "identity", "mount_path", "attached_at", "spec"):
        assert after[field] == doc[field], field
    assert [m.id for m in mounts_at(doc["mount_path"])] == [mount.id]
    assert [p.pid for p in kernel.our_processes("mooring-lun")] == luns
    verdict, count = writer.release().split()
    assert verdict == "ok" and int(count) > 10, "I/O was interrupted"
    a.put("v", doc["spec"]).expect(200)
    assert a.detach("v")["evidence"]["exclusive_open"] is True


@pytest.mark.parametrize("driver", ["file", "iscsi"])
@pytest.mark.parametrize("holder", ["mount_copy", "raw_fd", "open_file"])
def test_kill_while_a_detach_waits(agent, image, target, hold, driver, holder):
    a = agent()
    doc = a.attach("v", spec_of(driver, a, image, target))
    held = getattr(hold, holder)(doc)
    operation = a.delete("v", wait=1).expect(202).operation
    a.restart("kill9")
    now = eventually(lambda: (d := a.get("v").json)["state"] == "detaching" and d, 10, "the detach goes on")
    assert now["identity"] == doc["identity"]
    never(lambda: not kernel.still_mapped(doc), 1.2, "unmapped while held")
    rows = a.holders("v")["holders"]
    assert [r["pid"] for r in rows] == [held.pid], rows
    held.release()
    done = a.operation(operation, wait=20)
    assert done["state"] == "done", "the same operation ends, by itself"
    assert done["result"]["evidence"]["diskseq"] == doc["identity"]["diskseq"]
    assert not kernel.still_mapped(doc)
    a.get("v").expect(404)
    assert a.detach("v") == done["result"]


def test_holder_that_went_while_the_agent_was_away(agent, image, hold):
    a = agent()
    doc = a.attach("v", a.file_spec(image()))
    held = hold.mount_copy(doc)
    operation = a.delete("v", wait=1).expect(202).operation
    a.kill9()
    held.release()
    never(lambda: not kernel.still_mapped(doc), 0.5, "unmapped by nobody")
    a.start()
    assert a.operation(operation, wait=20)["state"] == "done"
    assert not kernel.still_mapped(doc)


@pytest.mark.parametrize("driver, latest_s", [("file", 0.12), ("iscsi", 0.6)])
def test_kill_in_the_middle_of_an_attach(agent, image, target, driver, latest_s):
    a = agent()
    spec = spec_of(driver, a, image, target)
    backing = spec["source"].get("path") or target.luns[1]
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    seen = []
    for round_ in range(10):
        a.put("v", spec, wait=0).expect(202, 200)
        time.sleep(chance.uniform(0, latest_s))
        a.restart("kill9")
        settled = eventually(lambda: (r := a.get("v")).status == 404 or r.json["state"] in ("attached", "failed") and r,
                             20, f"seed {seed} round {round_}: settled")
        state = "absent" if settled is True else settled.json["state"]
        seen.append(state)
        if state == "failed":
            doc = settled.json
            assert doc["device"] is None and doc["identity"] is None, f"seed {seed}: {doc}"
            assert kernel.our_processes("mooring-lun") == [], f"seed {seed} round {round_}"
            assert not mounts_at(doc["mount_path"])
        answer = a.put("v", spec)
        if answer.status == 409:
            # A mkfs that was cut off is not taken for a blank device, and not formatted over: do as the remedy says.
            problem = answer.expect(409, code="not-blank").json
            assert "interrupted mkfs" in problem["detail"] and "wipe" in problem["remedy"], f"seed {seed}: {problem}"
            seen.append("interrupted mkfs")
            size = os.path.getsize(backing)
            os.truncate(backing, 0)
            os.truncate(backing, size)
            answer = a.put("v", spec)
        doc = answer.expect(200, 201).json
        assert len(mounts_at(doc["mount_path"])) == 1
        assert len([n for n in kernel.bound_loops() if kernel.diskseq(n) == doc["identity"]["diskseq"]]) == 1
        a.detach("v")
    print(f"seed {seed}: {seen}")


def test_kill_in_the_middle_of_a_detach(agent, target):
    a = agent()
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    for round_ in range(10):
        doc = a.attach("v", target.spec())
        pathlib.Path(doc["mount_path"], "data").write_bytes(bytes(1 << 20))
        operation = a.delete("v", wait=0).expect(202, 200)
        time.sleep(chance.uniform(0, 0.15))
        a.restart("kill9")
        if operation.status == 202:
            done = a.operation(operation.operation, wait=20)
            assert done["state"] == "done", f"seed {seed} round {round_}: {done}"
        a.get("v").expect(404)
        assert not kernel.still_mapped(doc)
        proof = a.detach("v")
        assert proof["released_at"] or "restart" in str(proof["evidence"]), f"seed {seed}: no time is invented"
    kernel.run("xfs_repair", "-n", target.luns[1])


def test_second_agent_on_the_same_directories(agent, image):
    a = agent()
    a.attach("v", a.file_spec(image()))
    for base, state, runtime in (("b", a.state, None), ("c", None, a.runtime)):
        other = Agent(a.base.parent / base, loopback=False)
        other.state, other.runtime = state or other.state, runtime or other.runtime
        done = subprocess.run(other.argv(), capture_output=True, text=True, timeout=20, check=False,
                              env=other.environment())
        assert done.returncode == 71, done
        assert "another" in done.stderr or "in use" in done.stderr or "locked" in done.stderr, done.stderr
    assert a.get("v").json["state"] == "attached"


def journal_version(a, version):
    """Sets the journal's schema version; returns what it was."""
    with contextlib.closing(sqlite3.connect(a.state / "journal.db")) as journal:
        before = journal.execute("PRAGMA user_version").fetchone()[0]
        journal.execute(f"PRAGMA user_version = {version}")
        return before


def test_newer_journal_is_refused(agent):
    a = agent()
    a.stop()
    version = journal_version(a, 999)
    done = subprocess.run(a.argv(), capture_output=True, text=True, timeout=20, check=False, env=a.environment())
    assert done.returncode == 71, done
    assert "999" in done.stderr or "newer" in done.stderr, done.stderr
    assert journal_version(a, version) == 999, "nothing was changed"
    a.start()


def test_a_volume_unmounted_by_somebody_else_is_said_to_be(agent, image):
    a = agent()
    spec = a.file_spec(image())
    doc = a.attach("v", spec)
    a.stop()
    kernel.run("umount", doc["mount_path"])
    a.start()
    now = a.get("v").json
    assert now["state"] == "failed" and "mount" in now["error"]["message"], now
    assert a.attach("v", spec)["identity"]["diskseq"] == doc["identity"]["diskseq"], "the device was kept"
