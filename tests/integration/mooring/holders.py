# SPDX-License-Identifier: Apache-2.0
"""Things that hold a volume, each started and ended on demand: the holders of `mooring-selftest list`, one process
each."""
import functools
import itertools
import pathlib
import select
import signal
import subprocess
import sys

TOOLS = pathlib.Path(__file__).with_name("tools.py")
# By itself, killed, asked to end: a holder then lets go first, and says so in its exit status.
ENDS = (0, -signal.SIGKILL, -signal.SIGTERM, *(128 + n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)))


class Helper:
    """A process that says "ready" when it does its work, and ends when its stdin closes."""

    def __init__(self, *argv):
        self.process = subprocess.Popen([str(a) for a in argv], text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        readable, _, _ = select.select([self.process.stdout], [], [], 20)
        line = self.process.stdout.readline() if readable else "nothing within 20 s"
        word, *facts = line.split() or [""]
        if word != "ready":
            self.process.kill()
            _, error = self.process.communicate(timeout=10)
            raise AssertionError(f"{argv}: {line!r} {error}")
        self.pid = self.process.pid
        self.facts = dict(fact.split("=", 1) for fact in facts)

    def release(self):
        """Ends it; returns what it had to say."""
        if self.process is None:
            return ""
        process, self.process = self.process, None
        try:
            out, error = process.communicate("", timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=10)
            raise
        assert process.returncode in ENDS, f"{process.args}: {process.returncode} {out}{error}"
        return out.strip()


class Holder(Helper):
    """A holder of `mooring-selftest hold`. `device`: the loop device that it made, or None."""

    def __init__(self, binary, kind, document, scratch):
        super().__init__(binary, "hold", kind, document["mount_path"], document["device"], scratch)
        self.kind = kind
        self.device = self.facts.get("device")


@functools.cache
def kinds(binary):
    """{kind: what it does to a detach} as the program lists them."""
    listed = subprocess.run([str(binary), "list"], capture_output=True, text=True, timeout=20, check=True)
    return dict(line.split("\t")[:2] for line in listed.stdout.splitlines())


def tool(*arguments):
    """A helper of tools.py."""
    return Helper(sys.executable, "-I", TOOLS, *arguments)


class Holders:
    """The fixture `hold`. hold.open_file(document) starts the holder "open-file", and so on for every kind; all that
    are left end with the test. binary: mooring-selftest."""

    def __init__(self, binary, base):
        self.binary = binary
        self.base = pathlib.Path(base)
        self.numbers = itertools.count()
        self.started = []

    def __getattr__(self, name):
        kind = name.replace("_", "-")
        if name.startswith("_") or kind not in kinds(self.binary):
            raise AttributeError(name)
        return functools.partial(self.start, kind)

    def _keep(self, holder):
        self.started.append(holder)
        return holder

    def start(self, kind, document):
        scratch = self.base / f"hold-{next(self.numbers)}"
        scratch.mkdir()
        return self._keep(Holder(self.binary, kind, document, scratch))

    def writer(self, path):
        """Appends and fsyncs all the time. release() gives "ok COUNT" or "error ERRNO after COUNT"."""
        return self._keep(tool("writer", path))

    def pulse(self, path):
        """The same, timed: release() gives "COUNT SECONDS", the longest time that one took."""
        return self._keep(tool("pulse", path))

    def release_all(self):
        problems = []
        for holder in reversed(self.started):
            try:
                holder.release()
            except (AssertionError, OSError, subprocess.SubprocessError) as error:
                problems.append(str(error))
        self.started.clear()
        assert not problems, problems
