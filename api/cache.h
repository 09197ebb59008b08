/* SPDX-License-Identifier: Apache-2.0
 *
 * Ready-made answers of GET /volumes/{id}, one per volume generation: serialising a
 * document costs more than all the rest of the request. Direct-mapped and bounded; a
 * collision only costs time.
 */
#ifndef MR_API_CACHE_H
#define MR_API_CACHE_H

#include <microhttpd.h>
#include <stdint.h>

#define MR_CACHE_SLOTS 256

struct mr_cache {
    struct {
        char *id;
        uint64_t generation;
        struct MHD_Response *response;
    } slots[MR_CACHE_SLOTS];
};

/* Borrowed, or NULL. */
struct MHD_Response *mr_cache_get(const struct mr_cache *cache, const char *id,
                                  uint64_t generation);
/* Takes the caller's reference; what was in the slot goes. */
void mr_cache_put(struct mr_cache *cache, const char *id, uint64_t generation,
                  struct MHD_Response *response);
void mr_cache_done(struct mr_cache *cache);

#endif
