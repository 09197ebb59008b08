# SPDX-License-Identifier: Apache-2.0
"""One agent with a target and the sources of its volumes, whose processes can be stopped at a fault point
(storage/base/fault.h) and killed there; and what the kernel says is left."""
import contextlib
import hashlib
import http.client
import os
import pathlib
import re
import shutil
import signal
import threading
import time

from . import kernel, leaks
from .agent import TOP, Agent, build_dir
from .target import Target
from .wait import eventually

MIB = 1 << 20
VOLUME = "v"
DATA_BYTES = 256 << 10
HIT_S, END_S, SETTLE_S = 15, 20, 25  # until a point is reached, a killed process is gone, the volume is at rest
MUTE_S = 0.25  # how long a target is silent

SANITIZER = re.compile(r"(ERROR|SUMMARY): \w+Sanitizer.*|.*: runtime error: .*")


def has_points(program):
    return b"MOORING_FAULTS" in pathlib.Path(program).read_bytes()


def points_build():
    """The build with fault points: the one under test, or else that of the preset asan."""
    for build in (build_dir(), TOP / "build/asan"):
        program = build / "sbin/mooringd"
        if program.exists() and has_points(program):
            return build
    raise AssertionError("no build has fault points: cmake --preset asan && cmake --build --preset asan")


def fuse_connection(number):
    """(number, what tells it from others that have the number later), or None. Needs kernel.mount_fusectl()."""
    try:
        return number, (kernel.FUSE_CONNECTIONS / str(number)).stat().st_ino
    except FileNotFoundError:
        return None


class FaultAgent(Agent):
    """With a directory of armed points."""

    def __init__(self, base):
        super().__init__(base, binary=points_build() / "sbin/mooringd", loopback=False)
        self.points = self.base / "points"
        self.points.mkdir(exist_ok=True)

    def environment(self):
        return {**super().environment(), "MOORING_FAULTS": str(self.points)}

    def arm(self, point, order="stop"):
        new = self.base / "order"
        new.write_text(order)
        new.rename(self.points / point)

    def hit(self, point):
        """The pid that got there and stopped, or None."""
        for path in self.points.glob(point + ".hit.*"):
            pid = int(path.name.rsplit(".", 1)[1])
            with contextlib.suppress(OSError):
                if kernel.Process(pid).state == "T":
                    return pid
        return None

    def disarm(self):
        for path in self.points.iterdir():
            path.unlink(missing_ok=True)


class Request(threading.Thread):
    """A request whose answer may never come."""

    def __init__(self, ask):
        super().__init__(daemon=True)
        self.ask, self.answer = ask, None
        self.start()

    def run(self):
        try:
            self.answer = self.ask()
        except (OSError, http.client.HTTPException) as error:
            self.answer = error


def owner_mark(runtime_dir):
    """OWNER of "mooring:TOKEN:OWNER": the 64 bit FNV-1a hash of the path (storage/identity.h)."""
    value = 0xCBF29CE484222325
    for byte in str(runtime_dir).encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


