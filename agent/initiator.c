/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/initiator.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-id128.h>

#include "storage/base/cleanup.h"
#include "storage/base/fd.h"

#define OPEN_ISCSI_FILE "/etc/iscsi/initiatorname.iscsi"
#define PREFIX "iqn.2026-11.io.mooring:"
#define NAME_MAX_BYTES 223

/* Ours alone: sd_id128_get_machine_app_specific(3) hashes the machine id with it. Never
 * changes. */
static const sd_id128_t application = {
    .bytes = {0x6d, 0x6f, 0x6f, 0x72, 0x69, 0x6e, 0x67, 0x2d, 0x69, 0x6e, 0x69, 0x74,
              0x69, 0x61, 0x74, 0x01},
};

bool mr_initiator_name_valid(const char *name)
{
    size_t bytes = strlen(name);

    if (strncmp(name, "iqn.", 4) != 0 && strncmp(name, "eui.", 4) != 0 &&
        strncmp(name, "naa.", 4) != 0)
        return false;
    for (size_t i = 0; i < bytes; i++)
        if (!isascii(name[i]) ||
            (!isalnum((unsigned char)name[i]) && !strchr("-.:", name[i])))
            return false;
    return bytes > 4 && bytes <= NAME_MAX_BYTES;
}

int mr_initiator_from_text(const char *text, char *dst, size_t size)
{
    static const char key[] = "InitiatorName=";

    for (const char *line = text; *line; line += *line == '\n') {
        size_t bytes = strcspn(line, "\r\n");
        if (strncmp(line, key, sizeof(key) - 1) == 0) {
            int r = mr_format(dst, size, "%.*s", (int)(bytes - (sizeof(key) - 1)),
                              line + sizeof(key) - 1);
            return r == 0 && mr_initiator_name_valid(dst) ? 0 : -EINVAL;
        }
        line += strcspn(line, "\n");
    }
    return -ENOENT;
}

static int from_state(const char *state_dir, bool create, char *dst, size_t size)
{
    char path[PATH_MAX];
    char hex[17];

    int r = mr_format(path, sizeof(path), "%s/initiator_name", state_dir);
    if (r == 0 && mr_read_text(AT_FDCWD, path, dst, size) > 0 &&
        mr_initiator_name_valid(dst))
        return 0;
    if (r == 0)
        r = mr_random_hex(8, hex);
    if (r == 0)
        r = mr_format(dst, size, PREFIX "%s", hex);
    if (r < 0 || !create)
        return r;
    MR_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    r = mr_write_all(fd, dst, strlen(dst));
    return r == 0 && fsync(fd) != 0 ? -errno : r;
}

int mr_initiator_find(const char *state_dir, bool create, char *dst, size_t size,
                      struct mr_err *err)
{
    MR_AUTO_FREE char *text = NULL;
    sd_id128_t id;

    if (mr_read_file(AT_FDCWD, OPEN_ISCSI_FILE, 4096, &text) >= 0) {
        int r = mr_initiator_from_text(text, dst, size);
        if (r == 0)
            return 0;
        if (r != -ENOENT) {
            r = mr_fail_at(err, MR_E_INVALID_REQUEST, "",
                           OPEN_ISCSI_FILE ": InitiatorName is not a valid iSCSI name");
            return mr_err_remedy(err, r, "correct it, or set [iscsi] initiator_name");
        }
    }
    if (sd_id128_get_machine_app_specific(application, &id) >= 0)
        return mr_format(dst, size, PREFIX "%02x%02x%02x%02x%02x%02x%02x%02x",
                         id.bytes[0], id.bytes[1], id.bytes[2], id.bytes[3], id.bytes[4],
                         id.bytes[5], id.bytes[6], id.bytes[7]);
    int r = from_state(state_dir, create, dst, size);
    return r == 0 ? 0
                  : mr_fail(err, MR_E_INTERNAL, -r, "keep an initiator name in '%s'",
                            state_dir);
}
