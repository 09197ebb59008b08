/* SPDX-License-Identifier: Apache-2.0
 *
 * An engine in memory behind storage/engine.h, for the tests of the API: nothing is
 * mapped or mounted. What happens is chosen by the volume's id: "slow*" operations last
 * 10 s, "fail*" attach fails with device-error after 20 ms, all others take 20 ms; a
 * detach of "held*" lasts 10 s; any call for "pending*" is refused.
 */
#ifndef MR_TESTS_UNIT_FAKE_ENGINE_H
#define MR_TESTS_UNIT_FAKE_ENGINE_H

#include <stdbool.h>

#include "storage/engine.h"

void fake_engine_set_recovering(struct mr_engine *engine, bool recovering);

#endif
