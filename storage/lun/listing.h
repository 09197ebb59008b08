/* SPDX-License-Identifier: Apache-2.0
 *
 * What a portal and its targets list: target names with their portals (SendTargets), the
 * LUNs of a target (REPORT LUNS), and where on a LUN what a prober looks at may lie. All
 * of it is hostile input: bounded, checked, cut. Pure.
 */
#ifndef MR_STORAGE_LUN_LISTING_H
#define MR_STORAGE_LUN_LISTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/lun/portal.h"
#include "storage/lun/start.h"

#define MR_LISTED_TARGETS_MAX 64
#define MR_LISTED_PORTALS_MAX 4
#define MR_LISTED_LUNS_MAX 64 /* of one target */

struct mr_listed_target {
    char name[MR_ISCSI_NAME];
    char portals[MR_LISTED_PORTALS_MAX][MR_PORTAL_HOST];
    size_t portal_count;
};

struct mr_listed_targets {
    struct mr_listed_target targets[MR_LISTED_TARGETS_MAX];
    size_t count;
    bool cut; /* there was more than fits, or what is no target name or portal */
};

/* Adds a target; NULL when the name is none (RFC 7143 section 4.2.7.1: letters, digits,
 * '-', '.', ':') or no room is left, with cut set. A name that is there already is that
 * one. */
struct mr_listed_target *mr_listed_add(struct mr_listed_targets *list, const char *name);
/* Adds a portal, "HOST:PORT,TAG" as a TargetAddress has it; the tag is dropped. */
void mr_listed_add_portal(struct mr_listed_targets *list, struct mr_listed_target *target,
                          const char *address);
/* By name: libiscsi turns the order round. */
void mr_listed_sort(struct mr_listed_targets *list);

/* The parameter data of REPORT LUNS (SPC-4 section 6.33): the first 16 bits of each
 * single-level LUN, as they are sent back to the target (flat addressing keeps its
 * 0x4000). *ret_cut: there were more than max, or LUNs of more than one level. Returns
 * how many, or -EBADMSG. */
int mr_parse_report_luns(const uint8_t *data, size_t len, uint16_t *luns, size_t max,
                         bool *ret_cut);

#define MR_INQUIRY_VENDOR 9
#define MR_INQUIRY_PRODUCT 17

/* Vendor and product of a standard INQUIRY (SPC-4 section 6.4.2), blanks around them cut
 * off; "" when the answer is too short. */
void mr_parse_inquiry_names(const uint8_t *data, size_t len,
                            char vendor[MR_INQUIRY_VENDOR],
                            char product[MR_INQUIRY_PRODUCT]);

struct mr_range {
    uint64_t offset; /* bytes, on a block boundary */
    uint64_t length;
};
#define MR_PROBE_RANGES 3

/* What libblkid and the test for "blank" look at on a LUN of this size: the first and the
 * last 2 MiB, what has its magic just behind that (VMFS), and the last place of a LUKS2
 * header. Ranges do not overlap and end within the LUN. Returns how many. */
size_t mr_probe_ranges(uint64_t size_bytes, uint32_t block_size,
                       struct mr_range ret[MR_PROBE_RANGES]);
/* An NTFS volume is one to libblkid only if its master file table is where the boot
 * sector (the first bytes of the LUN) says, which may be anywhere. False: it is none, or
 * the place is not on the LUN. */
bool mr_ntfs_table(const uint8_t *head, size_t len, uint64_t size_bytes,
                   uint32_t block_size, struct mr_range *ret);

#endif
