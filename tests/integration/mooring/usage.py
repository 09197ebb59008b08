# SPDX-License-Identifier: Apache-2.0
"""What a running agent costs: CPU time, memory, wake-ups; proc_pid_stat(5), proc_pid_status(5)."""
import concurrent.futures
import fcntl
import os
import pathlib
import re
import socket
import time

from .wait import eventually

QUIET_S = 0.25
LOOP_CTL_REMOVE = 0x4C81  # linux/loop.h
NETLINK_KOBJECT_UEVENT = 15  # linux/netlink.h
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid):
    """Of the process and of its children that have ended."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return sum(map(int, stat[stat.rindex(")") + 2:].split()[11:15])) / TICKS


def memory_kib(pid):
    """(resident now, the most that was resident)"""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return tuple(int(re.search(name + r":\s+(\d+) kB", status).group(1)) for name in ("VmRSS", "VmHWM"))


def wake_ups(pid):
    """How often its threads have waited for something, so far."""
    return sum(int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.M).group(1))
               for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"))


def wake_ups_within(pid, seconds):
    """But for one for each of the kernel's news of devices (netlink(7)), which are for all."""
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT)
    with events:
        events.bind((0, 1))
        before, news = wake_ups(pid), 0
        time.sleep(seconds)
        count = wake_ups(pid) - before
        while count > news:
            try:
                events.recv(65536)
            except BlockingIOError:
                break
            news += 1
    return count - news


def wait_for_rest(pid):
    """What was asked for last is over, and with it the end of its connection, and of its worker."""
    eventually(lambda: wake_ups_within(pid, QUIET_S) == 0, 10, "the agent comes to rest")


def idle_wake_ups(pid, seconds):
    """Within so many seconds of rest. Whoever polls is caught: more often than QUIET_S there is no rest, and a longer
    period ends within the seconds."""
    wait_for_rest(pid)
    return wake_ups_within(pid, seconds)


def loop_devices():
    """The numbers of all loop devices, bound or not."""
    return {int(p.name[4:]) for p in pathlib.Path("/sys/block").glob("loop*")}


def remove_loop_devices(numbers):
    """Those that nobody uses. At once: each waits for a grace period of the kernel."""
    fd = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)

    def remove(number):
        try:
            fcntl.ioctl(fd, LOOP_CTL_REMOVE, number)
        except OSError:
            pass  # in use

    try:
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            list(pool.map(remove, sorted(numbers, reverse=True)))
    finally:
        os.close(fd)
