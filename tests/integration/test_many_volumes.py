# SPDX-License-Identifier: Apache-2.0
"""A thousand attached volumes: what a restart costs, in time, CPU and memory, and what the agent does when nobody
asks for anything. MOORING_VOLUMES is the number. The goals are printed; the bounds are generous, machines differ."""
import concurrent.futures
import os
import time

import pytest

from mooring import kernel
from mooring.usage import cpu_s, idle_wake_ups, loop_devices, memory_kib, remove_loop_devices
from mooring.wait import eventually

VOLUMES = int(os.environ.get("MOORING_VOLUMES", "1000"))
AT_ONCE = 8
IDLE_S = 2.0
GOAL_CPU_S, GOAL_RSS_KIB = 2.0, 32 << 10
BOUND_CPU_S, BOUND_RSS_KIB, BOUND_READY_S = 2 * GOAL_CPU_S, 2 * GOAL_RSS_KIB, 10.0


@pytest.fixture
def devices():
    """The loop devices that the kernel had to add are taken away again."""
    before = loop_devices()
    yield
    remove_loop_devices(loop_devices() - before)


@pytest.fixture
def images(tmp):
    """The smallest that mkfs makes."""
    root = tmp / "a0" / "images"
    root.mkdir(parents=True)
    first = root / "v0.img"
    with open(first, "wb") as file:
        file.truncate(128 << 10)
    kernel.run("mkfs.ext4", "-q", "-b", "1024", "-O", "^has_journal", first)
    content = first.read_bytes()
    paths = [root / f"v{i}.img" for i in range(VOLUMES)]
    for path in paths:
        path.write_bytes(content)
    return paths


def for_all(step, items):
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(step, items))


def restart(a, how):
    """(seconds to /readyz 200, what /readyz said until then)"""
    getattr(a, how)()
    started, said = time.monotonic(), []
    a.spawn()

    def ready():
        answer = a.request("GET", "/readyz", timeout=5)
        if answer.status == 503:
            said.append(answer.json)
        return answer.status == 200

    eventually(lambda: a.running and a.socket.exists() and ready(), 60, "ready", interval=0.002)
    return time.monotonic() - started, said


def check_progress(said):
    """It answers while it looks, and says how far it is."""
    assert said, "there was no answer before it was ready"
    progress = [problem["progress"] for problem in said]
    assert all(p["total"] == VOLUMES for p in progress), progress
    done = [p["done"] for p in progress]
    assert done == sorted(done) and done[-1] <= VOLUMES, done
    return done


def check_volumes(a, documents):
    """All of them, as they were: a list in pages."""
    found, token = {}, ""
    while token is not None:
        page = a.request("GET", "/volumes?limit=200" + (f"&page_token={token}" if token else "")).expect(200).json
        found.update((item["id"], item) for item in page["items"])
        token = page["next_page_token"]
    for volume, document in documents.items():
        now = found.pop(volume)
        assert (now["state"], now["identity"], now["device"]) == (
            "attached", document["identity"], document["device"]), now
    assert found == {}


@pytest.fixture
def attached(devices, images, agent):
    """(agent, {volume: document})"""
    a, documents = agent(), {}

    def attach(path):
        documents[path.stem] = a.attach(path.stem, a.file_spec(path, fs="ext4", fmt="never"))

    started = time.monotonic()
    for_all(attach, images)
    print(f"{VOLUMES} volumes attached in {time.monotonic() - started:.1f} s, KiB {memory_kib(a.pid)}")
    yield a, documents
    started = time.monotonic()
    for_all(a.detach, documents)
    print(f"detached in {time.monotonic() - started:.1f} s, KiB {memory_kib(a.pid)}")
    assert a.volumes() == []


def test_restart_with_many_volumes(attached):
    a, documents = attached
    for how in ("stop", "kill9"):
        seconds, said = restart(a, how)
        eventually(lambda: kernel.our_processes("mooring-worker") == [], 30, "nobody looks any more")
        cpu, (rss, most) = cpu_s(a.pid), memory_kib(a.pid)
        done = check_progress(said)
        print(f"{how}: ready after {seconds:.2f} s, {cpu:.2f} s of CPU (goal {GOAL_CPU_S}); {rss} KiB resident, most "
              f"{most} (goal {GOAL_RSS_KIB}); progress {done[0]} ... {done[-1]} in {len(done)} answers")
        check_volumes(a, documents)
        assert seconds < BOUND_READY_S
        if "asan" not in str(a.binary) and "tsan" not in str(a.binary):
            assert cpu < BOUND_CPU_S and most < BOUND_RSS_KIB
    assert idle_wake_ups(a.pid, IDLE_S) == 0
