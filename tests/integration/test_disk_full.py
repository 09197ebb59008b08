# SPDX-License-Identifier: Apache-2.0
"""The disk of the journal runs full: what cannot be written is refused, what runs goes on, and when there is space
again everything recovers by itself."""
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mooring.kernel import still_mapped
from mooring.state_dir import SmallState
from mooring.truth import assert_true, bound_images, bound_to
from mooring.wait import eventually

MIB = 1 << 20
RECOVER_S = 12  # it is tried again after 1, 2, 4, 8, 10, 10 ... s


@pytest.fixture
def mounted(tmp, request):
    one = SmallState(tmp / "a0" / "state", getattr(request, "param", "tmpfs"))
    yield one
    one.end()


@pytest.fixture
def state(mounted, agent):
    """Tests ask for it before `agent`: it is mounted before the first one starts, and has space when they end."""
    yield mounted
    mounted.free()


@pytest.fixture
def files(image):
    """A factory of {volume: image}."""
    def make(count, prefix="v"):
        return {f"{prefix}{i}": image(8 * MIB, name=f"{prefix}{i}.img") for i in range(count)}
    return make


def put(a, volume, image, **more):
    return a.put(volume, a.file_spec(image, fs="ext4"), **more)


class Together:
    """A request for each of many volumes, all at once."""

    def __init__(self, ask, volumes):
        self.answers = {}
        self._pool = ThreadPoolExecutor(len(volumes))
        self._futures = [self._pool.submit(self._one, ask, volume) for volume in volumes]

    def _one(self, ask, volume):
        self.answers[volume] = ask(volume)

    def all(self):
        for future in self._futures:
            future.result(90)
        self._pool.shutdown()
        return self.answers


def assert_refused(answer):
    """The one problem that may be the answer."""
    problem = answer.expect(503, code="journal-unavailable").json
    assert problem["remedy"] and problem["retryable"] is True, problem
    return problem


def unwritable(a):
    return a.request("GET", "/readyz", timeout=5).code == "journal-unavailable"


def assert_it_answers(a, volume=None):
    """All that only reads works while nothing can be written."""
    a.request("GET", "/livez", timeout=5).expect(200)
    eventually(lambda: unwritable(a), 5, "readyz says so")
    a.request("GET", "/readyz").expect(503, code="journal-unavailable")
    listed = [v["id"] for v in a.volumes()]
    for name in listed[:5]:
        assert a.get(name).status == 200
        a.request("GET", f"/volumes/{name}/history", timeout=5).expect(200)
    if volume:
        assert a.holders(volume)["scanned_at"]
    return listed


def assert_recovers(a, state):
    state.free()
    started = time.monotonic()
    eventually(lambda: a.request("GET", "/readyz", timeout=5).status == 200, RECOVER_S, "ready by itself")
    print(f"ready again {time.monotonic() - started:.2f} s after there was space")


def assert_all_goes(a, images):
    """A retry of all PUTs succeeds, then all DELETEs end with a proof."""
    for volume, answer in Together(lambda v: put(a, v, images[v]), images).all().items():
        assert answer.expect(200, 201).json["state"] == "attached", volume
    assert_true(a, images)
    for volume, answer in Together(a.delete, images).all().items():
        proof = answer.expect(200).json
        assert proof["volume"] == volume and proof["evidence"]["exclusive_open"] is True
    assert_true(a, images)
    assert a.volumes() == []


def assert_each_is_true(answers, images):
    """An answer is a refusal, "not yet", or a success, and what it says is true now. Returns them by status."""
    found = {200: [], 201: [], 202: [], 503: []}
    bound = bound_images()
    for volume, answer in answers.items():
        found[answer.expect(*found).status].append(volume)
        nodes = bound.get(str(images[volume]), [])
        if answer.status == 503 and assert_refused(answer).get("residue") == "none":
            assert nodes == [], f"{volume}: it says that nothing is left"
        if answer.status in (200, 201):
            assert answer.json["state"] == "attached" and len(nodes) == 1, f"{volume}: {nodes} {answer}"
    print({status: len(volumes) for status, volumes in found.items() if volumes})
    return found


@pytest.mark.parametrize("mounted, leave_kib", [("tmpfs", 0), ("tmpfs", 2048), ("ext4", 256)], indirect=["mounted"])
def test_full_during_fifty_attaches(state, agent, files, leave_kib):
    a = agent()
    images = files(50)
    first = files(1, "first")
    put(a, "first0", first["first0"]).expect(201)
    a.restart()  # the log starts from nothing: it has to grow for whatever is written
    state.fill(leave_kib << 10)
    puts = Together(lambda v: put(a, v, images[v], wait=1), images)
    found = assert_each_is_true(puts.all(), images)
    assert found[202] or found[503], "the disk was full too late"
    assert_it_answers(a, "first0")
    more = files(1, "more")
    assert assert_refused(put(a, "more0", more["more0"]))["residue"] == "none"
    for _ in range(2):
        assert_refused(a.delete("first0"))
    assert a.get("first0").json["state"] == "attached"
    assert_recovers(a, state)
    for volume in found[202]:
        done = a.operation(puts.answers[volume].operation, wait=RECOVER_S)
        # Undone, because what it had done could not be written; or it was quick enough.
        assert done["state"] == "done" or done["error"]["code"] == "journal-unavailable", f"{volume}: {done}"
    everything = images | more | first
    assert_true(a, everything)
    assert_all_goes(a, everything)


