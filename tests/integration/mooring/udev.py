# SPDX-License-Identifier: Apache-2.0
"""A systemd-udevd of our own: it opens every loop device at each of its events, as on any real host."""
import os
import pathlib
import shutil
import subprocess

from .wait import eventually

PROGRAM = "/lib/systemd/systemd-udevd"
RULES = """SUBSYSTEM=="block", KERNEL=="loop*", ACTION!="remove", IMPORT{builtin}="blkid", OPTIONS+="watch"
"""
# /run and the rules are its own: nobody else takes it for the host's, and it names nothing but the devices' numbers.
START = """set -e
mount -t tmpfs run /run
mkdir -p /run/udev/rules.d /usr/lib/udev/rules.d
mount -t tmpfs rules /usr/lib/udev/rules.d
printf %s "$2" >/run/udev/rules.d/60-loop.rules
exec "$1" --children-max=4
"""


class Udevd:
    """Start it while no volume is mounted: it has a copy of the mount namespace."""

    def __init__(self):
        self.process = None
        self.numbers_were_there = os.path.exists("/dev/block")
        if os.path.exists("/run/udev/control"):
            return  # the host's own
        assert os.path.exists(PROGRAM), f"{PROGRAM} is missing: deploy/deps test"
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", START, "sh", PROGRAM, RULES],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        control = pathlib.Path(f"/proc/{self.process.pid}/root/run/udev/control")
        eventually(control.exists, 10, "systemd-udevd listens")

    def end(self):
        if self.process:
            self.process.terminate()
            self.process.wait(20)
            if not self.numbers_were_there:
                shutil.rmtree("/dev/block", ignore_errors=True)


def change(node):
    """The kernel tells udev that the device has changed; udevd then looks at it."""
    pathlib.Path("/sys/block", os.path.basename(node), "uevent").write_text("change")
