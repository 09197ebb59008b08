# SPDX-License-Identifier: Apache-2.0
"""Volumes that are attached, held in random ways, detached, and sometimes taken back, while the agent is killed."""
import collections
import contextlib
import fcntl
import mmap
import os
import pathlib
import random
import struct
import subprocess
import threading
import time

from . import kernel
from .wait import eventually

BLKGETDISKSEQ = 0x80081280  # linux/fs.h
RETRY_S = 40  # a kill of the agent costs less than that
END_S = 40  # from the last release to the end of the detach
BLOCK = 4096
MIB = 1 << 20
SIZE = {"xfs": 320 * MIB, "ext4": 64 * MIB}


class Source:
    """What a volume is made of: its spec, the file that has its bytes, its file system."""

    def __init__(self, spec, path, fs):
        self.spec, self.path, self.fs = spec, path, fs

    @classmethod
    def of_file(cls, root, name, fs):
        path = root / f"{name}.img"
        with open(path, "wb") as file:
            file.truncate(SIZE[fs])
        spec = {"source": {"driver": "file", "path": str(path)}, "filesystem": {"type": fs, "format": "if-blank"}}
        return cls(spec, path, fs)

    @classmethod
    def of_lun(cls, target, fs):
        lun = target.add_lun(SIZE[fs])
        return cls(target.spec(lun, fs=fs), target.luns[lun], fs)

    def check(self):
        """Is the file system sound? While nobody has it."""
        kernel.run(*(["xfs_repair", "-n", self.path] if self.fs == "xfs" else ["e2fsck", "-fn", self.path]))


