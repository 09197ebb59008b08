# SPDX-License-Identifier: Apache-2.0
"""The crash matrix: every plan of storage/plan.c, at every point of every step, with every set of victims. One table,
and what each plan must end in; crash_rig.py does the killing and the looking."""
import collections
import functools
import itertools
import os
import re
import signal

from . import kernel
from .agent import TOP
from .chaos import Sleeper
from .crash_rig import SETTLE_S, VOLUME
from .wait import eventually, never

Case = collections.namedtuple("Case", "driver scenario step point victims mute")
SEEDS = itertools.count()
WHENS = ("before", "inside", "after")
# A stopped worker, or a stopped agent, and who is killed then. "late": the next agent comes before it goes on.
VICTIMS = {
    "worker": {"file": (("agent",), ("agent", "late"), ("worker",), ("agent", "worker"))},
    "core": {"file": (("agent",), ("worker",), ("agent", "worker"))},
}
VICTIMS["worker"]["iscsi"] = VICTIMS["worker"]["file"] + (("server",), ("agent", "worker", "server"))
VICTIMS["core"]["iscsi"] = (("agent",), ("server",))
MUTE_VICTIMS = (("agent",), ("worker",), ("agent", "worker"), ("server",))


@functools.cache
def plans():
    """{plan: steps} of storage/plan.c."""
    text = (TOP / "storage/plan.c").read_text()
    found = re.findall(r"static const enum mr_step (\w+)\[\] = \{(.*?)\};", text, re.S)
    return {name: [s.lower() for s in re.findall(r"MR_STEP_(\w+)", body) if s != "NONE"] for name, body in found}


def worker_commands():
    """What storage/worker/commands.c does for the steps."""
    text = (TOP / "storage/worker/commands.c").read_text()
    return re.findall(r"\{\"(\w+)\", mr_command_\w+, MR_WORKER_VOLUME\}", text)


def name_of(case):
    return (f"{case.driver} {case.scenario.name}: {case.step}, {'+'.join(case.victims)} killed at {case.point}"
            + (" while the target is mute" if case.mute else ""))


def needs_no_worker(case):
    """The last answer was there, or it may have been."""
    return case.victims == ("worker",) and (case.point == "core.mount.reply" or case.mute)


class Scenario:
    """commands: {step: what a worker is asked for in it, or None}; place: the first part of the core's points."""
    name = plan = None
    drivers = ("file", "iscsi")
    place = "core"
    commands = {}
    mute = ()  # commands that are also tried with a target that falls silent
    fs = {"file": "ext4", "iscsi": "xfs"}
    server_from = server_until = None  # worker points between which there is a mooring-lun; None: always
    journal = ("file",)  # drivers for which the agent is also killed at each record
    whole = True  # it goes through every step of its plan

    def points(self):
        """[(step, point)] in the order of the plan."""
        found = []
        for step in plans()[self.plan]:
            command = self.commands.get(step)
            found.append((step, f"{self.place}.{step}.begin"))
            if command:
                found += [(step, f"worker.{command}.{when}") for when in WHENS]
                found.append((step, f"{self.place}.{step}.reply"))
        return found

    def with_server(self):
        """The points where the server lives."""
        points = [point for _, point in self.points()]
        first = points.index(self.server_from) if self.server_from else 0
        last = points.index(self.server_until) if self.server_until else len(points)
        return points[first:last + 1]

    def cases(self, driver):
        served = self.with_server()
        for step, point in self.points():
            for victims in VICTIMS[point.split(".")[0].replace("undo", "core")][driver]:
                if "server" not in victims or point in served:
                    yield Case(driver, self, step, point, victims, False)
        for step, command in self.commands.items():
            for victims in MUTE_VICTIMS:
                if driver == "iscsi" and command in self.mute:
                    yield Case(driver, self, step, f"worker.{command}.before", victims, True)

    def journal_cases(self, driver, events):
        for event in events:
            for when in ("before", "after"):
                yield Case(driver, self, event, f"journal.{event}.{when}", ("agent",), False)

    # --- what a scenario is ---

    def prepare(self, rig):
        """Up to the request."""

    def ask(self, rig):
        rig.ask("put", VOLUME, rig.spec, wait=60)

    def allowed(self, case):
        """The ends: attached, absent, clean (failed with nothing left), failed (with something left), waiting,
        orphan, unknown (an orphan in no journal)."""

    def finish(self, rig, case, end):
        """Whatever the end was, the next request sets it right. Leaves what prepare() of the next case wants."""


