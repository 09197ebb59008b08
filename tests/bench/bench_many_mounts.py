# SPDX-License-Identifier: Apache-2.0
"""One volume up and down, by an agent among 10 other mounts and by one among 10,000.

Each has a mount namespace of its own, so that they can take turns. The baseline of each line is the same with 10
mounts. Whatever the table's size costs the kernel is in the bare system calls and the bare umount(2), too.
"""
from measure import MIB, NS_PER_MS, Row

FEW, MANY = 10, 10000
NAMES = ("attach", "detach", "bare attach", "bare detach", "bare umount(2)")


class Side:
    def __init__(self, env, mounts):
        name = f"m{mounts}"
        space = env.space(f"{name}-mounts", mounts)
        image = env.image("ext4.img", "ext4", 64 * MIB, agent=name)
        self.agent = env.agent(name, space)
        self.spec = self.agent.file_spec(image, fs="ext4", fmt="never")
        self.bare = env.bare("volume", "ext4", image, env.directory(f"{name}-bare"), prefix=space)
        self.seen = {what: [] for what in NAMES}

    def cycle(self):
        up, down = self.agent.put("v", self.spec).expect(200, 201).ms, self.agent.delete("v").expect(200).ms
        bare_up = int(self.bare.ask("attach")[1])
        bare_down, umount = map(int, self.bare.ask("detach"))
        for name, ms in zip(NAMES, (up, down, bare_up / NS_PER_MS, bare_down / NS_PER_MS, umount / NS_PER_MS)):
            self.seen[name].append(ms)


def run(env):
    few, many = Side(env, FEW), Side(env, MANY)
    for turn in range(env.pick(100, 500)):
        for side in (few, many) if turn % 2 == 0 else (many, few):
            side.cycle()
    limits = {"attach": 1.3, "detach": 1.3}
    return [Row(f"{name}: {MANY} mounts over {FEW}", many.seen[name], few.seen[name], limit=limits.get(name))
            for name in NAMES]
