# SPDX-License-Identifier: Apache-2.0
"""One file volume up and down, over HTTP and by the bare system calls of one running process."""
from measure import MIB, NS_PER_MS, Row, children_cpu_ms, cpu_ms


def one(env, agent, fs, size):
    image = env.image(f"{fs}.img", fs, size)
    spec = agent.file_spec(image, fs=fs, fmt="never")
    bare = env.bare("volume", fs, image, env.directory(f"bare-{fs}"))
    ours, base, cpu = [], [], {"agent": 0, "workers": 0, "baseline": 0}
    for _ in range(env.pick(40, 200)):
        before = cpu_ms(agent.pid), children_cpu_ms(agent.pid)
        up = agent.put("v", spec).expect(200, 201).ms
        ours.append((up, agent.delete("v").expect(200).ms))
        cpu["agent"] += cpu_ms(agent.pid) - before[0]
        cpu["workers"] += children_cpu_ms(agent.pid) - before[1]
        before = cpu_ms(bare.pid)
        base.append((int(bare.ask("attach")[1]) / NS_PER_MS, int(bare.ask("detach")[0]) / NS_PER_MS))
        cpu["baseline"] += cpu_ms(bare.pid) - before
    env.note(f"{fs}: CPU per cycle: " + ", ".join(f"{who} {ms / len(ours):.1f} ms" for who, ms in cpu.items()))
    return [
        Row(f"{fs}: attach", [up for up, _ in ours], [up for up, _ in base]),
        Row(f"{fs}: detach", [down for _, down in ours], [down for _, down in base]),
        Row(f"{fs}: both", [sum(pair) for pair in ours], [sum(pair) for pair in base], limit=1.3),
    ]


def run(env):
    agent = env.agent()
    return one(env, agent, "xfs", 320 * MIB) + one(env, agent, "ext4", 64 * MIB)
