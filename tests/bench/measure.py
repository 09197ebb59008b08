# SPDX-License-Identifier: Apache-2.0
"""What all benches use: rows of samples, the bare programs, an agent and images in a directory of their own."""
import contextlib
import math
import os
import pathlib
import select
import shutil
import statistics
import subprocess
import tempfile
import time

from mooring import kernel, leaks
from mooring.agent import Agent

MIB = 1 << 20
NS_PER_MS = 1e6


def percentile(samples, percent):
    """Nearest rank: under 100 samples the 99th percentile is the greatest."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


class Row:
    """Mooring's samples against those of a baseline, from the same run. limit: the greatest ratio that meets the goal."""

    def __init__(self, what, ours, baseline, unit="ms", limit=None):
        self.what, self.ours, self.baseline, self.unit, self.limit = what, ours, baseline, unit, limit

    @property
    def ratio(self):
        """Of the medians; None when the baseline is nothing at all."""
        base = statistics.median(self.baseline)
        return statistics.median(self.ours) / base if base else None

    @property
    def met(self):
        """True, False, or None without a goal."""
        if self.limit is None:
            return None
        return self.ratio <= self.limit if self.ratio is not None else statistics.median(self.ours) == 0

    @property
    def verdict(self):
        if self.limit is None:
            return ""
        return f"goal <= {self.limit:g}x: {'met' if self.met else 'not met'}"

    @property
    def short(self):
        return f"{self.ratio:.2f}x" if self.ratio is not None else "-"

    @staticmethod
    def _side(samples):
        return f"{statistics.median(samples):9.3f} {percentile(samples, 99):9.3f} {len(samples):4}"

    def __str__(self):
        ratio = f"{self.ratio:7.2f}x" if self.ratio is not None else "      - "
        return (f"{self.what:48} {self._side(self.ours)}  {self._side(self.baseline)} {self.unit:5} {ratio}  "
                f"{self.verdict}").rstrip()


class Limit(Row):
    """One number with a goal of its own, next to what explains it."""

    def __init__(self, what, value, beside, most, unit=""):
        super().__init__(what, [value], [beside], unit)
        self.most = most

    ratio = None

    @property
    def short(self):
        return f"{self.ours[0]:g}"

    @property
    def met(self):
        return self.ours[0] <= self.most

    @property
    def verdict(self):
        return f"goal <= {self.most:g}: {'met' if self.met else 'not met'}"


HEAD = f"{'':48} {'Mooring':^24}  {'baseline':^24}\n{'':48} {'p50':>9} {'p99':>9} {'n':>4}  {'p50':>9} {'p99':>9} {'n':>4}"


class Bare:
    """A process of bare.c: one line is asked, one line comes back."""

    def __init__(self, binary, mode, *arguments, prefix=()):
        self.name = f"bare {mode}"
        self.left = b""
        self.process = subprocess.Popen([*prefix, str(binary), mode, *map(str, arguments)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        self.pid = self.process.pid

    def line(self, timeout=60):
        """The words of the next line."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self.left:
            readable, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 4096) if readable else b""
            if not data:
                self.process.kill()
                raise RuntimeError(f"{self.name}: no answer: {self.process.communicate()[1].decode()}")
            self.left += data
        line, self.left = self.left.split(b"\n", 1)
        return line.decode().split()

    def order(self, text):
        self.process.stdin.write(text.encode() + b"\n")

    def ask(self, text):
        self.order(text)
        return self.line()

    def end(self):
        """Closes its stdin; returns what it says at last, if anything."""
        if self.process is None:
            return []
        process, self.process = self.process, None
        try:
            out, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=10)
            raise
        if process.returncode != 0:
            raise RuntimeError(f"{self.name} ended with {process.returncode}: {errors.decode()}")
        return (self.left + out).decode().split()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class BenchAgent(Agent):
    """With the log level of an installed agent. prefix: a command that executes it."""

    prefix = ()

    def argv(self):
        return [*self.prefix, *super().argv()]

    def environment(self):
        return {k: v for k, v in super().environment().items() if k != "MOORING_LOG"}


class Env:
    """A directory with a short path, and what is started in it. Nothing may be left at the end."""

    def __init__(self, binary, full):
        self.binary, self.full = binary, full
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="mb", dir="/tmp"))
        self.notes = []
        self.stack = contextlib.ExitStack()

    def pick(self, quick, full):
        """A count: the small one by default."""
        return full if self.full else quick

    def note(self, text):
        self.notes.append(text)

    def bare(self, mode, *arguments, prefix=()):
        return self.stack.enter_context(Bare(self.binary, mode, *arguments, prefix=prefix))

    def one(self, mode, *arguments):
        """For a `with`: ends there."""
        return Bare(self.binary, mode, *arguments)

    def space(self, name, mounts):
        """A mount namespace with so many more mounts. Returns the prefix that runs a command in it."""
        keeper = self.bare("mounts", self.directory(name), mounts, prefix=("unshare", "-m", "--propagation", "private"))
        assert keeper.line() == ["ready"] and len(kernel.mounts(keeper.pid)) >= mounts
        return ("nsenter", f"--mount=/proc/{keeper.pid}/ns/mnt", "--")

    def agent(self, name="a", prefix=()):
        agent = BenchAgent(self.base / name)
        agent.prefix = prefix
        self.stack.callback(self._stop, agent.start())
        return agent

    @staticmethod
    def _stop(agent):
        for volume in agent.volumes():
            agent.delete(volume["id"], wait=20).expect(200)
        status = agent.stop()
        assert status == 0, f"mooringd ended with {status}"

    def image(self, name, fs, size, agent="a"):
        """A sparse file with a file system, where the agent of this name may take it from."""
        path = self.base / agent / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.truncate(size)
        kernel.run(f"mkfs.{fs}", "-q", path)
        return path

    def directory(self, name):
        path = self.base / name
        path.mkdir(parents=True)
        return path

    def close(self):
        """Ends what was started, and returns what is left all the same."""
        problem = None
        try:
            self.stack.close()
        except Exception as error:  # pylint: disable=broad-except
            problem = repr(error)
        left = leaks.wait_clean(self.base)
        if left:
            leaks.clean_up(self.base)
        shutil.rmtree(self.base, ignore_errors=not left)
        return problem or (f"left behind: {left}" if left else None)


def cpu_ms(pid):
    """CPU time of a running process, all threads: its clock of clock_getcpuclockid(3)."""
    return time.clock_gettime_ns((~pid << 3) | 2) / NS_PER_MS


def children_cpu_ms(pid):
    """CPU time of children that have ended, proc_pid_stat(5)."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    fields = stat[stat.rindex(")") + 2:].split()
    return (int(fields[13]) + int(fields[14])) * 1000 / os.sysconf("SC_CLK_TCK")
