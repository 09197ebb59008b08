/* SPDX-License-Identifier: Apache-2.0
 *
 * What keeper and server of one LUN share: a memfd mapped by both. It outlives a server,
 * so that the next one knows what the LUN was, which key it registered, and what was
 * counted; and the keeper can tell about a server that is stuck or stopped without asking
 * it. Every field has one writer, named below. Scalars are atomic; texts are written
 * under a sequence count, because a server may be killed at any point.
 */
#ifndef MR_STORAGE_LUN_PAGE_H
#define MR_STORAGE_LUN_PAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/base/err.h"
#include "storage/lun/fuse_proto.h"
#include "storage/lun/inquiry.h"
#include "storage/lun/portal.h"
#include "storage/lun/start.h"

#define MR_PAGE_VERSION 2 /* server and keeper of two versions must agree on it */
#define MR_PAGE_REASON 256

enum mr_link_state {
    MR_LINK_CONNECTING = 0, /* before the first login */
    MR_LINK_UP,
    MR_LINK_DOWN,     /* no session: requests wait, logins are tried */
    MR_LINK_FAILED,   /* down for longer than the replacement timeout: requests get EIO,
                         logins are still tried */
    MR_LINK_CUT,      /* on request: EIO for ever */
    MR_LINK_MISMATCH, /* another or a smaller LUN answered: EIO for ever */
    MR_LINK_FENCED,   /* our registration was taken away: EIO for ever */
    MR_LINK_STOPPING, /* the kernel let go: logging out */
};

/* Keeper -> server, bits. The server takes them when its order fd (an eventfd) says so.
 */
enum mr_order {
    MR_ORDER_CUT = 1,       /* drop the session without logout, EIO for ever */
    MR_ORDER_FAIL_NOW = 2,  /* the session ends, all requests fail until there is another
                               one; then page.failed is counted up */
    MR_ORDER_HAND_OVER = 4, /* take no more requests, finish, log out, exit 75 */
    MR_ORDER_RESIZE = 8,    /* read the capacity again; then page.resized is counted up */
    MR_ORDER_TIMEOUTS = 16, /* the timeouts below have changed */
    MR_ORDER_FENCE = 32,    /* read keys and reservation again; then page.looked is
                               counted up. Without a session it is at once, unread */
};

struct mr_page_text {
    atomic_uint sequence; /* odd: being written */
    char text[MR_PAGE_REASON];
};

struct mr_page_counters {
    _Atomic uint64_t reads, writes, flushes, discards, zeroes; /* requests */
    _Atomic uint64_t read_bytes, written_bytes;
    _Atomic uint64_t errors; /* replies with one */
    _Atomic uint64_t retries, unit_attentions;
    _Atomic uint64_t power_on_resets; /* UA 29/xx after the first login: the target may
                                         have lost what was in its cache */
    _Atomic uint64_t logins, lost_sessions;
    _Atomic uint64_t replayed; /* commands sent again into a new session */
    _Atomic uint64_t resent;   /* requests that the kernel gave to a second server */
    _Atomic uint64_t
        stalls_ns_max; /* longest time that the oldest request waited for a session */
};

/* Where the target can be reached, in numeric form. */
struct mr_page_portals {
    atomic_uint sequence;
    uint32_t count;
    char at[MR_LUN_PORTALS_MAX][MR_PORTAL_TEXT];
};

#define MR_FENCE_KEYS_MAX 32

/* Written by the server. key 0: not registered. */
struct mr_page_fence {
    atomic_uint sequence;
    bool reserve;        /* fencing is asked for */
    bool registered;     /* our key was registered at least once */
    uint64_t key;        /* ours */
    uint64_t holder;     /* of the reservation, 0: none */
    uint32_t type;       /* of the reservation, SPC-4 table 52 */
    uint32_t generation; /* PRgeneration as last seen by us */
    uint32_t key_count;  /* may be more than fit */
    uint64_t keys[MR_FENCE_KEYS_MAX];
    int64_t checked_wall_ms; /* 0: never */
};

struct mr_page {
    uint32_t version; /* MR_PAGE_VERSION, set by the keeper, as is size */
    uint32_t size;

    /* --- keeper --- */
    atomic_uint orders;             /* enum mr_order */
    _Atomic int64_t timeout_ms;     /* a target silent for so long is dead */
    _Atomic int64_t replacement_ms; /* -1: for ever */
    atomic_uint servers;            /* started so far */

    /* --- server, before it is ready; the next server compares and never changes them but
     * for size_bytes --- */
    atomic_bool known; /* facts and geometry are there */
    struct mr_lun_facts facts;
    struct mr_fuse_geometry geometry;

    /* --- server, before it is ready; then the resolver, of which there is never more
     * than one (resolve.c) --- */
    struct mr_page_portals portals[2];
    atomic_uint portal_set; /* the one of them that counts */

    /* --- server --- */
    _Atomic uint64_t size_bytes;   /* as the kernel was told */
    atomic_bool initialised;       /* FUSE_INIT was answered */
    atomic_bool can_resend;        /* the kernel said FUSE_HAS_RESEND */
    atomic_uint opens;             /* FUSE OPENs without RELEASE */
    atomic_uint state;             /* enum mr_link_state */
    _Atomic int64_t state_wall_ms; /* since when, for people */
    _Atomic int64_t state_ns;      /* the same, CLOCK_MONOTONIC: nobody sets that */
    _Atomic int64_t due_ns; /* CLOCK_MONOTONIC: not later than this it looks at the clock
                               again; INT64_MAX: only when something happens. Set by the
                               keeper while there is no server */
    atomic_uint portal;     /* in use: set * MR_LUN_PORTALS_MAX + index */
    atomic_uint in_flight;
    atomic_uint failed;      /* times that MR_ORDER_FAIL_NOW was carried out */
    atomic_uint resized;     /* times that MR_ORDER_RESIZE was carried out */
    atomic_int resize_error; /* of the last time: 0 or a positive errno */
    atomic_uint looked;      /* times that MR_ORDER_FENCE was carried out */
    atomic_int look_error;   /* of the last time; ENOTCONN: there was no session */
    atomic_bool logged_out;  /* the target confirmed it: the end is a clean one */
    atomic_bool memory_locked, io_flusher, oom_protected;
    struct mr_page_text reason; /* why it is not up, or was not */
    struct mr_page_counters counters;
    struct mr_page_fence fence;
};

/* Keeper: a new one. *ret_fd stays with the caller (close-on-exec). */
int mr_page_create(int *ret_fd, struct mr_page **ret, struct mr_err *err);
/* Server: maps an inherited one. -EPROTO when it is of another version or size. */
int mr_page_map(int fd, struct mr_page **ret, struct mr_err *err);
void mr_page_unmap(struct mr_page *page);

const char *mr_link_state_name(enum mr_link_state state);
/* Writer side of a text; cut to what fits. */
void mr_page_write_text(struct mr_page_text *dst, const char *text);
/* False (and "") when no stable text could be read. */
bool mr_page_read_text(const struct mr_page_text *src, char dst[MR_PAGE_REASON]);
/* Writes the set that does not count, then makes it count. src: sequence is ignored. */
void mr_page_write_portals(struct mr_page *page, const struct mr_page_portals *src);
/* One set. False (and none) when it cannot be read. */
bool mr_page_read_portals(const struct mr_page *page, unsigned set,
                          struct mr_page_portals *dst);
/* Both copy under the sequence count; reserve, key ... are consistent with each other. */
void mr_page_write_fence(struct mr_page *page, const struct mr_page_fence *src);
bool mr_page_read_fence(const struct mr_page *page, struct mr_page_fence *dst);

#endif
