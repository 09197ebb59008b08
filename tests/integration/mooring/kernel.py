# SPDX-License-Identifier: Apache-2.0
"""What the kernel says: mounts, loop devices, processes. Reads only, except for the clean-up calls."""
import ctypes
import errno
import fcntl
import os
import pathlib
import re
import struct
import subprocess

LOOP_GET_STATUS64 = 0x4C05  # linux/loop.h
CLONE_NEWNS = 0x00020000  # linux/sched.h
MS_REC, MS_PRIVATE = 0x4000, 1 << 18  # linux/mount.h
FUSE_CONNECTIONS = pathlib.Path("/sys/fs/fuse/connections")  # fusectl

libc = ctypes.CDLL(None, use_errno=True)


def enter_private_namespace():
    """Gives this process a mount namespace of its own: no mount of a test is seen outside, or the other way."""
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
    if libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None) != 0:
        raise OSError(ctypes.get_errno(), "make / private")


def run(*argv, timeout=60, check=True, **more):
    """Runs a tool; its output is in the error when it fails."""
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, timeout=timeout, text=True, check=False, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{argv} ended with {done.returncode}:\n{done.stdout}")
    return done


class Mount:
    """One line of mountinfo, proc_pid_mountinfo(5)."""

    def __init__(self, line):
        fields = line.split(" ")
        dash = fields.index("-", 6)
        self.id = int(fields[0])
        self.major_minor = fields[2]
        self.point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), fields[4])
        self.options = fields[5].split(",")
        self.type = fields[dash + 1]
        self.source = fields[dash + 2]
        self.super_options = fields[dash + 3].split(",")

    def __repr__(self):
        return f"<mount {self.id} {self.major_minor} {self.type} on {self.point}>"


def mounts(pid="self"):
    text = pathlib.Path(f"/proc/{pid}/mountinfo").read_text()
    return [Mount(line) for line in text.splitlines()]


def mounts_at(path):
    return [m for m in mounts() if m.point == str(path)]


def mount_fusectl():
    """Where the system has none; a second one is refused (EBUSY)."""
    if not os.path.ismount(FUSE_CONNECTIONS):
        run("mount", "-t", "fusectl", "none", FUSE_CONNECTIONS)


def fuse_connection(node):
    """Below this loop device: st_dev of its file (struct loop_info64) is an anonymous device, whose minor number it is."""
    buffer = bytearray(232)
    with open(node, "rb", buffering=0) as device:
        fcntl.ioctl(device, LOOP_GET_STATUS64, buffer)
    return os.minor(struct.unpack_from("Q", buffer)[0])


def mounts_below(path):
    path = str(path)
    return [m for m in mounts() if m.point == path or m.point.startswith(path + "/")]


def syncfs(path):
    """syncfs(2): writes one file system out, as sync -f does."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), "syncfs", str(path))
    finally:
        os.close(fd)


# --- block devices ---

def diskseq(node):
    """The disk sequence number of /dev/NAME, or None when there is no such disk."""
    try:
        return int(pathlib.Path("/sys/block", os.path.basename(node), "diskseq").read_text())
    except FileNotFoundError:
        return None


def loop_bound(node):
    """The backing file's path, or None when the loop device is not bound."""
    try:
        path = pathlib.Path("/sys/block", os.path.basename(node), "loop/backing_file")
        return path.read_text(errors="replace").rstrip("\n")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EIO):
            return None
        raise


def still_mapped(document):
    """Is the very device of this volume document still there?"""
    return loop_bound(document["device"]) is not None \
        and diskseq(document["device"]) == document["identity"]["diskseq"]


def unmap_asked(document):
    """Has somebody told the kernel to clear the loop device as soon as it is not used any more (LOOP_CLR_FD)?"""
    path = pathlib.Path("/sys/block", os.path.basename(document["device"]), "loop/autoclear")
    return path.read_text().strip() == "1"


