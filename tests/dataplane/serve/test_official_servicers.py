"""grpcio's own servicers of health and reflection run on our server, asked by grpcio's own clients."""

from __future__ import annotations

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from meshwright.dataplane.grpc import NativeServer

NAME = health.SERVICE_NAME


async def test_health_and_reflection() -> None:
    """The async reflection servicer and both health servicers: the async one and the one for threads."""
    import asyncio

    for make in (health.aio.HealthServicer, health.HealthServicer):
        servicer = make()
        server = NativeServer("127.0.0.1:0", None)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        reflection.enable_server_reflection((NAME, reflection.SERVICE_NAME), server)
        address = await server.start()
        try:
            done = servicer.set("part", health_pb2.HealthCheckResponse.NOT_SERVING)
            if done is not None:
                await done
            await asyncio.to_thread(_ask, address)
        finally:
            await server.stop(0)


def _ask(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == {NAME, reflection.SERVICE_NAME}
        service = DescriptorPool(database).FindServiceByName(NAME)
        assert {method.name for method in service.methods} >= {"Check", "Watch"}
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service="part"), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="part"), timeout=10)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