class Fresh(Scenario):
    """An attach of a blank source."""
    name, plan = "attach", "attach"
    commands = {"map": "map", "identify": "identify", "check": "check", "format": "format", "mount": "mount"}
    mute = ("check", "format", "mount")
    fs = {"file": "ext4", "iscsi": "ext4"}
    server_from = "worker.map.inside"

    def prepare(self, rig):
        rig.wipe()

    def allowed(self, case):
        if case.point == "journal.attach_intent.before":
            return {"absent"}
        if case.point == "journal.attached.after":
            return {"attached"}
        if case.victims == ("server",) and case.step == "mount":
            return {"clean", "failed", "attached"}  # it was attached already, and lost its server then
        return {"attached", "clean"} if needs_no_worker(case) else {"clean"}

    def finish(self, rig, case, end):
        answer = rig.put()
        if answer.status == 409 and answer.code == "not-blank":
            # A mkfs that was cut off: do as the remedy says.
            assert "interrupted mkfs" in answer.json["detail"], answer
            rig.wipe()
            answer = rig.put()
        document = attached(rig, heal(rig, case, answer))
        rig.write_data(document, name_of(case))
        detach(rig, document)


class Undo(Fresh):
    """The undo of an attach that failed after its mount."""
    name, plan, place = "undo", "detach", "undo"
    commands = {"inspect": "inspect", "unmount": "unmount", "drain": "claim", "claim": None, "unmap": "unmap"}
    mute = ("unmount", "unmap")
    server_from, server_until = None, "worker.unmap.inside"

    def prepare(self, rig):
        super().prepare(rig)
        rig.agent.arm("core.mount.reply", "fail 5")

    def allowed(self, case):
        if case.point == "journal.attach_intent.before":
            return {"absent"}
        return {"clean"}


class Existing(Scenario):
    """Begins and ends attached, with data."""

    def prepare(self, rig):
        now = rig.agent.get(VOLUME)
        if now.status == 404 or now.json["state"] != "attached":
            rig.attach()
        self.document = rig.agent.get(VOLUME).expect(200).json
        rig.write_data(self.document, f"{next(SEEDS)}")

    def finish(self, rig, case, end):
        attached(rig, heal(rig, case, rig.put()), data=True)


class Verify(Existing):
    """A PUT of what is attached."""
    name, plan = "verify", "mend"
    commands = {"inspect": "inspect"}
    journal = ()
    whole = False

    def points(self):
        """That is where it ends."""
        return [(step, point) for step, point in super().points() if step == "inspect"]

    def allowed(self, case):
        return {"attached", "failed"} if "server" in case.victims else {"attached"}


class Unmounted(Existing):
    """A PUT after somebody unmounted it: the device is kept."""
    name, plan = "mend", "mend"
    commands = {"inspect": "inspect", "map": "keep", "identify": "identify", "check": "check", "format": None,
                "mount": "mount"}
    mute = ("check", "mount")

    def prepare(self, rig):
        super().prepare(rig)
        kernel.run("umount", self.document["mount_path"])
        eventually(lambda: rig.agent.get(VOLUME).json["state"] == "failed", 10, "noticed")
        rig.mark()

    def allowed(self, case):
        if "server" in case.victims:
            return {"attached", "failed", "clean"}
        if needs_no_worker(case):
            return {"attached", "failed"}
        if case.victims == ("worker",):
            return {"failed"}
        if case.step == "inspect" or case.step in ("mend_asked", "mend_intent"):
            return {"failed", "attached"}  # nothing was begun, or it goes on
        return {"attached"}


class Lost(Unmounted):
    """A PUT after somebody took the device, too."""
    name = "remap"
    drivers = ("file",)
    commands = {**Unmounted.commands, "map": "map"}

    def prepare(self, rig):
        Existing.prepare(self, rig)
        kernel.run("umount", self.document["mount_path"])
        kernel.run("losetup", "--detach", self.document["device"])
        eventually(lambda: rig.agent.get(VOLUME).json["state"] == "failed", 10, "noticed")
        rig.mark()


class Reattach(Existing):
    """A PUT after mooring-lun ended: a detach of what is left, then a fresh attach."""
    name, plan = "reattach", "detach"
    drivers = journal = ("iscsi",)
    commands = {"inspect": "inspect", "unmount": "unmount", "drain": "claim", "claim": None, "unmap": "unmap"}
    then = Fresh.commands | {"format": None}
    mute = ("mount",)
    server_from = "worker.map.inside"

    def points(self):
        second = Scenario()
        second.plan, second.commands = "attach", self.then
        return super().points() + second.points()

    def prepare(self, rig):
        super().prepare(rig)
        [server] = rig.servers()
        os.kill(server, signal.SIGKILL)
        eventually(lambda: rig.agent.get(VOLUME).json["state"] == "failed", 10, "noticed")
        rig.mark()

    def allowed(self, case):
        if case.step in self.then or case.step in ("attach_intent", "identity", "attached"):
            return Fresh.allowed(self, case) | ({"absent"} if case.step == "attach_intent" else set())
        if case.victims == ("worker",):
            return {"attached"}
        return {"attached", "absent"} | ({"failed"} if case.point == "journal.detach_intent.before" else set())


