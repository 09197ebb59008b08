# SPDX-License-Identifier: Apache-2.0
"""What carries our mark and is in no journal: it is named, never touched by itself, and taken down on request by the
rules of every detach. And POST /reconcile, which looks at everything again."""
import contextlib
import fcntl
import os
import pathlib
import random
import shutil
import signal
import time

import pytest

from mooring import kernel
from mooring.journal import Journal, move_away
from mooring.kernel import mounts_at
from mooring.wait import eventually, never

MIB = 1 << 20
DATA = b"known to nobody" * 1000
LOOP_CHANGE_FD = 0x4C06  # linux/loop.h
DRIVERS = ("file", "iscsi")


@pytest.fixture
def specs(agent, image, target):
    a = agent()
    a.specs = {"file": a.file_spec(image(64 * MIB), fs="ext4"), "iscsi": target.spec(fs="ext4")}
    yield a
    for row in a.orphans() if a.running else []:
        a.delete_orphan(row["id"], accept_data_loss="true")


def attach(a, driver):
    document = a.attach(driver, a.specs[driver])
    pathlib.Path(document["mount_path"], "data").write_bytes(DATA)
    return document


def lose_journal(a, how="stop"):
    getattr(a, how)()
    move_away(a)
    a.start()


def token_of(a, volume):
    """Of a volume of the agent, which does not run."""
    with Journal(a) as journal:
        return journal.row(volume)[1]["token"]


@pytest.fixture
def orphaned(specs):
    """One of each driver: (agent, {driver: document}, {driver: LUN server or None})."""
    documents = {driver: attach(specs, driver) for driver in DRIVERS}
    [server] = kernel.our_processes("mooring-lun")
    lose_journal(specs)
    return specs, documents, {"file": None, "iscsi": server}


def unknown(a):
    """Rows of GET /orphans, without those that were adopted."""
    def everything():
        document = a.request("GET", "/orphans", timeout=10).expect(200).json
        assert document["searched_at"]
        return document if document["complete"] else None
    # Somebody else's device may be mute for a while.
    items = eventually(everything, 10, "everything was searched")["items"]
    return [row for row in items if row["kind"] != "forgotten"]


def by_device(a):
    return {row["evidence"]["identity"]["node"]: row for row in unknown(a)}


def orphan_of(a, document):
    row = by_device(a)[document["device"]]
    assert row["kind"] == "unknown" and row["id"].startswith("orphan-"), row
    return row


def assert_served(document):
    assert kernel.still_mapped(document) and not kernel.unmap_asked(document)
    assert len(mounts_at(document["mount_path"])) == 1
    assert pathlib.Path(document["mount_path"], "data").read_bytes() == DATA


def assert_gone(a, document):
    assert not kernel.still_mapped(document)
    assert not mounts_at(document["mount_path"])
    assert document["device"] not in by_device(a)
    if document["spec"]["source"]["driver"] == "iscsi":
        eventually(lambda: kernel.our_processes("mooring-lun") == [], 5, "the LUN server has ended")


def assert_attaches(a, driver):
    document = a.attach("again", a.specs[driver])
    assert pathlib.Path(document["mount_path"], "data").read_bytes() == DATA
    a.detach("again")


# --- listed ---

def test_unknown_orphans_are_named_with_what_is_seen_of_them(orphaned):
    a, documents, servers = orphaned
    found = by_device(a)
    assert set(found) == {d["device"] for d in documents.values()}, found
    for driver, document in documents.items():
        row, evidence = found[document["device"]], found[document["device"]]["evidence"]
        assert (row["kind"], evidence["driver"], row["id"]) == ("unknown", driver, "orphan-" + evidence["token"])
        identity = {name: evidence["identity"][name] for name in ("major", "minor", "diskseq")}
        assert identity == {name: document["identity"][name] for name in identity}
        [mount] = evidence["mounts"]
        assert (mount["path"], mount["fs_type"]) == (document["mount_path"], document["spec"]["filesystem"]["type"])
        assert kernel.loop_file_name(document["device"]).split(":")[1] == evidence["token"]
    file = found[documents["file"]["device"]]["evidence"]
    assert file["backing_file"] == a.specs["file"]["source"]["path"] and file["server"] is None
    iscsi = found[documents["iscsi"]["device"]]["evidence"]
    server = iscsi["server"]
    assert (server["pid"], server["start_time"]) == (servers["iscsi"].pid, servers["iscsi"].start_time)
    assert server["state"] == "up" and iscsi["token"] in server["socket"], server
    assert iscsi["source"]["target"] == a.specs["iscsi"]["source"]["target"], iscsi


