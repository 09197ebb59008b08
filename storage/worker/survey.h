/* SPDX-License-Identifier: Apache-2.0
 *
 * The search for what carries our mark and is in no journal (protocol.h, "search"), in
 * parts: LUN servers, loop devices, mounts. Nothing is changed, every wait is bounded,
 * and every text may have been shaped by somebody else. Single-threaded.
 */
#ifndef MR_STORAGE_WORKER_SURVEY_H
#define MR_STORAGE_WORKER_SURVEY_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/identity.h"
#include "storage/worker/lun_server.h"

#define MR_ORPHANS_MAX 100

/* All that carries one token. */
struct mr_orphan {
    char token[MR_TOKEN_TEXT];
    bool on_lun;                 /* of mooring-lun, not a file */
    struct mr_identity identity; /* diskseq 0: nothing is mapped */
    char *backing_file;          /* of the loop device, may be NULL */
    struct mr_lun_server server; /* pid 0: none */
    char state[16];              /* what it says, or "mute", "incompatible" */
    struct json_object *source;  /* as in a spec, or NULL */
    struct json_object *mounts;
    struct json_object *fuse_mounts;
};

struct mr_search {
    const char *runtime_dir;
    struct json_object *roots; /* array of strings, longest match wins */
    const char **tokens;       /* known ones, sorted */
    size_t token_count;
    uint64_t *diskseqs; /* the same */
    size_t diskseq_count;
    int64_t deadline_ns;
    bool complete;
    struct mr_orphan *orphans; /* MR_ORPHANS_MAX */
    size_t orphan_count;
};

bool mr_search_knows_token(const struct mr_search *search, const char *token);
bool mr_search_knows_device(const struct mr_search *search, uint64_t diskseq);
/* The orphan of this token, a new one when there was none. NULL when the token is known,
 * or there are too many (then the search is not complete). */
struct mr_orphan *mr_search_orphan(struct mr_search *search, const char *token);
/* The normalised source of a spec, when it is a valid one; *ret_key (MR_KEY_TEXT, may be
 * NULL) names it. Takes json. */
struct json_object *mr_search_source(struct json_object *json, char *ret_key);

/* survey_servers.c: whoever serves RUNTIME/lun/TOKEN.sock, and what it says of itself. */
void mr_search_servers(struct mr_search *search);
/* survey_devices.c: bound loop devices. */
void mr_search_devices(struct mr_search *search);
/* survey_mounts.c: mounts of the orphans found so far, FUSE mounts with our mark. */
void mr_search_mounts(struct mr_search *search);

#endif
