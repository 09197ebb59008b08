# SPDX-License-Identifier: Apache-2.0
"""openapi.yaml is the contract: what is in it is there, and what is there is in it."""
import os
import pathlib
import re
import subprocess

import jsonschema
import pytest
import yaml

from mooring.wait import eventually

TOP = pathlib.Path(__file__).resolve().parents[2]
TEXT = (TOP / "openapi.yaml").read_bytes()
CONTRACT = yaml.safe_load(TEXT)
METHODS = ("get", "put", "delete", "post", "patch")


def schema(name):
    return jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": CONTRACT["components"]})


def resolve(node):
    while "$ref" in node:
        found = CONTRACT
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        node = found
    return node


def conforms(answer, method, pattern):
    """The status is documented; required headers, content type and body are as documented."""
    operation = CONTRACT["paths"][pattern][method.lower()]
    assert str(answer.status) in operation["responses"], f"{method} {pattern}: {answer!r} is not documented"
    response = resolve(operation["responses"][str(answer.status)])
    for name, header in response.get("headers", {}).items():
        if resolve(header).get("required"):
            assert name in answer.headers, f"{method} {pattern} {answer.status}: no {name}"
    content = response.get("content", {})
    if answer.body:
        assert answer.content_type in content, f"{method} {pattern} {answer.status}: {answer.content_type}"
        node = content[answer.content_type]["schema"]
        if "json" in answer.content_type:
            jsonschema.Draft202012Validator({**node, "components": CONTRACT["components"]}).validate(answer.json)
    if answer.content_type == "application/problem+json":
        described = response["description"]
        assert answer.json["code"] in described, f"{method} {pattern} {answer.status}: {answer.json['code']}"
    return answer


def test_routes_are_the_same_in_both_directions(agent):
    a = agent(start=False)
    dump = subprocess.run([str(a.binary), "--dump-routes"], capture_output=True, text=True, check=True).stdout
    served = {tuple(line.split()) for line in dump.splitlines()}
    described = {(method.upper(), pattern) for pattern, item in CONTRACT["paths"].items()
                 for method in item if method in METHODS}
    assert served == described


def test_agent_serves_the_contract_of_its_source(agent):
    answer = agent().request("GET", "/v1/openapi.yaml").expect(200)
    assert answer.body == TEXT and answer.content_type == "application/yaml"


def test_codes_are_the_same_in_both_directions():
    header = (TOP / "storage/base/err.h").read_text()
    codes = re.findall(r'X\([A-Z_]+, "([a-z-]+)", "', header)
    assert sorted(codes) == sorted(CONTRACT["components"]["schemas"]["Code"]["enum"]) and len(codes) > 30
    described = " ".join(r["description"] for r in CONTRACT["components"]["responses"].values())
    missing = [c for c in codes if c not in described and c != "method-not-allowed"]  # 405 belongs to no path
    assert not missing


def enum_of(name, *path):
    node = CONTRACT["components"]["schemas"][name]
    for key in path:
        node = node[key]
    return [value for value in node["enum"] if value is not None]


def table(path, pattern):
    """Lines of a constant table in the source."""
    return re.findall(pattern, (TOP / path).read_text())


def test_states_and_steps_are_the_same_in_both_directions():
    states = table("storage/plan.c", r'\[MR_STATE_\w+\] = "(\w+)"')
    assert set(enum_of("Volume", "properties", "state")) == set(states) - {"absent"} and len(states) > 5
    steps = table("storage/plan.c", r'\[MR_STEP_\w+\] = "(\w+)"')
    assert set(enum_of("Step")) == set(steps) - {"inspect"} and len(steps) > 5


def test_states_of_a_transport_are_the_same_in_both_directions():
    states = table("storage/transport.c", r'\[MR_TRANSPORT_\w+\] = "(\w+)"')
    assert set(enum_of("Transport", "properties", "state")) == set(states) and len(states) == 11


