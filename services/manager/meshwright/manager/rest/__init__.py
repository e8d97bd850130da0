"""The configuration API by HTTP and JSON, for programs without gRPC: the same parts, rules and errors."""
