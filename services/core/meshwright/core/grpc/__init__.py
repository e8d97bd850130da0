"""The one place where gRPC servers and channels are made: mutual TLS by SPIFFE ID, limits and deadlines included.

One decision to know: servers stand on the Rust front (`meshwright.dataplane.grpc`), and by one setting on grpc.aio's;
services only see this package.
"""

from meshwright.core.grpc.authorization import Authorization, peer_id
from meshwright.core.grpc.channel import Channel
from meshwright.core.grpc.server import Front, Server
from meshwright.dataplane.grpc import Limits

__all__ = ["Authorization", "Channel", "Front", "Limits", "Server", "peer_id"]
