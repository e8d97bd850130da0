"""Configuration objects: their schemas (pydantic, for input) and the mesh they describe (frozen dataclasses)."""