def test_unknown_orphans_are_not_touched(orphaned, tmp, agent):
    a, documents, _ = orphaned
    ids = {row["id"] for row in a.orphans()}
    assert len(ids) == 2 and a.volumes() == []
    for how in (None, "stop", "kill9"):
        if how:
            a.restart(how)
        a.request("POST", "/reconcile").expect(200)
        for document in documents.values():
            assert_served(document)
        assert {row["id"] for row in a.orphans()} == ids, "and they keep their names"
    never(lambda: [d["id"] for d in documents.values() if not kernel.still_mapped(d) or kernel.unmap_asked(d)
                   or not mounts_at(d["mount_path"])], 1, "taken down by nobody's word")
    other = agent()
    assert other.orphans() == [], "another agent's"
    for row in ids:
        other.delete_orphan(row).expect(404, code="volume-not-found")
    for document in documents.values():
        assert_served(document)
    for row in ids:
        a.delete_orphan(row).expect(200)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_lost_row_makes_an_orphan_of_one_volume_only(specs, driver):
    a = specs
    documents = {one: attach(a, one) for one in DRIVERS}
    a.stop()
    token = token_of(a, driver)
    with Journal(a) as journal:
        journal.drop(driver)
    a.start()
    assert [row["id"] for row in a.orphans()] == ["orphan-" + token]
    assert [v["id"] for v in a.volumes()] == [one for one in DRIVERS if one != driver]
    a.delete(driver).expect(404, 409, code=("volume-not-found", "orphan"))
    proof = a.delete_orphan("orphan-" + token).expect(200).json
    assert proof["evidence"]["diskseq"] == documents[driver]["identity"]["diskseq"]
    assert_gone(a, documents[driver])
    [kept] = [one for one in DRIVERS if one != driver]
    assert_served(documents[kept])


def test_what_is_in_the_way_is_said(orphaned, image):
    a, documents, _ = orphaned
    for driver, document in reversed(documents.items()):
        orphan = orphan_of(a, document)["id"]
        for volume, mount_path in ((driver, None), ("other", str(a.mount_root / "other"))):
            spec = {**a.specs[driver], **({"mount_path": mount_path} if mount_path else {})}
            problem = a.put(volume, spec).expect(409).json
            assert problem["code"] in ("source-in-use", "mount-path-busy", "orphan"), problem
            said = problem["detail"] + problem.get("remedy", "")
            assert orphan in said or document["device"] in said or document["mount_path"] in said, problem
            assert_served(document)
            a.delete(volume)
            assert len(kernel.our_processes("mooring-lun")) == 1, "mapped twice"
    spec = a.file_spec(image(64 * MIB), fs="ext4", mount_path=documents["file"]["mount_path"])
    a.put("busy", spec).expect(409, code="mount-path-busy")
    a.delete("busy")


# --- taken down ---

