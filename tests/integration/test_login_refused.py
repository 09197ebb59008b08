# SPDX-License-Identifier: Apache-2.0
"""What a target means when it says no to a login, in words that help."""
import pytest

from mooring.portals import Refuser


def source(portal, **more):
    return {"driver": "iscsi", "portals": [portal], "target": "iqn.2026-11.example:t", "lun": 1, **more}


@pytest.mark.parametrize("status, more, code, said", [
    (0x0201, {}, "chap-refused", "without CHAP credentials"),
    (0x0202, {}, "chap-refused", "admits this initiator name"),
    (0x0203, {}, "target-not-found", "does not know target"),
    (0x0301, {}, "device-error", "does not serve target"),
    (0x0200, {"header_digest": "crc32c"}, "device-error", "does not agree to header digests"),
    (0x0200, {}, "device-error", "Initiator error"),
])
def test_refused(agent, status, more, code, said):
    a = agent()
    with Refuser(status) as portal:
        spec = {"source": source(portal.portal, **more), "filesystem": {"type": "ext4"}}
        problem = a.put("v", spec).expect(502, code=code).json
    assert said in problem["detail"] + problem.get("remedy", ""), problem
    assert portal.portal in problem["detail"], problem
