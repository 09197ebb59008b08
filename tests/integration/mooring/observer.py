# SPDX-License-Identifier: Apache-2.0
"""Looks for early unmaps, asking nobody but sysfs: while somebody is known to hold a volume, its device stays."""
import threading
import time

from . import kernel

INTERVAL_S = 0.002


class Guard:
    """From now to end() the device of this document is held, by `who`.

    claimed: an exclusive open sees this holder, so that nobody may even have asked for the unmap.
    """

    def __init__(self, observer, document, who, claimed):
        self.observer = observer
        self.document = document
        self.who = who
        self.claimed = claimed
        self.looks = 0

    def problem(self):
        """What is wrong, or None."""
        self.looks += 1
        if not kernel.still_mapped(self.document):
            return f"unmapped: {self}"
        try:
            asked = self.claimed and kernel.unmap_asked(self.document)
        except OSError:
            return f"unmapped: {self}"
        return f"unmap asked for: {self}" if asked else None

    def end(self):
        """To be called before the holder is told to let go. An unmap cannot be undone, so this look misses none."""
        problem = self.problem()
        if problem:
            self.observer.early.append(problem)
        self.observer.remove(self)
        return problem

    def __repr__(self):
        document = self.document
        return f"{document['id']} {document['device']} diskseq {document['identity']['diskseq']}, held by {self.who}"


class Observer(threading.Thread):
    """Looks at all guarded devices all the time. `early` is what it found; it must stay empty."""

    def __init__(self):
        super().__init__(daemon=True)
        self.early = []
        self.looks = 0
        self._guards = []
        self._lock = threading.Lock()
        self._over = threading.Event()

    def guard(self, document, who, claimed=True):
        guard = Guard(self, document, who, claimed)
        with self._lock:
            self._guards.append(guard)
        return guard

    def remove(self, guard):
        with self._lock:
            if guard in self._guards:
                self._guards.remove(guard)

    def run(self):
        while not self._over.is_set():
            with self._lock:
                guards = list(self._guards)
            for guard in guards:
                problem = guard.problem()
                self.looks += 1
                with self._lock:
                    counts = problem and guard in self._guards  # else it ended meanwhile
                if counts:
                    self.early.append(problem)
                    self.remove(guard)
            time.sleep(INTERVAL_S)

    def stop(self):
        self._over.set()
        self.join(10)