ACTION_ROWS = table("storage/holder_kind.c", r'\[MR_ACTION_(\w+)\]\s*=\s*\{"([a-z-]+)", (true|false), (true|false)\}')
ACTION_BITS = dict(table("storage/holder_kind.c", r"#define (\w+) BIT\(MR_ACTION_(\w+)\)"))
KIND_ROWS = table("storage/holder_kind.c", r'\[MR_HOLDER_\w+\]\s*=\s*\{"([a-z-]+)",\s*([A-Z0-9 |]+),\s*((?:"[^"]*"\s*)+)\}')


def test_kinds_and_actions_are_the_same_in_both_directions():
    header = (TOP / "storage/holder_kind.h").read_text()
    assert len(KIND_ROWS) == len(re.findall(r"^    MR_HOLDER_\w+(?: = 0)?,", header, re.M)) > 20
    assert enum_of("HolderKind") == [name for name, _, _ in KIND_ROWS]
    assert enum_of("Action") == [name for _, name, _, _ in ACTION_ROWS]
    described = CONTRACT["paths"]["/volumes/{id}/holders/actions"]["post"]["description"]
    assert sorted(re.findall(r"^- `([a-z-]+)`", described, re.M)) == sorted(enum_of("Action"))
    runtimes = table("storage/worker/scan_parse_cgroup.c", r'\{"[^"]*", "([a-z-]+)"\}')
    assert set(runtimes) <= set(enum_of("Holder", "properties", "runtime"))


def test_action_requests_are_as_the_table_says():
    """With or without holders, signal: the schema accepts what the agent does."""
    valid = schema("ActionRequest").is_valid
    for _, name, needs_holders, _ in ACTION_ROWS:
        body = {"action": name, "holders": ["a"]} if needs_holders == "true" else {"action": name}
        other = {"action": name} if needs_holders == "true" else {"action": name, "holders": ["a"]}
        assert valid(body) and not valid(other), name
        assert valid({**body, "accept_data_loss": True})
        assert valid({**body, "signal": "KILL"}) == (name == "signal")
        assert not valid({**body, "force": True})


# What can be wrong with a request: the agent refuses it exactly when the schema does.
ACTION_BODIES = [
    {}, {"action": "thaw"}, {"action": "reboot"}, {"action": 1}, {"action": None}, {"action": "thaw", "holders": ["a"]},
    {"action": "signal", "holders": ["a"]}, {"action": "signal"}, {"action": "signal", "holders": []},
    {"action": "signal", "holders": "a"}, {"action": "signal", "holders": [1]}, {"action": "signal", "holders": [""]},
    {"action": "signal", "holders": ["a" * 64]}, {"action": "signal", "holders": ["a" * 65]},
    {"action": "signal", "holders": ["a", "a"]}, {"action": "signal", "holders": [str(i) for i in range(200)]},
    {"action": "signal", "holders": [str(i) for i in range(201)]},
    {"action": "signal", "holders": ["a"], "signal": "TERM"}, {"action": "signal", "holders": ["a"], "signal": "HUP"},
    {"action": "thaw", "signal": "KILL"}, {"action": "shutdown", "accept_data_loss": True},
    {"action": "shutdown", "accept_data_loss": "yes"}, {"action": "shutdown", "bogus": 1}, [],
]
FORGET_BODIES = [{}, {"reason": "x"}, {"reason": "x" * 256}, {"reason": "x" * 257}, {"reason": ""}, {"reason": 1},
                 {"reason": None}, {"why": "x"}, []]
RECONCILE_BODIES = [{}, {"volumes": ["v"]}, []]


def test_agent_refuses_what_the_schema_refuses(agent):
    a = agent()
    for target, pattern, kind, bodies, passed in (  # there is no such volume: what passes gets that far
            ("/volumes/v/holders/actions", "/volumes/{id}/holders/actions", "ActionRequest", ACTION_BODIES, 404),
            ("/volumes/v/forget", "/volumes/{id}/forget", "ForgetRequest", FORGET_BODIES, 404),
            ("/reconcile", "/reconcile", "ReconcileRequest", RECONCILE_BODIES, 200)):
        for body in bodies:
            answer = conforms(a.request("POST", target, body), "POST", pattern)
            assert answer.status == (passed if schema(kind).is_valid(body) else 422), f"{body}: {answer!r}"


