# SPDX-License-Identifier: Apache-2.0
"""A real iSCSI target: tgtd on a loopback port of its own, with a control socket of its own."""
import itertools
import os
import re
import signal
import socket
import subprocess

from .kernel import run
from .wait import eventually


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Target:
    """CHAP: chap=(user, password), and mutual=(user, password) with which the target proves itself. LUNs are sparse
    files in base. With a network (netns.py) it listens there instead of on loopback."""

    numbers = itertools.count(1)

    def __init__(self, base, chap=None, name=None, mutual=None, network=None, address=None, tid=1):
        number = next(self.numbers)
        self.base = base
        self.chap = chap
        self.mutual = mutual
        self.network = network
        self.tid = tid  # two tgtd give LUNs of the same number the same WWN, but for this
        self.address = address or (network.target_address if network else "127.0.0.1")
        self.name = name or f"iqn.2026-11.example.test:target{os.getpid()}.{number}"
        self.control = f"{base}/tgt{number}"
        self.luns = {}
        self.options = {}  # of the LUNs
        self.process = None
        for _ in range(5):
            if self._start(free_port()):
                break
        else:
            raise RuntimeError("no free port for tgtd")
        self._configure()

    def _start(self, port):
        self.port = port
        self.portal = f"{self.address}:{port}"
        with open(f"{self.base}/tgtd.log", "ab") as log:
            self.process = subprocess.Popen(
                [*(self.network.at_target if self.network else ()), "tgtd", "-f", "-C", "1", "--iscsi",
                 f"portal={self.portal}"],
                env={"PATH": os.environ["PATH"], "TGT_IPC_SOCKET": self.control},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        def portals():
            shown = self.admin("show", mode="portal", check=False).stdout
            return shown if "Portal:" in shown else None
        shown = eventually(portals, 10, "tgtd answers")
        # Without its port tgtd goes on, and listens everywhere on the default one.
        if f"Portal: {self.portal}," in shown and shown.count("Portal:") == 1:
            return True
        self.kill()
        return False

    def admin(self, op, check=True, **options):
        """tgtadm --lld iscsi --op OP --OPTION VALUE ..."""
        argv = ["tgtadm", "-C", "1", "--lld", "iscsi", "--op", op]
        for name, value in options.items():
            argv += ["--" + name.replace("_", "-"), str(value)]
        return run(*argv, check=check, env={**os.environ, "TGT_IPC_SOCKET": self.control}, timeout=10)

    def _configure(self):
        self.admin("new", mode="target", tid=self.tid, targetname=self.name)
        self.admin("bind", mode="target", tid=self.tid,
                   initiator_address=self.network.agent_address if self.network else "127.0.0.1")
        if self.chap:
            self.admin("new", mode="account", user=self.chap[0], password=self.chap[1])
            self.admin("bind", mode="account", tid=self.tid, user=self.chap[0])
        if self.mutual:
            self.admin("new", mode="account", user=self.mutual[0], password=self.mutual[1])
            run("tgtadm", "-C", "1", "--lld", "iscsi", "--op", "bind", "--mode", "account", "--tid", str(self.tid), "--user",
                self.mutual[0], "--outgoing", env={**os.environ, "TGT_IPC_SOCKET": self.control}, timeout=10)

    def add_lun(self, size=320 << 20, path=None, block_size=512, thin=False):
        """A LUN on a sparse file; returns its number."""
        lun = len(self.luns) + 1
        path = str(path or f"{self.control}.lun{lun}.img")
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.truncate(size)
        self.luns[lun] = path
        self.options[lun] = (block_size, thin)
        self._export(lun)
        return lun

    def _export(self, lun):
        block_size, thin = self.options[lun]
        self.admin("new", mode="logicalunit", tid=self.tid, lun=lun, backing_store=self.luns[lun], blocksize=block_size)
        if thin:
            self.admin("update", mode="logicalunit", tid=self.tid, lun=lun, params="thin_provisioning=1")

    def spec(self, lun=1, fs="xfs", fmt="if-blank", chap=None, portals=None, target=None, replacement=None, **more):
        """replacement: seconds until requests that wait for a session fail; 0: at once."""
        source = {"driver": "iscsi", "portals": portals or [self.portal], "target": target or self.name, "lun": lun}
        if chap or self.chap:
            user, password = chap or self.chap
            source["chap"] = {"username": user, "password": password}
        if replacement is not None:
            source["replacement_timeout_s"] = replacement
        return {"source": source, "filesystem": {"type": fs, "format": fmt, **more.pop("filesystem", {})}, **more}

    def connections(self):
        """Open sessions as (session, connection, address)."""
        shown = self.admin("show", mode="conn", tid=self.tid).stdout
        return re.findall(r"Session: (\d+)\s+Connection: (\d+)\s+Initiator: \S+\s+IP Address: (\S+)", shown)

    # --- faults ---

    def stop(self):
        """The target falls silent; its connections stay open."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def cont(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def restart(self):
        """After kill(): the same again, as far as a target keeps it (its reservations are forgotten)."""
        assert self._start(self.port), "its port was taken"
        self._configure()
        for lun in self.luns:
            self._export(lun)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.process = None
