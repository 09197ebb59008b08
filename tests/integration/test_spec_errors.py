# SPDX-License-Identifier: Apache-2.0
"""What is refused, with which problem, and that nothing is changed or left behind by it."""
import hashlib
import os
import pathlib
import socket
import time

import pytest

from mooring import kernel
from mooring.heartbeat import Stalls
from mooring.kernel import mounts_at, run
from mooring.target import free_port

MIB = 1 << 20


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def assert_nothing_mapped(a, volume):
    answer = a.get(volume)
    if answer.status == 404:
        return
    doc = answer.expect(200).json
    assert doc["state"] == "failed" and doc["device"] is None and doc["identity"] is None, doc
    assert doc["error"]["code"] and doc["error"]["message"]
    assert kernel.our_processes("mooring-lun") == []
    assert not [m for m in mounts_at(doc["mount_path"]) if m.source.startswith("/dev/loop")]


# --- what is on the device ---

def test_never_format_on_a_blank_device(agent, image):
    a, path = agent(), image()
    before = digest(path)
    problem = a.put("v", a.file_spec(path, fmt="never")).expect(409, code="wrong-filesystem").json
    assert "blank" in problem["detail"] and problem["residue"] == "none"
    assert digest(path) == before
    assert_nothing_mapped(a, "v")


@pytest.mark.parametrize("where", ["head", "within 2 MiB", "tail"])
def test_garbage_is_not_blank(agent, image, where):
    a, path = agent(), image()
    offset = {"head": 0, "within 2 MiB": 2 * MIB - 5, "tail": path.stat().st_size - 3}[where]
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\x5a")
    before = digest(path)
    a.put("v", a.file_spec(path)).expect(409, code="not-blank")
    assert digest(path) == before, "not a byte may change"
    assert_nothing_mapped(a, "v")


