"""The configuration API by HTTP and JSON: the same rules, errors and limits as by gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from managers import client, free_port, objects, running
from meshes import SHOP, SPLIT

from meshwright.manager.rest import api
from pki import Pki

ADMIN = "spiffe://mesh.local/ns/meshwright-system/sa/admin"
SPLIT_PATH = "/v1/objects/trafficsplit/default/catalog"


def documents(text: str) -> list[Any]:
    return list(yaml.safe_load_all(text))


def browser(pki: Pki, address: str, folder: Path, part: str | None = "admin") -> httpx.AsyncClient:
    context = ssl.create_default_context(cadata=pki.part("admin").bundle_pem.decode())
    context.check_hostname = False
    if part is not None:
        place = Pki.write(pki.part(part), folder / f"rest-{part}")
        context.load_cert_chain(place / "cert.pem", place / "key.pem")
    return httpx.AsyncClient(verify=context, base_url=f"https://{address}", trust_env=False, timeout=30)


@contextlib.asynccontextmanager
async def serving(pki: Pki, folder: Path, **settings: Any) -> AsyncIterator[tuple[str, httpx.AsyncClient]]:
    """Run a manager; yields its gRPC address and a client of the administrator's."""
    rest = f"127.0.0.1:{free_port()}"
    async with running(pki, folder, rest=rest, **settings) as address, browser(pki, rest, folder) as web:
        yield address, web


