# SPDX-License-Identifier: Apache-2.0
"""A worker that lies: lying_worker.py REAL_WORKER ARGUMENT... sits between the agent and a real worker, and makes of
every "busy" a success."""
import json
import os
import select
import socket
import sys

CHANNEL_FD, MESSAGE_MAX = 3, 192 * 1024
LIES = {("unmount", "busy"): "unmounted", ("claim", "busy"): "claimed", ("unmap", "bound"): "gone",
        ("gone", "bound"): "gone"}
EVIDENCE = {"exclusive_open": True, "diskseq": 0, "gone": "diskseq changed"}


class Liar:
    def __init__(self, agent, worker):
        self.agent, self.worker = agent, worker
        self.lied = False

    def command(self, data):
        """The worker has no claim, and would refuse: the one that lied goes on lying."""
        name = json.loads(data).get("cmd")
        if self.lied and name in ("unmap", "gone"):
            self.agent.send(json.dumps({"reply": name, "ok": True, "result": "gone", "evidence": EVIDENCE}).encode())
        else:
            self.worker.send(data)

    def reply(self, data):
        message = json.loads(data)
        lie = LIES.get((message.get("reply"), message.get("result")))
        if lie:
            message.update(result=lie, evidence=EVIDENCE)
            self.lied = True
        self.agent.send(json.dumps(message).encode())

    def relay(self):
        while True:
            ready, _, _ = select.select([self.agent, self.worker], [], [])
            for source in ready:
                data = source.recv(MESSAGE_MAX)
                if not data:
                    return
                if source is self.agent:
                    self.command(data)
                else:
                    self.reply(data)


def main():
    real, arguments = sys.argv[1], sys.argv[2:]
    if arguments[0] != "volume":
        os.execv(real, [real, *arguments])
    agent = socket.socket(fileno=os.dup(CHANNEL_FD))
    worker, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        os.dup2(theirs.fileno(), CHANNEL_FD)
        os.execv(real, [real, *arguments])
    theirs.close()
    os.close(CHANNEL_FD)
    Liar(agent, worker).relay()
    worker.close()  # it ends by that
    os.wait()


main()
