"""citadel: the mesh's certificate authority, its registrations, and the node agent that serves workloads."""
