/* SPDX-License-Identifier: Apache-2.0
 *
 * cut-transport: what a mute device hangs on is let go by making it fail.
 */
#include "storage/worker/action.h"

#include <errno.h>

int mr_act_cut(const struct mr_act *act, struct mr_outcome *ret, struct mr_err *err)
{
    char detail[MR_CUT_TEXT] = "";

    if (!act->driver->cut)
        return mr_fail(err, MR_E_ACTION_UNSUPPORTED, EOPNOTSUPP,
                       "a local file has no transport to cut");
    int r = act->driver->cut(act->token, act->runtime_dir, &act->identity, detail, err);
    if (r == 0)
        mr_outcome(ret, true, "%s", detail);
    return r;
}
