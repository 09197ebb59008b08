/* SPDX-License-Identifier: Apache-2.0 */
#include "api/uri.h"

#include <errno.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int mr_uri_decode(const char *src, size_t bytes, bool plus_is_space, char *dst)
{
    for (size_t i = 0; i < bytes; i++) {
        char c = src[i];
        if (c == '%') {
            bool whole = bytes - i > 2;
            int high = whole ? hex_digit(src[i + 1]) : -1;
            int low = whole ? hex_digit(src[i + 2]) : -1;
            if (high < 0 || low < 0 || high + low == 0)
                return -EINVAL;
            c = (char)(high * 16 + low);
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        *dst++ = c;
    }
    *dst = '\0';
    return 0;
}

bool mr_uri_origin_form(const char *target)
{
    if (target[0] != '/')
        return false;
    for (const char *c = target; *c; c++)
        if (*c <= 0x20 || *c >= 0x7f || *c == '#')
            return false;
    return true;
}
