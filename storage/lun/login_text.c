/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/lun/login_text.h"

#include <stddef.h>
#include <string.h>

/* The value of KEY=VALUE when line holds that key, NULL otherwise. Behind the value
 * libiscsi adds " [TARGET]". */
static const char *value_of(const char *line, const char *key)
{
    size_t len = strlen(key);

    return strncmp(line, key, len) == 0 && line[len] == '=' ? line + len + 1 : NULL;
}

static bool is(const char *value, const char *wanted)
{
    size_t len = strcspn(value, " ");

    return strlen(wanted) == len && strncmp(value, wanted, len) == 0;
}

void mr_login_take_line(struct mr_login_answers *answers, const char *line)
{
    static const char prefix[] = "TargetLoginReply: ";
    const char *value;

    if (strncmp(line, prefix, sizeof(prefix) - 1) != 0)
        return;
    line += sizeof(prefix) - 1;
    if ((value = value_of(line, "AuthMethod")))
        answers->wants_chap = is(value, "CHAP");
    else if (value_of(line, "CHAP_R"))
        answers->proof = true; /* a wrong one ends the login before its line is logged */
    else if ((value = value_of(line, "HeaderDigest")))
        answers->header_digest = is(value, "CRC32C");
}

bool mr_login_proof_failed(const char *text)
{
    static const char *const signs[] = {
        "Invalid CHAP_R",        "Wrong size of CHAP_R",  "Wrong CHAP targetname",
        "did not return CHAP_N", "did not return CHAP_R",
    };

    for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++) {
        if (strstr(text, signs[i]))
            return true;
    }
    return false;
}
