# SPDX-License-Identifier: Apache-2.0
"""PUT with dry_run: what an attach would meet, and nothing of it is left."""
import contextlib
import json
import os
import pathlib
import socket
import sqlite3
import struct
import time

import pytest

from mooring import kernel, leaks, portals
from mooring.wait import eventually
from test_openapi import conforms, schema

MIB = 1 << 20
CHAP = ("user", "secretsecret")
XFS_UUID = "12345678-1234-4234-8234-123456789abc"
TIMEOUT_S = 3


def dry_run(agent, volume, spec):
    return conforms(agent.request("PUT", f"/volumes/{volume}?dry_run=true", spec, timeout=60), "PUT", "/volumes/{id}")


def look(agent, volume, spec, attached=False):
    """The document of a dry run; it does not change the source."""
    path = None if attached else spec["source"].get("path")
    before = path and os.stat(path)
    document = dry_run(agent, volume, spec).expect(200).json
    schema("Preflight").validate(document)
    assert document["volume"] == volume and (document["problem"] is None) == (document["would"] != "refused")
    if path:
        after = os.stat(path)
        assert (after.st_mtime_ns, after.st_size, after.st_blocks) == (before.st_mtime_ns, before.st_size, before.st_blocks)
    return document


def refused(document, code):
    assert document["would"] == "refused" and document["problem"]["code"] == code, document
    assert document["problem"]["message"] and document["problem"]["residue"] == "none"
    return document["problem"]