def test_full_during_detaches(state, agent, files, hold, observer):
    a = agent()
    images = files(30)
    documents = {v: answer.expect(201).json
                 for v, answer in Together(lambda v: put(a, v, images[v]), images).all().items()}
    a.restart()  # the log starts from nothing: it has to grow for whatever is written
    held = {v: hold.open_tree(documents[v]) for v in ("v0", "v1", "v2")}
    guards = {v: observer.guard(documents[v], "a detached copy of the mount") for v in held}
    waits = {v: a.delete(v, wait=0).expect(202).operation for v in ("v0", "v1")}
    for volume in waits:
        eventually(lambda v=volume: a.get(v).json["step"] == "drain", 10, "it waits for the holder")
    others = [v for v in images if v not in held]
    state.fill(64 << 10)
    deletes = Together(lambda v: a.delete(v, wait=1), others)
    answers = deletes.all()
    accepted = [v for v, answer in answers.items() if answer.status == 202]
    for volume, answer in answers.items():
        if answer.status == 200:
            assert answer.json["volume"] == volume and not still_mapped(documents[volume]), "a false proof"
            assert a.delete(volume).expect(200).json == answer.json
        elif answer.status != 202:
            assert_refused(answer)
    print(f"{len(accepted)} accepted, {sum(x.status == 503 for x in answers.values())} refused of {len(answers)}")
    assert any(answer.status != 200 for answer in answers.values()), "the disk was full too late"
    assert_it_answers(a, "v2")
    assert_refused(a.delete("v2"))
    # A holder goes while nothing can be written: its volume waits for the journal, and is not forgotten.
    guards["v0"].end()
    held["v0"].release()
    time.sleep(0.5)
    assert a.get("v0").status != 404, "an end that is not in the journal was told"
    assert_recovers(a, state)
    assert a.operation(waits["v0"], wait=RECOVER_S)["state"] == "done", "the same operation ends by itself"
    for volume in accepted:
        done = a.operation(answers[volume].operation, wait=RECOVER_S)
        assert done["state"] == "done", f"{volume}: it was accepted, and must end by itself: {done}"
    assert_true(a, {v: images[v] for v in images if v != "v1"})
    assert a.operation(waits["v1"])["state"] == "running" and still_mapped(documents["v1"])
    for volume in ("v1", "v2"):
        guards[volume].end()
        held[volume].release()
    assert a.operation(waits["v1"], wait=RECOVER_S)["state"] == "done"
    for volume, answer in Together(a.delete, images).all().items():
        assert answer.expect(200).json["volume"] == volume and not still_mapped(documents[volume])
    assert a.volumes() == []


@pytest.mark.parametrize("mounted", ["tmpfs", "ext4"], indirect=True)
def test_killed_and_started_while_full(state, agent, files):
    a = agent()
    images = files(20)
    first = files(2, "first")
    attached = {v: put(a, v, image).expect(201).json for v, image in first.items()}
    a.restart()  # the log starts from nothing: it has to grow for whatever is written
    state.fill(64 << 10)
    puts = Together(lambda v: put(a, v, images[v], wait=1), images)
    found = assert_each_is_true(puts.all(), images)
    assert found[202] or found[503], "the disk was full too late"
    attached |= {v: puts.answers[v].json for v in found[201]}
    refused = {v: images[v] for v in found[503]}
    images |= first
    a.kill9()
    # SQLite needs no space to read its journal back, so the agent starts.
    a.start(ready=False)
    eventually(lambda: {v: a.get(v).json["state"] for v in attached} == {v: "attached" for v in attached}, 10,
               "what was attached is attached")
    for volume, document in attached.items():
        assert a.get(volume).json["identity"] == document["identity"]
    eventually(lambda: a.request("GET", "/readyz", timeout=5).code != "recovering", 10, "recovered")
    assert_refused(put(a, "w0", files(1, "w")["w0"]))
    assert_it_answers(a, "first0")
    for volume, image in refused.items():
        assert bound_to(image) == [], f"{volume} was refused"
    assert a.stop() == 0, "it ends cleanly, too"
    state.fill()  # the log gave its space back
    a.start(ready=False)
    eventually(lambda: unwritable(a), 5, "it says so before anybody asks for anything")
    assert_recovers(a, state)
    assert_true(a, images)
    assert_all_goes(a, images)


def test_first_start_on_a_full_disk(state, agent):
    state.fill()
    a = agent(start=False)
    done = a.refused_to_start()
    assert done.returncode == 71, done
    assert str(a.state) in done.stderr and "full" in done.stderr.lower() or "space" in done.stderr, done.stderr
    state.free()
    a.start()