class Detach(Existing):
    """A detach of what nobody holds."""
    name, plan = "detach", "detach"
    commands = Undo.commands
    mute = Undo.mute
    server_until = "worker.unmap.inside"

    def ask(self, rig):
        rig.ask("delete", VOLUME, wait=60)

    def allowed(self, case):
        if case.point == "journal.detach_intent.before":
            return {"attached"}
        return {"absent", "failed"} if "server" in case.victims else {"absent"}

    def finish(self, rig, case, end):
        if end == "absent":
            assert_proof(rig, self.document)
        else:
            detach(rig, self.document)
        attached(rig, rig.put(), data=True)


class Held(Detach):
    """A detach that waits for a holder, which keeps reading. reached: [(step, command, whens)] while it waits."""
    server_until = None
    mute = ()
    journal = ()
    whole = False

    def __init__(self, held_by, *reached):
        self.name, self.held_by, self.reached = f"detach held by {held_by}", held_by, reached

    def points(self):
        return [(step, f"worker.{command}.{when}") for step, command, whens in self.reached for when in whens]

    def prepare(self, rig):
        super().prepare(rig)
        rig.holder = Sleeper(self.held_by, self.document)
        assert rig.holder.holds
        self.first = rig.holder.read()

    def allowed(self, case):
        return {"waiting", "failed"} if "server" in case.victims else {"waiting"}

    def finish(self, rig, case, end):
        never(lambda: not kernel.still_mapped(self.document), 0.1, "unmapped while it was held")
        if "server" not in case.victims:
            # What is in the first block of the device is the file system's, but for its magic number.
            part = 4 if self.held_by == "raw" else None
            assert rig.holder.read()[:part] == self.first[:part], "the holder reads something else"
        assert kernel.still_mapped(self.document), "unmapped while it was held"
        rig.release()
        end = settle(rig)
        rig.answered()
        if "server" not in case.victims:
            assert end == "absent", f"{end} after the holder went"
        super().finish(rig, case, end)


class Cancel(Existing):
    """A PUT that takes a waiting detach back."""
    name, plan = "cancel", "mend"
    commands = Unmounted.commands
    mute = Unmounted.mute

    def prepare(self, rig):
        super().prepare(rig)
        rig.holder = Sleeper("copy", self.document)
        assert rig.holder.holds
        rig.agent.delete(VOLUME, wait=0).expect(202)
        eventually(lambda: (d := rig.agent.get(VOLUME).json)["step"] == "drain" and d["holders"], 10, "it waits")
        rig.mark()

    def allowed(self, case):
        if case.point == "journal.detach_cancelled.before" or case.step == "queued":
            return {"waiting", "attached"}
        if "server" in case.victims:
            return {"attached", "failed"}
        if needs_no_worker(case):
            return {"attached", "failed"}
        if case.victims == ("worker",):
            return {"failed"}
        return {"attached"}

    def finish(self, rig, case, end):
        assert kernel.still_mapped(self.document), "unmapped while it was held"
        if "server" in case.victims:
            rig.release()
            super().finish(rig, case, end)
            return
        assert rig.holder.read() == rig.data[:4096]
        document = attached(rig, rig.put(), data=True)
        assert document["identity"] == self.document["identity"]
        rig.release()
        attached(rig, rig.put(), data=True)


class Adopt(Detach):
    """DELETE of an orphan that is in no journal."""
    name = "adoption"

    def prepare(self, rig):
        rig.volume = VOLUME
        super().prepare(rig)
        rig.agent.stop()
        for path in rig.agent.state.glob("journal.db*"):
            path.unlink()
        rig.agent.start()
        [row] = rig.agent.orphans()
        rig.volume = row["id"]
        rig.mark()

    def ask(self, rig):
        rig.ask("delete_orphan", rig.volume, wait=60)

    def allowed(self, case):
        if case.point == "journal.adopted.before":
            return {"unknown"}
        if case.point in ("journal.adopted.after", "journal.detach_intent.before"):
            return {"orphan"}
        return {"absent", "orphan"} if "server" in case.victims else {"absent"}

    def finish(self, rig, case, end):
        if end != "absent":
            rig.agent.delete_orphan(rig.volume, wait=60, accept_data_loss="true").expect(200)
        assert_proof(rig, self.document)
        assert rig.agent.orphans() == []
        rig.volume = VOLUME
        attached(rig, rig.put(), data=True)


