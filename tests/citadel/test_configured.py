"""citadel alone: registrations from a folder of YAML, reloaded on change; faults name file, document and field."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from citadels import WEB, agent, citadel, insecure

from meshwright.api.citadel.v1 import admin_pb2, registration_pb2
from meshwright.api.spiffe.workload import workload_pb2, workload_pb2_grpc
from meshwright.citadel.agent.process import start_time
from meshwright.citadel.registrations import configured
from meshwright.citadel.registrations.model import Registration, Selector
from meshwright.core import config

GOOD = """
apiVersion: citadel.meshwright.io/v1alpha1
kind: WorkloadRegistration
metadata: {name: web, namespace: shop}
spec:
  spiffeId: spiffe://mesh.local/ns/shop/sa/web
  selectors: [{type: "unix:uid", value: "1000"}]
  ttlSeconds: 60
  dnsNames: [web.shop.svc]
  node: n1
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: of-mixer, namespace: shop}
spec: {match: "true"}
"""


def read(folder: Path, text: str) -> list[Registration]:
    (folder / "registrations.yaml").write_text(text)
    return configured.read(config.read_documents(folder), "mesh.local", timedelta(days=1))


def test_a_document_is_a_registration_and_other_groups_are_left_alone(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD) == [
        Registration(
            id="config.shop.web",
            spiffe_id=WEB,
            selectors=(Selector("unix:uid", "1000"),),
            ttl=timedelta(seconds=60),
            dns_names=("web.shop.svc",),
            node="n1",
        )
    ]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("kind: WorkloadRegistration", "kind: Registration", r"kind: .*isn't known \(write citadel"),
        ("v1alpha1", "v1", r"kind: .*isn't known"),
        ("spiffeId:", "spiffeID:", r"spec\.spiffeId: Field required"),
        ("  node: n1", "  nodes: n1", r"spec\.nodes: Extra inputs"),
        ("ttlSeconds: 60", "ttlSeconds: long", r"spec\.ttlSeconds: "),
        ("ttlSeconds: 60", "ttlSeconds: 1", r"spec\.ttl: "),
        ("ttlSeconds: 60", "ttlSeconds: 1.0e+300", r"spec\.ttlSeconds: "),
        ('value: "1000"', "value: 1000", r"spec\.selectors\[0\]\.value: Input should be a valid string"),
        ('"unix:uid"', '"unix:user"', r"spec\.selectors\[0\]\.type: .*known types"),
        ("mesh.local/ns/shop", "mesh.local/ns/meshwright-system", r"spec\.spiffe_id: .*platform's own namespace"),
        ("[web.shop.svc]", '["*.shop.svc"]', r"spec\.dns_names\[0\]: "),
    ],
)
def test_faults_name_file_document_and_field(tmp_path: Path, old: str, new: str, reason: str) -> None:
    with pytest.raises(config.DocumentError, match=rf"registrations\.yaml#1.*{reason}"):
        read(tmp_path, GOOD.replace(old, new, 1))


async def test_a_folder_is_enough_and_changes_are_followed(short_tmp: Path) -> None:
    """From the file to the workload's certificate; a broken file keeps what was good."""
    folder = short_tmp / "config"
    folder.mkdir()
    process = f"{os.getpid()}@{start_time(os.getpid())}"
    text = GOOD.replace("unix:uid", "unix:pid").replace("1000", process).replace("  node: n1\n", "")
    (folder / "web.yaml").write_text(text)
    async with citadel(short_tmp, config=folder) as up, agent(up) as target, insecure(target) as channel:
        stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
        seen: list[str] = []

        async def ask() -> None:
            call = stub.FetchX509SVID(workload_pb2.X509SVIDRequest(), metadata=(("workload.spiffe.io", "true"),))
            try:
                seen.append((await call.read()).svids[0].spiffe_id)
            except grpc.aio.AioRpcError as error:
                seen.append(error.code().name)
            call.cancel()

        async def eventually(answer: str) -> None:
            seen.clear()
            while answer not in seen[-1:]:
                await ask()

        await eventually(WEB)
        (folder / "web.yaml").write_text("kind: [")
        registration = registration_pb2.Registration(id="config.shop.web", spiffe_id=WEB)
        registration.selectors.add(type="unix:uid", value="0")
        with pytest.raises(grpc.aio.AioRpcError, match="those of the folder"):
            await up.admin.Register(admin_pb2.RegisterRequest(registration=registration))
        await eventually(WEB)
        (folder / "web.yaml").write_text(text.replace("sa/web", "sa/other"))
        await eventually(f"{WEB.removesuffix('web')}other")
        (folder / "web.yaml").unlink()
        await eventually("PERMISSION_DENIED")


async def test_a_broken_folder_ends_the_start(short_tmp: Path) -> None:
    folder = short_tmp / "config"
    folder.mkdir()
    (folder / "web.yaml").write_text(GOOD.replace("spiffeId", "spiffe"))
    with pytest.raises(ExceptionGroup) as caught:
        async with citadel(short_tmp, config=folder):
            pass
    assert caught.value.subgroup(config.DocumentError)
