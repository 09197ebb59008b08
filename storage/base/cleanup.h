/* SPDX-License-Identifier: Apache-2.0
 *
 * Scope guards: memory and fds end with the scope that declared them.
 * Guards keep errno. Giving a guarded thing away is a visible verb: mr_take_*().
 */
#ifndef MR_STORAGE_BASE_CLEANUP_H
#define MR_STORAGE_BASE_CLEANUP_H

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* Defines mr_guard_NAME(TYPE *): calls FN on the variable unless it is NULL. */
#define MR_DEFINE_CLEANUP(name, type, fn)                                                \
    static inline void mr_guard_##name(type *p)                                          \
    {                                                                                    \
        int saved_errno_ = errno;                                                        \
        if (*p)                                                                          \
            fn(*p);                                                                      \
        errno = saved_errno_;                                                            \
    }                                                                                    \
    struct mr_guard_##name##_needs_semicolon

#define MR_CLEANUP(name) __attribute__((cleanup(mr_guard_##name)))

static inline void mr_guard_free(void *p)
{
    int saved = errno;
    free(*(void **)p);
    errno = saved;
}

static inline void mr_guard_close(const int *fd)
{
    int saved = errno;
    if (*fd >= 0)
        (void)close(*fd);
    errno = saved;
}

#define MR_AUTO_FREE __attribute__((cleanup(mr_guard_free)))
#define MR_AUTO_CLOSE __attribute__((cleanup(mr_guard_close)))

/* Takes the fd out of its guard: the caller closes it from now on. */
static inline int mr_take_fd(int *fd)
{
    int v = *fd;
    *fd = -1;
    return v;
}

/* Closes *fd (if any) now and marks it closed. */
static inline void mr_close(int *fd)
{
    mr_guard_close(fd);
    *fd = -1;
}

/* Takes the pointer out of its guard: the caller frees it from now on. */
#define mr_take_ptr(p)                                                                   \
    __extension__({                                                                      \
        __typeof__(p) taken_ = (p);                                                      \
        (p) = NULL;                                                                      \
        taken_;                                                                          \
    })

#endif
