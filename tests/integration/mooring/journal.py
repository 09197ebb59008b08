# SPDX-License-Identifier: Apache-2.0
"""The journal of an agent that is not running, read and changed behind its back."""
import contextlib
import json
import os
import sqlite3

OTHER_BOOT = "00000000-0000-4000-8000-00000000b007"


class Journal:
    """with Journal(agent) as journal: ...; what was changed is in the file afterwards, unless there was an error."""

    def __init__(self, agent):
        assert not agent.running, "the agent has it"
        self.path = agent.state / "journal.db"

    def __enter__(self):
        self.db = sqlite3.connect(self.path)
        return self

    def __exit__(self, kind, value, trace):
        with contextlib.closing(self.db):
            if kind is None:
                self.db.commit()

    def row(self, volume):
        """(state, document)"""
        state, text = self.db.execute("SELECT state, doc FROM volume WHERE id = ?", (volume,)).fetchone()
        return state, json.loads(text)

    def edit(self, volume, state=None, **members):
        """Sets members of the volume's document; a dict is merged into what is there."""
        old_state, document = self.row(volume)
        for name, value in members.items():
            both = isinstance(value, dict) and isinstance(document[name], dict)
            document[name] = {**document[name], **value} if both else value
        self.write(volume, state or old_state, document)

    def write(self, volume, state, document):
        self.db.execute("UPDATE volume SET state = ?, doc = ? WHERE id = ?", (state, json.dumps(document), volume))

    def reboot(self):
        """All that was done was done in another boot."""
        for (volume,) in self.db.execute("SELECT id FROM volume").fetchall():
            _, document = self.row(volume)
            self.edit(volume, boot_id=OTHER_BOOT,
                      format=document["format"] and {**document["format"], "boot_id": OTHER_BOOT})

    def drop(self, volume):
        """Every trace of it."""
        [number] = self.db.execute("SELECT number FROM volume WHERE id = ?", (volume,)).fetchone()
        for table, column in (("history", "volume"), ("operation", "volume"), ("volume", "number")):
            self.db.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))


def move_away(agent):
    """The agent has no journal any more. Its file stays below the agent's directory, where leaks finds the tokens."""
    assert not agent.running, "the agent has it"
    away = agent.base / "away"
    away.mkdir(exist_ok=True)
    for path in agent.state.glob("journal.db*"):
        os.rename(path, away / path.name)
