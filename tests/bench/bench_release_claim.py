# SPDX-License-Identifier: Apache-2.0
"""A holder in another mount namespace is killed: how long until the device is claimed, and until it is gone?

`bare release` is both the holder and the witness, whoever detaches: its inotify watches see IN_UNMOUNT on the volume's
root and the granted exclusive open on the device node, in the time of one process. The baseline is a program that
waits for IN_UNMOUNT, tries the exclusive open with the same back-off, and clears the loop device.
"""
import time

from measure import MIB, NS_PER_MS, Row
from mooring.wait import eventually

SETTLE_S = 0.1  # before the first holder scan


def released(witness):
    """(end of the super block, claimed, gone), in ms since the kill."""
    return [int(word) / NS_PER_MS for word in witness.ask("go")]


def by_mooring(env, agent, image, fs, dirty):
    document = agent.attach("v", agent.file_spec(image, fs=fs, fmt="never"))
    with env.one("release", document["device"], document["mount_path"], dirty) as witness:
        assert witness.line() == ["ready"]
        agent.delete("v", wait=0).expect(202)
        eventually(lambda: agent.get("v").json["step"] == "drain", 10, "it is held", interval=0.005)
        time.sleep(SETTLE_S)
        times = released(witness)
    agent.detach("v")
    return times


def by_bare(env, detacher, mount_path, dirty):
    node = detacher.ask("attach")[0]
    with env.one("release", node, mount_path, dirty) as witness:
        assert witness.line() == ["ready"]
        assert detacher.ask("detach") == ["drain"]
        time.sleep(SETTLE_S)
        times = released(witness)
    detacher.line()
    return times


def run(env):
    agent = env.agent()
    rows = []
    for fs, size in (("xfs", 320 * MIB), ("ext4", 128 * MIB)):
        image = env.image(f"{fs}.img", fs, size)
        mount_path = env.directory(f"bare-{fs}")
        detacher = env.bare("volume", fs, image, mount_path)
        for dirty in (0, 16 * MIB):
            ours, bare = [], []
            for _ in range(env.pick(20, 100)):
                ours.append(by_mooring(env, agent, image, fs, dirty))
                bare.append(by_bare(env, detacher, mount_path, dirty))
            for i, (what, limit) in enumerate((("end of super block", None), ("claim", 1.5), ("gone", None))):
                rows.append(Row(f"{fs}, {dirty // MIB} MiB dirty: release -> {what}", [t[i] for t in ours],
                                [t[i] for t in bare], limit=limit))
    return rows
