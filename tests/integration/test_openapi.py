# SPDX-License-Identifier: Apache-2.0
"""openapi.yaml is the contract: what is in it is there, and what is there is in it."""
import pathlib
import re
import subprocess

import jsonschema
import pytest
import yaml

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


def test_examples_conform():
    examples = CONTRACT["components"]["examples"]
    for name, kind in (("FileSpec", "Spec"), ("IscsiSpec", "Spec"), ("Volume", "Volume"), ("Holders", "Holders"),
                       ("Operation", "Operation"), ("ProofOfRelease", "ProofOfRelease"),
                       ("InvalidRequest", "Problem"), ("SourceInUse", "Problem"), ("UnknownField", "Problem")):
        schema(kind).validate(examples[name]["value"])


def test_requests_are_closed():
    """Unknown fields are refused, so the schemas must say so."""
    schemas = CONTRACT["components"]["schemas"]
    for name in ("Spec", "FileSource", "IscsiSource", "Filesystem"):
        assert schemas[name]["additionalProperties"] is False
    assert schemas["IscsiSource"]["properties"]["chap"]["additionalProperties"] is False


def test_a_life_conforms(agent, image, hold):
    """One volume from PUT to the proof: every answer is as described."""
    a = agent()
    volume, item = "/volumes/{id}", "/volumes/v"
    spec = a.file_spec(image(), fs="ext4")
    assert schema("Spec").is_valid(spec)

    def call(method, target, pattern, status, body=None, **headers):
        return conforms(a.request(method, target, body, headers), method, pattern).expect(status)

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
    hold.mount_copy(doc)
    running = call("DELETE", item, volume, 202, Prefer="wait=1")
    operation = f"/operations/{running.operation}"
    call("GET", operation, "/operations/{op}", 200)
    assert call("GET", f"{item}/holders", "/volumes/{id}/holders", 200).json["held"] == "held"
    assert call("GET", item, volume, 200).json["state"] == "detaching"
    assert call("PUT", item, volume, 409, spec).json["operation"] == running.operation
    hold.release_all()
    call("GET", operation, "/operations/{op}", 200, Prefer="wait=30")
    call("DELETE", item, volume, 200)
    call("GET", "/operations/nonsense", "/operations/{op}", 404)


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
