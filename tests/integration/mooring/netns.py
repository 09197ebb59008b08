# SPDX-License-Identifier: Apache-2.0
"""Two network namespaces with a wire between them, one for the agent and one for the target: what happens to a
connection when packets are lost can be tried without touching the machine's network. network_namespaces(7), veth(4)."""
import contextlib
import itertools
import os

from .kernel import run


class Network:
    numbers = itertools.count(1)
    agent_address, target_address, other_address = "10.77.0.1", "10.77.0.2", "10.77.0.3"

    def __init__(self):
        name = f"mr{os.getpid()}-{next(self.numbers)}"
        self.names = (f"{name}a", f"{name}t")
        self.made = []
        try:
            for one in self.names:
                run("ip", "netns", "add", one)
                self.made.append(one)
            run("ip", "link", "add", "wire", "netns", self.names[0], "type", "veth",
                "peer", "name", "wire", "netns", self.names[1])
            for one, address in zip(self.names, (self.agent_address, self.target_address)):
                run("ip", "-n", one, "address", "add", f"{address}/24", "dev", "wire")
                run("ip", "-n", one, "link", "set", "wire", "up")
                run("ip", "-n", one, "link", "set", "lo", "up")
            run("ip", "-n", self.names[1], "address", "add", f"{self.other_address}/24", "dev", "wire")
        except BaseException:
            self.end()
            raise

    @staticmethod
    def _enter(name):
        # Not `ip netns exec`, which makes a mount namespace of its own.
        return ["nsenter", f"--net=/run/netns/{name}"]

    @property
    def at_agent(self):
        return self._enter(self.names[0])

    @property
    def at_target(self):
        return self._enter(self.names[1])

    @contextlib.contextmanager
    def dropped(self, *match):
        """Packets from the agent's side, or those that match (iptables-extensions(8)), vanish."""
        rule = ["OUTPUT", "-p", "tcp", *match, "-j", "DROP"]
        run(*self.at_agent, "iptables", "-w", "-A", *rule)
        try:
            yield
        finally:
            run(*self.at_agent, "iptables", "-w", "-D", *rule)

    @contextlib.contextmanager
    def no_route(self, address):
        """connect(2) fails at once with EHOSTUNREACH, and nothing comes through."""
        route = ["unreachable", f"{address}/32"]
        run("ip", "-n", self.names[0], "route", "add", *route)
        try:
            yield
        finally:
            run("ip", "-n", self.names[0], "route", "del", *route)

    def connections(self, port):
        """Local ports of the agent's side with a connection to the target's port."""
        shown = run(*self.at_agent, "ss", "-Htn", "state", "established", f"( dport = :{port} )").stdout
        return [int(line.split()[2].rsplit(":", 1)[1]) for line in shown.splitlines()]

    def end(self):
        for one in self.made:
            run("ip", "netns", "del", one, check=False)
        self.made = []
