"""Real Envoys let in whom rules of access allow, and nobody else: by identity, path, method, header, port and token."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ads import Manager, free_port, located, manager
from envoys import application, eventually, get, mixer, proxy
from meshes import SHOP

from meshwright.manager.xds import names
from pki import Pki

THIEF = """
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: thief-0}
spec: {address: 127.0.0.1, labels: {app: thief}, serviceAccount: thief}
---
apiVersion: networking.istio.io/v1beta1
kind: Sidecar
metadata: {name: thief}
spec:
  workloadSelector: {labels: {app: thief}}
  egress: [{bind: "unix:///run/thief/mesh.sock"}]
"""
GROUP = """
apiVersion: specs.smi-spec.io/v1alpha3
kind: HTTPRouteGroup
metadata: {name: items}
spec:
  matches:
    - {name: read, pathRegex: "/items", methods: [GET]}
    - {name: special, pathRegex: "/special/[a-z]+$", headers: {x-one: "1.*", x-two: ".*"}}
    - {name: write, pathRegex: "/items", methods: [POST]}
"""
TARGET = """
apiVersion: access.smi-spec.io/v1alpha2
kind: TrafficTarget
metadata: {name: catalog}
spec:
  destination: {kind: ServiceAccount, name: catalog}
  sources: [{kind: ServiceAccount, name: shop}]
  rules: [{kind: HTTPRouteGroup, name: items, matches: [read, special]}]
"""


@dataclass
class Street:
    """A shop and a thief, who both call the catalog."""

    manager: Manager
    folder: Path
    port: int  # of the catalog

    async def call(self, who: str, path: str = "/items", method: str = "GET", **headers: str) -> int:
        sent = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        status, _ = await get(self.folder / who / "mesh.sock", "catalog-v1", path, method, sent)
        return status

    async def say(self, text: str = "", *, remove: tuple[str, ...] = ()) -> None:
        """Apply objects; returns when the catalog's proxy has them and serves by them."""
        self.manager.apply(text, remove=remove)
        await self.manager.settled("catalog-v1-0")

    async def becomes(self, status: int, who: str, path: str = "/items", method: str = "GET", **headers: str) -> None:
        """Wait for an answer: a listener that changed drains its connections for a moment after it was acknowledged."""

        async def answered() -> bool:
            return await self.call(who, path, method, **headers) == status

        await eventually(answered, f"{status} for {who} {method} {path}")


@contextlib.asynccontextmanager
async def street(pki: Pki, short: Path, text: str = "", *, closed: bool = False) -> AsyncIterator[Street]:
    for name in ("shop", "thief", "catalog-v1"):
        (short / name).mkdir()
    port = free_port()
    mesh = located(SHOP + THIEF + text, short, port, free_port())
    async with (
        manager(pki, mesh, parameters=names.Parameters(closed=closed)) as made,
        mixer(pki) as (_, address),
        application(short / "catalog-v1" / "app.sock", "catalog v1"),
        proxy(short / "s", "shop-0", pki.workload("shop"), manager=made.address),
        proxy(short / "t", "thief-0", pki.workload("thief"), manager=made.address),
        proxy(short / "c", "catalog-v1-0", pki.workload("catalog"), manager=made.address, mixers=(address,)),
    ):
        await made.settled("shop-0", "thief-0", "catalog-v1-0")
        yield Street(made, short, port)


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name leaves room for the 107 bytes of a socket's path."""
    return tmp_path_factory.mktemp("a")


async def test_a_target_lets_in_its_sources_by_its_routes_and_nobody_else(pki: Pki, short: Path) -> None:
    async with street(pki, short) as found:
        await found.becomes(200, "thief")
        await found.say(GROUP + "---" + TARGET)
        await found.becomes(403, "thief")
        await found.becomes(200, "shop")
        assert await found.call("shop", "/items/7?x=/other") == 200, "expressions are anchored at the beginning alone"
        assert await found.call("shop", "/other/items") == 403
        assert await found.call("shop", "/items", "POST") == 403, "a match that the rule doesn't name"
        assert await found.call("shop", "/special/one", "PUT", x_one="12", x_two="") == 200
        assert await found.call("shop", "/special/one", x_one="2", x_two="") == 403, "headers must all fit"
        assert await found.call("shop", "/special/one", x_one="1") == 403
        assert await found.call("shop", "/special/1", x_one="1", x_two="") == 403
        await found.say(TARGET.replace(", matches: [read, special]", ""))
        await found.becomes(200, "shop", "/items", "POST")
        assert await found.call("thief", "/items", "POST") == 403

        await found.say(remove=("TrafficTarget/catalog",))
        await found.becomes(200, "thief")


