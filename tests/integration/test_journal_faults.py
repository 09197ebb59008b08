# SPDX-License-Identifier: Apache-2.0
"""The journal fails under the agent, or is not what it was: new work is refused and nothing is done, what is attached
stays as it is, and when the journal is well again so is the agent."""
import contextlib
import datetime
import errno
import hashlib
import os
import pathlib
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mooring import kernel
from mooring.heartbeat import Stalls
from mooring.state_dir import FaultyState, unmount
from mooring.truth import assert_true, bound_to
from mooring.wait import eventually, never

MIB = 1 << 20
RECOVER_S = 12  # it is tried again after 1, 2, 4, 8, 10, 10 ... s
DAY_MS = 24 * 3600 * 1000


# --- it fails while the agent runs ---

@pytest.fixture
def served(tmp):
    one = FaultyState(tmp / "a0" / "state")
    yield one
    one.end()


@pytest.fixture
def state(served, agent):
    """Tests ask for it before `agent`: it is mounted before the first one starts, and well when they end."""
    yield served
    served.well()


def readyz(a):
    return a.request("GET", "/readyz", timeout=5)


def assert_refused(answer, why=None):
    problem = answer.expect(503, code="journal-unavailable").json
    assert problem["remedy"] and problem["retryable"] is True, problem
    if why:
        assert re.search(why, problem["detail"], re.I), problem
    return problem


def assert_only_reads(a, attached, other, why):
    """Writes are refused and change nothing; what only reads works; `attached` stays as it is."""
    document = a.get(attached).expect(200).json
    problem = assert_refused(a.put("new", a.file_spec(other, fs="ext4")), why)
    assert problem["residue"] == "none" and bound_to(other) == [], problem
    assert a.get("new").status in (404, 200)
    problem = assert_refused(a.delete(attached), why)
    assert len(kernel.mounts_at(document["mount_path"])) == 1 and kernel.still_mapped(document)
    assert a.get(attached).json["state"] == "attached"
    detail = readyz(a).expect(503, code="journal-unavailable").json["detail"]
    assert not why or re.search(why, detail, re.I), detail
    a.request("GET", "/livez", timeout=5).expect(200)
    assert attached in [v["id"] for v in a.volumes()]
    assert a.holders(attached)["scanned_at"]


def assert_recovers(a):
    """By itself: nothing but reads is asked."""
    started = time.monotonic()
    eventually(lambda: readyz(a).status == 200, RECOVER_S, "ready by itself")
    print(f"ready {time.monotonic() - started:.2f} s after the journal was well")


@pytest.mark.parametrize("what, number, why", [
    ("change", errno.EROFS, "read-?only|I/O"), ("change", errno.EIO, "I/O"), ("fsync", errno.EIO, "I/O")])
def test_writes_fail_for_a_while(state, agent, image, hold, observer, what, number, why):
    a = agent()
    images = {v: image(8 * MIB) for v in ("calm", "waits", "new")}
    documents = {v: a.attach(v, a.file_spec(images[v], fs="ext4")) for v in ("calm", "waits")}
    writer = hold.writer(pathlib.Path(documents["calm"]["mount_path"], "log"))
    copy = hold.open_tree(documents["waits"])
    guard = observer.guard(documents["waits"], "a detached copy of the mount")
    operation = a.delete("waits", wait=0).expect(202).operation
    eventually(lambda: a.get("waits").json["step"] == "drain", 10, "it waits for the holder")
    state.fail(what, number)
    assert_only_reads(a, "calm", images["new"], why)
    guard.end()
    copy.release()
    # It may be unmapped only when the journal knows that it is being unmapped.
    never(lambda: not kernel.still_mapped(documents["waits"]), 0.7, "unmapped without a record")
    assert a.get("waits").json["state"] == "detaching", a.get("waits")
    state.well()
    assert_recovers(a)
    assert a.operation(operation, wait=RECOVER_S)["state"] == "done", "the same operation ends by itself"
    assert_true(a, images)
    a.attach("new", a.file_spec(images["new"], fs="ext4"))
    assert writer.release().startswith("ok"), "I/O of a volume was interrupted"
    sequence = [item["seq"] for item in a.history("waits")]
    assert sequence == sorted(set(sequence))
    for volume in ("calm", "new"):
        assert a.detach(volume)["evidence"]["exclusive_open"] is True


