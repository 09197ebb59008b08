# SPDX-License-Identifier: Apache-2.0
"""A hundred detaches at once, against the same one after the other, and against bare threads."""
import concurrent.futures
import time

from measure import MIB, NS_PER_MS, Row

COUNT = 100


def by_mooring(agent, specs, pool, together):
    """ms for all detaches."""
    list(pool.map(lambda spec: agent.attach(*spec), specs))
    started = time.monotonic()
    how = pool.map if together else map
    list(how(lambda spec: agent.delete(spec[0]).expect(200), specs))
    return (time.monotonic() - started) * 1000


def run(env):
    agent = env.agent()
    images = env.directory("bare")
    for i in range(COUNT):
        (images / str(i)).mkdir()
        (images / f"{i}.img").symlink_to(env.image(f"{i}.img", "ext4", 16 * MIB))
    specs = [(f"v{i}", agent.file_spec(agent.file_root / f"{i}.img", fs="ext4", fmt="never")) for i in range(COUNT)]
    bare = env.bare("at-once", "ext4", images, COUNT)
    seen = {(who, how): [] for who in ("mooring", "bare") for how in ("together", "one-by-one")}
    with concurrent.futures.ThreadPoolExecutor(COUNT) as pool:
        for _ in range(env.pick(3, 10)):
            for how in ("together", "one-by-one"):
                seen["mooring", how].append(by_mooring(agent, specs, pool, how == "together"))
                seen["bare", how].append(int(bare.ask(how)[0]) / NS_PER_MS)
    return [
        Row(f"{COUNT} detaches: at once over one by one", seen["mooring", "together"], seen["mooring", "one-by-one"],
            limit=1),
        Row("the same, bare", seen["bare", "together"], seen["bare", "one-by-one"]),
        Row(f"{COUNT} detaches at once: Mooring over bare", seen["mooring", "together"], seen["bare", "together"]),
        Row(f"{COUNT} one by one: Mooring over bare", seen["mooring", "one-by-one"], seen["bare", "one-by-one"]),
    ]
