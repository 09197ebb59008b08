# SPDX-License-Identifier: Apache-2.0
"""`mooringd --selftest`: it finds that the promise holds, it would find that it does not, and it leaves nothing."""
import ctypes
import os
import pathlib
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest

from mooring import kernel
from mooring.agent import build_dir
from mooring.wait import eventually
from test_holders import DRAIN, INNOCENT, UNMOUNT

LYING_WORKER = pathlib.Path(__file__).parent / "mooring/lying_worker.py"
LIMIT_S = 90
# In place of the program that the holders are started from: these two fail, each in its way.
BROKEN_HOLDERS = """#!/bin/sh
case "$2" in
cwd) kill -SEGV $$ ;;
root) exec cat ;;
esac
exec {real} "$@"
"""
# Runs $1 as if it were still the program at its path, which is now $2.
IN_DISGUISE = 'exec 9<"$1" && mount --bind "$2" "$1" && shift 2 && exec /proc/self/fd/9 "$@"'
# Runs $2... where the program $1 cannot be run.
WITHOUT = 'mount --bind /dev/null "$1" && shift && exec "$@"'


@pytest.fixture
def selftest(tmp):
    """Starts it in a directory of its own, where the clean-up check looks."""
    scratch = tmp / "t"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch)}
    started = []

    def start(*argv, **more):
        started.append(subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True, env=environment, **more))
        return started[-1]

    start.scratch = scratch
    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait(10)
    assert list(scratch.iterdir()) == [], "left behind"


def finish(process):
    out, _ = process.communicate(timeout=LIMIT_S)
    print(out)
    return process.returncode, out


def row_of(out, what):
    """{held, named, seen, noticed} of the line about this holder; columns are two blanks apart."""
    line = next((line for line in out.splitlines() if line.startswith(f"  {what}  ")), None)
    assert line, f"there is no line about {what!r}"
    return re.split(r"\s{2,}", line[2 + len(what):].strip())


@pytest.fixture(scope="session")
def phrases(holder_binary):
    """{kind: what the table calls it}"""
    listed = subprocess.run([str(holder_binary), "list"], capture_output=True, text=True, timeout=20, check=True)
    return {line.split("\t")[0]: line.split("\t")[2] for line in listed.stdout.splitlines()}


def test_the_promise_holds(selftest, phrases):
    started = time.monotonic()
    status, out = finish(selftest(build_dir() / "sbin/mooringd", "--selftest"))
    assert status == 0
    for step, table in (("drain", DRAIN), ("unmount", UNMOUNT)):
        for name, (kinds, owned) in table.items():
            held, named, seen, noticed = row_of(out, phrases[name.replace("_", "-")])
            assert (held, seen) == ("yes", step), name
            known = kinds.replace("unowned", "held,").replace(" ", "|")
            assert re.match(rf"({known})(?![-\w])", named), (name, named)
            assert not owned or re.search(r", pid \d+\??$", named), (name, named)
            assert re.fullmatch(r"\d+ ms", noticed) and int(noticed.split()[0]) < 5000, (name, noticed)
    assert row_of(out, phrases["socket-cycle"])[:2] == ["yes", "held, but not named"]
    for name in INNOCENT:
        assert row_of(out, phrases[name.replace("_", "-")])[0] == "-", name
    assert "The promise holds on this kernel" in out
    passed = int(re.search(r"^(\d+) passed, 0 failed, 0 skipped$", out, re.M).group(1))
    assert passed > len(phrases)  # the ones on xfs, and the comparisons
    held, named = map(int, re.search(r"^(\d+) held, (\d+) of them named$", out, re.M).groups())
    assert held == passed - len(INNOCENT) - 2  # nobody, on either file system
    assert named == held - out.count("  held, but not named  ")
    assert time.monotonic() - started < 60


