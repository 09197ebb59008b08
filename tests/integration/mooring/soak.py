# SPDX-License-Identifier: Apache-2.0
"""Chaos whose processes are killed: agent, workers and LUN servers, at any time. What is lost by that is only what
the death of a LUN server can cost, and each volume can always be taken down or brought back by the API."""
import collections
import os
import pathlib
import random
import signal
import threading
import time

from . import kernel
from .chaos import BLOCK, END_S, RETRY_S, Chaos, Sleeper, VolumeRun
from .wait import eventually

VICTIMS = {"agent": 9, "worker": 7, "agent and worker": 4, "agent twice": 3, "lun": 1}
PAUSE_S = 0.12  # between two kills, at most
FIND_S = 0.15  # looking for a victim that may not be there
CALM_S = 15  # from the end of the load to a state that is like the journal
ENDINGS = (0.5, 0.3, 0.2)  # how often a cycle ends: detached, attached, in the middle of a detach or attach


def lun_servers(targets):
    """{volume: pid of the keeper} of the servers that have a connection; targets: {volume: its own Target}."""
    inodes = {}
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        inodes[fields[9]] = int(fields[2].rsplit(":", 1)[1], 16)
    ports = {target.port: volume for volume, target in targets.items()}
    found = {}
    keepers = {process.pid for process in kernel.our_processes("mooring-lun")}
    for process in kernel.our_processes("mooring-lun-io"):
        try:
            links = [os.readlink(fd) for fd in pathlib.Path(f"/proc/{process.pid}/fd").iterdir()]
        except OSError:
            continue  # ended meanwhile
        for link in links:
            volume = ports.get(inodes.get(link.removeprefix("socket:[").removesuffix("]")))
            if volume and process.parent in keepers:
                found[volume] = process.parent
    return found


