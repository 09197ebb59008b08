# SPDX-License-Identifier: Apache-2.0
"""What a mounted volume sees of a target that is away for a while: it waits, and nothing is lost.

Several outages at a time, each on a volume and a target of its own: it is waiting that takes the time."""
import concurrent.futures
import os
import signal
import time

import pytest

from mooring import lun
from mooring.kernel import run
from mooring.load import Load, ended, fio
from mooring.netns import Network
from mooring.wait import eventually

TIMEOUT_S = 3  # a target that is silent for so long is dead
SLACK_S = 5  # a login, and two cores that others use


@pytest.fixture
def network():
    one = Network()
    yield one
    one.end()


class Outage:
    """One volume, its target, and what happens to it for some seconds."""

    def __init__(self, a, target, name, seconds, act):
        self.a, self.target, self.name, self.seconds, self.act = a, target, name, seconds, act
        target.add_lun()
        self.spec = target.spec()

    def run(self):
        doc = self.a.attach(self.name, self.spec)
        with Load(doc["mount_path"]) as load:
            self.act(self)
            load.goes_on()
        transport = self.a.get(self.name).json["transport"]
        load.check()
        self.a.detach(self.name)
        run("xfs_repair", "-n", self.target.luns[1])
        again = self.a.attach(self.name, self.spec)
        files = load.check(again["mount_path"])
        self.a.detach(self.name)
        return f"{self.name}: {self.seconds} s away, stall {load.longest_s:.1f} s, {len(load.errors)} errors, " \
               f"{files} files equal, transport {transport and transport['state']}", load


def happen(outages):
    with concurrent.futures.ThreadPoolExecutor(len(outages)) as pool:
        runs = [pool.submit(outage.run) for outage in outages]
        ended = [(outage, *one.result(300)) for outage, one in zip(outages, runs)]
    for _, said, _ in ended:
        print(said)
    for outage, said, load in ended:
        assert load.errors == [], said
        assert load.longest_s < outage.seconds + SLACK_S, said
        assert load.longest_s > outage.seconds - 1.5 or outage.seconds < TIMEOUT_S, f"was it away at all? {said}"


def killed(outage):
    outage.target.kill()
    time.sleep(outage.seconds)
    outage.target.restart()


def stopped(outage):
    outage.target.stop()
    time.sleep(outage.seconds)
    outage.target.cont()


def test_target_killed_or_stopped(agent, targets):
    a = agent(config={"iscsi": {"timeout_seconds": TIMEOUT_S}})
    happen([Outage(a, targets(tid=1), "killed-5", 5, killed),
            Outage(a, targets(tid=2, chap=("user", "secretsecret")), "stopped-5", 5, stopped),
            Outage(a, targets(tid=3), "stopped-25", 25, stopped)])


def dropped(outage):
    with outage.target.network.dropped("--dport", str(outage.target.port)):
        time.sleep(outage.seconds)


def unreachable(outage):
    """Killed, and its address is not even routed: connect(2) fails at once."""
    with outage.target.network.no_route(outage.target.address):
        outage.target.kill()
        time.sleep(outage.seconds)
        outage.target.restart()


def old_connection_dead(outage):
    """Only the connection that is there loses its packets; a new one would work."""
    network = outage.target.network
    [port] = network.connections(outage.target.port)
    with network.dropped("--sport", str(port)):
        eventually(lambda: [p for p in network.connections(outage.target.port) if p != port], 20, "a new connection")
        time.sleep(1)
    shown = outage.target.connections()
    assert len(shown) == 1, f"the old session lives on beside the new one: {shown}"


def test_network_away(agent, targets, network):
    a = agent(config={"iscsi": {"timeout_seconds": TIMEOUT_S}}, network=network)
    happen([Outage(a, targets(tid=1, network=network), "dropped-5", 5, dropped),
            Outage(a, targets(tid=2, network=network), "dropped-25", 25, dropped),
            Outage(a, targets(tid=3, network=network, address=network.other_address), "no-route-8", 8, unreachable),
            Outage(a, targets(tid=4, network=network), "old-connection", 2, old_connection_dead)])


def test_target_never_back(agent, target):
    a = agent(config={"iscsi": {"timeout_seconds": TIMEOUT_S}})
    spec = target.spec()
    spec["source"]["replacement_timeout_s"] = 6
    doc = a.attach("v", spec)
    with Load(doc["mount_path"]) as load:
        target.kill()
        started = time.monotonic()
        eventually(lambda: load.errors, 60, "an error", interval=0.05)
        took = time.monotonic() - started
        eventually(lambda: len(load.errors) > 5, 10, "it fails fast from now on")
    print(f"EIO after {took:.1f} s; then {[round(s, 2) for s, _ in load.errors[1:6]]}")
    assert 4 < took < TIMEOUT_S + 6 + SLACK_S
    assert max(s for s, _ in load.errors[1:]) < 2
    transport = eventually(lambda: (t := a.get("v").json["transport"])["state"] == "failed" and t, 5, "it is said")
    assert "reason" in transport, transport
    assert a.get("v").json["state"] == "attached", "it is still tried: the file system has to be told by its user"
    target.restart()
    eventually(lambda: a.get("v").json["transport"]["state"] == "up", 20, "it came back after all")
    a.delete("v", wait=30, accept_data_loss="true").expect(200)
    again = a.attach("v", target.spec())
    load.check(again["mount_path"])
    a.detach("v")
    run("xfs_repair", "-n", target.luns[1])


def test_deep_queue_through_outages(agent, target):
    """What was under way when the session ended is sent again, and nothing of it lands after what came later."""
    a = agent(config={"iscsi": {"timeout_seconds": 2}})
    doc = a.attach("v", target.spec())
    work = fio(doc["mount_path"] + "/fio", "--bs=256k", "--size=192m", "--iodepth=32", "--loops=8")
    for _ in range(3):
        time.sleep(1)
        target.stop()
        time.sleep(4)
        target.cont()
        eventually(lambda: lun.status(a)["transport"]["state"] == "up", 20, "a new session")
    ended(work, 120)
    counters = lun.status(a)["counters"]
    print(counters)
    assert counters["errors"] == 0 and counters["replayed"] > 0 and counters["lost_sessions"] >= 3
    a.detach("v")
    run("xfs_repair", "-n", target.luns[1])


def test_attachment_ends_the_session_of_the_one_before(agent, targets, network):
    """The target does not know that our end is gone: what it has still to write would come after what we write now."""
    a = agent(network=network)
    target = targets(network=network)
    target.add_lun()
    a.attach("v", target.spec())
    [port] = network.connections(target.port)
    [old] = target.connections()
    with network.dropped("--sport", str(port)):
        os.kill(lun.keepers()[0].pid, signal.SIGKILL)
        eventually(lambda: a.get("v").json["state"] == "failed", 10, "the attachment has failed")
        a.delete("v", wait=30, accept_data_loss="true").expect(200)
        assert target.connections() == [old], "it knows nothing"
        a.attach("v", target.spec())
        [new] = target.connections()
    assert new != old
    a.detach("v")
