# SPDX-License-Identifier: Apache-2.0
"""Attach and detach as they should go: file and iscsi, xfs and ext4."""
import hashlib
import pathlib
import re

import pytest

from mooring import kernel
from mooring.kernel import mounts_at, run

MIB = 1 << 20
RFC3339_MS = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture(params=["file", "iscsi"])
def source(request, image, target):
    """A function that makes the spec of a blank source of 320 MiB, and the file behind it."""
    if request.param == "file":
        path = image()
        return request.param, path, lambda **more: {
            "source": {"driver": "file", "path": str(path)},
            "filesystem": {"type": more.pop("fs", "xfs"), "format": more.pop("fmt", "if-blank")}, **more}
    return request.param, pathlib.Path(target.luns[1]), target.spec


@pytest.mark.parametrize("fs", ["xfs", "ext4"])
def test_attach_use_and_detach(agent, source, target, fs):
    driver, backing, spec = source
    a = agent()
    answer = a.put("data", spec(fs=fs)).expect(201)
    doc = answer.json
    path = pathlib.Path(doc["mount_path"])

    assert doc["id"] == "data" and doc["state"] == "attached" and doc["step"] is None
    assert doc["spec"]["source"]["driver"] == driver and doc["spec"]["filesystem"]["type"] == fs
    assert path == a.mount_root / "data", "the default mount path is the first root and the id"
    assert doc["size_bytes"] == 320 * MIB
    assert doc["error"] is None and doc["operation"] is None and doc["holders"] == []
    assert re.fullmatch(RFC3339_MS, doc["attached_at"]) and re.fullmatch(RFC3339_MS, doc["updated_at"])
    identity = doc["identity"]
    assert kernel.diskseq(doc["device"]) == identity["diskseq"] and kernel.loop_bound(doc["device"])
    [mount] = mounts_at(path)
    assert mount.type == fs and mount.major_minor == f"{identity['major']}:{identity['minor']}"
    assert {"nosuid", "nodev"} <= set(mount.options), mount.options
    assert run("blkid", "-p", "-o", "value", "-s", "UUID", doc["device"]).stdout.strip() == identity["fs_uuid"]
    if driver == "iscsi":
        assert identity["serial"] and identity["wwn"]
        assert len(target.connections()) == 1
        assert len(kernel.our_processes("mooring-lun")) == 1

    (path / "hello").write_text("written before the detach\n")
    proof = a.detach("data")
    assert proof["volume"] == "data" and proof["waited_for"] == []
    assert proof["evidence"]["exclusive_open"] is True
    assert proof["evidence"]["diskseq"] == identity["diskseq"]
    assert proof["unmounted_at"] <= proof["released_at"] <= proof["unmapped_at"]
    assert 0 <= proof["held_ms"] < 5000
    assert not mounts_at(path) and not kernel.still_mapped(doc)
    assert not path.exists(), "a directory that we made is removed"
    if driver == "iscsi":
        assert target.connections() == []
        assert kernel.our_processes("mooring-lun") == []

    check = ["xfs_repair", "-n", backing] if fs == "xfs" else ["e2fsck", "-fn", backing]
    run(*check)
    again = a.attach("data", spec(fs=fs, fmt="never"))
    assert again["identity"]["fs_uuid"] == identity["fs_uuid"]
    assert (path / "hello").read_text() == "written before the detach\n"


def test_documents_before_during_and_after(agent, image):
    a = agent()
    a.get("v").expect(404, code="volume-not-found")
    assert a.volumes() == []
    doc = a.attach("v", a.file_spec(image()))
    assert a.get("v").expect(200).json == doc
    assert [v["id"] for v in a.volumes()] == ["v"]
    a.detach("v")
    a.get("v").expect(404, code="volume-not-found")
    assert a.volumes() == []


def test_same_put_again_changes_nothing(agent, image):
    a = agent()
    spec = a.file_spec(image())
    first = a.attach("v", spec)
    [mount] = mounts_at(first["mount_path"])
    second = a.put("v", spec).expect(200).json
    assert second["identity"] == first["identity"] and second["attached_at"] == first["attached_at"]
    assert [m.id for m in mounts_at(first["mount_path"])] == [mount.id]


def test_async_put_and_long_poll(agent, image):
    a = agent()
    answer = a.put("v", a.file_spec(image()), wait=0).expect(202)
    assert "respond-async" in answer.headers["Preference-Applied"]
    done = a.operation(answer.operation, wait=30)
    assert (done["state"], done["kind"], done["volume"], done["error"]) == ("done", "attach", "v", None)
    assert a.get("v").json["state"] == "attached"


def test_delete_of_an_unknown_volume(agent):
    agent().delete("never-there").expect(404, code="volume-not-found")


def test_delete_twice_gives_the_same_proof(agent, image):
    a = agent()
    a.attach("v", a.file_spec(image()))
    proof = a.detach("v")
    assert a.detach("v") == proof
    a.restart()
    assert a.detach("v") == proof, "the journal knows it"


def test_mount_path_of_delete_is_a_guard(agent, image):
    a = agent()
    doc = a.attach("v", a.file_spec(image()))
    a.delete("v", mount_path=str(a.mount_root / "other")).expect(409)
    assert a.get("v").json["state"] == "attached" and mounts_at(doc["mount_path"])
    a.delete("v", mount_path=doc["mount_path"]).expect(200)


def test_existing_directory_is_kept_and_nested_ones_are_removed(agent, image):
    a = agent()
    mine = a.mount_root / "mine"
    mine.mkdir()
    a.attach("v", a.file_spec(image(), mount_path=str(mine / "x" / "y")))
    a.detach("v")
    assert mine.is_dir() and not (mine / "x").exists()
    a.attach("w", a.file_spec(image(), mount_path=str(mine)))
    a.detach("w")
    assert mine.is_dir(), "a directory that was there before is not ours to remove"


def test_read_only(agent, image):
    a = agent()
    path = image()
    doc = a.attach("v", a.file_spec(path))
    pathlib.Path(doc["mount_path"], "f").write_text("x")
    a.detach("v")
    before = digest(path)
    doc = a.attach("v", a.file_spec(path, fmt="never", read_only=True))
    assert pathlib.Path(doc["mount_path"], "f").read_text() == "x"
    with pytest.raises(OSError):
        pathlib.Path(doc["mount_path"], "g").write_text("x")
    a.detach("v")
    assert digest(path) == before


def test_options_are_used(agent, image):
    a = agent()
    doc = a.attach("v", a.file_spec(image(), filesystem={"options": ["noatime", "suid"]}))
    [mount] = mounts_at(doc["mount_path"])
    assert "noatime" in mount.options and "nodev" in mount.options and "nosuid" not in mount.options


def test_eight_volumes_at_once(agent, image):
    a = agent()
    operations = [a.put(f"v{i}", a.file_spec(image(64 * MIB), fs="ext4"), wait=0).expect(202).operation
                  for i in range(8)]
    assert [a.operation(op, wait=60)["state"] for op in operations] == ["done"] * 8
    devices = {v["device"] for v in a.volumes()}
    assert len(devices) == 8
    operations = [a.delete(f"v{i}", wait=0).expect(202).operation for i in range(8)]
    assert [a.operation(op, wait=60)["state"] for op in operations] == ["done"] * 8