def kill(pid):
    """True if there was something to kill."""
    try:
        os.kill(pid, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False


class Soak(Chaos):
    """targets: {volume: Target}, one for each volume that has a LUN server."""

    def __init__(self, agent, observer, seed, kinds, targets, kills):
        super().__init__(agent, observer, seed, 0, kinds)
        self.targets, self.kills = targets, kills
        self.servers_killed = collections.Counter()  # by volume

    @property
    def killed(self):
        return sum(count for what, count in self.counts.items() if what.startswith("kill: "))


class Reaper(threading.Thread):
    """Kills as often as it is told to, then sees to it that the agent runs."""

    def __init__(self, soak, number, kills):
        super().__init__(name="reaper", daemon=True)
        self.soak, self.kills = soak, kills
        self.random = random.Random(f"{soak.seed} reaper {number}")

    def run(self):
        try:
            for _ in range(self.kills):
                time.sleep(self.random.uniform(0, PAUSE_S))
                [victim] = self.random.choices(list(VICTIMS), VICTIMS.values())
                getattr(self, "_" + victim.replace(" ", "_"))()
        except Exception as error:  # a thread has nobody else to tell
            self.soak.problems.append(f"reaper: {error!r}")
        finally:
            if not self.soak.agent.running:
                self.soak.start_agent()

    def _agent(self):
        self.soak.agent.kill9()
        self.soak.count("kill: agent")
        self._start()

    def _start(self):
        time.sleep(self.random.choice([0, 0, self.random.uniform(0, 0.1)]))
        self.soak.start_agent()

    def _agent_twice(self):
        """The second time somewhere in its start."""
        self.soak.agent.kill9()
        self.soak.agent.spawn()
        time.sleep(self.random.uniform(0, 0.08))
        self.soak.agent.kill9()
        self.soak.count("kill: agent")
        self.soak.count("kill: agent while it starts")
        self._start()

    def _find(self, look):
        deadline = time.monotonic() + FIND_S
        while not (found := look()) and time.monotonic() < deadline:
            time.sleep(0.002)
        return found

    def _worker(self, and_agent=False):
        workers = self._find(lambda: kernel.our_processes("mooring-worker"))
        if not workers:
            self.soak.count("no worker to kill")
            return self._agent()
        kills = [lambda: kill(self.random.choice(workers).pid)]
        if and_agent:
            kills.append(self.soak.agent.kill9)
            self.random.shuffle(kills)
        for one in kills:
            one()
        self.soak.count("kill: agent and worker" if and_agent else "kill: worker")
        if and_agent:
            self._start()

    def _agent_and_worker(self):
        self._worker(and_agent=True)

    def _lun(self):
        servers = self._find(lambda: lun_servers(self.soak.targets))
        if not servers:
            return self._worker()
        volume = self.random.choice(sorted(servers))
        self.soak.servers_killed[volume] += 1  # before: who sees the effect must know the cause
        kill(servers[volume])
        self.soak.count("kill: lun")


class KillRun(VolumeRun):
    """One volume, a cycle per round. What fails must say why, and can be taken up again."""

    def __init__(self, soak, name, source, holders):
        super().__init__(soak, name, source.spec, holders)
        self.source = source
        self.document = None  # as it was attached last
        self.contents = [None]  # of the file "data": what it may be; None: it is not there
        self.server_kills = 0  # when it was attached last

    @property
    def server_lost(self):
        """Its LUN server was killed since the volume was attached: I/O errors are nobody's fault."""
        return self.chaos.servers_killed[self.volume] != self.server_kills

    # --- attach ---

    def clear(self, problem):
        """Every failure says what it is, in words."""
        assert problem and problem["code"] and len(problem.get("detail") or problem.get("message")) > 10, problem
        self.note(f"{problem['code']}: {problem.get('detail') or problem.get('message')}")
        return problem["code"]

    def attach(self):
        """Tries PUT, and if that does not help DELETE and PUT: one of them must."""
        deadline = time.monotonic() + RETRY_S
        for attempt in range(1000):
            kills = self.chaos.servers_killed[self.volume]
            answer = self.chaos.ask("put", self.volume, self.spec)
            if answer.status in (200, 201):
                return self.attached(answer.json, kills)
            code = self.clear(answer.json)
            self.chaos.count(f"attach again: {code}")
            assert time.monotonic() < deadline, f"cannot be attached again: {answer}"
            if not answer.json["retryable"] or attempt % 10 == 9:
                self.take_down()
            time.sleep(0.02)

    def attached(self, document, kills):
        """Unless its LUN server was killed before the answer was made."""
        assert document["state"] == "attached" or self.chaos.servers_killed[self.volume] != kills, document
        if not self.document or self.document["identity"]["diskseq"] != document["identity"]["diskseq"]:
            self.server_kills = kills
        self.document = document
        return document

    def take_down(self):
        """DELETE, with a loss accepted only where a LUN server was killed, or a worker that flushed."""
        deadline = time.monotonic() + RETRY_S
        while True:
            answer = self.chaos.ask("delete", self.volume)
            if answer.status in (200, 404):
                self.chaos.count("taken down")
                return
            code = self.clear(answer.json)
            self.chaos.count(f"DELETE again: {code}")
            assert time.monotonic() < deadline, f"cannot be taken down: {answer}"
            if code == "data-not-written":
                self.accept_loss(answer.json)
            time.sleep(0.02)

    def accept_loss(self, why):
        # Of a worker that was killed in its flush nobody can tell what the kernel told it.
        unknown = "died while it asked" in str(why)
        assert self.server_lost or unknown, f"a loss that nobody caused: {why}"
        self.chaos.count("loss accepted" if self.server_lost else "nobody can tell")
        self.chaos.ask("delete", self.volume, wait=0, accept_data_loss="true")

    # --- data ---

    def check_data(self, document):
        path = pathlib.Path(document["mount_path"], "data")
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = None
        except OSError as error:
            assert self.server_lost, f"read: {error}"
            return
        assert content in self.contents, f"the data differs: {len(content or b'')} bytes"
        self.contents = [content]

    def write_data(self, document):
        """What was fsynced is there from then on, whatever dies."""
        path = pathlib.Path(document["mount_path"], "data")
        self.data = self.random.randbytes(16 * BLOCK)
        self.contents.append(self.data)
        try:
            with open(path.with_name("new"), "wb", buffering=0) as file:
                file.write(self.data)
                os.fsync(file.fileno())
            os.rename(path.with_name("new"), path)
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
            self.contents = [self.data]
        except OSError as error:
            assert self.server_lost, f"write: {error}"

    def release(self, holder, guard, name):
        try:
            super().release(holder, guard, name)
        except (AssertionError, OSError) as error:
            # Reading, or undoing what it did, fails without the server.
            assert self.server_lost, f"{name}: {error}"
            if isinstance(holder, Sleeper):
                guard.end()
                holder.release()

    # --- one cycle ---

    def start_before(self, document, latest):
        try:
            super().start_before(document, latest)
        except (AssertionError, OSError) as error:
            assert self.server_lost, f"holder: {error}"

    def cycle(self):
        document = self.attach()
        self.chaos.nodes[self.volume] = document["device"]
        self.check_data(document)
        self.write_data(document)
        [ending] = self.random.choices(("detached", "attached", "open"), ENDINGS)
        if ending == "detached":
            self.detach_held(document)
        elif ending == "open":
            self.chaos.ask("delete", self.volume, wait=0)

    def cancel(self, document, operation):
        """A PUT that takes it back, comes too late, or fails because of a kill; then all is begun again, unheld."""
        kills = self.chaos.servers_killed[self.volume]
        answer = self.chaos.ask("put", self.volume, self.spec, wait=2)
        if answer.status == 409 and answer.code == "operation-pending":
            self.chaos.count("cancel refused")
            return document, operation
        if answer.status in (200, 201):
            again = self.attached(answer.json, kills)
            self.chaos.count("cancelled")
        else:
            self.chaos.count(f"cancel failed: {answer.code or answer.status}")
            while self.held:
                self.release_due(self.held[0][0])
            again = self.attach()
        self.check_data(again)
        return again, self.ask_detach()

    def ask_detach(self):
        answer = self.chaos.ask("delete", self.volume, wait=0)
        if answer.status in (200, 202):
            return answer.operation if answer.status == 202 else answer.json["operation"]
        code = self.clear(answer.json)
        assert code == "data-not-written", answer
        self.accept_loss(answer.json)
        return None

    def finish(self, document, operation):
        released = time.monotonic()
        ended = self.wait_end(operation) if operation else None
        if not ended or ended["state"] != "done":
            if ended:
                self.chaos.count(f"detach failed: {self.clear(ended['error'])}")
            self.take_down()
        else:
            self.chaos.release_ms.append((time.monotonic() - released) * 1000)
        assert not kernel.still_mapped(document), "the proof of release, and still mapped"
        self.chaos.count("detached")

    def wait_end(self, operation):
        target, released = f"/operations/{operation}", time.monotonic()
        while True:
            ended = self.chaos.ask("request", "GET", target, None, {"Prefer": "wait=5"}).expect(200).json
            if ended["state"] != "running":
                return ended
            assert time.monotonic() - released < END_S, f"not ended: {ended}; {self.chaos.agent.get(self.volume)!r}"

    # --- between the rounds ---

    def settle(self):
        """The volume's state, when it has one that lasts; nobody holds anything."""
        answer = self.chaos.ask("get", self.volume)
        if answer.status == 404:
            return self.absent()
        document = answer.expect(200).json
        if document["state"] == "failed":
            self.clear(document["error"])
            return "failed"
        if document["state"] != "attached":
            return None
        assert kernel.still_mapped(document) and kernel.mounts_at(document["mount_path"]), document
        self.check_data(document)
        return "attached"

    def absent(self):
        if self.document:
            assert not kernel.still_mapped(self.document), "absent, and still mapped"
            assert not kernel.mounts_at(self.document["mount_path"]), "absent, and still mounted"
        target = self.chaos.targets.get(self.volume)
        if target:
            assert target.connections() == [], "absent, and a session is open"
        else:
            path = str(self.source.path)
            assert path not in map(kernel.loop_bound, kernel.bound_loops()), "absent, and its file is bound"
        return "absent"

    def calm(self):
        try:
            state = eventually(self.settle, CALM_S, f"{self.volume} comes to rest", interval=0.02)
            self.chaos.count(f"at rest: {state}")
            return state
        except Exception as error:
            self.chaos.problems.append(f"{self.volume}: {error!r}; after {self.story}")
            return None
