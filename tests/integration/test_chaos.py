# SPDX-License-Identifier: Apache-2.0
"""Hundreds of detaches at once, with random holders that come and go before, during and after the request.

MOORING_CHAOS_SEED repeats a run as far as time allows; MOORING_CHAOS_DETACHES makes it longer. Beside it: udevd,
which opens each device at each event, mount namespaces that come and go, and kill -9 of the agent. An early unmap is
looked for by mooring.observer, which knows when each holder holds and asks sysfs only.
"""
import os
import random
import threading
import time

import pytest

from mooring import kernel
from mooring.chaos import Chaos, Source, VolumeRun
from mooring.holders import Holders
from mooring.holders import kinds as holder_kinds
from mooring.kernel import run
from mooring.udev import change
from mooring.wait import eventually
from test_holders import UNSEEN_BY_CLAIM

SEED = os.environ.get("MOORING_CHAOS_SEED") or str(random.randrange(1 << 30))
DETACHES = int(os.environ.get("MOORING_CHAOS_DETACHES", "1000"))
LIMIT_S = 120 + DETACHES * 0.6
FILES = {"x0": "xfs", "x1": "xfs", "e0": "ext4", "e1": "ext4", "e2": "ext4"}
LUNS = {"t0": "xfs", "t1": "ext4"}
LEFT_OUT = ("covering-mount",)  # nobody could read the files of a volume that was taken back


class Weather(threading.Thread):
    """What happens beside the volumes: namespaces, events, and the death of the agent."""

    def __init__(self, chaos):
        super().__init__(daemon=True)
        self.chaos = chaos
        self.random = random.Random(f"{chaos.seed} weather")
        self.over = threading.Event()

    def run(self):
        next_kill = time.monotonic() + 3
        while not self.over.wait(self.random.uniform(0.01, 0.1)):
            try:
                run("unshare", "--mount", "sleep", f"{self.random.uniform(0, 0.05):.3f}")
                self.chaos.count("namespaces")
                change(self.random.choice(list(self.chaos.nodes.values())))
                self.chaos.count("change events")
                if time.monotonic() > next_kill:
                    self.kill()
                    next_kill = time.monotonic() + self.random.uniform(3, 10)
            except OSError:
                continue  # no such device at the moment
            except Exception as error:  # a thread has nobody else to tell
                self.chaos.problems.append(f"weather: {error!r}")
                return

    def kill(self):
        self.chaos.agent.kill9()
        self.chaos.start_agent()
        self.chaos.count("kill -9")


@pytest.fixture
def sources(tmp, targets):
    """{name: Source}"""
    root = tmp / "a0" / "images"
    root.mkdir(parents=True)
    target = targets()
    return {**{name: Source.of_file(root, name, fs) for name, fs in FILES.items()},
            **{name: Source.of_lun(target, fs) for name, fs in LUNS.items()}}


def held_by(binary):
    """{kind of holder: does an exclusive open see it?}"""
    return {kind: kind.replace("-", "_") not in UNSEEN_BY_CLAIM for kind, effect in holder_kinds(binary).items()
            if effect in ("drain", "unmount") and kind not in LEFT_OUT}


def test_chaos(udevd, observer, sources, agent, holder_binary, tmp):
    print(f"MOORING_CHAOS_SEED={SEED} MOORING_CHAOS_DETACHES={DETACHES}")
    a = agent()
    chaos = Chaos(a, observer, SEED, DETACHES, held_by(holder_binary))
    runs = []
    for name, source in sources.items():
        # With the first mkfs: a killed one is another test's matter.
        chaos.nodes[name] = a.attach(name, source.spec)["device"]
        base = tmp / f"holders-{name}"
        base.mkdir()
        runs.append(VolumeRun(chaos, name, source.spec, Holders(holder_binary, base)))
    weather = Weather(chaos)
    started = time.monotonic()
    weather.start()
    threads = [one.thread(one.run) for one in runs]
    for thread in threads:
        thread.join(max(0.1, started + LIMIT_S - time.monotonic()))
    stuck = [(one.volume, one.story) for one, thread in zip(runs, threads) if thread.is_alive()]
    weather.over.set()
    weather.join(30)
    took = time.monotonic() - started
    for one in runs:
        one.holders.release_all()

    release = sorted(chaos.release_ms) or [0]
    print(f"{took:.0f} s, {observer.looks} looks; {dict(sorted(chaos.counts.items()))}\n"
          f"last release -> end, ms: median {release[len(release) // 2]:.0f}, "
          f"p99 {release[len(release) * 99 // 100]:.0f}, max {release[-1]:.0f}")
    for line in observer.early + chaos.problems + stuck:
        print(line)
    assert (observer.early, chaos.problems, stuck) == ([], [], []), f"seed {SEED}"
    assert chaos.counts["detached"] == DETACHES
    missing = [what for what in (*chaos.kinds, "cancelled", "kill -9") if not chaos.counts[what]]
    assert not missing or DETACHES < 500, f"chance left out {missing}"

    for volume in a.volumes():
        a.detach(volume["id"])
    assert a.stop() == 0
    eventually(lambda: kernel.our_processes() == [], 10, "all processes have ended")
    for source in sources.values():
        source.check()
