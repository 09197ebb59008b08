# SPDX-License-Identifier: Apache-2.0
"""cmake --install gives a tree that works where it is put."""
import os
import pathlib
import subprocess

import pytest

from mooring.agent import TOP, build_dir
from mooring.kernel import our_processes, run


@pytest.fixture
def prefix(tmp):
    """An installation of the build under test below a directory of its own."""
    path = tmp / "prefix"
    if not (build_dir() / "CMakeCache.txt").exists():
        pytest.fail(f"no build in {build_dir()}: cmake --preset release && cmake --build --preset release")
    run("cmake", "--install", build_dir(), "--prefix", path)
    return path


def test_what_is_installed(prefix):
    for program in ("sbin/mooringd", "libexec/mooring/mooring-worker", "libexec/mooring/mooring-lun",
                    "libexec/mooring/mooring-selftest"):
        assert os.access(prefix / program, os.X_OK), program
    files = {str(p.relative_to(prefix)) for p in prefix.rglob("*") if p.is_file()}
    assert "lib/systemd/system/mooring.service" in files
    assert {"share/doc/mooring/mooring.conf", "share/doc/mooring/README.md"} <= files
    version = run(prefix / "sbin/mooringd", "--version").stdout
    project = (TOP / "CMakeLists.txt").read_text().split("project(mooring VERSION ")[1].split()[0]
    assert project in version
    unit = (prefix / "lib/systemd/system/mooring.service").read_text()
    assert f"ExecStart={prefix}/sbin/mooringd" in unit


def test_installed_agent_works(prefix, agent, image, target):
    a = agent(binary=prefix / "sbin/mooringd")
    doc = a.attach("f", a.file_spec(image()))
    pathlib.Path(doc["mount_path"], "x").write_text("x")
    a.attach("i", target.spec())
    [lun] = our_processes("mooring-lun")
    assert os.readlink(f"/proc/{lun.pid}/exe") == str(prefix / "libexec/mooring/mooring-lun"), "its own helpers"
    assert a.detach("f")["evidence"]["exclusive_open"] is True
    assert a.detach("i")["evidence"]["exclusive_open"] is True


def test_sample_configuration_is_valid(prefix, tmp):
    text = (prefix / "share/doc/mooring/mooring.conf").read_text()
    for root in ("volumes", "images"):
        (tmp / root).mkdir()
        text = text.replace(f"/var/lib/mooring/{root}", str(tmp / root))
    # Every key is in it, commented out: with all of them taken in it must still be valid.
    keys = [line.removeprefix("#") if line.startswith("#") and "=" in line and line[1] != " " else line
            for line in text.splitlines()]
    for name, lines in (("as it is", text), ("all keys", "\n".join(keys) + "\n")):
        path = tmp / "check.conf"
        path.write_text(lines)
        done = subprocess.run([prefix / "sbin/mooringd", "--config", path, "--check-config"], timeout=20,
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, (name, done)


@pytest.mark.parametrize("argv, status", [
    (["--no-such-option"], 64),
    (["--config", "/nonexistent/mooring.conf"], 78),
])
def test_exit_status(prefix, argv, status):
    done = subprocess.run([prefix / "sbin/mooringd", *argv], timeout=20, capture_output=True, text=True, check=False)
    assert done.returncode == status and done.stderr, done
