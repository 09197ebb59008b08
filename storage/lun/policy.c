/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/policy.h"

#include <stdio.h>
#include <string.h>

#include "storage/base/clock.h"

#define PAUSE_MIN_NS (500 * MR_NS_PER_MS)
#define PAUSE_MAX_NS (3 * MR_NS_PER_S)
#define PAUSE_SHARE 60
#define REFUSED_NS (5 * MR_NS_PER_S)

int64_t mr_policy_pause(int64_t down_ns, bool refused, uint32_t random)
{
    int64_t pause = down_ns / PAUSE_SHARE;

    if (refused)
        return REFUSED_NS;
    if (pause < PAUSE_MIN_NS)
        pause = PAUSE_MIN_NS;
    if (pause > PAUSE_MAX_NS)
        pause = PAUSE_MAX_NS;
    return pause * (800 + (int64_t)(random % 401)) / 1000;
}

int64_t mr_policy_patience(int64_t since_ns, int64_t replacement_ms)
{
    return replacement_ms < 0 ? INT64_MAX : since_ns + replacement_ms * MR_NS_PER_MS;
}

int64_t mr_policy_patience_restarted(int64_t since_ns, int64_t replacement_ms,
                                     int64_t timeout_ms)
{
    const bool short_of = replacement_ms >= 0 && replacement_ms < timeout_ms;

    return mr_policy_patience(since_ns, short_of ? timeout_ms : replacement_ms);
}

size_t mr_policy_portal(size_t good, size_t n, size_t count)
{
    return (good + n) % count;
}

bool mr_policy_outage_over(int64_t oldest_ns, int64_t up_ns, int64_t now_ns,
                           int64_t timeout_ns)
{
    return oldest_ns == 0 || oldest_ns > up_ns || now_ns - up_ns >= timeout_ns;
}

/* What was never known proves nothing, either way. */
static enum mr_same_lun compare_text(const char *what, const char *was, const char *is,
                                     char *why, size_t size)
{
    if (!*was || strcmp(was, is) == 0)
        return MR_LUN_SAME;
    (void)snprintf(why, size, "the LUN's %s was '%s', now it is '%s'", what, was, is);
    return *is ? MR_LUN_OTHER : MR_LUN_UNPROVEN;
}

static enum mr_same_lun compare_size(const struct mr_lun_facts *was,
                                     const struct mr_lun_facts *is, char *why,
                                     size_t size)
{
    if (is->block_size != was->block_size) {
        (void)snprintf(why, size, "the LUN's blocks had %u bytes, now they have %u",
                       was->block_size, is->block_size);
        return MR_LUN_OTHER;
    }
    if (is->size_bytes < was->size_bytes) {
        (void)snprintf(why, size, "the LUN had %llu bytes, now it has %llu",
                       (unsigned long long)was->size_bytes,
                       (unsigned long long)is->size_bytes);
        return MR_LUN_OTHER;
    }
    return is->size_bytes > was->size_bytes ? MR_LUN_LARGER : MR_LUN_SAME;
}

enum mr_same_lun mr_policy_compare(const struct mr_lun_facts *was,
                                   const struct mr_lun_facts *is, char *why, size_t size)
{
    enum mr_same_lun wwn = compare_text("WWN", was->wwn, is->wwn, why, size);
    enum mr_same_lun serial;

    if (wwn == MR_LUN_OTHER)
        return wwn;
    serial = compare_text("serial number", was->serial, is->serial, why, size);
    if (serial != MR_LUN_SAME)
        return serial;
    if (wwn != MR_LUN_SAME)
        return wwn;
    why[0] = '\0';
    return compare_size(was, is, why, size);
}
