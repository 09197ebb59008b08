/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/claim.h"

#include <errno.h>
#include <fcntl.h>

#include "storage/base/cleanup.h"
#include "storage/base/clock.h"
#include "storage/worker/device.h"

#define BACKOFF_FIRST_NS (MR_NS_PER_MS / 10)
#define BACKOFF_CAP_NS (20 * MR_NS_PER_MS)

enum mr_presence mr_device_present(const struct mr_identity *identity)
{
    const char *why = NULL;

    return mr_device_state(identity, &why);
}

/* What an open that failed, or that opened something else, means: gone only when sysfs
 * says so. */
static enum mr_claim_result gone_or_unknown(const struct mr_identity *identity)
{
    return mr_device_present(identity) == MR_ABSENT_NOW ? MR_CLAIM_GONE
                                                        : MR_CLAIM_UNKNOWN;
}

/* Asks sysfs first: an exclusive open of a number that is bound to another volume by now
 * would disturb that volume's mount, and its EBUSY would be read as ours. */
static enum mr_claim_result try_claim(const struct mr_identity *identity, int *ret_fd,
                                      struct mr_err *err)
{
    const char *why = NULL;
    enum mr_presence state = mr_device_state(identity, &why);

    if (state == MR_ABSENT_NOW)
        return MR_CLAIM_GONE;
    if (state != MR_PRESENT) {
        (void)mr_fail(err, MR_E_DEVICE_ERROR, 0, "cannot tell whether '%s' is there: %s",
                      identity->node, why);
        return MR_CLAIM_UNKNOWN;
    }
    MR_AUTO_CLOSE int fd =
        open(identity->node, O_RDONLY | O_EXCL | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        if (errno == EBUSY)
            return MR_CLAIM_BUSY;
        (void)mr_fail(err, MR_E_DEVICE_ERROR, errno, "exclusive open of '%s'",
                      identity->node);
        return gone_or_unknown(identity);
    }
    if (mr_device_check(identity, fd, err) < 0)
        return gone_or_unknown(identity);
    /* Unbound between the two looks: the open of an empty loop device succeeds. */
    state = mr_device_state(identity, &why);
    if (state != MR_PRESENT) {
        (void)mr_fail(err, MR_E_DEVICE_ERROR, 0, "'%s' changed while it was opened: %s",
                      identity->node, why);
        return state == MR_ABSENT_NOW ? MR_CLAIM_GONE : MR_CLAIM_UNKNOWN;
    }
    *ret_fd = mr_take_fd(&fd);
    return MR_CLAIM_OK;
}

enum mr_claim_result mr_claim(const struct mr_identity *identity, int64_t budget_ms,
                              int *ret_fd, unsigned *ret_tries, struct mr_err *err)
{
    int64_t deadline_ns = mr_now_ns() + budget_ms * MR_NS_PER_MS;
    int64_t wait_ns = BACKOFF_FIRST_NS;
    enum mr_claim_result result;

    *ret_tries = 0;
    for (;;) {
        result = try_claim(identity, ret_fd, err);
        ++*ret_tries;
        if (result != MR_CLAIM_BUSY || mr_now_ns() + wait_ns > deadline_ns)
            break;
        mr_sleep_ns(wait_ns);
        wait_ns = wait_ns * 3 / 2;
        if (wait_ns > BACKOFF_CAP_NS)
            wait_ns = BACKOFF_CAP_NS;
    }
    if (result == MR_CLAIM_OK)
        mr_device_lock(*ret_fd);
    return result;
}
