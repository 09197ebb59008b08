# SPDX-License-Identifier: Apache-2.0
"""CPU time of the agent while other mounts come and go, 450 pairs a second.

The baseline is a program that reads the whole mount table again at every change. It runs in turns with the agent alone,
so that neither disturbs the other.
"""
import time

from measure import MIB, Row, children_cpu_ms, cpu_ms

PAIRS_PER_S = 450
PHASE_S = 2
SETTLE_S = 0.2


def rate(clock, pid):
    """CPU ms per second."""
    time.sleep(SETTLE_S)
    before, started = clock(pid), time.monotonic()
    time.sleep(PHASE_S)
    return (clock(pid) - before) / (time.monotonic() - started)


def agent_cpu(pid):
    return cpu_ms(pid) + children_cpu_ms(pid)


def under_churn(env, agent, what):
    ours, base, started = [], [], time.monotonic()
    churn = env.bare("churn", env.directory(f"churn {what}"), PAIRS_PER_S)
    churn.line()
    for _ in range(env.pick(3, 15)):
        ours.append(rate(agent_cpu, agent.pid))
        with env.one("reader") as reader:
            reader.line()
            base.append(rate(cpu_ms, reader.pid))
    seconds = time.monotonic() - started
    env.note(f"{what}: {int(churn.end()[0]) / seconds:.0f} mount+umount pairs per second were made")
    return Row(f"{what}: CPU per second", ours, base, limit=1)


def run(env):
    agent = env.agent()
    rows = []
    attached = 0
    for volumes, others in ((1, 0), (50, 0), (50, 1000)):
        for i in range(attached, volumes):
            path = env.image(f"{i}.img", "ext4", 16 * MIB)
            agent.attach(f"v{i}", agent.file_spec(path, fs="ext4", fmt="never"))
        attached = volumes
        what = f"{volumes} volumes" + (f", {others} other mounts" if others else "")
        mounts = env.bare("mounts", env.directory(f"mounts {what}"), others) if others else None
        if mounts:
            mounts.line()
        rows.append(under_churn(env, agent, what))
    return rows
