"""What Smeagol's objects mean, in the words of the inner model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from fractions import Fraction

from meshwright.core.config import Key
from meshwright.manager.model.access import PeerRule, PeerTls
from meshwright.manager.model.domain import host_of
from meshwright.manager.model.meaning import Context, Meaning, Named, Notice
from meshwright.manager.model.parse import Parsed
from meshwright.manager.model.routing import Backend, ConnectionRoute, Destination, Dialect, HttpRoute, Routes
from meshwright.manager.smeagol.canary import Canary
from meshwright.manager.smeagol.sidecar import Sidecar
from meshwright.manager.smeagol.tls_config import TLSConfig
from meshwright.manager.smi import quantity
from meshwright.manager.smi.traffic_split import TrafficSplit


def translate(members: Iterable[Parsed], context: Context) -> Meaning:
    """Translate a namespace's objects. A TrafficSplit of the same service comes before a Canary."""
    known = sorted(members, key=lambda parsed: parsed.key)
    claimed = {each.document.root: each.key for each in known if isinstance(each.document, TrafficSplit)}
    routes: list[Routes] = []
    named: list[Named] = []
    peers: list[PeerRule] = []
    notices: list[Notice] = []
    for parsed in known:
        key, document = parsed.key, parsed.document
        match document:
            case Canary() if document.root in claimed:
                message = f"service {document.root} is already split by {claimed[document.root]}: keep one of both"
                notices.append(Notice(key, "spec", "Conflicted", message))
            case Canary():
                claimed[document.root] = key
                routes.append(_routes(key, document, context))
                notices.extend(_percentages(key, document))
                if document.spec.services:
                    named.append(Named(document.root, tuple(name for name, _ in document.weights)))
            case TLSConfig():
                selector = tuple(sorted(document.spec.selector.match_labels.items()))
                peers.append(PeerRule(key, selector, PeerTls.STRICT))
                notices.extend(_unnamed(key, document.spec.subject_names))
            case Sidecar() if document.spec.metric_labels:
                message = "has no effect here: proxies measure without it, and say who they are by their workload"
                notices.append(Notice(key, "spec.metricLabels", "Unsupported", message))
    return Meaning(tuple(routes), peers=tuple(peers), notices=tuple(notices), named=tuple(named))


def _routes(key: Key, canary: Canary, context: Context) -> Routes:
    first = canary.spec.services is not None
    backends = tuple(
        Backend(
            Destination(host_of(name, context.namespace)),
            weight,
            missing=True,
            field=f"spec.services[{number}]" if first else f"spec.backends[{number}].service",
        )
        for number, (name, weight) in enumerate(canary.weights)
    )
    return Routes(
        host_of(canary.root, context.namespace),
        Dialect.TRAFFIC_SPLIT,
        (HttpRoute(key, backends=backends),),
        (ConnectionRoute(key, backends=backends),),
        field="metadata.name" if first else "spec.service",
    )


def _percentages(key: Key, canary: Canary) -> Iterator[Notice]:
    if canary.spec.services is None:
        return
    total = sum((quantity.amount(share) for _, share in canary.spec.shares), Fraction())
    if total != 100:
        message = (
            f"the shares add up to {float(total):g} %: they are taken as ratios, so that all requests go somewhere"
        )
        yield Notice(key, "spec.services", "Normalised", message)


def _unnamed(key: Key, names: Collection[str]) -> Iterator[Notice]:
    if names:
        message = "has no effect here: a workload's certificate says its SPIFFE ID, and callers verify that"
        yield Notice(key, "spec.subjectNames", "Unsupported", message)