@pytest.mark.parametrize("what, number", [("change", errno.EIO), ("fsync", errno.EIO)])
def test_killed_while_writes_fail(state, agent, image, what, number):
    """What was refused may be half in the file: the next start must not take it for done."""
    a = agent()
    images = {v: image(8 * MIB) for v in ("old", "new")}
    doc = a.attach("old", a.file_spec(images["old"], fs="ext4"))
    state.fail(what, number)
    assert_refused(a.put("new", a.file_spec(images["new"], fs="ext4")))
    assert_refused(a.delete("old"))
    a.kill9()
    state.well()
    a.start()
    assert_true(a, images)
    old = a.get("old").json
    assert old["state"] == "attached" and old["identity"] == doc["identity"]
    a.attach("new", a.file_spec(images["new"], fs="ext4"))


def test_a_mute_journal_stops_nobody_who_only_reads(state, agent, image, hold):
    """Nothing can be accepted meanwhile, so a PUT gets no answer; all others do."""
    a = agent()
    images = {v: image(8 * MIB) for v in ("old", "new")}
    doc = a.attach("old", a.file_spec(images["old"], fs="ext4"))
    writer = hold.writer(pathlib.Path(doc["mount_path"], "log"))
    state.mute()
    with ThreadPoolExecutor(1) as pool, Stalls() as stalls:
        put = pool.submit(a.put, "new", a.file_spec(images["new"], fs="ext4"), timeout=30)
        slowest = max(a.request("GET", path, timeout=5).ms for path in 20 * ["/livez", "/volumes", "/volumes/old"])
        assert a.holders("old")["scanned_at"] and bound_to(images["new"]) == []
        state.well()
        put.result(RECOVER_S).expect(201, 503)
    stalls.assert_prompt(slowest)
    assert_recovers(a)
    assert_true(a, images)
    a.attach("new", a.file_spec(images["new"], fs="ext4"))
    assert writer.release().startswith("ok")


@pytest.fixture
def ext4_state(tmp):
    """A state directory on ext4 that becomes read-only at the first error."""
    path, img = tmp / "a0" / "state", tmp / "state.img"
    path.mkdir(parents=True)
    with open(img, "wb") as file:
        file.truncate(16 * MIB)
    kernel.run("mkfs.ext4", "-q", img)
    kernel.run("mount", "-o", "loop,errors=remount-ro", img, path)
    yield path
    unmount(path)


def test_the_file_system_of_the_journal_became_read_only(ext4_state, tmp, agent, image):
    """As after an error of its device. It cannot be made writable while it is in use: the agent is stopped, it is
    checked and mounted again, and nothing of the volumes was touched."""
    a = agent()
    images = {v: image(8 * MIB) for v in ("old", "new")}
    doc = a.attach("old", a.file_spec(images["old"], fs="ext4"))
    with contextlib.suppress(AssertionError):  # abort: as if an error had been found, ext4(5)
        kernel.run("mount", "-o", "remount,abort", ext4_state)
    with pytest.raises(OSError):
        (ext4_state / "probe").write_bytes(b"x")
    assert_only_reads(a, "old", images["new"], "read-?only|I/O")
    assert a.stop() == 0
    unmount(ext4_state)
    kernel.run("e2fsck", "-p", tmp / "state.img", check=False)
    kernel.run("mount", "-o", "loop", tmp / "state.img", ext4_state)
    a.start()
    assert_true(a, images)
    assert a.get("old").json["identity"] == doc["identity"] and a.get("old").json["state"] == "attached"
    a.attach("new", a.file_spec(images["new"], fs="ext4"))


def test_read_only_from_the_start(ended):
    a, doc = ended
    kernel.run("mount", "--bind", a.state, a.state)
    try:
        kernel.run("mount", "-o", "remount,bind,ro", a.state)
        done = a.refused_to_start()
    finally:
        unmount(a.state)
    assert done.returncode == 71 and "ead-only" in done.stderr and str(a.state) in done.stderr, done
    assert kernel.still_mapped(doc) and kernel.mounts_at(doc["mount_path"])
    a.start()
    assert a.get("v").json["state"] == "attached"


# --- it is not at its place any more ---

def moved(journal):
    os.rename(journal, journal.with_name("elsewhere"))


def deleted(journal):
    os.link(journal, journal.with_name("elsewhere"))  # for putting it back
    journal.unlink()


def replaced(journal):
    os.rename(journal, journal.with_name("elsewhere"))
    shutil.copy(journal.with_name("elsewhere"), journal)


@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal"])
@pytest.mark.parametrize("how", [moved, deleted, replaced])
def test_the_journal_is_taken_away_and_put_back(agent, image, hold, how, name):
    a = agent()
    images = {v: image(8 * MIB) for v in ("old", "new")}
    doc = a.attach("old", a.file_spec(images["old"], fs="ext4"))
    writer = hold.writer(pathlib.Path(doc["mount_path"], "log"))
    journal = a.state / name
    how(journal)
    assert_only_reads(a, "old", images["new"], "moved|removed|replaced|no longer|not the one")
    os.rename(journal.with_name("elsewhere"), journal)
    assert_recovers(a)
    assert_true(a, images)
    a.attach("new", a.file_spec(images["new"], fs="ext4"))
    a.restart("kill9")
    assert {v: a.get(v).json["state"] for v in images} == {"old": "attached", "new": "attached"}
    assert writer.release().startswith("ok")


