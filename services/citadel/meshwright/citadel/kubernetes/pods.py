"""The pods of the mesh as registrations: each running pod with the label `meshwright.io/mesh: enabled` is
`spiffe://<trust domain>/ns/<namespace>/sa/<service account>` on its node, and whatever is registered for pods like it.

One decision to know: citadel itself knows the pods, by list and watch, and agents get what is made of them as they get
any registration. An agent therefore has no rights at the API server, gets identities of pods on its own node only, and
has a pod's certificate ready when the pod first asks. When the API server was silent for too long, nothing more is
signed for pods, while what was signed serves on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import prometheus_client
import structlog

from meshwright.citadel.registrations import model
from meshwright.citadel.registrations.model import POD, Registration, Selector
from meshwright.citadel.registrations.registry import Registry
from meshwright.core import clock as clocks
from meshwright.core import errors, identity, kubernetes
from meshwright.core.health import Health

LABEL = "meshwright.io/mesh"
PART = "pods"  # in health
MAX_PODS = 100_000
PODS = prometheus_client.Gauge("meshwright_citadel_pods", "Pods of the mesh that have an identity")

_MIRROR = "kubernetes.io/config.mirror"
_ENDED = ("Succeeded", "Failed")
_UID = re.compile(r"[0-9a-f-]{36}")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pod:
    """What is known of a running pod."""

    uid: str
    namespace: str
    name: str
    service_account: str
    node: str
    labels: Mapping[str, str]

    def has(self, selector: Selector) -> bool:
        """Return whether a `k8s:` selector holds."""
        match selector.type:
            case "k8s:ns":
                return selector.value == self.namespace
            case "k8s:sa":
                return selector.value == self.service_account
            case "k8s:pod-name":
                return selector.value == self.name
            case "k8s:pod-uid":
                return selector.value == self.uid
            case "k8s:pod-label":
                key, _, value = selector.value.rpartition(":")
                return self.labels.get(key) == value
        return False


def read(item: Mapping[str, Any]) -> Pod | None:
    """Return a pod that runs on a node, or None for one that doesn't (yet, or any more).

    A mirror of a static pod is none: its processes run under another uid, which any pod could write into itself.
    """
    metadata, spec = item.get("metadata") or {}, item.get("spec") or {}
    phase = (item.get("status") or {}).get("phase")
    uid, node = str(metadata.get("uid") or ""), str(spec.get("nodeName") or "")
    if not _UID.fullmatch(uid) or not node or phase in _ENDED or _MIRROR in (metadata.get("annotations") or {}):
        return None
    return Pod(
        uid,
        str(metadata.get("namespace") or ""),
        str(metadata.get("name") or ""),
        str(spec.get("serviceAccountName") or "default"),
        node,
        {str(key): str(value) for key, value in (metadata.get("labels") or {}).items()},
    )


class Pods:
    """Keeps the registry's registrations of pods as the API server has the pods."""

    def __init__(
        self,
        api: kubernetes.Api,
        registry: Registry,
        trust_domain: str,
        longest_silence: float,
        clock: clocks.Clock,
    ) -> None:
        self._api, self._registry, self._trust_domain = api, registry, trust_domain
        self._longest, self._clock = longest_silence, clock
        self._heard = clock.monotonic()
        self._pods: dict[str, Pod] = {}  # by uid
        self._made: dict[str, dict[str, Registration]] = {}  # by uid, then by id
        registry.expect(PART)
        registry.follow_for_pods(self._again, self._check_fresh)

    async def run(self, health: Health) -> None:
        """Follow the API server until cancelled."""
        await kubernetes.follow(
            self._api,
            "/api/v1/pods",
            self._take_snapshot,
            self._take_change,
            health=health,
            part=PART,
            clock=self._clock,
            heard=self._hear,
            labelSelector=f"{LABEL}=enabled",
        )

    def _check_fresh(self, registration: Registration) -> None:
        """Raise Unavailable for a pod's registration when the API server was silent for too long."""
        silent = self._clock.monotonic() - self._heard
        if registration.is_of_pod and silent > self._longest:
            raise errors.Unavailable(
                f"the API server was last heard of {silent:.0f} s ago, and may have removed the pod of "
                f"{registration.spiffe_id} meanwhile (--pods-max-silence-seconds is {self._longest:.0f})"
            )

    def _hear(self) -> None:
        self._heard = self._clock.monotonic()

    def _take_snapshot(self, items: list[kubernetes.Object]) -> None:
        found = {pod.uid: pod for pod in map(read, items) if pod is not None}
        for uid in self._pods.keys() - found.keys():
            self._remove(uid)
        for pod in found.values():
            self._put(pod)
        self._registry.arrived(PART)
        _log.info("pods_listed", pods=len(found))

    def _take_change(self, item: kubernetes.Object, deleted: bool) -> None:
        pod = None if deleted else read(item)
        if pod is not None:
            self._put(pod)
        else:
            self._remove(str((item.get("metadata") or {}).get("uid") or ""))

    def _put(self, pod: Pod) -> None:
        if self._pods.get(pod.uid) == pod:
            return
        if pod.uid not in self._pods and len(self._pods) >= MAX_PODS:
            _log.error("pod_without_identity", pod=f"{pod.namespace}/{pod.name}", reason=f"{MAX_PODS} pods have one")
            return
        self._pods[pod.uid] = pod
        self._renew(pod)
        PODS.set(len(self._pods))

    def _remove(self, uid: str) -> None:
        if self._pods.pop(uid, None) is not None:
            for registration_id in self._made.pop(uid, {}):
                self._registry.remove_of_pod(registration_id)
            PODS.set(len(self._pods))

    def _again(self) -> None:
        """Look at all pods again: what is registered for pods has changed."""
        for pod in self._pods.values():
            self._renew(pod)

    def _renew(self, pod: Pod) -> None:
        wanted = {registration.id: registration for registration in self._registrations(pod)}
        before = self._made.get(pod.uid, {})
        for registration_id in before.keys() - wanted.keys():
            self._registry.remove_of_pod(registration_id)
        for registration_id, registration in wanted.items():
            if before.get(registration_id) != registration:
                self._registry.put_of_pod(registration)
        self._made[pod.uid] = wanted

    def _registrations(self, pod: Pod) -> list[Registration]:
        own = Selector("k8s:pod-uid", pod.uid)
        made = []
        spiffe_id = identity.workload_id(self._trust_domain, pod.namespace, pod.service_account)
        try:
            model.check_spiffe_id(spiffe_id, self._trust_domain)
            model.check_node(pod.node)
            made.append(Registration(f"{POD}{pod.uid}", spiffe_id, (own,), node=pod.node))
        except errors.ConfigError as error:
            _log.warning("pod_without_identity", pod=f"{pod.namespace}/{pod.name}", reason=str(error))
        for known in self._registry.for_pods():
            of_pod = [selector for selector in known.selectors if selector.type.startswith("k8s:")]
            if known.node in ("", pod.node) and all(map(pod.has, of_pod)):
                others = tuple(selector for selector in known.selectors if selector not in of_pod)
                made.append(
                    Registration(
                        f"{POD}{pod.uid}.{known.id}",
                        known.spiffe_id,
                        (own, *others),
                        known.ttl,
                        known.dns_names,
                        pod.node,
                    )
                )
        return made