def test_it_can_fail(selftest, tmp, holder_binary, phrases):
    """With a worker that takes "busy" for success it must say so, and clean up what was left mapped."""
    libexec = tmp / "liar"
    libexec.mkdir()
    program = shutil.copy(holder_binary, libexec / "mooring-selftest")
    liar = libexec / "mooring-worker"
    liar.write_text(f'#!/bin/sh\nexec {sys.executable} -I {LYING_WORKER} {holder_binary.parent}/mooring-worker "$@"\n')
    liar.chmod(0o755)
    kinds = ("mount-copy", "frozen", "open-file", "raw-fd")
    status, out = finish(selftest(program, "run", *kinds))
    assert status == 1
    for kind in kinds:
        held, why = row_of(out, phrases[kind])[:2]
        assert held == "NO" and "said to be released while it was held" in why, (kind, held, why)
    assert "THE PROMISE DOES NOT HOLD" in out and "promise holds" not in out
    assert re.search(r"^\d+ passed, \d+ failed, 0 skipped$", out, re.M)
    shutil.rmtree(libexec)


def test_a_holder_that_fails_is_not_skipped(selftest, tmp, holder_binary, phrases):
    """Only what says that it cannot be built here is; one that crashes or keeps silent proves nothing."""
    libexec = tmp / "broken"
    shutil.copytree(holder_binary.parent, libexec)
    program = libexec / "mooring-selftest"
    real = program.rename(libexec / "real")
    shutil.copy(real, program)
    broken = tmp / "broken.sh"
    broken.write_text(BROKEN_HOLDERS.format(real=real))
    broken.chmod(0o755)
    status, out = finish(selftest("unshare", "--mount", "sh", "-c", IN_DISGUISE, "sh", program, broken,
                                  "run", "cwd", "root", "open-file"))
    assert status == 1
    assert row_of(out, phrases["cwd"])[1] == "FAILED: the holder ended before it held"
    assert row_of(out, phrases["root"])[1] == "FAILED: the holder is not ready after 10 s"
    assert row_of(out, phrases["open-file"])[0] == "yes"
    assert "THE PROMISE IS NOT PROVEN" in out and "promise holds" not in out
    assert re.search(r"^2 passed, 2 failed, 0 skipped$", out, re.M)


def test_without_a_holder_nothing_is_proven(selftest, holder_binary, phrases):
    odd = selftest.scratch / "x,y:z"  # no overlay takes such a path
    odd.mkdir()
    status, out = finish(selftest("env", f"TMPDIR={odd}", holder_binary, "run", "overlay"))
    odd.rmdir()
    assert status == 71
    assert row_of(out, phrases["overlay"])[1].startswith("skipped: ")
    assert "NOTHING WAS TESTED" in out and "promise holds" not in out
    assert "0 held, 0 of them named" in out and "0 failed, 1 skipped" in out
    status, out = finish(selftest(holder_binary, "run", *(name.replace("_", "-") for name in INNOCENT)))
    assert status == 71 and "NOTHING WAS TESTED" in out


def test_xfs_is_not_left_out_without_a_word(selftest, holder_binary):
    mkfs = shutil.which("mkfs.xfs", path="/usr/sbin:/sbin:/usr/local/sbin")
    run = holder_binary, "run", "mount-copy"
    status, out = finish(selftest("unshare", "--mount", "sh", "-c", WITHOUT, "sh", mkfs, *run))
    assert status == 0 and "skipped: there is no mkfs.xfs" in out
    assert "2 passed, 0 failed, 1 skipped" in out
    # Room for the image of ext4 only. Python ignores SIGXFSZ, and leaves it so.
    limit = (100 << 20, resource.RLIM_INFINITY)
    status, out = finish(selftest(*run, restore_signals=False,
                                  preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)))
    assert status == 0 and re.search(r"skipped: create '.*/xfs-2.img'", out)
    assert "2 passed, 0 failed, 1 skipped" in out


