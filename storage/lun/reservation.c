/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/reservation.h"

#include <errno.h>

#define HEAD 8
#define KEY 8
#define DESCRIPTOR 16
#define SCOPE_AND_TYPE 21
#define PTPL_C 0x01

static uint64_t get_be(const uint8_t *data, size_t bytes)
{
    uint64_t value = 0;

    for (size_t i = 0; i < bytes; i++)
        value = value << 8 | data[i];
    return value;
}

int mr_parse_pr_keys(const uint8_t *data, size_t len, struct mr_reservation *ret)
{
    size_t bytes;

    ret->key_count = 0;
    if (len < HEAD)
        return -EBADMSG;
    bytes = (size_t)get_be(data + 4, 4);
    if (bytes > len - HEAD || bytes % KEY != 0 ||
        bytes / KEY > (size_t)MR_RESERVATION_KEYS_MAX)
        return -EBADMSG;
    for (size_t i = 0; i < bytes / KEY; i++) {
        ret->keys[i] = get_be(data + HEAD + i * KEY, KEY);
        if (ret->keys[i] == 0) /* means "not registered" */
            return -EBADMSG;
    }
    ret->generation = (uint32_t)get_be(data, 4);
    ret->key_count = bytes / KEY;
    return 0;
}

int mr_parse_pr_reservation(const uint8_t *data, size_t len, struct mr_reservation *ret,
                            uint32_t *ret_generation)
{
    size_t bytes;

    ret->held = false;
    ret->holder = 0;
    ret->type = 0;
    if (len < HEAD)
        return -EBADMSG;
    bytes = (size_t)get_be(data + 4, 4);
    if (bytes != 0 && (bytes != DESCRIPTOR || len < HEAD + DESCRIPTOR))
        return -EBADMSG;
    *ret_generation = (uint32_t)get_be(data, 4);
    if (bytes == 0)
        return 0;
    if (data[SCOPE_AND_TYPE] >> 4 != 0) /* not the whole logical unit */
        return -EBADMSG;
    ret->held = true;
    ret->holder = get_be(data + HEAD, KEY);
    ret->type = data[SCOPE_AND_TYPE] & 0x0f;
    return 0;
}

int mr_parse_pr_capabilities(const uint8_t *data, size_t len, bool *ret_ptpl)
{
    *ret_ptpl = false;
    if (len < HEAD || get_be(data, 2) != HEAD)
        return -EBADMSG;
    *ret_ptpl = data[2] & PTPL_C;
    return 0;
}

size_t mr_reservation_count(const struct mr_reservation *seen, uint64_t key)
{
    size_t count = 0;

    for (size_t i = 0; i < seen->key_count; i++)
        count += seen->keys[i] == key;
    return count;
}
