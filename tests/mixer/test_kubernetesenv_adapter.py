"""Adapter kubernetesenv against an API server: what the ends of a connection are, as pods come, change and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kube_api import OUR_TOKEN, KubeApi, serving
from meshwright.mixer.adapter.v1 import Kubernetes, Value
from meshwright.mixer.adapters.kubernetesenv import ADAPTER
from meshwright.mixer.adapters.kubernetesenv.pods import Pods, read
from meshwright.mixer.plugintest import RecordingHost, running

DEPLOYED: dict[str, Any] = {
    "metadata": {
        "labels": {"app": "cart", "pod-template-hash": "59c4d7"},
        "ownerReferences": [
            {"controller": True, "kind": "ReplicaSet", "apiVersion": "apps/v1", "name": "cart-v1-59c4d7"}
        ],
    },
    "spec": {
        "serviceAccountName": "cart",
        "containers": [{"name": "web", "ports": [{"containerPort": 8080}]}, {"name": "sidecar"}],
    },
    "status": {"phase": "Running", "podIP": "10.4.2.9", "hostIP": "192.168.0.2"},
}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[KubeApi]:
    async with serving(tmp_path) as running_api:
        yield running_api


@pytest.fixture
def kubeconfig(api: KubeApi, tmp_path: Path) -> str:
    path = tmp_path / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "one", "user": "us"}}],
                "clusters": [
                    {"name": "one", "cluster": {"server": api.url, "certificate-authority": str(tmp_path / "ca.crt")}}
                ],
                "users": [{"name": "us", "user": {"token": OUR_TOKEN}}],
            }
        )
    )
    return str(path)


async def known(host: RecordingHost, count: int) -> None:
    async with asyncio.timeout(10):
        while host.metrics.read("pods_known") != count:
            await asyncio.sleep(0.01)


def destination(address: str) -> Kubernetes:
    return Kubernetes(instance="k.default", destination_ip=ip_address(address), destination_port=8080)


async def test_ends_are_found_as_pods_come_and_go(api: KubeApi, kubeconfig: str) -> None:
    api.put("/api/v1/namespaces/shop/pods/cart-v1-59c4d7-x2k9p", **DEPLOYED)
    host = RecordingHost()
    async with running(ADAPTER, {"kubeconfigPath": kubeconfig}, host) as handler:
        await known(host, 1)
        assert await handler.generate(destination("10.4.2.9")) == {
            "destination_pod_uid": "kubernetes://cart-v1-59c4d7-x2k9p.shop",
            "destination_pod_ip": ip_address("10.4.2.9"),
            "destination_pod_name": "cart-v1-59c4d7-x2k9p",
            "destination_labels": {"app": "cart", "pod-template-hash": "59c4d7"},
            "destination_namespace": "shop",
            "destination_service_account_name": "cart",
            "destination_host_ip": ip_address("192.168.0.2"),
            "destination_workload_uid": "istio://shop/workloads/cart-v1",
            "destination_workload_name": "cart-v1",
            "destination_workload_namespace": "shop",
            "destination_owner": "kubernetes://apis/apps/v1/namespaces/shop/deployments/cart-v1",
            "destination_container_name": "web",
        }
        by_uid = Kubernetes(instance="k.default", source_uid="kubernetes://cart-v1-59c4d7-x2k9p.shop")
        assert (await handler.generate(by_uid))["source_pod_ip"] == ip_address("10.4.2.9")
        assert await handler.generate(destination("10.4.2.10")) == {}

        api.put("/api/v1/namespaces/shop/pods/alone", status={"phase": "Running", "podIP": "10.4.2.10"})
        await known(host, 2)
        found: Mapping[str, Value] = await handler.generate(destination("::ffff:10.4.2.10"))
        assert found["destination_workload_name"] == "alone"
        assert "destination_service_account_name" not in found

        api.remove("/api/v1/namespaces/shop/pods/cart-v1-59c4d7-x2k9p")
        await known(host, 1)
        assert await handler.generate(destination("10.4.2.9")) == {}


async def test_what_was_known_holds_while_the_server_is_away(api: KubeApi, kubeconfig: str) -> None:
    api.put("/api/v1/namespaces/shop/pods/cart", **DEPLOYED)
    host = RecordingHost()
    async with running(ADAPTER, {"kubeconfigPath": kubeconfig}, host) as handler:
        await known(host, 1)
        api.down = True
        api.break_watches()
        assert (await handler.generate(destination("10.4.2.9")))["destination_pod_name"] == "cart"


def pod(name: str, address: str | None, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "n"},
        "spec": {},
        "status": {"phase": "Running", "podIP": address, **status},
    }


def test_pods_that_have_ended_or_share_the_nodes_address_are_not_found_by_it() -> None:
    assert read(pod("a", "10.0.0.1", phase="Succeeded")) is None
    shared = read({**pod("a", "10.0.0.1"), "spec": {"hostNetwork": True}})
    assert shared is not None
    assert shared.address is None
    for strange in ({}, {"metadata": {"name": "a"}}, {"metadata": None, "spec": None, "status": None}):
        assert read(strange) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans())))
def test_an_address_is_the_last_pods_that_got_it(changes: list[tuple[str, int, bool]]) -> None:
    """Two pods may claim one for a moment; when the later one goes, the earlier isn't believed again."""
    pods, holders = Pods(), dict[int, str]()
    for name, number, gone in changes:
        for held in [held for held, holder in holders.items() if holder == name]:
            del holders[held]
        if gone:
            pods.drop("n", name)
            continue
        made = read(pod(name, f"10.0.0.{number}"))
        assert made is not None
        pods.put(made)
        holders[number] = name
    for number in range(4):
        found = pods.find("", ip_address(f"10.0.0.{number}"))
        assert (found.name if found else None) == holders.get(number)
