/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/holder_kind.h"

#include <stddef.h>
#include <string.h>

#define BIT(action) (1U << (action))
#define COPIES BIT(MR_ACTION_UNMOUNT_COPIES)
#define SIGNAL BIT(MR_ACTION_SIGNAL)
#define THAW BIT(MR_ACTION_THAW)
#define OVERLAY BIT(MR_ACTION_UNMOUNT_OVERLAY)
#define SHUTDOWN BIT(MR_ACTION_SHUTDOWN)
#define CUT BIT(MR_ACTION_CUT_TRANSPORT)

static const struct {
    const char *name;
    unsigned actions;
    const char *remedy;
} kinds[MR_HOLDER_KINDS] = {
    [MR_HOLDER_MOUNT_COPY] = {"mount-copy", COPIES | SIGNAL,
                              "unmount it in its mount namespace, or end the processes "
                              "of that namespace"},
    [MR_HOLDER_NESTED_MOUNT] = {"nested-mount", COPIES,
                                "unmount what is mounted inside of the volume"},
    [MR_HOLDER_COVERING_MOUNT] = {"covering-mount", COPIES,
                                  "unmount what is mounted on top of the volume"},
    [MR_HOLDER_DETACHED_MOUNT] = {"detached-mount", SIGNAL,
                                  "the process must close the mount's fd, or end"},
    [MR_HOLDER_OVERLAY] = {"overlay", OVERLAY,
                           "unmount the overlay that has a layer on the volume"},
    [MR_HOLDER_OPEN_FILE] = {"open-file", SIGNAL,
                             "the process must close the file, or end"},
    [MR_HOLDER_CWD] = {"cwd", SIGNAL,
                       "the process must change its working directory, or end"},
    [MR_HOLDER_ROOT] = {"root", SIGNAL, "the process must end"},
    [MR_HOLDER_EXE] = {"exe", SIGNAL, "the process runs from the volume and must end"},
    [MR_HOLDER_MMAP] = {"mmap", SIGNAL, "the process must unmap the file, or end"},
    [MR_HOLDER_IO_URING] =
        {"io-uring", SIGNAL,
         "the process must unregister its files from the ring, or end; "
         "the kernel lets go up to 100 ms after it was reaped"},
    [MR_HOLDER_IN_FLIGHT_FD] = {"in-flight-fd", SIGNAL,
                                "the process must receive or drop what waits in its "
                                "socket, or end"},
    [MR_HOLDER_FS_CONTEXT] = {"fs-context", SIGNAL,
                              "the process must close the file system context, or end"},
    [MR_HOLDER_UNIX_SOCKET] = {"unix-socket", SIGNAL,
                               "the process must close the socket, or end"},
    [MR_HOLDER_FANOTIFY] = {"fanotify", SIGNAL,
                            "the process must read its events, or end"},
    [MR_HOLDER_RAW_DEVICE] = {"raw-device", SIGNAL,
                              "the process must close the device, or end"},
    [MR_HOLDER_LOOP] = {"loop", 0, "unmount what is on the loop device, then losetup -d"},
    [MR_HOLDER_SWAP] = {"swap", 0, "swapoff"},
    [MR_HOLDER_DM] = {"dm", 0, "remove the device-mapper device (dmsetup, lvchange -an)"},
    [MR_HOLDER_MD] = {"md", 0, "stop the array (mdadm --stop)"},
    [MR_HOLDER_UPROBE] = {"uprobe", 0, "remove the probe from tracefs uprobe_events"},
    [MR_HOLDER_NFS_EXPORT] = {"nfs-export", 0, "unexport it (exportfs -u)"},
    [MR_HOLDER_TARGET_EXPORT] = {"target-export", 0,
                                 "disable the namespace or LUN in the target's "
                                 "configuration"},
    [MR_HOLDER_FROZEN] = {"frozen", THAW | SHUTDOWN, "thaw the file system"},
    [MR_HOLDER_UNOWNED] = {"unowned", THAW | SHUTDOWN | CUT,
                           "no process shows it: a file in a kernel queue or table, or "
                           "a process that cannot be looked at; it ends with its owner"},
};

static const struct {
    const char *name;
    bool needs_holders;
    bool loses_data;
} actions[MR_ACTION_COUNT] = {
    [MR_ACTION_UNMOUNT_COPIES] = {"unmount-copies", true, false},
    [MR_ACTION_SIGNAL] = {"signal", true, false},
    [MR_ACTION_THAW] = {"thaw", false, false},
    [MR_ACTION_UNMOUNT_OVERLAY] = {"unmount-overlay", true, false},
    [MR_ACTION_SHUTDOWN] = {"shutdown", false, true},
    [MR_ACTION_CUT_TRANSPORT] = {"cut-transport", false, true},
};

const char *mr_holder_kind_name(enum mr_holder_kind kind)
{
    return (unsigned)kind < MR_HOLDER_KINDS ? kinds[kind].name : "unknown";
}

enum mr_holder_kind mr_holder_kind_from_name(const char *name)
{
    unsigned i = 0;
    while (name && i < MR_HOLDER_KINDS && strcmp(kinds[i].name, name) != 0)
        i++;
    return name ? (enum mr_holder_kind)i : MR_HOLDER_KINDS;
}

const char *mr_holder_remedy(enum mr_holder_kind kind)
{
    return kinds[(unsigned)kind < MR_HOLDER_KINDS ? kind : MR_HOLDER_UNOWNED].remedy;
}

bool mr_holder_allows(enum mr_holder_kind kind, enum mr_action action)
{
    return (unsigned)kind < MR_HOLDER_KINDS && (unsigned)action < MR_ACTION_COUNT &&
           (kinds[kind].actions & BIT(action)) != 0;
}

struct json_object *mr_holder_actions(enum mr_holder_kind kind, bool has_pid)
{
    struct json_object *names = json_object_new_array();

    for (unsigned i = 0; names && i < MR_ACTION_COUNT; i++) {
        if (!mr_holder_allows(kind, (enum mr_action)i) ||
            (i == MR_ACTION_SIGNAL && !has_pid))
            continue;
        (void)json_object_array_add(names, json_object_new_string(actions[i].name));
    }
    return names;
}

const char *mr_action_name(enum mr_action action)
{
    return (unsigned)action < MR_ACTION_COUNT ? actions[action].name : "unknown";
}

enum mr_action mr_action_from_name(const char *name)
{
    unsigned i = 0;
    while (name && i < MR_ACTION_COUNT && strcmp(actions[i].name, name) != 0)
        i++;
    return name ? (enum mr_action)i : MR_ACTION_COUNT;
}

bool mr_action_needs_holders(enum mr_action action)
{
    return (unsigned)action < MR_ACTION_COUNT && actions[action].needs_holders;
}

bool mr_action_loses_data(enum mr_action action)
{
    return (unsigned)action < MR_ACTION_COUNT && actions[action].loses_data;
}