class Sleeper:
    """A holder that may come too late: started at any time, it is one only if it says so itself.

    kind: copy (a process in a copy of our mount namespace), or it has something open: file, directory, raw (device).
    """

    def __init__(self, kind, document):
        self.kind, self.document = kind, document
        self.process = None
        identity = document["identity"]
        self.number = (identity["major"], identity["minor"])
        try:
            self.holds = self._copy() if kind == "copy" else self._open()
        except OSError:
            self.holds = False
        if not self.holds:
            self.release()

    def _copy(self):
        path = self.document["mount_path"]
        self._start(prefix=["unshare", "--mount", "--propagation", "private"])
        self.path = f"/proc/{self.process.pid}/root{path}/data"
        ours, theirs = "/proc/self/ns/mnt", f"/proc/{self.process.pid}/ns/mnt"
        eventually(lambda: os.readlink(ours) != os.readlink(theirs), 10, "unshare", interval=0.001)
        # The number alone may be another volume's by now.
        wanted = "%d:%d" % self.number
        return any(m.point == path and m.major_minor == wanted for m in kernel.mounts(self.process.pid))

    def _open(self):
        path = self.document["mount_path"]
        path = {"file": path + "/data", "directory": path, "raw": self.document["device"]}[self.kind]
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if self.kind == "raw":
                seq = struct.unpack("Q", fcntl.ioctl(fd, BLKGETDISKSEQ, bytes(8)))[0]
                if seq != self.document["identity"]["diskseq"]:
                    return False
            elif os.fstat(fd).st_dev != os.makedev(*self.number):
                return False
            self._start(fd)
            self.path = f"/proc/{self.process.pid}/fd/{fd}"
            return True
        finally:
            os.close(fd)

    def _start(self, *fds, prefix=()):
        # It ends with us, too: when the pipe does.
        self.process = subprocess.Popen([*prefix, "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                        pass_fds=fds)

    def read(self):
        """The first block, as the holder sees it, from the device and not from memory."""
        path = self.path + ("/data" if self.kind == "directory" else "")
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            with mmap.mmap(-1, BLOCK) as memory:
                assert os.preadv(fd, [memory], 0) == BLOCK
                return bytes(memory)
        finally:
            os.close(fd)

    def release(self):
        if self.process:
            self.process.kill()
            self.process.communicate(timeout=20)
            self.process = None


class Chaos:
    """What the volumes of one run share."""

    def __init__(self, agent, observer, seed, detaches, kinds):
        """kinds: {holder of mooring-selftest: does an exclusive open see it?}"""
        self.agent, self.observer, self.seed, self.kinds = agent, observer, seed, kinds
        self.left = detaches
        self.nodes = {}  # of the volumes, as they were last
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.problems = []
        self.release_ms = []

    def take(self):
        with self.lock:
            if self.left <= 0 or self.problems:
                return False
            self.left -= 1
            return True

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def ask(self, method, *arguments, **more):
        """A request that survives the death of the agent; all of ours may be repeated."""
        deadline = time.monotonic() + RETRY_S
        while True:
            try:
                answer = getattr(self.agent, method)(*arguments, **more)
                if answer.status != 503:
                    return answer
                why = repr(answer)
            except OSError as error:  # no connection, or a broken one
                why = repr(error)
            except Exception as error:  # half an answer, say
                if "http.client" not in type(error).__module__:
                    raise
                why = repr(error)
            self.count("requests repeated")
            assert time.monotonic() < deadline, f"{method} {arguments}: {why}"
            time.sleep(0.05)

    def start_agent(self):
        """As often as a service manager would: a child that the killed agent was about to start may have its socket
        for a moment longer."""
        for attempt in range(5):
            try:
                return self.agent.start()
            except RuntimeError:
                if attempt == 4:
                    raise
                self.count("start tried again")
                time.sleep(0.1)


class VolumeRun:
    """One volume's life: cycle after cycle, until enough detaches are done."""

    def __init__(self, chaos, name, spec, holders):
        self.chaos, self.volume, self.spec, self.holders = chaos, name, spec, holders
        self.random = random.Random(f"{chaos.seed} {name}")
        self.data = None
        self.held = []  # [release time, holder, guard, name]
        self.story, self.since = [], 0

    def thread(self, step):
        """Runs step(), a method of ours, in a thread of its own."""
        thread = threading.Thread(target=step, name=self.volume, daemon=True)
        thread.start()
        return thread

    def run(self):
        while self.chaos.take() and self.guarded():
            pass

    def guarded(self):
        """One cycle. False: it had a problem, which is noted."""
        self.story, self.since = [], time.monotonic()
        try:
            self.cycle()
            return True
        except Exception as error:  # a thread has nobody else to tell
            self.chaos.problems.append(f"{self.volume}: {error!r}; after {self.story}")
        for _, holder, guard, _ in self.held:
            self.chaos.observer.remove(guard)
            with contextlib.suppress(Exception):
                holder.release()
        return False

    def note(self, text):
        self.story.append(f"{time.monotonic() - self.since:.3f} {text}")

    # --- holders ---

    def keep(self, name, holder, document, claimed, latest):
        guard = self.chaos.observer.guard(document, name, claimed)
        self.held.append([time.monotonic() + self.random.uniform(0, latest), holder, guard, name])
        self.held.sort(key=lambda entry: entry[0])
        self.chaos.count(name)
        self.note(name)

    def start_before(self, document, latest):
        kinds = self.chaos.kinds
        chosen = self.random.sample(sorted(kinds), self.random.choice([0, 1, 1, 1, 2, 2, 3]))
        for kind in sorted(chosen, key=lambda kind: kind == "frozen"):  # nothing can be set up on it then
            self.keep(kind, self.holders.start(kind, document), document, kinds[kind], latest)

    def start_late(self, document, latest):
        kind = self.random.choice(["copy", "copy", "file", "directory", "raw"])
        sleeper = Sleeper(kind, document)
        if sleeper.holds:
            self.keep("late " + kind, sleeper, document, kind != "raw", latest)
        else:
            sleeper.release()
            self.chaos.count("came too late")

    def release_due(self, now):
        while self.held and self.held[0][0] <= now:
            _, holder, guard, name = self.held.pop(0)
            self.release(holder, guard, name)
            self.note("-" + name)

    def release(self, holder, guard, name):
        if isinstance(holder, Sleeper):
            content = holder.read()
            if holder.kind != "raw":
                assert content == self.data[:BLOCK], f"{name} reads something else"
        guard.end()
        holder.release()

    # --- one cycle ---

    def attach(self):
        """After a kill in the middle the agent may still undo the first try, and says so: then once more."""
        deadline = time.monotonic() + RETRY_S
        while True:
            answer = self.chaos.ask("put", self.volume, self.spec)
            if answer.status in (200, 201):
                return answer.json
            assert answer.json["retryable"] and time.monotonic() < deadline, answer
            self.chaos.count("attach again: " + answer.code)
            time.sleep(0.02)

    def check_data(self, document):
        path = pathlib.Path(document["mount_path"], "data")
        if self.data is not None:
            assert path.read_bytes() == self.data, "the data differs"

    def write_data(self, document):
        self.data = self.random.randbytes(16 * BLOCK)
        pathlib.Path(document["mount_path"], "data").write_bytes(self.data)

    def ask_detach(self):
        answer = self.chaos.ask("delete", self.volume, wait=0).expect(200, 202)
        return answer.operation if answer.status == 202 else answer.json["operation"]

    def cycle(self):
        document = self.attach()
        self.chaos.nodes[self.volume] = document["device"]
        self.check_data(document)
        self.write_data(document)
        self.detach_held(document)

    def detach_held(self, document):
        """With holders that come and go meanwhile, and perhaps a cancel."""
        latest = self.random.choice([0.05, 0.3, 0.3, 0.8])
        self.start_before(document, latest)
        operation = self.ask_detach()
        self.note(operation)
        now = time.monotonic()
        arrivals = sorted(now + self.random.uniform(0, 0.2) for _ in range(self.random.choice([0, 0, 1, 2])))
        cancel_at = now + self.random.uniform(0, 0.4) if self.random.random() < 0.2 else None
        while self.held or arrivals or cancel_at:
            now = time.monotonic()
            if arrivals and arrivals[0] <= now:
                arrivals.pop(0)
                self.start_late(document, latest)
            if cancel_at and cancel_at <= now:
                cancel_at = None
                document, operation = self.cancel(document, operation)
            self.release_due(now)
            time.sleep(0.002)
        self.finish(document, operation)

    def cancel(self, document, operation):
        """A PUT takes the volume back, or comes too late; then the detach is asked for again."""
        answer = self.chaos.ask("put", self.volume, self.spec)
        if answer.status == 409 and answer.code == "operation-pending":
            self.chaos.count("cancel refused")
            return document, operation
        again = answer.expect(200, 201).json
        assert again["state"] == "attached", again
        self.check_data(again)
        ended = self.chaos.ask("request", "GET", f"/operations/{operation}").expect(200).json
        if again["identity"]["diskseq"] == document["identity"]["diskseq"]:
            self.note("cancelled")
            self.chaos.count("cancelled")
            assert ended["state"] == "failed" and ended["error"]["code"] == "detach-cancelled", ended
            assert not kernel.unmap_asked(again), "the unmap was not taken back"
        else:
            self.note("attached afresh")
            self.chaos.count("cancel too late")
            # Done, or cancelled just when the last user of a put-off unmap went.
            assert ended["state"] == "done" or ended["error"]["code"] == "detach-cancelled", ended
            assert not [entry for entry in self.held if entry[2].document is document], "unmapped while held"
        return again, self.ask_detach()

    def finish(self, document, operation):
        released = time.monotonic()
        while True:
            target = f"/operations/{operation}"
            ended = self.chaos.ask("request", "GET", target, None, {"Prefer": "wait=5"}).expect(200).json
            if ended["state"] != "running":
                break
            assert time.monotonic() - released < END_S, f"not ended: {ended}; {self.chaos.agent.get(self.volume)!r}"
        assert ended["state"] == "done", ended
        assert not kernel.still_mapped(document), "the proof of release, and still mapped"
        self.chaos.release_ms.append((time.monotonic() - released) * 1000)
        self.chaos.count("detached")
