# SPDX-License-Identifier: Apache-2.0
"""A file whose storage fails or falls silent on request: fuse_file.c, mounted over a regular file."""
import os
import pathlib
import select
import subprocess

from .kernel import FUSE_CONNECTIONS, mount_fusectl, mounts_at, run

SOURCE = pathlib.Path(__file__).resolve().parents[1] / "fuse_file.c"


def compile_server(directory):
    binary = pathlib.Path(directory) / "fuse_file"
    run("cc", "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-o", binary, SOURCE)
    return binary


class FuseFile:
    """path is served; backing is where its bytes are, readable without asking the server."""

    def __init__(self, binary, path, size):
        self.path = pathlib.Path(path)
        self.backing = self.path.with_name(self.path.name + ".backing")
        for name in (self.path, self.backing):
            with open(name, "wb") as file:
                file.truncate(size)
        self.process = subprocess.Popen([str(binary), str(self.backing), str(self.path)], text=True, bufsize=1,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        word, number = (self._line() + " ?").split()[:2]
        if word != "ready":
            self.process.kill()
            raise AssertionError(f"fuse_file: {self.process.stderr.read()}")
        self.connection = FUSE_CONNECTIONS / number

    def _line(self):
        readable, _, _ = select.select([self.process.stdout], [], [], 20)
        return self.process.stdout.readline().strip() if readable else "nothing within 20 s"

    def _say(self, line):
        self.process.stdin.write(line + "\n")
        assert (said := self._line()) == "ok", f"fuse_file: {said!r} to {line!r}"

    def fail_below(self, offset):
        """Writes below this offset give EIO."""
        self._say(f"fail {offset}")

    def mute(self):
        """Takes requests and does not answer: whoever waits is in D, and no signal ends that."""
        self._say("mute")

    def well(self):
        """No fault any more; what waited is answered."""
        self._say("well")

    def abort(self):
        """The kernel ends the connection: every request fails from now on, ECONNABORTED."""
        mount_fusectl()
        (self.connection / "abort").write_text("1")

    def recover(self):
        """Well again, unless the server has ended."""
        if self.process.poll() is None:
            self.well()

    def end(self):
        """Kills the server, which aborts the connection, and takes the mount away."""
        self.process.kill()
        self.process.communicate(timeout=20)
        while mounts_at(self.path):
            run("umount", "--lazy", self.path)
