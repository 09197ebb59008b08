# SPDX-License-Identifier: Apache-2.0
"""GET /discovery: what a portal offers, with real targets, silent ones, and one that lies."""
import threading
import time
import urllib.parse

import pytest

from mooring import kernel, portals
from mooring.wait import eventually
from test_openapi import conforms

MIB = 1 << 20
CHAP = ("user", "secretsecret")


def discover(agent, portal, timeout=None, **query):
    query = {"driver": "iscsi", "portal": portal, "timeout_s": timeout, **query}
    query = {k: v for k, v in query.items() if v is not None}
    return conforms(agent.request("GET", "/discovery?" + urllib.parse.urlencode(query), timeout=90), "GET", "/discovery")


def add_target(target, tid, name, luns=(), chap=None):
    """Another one at the same portal."""
    target.admin("new", mode="target", tid=tid, targetname=name)
    target.admin("bind", mode="target", tid=tid, initiator_address="127.0.0.1")
    for lun in luns:
        path = f"{target.control}.{tid}.{lun}.img"
        with open(path, "wb") as file:
            file.truncate(8 * MIB)
        target.admin("new", mode="logicalunit", tid=tid, lun=lun, backing_store=path)
    if chap:
        target.admin("new", mode="account", user=chap[0], password=chap[1])
        target.admin("bind", mode="account", tid=tid, user=chap[0])


def nothing_left(target=None):
    eventually(lambda: not kernel.our_processes("mooring-worker", "mooring-lun"), 10, "helpers have ended")
    if target:
        eventually(lambda: target.connections() == [], 10, "no session is left")


def test_targets_and_their_disks(agent, targets):
    a = agent()
    target = targets()
    target.add_lun(64 * MIB)
    target.add_lun(32 * MIB, block_size=4096)
    target.add_lun(16 * MIB, thin=True)
    add_target(target, 2, target.name + ".empty")
    add_target(target, 3, target.name + ".locked", [1], CHAP)
    add_target(target, 4, target.name + ".sparse", [3, 200, 9])
    answer = discover(a, target.portal).expect(200).json
    assert answer["driver"] == "iscsi" and answer["portal"] == target.portal and answer["complete"] is True
    names = [t["name"] for t in answer["targets"]]
    assert names == [target.name, target.name + ".empty", target.name + ".locked", target.name + ".sparse"]
    assert all(t["portals"] == [target.portal] for t in answer["targets"])
    first, empty, locked, sparse = answer["targets"]

    assert [(l["lun"], l["size_bytes"], l["block_size"], l["thin"]) for l in first["luns"]] == [
        (1, 64 * MIB, 512, False), (2, 32 * MIB, 4096, False), (3, 16 * MIB, 512, True)]
    assert first["complete"] is True and first["error"] is None
    for lun in first["luns"]:
        assert lun["serial"] and lun["wwn"].startswith("naa.") and lun["error"] is None
        assert lun["vendor"] == "IET" and lun["product"] == "VIRTUAL-DISK" and lun["write_protected"] is False
    assert len({l["wwn"] for l in first["luns"]}) == 3
    assert empty["luns"] == [] and empty["complete"] is True, "tgtd's LUN 0 is no disk"
    assert locked["luns"] == [] and locked["error"]["code"] == "chap-refused"
    assert sorted(l["lun"] for l in sparse["luns"]) == [3, 9, 200]

    # What is found can be attached, and is the same then.
    doc = a.attach("v", target.spec(fs="ext4"))
    assert doc["identity"]["wwn"] == first["luns"][0]["wwn"] and doc["identity"]["serial"] == first["luns"][0]["serial"]
    before = target.connections()
    again = discover(a, target.portal).expect(200).json["targets"][0]
    assert again == first
    assert eventually(lambda: len(target.connections()) == 1 and target.connections()) == before, "its session lives on"
    a.detach("v")
    nothing_left(target)


def test_portal_that_refuses_connections(agent):
    with portals.never_answers() as portal:
        pass
    answer = discover(agent(), portal).expect(502, code="portal-unreachable")
    assert answer.json["remedy"] and answer.json["retryable"] is True and answer.json["residue"] == "none"
    nothing_left()


@pytest.mark.parametrize("kind", ["never_answers", "never_accepts"])
def test_black_hole_is_answered_within_its_deadline(agent, kind):
    a = agent()
    with getattr(portals, kind)() as portal:
        started = time.monotonic()
        discover(a, portal, 2).expect(504, code="target-timeout")
        took = time.monotonic() - started
    assert 1.5 < took < 2.0 + 1.5, f"{took:.2f} s"  # the second is the machine's
    nothing_left()


def test_stopped_target_is_answered_within_its_deadline(agent, target):
    a = agent()
    target.stop()
    started = time.monotonic()
    discover(a, target.portal, 1).expect(504, code="target-timeout")
    assert time.monotonic() - started < 3
    target.cont()
    discover(a, target.portal).expect(200)
    nothing_left(target)