def exclusive_open(node):
    """"free" or "held", by open(2) O_EXCL. A claim for a moment: not while the agent may claim, too."""
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        return "free"
    except OSError as error:
        if error.errno == errno.EBUSY:
            return "held"
        raise


def file_extents(path):
    """Where a file is on its device: (offset, length) in bytes, by FIBMAP of linux/fs.h."""
    fibmap, figetbsz = 1, 2
    extents = []
    with open(path, "rb") as file:
        size = struct.unpack("i", fcntl.ioctl(file, figetbsz, struct.pack("i", 0)))[0]
        for i in range(os.fstat(file.fileno()).st_size // size):
            offset = struct.unpack("i", fcntl.ioctl(file, fibmap, struct.pack("i", i)))[0] * size
            if extents and sum(extents[-1]) == offset:
                extents[-1] = (extents[-1][0], extents[-1][1] + size)
            else:
                extents.append((offset, size))
    return extents


def punch_hole(path, offset, length):
    """Takes the space of a part of a file away: fallocate(2)."""
    keep_size, punch = 1, 2
    with open(path, "r+b") as file:
        if libc.fallocate(file.fileno(), keep_size | punch, ctypes.c_long(offset), ctypes.c_long(length)) != 0:
            raise OSError(ctypes.get_errno(), "punch hole")


def superblock_alive(fs_type, node):
    return os.path.exists(f"/sys/fs/{fs_type}/{os.path.basename(node)}")


def loop_file_name(node):
    """lo_file_name of struct loop_info64, or None when the device is not bound."""
    buffer = bytearray(232)
    try:
        fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.ioctl(fd, LOOP_GET_STATUS64, buffer)
    except OSError:
        return None
    finally:
        os.close(fd)
    # Five u64, four u32, then lo_file_name[64].
    name = struct.unpack_from("64s", buffer, 5 * 8 + 4 * 4)[0]
    return name.split(b"\0", 1)[0].decode(errors="replace")


def bound_loops():
    return ["/dev/" + p.parent.name for p in pathlib.Path("/sys/block").glob("loop*/loop")
            if loop_bound("/dev/" + p.parent.name) is not None]


# --- processes ---

# The keeper of a LUN is a mooring-lun, and its child, the server, a mooring-lun-io: the same program. So is the resolver
# of names that it starts while the target is away.
PROGRAMS = ("mooringd", "mooring-worker", "mooring-lun", "mooring-lun-io", "mooring-lun-dns")


def program_of(pid):
    return os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")


def is_server(cmdline, parent):
    """A server that has just been forked does not say so itself, and one that its keeper leaves has another parent."""
    try:
        return cmdline.split(" ")[1:2] == ["io"] or program_of(parent) == "mooring-lun"
    except OSError:
        return False


class Process:
    def __init__(self, pid):
        self.pid = pid
        self.program = program_of(pid)
        self.cmdline = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        after = stat[stat.rindex(")") + 2:].split()
        self.state = after[0]
        self.parent = int(after[1])
        self.start_time = int(after[19])
        if self.program == "mooring-lun" and self.cmdline.split(" ")[1:2] == ["resolve"]:
            self.program = "mooring-lun-dns"
        elif self.program == "mooring-lun" and is_server(self.cmdline, self.parent):
            self.program = "mooring-lun-io"

    def __repr__(self):
        return f"<{self.program} pid {self.pid} state {self.state}: {self.cmdline.strip()}>"


def our_processes(*programs):
    """Mooring's processes in this mount namespace: all of them were started by this test run."""
    ours, found = os.readlink("/proc/self/ns/mnt"), []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            if os.readlink(f"/proc/{entry}/ns/mnt") != ours:
                continue
            process = Process(int(entry))
        except (OSError, ValueError):
            continue  # ended meanwhile, or a kernel thread
        if process.program in (programs or PROGRAMS) and process.state not in "ZX":
            found.append(process)
    return found


def alive(pid):
    """Until its end is told to others (pidfd_open(2)). It loses its program some time before that: kernel/exit.c,
    do_exit()."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"
