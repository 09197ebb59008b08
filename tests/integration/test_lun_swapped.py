# SPDX-License-Identifier: Apache-2.0
"""The target exchanges what is behind a LUN number while the session goes on: nothing is written to the other disk."""
import os

from mooring import kernel, lun
from mooring.load import Load
from mooring.wait import eventually

MIB = 1 << 20


def export(target, path, serial):
    """What is behind LUN 1 from now on."""
    target.admin("new", mode="logicalunit", tid=target.tid, lun=1, backing_store=path)
    target.admin("update", mode="logicalunit", tid=target.tid, lun=1, params=f"scsi_sn={serial},scsi_id={serial}")


def withdraw(target):
    """Refused while it carries out a command."""
    eventually(lambda: target.admin("delete", mode="logicalunit", tid=target.tid, lun=1), 20, "the LUN is taken away")


def attached(agent, targets):
    target = targets()
    target.luns[1] = f"{target.control}.lun1.img"
    with open(target.luns[1], "wb") as file:
        file.truncate(192 * MIB)
    export(target, target.luns[1], "first")
    a = agent()
    return a, target, a.attach("v", target.spec(fs="ext4"))


def test_another_disk_is_not_written(agent, targets):
    a, target, doc = attached(agent, targets)
    other = f"{target.control}.other.img"
    with open(other, "wb") as file:
        file.truncate(192 * MIB)
    with Load(doc["mount_path"]) as load:
        load.goes_on()
        withdraw(target)
        # No attention tells a session of a LUN that is exchanged between two commands: one must miss it.
        eventually(lambda: a.get("v").json["transport"]["state"] == "down", 20, "the LUN is missed")
        export(target, other, "second")
        eventually(lambda: a.get("v").json["state"] == "failed", 20, "the volume has failed")
        eventually(lambda: load.errors, 10, "writes fail")
    error = a.get("v").json["error"]
    assert error["code"] == "device-mismatch" and "WWN" in error["message"], error
    assert os.stat(other).st_blocks == 0, "something was written"
    a.delete("v", wait=20, accept_data_loss="true").expect(200)
    withdraw(target)
    export(target, target.luns[1], "first")
    load.check(a.attach("v", target.spec(fs="ext4"))["mount_path"])
    a.detach("v")


def test_a_lun_that_comes_back_is_waited_for(agent, targets):
    a, target, doc = attached(agent, targets)
    with Load(doc["mount_path"]) as load:
        load.goes_on()
        withdraw(target)
        eventually(lambda: a.get("v").json["transport"]["state"] == "down", 20, "the LUN is missed")
        export(target, target.luns[1], "first")
        load.goes_on()
    assert load.errors == [] and load.check()
    assert lun.status(a)["counters"]["errors"] == 0
    a.detach("v")
    kernel.run("e2fsck", "-fn", target.luns[1])


def test_one_more_lun_is_no_outage(agent, targets):
    a, target, doc = attached(agent, targets)
    with Load(doc["mount_path"]) as load:
        load.goes_on()
        target.add_lun(64 * MIB)
        load.goes_on()
    assert load.errors == [] and load.longest_s < 5 and load.check()
    assert a.get("v").json["state"] == "attached"
    a.detach("v")
