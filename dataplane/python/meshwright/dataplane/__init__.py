"""The data plane for Python: the gRPC server and channel, telemetry of native code, and the packet forwarder.

One decision to know: `_native` is private; every part of it has one thin typed module here.
"""