def nothing_left(agent, target=None, volumes=()):
    """No process, no session, no device, and no row: the journal does not know that anybody asked."""
    assert [v["id"] for v in agent.volumes()] == list(volumes)
    servers = len(volumes) if target else 0
    eventually(lambda: not kernel.our_processes("mooring-worker"), 10, "workers have ended")
    eventually(lambda: len(kernel.our_processes("mooring-lun")) <= servers * 2, 10, "helpers have ended")
    if volumes:
        return
    assert not leaks.loops_of(agent.base) and not kernel.mounts_below(agent.mount_root)
    if target:
        eventually(lambda: target.connections() == [], 10, "no session is left")
    agent.stop()
    with contextlib.closing(sqlite3.connect(agent.state / "journal.db")) as db:
        for table in ("volume", "operation", "history"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    agent.start()


def make_ext4(path):
    kernel.run("mkfs.ext4", "-q", "-L", "my label", "-U", XFS_UUID, str(path))


def make_xfs(path):
    kernel.run("mkfs.xfs", "-q", "-m", f"uuid={XFS_UUID}", str(path))


def make_table(path):
    """MBR: one partition of type Linux."""
    write_at(path, 440, b"\x12\x34\x56\x78\0\0" + struct.pack("<BBHBBHII", 0, 0, 0, 0x83, 0, 0, 2048, 65536))
    write_at(path, 510, b"\x55\xaa")


def write_at(path, offset, data=b"x"):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


# --- contents: the same for a file and for a LUN ---

CONTENTS = {
    "blank": (None, "blank", None, "format", None),
    "ext4": (make_ext4, "formatted", "ext4", "refused", "wrong-filesystem"),
    "xfs": (make_xfs, "formatted", "xfs", "attach", None),
    "partitions": (make_table, "formatted", "dos", "refused", "wrong-filesystem"),
    "byte at the head": (lambda p: write_at(p, 5), "unknown", None, "refused", "not-blank"),
    "byte at the end": (lambda p: write_at(p, os.path.getsize(p) - 1), "unknown", None, "refused", "not-blank"),
}


@pytest.mark.parametrize("driver", ["file", "iscsi"])
def test_contents_are_told_apart_as_the_attach_does(agent, targets, image, driver):
    a = agent()
    target = targets() if driver == "iscsi" else None
    for number, (name, (make, content, fs_type, would, code)) in enumerate(CONTENTS.items()):
        path = image(320 * MIB)
        if make:
            make(path)
        lun = target.add_lun(path=path) if target else 0
        spec = target.spec(lun) if target else a.file_spec(path)
        document = look(a, f"v{number}", spec)
        assert (document["content"], document["would"]) == (content, would), (name, document)
        found = document["found"]
        assert found["fs_type"] == fs_type and found["detail"], (name, found)
        if name == "ext4":
            assert found["label"] == "my label" and found["fs_uuid"] == XFS_UUID
        if name == "xfs":
            assert found["fs_uuid"] == XFS_UUID and found["label"] is None
        if "byte" in name:
            assert "non-zero byte at offset" in found["detail"]
        assert document["size_bytes"] == 320 * MIB and document["block_size"] == 512
        assert document["mount_path"] == f"{a.mount_root}/v{number}" and document["write_protected"] is False
        if driver == "iscsi":
            assert document["identity"]["wwn"].startswith("naa.") and document["identity"]["serial"]
            assert document["credentials"] == "not-needed" and document["thin"] is False
            [portal] = document["portals"]
            assert portal["portal"] == target.portal and portal["reachable"] is True and portal["error"] is None
            assert 0 <= portal["connect_ms"] < 3000 and 0 <= portal["login_ms"] < 3000
        else:
            assert document["portals"] is None and document["credentials"] is None and document["thin"] is None
        if code:
            problem = refused(document, code)
    nothing_left(a, target)
    # The promise is kept: the problem is the one of the real PUT.
    number = list(CONTENTS).index("byte at the end")
    real = a.put(f"v{number}", spec).expect(409, code="not-blank").json
    assert real["remedy"] == problem["remedy"]
    a.detach(f"v{number}")


def test_format_is_never_promised_unasked(agent, image):
    a = agent()
    spec = a.file_spec(image(), fmt="never")
    problem = refused(look(a, "v", spec), "wrong-filesystem")
    assert "if-blank" in problem["remedy"]
    nothing_left(a)


@pytest.mark.parametrize("block_size, thin", [(4096, False), (512, True)])
def test_other_luns(agent, targets, block_size, thin):
    a = agent()
    target = targets()
    spec = target.spec(target.add_lun(320 * MIB, block_size=block_size, thin=thin))
    document = look(a, "v", spec)
    assert (document["block_size"], document["thin"]) == (block_size, thin) and document["would"] == "format"
    a.attach("v", spec)
    a.detach("v")
    document = look(a, "v", spec)
    assert document["would"] == "attach" and document["found"]["fs_type"] == "xfs"


# --- what is in the way ---

def test_attached_already(agent, image, target):
    a = agent()
    spec, lun = a.file_spec(image(), fs="ext4"), target.spec(fs="xfs")
    a.attach("v", spec)
    doc = a.attach("l", lun)
    for volume, same in (("v", spec), ("l", lun)):
        document = look(a, volume, same, attached=True)
        assert document["would"] == "verify" and document["content"] == "formatted", document
        changed = {**same, "read_only": True, "filesystem": {"type": "xfs"}}
        assert refused(look(a, volume, changed, attached=True), "spec-conflict")["remedy"]
        problem = refused(look(a, "other", same, attached=True), "source-in-use")
        assert problem["volume"] == volume
        elsewhere = {**a.file_spec(image(), fs="ext4"), "mount_path": str(a.mount_root / volume / "inside")}
        assert refused(look(a, "other", elsewhere), "mount-path-busy")["volume"] == volume
    pathlib.Path(doc["mount_path"], "f").write_bytes(b"x")
    os.sync()
    nothing_left(a, target, ["l", "v"])
    assert a.get("v").json["state"] == a.get("l").json["state"] == "attached"


def test_attached_already_while_the_target_is_mute(agent, target):
    """The dry run says what the PUT does."""
    a = agent(config={"iscsi": {"timeout_seconds": 2}})
    spec = target.spec()
    a.attach("v", spec)
    target.stop()
    try:
        document = look(a, "v", spec, attached=True)
        real = a.put("v", spec, wait=10)
    finally:
        target.cont()
    assert document["would"] == "verify" and real.status == 200, (document, real)


def test_same_disk_by_another_name(agent, targets):
    """Two targets, one LUN: only what the LUN says of itself tells."""
    a = agent()
    target = targets()
    target.add_lun(320 * MIB)
    other = target.name + ".again"
    target.admin("new", mode="target", tid=2, targetname=other)
    target.admin("bind", mode="target", tid=2, initiator_address="127.0.0.1")
    target.admin("new", mode="logicalunit", tid=2, lun=1, backing_store=target.luns[1])
    wwn = look(a, "v", target.spec())["identity"]["wwn"]
    twin = look(a, "w", target.spec(target=other))["identity"]["wwn"]
    a.attach("v", target.spec())
    document = look(a, "w", target.spec(target=other))
    if twin == wwn:
        assert refused(document, "source-in-use")["volume"] == "v"
    else:  # tgtd numbers them by target
        assert document["identity"]["wwn"] == twin


def test_busy_mount_path(agent, image):
    a = agent()
    spec = a.file_spec(image(), fs="ext4")
    place = a.mount_root / "v"
    place.mkdir()
    assert look(a, "v", spec)["would"] == "format"
    (place / "somebody's").write_text("x")
    assert "somebody's" in refused(look(a, "v", spec), "mount-path-busy")["message"]
    (place / "somebody's").unlink()
    kernel.run("mount", "-t", "tmpfs", "none", place)
    try:
        refused(look(a, "v", spec), "mount-path-busy")
    finally:
        kernel.run("umount", place)
    place.rmdir()
    place.write_text("a file")
    refused(look(a, "v", spec), "mount-path-busy")
    place.unlink()
    place.symlink_to("/tmp")
    dry_run(a, "v", spec).expect(422, code="path-not-allowed")
    place.unlink()
    assert look(a, "v", {**spec, "mount_path": str(a.mount_root / "not" / "there" / "yet")})["would"] == "format"
    assert not (a.mount_root / "not").exists()
    nothing_left(a)


def test_validation_is_that_of_the_real_put(agent, image, tmp):
    a = agent()
    good = a.file_spec(image(), fs="ext4")
    outside = tmp / "outside.img"
    outside.write_bytes(bytes(MIB))
    for change in ({"bogus": 1}, {"filesystem": {"type": "vfat"}}, {"mount_path": "/etc"}, {"source": {"driver": "file"}},
                   {"source": {"driver": "file", "path": str(outside)}},
                   {"source": {"driver": "file", "path": str(a.file_root / "missing.img")}}):
        spec = {**good, **change}
        dry, real = dry_run(a, "v", spec), a.put("w", spec)
        assert dry.status == real.status == 422, (change, dry, real)
        assert (dry.code, dry.json.get("pointer")) == (real.code, real.json.get("pointer"))
    a.request("PUT", "/volumes/v?dry_run=yes", good).expect(400, code="invalid-request")
    a.request("PUT", "/volumes/v?dry_run=true&dry_run=true", good).expect(400)
    a.request("PUT", "/volumes/v?dry_run=true", None).expect(400)
    a.get("v").expect(404)
    a.request("PUT", "/volumes/v?dry_run=false", good).expect(201)


def test_write_protected_source(agent, target):
    a = agent()
    target.admin("update", mode="logicalunit", tid=1, lun=1, params="readonly=1")
    document = look(a, "v", target.spec(fs="ext4"))
    assert document["write_protected"] is True
    assert "read_only" in refused(document, "device-error")["remedy"]


# --- reaching the target ---

def test_credentials(agent, targets):
    a = agent()
    target = targets(chap=CHAP)
    target.add_lun(320 * MIB)
    document = look(a, "v", target.spec())
    assert document["credentials"] == "accepted" and document["would"] == "format"
    wrong = look(a, "v", target.spec(chap=("user", "wrongsecret!")))
    assert wrong["credentials"] == "refused" and refused(wrong, "chap-refused")
    assert wrong["portals"][0]["reachable"] is True and wrong["portals"][0]["error"]["code"] == "chap-refused"
    assert wrong["identity"] is None and wrong["content"] is None and wrong["size_bytes"] is None
    none = target.spec()
    del none["source"]["chap"]
    refused(look(a, "v", none), "chap-refused")
    for secret in ("secretsecret", "wrongsecret!"):
        assert secret not in a.log() and secret not in json.dumps([document, wrong])
    nothing_left(a, target)


def test_reservation_of_another_node_is_in_the_way(agent, target):
    a = agent()
    b = agent(config={"iscsi": {"initiator_name": "iqn.2026-11.example.test:other"}})
    spec = target.spec(fs="ext4")
    spec["source"]["fencing"] = "reserve"
    assert look(b, "w", spec)["would"] == "format"
    doc = a.attach("v", spec)
    key = doc["fencing"]["key"]
    document = look(b, "w", spec)
    assert key in refused(document, "source-in-use")["message"]
    assert document["content"] == "formatted" and document["found"]["fs_type"] == "ext4"
    source = {**spec["source"], "preempt": key}
    assert look(b, "w", {**spec, "source": source})["would"] == "attach"
    # All of it only looked: the first node has what it had.
    assert a.get("v").json["fencing"]["key"] == key and a.get("v").json["state"] == "attached"
    a.detach("v")
    nothing_left(b)
    assert look(b, "w", spec)["would"] == "attach"


def test_reservation_is_in_the_way_of_who_wants_none(agent, target):
    """A PUT without fencing cannot write either: what it answers, the dry run says before."""
    a = agent()
    b = agent(config={"iscsi": {"initiator_name": "iqn.2026-11.example.test:other"}})
    reserving = target.spec()
    reserving["source"]["fencing"] = "reserve"
    key = a.attach("v", reserving)["fencing"]["key"]
    document = look(b, "w", target.spec())
    b.put("w", target.spec(), wait=30).expect(409, code="source-in-use")
    assert key in refused(document, "source-in-use")["message"]
    b.delete("w", wait=30)
    a.detach("v")
    assert look(b, "w", target.spec())["would"] == "attach"


def test_every_portal_is_reported(agent, target):
    a = agent(config={"iscsi": {"timeout_seconds": TIMEOUT_S}})
    with portals.never_accepts() as dropping:
        with portals.never_answers() as closed:
            pass
        document = look(a, "v", target.spec(portals=[closed, dropping, target.portal]))
    refusing, silent, good = document["portals"]
    assert refusing["reachable"] is False and refusing["error"]["code"] == "portal-unreachable"
    assert silent["reachable"] is False and silent["error"]["code"] == "target-timeout" and silent["connect_ms"] is None
    assert good["reachable"] is True and good["login_ms"] is not None and good["error"] is None
    assert document["would"] == "format" and document["content"] == "blank"
    nothing_left(a, target)


@pytest.mark.parametrize("kind", ["never_answers", "never_accepts"])
def test_black_hole_is_answered_within_the_deadline(agent, target, kind):
    a = agent(config={"iscsi": {"timeout_seconds": 2}})
    with getattr(portals, kind)() as portal:
        started = time.monotonic()
        document = look(a, "v", target.spec(portals=[portal]))
        took = time.monotonic() - started
    refused(document, "target-timeout")
    assert document["portals"][0]["reachable"] is (kind == "never_answers")
    assert document["credentials"] == "unknown" and took < 2 + 2, f"{took:.2f} s"
    nothing_left(a)


def test_missing_lun_and_target(agent, target):
    a = agent()
    refused(look(a, "v", target.spec(lun=7)), "lun-not-found")
    refused(look(a, "v", target.spec(target="iqn.2026-11.example:other")), "target-not-found")
    refused(look(a, "v", target.spec(lun=0)), "device-error")  # tgtd's controller
    nothing_left(a, target)


def test_target_that_stops_in_the_middle(agent, target, proxy):
    a = agent(config={"iscsi": {"timeout_seconds": 2}})
    look(a, "v", target.spec(portals=[proxy.portal]))
    target.stop()
    started = time.monotonic()
    refused(look(a, "v", target.spec(portals=[proxy.portal])), "target-timeout")
    assert time.monotonic() - started < 6
    target.cont()
    nothing_left(a, target)


def test_reads_that_bring_nothing_are_not_blank(agent, target):
    a = agent(config={"iscsi": {"timeout_seconds": 2}})
    with portals.Hollow() as hollow:
        document = look(a, "v", target.spec(portals=[hollow.portal]))
    refused(document, "not-blank")
    assert document["content"] == "unknown" and document["size_bytes"] == 64 * MIB
    assert document["identity"] == {"serial": "", "wwn": ""}
    nothing_left(a)


def test_mute_file_ends_with_its_deadline(agent, fuse_files):
    """Not even the end of its process comes, but the answer does, and the agent goes on."""
    a = agent(config={"iscsi": {"timeout_seconds": 1}})
    file = fuse_files()
    file.mute()
    started = time.monotonic()
    dry_run(a, "v", a.file_spec(file.path, fs="ext4")).expect(504, code="target-timeout")
    assert time.monotonic() - started < 10
    assert a.request("GET", "/livez").expect(200).ms < 250
    file.recover()
    nothing_left(a)


@contextlib.contextmanager
def named(directory, name, *addresses):
    """In this mount namespace only, which the agent shares."""
    hosts = pathlib.Path(directory, "hosts")
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for address in addresses))
    kernel.run("mount", "--bind", str(hosts), "/etc/hosts")
    try:
        yield
    finally:
        kernel.run("umount", "/etc/hosts")


