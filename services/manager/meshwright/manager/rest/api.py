"""The routes: each reads its request, asks the part that knows, and writes its answer.

One decision to know: bodies are read by us, in bounded size and time, and only then given to pydantic; FastAPI's own
reading has no limits. Only who may do everything is let in (see `server`), so routes needn't ask who calls.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypeVar

import fastapi
import pydantic
from fastapi import responses
from fastapi.exceptions import RequestValidationError
from fastapi.openapi import utils as openapi
from pydantic.json_schema import models_json_schema

from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.config import Key
from meshwright.core.config.history import Change, Events
from meshwright.manager import answers
from meshwright.manager.configapi import conditions
from meshwright.manager.configapi import plan as plans
from meshwright.manager.configapi.catalogue import Catalogue
from meshwright.manager.configapi.chronicle import Chronicle
from meshwright.manager.configapi.edit import Editor
from meshwright.manager.configapi.preview import Depth
from meshwright.manager.configapi.selection import Selection
from meshwright.manager.configapi.status import StatusBoard
from meshwright.manager.configapi.terms import Expectation, Outcome, Terms
from meshwright.manager.rest import problems, schema

M = TypeVar("M", bound=pydantic.BaseModel)

MAX_BODY = 8 << 20
MAX_WAIT_SECONDS = 300.0
PAGE_BYTES = 2 << 20

_BODY_SECONDS = 15.0
_POLL_SECONDS = 0.2
_HEARTBEAT_SECONDS = 15.0
_MAX_PAGE = 10_000

_NAMESPACE = "The object's namespace; - for kinds that live in none."
Kind = Annotated[str, fastapi.Query(description="Only of this kind, in any case.")]
Namespace = Annotated[str, fastapi.Query(description="Only of this namespace.")]
Name = Annotated[str, fastapi.Query(description="Only of this name.")]


def application(
    catalogue: Catalogue,
    editor: Editor,
    chronicle: Chronicle,
    status: StatusBoard,
    author: str,
    clock: clocks.Clock | None = None,
) -> fastapi.FastAPI:
    """Return the HTTP application; `author` is who all callers are."""
    clock = clock or clocks.SystemClock()
    app = fastapi.FastAPI(
        title="Meshwright configuration API",
        version="v1",
        docs_url=None,
        redoc_url=None,
        responses={"default": {"model": schema.Problem, "description": "A problem: application/problem+json."}},
    )

    @app.exception_handler(Exception)
    @app.exception_handler(errors.MeshwrightError)
    async def failed(_request: fastapi.Request, error: Exception) -> responses.Response:
        return problems.problem(error)

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: fastapi.Request, error: RequestValidationError) -> responses.Response:
        return problems.problem(_malformed(error.errors(), ("query", "path", "header")))

    @app.get("/v1/objects", response_model=schema.Items, summary="List objects")
    async def objects(
        kind: Kind = "",
        namespace: Namespace = "",
        name: Name = "",
        after: str = "",
        limit: Annotated[int, fastapi.Query(ge=1, le=_MAX_PAGE)] = 1_000,
    ) -> responses.Response:
        state = catalogue.state
        items: list[dict[str, Any]] = []
        last, size = "", 0
        for place, key in Selection.of(Key("", kind, namespace, name), "kind").pages(state.objects, after):
            if len(items) == limit or size > PAGE_BYTES:
                break
            text = state.objects[key].text
            items.append({"revision": state.revisions.get(key, 0), "object": json.loads(text)})
            last, size = place, size + len(text)
        else:
            last = ""
        return responses.JSONResponse({"revision": state.revision, "items": items, "next": last})

    @app.get("/v1/objects/{kind}/{namespace}/{name}", response_model=schema.Item, summary="Get an object")
    async def one(kind: str, namespace: str, name: str) -> responses.Response:
        key, state = _named(kind, namespace, name), catalogue.state
        found = state.objects.get(key)
        if found is None:
            raise errors.NotFound(f"{key} doesn't exist: see GET /v1/objects?kind={key.kind}")
        revision = state.revisions.get(key, 0)
        content = {"revision": revision, "object": json.loads(found.text)}
        return responses.JSONResponse(content, headers={"etag": f'"{revision}"'})

    @app.get(
        "/v1/objects/{kind}/{namespace}/{name}/conditions",
        response_model=schema.Conditions,
        summary="Say what is in force of an object",
    )
    async def told(kind: str, namespace: str, name: str) -> responses.Response:
        key = _named(kind, namespace, name)
        proxies = status.here()
        await status.add_others(proxies)
        state = catalogue.state
        found = conditions.conditions(key, state, proxies.proxies, proxies.unreachable)
        revision = state.revisions.get(key, 0) if key in state.objects else 0
        return responses.JSONResponse(
            {
                "revision": revision,
                "conditions": [
                    {"type": each.type, "status": each.status, "reason": each.reason, "message": each.message}
                    for each in found
                ],
            }
        )

    @app.put(
        "/v1/objects/{kind}/{namespace}/{name}",
        response_model=schema.Outcome,
        summary="Put one object",
        openapi_extra=_body_schema({"type": "object"}),
    )
    async def put(
        request: fastapi.Request,
        kind: str,
        namespace: str,
        name: str,
        if_match: Annotated[str, fastapi.Header(description='The revision that changed it last, as in "7".')] = "",
        dry_run: Annotated[bool, fastapi.Query(alias="dryRun")] = False,
        message: str = "",
    ) -> responses.Response:
        text = (await _body(request)).decode(errors="replace")
        key = _named(kind, namespace, name)
        outcome = await editor.apply([(key, text)], _single(key, if_match, author, message, dry_run=dry_run))
        return _outcome(outcome)

    @app.delete("/v1/objects/{kind}/{namespace}/{name}", response_model=schema.Outcome, summary="Delete one object")
    async def remove(
        kind: str,
        namespace: str,
        name: str,
        if_match: Annotated[str, fastapi.Header(description='The revision that changed it last, as in "7".')] = "",
        dry_run: Annotated[bool, fastapi.Query(alias="dryRun")] = False,
        message: str = "",
    ) -> responses.Response:
        key = _named(kind, namespace, name)
        return _outcome(await editor.delete([key], _single(key, if_match, author, message, dry_run=dry_run)))

    @app.post(
        "/v1/apply",
        response_model=schema.Outcome,
        summary="Put objects, all or none",
        openapi_extra=_body_schema({"$ref": _REF.format(model="Apply")}),
    )
    async def apply(request: fastapi.Request) -> responses.Response:
        asked = await _read(request, schema.Apply)
        documents = [(None, json.dumps(document)) for document in asked.objects]
        return _outcome(await editor.apply(documents, _terms(asked, author)))

    @app.post(
        "/v1/delete",
        response_model=schema.Outcome,
        summary="Delete objects, all or none",
        openapi_extra=_body_schema({"$ref": _REF.format(model="Delete")}),
    )
    async def delete(request: fastapi.Request) -> responses.Response:
        asked = await _read(request, schema.Delete)
        keys = [_key(found) for found in asked.objects]
        return _outcome(await editor.delete(keys, _terms(asked, author), ignore_missing=asked.ignore_missing))

    @app.post(
        "/v1/rollback",
        response_model=schema.Outcome,
        summary="Make every object what it was at a revision, in a new one",
        openapi_extra=_body_schema({"$ref": _REF.format(model="Rollback")}),
    )
    async def rollback(request: fastapi.Request) -> responses.Response:
        asked = await _read(request, schema.Rollback)
        message = asked.message or f"rollback to revision {asked.revision}"
        return _outcome(await editor.rollback(asked.revision, _terms(asked, author, message)))

    @app.get("/v1/history", response_model=schema.History, summary="List revisions, the newest first")
    async def history(
        kind: Kind = "",
        namespace: Namespace = "",
        name: Name = "",
        before: Annotated[int, fastapi.Query(ge=0, description="Only older ones; 0: all.")] = 0,
        limit: Annotated[int, fastapi.Query(ge=1, le=1_000)] = 50,
    ) -> responses.Response:
        selection = Selection.of(Key("", kind, namespace, name), "kind")
        found = await chronicle.revisions(selection, before=before, limit=limit)
        floor, head = await chronicle.bounds()
        revisions = [
            {
                "revision": each.commit.revision,
                "author": each.commit.author,
                "time": each.commit.time,
                "message": each.commit.message,
                "changes": [
                    {"object": problems.key(key), "action": change.value} for key, change in each.changes[:1_000]
                ],
                "changed": len(each.changes),
            }
            for each in found
        ]
        return responses.JSONResponse({"revisions": revisions, "floor": floor, "head": head})

    @app.get("/v1/diff", response_model=schema.Diff, summary="Say how objects differ between two revisions")
    async def diff(
        older: Annotated[int, fastapi.Query(ge=0)],
        newer: Annotated[int | None, fastapi.Query(ge=0, description="None: the newest.")] = None,
        after: Annotated[str, fastapi.Query(description="`next` of the page before, as JSON.")] = "",
    ) -> responses.Response:
        compared = newer if newer is not None else (await chronicle.bounds())[1]
        last = _key(_parsed(after.encode(), schema.Key)) if after else None
        found: list[dict[str, Any]] = []
        more, size = None, 0
        async for each in chronicle.differences(older, compared, last):
            if size > PAGE_BYTES:
                more = found[-1]["object"]
                break
            before, now = each.before, each.after
            change = Change.CHANGED if before and now else Change.CREATED if now else Change.DELETED
            sides = {"before": before and json.loads(before), "after": now and json.loads(now)}
            found.append({"object": problems.key(each.key), "action": change.value, **sides})
            size += len(before or "") + len(now or "")
        return responses.JSONResponse({"older": older, "newer": compared, "objects": found, "next": more})

    async def proxies_now() -> answers.Status:
        response = status.here()
        await status.add_others(response)
        return answers.status(response)

    @app.get("/v1/proxies", response_model=schema.Proxies, summary="Say what each proxy has acknowledged")
    async def proxies() -> responses.Response:
        return _proxies(await proxies_now())

    @app.get("/v1/wait", response_model=schema.Proxies, summary="Wait until all proxies have acknowledged a revision")
    async def wait(
        revision: Annotated[int | None, fastapi.Query(ge=0, description="None: the newest.")] = None,
        timeout: Annotated[float, fastapi.Query(gt=0, le=MAX_WAIT_SECONDS, description="Seconds.")] = 30.0,
        proxies: Annotated[int, fastapi.Query(ge=0, description="How many must be connected at least.")] = 0,
    ) -> responses.Response:
        wanted = revision if revision is not None else catalogue.state.revision
        end = clock.monotonic() + timeout
        while lacking := (now := await proxies_now()).lacking(wanted, proxies):
            if clock.monotonic() > end:
                raise errors.DeadlineExceeded(f"after {timeout:g} s {lacking}")
            await clock.sleep(_POLL_SECONDS)
        return _proxies(now)

    @app.get(
        "/v1/watch",
        response_class=responses.StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}, "description": "Server-sent events, one a revision."}},
        summary="Send each revision's changes, and go on with those to come",
    )
    async def watch(
        after: Annotated[int | None, fastapi.Query(ge=0, description="None: the newest.")] = None,
        kind: Kind = "",
        namespace: Namespace = "",
        name: Name = "",
        last_event_id: Annotated[str, fastapi.Header(description="The last revision that was seen.")] = "",
    ) -> responses.Response:
        selection = Selection.of(Key("", kind, namespace, name), "kind")
        begin = _number(last_event_id, "Last-Event-ID") if last_event_id else after
        begin = await chronicle.checked(begin)
        return responses.StreamingResponse(
            _events(chronicle, begin, selection), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]
    return app


_REF = "#/components/schemas/{model}"
_BODIES = (schema.Apply, schema.Delete, schema.Rollback)


def _body_schema(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": content}}}}


def _describe(app: fastapi.FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the bodies that FastAPI doesn't know because it doesn't read them."""
    if app.openapi_schema is None:
        document = openapi.get_openapi(title=app.title, version=app.version, routes=app.routes)
        _, bodies = models_json_schema([(body, "validation") for body in _BODIES], ref_template=_REF)
        document["components"]["schemas"] |= bodies["$defs"]
        app.openapi_schema = document
    return app.openapi_schema


