/* SPDX-License-Identifier: Apache-2.0
 *
 * key=value lines on stderr with a syslog priority prefix (sd-daemon(3)). Only the agent,
 * the api and the mains of the helpers log; library code returns mr_err. Secrets never
 * get here.
 */
#ifndef MR_STORAGE_BASE_LOG_H
#define MR_STORAGE_BASE_LOG_H

enum mr_log_level {
    MR_LOG_ERR = 3,
    MR_LOG_WARNING = 4,
    MR_LOG_NOTICE = 5,
    MR_LOG_INFO = 6,
    MR_LOG_DEBUG = 7,
};

/* Program name for the lines; the text is borrowed for ever. Level from MOORING_LOG
 * (err|warning|notice|info|debug), default info. Call once, before threads start. */
void mr_log_init(const char *program);
/* One line, one write(2), control characters replaced. Thread-safe, keeps errno. */
void mr_log(enum mr_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