class Rig:
    """One volume of this driver ("file" or "iscsi") and file system."""

    def __init__(self, base, driver, fs):
        self.base, self.driver = pathlib.Path(base), driver
        size = 304 * MIB if fs == "xfs" else 32 * MIB
        self.base.mkdir()
        self.agent = FaultAgent(self.base / "a")
        self.target = self.holder = self.request = None
        self.volume = VOLUME
        if driver == "iscsi":
            self.target = Target(self.base)
            self.image = pathlib.Path(self.target.luns[self.target.add_lun(size)])
            self.spec = self.target.spec(fs=fs)
        else:
            self.image = self.agent.file_root / "image"
            with open(self.image, "wb") as file:
                file.truncate(size)
            self.spec = self.agent.file_spec(self.image, fs=fs)
        self.fuse_connections = set()
        self.seen_events = 0
        self.agent.start()

    # --- the volume ---

    def attach(self):
        document = self.agent.attach(VOLUME, self.spec)
        self.note_fuse(document)
        return document

    def put(self):
        return self.agent.put(VOLUME, self.spec, wait=60)

    def wipe(self):
        size = os.path.getsize(self.image)
        os.truncate(self.image, 0)
        os.truncate(self.image, size)

    def write_data(self, document, seed):
        """Durable: the file, and its name."""
        directory = pathlib.Path(document["mount_path"])
        self.data = hashlib.shake_256(seed.encode()).digest(4096) * (DATA_BYTES // 4096)
        fd = os.open(directory / "data", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(fd, self.data, 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def assert_data(self, document):
        found = pathlib.Path(document["mount_path"], "data").read_bytes()
        assert hashlib.sha256(found).digest() == hashlib.sha256(self.data).digest(), "the data is not what was written"

    def events(self):
        """What the history has more than at the last mark()."""
        return [(item["event"], item.get("detail")) for item in self.agent.history(self.volume)][self.seen_events:]

    def mark(self):
        answer = self.agent.request("GET", f"/volumes/{self.volume}/history", timeout=30)
        self.seen_events = len(self.agent.history(self.volume)) if answer.status == 200 else 0

    def ask(self, method, *arguments, **more):
        self.request = Request(lambda: getattr(self.agent, method)(*arguments, **more))

    def answered(self):
        """Who asked has an answer, or knows that the agent died."""
        self.request.join(END_S)
        assert self.request.answer is not None, "the client still waits"
        return self.request.answer

    def release(self):
        holder, self.holder = self.holder, None
        if holder:
            holder.release()

    # --- processes ---

    def workers(self):
        return [p.pid for p in kernel.our_processes("mooring-worker") if " volume " in p.cmdline]

    def servers(self):
        return [p.pid for p in kernel.our_processes("mooring-lun")]

    def reach(self, point):
        """Waits until a process has stopped there; its pid."""
        return eventually(lambda: self.agent.hit(point), HIT_S, f"{point} is reached", interval=0.002)

    def kill(self, victims, stopped, mute=False):
        """victims: of "agent", "worker", "server", and "late": the next agent starts before the stopped process goes
        on. Returns the pids of those killed."""
        killed = (self.servers() if "server" in victims else []) + (self.workers() if "worker" in victims else [])
        assert killed or not {"server", "worker"} & set(victims), f"there is no {victims}"
        if mute:
            self.target.stop()
            os.kill(stopped, signal.SIGCONT)
            with contextlib.suppress(AssertionError):  # not every step writes to the device
                eventually(lambda: kernel.Process(stopped).state == "D", 0.3, interval=0.002)
        if "agent" in victims:
            self.agent.kill9()  # first: it must not see the others die
        for pid in killed:
            leaks._signal(pid, signal.SIGKILL)
        if "late" in victims:
            self.agent.disarm()
            self.agent.start(ready=False)
        if mute:
            time.sleep(MUTE_S)
            self.target.cont()
        elif stopped not in killed and kernel.alive(stopped):
            os.kill(stopped, signal.SIGCONT)
        eventually(lambda: not any(kernel.alive(pid) for pid in killed), END_S, "the killed processes are gone")
        self.agent.disarm()
        if not self.agent.running:
            self.agent.start(ready=False)
        self.agent.wait_ready(SETTLE_S)
        return killed

    # --- what is there ---

    def loops(self):
        """Loop devices of this agent, by the image or by its mark: whatever the agent says."""
        owner, found = owner_mark(self.agent.runtime), []
        for node in kernel.bound_loops():
            backing = kernel.loop_bound(node)
            # The file of a mooring-lun is mounted nowhere. Other devices are not opened: that would hold them.
            if backing == str(self.image) or (
                    backing == "/" and (kernel.loop_file_name(node) or "").split(":")[2:] == [owner]):
                found.append(node)
        return found

    def facts(self):
        return {
            "loop devices": self.loops(),
            "mounts": [(m.point, m.major_minor) for m in kernel.mounts_below(self.agent.base)],
            "servers": len(self.servers()),
            "control sockets": len(list(self.agent.runtime.glob("lun/*.sock"))),
            # An empty directory may stay: who dies between mkdir and mount cannot say whose it is.
            "other files": [p.name for p in self.agent.mount_root.iterdir() if p.name != VOLUME],
        }

    def expect_facts(self, document):
        """document: of an attached volume, or None: there must be nothing."""
        servers = int(document is not None and self.driver == "iscsi")
        wanted = {
            "loop devices": [document["device"]] if document else [],
            "mounts": [(document["mount_path"], "{major}:{minor}".format(**document["identity"]))] if document else [],
            "servers": servers,
            "control sockets": servers,
            "other files": [],
        }

        def as_wanted():
            differs = {k: (v, wanted[k]) for k, v in self.facts().items() if v != wanted[k]}
            assert not differs, f"(found, wanted): {differs}"
            return True
        eventually(as_wanted, 5, interval=0.02)
        if document:
            assert kernel.still_mapped(document), "another device has its place"

    def expect_no_worker(self):
        eventually(lambda: not kernel.our_processes("mooring-worker"), END_S, "all workers have ended", interval=0.02)

    def expect_no_fuse(self):
        """Every connection that was seen is gone, though its number may be another one's by now."""
        eventually(lambda: not [c for c in self.fuse_connections if fuse_connection(c[0]) == c], END_S, "FUSE is gone")

    def note_fuse(self, document):
        if self.driver != "iscsi":
            return
        connection = fuse_connection(kernel.fuse_connection(document["device"]))
        assert connection, "the device's file is of no FUSE connection"
        self.fuse_connections.add(connection)

    # --- the end ---

    def check_image(self):
        """After the last detach."""
        check = ["xfs_repair", "-n"] if self.spec["filesystem"]["type"] == "xfs" else ["e2fsck", "-fn"]
        kernel.run(*check, self.image)

    def sanitizer_reports(self):
        """Of the agent and all its children."""
        return SANITIZER.findall(self.agent.log())

    def end(self):
        """All of it is taken down, whatever state it is in; what was still there is the answer."""
        try:
            return self._take_down()
        finally:
            if self.target:
                self.target.kill()
            shutil.rmtree(self.base, ignore_errors=True)

    def _take_down(self):
        self.release()
        if self.target and self.target.process:
            self.target.cont()
        if self.agent.running:
            self.agent.process.send_signal(signal.SIGCONT)
            self.agent.kill9()
        leaks.wake("mooring-worker", "mooring-lun", "mooring-lun-io")
        left = leaks.wait_clean(self.base, 2)
        if left:
            leaks.clean_up(self.base)
            for node in self.loops():
                kernel.run("losetup", "--detach", node, check=False)
            for process in kernel.our_processes():
                leaks._signal(process.pid, signal.SIGKILL)
        return left