async def _events(chronicle: Chronicle, after: int, selection: Selection) -> AsyncIterator[str]:
    """Write server-sent events (HTML standard, 9.2.6), and a comment now and then, so that both ends notice a death."""
    queue: asyncio.Queue[Events | errors.MeshwrightError] = asyncio.Queue(1)

    async def follow() -> None:
        try:
            async for events in chronicle.watch(after):
                await queue.put(events)
        except errors.MeshwrightError as error:
            await queue.put(error)

    following = asyncio.create_task(follow(), name="follow for a watcher")
    try:
        yield ": watching\n\n"
        while True:
            try:
                async with asyncio.timeout(_HEARTBEAT_SECONDS):
                    found = await queue.get()
            except TimeoutError:
                yield ":\n\n"
                continue
            if isinstance(found, errors.MeshwrightError):
                yield f"event: problem\ndata: {bytes(problems.problem(found).body).decode()}\n\n"
                return
            yield _event(found, selection)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def _event(events: Events, selection: Selection) -> str:
    commit = events.commit
    data = {
        "revision": commit.revision,
        "author": commit.author,
        "time": commit.time,
        "message": commit.message,
        "changes": [
            {"key": problems.key(key), "object": json.loads(text) if text else None}
            for key, text in sorted(events.objects.items())
            if selection.fits(key)
        ],
    }
    # Without a change that fits it is told all the same: the watcher then goes on after it.
    return f"id: {commit.revision}\nevent: revision\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


