/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/config.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/initiator.h"
#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/base/fd.h"

#define FILE_MAX_BYTES ((size_t)64 * 1024)
#define LINE_MAX_BYTES 8192

enum kind {
    KIND_ROOTS,
    KIND_NUMBER,
    KIND_INITIATOR,
};

struct key {
    const char *section;
    const char *name;
    enum kind kind;
    size_t offset; /* in struct mr_config */
    long min, max; /* KIND_NUMBER */
    int64_t unit;  /* what the field counts, per one of the key's */
};

#define MS_PER_DAY (24 * 3600 * (MR_NS_PER_S / MR_NS_PER_MS))

#define FIELD(name) offsetof(struct mr_config, name)

static const struct key keys[] = {
    {"mount", "roots", KIND_ROOTS, FIELD(mount_roots), 0, 0, 0},
    {"file", "roots", KIND_ROOTS, FIELD(file_roots), 0, 0, 0},
    {"iscsi", "initiator_name", KIND_INITIATOR, FIELD(initiator_name), 0, 0, 0},
    {"iscsi", "timeout_seconds", KIND_NUMBER, FIELD(iscsi_timeout_ns), 1, 600,
     MR_NS_PER_S},
    {"worker", "deadline_seconds", KIND_NUMBER, FIELD(worker_deadline_ns), 1, 3600,
     MR_NS_PER_S},
    {"worker", "format_deadline_seconds", KIND_NUMBER, FIELD(format_deadline_ns), 1,
     86400, MR_NS_PER_S},
    {"journal", "history_days", KIND_NUMBER, FIELD(history_age_ms), 1, 3650, MS_PER_DAY},
    {"journal", "history_mib", KIND_NUMBER, FIELD(history_bytes), 1, 65536, 1 << 20},
    {"journal", "proofs_kept", KIND_NUMBER, FIELD(proofs_kept), 1, 100000, 1},
};
#define KEY_COUNT (sizeof(keys) / sizeof(keys[0]))

/* One run of the parser. */
struct reading {
    const char *path;
    const char *next; /* text not read yet */
    unsigned line;
    struct mr_config *config;
    bool seen[KEY_COUNT];
    bool failed;
    struct mr_err *err;
};

