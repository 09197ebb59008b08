# SPDX-License-Identifier: Apache-2.0
"""The machine was started again: nothing is attached, and what the journal says of the earlier boot is not looked for
in this one. To the agent a reboot is another boot id; what the kernel would have lost is taken away by hand."""
import contextlib
import os
import pathlib
import subprocess

import pytest

from mooring import kernel, leaks
from mooring.journal import OTHER_BOOT, Journal
from mooring.kernel import mounts_at, run
from mooring.wait import eventually, never

MIB = 1 << 20
DATA = b"written before the reboot" * 1000


@pytest.fixture
def volumes(agent, image, target):
    """(agent, {volume: spec}, {volume: document}): attached, with data in them."""
    a = agent()
    specs = {"f": a.file_spec(image(64 * MIB), fs="ext4"), "t": target.spec()}
    documents = {volume: a.attach(volume, spec) for volume, spec in specs.items()}
    for document in documents.values():
        pathlib.Path(document["mount_path"], "data").write_bytes(DATA)
    return a, specs, documents


def power_off(a, documents):
    """The kernel's side of a reboot, after the file systems were written out."""
    if a.running:
        a.kill9()
    for process in kernel.our_processes("mooring-worker"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, 9)
    for document in documents:
        while mounts_at(document["mount_path"]):
            run("umount", document["mount_path"])
        if kernel.still_mapped(document):
            run("losetup", "--detach", document["device"])
        eventually(lambda: not kernel.still_mapped(document), 10, "unmapped by hand")
    eventually(lambda: kernel.our_processes() == [], 10, "all processes have ended")
    leaks.remove_groups(a.base)
    with Journal(a) as journal:
        journal.reboot()


def nothing_is_done(a, documents):
    paths = {d["spec"]["source"]["path"] for d in documents if "path" in d["spec"]["source"]}

    def done():
        return [d["id"] for d in documents if mounts_at(d["mount_path"])] or \
            kernel.our_processes("mooring-lun") or [n for n in kernel.bound_loops() if kernel.loop_bound(n) in paths]
    never(done, 0.7, "attached by nobody's word")


def lost(a, volume):
    document = a.get(volume).expect(200).json
    assert document["state"] == "lost_by_reboot", document
    assert document["device"] is None and document["identity"] is None and document["operation"] is None
    return document


@pytest.mark.parametrize("how", ["stop", "kill9"])
def test_attached_volumes_are_lost_and_come_back_by_put(volumes, how):
    a, specs, documents = volumes
    getattr(a, how)()
    power_off(a, documents.values())
    a.start()
    for volume in specs:
        lost(a, volume)
    nothing_is_done(a, documents.values())
    assert a.orphans() == []
    for again in ("stop", "kill9"):
        a.restart(again)
        for volume in specs:
            lost(a, volume)
            assert [item["event"] for item in a.history(volume)].count("lost_by_reboot") == 1
    for volume, spec in specs.items():
        document = a.put(volume, spec).expect(201).json
        assert document["state"] == "attached"
        assert document["identity"]["diskseq"] != documents[volume]["identity"]["diskseq"]
        assert document["identity"]["fs_uuid"] == documents[volume]["identity"]["fs_uuid"]
        assert pathlib.Path(document["mount_path"], "data").read_bytes() == DATA
        assert a.detach(volume)["evidence"]["exclusive_open"] is True


def test_delete_says_that_it_was_another_boot(volumes):
    a, _, documents = volumes
    a.stop()
    power_off(a, documents.values())
    a.start()
    for volume in documents:
        proof = a.detach(volume)
        assert proof["released_at"] is None and proof["unmounted_at"] is None, "no time is invented"
        evidence = proof["evidence"]
        assert evidence["attach_boot_id"] == OTHER_BOOT and evidence["boot_id"] != OTHER_BOOT, evidence
        a.get(volume).expect(404)
        assert a.detach(volume) == proof
    a.restart("kill9")
    assert a.volumes() == []


# --- in the middle of something ---

@pytest.mark.parametrize("where", ["login", "mounted"])
def test_half_done_attach_of_the_earlier_boot(agent, target, where):
    a = agent()
    spec = target.spec(fs="ext4")
    if where == "login":
        documents = []
        target.stop()
        operation = a.put("t", spec, wait=0).expect(202).operation
        eventually(lambda: kernel.our_processes("mooring-lun"), 10, "it logs in")
        a.kill9()
        for process in kernel.our_processes():
            leaks._signal(process.pid, 9)
        target.cont()
    else:
        documents = [a.attach("t", spec)]
        operation = a.history("t")[-1]["operation"]
        a.stop()
    power_off(a, documents)
    if where == "mounted":  # the very end of it was not written
        with Journal(a) as journal:
            journal.edit("t", state="attaching", operation=operation)
    a.start()
    lost(a, "t")
    nothing_is_done(a, documents)
    assert a.operation(operation)["state"] != "running"
    document = a.attach("t", spec)
    assert len(mounts_at(document["mount_path"])) == 1
    a.detach("t")