async def test_objects_are_applied_read_and_deleted(pki: Pki, tmp_path: Path) -> None:
    async with serving(pki, tmp_path) as (_, web):
        answer = await web.post("/v1/apply", json={"objects": documents(SHOP), "message": "open"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["revision"] == 1
        assert {result["action"] for result in answer.json()["results"]} == {"created"}
        put = await web.put(SPLIT_PATH, json=documents(SPLIT)[0])
        assert (put.status_code, put.json()["results"][0]["object"]["kind"]) == (200, "TrafficSplit")
        got = await web.get(SPLIT_PATH)
        assert (got.headers["etag"], got.json()["object"]["spec"]["service"]) == ('"2"', "catalog")
        listed = (await web.get("/v1/objects", params={"kind": "service"})).json()
        assert [item["object"]["metadata"]["name"] for item in listed["items"]] == [
            *("catalog", "catalog-v1", "catalog-v2")
        ]
        told = (await web.get(f"{SPLIT_PATH}/conditions")).json()
        assert {each["type"]: each["status"] for each in told["conditions"]} == {
            "Accepted": True,
            "ResolvedRefs": True,
            "Programmed": True,
        }
        gone = await web.delete(SPLIT_PATH)
        assert (gone.status_code, gone.json()["revision"]) == (200, 3)
        missing = await web.get(SPLIT_PATH)
        assert missing.status_code == 404
        assert missing.headers["content-type"] == "application/problem+json"
        many = {"objects": [{"kind": "Service", "name": "catalog"}, {"kind": "Service", "name": "nobody"}]}
        assert (await web.post("/v1/delete", json=many)).status_code == 422
        assert (await web.post("/v1/delete", json={**many, "ignoreMissing": True})).json()["revision"] == 4


async def test_pages(pki: Pki, tmp_path: Path) -> None:
    async with serving(pki, tmp_path) as (_, web):
        await web.post("/v1/apply", json={"objects": documents(SHOP)})
        found, after = [], ""
        while True:
            page = (await web.get("/v1/objects", params={"limit": 3, "after": after})).json()
            found += [(item["object"]["kind"], item["object"]["metadata"]["name"]) for item in page["items"]]
            after = page["next"]
            if not after:
                break
        assert len(found) == 8
        assert found == sorted(found)


async def test_faults_name_object_field_and_remedy(pki: Pki, tmp_path: Path) -> None:
    bad = {"objects": documents(SHOP + "---" + SPLIT.replace("90", "-1"))}
    async with serving(pki, tmp_path) as (_, web):
        refused = await web.post("/v1/apply", json=bad)
        assert refused.status_code == 422
        [violation] = refused.json()["violations"]
        assert (violation["field"], violation["index"]) == ("spec.backends[0].weight", 8)
        assert "can't be negative" in violation["message"]
        assert (await web.get("/v1/objects")).json() == {"revision": 0, "items": [], "next": ""}
        for method, path, arguments, status, told in (
            ("POST", "/v1/apply", {"json": {"objects": []}}, 400, "objects: "),
            ("POST", "/v1/apply", {"json": {"objects": [{}], "dryrun": True}}, 400, "dryrun: "),
            ("POST", "/v1/apply", {"content": "{", "headers": {"content-type": "application/json"}}, 400, "JSON"),
            ("POST", "/v1/apply", {"content": "a: 1", "headers": {"content-type": "text/yaml"}}, 415, "text/yaml"),
            ("GET", "/v1/objects", {"params": {"kind": "TrafikSplit"}}, 400, "did you mean TrafficSplit"),
            ("GET", "/v1/objects/trafik/default/x", {}, 400, "unknown kind trafik"),
            ("GET", "/v1/objects", {"params": {"limit": 0}}, 400, "limit: "),
            ("GET", "/v1/history", {"params": {"limit": 5_000}}, 400, "limit: "),
            ("GET", "/v1/diff", {"params": {"older": 7}}, 404, "no revision 7 yet"),
            ("GET", "/v1/diff", {}, 400, "older: "),
            ("GET", "/v1/watch", {"params": {"after": 9}}, 404, "no revision 9 yet"),
            ("GET", "/v1/watch", {"headers": {"last-event-id": "x"}}, 400, "Last-Event-ID: 'x' isn't a revision"),
            ("PUT", SPLIT_PATH, {"json": {}, "headers": {"if-match": '"two"'}}, 400, "If-Match"),
            ("GET", "/v1/wait", {"params": {"revision": 1, "timeout": 0.1}}, 504, "the manager's newest is 0"),
        ):
            answer = await web.request(method, path, **arguments)
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), path
            assert told in answer.json()["detail"], answer.text


async def test_who_was_slower_learns_who_changed_it(pki: Pki, tmp_path: Path) -> None:
    split = documents(SPLIT)[0]
    async with serving(pki, tmp_path) as (_, web):
        await web.post("/v1/apply", json={"objects": documents(SHOP + "---" + SPLIT)})
        half = {**split, "spec": {**split["spec"], "backends": [{"service": "catalog-v1", "weight": 1}]}}
        assert (await web.put(SPLIT_PATH, json=half, headers={"if-match": '"1"'})).json()["revision"] == 2
        for slow in (
            await web.put(SPLIT_PATH, json=split, headers={"if-match": '"1"'}),
            await web.delete(SPLIT_PATH, headers={"if-match": '"1"'}),
            await web.post("/v1/apply", json={"objects": [split], "expectedRevision": 1}),
        ):
            assert slow.status_code == 409
            assert f"by {ADMIN} at 20" in slow.json()["detail"]
        expected = [{"object": {"kind": "TrafficSplit", "name": "catalog"}, "revision": 2}]
        last = await web.post("/v1/apply", json={"objects": [split], "expectedObjects": expected})
        assert last.json()["revision"] == 3


async def test_history_difference_rollback_and_dry_run(pki: Pki, tmp_path: Path) -> None:
    async with serving(pki, tmp_path) as (_, web):
        await web.post("/v1/apply", json={"objects": documents(SHOP), "message": "open"})
        planned = {"objects": documents(SPLIT), "dryRun": True, "preview": "text"}
        dry = (await web.post("/v1/apply", json=planned)).json()
        assert dry["revision"] == 1
        assert [each["typeUrl"].rpartition(".")[2] for each in dry["resources"]] == ["RouteConfiguration"]
        assert "weighted_clusters" in dry["resources"][0]["diff"]
        await web.put(SPLIT_PATH, json=documents(SPLIT)[0], params={"message": "canary"})
        told = (await web.get("/v1/history")).json()
        assert (told["floor"], told["head"]) == (0, 2)
        assert [(each["revision"], each["author"], each["message"]) for each in told["revisions"]] == [
            (2, ADMIN, "canary"),
            (1, ADMIN, "open"),
        ]
        [changed] = (await web.get("/v1/diff", params={"older": 1})).json()["objects"]
        assert (changed["action"], changed["before"], changed["after"]["kind"]) == ("created", None, "TrafficSplit")
        back = await web.post("/v1/rollback", json={"revision": 1})
        assert back.json()["results"] == [{"object": changed["object"], "action": "deleted"}]
        assert (await web.get("/v1/wait", params={"timeout": 20})).json()["revision"] == 3
        assert (await web.get("/v1/proxies")).json() == {"revision": 3, "proxies": [], "unreachable": []}


async def test_watching_with_resumption(pki: Pki, tmp_path: Path) -> None:
    async with serving(pki, tmp_path, history_revisions=2) as (address, web), client(pki, address) as admin:
        await admin.apply(objects(SHOP))
        first = asyncio.create_task(events(web, 2, params={"after": 0, "kind": "TrafficSplit"}))
        await admin.apply(objects(SPLIT), message="canary")
        nothing, split = await first
        assert (nothing["revision"], nothing["changes"]) == (1, [])
        assert (split["message"], split["changes"][0]["object"]["kind"]) == ("canary", "TrafficSplit")
        for weight in range(1, 5):
            await admin.apply(objects(SPLIT.replace("90", str(weight))))
        found = await events(web, 2, headers={"last-event-id": "4"})
        assert [event["revision"] for event in found] == [5, 6]
        late = await web.get("/v1/watch", params={"after": 1})
        assert late.status_code == 410
        assert "no longer kept" in late.json()["detail"]


async def events(web: httpx.AsyncClient, count: int, **arguments: Any) -> list[Any]:
    """Read so many events."""
    found = []
    async with asyncio.timeout(20), web.stream("GET", "/v1/watch", **arguments) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
                if len(found) == count:
                    break
    return found


@pytest.mark.parametrize("part", ["mixer", "citadel", None])
async def test_only_the_administrator_is_let_in(pki: Pki, tmp_path: Path, part: str | None) -> None:
    async with serving(pki, tmp_path) as (_, web):
        address = str(web.base_url).removeprefix("https://").rstrip("/")
        async with browser(pki, address, tmp_path, part) as other:
            if part is None:
                with pytest.raises(httpx.TransportError):
                    await other.get("/v1/objects")
            else:
                assert (await other.get("/v1/objects")).status_code == 403


async def test_a_body_is_bounded(pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_BODY_SECONDS", 0.3)
    async with serving(pki, tmp_path) as (_, web):

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b" " * 100_000

        async def silent() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.sleep(10)

        headers = {"content-type": "application/json"}
        slow = await web.post("/v1/apply", content=silent(), headers=headers)
        assert (slow.status_code, slow.json()["title"]) == (408, "Request Timeout")
        monkeypatch.setattr(api, "_BODY_SECONDS", 20.0)
        try:
            large = await web.post("/v1/apply", content=endless(), headers=headers)
            assert large.status_code == 413
        except (httpx.WriteError, httpx.ReadError):
            pass  # it hung up while we wrote
        deep = await web.post("/v1/apply", content='{"objects": ' + "[" * 100_000, headers=headers)
        assert deep.status_code == 400
        assert (await web.get("/v1/objects")).status_code == 200


async def test_the_openapi_document_says_what_is_served(pki: Pki, tmp_path: Path) -> None:
    """Every path and body is described, references lead somewhere, and answers are as described."""
    async with serving(pki, tmp_path) as (_, web):
        document = (await web.get("/openapi.json")).json()
        assert document["openapi"].startswith("3.1")
        assert {f"{method} {path}" for path, methods in document["paths"].items() for method in methods} == {
            *("get /v1/objects", "get /v1/objects/{kind}/{namespace}/{name}"),
            *("put /v1/objects/{kind}/{namespace}/{name}", "delete /v1/objects/{kind}/{namespace}/{name}"),
            "get /v1/objects/{kind}/{namespace}/{name}/conditions",
            *("post /v1/apply", "post /v1/delete", "post /v1/rollback", "get /v1/history", "get /v1/diff"),
            *("get /v1/proxies", "get /v1/wait", "get /v1/watch"),
        }
        schemas = document["components"]["schemas"]
        for reference in references(document):
            assert reference.removeprefix("#/components/schemas/") in schemas, reference
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                assert operation["summary"], path
                assert ("requestBody" in operation) is (method in ("post", "put")), path
                assert "Problem" in json.dumps(operation["responses"]["default"]), path
        assert "expectedRevision" in schemas["Apply"]["properties"]
        applied = (await web.post("/v1/apply", json={"objects": documents(SHOP)})).json()
        assert set(applied) == set(schemas["Outcome"]["properties"])
        listed = (await web.get("/v1/objects")).json()
        assert set(listed) == set(schemas["Items"]["properties"])


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    return [found for value in node for found in references(value)] if isinstance(node, list) else []
