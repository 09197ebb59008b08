# SPDX-License-Identifier: Apache-2.0
"""The processes of the LUN server: a keeper for each volume, and the server that it started; and what they say."""
import json
import subprocess

from . import kernel
from .agent import build_dir


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


def status(a):
    return control(a, "status")