SCENARIOS = (
    Fresh(), Undo(), Verify(), Unmounted(), Lost(), Reattach(), Detach(),
    Held("file", ("inspect", "inspect", WHENS), ("unmount", "unmount", ("before", "after"))),
    Held("copy", ("unmount", "unmount", WHENS), ("drain", "claim", ("before", "after"))),
    Held("raw", ("drain", "claim", WHENS), ("unmap", "unmap", WHENS), ("drain", "gone", WHENS)),
    Cancel(), Adopt(),
)


# --- what several of them need ---

def state(rig):
    """The end that the volume is at, or None as long as something goes on."""
    answer = rig.agent.get(rig.volume)
    if answer.status == 404:
        return "absent" if rig.volume == VOLUME or not rig.loops() else "unknown"
    document = answer.expect(200).json
    if document["state"] == "detaching" and rig.holder:
        return "waiting" if document["holders"] else None
    if document["operation"] is not None or document["state"] not in ("attached", "failed", "orphan"):
        return None
    if document["state"] == "failed":
        assert document["error"], f"failed without a reason: {document}"
        nothing = document["device"] is None and document["error"]["residue"] == "none"
        return "clean" if nothing else "failed"
    return document["state"]


def settle(rig):
    return eventually(lambda: state(rig), SETTLE_S, "the volume is at rest")


def heal(rig, case, answer):
    """answer: of a PUT. When the server died writes may be lost, which the caller has to accept."""
    if "server" in case.victims and answer.status not in (200, 201):
        detached = rig.agent.delete(VOLUME, wait=60, accept_data_loss="true").expect(200)
        assert detached.json["volume"] == VOLUME
        rig.expect_facts(None)
        answer = rig.put()
    return answer


def attached(rig, answer, data=False):
    """As the kernel sees it, too."""
    document = answer.expect(200, 201).json
    assert document["state"] == "attached" and document["error"] is None, document
    rig.expect_facts(document)
    rig.note_fuse(document)
    if data:
        rig.assert_data(document)
    return document


def assert_proof(rig, document):
    proof = rig.agent.delete(rig.volume, wait=20).expect(200).json
    evidence = proof["evidence"]
    if proof["released_at"] is None:
        assert "restart" in str(evidence), f"no time, and no reason for that: {proof}"
    assert evidence.get("diskseq") in (None, document["identity"]["diskseq"]), (proof, document)
    rig.expect_facts(None)


def detach(rig, document):
    rig.agent.delete(VOLUME, wait=60, accept_data_loss="true").expect(200)
    assert_proof(rig, document)


def run(rig, case):
    """One case; whatever is not as it must be is an AssertionError."""
    scenario = case.scenario
    scenario.prepare(rig)
    rig.agent.arm(case.point)
    scenario.ask(rig)
    stopped = rig.reach(case.point)
    rig.kill(case.victims, stopped, case.mute)
    end = settle(rig)
    if end == "attached" and "server" in case.victims:
        end = eventually(lambda: settle(rig) if rig.servers() or state(rig) != "attached" else None, 5, "noticed")
    allowed = scenario.allowed(case)
    assert end in allowed, f"ended {end}, allowed {allowed}: {rig.agent.get(rig.volume)!r}"
    if end != "waiting":
        answer = rig.answered()
        if case.victims == ("worker",) and scenario.whole:
            assert (answer.status in (200, 201)) == (end in ("attached", "absent")), f"{end}, but said was {answer!r}"
    if end in ("absent", "clean"):
        rig.expect_facts(None)
    if end == "failed":
        document = rig.agent.get(rig.volume).json
        assert document["error"]["residue"] != "none", document
        assert document["device"] is None or rig.loops() in ([], [document["device"]]), (rig.loops(), document)
    scenario.finish(rig, case, end)
    rig.expect_no_worker()


def rehearse(rig, scenario):
    """Without any fault: the events that it writes down."""
    scenario.prepare(rig)
    rig.mark()
    scenario.ask(rig)
    rig.request.join(30)
    end = settle(rig)
    events = list(dict.fromkeys(event for event, _ in rig.events()))
    scenario.finish(rig, Case(rig.driver, scenario, None, "rehearsal", (), False), end)
    return events
