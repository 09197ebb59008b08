/* SPDX-License-Identifier: Apache-2.0
 *
 * What a LUN says about itself, read from the raw bytes of its answers (SPC-4, SBC-3).
 * Every byte is hostile: lengths are checked against what arrived, text is cut and
 * cleaned. Pure.
 */
#ifndef MR_STORAGE_LUN_INQUIRY_H
#define MR_STORAGE_LUN_INQUIRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mr_write_cache {
    MR_WRITE_CACHE_UNKNOWN = 0, /* never taken for "off" */
    MR_WRITE_CACHE_ON,
    MR_WRITE_CACHE_OFF,
};

struct mr_lun_facts {
    uint64_t size_bytes;
    uint32_t block_size; /* bytes */
    bool thin;           /* LBPME: has logical block provisioning */
    bool write_protected;
    enum mr_write_cache write_cache;
    uint32_t max_transfer_blocks;      /* VPD 0xB0; 0: no limit said */
    uint64_t max_write_same_blocks;    /* VPD 0xB0; 0: no limit said */
    uint32_t unmap_granularity_blocks; /* VPD 0xB0; 0: not said */
    char serial[128];                  /* VPD 0x80, trimmed, or "" */
    char wwn[128];                     /* VPD 0x83: "naa.HEX" or "eui.HEX", or "" */
};

/* Each returns 0, or -EBADMSG when the answer is too short or makes no sense. */

/* READ CAPACITY(16): size, block size, thin. -ENOTSUP for a block size that no loop
 * device takes (only powers of two from 512 to 4096). */
int mr_parse_capacity16(const uint8_t *data, size_t len, struct mr_lun_facts *facts);
/* VPD 0x80 Unit Serial Number. */
int mr_parse_vpd_serial(const uint8_t *data, size_t len, struct mr_lun_facts *facts);
/* VPD 0x83 Device Identification: the longest NAA of the logical unit, else its EUI-64.
 */
int mr_parse_vpd_device_id(const uint8_t *data, size_t len, struct mr_lun_facts *facts);
/* VPD 0xB0 Block Limits. */
int mr_parse_vpd_limits(const uint8_t *data, size_t len, struct mr_lun_facts *facts);
/* MODE SENSE(6): write protection, and the write cache when the caching page (0x08) is in
 * it. */
int mr_parse_mode_sense6(const uint8_t *data, size_t len, struct mr_lun_facts *facts);

/* Peripheral qualifier and device type of a standard INQUIRY. */
int mr_parse_inquiry(const uint8_t *data, size_t len, unsigned *ret_qualifier,
                     unsigned *ret_type);

#endif
