# SPDX-License-Identifier: Apache-2.0
"""GET holders with 500 processes on the node, against reading /proc/PID/stat of all of them once."""
from measure import MIB, NS_PER_MS, Row

PROCESSES = 500


def run(env):
    agent = env.agent()
    path = env.image("ext4.img", "ext4", 16 * MIB)
    agent.attach("v", agent.file_spec(path, fs="ext4", fmt="never"))
    sleepers = env.bare("sleepers", PROCESSES)
    sleepers.line()
    reader = env.bare("stats")
    ours, base, count, complete = [], [], 0, 0
    for _ in range(env.pick(20, 100)):
        answer = agent.request("GET", "/volumes/v/holders", timeout=30).expect(200)
        complete += answer.json["complete"]
        ours.append(answer.ms)
        ns, count = map(int, reader.ask("look"))
        base.append(ns / NS_PER_MS)
    env.note(f"{count} processes; {complete} of {len(ours)} scans were complete")
    return [Row("GET holders over reading all /proc/PID/stat", ours, base)]