EXAMPLES = {
    "FileSpec": "Spec", "IscsiSpec": "Spec", "Volume": "Volume", "Holders": "Holders", "Operation": "Operation",
    "ProofOfRelease": "ProofOfRelease", "ActionRequest": "ActionRequest", "ShutdownRequest": "ActionRequest",
    "ActionResult": "ActionResult", "ForgetRequest": "ForgetRequest", "HistoryPage": "HistoryPage",
    "OrphanPage": "OrphanPage", "Reconciliation": "Reconciliation", "InvalidRequest": "Problem",
    "SourceInUse": "Problem", "LossNotAccepted": "Problem", "UnknownField": "Problem", "Recovering": "Problem",
    "JournalUnavailable": "Problem", "Discovery": "Discovery", "Preflight": "Preflight",
}


def test_examples_conform():
    examples = CONTRACT["components"]["examples"]
    assert set(examples) == set(EXAMPLES)
    for name, kind in EXAMPLES.items():
        schema(kind).validate(examples[name]["value"])


def test_example_holders_are_as_the_table_says():
    """Remedy and actions are not invented; neither are the titles of problems."""
    kinds = {name: (bits, "".join(re.findall(r'"([^"]*)"', text))) for name, bits, text in KIND_ROWS}
    names = {symbol: name for symbol, name, _, _ in ACTION_ROWS}
    examples = CONTRACT["components"]["examples"]
    rows = examples["Holders"]["value"]["holders"] + examples["ProofOfRelease"]["value"]["waited_for"]
    assert rows
    for row in rows:
        bits, remedy = kinds[row["kind"]]
        assert row["remedy"] == remedy
        assert row["actions"] == [names[ACTION_BITS[bit]] for bit in bits.split(" | ")]
    titles = dict(table("storage/base/err.h", r'X\([A-Z_]+, "([a-z-]+)", "([^"]+)"\)'))
    for name, kind in EXAMPLES.items():
        value = examples[name]["value"]
        if kind == "Problem":
            assert value["title"] == titles[value["code"]] and value["type"] == f"/problems/{value['code']}"


def test_requests_are_closed():
    """Unknown fields are refused, so the schemas must say so."""
    schemas = CONTRACT["components"]["schemas"]
    for name in ("Spec", "FileSource", "IscsiSource", "Filesystem", "UnmountRequest", "SignalRequest",
                 "VolumeActionRequest", "ForgetRequest", "ReconcileRequest"):
        assert schemas[name]["additionalProperties"] is False
    assert schemas["IscsiSource"]["properties"]["chap"]["additionalProperties"] is False


