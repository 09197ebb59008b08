/* SPDX-License-Identifier: Apache-2.0 */
#include "storage/worker/driver.h"

#include <string.h>

static const struct mr_driver *const drivers[] = {
    &mr_driver_file,
    &mr_driver_iscsi,
};

const struct mr_driver *mr_driver_find(const char *name)
{
    for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++) {
        if (strcmp(drivers[i]->name, name) == 0)
            return drivers[i];
    }
    return NULL;
}
