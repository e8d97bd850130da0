"""nsm-registry: the mesh's network services and endpoints; and, in `manager`, the network service manager of a node."""
