"""Documents of the kind Policy for tests, and requests decided by the engine that they become."""

from __future__ import annotations

import textwrap
from typing import Any

import yaml

from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.core.config import objects
from meshwright.dataplane.policy import Engine
from meshwright.mixer import check
from meshwright.mixer.adapters.opentelemetry import ADAPTER
from meshwright.mixer.config.compiled import Compiled
from meshwright.mixer.config.compiler import compile_policy

FRONT = "spiffe://mesh.local/ns/demo/sa/front"
MALLORY = "spiffe://mesh.local/ns/demo/sa/mallory"


def policy(text: str, name: str = "shop", namespace: str = "demo") -> objects.Object:
    """A Policy with this spec in YAML."""
    return policy_of(yaml.safe_load(textwrap.dedent(text)), name, namespace)


def policy_of(spec: dict[str, Any], name: str = "shop", namespace: str = "demo") -> objects.Object:
    """A Policy with this spec."""
    document = {
        "apiVersion": "config.meshwright.io/v1alpha1",
        "kind": "Policy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
    return objects.from_document(document, f"{name}.yaml#1")


def compiled(*documents: objects.Object) -> Compiled:
    return compile_policy(documents, {ADAPTER.name: ADAPTER})


class Gate:
    """An engine with these documents, all of which must be good."""

    def __init__(self, *documents: objects.Object) -> None:
        result = compiled(*documents)
        assert not result.dropped, [str(each) for each in result.dropped]
        self.engine = Engine()
        self.engine.load(result.policy)

    def ask(self, quotas: dict[str, int] | None = None, /, **attributes: Any) -> mixer_pb2.CheckResponse:
        """The answer about a request to `shop` in `demo`; `source_principal` is source.principal."""
        given = {
            "context.reporter.kind": "inbound",
            "destination.namespace": "demo",
            "destination.service.name": "shop",
            **{name.replace("_", ".", 1): value for name, value in attributes.items()},
        }
        given = {name: value for name, value in given.items() if value is not None}
        request = check.request(given, quotas)
        return mixer_pb2.CheckResponse.FromString(self.engine.check(request.SerializeToString()))

    def code(self, **attributes: Any) -> int:
        """The code of the answer."""
        return int(self.ask(**attributes).precondition.status.code)

    def passes(self, **attributes: Any) -> bool:
        return self.code(**attributes) == 0