def test_every_address_of_a_name_is_tried(agent, targets, tmp):
    """As by an attach: that the first address takes no connection says little of a portal."""
    target = targets(address="127.0.0.9")
    target.add_lun(320 * MIB)
    with named(tmp, "portal.mooring.test", "127.0.0.1", target.address):
        a = agent()
        portal = "portal.mooring.test:%s" % target.portal.rsplit(":", 1)[1]
        spec = target.spec(portals=[portal])
        document = look(a, "v", spec)
        assert document["would"] == "format" and document["portals"][0]["reachable"], document
        found = a.request("GET", f"/discovery?driver=iscsi&portal={portal}").expect(200).json
        assert [t["name"] for t in found["targets"]] == [target.name]
        a.attach("v", spec)
        a.detach("v")


def test_caller_that_hangs_up_leaves_no_helper(agent):
    """A connection request that nobody answers keeps no process that nobody waits for: they would be without number."""
    a = agent(config={"iscsi": {"timeout_seconds": 20}})
    with portals.never_accepts() as portal:
        body = json.dumps({"source": {"driver": "iscsi", "portals": [portal], "target": "iqn.2026-11.example:x", "lun": 1},
                           "filesystem": {"type": "xfs"}})
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(a.socket))
                caller.sendall(f"PUT /volumes/v?dry_run=true HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                               f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
                eventually(lambda: kernel.our_processes("mooring-lun"), 10, "a helper tries to connect")
            eventually(lambda: not kernel.our_processes("mooring-lun"), 5, "it ends with its caller")
