# SPDX-License-Identifier: Apache-2.0
"""Wake-ups of an agent with 50 volumes when nobody asks anything: context switches of all its threads and children.

The kernel's uevents wake the agent, rightly, and other users of the machine cause them. A listener beside it counts
them: only seconds without any say something about the agent.
"""
import pathlib
import re
import time

from measure import MIB, Limit
from mooring import kernel

VOLUMES = 50
WINDOW_S = 1
SETTLE_S = 3


def switches():
    """{thread: context switches} of all our processes."""
    found = {}
    for process in kernel.our_processes():
        for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
            counts = re.findall(r"ctxt_switches:\s+(\d+)", (task / "status").read_text())
            found[process.program, task.name] = sum(map(int, counts))
    return found


def window(listener):
    """(uevents seen, context switches) of a while."""
    events, before = int(listener.ask("count")[0]), switches()
    time.sleep(WINDOW_S)
    after = switches()
    woken = sum(count - before.get(thread, 0) for thread, count in after.items())
    return int(listener.ask("count")[0]) - events, woken


def run(env):
    agent = env.agent()
    for i in range(VOLUMES):
        path = env.image(f"{i}.img", "ext4", 16 * MIB)
        agent.attach(f"v{i}", agent.file_spec(path, fs="ext4", fmt="never"))
    time.sleep(SETTLE_S)
    before = switches()
    agent.get("v0").expect(200)
    assert switches() != before, "a request is not seen as a wake-up"
    time.sleep(SETTLE_S)
    listener = env.bare("events")
    windows, quiet = [], []
    while len(quiet) < env.pick(20, 100) and len(windows) < env.pick(30, 200):
        windows.append(window(listener))
        if windows[-1][0] == 0:
            quiet.append(windows[-1][1])
    events, woken = (sum(column) for column in zip(*windows))
    env.note(f"{len(quiet)} of {len(windows)} seconds were without uevents; in all of them the agent woke {woken} times, "
             f"a listener to uevents {events} times")
    # On a machine that is never quiet nothing can be said.
    return [Limit("wake-ups per minute", sum(quiet) * 60 / len(quiet), 0, 0)] if quiet else []
