"""The dashboard of a running platform: who may see it, what it says, and that a browser draws it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from meshwright_up import Up, meshwright, running
from playwright.sync_api import sync_playwright

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(180)]

MESH = """
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec: {selector: {app: shop}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: shop-0, namespace: default}
spec: {address: 127.0.0.1, ports: {http: 21001}, labels: {app: shop}, serviceAccount: shop}
"""


def address(up: Up) -> str:
    """The address that `up` printed."""
    up.wait("the dashboard's address", lambda: "dashboard: http" in up.output())
    found = re.search(r"dashboard: (http://\S+)", up.output())
    assert found is not None
    return found[1]


def picture(client: httpx.Client, base: str) -> Any:
    """The first picture of the stream of events."""
    with client.stream("GET", f"{base}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                return json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream ended without a picture")


def test_the_dashboard_opens_once_and_shows_the_mesh(data: Path) -> None:
    """Nothing for strangers, loopback or not; one browser gets in; what was applied and measured is in the picture."""
    with running(data) as up:
        up.wait_healthy()
        url = address(up)
        base = url.partition("/?")[0]
        for path in ("/", "/events", "/main.js", "/?token=wrong", "/no-such-page"):
            assert httpx.get(base + path).status_code == 401, path
        assert httpx.get(base, headers={"host": "evil.example"}).status_code == 421

        document = data / "mesh.yaml"
        document.write_text(MESH)
        applied = meshwright(
            "apply", "-f", document, MESHWRIGHT_DATA=str(data), MESHWRIGHT_MANAGER=f"127.0.0.1:{up.base_port + 3}"
        )
        assert applied.returncode == 0, applied.stderr
        socket = data / "run" / "manager-health.sock"
        measured = f"http+unix://{str(socket).replace('/', '%2F')}/healthz"
        done = meshwright("perf", "apply", "health", "--url", measured, "--qps", 20, "-t", "300ms", "--data", data)
        assert done.returncode == 0, done.stderr

        browser = shutil.which("chromium")
        if browser is None:
            pytest.skip("chromium isn't installed (apt-get install chromium)")
        with httpx.Client(follow_redirects=True, timeout=20) as client:
            page = client.get(url)
            assert page.status_code == 200
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert httpx.get(url).status_code == 401, "the address opened twice"
            shown = picture(client, base)
            cookie = client.cookies["meshwright_dashboard"]
        assert not [
            name for name in ("mesh", "network", "traces", "decisions", "performance") if "error" in shown[name]
        ]
        assert shown["mesh"]["value"]["services"] == ["shop.default"]
        assert shown["mesh"]["value"]["workloads"] == ["shop-0.default"]
        assert {part["name"] for part in shown["parts"]} >= {"manager", "mixer", "collector"}
        assert [run["url"] for run in shown["performance"]["value"]] == [measured]
        drawn(browser, base, cookie, data)


def drawn(browser: str, base: str, cookie: str, data: Path) -> None:
    """A real browser with the session draws the workload, the run and the parts."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        chromium = playwright.chromium.launch(executable_path=browser, args=arguments)
        context = chromium.new_context()
        context.add_cookies([{"name": "meshwright_dashboard", "value": cookie, "url": base}])
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(base)
        page.wait_for_selector("body[data-drawn=yes]", timeout=20_000)
        assert page.locator("#graph svg text", has_text="shop-0").count() == 1
        assert "health" in page.inner_text("#performance")
        assert "manager" in page.inner_text("#parts")
        assert complaints == []
        chromium.close()
