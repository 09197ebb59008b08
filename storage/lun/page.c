/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/page.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/base/cleanup.h"

#define READ_TRIES 16
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static int map(int fd, struct mr_page **ret, struct mr_err *err)
{
    void *page = mmap(NULL, sizeof(**ret), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (page == MAP_FAILED)
        return mr_fail(err, MR_E_INTERNAL, errno, "map the page of a LUN");
    *ret = page;
    return 0;
}

int mr_page_create(int *ret_fd, struct mr_page **ret, struct mr_err *err)
{
    MR_AUTO_CLOSE int fd = memfd_create("mooring-lun", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, (off_t)sizeof(**ret)) < 0 ||
        fcntl(fd, F_ADD_SEALS, SEALS) < 0)
        return mr_fail(err, MR_E_INTERNAL, errno, "make the page of a LUN");
    int r = map(fd, ret, err);
    if (r < 0)
        return r;
    (*ret)->version = MR_PAGE_VERSION;
    (*ret)->size = (uint32_t)sizeof(**ret);
    *ret_fd = mr_take_fd(&fd);
    return 0;
}

int mr_page_map(int fd, struct mr_page **ret, struct mr_err *err)
{
    uint32_t head[2] = {0, 0}; /* version and size */
    struct stat st;

    if (fstat(fd, &st) < 0 || pread(fd, head, sizeof(head), 0) != (ssize_t)sizeof(head))
        return mr_fail(err, MR_E_INTERNAL, errno, "read the page of a LUN");
    if (head[0] != MR_PAGE_VERSION || head[1] != sizeof(**ret) ||
        st.st_size != (off_t)sizeof(**ret))
        return mr_fail(err, MR_E_INTERNAL, EPROTO,
                       "the page of a LUN is of version %u with %u bytes instead of %d "
                       "with %zu",
                       head[0], head[1], MR_PAGE_VERSION, sizeof(**ret));
    return map(fd, ret, err);
}

void mr_page_unmap(struct mr_page *page)
{
    if (page)
        (void)munmap(page, sizeof(*page));
}

const char *mr_link_state_name(enum mr_link_state state)
{
    switch (state) {
    case MR_LINK_CONNECTING:
        return "connecting";
    case MR_LINK_UP:
        return "up";
    case MR_LINK_DOWN:
        return "down";
    case MR_LINK_FAILED:
        return "failed";
    case MR_LINK_CUT:
        return "cut";
    case MR_LINK_MISMATCH:
        return "mismatch";
    case MR_LINK_FENCED:
        return "fenced";
    case MR_LINK_STOPPING:
        return "stopping";
    }
    return "unknown";
}

/* The writer before may have been killed while it wrote: an odd count stays odd. */
static unsigned begin_write(atomic_uint *sequence)
{
    unsigned odd = atomic_load_explicit(sequence, memory_order_relaxed) | 1U;

    atomic_store_explicit(sequence, odd, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    return odd;
}

static void end_write(atomic_uint *sequence, unsigned odd)
{
    atomic_store_explicit(sequence, odd + 1, memory_order_release);
}

/* Copies what stands under a sequence count. False when a writer was always at it, or
 * died at it. */
static bool copy_stable(const atomic_uint *sequence, void *dst, const void *src,
                        size_t size)
{
    for (int i = 0; i < READ_TRIES; i++) {
        unsigned before = atomic_load_explicit(sequence, memory_order_acquire);

        memcpy(dst, src, size);
        atomic_thread_fence(memory_order_acquire);
        if (!(before & 1U) &&
            atomic_load_explicit(sequence, memory_order_relaxed) == before)
            return true;
    }
    return false;
}

void mr_page_write_text(struct mr_page_text *dst, const char *text)
{
    unsigned odd = begin_write(&dst->sequence);

    (void)snprintf(dst->text, sizeof(dst->text), "%s", text);
    end_write(&dst->sequence, odd);
}

bool mr_page_read_text(const struct mr_page_text *src, char dst[MR_PAGE_REASON])
{
    bool stable = copy_stable(&src->sequence, dst, src->text, MR_PAGE_REASON);

    dst[stable ? MR_PAGE_REASON - 1 : 0] = '\0';
    return stable;
}

/* All of it but the sequence. */
#define PORTALS_BODY offsetof(struct mr_page_portals, count)

void mr_page_write_portals(struct mr_page *page, const struct mr_page_portals *src)
{
    const unsigned set = atomic_load(&page->portal_set) ? 0 : 1;
    struct mr_page_portals *dst = &page->portals[set];
    unsigned odd = begin_write(&dst->sequence);

    memcpy((char *)dst + PORTALS_BODY, (const char *)src + PORTALS_BODY,
           sizeof(*src) - PORTALS_BODY);
    end_write(&dst->sequence, odd);
    atomic_store(&page->portal_set, set);
}

bool mr_page_read_portals(const struct mr_page *page, unsigned set,
                          struct mr_page_portals *dst)
{
    memset(dst, 0, sizeof(*dst));
    if (set > 1 ||
        !copy_stable(&page->portals[set].sequence, (char *)dst + PORTALS_BODY,
                     (const char *)&page->portals[set] + PORTALS_BODY,
                     sizeof(*dst) - PORTALS_BODY) ||
        dst->count > MR_LUN_PORTALS_MAX)
        dst->count = 0;
    for (size_t i = 0; i < MR_LUN_PORTALS_MAX; i++)
        dst->at[i][MR_PORTAL_TEXT - 1] = '\0';
    return dst->count > 0;
}

/* All of it but the count. */
#define FENCE_BODY offsetof(struct mr_page_fence, reserve)

void mr_page_write_fence(struct mr_page *page, const struct mr_page_fence *src)
{
    unsigned odd = begin_write(&page->fence.sequence);

    memcpy((char *)&page->fence + FENCE_BODY, (const char *)src + FENCE_BODY,
           sizeof(*src) - FENCE_BODY);
    end_write(&page->fence.sequence, odd);
}

bool mr_page_read_fence(const struct mr_page *page, struct mr_page_fence *dst)
{
    memset(dst, 0, sizeof(*dst));
    if (copy_stable(&page->fence.sequence, (char *)dst + FENCE_BODY,
                    (const char *)&page->fence + FENCE_BODY, sizeof(*dst) - FENCE_BODY))
        return true;
    memset(dst, 0, sizeof(*dst));
    return false;
}
