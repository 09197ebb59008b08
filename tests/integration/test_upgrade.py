# SPDX-License-Identifier: Apache-2.0
"""Another version of the agent takes over what the old one attached, and the old mooring-lun processes go on.

MOORING_OLD_BUILD: the build directory of another version to start with. Without it a copy of the same build is the old
one: what is compared then is that nothing depends on the installed files of the old one."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from mooring import kernel
from mooring.agent import build_dir
from mooring.wait import eventually

MIB = 1 << 20


@pytest.fixture
def old(tmp):
    """An installation that can be taken away."""
    source, tree = pathlib.Path(os.environ.get("MOORING_OLD_BUILD", build_dir())), tmp / "old"
    for part in ("sbin", "libexec/mooring"):
        shutil.copytree(source / part, tree / part)
    return tree


def upgrade(a, old):
    """The files are replaced, then the service is started again. Returns how long there was no agent."""
    started = time.monotonic()
    assert a.stop() == 0
    shutil.rmtree(old)
    a.binary = build_dir() / "sbin/mooringd"
    a.start()
    return time.monotonic() - started


def test_upgrade_keeps_io_running(old, agent, image, target, hold, observer):
    a = agent(binary=old / "sbin/mooringd")
    for size in (320, 320):
        target.add_lun(size * MIB)
    specs = {"file": a.file_spec(image()), "lun": target.spec(), "cut": target.spec(lun=2, fs="ext4"),
             "waits": target.spec(lun=3)}
    documents = {v: a.attach(v, spec) for v, spec in specs.items()}
    pulses = {v: hold.pulse(pathlib.Path(documents[v]["mount_path"], "log")) for v in ("file", "lun")}
    copy = hold.open_tree(documents["waits"])
    waiting = a.delete("waits", wait=1).expect(202).operation
    guards = [observer.guard(documents[v], v) for v in pulses]
    guards.append(observer.guard(documents["waits"], "a detached copy of the mount"))
    servers = {p.pid for p in kernel.our_processes("mooring-lun")}
    time.sleep(0.3)

    away = upgrade(a, old)

    assert {p.pid for p in kernel.our_processes("mooring-lun")} == servers, "the old servers go on"
    for volume in ("file", "lun", "cut"):
        now = a.get(volume).expect(200).json
        assert now["state"] == "attached" and now["error"] is None, now
        assert now["identity"] == documents[volume]["identity"] and now["device"] == documents[volume]["device"]
        a.put(volume, specs[volume]).expect(200)
    assert a.get("waits").json["operation"] == waiting
    time.sleep(0.3)
    for volume, pulse in pulses.items():
        assert [h["pid"] for h in a.holders(volume)["holders"]] == [pulse.pid]

    # An old server obeys the new agent.
    pathlib.Path(documents["cut"]["mount_path"], "dirty").write_bytes(os.urandom(4 * MIB))
    held = hold.open_tree(documents["cut"])
    operation = a.delete("cut", wait=1).expect(202).operation
    [result] = a.act("cut", "cut-transport", accept_data_loss=True).expect(200).json["results"]
    assert result["done"] is True, result
    held.release()
    done = a.operation(operation, wait=20)
    if done["state"] == "failed":
        assert done["error"]["code"] == "data-not-written", done
        a.detach("cut", accept_data_loss="true")
    assert not kernel.still_mapped(documents["cut"])

    for guard in guards:
        guard.end()
    copy.release()
    assert a.operation(waiting, wait=20)["state"] == "done", "the detach that waited goes on"
    for volume, pulse in pulses.items():
        count, longest = pulse.release().split()
        print(f"{volume}: {count} writes, longest {float(longest) * 1000:.0f} ms; no agent for {away * 1000:.0f} ms")
        assert int(count) > 20 and float(longest) < max(away, 0.5), "I/O was interrupted"
        evidence = a.detach(volume)["evidence"]
        assert evidence["exclusive_open"] is True
        if volume == "lun":
            assert evidence["lun_server"] == "exited" and evidence["session"] == "logged-out", evidence
    assert kernel.our_processes("mooring-lun") == [] and target.connections() == []


def test_back_to_the_old_version(old, agent, image, target):
    """A downgrade to a version with the same journal: as good as an upgrade."""
    if "MOORING_OLD_BUILD" in os.environ:
        pytest.skip("another version may have another journal")
    a = agent()
    documents = {"file": a.attach("file", a.file_spec(image())), "lun": a.attach("lun", target.spec())}
    assert a.stop() == 0
    a.binary = old / "sbin/mooringd"
    a.start()
    for volume, document in documents.items():
        assert a.get(volume).json["identity"] == document["identity"]
        assert a.detach(volume)["evidence"]["exclusive_open"] is True


FAKE = """
import json, os, select, socket, sys
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(sys.argv[1])
listener.listen(8)
said = json.loads(sys.argv[2])
said["pid"] = os.getpid()
with open("/proc/self/stat", encoding="ascii") as file:
    said["start_time"] = int(file.read().rsplit(")", 1)[1].split()[19])