async def test_ports_and_missing_routes_only_take_away(pki: Pki, short: Path) -> None:
    tcp = "apiVersion: specs.smi-spec.io/v1alpha4\nkind: TCPRoute\nmetadata: {name: ports}\n"
    async with street(pki, short) as found:
        await found.say(TARGET)
        await found.becomes(403, "shop")  # the group is missing
        both = TARGET.replace("rules: [", "rules: [{kind: TCPRoute, name: ports}, ")
        await found.say(GROUP + "---" + both)
        assert await found.call("shop") == 403, "so are the ports"
        await found.say(tcp + f"spec: {{matches: {{ports: [{found.port}]}}}}")
        await found.becomes(200, "shop")
        assert await found.call("shop", "/other") == 403, "ports and routes must both fit"
        await found.say(tcp + "spec: {matches: {ports: [1]}}")
        await found.becomes(403, "shop")
        await found.say(tcp + "spec: {matches: {ports: []}}")
        await found.becomes(200, "shop")
        narrowed = both.replace("name: catalog}\n  sources", "name: catalog, port: 1}\n  sources")
        assert "port: 1" in narrowed
        await found.say(narrowed)
        await found.becomes(403, "shop")


async def test_strict_reading_denies_where_no_target_is(pki: Pki, short: Path) -> None:
    async with street(pki, short, closed=True) as found:
        assert await found.call("shop") == 403
        await found.say(GROUP + "---" + TARGET)
        await found.becomes(200, "shop")
        assert await found.call("thief") == 403


async def test_bindings_name_callers_by_labels_accounts_and_identities(pki: Pki, short: Path) -> None:
    binding = "apiVersion: access.smi-spec.io/v1alpha4\nkind: IdentityBinding\nmetadata: {name: callers}\nspec:\n"
    target = TARGET.replace("v1alpha2", "v1alpha4").replace(
        "kind: ServiceAccount, name: shop", "kind: IdentityBinding, name: callers"
    )
    async with street(pki, short, closed=True) as found:
        await found.say(GROUP + "---" + target)
        assert await found.call("shop") == 403
        for schemes in (
            "{podLabelSelector: {matchLabels: {app: shop}}}",
            "{spiffeIdentities: [mesh.local/ns/default/sa/shop]}",
            "{serviceAccount: shop}",
        ):
            await found.say(f"{binding}  schemes: {schemes}")
            await found.becomes(200, "shop")
            assert await found.call("thief") == 403
            await found.say(f"{binding}  schemes: {{serviceAccount: nobody}}")
            await found.becomes(403, "shop")
        elsewhere = THIEF.replace("name: thief-0", "name: shop-0").replace("app: thief", "app: shop")
        entry = (
            elsewhere.split("---")[1]
            .replace("127.0.0.1", "127.0.0.9")
            .replace("serviceAccount: thief", "serviceAccount: shop")
        )
        await found.say(f"{entry}---\n{binding}  schemes: {{podLabelSelector: {{matchLabels: {{app: shop}}}}}}")
        assert await found.call("shop") == 403, "others with the same account aren't the selected workload"


async def test_denials_audits_and_dry_runs_of_policies(pki: Pki, short: Path) -> None:
    policy = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: NAME, annotations: {istio.io/dry-run: "DRY"}}
spec:
  selector: {matchLabels: {app: catalog}}
  action: ACTION
  rules: [{from: [{source: {principals: ["mesh.local/ns/default/sa/thief"]}}], to: [{operation: {paths: [/items*]}}]}]
"""

    def written(name: str, action: str, dry: str = "false") -> str:
        return policy.replace("NAME", name).replace("ACTION", action).replace("DRY", dry)

    async with street(pki, short) as found:
        await found.say(written("deny", "DENY"))
        await found.becomes(403, "thief")
        await found.say(written("deny", "DENY", "true") + "---" + written("audit", "AUDIT"))
        await found.becomes(200, "thief")
        await found.say(written("deny", "DENY"))
        await found.becomes(403, "thief")
        assert await found.call("thief", "/other") == 200
        assert await found.call("shop") == 200
        await found.say(written("allow", "ALLOW"))
        await found.becomes(403, "shop")
        assert await found.call("thief") == 403, "denials come before grants"


async def test_tokens_are_verified_and_may_be_asked_for(pki: Pki, short: Path) -> None:
    secret = b"0123456789abcdef0123456789abcdef"

    def encoded(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    def token(key: bytes = secret, **claims: Any) -> str:
        known = {"iss": "https://issuer.test", "sub": "ada", "exp": int(time.time()) + 600, **claims}
        head = encoded(b'{"alg":"HS256","kid":"one"}') + "." + encoded(json.dumps(known).encode())
        return f"Bearer {head}.{encoded(hmac.new(key, head.encode(), hashlib.sha256).digest())}"

    jwks = json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "kid": "one", "k": encoded(secret)}]})
    tokens = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens}}
spec:
  selector: {{matchLabels: {{app: catalog}}}}
  jwtRules: [{{issuer: "https://issuer.test", jwks: '{jwks}'}}]
"""
    wanted = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tokens}