def test_a_life_conforms(agent, image, hold):
    """One volume from PUT to the proof: every answer is as described."""
    a = agent()
    volume, item = "/volumes/{id}", "/volumes/v"
    spec = a.file_spec(image(), fs="ext4")
    assert schema("Spec").is_valid(spec)

    def call(method, target, pattern, status, body=None, **headers):
        statuses = status if isinstance(status, tuple) else (status,)
        return conforms(a.request(method, target, body, headers), method, pattern).expect(*statuses)

    call("GET", "/livez", "/livez", 200)
    call("GET", "/readyz", "/readyz", 200)
    call("GET", "/openapi.yaml", "/openapi.yaml", 200)
    call("GET", item, volume, 404)
    call("DELETE", item, volume, 404)
    call("PUT", item, volume, 201, spec)
    call("PUT", item, volume, 200, spec)
    doc = call("GET", item, volume, 200).json
    call("GET", item, volume, 304, **{"If-None-Match": "*"})
    call("PUT", "/volumes/w", volume, 409, spec)
    call("PUT", item, volume, 409, {**spec, "read_only": True, "filesystem": {"type": "ext4"}})
    call("GET", "/volumes", "/volumes", 200)
    call("GET", "/volumes?limit=x", "/volumes", 400)
    call("GET", f"{item}/holders", "/volumes/{id}/holders", 200)
    call("DELETE", f"{item}?mount_path=/elsewhere", volume, 409)
    call("DELETE", f"{item}?nonsense=1", volume, 400)
    actions, forget = f"{item}/holders/actions", f"{item}/forget"
    call("POST", actions, "/volumes/{id}/holders/actions", 409, {"action": "thaw"})
    call("POST", forget, "/volumes/{id}/forget", 409)
    copy = hold.mount_copy(doc)
    running = call("DELETE", item, volume, 202, Prefer="wait=1")
    operation = f"/operations/{running.operation}"
    call("GET", operation, "/operations/{op}", 200)
    held = eventually(lambda: [h for h in call("GET", f"{item}/holders", "/volumes/{id}/holders", 200).json["holders"]
                               if h["kind"] == "mount-copy"])
    assert call("GET", item, volume, 200).json["state"] == "detaching"
    call("PUT", item, volume, 409, {**spec, "read_only": True, "filesystem": {"type": "ext4"}})
    call("POST", actions, "/volumes/{id}/holders/actions", 409, {"action": "signal", "holders": ["nobody"]})
    call("POST", actions, "/volumes/{id}/holders/actions", 409, {"action": "shutdown"})

    # Changing one's mind, giving up, and taking it down after all.
    assert call("PUT", item, volume, (200, 201), spec).json["state"] == "attached"
    assert call("GET", operation, "/operations/{op}", 200).json["state"] == "failed"
    call("DELETE", item, volume, 202, Prefer="wait=1")
    assert call("POST", forget, "/volumes/{id}/forget", 200, {"reason": "a test"}).json["state"] == "orphan"
    call("DELETE", item, volume, 409)
    orphan = call("GET", "/orphans", "/orphans", 200).json["items"][0]
    assert orphan["reason"] == "a test" and orphan["forgotten_by"]["pid"] == os.getpid()
    running = call("DELETE", "/orphans/v", "/orphans/{id}", 202, Prefer="wait=1")
    operation = f"/operations/{running.operation}"
    held = eventually(lambda: [h for h in call("GET", f"{item}/holders", "/volumes/{id}/holders", 200).json["holders"]
                               if h["kind"] == "mount-copy"])
    result = call("POST", actions, "/volumes/{id}/holders/actions", 200,
                  {"action": "unmount-copies", "holders": [h["id"] for h in held]}).json
    assert [r["done"] for r in result["results"]] == [True]
    copy.release()
    call("GET", operation, "/operations/{op}", 200, Prefer="wait=30")
    proof = call("DELETE", item, volume, 200).json
    assert all(row["gone_at"] for row in proof["waited_for"])
    call("DELETE", "/orphans/v", "/orphans/{id}", 404)
    assert call("GET", "/orphans", "/orphans", 200).json["items"] == []
    call("GET", "/operations/nonsense", "/operations/{op}", 404)

    history = call("GET", f"{item}/history", "/volumes/{id}/history", 200).json["items"]
    events = [entry["event"] for entry in history]
    for event in ("attach_intent", "attached", "detach_intent", "detach_cancelled", "forgotten", "action",
                  "action_done", "released"):
        assert event in events, events
    page = call("GET", f"{item}/history?limit=2&page_token={history[0]['seq']}", "/volumes/{id}/history", 200).json
    assert page["items"] == history[1:3] and page["next_page_token"] == str(history[2]["seq"])
    call("GET", f"{item}/history?limit=1001", "/volumes/{id}/history", 400)
    call("GET", "/volumes/nobody/history", "/volumes/{id}/history", 404)


