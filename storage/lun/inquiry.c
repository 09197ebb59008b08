/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/inquiry.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static uint16_t be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)be16(p) << 16 | be16(p + 2);
}

static uint64_t be64(const uint8_t *p)
{
    return (uint64_t)be32(p) << 32 | be32(p + 4);
}

/* The payload of a VPD page: checks page code and length. NULL when it is not that page.
 */
static const uint8_t *vpd_payload(const uint8_t *data, size_t len, uint8_t page,
                                  size_t *ret_len)
{
    size_t said;

    if (len < 4 || data[1] != page)
        return NULL;
    said = be16(data + 2);
    *ret_len = said < len - 4 ? said : len - 4;
    return data + 4;
}

int mr_parse_capacity16(const uint8_t *data, size_t len, struct mr_lun_facts *facts)
{
    uint64_t last;
    uint32_t block;

    if (len < 15)
        return -EBADMSG;
    last = be64(data);
    block = be32(data + 8);
    if (block < 512 || block > 4096 || (block & (block - 1)) != 0)
        return -ENOTSUP;
    if (last >= (uint64_t)INT64_MAX / block)
        return -EBADMSG;
    facts->block_size = block;
    facts->size_bytes = (last + 1) * block;
    /* LBPME and LBPRZ: only then do unmapped blocks read as zeroes, which loop(4) relies
     * on (SBC-3 5.16). */
    facts->thin = (data[14] & 0xc0) == 0xc0;
    return 0;
}

int mr_parse_vpd_serial(const uint8_t *data, size_t len, struct mr_lun_facts *facts)
{
    const uint8_t *text = vpd_payload(data, len, 0x80, &len);
    size_t used = 0;

    facts->serial[0] = '\0';
    if (!text)
        return -EBADMSG;
    while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\0'))
        len--;
    while (len > 0 && (*text == ' ' || *text == '\0')) {
        text++;
        len--;
    }
    for (; used < len && used < sizeof(facts->serial) - 1; used++)
        facts->serial[used] =
            text[used] > ' ' && text[used] < 0x7f ? (char)text[used] : '_';
    facts->serial[used] = '\0';
    return 0;
}

static void set_wwn(struct mr_lun_facts *facts, const char *prefix, const uint8_t *id,
                    size_t len)
{
    int used = snprintf(facts->wwn, sizeof(facts->wwn), "%s.", prefix);

    for (size_t i = 0; i < len && used > 0 && (size_t)used + 2 < sizeof(facts->wwn); i++)
        used +=
            snprintf(facts->wwn + used, sizeof(facts->wwn) - (size_t)used, "%02x", id[i]);
}

int mr_parse_vpd_device_id(const uint8_t *data, size_t len, struct mr_lun_facts *facts)
{
    const uint8_t *p = vpd_payload(data, len, 0x83, &len);
    size_t naa_len = 0;

    facts->wwn[0] = '\0';
    if (!p)
        return -EBADMSG;
    while (len >= 4) {
        unsigned code_set = p[0] & 0x0f;
        unsigned association = p[1] >> 4 & 0x3;
        unsigned type = p[1] & 0x0f;
        size_t id_len = p[3];

        if (id_len > len - 4)
            return -EBADMSG;
        /* Binary, and of the logical unit: a port's name would not name the volume. */
        if (code_set == 1 && association == 0) {
            if (type == 3 && id_len > naa_len) {
                set_wwn(facts, "naa", p + 4, id_len);
                naa_len = id_len;
            } else if (type == 2 && naa_len == 0 && id_len > 0) {
                set_wwn(facts, "eui", p + 4, id_len);
            }
        }
        p += 4 + id_len;
        len -= 4 + id_len;
    }
    return 0;
}

int mr_parse_vpd_limits(const uint8_t *data, size_t len, struct mr_lun_facts *facts)
{
    const uint8_t *p = vpd_payload(data, len, 0xb0, &len);

    if (!p || len < 12)
        return -EBADMSG;
    facts->max_transfer_blocks = be32(p + 4);
    if (len >= 28)
        facts->unmap_granularity_blocks = be32(p + 24);
    if (len >= 40)
        facts->max_write_same_blocks = be64(p + 32);
    return 0;
}

int mr_parse_mode_sense6(const uint8_t *data, size_t len, struct mr_lun_facts *facts)
{
    size_t at;

    if (len < 4)
        return -EBADMSG;
    facts->write_protected = data[2] & 0x80;
    if (len > (size_t)data[0] + 1)
        len = (size_t)data[0] + 1;
    at = 4 + (size_t)data[3];
    while (at + 3 <= len) {
        if ((data[at] & 0x3f) == 0x08) {
            facts->write_cache =
                data[at + 2] & 0x04 ? MR_WRITE_CACHE_ON : MR_WRITE_CACHE_OFF;
            return 0;
        }
        if (data[at] & 0x40) /* sub-page format: 16 bits of length */
            at += at + 4 <= len ? 4 + (size_t)be16(data + at + 2) : 4;
        else
            at += 2 + (size_t)data[at + 1];
    }
    return 0;
}

int mr_parse_inquiry(const uint8_t *data, size_t len, unsigned *ret_qualifier,
                     unsigned *ret_type)
{
    if (len < 5)
        return -EBADMSG;
    *ret_qualifier = data[0] >> 5;
    *ret_type = data[0] & 0x1f;
    return 0;
}
