/* SPDX-License-Identifier: Apache-2.0 */
#include "api/prefer.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "storage/base/clock.h"

static const char *skip_blanks(const char *s)
{
    return s + strspn(s, " \t");
}

/* N of wait=N, perhaps quoted, up to blanks, ';' or ','; above the maximum it is clamped.
 */
static bool parse_seconds(const char *s, unsigned *ret)
{
    bool quoted = *s == '"';
    unsigned seconds = 0;

    s += quoted;
    size_t digits = strspn(s, "0123456789");
    if (digits == 0)
        return false;
    for (size_t i = 0; i < digits && seconds <= MR_PREFER_WAIT_MAX_S; i++)
        seconds = seconds * 10 + (unsigned)(s[i] - '0');
    s += digits;
    if (quoted && *s++ != '"')
        return false;
    s = skip_blanks(s);
    if (*s != '\0' && *s != ';' && *s != ',')
        return false;
    *ret = seconds < MR_PREFER_WAIT_MAX_S ? seconds : MR_PREFER_WAIT_MAX_S;
    return true;
}

static void parse_one(struct mr_prefer *prefer, const char *s)
{
    size_t name = strcspn(s, " \t=;,");
    const char *value = skip_blanks(s + name);

    if (name == 13 && strncasecmp(s, "respond-async", name) == 0 && *value != '=') {
        prefer->respond_async = true;
    } else if (name == 4 && strncasecmp(s, "wait", name) == 0 && *value == '=' &&
               !prefer->wait) {
        prefer->wait = parse_seconds(skip_blanks(value + 1), &prefer->wait_s);
    }
}

void mr_prefer_parse(struct mr_prefer *prefer, const char *value)
{
    bool quoted = false;

    parse_one(prefer, skip_blanks(value));
    for (const char *c = value; *c; c++) {
        if (*c == '"')
            quoted = !quoted;
        else if (quoted && *c == '\\' && c[1])
            c++;
        else if (*c == ',' && !quoted)
            parse_one(prefer, skip_blanks(c + 1));
    }
}

int64_t mr_prefer_wait_ns(const struct mr_prefer *prefer, unsigned fallback_s)
{
    unsigned seconds = fallback_s;

    if (prefer->wait)
        seconds = prefer->wait_s;
    else if (prefer->respond_async)
        seconds = 0;
    return (int64_t)seconds * MR_NS_PER_S;
}
