# SPDX-License-Identifier: Apache-2.0
"""Nothing may be left after a test: no loop device, mount or process of ours."""
import errno
import os
import pathlib
import re
import signal
import time

from . import kernel
from .wait import eventually


def journal_bytes(base):
    """All journals of the agents below base, as they are on the disk: attach tokens are found whatever the schema is.
    Not deeper: what is mounted there may be mute, or fail."""
    found = b""
    for path in (path for depth in ("*", "*/*") for path in pathlib.Path(base).glob(depth + "/journal.db*")):
        try:
            found += path.read_bytes()
        except OSError:
            pass
    return found


def loops_of(base):
    """Bound loop devices that this test made: by backing file, or by an attach token in its journals."""
    journals, found = None, []
    for node in kernel.bound_loops():
        backing = kernel.loop_bound(node)
        if backing and backing.startswith(str(base) + "/"):
            found.append(node)
            continue
        token = re.fullmatch(r"mooring:([0-9a-f]{32}):[0-9a-f]{16}", kernel.loop_file_name(node) or "")
        if token:
            journals = journal_bytes(base) if journals is None else journals
            if token.group(1).encode() in journals:
                found.append(node)
    return found


def groups_of(base):
    """Control groups of attachments of agents below base: each is named by a symlink in a runtime directory."""
    return [link for depth in ("*", "*/*") for link in pathlib.Path(base).glob(depth + "/lun/*.cgroup")]


def remove_groups(base):
    for link in groups_of(base):
        eventually(lambda group=link.readlink(): removed(group), 5, "nobody is in the control group", interval=0.01)
        link.unlink()


def removed(group):
    """A process is in it for a moment after its end was told."""
    try:
        os.rmdir(group)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def leftovers(base):
    found = {
        "mounts": [repr(m) for m in kernel.mounts_below(base)],
        "loop devices": [f"{n} ({kernel.loop_bound(n)})" for n in loops_of(base)],
        "processes": [repr(p) for p in kernel.our_processes()],
        "control groups": [str(link) for link in groups_of(base)],
    }
    return {kind: things for kind, things in found.items() if things}


def wait_clean(base, timeout=10):
    """Returns what is still there when the time is up; {} is what a test wants."""
    try:
        eventually(lambda: not leftovers(base), timeout, interval=0.05)
        return {}
    except AssertionError:
        return leftovers(base)


def clean_up(base):
    """After a failure: takes away what is left, so that the next test starts from nothing."""
    for process in kernel.our_processes("mooringd", "mooring-worker"):
        _signal(process.pid, signal.SIGKILL)
    wake("mooring-lun", "mooring-lun-io")
    nodes = loops_of(base)
    for mount in reversed(kernel.mounts_below(base)):
        kernel.run("umount", "--lazy", mount.point, check=False)
    for node in nodes:
        kernel.run("losetup", "--detach", node, check=False)
    time.sleep(0.5)
    for process in kernel.our_processes("mooring-lun"):
        _signal(process.pid, signal.SIGKILL)
    time.sleep(0.2)
    remove_groups(base)


def wake(*programs):
    """Those that were stopped, and no others: LeakSanitizer attaches to a process that ends, and waits for ever when a
    SIGCONT takes away the SIGSTOP that goes with that (ptrace(2))."""
    for process in kernel.our_processes(*programs):
        if process.state == "T":
            _signal(process.pid, signal.SIGCONT)


def _signal(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
