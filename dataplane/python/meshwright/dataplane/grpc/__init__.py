"""gRPC on the Rust transport: a server and a channel for ordinary generated grpcio servicers and stubs.

One decision to know: the objects here are those of `grpc.aio` (they subclass its interfaces, raise its errors and use
its status codes), so that a service moves between the two without a change. What grpcio lacks comes on top: mutual TLS
by SPIFFE ID with live rotation, and file descriptors beside the calls on Unix sockets.
"""

from meshwright.dataplane.grpc.channel import NativeChannel
from meshwright.dataplane.grpc.context import Context, SyncContext
from meshwright.dataplane.grpc.descriptors import Descriptors, open_descriptors
from meshwright.dataplane.grpc.identity import IdentitySource, X509Identity
from meshwright.dataplane.grpc.limits import Limits
from meshwright.dataplane.grpc.method import nonblocking
from meshwright.dataplane.grpc.options import ChannelOptions
from meshwright.dataplane.grpc.outside import OutsideTls
from meshwright.dataplane.grpc.server import NativeServer

__all__ = [
    "ChannelOptions",
    "Context",
    "Descriptors",
    "IdentitySource",
    "Limits",
    "NativeChannel",
    "NativeServer",
    "OutsideTls",
    "SyncContext",
    "X509Identity",
    "nonblocking",
    "open_descriptors",
]
