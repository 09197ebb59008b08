# SPDX-License-Identifier: Apache-2.0
"""Hundreds of kill -9 of agent, workers and LUN servers, at random moments of a mixed load: whatever dies, all volumes
come to rest, nothing is left behind, nothing that was written is lost, and no held device is unmapped.

MOORING_KILL_SEED repeats a run as far as time allows; MOORING_KILLS makes it longer.
"""
import os
import random
import sys
import time
import traceback

import pytest

from mooring import kernel, leaks
from mooring.chaos import Source
from mooring.holders import Holders
from mooring.soak import KillRun, Reaper, Soak
from mooring.truth import stuck_processes
from mooring.wait import eventually
from test_chaos import held_by

SEED = os.environ.get("MOORING_KILL_SEED") or str(random.randrange(1 << 30))
KILLS = int(os.environ.get("MOORING_KILLS", "300"))
BUNCH = 4  # kills in one round
LIMIT_S = 60 + KILLS * 1.0
ROUND_S = 60
FILES = {"x0": "xfs", "e0": "ext4", "e1": "ext4", "e2": "ext4"}
LUNS = {"t0": "ext4", "t1": "ext4", "t2": "xfs", "t3": "ext4"}


@pytest.fixture
def soak(observer, agent, targets, tmp, holder_binary, monkeypatch):
    """A Soak, and its KillRuns: all volumes are attached."""
    # LeakSanitizer's tracer is a process that looks like a worker; when it is killed, its tracee spins for ever.
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0")
    a = agent()
    sources, lun_targets = {}, {}
    for name, fs in FILES.items():
        sources[name] = Source.of_file(a.file_root, name, fs)
    for number, (name, fs) in enumerate(LUNS.items()):
        lun_targets[name] = targets()
        for _ in range(number):
            lun_targets[name].add_lun(1 << 20)  # tgtd makes the WWN of the LUN's number
        sources[name] = Source.of_lun(lun_targets[name], fs)
    soak = Soak(a, observer, SEED, held_by(holder_binary), lun_targets, KILLS)
    soak.runs = []
    for name, source in sources.items():
        # With the first mkfs: a killed one is another test's matter.
        document = a.attach(name, source.spec)
        soak.nodes[name] = document["device"]
        base = tmp / f"holders-{name}"
        base.mkdir()
        soak.runs.append(KillRun(soak, name, source, Holders(holder_binary, base)))
        soak.runs[-1].attached(document, 0)
    yield soak
    for one in soak.runs:
        one.holders.release_all()


def where(thread):
    frame = sys._current_frames().get(thread.ident)
    return traceback.format_stack(frame, limit=-6) if frame else []


def one_round(soak, number):
    """Load and kills together, then the load alone until it ends, then nothing."""
    threads = [one.thread(one.guarded) for one in soak.runs]
    reaper = Reaper(soak, number, min(BUNCH, KILLS - soak.killed))
    reaper.start()
    deadline = time.monotonic() + ROUND_S
    for thread in [*threads, reaper]:
        thread.join(max(0.1, deadline - time.monotonic()))
    hung = [(thread.name, where(thread)) for thread in [*threads, reaper] if thread.is_alive()]
    assert not hung, f"round {number}: {hung}; {[(one.volume, one.story) for one in soak.runs]}"
    states = {one.volume: one.calm() for one in soak.runs}
    assert soak.problems == [], f"round {number}"
    check_kernel(soak, states, number)


def check_kernel(soak, states, number):
    """Nothing but what the API shows, and nothing that hangs."""
    attached = [one for one in soak.runs if states[one.volume] == "attached"]
    unclear = [volume for volume, state in states.items() if state == "failed"]

    def only_those():
        devices = {soak.agent.get(one.volume).expect(200).json["device"] for one in attached}
        more = set(leaks.loops_of(soak.agent.base.parent)) - devices
        mounted = {m.point for m in kernel.mounts_below(soak.agent.mount_root)}
        mounted -= {one.document["mount_path"] for one in attached}
        servers = len(kernel.our_processes("mooring-lun")) - sum(one.volume in soak.targets for one in attached)
        assert len(more) <= len(unclear) and len(mounted) <= len(unclear) and servers <= len(unclear), \
            f"round {number}: {states}; more than that: {more}, {mounted}, {servers} LUN servers"
        assert soak.agent.orphans() == [], f"round {number}"
        return True

    eventually(only_those, 5, "the kernel has what the API shows")
    assert not (stuck := stuck_processes()), f"round {number}: in D {stuck}"


def test_kill_soak(soak, observer):
    print(f"MOORING_KILL_SEED={SEED} MOORING_KILLS={KILLS}")
    started, number = time.monotonic(), 0
    try:
        while soak.killed < KILLS:
            assert time.monotonic() - started < LIMIT_S, f"seed {SEED}: too slow, {soak.killed} kills"
            one_round(soak, number)
            assert observer.early == [], f"seed {SEED} round {number}"
            number += 1
    finally:
        took = time.monotonic() - started
        release = sorted(soak.release_ms) or [0]
        print(f"seed {SEED}: {took:.0f} s, {number} rounds, {soak.killed} kills, {observer.looks} looks; "
              f"{dict(sorted(soak.counts.items()))}\nlast release -> end, ms: "
              f"median {release[len(release) // 2]:.0f}, p99 {release[len(release) * 99 // 100]:.0f}")
        for line in observer.early + soak.problems:
            print(line)

    a = soak.agent
    for one in soak.runs:
        one.check_data(one.attach())
        a.detach(one.volume)
    assert a.orphans() == [] and a.stop() == 0
    eventually(lambda: kernel.our_processes() == [], 10, "all processes have ended")
    for one in soak.runs:
        one.source.check()
