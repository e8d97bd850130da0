"""A Kubernetes API server for unit tests: objects by path with revisions, lists in pages, watches, token reviews.

It is fake, because the behaviour under test (a watch that breaks, a revision that is gone, a server that is away, a
token for another audience) can't be caused at will on a real one; tests/kubernetes has the real one. It is a real HTTPS
server that checks what a real one checks: the bearer token of each request, the audience of a review, the
resourceVersion of a replacement.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import socket
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from meshwright.citadel.infrastructure import certificates
from meshwright.core.kubernetes import Cluster

OUR_TOKEN = "token-of-the-process-under-test"
DEFAULT_AUDIENCE = "https://kubernetes.default.svc"


@dataclass
class Account:
    """What a token stands for."""

    namespace: str
    name: str
    audiences: tuple[str, ...]
    pod: Mapping[str, Any] | None = None
    names_node: bool = True  # API servers before 1.30 don't say the node


@dataclass
class KubeApi:
    """The server's state; tests change it by `put` and `remove`."""

    folder: Path
    url: str = ""
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)  # by path
    history: list[tuple[int, str, str, dict[str, Any]]] = field(default_factory=list)
    tokens: dict[str, Account] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    revision: int = 1
    oldest: int = 0  # revisions up to this one are gone
    down: bool = False
    page: int = 500
    epoch: int = 0
    frozen: int = 0
    collections: set[str] = field(default_factory=lambda: {"pods", "secrets", "services", "namespaces"})
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def cluster(self) -> Cluster:
        return Cluster(self.url, self.folder / "token", self.folder / "ca.crt")

    def put(self, path: str, **content: Any) -> dict[str, Any]:
        """Make or change an object."""
        known = self.objects.get(path)
        metadata = {"name": path.rpartition("/")[2], "uid": str(uuid.uuid4()), **(known or {}).get("metadata", {})}
        made = {**(known or {}), **copy.deepcopy(content)}
        made["metadata"] = {**metadata, **made.get("metadata", {})}
        if "/namespaces/" in path:
            made["metadata"]["namespace"] = path.partition("/namespaces/")[2].partition("/")[0]
        self._record("MODIFIED" if known else "ADDED", path, made)
        self.objects[path] = made
        return made

    def remove(self, path: str) -> None:
        self._record("DELETED", path, copy.deepcopy(self.objects.pop(path)))

    def pod(
        self, namespace: str, name: str, node: str, account: str = "default", labels: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        return self.put(
            f"/api/v1/namespaces/{namespace}/pods/{name}",
            metadata={"labels": dict({"meshwright.io/mesh": "enabled"} if labels is None else labels)},
            spec={"nodeName": node, "serviceAccountName": account},
            status={"phase": "Running"},
        )

    def token(self, namespace: str, name: str, audiences: tuple[str, ...], **options: Any) -> str:
        token = f"token-{uuid.uuid4()}"
        self.tokens[token] = Account(namespace, name, audiences, **options)
        return token

    def secret(self, namespace: str, name: str) -> dict[str, bytes]:
        found = self.objects[f"/api/v1/namespaces/{namespace}/secrets/{name}"]
        return {key: base64.b64decode(value) for key, value in found["data"].items()}

    def forget_history(self) -> None:
        """Compact: watches from older revisions must list again."""
        self.oldest = self.revision
        self.history.clear()

    def break_watches(self) -> None:
        """End the connections of watches."""
        self.epoch += 1
        self._wake()

    def freeze_watches(self) -> None:
        """Say nothing more on the watches that there are, and let them stand: as when a connection lost its far end."""
        self.frozen += 1
        self._wake()

    def _record(self, kind: str, path: str, made: dict[str, Any]) -> None:
        self.revision += 1
        made["metadata"]["resourceVersion"] = str(self.revision)
        self.history.append((self.revision, kind, path, copy.deepcopy(made)))
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Handler:
    """The HTTP side."""

    def __init__(self, api: KubeApi) -> None:
        self.api = api

    async def answer(self, request: Request) -> Response:
        api, path = self.api, request.url.path
        api.requests.append(f"{request.method} {path}")
        if api.down:
            return status(503, "apiserver is shutting down")
        if request.headers.get("authorization") != f"Bearer {OUR_TOKEN}":
            return status(401, "Unauthorized")
        match request.method:
            case "GET" if request.query_params.get("watch"):
                return self.watch(path, request.query_params)
            case "GET":
                return self.read(path, request.query_params)
            case "POST" if path == "/apis/authentication.k8s.io/v1/tokenreviews":
                return self.review(await request.json())
            case "POST":
                body = await request.json()
                path = f"{path}/{body['metadata']['name']}"
                if path in api.objects:
                    return status(409, f"{path} already exists")
                return JSONResponse(api.put(path, **body), 201)
            case "PUT":
                body = await request.json()
                if path not in api.objects:
                    return status(404, f"{path} not found")
                expected = body["metadata"].pop("resourceVersion", None)
                if expected not in (None, api.objects[path]["metadata"]["resourceVersion"]):
                    return status(409, "the object has been modified; please apply your changes to the latest version")
                return JSONResponse(api.put(path, **body))
            case "PATCH" if path in api.objects:
                body = await request.json()
                expected = (body.get("metadata") or {}).pop("resourceVersion", None)
                if expected not in (None, api.objects[path]["metadata"]["resourceVersion"]):
                    return status(409, "the object has been modified; please apply your changes to the latest version")
                return JSONResponse(api.put(path, **merged(api.objects[path], body)))
            case "DELETE" if path in api.objects:
                api.remove(path)
                return JSONResponse({})
        return status(404, f"{path} not found")

    def read(self, path: str, query: Mapping[str, str]) -> Response:
        api = self.api
        if path in api.objects:
            return JSONResponse(api.objects[path])
        if path.rpartition("/")[2] not in api.collections:
            return status(404, f"{path} not found")
        found = [made for at, made in sorted(api.objects.items()) if collected(at, path) and fits(made, query)]
        begin = int(query.get("continue") or 0)
        size = min(int(query.get("limit") or api.page), api.page)
        metadata = {"resourceVersion": str(api.revision)}
        if begin + size < len(found):
            metadata["continue"] = str(begin + size)
        return JSONResponse({"kind": "List", "metadata": metadata, "items": found[begin : begin + size]})

    def watch(self, path: str, query: Mapping[str, str]) -> Response:
        api = self.api
        epoch, frozen = api.epoch, api.frozen

        async def events() -> AsyncIterator[bytes]:
            since = int(query.get("resourceVersion") or 0)
            if since < api.oldest:
                yield line("ERROR", {"code": 410, "message": "too old resource version"})
                return
            while epoch == api.epoch:
                changed = api.changed
                if frozen != api.frozen:
                    await changed.wait()
                    continue
                for at, kind, where, made in [each for each in api.history if each[0] > since]:
                    since = at
                    if collected(where, path) and fits(made, query):
                        yield line(kind, made)
                await changed.wait()

        return StreamingResponse(events(), media_type="application/json")

    def review(self, body: Mapping[str, Any]) -> Response:
        api, spec = self.api, body["spec"]
        account = api.tokens.get(spec["token"])
        wanted = spec.get("audiences") or [DEFAULT_AUDIENCE]
        audiences = [name for name in wanted if account is not None and name in account.audiences]
        if account is None or not audiences:
            return JSONResponse({"status": {"authenticated": False, "error": "invalid bearer token"}}, 201)
        extra: dict[str, list[str]] = {}
        if account.pod is not None:
            metadata = account.pod["metadata"]
            extra["authentication.kubernetes.io/pod-name"] = [metadata["name"]]
            extra["authentication.kubernetes.io/pod-uid"] = [metadata["uid"]]
            if account.names_node:
                extra["authentication.kubernetes.io/node-name"] = [account.pod["spec"]["nodeName"]]
        user = {"username": f"system:serviceaccount:{account.namespace}:{account.name}", "extra": extra}
        return JSONResponse({"status": {"authenticated": True, "audiences": audiences, "user": user}}, 201)


def collected(path: str, collection: str) -> bool:
    """Whether an object belongs to a collection: of its namespace, or of all."""
    folder = path.rpartition("/")[0]
    before, separator, after = folder.partition("/namespaces/")
    return collection in (folder, f"{before}/{after.partition('/')[2]}" if separator else folder)


def merged(before: Any, change: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386)."""
    if not isinstance(change, dict):
        return change
    kept = {**before} if isinstance(before, dict) else {}
    for name, value in change.items():
        kept[name] = merged(kept.get(name), value)
    return {name: value for name, value in kept.items() if value is not None}


def fits(made: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    labels = made["metadata"].get("labels", {})
    wanted = [term.partition("=") for term in query.get("labelSelector", "").split(",") if term]
    return all(labels.get(key) == value for key, _, value in wanted)


def line(kind: str, made: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": made}).encode() + b"\n"


def status(code: int, message: str) -> Response:
    return JSONResponse({"kind": "Status", "code": code, "message": message}, code)


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[KubeApi]:
    """Run the server until the context ends; `folder` gets its certificate and our token."""
    ca = certificates.new_ca(datetime.now(UTC))
    pair = certificates.issue(ca, certificates.Wanted("api", ("127.0.0.1",)), datetime.now(UTC))
    (folder / "ca.crt").write_bytes(ca.certificate_pem)
    (folder / "api.crt").write_bytes(pair.certificate_pem)
    (folder / "api.key").write_bytes(pair.key_pem)
    (folder / "token").write_text(OUR_TOKEN)
    api = KubeApi(folder)
    listener = socket.create_server(("127.0.0.1", 0))
    api.url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    application = Starlette(routes=[Route("/{path:path}", Handler(api).answer, methods=methods)])
    config = uvicorn.Config(
        application,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        ssl_certfile=str(folder / "api.crt"),
        ssl_keyfile=str(folder / "api.key"),
    )

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Any:
            yield

    server = Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    async with asyncio.timeout(10):
        while not server.started:
            await asyncio.sleep(0.01)
    try:
        yield api
    finally:
        api.down = True
        api.break_watches()
        server.should_exit = True
        await task
