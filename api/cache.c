/* SPDX-License-Identifier: Apache-2.0 */
#include "api/cache.h"

#include <stdlib.h>
#include <string.h>

/* FNV-1a */
static size_t slot_of(const char *id)
{
    uint32_t hash = 2166136261u;
    for (; *id; id++)
        hash = (hash ^ (unsigned char)*id) * 16777619u;
    return hash % MR_CACHE_SLOTS;
}

static void clear(struct mr_cache *cache, size_t slot)
{
    free(cache->slots[slot].id);
    cache->slots[slot].id = NULL;
    if (cache->slots[slot].response)
        MHD_destroy_response(cache->slots[slot].response);
    cache->slots[slot].response = NULL;
}

struct MHD_Response *mr_cache_get(const struct mr_cache *cache, const char *id,
                                  uint64_t generation)
{
    size_t slot = slot_of(id);

    if (!cache->slots[slot].id || cache->slots[slot].generation != generation ||
        strcmp(cache->slots[slot].id, id) != 0)
        return NULL;
    return cache->slots[slot].response;
}

void mr_cache_put(struct mr_cache *cache, const char *id, uint64_t generation,
                  struct MHD_Response *response)
{
    size_t slot = slot_of(id);

    clear(cache, slot);
    cache->slots[slot].id = strdup(id);
    cache->slots[slot].generation = generation;
    cache->slots[slot].response = response;
}

void mr_cache_done(struct mr_cache *cache)
{
    for (size_t slot = 0; slot < MR_CACHE_SLOTS; slot++)
        clear(cache, slot);
}
