/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver contract: how a source becomes a block device and stops being one. A driver
 * is a const struct in one file and one line in the table of driver.c. Runs in the
 * worker: may block, the core watches the deadline. Drivers know neither journal, core
 * nor each other.
 */
#ifndef MR_STORAGE_WORKER_DRIVER_H
#define MR_STORAGE_WORKER_DRIVER_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/identity.h"
#include "storage/spec.h"

#define MR_CUT_TEXT 200

/* How unmap treats users that an exclusive open cannot see. */
enum mr_unmap_kind {
    MR_UNMAP_IMMEDIATE = 0, /* asks nobody: the opener scan gates it (SCSI, NBD, NVMe) */
    MR_UNMAP_DEFERRED, /* the kernel keeps the mapping until the last user is gone (loop,
                          dm) */
};

struct mr_map_request {
    const char *token;          /* attach token, MR_TOKEN_TEXT */
    const struct mr_spec *spec; /* with secrets */
    const char *runtime_dir;
    const char *libexec_dir;
    const char *initiator_name;
    int64_t iscsi_timeout_ms;
    const char *const *file_roots; /* NULL-terminated */
    bool mapped; /* preflight: the volume that is asked for has the source mapped */
};

struct mr_driver {
    const char *name;
    enum mr_unmap_kind unmap_kind;

    /* Maps the source; on success *ret is filled (node, numbers, diskseq, sizes, serial,
     * wwn, source_key). On failure nothing is left behind. A source that is in use fails
     * with MR_E_SOURCE_IN_USE and ret->source_key set. */
    int (*map)(const struct mr_map_request *request, struct mr_identity *ret,
               struct mr_err *err);

    /* What a map would meet, without mapping anything: members of `preflight`
     * (protocol.h) go into reply, as far as it comes; *ret_fd holds what is to be probed,
     * read-only, as large as the source. Fails as map would. */
    int (*preflight)(const struct mr_map_request *request, struct json_object *reply,
                     int *ret_fd, struct mr_err *err);

    /* Looks the attachment up by its token alone. 1 and *ret (serial, wwn and source_key
     * may stay empty), 0 when the kernel proves that there is none, negative when it
     * cannot tell. */
    int (*find)(const char *token, const char *runtime_dir, struct mr_identity *ret,
                struct mr_err *err);

    /* Takes the mapping down. claim_fd is the exclusive fd on this very device; the
     * driver closes it (always, also on failure) when its kind asks for that. Returns 0
     * when the request was made; whether the device is gone is asked with
     * mr_device_gone() and, for what else the driver keeps, finished(). */
    int (*unmap)(const char *token, const char *runtime_dir,
                 const struct mr_identity *identity, int claim_fd, struct mr_err *err);

    /* Takes back an unmap that the kernel has put off: the mapping stays when its last
     * user goes. 1 it stays, 0 it is gone, negative: cannot tell. */
    int (*keep)(const struct mr_identity *identity, struct mr_err *err);

    /* Makes every request to the device fail from now on, also those that wait, without
     * asking anybody: data that was not written is lost. detail says what was done. 0, or
     * a negative errno. NULL: there is no transport to cut. */
    int (*cut)(const char *token, const char *runtime_dir,
               const struct mr_identity *identity, char detail[MR_CUT_TEXT],
               struct mr_err *err);

    /* After the device is gone: waits (bounded, at most wait_ms) for helpers to end and
     * removes what is left in the runtime directory. Adds facts to evidence. 1 finished,
     * 0 not yet. NULL: nothing to wait for. */
    int (*finished)(const char *token, const char *runtime_dir,
                    const struct mr_identity *identity, int64_t wait_ms,
                    struct json_object *evidence);
};

/* NULL when there is none. */
const struct mr_driver *mr_driver_find(const char *name);

/* The source key of a file, see mr_identity. */
int mr_file_source_key(char dst[MR_KEY_TEXT], dev_t dev, uint64_t inode);

extern const struct mr_driver mr_driver_file;
extern const struct mr_driver mr_driver_iscsi;

#endif