spec:
  selector: {matchLabels: {app: catalog}}
  rules:
    - from: [{source: {requestPrincipals: ["https://issuer.test/ada"]}}]
      when: [{key: "request.auth.claims[groups]", values: [readers]}]
"""
    async with street(pki, short) as found:
        await found.say(tokens)
        await found.becomes(401, "shop", authorization=token(b"another key of thirty-two bytes!"))
        assert await found.call("shop") == 200, "no token is no wrong token"
        assert await found.call("shop", authorization=token(exp=1)) == 401
        assert await found.call("shop", authorization=token()) == 200
        await found.say(wanted)
        await found.becomes(403, "shop")
        assert await found.call("shop", authorization=token()) == 403, "the claim is missing"
        assert await found.call("shop", authorization=token(groups=["writers", "readers"])) == 200
        assert await found.call("shop", authorization=token(groups="readers")) == 200
        assert await found.call("shop", authorization=token(sub="eve", groups=["readers"])) == 403


async def test_a_port_takes_what_its_peers_must_show(pki: Pki, short: Path) -> None:
    """Certificates, anything, or plain text only, which callers in the mesh then speak too."""
    peers = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: MODE}}
"""
    async with street(pki, short) as found:

        async def plainly() -> int:
            reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
            try:
                writer.write(b"GET /items HTTP/1.1\r\nhost: catalog-v1\r\nconnection: close\r\n\r\n")
                answer = await asyncio.wait_for(reader.read(), 20)
            except ConnectionError:
                return 0
            finally:
                writer.close()
            return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1") else 0

        async def settles(plain: int) -> None:
            async def both() -> bool:
                return await plainly() == plain and await found.call("shop") == 200

            await eventually(both, f"{plain} without a certificate, 200 with one")

        await settles(0)
        for mode, plain in (("PERMISSIVE", 200), ("STRICT", 0), ("DISABLE", 200), ("STRICT", 0)):
            found.manager.apply(peers.replace("MODE", mode))
            await found.manager.settled("catalog-v1-0", "shop-0")
            await settles(plain)
        found.manager.apply(peers.replace("MODE", "PERMISSIVE") + "---" + GROUP + "---" + TARGET)
        await settles(403)  # who shows nothing is nobody


EVERYTHING = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: NAME}
spec:
  selector: {matchLabels: {app: catalog}}
  action: ACTION
  rules:
  - from:
    - source:
        principals: ["*", "mesh.local/ns/default/sa/a", "mesh.local/ns/b/*", "*/sa/c"]
        namespaces: [a, "b*", "*c", "*"]
        requestPrincipals: ["*", "https://a.test/b", "https://c.test/*", "*/d", "*e"]
        ipBlocks: [10.0.0.0/8, "fd00::1"]
        remoteIpBlocks: [192.0.2.1]
    - source:
        notPrincipals: ["*/sa/d"]
        notNamespaces: [d]
        notRequestPrincipals: ["https://e.test/f"]
        notIpBlocks: [10.1.0.0/16]
        notRemoteIpBlocks: ["2001:db8::/32"]
    to:
    - operation: {hosts: [a.test, "*.b.test", "c*"], methods: [GET, "P*"], paths: [/a, "/b*", "*c", "*"]}
    - operation: {notHosts: [d.test], notPorts: ["1"], notMethods: [PUT], notPaths: ["/e*"]}
    when:
    - {key: "request.headers[X-One]", values: ["1*"], notValues: ["12"]}
    - {key: source.ip, values: [10.0.0.0/8]}
    - {key: remote.ip, notValues: [10.0.0.0/8]}
    - {key: source.namespace, values: [a]}
    - {key: source.principal, values: ["mesh.local/ns/default/sa/a"]}
    - {key: request.auth.principal, values: ["https://a.test/b"]}
    - {key: request.auth.audiences, values: [a]}
    - {key: request.auth.presenter, values: [a]}
    - {key: "request.auth.claims[a][b]", values: ["*"]}
    - {key: destination.ip, values: [10.0.0.1]}
    - {key: destination.port, notValues: ["1"]}
    - {key: connection.sni, values: [a.test]}
"""


async def test_every_field_of_a_policy_is_one_that_a_proxy_takes(pki: Pki, short: Path) -> None:
    provider = "  action: CUSTOM\n  provider: {name: other}"
    documents = [EVERYTHING.replace("NAME", action.lower()) for action in ("ALLOW", "DENY", "AUDIT", "CUSTOM")]
    actions = ("  action: ALLOW", "  action: DENY", "  action: AUDIT", provider)
    text = "---".join(each.replace("  action: ACTION", action) for each, action in zip(documents, actions, strict=True))
    async with street(pki, short) as found:
        await found.say(text)
        assert not [state.error for state in found.manager.states("catalog-v1-0").values() if state.error]
        await found.becomes(403, "shop")
