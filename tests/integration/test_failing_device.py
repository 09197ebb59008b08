# SPDX-License-Identifier: Apache-2.0
"""The device fails or falls silent in the middle of a detach: bounded, named, and only its own volume suffers."""
import os
import pathlib
import time

import pytest

from mooring import kernel
from mooring.heartbeat import Heartbeat
from mooring.wait import eventually

MIB = 1 << 20
DEADLINE_S = 3  # of a worker
TIMEOUT_S = 3  # of the iSCSI driver


def make_dirty(doc, mib=4):
    pathlib.Path(doc["mount_path"], "dirty").write_bytes(os.urandom(mib * MIB))


def ended(a, operation, within):
    """The operation's end, without another request."""
    started = time.monotonic()
    done = a.operation(operation, wait=within)
    assert done["state"] != "running", f"still running after {within} s: {a.get('v').json}"
    print(f"ended after {time.monotonic() - started:.1f} s: {done['error'] and done['error']['message']}")
    return done


def assert_lost_until_accepted(a, doc):
    """Every DELETE says the same, until the caller accepts it; then there is a proof."""
    for _ in range(3):
        problem = a.delete("v").expect(409, code="data-not-written").json
        assert problem["remedy"] and problem["residue"] == "possible"
    a.restart("kill9")
    a.delete("v").expect(409, code="data-not-written")
    assert kernel.still_mapped(doc) and a.get("v").json["state"] == "failed"
    proof = a.delete("v", wait=30, accept_data_loss="true").expect(200).json
    assert proof["evidence"]["exclusive_open"] is True
    assert not kernel.still_mapped(doc)


# --- the transport is cut from outside ---

@pytest.mark.parametrize("how", ["cut", "freeze"])
def test_target_gone_during_the_unmount(agent, target, proxy, image, how):
    """The connection breaks, or everything on it gets lost, while the data is being written out."""
    a = agent(config={"iscsi": {"timeout_seconds": TIMEOUT_S}})
    doc = a.attach("v", target.spec(portals=[proxy.portal], replacement=0))
    make_dirty(doc, 16)
    with Heartbeat(a, image(64 * MIB)):
        proxy.at_write = getattr(proxy, how)
        operation = a.delete("v", wait=0).expect(202).operation
        done = ended(a, operation, 4 * TIMEOUT_S + 5)
    assert proxy.at_write is None, "nothing was written"
    assert done["state"] == "failed" and done["error"]["code"] == "data-not-written", done
    assert_lost_until_accepted(a, doc)
    eventually(lambda: kernel.our_processes("mooring-lun") == [], 10, "mooring-lun has ended")


def test_a_target_that_never_answers_is_cut_on_request(agent, target, image):
    """With a timeout of the driver as long as this, the worker hangs; only the caller can decide to give the data up."""
    a = agent(config={"iscsi": {"timeout_seconds": 300}, "worker": {"deadline_seconds": DEADLINE_S}})
    doc = a.attach("v", target.spec())
    make_dirty(doc)
    with Heartbeat(a, image(64 * MIB)):
        target.stop()
        operation = a.delete("v", wait=0).expect(202).operation
        wedged = eventually(lambda: (d := a.get("v").json)["state"] == "wedged" and d, DEADLINE_S + 5, "wedged")
        assert "hangs in the kernel at" in wedged["error"]["message"], wedged["error"]
        a.delete("v", wait=0).expect(202, 409)
        problem = a.act("v", "cut-transport").expect(409, code="loss-not-accepted").json
        assert "not yet confirmed" in problem["detail"], problem
        assert kernel.still_mapped(doc) and a.get("v").json["state"] == "wedged"
        [result] = a.act("v", "cut-transport", accept_data_loss=True).expect(200).json["results"]
        assert result["done"] is True, result
        done = ended(a, operation, 20)
    # With the action the loss was accepted: the detach goes on to its end.
    if done["state"] == "failed":
        assert done["error"]["code"] == "data-not-written", done
        a.delete("v", accept_data_loss="true").expect(200)
    assert not kernel.still_mapped(doc)
    events = [item["event"] for item in a.history("v")]
    assert "wedged" in events and events.index("action") < events.index("action_done"), events
    eventually(lambda: kernel.our_processes("mooring-lun") == [], 10, "mooring-lun has ended")
    target.cont()
    assert a.attach("v", target.spec(fmt="never"))["state"] == "attached"


# --- the device says EIO ---

