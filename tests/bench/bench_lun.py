# SPDX-License-Identifier: Apache-2.0
"""Reads and writes through mooring-lun, against libiscsi by itself, a loop device on a local file, and QEMU's server.

All of them are up all the time and are measured in turns; a ratio is of one round, and the median over the rounds is
what counts. The volume's ext4 lies in the first part of its LUN, mounted and idle: what is measured is the rest of the
device. Everything is on tmpfs, with a target of its own (tgtd), which takes more of the machine than all others.
"""
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import time

from measure import MIB, Limit, Row, cpu_ms
from mooring import kernel
from mooring.target import Target
from mooring.wait import eventually

FS_MIB, LUN_MIB = 64, 256
ROUNDS = 5
NOP_S = 1.5  # half of the harness' iSCSI timeout: so often a silent target is pinged
SETTLE_S = 4
QSD_OLDEST = (10, 0, 13)  # older ones mix up what is written when several writes wait
US_PER_MS, US_PER_NS = 1000, 1e-3


class Case:
    """One kind of load, and its goals: least IOPS and most CPU per I/O, of libiscsi's; least IOPS of QEMU's server."""

    def __init__(self, direction, pattern, block, depth, iops=None, cpu=None, qsd=None):
        self.direction, self.pattern, self.block, self.depth = direction, pattern, block, depth
        self.iops, self.cpu, self.qsd = iops, cpu, qsd
        size = f"{block // MIB} MiB" if block >= MIB else f"{block // 1024}k"
        self.name = f"{size} {pattern} {direction}, qd{depth}"


CASES = [
    Case("read", "random", 4096, 1),
    Case("read", "random", 4096, 32, iops=0.8, cpu=1.45, qsd=1.4),
    Case("write", "random", 4096, 1),
    Case("write", "random", 4096, 32, iops=0.8, cpu=1.45, qsd=1.4),
    Case("read", "sequential", MIB, 4, iops=0.85),
    Case("write", "sequential", MIB, 4, iops=0.85),
]


class Rounds(Row):
    """Ratios are taken round by round. least, most: of the median ratio, to meet the goal."""

    def __init__(self, what, ours, baseline, unit, least=None, most=None):
        super().__init__(what, ours, baseline, unit, limit=most)
        self.least = least

    @property
    def ratio(self):
        return statistics.median(our / base for our, base in zip(self.ours, self.baseline))

    @property
    def met(self):
        return self.ratio >= self.least if self.least is not None else super().met

    @property
    def verdict(self):
        if self.least is None:
            return super().verdict
        return f"goal >= {self.least:g}x: {'met' if self.met else 'not met'}"


class Device:
    """A block device under fio; pids: who serves it."""

    def __init__(self, name, node, pids=()):
        self.name, self.node, self.pids = name, node, pids

    def cpu_ms(self):
        return sum(map(cpu_ms, self.pids))

    def measure(self, case, ms):
        """(I/Os per second, CPU of the servers per I/O in us)"""
        options = {
            "name": "bench", "filename": self.node, "rw": ("rand" if case.pattern == "random" else "") + case.direction,
            "bs": case.block, "iodepth": case.depth, "runtime": f"{ms}ms", "time_based": 1, "ioengine": "libaio",
            "direct": 1, "offset": f"{FS_MIB}m", "size": f"{LUN_MIB - FS_MIB}m", "norandommap": 1, "randrepeat": 0,
            "allow_mounted_write": 1, "thread": 1, "gtod_reduce": 1, "output-format": "json",
        }
        before = self.cpu_ms()
        text = kernel.run("fio", *(f"--{name}={value}" for name, value in options.items())).stdout
        used = self.cpu_ms() - before
        assert used > 0 or not self.pids, "whoever served this was not measured"
        job = json.loads(text[text.index("{"):])["jobs"][0]
        assert job["error"] == 0, text
        return job[case.direction]["iops"], used * US_PER_MS / job[case.direction]["total_ios"]


class BareIscsi:
    """bare_iscsi.c"""

    name = "libiscsi"

    def __init__(self, env, target, lun):
        self.bare = env.bare("iscsi", target.portal, target.name, lun, FS_MIB * MIB)
        assert self.bare.line() == ["ready"]

    def measure(self, case, ms):
        count, elapsed, cpu = map(int, self.bare.ask(f"{case.direction} {case.pattern} {case.block} {case.depth} {ms}"))
        return count * 1e9 / elapsed, cpu * US_PER_NS / count


def fill(path):
    """Not with holes: every block is there, and is different."""
    with open(path, "wb") as file:
        for _ in range(LUN_MIB):
            file.write(os.urandom(MIB))
    return path


def loop_on(env, path):
    node = kernel.run("losetup", "--find", "--show", "--direct-io=on", path).stdout.strip()
    env.stack.callback(kernel.run, "losetup", "--detach", node)
    return node


def tmpfs(env, files):
    memory = env.directory("m")
    kernel.run("mount", "-t", "tmpfs", "-o", f"size={(files + 1) * LUN_MIB}m", "tmpfs", memory)
    env.stack.callback(kernel.run, "umount", memory)
    return memory