def test_a_stranger_is_not_taken_for_the_holder(selftest, holder_binary, phrases):
    """The first look does not see that a file system is frozen, and says who else might hold it: here we."""
    stranger = ctypes.CDLL(None).fsopen(b"tmpfs", 1)
    assert stranger >= 0
    try:
        status, out = finish(selftest(holder_binary, "run", "frozen"))
    finally:
        os.close(stranger)
    assert status == 0
    rows = [line for line in out.splitlines() if line.startswith(f"  {phrases['frozen']}  ")]
    assert len(rows) == 2 and all(re.search("  yes   frozen  ", row) for row in rows), rows
    assert "2 held, 2 of them named" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_can_be_interrupted(selftest, phrases, number):
    """At any time: here when the first holders were let go, and the next one is being built or held."""
    process = selftest(build_dir() / "sbin/mooringd", "--selftest")
    deadline = time.monotonic() + 30
    for line in process.stdout:
        if phrases["mount-copy"] in line or time.monotonic() > deadline:
            break
    select.select([], [], [], 0.15)
    process.send_signal(number)
    status, out = finish(process)
    assert status == 128 + number
    assert "interrupted; nothing was left behind" in out and " passed, " not in out
    assert kernel.mounts_below(selftest.scratch) == []


def test_what_it_cannot_take_away_is_said(selftest, tmp, holder_binary):
    """While we have its device open, the kernel keeps it."""
    process = selftest(holder_binary, "run", "open-file")

    def opened():
        for node in kernel.bound_loops():
            if not (kernel.loop_bound(node) or "").startswith(f"{tmp}/"):
                continue
            fd = os.open(node, os.O_RDONLY)
            if (kernel.loop_bound(node) or "").startswith(f"{tmp}/"):
                return node, fd
            os.close(fd)
        return None
    node, fd = eventually(opened, 10, "the volume is mapped", interval=0.002)
    try:
        process.send_signal(signal.SIGINT)
        status, out = finish(process)
    finally:
        os.close(fd)
    assert status == 128 + signal.SIGINT
    assert re.search(rf"^left behind.*: {node}, bound to {tmp}/", out, re.M), out
    assert "nothing was left behind" not in out


def test_what_is_missing_is_said(selftest):
    mooringd = build_dir() / "sbin/mooringd"
    status, out = finish(selftest(mooringd, "--selftest", user=65534, group=65534, extra_groups=[]))
    assert status == 71 and "root" in out
    status, out = finish(selftest("unshare", "--pid", "--fork", "--mount-proc", mooringd, "--selftest"))
    assert status == 71 and "child PID namespace" in out
    status, out = finish(selftest("unshare", "--user", "--map-root-user", mooringd, "--selftest"))
    assert status == 71 and "user namespace" in out


def test_no_such_holder(selftest, holder_binary):
    status, out = finish(selftest(holder_binary, "run", "nobody"))
    assert status == 64 and "nobody" in out
    status, out = finish(selftest(holder_binary))
    assert status == 64 and "Usage" in out
    assert "list" in out  # which names them
    status, out = finish(selftest(holder_binary, "hold", "foo", "/mnt", "/dev/null", "/tmp"))
    assert status == 64 and "there is no holder 'foo'" in out and "`mooring-selftest list`" in out
    for name in ("foo", "frozen"):
        status, out = finish(selftest(holder_binary, "hold", name))
        assert status == 64 and "Usage" in out and ("no holder" in out) is (name == "foo")


@pytest.mark.parametrize("kind, number", [("frozen", signal.SIGTERM), ("swap-file", signal.SIGINT),
                                          ("uprobe", signal.SIGHUP), ("bind", signal.SIGTERM),
                                          ("exe", signal.SIGINT), ("thread-copy", signal.SIGHUP)])
def test_a_holder_lets_go_when_it_is_asked_to_end(agent, image, hold, kind, number):
    """What is not undone by the end of its process, too."""
    a = agent()
    doc = a.attach("v", a.file_spec(image(), fs="ext4"))
    holder = hold.start(kind, doc)
    holder.process.send_signal(number)
    assert holder.process.wait(10) == 128 + number
    assert not [m for m in kernel.mounts_below(hold.base) if m.point != doc["mount_path"] and "hold-" in m.point]
    assert "/swap-file" not in pathlib.Path("/proc/swaps").read_text()
    a.detach("v")
