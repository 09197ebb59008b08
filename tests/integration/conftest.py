# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a directory, agents, targets, images and holders of one test, and nothing left after it.

    def test_x(agent, target, image, hold):
        a = agent()                           # a running mooringd; agent(config={...}), agent(binary=...)
        doc = a.attach("v", a.file_spec(image(320 << 20)))
        copy = hold.mount_copy(doc)           # ... and copy.release()
        a.delete("v", wait=1).expect(202)
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mooring import kernel, leaks  # noqa: E402
from mooring.agent import Agent, build_dir  # noqa: E402
from mooring.fuse import FuseFile, compile_server  # noqa: E402
from mooring.holders import Holders  # noqa: E402
from mooring.observer import Observer  # noqa: E402
from mooring.proxy import Proxy  # noqa: E402
from mooring.target import Target  # noqa: E402
from mooring.udev import Udevd  # noqa: E402

MIB = 1 << 20
# What a waiting test asks all the time does not help in a report.
POLLS = re.compile(r"method=GET route=/(livez|readyz|volumes|operations/{op}|volumes/{id}) .*status=200")


def pytest_configure(config):
    if os.geteuid() != 0:
        raise pytest.UsageError("the integration tests need root: use tests/run")
    kernel.enter_private_namespace()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """The agents' logs belong to the report of a failed test."""
    outcome = yield
    report = outcome.get_result()
    if report.failed and "tmp" in getattr(item, "funcargs", {}):
        # Not deeper: a volume that is mounted there may be mute.
        for path in sorted(pathlib.Path(item.funcargs["tmp"]).glob("*/agent.log")):
            lines = [line for line in path.read_text(errors="replace").splitlines() if not POLLS.search(line)]
            report.sections.append((f"{call.when}: {path.parent.name}/agent.log", "\n".join(lines[-100:])))


@pytest.fixture(scope="session")
def holder_binary():
    return build_dir() / "libexec/mooring/mooring-selftest"


@pytest.fixture(autouse=True)
def tmp():
    """A directory with a short path; what is left below it or of our processes fails the test."""
    base = pathlib.Path(tempfile.mkdtemp(prefix="mr", dir="/tmp"))
    yield base
    left = leaks.wait_clean(base)
    if left:
        leaks.clean_up(base)
    shutil.rmtree(base, ignore_errors=not left)
    assert not left, f"left behind: {left}"


@pytest.fixture
def targets(tmp):
    """A factory of targets."""
    made = []

    def make(**options):
        made.append(Target(tmp, **options))
        return made[-1]

    make.all = made
    yield make
    for one in made:
        one.kill()


@pytest.fixture
def target(targets):
    """A target with one LUN of 320 MiB: small, and xfs takes it."""
    one = targets()
    one.add_lun(320 * MIB)
    return one


@pytest.fixture
def agent(tmp, targets, fuse_files):
    """A factory of running agents. At the end everything is detached and the agents must end cleanly."""
    made = []

    def make(start=True, base=None, **options):
        one = Agent(base or tmp / f"a{len(made)}", **options)
        made.append(one)
        return one.start() if start else one

    yield make
    for one in targets.all:
        if one.process:
            one.cont()
    for one in fuse_files.all:
        one.recover()
    leaks.wake("mooring-lun", "mooring-lun-io")  # a failed test may have left it stopped
    problems = []
    for one in made:
        if not one.running:
            continue
        try:
            for volume in one.volumes():
                answer = one.delete(volume["id"], wait=10, accept_data_loss="true")
                if answer.status != 200:
                    problems.append(f"detach of {volume['id']} at the end: {answer!r}")
            status = one.stop()
            if status != 0:
                problems.append(f"mooringd ended with {status}")
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            problems.append(repr(error))
            if one.running:
                one.kill9()
    assert not problems, problems


@pytest.fixture
def image(tmp):
    """A factory of sparse image files in the first agent's file root."""
    root = tmp / "a0" / "images"
    root.mkdir(parents=True, exist_ok=True)
    made = []

    def make(size=320 * MIB, name=None):
        path = root / (name or f"image{len(made)}.img")
        with open(path, "wb") as file:
            file.truncate(size)
        made.append(path)
        return path

    return make


@pytest.fixture(scope="session")
def fuse_binary(tmp_path_factory):
    return compile_server(tmp_path_factory.mktemp("fuse"))


@pytest.fixture
def fuse_files(tmp, fuse_binary):
    """A factory of files in the first agent's file root that can be made to fail or to fall silent. They are well
    again, or gone, before the agents end."""
    root = tmp / "a0" / "images"
    root.mkdir(parents=True, exist_ok=True)
    made = []

    def make(size=320 * MIB):
        made.append(FuseFile(fuse_binary, root / f"fuse{len(made)}.img", size))
        return made[-1]

    make.all = made
    yield make
    for one in made:
        one.end()


@pytest.fixture
def hold(agent, holder_binary, tmp):
    """Things that hold a volume. They end before the agent does."""
    holders = Holders(holder_binary, tmp)
    yield holders
    holders.release_all()


@pytest.fixture
def observer():
    """Looks for early unmaps. Every test that has it fails if there was one."""
    one = Observer()
    one.start()
    yield one
    one.stop()
    assert one.early == []


@pytest.fixture
def udevd():
    """systemd-udevd runs. To be asked for before there is a volume."""
    one = Udevd()
    yield one
    one.end()


@pytest.fixture
def proxy(target):
    """Between the agent and the target; use its .portal."""
    proxy = Proxy(target.port)
    proxy.start()
    yield proxy
    proxy.listener.close()
