/* SPDX-License-Identifier: Apache-2.0
 *
 * The one error object. It lives on the caller's stack, needs no memory, and is
 * written only where the cause is known; upper layers may add a prefix but never
 * change the code. Functions return 0 or a negative errno and fill it on failure.
 */
#ifndef MR_STORAGE_BASE_ERR_H
#define MR_STORAGE_BASE_ERR_H

#include <json-c/json.h>
#include <stdbool.h>

/* Stable codes: the slug is API (`code` and `type` of a problem document). */
#define MR_CODES(X)                                                                      \
    X(INTERNAL, "internal", "Internal error")                                            \
    X(INVALID_REQUEST, "invalid-request", "The request cannot be parsed")                \
    X(UNKNOWN_FIELD, "unknown-field", "Unknown field")                                   \
    X(INVALID_SPEC, "invalid-spec", "The body of the request is not valid")              \
    X(PATH_NOT_ALLOWED, "path-not-allowed", "Path is outside of the configured roots")   \
    X(NOT_FOUND, "not-found", "No such resource")                                        \
    X(METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed here")               \
    X(BODY_TOO_LARGE, "body-too-large", "Request body is too large")                     \
    X(UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Body is not application/json")  \
    X(VOLUME_NOT_FOUND, "volume-not-found", "No such volume")                            \
    X(OPERATION_NOT_FOUND, "operation-not-found", "No such operation")                   \
    X(SPEC_CONFLICT, "spec-conflict", "Another spec is attached under this id")          \
    X(SOURCE_IN_USE, "source-in-use", "The source is attached as another volume")        \
    X(MOUNT_PATH_BUSY, "mount-path-busy", "The mount path is in use")                    \
    X(OPERATION_PENDING, "operation-pending", "Another operation is running")            \
    X(CHAP_REFUSED, "chap-refused", "The target refused the CHAP credentials")           \
    X(TARGET_NOT_FOUND, "target-not-found", "The portal does not know this target")      \
    X(LUN_NOT_FOUND, "lun-not-found", "The target has no such LUN")                      \
    X(PORTAL_UNREACHABLE, "portal-unreachable", "No portal can be reached")              \
    X(TARGET_TIMEOUT, "target-timeout", "The target did not answer in time")             \
    X(NOT_BLANK, "not-blank", "The device is not blank")                                 \
    X(WRONG_FILESYSTEM, "wrong-filesystem", "Another file system is on the device")      \
    X(FILESYSTEM_UNSUPPORTED, "filesystem-unsupported", "File system not supported")     \
    X(DATA_NOT_WRITTEN, "data-not-written", "Data was not written to the device")        \
    X(DEVICE_ERROR, "device-error", "The device or the file system reported an error")   \
    X(DEVICE_MISMATCH, "device-mismatch", "The device is not the recorded one")          \
    X(DEVICE_HELD, "device-held", "The device is held")                                  \
    X(ORPHAN, "orphan", "Something of this id was left mapped")                          \
    X(DETACH_CANCELLED, "detach-cancelled", "The detach was cancelled")                  \
    X(RECOVERING, "recovering", "The agent is reading its journal back")                 \
    X(WEDGED, "wedged", "A worker is stuck in the kernel")                               \
    X(JOURNAL_UNAVAILABLE, "journal-unavailable", "The journal cannot be written")       \
    X(FENCED, "fenced", "This node was fenced from the volume")                          \
    X(SHUTTING_DOWN, "shutting-down", "The agent is shutting down")                      \
    X(NOT_DETACHING, "not-detaching", "The volume is not being detached")                \
    X(HOLDER_NOT_FOUND, "holder-not-found", "No such holder in the last scan")           \
    X(LOSS_NOT_ACCEPTED, "loss-not-accepted", "The loss of data was not accepted")       \
    X(ACTION_UNSUPPORTED, "action-unsupported", "The action does not apply here")        \
    X(TOO_MANY_REQUESTS, "too-many-requests", "Too many requests are waiting")

enum mr_code {
#define MR_CODE_ENUM(name, slug, title) MR_E_##name,
    MR_CODES(MR_CODE_ENUM)
#undef MR_CODE_ENUM
    MR_CODE_COUNT
};

/* May anything still be mapped or mounted? Unknown is the zero value. */
enum mr_residue {
    MR_RESIDUE_UNKNOWN = 0,
    MR_RESIDUE_POSSIBLE,
    MR_RESIDUE_NONE,
};

struct mr_err {
    enum mr_code code;
    int errnum; /* positive errno of the cause, 0 when there is none */
    enum mr_residue residue;
    char step[16];     /* attach or detach step, "" when it does not apply */
    char pointer[128]; /* RFC 6901 pointer into the request body, or "" */
    char volume[132];  /* id of another volume that is the reason, or "" */
    char message[512]; /* what happened, where; no trailing full stop */
    char remedy[256];  /* what the caller can do about it, or "" */
};

/* Slug ("source-in-use") and title of a code. Never NULL. */
const char *mr_code_slug(enum mr_code code);
const char *mr_code_title(enum mr_code code);
/* The code with this slug, MR_E_INTERNAL when there is none. */
enum mr_code mr_code_from_slug(const char *slug);
/* "none", "possible" or "unknown". */
const char *mr_residue_name(enum mr_residue residue);

/* Fills *err (may be NULL) from scratch. errnum is a positive errno or 0; a non-zero one
 * is appended to the message as text. Returns -errnum, or -EIO when errnum is 0, so that
 * failing is one line. Keeps errno. */
int mr_fail(struct mr_err *err, enum mr_code code, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* The same for bad input: pointer says where in the body. Returns -EINVAL. */
int mr_fail_at(struct mr_err *err, enum mr_code code, const char *pointer,
               const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Puts "PREFIX: " before the message; the code stays. Returns rc unchanged. */
int mr_err_context(struct mr_err *err, int rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Sets the remedy. Returns rc unchanged. */
int mr_err_remedy(struct mr_err *err, int rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* {code, errno, message, remedy?, pointer?, volume?, step?, residue}; new reference, NULL
 * when out of memory. Used between the agent and its helpers and in the journal. */
struct json_object *mr_err_to_json(const struct mr_err *err);
/* Reads it back; anything missing or of the wrong type stays at its zero value. */
void mr_err_from_json(struct mr_err *err, struct json_object *json);

#endif