# --- it cannot be read at the start ---

def root_page(journal, table):
    with contextlib.closing(sqlite3.connect(journal)) as db:
        page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
        return (page - 1) * db.execute("PRAGMA page_size").fetchone()[0]


def bytes_in_the_middle(journal):
    at = root_page(journal, "volume")
    with open(journal, "r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * 64)


def truncated(journal):
    os.truncate(journal, os.path.getsize(journal) // 2)


def zeroed_header(journal):
    with open(journal, "r+b") as file:
        file.write(bytes(100))


def newer_schema(journal):
    with contextlib.closing(sqlite3.connect(journal)) as db:
        db.execute("PRAGMA user_version = 999")


def damaged_document(journal):
    with contextlib.closing(sqlite3.connect(journal)) as db:
        db.execute("UPDATE volume SET doc = substr(doc, 1, length(doc) / 2)")
        db.commit()


def directory(journal):
    journal.unlink()
    journal.mkdir()


def symlink(journal):
    journal.unlink()
    journal.symlink_to(journal.with_name("good"))


def content(path):
    """What is there, so that it can be compared."""
    if path.is_symlink() or path.is_dir():
        return sorted(os.listdir(path)) if path.is_dir() else os.readlink(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def ended(agent, image):
    """(agent that was stopped, document of a volume that it had attached); started again for the clean-up."""
    a = agent()
    doc = a.attach("v", a.file_spec(image(8 * MIB), fs="ext4"))
    a.stop()
    yield a, doc
    if not a.running:
        a.start()


@pytest.mark.parametrize("damage, said", [
    (bytes_in_the_middle, "damaged"), (truncated, "damaged"), (zeroed_header, "damaged|not a database"),
    (damaged_document, "damaged"), (newer_schema, "999"), (directory, "no regular file|directory"),
    (symlink, "symbolic link|symlink|regular file")])
def test_started_on_a_bad_journal(ended, damage, said):
    a, doc = ended
    journal, good = a.state / "journal.db", a.state / "good"
    shutil.copy2(journal, good)
    damage(journal)
    before = content(journal)
    starts = [a.refused_to_start() for _ in range(2)]
    unchanged = content(journal) == before
    if journal.is_dir() and not journal.is_symlink():
        journal.rmdir()
    good.replace(journal)
    for done in starts:
        assert done.returncode == 71, done
        assert re.search(said, done.stderr, re.I) and str(a.state) in done.stderr, done.stderr
    assert unchanged, "it was changed"
    assert kernel.still_mapped(doc) and len(kernel.mounts_at(doc["mount_path"])) == 1
    a.start()
    now = a.get("v").expect(200).json
    assert now["state"] == "attached" and now["identity"] == doc["identity"]


LOCKER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print("ready", flush=True)
sys.stdin.read()
"""


def test_started_while_somebody_else_has_the_journal_locked(ended):
    a, doc = ended
    journal = a.state / "journal.db"
    with subprocess.Popen([sys.executable, "-I", "-c", LOCKER, journal], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as locker:
        try:
            assert locker.stdout.readline() == "ready\n"
            before = content(journal)
            done = a.refused_to_start()
            assert content(journal) == before
        finally:
            locker.communicate("", timeout=10)
    assert done.returncode == 71 and str(journal) in done.stderr, done
    assert re.search(rf"\b{locker.pid}\b", done.stderr) and "python" in done.stderr, done.stderr
    assert kernel.still_mapped(doc)
    a.start()
    assert a.get("v").json["state"] == "attached"


# --- time and size ---

def postpone(a, ms):
    """All that is in the journal happened that much later: for the next agent the clock went back."""
    with contextlib.closing(sqlite3.connect(a.state / "journal.db")) as db:
        for table, column in (("volume", "updated_at"), ("operation", "updated_at"), ("history", "at")):
            db.execute(f"UPDATE {table} SET {column} = {column} + ?", (ms,))
        for table in ("volume", "operation"):
            for key, doc in db.execute(f"SELECT rowid, doc FROM {table}").fetchall():
                later = re.sub(r'("\w+_at_ms": ?)([1-9]\d*)', lambda m: m[1] + str(int(m[2]) + ms), doc)
                db.execute(f"UPDATE {table} SET doc = ? WHERE rowid = ?", (later, key))
        db.commit()


def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


@pytest.mark.parametrize("days", [1, 400, -400], ids=["tomorrow", "next-year", "long-ago"])
def test_the_clock_jumped(agent, image, hold, days):
    a = agent()
    images = {v: image(8 * MIB) for v in ("held", "gone", "kept")}
    documents = {v: a.attach(v, a.file_spec(images[v], fs="ext4")) for v in images}
    proof_before = a.detach("gone")
    copy = hold.open_tree(documents["held"])
    operation = a.delete("held", wait=0).expect(202).operation
    eventually(lambda: a.get("held").json["step"] == "drain", 10, "it waits for the holder")
    before = {v: a.history(v) for v in images}
    a.stop()
    postpone(a, days * DAY_MS)
    a.start()
    assert a.get("kept").json["state"] == "attached"
    copy.release()
    proof = a.operation(operation, wait=20)["result"]
    assert proof["held_ms"] is None or proof["held_ms"] >= 0, proof
    assert moment(proof["released_at"]) <= moment(proof["unmapped_at"]), proof
    assert proof["evidence"]["exclusive_open"] is True, proof
    assert a.detach("gone") == proof_before, "a proof does not change"
    a.put("kept", documents["kept"]["spec"]).expect(200)
    assert_kept(a, before)
    a.restart("kill9")
    if days < 0:
        del before["gone"]  # beside what was recorded since it is old, and may go
    assert_kept(a, before)
    assert a.detach("kept")["held_ms"] in range(0, 60000)


def assert_kept(a, before):
    for volume, items in before.items():
        now = a.history(volume)
        assert [(i["seq"], i["event"]) for i in now[:len(items)]] == [(i["seq"], i["event"]) for i in items], \
            "something was pruned"
        sequence = [i["seq"] for i in now]
        assert sequence == sorted(set(sequence)), "not in the order in which it happened"


def journal_bytes(a):
    return sum(p.stat().st_size for p in a.state.glob("journal.db*"))


def more_history(a, times):
    """As if it had gone on for so many times as long."""
    with contextlib.closing(sqlite3.connect(a.state / "journal.db")) as db:
        for _ in range(times):
            db.execute("INSERT INTO history(volume, operation, at, event, detail)"
                       " SELECT volume, operation, at, event, detail FROM history WHERE seq <= 1000 ORDER BY seq")
        db.commit()


def test_the_journal_does_not_grow_for_ever(agent, image):
    """history_mib = 1; SQLite's own free pages (1 MiB) and its log (4 MiB and a batch) come on top of it."""
    a = agent(config={"journal": {"history_mib": 1}})
    spec = a.file_spec(image(4 * MIB), fs="ext4")
    cycles = 60

    def cycle():
        a.attach("v", spec)
        return a.detach("v")
    for _ in range(cycles):
        cycle()
    a.stop()
    more_history(a, 40)
    full = os.path.getsize(a.state / "journal.db")
    assert full > 2 * MIB
    a.start()
    sizes = []
    for number in range(cycles):
        proof = cycle()
        if number % 10 == 9:
            sizes.append(journal_bytes(a) / MIB)
    items = a.history("v")
    print(f"{full / MIB:.1f} MiB, then {[round(s, 1) for s in sizes]} after each 10 cycles; "
          f"{len(items)} lines are left")
    assert sizes[-1] < 1 + 1 + 4 + 0.5, sizes
    assert items[0]["seq"] > 1000, "the oldest are still there"
    assert len(items) >= 1000 and [i["seq"] for i in items] == sorted(i["seq"] for i in items)
    assert a.detach("v") == proof, "what is still known is still proven"
    a.restart()
    assert a.detach("v") == proof
    assert os.path.getsize(a.state / "journal.db") < (1 + 1 + 0.2) * MIB


def test_old_proofs_are_dropped(agent, image):
    kept, more = 5, 8
    a = agent(config={"journal": {"proofs_kept": kept}})
    path = image(4 * MIB)
    proofs = {}
    for number in range(kept + more):
        a.attach(f"v{number}", a.file_spec(path, fs="ext4"))
        proofs[f"v{number}"] = a.detach(f"v{number}")
        time.sleep(0.002)  # so that they differ in age
    a.attach("lives", a.file_spec(image(4 * MIB), fs="ext4"))
    a.restart()
    names = list(proofs)
    for volume in names[-kept:]:
        assert a.detach(volume) == proofs[volume], "one of the newest"
    eventually(lambda: a.delete(names[0]).status == 404, 5, "the oldest is not known any more")
    for volume in names[:more]:
        a.delete(volume).expect(404, code="volume-not-found")
        a.request("GET", f"/volumes/{volume}/history").expect(404)
    assert a.get("lives").json["state"] == "attached"
    assert a.attach(names[0], a.file_spec(path, fs="ext4")), "the name may be used again"
    assert len(a.history(names[0])) < 15, "with a history of its own"
