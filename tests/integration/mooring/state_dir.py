# SPDX-License-Identifier: Apache-2.0
"""State directories on storage that runs full or fails. Each is mounted before the agent starts; end() comes after the
agent's end."""
import errno
import os
import pathlib
import select
import subprocess
import sys

from .kernel import mounts_at, run

SERVER = pathlib.Path(__file__).with_name("fault_dir.py")


def unmount(path):
    while mounts_at(path):
        run("umount", "--lazy", path)


class SmallState:
    """A small file system of its own: kind "tmpfs", or "ext4" on a loop device."""

    def __init__(self, path, kind, size_mib=12):
        self.path = pathlib.Path(path)
        self.ballast = self.path / "ballast"
        self.path.mkdir(parents=True)
        if kind == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", f"size={size_mib}M", "small-state", self.path)
            return
        image = self.path.parents[1] / "state.img"
        with open(image, "wb") as file:
            file.truncate(size_mib << 20)
        run("mkfs.ext4", "-q", "-m", "0", "-J", "size=4", image)
        run("mount", "-o", "loop", image, self.path)

    def fill(self, leave=0):
        """Leaves room for so many bytes, a multiple of 4096, and not for one block more."""
        with open(self.ballast, "wb", buffering=0) as file:
            for piece in (1 << 20, 64 << 10, 4096):
                try:
                    while True:
                        file.write(bytes(piece))
                except OSError as error:
                    assert error.errno == errno.ENOSPC
            os.fsync(file.fileno())
            file.truncate(os.fstat(file.fileno()).st_size - leave)

    def free(self):
        self.ballast.unlink(missing_ok=True)

    def end(self):
        unmount(self.path)


class FaultyState:
    """Served by fault_dir.py; `backing` is where the files really are."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.backing = self.path.parents[1] / "state.backing"
        self.path.mkdir(parents=True)
        self.backing.mkdir()
        self.process = subprocess.Popen([sys.executable, "-I", SERVER, self.backing, self.path], text=True, bufsize=1,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if (word := self._line()) != "ready":
            self.process.kill()
            raise AssertionError(f"fault_dir: {word!r} {self.process.stderr.read()}")

    def _line(self):
        readable, _, _ = select.select([self.process.stdout], [], [], 20)
        return self.process.stdout.readline().strip() if readable else "nothing within 20 s"

    def _say(self, line):
        self.process.stdin.write(line + "\n")
        assert (said := self._line()) == "ok", f"fault_dir: {said!r} to {line!r}: {self.process.poll()}"

    def fail(self, what, number):
        """what: "change" or "fsync"; number: an errno."""
        self._say(f"{what} {number}")

    def mute(self):
        self._say("mute")

    def well(self):
        if self.process.poll() is None:
            self._say("well")

    def end(self):
        self.process.kill()
        self.process.communicate(timeout=20)
        unmount(self.path)
