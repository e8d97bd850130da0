"""Limits and timers of every connection; all sizes in bytes, all times in milliseconds."""

from __future__ import annotations

MAX_MESSAGE = 8 * 1024 * 1024  # a whole file of configuration, with room
MAX_METADATA = 32 * 1024
DEFAULT_DEADLINE_SECONDS = 10.0  # for unary calls whose caller gave none

_COMMON = [
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_metadata_size", MAX_METADATA),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]

SERVER_OPTIONS = [
    *_COMMON,
    ("grpc.so_reuseport", 0),  # a taken port must be an error, not a silent second server
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 5),
]

CHANNEL_OPTIONS = [
    *_COMMON,
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),  # parts of one mesh restart within seconds
]
