# SPDX-License-Identifier: Apache-2.0
"""`mooringd --selftest`: it finds that the promise holds, it would find that it does not, and it leaves nothing."""
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest

from mooring import kernel
from mooring.agent import build_dir
from test_holders import DRAIN, INNOCENT, UNMOUNT

LYING_WORKER = pathlib.Path(__file__).parent / "mooring/lying_worker.py"
LIMIT_S = 90


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
    assert row_of(out, phrases["socket-cycle"])[0] == "yes"
    for name in INNOCENT:
        assert row_of(out, phrases[name.replace("_", "-")])[0] == "-", name
    assert "The promise holds on this kernel" in out
    passed = int(re.search(r"^(\d+) passed, 0 failed, 0 skipped$", out, re.M).group(1))
    assert passed > len(phrases)  # the ones on xfs, and the comparisons
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
    assert "interrupted" in out and " passed, " not in out
    assert kernel.mounts_below(selftest.scratch) == []


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