def test_no_more_than_four_at_the_same_time(agent):
    a = agent()
    statuses = []
    with portals.never_answers() as portal:
        asking = [threading.Thread(target=lambda: statuses.append(discover(a, portal, 4).status)) for _ in range(4)]
        for thread in asking:
            thread.start()
        eventually(lambda: len(kernel.our_processes("mooring-lun")) == 4, 10, "four are under way")
        answer = discover(a, portal).expect(503, code="too-many-requests")
        assert int(answer.headers["Retry-After"]) >= 1
        assert a.request("GET", "/livez").expect(200).ms < 250
        for thread in asking:
            thread.join(30)
    assert statuses == [504] * 4
    nothing_left()
    with portals.never_answers() as portal:
        discover(a, portal, 1).expect(504)


def test_client_that_goes_away_ends_it(agent):
    a = agent()
    with portals.never_answers() as portal:
        with pytest.raises(TimeoutError):
            a.request("GET", f"/discovery?driver=iscsi&portal={portal}&timeout_s=60", timeout=0.5)
        nothing_left()


BAD_QUERIES = [
    "", "driver=iscsi", "portal=127.0.0.1", "driver=file&portal=127.0.0.1", "driver=iscsi&portal=",
    "driver=iscsi&portal=a,b", "driver=iscsi&portal=127.0.0.1:0", "driver=iscsi&portal=127.0.0.1:65536",
    "driver=iscsi&portal=%5B::1", "driver=iscsi&portal=127.0.0.1&portal=127.0.0.2",
    *(f"driver=iscsi&portal=127.0.0.1&{more}" for more in (
        "timeout_s=0", "timeout_s=61", "timeout_s=-1", "timeout_s=1e1", "timeout_s=", "username=u")),
]


def test_bad_queries_are_refused(agent):
    a = agent()
    for query in BAD_QUERIES:
        answer = conforms(a.request("GET", "/discovery?" + query), "GET", "/discovery")
        assert answer.status == 400 and answer.code == "invalid-request", (query, answer)


# --- a portal that lies ---

NAMES = [f"iqn.2026-11.example:{i:05}" for i in range(2000)]


def test_endless_list_is_cut(agent):
    a = agent()
    with portals.Liar(portals.send_targets(*NAMES)) as liar:
        answer = discover(a, liar.portal, 2).expect(200)
    assert answer.ms < 5000
    assert answer.json["complete"] is False and 1 <= len(answer.json["targets"]) <= 64
    assert all(t["luns"] == [] and t["complete"] is False for t in answer.json["targets"])
    nothing_left()


def test_nonsense_in_a_list_is_left_out(agent):
    a = agent()
    bad = ["iqn.2026-11.example:a b", "x" * 300, "", "iqn.2026-11.example:\xff", "../../etc/passwd", 'iqn."quoted"']
    text = portals.send_targets(*bad, "iqn.2026-11.example:good", address="127.0.0.1:3260,1")
    text += b'TargetAddress=with"quote:1,1\0' + b"TargetAddress=" + b"y" * 300 + b"\0"
    with portals.Liar(text) as liar:
        answer = discover(a, liar.portal, 1)
    if answer.status == 200:
        assert [t["name"] for t in answer.json["targets"]] == ["iqn.2026-11.example:good"]
        assert answer.json["targets"][0]["portals"] == ["127.0.0.1:3260"]
        assert answer.json["complete"] is False
    else:
        answer.expect(502)
    nothing_left()


@pytest.mark.parametrize("text, announce", [
    (b"TargetName=iqn.2026-11.example:a", None),          # no end
    (b"TargetAddress=127.0.0.1:3260,1\0", None),          # of no target
    (b"Nonsense\0", None), (b"\0" * 64, None), (b"", None),
    (b"TargetName=", 0xFFFFFF),                           # 16 MiB that never come
], ids=["no-end", "of-no-target", "nonsense", "zeroes", "empty", "too-short"])
def test_lies_end_in_bounded_time(agent, text, announce):
    a = agent()
    started = time.monotonic()
    with portals.Liar(text, announce=announce) as liar:
        answer = discover(a, liar.portal, 1)
    assert answer.status in (200, 502, 504), answer
    assert time.monotonic() - started < 4
    if answer.status == 200:
        assert answer.json["targets"] == []
    assert a.request("GET", "/livez").expect(200).ms < 250
    nothing_left()


@pytest.mark.parametrize("luns, announce", [
    (portals.report_luns(*range(1000)), None),            # more than was asked for
    (portals.report_luns(1, said=0xFFFFFFF8), None),      # more than came
    (portals.report_luns(1, said=7), None), (b"\0", None), (b"", None),
    (portals.report_luns(1), 0xFFFFFF),
], ids=["too-many", "cut", "crooked", "tiny", "empty", "too-short"])
def test_lies_about_luns_are_of_that_target(agent, luns, announce):
    a = agent()
    name = "iqn.2026-11.example:liar"
    with portals.Liar(portals.send_targets(name), luns, announce) as liar:
        started = time.monotonic()
        answer = discover(a, liar.portal, 1).expect(200).json
    assert time.monotonic() - started < 4
    [listed] = answer["targets"]
    assert listed["name"] == name and listed["complete"] is False
    assert len(listed["luns"]) <= 64
    assert listed["error"] is not None or listed["luns"] == []
    nothing_left()
