# SPDX-License-Identifier: Apache-2.0
"""A directory whose storage fails on request: fault_dir.py BACKING TARGET mounts BACKING, served by FUSE, over TARGET
and says "ready". Then it obeys lines on stdin, each answered by "ok":

    change ERRNO   whatever would change something fails with this number; what is there can be read
    fsync ERRNO    only fsync fails
    mute           requests are taken and not answered: who waits for them sits in D
    well           no fault; what waits is answered now

It ends when it is unmounted, or with stdin. Raw protocol of linux/fuse.h, fuse(4). A node is an O_PATH fd, which keeps
the inode of BACKING: its number is the node's. Locks are the kernel's own.
"""
import ctypes
import errno
import os
import select
import stat
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)

IN_HEADER = struct.Struct("<IIQQIIIHH")
OUT_HEADER = struct.Struct("<IiQ")
ATTR = struct.Struct("<6Q10I")
MAX_WRITE = 128 << 10
ROOT = 1
AT_EMPTY_PATH = 0x1000
FUSE_FH, SIZE, MODE = 1 << 6, 1 << 3, 1 << 0  # FATTR_*
(LOOKUP, FORGET, GETATTR, SETATTR, MKDIR, UNLINK, RMDIR, RENAME, LINK, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC,
 INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR, CREATE, INTERRUPT, BATCH_FORGET, FALLOCATE) = (
    1, 2, 3, 4, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 26, 27, 28, 29, 30, 35, 36, 42, 43)
CHANGES = {SETATTR, MKDIR, UNLINK, RMDIR, RENAME, LINK, WRITE, CREATE, FALLOCATE}


class Nodes:
    def __init__(self, backing):
        self.fds = {ROOT: os.open(backing, os.O_PATH | os.O_DIRECTORY)}

    def path(self, node):
        return f"/proc/self/fd/{self.fds[node]}"

    def attr(self, node, fd=None):
        st = os.fstat(self.fds[node] if fd is None else fd)
        return ATTR.pack(st.st_ino, st.st_size, st.st_blocks, int(st.st_atime), int(st.st_mtime), int(st.st_ctime),
                         0, 0, 0, st.st_mode, st.st_nlink, st.st_uid, st.st_gid, 0, 4096, 0)

    def entry(self, parent, name):
        """fuse_entry_out of a name, which becomes known."""
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self.fds[parent])
        node = os.fstat(fd).st_ino
        if node in self.fds:
            os.close(fd)
        else:
            self.fds[node] = fd
        return struct.pack("<4Q2I", node, 0, 0, 0, 0, 0) + self.attr(node)


