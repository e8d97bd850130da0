"""Discovery: from a mesh to Envoy's resources (pure functions), and from resources to proxies (streams).

Layers, each using only those before it: `wire` and `types`; the translators `tls`, `filters`, `cluster`, `endpoint`,
`route`, `listener`; `snapshot` (all resources of a mesh); `subscription` (what one proxy has and needs); `hub` and
`server` (streams). Translators know nothing of gRPC.
"""
