# SPDX-License-Identifier: Apache-2.0
"""A writer that syncs everything, and remembers what the kernel said was written; and fio, which has many writes
under way at a time."""
import hashlib
import os
import pathlib
import subprocess
import threading
import time

from .wait import eventually

PIECE_BYTES = 64 << 10
FILES = 512  # written over and over


class Load:
    """with Load(mount_path) as load: ...; then .errors, .longest_s, and check()."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.written = {}  # name: digest
        self.doubtful = set()
        self.errors = []
        self.longest_s = 0.0
        self.count = 0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _write(self, name, data):
        fd = os.open(self.path / name, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view):]
            os.fsync(fd)
        finally:
            os.close(fd)

    def _run(self):
        while not self.stopped.is_set():
            name, data = f"load{self.count % FILES}", os.urandom(PIECE_BYTES)
            started = time.monotonic()
            self.doubtful.add(name)
            try:
                self._write(name, data)
                self.written[name] = hashlib.sha256(data).hexdigest()
                self.doubtful.discard(name)
            except OSError as error:
                self.errors.append((time.monotonic() - started, error))
                time.sleep(0.1)
            self.longest_s = max(self.longest_s, time.monotonic() - started)
            self.count += 1

    def goes_on(self, timeout=60):
        """Waits until it has written and synced something that it began from now on."""
        count = self.count
        eventually(lambda: self.count > count + 3, timeout, "the writer goes on")

    def __enter__(self):
        self.thread.start()
        eventually(lambda: self.count > 3 or self.errors, 30, "the writer writes")
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join(120)
        assert not self.thread.is_alive(), "the writer hangs"

    def check(self, path=None):
        """All that was said to be written is there."""
        wrong = [name for name, digest in self.written.items() if name not in self.doubtful and
                 hashlib.sha256(pathlib.Path(path or self.path, name).read_bytes()).hexdigest() != digest]
        assert wrong == [], f"{len(wrong)} of {len(self.written)} files differ"
        return len(self.written)


def fio(path, *options):
    """Starts fio(1), which writes at a queue depth of its own and verifies what it wrote."""
    argv = ["fio", "--name=v", f"--filename={path}", "--direct=1", "--verify=crc32c", "--verify_fatal=1",
            "--ioengine=io_uring", "--output-format=terse", "--rw=randwrite", *options]
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            cwd="/tmp")


def ended(process, timeout):
    """Waits for it, and it must have found everything as it was written."""
    try:
        said, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, said
