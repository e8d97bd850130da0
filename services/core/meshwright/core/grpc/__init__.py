"""The one place where gRPC servers and channels are made: mutual TLS by SPIFFE ID, limits and deadlines included.

One decision to know: today they stand on grpcio; services only see this package, so that the native front
(`meshwright.dataplane.grpc`) can take over without a change in them.
"""

from meshwright.core.grpc.authorization import Authorization, peer_id
from meshwright.core.grpc.channel import Channel
from meshwright.core.grpc.server import Server

__all__ = ["Authorization", "Channel", "Server", "peer_id"]
