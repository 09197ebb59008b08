# SPDX-License-Identifier: Apache-2.0
"""What the agent says of a volume of the driver `file`, against what the kernel says: an independent look."""
import os
import time

from . import kernel
from .wait import eventually

AT_REST = ("attached", "failed", "lost_by_reboot", "orphan")


def bound_images():
    """{backing file: [loop devices]}"""
    found = {}
    for node in kernel.bound_loops():
        found.setdefault(kernel.loop_bound(node), []).append(node)
    return found


def bound_to(image):
    return bound_images().get(str(image), [])


def stuck_processes(seconds=1.0):
    """Processes of this mount namespace that are in D all the time: they wait in the kernel and cannot be killed."""
    ours, stuck = os.readlink("/proc/self/ns/mnt"), None
    deadline = time.monotonic() + seconds
    while stuck is None or (stuck and time.monotonic() < deadline):
        now = set()
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{entry}/ns/mnt") == ours and (p := kernel.Process(int(entry))).state == "D":
                    now.add((p.pid, p.program))
            except (OSError, ValueError):
                pass  # ended meanwhile, or a kernel thread
        stuck = now if stuck is None else stuck & now
        time.sleep(0.05)
    return stuck


def _attached(document, nodes, mounts):
    if nodes != [document["device"]] or kernel.diskseq(nodes[0]) != document["identity"]["diskseq"]:
        return f"attached as {document['device']}, bound are {nodes}"
    return None if len(mounts) == 1 else f"attached, mounts are {mounts}"


def _failed(document, nodes, mounts):
    none = (document["error"] or {}).get("residue") == "none"
    if document["device"] is None or none:
        return f"said to have nothing ({document['error']}), but {nodes} {mounts}" if nodes or mounts else None
    if nodes not in ([], [document["device"]]):
        return f"said to be {document['device']}, but bound are {nodes}"
    return None


def untrue(a, volume, nodes, mounts):
    """None, or what is not true (or still going on)."""
    answer = a.get(volume)
    if answer.status == 404:
        return f"{volume} is absent, but {nodes} {mounts}" if nodes or mounts else None
    document = answer.expect(200).json
    if document["state"] not in AT_REST:
        return f"{volume} is {document['state']}, step {document['step']}, {document['error']}"
    wrong = (_attached if document["state"] == "attached" else _failed)(document, nodes, mounts)
    return wrong and f"{volume}: {wrong}"


def assert_true(a, images, within=10):
    """images: {volume: image}. Within that time every volume is at rest and as it is said to be."""
    def look():
        bound, mounted = bound_images(), {}
        for mount in kernel.mounts():
            mounted.setdefault(mount.point, []).append(mount)
        found = (untrue(a, v, bound.get(str(i), []), mounted.get(str(a.mount_root / v), [])) for v, i in images.items())
        wrong = [w for w in found if w]
        assert not wrong, wrong
        return True
    eventually(look, within, "all volumes at rest and as they are said to be", interval=0.05)
