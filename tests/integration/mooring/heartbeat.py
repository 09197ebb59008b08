# SPDX-License-Identifier: Apache-2.0
"""While one volume suffers: does the agent answer, and do the others work?"""
import threading
import time

from . import kernel
from .wait import eventually

ANSWER_MS = 250
# An attach and detach of another volume: a mkfs is in it, and two cores are shared with everything else.
OTHER_VOLUME_MS = 3000


class Stalls:
    """Sleeps all the time, and takes how late it was woken up at most (longest_ms): the machine's doing, nobody
    else's."""

    def __init__(self):
        self.longest_ms = 0.0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, args=(self.over,))

    def watch(self, over):
        last = time.monotonic()
        while not over.wait(0.005):
            now = time.monotonic()
            self.longest_ms = max(self.longest_ms, (now - last) * 1000 - 5)
            last = now

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join(10)

    def assert_prompt(self, slowest_ms):
        """For an answer the agent has to be woken up, then we."""
        assert slowest_ms < ANSWER_MS + 2 * self.longest_ms, (
            f"an answer took {slowest_ms:.0f} ms, and the machine stood still for {self.longest_ms:.0f} ms")


class Heartbeat:
    """Asks /livez and attaches, syncs and detaches another volume, all the time; keeps how long each took."""

    def __init__(self, a, image):
        self.a = a
        self.spec = a.file_spec(image, fs="ext4")
        self.livez, self.cycles, self.problems = [], [], []
        self.stalls = Stalls()
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._guard, args=(step,)) for step in (self._live, self._cycle)]
        self.threads.append(threading.Thread(target=self.stalls.watch, args=(self.stopped,)))

    def _guard(self, step):
        while not self.stopped.is_set():
            try:
                step()
            except Exception as error:  # a thread has nobody else to tell
                self.problems.append(repr(error))
                return

    def _live(self):
        self.livez.append(self.a.request("GET", "/livez", timeout=5).expect(200).ms)
        self.livez.append(self.a.request("GET", "/volumes", timeout=5).expect(200).ms)
        time.sleep(0.02)

    def _cycle(self):
        started = time.monotonic()
        document = self.a.put("other", self.spec, timeout=20).expect(200, 201).json
        kernel.syncfs(document["mount_path"])
        self.a.delete("other", timeout=20).expect(200)
        self.cycles.append((time.monotonic() - started) * 1000)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def _enough(self):
        return self.problems or (len(self.livez) > 20 and len(self.cycles) > 2)

    def __exit__(self, kind, value, trace):
        if kind is None:
            eventually(self._enough, 15, "the heart beats")
        self.stopped.set()
        for thread in self.threads:
            thread.join(60)
        if kind is None:
            assert self.problems == []
            self.stalls.assert_prompt(max(self.livez))
            assert max(self.cycles) < OTHER_VOLUME_MS, f"another volume took {max(self.cycles):.0f} ms"
            print(f"{len(self.livez)} answers, max {max(self.livez):.0f} ms; "
                  f"{len(self.cycles)} cycles of another volume, max {max(self.cycles):.0f} ms")
