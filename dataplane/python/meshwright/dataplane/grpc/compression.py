"""Compression of messages, by grpcio's constants and by the names that headers carry."""

from typing import Final, Literal

import grpc

Encoding = Literal["gzip", "deflate"]

_ENCODINGS: Final[dict[grpc.Compression, Encoding | None]] = {
    grpc.Compression.NoCompression: None,
    grpc.Compression.Deflate: "deflate",
    grpc.Compression.Gzip: "gzip",
}


def encoding_of(compression: grpc.Compression | None) -> Encoding | None:
    """Return the encoding's name in headers; None for no compression."""
    return None if compression is None else _ENCODINGS[compression]