@pytest.mark.parametrize("driver", ["file", "iscsi"])
def test_loss_of_the_journal_conforms(agent, image, target, driver):
    """What no journal knows is listed, left alone, and taken down on request."""
    a = agent()
    doc = a.attach("v", a.file_spec(image(), fs="ext4") if driver == "file" else target.spec(fs="ext4"))

    def call(method, target, pattern, status, **headers):
        return conforms(a.request(method, target, None, headers), method, pattern).expect(status)

    report = call("POST", "/reconcile", "/reconcile", 200).json
    assert report["looked"] == report["as_recorded"] == 1 and report["orphans"] == 0
    assert report["differs"] == report["not_looked"] == []
    a.stop()
    for path in a.state.glob("journal.db*"):
        path.unlink()
    a.start()
    call("GET", "/volumes/v", "/volumes/{id}", 404)
    page = call("GET", "/orphans?limit=1", "/orphans", 200).json
    [orphan] = page["items"]
    assert orphan["kind"] == "unknown" and orphan["id"] == f"orphan-{orphan['evidence']['token']}"
    assert orphan["evidence"]["identity"]["node"] == doc["device"] and page["complete"]
    assert [m["path"] for m in orphan["evidence"]["mounts"]] == [doc["mount_path"]]
    assert orphan["evidence"]["driver"] == driver and (orphan["evidence"]["server"] is None) == (driver == "file")
    assert page["next_page_token"] is None
    assert call("GET", f"/orphans?page_token={orphan['id']}", "/orphans", 200).json["items"] == []
    call("GET", "/orphans?limit=0", "/orphans", 400)
    assert call("POST", "/reconcile", "/reconcile", 200).json["orphans"] == 1
    call("DELETE", "/orphans/orphan-" + 32 * "0", "/orphans/{id}", 404)
    proof = call("DELETE", f"/orphans/{orphan['id']}", "/orphans/{id}", 200, Prefer="wait=30").json
    assert proof["volume"] == orphan["id"] and proof["evidence"]["exclusive_open"] is True
    call("DELETE", f"/orphans/{orphan['id']}", "/orphans/{id}", 404)
    assert call("DELETE", f"/volumes/{orphan['id']}", "/volumes/{id}", 200).json == proof
    assert call("GET", "/orphans", "/orphans", 200).json["items"] == []
    history = call("GET", f"/volumes/{orphan['id']}/history", "/volumes/{id}/history", 200).json["items"]
    assert [entry["event"] for entry in history][0] == "adopted"


def test_journal_that_cannot_be_written_conforms(agent, image):
    a = agent()
    spec = a.file_spec(image(), fs="ext4")
    a.attach("v", spec)
    journal, away = a.state / "journal.db", a.state / "journal.away"

    def call(method, target, pattern, status, body=None):
        return conforms(a.request(method, target, body), method, pattern).expect(status)

    journal.rename(away)
    try:
        problem = call("PUT", "/volumes/w", "/volumes/{id}", 503, a.file_spec(image(), fs="ext4"))
        assert problem.code == "journal-unavailable" and problem.json["remedy"]
        not_ready = call("GET", "/readyz", "/readyz", 503)
        assert not_ready.code == "journal-unavailable" and not_ready.json["remedy"]
        call("GET", "/livez", "/livez", 200)
        call("DELETE", "/volumes/v", "/volumes/{id}", 503)
        call("GET", "/volumes/w", "/volumes/{id}", 404)
        assert call("GET", "/volumes/v", "/volumes/{id}", 200).json["state"] == "attached"
        call("GET", "/volumes/v/holders", "/volumes/{id}/holders", 200)
        call("GET", "/orphans", "/orphans", 200)
    finally:
        away.rename(journal)
    eventually(lambda: call("GET", "/readyz", "/readyz", 200), 15, "ready again")
    call("DELETE", "/volumes/v", "/volumes/{id}", 200)


@pytest.mark.parametrize("change, status", [
    ({"source": {"driver": "file", "path": "/etc/passwd"}}, 422),
    ({"source": {"driver": "file", "path": "relative"}}, 422),
    ({"source": {"driver": "nonsense"}}, 422),
    ({"filesystem": {"type": "vfat"}}, 422),
    ({"filesystem": {"type": "ext4", "options": ["exec=1"]}}, 422),
    ({"mount_path": "/etc"}, 422),
    ({"bogus": 1}, 422),
    ({"source": {"driver": "iscsi", "portals": ["127.0.0.1:1"], "target": "iqn.2026-11.example:d", "lun": 0}}, 502),
])
def test_failures_conform(agent, image, change, status):
    a = agent()
    spec = {**a.file_spec(image(), fs="ext4"), **change}
    conforms(a.request("PUT", "/volumes/v", spec), "PUT", "/volumes/{id}").expect(status)
    answer = a.get("v")
    conforms(answer, "GET", "/volumes/{id}")
    if answer.status == 200:
        conforms(a.delete("v"), "DELETE", "/volumes/{id}")
