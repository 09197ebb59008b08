# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the agent, a worker, mooring-lun, or two of them, at every point of every step of every plan: it goes on
as it must, nothing is left, nothing is unmapped while it is held, and no data is lost.

MOORING_CRASH="iscsi detach: unmount" runs only the cases whose names match that regular expression.
"""
import collections
import multiprocessing
import os
import queue
import re
import signal
import sys
import time
import traceback

import pytest

from mooring import crash, kernel
from mooring.agent import TOP
from mooring.crash_rig import Rig, has_points, points_build

SHARDS = 3  # more than processors: half of the time something is waited for
LIMIT_S = 900
MINIMUM = 1500
FAILURES_MAX = 12  # of one group; each costs a time limit
ONLY = os.environ.get("MOORING_CRASH", "")
DRIVERS = ("file", "iscsi")


def tell(rig, case, error):
    """All that is known about a case that failed."""
    lines = [f"FAILED {crash.name_of(case)}", "".join(traceback.format_exception(error)).strip()[-3000:]]
    try:
        lines += [f"  history: {event} {detail or ''}"[:300] for event, detail in rig.events()[-25:]]
    except (AssertionError, OSError) as problem:
        lines.append(f"  no history: {problem!r}"[:300])
    try:
        facts = rig.facts()
    except OSError as problem:
        facts = repr(problem)
    log = [line for line in rig.agent.log().splitlines() if "status=200" not in line]
    return "\n".join(lines + [f"  log: {line}"[:300] for line in log[-25:]] + [f"  kernel: {facts}"])


class Group:
    """All cases of one scenario and driver, one after the other with one agent, until one fails."""

    def __init__(self, base, driver, scenario, results):
        self.base, self.driver, self.scenario, self.results = base, driver, scenario, results
        self.rig, self.number, self.failures = None, 0, 0

    def fresh_rig(self):
        self.number += 1
        self.rig = Rig(self.base / f"r{self.number}", self.driver, self.scenario.fs[self.driver])

    def drop_rig(self):
        rig, self.rig = self.rig, None
        return rig.end() if rig else {}

    def try_one(self, case):
        if not re.search(ONLY, crash.name_of(case)) or self.failures >= FAILURES_MAX:
            return
        started = time.monotonic()
        problem = None
        try:
            if not self.rig:
                self.fresh_rig()
            self.rig.mark()
            crash.run(self.rig, case)
        except Exception as error:  # told with all that is known, and the next case goes on
            problem = tell(self.rig, case, error) if self.rig else repr(error)
            self.failures += 1
            self.drop_rig()
        self.results.put((crash.name_of(case), case.victims, time.monotonic() - started, problem))

    def run(self):
        cases = list(self.scenario.cases(self.driver))
        events = []
        if self.driver in self.scenario.journal:
            self.fresh_rig()
            events = crash.rehearse(self.rig, self.scenario)
        for case in cases + list(self.scenario.journal_cases(self.driver, events)):
            self.try_one(case)
        left = self.finish()
        if left:
            self.results.put((f"{self.driver} {self.scenario.name}: end", (), 0, f"left behind: {left}"))

    def finish(self):
        if self.rig and self.rig.agent.running:
            for volume in self.rig.agent.volumes():
                self.rig.agent.detach(volume["id"])
            status = self.rig.agent.stop()
            self.rig.expect_no_fuse()
            self.rig.check_image()
            if status != 0 or self.rig.sanitizer_reports():
                return f"mooringd ended with {status}: {self.rig.sanitizer_reports()}"
        return self.drop_rig()


def shard(base, number, groups, results):
    """A process of its own: Mooring's processes are told apart by their mount namespace."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    group = None
    try:
        kernel.enter_private_namespace()
        base = base / f"s{number}"
        base.mkdir()
        # A kill loses nothing that was written, so nothing has to wait for a disk.
        kernel.run("mount", "-t", "tmpfs", "-o", "size=3g,mode=755", "crash", base)
        kernel.mount_fusectl()
        while (mine := groups.get()) is not None:
            driver, index = mine
            where = base / f"{driver[0]}{index}"
            where.mkdir()
            group = Group(where, driver, crash.SCENARIOS[index], results)
            group.run()
    except Exception as error:
        results.put((f"shard {number}", (), 0, "".join(traceback.format_exception(error))))
    finally:
        if group:
            group.drop_rig()
        results.put(None)


def collect(results, shards, deadline):
    found, ended = [], 0
    while ended < len(shards):
        try:
            result = results.get(timeout=1)
        except queue.Empty:
            if any(process.exitcode for process in shards):
                found.append(("all", (), 0, f"shards ended with {[process.exitcode for process in shards]}"))
                break
            if time.monotonic() > deadline:
                found.append(("all", (), 0, f"not over within {LIMIT_S} s"))
                break
            continue
        if result is None:
            ended += 1
        else:
            found.append(result)
    return found


def test_every_plan_survives_every_death_at_every_point(tmp, capsys):
    points_build()
    context = multiprocessing.get_context("fork")
    groups, results = context.SimpleQueue(), context.Queue()
    started = time.monotonic()
    order = [(driver, index) for driver in reversed(DRIVERS)
             for index, scenario in enumerate(crash.SCENARIOS) if driver in scenario.drivers]
    for group in order + [None] * SHARDS:
        groups.put(group)
    shards = [context.Process(target=shard, args=(tmp, n, groups, results)) for n in range(SHARDS)]
    for process in shards:
        process.start()
    try:
        found = collect(results, shards, started + LIMIT_S)
    finally:
        for process in shards:
            process.join(5)
            if process.is_alive():
                process.terminate()
                process.join(60)
    took = time.monotonic() - started
    counts, seconds = collections.Counter(), collections.Counter()
    for name, _, spent, _ in found:
        counts[name.split(":")[0]] += 1
        seconds[name.split(":")[0]] += spent
    for name, count in counts.items():
        print(f"{count:4} cases, {seconds[name]:4.0f} s: {name}")
    failures = [problem for *_, problem in found if problem]
    with capsys.disabled():
        print(f"\ncrash matrix: {len(found)} cases in {took:.0f} s, {len(failures)} failed")
    print("\n\n".join(failures))
    assert not failures, f"{len(failures)} of {len(found)} cases failed"
    assert len(found) >= (1 if ONLY else MINIMUM), "cases are missing"


@pytest.mark.parametrize("scenario", crash.SCENARIOS, ids=lambda s: s.name)
def test_the_table_has_every_step_of_the_plan(scenario):
    steps = crash.plans()[scenario.plan]
    assert set(scenario.commands) <= set(steps), "no such step"
    assert not scenario.whole or set(scenario.commands) == set(steps), "a step needs a line in mooring/crash.py"


def test_the_table_has_every_plan_and_every_command():
    assert {s.plan for s in crash.SCENARIOS} == {name for name, steps in crash.plans().items() if steps}
    tried = {case.point.split(".")[1] for scenario in crash.SCENARIOS for driver in scenario.drivers
             for case in scenario.cases(driver) if case.point.startswith("worker.")}
    assert tried == set(crash.worker_commands())


def test_nothing_that_is_installed_has_fault_points():
    release = TOP / "build/release"
    programs = [release / "sbin/mooringd", *(release / "libexec/mooring").iterdir()]
    assert len(programs) >= 4, "tests/run builds the preset release"
    assert [p for p in programs if has_points(p)] == []
    assert has_points(points_build() / "libexec/mooring/mooring-worker"), "what is looked for is not there at all"
