"""The adapter object and its handler: pods are followed in the background, questions are answered from memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pydantic
from pydantic import Field

from meshwright.mixer.adapter.v1 import Address, Gauge, Host, Kubernetes, Value
from meshwright.mixer.adapters.kubernetesenv.pods import Pods, read
from meshwright.mixer.config.fields import Model, Nanoseconds

if TYPE_CHECKING:
    from meshwright.core import kubernetes

_PODS = "/api/v1/pods"


class Parameters(Model):
    """`kubeconfigPath` is a file; missing: the cluster that mixer runs in.

    `cacheRefreshDuration` and `clusterRegistriesNamespace` are the original's; they have no effect, as pods are watched
    and one cluster is.
    """

    kubeconfig_path: Annotated[str, Field(max_length=4096)] = ""
    cache_refresh_duration: Nanoseconds = 0
    cluster_registries_namespace: Annotated[str, Field(max_length=253)] = ""


class PodHandler:
    """Generates the attributes of both ends."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods

    def generate(self, instance: Kubernetes) -> Mapping[str, Value]:
        """What is known of the ends; an end that is no pod of the cluster is left out."""
        return {
            **self._side("source", instance.source_uid, instance.source_ip),
            **self._side("destination", instance.destination_uid, instance.destination_ip, instance.destination_port),
        }

    def _side(self, side: str, uid: str, address: Address | None, port: int = 0) -> Mapping[str, Value]:
        pod = self._pods.find(uid, address)
        return {} if pod is None else pod.outputs(side, port)


class _Following:
    """Keeps `pods` like the cluster's."""

    def __init__(self, api: kubernetes.Api, pods: Pods, known: Gauge) -> None:
        self._api, self._pods, self._known = api, pods, known

    async def run(self) -> None:
        from meshwright.core import kubernetes
        from meshwright.core.health import Health

        health = Health("pods")
        await kubernetes.follow(self._api, _PODS, self._all, self._change, health=health, part="pods")

    def _all(self, items: list[kubernetes.Object]) -> None:
        found = filter(None, map(read, items))
        self._pods.replace({(pod.namespace, pod.name): pod for pod in found})
        self._known.set(len(self._pods))

    def _change(self, item: kubernetes.Object, deleted: bool) -> None:
        pod = None if deleted else read(item)
        if pod is None:
            metadata = item.get("metadata") or {}
            self._pods.drop(str(metadata.get("namespace")), str(metadata.get("name")))
        else:
            self._pods.put(pod)
        self._known.set(len(self._pods))


class KubernetesAdapter:
    """The adapter as entry points name it."""

    name = "kubernetesenv"
    templates = frozenset({"kubernetes"})
    parameters: type[pydantic.BaseModel] = Parameters

    @asynccontextmanager
    async def open(self, parameters: Parameters, host: Host) -> AsyncIterator[PodHandler]:
        """Begin to follow; until the first list has come nothing is known of any pod."""
        from meshwright.core import kubernetes

        path = parameters.kubeconfig_path
        server = kubernetes.Kubeconfig.read(Path(path)) if path else kubernetes.in_cluster()
        pods = Pods()
        async with kubernetes.Api(server) as api:
            known = host.metrics.gauge("pods_known", "Pods that attributes can be made of.")
            host.background("follow pods", _Following(api, pods, known).run)
            yield PodHandler(pods)


ADAPTER = KubernetesAdapter()