@pytest.mark.parametrize("fs", ["xfs", "ext4"])
def test_write_errors_stick_until_accepted(agent, fuse_files, image, fs):
    a = agent()
    file = fuse_files()
    doc = a.attach("v", a.file_spec(file.path, fs=fs))
    make_dirty(doc)
    file.fail_below(1 << 60)
    with Heartbeat(a, image(64 * MIB)):
        operation = a.delete("v", wait=0).expect(202).operation
        done = ended(a, operation, 20)
        assert done["state"] == "failed" and done["error"]["code"] == "data-not-written", done
    file.well()
    assert_lost_until_accepted(a, doc)


def test_metadata_errors_do_not_hang_a_well_tuned_xfs(agent, fuse_files, image):
    """Only the log can be written. With fail_at_unmount=1, which attach sees to, xfs gives up at once; all is in the
    log, and the next mount replays it."""
    a = agent()
    file = fuse_files()
    spec = a.file_spec(file.path)
    doc = a.attach("v", spec)
    for number in range(100):
        with open(pathlib.Path(doc["mount_path"], f"f{number}"), "wb", buffering=0) as f:
            f.write(b"x")
            os.fsync(f.fileno())
    file.fail_below(100 * MIB)
    with Heartbeat(a, image(64 * MIB)):
        done = ended(a, a.delete("v", wait=0).expect(202).operation, 10)
    file.well()
    if done["state"] == "failed":
        assert done["error"]["code"] == "data-not-written", done
        a.detach("v", accept_data_loss="true")
    assert not kernel.still_mapped(doc)
    doc = a.attach("v", {**spec, "filesystem": {**spec["filesystem"], "format": "never"}})
    files = {p.name: p.read_bytes() for p in pathlib.Path(doc["mount_path"]).iterdir()}
    assert files == {f"f{number}": b"x" for number in range(100)}, "what was synced is there"
    a.detach("v")
    kernel.run("xfs_repair", "-n", file.backing)


@pytest.mark.parametrize("fs", ["xfs", "ext4"])
def test_shutdown_keeps_the_unmount_from_hanging(agent, fuse_files, hold, image, fs):
    """A holder has the last reference; the device breaks; shut down first, nobody hangs when it goes."""
    a = agent(config={"worker": {"deadline_seconds": DEADLINE_S}})
    file = fuse_files()
    doc = a.attach("v", a.file_spec(file.path, fs=fs))
    if fs == "xfs":
        pathlib.Path(f"/sys/fs/xfs/{os.path.basename(doc['device'])}/error/fail_at_unmount").write_text("0")
    holder = hold.open_tree(doc)
    for number in range(100):
        with open(pathlib.Path(doc["mount_path"], f"f{number}"), "wb", buffering=0) as f:
            f.write(b"x")
            os.fsync(f.fileno())
    operation = a.delete("v", wait=1).expect(202).operation
    file.fail_below(100 * MIB)
    with Heartbeat(a, image(64 * MIB)):
        a.act("v", "shutdown", accept_data_loss=True).expect(200)
        started = time.monotonic()
        holder.release()
        assert time.monotonic() - started < 2, "the holder's own end did not hang"
        done = ended(a, operation, 20)
    assert done["state"] == "done", done
    assert not kernel.still_mapped(doc)


# --- other file systems ---

def test_other_file_systems_can_be_synced_meanwhile(agent, fuse_files, image, tmp):
    """sync -f of others is not held up by a mute volume whose detach hangs; nor is a scan of it."""
    a = agent(config={"worker": {"deadline_seconds": DEADLINE_S}})
    file = fuse_files()
    doc = a.attach("v", a.file_spec(file.path, fs="ext4"))
    others = [a.attach(f"o{i}", a.file_spec(image(size), fs=fs)) for i, (fs, size) in
              enumerate((("ext4", 64 * MIB), ("xfs", 320 * MIB)))]
    make_dirty(doc)
    file.mute()
    operation = a.delete("v", wait=0).expect(202).operation
    eventually(lambda: a.get("v").json["state"] == "wedged", DEADLINE_S + 5, "wedged")
    took = []
    for other in others * 3:
        make_dirty(other, 1)
        started = time.monotonic()
        kernel.run("sync", "-f", other["mount_path"], timeout=10)
        took.append(time.monotonic() - started)
    started = time.monotonic()
    a.holders("v")
    scan = time.monotonic() - started
    print(f"sync -f of others: max {max(took):.2f} s; scan of the mute volume: {scan:.2f} s")
    assert max(took) < 3 and scan < 6
    file.well()
    assert ended(a, operation, 20)["state"] == "done"
