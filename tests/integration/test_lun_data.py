# SPDX-License-Identifier: Apache-2.0
"""What is written to a LUN is what is read from it: deep queues, odd sizes, every kind of LUN and file system."""
import hashlib
import os
import pathlib

import pytest

from mooring import kernel, lun
from mooring.load import ended, fio
from mooring.wait import eventually

CYCLES = int(os.environ.get("MOORING_LUN_CYCLES", "20"))
MIB = 1 << 20
CHAP, MUTUAL = ("user", "secretsecret1"), ("target", "secretsecret2")
LUNS = {"512": {}, "4096": {"block_size": 4096}, "thin": {"thin": True}}


@pytest.mark.parametrize("digest", ["none", "crc32c"])
@pytest.mark.parametrize("kind", LUNS)
def test_deep_queues(agent, targets, kind, digest):
    """A reader or writer with queue depth one sees no buffer that is used twice."""
    target = targets()
    target.add_lun(320 * MIB, **LUNS[kind])
    if digest != "none":
        target.admin("update", mode="target", tid=1, name="HeaderDigest", value="CRC32C,None")
    a = agent()
    spec = target.spec()
    spec["source"]["header_digest"] = digest
    doc = a.attach("v", spec)
    block = doc["identity"].get("block_size") or LUNS[kind].get("block_size", 512)
    file = doc["mount_path"] + "/fio"
    ended(fio(file, f"--bsrange={block}-1m", f"--blockalign={block}", "--size=96m", "--iodepth=32"), 120)
    ended(fio(file, "--bs=4k", "--size=32m", "--iodepth=64", "--rw=randrw"), 120)
    counters = lun.status(a)["counters"]
    print(counters)
    assert counters["errors"] == 0
    assert lun.status(a)["transport"]["header_digest"] == digest
    a.detach("v")
    kernel.run("xfs_repair", "-n", target.luns[1])


@pytest.mark.parametrize("fs", ["xfs", "ext4"])
def test_cycles(agent, targets, fs):
    target = targets(chap=CHAP)
    target.add_lun(320 * MIB)
    a = agent()
    check = {"xfs": ["xfs_repair", "-n"], "ext4": ["e2fsck", "-fn"]}[fs]
    written = {}
    for cycle in range(CYCLES):
        doc = a.attach("v", target.spec(fs=fs))
        for name, digest in written.items():
            data = pathlib.Path(doc["mount_path"], name).read_bytes()
            assert hashlib.sha256(data).hexdigest() == digest, f"cycle {cycle}: {name}"
        data = os.urandom(4 * MIB + 4096 * cycle + 17)
        name = f"file{cycle % 8}"
        pathlib.Path(doc["mount_path"], name).write_bytes(data)
        written[name] = hashlib.sha256(data).hexdigest()
        a.detach("v")
        kernel.run(*check, target.luns[1])


def test_digest_that_the_target_does_not_do_is_refused(agent, target):
    a = agent()
    spec = target.spec()
    spec["source"]["header_digest"] = "crc32c"
    problem = a.put("v", spec).expect(502, code="device-error").json
    assert "header digest" in problem["detail"]


def test_space_comes_back_from_a_thin_lun(agent, targets):
    target = targets()
    target.add_lun(320 * MIB, thin=True)
    a = agent()
    doc = a.attach("v", target.spec(fs="ext4"))
    file = pathlib.Path(doc["mount_path"], "big")
    file.write_bytes(os.urandom(128 * MIB))
    kernel.syncfs(doc["mount_path"])
    before = os.stat(target.luns[1]).st_blocks * 512
    file.unlink()
    kernel.syncfs(doc["mount_path"])
    kernel.run("fstrim", doc["mount_path"])
    eventually(lambda: os.stat(target.luns[1]).st_blocks * 512 < before - 100 * MIB, 10, "space was given back")
    assert lun.status(a)["counters"]["discards"] > 0
    a.detach("v")


def test_loop_is_as_it_was_asked_for(agent, targets):
    target = targets()
    target.add_lun(320 * MIB, block_size=4096)
    a = agent()
    doc = a.attach("v", target.spec())
    queue = pathlib.Path("/sys/block", os.path.basename(doc["device"]), "queue")
    assert (queue / "logical_block_size").read_text().strip() == "4096"
    assert (queue.parent / "loop/dio").read_text().strip() == "1"
    a.detach("v")


def test_chap_and_mutual_chap(agent, targets):
    target = targets(chap=CHAP, mutual=MUTUAL)
    target.add_lun(64 * MIB)
    a = agent()

    def spec(chap=CHAP, mutual=MUTUAL):
        made = target.spec(fs="ext4", chap=chap)
        if mutual:
            made["source"]["chap"]["mutual"] = dict(zip(("username", "password"), mutual))
        return made

    a.put("v", spec(chap=("user", "wrongwrongwrong"))).expect(502, code="chap-refused")
    wrong = a.put("v", spec(mutual=("target", "wrongwrongwrong"))).expect(502, code="chap-refused").json
    assert "target" in wrong["detail"] and "wrongwrong" not in str(wrong)
    doc = a.attach("v", spec())
    assert "secretsecret" not in str(doc) + str(a.history("v")) + a.log()
    a.detach("v")
    a.attach("v", spec(mutual=None))
    a.detach("v")


def test_several_portals(agent, target):
    """In turn; a name is resolved, IPv6 is understood."""
    a = agent()
    for first in ("127.0.0.1:1", "[::1]:1", "localhost:1", "mooring.invalid:3260"):
        a.attach("v", target.spec(fs="ext4", portals=[first, target.portal]))
        assert a.get("v").json["transport"]["portal"] == target.portal
        a.detach("v")
