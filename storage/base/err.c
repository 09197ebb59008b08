/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "storage/base/json.h"

static const char *const slugs[MR_CODE_COUNT] = {
#define MR_CODE_SLUG(name, slug, title) slug,
    MR_CODES(MR_CODE_SLUG)
#undef MR_CODE_SLUG
};

static const char *const titles[MR_CODE_COUNT] = {
#define MR_CODE_TITLE(name, slug, title) title,
    MR_CODES(MR_CODE_TITLE)
#undef MR_CODE_TITLE
};

static const char *const residues[] = {
    [MR_RESIDUE_UNKNOWN] = "unknown",
    [MR_RESIDUE_POSSIBLE] = "possible",
    [MR_RESIDUE_NONE] = "none",
};

const char *mr_code_slug(enum mr_code code)
{
    return (unsigned)code < MR_CODE_COUNT ? slugs[code] : slugs[MR_E_INTERNAL];
}

const char *mr_code_title(enum mr_code code)
{
    return (unsigned)code < MR_CODE_COUNT ? titles[code] : titles[MR_E_INTERNAL];
}

enum mr_code mr_code_from_slug(const char *slug)
{
    for (unsigned i = 0; slug && i < MR_CODE_COUNT; i++)
        if (strcmp(slug, slugs[i]) == 0)
            return (enum mr_code)i;
    return MR_E_INTERNAL;
}

const char *mr_residue_name(enum mr_residue residue)
{
    return (unsigned)residue <= MR_RESIDUE_NONE ? residues[residue] : residues[0];
}

static void start(struct mr_err *err, enum mr_code code, int errnum, const char *fmt,
                  va_list ap) __attribute__((format(printf, 4, 0)));

static void start(struct mr_err *err, enum mr_code code, int errnum, const char *fmt,
                  va_list ap)
{
    memset(err, 0, sizeof(*err));
    err->code = code;
    err->errnum = errnum;
    (void)vsnprintf(err->message, sizeof(err->message), fmt, ap);
    if (errnum > 0) {
        size_t len = strlen(err->message);
        (void)snprintf(err->message + len, sizeof(err->message) - len, ": %s",
                       strerrordesc_np(errnum) ? strerrordesc_np(errnum)
                                               : "unknown errno");
    }
}

int mr_fail(struct mr_err *err, enum mr_code code, int errnum, const char *fmt, ...)
{
    int saved = errno;
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        start(err, code, errnum, fmt, ap);
        va_end(ap);
    }
    errno = saved;
    return errnum > 0 ? -errnum : -EIO;
}

int mr_fail_at(struct mr_err *err, enum mr_code code, const char *pointer,
               const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        start(err, code, 0, fmt, ap);
        va_end(ap);
        (void)snprintf(err->pointer, sizeof(err->pointer), "%s", pointer);
    }
    return -EINVAL;
}

int mr_err_context(struct mr_err *err, int rc, const char *fmt, ...)
{
    if (!err)
        return rc;
    char old[sizeof(err->message)];
    memcpy(old, err->message, sizeof(old));
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(err->message, sizeof(err->message), fmt, ap);
    va_end(ap);
    size_t len = strlen(err->message);
    (void)snprintf(err->message + len, sizeof(err->message) - len, ": %s", old);
    return rc;
}

int mr_err_remedy(struct mr_err *err, int rc, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        (void)vsnprintf(err->remedy, sizeof(err->remedy), fmt, ap);
        va_end(ap);
    }
    return rc;
}

struct json_object *mr_err_to_json(const struct mr_err *err)
{
    struct json_object *json = json_object_new_object();
    if (!json)
        return NULL;
    mr_json_set_string(json, "code", mr_code_slug(err->code));
    mr_json_set_int(json, "errno", err->errnum);
    mr_json_set_text(json, "message", err->message);
    mr_json_set_string(json, "residue", mr_residue_name(err->residue));
    if (err->remedy[0])
        mr_json_set_text(json, "remedy", err->remedy);
    if (err->pointer[0])
        mr_json_set_text(json, "pointer", err->pointer);
    if (err->volume[0])
        mr_json_set_text(json, "volume", err->volume);
    if (err->step[0])
        mr_json_set_string(json, "step", err->step);
    return json;
}

void mr_err_from_json(struct mr_err *err, struct json_object *json)
{
    char residue[16];
    char slug[40];

    memset(err, 0, sizeof(*err));
    mr_json_copy_string(json, "code", slug, sizeof(slug));
    err->code = mr_code_from_slug(slug);
    err->errnum = (int)mr_json_get_int(json, "errno", 0);
    mr_json_copy_string(json, "message", err->message, sizeof(err->message));
    mr_json_copy_string(json, "remedy", err->remedy, sizeof(err->remedy));
    mr_json_copy_string(json, "pointer", err->pointer, sizeof(err->pointer));
    mr_json_copy_string(json, "volume", err->volume, sizeof(err->volume));
    mr_json_copy_string(json, "step", err->step, sizeof(err->step));
    mr_json_copy_string(json, "residue", residue, sizeof(residue));
    for (unsigned i = 0; i < sizeof(residues) / sizeof(residues[0]); i++)
        if (strcmp(residue, residues[i]) == 0)
            err->residue = (enum mr_residue)i;
}
