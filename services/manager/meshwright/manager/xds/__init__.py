"""Discovery: from a mesh to Envoy's resources (pure functions), and from resources to clients (streams).

Layers, each using only those before it: `wire` and `types`; the translators `tls`, `filters`, `cluster`, `endpoint`,
`route`, `listener`; `snapshot` (all resources of a mesh). Beside them the protocol, which knows resources only by
`source`: `typestate` and `subscription` (what one client has and needs), `streams`, `stream` and `server`. `hub` puts
snapshots behind the server, `cache` whatever others set. Translators and protocol know nothing of gRPC.
"""