def this_path(env, target, lun):
    """An attached volume."""
    kernel.run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", target.luns[lun], f"{FS_MIB}m")
    document = env.agent().attach("v", target.spec(lun, fs="ext4", fmt="never"))
    processes = kernel.our_processes("mooring-lun", "mooring-lun-io")
    assert sorted(process.program for process in processes) == ["mooring-lun", "mooring-lun-io"], processes
    return Device("mooring", document["device"], [process.pid for process in processes])


def status_sum(pids, pattern):
    """Of numbers in proc_pid_status(5)."""
    texts = [pathlib.Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return sum(int(number) for text in texts for number in re.findall(pattern, text))


def idle(env, path):
    """What a volume costs that nobody uses. Others, who look at all block devices, wake its server too: the median."""
    def slept():
        return status_sum(path.pids, r"\nvoluntary_ctxt_switches:\s+(\d+)")
    time.sleep(SETTLE_S)
    counts = [slept()]
    for _ in range(env.pick(8, 24)):
        time.sleep(NOP_S)
        counts.append(slept())
    woken = [after - before for before, after in zip(counts, counts[1:])]
    env.note(f"idle: woken {sum(woken)} times while the target was pinged {len(woken)} times")
    return [Limit("idle: resident", round(status_sum(path.pids, r"VmRSS:\s+(\d+)") / 1024, 1), 0, 40, "MiB"),
            Limit("idle: wake-ups per ping of the target", statistics.median(woken), 0, 1)]


def qsd_version():
    """(major, minor, micro), or None when it is not installed."""
    if not shutil.which("qemu-storage-daemon"):
        return None
    text = kernel.run("qemu-storage-daemon", "--version").stdout
    return tuple(map(int, re.search(r"version (\d+)\.(\d+)\.(\d+)", text).groups()))


def qsd_path(env, target, lun):
    """QEMU's FUSE export of a LUN under a loop device; None when there is none that may be used."""
    version = qsd_version()
    oldest = ".".join(map(str, QSD_OLDEST))
    if not version:
        env.note(f"qemu-storage-daemon is not there (it would take part from {oldest} on)")
        return None
    if version < QSD_OLDEST:
        env.note(f"qemu-storage-daemon is too old to be trusted: {'.'.join(map(str, version))}, not {oldest}")
        return None
    file = env.base / "qsd.img"
    file.touch()
    argv = ["qemu-storage-daemon", "--blockdev", f"driver=iscsi,node-name=lun,transport=tcp,portal={target.portal},"
            f"target={target.name},lun={lun},cache.direct=on", "--export",
            f"type=fuse,id=file,node-name=lun,mountpoint={file},writable=on"]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=sys.stderr)

    def end():
        process.terminate()
        process.wait(20)
    env.stack.callback(end)
    eventually(lambda: kernel.mounts_at(file), 10, "qemu-storage-daemon serves")
    return Device("QEMU", loop_on(env, file), [process.pid])


def measure(env, paths):
    """{(case, path name): [(IOPS, CPU per I/O) of each round]}; who comes first changes from round to round."""
    found = {}
    for number in range(ROUNDS):
        for case in CASES:
            for i in range(len(paths)):
                path = paths[(i + number) % len(paths)]
                found.setdefault((case, path.name), []).append(path.measure(case, env.pick(500, 2000)))
    return found


def rows_of(case, found, others):
    ours = found[case, "mooring"]
    scale, unit = (case.block / MIB, "MiB/s") if case.block >= MIB else (1e-3, "kIOPS")
    for path in others:
        base = found[case, path.name]
        least = {"libiscsi": case.iops, "QEMU": case.qsd}.get(path.name)
        yield Rounds(f"{case.name}: over {path.name}", [iops * scale for iops, _ in ours],
                     [iops * scale for iops, _ in base], unit, least=least)
    for path in others:
        base = found[case, path.name]
        if all(cpu for _, cpu in base):
            most = case.cpu if path.name == "libiscsi" else None
            yield Rounds(f"{case.name}: CPU, {path.name}", [cpu for _, cpu in ours], [cpu for _, cpu in base], "us",
                         most=most)


def run(env):
    memory = tmpfs(env, 4)
    target = Target(memory)
    env.stack.callback(target.kill)
    # All of them before the first login: a new LUN is a unit attention to all sessions.
    luns = [target.add_lun(path=fill(memory / name)) for name in ("ours", "bare", "qsd")]
    ours = this_path(env, target, luns[0])
    others = [BareIscsi(env, target, luns[1]), qsd_path(env, target, luns[2]),
              Device("local loop", loop_on(env, fill(memory / "local")))]
    others = [path for path in others if path]
    rows = idle(env, ours)
    load = os.getloadavg()[0]
    found = measure(env, [ours, *others])
    env.note(f"{ROUNDS} rounds; load average {load:.1f} before, {os.getloadavg()[0]:.1f} after, "
             f"of {os.cpu_count()} processors")
    return rows + [row for case in CASES for row in rows_of(case, found, others)]