def test_mkfs_that_the_reboot_cut_off_is_not_repeated(agent, image):
    a = agent()
    path = image(64 * MIB)
    spec = a.file_spec(path, fs="ext4")
    document = a.attach("v", spec)
    a.stop()
    power_off(a, [document])
    with Journal(a) as journal:
        journal.edit("v", state="attaching", format={"done": False})
    with open(path, "r+b") as file:  # the superblock comes last
        file.seek(1024)
        file.write(bytes(1024))
    before = path.read_bytes()
    a.start()
    lost(a, "v")
    problem = a.put("v", spec).expect(409, code="not-blank").json
    assert "interrupted mkfs" in problem["detail"] and problem["remedy"], problem
    a.delete("v").expect(200)
    assert path.read_bytes() == before, "nothing was written"


@pytest.mark.parametrize("holder", ["open_file", "mount_copy"])
def test_half_done_detach_of_the_earlier_boot(volumes, hold, holder):
    a, specs, documents = volumes
    held = {volume: getattr(hold, holder)(document) for volume, document in documents.items()}
    operations = {volume: a.delete(volume, wait=1).expect(202).operation for volume in specs}
    a.kill9()
    for one in held.values():
        one.release()
    power_off(a, documents.values())
    a.start()
    for volume, operation in operations.items():
        lost(a, volume)
        ended = a.operation(operation)
        assert ended["state"] == "failed" and ended["error"]["message"], "nobody saw it end"
    nothing_is_done(a, documents.values())
    assert a.detach("f")["evidence"]["attach_boot_id"] == OTHER_BOOT
    document = a.attach("t", specs["t"])
    assert pathlib.Path(document["mount_path"], "data").read_bytes() == DATA


def test_orphan_of_the_earlier_boot_is_none_any_more(volumes, hold):
    a, specs, documents = volumes
    held = {volume: hold.open_file(document) for volume, document in documents.items()}
    for volume in specs:
        a.delete(volume, wait=1).expect(202)
        a.forget(volume, reason="before the reboot").expect(200)
    a.kill9()
    for one in held.values():
        one.release()
    power_off(a, documents.values())
    a.start()
    for volume in specs:
        lost(a, volume)
    assert a.orphans() == [], "nothing of it is mapped"
    nothing_is_done(a, documents.values())
    a.delete_orphan("f").expect(404, code="volume-not-found")
    assert a.detach("f")["evidence"]["attach_boot_id"] == OTHER_BOOT
    document = a.attach("t", specs["t"])
    assert pathlib.Path(document["mount_path"], "data").read_bytes() == DATA


# --- the numbers of the earlier boot belong to somebody else now ---

class Foreign:
    """Somebody's own loop device with this number, mounted; his process has the number of a LUN server of ours."""

    def __init__(self, base, document):
        self.node, self.point = document["device"], base / "foreign"
        self.image = base / "foreign.img"
        with open(self.image, "wb") as file:
            file.truncate(64 * MIB)
        run("mkfs.ext4", "-q", self.image)
        run("losetup", self.node, self.image)
        self.point.mkdir()
        run("mount", self.node, self.point)
        self.diskseq = kernel.diskseq(self.node)
        [self.mount] = mounts_at(self.point)
        self.process = subprocess.Popen(["sleep", "300"])
        self.start_time = kernel.Process(self.process.pid).start_time

    def untouched(self):
        assert kernel.loop_bound(self.node) == str(self.image) and kernel.diskseq(self.node) == self.diskseq
        assert not kernel.unmap_asked({"device": self.node})
        assert [m.id for m in mounts_at(self.point)] == [self.mount.id]
        assert self.process.poll() is None
        (self.point / "still").write_text("writable")

    def close(self):
        self.process.kill()
        self.process.wait(10)
        run("umount", self.point, check=False)
        run("losetup", "--detach", self.node, check=False)


@pytest.mark.parametrize("state", ["attached", "detaching", "attaching", "failed", "orphan"])
@pytest.mark.parametrize("driver", ["file", "iscsi"])
def test_what_has_the_numbers_now_is_never_touched(agent, image, target, tmp, driver, state):
    a = agent()
    spec = a.file_spec(image(64 * MIB), fs="ext4") if driver == "file" else target.spec(fs="ext4")
    document = a.attach("v", spec)
    a.stop()
    power_off(a, [document])
    foreign = Foreign(tmp, document)
    with contextlib.closing(foreign):
        with Journal(a) as journal:
            # diskseq, mount id and pid begin anew with each boot: all of them may be the same by chance.
            journal.edit("v", state=state, identity={
                "diskseq": foreign.diskseq, "lun_pid": foreign.process.pid, "lun_start_time": foreign.start_time,
            }, mount={"id": foreign.mount.id, "unique": False, "root": str(tmp), "path": "foreign"},
                forgotten={"reason": None, "at_ms": 1, "by": None} if state == "orphan" else None)
            row = journal.row("v")
        a.start()
        lost(a, "v")
        assert a.orphans() == []
        assert a.detach("v")["evidence"]["attach_boot_id"] == OTHER_BOOT
        foreign.untouched()

        a.stop()
        with Journal(a) as journal:
            journal.write("v", *row)
        a.start()
        lost(a, "v")
        assert a.attach("v", spec)["device"] != foreign.node
        a.detach("v")
        foreign.untouched()
