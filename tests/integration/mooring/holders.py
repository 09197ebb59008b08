# SPDX-License-Identifier: Apache-2.0
"""Things that hold a volume, each started and ended on demand. holder.c does what Python cannot."""
import os
import pathlib
import select
import subprocess

from .kernel import mounts_at, run

SOURCE = pathlib.Path(__file__).resolve().parents[1] / "holder.c"


def compile_holder(directory):
    binary = pathlib.Path(directory) / "holder"
    run("cc", "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread",
        "-o", binary, SOURCE)
    return binary


class Helper:
    """A process of holder.c. It says "ready" when it holds, and ends when its stdin closes."""

    def __init__(self, binary, mode, *arguments):
        self.process = subprocess.Popen([str(binary), mode, *map(str, arguments)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        readable, _, _ = select.select([self.process.stdout], [], [], 20)
        line = self.process.stdout.readline() if readable else "nothing within 20 s"
        if line != "ready\n":
            self.process.kill()
            raise AssertionError(f"holder {mode}: {line!r} {self.process.stderr.read()}")
        self.pid = self.process.pid

    def release(self):
        """Ends it; returns what it had to say."""
        if self.process is None:
            return ""
        process, self.process = self.process, None
        try:
            out, _ = process.communicate("", timeout=20)
            return out.strip()
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=10)
            raise


class Commands:
    """Held by what tools set up: `undo` ends it, once."""

    pid = None

    def __init__(self, undo):
        self.undo = undo

    def release(self):
        undo, self.undo = self.undo, None
        if undo:
            undo()


class Holders:
    """The fixture `hold`: every method starts one holder; all that are left end with the test."""

    def __init__(self, binary, base):
        self.binary = binary
        self.base = pathlib.Path(base)
        self.started = []

    def _keep(self, holder):
        self.started.append(holder)
        return holder

    def _helper(self, *arguments):
        return self._keep(Helper(self.binary, *arguments))

    def mount_copy(self, document):
        """A process in a copy of our mount namespace (unshare -m sleep)."""
        return self._helper("mount-copy", document["mount_path"])

    def thread_copy(self, document):
        """The same, but only one thread of the process has it."""
        return self._helper("thread-copy", document["mount_path"])

    def nsfs_bind(self, document):
        """A copy of our mount namespace that no process is in: an nsfs file bound somewhere keeps it."""
        pin = self.base / "nsfs-pin"
        pin.touch()
        Helper(self.binary, "nsfs-bind", document["mount_path"], pin).release()
        assert mounts_at(pin), "the namespace was not bound"
        return self._keep(Commands(lambda: run("umount", pin)))

    def open_tree(self, document):
        """A detached copy of the mount, in a file descriptor."""
        return self._helper("open-tree", document["mount_path"])

    def overlay(self, document):
        """An overlay mount with the volume as its lower layer."""
        dirs = {name: self.base / f"overlay-{name}" for name in ("upper", "work", "merged")}
        for path in dirs.values():
            path.mkdir(exist_ok=True)
        run("mount", "-t", "overlay", "overlay", "-o",
            f"lowerdir={document['mount_path']},upperdir={dirs['upper']},workdir={dirs['work']}", dirs["merged"])
        return self._keep(Commands(lambda: run("umount", dirs["merged"])))

    def raw_fd(self, document):
        """A plain fd on the device node: an exclusive open does not see it."""
        return self._helper("open", document["device"])

    def raw_in_flight(self, document):
        """The same fd, but only in flight in a socket: nothing can see or name it."""
        return self._helper("in-flight", document["device"])

    def stacked_loop(self, document):
        """A loop device on top of the device: an exclusive open does not see it, either."""
        upper = run("losetup", "--find", "--show", document["device"]).stdout.strip()
        holder = self._keep(Commands(lambda: run("losetup", "--detach", upper)))
        holder.device = upper
        return holder

    def open_file(self, document):
        path = pathlib.Path(document["mount_path"], "open-file")
        path.write_text("held\n")
        return self._helper("open", path)

    def cwd(self, document):
        return self._helper("cwd", document["mount_path"])

    def swap_file(self, document):
        path = pathlib.Path(document["mount_path"], "swap-file")
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 8 << 20)
        path.chmod(0o600)
        run("mkswap", path)
        run("swapon", path)
        return self._keep(Commands(lambda: run("swapoff", path)))

    def writer(self, path):
        """Appends and fsyncs all the time. release() gives "ok COUNT" or "error ERRNO after COUNT"."""
        return self._helper("writer", path)

    def release_all(self):
        problems = []
        for holder in reversed(self.started):
            try:
                holder.release()
            except (AssertionError, OSError, subprocess.SubprocessError) as error:
                problems.append(str(error))
        self.started.clear()
        assert not problems, problems
