# SPDX-License-Identifier: Apache-2.0
"""The processes of the LUN server: a keeper for each volume, and the server that it started; and what they say."""
import json
import os
import re
import subprocess

import pytest

from . import kernel
from .agent import build_dir

# A server that is killed has a successor only where the kernel sends the requests again that it had: FUSE_HAS_RESEND.
RESENDS = [int(number) for number in re.findall(r"\d+", os.uname().release)[:2]] >= [6, 9]
needs_resend = pytest.mark.skipif(not RESENDS, reason="the kernel is older than 6.9")


def keepers():
    return kernel.our_processes("mooring-lun")


def servers():
    return kernel.our_processes("mooring-lun-io")


def control(a, verb, timeout=30, check=True, **arguments):
    """What the keeper of the agent's only iSCSI volume answers to a verb of the control socket."""
    [socket] = (a.runtime / "lun").glob("*.sock")
    argv = [build_dir() / "libexec/mooring/mooring-lun", "control", socket, verb,
            *(f"{name}={value}" for name, value in arguments.items())]
    done = subprocess.run([str(arg) for arg in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          stdin=subprocess.DEVNULL, timeout=timeout, check=False)
    if check:
        assert done.returncode == 0, f"{verb}: {done.returncode}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout)


class Watcher:
    """Reads the documents that the keeper of the agent's only iSCSI volume pushes."""

    def __init__(self, a):
        [socket] = (a.runtime / "lun").glob("*.sock")
        self.process = subprocess.Popen([build_dir() / "libexec/mooring/mooring-lun", "control", socket, "watch"],
                                        stdout=subprocess.PIPE, text=True)

    def hear(self, condition):
        """Until one is as wanted. The keeper ends in the end, whatever happens."""
        text = ""
        for line in self.process.stdout:
            text += line
            if line == "}\n":
                document, text = json.loads(text), ""
                if condition(document):
                    return document
        raise AssertionError("the keeper hung up")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def status(a):
    return control(a, "status")