static int refuse(struct reading *reading, const char *remedy, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The first error counts. Returns 0, which is an error for the parser. */
static int refuse(struct reading *reading, const char *remedy, const char *fmt, ...)
{
    char what[384];
    va_list ap;

    if (reading->failed)
        return 0;
    reading->failed = true;
    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    (void)mr_fail_at(reading->err, MR_E_INVALID_REQUEST, "", "%s:%u: %s", reading->path,
                     reading->line, what);
    (void)mr_err_remedy(reading->err, 0, "%s", remedy);
    return 0;
}

static int add_root(struct mr_roots *roots, const char *path, size_t bytes)
{
    char *copy = roots->count < MR_ROOTS_MAX ? strndup(path, bytes) : NULL;
    if (!copy)
        return -ENOMEM;
    roots->path[roots->count++] = copy;
    return 0;
}

static int set_roots(struct reading *reading, struct mr_roots *roots, const char *value)
{
    const char *remedy = "write one to 16 absolute paths, separated by blanks";

    for (const char *path = value; *path;) {
        size_t bytes = strcspn(path, " \t");
        if (*path != '/')
            return refuse(reading, remedy, "'%.*s' is not an absolute path", (int)bytes,
                          path);
        if (add_root(roots, path, bytes) < 0)
            return refuse(reading, remedy, "too many roots");
        path += bytes;
        path += strspn(path, " \t");
    }
    return roots->count > 0 ? 1 : refuse(reading, remedy, "no path is given");
}

static int set_number(struct reading *reading, const struct key *key, int64_t *field,
                      const char *value)
{
    char remedy[96];
    char *end = NULL;

    (void)snprintf(remedy, sizeof(remedy), "write a whole number from %ld to %ld",
                   key->min, key->max);
    errno = 0;
    long number = strtol(value, &end, 10);
    if (end == value || *end || errno || number < key->min || number > key->max)
        return refuse(reading, remedy, "%s: bad value '%s'", key->name, value);
    *field = number * key->unit;
    return 1;
}

static int set_initiator(struct reading *reading, char *name, const char *value)
{
    if (!mr_initiator_name_valid(value))
        return refuse(reading, "write an iSCSI name such as iqn.2026-11.org.example:host",
                      "initiator_name: bad value '%s'", value);
    (void)snprintf(name, sizeof(((struct mr_config *)0)->initiator_name), "%s", value);
    return 1;
}

static int on_key(void *user, const char *section, const char *name, const char *value)
{
    struct reading *reading = user;
    size_t i = 0;

    while (i < KEY_COUNT &&
           (strcmp(keys[i].section, section) != 0 || strcmp(keys[i].name, name) != 0))
        i++;
    if (i == KEY_COUNT)
        return refuse(reading, "see mooring.conf(5), or remove the line",
                      "unknown key '%s' in section '[%s]'", name, section);
    if (reading->seen[i])
        return refuse(reading, "keep one of the lines", "key '%s' is repeated", name);
    reading->seen[i] = true;
    void *field = (char *)reading->config + keys[i].offset;
    switch (keys[i].kind) {
    case KIND_ROOTS:
        return set_roots(reading, field, value);
    case KIND_NUMBER:
        return set_number(reading, &keys[i], field, value);
    case KIND_INITIATOR:
        return set_initiator(reading, field, value);
    }
    return 0;
}

static void check_section(struct reading *reading, const char *line)
{
    size_t bytes = strcspn(line + 1, "]");

    for (size_t i = 0; i < KEY_COUNT; i++)
        if (strlen(keys[i].section) == bytes &&
            strncmp(line + 1, keys[i].section, bytes) == 0)
            return;
    (void)refuse(reading, "see mooring.conf(5), or remove the section",
                 "unknown section '%.*s'", (int)(bytes + 2), line);
}

/* Hands out one line, without its indentation: a continued line is a line without '=', an
 * error. fgets(3) semantics for the parser. */
static char *next_line(char *dst, int size, void *stream)
{
    struct reading *reading = stream;
    const char *line = reading->next + strspn(reading->next, " \t");
    size_t bytes = strcspn(line, "\n");

    if (*reading->next == '\0')
        return NULL;
    reading->line++;
    reading->next = line + bytes + (line[bytes] == '\n');
    if (bytes > (size_t)size - 2) {
        (void)refuse(reading, "split the list or use shorter paths",
                     "the line is too long");
        bytes = 0;
    }
    if (line[0] == '[')
        check_section(reading, line);
    memcpy(dst, line, bytes);
    dst[bytes] = '\n';
    dst[bytes + 1] = '\0';
    return dst;
}

static int parse(struct reading *reading)
{
    /* Globals of Debian's libinih: the default line length of 200 is too short for lists
     * of paths. */
    ini_use_stack = false;
    ini_max_line = LINE_MAX_BYTES;
    ini_initial_alloc = LINE_MAX_BYTES;
    ini_allow_inline_comments = false;
    int rc = ini_parse_stream(next_line, reading, on_key, reading);
    if (reading->failed)
        return -EINVAL;
    if (rc == 0)
        return 0;
    if (rc > 0)
        reading->line = (unsigned)rc;
    (void)refuse(reading, "write [section], key = value, or # comment",
                 rc > 0 ? "this is neither a section nor a key" : "out of memory");
    return -EINVAL;
}

static int set_defaults(struct mr_config *config, struct mr_err *err)
{
    int rc = 0;

    if (config->mount_roots.count == 0)
        rc = add_root(&config->mount_roots, MR_MOUNT_ROOT, strlen(MR_MOUNT_ROOT));
    if (rc == 0 && config->file_roots.count == 0)
        rc = add_root(&config->file_roots, MR_FILE_ROOT, strlen(MR_FILE_ROOT));
    return rc == 0 ? 0 : mr_fail(err, MR_E_INTERNAL, -rc, "read the configuration");
}

int mr_config_load(const char *path, bool must_exist, struct mr_config *config,
                   struct mr_err *err)
{
    MR_AUTO_FREE char *text = NULL;
    struct reading reading = {.path = path, .config = config, .err = err};

    config->worker_deadline_ns = 60 * MR_NS_PER_S;
    config->format_deadline_ns = 3600 * MR_NS_PER_S;
    config->iscsi_timeout_ns = 10 * MR_NS_PER_S;
    config->history_age_ms = 30 * MS_PER_DAY;
    config->history_bytes = 64 << 20;
    config->proofs_kept = 1000;
    ssize_t bytes = mr_read_file(AT_FDCWD, path, FILE_MAX_BYTES, &text);
    if (bytes == -ENOENT && !must_exist)
        return set_defaults(config, err);
    if (bytes < 0)
        return mr_fail(err, MR_E_INVALID_REQUEST, (int)-bytes, "read '%s'", path);
    if (memchr(text, '\0', (size_t)bytes))
        return mr_fail_at(err, MR_E_INVALID_REQUEST, "", "'%s' has a NUL byte", path);
    reading.next = text;
    int rc = parse(&reading);
    return rc < 0 ? rc : set_defaults(config, err);
}

/* The state directory's permissions must let users reach their volumes below it. */
static void make_default_root(const char *path)
{
    mode_t old = umask(022);
    (void)mr_mkdir_p(path, 0755);
    (void)umask(old);
}

static int resolve_root(char **root, char **ret_given, const char *standard, bool create,
                        struct mr_err *err)
{
    bool is_standard = strcmp(*root, standard) == 0;
    struct stat st;

    if (create && is_standard)
        make_default_root(*root);
    char *real = realpath(*root, NULL);
    if (!real && errno == ENOENT && is_standard && !create)
        return 0;
    if (!real || stat(real, &st) != 0 || !S_ISDIR(st.st_mode) || strcmp(real, "/") == 0) {
        int cause = real ? ENOTDIR : errno;
        bool slash = real && strcmp(real, "/") == 0;
        free(real);
        int rc = mr_fail(err, MR_E_INVALID_REQUEST, slash ? EINVAL : cause, "root '%s'",
                         *root);
        return mr_err_remedy(
            err, rc, "%s", slash ? "choose a directory below /" : "create the directory");
    }
    *ret_given = *root;
    *root = real;
    return 0;
}

int mr_config_resolve_roots(struct mr_config *config, bool create, struct mr_err *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < config->mount_roots.count; i++)
        rc = resolve_root(&config->mount_roots.path[i], &config->mount_roots.given[i],
                          MR_MOUNT_ROOT, create, err);
    for (size_t i = 0; rc == 0 && i < config->file_roots.count; i++)
        rc = resolve_root(&config->file_roots.path[i], &config->file_roots.given[i],
                          MR_FILE_ROOT, create, err);
    return rc;
}

static void free_roots(struct mr_roots *roots)
{
    while (roots->count > 0) {
        roots->count--;
        free(roots->path[roots->count]);
        free(roots->given[roots->count]);
    }
}

void mr_config_done(struct mr_config *config)
{
    free_roots(&config->mount_roots);
    free_roots(&config->file_roots);
}