class Server:
    def __init__(self, backing):
        self.nodes = Nodes(backing)
        self.fault, self.number, self.mute, self.waiting = None, 0, False, []

    def attr_out(self, node, fd=None):
        return struct.pack("<QII", 0, 0, 0) + self.nodes.attr(node, fd)

    def open(self, node, flags):
        writes = flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC
        if writes and self.fault == "change" and self.number == errno.EROFS:
            raise OSError(errno.EROFS, "read-only")
        fd = os.open(self.nodes.path(node), flags & ~(os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW))
        return struct.pack("<QII", fd, 0, 0)

    def create(self, parent, body):
        flags, mode = struct.unpack_from("<II", body)
        name = body[16:].rstrip(b"\0")
        fd = os.open(name, flags | os.O_CREAT, mode, dir_fd=self.nodes.fds[parent])
        return self.nodes.entry(parent, name) + struct.pack("<QII", fd, 0, 0)

    def set_attr(self, node, body):
        valid, _, fh, size = struct.unpack_from("<IIQQ", body)
        mode = struct.unpack_from("<I", body, 68)[0]
        fd = fh if valid & FUSE_FH else None
        if valid & SIZE:
            os.truncate(self.nodes.path(node) if fd is None else fd, size)
        if valid & MODE:
            os.chmod(self.nodes.path(node), stat.S_IMODE(mode))
        return self.attr_out(node, fd)

    def read_dir(self, node, body):
        fh, offset, size = struct.unpack_from("<QQI", body)
        out = b""
        names = [b".", b".."] + sorted(os.fsencode(n) for n in os.listdir(self.nodes.path(node)))
        for number, name in list(enumerate(names, 1))[offset:]:
            entry = struct.pack("<QQII", number, number, len(name), 0) + name
            entry += bytes(-len(entry) % 8)
            if len(out) + len(entry) > size:
                break
            out += entry
        return out

    def rename(self, parent, body):
        new_parent = struct.unpack_from("<Q", body)[0]
        old, new = body[8:].split(b"\0")[:2]
        os.rename(old, new, src_dir_fd=self.nodes.fds[parent], dst_dir_fd=self.nodes.fds[new_parent])
        return b""

    def act(self, opcode, node, body):  # a table of what each request means
        fds = self.nodes.fds
        if opcode == INIT:
            ahead = struct.unpack_from("<I", body, 8)[0]
            return struct.pack("<4I2H2I2H2I24x", 7, 31, ahead, 0, 64, 48, MAX_WRITE, 1, 0, 0, 0, 0)
        if opcode == LOOKUP:
            return self.nodes.entry(node, body.rstrip(b"\0"))
        if opcode == GETATTR:
            flags, _, fh = struct.unpack_from("<IIQ", body)
            return self.attr_out(node, fh if flags & 1 else None)
        if opcode == SETATTR:
            return self.set_attr(node, body)
        if opcode == MKDIR:
            name = body[8:].rstrip(b"\0")
            os.mkdir(name, struct.unpack_from("<I", body)[0], dir_fd=fds[node])
            return self.nodes.entry(node, name)
        if opcode in (UNLINK, RMDIR):
            (os.unlink if opcode == UNLINK else os.rmdir)(body.rstrip(b"\0"), dir_fd=fds[node])
            return b""
        if opcode == RENAME:
            return self.rename(node, body)
        if opcode == LINK:
            name = body[8:].rstrip(b"\0")
            os.link(self.nodes.path(struct.unpack_from("<Q", body)[0]), name, dst_dir_fd=fds[node],
                    follow_symlinks=True)
            return self.nodes.entry(node, name)
        if opcode == OPEN:
            return self.open(node, struct.unpack_from("<I", body)[0])
        if opcode == OPENDIR:
            return struct.pack("<QII", 0, 0, 0)
        if opcode == READDIR:
            return self.read_dir(node, body)
        if opcode == CREATE:
            return self.create(node, body)
        if opcode == READ:
            fh, offset, size = struct.unpack_from("<QQI", body)
            return os.pread(fh, size, offset)
        if opcode == WRITE:
            fh, offset, size = struct.unpack_from("<QQI", body)
            return struct.pack("<II", os.pwrite(fh, body[40:40 + size], offset), 0)
        if opcode == FALLOCATE:
            fh, offset, length, mode = struct.unpack_from("<QQQI", body)
            if mode:
                raise OSError(errno.EOPNOTSUPP, "fallocate")
            os.posix_fallocate(fh, offset, length)
            return b""
        if opcode == STATFS:
            return struct.pack("<5Q4I24x", 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096, 0)
        if opcode == RELEASE:
            os.close(struct.unpack_from("<Q", body)[0])
            return b""
        if opcode in (FSYNC, FSYNCDIR, RELEASEDIR):
            return b""
        # FLUSH among others: a close(2) asks nobody, as on a disk of this machine.
        raise OSError(errno.ENOSYS, "not served")

    def fails(self, opcode):
        return (self.fault == "change" and opcode in CHANGES) or \
            (self.fault == "fsync" and opcode in (FSYNC, FSYNCDIR))

    def answer(self, fuse_fd, request):
        _, opcode, unique, node, *_ = IN_HEADER.unpack_from(request)
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            return
        error, out = 0, b""
        try:
            if self.fails(opcode):
                raise OSError(self.number, "on request")
            out = self.act(opcode, node, request[IN_HEADER.size:])
        except OSError as problem:
            error = problem.errno
        try:
            os.write(fuse_fd, OUT_HEADER.pack(OUT_HEADER.size + len(out), -error, unique) + out)
        except FileNotFoundError:
            pass  # was interrupted meanwhile

    def obey(self, line, fuse_fd):
        word, *number = line.split()
        self.mute = word == "mute"
        self.fault, self.number = (word, int(number[0])) if number else (None, 0)
        while self.waiting and not self.mute:
            self.answer(fuse_fd, self.waiting.pop(0))


def main():
    backing, target = sys.argv[1:]
    os.umask(0)
    fuse_fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse_fd},rootmode=40755,user_id=0,group_id=0,allow_other,default_permissions"
    if libc.mount(b"fault_dir", target.encode(), b"fuse", ctypes.c_ulong(6), options.encode()) != 0:  # nosuid, nodev
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
    server = Server(backing)
    print("ready", flush=True)
    commands = os.fdopen(0, "rb", buffering=0)
    while True:
        ready, _, _ = select.select([fuse_fd, 0], [], [])
        if 0 in ready:
            line = commands.readline().decode()
            if not line:
                return
            server.obey(line, fuse_fd)
            print("ok", flush=True)
        if fuse_fd in ready:
            try:
                request = os.read(fuse_fd, MAX_WRITE + 8192)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                continue  # interrupted before it was read
            if server.mute:
                server.waiting.append(request)
            else:
                server.answer(fuse_fd, request)


main()