def test_partition_table_is_not_blank(agent, image):
    a, path = agent(), image()
    with open(path, "r+b") as file:  # an MBR with one partition, sector 2048
        file.seek(446)
        file.write(bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little"))
        file.seek(510)
        file.write(b"\x55\xaa")
    before = digest(path)
    a.put("v", a.file_spec(path)).expect(409, code=("not-blank", "wrong-filesystem"))
    assert digest(path) == before


def test_other_file_system_is_refused_and_kept(agent, image):
    a, path = agent(), image()
    run("mkfs.ext4", "-q", path)
    before = digest(path)
    problem = a.put("v", a.file_spec(path, fs="xfs")).expect(409, code="wrong-filesystem").json
    assert "ext4" in problem["detail"] and problem["remedy"]
    assert digest(path) == before
    assert_nothing_mapped(a, "v")
    a.attach("v", a.file_spec(path, fs="ext4"))  # a failed volume with nothing mapped takes a new spec


def test_existing_file_system_keeps_its_data(agent, image, tmp):
    a, path = agent(), image()
    content = tmp / "content"
    content.mkdir()
    run("mkfs.ext4", "-q", "-d", content, path)
    uuid = run("blkid", "-p", "-o", "value", "-s", "UUID", path).stdout.strip()
    assert a.attach("v", a.file_spec(path, fs="ext4", fmt="if-blank"))["identity"]["fs_uuid"] == uuid


# --- the same source, path or id ---

def test_other_spec_under_the_same_id(agent, image):
    a = agent()
    doc = a.attach("v", a.file_spec(image()))
    a.put("v", a.file_spec(image())).expect(409, code="spec-conflict")
    assert a.get("v").json == doc


def test_one_file_under_two_ids(agent, image):
    a, path = agent(), image()
    spec = a.file_spec(path)
    a.attach("first", spec)
    problem = a.put("second", spec).expect(409, code="source-in-use").json
    assert problem["volume"] == "first", "it names who has it"
    assert a.get("first").json["state"] == "attached"


def test_one_file_by_two_names(agent, image):
    a, path = agent(), image()
    other = path.with_name("hardlink.img")
    os.link(path, other)
    a.attach("first", a.file_spec(path))
    problem = a.put("second", a.file_spec(other)).expect(409, code="source-in-use").json
    assert problem["volume"] == "first"
    assert_nothing_mapped(a, "second")


def test_one_lun_under_two_ids(agent, target):
    a = agent()
    a.attach("first", target.spec())
    problem = a.put("second", target.spec(mount_path=str(a.mount_root / "elsewhere"))).expect(
        409, code="source-in-use").json
    assert problem["volume"] == "first" and len(target.connections()) == 1


def test_one_mount_path_twice(agent, image):
    a = agent()
    path = str(a.mount_root / "here")
    a.attach("first", a.file_spec(image(), mount_path=path))
    a.put("second", a.file_spec(image(), mount_path=path)).expect(409, code="mount-path-busy")
    assert len(mounts_at(path)) == 1


def test_mount_path_with_files_in_it(agent, image):
    a = agent()
    path = a.mount_root / "full"
    path.mkdir()
    (path / "precious").write_text("x")
    a.put("v", a.file_spec(image(), mount_path=str(path))).expect(409, code="mount-path-busy")
    assert (path / "precious").read_text() == "x"
    assert_nothing_mapped(a, "v")


def test_mount_path_that_is_a_mount(agent, image):
    a = agent()
    path = a.mount_root / "taken"
    path.mkdir()
    run("mount", "-t", "tmpfs", "none", path)
    try:
        a.put("v", a.file_spec(image(), mount_path=str(path))).expect(409, code="mount-path-busy")
        assert_nothing_mapped(a, "v")
    finally:
        run("umount", path)


# --- paths ---

def test_mount_path_outside_of_the_roots(agent, image, tmp):
    a = agent()
    for path in (tmp / "outside", f"{a.mount_root}-not", a.mount_root):
        a.put("v", a.file_spec(image(), mount_path=str(path))).expect(422, code=("path-not-allowed", "invalid-spec"))
    a.put("v", a.file_spec(image(), mount_path=f"{a.mount_root}/../escape")).expect(
        422, code=("path-not-allowed", "invalid-spec"))
    a.get("v").expect(404)
    assert not (tmp / "outside").exists() and not (tmp / "a0" / "escape").exists()


def test_mount_path_through_a_symlink(agent, image, tmp):
    a = agent()
    outside = tmp / "outside"
    outside.mkdir()
    (a.mount_root / "link").symlink_to(outside)
    a.put("v", a.file_spec(image(), mount_path=str(a.mount_root / "link" / "v"))).expect(422, code="path-not-allowed")
    a.put("w", a.file_spec(image(), mount_path=str(a.mount_root / "link"))).expect(
        422, 409, code=("path-not-allowed", "mount-path-busy"))
    assert list(outside.iterdir()) == []
    assert_nothing_mapped(a, "v")
    assert_nothing_mapped(a, "w")


def test_file_outside_of_the_roots_or_through_a_symlink(agent, image, tmp):
    a, path = agent(), image()
    outside = tmp / "outside.img"
    outside.write_bytes(bytes(MIB))
    link = path.with_name("link.img")
    link.symlink_to(outside)
    for source in (outside, link):
        a.put("v", a.file_spec(source)).expect(422, code="path-not-allowed")
    a.put("v", a.file_spec(f"{path.parent}/../../outside.img")).expect(422)
    assert_nothing_mapped(a, "v")


@pytest.mark.parametrize("make", ["missing", "directory", "fifo", "empty"])
def test_file_that_is_no_image(agent, image, make):
    a = agent()
    path = image(MIB).with_name("strange")
    if make == "directory":
        path.mkdir()
    elif make == "fifo":
        os.mkfifo(path)
    elif make == "empty":
        path.touch()
    a.put("v", a.file_spec(path)).expect(422, code="invalid-spec")
    assert_nothing_mapped(a, "v")


# --- the target ---

@pytest.mark.parametrize("case, code, status", [
    ("unknown target", "target-not-found", 502),
    ("missing lun", "lun-not-found", 502),
    ("refused port", "portal-unreachable", 502),
])
def test_target_says_no(agent, target, case, code, status):
    a = agent()
    spec = {"unknown target": target.spec(target="iqn.2026-11.example.test:nobody"),
            "missing lun": target.spec(lun=7),
            "refused port": target.spec(portals=[f"127.0.0.1:{free_port()}"])}[case]
    answer = a.put("v", spec).expect(status, code=code)
    assert answer.json["step"] == "map" and answer.json["residue"] == "none"
    assert_nothing_mapped(a, "v")
    assert target.connections() == []
    assert a.attach("v", target.spec())["state"] == "attached", "and a correct one goes"


def test_second_portal_is_tried(agent, target):
    a = agent()
    a.attach("v", target.spec(portals=[f"127.0.0.1:{free_port()}", target.portal]))


SECRET = "Very-Secret-4711"


@pytest.fixture
def chap_target(targets):
    one = targets(chap=("alice", SECRET))
    one.add_lun()
    return one


def test_chap(agent, chap_target):
    a, t = agent(), chap_target
    a.put("v", t.spec(chap=("alice", "wrong-password-1"))).expect(502, code="chap-refused")
    assert_nothing_mapped(a, "v")
    a.put("v", t.spec(chap=("mallory", SECRET))).expect(502, code="chap-refused")
    without = t.spec()
    del without["source"]["chap"]
    a.put("v", without).expect(502, code=("chap-refused", "target-not-found"))
    assert t.connections() == []
    a.attach("v", t.spec())


def test_secrets_are_never_shown_or_kept(agent, chap_target):
    a, t = agent(), chap_target
    texts = {"put": a.put("v", t.spec()).expect(201).body}
    other = t.spec(chap=("alice", SECRET + "-wrong"))
    other["mount_path"] = str(a.mount_root / "other")
    texts["conflict"] = a.put("v", other).expect(409).body
    texts["get"] = a.get("v").body
    texts["list"] = a.request("GET", "/volumes").body
    assert a.get("v").json["spec"]["source"].get("chap", {}).get("password") is None
    texts["refused"] = a.put("w", t.spec(chap=("alice", SECRET + "-bad"))).body
    texts["log"] = a.log().encode()
    for process in kernel.our_processes():
        texts[f"cmdline of {process}"] = pathlib.Path(f"/proc/{process.pid}/cmdline").read_bytes()
        texts[f"environ of {process}"] = pathlib.Path(f"/proc/{process.pid}/environ").read_bytes()
    texts["delete"] = a.delete("v").expect(200).body
    a.stop()
    for directory in (a.state, a.runtime):
        for path in directory.rglob("*"):
            if path.is_file():
                texts[str(path)] = path.read_bytes()
    assert any("journal.db" in name for name in texts), "the journal was looked at"
    shown = [name for name, text in texts.items() if SECRET.encode() in text]
    assert shown == []
    a.start()


@pytest.fixture(params=["accepts and is silent", "does not accept"])
def black_hole(request):
    """A port that never answers: the kernel accepts and nobody reads, or the queue is full and SYNs are dropped."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        silent = request.param == "accepts and is silent"
        listener.listen(16 if silent else 0)
        fillers = []
        for _ in range(0 if silent else 4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        time.sleep(0.1)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        for filler in fillers:
            filler.close()


def test_black_hole_portal(agent, target, black_hole):
    a = agent(config={"iscsi": {"timeout_seconds": 2}})
    started = time.monotonic()
    operation = a.put("v", target.spec(portals=[black_hole]), wait=0).expect(202).operation
    with Stalls() as stalls:
        while a.operation(operation)["state"] == "running":
            assert time.monotonic() - started < 12, "the deadline is 2 seconds"
            stalls.assert_prompt(a.request("GET", "/livez", timeout=5).ms)
            time.sleep(0.05)
    assert time.monotonic() - started > 1.5, "it waited for the target"
    assert a.get("v").json["error"]["code"] == "target-timeout"
    a.put("v", target.spec(portals=[black_hole])).expect(504, code="target-timeout")
    assert_nothing_mapped(a, "v")
