# SPDX-License-Identifier: Apache-2.0
"""A real mooringd with directories of its own."""
import configparser
import os
import pathlib
import re
import signal
import subprocess
import urllib.parse

from . import client
from .wait import eventually

TOP = pathlib.Path(__file__).resolve().parents[3]


def build_dir():
    """MOORING_BUILD: a preset's name (default release) or a build directory."""
    choice = os.environ.get("MOORING_BUILD", "release")
    return pathlib.Path(choice) if "/" in choice else TOP / "build" / choice


def merge(base, more):
    merged = {section: dict(keys) for section, keys in base.items()}
    for section, keys in (more or {}).items():
        merged.setdefault(section, {}).update(keys)
    return merged


class Agent:
    """base: a directory of its own with short path (unix sockets hold 107 bytes). network: where it lives, netns.py."""

    def __init__(self, base, config=None, binary=None, loopback=True, options=(), network=None):
        self.base = pathlib.Path(base)
        self.state = self.base / "state"
        self.runtime = self.base / "run"
        self.mount_root = self.base / "mnt"
        self.file_root = self.base / "images"
        for directory in (self.state, self.runtime, self.mount_root, self.file_root):
            directory.mkdir(parents=True, exist_ok=True)
        self.binary = pathlib.Path(binary or build_dir() / "sbin/mooringd")
        self.socket = self.runtime / "agent.sock"
        self.log_path = self.base / "agent.log"
        self.config_path = self.base / "mooring.conf"
        self.loopback = loopback
        self.options = list(options)
        self.network = network
        self.tcp = None
        self.process = None
        self.configure(config)

    # --- life ---

    def configure(self, config=None):
        """Writes the configuration file; takes effect at the next start."""
        self.config = merge({
            "mount": {"roots": self.mount_root},
            "file": {"roots": self.file_root},
            "iscsi": {"initiator_name": "iqn.2026-11.example.test:initiator", "timeout_seconds": 3},
            "worker": {"deadline_seconds": 20, "format_deadline_seconds": 60},
        }, config)
        ini = configparser.ConfigParser(interpolation=None)
        ini.read_dict({s: {k: str(v) for k, v in keys.items()} for s, keys in self.config.items()})
        with open(self.config_path, "w", encoding="utf-8") as file:
            ini.write(file)

    def argv(self):
        argv = [self.binary, "--config", self.config_path, "--state-dir", self.state,
                "--runtime-dir", self.runtime, "--listen", f"unix:{self.socket}"]
        if self.loopback:
            argv += ["--listen", "127.0.0.1:0", "--insecure-loopback"]
        return [str(a) for a in [*(self.network.at_agent if self.network else ()), *argv, *self.options]]

    def environment(self):
        clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C", "MOORING_LOG": "debug"}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS"):
            if name in os.environ:
                clean[name] = os.environ[name]
        return clean

    def spawn(self):
        """Starts the program without waiting for anything."""
        assert self.process is None, "is running already"
        assert self.binary.exists(), f"{self.binary} is missing: build it, or set MOORING_BUILD"
        self.log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=self.environment(), cwd="/")

    def start(self, timeout=20, ready=True):
        """Starts, and returns when it answers and (ready) has read its journal back."""
        self.spawn()
        eventually(self._listening, timeout, "the agent listens")
        eventually(lambda: self.request("GET", "/livez", timeout=2).status == 200, timeout, "livez")
        if ready:
            self.wait_ready(timeout)
        return self

    def wait_ready(self, timeout=20):
        eventually(lambda: self.request("GET", "/readyz", timeout=2).status != 503, timeout, "recovered")

    def refused_to_start(self, timeout=20):
        """Starts it, and it must end by itself: its CompletedProcess, with all it said in stderr."""
        assert self.process is None, "is running already"
        return subprocess.run(self.argv(), capture_output=True, text=True, timeout=timeout, check=False,
                              stdin=subprocess.DEVNULL, env=self.environment(), cwd="/")

    def _listening(self):
        code = self.process.poll()
        if code is not None:
            self.process = None
            raise RuntimeError(f"mooringd ended with {code}:\n{self.log()}")
        addresses = dict(a.split(":", 1) for a in re.findall(r"listening on (\S+)", self.log(self.log_start)))
        self.tcp = addresses.get("tcp")
        return addresses.get("unix") == str(self.socket) and (self.tcp or not self.loopback)

    @property
    def pid(self):
        return self.process.pid if self.process else None

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill9(self):
        self.process.kill()
        self.process.wait(10)
        self.process = None

    def stop(self, timeout=15):
        """Asks it to end, and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            self.kill9()
            raise AssertionError(f"mooringd did not end within {timeout} s after SIGTERM:\n{self.log()}") from error
        finally:
            self.process = None

    def restart(self, how="stop"):
        getattr(self, how)()
        return self.start()

    def log(self, offset=0):
        try:
            return self.log_path.read_bytes()[offset:].decode(errors="replace")
        except FileNotFoundError:
            return ""

    # --- requests ---

    def request(self, method, target, body=None, headers=None, timeout=90):
        return client.request(self.socket, method, target, body, headers, timeout)

    @staticmethod
    def _prefer(wait):
        if wait is None:
            return {}
        return {"Prefer": "respond-async" if wait == 0 else f"wait={wait}"}

    @staticmethod
    def _target(volume, **query):
        query = {k: v for k, v in query.items() if v is not None}
        return f"/volumes/{volume}" + ("?" + urllib.parse.urlencode(query) if query else "")

    def put(self, volume, spec, wait=None, timeout=90):
        """wait: seconds for Prefer: wait=N, 0 for respond-async, None for no Prefer."""
        return self.request("PUT", self._target(volume), spec, self._prefer(wait), timeout)

    def get(self, volume):
        return self.request("GET", self._target(volume), timeout=10)

    def delete(self, volume, wait=None, mount_path=None, accept_data_loss=None, timeout=90):
        target = self._target(volume, mount_path=mount_path, accept_data_loss=accept_data_loss)
        return self.request("DELETE", target, None, self._prefer(wait), timeout)

    def holders(self, volume):
        return self.request("GET", f"/volumes/{volume}/holders", timeout=30).expect(200).json

    def act(self, volume, action, holders=None, signal=None, accept_data_loss=None, timeout=100):
        """POST holders/actions; holders: rows of a Holders document, or their ids."""
        body = {"action": action, "signal": signal, "accept_data_loss": accept_data_loss,
                "holders": holders and [h if isinstance(h, str) else h["id"] for h in holders]}
        body = {k: v for k, v in body.items() if v is not None}
        return self.request("POST", f"/volumes/{volume}/holders/actions", body, timeout=timeout)

    def forget(self, volume, reason=None):
        return self.request("POST", f"/volumes/{volume}/forget", {"reason": reason} if reason else None)

    def history(self, volume):
        """All items, page by page."""
        items, query = [], {}
        while True:
            target = f"/volumes/{volume}/history" + ("?" + urllib.parse.urlencode(query) if query else "")
            page = self.request("GET", target, timeout=30).expect(200).json
            items += page["items"]
            if page["next_page_token"] is None:
                return items
            query["page_token"] = page["next_page_token"]

    def orphans(self):
        return self.request("GET", "/orphans", timeout=10).expect(200).json["items"]

    def delete_orphan(self, volume, wait=None, accept_data_loss=None, timeout=90):
        query = f"?accept_data_loss={accept_data_loss}" if accept_data_loss else ""
        return self.request("DELETE", f"/orphans/{volume}{query}", None, self._prefer(wait), timeout)

    def operation(self, operation, wait=None):
        return self.request("GET", f"/operations/{operation}", None, self._prefer(wait)).expect(200).json

    def volumes(self):
        return self.request("GET", "/volumes", timeout=10).expect(200).json["items"]

    # --- what most tests want ---

    def attach(self, volume, spec):
        """PUT that must attach; returns the volume document."""
        document = self.put(volume, spec).expect(200, 201).json
        assert document["state"] == "attached", document
        return document

    def detach(self, volume, **query):
        """DELETE that must end with the proof of release; returns it."""
        return self.delete(volume, **query).expect(200).json

    def file_spec(self, path, fs="xfs", fmt="if-blank", **more):
        return {"source": {"driver": "file", "path": str(path)},
                "filesystem": {"type": fs, "format": fmt, **more.pop("filesystem", {})}, **more}