print("ready", flush=True)
clients, asked = [], 0
while True:
    ready, _, _ = select.select([sys.stdin, listener, *clients], [], [])
    for one in ready:
        if one is sys.stdin:
            print(asked, flush=True)
            sys.exit(0)
        if one is listener:
            clients.append(listener.accept()[0])
            continue
        try:
            data = one.recv(65536)
        except OSError:
            data = b""
        if not data:
            clients.remove(one)
            one.close()
            continue
        asked += 1
        try:
            one.send(json.dumps(said).encode())
        except OSError:
            pass
"""


class FakeServer:
    """Listens where the mooring-lun of a token did, in a process of its own, and says yes to everything."""

    def __init__(self, a, **said):
        [self.path] = (a.runtime / "lun").glob("*.sock")
        self.path.rename(self.path.with_suffix(".real"))
        token = self.path.stem
        said = {"ok": True, "token": token, "state": "up", "cut": True, "in_flight": 0, "counters": {}, **said}
        self.process = subprocess.Popen([sys.executable, "-I", "-c", FAKE, self.path, json.dumps(said)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    @property
    def alive(self):
        return self.process.poll() is None

    def end(self):
        """Puts the real one back; returns how often it was asked."""
        out, _ = self.process.communicate("", timeout=10)
        real = self.path.with_suffix(".real")
        if real.exists():
            real.replace(self.path)
        return int(out or 0)


@pytest.fixture
def fake(agent):
    """A factory; they end before the agents do."""
    made = []

    def make(a, **said):
        made.append(FakeServer(a, **said))
        return made[-1]

    yield make
    for one in made:
        if one.alive:
            one.end()


@pytest.fixture
def impostor(agent, target, fake):
    """A factory: (agent that was restarted beside a false server, volume document, that server)."""
    def make(**said):
        a = agent()
        doc = a.attach("v", target.spec(fs="ext4"))
        a.stop()
        other = fake(a, **said)
        a.start()
        now = a.get("v").json
        assert now["state"] == "attached" and now["identity"] == doc["identity"], now
        a.put("v", doc["spec"]).expect(200)
        return a, doc, other
    return make


def cut(a):
    """Of a detach that waits: (was it done?, what was said)."""
    answer = a.act("v", "cut-transport", accept_data_loss=True)
    if answer.status != 200:
        return False, answer.expect(502).json["detail"]
    [result] = answer.json["results"]
    return result["done"], result["detail"]


@pytest.mark.parametrize("said", [{"version": 99, "oldest": 99}, {"version": "new"}, {"version": 1}],
                         ids=["future", "nonsense", "same"])
def test_another_server_on_the_socket_is_not_believed(impostor, hold, said):
    """It speaks a protocol of the future, or ours, but is not the recorded process: that is the volume's server. It may
    be ended by its pid, or the request be refused; the impostor's word is not taken for the deed."""
    a, doc, other = impostor(**said)
    [lun] = kernel.our_processes("mooring-lun")
    copy = hold.open_tree(doc)
    operation = a.delete("v", wait=1).expect(202).operation
    done, detail = cut(a)
    print(detail)
    assert other.alive, "the wrong process was killed"
    assert kernel.alive(lun.pid) is not done, detail
    if not done:
        assert "version" in detail, detail
        assert other.end() > 0, "it was asked"
        assert cut(a)[0] is True, "the real one, after it is back"
    copy.release()
    ended = a.operation(operation, wait=20)
    if ended["state"] == "failed":
        a.detach("v", accept_data_loss="true")
    assert not kernel.still_mapped(doc)
