"""Citadel's gRPC services: thin servicers over the issuer, the tokens and the registrations."""