@pytest.mark.parametrize("holder", ["open_file", "mount_copy"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_an_unknown_orphan_is_taken_down_by_the_rules(specs, hold, observer, driver, holder):
    a = specs
    document = attach(a, driver)
    lose_journal(a, "kill9")
    orphan = orphan_of(a, document)["id"]
    held = getattr(hold, holder)(document)
    guard = observer.guard(document, holder)
    answer = a.delete_orphan(orphan, wait=1).expect(202)
    assert answer.json["id"] == orphan and answer.json["state"] == "detaching", answer
    rows = a.holders(orphan)["holders"]
    assert [row["pid"] for row in rows] == [held.pid], rows
    assert unknown(a) == [], "it is known now"
    never(lambda: not kernel.still_mapped(document), 0.5, "unmapped while held")
    guard.end()
    held.release()
    ended = a.operation(answer.operation, wait=20)
    assert ended["state"] == "done", ended
    proof = ended["result"]
    assert proof["volume"] == orphan and proof["evidence"]["exclusive_open"] is True
    assert proof["evidence"]["diskseq"] == document["identity"]["diskseq"] and proof["released_at"]
    assert held.pid in [row["pid"] for row in proof["waited_for"]]
    assert_gone(a, document)
    a.get(orphan).expect(404)
    a.delete_orphan(orphan).expect(404, code="volume-not-found")
    assert a.detach(orphan) == proof
    events = [item["event"] for item in a.history(orphan)]
    assert "adopted" in events, events
    assert_attaches(a, driver)


def test_bind_mounts_of_an_orphan_are_holders(specs, hold):
    """Only the mount that was made by us is taken away; whose the others are is not known."""
    a = specs
    document = attach(a, "file")
    lose_journal(a)
    held = hold.bind(document)
    orphan = orphan_of(a, document)
    assert len(orphan["evidence"]["mounts"]) == 2
    answer = a.delete_orphan(orphan["id"], wait=1).expect(202)
    assert kernel.still_mapped(document) and not mounts_at(document["mount_path"])
    held.release()
    assert a.operation(answer.operation, wait=20)["state"] == "done"
    assert_gone(a, document)


def test_unmounted_orphan(specs):
    a = specs
    documents = {driver: attach(a, driver) for driver in DRIVERS}
    a.kill9()
    for document in documents.values():
        kernel.run("umount", document["mount_path"])
    move_away(a)
    a.start()
    for driver, document in documents.items():
        orphan = orphan_of(a, document)
        assert orphan["evidence"]["mounts"] == []
        assert a.delete_orphan(orphan["id"]).expect(200).json["evidence"]["exclusive_open"] is True
        assert_gone(a, document)
        assert_attaches(a, driver)


def test_lun_server_without_device(specs):
    """Its device was cleared while it could not notice."""
    a = specs
    document = attach(a, "iscsi")
    [server] = kernel.our_processes("mooring-lun")
    a.kill9()
    kernel.run("umount", document["mount_path"])
    os.kill(server.pid, signal.SIGSTOP)
    try:
        kernel.run("losetup", "--detach", document["device"])
        eventually(lambda: not kernel.still_mapped(document), 5, "unmapped by hand")
        move_away(a)
        a.start()
        [row] = a.orphans()
        assert row["kind"] == "unknown" and row["evidence"]["identity"] is None, row
        assert row["evidence"]["server"]["pid"] == server.pid, row
        assert kernel.alive(server.pid)
        answer = a.delete_orphan(row["id"], wait=1)
        assert answer.status in (200, 202), answer
    finally:
        os.kill(server.pid, signal.SIGCONT)
    if answer.status == 202:
        assert a.operation(answer.operation, wait=20)["state"] == "done"
    eventually(lambda: not kernel.alive(server.pid), 10, "the LUN server has ended")
    assert a.orphans() == []
    assert_attaches(a, "iscsi")


def test_what_is_no_orphan_is_not_found(specs):
    a = specs
    document = attach(a, "file")
    a.stop()
    token = token_of(a, "file")
    a.start()
    for name in ("file", "orphan-" + token, "orphan-" + "0" * 32, "orphan-", "orphan-x", "never-there"):
        a.delete_orphan(name).expect(404, code="volume-not-found")
    assert_served(document)


# --- crashes ---

@pytest.mark.parametrize("driver", DRIVERS)
def test_an_adopted_orphan_survives_the_agent(specs, hold, observer, driver):
    a = specs
    document = attach(a, driver)
    lose_journal(a)
    orphan = orphan_of(a, document)["id"]
    held = hold.open_file(document)
    guard = observer.guard(document, "open-file")
    operation = a.delete_orphan(orphan, wait=0).expect(202).operation
    for how in ("kill9", "stop"):
        a.restart(how)
        eventually(lambda: a.get(orphan).expect(200).json["state"] == "detaching", 10, "the detach goes on")
        never(lambda: not kernel.still_mapped(document), 0.3, "unmapped while held")
        assert unknown(a) == []
    guard.end()
    held.release()
    ended = a.operation(operation, wait=20)
    assert ended["state"] == "done" and ended["result"]["volume"] == orphan, ended
    assert_gone(a, document)
    assert_attaches(a, driver)


def test_kill_in_the_middle_of_an_adoption(specs, tmp):
    """It is an unknown orphan still, or a volume that is being detached, or gone: never something in between."""
    a = specs
    seed = random.randrange(1 << 30)
    chance, seen = random.Random(seed), []
    for round_ in range(12):
        driver = chance.choice(DRIVERS)
        document = attach(a, driver)
        lose_journal(a)
        orphan = orphan_of(a, document)["id"]
        with contextlib.suppress(OSError):
            a.request("DELETE", f"/orphans/{orphan}", None, {"Prefer": "respond-async"},
                      timeout=chance.uniform(0.001, 0.05))
        a.restart("kill9")
        what = f"seed {seed} round {round_}"

        def at_rest():
            answer = a.get(orphan)
            if answer.status == 404:
                return "unknown" if orphan in [row["id"] for row in unknown(a)] else "gone"
            return None if answer.json["operation"] else answer.json["state"]

        state = eventually(at_rest, 15, what)
        seen.append(state)
        if state != "gone":
            assert state in ("unknown", "orphan"), what
            assert_served(document)
            a.delete_orphan(orphan).expect(200)
        assert_gone(a, document)
        shutil.rmtree(a.base / "away")
    print(f"seed {seed}: {seen}")


# --- POST /reconcile ---

def reconcile(a):
    def everything():
        said = a.request("POST", "/reconcile", timeout=30).expect(200).json
        assert said["started_at"] <= said["ended_at"]
        return said if said["orphans"] is not None else None
    said = eventually(everything, 10, "everything was searched")
    return {name: said[name] for name in ("looked", "as_recorded", "differs", "not_looked", "orphans")}


def test_reconcile_looks_at_everything(specs, hold, image):
    a = specs
    assert reconcile(a) == {"looked": 0, "as_recorded": 0, "differs": [], "not_looked": [], "orphans": 0}
    documents = {driver: attach(a, driver) for driver in DRIVERS}
    assert reconcile(a) == {"looked": 2, "as_recorded": 2, "differs": [], "not_looked": [], "orphans": 0}
    a.stop()
    with Journal(a) as journal:
        journal.drop("file")
    a.start()
    held = hold.open_file(documents["iscsi"])
    answer = a.delete("iscsi", wait=0).expect(202)
    a.attach("other", a.file_spec(image(64 * MIB), fs="ext4"))
    assert reconcile(a) == {"looked": 1, "as_recorded": 1, "differs": [], "not_looked": ["iscsi"], "orphans": 1}
    held.release()
    assert a.operation(answer.operation, wait=20)["state"] == "done"
    [row] = a.orphans()
    a.delete_orphan(row["id"]).expect(200)
    assert reconcile(a) == {"looked": 1, "as_recorded": 1, "differs": [], "not_looked": [], "orphans": 0}


def test_reconcile_finds_a_device_that_was_swapped(agent, image):
    """By an ioctl that makes no event, and that the mount outlives."""
    a = agent()
    path, other = image(64 * MIB), image(64 * MIB)
    kernel.run("mkfs.ext4", "-q", path)
    shutil.copy(path, other)
    document = a.attach("v", a.file_spec(path, fs="ext4", fmt="never", read_only=True))
    a.attach("w", a.file_spec(image(64 * MIB), fs="ext4"))
    with open(document["device"], "rb") as device, open(other, "rb") as file:
        fcntl.ioctl(device, LOOP_CHANGE_FD, file.fileno())
    assert not kernel.still_mapped(document)
    time.sleep(0.3)
    said = reconcile(a)
    assert said["differs"] == ["v"] and said["as_recorded"] == said["looked"] - 1, said
    now = a.get("v").json
    assert now["state"] == "failed" and "diskseq" in now["error"]["message"], now
    assert now["error"]["code"] == "device-mismatch" and now["error"]["remedy"]
    assert a.get("w").json["state"] == "attached"
    # What is there is not what was attached: nothing is done to it until somebody has put it right.
    a.delete("v").expect(409, code="device-mismatch")
    assert kernel.loop_bound(document["device"]) == str(other) and mounts_at(document["mount_path"])
    kernel.run("umount", document["mount_path"])
    kernel.run("losetup", "--detach", document["device"])
    a.delete("v").expect(200)


def test_reconcile_while_the_agent_starts(specs):
    a = specs
    attach(a, "file")
    a.stop()
    a.spawn()
    answers = []

    def ready():
        answers.append(a.request("POST", "/reconcile", timeout=10))
        return answers[-1].status == 200

    eventually(ready, 20, "reconciled", interval=0.001)
    assert {(r.status, r.code) for r in answers} <= {(503, "recovering"), (200, None)}
    assert answers[-1].json["as_recorded"] == 1