async def _body(request: fastapi.Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise problems.WrongType(f"a body of type {kind or 'unknown'} isn't taken", remedy="send application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY:
                    raise problems.TooLarge(f"the body has more than {MAX_BODY} bytes: send less at once")
    except TimeoutError:
        raise problems.TooSlow(f"the body didn't come in {_BODY_SECONDS:g} s") from None
    return bytes(body)


async def _read(request: fastapi.Request, model: type[M]) -> M:
    return _parsed(await _body(request), model)


def _parsed(body: bytes, model: type[M]) -> M:
    try:
        return model.model_validate_json(body)
    except pydantic.ValidationError as error:
        raise _malformed(error.errors(include_url=False)) from error


def _malformed(found: Any, places: tuple[str, ...] = ()) -> errors.ConfigError:
    first = found[0]
    path = [str(part) for part in first["loc"] if part not in places]
    return errors.ConfigError(first["msg"], field=".".join(path), remedy="see /openapi.json")


def _number(text: str, field: str) -> int:
    plain = text.strip().strip('"')
    if not (plain.isascii() and plain.isdecimal() and len(plain) < 20):
        raise errors.ConfigError(f"{text[:50]!r} isn't a revision", field=field, remedy="give a number")
    return int(plain)


def _named(kind: str, namespace: str, name: str) -> Key:
    key = plans.named(Key("", kind, "" if namespace == "-" else namespace, name))
    if key is None:
        Selection.of(Key("", kind, "", ""), "kind")  # says which was probably meant
        raise errors.ConfigError(f"unknown kind {kind}", field="kind")
    return key


def _key(found: schema.Key) -> Key:
    return Key(found.api_version, found.kind, found.namespace, found.name)


def _single(key: Key, if_match: str, author: str, message: str, *, dry_run: bool) -> Terms:
    expected = Expectation(None, ((key, _number(if_match, "If-Match")),)) if if_match else Expectation()
    return Terms(author, message, dry_run=dry_run, expected=expected)


def _terms(asked: schema.Terms, author: str, message: str = "") -> Terms:
    expected = tuple((_key(each.object), each.revision) for each in asked.expected_objects)
    return Terms(
        author,
        message or asked.message,
        asked.dry_run,
        asked.accept_unvalidated,
        Expectation(asked.expected_revision, expected),
        Depth[asked.preview.upper()],
    )


def _outcome(outcome: Outcome) -> responses.Response:
    findings = outcome.plan.findings
    if findings.violations:
        return problems.refusal(findings.violations)
    return responses.JSONResponse(
        {
            "revision": outcome.revision,
            "results": [{"object": problems.key(key), "action": action.value} for key, action in outcome.plan.results],
            "warnings": [problems.fault(found) for found in findings.warnings],
            "resources": [
                {
                    "typeUrl": each.type_url,
                    "name": each.name,
                    "action": each.action.value,
                    "proxies": each.proxies,
                    "diff": each.diff,
                }
                for each in outcome.preview.changes
            ],
            "resourcesLeftOut": outcome.preview.left_out,
        }
    )


def _proxies(found: answers.Status) -> responses.Response:
    proxies = [
        {
            "nodeId": each.node_id,
            "spiffeId": each.spiffe_id,
            "acknowledgedRevision": each.acknowledged_revision,
            "error": each.error,
            "manager": each.manager,
        }
        for each in found.proxies
    ]
    return responses.JSONResponse(
        {"revision": found.revision, "proxies": proxies, "unreachable": list(found.unreachable)}
    )
