"""Service Mesh Interface kinds."""
